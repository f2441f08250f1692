"""What is wrong with forecasts that were scored, beyond the size of their errors: stable codes and sentences.

`worse_than_naive`: more than `TWICE` the error of naive, beyond chance.
`flat_forecast`: within a horizon the forecasts move far less than what came, and the movement of a baseline would have
    helped: its product with the model's errors is above zero beyond chance (the test of forecast encompassing, Harvey,
    Leybourne & Newbold 1998, JBES 16(2), 254-259), and the best multiple of it removes a share of their squares. Of
    white noise and of a random walk a flat forecast is right, and nothing that is known before can be so related.
`lagged_copy`: the forecasts are nearly the last known value, and the way of a baseline away from it would have helped
    in the same sense. Where it would not, repeating the last value is the best there is, which is said as a note.
`intervals_not_calibrated`: the share of values that an interval held differs from its level by more than chance.
    The steps of an origin depend on each other. How much they do at least is told by the signs of the errors, also
    where the interval held everything (Christoffersen 1998, IER 39(4), 841-862, tests one step ahead, where nothing
    depends).
`data_drift`: the level or the spread changes from one stretch of rows to the next by more, after the border to the
    scored rows, than by what such changes were before it. A random walk changes its level all the time and alike.

Error probabilities are those of `comparison`; each code is found by chance alone in some 1 of 100 backtests.

Letters: O origins, H horizon, U units, B stretches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.panel import Floats
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.evaluation.comparison import Units, compare, covariance_of_means, outside, paired_units, two_sided
from stacklstm_cli.evaluation.metrics import central_intervals
from stacklstm_cli.evaluation.verdict import METRICS, MODEL

CHANCE = 0.01
"""Error probability of each code, shared by all its tests."""
TWICE = 2.0
NO_ERROR = 1e-4
"""Errors that are a smaller share of the values than this are none, whatever naive's are."""
FLAT = 0.05
"""Variance of the forecasts within a horizon, as a share of that of what came, below which they are flat."""
COPIED = 0.2
"""Distance from the last known value, as a share of the errors, below which forecasts are a copy of it."""
GAIN = 0.1
"""Share of the squared errors that another movement must remove to be missed."""
SHARE = 0.03
"""Smallest difference between a nominal and an achieved coverage that matters."""
LEAST_STRETCHES = 8
"""Of the history: fewer do not tell how much one differs from the next."""
MOST_STRETCHES = 24
LEAST_ROWS = 5
"""Of a stretch."""
SPREAD_RATIO = 1.5
"""Smallest change of the spread that matters, either way."""


@dataclass(frozen=True)
class Finding:
    """Something a person should know before using the forecasts."""

    code: str
    """Stable word for programs; "" where it is no warning."""
    text: str


def diagnose(backtest: Backtest) -> list[Finding]:
    """Everything that is found, the gravest first."""
    searches = (worse_than_naive, unmoved, not_calibrated, drifted)
    return [finding for search in searches for finding in search(backtest)]


def worse_than_naive(backtest: Backtest) -> Iterator[Finding]:
    """Far larger errors than those of repeating the last value."""
    table = backtest.metrics()
    size = float(np.nanmean(np.abs(backtest.actual))) if np.isfinite(backtest.actual).any() else 0.0
    metric = next((one for one in METRICS if all(table.get(name, {}).get(one) for name in (MODEL, "naive"))), None)
    if metric is None or (table[MODEL]["mae"] or 0.0) <= NO_ERROR * size:
        return
    model, naive = table[MODEL][metric] or 0.0, table["naive"][metric] or 0.0
    found = compare(backtest, MODEL, "naive", metric)
    if model > TWICE * naive and found is not None and found.clearly_worse(CHANCE):
        yield Finding(
            "worse_than_naive",
            f"The errors are {model / naive:.1f} times those of naive, which repeats the last value: the training did "
            "not succeed, or these rows are unlike those it saw. Forecast with naive instead.",
        )


@dataclass(frozen=True, eq=False)
class Errors:
    """The scored rows in units of their series' scale, 0 where nothing is known, in the order of the origins."""

    known: npt.NDArray[np.bool_]
    """[O, H]"""
    scale: Floats
    """[O]"""
    came: Floats
    """[O, H]"""
    forecast: Floats
    """[O, H] of the model."""
    last: Floats
    """[O] last known value."""
    units: Units

    @classmethod
    def of(cls, backtest: Backtest) -> Errors | None:
        """None where no row of a series with a scale is scored."""
        scale = np.sqrt(backtest.scales.squared[backtest.origins.series])  # [O]
        known = np.isfinite(backtest.actual) & np.isfinite(scale)[:, None]
        if not known.any():
            return None
        scale = np.where(np.isfinite(scale), scale, 1.0)
        last = middle(backtest, "naive")[:, 0] / scale  # [O]
        came, forecast = (
            np.where(known, values / scale[:, None], 0.0) for values in (backtest.actual, middle(backtest, MODEL))
        )
        return cls(known, scale, came, forecast, last, paired_units(backtest, known.sum(axis=1) > 0))

    def moved(self, values: Floats) -> Floats:
        """[O, H] values less their mean over the scored rows of each origin."""
        rows = np.maximum(self.known.sum(axis=1), 1)
        return np.where(self.known, values - (values * self.known).sum(axis=1, keepdims=True) / rows[:, None], 0.0)

    def missed(self, movement: Floats) -> float:
        """The share of squared errors that the best multiple of a movement [O, H] removes; 0 where it may be chance."""
        errors = self.came - self.forecast
        products = (errors * movement).sum(axis=1)  # [O]
        total, power = products.sum(), np.square(movement).sum() * np.square(errors).sum()
        if total <= 0 or power <= 0 or total**2 <= GAIN * power:
            return 0.0
        sums = self.units.sums(products)  # [U]
        spread, freedom = covariance_of_means(sums[None], self.units.overlap)
        deviation = math.sqrt(float(spread[0, 0]))
        p_value = two_sided(float(sums.mean()) / deviation, freedom) / 2 if deviation > 0 else 0.0
        return float(total**2 / power) if p_value < CHANCE / 2 else 0.0


def middle(backtest: Backtest, name: str) -> Floats:
    """[O, H] the medians of a predictor."""
    return backtest.forecasts[name][:, :, backtest.quantiles.index(0.5)]


def unmoved(backtest: Backtest) -> Iterator[Finding]:
    """Forecasts that stay where they are while what comes moves in a way that could be known."""
    found = Errors.of(backtest)
    if found is None or not np.isfinite(found.forecast).all():
        return
    distance = np.abs(np.where(found.known, found.forecast - found.last[:, None], 0.0)).sum()
    copied = distance < COPIED * np.abs(found.came - found.forecast).sum()
    came = np.square(found.moved(found.came)).sum()
    share = np.square(found.moved(found.forecast)).sum() / came if came > 0 else 1.0
    if not found.units.enough or not (copied or share < FLAT):
        return
    others = {name: middle(backtest, name) / found.scale[:, None] for name in backtest.forecasts if name != MODEL}
    away = {
        name: np.where(found.known, other - found.last[:, None], 0.0) if copied else found.moved(other)
        for name, other in others.items()
    }
    gains = {name: found.missed(movement) for name, movement in away.items()}
    best = max(gains, key=lambda name: gains[name])
    if gains[best] > 0:
        held = "nearly repeat the last known value" if copied else "hardly move within a horizon"
        yield Finding(
            "lagged_copy" if copied else "flat_forecast",
            f"The forecasts {held}, but what came moved as {best} does: that would have removed "
            f"{100 * gains[best]:.0f} % of the squared error. Give more rows, epochs or context.",
        )
    elif copied:
        yield Finding("", "the forecasts nearly repeat the last known value, and no baseline knows better than naive")


def not_calibrated(backtest: Backtest) -> Iterator[Finding]:
    """Intervals that hold more or less than they say."""
    known = np.isfinite(backtest.actual)
    intervals = central_intervals(backtest.quantiles)
    if not intervals or not known.any():
        return
    units = paired_units(backtest, known.sum(axis=1) > 0)
    if not units.enough:
        return
    values, points = backtest.forecasts[MODEL], int(known.sum())
    share = units.count / points
    above = np.where(known, (backtest.actual > middle(backtest, MODEL)) - 0.5, 0.0).sum(axis=1)  # [O]
    wrong = []
    for interval in intervals:
        level = interval.level / 100
        inside = (values[:, :, interval.lower] <= backtest.actual) & (backtest.actual <= values[:, :, interval.upper])
        beyond = np.where(known, inside - level, 0.0).sum(axis=1)  # [O]
        sums = np.stack([units.sums(beyond), units.sums(above)]) * share  # [2, U]
        spread, freedom = covariance_of_means(sums, units.overlap)
        excess, sign = sums.mean(axis=1).tolist()
        alone = level * (1 - level)
        signs = float(spread[1, 1]) + sign**2 * units.overlap / units.count
        variance = max(float(spread[0, 0]), 4 * alone * signs, alone / points)
        p_value = two_sided(excess / math.sqrt(variance), freedom)
        if abs(excess) > min(SHARE, (1 - level) / 2) and p_value < CHANCE / len(intervals):
            wrong.append(f"the {interval.label} % interval held {100 * (level + excess):.0f} % (too {_wide(excess)})")
    if wrong:
        origins = f"{len(np.unique(backtest.cutoffs)):,} cutoffs"
        yield Finding("intervals_not_calibrated", f"Of {points:,} values at {origins}, {'; '.join(wrong)}.")


def _wide(excess: float) -> str:
    return "wide" if excess > 0 else "narrow"


def drifted(backtest: Backtest) -> Iterator[Finding]:
    """Rows that are scored and differ from those before them by more than these did among themselves."""
    scored = np.unique(backtest.origins.series).tolist()
    measured = {index: changes(backtest, index) for index in scored}
    rows = [
        (index, what, score, freedom)
        for index, found in measured.items()
        for what, (scores, freedom) in found.items()
        for score in scores
    ]
    if not rows:
        return
    p_values = outside(np.asarray([row[2] for row in rows]), np.asarray([row[3] for row in rows]))
    wrong: dict[str, set[int]] = {}
    for (index, what, _, _), p_value in zip(rows, p_values.tolist(), strict=True):
        if p_value < CHANCE / len(rows):
            wrong.setdefault(what, set()).add(index)
    if wrong:
        several = backtest.panel.n_series > 1
        places = {what: f" in {_named(backtest, found)}" if several else "" for what, found in wrong.items()}
        said = [f"the {what} changed{place}" for what, place in places.items()]
        yield Finding(
            "data_drift",
            f"The scored rows are unlike those before them: {' and '.join(said)}, by more than it did from stretch "
            "to stretch before. Newer rows may need a model that is trained on them.",
        )


def _named(backtest: Backtest, series: set[int]) -> str:
    names = ", ".join(backtest.panel.name(index) for index in sorted(series)[:3]) + (" …" if len(series) > 3 else "")
    return f"{len(series):,} of {np.unique(backtest.origins.series).size:,} series ({names})"


def changes(backtest: Backtest, series: int) -> Mapping[str, tuple[list[float], int]]:
    """How far level and spread change between stretches from the border on, in deviations of the changes before it.

    "level" and "spread" -> (a statistic of Student's t for each stretch, its degrees of freedom); nothing where the
    rows do not suffice. A stretch is whole seasons, some `MOST_STRETCHES` in the history.
    """
    own = backtest.origins.rows[backtest.origins.series == series]
    border, end, m = int(own.min()), int(own.max()) + backtest.horizon, backtest.seasonality
    values = backtest.panel.series(series)[:end]
    length = m * math.ceil(max(border / MOST_STRETCHES, LEAST_ROWS) / m)
    length = min(length, (values.size - border) // m * m)
    if length < LEAST_ROWS or (border - m) // length < LEAST_STRETCHES:
        return {}
    before, after = (border - m) // length, (values.size - border) // length
    begin = border - before * length
    stretches = values[begin : border + after * length].reshape(-1, length)  # [B, length]
    moves = values[begin : border + after * length] - values[begin - m : border + after * length - m]
    log_spread = np.log(_distances(moves.reshape(-1, length)))  # [B]
    found = {
        "level": _scores(_means(stretches), before, 0.0),
        "spread": _scores(log_spread, before, math.log(SPREAD_RATIO)),
    }
    return {what: scores for what, scores in found.items() if scores[0]}


def _means(stretches: Floats) -> Floats:
    """[B] NaN where less than half of a stretch is known."""
    known = ~np.isnan(stretches)
    rows = known.sum(axis=1)
    sums = np.where(known, stretches, 0.0).sum(axis=1)
    return np.where(2 * rows >= stretches.shape[1], sums / np.maximum(rows, 1), np.nan)


def _distances(stretches: Floats) -> Floats:
    """[B] mean distance from the mean; NaN where less than half of a stretch is known, or all of it is alike."""
    distances = _means(np.abs(stretches - _means(stretches)[:, None]))
    return np.where(distances > 0, distances, np.nan)


def _scores(values: Floats, before: int, least: float) -> tuple[list[float], int]:
    """Changes after the first `before` of B values against those among them; none below `least` in size."""
    change = np.diff(values)  # [B - 1]
    history = change[: before - 1]
    history = history[np.isfinite(history)]
    newer = change[before - 1 :]
    newer = newer[np.isfinite(newer)]
    if history.size < LEAST_STRETCHES - 1:
        return [], 0
    deviation = float(history.std(ddof=1)) * math.sqrt(1 + 1 / history.size)
    if deviation <= 1e-9 * np.nanmax(np.abs(values)):
        return [], 0
    scores = np.where(np.abs(newer) > least, (newer - history.mean()) / deviation, 0.0)
    return scores.tolist(), history.size - 1
