"""A backtest whose network is fitted anew on the way, as `train` would have done at each cutoff.

Only the weights are new. What was chosen once stays: the network's form, the number of steps, the ridge strength of
the start, the learning rate and its kin, the seed, and the calibration of the intervals.

Letters: O origins, H horizon, Q quantiles, N series.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stacklstm_cli.config import TrainingConfig
from stacklstm_cli.data.origins import Origins, known_at
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import DataError, NothingLearnedError
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.training.defaults import Plan
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.loop import OnEvent, Schedule
from stacklstm_cli.training.parts import Parts
from stacklstm_cli.training.placement import Places
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.start import Ridge

UNTOLD_STRENGTH = 1.0
"""Ridge strength of the start for a model whose file does not tell it: what `train` takes where nothing chooses it."""


class Refitting:
    """Forecasts by networks that know the rows up to a cutoff. Satisfies the same interface as the baselines."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        forecaster: Forecaster,
        panel: Panel,
        origins: Origins,
        every: int,
        *,
        clock: Clock,
        on_event: OnEvent = lambda event: None,
    ) -> None:
        """`origins` are all that will be asked for: a network is fitted before every `every` cutoffs of them, in the
        order of time. `forecaster` has the calibration that is kept."""
        self.checkpoint = checkpoint
        self.forecaster = forecaster
        self.panel = panel
        self.fitted_at: Ints = np.unique(cutoffs_of(panel, origins))[::every]  # [F]
        self.clock = clock
        self.on_event = on_event
        self.weights: dict[int, dict[str, torch.Tensor]] = {}
        self.devices = Places((forecaster.device,))

    def explained(self) -> str:
        """What is about to be done, for a person."""
        stored, count = self.checkpoint.training, self.fitted_at.size
        return (
            f"{count} network{'' if count == 1 else 's'} to fit anew, each on the rows up to its cutoff: "
            f"{stored['steps']} steps and seed {stored['seed']}, as the saved weights had"
        )

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """[O, H, Q] in the user's units, each by the newest network that was fitted up to its cutoff.

        Raises `DataError` where too little is known at a cutoff, `NothingLearnedError` where a fit diverges or a
        signal ends it.
        """
        result = np.empty((len(origins), horizon, len(quantiles)))
        places = self.places(panel, origins)  # [O]
        for place in np.unique(places).tolist():
            mine = np.flatnonzero(places == place)
            some = Origins(origins.series[mine], origins.rows[mine])
            self.load(place)
            result[mine] = self.forecaster.forecast(panel, some, horizon, quantiles)
            self.refuse_signal(place + 1)
        return result

    def pieces(self, panel: Panel, origins: Origins, parts: Ints) -> Ints:
        """[O] the network of each origin, whatever part it is in, so that each is fitted by one process alone."""
        return self.places(panel, origins)

    def places(self, panel: Panel, origins: Origins) -> Ints:
        """[O] which of the networks forecasts each origin."""
        found: Ints = np.searchsorted(self.fitted_at, cutoffs_of(panel, origins), side="right") - 1
        return found

    def load(self, place: int) -> None:
        """Give the forecaster the network fitted at this place of `fitted_at`; it is fitted once."""
        if place not in self.weights:
            self.weights[place] = self.fit(place)
        self.forecaster.network = self.checkpoint.network(self.weights[place]).to(self.forecaster.device)

    def fit(self, place: int) -> dict[str, torch.Tensor]:
        """The weights of a network that knows nothing after a cutoff."""
        cutoff = int(self.fitted_at[place])
        known = known_at(self.panel, cutoff)
        plan = plan_of(self.checkpoint, known)
        label = {"phase": f"network {place + 1} of {self.fitted_at.size}"}
        trainer = Trainer(
            known,
            plan,
            device=self.devices,
            clock=self.clock,
            on_event=lambda event: self.on_event(event | label),
        )
        stamp = self.panel.stamps([cutoff])[0]
        try:
            fitted = trainer.refit(plan.schedule.max_steps, ridge_of(self.checkpoint))
        except DataError as error:
            raise DataError(
                f"--refit-every: the rows up to {stamp} are too few to fit a network on ({error.message})",
                hint="Give a later --start, or fewer --origins.",
                code=error.code,
            ) from error
        self.refuse_signal(place)
        if fitted is None:
            raise NothingLearnedError(
                f"--refit-every: the network fitted up to {stamp} diverged.",
                hint="Look for extreme values in the rows before, or leave --refit-every out.",
                code="diverged",
            )
        return fitted.weights

    def refuse_signal(self, fitted: int) -> None:
        """Raise `NothingLearnedError` where a signal has come."""
        if self.clock.stopped() == "signal":
            error = NothingLearnedError(
                f"Stopped by a signal with {fitted} of {self.fitted_at.size} networks fitted; nothing was scored.",
                code="stopped",
            )
            error.exit_status = self.clock.exit_status
            raise error


def cutoffs_of(panel: Panel, origins: Origins) -> Ints:
    """[O] position on the grid of the last known row of each origin."""
    cutoffs: Ints = panel.starts[origins.series] + origins.rows - 1
    return cutoffs


def ridge_of(checkpoint: Checkpoint) -> Ridge:
    """That of the start of a saved model."""
    stored = checkpoint.training
    strength, smoothing = stored.get("start_strength", UNTOLD_STRENGTH), stored.get("start_smoothing", 0.0)
    return Ridge(strength, stored.get("start_towards", "seasons"), smoothing)


def plan_of(checkpoint: Checkpoint, panel: Panel) -> Plan:
    """The plan by which a saved model was refitted, for another panel: all rows train, nothing is chosen."""
    stored: dict[str, Any] = checkpoint.training
    fields = {field.name for field in dataclasses.fields(Schedule)} & stored.keys()
    rate = stored["learning_rate"] * stored.get("rate", 1.0)
    known = {name: stored[name] for name in fields}
    schedule = Schedule(**known | {"max_steps": stored["steps"], "learning_rate": rate})
    ends = panel.lengths
    return Plan(
        spec=checkpoint.spec,
        schedule=schedule,
        parts=Parts(ends, ends, ends),
        training=TrainingConfig(seed=stored["seed"], precision=checkpoint.options.get("precision", "auto")),
        seasonality=checkpoint.seasonality,
        start_strength=UNTOLD_STRENGTH,
        unvalidated_steps=stored["steps"],
    )
