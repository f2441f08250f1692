"""Choose, judge, refit: from a panel to a checkpoint.

The number of steps is chosen on the validation part. The weights found are judged beside the baselines on
the holdout part, on which nothing was chosen. Then a new network is fitted on all rows for as many steps,
so that the model that forecasts knows the newest rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from stacklstm_cli.data.origins import plan_origins
from stacklstm_cli.data.panel import Ints, Panel
from stacklstm_cli.errors import DataError
from stacklstm_cli.evaluation.backtest import Backtest, backtest
from stacklstm_cli.evaluation.baselines import standard_baselines
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training.defaults import LEAST_WINDOWS, Plan
from stacklstm_cli.training.lessons import Lessons, lesson_origins, series_weights
from stacklstm_cli.training.loop import Fit, OnEvent, Schedule, fit
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.start import Start, choose_start, start_with

MODEL = "stacklstm"
"""The name of the network in every table."""
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


class Trainer:
    """One training run on one panel."""

    def __init__(
        self, panel: Panel, plan: Plan, *, device: torch.device, clock: Clock, on_event: OnEvent = lambda event: None
    ) -> None:
        self.panel = panel
        self.plan = plan
        self.device = device
        self.clock = clock
        self.on_event = on_event
        self.windows = Windows(panel, plan.spec, device)

    def run(self, options: dict[str, Any]) -> Outcome:
        """Choose, judge, refit. `options` are kept in the model as they were given.

        Raises `DataError` where no series has room for one window, `NothingLearnedError` where training ends
        without a finite result.
        """
        chosen, start = self.choose()
        judgement = self.judge(chosen) if chosen.stopped != "signal" else None
        fits: tuple[Fit, ...] = (chosen,)
        final = chosen
        if self.refits and chosen.stopped != "signal":
            fits = (chosen, self.refit(chosen.steps, start))
            final = fits[-1] if fits[-1].stopped != "signal" else chosen
        return Outcome(
            checkpoint=self.checkpoint(fits, final, judgement, options),
            judgement=judgement,
            fits=fits,
            stopped=fits[-1].stopped or chosen.stopped,
            warnings=self.warnings(fits, final),
        )

    @property
    def refits(self) -> bool:
        """Whether rows are left that the chosen weights have not trained on."""
        return self.plan.training.refit and bool((self.plan.parts.train < self.plan.parts.end).any())

    def choose(self) -> tuple[Fit, Start]:
        """Fit on the training part for as many steps as pay on the validation part."""
        plan, parts = self.plan, self.plan.parts
        lessons = self.lessons(parts.train)
        if not parts.choosing:
            start = start_with(lessons, plan.start_strength, plan.seasonality)
            schedule = replace(plan.schedule, max_steps=plan.unvalidated_steps)
            return self.fit(lessons, None, start, schedule, "training", 1.0), start
        origins = lesson_origins(self.panel, parts.train, parts.validation, plan.spec.horizon)
        validation = Lessons(self.windows, origins, series_weights(self.panel, parts.train, plan.seasonality))
        start = choose_start(lessons, validation, plan.seasonality)
        share = TIME_TO_CHOOSE if self.refits else 1.0
        return self.fit(lessons, validation, start, plan.schedule, "choosing", share), start

    def refit(self, steps: int, start: Start) -> Fit:
        """Fit a new network on all rows, as long as the chosen one."""
        lessons = self.lessons(self.plan.parts.end)
        schedule = replace(self.plan.schedule, max_steps=steps)
        start = start_with(lessons, start.strength, self.plan.seasonality)
        return self.fit(lessons, None, start, schedule, "refitting", 1.0)

    def judge(self, chosen: Fit) -> Backtest | None:
        """The chosen weights beside the baselines on the holdout part."""
        plan, parts = self.plan, self.plan.parts
        origins = plan_origins(parts.validation, parts.end, plan.spec.horizon, plan.spec.horizon)
        if not len(origins):
            return None
        predictors = {MODEL: self.forecaster(chosen), **standard_baselines(plan.seasonality)}
        return backtest(predictors, self.panel, origins, plan.spec.horizon, plan.spec.quantiles, plan.seasonality)

    def lessons(self, ends: Ints) -> Lessons:
        """Every training window in the first `ends[i]` rows of each series."""
        plan = self.plan
        origins = lesson_origins(self.panel, plan.least_context(ends), ends, plan.spec.horizon)
        if len(origins) < LEAST_WINDOWS:
            raise self.too_short()
        return Lessons(self.windows, origins, series_weights(self.panel, ends, plan.seasonality))

    def fit(
        self, lessons: Lessons, validation: Lessons | None, start: Start, schedule: Schedule, phase: str, share: float
    ) -> Fit:
        """A new network from `start`, fitted."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.plan.training.seed)
            network = StackedRNN(self.plan.spec)
        start.apply_to(network)
        return fit(
            network.to(self.device),
            lessons,
            validation,
            schedule,
            seed=self.plan.training.seed,
            clock=self.clock,
            phase=phase,
            share_of_time=share,
            on_event=self.on_event,
        )

    def forecaster(self, found: Fit) -> Forecaster:
        network = StackedRNN(self.plan.spec)
        network.load_state_dict(found.weights)
        return Forecaster(network, self.device)

    def checkpoint(
        self, fits: tuple[Fit, ...], final: Fit, judgement: Backtest | None, options: dict[str, Any]
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
            trained_to=panel.starts + (parts.train if final is chosen else parts.end),
            judged=None if final is chosen else chosen.weights,
            judged_to=panel.starts + parts.validation,
            data_to=panel.ends,
            data=describe(panel) | {"fingerprint": panel.fingerprint()},
            metrics=judgement.metrics() if judgement else {},
            backtest=describe_backtest(judgement) if judgement else {},
            training={
                **asdict(plan.schedule),
                "seed": plan.training.seed,
                "steps": final.steps,
                "epochs": final.epochs,
                "validation": chosen.validation,
                "history": chosen.history,
                "stopped": fits[-1].stopped or chosen.stopped,
            },
            options=options,
        )

    def too_short(self) -> DataError:
        """The error for data without room for one window, with the arithmetic."""
        lengths, spec, parts = self.panel.lengths, self.plan.spec, self.plan.parts
        longest = int(lengths.argmax())
        kept = int(lengths[longest] - parts.train[longest])
        least = int(self.plan.least_context(parts.train)[longest])
        needed = least + spec.horizon + LEAST_WINDOWS - 1 + kept
        return DataError(
            f"The longest series ({self.panel.name(longest)}) has {lengths[longest]} rows; training needs at least "
            f"{needed}: {least} of context + {spec.horizon} of horizon + {LEAST_WINDOWS - 1} for more windows"
            + (f" + {kept} kept to choose and judge." if kept else "."),
            hint="Give more rows, or a shorter --horizon or --context-length.",
            code="too_few_rows",
        )

    def warnings(self, fits: tuple[Fit, ...], final: Fit) -> tuple[tuple[str, str], ...]:
        """What a user must know before trusting this model."""
        found = []
        if fits[0].stopped == "signal":
            found.append(("not_judged", "Stopped before judging: the model has no holdout table."))
        elif fits[-1].stopped == "signal":
            found.append(("not_refitted", "Stopped while refitting: the judged weights were kept."))
        elif self.refits and final.steps < fits[0].steps:
            found.append(("refit_shortened", f"Time was up: the refit made {final.steps} of {fits[0].steps} steps."))
        elif fits[0].stopped == "time":
            found.append(("time_up", "Time was up before validation stopped improving."))
        return tuple(found)


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
