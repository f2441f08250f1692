"""Choose, judge, refit: from a panel to a checkpoint.

The number of steps is chosen on the validation part. The weights found are judged beside the baselines on
the holdout part, on which nothing was chosen. Then a new network is fitted on all rows for as many steps,
so that the model that forecasts knows the newest rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from stacklstm_cli.data.history import remember
from stacklstm_cli.data.memory import give_back
from stacklstm_cli.data.origins import Origins, plan_origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import DataError, NothingLearnedError
from stacklstm_cli.evaluation.backtest import Backtest, Predictor, backtest
from stacklstm_cli.evaluation.baselines import standard_baselines
from stacklstm_cli.evaluation.conformal import Calibrations, calibrations
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.calibration import Calibration
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.inputs import number_statistics
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.windows import Windows, learned_units
from stacklstm_cli.ranks import get_ranks
from stacklstm_cli.training.continuation import Continuation, FromWeights
from stacklstm_cli.training.defaults import Plan
from stacklstm_cli.training.lessons import Lessons, lesson_origins, series_weights
from stacklstm_cli.training.loop import Fit, OnEvent, Schedule, fit, no_snapshots
from stacklstm_cli.training.placement import Where, Work, places_of
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock, Interrupted
from stacklstm_cli.training.start import Ridge, Start, choose_start, start_with

TIME_TO_CHOOSE = 0.6
"""Share of a time limit after which choosing ends, so that the refit, which needs fewer steps, has the rest."""


@dataclass(frozen=True)
class Outcome:
    """A trained model, and how it came about."""

    checkpoint: Checkpoint
    judgement: Backtest | None
    """The holdout beside the baselines; None where nothing was judged."""
    fits: tuple[Fit, ...]
    """Every fit of the run, in order; the last one's weights, or the first one's, were kept."""
    stopped: str
    """Why training ended early: "time", "signal" or ""."""
    warnings: tuple[tuple[str, str], ...]
    """(code, sentence)"""

    def explained(self) -> list[str]:
        """How each fit went, for a person."""
        return [
            f"fit {number}: {one.steps} steps kept after {one.epochs:.1f} epochs, {one.seconds:.1f} s, "
            f"{one.windows_per_second or 0:,.0f} windows/s, validation "
            + ("none" if one.validation is None else f"{one.validation:.4g}")
            + (f", at {one.rate:g} of the learning rate" if one.rate < 1 else "")
            for number, one in enumerate(self.fits, start=1)
        ]


class Trainer:
    """One training run on one panel."""

    def __init__(
        self,
        panel: Panel,
        plan: Plan,
        *,
        device: Where,
        clock: Clock,
        on_event: OnEvent = lambda event: None,
        baselines: Mapping[str, Predictor] = MappingProxyType({}),
        resume: Resume | None = None,
        begin: Continuation | None = None,
    ) -> None:
        """`baselines` are judged beside the naive ones. `resume` is asked where an earlier run was interrupted, and
        told how far this one is. `begin` are weights to go on from; without, networks start from linear forecasts.

        Of several devices one is chosen, which may take a trial. Raises `UsageError` as `Places.settle` does.
        """
        self.begin = begin
        if resume is not None:
            resume.open(panel, plan, clock)
        self.resume = resume
        self.panel = panel
        self.plan = plan
        self.clock = clock
        self.on_event = on_event
        self.baselines = baselines
        self.learned = learned_units(panel, plan.spec)
        recalled = None if resume is None else resume.place
        place = places_of(device).settle(plan.training.precision, self.work, clock, recalled)
        self.device, self.precision = place.device, place.precision
        if resume is not None:
            resume.place = place.as_dict()
        self.windows = Windows(self.learned, plan.spec, self.device)

    def work(self) -> Work:
        """The work by which devices and precisions are compared."""
        plan = self.plan
        origins, weights = self.taught(plan.parts.train)
        steps = plan.most_steps(len(origins)) * (2 if self.refits else 1)

        def build(device: torch.device) -> tuple[StackedRNN, Lessons]:
            windows = Windows(self.learned, plan.spec, device)
            lessons = Lessons(windows, origins, weights, every_step=plan.schedule.every_step)
            return StackedRNN(plan.spec).to(device), lessons

        return Work(build, plan.schedule, steps)

    def run(self, options: dict[str, Any]) -> Outcome:
        """Choose, judge, refit. `options` are kept in the model as they were given.

        Raises `DataError` where no series has room for one window, `NothingLearnedError` where training ends
        without a finite result.
        """
        chosen, ridge = self.choose()
        judges = chosen.stopped != "signal" and get_ranks().leads
        intervals = self.calibrate(chosen) if judges else Calibrations()
        judgement = self.judge(chosen, intervals.judged) if judges else None
        fits: tuple[Fit, ...] = (chosen,)
        final = chosen
        if self.refits and not self.clock.agreed():
            refitted = self.refit(chosen.steps, ridge, chosen.rate)
            if refitted is not None:
                fits = (chosen, refitted)
                final = chosen if refitted.stopped == "signal" else refitted
        skipped = self.refits and len(fits) == 1
        interrupted = judgement is None and self.clock.stopped() == "signal"
        stopped = fits[-1].stopped or chosen.stopped or (self.clock.stopped() if skipped or interrupted else "")
        return Outcome(
            checkpoint=self.checkpoint(fits, final, ridge, judgement, intervals, options, stopped),
            judgement=judgement,
            fits=fits,
            stopped=stopped,
            warnings=self.warnings(fits, final, judgement),
        )

    @property
    def refits(self) -> bool:
        """Whether rows are left that the chosen weights have not trained on."""
        return self.plan.training.refit and bool((self.plan.parts.train < self.plan.parts.end).any())

    def choose(self) -> tuple[Fit, Ridge]:
        """Fit on the training part for as many steps as pay on the validation part; with the start's ridge."""
        done = self.resume.finished("choosing") if self.resume else None
        if done:
            return done.fit, done.ridge
        plan, parts = self.plan, self.plan.parts
        start: Start | FromWeights
        with self.clock.interruptible():
            lessons = self.lessons(parts.train)
            origins = lesson_origins(self.panel, parts.train, parts.validation, plan.spec)
            validation = Lessons(self.windows, origins, lessons.weights.cpu().numpy())
            del origins  # which may be as many as the values
        if not len(validation):  # series too short to have such a part, or nothing observed in it
            with self.clock.interruptible():
                ridge = Ridge(plan.start_strength)
                start = self.begin.choosing if self.begin else start_with(lessons, ridge, plan.seasonality)
            schedule = replace(plan.schedule, max_steps=min(plan.unvalidated_steps, plan.most_steps(len(lessons))))
            chosen = self.fit(lessons, None, start, schedule, parts.train, "training", 1.0)
        else:
            with self.clock.interruptible():
                start = self.begin.choosing if self.begin else choose_start(lessons, validation, plan.seasonality)
            share = TIME_TO_CHOOSE if self.refits else 1.0
            schedule = replace(plan.schedule, max_steps=plan.most_steps(len(lessons)))
            chosen = self.fit(lessons, validation, start, schedule, parts.train, "choosing", share)
        if self.resume and chosen.stopped != "signal":
            self.resume.finish("choosing", chosen, start.ridge)
        return chosen, start.ridge

    def refit(self, steps: int, ridge: Ridge, rate: float = 1.0) -> Fit | None:
        """Fit a new network on all rows, as long as the chosen one; None where that leads to nothing.

        `ridge` is that of its start. Where the learning rate was too high for choosing, the
        refit begins with the `rate` that it ended with, a share of it.
        """
        plan = self.plan
        schedule = replace(plan.schedule, max_steps=steps, learning_rate=rate * plan.schedule.learning_rate)
        try:
            with self.clock.interruptible():
                lessons = self.lessons(plan.parts.end)
                start = self.begin.refitting if self.begin else start_with(lessons, ridge, plan.seasonality)
            return self.fit(lessons, None, start, schedule, plan.parts.end, "refitting", 1.0)
        except (NothingLearnedError, Interrupted):  # no time was left, or it diverged: the judged weights are there
            return None

    def calibrate(self, chosen: Fit) -> Calibrations:
        """How the intervals of the chosen weights have to be moved, found on rows they were not fitted to.

        Not at all where a signal ends that.
        """
        parts = self.plan.parts
        try:
            with self.clock.interruptible():
                return calibrations(self.forecaster(chosen), self.panel, parts.train, parts.validation, parts.end)
        except Interrupted:
            return Calibrations()

    def judge(self, chosen: Fit, calibration: Calibration | None = None) -> Backtest | None:
        """The chosen weights, with their calibration, beside the baselines on the holdout part.

        None as well where a signal ends that.
        """
        plan, parts = self.plan, self.plan.parts
        origins = plan_origins(parts.validation, parts.end, plan.spec.horizon, plan.spec.horizon)
        if not len(origins):
            return None
        baselines = {**standard_baselines(plan.seasonality), **self.baselines}
        predictors: dict[str, Predictor] = {MODEL: self.forecaster(chosen, calibration), **baselines}
        give_back()
        try:
            with self.clock.interruptible():
                return backtest(
                    predictors, self.panel, origins, plan.spec.horizon, plan.spec.quantiles, plan.seasonality
                )
        except Interrupted:
            return None

    def lessons(self, ends: Ints) -> Lessons:
        """Every training window in the first `ends[i]` rows of each series."""
        return Lessons(self.windows, *self.taught(ends), every_step=self.plan.schedule.every_step)

    def taught(self, ends: Ints) -> tuple[Origins, Floats]:
        """Origins and weights of these windows. Raises `DataError` where there is none."""
        plan = self.plan
        origins = lesson_origins(self.panel, plan.least_context(ends), ends, plan.spec)
        if not len(origins):
            raise DataError(
                "No training window holds both a value to learn from and one to forecast.",
                hint="Give more rows, or rows with fewer gaps.",
                code="no_windows",
            )
        return origins, series_weights(self.learned, ends, plan.seasonality)

    def fit(
        self,
        lessons: Lessons,
        validation: Lessons | None,
        start: Start | FromWeights,
        schedule: Schedule,
        ends: Ints,
        phase: str,
        share: float,
    ) -> Fit:
        """A new network from `start`, fitted; its statistics of covariates are those of the first `ends` [N] rows."""
        with self.clock.interruptible(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.plan.training.seed)
            network = StackedRNN(self.plan.spec)
        network.set_statistics(*number_statistics(self.panel, ends))
        start.apply_to(network)
        give_back()
        return fit(
            network.to(self.device),
            lessons,
            validation,
            schedule,
            seed=self.plan.training.seed,
            clock=self.clock,
            phase=phase,
            share_of_time=share,
            precision=self.precision,
            on_event=self.on_event,
            state=self.resume.snapshot(phase) if self.resume else None,
            on_snapshot=partial(self.resume.offer, phase) if self.resume else no_snapshots,
        )

    def forecaster(self, found: Fit, calibration: Calibration | None = None) -> Forecaster:
        network = StackedRNN(self.plan.spec)
        network.load_state_dict(found.weights)
        return Forecaster(network, self.device, calibration)

    def checkpoint(
        self,
        fits: tuple[Fit, ...],
        final: Fit,
        ridge: Ridge,
        judgement: Backtest | None,
        intervals: Calibrations,
        options: dict[str, Any],
        stopped: str,
    ) -> Checkpoint:
        """What is saved: the final weights, the judged ones where they differ, and how both came about."""
        panel, plan, parts, chosen = self.panel, self.plan, self.plan.parts, fits[0]
        return Checkpoint(
            columns=panel.columns,
            step=panel.step,
            time_form=panel.time_form,
            seasonality=plan.seasonality,
            keys=panel.keys,
            spec=plan.spec,
            final=final.weights,
            trained_to=panel.starts + (parts.validation if final is chosen else parts.end),
            judged=None if final is chosen or judgement is None else chosen.weights,
            judged_to=panel.starts + parts.validation,
            data_to=panel.ends,
            calibration=intervals.final,
            judged_calibration=intervals.judged,
            intervals=describe_intervals(intervals, judgement),
            data=describe(panel) | {"fingerprint": panel.fingerprint()},
            metrics=judgement.metrics() if judgement else {},
            backtest=describe_backtest(judgement) if judgement else {},
            training={
                **asdict(plan.schedule),
                "seed": plan.training.seed,
                "start_strength": ridge.strength,
                "start_towards": ridge.towards,
                "start_smoothing": ridge.smoothing,
                "steps": final.steps,
                "epochs": final.epochs,
                "rate": chosen.rate,
                "validation": chosen.validation,
                "recoveries": final.recoveries + (chosen.recoveries if final is not chosen else 0),
                "history": chosen.history,
                "stopped": stopped,
            },
            options=options,
            history=remember(panel),
        )

    def warnings(self, fits: tuple[Fit, ...], final: Fit, judgement: Backtest | None) -> tuple[tuple[str, str], ...]:
        """What a user must know before trusting this model."""
        found = out_of_bounds(self.panel, self.plan)
        signalled, judges = self.clock.stopped() == "signal", self.plan.training.holdout != 0
        recoveries = sum(one.recoveries for one in fits)
        if recoveries:
            found.append(
                (
                    "diverged_recovered",
                    f"Training diverged {recoveries} time{'s' * (recoveries > 1)}: each time it went back and halved "
                    "the learning rate.",
                )
            )
        pieces, shards, size = max(one.pieces for one in fits), fits[0].shards, fits[0].processes
        if pieces > 1:
            found.append(
                (
                    "out_of_memory",
                    f"Memory did not suffice for {self.plan.schedule.batch_size // shards} windows at a time: "
                    f"they were computed in {pieces} parts.",
                )
            )
        if shards < size:
            found.append(
                (
                    "processes_idle",
                    f"This network's batches are worth {shards} process{'es' * (shards != 1)}, so "
                    f"{size - shards} of {size} had nothing to do; a larger --batch-size would share the work.",
                )
            )
        if useless(fits[0]):
            found.append(
                (
                    "worse_than_start",
                    f"Training made its start worse: a validation loss of {fits[0].validation:.3g}, where the start "
                    f"had {fits[0].start_validation:.3g}. Try a smaller --learning-rate.",
                )
            )
        if fits[0].validation is None and not fits[0].stopped:
            steps = fits[0].steps
            found.append(("not_validated", f"No rows to validate on: {steps} steps were made without choosing."))
        if judgement is None and not fits[0].stopped and judges and not signalled:
            found.append(("not_judged", "No series has rows to spare to judge the model on."))
        if fits[0].stopped == "signal" or (signalled and judgement is None and judges):
            found.append(("not_judged", "Stopped before judging: the model has no holdout table."))
        elif self.refits and final is fits[0]:
            why = "Stopped before the refit was done" if signalled else "The refit did not end well"
            found.append(("not_refitted", f"{why}: the weights from before it were kept."))
        elif self.refits and final.steps < fits[0].steps:
            found.append(("refit_shortened", f"Time was up: the refit made {final.steps} of {fits[0].steps} steps."))
        elif fits[0].stopped == "time":
            found.append(("time_up", "Time was up before validation stopped improving."))
        return tuple(found)


def useless(fitted: Fit) -> bool:
    """Whether validation ended far above where it began; losses of distributions may be negative."""
    after, before = fitted.validation, fitted.start_validation
    return after is not None and before is not None and after - before > abs(before)


def out_of_bounds(panel: Panel, plan: Plan) -> list[tuple[str, str]]:
    """The warning of values that no forecast may reach, if there are any."""
    low, high = plan.spec.minimum, plan.spec.maximum
    outside = 0 if low is None else np.count_nonzero(panel.values < low)
    outside += 0 if high is None else np.count_nonzero(panel.values > high)
    return [("values_out_of_bounds", f"{outside:,} values of DATA are outside --min and --max.")] if outside else []


def describe(panel: Panel) -> dict[str, Any]:
    """What the data is, for the JSON envelope and the model file."""
    first, last = panel.stamps([int(panel.starts.min()), int(panel.ends.max()) - 1])
    return {
        "rows": panel.rows_read,
        "series": panel.n_series,
        "first": first,
        "last": last,
        "step": panel.step.label,
        "gaps": panel.gaps,
    }


def describe_intervals(intervals: Calibrations, judgement: Backtest | None) -> dict[str, Any]:
    """What the calibrations were made of and what share of the holdout each interval held, for the model file."""
    if intervals.final is None:
        return {}
    origins = dict(zip(("judged", "final"), intervals.origins, strict=True))
    held = judgement.coverage(MODEL) if judgement else []
    return {"origins": origins, "coverage": {f"{100 * one['nominal']:g}": one for one in held}}


def describe_backtest(judgement: Backtest) -> dict[str, Any]:
    """Which origins were scored, for the JSON envelope and the model file; `origins` is per series, at most."""
    stamps = judgement.panel.stamps([judgement.first_cutoff or 0, judgement.last_cutoff or 0])
    return {
        "origins": int(np.bincount(judgement.origins.series).max()),
        "series": len(np.unique(judgement.origins.series)),
        "horizon": judgement.horizon,
        "first_cutoff": stamps[0],
        "last_cutoff": stamps[1],
    }
