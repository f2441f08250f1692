"""How many layers? Candidates are judged at rolling origins inside the rows that train and choose.

A fold is what `train` would make of a file that ended earlier: its own rows to train, to choose and to judge. The
first fold ends where the holdout of the whole file begins, each further one where the rows judged by the fold
before it begin, so that no row is judged twice and nothing of the holdout is seen. Every candidate is
fitted on each fold by the one training loop and scored by the one backtest, at the same origins.

Letters: O origins, N series, U units that are paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from stacklstm_cli.config import MEDIAN
from stacklstm_cli.data.origins import Origins, actuals, plan_origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import DataError, NothingLearnedError
from stacklstm_cli.evaluation.backtest import Backtest, backtest
from stacklstm_cli.evaluation.comparison import LEAST_UNITS, Metric, Paired, covariance_of_means
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.training.defaults import Plan, least_train
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.loop import OnEvent, Schedule
from stacklstm_cli.training.parts import Parts, cut_parts
from stacklstm_cli.training.placement import Where
from stacklstm_cli.training.runtime import Clock, Interrupted, Stopped
from stacklstm_cli.training.space import LAYERS, Params

FOLDS = 2
"""Folds where rows allow and none are asked for."""
ORIGINS = 6
"""Origins of a fold and series at least, where the rows judged allow: closer than a horizon where these are few."""
SHORTENED, LEAST_STEPS = 0.25, 150
"""Share of the steps of a training that a fit of a search may make, and how many it may make at least. Depths are told
apart by where fits stand long before they end."""
LESS_PATIENCE = 0.5
"""Share of the patience of a training that a fit of a search has."""

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Fold:
    """One cutoff: which rows train, choose and judge, and from where forecasts are made."""

    parts: Parts
    origins: Origins


@dataclass(frozen=True)
class Rolling:
    """The folds, newest first, and what is paired over all their origins."""

    folds: tuple[Any, ...]
    """Of labels their numbers."""
    groups: Ints
    """[O] of which unit each origin of all folds is a part; -1 where nothing came to be scored."""
    paired_over: Paired
    overlap: int
    """Cutoffs that one forecast reaches over; 1 where series are paired."""
    metric: Metric
    """What losses are: in units of MASE, or of the data where no series has that scale; of labels in nats."""

    @property
    def units(self) -> int:
        return int(self.groups.max()) + 1

    def unit_losses(self, losses: Floats) -> Floats:
        """[U] means over the units from the losses [O] of all origins."""
        scored = self.groups >= 0
        return means_by(self.groups[scored], losses[scored])

    def explained(self) -> str:
        """What a score is measured on, for a person: "12 origins in 2 folds"."""
        return f"{self.counted()} in {len(self.folds)} fold{'s' * (len(self.folds) != 1)}"

    def counted(self) -> str:
        """The number of units: "12 origins", "359 series"."""
        noun = {"series": "series", "cutoffs": "origin", "stretches": "stretch"}[self.paired_over]
        plural = {"series": "", "cutoffs": "s", "stretches": "es"}[self.paired_over]
        return f"{self.units} {noun}{plural if self.units != 1 else ''}"


def roll(panel: Panel, plan: Plan, folds: int | None) -> Rolling:
    """The folds of a panel. Raises `DataError` where it has rows for none, or for fewer than were asked for."""
    spec = plan.spec
    least = least_train(spec.context_length, plan.seasonality, spec.horizon)
    wanted = folds or FOLDS
    found: list[Fold] = []
    for sparing in (False, True):
        trial = cut_folds(plan, wanted, least, sparing=sparing)
        found = trial if len(trial) > len(found) else found
        if len(found) == wanted:
            break
    if not found or (folds is not None and len(found) < folds):
        raise too_short_to_roll(panel, plan, folds or 1, len(found))
    cutoffs = np.concatenate([panel.starts[one.origins.series] + one.origins.rows for one in found])  # [O]
    series = np.concatenate([one.origins.series for one in found])  # [O]
    came = np.concatenate([~np.isnan(actuals(panel, one.origins, spec.horizon)).all(axis=1) for one in found])  # [O]
    over_time = np.unique(cutoffs[came]).size >= np.unique(series[came]).size
    names, places = np.unique((cutoffs if over_time else series)[came], return_inverse=True)
    groups = np.full(came.shape, -1)
    groups[came] = places
    gaps = np.diff(names)
    overlap = math.ceil(spec.horizon / gaps.min()) if over_time and gaps.size else 1
    scales = backtest({}, panel, found[0].origins, spec.horizon, spec.quantiles, plan.seasonality).scales.absolute
    metric: Literal["mase", "mae"] = "mase" if np.isfinite(scales[found[0].origins.series]).any() else "mae"
    return Rolling(tuple(found), groups, "cutoffs" if over_time else "series", overlap, metric)


def cut_folds(plan: Plan, wanted: int, least: int, *, sparing: bool) -> list[Fold]:
    """At most so many folds, newest first, each with `least` rows to train in some series.

    The rows that choose and judge are as many as `train` would take, or with `sparing` one horizon each.
    """
    horizon, ends = plan.spec.horizon, plan.parts.validation
    found: list[Fold] = []
    for _ in range(wanted):
        if sparing:
            fits = ends - 2 * horizon >= least
            parts = Parts(np.where(fits, ends - 2 * horizon, ends), np.where(fits, ends - horizon, ends), ends)
        else:
            parts = cut_parts(ends, horizon, least, None)
        if not parts.judging:
            break
        found.append(Fold(parts, fold_origins(parts, horizon)))
        ends = parts.validation
    return found


def fold_origins(parts: Parts, horizon: int) -> Origins:
    """Origins a horizon apart in the judged rows, or closer where there would be fewer than `ORIGINS` of a series."""
    room = int((parts.end - parts.validation).max()) - horizon
    step = min(horizon, max(1, room // (ORIGINS - 1)))
    return plan_origins(parts.validation, parts.end, horizon, step)


def too_short_to_roll(panel: Panel, plan: Plan, asked: int, found: int) -> DataError:
    """The error for series without room for the folds, with the arithmetic of the longest."""
    longest, horizon = int(panel.lengths.argmax()), plan.spec.horizon
    rows, held = int(panel.lengths[longest]), int(panel.lengths[longest] - plan.parts.validation[longest])
    least = least_train(plan.spec.context_length, plan.seasonality, horizon)
    needed = least + (asked + 1) * horizon + held
    return DataError(
        f"The longest series ({panel.name(longest)}) has {rows} rows; a search with {asked} "
        f"fold{'s' * (asked != 1)} needs at least {needed}: {least} to train, {horizon} to choose, "
        f"{asked} x {horizon} to compare candidates on, {held} kept for the holdout. There is room for {found}.",
        hint=f"Give --folds {found} or more rows." if found else "Give more rows, or name a number of --layers.",
        code="too_few_rows_to_search",
    )


def shortened(plan: Plan) -> Plan:
    """The plan of a fit that is only to be compared: fewer steps, less patience."""
    schedule = shortened_schedule(plan.schedule)
    return replace(plan, schedule=schedule, unvalidated_steps=max(1, plan.unvalidated_steps // 2))


def shortened_schedule(schedule: Schedule) -> Schedule:
    """How such a fit goes."""
    return replace(
        schedule,
        max_steps=min(schedule.max_steps, max(LEAST_STEPS, round(SHORTENED * schedule.max_steps))),
        patience=max(1, round(LESS_PATIENCE * schedule.patience)),
    )


class StoppedError(Exception):
    """A fit of a search was ended before it could be scored."""

    def __init__(self, why: Stopped) -> None:
        super().__init__(why)
        self.why = why


def fold_losses(
    panel: Panel, plan: Plan, fold: Fold, seed: int, *, device: Where, clock: Clock, on_event: OnEvent
) -> Floats:
    """[O] losses of a candidate at the origins of a fold; NaN where nothing came to be scored.

    Raises `StoppedError` where the clock ended the fit, `NothingLearnedError` where it diverged.
    """
    training = replace(plan.training, seed=seed, refit=False, max_time=None)
    one = replace(shortened(plan), parts=fold.parts, training=training)
    trainer = Trainer(panel, one, device=device, clock=clock, on_event=on_event)
    try:
        chosen, _ = trainer.choose()
    except (NothingLearnedError, Interrupted):
        if clock.stopped():  # before the first step
            raise StoppedError(clock.stopped()) from None
        raise
    if chosen.stopped or clock.stopped() == "signal":  # which ends a validation, and so the fit, unseen
        raise StoppedError(chosen.stopped or "signal")
    forecasts = {MODEL: trainer.forecaster(chosen)}
    spec = plan.spec
    return origin_losses(backtest(forecasts, panel, fold.origins, spec.horizon, spec.quantiles, plan.seasonality))


@dataclass(frozen=True)
class Candidate:
    """What was tried, and how it went."""

    number: int
    params: Params
    """The options that were searched, with all else as typed or by default."""
    layers: int
    start: bool
    """Whether it is one of the first: nothing but the depth differs from what would be trained without a search."""
    state: State
    losses: Floats = field(default_factory=lambda: np.empty(0))
    """[U] in units of MASE, or of the data where no series has that scale; empty unless complete."""
    seconds: float = 0.0
    why: str = ""
    """Why it failed."""

    @property
    def score(self) -> float:
        """Mean loss over the units."""
        return float(self.losses.mean()) if self.losses.size else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation of the loss over the units; NaN of a single one."""
        return float(self.losses.std(ddof=1)) if self.losses.size > 1 else math.nan


@dataclass(frozen=True)
class Beside:
    """A candidate beside the best one."""

    candidate: Candidate
    difference: float
    """Mean loss less that of the best."""
    error: float
    """Standard error of the difference, paired over the units; NaN where these are too few."""

    @property
    def within(self) -> bool:
        """Whether it is within one standard error of the best."""
        return self.difference <= self.error or self.difference == 0


@dataclass(frozen=True)
class Choice:
    """The candidates that were scored, beside the best of them, and the one to train."""

    compared: tuple[Beside, ...]
    best: Candidate
    chosen: Candidate


def choose(candidates: Sequence[Candidate], pick: str, overlap: int) -> Choice | None:
    """The best, and the shallowest within one standard error of it (Breiman et al. 1984, "Classification and
    Regression Trees", section 3.4.3, there with the error of the best and not of the difference).

    None where no candidate is complete. Of equally deep ones the better is taken, of equally good ones the earlier.
    """
    complete = [one for one in candidates if one.state == "complete"]
    if not complete:
        return None
    best = min(complete, key=lambda one: (one.score, one.layers, one.number))
    compared = []
    for one in complete:
        difference, error = mean_and_error(one.losses - best.losses, overlap)
        compared.append(Beside(one, difference, error))
    able = [one.candidate for one in compared if one.within] if pick == "one-se" else [best]
    chosen = min(able, key=lambda one: (one.layers, one.score, one.number))
    return Choice(tuple(compared), best, chosen)


def mean_and_error(differences: Floats, overlap: int) -> tuple[float, float]:
    """Mean and standard error of paired differences [U]; the error is NaN where they are too few.

    Of units that overlap, so many count as one. They are too few here for a spectrum, which a test needs: of 14 units
    and an overlap of 6 it would have one degree of freedom, and one time in ten be no more than a tenth of the truth.
    """
    if differences.size < LEAST_UNITS:
        return float(differences.mean()), math.nan
    variance, _ = covariance_of_means(differences[None], 1)
    return float(differences.mean()), math.sqrt(overlap * float(variance[0, 0]))


def origin_losses(judged: Backtest) -> Floats:
    """[O] mean absolute error of the network's medians over the scored rows of each origin, NaN where there is none.

    In units of MASE; in those of the data where no series has that scale.
    """
    middle = judged.forecasts[MODEL][:, :, judged.quantiles.index(MEDIAN)]  # [O, H]
    errors = np.abs(judged.actual - middle)  # [O, H]
    known = ~np.isnan(errors)
    rows = known.sum(axis=1)  # [O]
    total = np.where(known, errors, 0.0).sum(axis=1)  # [O]
    losses: Floats = np.divide(total, rows, out=np.full(rows.shape, np.nan), where=rows > 0)
    scale = judged.scales.absolute[judged.origins.series]  # [O]
    return losses / scale if np.isfinite(scale).any() else losses


def means_by(groups: Ints, values: Floats) -> Floats:
    """[U] mean of the values of each group, in ascending order of the groups."""
    _, place = np.unique(groups, return_inverse=True)
    means: Floats = np.bincount(place, values) / np.bincount(place)
    return means


def answer(candidates: Sequence[Candidate], pick: str, rolling: Rolling) -> str:
    """The depth question in one sentence, by the candidates that differ in nothing else."""
    depths = choose([one for one in candidates if one.start and LAYERS in one.params], pick, rolling.overlap)
    if depths is None:
        return ""
    layers = depths.chosen.layers
    head = f"{layers} layer{'s' * (layers != 1)}"
    others = [one for one in depths.compared if one.candidate.layers != layers]
    if not others:
        return f"{head}: no other depth was tried."
    parts = []
    shallower = [one for one in others if one.candidate.layers < layers]
    deeper = [one.candidate.layers for one in others if one.candidate.layers > layers]
    worse = [one.candidate.layers for one in shallower if not one.within]
    close = [one.candidate.layers for one in shallower if one.within]
    if worse:
        parts.append(f"{listed(worse)} {'is' if len(worse) == 1 else 'are'} worse beyond noise")
    if close:
        parts.append(f"{listed(close)} {'is' if len(close) == 1 else 'are'} worse, but within the noise")
    if deeper:
        parts.append(f"{listed(deeper)} {'is' if len(deeper) == 1 else 'are'} not better beyond noise")
    return f"{head}: {', '.join(parts)} (n = {rolling.counted()})."


def listed(numbers: Sequence[int]) -> str:
    """`3`, `3 and 4`, `2, 3 and 4`."""
    ordered = [str(number) for number in sorted(numbers)]
    return " and ".join([", ".join(ordered[:-1]), ordered[-1]] if len(ordered) > 1 else ordered)


def judged_score(judgement: Backtest, rolling: Rolling) -> float:
    """The loss on the holdout, averaged as those of the search are."""
    losses = origin_losses(judgement)  # [O]
    groups = judgement.cutoffs if rolling.paired_over == "cutoffs" else judgement.origins.series
    scored = np.isfinite(losses)
    return float(means_by(groups[scored], losses[scored]).mean()) if scored.any() else math.nan
