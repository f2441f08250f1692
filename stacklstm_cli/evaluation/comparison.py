"""Is one predictor better than another, beyond chance? Paired over what both have forecast.

Letters: O origins, H horizon, U units that are paired.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from stacklstm_cli.data.panel import Floats, Ints
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.model.distributions import incomplete_beta

LEAST_UNITS = 3
"""Fewer differences have no deviation worth the name."""


@dataclass(frozen=True)
class Comparison:
    """The errors of one predictor less those of another, in units of MASE where the series have that scale."""

    difference: float
    """Mean over the units: below zero where the first predictor is better."""
    relative: float
    """The same as a share of the other's mean error; NaN where that is 0."""
    deviation: float
    """Standard error of the difference; NaN where the units are too few, 0 where the errors are alike."""
    p_value: float
    """Of a difference as large as this by chance, in either direction; NaN where the units are too few."""
    units: int
    paired_over: Literal["cutoffs", "series"]

    def clearly_worse(self, level: float) -> bool:
        """Whether the first predictor's errors are larger with an error probability below `level`, from one side."""
        return self.difference > 0 and self.p_value / 2 < level

    def clearly_better(self, level: float) -> bool:
        """Whether the first predictor's errors are smaller with an error probability below `level`, from one side."""
        return self.difference < 0 and self.p_value / 2 < level


def compare(backtest: Backtest, first: str, second: str) -> Comparison | None:
    """Two predictors of a backtest, by their absolute errors; None where they have no scored row in common.

    Paired over the cutoffs, in the order of time, each the mean over its series; over the series, each the mean
    over its origins, where there are more series than cutoffs: one forecast of many series has no second cutoff.
    """
    losses = [origin_losses(backtest, name) for name in (first, second)]  # [O] each
    cutoffs, series = backtest.cutoffs, backtest.origins.series
    scored = np.isfinite(losses[0]) & np.isfinite(losses[1])
    if not scored.any():
        return None
    over_time = np.unique(cutoffs[scored]).size >= np.unique(series[scored]).size
    groups = (cutoffs if over_time else series)[scored]
    units = [means_by(groups, loss[scored]) for loss in losses]  # [U] each
    gaps = np.diff(np.unique(groups))
    overlap = math.ceil(backtest.horizon / gaps.min()) if over_time and gaps.size else 1
    difference, deviation, p_value = diebold_mariano(units[0] - units[1], overlap)
    other = float(units[1].mean())
    return Comparison(
        difference=difference,
        relative=difference / other if other else math.nan,
        deviation=deviation,
        p_value=p_value,
        units=units[0].size,
        paired_over="cutoffs" if over_time else "series",
    )


def origin_losses(backtest: Backtest, name: str) -> Floats:
    """[O] mean absolute error of the medians over the scored rows of each origin, NaN where there is none.

    In units of MASE; in the user's units where no series has that scale.
    """
    middle = backtest.forecasts[name][:, :, backtest.quantiles.index(0.5)]  # [O, H]
    errors = np.abs(backtest.actual - middle)  # [O, H]
    counted = ~np.isnan(errors)
    rows = counted.sum(axis=1)  # [O]
    total = np.where(counted, errors, 0.0).sum(axis=1)  # [O]
    losses: Floats = np.divide(total, rows, out=np.full(rows.shape, np.nan), where=rows > 0)
    scale = backtest.scales.absolute[backtest.origins.series]  # [O]
    return losses / scale if np.isfinite(scale).any() else losses


def means_by(groups: Ints, values: Floats) -> Floats:
    """[U] mean of the values of each group, in the order of the groups."""
    _, place = np.unique(groups, return_inverse=True)
    means: Floats = np.bincount(place, values) / np.bincount(place)
    return means


def diebold_mariano(differences: Floats, overlap: int) -> tuple[float, float, float]:
    """Mean, standard error and two-sided p-value of a series of loss differences [U].

    Diebold & Mariano (1995), Comparing predictive accuracy, JBES 13(3), 253-263: forecasts that reach over `overlap`
    cutoffs have errors that depend on each other up to `overlap - 1` cutoffs apart, whose autocovariances are added to
    the variance. Corrected for few differences by Harvey, Leybourne & Newbold (1997), IJF 13(2), 281-291, with the
    quantiles of Student's t. Where the added autocovariances make the variance negative, or leave too few differences
    for the correction, Bartlett's weights are used instead (Newey & West 1987), which cannot.
    """
    n = differences.size
    mean = float(differences.mean())
    if n < LEAST_UNITS:
        return mean, math.nan, math.nan
    centred = differences - mean
    lags = min(overlap, n - 1) - 1
    covariances = [float(centred[lag:] @ centred[: n - lag]) / n for lag in range(lags + 1)]
    plain = covariances[0] + 2 * sum(covariances[1:])
    k = lags + 1
    correction = (n + 1 - 2 * k + k * (k - 1) / n) / n
    if plain <= 0 or correction <= 0:
        weights = [1.0] + [2 * (1 - lag / (lags + 1)) for lag in range(1, lags + 1)]
        plain = sum(weight * covariance for weight, covariance in zip(weights, covariances, strict=True))
        correction = (n - 1) / n
    deviation = math.sqrt(max(plain, 0.0) / n / correction)
    # Differences that are alike but for rounding have no spread to speak of.
    if deviation <= 1e-12 * max(abs(mean), float(np.abs(differences).max())):
        return mean, 0.0, 1.0 if mean == 0 else 0.0
    return mean, deviation, two_sided(mean / deviation, n - 1)


def two_sided(statistic: float, freedom: int) -> float:
    """Share of Student's t with this many degrees of freedom that lies further out than the statistic."""
    total = freedom + statistic**2
    parts = (freedom / 2, 0.5, freedom / total, statistic**2 / total)
    return float(incomplete_beta(*(torch.tensor([part], dtype=torch.float64) for part in parts)))
