"""Lessons: training windows with their targets, in the units of the loss.

Shape letters: B batch, L context, H horizon, N series, W windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.model.heads import Scaling
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.model.windows import Inputs, Windows, per_window

CHUNK_NUMBERS = 2**19
LEAST_CHUNK, MOST_CHUNK = 32, 1024


@dataclass(frozen=True)
class Lesson:
    """A batch of inputs and what should have been forecast."""

    inputs: Inputs
    """What the network sees."""
    target: Tensor
    """[B, H] the target less the window's location, in the units of the loss; 0 where unknown. [B, S, H] where every
    step is supervised, as is what follows."""
    known: Tensor
    """[B, H] 1 where the target is observed, else 0."""
    gain: Tensor
    """[B, 1] from the window's normalised units to the units of the loss."""
    scaling: Scaling
    """From the window's normalised units to those of the series; float64, where the windows lie."""


def chunk_size(spec: NetworkSpec) -> int:
    """Windows that are looked at together where no step is made, so that memory does not grow with the context."""
    return max(LEAST_CHUNK, min(MOST_CHUNK, CHUNK_NUMBERS // (spec.context_length + spec.horizon)))


class Lessons:
    """W training windows of a panel, cut into batches by index.

    The loss weighs each error by its series, not by its window: a quiet window of a lively series must
    not count more than the rest of it.
    """

    def __init__(self, windows: Windows, origins: Origins, weights: Floats, *, every_step: bool = False) -> None:
        """`weights` [N]: units of the loss per user unit, for each series. `every_step` of the stack shall forecast."""
        home = windows.home
        self.windows = windows
        self.every_step = every_step
        # Half the width: the windows may be as many as the values.
        self.series, self.rows = (
            torch.as_tensor(numbers.astype(np.int32), device=home) for numbers in (origins.series, origins.rows)
        )  # [W] each
        self.weights = torch.as_tensor(weights, device=home)  # [N]

    def __len__(self) -> int:
        return len(self.series)

    def batch(self, chosen: Tensor, *, exact: bool = False) -> Lesson:
        """The windows with these indices [B]; `exact` ones in float64, where the windows lie."""
        series, rows = self.series[chosen].long(), self.rows[chosen].long()  # [B], [B]
        batch = self.windows.batch(series, rows, every_step=self.every_step and not exact)
        values, known = self.windows.targets(series, batch.origins)  # [B, H], [B, H]
        weight = per_window(self.weights[series], values)  # [B, 1]
        scaling = Scaling(per_window(batch.scaling.location, values), per_window(batch.scaling.scale, values))
        target = (values - scaling.location) * weight * known  # [B, H]
        device, dtype = (self.windows.home, torch.float64) if exact else (self.windows.device, torch.float32)
        gain = scaling.scale * weight  # [B, 1]

        def moved(numbers: Tensor) -> Tensor:
            return numbers.to(dtype).to(device)  # the type first: not every device has float64

        inputs = batch.inputs.to(device, dtype)
        return Lesson(inputs, moved(target), moved(known), moved(gain), scaling)

    def chunks(self, *, exact: bool = False) -> Iterator[Lesson]:
        """All windows, a bounded number at a time."""
        for chosen in self.indices():
            yield self.batch(chosen, exact=exact)

    def indices(self) -> tuple[Tensor, ...]:
        """Those of all windows, as the chunks have them."""
        return torch.split(torch.arange(len(self), device=self.series.device), chunk_size(self.windows.spec))

    def thinned(self, most: int) -> Lessons:
        """At most `most` windows, evenly spread over all."""
        if len(self) <= most:
            return self
        chosen = torch.linspace(0, len(self) - 1, most, dtype=torch.float64, device=self.series.device).long()  # [most]
        origins = Origins(self.series[chosen].long().cpu().numpy(), self.rows[chosen].long().cpu().numpy())
        return Lessons(self.windows, origins, self.weights.cpu().numpy(), every_step=self.every_step)


MOST_LESSONS = 2**20
"""More windows than training ever draws; of more, this many are taken, evenly spread over all."""


def lesson_origins(panel: Panel, first: Ints, last: Ints, spec: NetworkSpec) -> Origins:
    """Every origin whose whole horizon lies in rows [first, last) of its series, in order; at most `MOST_LESSONS`.

    Its horizon and its context must each hold an observed value. `first`, `last` [N]; for training, `first` is
    also the least rows of context an origin must have.
    """
    horizon = spec.horizon
    room = np.maximum(last - horizon - first + 1, 0)  # [N]
    ends = np.cumsum(room)
    total = int(ends[-1])
    places = np.arange(total) if total <= MOST_LESSONS else np.linspace(0, total - 1, MOST_LESSONS).astype(np.int64)
    series = np.searchsorted(ends, places, side="right")  # [W]
    rows = places - (ends - room)[series] + first[series]  # [W]
    missing = np.isnan(panel.values)
    if not missing.any():
        return Origins(series[rows > 0], rows[rows > 0])
    seen = np.concatenate([[0], np.cumsum(~missing, dtype=np.int32)])  # [R + 1]
    begin = panel.offsets[series] + rows  # [W]
    oldest = np.maximum(begin - spec.context_length, panel.offsets[series])  # [W]
    worth = (seen[begin + horizon] > seen[begin]) & (seen[begin] > seen[oldest])
    return Origins(series[worth], rows[worth])


RELATIVE_SHARE = 0.75
"""How much of the loss is relative to a series' level; the rest is relative to its seasonal changes. Found on
validation parts of hourly data of many series: relative errors alone neglect series that hardly move, seasonal
changes alone neglect those that move a lot."""


def series_weights(panel: Panel, ends: Ints, season: int) -> Floats:
    """Units of the loss per user unit [N], so that series of any size count alike.

    A mix of one over the mean absolute seasonal difference of the first `ends[i]` rows (the scale of MASE,
    Hyndman & Koehler 2006) and one over the mean absolute value, brought to the same size by the median series.
    """
    by_change, by_level = np.empty(panel.n_series), np.empty(panel.n_series)
    for index in range(panel.n_series):
        values = panel.series(index)[: max(int(ends[index]), 1)]
        lag = season if values.size > 2 * season else 1
        changes = np.abs(values[lag:] - values[:-lag])
        observed, changes = values[~np.isnan(values)], changes[~np.isnan(changes)]
        level = np.abs(observed).mean() if observed.size else 0.0
        floor = max(1e-3 * level, 1e-2 * observed.std() if observed.size else 0.0) or 1.0
        by_change[index] = 1 / max(changes.mean() if changes.size else 0.0, floor)
        by_level[index] = 1 / max(level, floor)
    same_size = np.median(by_change / by_level)
    return (1 - RELATIVE_SHARE) * by_change + RELATIVE_SHARE * same_size * by_level
