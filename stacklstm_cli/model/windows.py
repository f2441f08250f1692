"""Windows: origins as indices into one flat tensor, gathered and normalised batch by batch.

Nothing is materialised: a batch is index arithmetic on the flat values of all series. Each window is
normalised by its own context alone, so the network needs no statistics of any series, works for series
it has never seen, and nothing after a cutoff can reach a forecast made at it.

Shape letters: B batch, L context, H horizon, R rows of all series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stacklstm_cli.data.panel import Panel
from stacklstm_cli.model.network import NetworkSpec

DEVIATION_FLOOR = 0.1
LEVEL_FLOOR = 1e-6
"""Smallest scale of a window, as shares of its whole context's deviation and of its level: a window whose
newest rows hardly move must not blow up what comes before and after them."""


@dataclass(frozen=True)
class Batch:
    """Contexts ready for the network, and what leads back to the user's units."""

    context: Tensor
    """[B, L] float32, normalised; 0 where missing."""
    observed: Tensor
    """[B, L] float32, 1 where the context has a value, 0 where it is missing or before the series."""
    location: Tensor
    """[B] float64, what was subtracted."""
    scale: Tensor
    """[B] float64, what was divided by."""


class Windows:
    """All series of a panel as one flat tensor on a device."""

    def __init__(self, panel: Panel, spec: NetworkSpec, device: torch.device) -> None:
        # MPS has no float64, which the normalisation needs: there the gathering stays on the CPU.
        self.device = device
        self.spec = spec
        self.home = torch.device("cpu") if device.type == "mps" else device
        observed = ~np.isnan(panel.values)
        self.values = torch.as_tensor(np.where(observed, panel.values, 0.0), device=self.home)  # [R]
        self.observed = torch.as_tensor(observed, device=self.home)  # [R]
        rows = torch.arange(len(observed), device=self.home)  # [R]
        self.latest = torch.where(self.observed, rows, 0).cummax(0).values  # [R] last observed row so far
        self.offsets = torch.as_tensor(panel.offsets, device=self.home)  # [N + 1]
        self.steps_back = torch.arange(-spec.context_length, 0, device=self.home)  # [L]
        self.steps_ahead = torch.arange(spec.horizon, device=self.home)  # [H]

    def contexts(self, series: Tensor, rows: Tensor) -> Batch:
        """The L rows before each origin, normalised.

        `series` [B], `rows` [B]: index of the series, and how many of its rows are known, at least one. Rows
        before the series begins are missing. In a gap longer than the context the newest context of the same
        season that reaches the last known value stands in, or there would be nothing to forecast from.
        """
        begin = self.offsets[series].unsqueeze(1)  # [B, 1]
        season, length = self.spec.location_length, self.spec.context_length
        end = self.offsets[series] + rows  # [B]
        behind = end - 1 - self.latest[end - 1]  # [B] rows since the last known value
        back = torch.where(behind >= length, (behind + 1 - season).clamp(min=0), 0)
        end = end - (back + season - 1) // season * season
        index = end.unsqueeze(1) + self.steps_back  # [B, L]
        inside = index >= begin  # [B, L]
        index = index.clamp(min=0)
        observed = self.observed[index] & inside  # [B, L]
        values = self.values[index] * observed  # [B, L]
        location, scale = location_and_scale(values, observed, self.spec)  # [B], [B]
        normalised = (values - location.unsqueeze(1)) / scale.unsqueeze(1) * observed  # [B, L]
        return Batch(
            normalised.float().to(self.device),
            observed.float().to(self.device),
            location,
            scale,
        )

    def targets(self, series: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The H rows after each origin: values [B, H] float64 in user units, and where they are observed."""
        begin, end = self.offsets[series].unsqueeze(1), self.offsets[series + 1].unsqueeze(1)  # [B, 1]
        index = begin + rows.unsqueeze(1) + self.steps_ahead  # [B, H]
        inside = index < end
        index = index.clamp(max=self.values.numel() - 1)
        return self.values[index], self.observed[index] & inside


def location_and_scale(values: Tensor, observed: Tensor, spec: NetworkSpec) -> tuple[Tensor, Tensor]:
    """What to subtract from and divide by each context [B, L], 0 where missing -> [B], [B].

    The mean of the newest `location_length` rows and the deviation of the newest `scale_length`; where none
    of these is observed, the whole context counts. The scale is never zero: at least `DEVIATION_FLOOR` of
    the whole context's deviation and `LEVEL_FLOOR` of the level, else 1.
    """
    location, _ = mean_and_deviation(values, newest(observed, spec.location_length))  # [B]
    _, recent = mean_and_deviation(values, newest(observed, spec.scale_length))  # [B]
    _, whole = mean_and_deviation(values, observed)  # [B]
    scale = torch.maximum(recent, torch.maximum(DEVIATION_FLOOR * whole, LEVEL_FLOOR * location.abs()))
    return location, torch.where(scale > 0, scale, 1.0)


def newest(observed: Tensor, rows: int) -> Tensor:
    """The observed places among the newest `rows` of each context [B, L]; all where there is none."""
    recent = observed.clone()
    recent[:, :-rows] = False
    return torch.where(recent.any(1, keepdim=True), recent, observed)  # [B, L]


def mean_and_deviation(values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation [B] over the counted places of [B, L]; 0 where none is."""
    count = counted.sum(1).clamp(min=1)  # [B]
    mean = (values * counted).sum(1) / count  # [B]
    squares = ((values - mean.unsqueeze(1)) * counted).square().sum(1)  # [B]
    return mean, (squares / count).sqrt()
