"""Calibration: learned quantiles, moved so that intervals hold the share of values that they name.

What is stored in a model and how a forecast uses it; how it is found is evaluation/conformal.py.

Shape letters: B batch, H horizon, H' rows forecast, Q learned and Q' wanted quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from stacklstm_cli.config import MEDIAN
from stacklstm_cli.data.panel import Floats
from stacklstm_cli.model.heads import interpolation

MOST_OFFSET = 100.0
"""Deviations of its window that a quantile is moved at most: one jump in a series that hardly moves is no measure."""
OUTERMOST = 1 - 1e-6
"""The largest level that a quantile is given for: the tail beyond it is a guess."""
EFFECTIVE = (MEDIAN - 1, MEDIAN + 1)
"""Bounds of effective levels. One above 1 or below 0 stands for the outermost quantile there is; how far beyond it is
tells how much must come inside before the interval narrows."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far each learned quantile is moved, for each row of the horizon, and which level then stands for it."""

    levels: tuple[float, ...]
    """[Q] the learned quantiles, ascending, the median among them."""
    offsets: Floats
    """[H, Q] added to each learned quantile, in units of its window's scale; 0 for the median, which stays."""
    effective: Floats
    """[Q] the level whose quantile is given where the learned one is asked for; the learned ones until new rows
    have told otherwise."""

    def apply(self, learned: Tensor, wanted: Tensor, quantiles: Sequence[float], scale: Tensor) -> Tensor:
        """Calibrated forecasts [B, H', Q'] of the levels `quantiles` [Q'].

        `learned` [B, H', Q] and `wanted` [B, H', Q'] are the network's own at `levels` and at `quantiles`, `scale`
        [B, 1] that of the windows. A level between two learned ones keeps its place between them, whatever shape
        the head gives it; one beyond them keeps its distance to the outermost.
        """
        calibrated = self.calibrated(learned, scale)  # [B, H', Q]
        below, above, share = interpolation(self.levels, quantiles)  # each [Q']
        low, high = calibrated[..., below], calibrated[..., above]  # [B, H', Q'] each
        begin, width = learned[..., below], learned[..., above] - learned[..., below]  # [B, H', Q'] each
        place = torch.where(width > 0, (wanted - begin) / width, torch.as_tensor(share).to(wanted))  # [B, H', Q']
        between = torch.minimum(low + place.clamp(0, 1) * (high - low), high)
        outside = torch.as_tensor(below == above).to(wanted.device)  # [Q'] or at a learned one
        return torch.where(outside, low + (wanted - begin), between)

    def calibrated(self, learned: Tensor, scale: Tensor) -> Tensor:
        """The learned levels [B, H', Q] calibrated: never crossing, the median as it was."""
        offsets = torch.as_tensor(self.offsets[: learned.shape[1]]).to(learned)  # [H', Q]
        moved = self.outwards(learned + offsets * scale.unsqueeze(-1))  # [B, H', Q]
        if self.mixture is None:
            return moved
        return self.outwards(moved @ torch.as_tensor(self.mixture).to(learned).T)  # [B, H', Q]

    def outwards(self, moved: Tensor) -> Tensor:
        """No quantile [..., Q] nearer to the median than one between the two."""
        columns = list(moved.unbind(-1))
        # One by one: ONNX has no words for a running maximum.
        for place in range(self.middle + 1, len(columns)):
            columns[place] = torch.maximum(columns[place], columns[place - 1])
        for place in range(self.middle - 1, -1, -1):
            columns[place] = torch.minimum(columns[place], columns[place + 1])
        return torch.stack(columns, -1)  # [..., Q]

    @property
    def middle(self) -> int:
        """Where the median is among the levels."""
        return self.levels.index(MEDIAN)

    @cached_property
    def mixture(self) -> Floats | None:
        """[Q, Q] shares of the calibrated quantiles that make up those of the effective levels; None for no change.

        Linear between levels, as heads do; beyond the outermost one its distance to the median grows as that of
        a normal distribution's quantiles.
        """
        if np.array_equal(self.effective, self.levels):
            return None
        lowest, highest = min(self.levels[0], 1 - OUTERMOST), max(self.levels[-1], OUTERMOST)
        effective = np.clip(self.effective, lowest, highest).tolist()
        below, above, share = interpolation(self.levels, effective)  # each [Q]
        shares = np.zeros((len(self.levels), len(self.levels)))
        places = np.arange(len(self.levels))
        np.add.at(shares, (places, below), 1 - share)
        np.add.at(shares, (places, above), share)
        normal = NormalDist()
        for place, level in enumerate(effective):
            end = 0 if level < self.levels[0] else -1
            if level < self.levels[0] or level > self.levels[-1]:
                reach = normal.inv_cdf(level) / normal.inv_cdf(self.levels[end])
                shares[place, end], shares[place, self.middle] = reach, 1 - reach
        return shares


def sound(calibration: Calibration, horizon: int) -> bool:
    """Whether this can be the calibration of a network that forecasts so many rows."""
    levels, offsets, effective = np.asarray(calibration.levels), calibration.offsets, calibration.effective
    if offsets.shape != (horizon, levels.size) or effective.shape != levels.shape:
        return False
    if offsets.dtype != np.float64 or effective.dtype != np.float64:
        return False
    middle = calibration.middle
    return bool(
        (np.abs(offsets) <= MOST_OFFSET).all()  # false for NaN
        and (offsets[:, middle] == 0).all()
        and effective[middle] == MEDIAN
        and (np.diff(effective) >= 0).all()
        and EFFECTIVE[0] <= effective[0]
        and effective[-1] <= EFFECTIVE[1]
    )
