"""The Forecaster: a fitted network in memory, from a panel in the user's units to quantiles in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.windows import Windows, learned_units, user_units

BATCH_NUMBERS = 2**22
"""Numbers a batch of forecasts may hold in its widest tensor, which bounds the memory of a forecast."""


class Forecaster:
    """Forecasts by one network. Satisfies the same interface as the baselines."""

    def __init__(self, network: StackedRNN, device: torch.device) -> None:
        self.network = network.to(device).eval()
        self.device = device
        self.spec = network.spec

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """Quantiles [O, H, Q] of the `horizon` rows after each origin, in user units, never crossing.

        Quantiles between learned ones are interpolated linearly. Raises `UsageError` for a horizon longer
        or a quantile further out than what was learned.
        """
        self.check(horizon, quantiles)
        panel = learned_units(panel, self.spec)
        windows = Windows(panel, self.spec, self.device)
        below, above, share = interpolation(self.spec.quantiles, quantiles)  # each [Q']
        share_above = torch.as_tensor(share, device=windows.home)  # [Q']
        series = torch.as_tensor(origins.series, device=windows.home)
        rows = torch.as_tensor(origins.rows, device=windows.home)
        result = np.empty((len(origins), horizon, len(quantiles)))
        with torch.inference_mode():
            for part in torch.split(torch.arange(len(origins), device=windows.home), self.batch_size):
                learned = self.batch_forecast(windows, series[part], rows[part])[:, :horizon]  # [B, H, Q]
                low, high = learned[..., below], learned[..., above]  # [B, H, Q'] each
                # Rounding must not lift a value over the learned one above it.
                values = torch.minimum(low + share_above * (high - low), high)  # [B, H, Q']
                result[part.cpu().numpy()] = values.cpu().numpy()
        alone = origins.rows == 1  # one value has no scale; every series begins with one
        result[alone] = panel.values[panel.offsets[origins.series[alone]]][:, None, None]
        return user_units(result, self.spec)

    def batch_forecast(self, windows: Windows, series: Tensor, rows: Tensor) -> Tensor:
        """One batch of origins -> [B, H, Q] float64 in the units of the windows, sorted over the quantiles."""
        batch = windows.batch(series, rows)
        inputs = batch.inputs.to(self.device, torch.float32)
        ordered: Tensor = self.network(inputs).sort(-1).values  # [B, H, Q]
        return batch.location[:, None, None] + ordered.to(batch.scale) * batch.scale[:, None, None]

    @property
    def batch_size(self) -> int:
        spec = self.spec
        widest = max(4 * spec.steps * spec.hidden_size, spec.horizon * len(spec.quantiles), 4 * spec.context_length)
        return max(1, BATCH_NUMBERS // widest)

    def check(self, horizon: int, quantiles: Sequence[float]) -> None:
        """Raise `UsageError` for what this network has not learned."""
        if horizon > self.spec.horizon:
            raise UsageError(
                f"--horizon is {horizon}, but this model was trained to forecast {self.spec.horizon} rows.",
                hint=f"Ask for at most {self.spec.horizon}, or train again with --horizon {horizon}.",
                code="horizon_too_long",
            )
        learned = self.spec.quantiles
        for quantile in quantiles:
            if not learned[0] - 1e-9 <= quantile <= learned[-1] + 1e-9:
                raise UsageError(
                    f"Quantile {quantile:g} is outside what the model has learned ({learned[0]:g} to {learned[-1]:g}).",
                    hint="Train again with --quantiles that reach as far out.",
                    code="quantile_not_learned",
                )


def interpolation(learned: Sequence[float], wanted: Sequence[float]) -> tuple[Ints, Ints, Floats]:
    """For each wanted quantile [Q'] the learned ones below and above it, and how far it lies towards the latter."""
    places = np.interp(wanted, learned, np.arange(len(learned)))  # [Q']
    below = np.floor(places).astype(np.int64)
    return below, np.ceil(places).astype(np.int64), places - below
