"""Training for labels: series are held out in folds, which say how long to train and how good and sure the result is.

No row is spared for a holdout, as labelled series are few: each fold's network is judged on the series that it has not
seen (stratified cross-validation, Kohavi 1995), the steps are those at which the folds together judge best, and the
networks that are saved are fitted to everything for that many steps, with seeds of their own.

Shape letters: B batch, N series, R rows, K classes, W windows, H labels of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stacklstm_cli.config import MEDIAN, ModelConfig, TrainingConfig
from stacklstm_cli.data.history import remember
from stacklstm_cli.data.labels import are_numbers, labels_change, row_labels, series_labels
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import DataError, NothingLearnedError, UsageError
from stacklstm_cli.evaluation.comparison import Paired
from stacklstm_cli.evaluation.labelled import MAJORITY, NEAREST, neighbours
from stacklstm_cli.evaluation.labels import LabelJudgement, fit_temperature, judge, majority
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import Checkpoint, Weights
from stacklstm_cli.model.classes import LabelSpec
from stacklstm_cli.model.heads import LABELS, Scaling
from stacklstm_cli.model.inputs import InputSpec, known_categories, label_row_width, number_statistics
from stacklstm_cli.model.labels import Classifier, Flags, LabelNetwork, LabelWindows, label_spec, label_windows
from stacklstm_cli.model.layers import StackSpec, check_stack, layer_widths
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.training.fitting import describe
from stacklstm_cli.training.lessons import Lesson, Lessons
from stacklstm_cli.training.loop import Fit, OnEvent, OnSnapshot, Schedule, Snapshot, fit
from stacklstm_cli.training.promotion import ENOUGH_UNITS
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock, Interrupted

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
LEAST_CHANCE = 1e-12
"""Smaller probabilities count as this one."""
FOLD_SHARE = 0.5
"""Of a time limit, for the folds."""
DIVERGED = "diverged"
STOPPED = {"time": "Time was up", "signal": "Stopped by a signal"}
"""Why a run left something out, in words."""
CURVE = "curve."
"""Before the names of tensors that hold what a fold has told after so many steps."""


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


@dataclass(frozen=True)
class LabelOutcome:
    """A trained model and how it was judged."""

    checkpoint: Checkpoint
    fits: tuple[Fit, ...]
    judgement: LabelJudgement | None
    """The model and the baselines, out of fold; None where training was stopped before."""
    stopped: str
    warnings: tuple[tuple[str, str], ...]


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
    plan = LabelPlan(spec, schedule(panel, spec, truth, training), training.seed, truth, tuple(folds), weights)
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


class LabelLessons(Lessons):
    """W windows with the classes of their series or rows."""

    def __init__(self, windows: LabelWindows, origins: Origins, truth: Tensor, weights: Tensor) -> None:
        """`truth` [N] or [R], -1 where nothing is to be learned; `weights` [K] of the classes."""
        self.windows: Any = windows
        self.every_step = False
        self.series = torch.as_tensor(origins.series, device=windows.device)  # [W]
        self.rows = torch.as_tensor(origins.rows, device=windows.device)  # [W]
        self.truth, self.weights = truth, weights
        self.every_row = label_spec(windows.spec).every_row
        kept = (self.labels(self.series, self.rows) >= 0).any(1)
        self.series, self.rows = self.series[kept], self.rows[kept]

    def labels(self, series: Tensor, rows: Tensor) -> Tensor:
        """[B, H] the class of each label of some windows; -1 where there is none."""
        if not self.every_row:
            return self.truth[series].unsqueeze(1)  # [B, 1]
        places = rows.unsqueeze(1) + self.windows.steps_back  # [B, L]
        inside = places >= 0
        index = torch.where(inside, self.windows.offsets[series].unsqueeze(1) + places, 0)
        return torch.where(inside, self.truth[index], -1)  # [B, L]

    def batch(self, chosen: Tensor, *, exact: bool = False) -> Lesson:
        series, rows = self.series[chosen], self.rows[chosen]  # [B], [B]
        labels = self.labels(series, rows)  # [B, H]
        known = torch.where(labels >= 0, self.weights[labels.clamp(min=0)], 0.0)  # [B, H]
        one = torch.ones(len(series), 1, device=self.series.device)
        inputs = self.windows.inputs(series, rows).to(self.windows.device, torch.float32)
        return Lesson(inputs, labels.clamp(min=0), known, one, Scaling(one, one))

    def thinned(self, most: int) -> Lessons:
        """All of them: labelled series are few."""
        return self


@dataclass(frozen=True)
class CrossValidation:
    """What the folds have told."""

    curves: tuple[Curve, ...]
    fits: tuple[Fit, ...]
    steps: int
    """At which the folds together judge best."""
    held: Ints
    """Series, or rows, that were held out of some fold."""
    found: Floats
    """[held, K] what the networks that had not seen them say of them at these steps, calibrated."""
    temperature: float
    cut: str = ""
    """Why folds are missing: "time", "signal", "diverged"; "" where all have judged."""

    def losses(self, truth: Ints) -> Floats:
        """[held] what the true class of each was a surprise [nats]."""
        return surprises(self.found, truth[self.held])


class LabelTrainer:
    """One training, from the folds to the networks that are saved."""

    def __init__(
        self,
        panel: Panel,
        plan: LabelPlan,
        *,
        device: torch.device,
        clock: Clock,
        on_event: OnEvent,
        resume: Resume | None = None,
    ) -> None:
        """`resume` is asked where an earlier run was interrupted, and told how far this one is."""
        if resume is not None:
            resume.open(panel, plan, clock)
        self.resume = resume
        self.panel, self.plan, self.device, self.clock, self.on_event = panel, plan, device, clock, on_event
        self.windows = LabelWindows(panel, plan.spec, device)
        self.origins = label_windows(panel.lengths, plan.spec)

    def run(self, options: dict[str, Any]) -> LabelOutcome:
        """Train and judge. `options` are those that were given. Raises `NothingLearnedError` or `Interrupted`."""
        return self.finish(self.cross_validate(), options)

    def cross_validate(self) -> CrossValidation:
        """Fit a network on each fold, as far as time allows. Raises as `run` does where there is not one."""
        plan = self.plan
        curves: list[Curve] = []
        fits: list[Fit] = []
        cut: str = ""
        for fold in range(len(plan.folds)):
            cut = self.clock.stopped(FOLD_SHARE) if curves else ""
            if cut:
                break
            curve = Curve(self.panel, plan, fold, self.device)
            try:
                fits.append(self.fit(plan.folds[fold], fold, curve, f"fold {fold + 1}", FOLD_SHARE))
            except (NothingLearnedError, Interrupted):
                if not fits:
                    raise
                cut = self.clock.stopped(FOLD_SHARE) or DIVERGED
                break
            curves.append(curve)
        steps, held, found = best_steps(curves, plan)
        temperature = fit_temperature(certain(found), plan.truth[held]) if len(held) else 1.0
        return CrossValidation(tuple(curves), tuple(fits), steps, held, softened(found, temperature), temperature, cut)

    def finish(self, told: CrossValidation, options: dict[str, Any]) -> LabelOutcome:
        """Fit the networks that are saved on all that has a label, for as many steps as the folds have found."""
        members, cut = self.members(told.steps)
        whole = [one for one in members if one.steps >= told.steps]
        final = whole or members[:1] or [told.fits[0]]
        judgement = self.judged(told.held, told.found) if len(told.held) else None
        reasons = (*(one.stopped for one in told.fits), told.cut, cut)
        stopped = next((why for why in reasons if why in STOPPED), "")
        return LabelOutcome(
            self.checkpoint(final, told, judgement, options, stopped),
            (*told.fits, *members),
            judgement,
            stopped,
            tuple(self.warnings(told, members, whole, cut)),
        )

    def members(self, steps: int) -> tuple[list[Fit], str]:
        """The networks on all that has a label, as far as time allows, and why some are missing or short: "time",
        "signal", "diverged", or "" where none is."""
        found: list[Fit] = []
        count = label_spec(self.plan.spec).members
        for member in range(count):
            cut = self.clock.stopped((1 + FOLD_SHARE + member / count * FOLD_SHARE) / 2 if found else 1.0)
            if cut == "signal" or (found and cut):
                return found, cut
            try:
                found.append(self.fit(self.plan.truth, member, None, f"network {member + 1}", 1.0, steps))
            except (NothingLearnedError, Interrupted):
                return found, self.clock.stopped() or DIVERGED
        return found, next((one.stopped for one in found if one.stopped), "")

    def warnings(
        self, told: CrossValidation, members: list[Fit], whole: list[Fit], cut: str
    ) -> Iterator[tuple[str, str]]:
        """(code, sentence) of what a user must know before trusting this model; `cut` is why networks are missing."""
        plan = self.plan
        wanted, folds = label_spec(plan.spec).members, len(plan.folds)
        why = STOPPED.get(cut, "Training diverged")
        early = STOPPED.get(
            told.cut or next((one.stopped for one in told.fits if one.stopped), ""), "Training diverged"
        )
        if len(told.curves) < folds:
            yield "fewer_folds", f"{early}: {len(told.curves)} of {folds} folds have judged."
        if not told.held.size:
            yield "not_judged", f"{early} before judging: the model has no table."
        if not members:
            yield "not_refitted", f"{why} before the last fit: the network of the first fold was kept."
        elif not whole:
            yield "refit_shortened", f"{why}: the network made {members[0].steps} of {told.steps} steps."
        elif len(whole) < wanted:
            yield "time_up", f"{why}: {len(whole)} of {wanted} networks were fitted."
        late = plan.never_judged()
        if late:
            yield (
                "class_not_judged",
                f"Nothing is known of how well these classes are told, which {plan.alone}: {', '.join(late)}.",
            )
        recoveries = sum(one.recoveries for one in (*told.fits, *members))
        if recoveries:
            times = f"{recoveries} time{'s' * (recoveries > 1)}"
            yield (
                "diverged_recovered",
                f"Training diverged {times}: each time it went back and halved the learning rate.",
            )

    def fit(
        self, truth: Ints, number: int, curve: Curve | None, phase: str, share: float, steps: int | None = None
    ) -> Fit:
        """A new network, fitted to what `truth` holds; its statistics of features are those of the same series."""
        plan = self.plan
        done = self.resume.finished(phase) if self.resume is not None else None
        if done is not None:
            if curve is not None:
                curve.recall(done.told)
            return done.fit
        seed = plan.seed + 1000 * number
        with self.clock.interruptible(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = LabelNetwork(plan.spec)
        set_statistics(network, self.panel, truth, plan.every_row)
        known, weights = (torch.as_tensor(part, device=self.device) for part in (truth, plan.weights))
        lessons = LabelLessons(self.windows, self.origins, known, weights.float())
        judged = None
        state = self.resume.snapshot(phase) if self.resume is not None else None
        if curve is not None:
            curve.like(network)
            curve.recall({} if state is None else state.tensors)
            held = torch.as_tensor(np.where(plan.held_out(curve.fold), plan.truth, -1), device=self.device)
            judged = LabelLessons(self.windows, self.origins, held, weights.float())
        fitted = fit(
            network.to(self.device),
            lessons,
            judged,
            replace(plan.schedule, max_steps=steps or plan.schedule.max_steps),
            seed=seed,
            clock=self.clock,
            phase=phase,
            share_of_time=share,
            on_event=self.on_event,
            state=state,
            on_snapshot=self.taker(phase, curve),
        )
        if curve is not None and not curve.found and fitted.stopped != "signal":
            curve.look(fitted.weights, fitted.steps)
        if self.resume is not None and fitted.stopped != "signal":
            self.resume.finish(phase, fitted, told={} if curve is None else curve.told())
        return fitted

    def taker(self, phase: str, curve: Curve | None) -> OnSnapshot:
        """What becomes of the snapshots of a fit."""

        def take(snapshot: Snapshot, better: bool) -> None:
            told: Weights = {}
            if curve is not None:
                curve.take(snapshot)
                told = curve.told()
            if self.resume is not None:
                self.resume.offer(phase, replace(snapshot, tensors=snapshot.tensors | told), better)

        return take

    def judged(self, held: Ints, found: Floats) -> LabelJudgement:
        """The model's probabilities [held, K] beside the baselines', each fold's from what that fold has learned."""
        plan, size = self.plan, len(self.plan.classes)
        places = [np.flatnonzero(plan.held_out(fold)) for fold in range(len(plan.folds))]
        plain = np.empty((plan.truth.size, size))
        for learned, wanted in zip(plan.folds, places, strict=True):
            # What a stratified fold leaves lacks just what it asks for, and its shares would be wrong the more for it.
            plain[wanted] = majority(learned if plan.every_row else plan.truth, wanted.size, size)
        near = neighbours(self.panel, plan.every_row, plan.folds, places, size)
        predictions = {MODEL: found, MAJORITY: plain[held], NEAREST: near[held]}
        return judge(predictions, plan.truth[held], plan.classes)

    def checkpoint(
        self,
        final: list[Fit],
        told: CrossValidation,
        judgement: LabelJudgement | None,
        options: dict[str, Any],
        stopped: str,
    ) -> Checkpoint:
        panel, plan = self.panel, self.plan
        over, groups = units_of(panel, plan, told.held)
        losses = unit_means(told.losses(plan.truth), groups)  # [U]
        labels = replace(label_spec(plan.spec), members=len(final), temperature=told.temperature)
        return Checkpoint(
            columns=panel.columns,
            step=panel.step,
            time_form=panel.time_form,
            seasonality=1,
            keys=panel.keys,
            spec=replace(plan.spec, labels=labels),
            final={
                f"{place}.{name}": weight for place, one in enumerate(final) for name, weight in one.weights.items()
            },
            trained_to=panel.ends,
            judged=None,
            judged_to=panel.ends,
            data_to=panel.ends,
            data=describe(panel) | {"fingerprint": panel.fingerprint()},
            metrics={} if judgement is None else judgement.metrics(),
            training={
                **vars(plan.schedule),
                "seed": plan.seed,
                "folds": len(told.curves),
                "judged": len(told.held),
                "units": losses.size,
                "paired_over": over,
                "unit_loss": float(losses.mean()) if losses.size else None,
                "spread": spread(losses),
                "class_counts": np.bincount(plan.truth[plan.truth >= 0], minlength=len(plan.classes)).tolist(),
                "history": [],
                "steps": final[0].steps,
                "epochs": final[0].epochs,
                "stopped": stopped,
            },
            options=options,
            history=remember(panel),
        )


class Curve:
    """What a fold's averaged weights say of the series that it has not seen, each time they are validated."""

    def __init__(self, panel: Panel, plan: LabelPlan, fold: int, device: torch.device) -> None:
        self.panel, self.fold, self.device = panel, fold, device
        self.held = np.flatnonzero(plan.held_out(fold))
        """Indices of the series, or rows, that are held out."""
        series = self.held if not plan.every_row else np.searchsorted(panel.offsets, self.held, "right") - 1
        self.wanted = np.isin(np.arange(panel.n_series), series)  # [N]
        self.found: dict[int, Floats] = {}
        """By steps: [held, K] probabilities."""

    def like(self, network: LabelNetwork) -> None:
        """Weights of this network will be looked at."""
        self.network = LabelNetwork(network.spec)
        self.network.load_state_dict(network.state_dict())

    def told(self) -> Weights:
        """What was found, as tensors that a file can hold."""
        return {f"{CURVE}{steps}": torch.as_tensor(found) for steps, found in self.found.items()}

    def recall(self, told: Weights) -> None:
        """Take up what an interrupted run has found."""
        mine = {name: found for name, found in told.items() if name.startswith(CURVE)}
        self.found |= {int(name.removeprefix(CURVE)): found.numpy() for name, found in mine.items()}

    def take(self, snapshot: Snapshot) -> None:
        """Look at the averaged weights of a snapshot."""
        names = [name for name, _ in self.network.named_parameters()]
        means = {name: snapshot.tensors[f"mean.{place}"] for place, name in enumerate(names)}
        norms = {name: snapshot.tensors[f"network.{name}"] for name, _ in self.network.named_buffers()}
        self.look(means | norms, snapshot.numbers["step"])

    def look(self, weights: Weights, steps: int) -> None:
        """Look at the weights after so many steps."""
        self.network.load_state_dict(weights, strict=False)
        classifier = Classifier([self.network], self.device)
        self.found[steps] = classifier.probabilities(self.panel, self.wanted)[self.held]


def best_steps(curves: list[Curve], plan: LabelPlan) -> tuple[int, Ints, Floats]:
    """The steps at which the folds together are least surprised, what they were judged on, and [held, K] what they
    said of it. A fold that ended earlier stands with its last word.

    What counts is the surprise that is left once the probabilities are calibrated: networks of few series grow too sure
    of themselves long before they stop getting better.
    """
    told = [curve for curve in curves if curve.found]
    if not told:
        return plan.schedule.max_steps, np.empty(0, dtype=np.int64), np.empty((0, len(plan.classes)))
    held = np.concatenate([curve.held for curve in told])
    truth = plan.truth[held]

    def said(steps: int) -> Floats:
        parts = [curve.found[max([at for at in curve.found if at <= steps] or [min(curve.found)])] for curve in told]
        return np.concatenate(parts)  # [held, K]

    def surprise(steps: int) -> float:
        found = said(steps)
        sure = softened(found, fit_temperature(certain(found), truth))
        return float(surprises(sure, truth) @ plan.weights[truth])

    steps = min(sorted({at for curve in told for at in curve.found}), key=surprise)
    return steps, held, said(steps)


def units_of(panel: Panel, plan: LabelPlan, places: Ints, over: Paired | None = None) -> tuple[Paired, Ints]:
    """What is paired, and the unit [G] of each place: series; of rows of few series, stretches with one label.

    Of rows, `over` says which of the two; None is by the number of series.
    """
    if not plan.every_row:
        return "series", np.arange(places.size)
    series = np.searchsorted(panel.offsets, places, "right") - 1
    numbers = np.unique(series, return_inverse=True)[1]
    many = bool(places.size) and int(numbers.max()) + 1 >= ENOUGH_UNITS
    if not places.size or over == "series" or (over is None and many):
        return "series", np.asarray(numbers)
    begins = (np.diff(series) != 0) | (np.diff(plan.truth[places]) != 0)
    return "stretches", np.concatenate([[0], np.cumsum(begins)])


def unit_means(losses: Floats, groups: Ints) -> Floats:
    """[U] means of losses [G] over the units `groups` [G]."""
    return np.asarray(np.bincount(groups, losses) / np.bincount(groups))


def certain(probabilities: Floats) -> Floats:
    """The logarithms of probabilities."""
    return np.asarray(np.log(np.maximum(probabilities, LEAST_CHANCE)))


def surprises(probabilities: Floats, truth: Ints) -> Floats:
    """[R] -log of the probability [R, K] of each true class [nats]."""
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(truth.size), truth], LEAST_CHANCE)))


def spread(values: Floats) -> float | None:
    """Standard deviation; None of fewer than two."""
    return float(values.std(ddof=1)) if values.size > 1 else None


def softened(probabilities: Floats, temperature: float) -> Floats:
    """Probabilities [..., K] with their logarithms divided by a temperature."""
    powers = np.maximum(probabilities, LEAST_CHANCE) ** (1 / temperature)
    shares: Floats = powers / powers.sum(-1, keepdims=True)
    return shares


def last_known(panel: Panel, known: Flags) -> Ints:
    """[N] rows of each series up to the last one of `known` [R]; 0 where there is none."""
    place = np.arange(known.size) - np.repeat(panel.offsets[:-1], panel.lengths)  # [R]
    return np.maximum.reduceat(np.where(known, place + 1, 0), panel.offsets[:-1])


def set_statistics(network: LabelNetwork, panel: Panel, truth: Ints, every_row: bool) -> None:
    """Means and deviations of the features, over the series from which something is learned, of rows up to the last
    one that teaches."""
    known = truth >= 0
    ends = np.where(known, panel.lengths, 0) if not every_row else last_known(panel, known)
    mean, deviation = number_statistics(panel, ends)
    timed = len(network.spec.inputs.of("past"))
    for features, begin, end in ((network.past, 0, timed), (network.static, timed, len(mean))):
        features.mean.copy_(torch.as_tensor(mean[begin:end][features.numbers]))
        features.deviation.copy_(torch.as_tensor(deviation[begin:end][features.numbers]))
