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


def cut_parts(lengths: Ints, horizon: int, least_train: int, holdout: int | None) -> Parts:
    """The parts of series of these lengths [N].

    Validation and holdout take `SHARE` of the length each, rounded up to whole horizons, so that origins one
    horizon apart use every row. A series that would then train on fewer than `least_train` rows takes one
    horizon each; if that is too short as well it validates only; else it trains on all its rows. `holdout`,
    where given, is the holdout of every series that has room for it.
    """
    share = np.maximum(1, np.ceil(SHARE * lengths / horizon).astype(np.int64)) * horizon
    one, none = np.full_like(lengths, horizon), np.zeros_like(lengths)
    trials = [(one, none), (one, one), (share, share)]
    if holdout is not None:
        trials = [(one, none), (one, none + holdout), (share, none + holdout)]
    validation, judged = none, none
    for choose, judge in trials:  # the last that fits wins
        fits = lengths - choose - judge >= least_train
        validation, judged = np.where(fits, choose, validation), np.where(fits, judge, judged)
    return Parts(lengths - validation - judged, lengths - judged, lengths.copy())
