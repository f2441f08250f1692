"""Which rows of each series train, which choose, and which judge: always the last rows, in that order.

N series. A part ends before the next begins; nothing is shuffled, nothing is shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stacklstm_cli.data.panel import Ints

SHARE = 0.15
"""Share of a series that chooses, and again that judges: enough origins to tell models apart, and the
newest rows, which resemble what will be forecast, are given back by the refit."""


@dataclass(frozen=True)
class Parts:
    """Row counts per series: training rows are [0, train), then [train, validation), then [validation, end)."""

    train: Ints
    """[N]"""
    validation: Ints
    """[N] end of the validation part; equal to `train` where a series is too short to have one."""
    end: Ints
    """[N] end of the holdout part; equal to `validation` where a series has none."""

    @property
    def judging(self) -> int:
        """Series that have a holdout part."""
        return int((self.end > self.validation).sum())

    @property
    def choosing(self) -> int:
        """Series that have a validation part."""
        return int((self.validation > self.train).sum())


def cut_parts(lengths: Ints, horizon: int, least_train: int, holdout: int | None) -> Parts:
    """The parts of series of these lengths [N].

    Validation and holdout take `SHARE` of the length each, rounded up to whole horizons, so that origins one
    horizon apart use every row. A series that would then train on fewer than `least_train` rows takes one horizon each; if that is too short as well
    it validates only; else it trains on all its rows. `holdout`, where given, is the holdout of every series.
    """
    share = np.maximum(1, np.ceil(SHARE * lengths / horizon).astype(np.int64)) * horizon
    judge = np.minimum(share if holdout is None else holdout, lengths)
    validation, judged = np.zeros_like(lengths), np.zeros_like(lengths)
    horizons = np.full_like(lengths, horizon)
    trials = [(horizons, np.zeros_like(lengths)), (horizons, horizons), (share, share)]
    if holdout is not None:
        trials = [(horizons, judge), (share, judge)]
    for one, other in trials:
        fits = lengths - one - other >= least_train
        validation, judged = np.where(fits, one, validation), np.where(fits, other, judged)
    return Parts(lengths - validation - judged, lengths - judged, lengths.copy())
