"""Is one predictor better than another, beyond chance? Paired over what both have forecast.

The test is Diebold and Mariano's (1995, Comparing predictive accuracy, JBES 13(3), 253-263): is the mean of the
differences between two predictors' losses zero? What makes it right or wrong is the variance of that mean. Forecasts
that reach over several cutoffs have errors that depend on each other, and the autocovariances that the original adds,
even with the correction of Harvey, Leybourne & Newbold (1997, IJF 13(2), 281-291), then find a difference that is not
there far too often: in 16 to 42 of 100 cases where 5 are meant, for 12 to 50 cutoffs of which 12 or 24 overlap. So
the variance is that of the slowest cosines of the differences (Müller 2007, J. Econometrics 141, 1331-1352; Lazarus,
Lewis, Stock & Watson 2018, JBES 36(4), 541-559; for this test, Coroneo & Iacone 2020, J. Applied Econometrics 35(4),
391-409), and its degrees of freedom are their number: 4 to 7 of 100. Without overlap all cosines count, which is
Student's test of the mean, and the corrected test of 1997 as well.

Letters: O origins, H horizon, U units that are paired.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from stacklstm_cli.data.panel import Floats, Ints
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.model.distributions import incomplete_beta, student_t_quantile

Metric = Literal["mase", "mae", "log_loss"]
Paired = Literal["cutoffs", "series", "stretches"]
"""What is compared one by one; a stretch is a run of rows with one label."""
LEAST_UNITS = 3
"""Fewer differences have no deviation worth the name."""
LEAST_HORIZONS = 2
"""Cutoffs that cover fewer horizons say nothing of how much such a stretch differs from the next: a test on one of
them rejects two to three times too often."""
LEVEL = 0.95
"""Of the interval of the relative difference."""
MOST_COSINES = 200
"""Student's t with more degrees of freedom is the normal distribution."""


@dataclass(frozen=True)
class Comparison:
    """The error of one predictor less that of another."""

    metric: Metric
    difference: float
    """Of the metric: below zero where the first predictor is better."""
    relative: float
    """The same as a share of the other's error; NaN where that is 0."""
    interval: tuple[float, float] | None
    """Of `relative`, at `LEVEL`; None where the units are too few, or the other's error may be next to nothing."""
    p_value: float
    """Of a difference as large as this by chance, in either direction; NaN where the units are too few."""
    units: int
    paired_over: Paired

    def clearly_worse(self, level: float) -> bool:
        """Whether the first predictor's error is larger with an error probability below `level`, from one side."""
        return self.difference > 0 and self.p_value / 2 < level

    def clearly_better(self, level: float) -> bool:
        """Whether the first predictor's error is smaller with an error probability below `level`, from one side."""
        return self.difference < 0 and self.p_value / 2 < level


@dataclass(frozen=True, eq=False)
class Units:
    """What is paired, in the order of time where that is the order."""

    of: Ints
    """[O] unit of each origin, from 0; -1 where the origin is not scored."""
    over: Literal["cutoffs", "series"]
    count: int
    overlap: int
    """Units whose forecasts share rows with each other, at most; 1 where none do."""

    @property
    def enough(self) -> bool:
        """Whether a mean over them has a deviation worth the name."""
        return self.count >= max(LEAST_UNITS, LEAST_HORIZONS * self.overlap if self.overlap > 1 else 0)

    def sums(self, terms: Floats) -> Floats:
        """[U] sum of the terms [O] of each unit's origins."""
        scored = self.of >= 0
        sums: Floats = np.bincount(self.of[scored], terms[scored], self.count).astype(np.float64)
        return sums


def compare(backtest: Backtest, first: str, second: str, metric: Metric) -> Comparison | None:
    """Two predictors of a backtest by the metric that its table shows; None where it is undefined for one of them."""
    shares = [contributions(backtest, name, metric) for name in (first, second)]  # [O] each
    scored = np.isfinite(shares[0])
    if not scored.any() or not all(np.isfinite(share[scored]).all() for share in shares):
        return None
    units = paired_units(backtest, scored)
    losses = np.stack([units.sums(share) * units.count for share in shares])  # [2, U], their means are the metric
    ours, theirs = losses.mean(axis=1).tolist()
    p_value, interval = paired_test(losses, units.overlap) if units.enough else (math.nan, None)
    return Comparison(
        metric=metric,
        difference=ours - theirs,
        relative=(ours - theirs) / theirs if theirs else math.nan,
        interval=interval,
        p_value=p_value,
        units=units.count,
        paired_over=units.over,
    )


def contributions(backtest: Backtest, name: str, metric: Metric) -> Floats:
    """[O] what each origin adds to a predictor's MASE or MAE, which is their sum; NaN where it is not scored."""
    middle = backtest.forecasts[name][:, :, backtest.quantiles.index(0.5)]  # [O, H]
    observed = ~np.isnan(backtest.actual)
    series, n_series = backtest.origins.series, backtest.panel.n_series
    total = np.where(observed, np.abs(np.where(observed, backtest.actual, 0.0) - middle), 0.0).sum(axis=1)  # [O]
    rows = observed.sum(axis=1).astype(np.float64)  # [O]
    if metric == "mae":
        return np.where(rows > 0, total / max(rows.sum(), 1), np.nan)
    points = np.bincount(series, rows, n_series)  # [N]
    averaged = (points > 0) & np.isfinite(backtest.scales.absolute)
    divisor = np.where(averaged, points * backtest.scales.absolute * averaged.sum(), np.nan)  # [N]
    return np.where(rows > 0, total / divisor[series], np.nan)


def paired_units(backtest: Backtest, scored: npt.NDArray[np.bool_]) -> Units:
    """Cutoffs, each with all its series; or series, each with all its origins, where these are more.

    Cutoffs are counted by the horizons they cover: many forecasts of the same rows are no many observations. One
    forecast of many series has no second cutoff, but series to compare.
    """
    cutoffs, series = (_numbered(groups, scored) for groups in (backtest.cutoffs, backtest.origins.series))
    times = np.unique(backtest.cutoffs[scored])
    together = np.searchsorted(times, times + backtest.horizon) - np.arange(times.size)
    over_time = Units(cutoffs, "cutoffs", times.size, int(together.max()))
    over_series = Units(series, "series", int(series.max()) + 1, 1)
    if over_time.enough and over_series.enough:
        return over_time if over_time.count >= over_series.count * over_time.overlap else over_series
    return over_series if over_series.enough else over_time


def _numbered(groups: Ints, scored: npt.NDArray[np.bool_]) -> Ints:
    """[O] the groups of scored origins counted from 0 in ascending order; -1 for the other origins."""
    numbers = np.full(groups.shape, -1, dtype=np.int64)
    numbers[scored] = np.unique(groups[scored], return_inverse=True)[1]
    return numbers


def paired_test(losses: Floats, overlap: int) -> tuple[float, tuple[float, float] | None]:
    """The p-value of the difference between two predictors' mean losses [2, U], and the interval of its share."""
    ours, theirs = losses.mean(axis=1).tolist()
    spread, freedom = covariance_of_means(losses, overlap)
    variance = float(spread[0, 0] - 2 * spread[0, 1] + spread[1, 1])
    # Losses that differ by the same everywhere but for rounding have no spread to speak of.
    if variance <= (1e-12 * np.abs(losses).max()) ** 2:
        p_value = 1.0 if abs(ours - theirs) <= 1e-12 * abs(theirs) else 0.0
    else:
        p_value = two_sided((ours - theirs) / math.sqrt(variance), freedom)
    ratios = ratio_interval(ours, theirs, spread, freedom)
    return p_value, None if ratios is None else (ratios[0] - 1, ratios[1] - 1)


def covariance_of_means(values: Floats, overlap: int) -> tuple[Floats, int]:
    """Covariance [V, V] of the means of V sequences over U units, from their values [V, U], and its degrees of freedom.

    Units of which `overlap` in a row depend on each other: from as many of the slowest cosines as there are
    stretches of two overlaps, which is slow enough for the dependence not to matter.
    """
    count = values.shape[1]
    if overlap == 1:
        return np.atleast_2d(np.cov(values)) / count, count - 1
    cosines = min(max(count // (2 * overlap), 1), MOST_COSINES)
    phase = np.pi * np.arange(1, cosines + 1)[:, None] * (np.arange(count) + 0.5) / count  # [C, U]
    weights = values @ np.cos(phase).T * math.sqrt(2 / count)  # [V, C]
    return weights @ weights.T / cosines / count, cosines


def ratio_interval(ours: float, theirs: float, spread: Floats, freedom: int) -> tuple[float, float] | None:
    """The ratios of two means that Student's test does not reject: Fieller (1954), JRSS B 16(2), 175-185.

    `spread` [2, 2] is the covariance of the means. None where the other mean may be zero: no ratio is too large then.
    """
    square = student_limit(freedom) ** 2
    a = theirs**2 - square * float(spread[1, 1])
    b = ours * theirs - square * float(spread[0, 1])
    c = ours**2 - square * float(spread[0, 0])
    if a <= 1e-12 * theirs**2:
        return None
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return max((b - root) / a, 0.0), (b + root) / a


def student_limit(freedom: int) -> float:
    """How far from zero Student's t reaches with probability `LEVEL`."""
    above = (1 + LEVEL) / 2
    if freedom == 1:  # Cauchy's distribution
        return math.tan(math.pi * (above - 0.5))
    one = torch.ones((), dtype=torch.float64)
    return float(student_t_quantile(above * one, freedom * one))


def two_sided(statistic: float, freedom: int) -> float:
    """Share of Student's t with this many degrees of freedom that lies further out than the statistic."""
    return float(outside(np.asarray([statistic]), np.asarray([freedom]))[0])


def outside(statistics: Floats, freedom: Ints) -> Floats:
    """The same for many statistics."""
    square, n = torch.from_numpy(np.square(statistics)), torch.from_numpy(freedom.astype(np.float64))
    shares: Floats = incomplete_beta(n / 2, torch.full_like(n, 0.5), n / (n + square), square / (n + square)).numpy()
    return shares
