"""What is trained to tell labels, and on what: network and schedule by rules, the folds, and what is refused.

Shape letters: N series, R rows, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stacklstm_cli.config import MEDIAN, ModelConfig, TrainingConfig
from stacklstm_cli.data.labels import are_numbers, labels_change, row_labels, series_labels
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import DataError, UsageError
from stacklstm_cli.model.classes import LabelSpec
from stacklstm_cli.model.heads import LABELS
from stacklstm_cli.model.inputs import InputSpec, known_categories, label_row_width
from stacklstm_cli.model.labels import Flags, label_spec, label_windows
from stacklstm_cli.model.layers import StackSpec, check_stack, layer_widths
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.training.loop import Schedule

MOST_FOLDS = 4
LEAST_MEMBERS = 2
"""Series of a class, or rows of it, without which nothing of it could be held out."""
HELD_OUT_ROWS = 0.25
"""Share of the rows of each series that are held out at its end, where there are too few series for folds."""
MOST_STEPS = 32
"""Of the stack over one series: it reads longer ones several rows at a time."""
MOST_PLACES = 128
"""That the convolutions look at in one series: in longer ones, they look at every second, third ... row."""
FILTERS = (64, 128, 64)
"""Of the convolutions: half as many as in the paper, for a quarter of the work."""
STACK_WIDTHS = {False: 16, True: 64}
"""Of the layers, by whether each row has a label. One label per series is few to learn from: beside convolutions a
wide stack learns the series by heart."""
STACK_DROPOUT = {False: 0.8, True: 0.3}
"""Of what the stack says: that of Karim et al. where there are as few labels as there."""
MEMBERS = 3
STEPS = 300
"""Of a fit, where labels are those of series or the rows are few."""
WORK = 600_000
"""Places that the convolutions look at and steps that the stack makes, in all batches of a fit: more steps are not
made, so that a fit takes some ten seconds of one core however many and long the series are."""
LEAST_STEPS = 40
CHECKS = 4
"""Validations of a fold, one of which says how many steps are made."""
ROWS_CONTEXT = 128
"""Rows of a window where each row has a label."""
MOST_CLASSES = 1000
MANY_NUMBERS = 100
"""More distinct numbers than these as labels were rather meant to be forecast."""


@dataclass(frozen=True)
class LabelPlan:
    """What is trained, and on what."""

    spec: NetworkSpec
    schedule: Schedule
    seed: int
    truth: Ints
    """[N] class of each series or [R] of each row; -1 where there is none."""
    folds: tuple[Ints, ...]
    """For each fold, [N] or [R]: what is learned, with -1 for what is held out or unknown."""
    weights: Floats
    """[K] how much each class counts, 1 on the average of the rows or series."""
    precision: str = "auto"
    """That of the training, as it was asked for."""

    @property
    def classes(self) -> tuple[str, ...]:
        return label_spec(self.spec).classes

    @property
    def every_row(self) -> bool:
        return label_spec(self.spec).every_row

    @property
    def seasonality(self) -> int:
        """Labels have no season."""
        return 1

    @property
    def most_context(self) -> int:
        """Rows of the longest context that a search may try."""
        return self.spec.context_length

    def held_out(self, fold: int) -> Flags:
        """[N] or [R] what a fold is judged on: what is held out, but for classes that the fold never learns."""
        taught = np.bincount(self.folds[fold][self.folds[fold] >= 0], minlength=len(self.classes)) > 0  # [K]
        return (self.truth >= 0) & (self.folds[fold] < 0) & taught[self.truth]

    def explained(self) -> list[str]:
        """What is trained, for a person."""
        spec, labels, counts = self.spec, label_spec(self.spec), np.bincount(self.truth[self.truth >= 0])
        of = "rows" if labels.every_row else "series"
        shown = ", ".join(f"{name} {count:,}" for name, count in zip(labels.classes[:12], counts[:12], strict=False))
        rest = f" and {len(counts) - 12} more" if len(counts) > 12 else ""
        beside = f", convolutions of {','.join(map(str, labels.filters))} beside" if labels.filters else ""
        scale = "one label per time step, as it changes within a series" if labels.every_row else "one label per series"
        reads = f"{spec.context_length} rows" + (f", {spec.patch_length} at a time" if spec.patch_length > 1 else "")
        folds = (
            f"{len(self.folds)} folds of the series choose the steps"
            if len(self.folds) > 1
            else f"the last {HELD_OUT_ROWS:.0%} of the rows choose the steps"
        )
        alone = self.never_judged()
        late = [f"classes that nothing is judged by, as they {self.alone}: {', '.join(alone)}"] if alone else []
        return [
            f"labels: {scale}",
            f"classes: {len(labels.classes)} of {of}: {shown}{rest}",
            f"network: {spec.stack.explained()} over {reads}{beside}; {labels.members} networks averaged",
            f"training: {folds}, {self.schedule.max_steps} at most of {self.schedule.batch_size} windows",
            *late,
        ]

    @property
    def alone(self) -> str:
        """Where classes stand that no fold can learn before it is asked for them."""
        return "stand in series of one fold only" if len(self.folds) > 1 else "come last only"

    def never_judged(self) -> list[str]:
        """Classes that stand only where they are held out, so that no fold can learn them before."""
        judged = np.logical_or.reduce([self.held_out(fold) for fold in range(len(self.folds))])
        held = np.logical_or.reduce([(self.truth >= 0) & (fold < 0) for fold in self.folds])
        return [self.classes[code] for code in np.unique(self.truth[held & ~judged]).tolist()]


def plan_labels(
    panel: Panel, network: ModelConfig, training: TrainingConfig, *, every_row: bool | None = None
) -> LabelPlan:
    """What will be trained; `every_row` says whether each row has a label of its own, which else the labels tell.

    Raises `DataError` for labels that cannot be learned, `UsageError` for such options.
    """
    every_row = labels_change(panel) if every_row is None else every_row
    if every_row and network.attention:
        raise UsageError(
            "--attention weighs the rows of a series for its one label; here each row has a label of its own.",
            hint="Leave --attention out.",
            code="label_conflict",
        )
    truth = row_labels(panel) if every_row else series_labels(panel)
    refuse_labels(panel, truth, every_row)
    times = panel.columns.time_names if every_row else ()
    refuse_twice([*panel.columns.key_names, *times], panel.columns.targets[0], panel.classes)
    counts = np.bincount(truth[truth >= 0], minlength=len(panel.classes))
    weights = counts.sum() / (len(counts) * counts) if training.class_weights == "balanced" else np.ones(len(counts))
    folds = split_rows(panel, truth, training.seed) if every_row else split_series(truth, training.seed)
    spec = network_spec(panel, network, every_row)
    steps = schedule(panel, spec, truth, training)
    plan = LabelPlan(spec, steps, training.seed, truth, tuple(folds), weights, training.precision)
    if not all(plan.held_out(fold).any() for fold in range(len(plan.folds))):
        held, others = (
            ("The series of one fold", "the other series")
            if len(plan.folds) > 1
            else (f"The last {HELD_OUT_ROWS:.0%} of the rows with labels", "the rows before them")
        )
        raise DataError(
            f"{held} hold no class of {others}, so that nothing could be judged.",
            hint="Give more series, each with several of the classes.",
            code="nothing_to_judge",
        )
    return plan


def refuse_labels(panel: Panel, truth: Ints, every_row: bool) -> None:
    """Raise `DataError` for labels from which nothing could be learned, or of which nothing could be held out."""
    column, of = panel.columns.targets[0], "row" if every_row else "series"
    counts = np.bincount(truth[truth >= 0], minlength=len(panel.classes))
    if (are_numbers(panel.classes) and len(panel.classes) > MANY_NUMBERS) or len(panel.classes) > MOST_CLASSES:
        numbers = "numbers" if are_numbers(panel.classes) else "texts"
        raise DataError(
            f"Column {column!r} holds {len(panel.classes):,} distinct {numbers}; expected a few classes, each of "
            f"several {'rows' if every_row else 'series'}.",
            hint=f"Was a forecast of it meant? Then type --target {column} in place of --label {column}; else group "
            "the values into classes.",
            code="too_many_classes",
        )
    present = np.flatnonzero(counts)
    if present.size < 2:
        what = f"is {panel.classes[present[0]]!r} everywhere" if present.size else "is empty everywhere"
        raise DataError(
            f"Column {column!r} {what}; expected at least two classes to tell apart.",
            hint="Give data that holds several classes, or name another column with --label.",
            code="one_class",
        )
    rare = [panel.classes[code] for code in np.flatnonzero(counts < LEAST_MEMBERS)]
    if rare:
        raise DataError(
            f"Class {rare[0]!r} of column {column!r} has a single {of}; expected at least {LEAST_MEMBERS}, to learn "
            f"from and to judge by{f' ({len(rare)} such classes)' if len(rare) > 1 else ''}.",
            hint=f"Give more series of it, join it with another class, or leave it out: --missing-value {rare[0]}.",
            code="rare_class",
        )


def refuse_twice(others: Sequence[str], column: str, classes: Sequence[str]) -> None:
    """Raise `DataError` where a table of labels would hold a name twice: its columns are `others`, the label, its
    probability and that of every class."""
    own = [column, "probability", *(f"p_{name}" for name in classes)]
    twice = next((name for name in own if name in others or own.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"Column {twice!r} would stand twice in the result of predict.",
            hint="Give the id, time or label column, or the class, another name.",
            code="column_clash",
        )


def split_series(truth: Ints, seed: int) -> Iterator[Ints]:
    """Stratified folds: the series [N] of each class are dealt out in a random order."""
    counts = np.bincount(truth[truth >= 0])
    folds = int(np.clip(counts.min(), 2, MOST_FOLDS))
    generator = np.random.default_rng(seed)
    held = np.full(truth.size, -1)
    dealt = 0
    for code in range(counts.size):
        members = generator.permutation(np.flatnonzero(truth == code))
        held[members] = (dealt + np.arange(members.size)) % folds
        dealt += members.size
    for fold in range(folds):
        yield np.where(held == fold, -1, truth)


def split_rows(panel: Panel, truth: Ints, seed: int) -> Iterator[Ints]:
    """Folds of whole series where enough have labels, dealt out in a random order; else the last rows [R] of each
    series are held out, of those up to its last label."""
    last = last_known(panel, truth >= 0)  # [N]
    labelled = np.flatnonzero(last)
    if labelled.size >= 2 * MOST_FOLDS:
        held = np.full(panel.n_series, -1)
        held[np.random.default_rng(seed).permutation(labelled)] = np.arange(labelled.size) % MOST_FOLDS
        folds = np.repeat(held, panel.lengths)  # [R]
        for fold in range(MOST_FOLDS):
            yield np.where(folds == fold, -1, truth)
        return
    place = np.arange(truth.size) - np.repeat(panel.offsets[:-1], panel.lengths)  # [R]
    yield np.where(place >= np.repeat(np.floor((1 - HELD_OUT_ROWS) * last), panel.lengths), -1, truth)


def network_spec(panel: Panel, config: ModelConfig, every_row: bool) -> NetworkSpec:
    """The network: its stack as typed, the rest by the rules found on training parts of labelled data."""
    longest = int(panel.lengths.max())
    context = config.context_length or (min(ROWS_CONTEXT, longest) if every_row else longest)
    patch = config.patch_length or (1 if every_row else -(-context // MOST_STEPS))
    inputs = InputSpec(known_categories(panel, panel.lengths, panel.lengths))
    stack = StackSpec(
        patch * label_row_width(inputs),
        layer_widths(config.hidden_size or (STACK_WIDTHS[every_row],), config.layers),
        config.cell,  # type: ignore[arg-type]  # one of the option's choices
        bidirectional=True,  # a label is given once the whole series is known
        residual=config.residual,
        layer_norm=config.layer_norm,
        dropout=0.2 if config.dropout is None else config.dropout,
        recurrent_dropout=config.recurrent_dropout,
        dilations=config.dilations,
        forget_bias=1.0 if config.forget_bias is None else config.forget_bias,
        attention=config.attention,
    )
    check_stack(stack, -(-context // patch))
    return NetworkSpec(
        stack=stack,
        dropout=STACK_DROPOUT[every_row] if config.dropout is None else config.dropout,
        patch_length=patch,
        context_length=context,
        horizon=1,
        quantiles=(MEDIAN,),
        location_length=1,
        scale_length=1,
        inputs=inputs,
        skip=False,
        loss=LABELS,
        labels=LabelSpec(panel.classes, every_row, FILTERS, 1 if every_row else -(-context // MOST_PLACES), MEMBERS),
    )


def schedule(panel: Panel, spec: NetworkSpec, truth: Ints, training: TrainingConfig) -> Schedule:
    """How each fit goes."""
    windows = len(label_windows(panel.lengths, spec))
    batch = training.batch_size or 16
    epoch = max(1, windows // batch)
    places = spec.steps + -(-spec.context_length // label_spec(spec).stride)
    steps = int(np.clip(WORK // (batch * places), LEAST_STEPS, STEPS))
    if training.epochs is not None:
        steps = training.epochs * epoch
    return Schedule(
        batch_size=batch,
        learning_rate=training.learning_rate or 4e-3,
        weight_decay=0.01 if training.weight_decay is None else training.weight_decay,
        grad_clip=training.grad_clip,
        max_steps=steps,
        check_every=-(-steps // CHECKS),
        patience=training.patience or CHECKS,
        warmup=max(1, steps // 10),
        average=0.98,
        skip_rate=1.0,
        validation_windows=2**20,
        anneal=True,
    )


def last_known(panel: Panel, known: Flags) -> Ints:
    """[N] rows of each series up to the last one of `known` [R]; 0 where there is none."""
    place = np.arange(known.size) - np.repeat(panel.offsets[:-1], panel.lengths)  # [R]
    return np.maximum.reduceat(np.where(known, place + 1, 0), panel.offsets[:-1])
