"""Retraining of a model that gives labels: new networks on all series against the model in use.

Nothing is continued: labelled series are few, and their folds say of a network what no other rows could. The model in
use, the champion, has learned every label it was given, so the two meet on those that have come since, which neither
has seen: the champion's networks by their final weights, the challenger by the networks of the folds that have held
them out. Each network speaks for itself there, as a mean of several would have an advantage over the one of a fold.
Where too few labels are new, what the folds told of the champion, which its file keeps, is compared with what they
tell of the challenger; both tables hold much the same series, so that the error of that difference is overrated.

Shape letters: N series, R rows, K classes, G places that both are judged on, U units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from stacklstm_cli.config import ModelConfig, RetrainConfig, TrainingConfig
from stacklstm_cli.data.history import Changes
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import DataError, NothingLearnedError
from stacklstm_cli.evaluation.comparison import LEAST_UNITS, Comparison, Paired, paired_test, two_sided
from stacklstm_cli.evaluation.labels import score
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.labels import Classifier, Flags, label_spec
from stacklstm_cli.training.continuation import stored_config
from stacklstm_cli.training.label_folds import surprises, unit_means, units_of
from stacklstm_cli.training.label_plan import LabelPlan, plan_labels
from stacklstm_cli.training.labels import CrossValidation, LabelTrainer
from stacklstm_cli.training.loop import Fit, OnEvent
from stacklstm_cli.training.placement import Where
from stacklstm_cli.training.promotion import (
    CHALLENGER,
    CHAMPION,
    ENOUGH_UNITS,
    Decision,
    Side,
    complete,
    decide_by,
    p_value,
    rows_seen,
)
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock, Interrupted

LABEL_SCORES = ("accuracy", "log_loss")
"""Metrics of both models that the lineage keeps."""
Ground = Literal["new", "folds"]
"""Where both are judged: on labels that have come since, or each by its own folds."""


@dataclass(frozen=True)
class LabelContest:
    """Champion and challenger beside each other."""

    ground: Ground
    scores: Mapping[str, Mapping[str, float | None]]
    """Model -> metric -> value; on new labels the mean over its networks."""
    labels: int
    """Series, or rows, that the challenger was judged on."""

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Model -> metric -> value."""
        return {name: dict(scores) for name, scores in self.scores.items()}


@dataclass(frozen=True)
class LabelRetrained:
    """What a retraining found: what `Retrained` tells of forecasts."""

    changes: Changes
    plan: LabelPlan
    contest: LabelContest | None
    """None where neither new labels nor a table of the champion's are there."""
    comparison: Comparison | None
    decision: Decision
    fits: tuple[Fit, ...]
    new_classes: tuple[str, ...]
    checkpoint: Checkpoint | None = None
    """The new model; None where the champion stays."""
    stopped: str = ""
    warnings: tuple[tuple[str, str], ...] = ()
    side: ClassVar[Side] = "final"
    new_categories: ClassVar[Mapping[str, list[str]]] = {}


def retrain_labels(
    champion: Checkpoint,
    panel: Panel,
    changed: Changes,
    config: RetrainConfig,
    typed: Mapping[str, Any],
    *,
    device: Where,
    clock: Clock,
    on_event: OnEvent = lambda event: None,
    resume: Resume | None = None,
) -> LabelRetrained:
    """Cross-validate new networks, judge both, decide, and fit the new ones to all labels where they are promoted.

    Raises `DataError` and `UsageError` as `plan_labels` does, `DataError` for a class that is gone,
    `NothingLearnedError` where no step could be made, `Interrupted` at a signal.
    """
    model, training = own_options(champion, typed)
    labels = label_spec(champion.spec)
    with clock.interruptible():
        refuse_gone(panel, len(labels.classes))
        plan = plan_labels(panel, model, training, every_row=labels.every_row)
        trainer = LabelTrainer(panel, plan, device=device, clock=clock, on_event=on_event, resume=resume)
    told = trainer.cross_validate()
    if clock.stopped() == "signal":
        raise Interrupted
    with clock.interruptible():
        contest, comparison = hold_labels(champion, trainer, told)
    sound = bool(np.isfinite(told.found).all())
    found = LabelRetrained(
        changes=changed,
        plan=plan,
        contest=contest,
        comparison=comparison,
        decision=decide_by(config.gate, comparison, "too_few_labels") if sound else Decision(False, "not_finite"),
        fits=told.fits,
        new_classes=plan.classes[len(labels.classes) :],
    )
    if not found.decision.promoted:
        return found
    outcome = trainer.finish(told, champion.options | asdict(model))
    if clock.stopped() == "signal":
        raise Interrupted
    if all(code != "not_refitted" for code, _ in outcome.warnings):
        complete(outcome.checkpoint, champion, label_entry(champion, panel, config, found, outcome.fits[-1]))
        return replace(
            found,
            checkpoint=outcome.checkpoint,
            fits=outcome.fits,
            stopped=outcome.stopped,
            warnings=outcome.warnings,
        )
    raise NothingLearnedError(
        "No time was left to fit the new networks to all labels; the model is as it was.",
        hint="Allow more time with --max-time.",
        code="no_refit",
    )


def own_options(champion: Checkpoint, typed: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """The model's own options with what is typed in their place; `--max-time` is that of the run alone."""
    model, training = (stored_config(kind, champion.options) for kind in (ModelConfig, TrainingConfig))
    model = replace(model, **{name: typed[name] for name in vars(model) if name in typed})
    own = {name: typed[name] for name in vars(training) if name in typed}
    return model, replace(training, **{"max_time": None, **own})


def refuse_gone(panel: Panel, known: int) -> None:
    """Raise `DataError` where one of the first `known` classes has no label left to learn it from."""
    counts = np.bincount(panel.values[panel.values >= 0].astype(np.int64), minlength=known)
    gone = [panel.classes[code] for code in np.flatnonzero(counts[:known] == 0).tolist()]
    if gone:
        raise DataError(
            f"Column {panel.columns.targets[0]!r} holds no {gone[0]!r}, which the model tells apart"
            + (f" ({len(gone)} such classes)" if len(gone) > 1 else "")
            + "; a new model could not.",
            hint="Give the series that the model was trained on beside the new ones, or train a new model on these.",
            code="class_gone",
        )


def hold_labels(
    champion: Checkpoint, trainer: LabelTrainer, told: CrossValidation
) -> tuple[LabelContest | None, Comparison | None]:
    """Both models on the same labels of classes that both know, and what chance has to do with the difference."""
    panel, plan = trainer.panel, trainer.plan
    known = len(label_spec(champion.spec).classes)
    truth = plan.truth[told.held]
    new = (unseen(champion, panel, plan.every_row)[told.held]) & (truth < known)  # [held]
    places = told.held[new]
    over, groups = units_of(panel, plan, places)
    if groups.size and int(groups.max()) + 1 >= ENOUGH_UNITS:
        return judged_on_new(champion, trainer, places, among_known(told.found[new], known), over, groups)
    stored = champion.metrics.get(MODEL)
    if not stored or not told.held.size:
        return None, None
    old = truth < known
    ours = among_known(told.found[old], known)
    mine = score(ours, truth[old], plan.classes[:known]).metrics()
    contest = LabelContest("folds", {CHAMPION: stored, CHALLENGER: mine}, int(old.sum()))
    over, groups = units_of(panel, plan, told.held[old], champion.training.get("paired_over"))
    return contest, compare_tables(champion, unit_means(surprises(ours, truth[old]), groups), over)


def among_known(found: Floats, known: int) -> Floats:
    """[G, known] probabilities of the classes that the champion knows, if it is one of them, from those of all."""
    ours = found[:, :known]
    return np.asarray(ours / ours.sum(1, keepdims=True))


def judged_on_new(
    champion: Checkpoint, trainer: LabelTrainer, places: Ints, ours: Floats, over: Paired, groups: Ints
) -> tuple[LabelContest, Comparison]:
    """The networks of both on `places` [G] that neither has seen; `ours` [G, K] is what those of the folds say.

    `groups` [G] are the units that are paired.
    """
    truth = trainer.plan.truth[places]
    classes = label_spec(champion.spec).classes
    said = list(each_network(champion, trainer, places))  # of [G, K]
    theirs = np.mean([surprises(one, truth) for one in said], axis=0)  # [G]
    tables = [score(one, truth, classes).metrics() for one in said]
    scores = {
        CHAMPION: {name: float(np.mean([table[name] for table in tables])) for name in tables[0]},
        CHALLENGER: score(ours, truth, classes).metrics(),
    }
    counts = np.bincount(groups)
    losses = np.stack([unit_means(one, groups) for one in (surprises(ours, truth), theirs)])  # [2, U]
    mine, other = losses.mean(axis=1).tolist()
    chance, interval = paired_test(losses, 1) if counts.size >= LEAST_UNITS else (math.nan, None)
    relative = (mine - other) / other if other else math.nan
    comparison = Comparison("log_loss", mine - other, relative, interval, chance, counts.size, over)
    return LabelContest("new", scores, places.size), comparison


def each_network(champion: Checkpoint, trainer: LabelTrainer, places: Ints) -> Iterator[Floats]:
    """[G, K] what each network of the champion says alone of some places."""
    panel = trainer.panel
    series = np.searchsorted(panel.offsets, places, "right") - 1 if trainer.plan.every_row else places
    wanted = np.isin(np.arange(panel.n_series), series)  # [N]
    whole = champion.classifier(trainer.device)
    for member in whole.members:
        yield Classifier([member], trainer.device, whole.temperature).probabilities(panel, wanted)[places]


def unseen(champion: Checkpoint, panel: Panel, every_row: bool) -> Flags:
    """[N] series that the champion does not know, or [R] rows that have come since it was trained."""
    if not every_row:
        known = set(champion.keys)
        return np.asarray([key not in known for key in panel.keys], dtype=bool)
    place = np.arange(panel.values.size) - np.repeat(panel.offsets[:-1], panel.lengths)  # [R]
    return np.asarray(place >= np.repeat(rows_seen(champion, panel, champion.data_to), panel.lengths))


def compare_tables(champion: Checkpoint, losses: Floats, over: Paired) -> Comparison | None:
    """The mean of `losses` [U] over the units of the challenger beside the champion's, as two samples (Welch 1947).

    None for a champion whose file tells neither its log loss nor how much that varies.
    """
    told = champion.training
    theirs, deviation = told.get("unit_loss", champion.metrics[MODEL].get("log_loss")), told.get("spread")
    count = told.get("units", told.get("judged", 0))
    if theirs is None or deviation is None or min(count, losses.size) < LEAST_UNITS:
        return None
    mine = float(losses.mean())
    error = math.sqrt(losses.var(ddof=1) / losses.size + deviation**2 / count)
    chance = two_sided((mine - theirs) / error, min(losses.size, count) - 1) if error else float(mine == theirs)
    relative = (mine - theirs) / theirs if theirs else math.nan
    return Comparison("log_loss", mine - theirs, relative, None, chance, int(losses.size), over)


def label_entry(
    champion: Checkpoint, panel: Panel, config: RetrainConfig, found: LabelRetrained, final: Fit
) -> dict[str, Any]:
    """What the model file tells of this retraining: no clock, so that equal runs give equal files."""
    contest = found.contest
    tables = {} if contest is None else contest.metrics()
    return {
        "parent": champion.id,
        "from_scratch": True,
        "rows_added": found.changes.rows,
        "series": panel.n_series,
        "new_series": len(found.changes.new_series),
        "revised_rows": found.changes.revised_rows,
        "last": panel.stamps([int(panel.ends.max()) - 1])[0],
        "steps": final.steps,
        "gate": config.gate,
        "decision": "promoted",
        "why": found.decision.why,
        "labels": 0 if contest is None else contest.labels,
        "ground": "" if contest is None else contest.ground,
        **{name: {metric: table.get(metric) for metric in LABEL_SCORES} for name, table in tables.items()},
        "p_value": p_value(found.comparison),
    }
