"""Metrics of point and quantile forecasts.

Every metric is computed from `Sums`: sums over the scored points of each series, taken in one pass.
A point is scored when its actual value is observed; missing values are never an error. The point
forecast is the 0.5 quantile.

The pooling rule: mae, rmse, smape, wql, crps, bias, coverage and width pool every scored point of
all origins, steps and series; mase, rmsse and msis are computed per series and then averaged over
the series that have a scale. A value that is not defined is NaN.

Letters: O origins, H horizon, Q quantiles, N series, I central intervals, G groups (N series, or 1
for all of them pooled).
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from stacklstm_cli.data.panel import Floats, Ints

POINTS_AT_ONCE = 50_000
"""Scored in one go: 0.4 MB an array, which is 3 to 5 times as fast as arrays of millions."""


POINT_METRICS = ("mae", "rmse", "smape", "mase", "rmsse", "wql", "crps", "bias")
"""What tables show first, in this order."""
T = TypeVar("T")


class Interval(NamedTuple):
    """A central interval between two of the quantiles."""

    level: float
    """Percent of the actual values it should hold: 80 for the quantiles 0.1 and 0.9."""
    lower: int
    upper: int
    """Positions of its bounds among the quantiles."""

    @property
    def label(self) -> str:
        """`80`, or `97.5` where the level is not whole."""
        return f"{self.level:g}"


def central_intervals(quantiles: Sequence[float]) -> tuple[Interval, ...]:
    """The symmetric pairs among `quantiles`, widest first."""
    found = [
        Interval(round(100 * (high - low), 6), quantiles.index(low), quantiles.index(high))
        for low in quantiles
        for high in quantiles
        if low < high and math.isclose(low + high, 1, abs_tol=1e-9)
    ]
    return tuple(sorted(found, reverse=True))


@dataclass(frozen=True, eq=False)
class Scales:
    """What the errors of each series are divided by, in the user's units; NaN where undefined."""

    absolute: Floats
    """[N] mean absolute seasonal difference, for MASE and MSIS."""
    squared: Floats
    """[N] mean squared seasonal difference, for RMSSE."""


def seasonal_scales(values: Floats, offsets: Ints, history: Ints, seasonality: int) -> Scales:
    """In-sample errors of the seasonal naive forecast: the mean of |y_t - y_{t-m}| and of its square.

    `values` [sum of lengths] and `offsets` [N + 1] as in a Panel; `history` [N] rows of each series
    that may be used. Means are over the pairs of which both are observed. m is 1 where the history
    is shorter than m + 1 rows. Undefined for a series without pairs or with differences of 0 only.

    Hyndman & Koehler (2006), Another look at measures of forecast accuracy, IJF 22(4), 679-688.
    """
    absolute, squared = np.full(history.size, np.nan), np.full(history.size, np.nan)
    with np.errstate(over="ignore"):  # an overflowing scale is undefined below
        for index, rows in enumerate(history.tolist()):
            known = values[offsets[index] : offsets[index] + rows]
            lag = seasonality if rows > seasonality else 1
            difference = known[lag:] - known[:-lag]
            difference = difference[~np.isnan(difference)]
            if difference.size:
                absolute[index], squared[index] = np.abs(difference).mean(), np.square(difference).mean()
    defined = np.isfinite(squared) & (squared > 0)
    return Scales(np.where(defined, absolute, np.nan), np.where(defined, squared, np.nan))


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the scored points of each of G groups, in the user's units."""

    quantiles: tuple[float, ...]
    points: Floats
    """[G] number of scored points."""
    magnitude: Floats
    """[G] |y|."""
    signed: Floats
    """[G] f - y, f being the point forecast."""
    absolute: Floats
    """[G] |f - y|."""
    squared: Floats
    """[G] (f - y)²."""
    relative: Floats
    """[G] |f - y| / (|f| + |y|), 0 where both are 0."""
    pinball: Floats
    """[G, Q] the loss of each quantile: max(q (y - f_q), (q - 1) (y - f_q))."""
    inside: Floats
    """[G, I] points within each central interval, its bounds included."""
    width: Floats
    """[G, I] upper - lower bound."""
    penalty: Floats
    """[G, I] the part of the interval score that punishes misses."""

    def pooled(self) -> Sums:
        """All groups as one: G = 1."""
        arrays = {name: value.sum(axis=0, keepdims=True) for name, value in vars(self).items() if name != "quantiles"}
        return Sums(quantiles=self.quantiles, **arrays)

    def __add__(self, other: Sums) -> Sums:
        """The sums over the points of both; the groups are the same."""
        arrays = {name: value + vars(other)[name] for name, value in vars(self).items() if name != "quantiles"}
        return Sums(quantiles=self.quantiles, **arrays)


def sum_errors(actual: Floats, forecast: Floats, quantiles: Sequence[float], series: Ints, n_series: int) -> Sums:
    """The `Sums` of each series.

    `actual` [O, H], NaN where missing; `forecast` [O, H, Q] in the same units; `series` [O] index of
    each origin's series. A forecast that is not finite where it is scored makes its sums so.
    Raises ValueError if 0.5 is not among the quantiles.
    """
    quantiles = tuple(quantiles)
    if 0.5 not in quantiles:
        raise ValueError(f"quantiles are {quantiles}; expected 0.5 among them: it is the point forecast")
    block = max(1, POINTS_AT_ONCE // actual.shape[1])  # origins
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is reported as undefined
        return functools.reduce(
            operator.add,
            (
                _sum_block(actual[part], forecast[part], quantiles, series[part], n_series)
                for part in (slice(begin, begin + block) for begin in range(0, max(len(actual), 1), block))
            ),
        )


def _sum_block(actual: Floats, forecast: Floats, quantiles: tuple[float, ...], series: Ints, n_series: int) -> Sums:
    """`sum_errors` of a few origins, whose arrays fit the processor's cache."""
    scored = ~np.isnan(actual)
    y = np.where(scored, actual, 0.0)

    def summed(points: Floats) -> Floats:
        """[O, H] -> [N]"""
        return _sum_by(series, points.sum(axis=1), n_series)

    def stacked(columns: list[Floats]) -> Floats:
        """[N] each -> [N, number of them]"""
        return np.stack(columns, axis=1) if columns else np.empty((n_series, 0))

    f = np.where(scored, forecast[:, :, quantiles.index(0.5)], 0.0)
    error, magnitude = f - y, np.abs(y)
    distance, size = np.abs(error), magnitude + np.abs(f)
    relative = np.divide(distance, size, out=np.zeros_like(size), where=size != 0)
    pinball, inside, width, penalty = [], [], [], []
    for index, quantile in enumerate(quantiles):
        shortfall = np.where(scored, y - forecast[:, :, index], 0.0)
        pinball.append(summed(np.maximum(quantile * shortfall, (quantile - 1) * shortfall)))
    for interval in central_intervals(quantiles):
        lower, upper = forecast[:, :, interval.lower], forecast[:, :, interval.upper]
        miss = np.where(scored, np.maximum(lower - y, 0) + np.maximum(y - upper, 0), 0.0)
        inside.append(summed((miss == 0) & scored))
        width.append(summed(np.where(scored, upper - lower, 0.0)))
        penalty.append(summed(miss) / quantiles[interval.lower])
    return Sums(
        quantiles=quantiles,
        points=summed(scored),
        magnitude=summed(magnitude),
        signed=summed(error),
        absolute=summed(distance),
        squared=summed(error**2),
        relative=summed(relative),
        pinball=stacked(pinball),
        inside=stacked(inside),
        width=stacked(width),
        penalty=stacked(penalty),
    )


def mae(sums: Sums) -> Floats:
    """[G] mean absolute error, in the user's units."""
    return _ratio(sums.absolute, sums.points)


def rmse(sums: Sums) -> Floats:
    """[G] root of the mean squared error, in the user's units."""
    return np.sqrt(_ratio(sums.squared, sums.points))


def smape(sums: Sums) -> Floats:
    """[G] mean of 200 |y - f| / (|y| + |f|), from 0 to 200; a point where both are 0 counts 0.

    Makridakis, Spiliotis & Assimakopoulos (2020), The M4 Competition, IJF 36(1), 54-74.
    """
    return 200 * _ratio(sums.relative, sums.points)


def bias(sums: Sums) -> Floats:
    """[G] mean of forecast - actual: positive where the forecasts are too high; the user's units."""
    return _ratio(sums.signed, sums.points)


def mase(sums: Sums, scales: Scales) -> Floats:
    """[N] mean absolute error over the in-sample error of the seasonal naive forecast; no unit.

    Hyndman & Koehler (2006), IJF 22(4), 679-688.
    """
    return mae(sums) / scales.absolute


def rmsse(sums: Sums, scales: Scales) -> Floats:
    """[N] root of the mean squared error over the in-sample mean squared seasonal difference; no unit.

    Makridakis, Spiliotis & Assimakopoulos (2022), M5 accuracy competition, IJF 38(4), 1346-1364,
    there with m = 1.
    """
    return np.sqrt(_ratio(sums.squared, sums.points) / scales.squared)


def wql(sums: Sums) -> Floats:
    """[G] weighted quantile loss: 2 · sum of pinball losses / sum of |y|, averaged over the quantiles; no unit.

    The `mean_weighted_sum_quantile_loss` of GluonTS and the WQL of fev.
    """
    return _ratio(2 * sums.pinball.mean(axis=1), sums.magnitude)


def crps(sums: Sums) -> Floats:
    """[G] continuous ranked probability score, approximated from the quantiles; the user's units.

    CRPS is 2 · the integral of the pinball loss over all levels from 0 to 1 (Gneiting & Ranjan 2011,
    JBES 29(3), 411-422); here it is the plain mean over the levels that were forecast. It is exact
    only for a fine, even grid of levels, and compares predictors only on equal levels.
    """
    return _ratio(2 * sums.pinball.mean(axis=1), sums.points)


def coverage(sums: Sums, interval: int) -> Floats:
    """[G] fraction of the actual values within the interval at this place of `central_intervals`."""
    return _ratio(sums.inside[:, interval], sums.points)


def width(sums: Sums, interval: int) -> Floats:
    """[G] mean width of the interval at this place of `central_intervals`, in the user's units."""
    return _ratio(sums.width[:, interval], sums.points)


def msis(sums: Sums, scales: Scales) -> Floats:
    """[N] mean scaled interval score of the widest central interval; no unit.

    The mean of (u - l) + 2/α (l - y)⁺ + 2/α (y - u)⁺, with α/2 the lower quantile (Gneiting & Raftery
    2007, JASA 102, 359-378), over the scale of MASE, as in the M4 competition.
    """
    return _ratio(sums.width[:, 0] + sums.penalty[:, 0], sums.points) / scales.absolute


def series_metrics(sums: Sums, scales: Scales) -> dict[str, Floats]:
    """Metric -> [N] value for each series, NaN where undefined."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _in_order({**_unscaled(sums), **_scaled(sums, scales)})


def overall_metrics(sums: Sums, scales: Scales) -> dict[str, float]:
    """Metric -> value over all series by the pooling rule above, NaN where undefined.

    A series is left out of the averages of `_scaled` metrics because of its history only, never
    because of a forecast: one that is not finite makes the average so.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        averaged = (sums.points > 0) & np.isfinite(scales.absolute)
        values = {name: float(value[0]) for name, value in _unscaled(sums.pooled()).items()}
        for name, value in _scaled(sums, scales).items():
            values[name] = float(value[averaged].mean()) if averaged.any() else np.nan
    return _in_order(values)


def _in_order(values: dict[str, T]) -> dict[str, T]:
    """Points before intervals: the order of tables, whatever was computed first."""
    first = [name for name in POINT_METRICS if name in values]
    return {name: values[name] for name in dict.fromkeys([*first, *values])}


def _unscaled(sums: Sums) -> dict[str, Floats]:
    """The metrics that pool, each [G]."""
    values = {"mae": mae(sums), "rmse": rmse(sums), "smape": smape(sums), "wql": wql(sums), "crps": crps(sums)}
    values["bias"] = bias(sums)
    for index, interval in enumerate(central_intervals(sums.quantiles)):
        values[f"coverage_{interval.label}"] = coverage(sums, index)
        values[f"width_{interval.label}"] = width(sums, index)
    return values


def _scaled(sums: Sums, scales: Scales) -> dict[str, Floats]:
    """The metrics that are averaged over series, each [N]; msis only where an interval was forecast."""
    values = {"mase": mase(sums, scales), "rmsse": rmsse(sums, scales)}
    if central_intervals(sums.quantiles):
        values["msis"] = msis(sums, scales)
    return values


def _sum_by(group: Ints, terms: Floats, n_groups: int) -> Floats:
    """[n_groups] sum of the terms of each group; 0 for a group without any."""
    return np.bincount(group, terms, n_groups).astype(np.float64)  # of nothing, bincount counts in integers


def _ratio(total: Floats, count: Floats) -> Floats:
    """`total / count`, NaN where the count is 0."""
    ratio: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return ratio
