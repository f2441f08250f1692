"""The Forecaster: a fitted network in memory, from a panel in the user's units to quantiles in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from stacklstm_cli.config import MEDIAN
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.calibration import Calibration
from stacklstm_cli.model.heads import build_head
from stacklstm_cli.model.inputs import feature_width
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.windows import Batch, Windows, learned_units, user_units

BATCH_NUMBERS = 2**20
"""Numbers a batch of forecasts may hold in its widest tensor, which bounds the memory of a forecast."""


class Forecaster:
    """Forecasts by one network. Satisfies the same interface as the baselines."""

    def __init__(self, network: StackedRNN, device: torch.device, calibration: Calibration | None = None) -> None:
        """Without a `calibration` the quantiles are those that the network has learned."""
        self.network = network.to(device).eval()
        self.device = device
        self.spec = network.spec
        self.head = build_head(self.spec.loss, self.spec.quantiles, device)
        self.calibration = calibration

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """Quantiles [O, H, Q] of the `horizon` rows after each origin, in user units, never crossing.

        Raises `UsageError` for a horizon longer
        or a quantile further out than what was learned.
        """
        self.check(horizon, quantiles)
        panel = learned_units(panel, self.spec)
        windows = Windows(panel, self.spec, self.device)
        result = np.empty((len(origins), horizon, len(quantiles)))
        with torch.inference_mode():
            for part, batch in self.batches(windows, origins):
                forecast = user_units(self.decoded(batch, horizon, quantiles), self.spec)  # [B, H, Q]
                result[part.cpu().numpy()] = forecast.cpu().numpy()
        return result

    def pieces(self, panel: Panel, origins: Origins, parts: Ints) -> Ints:
        """[O] the batch of each origin, where those of each part, `parts` [O], are asked for at once.

        Matrix products depend in their last bits on how many windows there are, so a batch is never divided.
        """
        place = np.arange(len(origins)) - np.searchsorted(parts, parts)  # [O] among the origins of its part
        numbers = parts * max(len(origins), 1) + place // self.batch_size
        return np.unique(numbers, return_inverse=True)[1].astype(np.int64)

    def learned(self, panel: Panel, origins: Origins) -> tuple[Floats, Floats]:
        """The learned quantiles [O, H, Q] before any calibration, and the scale of each window [O], in learned units.

        The scale of a context with a single value is NaN: it has none.
        """
        spec = self.spec
        windows = Windows(learned_units(panel, spec), spec, self.device)
        forecasts, scales = np.empty((len(origins), spec.horizon, len(spec.quantiles))), np.empty(len(origins))
        with torch.inference_mode():
            for part, batch in self.batches(windows, origins):
                places = part.cpu().numpy()
                forecasts[places] = self.head.decode(self.raw(batch), batch.scaling, spec.quantiles).cpu().numpy()
                scales[places] = torch.where(is_alone(batch), torch.nan, batch.scaling.scale.squeeze(1)).cpu().numpy()
        return forecasts, scales

    def batches(self, windows: Windows, origins: Origins) -> Iterator[tuple[Tensor, Batch]]:
        """Places [B] among the origins and what the network sees there, a bounded number at a time."""
        series = torch.as_tensor(origins.series, device=windows.home)
        rows = torch.as_tensor(origins.rows, device=windows.home)
        for part in torch.split(torch.arange(len(origins), device=windows.home), self.batch_size):
            yield part, windows.batch(series[part], rows[part])

    def raw(self, batch: Batch) -> Tensor:
        """The network's numbers [B, H, K], where the windows lie."""
        raw: Tensor = self.network(batch.inputs.to(self.device, torch.float32))
        return raw.to(batch.scaling.scale.device)

    def decoded(self, batch: Batch, horizon: int, quantiles: Sequence[float]) -> Tensor:
        """A batch -> [B, H, Q] float64 in the units of its windows, by torch's operations alone: `export` traces them.

        A context with a single value has no scale: the value is repeated.
        """
        raw = self.raw(batch)[:, :horizon]  # [B, H, K]
        forecast = self.head.decode(raw, batch.scaling, quantiles)  # [B, H, Q]
        if self.calibration is not None:
            learned = self.head.decode(raw, batch.scaling, self.spec.quantiles)  # [B, H, Q']
            forecast = self.calibration.apply(learned, forecast, quantiles, batch.scaling.scale)
            if self.spec.loss == "negative-binomial":
                forecast = whole(forecast, quantiles)
        return torch.where(is_alone(batch)[:, None, None], batch.scaling.location.unsqueeze(-1), forecast)

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


def is_alone(batch: Batch) -> Tensor:
    """[B] whether a context holds a single value, which says nothing of its scale."""
    return batch.inputs.observed.sum(1) < 2


def whole(forecast: Tensor, quantiles: Sequence[float]) -> Tensor:
    """Quantiles [B, H, Q] of counts as counts: their intervals hold the same counts as before."""
    lower = torch.tensor([quantile < MEDIAN for quantile in quantiles], device=forecast.device)  # [Q]
    return torch.where(lower, forecast.ceil(), forecast.floor()).clamp(min=0)
