"""The Forecaster: a fitted network in memory, from a panel in the user's units to quantiles in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.heads import build_head
from stacklstm_cli.model.inputs import feature_width
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.windows import Batch, Windows, learned_units, user_units

BATCH_NUMBERS = 2**20
"""Numbers a batch of forecasts may hold in its widest tensor, which bounds the memory of a forecast."""


class Forecaster:
    """Forecasts by one network. Satisfies the same interface as the baselines."""

    def __init__(self, network: StackedRNN, device: torch.device) -> None:
        self.network = network.to(device).eval()
        self.device = device
        self.spec = network.spec
        self.head = build_head(self.spec.loss, self.spec.quantiles, device)

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """Quantiles [O, H, Q] of the `horizon` rows after each origin, in user units, never crossing.

        Raises `UsageError` for a horizon longer
        or a quantile further out than what was learned.
        """
        self.check(horizon, quantiles)
        panel = learned_units(panel, self.spec)
        windows = Windows(panel, self.spec, self.device)
        series = torch.as_tensor(origins.series, device=windows.home)
        rows = torch.as_tensor(origins.rows, device=windows.home)
        result = np.empty((len(origins), horizon, len(quantiles)))
        with torch.inference_mode():
            for part in torch.split(torch.arange(len(origins), device=windows.home), self.batch_size):
                forecast = self.batch_forecast(windows, series[part], rows[part], horizon, quantiles)  # [B, H, Q]
                result[part.cpu().numpy()] = forecast.cpu().numpy()
        return user_units(torch.from_numpy(result), self.spec).numpy()

    def batch_forecast(
        self, windows: Windows, series: Tensor, rows: Tensor, horizon: int, quantiles: Sequence[float]
    ) -> Tensor:
        """One batch of origins -> [B, H, Q] float64 in the units of the windows."""
        return self.decoded(windows.batch(series, rows), horizon, quantiles)

    def decoded(self, batch: Batch, horizon: int, quantiles: Sequence[float]) -> Tensor:
        """A batch -> [B, H, Q] float64 in the units of its windows, by torch's operations alone: `export` traces them.

        A context with a single value has no scale: the value is repeated.
        """
        raw = self.network(batch.inputs.to(self.device, torch.float32))[:, :horizon]  # [B, H, K]
        forecast = self.head.decode(raw.to(batch.scaling.scale.device), batch.scaling, quantiles)  # [B, H, Q]
        alone = batch.inputs.observed.sum(1) < 2  # [B]
        return torch.where(alone[:, None, None], batch.scaling.location.unsqueeze(-1), forecast)

    def attention_weights(self, panel: Panel, origins: Origins) -> Floats:
        """[O, S] how much each step of the context counts, 1 in total, oldest first. Raises `UsageError`."""
        if not self.spec.stack.attention:
            raise UsageError(
                "This model has no attention, so there are no weights to show.",
                hint="Train one with --attention.",
                code="no_attention",
            )
        windows = Windows(learned_units(panel, self.spec), self.spec, self.device)
        series = torch.as_tensor(origins.series, device=windows.home)
        rows = torch.as_tensor(origins.rows, device=windows.home)
        with torch.inference_mode():
            parts = [
                self.network.attention_weights(windows.batch(some, known).inputs.to(self.device, torch.float32)).cpu()
                for some, known in zip(
                    torch.split(series, self.batch_size), torch.split(rows, self.batch_size), strict=True
                )
            ]
        return torch.cat(parts).double().numpy()

    @property
    def batch_size(self) -> int:
        """Windows whose widest tensor stays within `BATCH_NUMBERS`."""
        spec = self.spec
        rows = spec.context_length * max(4, spec.inputs.row_width, feature_width(spec.inputs.covariates))
        decoded = self.network.ahead_width + 2 * spec.stack.hidden_sizes[-1]
        ahead = spec.horizon * max(self.network.bias.shape[1], decoded)
        return max(1, BATCH_NUMBERS // max(rows, ahead, 4 * spec.steps * spec.stack.width))

    def check(self, horizon: int, quantiles: Sequence[float]) -> None:
        """Raise `UsageError` for what this network has not learned."""
        if horizon > self.spec.horizon:
            raise UsageError(
                f"--horizon is {horizon}, but this model was trained to forecast {self.spec.horizon} rows.",
                hint=f"Ask for at most {self.spec.horizon}, or train again with --horizon {horizon}.",
                code="horizon_too_long",
            )
        self.head.check(quantiles)
