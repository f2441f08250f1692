"""Forecasts that need no training, to judge the network by.

Point forecasts and intervals follow Hyndman & Athanasopoulos, Forecasting: Principles and Practice,
3rd ed., sections 5.2 and 5.5: Gaussian quantiles from the standard deviation σ of each method's
one-step residuals in the history before the cutoff, widened with the horizon.

Where rows are missing, a step over a gap of g rows is g steps of a random walk: its squared residual
counts 1/g, and a forecast made g rows after the last observed value has its horizon counted from
there. Without missing rows this is the book's formula. (The extension is ours.)

Letters: M rows of the panel, N series, O origins, H horizon, Q quantiles, m seasonality.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.evaluation.backtest import Predictor

Flags = npt.NDArray[np.bool_]

ROWS_AT_ONCE = 2**18
"""Residuals are squared so many at a time, or they would hold more memory than the data."""
MOST_SHORT = 2**31 - 1
"""More rows than an index of 32 bits can name."""


def standard_baselines(seasonality: int) -> dict[str, Predictor]:
    """The baselines that every evaluation shows, by the names they are reported under."""
    return {
        "naive": Naive(),
        "seasonal_naive": SeasonalNaive(seasonality),
        "drift": Drift(),
        "seasonal_average": SeasonalAverage(seasonality),
    }


@dataclass(frozen=True)
class Naive:
    """The last observed value; σ √h. A history of one value gives quantiles of no width."""

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """[O, H, Q] in the user's units."""
        return _gaussian(_naive(_History.of(panel, origins, horizon)), quantiles)


@dataclass(frozen=True)
class SeasonalNaive:
    """The last observed value of the same season; σ √(k + 1), k whole seasons before the last one.

    Naive where the history is shorter than a season, where the season was never observed, and in its
    width where no two values of one season were.
    """

    seasonality: int

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """[O, H, Q] in the user's units."""
        history, m = _History.of(panel, origins, horizon), self.seasonality
        last = history.last_observed(stride=m)  # [M]
        row, known = history.same_season(m)
        source = np.where(known, last[row], -1)  # [O, H]

        def squares(rows: Ints) -> Floats:
            earlier = last[rows - m]
            residual: Floats = (history.values[rows] - history.values[earlier]) ** 2 * m / (rows - earlier)
            return residual

        sigma, residuals = history.deviation(history.behind(m, last >= 0), squares)

        naive, found = _naive(history), source >= 0
        seasons = np.where(found, history.target - source, m) / m  # k + 1
        return _gaussian(
            _Normal(
                np.where(found, history.values[source], naive.mean),
                np.where(found & (residuals > 0)[:, None], sigma[:, None] * np.sqrt(seasons), naive.deviation),
            ),
            quantiles,
        )


@dataclass(frozen=True)
class Drift:
    """The line through the first and the last observed value; σ √(h (1 + h / (T - 1))).

    T - 1 is the number of rows between the two. σ is naive's where there are fewer than two residuals.
    """

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """[O, H, Q] in the user's units."""
        history = _History.of(panel, origins, horizon)
        last, squares, residuals = _walk(history)
        rise, span = panel.values[last] - panel.values[history.first], np.maximum(last - history.first, 1)  # [O]
        # the sum over steps of (rise of the step - g slope)² / g, multiplied out
        around_line = np.maximum(squares - rise**2 / span, 0) / np.maximum(residuals - 1, 1)
        variance = np.where(residuals > 1, around_line, squares / np.maximum(residuals, 1))
        ahead = history.target - last[:, None]  # [O, H] h
        mean = panel.values[last][:, None] + (rise / span)[:, None] * ahead
        deviation = np.sqrt(variance[:, None] * ahead * (1 + ahead / span[:, None]))
        return _gaussian(_Normal(mean, deviation), quantiles)


@dataclass(frozen=True)
class SeasonalAverage:
    """The mean of all observed values of the same season; σ √(1 + 1/n), n values in the mean.

    The book's mean method for each season; σ is the residual standard deviation around the seasons'
    means, pooled over them. Naive where `SeasonalNaive` is.
    """

    seasonality: int

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """[O, H, Q] in the user's units."""
        history, m = _History.of(panel, origins, horizon), self.seasonality
        total = history.running_sum(np.where(history.observed, history.values, 0.0), stride=m)  # [M]
        count = history.running_sum(history.observed.astype(history.position.dtype), stride=m)
        mean = np.divide(total, np.maximum(count, 1), out=total)
        row, known = history.same_season(m)
        n = np.where(known, count[row], 0)  # [O, H]

        def squares(rows: Ints) -> Floats:
            # Welford (1962), Technometrics 4(3), 419-420: what each value adds to the squares around its mean
            share = count[rows - m] / count[rows]
            added: Floats = share * (history.values[rows] - mean[rows - m]) ** 2
            return added

        sigma, residuals = history.deviation(history.behind(m, count > 0), squares)

        naive, found = _naive(history), n > 0
        return _gaussian(
            _Normal(
                np.where(found, mean[row], naive.mean),
                np.where(
                    found & (residuals > 0)[:, None],
                    sigma[:, None] * np.sqrt(1 + 1 / np.maximum(n, 1)),
                    naive.deviation,
                ),
            ),
            quantiles,
        )


class _Normal(NamedTuple):
    """A Gaussian for every step of every origin, both arrays [O, H]."""

    mean: Floats
    deviation: Floats


def _gaussian(normal: _Normal, quantiles: Sequence[float]) -> Floats:
    """[O, H, Q]"""
    forecast = np.empty((*normal.mean.shape, len(quantiles)))
    for index, quantile in enumerate(quantiles):
        forecast[:, :, index] = normal.mean + normal.deviation * NormalDist().inv_cdf(quantile)
    return forecast


@dataclass(frozen=True, eq=False)
class _History:
    """All rows of a panel in a line, and where in it the origins cut. Indices are of 32 bits where that is enough.

    Whatever is accumulated here at a row depends on that row and earlier ones of its series only, so
    that a value read at a cutoff knows nothing later.
    """

    values: Floats
    """[M]"""
    observed: npt.NDArray[np.bool_]
    """[M]"""
    offsets: Ints
    """[N + 1] where each series begins and ends."""
    position: npt.NDArray[np.signedinteger[Any]]
    """[M] row within its series."""
    first: Ints
    """[O] flat index of the first row of the origin's series; always observed."""
    cut: Ints
    """[O] flat index of the last known row."""
    target: Ints
    """[O, H] flat index of each row to be forecast, counted on past the end of the series."""

    @classmethod
    def of(cls, panel: Panel, origins: Origins, horizon: int) -> _History:
        index = np.int32 if panel.values.size < MOST_SHORT else np.int64
        position = np.arange(panel.values.size, dtype=index)
        position -= np.repeat(panel.offsets[:-1].astype(index), panel.lengths)
        first = panel.offsets[origins.series]
        cut = first + origins.rows - 1
        target = cut[:, None] + np.arange(1, horizon + 1)
        return cls(panel.values, ~np.isnan(panel.values), panel.offsets, position, first, cut, target)

    def last_observed(self, stride: int) -> Ints:
        """[M] flat index of the last observed row among t, t - stride, t - 2 stride …; -1 without one."""
        rows = np.arange(self.values.size, dtype=self.position.dtype)
        rows[~self.observed] = -1
        return self._accumulate(np.maximum, rows, stride)

    def behind(self, m: int, told: Flags) -> Flags:
        """[M] whether a row is observed and the row m before it is one of its series that is `told` [M]."""
        found: Flags = self.observed & (self.position >= m)
        found[m:] &= told[:-m]
        return found

    def running_sum(self, terms: npt.NDArray[Any], stride: int = 1) -> npt.NDArray[Any]:
        """[M] sum of the terms at t, t - stride, t - 2 stride … of the same series, in the place of the terms."""
        return self._accumulate(np.add, terms, stride)

    def deviation(self, told: Flags, squares: Callable[[Ints], Floats]) -> tuple[Floats, Ints]:
        """σ at each cutoff, 0 where there is no residual, and the number of residuals, each [O].

        `told` [M] which rows have a residual, `squares` gives the squares at some flat indices.
        """
        total, number = self.residual_sums(told, squares)
        return np.sqrt(total / np.maximum(number, 1)), number

    def residual_sums(self, told: Flags, squares: Callable[[Ints], Floats]) -> tuple[Floats, Ints]:
        """Sum of squared residuals up to each cutoff and their number, each [O]."""
        total = np.zeros(self.values.size)
        for begin in range(0, told.size, ROWS_AT_ONCE):
            some = begin + np.flatnonzero(told[begin : begin + ROWS_AT_ONCE])
            total[some] = squares(some)
        sums = self.running_sum(total)[self.cut]
        number = self.running_sum(told.astype(self.position.dtype))[self.cut]
        return sums, number.astype(np.int64)

    def same_season(self, m: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """[O, H] the last known row of each target's season, and whether the history has m rows at all."""
        back = self.target - m * ((self.target - self.cut[:, None] + m - 1) // m)
        return np.maximum(back, 0), np.broadcast_to((self.position[self.cut] >= m - 1)[:, None], back.shape)

    def _accumulate(self, combine: np.ufunc, terms: npt.NDArray[Any], stride: int) -> npt.NDArray[Any]:
        """[M] each term combined with those `stride`, 2 `stride` … rows before it in the same series, in its place.

        Each series by itself: one running sum over all would lose the small ones to rounding.
        """
        for begin, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            whole = end - (end - begin) % stride
            grid = terms[begin:whole].reshape(-1, stride)  # one season a row
            combine.accumulate(grid, axis=0, out=grid)
            if begin < whole < end:
                terms[whole:end] = combine(grid[-1, : end - whole], terms[whole:end])
        return terms


def _walk(history: _History) -> tuple[Ints, Floats, Ints]:
    """The last observed row, the sum of the naive method's squared residuals and their number, each [O]."""
    last = history.last_observed(stride=1)

    def squares(rows: Ints) -> Floats:
        earlier = last[rows - 1]
        residual: Floats = (history.values[rows] - history.values[earlier]) ** 2 / (rows - earlier)
        return residual

    # Every series begins with a value, so that each observed row behind its first has a last one before it.
    total, number = history.residual_sums(history.observed & (history.position >= 1), squares)
    return last[history.cut], total, number


def _naive(history: _History) -> _Normal:
    last, squares, number = _walk(history)
    variance = squares / np.maximum(number, 1)
    ahead = history.target - last[:, None]  # [O, H] h
    mean = np.broadcast_to(history.values[last][:, None], ahead.shape)
    return _Normal(mean, np.sqrt(variance[:, None] * ahead))
