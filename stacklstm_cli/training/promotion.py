"""Retraining: a challenger against the model in use, the champion, and the decision between them.

Both forecast the same newest origins, on which neither was trained. The champion's final weights have seen all rows
of its training, so on most nights only its judged weights can stand for it: those that stopped before its holdout,
and whose errors `train` has printed. The challenger goes on from them, on the rows that have come since, up to the
rows that choose when to stop and, behind these, the rows that judge. So the two differ by what a night brings and by
nothing else. The weights that will forecast are a twin of that: the champion's final weights, continued for as many
steps on all rows. Where so many rows are new that the final weights have seen neither those that choose nor those
that judge, the challenger goes on from them, and they stand for the champion. Against a new network stand the newest
weights of the champion that have not seen the rows that judge.

Letters: N series, O origins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from stacklstm_cli.config import RetrainConfig
from stacklstm_cli.data.history import Changes, changes
from stacklstm_cli.data.origins import Origins, plan_origins
from stacklstm_cli.data.panel import Ints, Panel
from stacklstm_cli.errors import NothingLearnedError
from stacklstm_cli.evaluation.backtest import Backtest, backtest
from stacklstm_cli.evaluation.baselines import standard_baselines
from stacklstm_cli.evaluation.comparison import Comparison, compare
from stacklstm_cli.evaluation.conformal import Calibrations, adapted, residuals_at
from stacklstm_cli.model.calibration import Calibration
from stacklstm_cli.model.checkpoint import Checkpoint, Weights
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.lineage import extended
from stacklstm_cli.training.continuation import (
    Continuation,
    FromWeights,
    continued_options,
    continued_plan,
    fitted_to,
    learned_anew,
)
from stacklstm_cli.training.defaults import Plan
from stacklstm_cli.training.fitting import Trainer, describe_backtest
from stacklstm_cli.training.loop import Fit, OnEvent
from stacklstm_cli.training.parts import Parts
from stacklstm_cli.training.placement import Where
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock, Interrupted
from stacklstm_cli.training.start import Ridge

CHAMPION, CHALLENGER = "champion", "challenger"
LEVEL = 0.05
"""Probability of calling a difference clear that is chance, from one side: one needless refusal in twenty nights of
challengers that are as good, and a single refusal costs nothing, as the next night learns its rows too."""
MARGIN = 0.01
"""Share of the champion's error by which a challenger's may be higher and still count as level."""
ENOUGH_UNITS = 8
"""Cutoffs, or series, for which origins one horizon apart are enough; fewer are set closer together."""
SCORES = ("mae", "rmse", "mase", "wql")
"""Metrics of both models that the lineage keeps."""

Side = Literal["final", "judged"]
"""Weights of a champion."""
Why = Literal["better", "clearly_better", "not_clearly_worse", "clearly_worse", "not_clearly_better", "too_few_origins",
              "too_few_labels", "always", "not_finite"]  # fmt: skip
EXPLANATIONS: dict[Why, str] = {
    "better": "its error is lower",
    "clearly_better": "its error is clearly lower",
    "not_clearly_worse": "its error is not clearly higher",
    "clearly_worse": "its error is clearly higher",
    "not_clearly_better": "its error is not clearly lower",
    "too_few_origins": "too few origins to tell the two apart",
    "too_few_labels": "too few labels to tell the two apart",
    "always": "the gate is open",
    "not_finite": "some of its forecasts are not finite",
}


@dataclass(frozen=True)
class Decision:
    """Whether the challenger replaces the champion."""

    promoted: bool
    why: Why


@dataclass(frozen=True)
class Trial:
    """Which rows train, choose and judge, who stands for the champion there, and from what the challenger begins."""

    parts: Parts
    champion: Weights
    side: Side
    """Which weights of the champion these are: those that the challenger goes on from; against a new network the
    newest that have not seen the rows which judge."""
    begin: Continuation | None
    """None for a new network."""


@dataclass(frozen=True)
class Retrained:
    """What a retraining found."""

    changes: Changes
    plan: Plan
    trial: Trial
    contest: Backtest | None
    """Champion, challenger and baselines on the newest origins; None where no origin is new to both."""
    comparison: Comparison | None
    decision: Decision
    fits: tuple[Fit, ...]
    new_categories: Mapping[str, list[str]]
    """Covariate -> texts that the challenger has learned and the champion does not know."""
    checkpoint: Checkpoint | None = None
    """The new model; None where the champion stays."""
    stopped: str = ""
    """Why it ended early: "time" or ""."""
    warnings: tuple[tuple[str, str], ...] = ()
    """(code, sentence)"""

    @property
    def side(self) -> Side:
        """Which weights stood for the champion."""
        return self.trial.side


def look(champion: Checkpoint, panel: Panel) -> Changes:
    """What a file holds that the model was not given, and what was revised."""
    return changes(panel, champion.keys, champion.data_to, champion.history)


def retrain(
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
) -> Retrained:
    """Train a challenger, judge both, decide, and refit the challenger on all rows where it is promoted.

    `typed` are the options of network and training that differ from the model's own in this run. Raises
    `UsageError` and `DataError` as `resolve` does, `NothingLearnedError` where no step could be made, `Interrupted`
    at a signal. The clock bounds all of it.
    """
    model, training = continued_options(champion, typed, from_scratch=config.from_scratch)
    plan = continued_plan(
        champion,
        panel,
        model,
        training,
        from_scratch=config.from_scratch,
        refit_scaling=config.refit_scaling,
        gentle="learning_rate" not in typed,
    )
    trial = prepare_trial(champion, panel, plan, config)
    plan = replace(plan, parts=trial.parts)
    trainer = Trainer(panel, plan, device=device, clock=clock, on_event=on_event, resume=resume, begin=trial.begin)
    chosen, ridge = trainer.choose()
    intervals = trainer.calibrate(chosen)
    judgement = trainer.judge(chosen, intervals.judged)
    with clock.interruptible():
        contest = hold(trainer, champion, trial, chosen, intervals)
    comparison = None if contest is None else compared(contest)
    found = Retrained(
        changes=changed,
        plan=plan,
        trial=trial,
        contest=contest,
        comparison=comparison,
        decision=decide(config.gate, comparison, contest),
        fits=(chosen,),
        new_categories={} if config.from_scratch else learned_anew(champion.spec, plan.spec),
        stopped=chosen.stopped,
    )
    if not found.decision.promoted:
        return found
    final, fits = finish(trainer, trial, chosen, ridge)
    stopped = fits[-1].stopped or chosen.stopped
    options = champion.options | asdict(model)
    with clock.interruptible():
        intervals = moved_on(trainer, champion, trial, intervals)
    checkpoint = trainer.checkpoint(fits, final, ridge, judgement, intervals, options, stopped)
    if final.steps == 0:
        checkpoint.trained_to = panel.starts + rows_seen(champion, panel, champion.trained_to)
    complete(checkpoint, champion, lineage_entry(champion, panel, config, found, final))
    warnings = trainer.warnings(fits, final, judgement)
    return replace(found, checkpoint=checkpoint, fits=fits, stopped=stopped, warnings=warnings)


def compared(contest: Backtest) -> Comparison | None:
    """Challenger and champion by their MASE, by their MAE where no series has that scale."""
    return compare(contest, CHALLENGER, CHAMPION, "mase") or compare(contest, CHALLENGER, CHAMPION, "mae")


def complete(checkpoint: Checkpoint, champion: Checkpoint, entry: dict[str, Any]) -> None:
    """Give a new model what it has from the one before: its lineage."""
    checkpoint.lineage = extended(champion.lineage, entry)


def moved_on(trainer: Trainer, champion: Checkpoint, trial: Trial, found: Calibrations) -> Calibrations:
    """The calibration that was `found`, at levels that the rows since the champion's training have taught.

    How far to move quantiles is found anew on the newest held-out rows; what share of new values the champion's
    intervals then held moves the levels (adaptive conformal inference, see evaluation/conformal.py). Each new row is
    looked at once over all retrainings: by forecasts a horizon apart of weights that have seen none of the rows they
    forecast; of a forecast that begins before the new rows, those alone count.
    """
    before, after, panel = champion.calibration, found.final, trainer.panel
    if before is None or after is None or before.levels != after.levels:
        return found
    seen = champion.trained_to if trial.side == "final" else champion.judged_to
    horizon = champion.spec.horizon
    new = rows_seen(champion, panel, champion.data_to)  # [N]
    first = np.maximum(rows_seen(champion, panel, seen), new - horizon + 1)
    first = np.where(new > 0, first, panel.lengths)  # of a series that is new, no forecast was made
    origins = plan_origins(first, panel.lengths, horizon, horizon)
    forecaster = Forecaster(champion.network(trial.champion), trainer.device)
    residuals = residuals_at(forecaster, panel, origins, len(origins)) if len(origins) else None
    effective = before.effective
    if residuals is not None:
        is_new = origins.rows[:, None] + np.arange(horizon) >= new[origins.series, None]  # [O, H]
        fresh = replace(residuals, actual=np.where(is_new, residuals.actual, np.nan))
        own = replace(own_calibration(champion, trial) or before, effective=effective)
        effective = adapted(own, fresh).effective
    return replace(found, final=replace(after, effective=effective))


def own_calibration(champion: Checkpoint, trial: Trial) -> Calibration | None:
    """That of the weights which stand for the champion, found on none of the rows that they have not seen."""
    judged = trial.side == "judged" or chosen_alone(champion)
    return champion.judged_calibration if judged else champion.calibration


def prepare_trial(champion: Checkpoint, panel: Panel, plan: Plan, config: RetrainConfig) -> Trial:
    """Move the parts behind what the champion's older weights have seen, and find the weights for both sides."""
    older: Side = "final" if champion.judged is None else "judged"
    weights = {"final": champion.final, older: champion.judged or champion.final}
    seen = {"final": rows_seen(champion, panel, champion.trained_to)}
    seen[older] = rows_seen(champion, panel, champion.judged_to) if older == "judged" else seen["final"]
    parts = moved_behind(plan.parts, seen[older])
    judging = parts.end - parts.validation >= champion.spec.horizon  # [N]
    if config.from_scratch:
        side: Side = "final" if (seen["final"] <= parts.validation)[judging].all() else older
        return Trial(parts, weights[side], side, None)
    side = "final" if judging.any() and (seen["final"] <= parts.train)[judging].all() else older
    if side == "final" and not chosen_alone(champion):
        # Rows that these weights have learned cannot say when to stop.
        parts = replace(parts, train=np.clip(seen["final"], parts.train, parts.validation))
    choosing, refitting = (
        FromWeights(fitted_to(weights[one], champion.spec, plan.spec), keep_statistics=not config.refit_scaling)
        for one in (side, "final")
    )
    return Trial(parts, weights[side], side, Continuation(choosing, refitting))


def chosen_alone(champion: Checkpoint) -> bool:
    """Whether the final weights are those that were chosen: their newest rows have chosen, and taught nothing."""
    return champion.judged is None and bool((champion.trained_to < champion.data_to).any())


def rows_seen(champion: Checkpoint, panel: Panel, positions: Ints) -> Ints:
    """[N] rows of each series of the panel up to these positions of the champion's; none of a new series."""
    return np.clip(champion.rows_of(panel, positions, unseen=np.zeros_like(panel.lengths)), 0, panel.lengths)


def moved_behind(parts: Parts, seen: Ints) -> Parts:
    """The parts with the rows that judge behind the first `seen` [N] rows; the rows that choose move with them.

    A share of a longer series may begin earlier than that of the shorter one did, by a horizon.
    """
    validation = np.minimum(np.maximum(parts.validation, seen), parts.end)
    return Parts(parts.train + validation - parts.validation, validation, parts.end)


def hold(trainer: Trainer, champion: Checkpoint, trial: Trial, chosen: Fit, intervals: Calibrations) -> Backtest | None:
    """Champion, challenger and baselines on the newest origins; None where there is none."""
    panel, plan = trainer.panel, trainer.plan
    horizon = min(plan.spec.horizon, champion.spec.horizon)
    origins = contest_origins(trial.parts, horizon)
    if not len(origins):
        return None
    predictors = {
        CHAMPION: Forecaster(champion.network(trial.champion), trainer.device, own_calibration(champion, trial)),
        CHALLENGER: trainer.forecaster(chosen, intervals.judged),
        **standard_baselines(plan.seasonality),
    }
    quantiles = [one for one in plan.spec.quantiles if one in champion.spec.quantiles]
    return backtest(predictors, panel, origins, horizon, quantiles, plan.seasonality)


def contest_origins(parts: Parts, horizon: int) -> Origins:
    """Origins one horizon apart; closer together where that gives too few cutoffs and series to tell models apart.

    Overlapping forecasts are no independent ones, which the comparison takes into account.
    """
    room = int((parts.end - parts.validation).max()) - horizon
    judging = int((parts.end - parts.validation >= horizon).sum())
    step = horizon
    if max(room // horizon + 1, judging) < ENOUGH_UNITS:
        step = min(horizon, max(1, room // (ENOUGH_UNITS - 1)))
    return plan_origins(parts.validation, parts.end, horizon, step)


def decide(gate: str, comparison: Comparison | None, contest: Backtest | None) -> Decision:
    """Always a decision: a gate that waits for more evidence would block for as long as there is none."""
    if contest is not None and not np.isfinite(contest.forecasts[CHALLENGER]).all():
        return Decision(False, "not_finite")
    return decide_by(gate, comparison, "too_few_origins")


def decide_by(gate: str, comparison: Comparison | None, too_few: Why) -> Decision:
    """What follows from two finite errors; `too_few` is why, where they cannot be told apart."""
    if gate == "always":
        return Decision(True, "always")
    if comparison is None or math.isnan(comparison.p_value):
        return Decision(gate == "unless-worse", too_few)
    if gate == "strict":
        clearly = comparison.clearly_better(LEVEL)
        return Decision(clearly, "clearly_better" if clearly else "not_clearly_better")
    # Two models that are nearly the same err nearly alike, and then the smallest difference is beyond chance.
    if comparison.clearly_worse(LEVEL) and not comparison.relative <= MARGIN:
        return Decision(False, "clearly_worse")
    return Decision(True, "better" if comparison.difference < 0 else "not_clearly_worse")


def finish(trainer: Trainer, trial: Trial, chosen: Fit, ridge: Ridge) -> tuple[Fit, tuple[Fit, ...]]:
    """The fit whose weights will forecast, and all fits.

    Where no step made the challenger better, the champion's final weights stay as well.
    Raises `Interrupted` at a signal, and `NothingLearnedError` where the weights that know the newest rows cannot be
    continued, for want of time or as they diverge: those of the challenger know fewer rows than the champion's. A new
    network that could not be fitted again in full is replaced by the challenger itself, which was judged.
    """
    if not trainer.refits:
        return chosen, (chosen,)
    if trial.begin is not None and chosen.steps == 0:
        return replace(chosen, weights=trial.begin.refitting.weights), (chosen,)
    refitted = trainer.refit(chosen.steps, ridge, chosen.rate)
    if trainer.clock.stopped() == "signal":
        raise Interrupted
    if refitted is None and trial.begin is not None:
        late = trainer.clock.stopped() == "time"
        why = "No time was left to fit the new model to" if late else "The new model diverged when it was fitted to"
        hint = "Allow more time with --max-time." if late else "Try a smaller --learning-rate, or --from-scratch."
        raise NothingLearnedError(f"{why} all rows; the model is as it was.", hint=hint, code="no_refit")
    if refitted is None:
        return chosen, (chosen,)
    whole = trial.begin is not None or refitted.steps >= chosen.steps
    return refitted if whole else chosen, (chosen, refitted)


def lineage_entry(
    champion: Checkpoint, panel: Panel, config: RetrainConfig, found: Retrained, final: Fit
) -> dict[str, Any]:
    """What the model file tells of this retraining: no clock, so that equal runs give equal files."""
    return {
        "parent": champion.id,
        "from_scratch": config.from_scratch,
        "rows_added": found.changes.rows,
        "series": panel.n_series,
        "new_series": len(found.changes.new_series),
        "revised_rows": found.changes.revised_rows,
        "last": panel.stamps([int(panel.ends.max()) - 1])[0],
        "steps": final.steps,
        "gate": config.gate,
        "decision": "promoted",
        "why": found.decision.why,
        "origins": 0 if found.contest is None else len(found.contest.origins),
        "champion_weights": found.trial.side,
        **scores(found.contest),
        "p_value": p_value(found.comparison),
    }


def scores(contest: Backtest | None) -> dict[str, dict[str, float | None]]:
    """The errors of champion and challenger; nothing where there was no contest."""
    table = {} if contest is None else contest.metrics()
    return {
        name: {metric: table[name][metric] for metric in SCORES if metric in table[name]}
        for name in (CHAMPION, CHALLENGER)
        if name in table
    }


def describe_contest(contest: Backtest) -> dict[str, Any]:
    """Which origins were compared; `origins` counts those of all series."""
    rows = np.diff(np.unique(contest.cutoffs))
    step = int(rows.min()) if rows.size else contest.horizon
    facts = {"origins": len(contest.origins), "step": step, "seasonality": contest.seasonality}
    return describe_backtest(contest) | facts


def p_value(comparison: Comparison | None) -> float | None:
    """Of a difference as large by chance, from one side; None where there is none."""
    return None if comparison is None or math.isnan(comparison.p_value) else comparison.p_value / 2
