"""The baselines against plain loops, against statsforecast, and against knowing the future."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panels import cut, join_series

from stacklstm_cli.data.origins import Origins, plan_origins
from stacklstm_cli.data.panel import Columns, Panel
from stacklstm_cli.evaluation.baselines import Drift, Naive, SeasonalAverage, SeasonalNaive, standard_baselines

NAMES = ("naive", "seasonal_naive", "drift", "seasonal_average")
ABOVE = NormalDist().cdf(1)
"""The quantile one standard deviation above the mean."""


def panel_of(*series: npt.ArrayLike) -> Panel:
    """A panel of these series, named 0, 1, 2 …; the baselines never look at its calendar."""
    keys, values, offsets, starts = join_series(
        [((str(index),), 0, np.asarray(values, dtype=np.float64)) for index, values in enumerate(series)]
    )
    columns = Columns("long", ("ds",), ("id",), ("y",))
    return Panel(columns, cast(Any, None), cast(Any, None), keys, values, offsets, starts)


def all_origins(panel: Panel) -> Origins:
    """Every cutoff of every series."""
    return plan_origins(np.ones(panel.n_series, dtype=np.int64), panel.lengths + 1, horizon=1, step=1)


def slow(name: str, history: list[float], m: int, h: int) -> tuple[float, float]:
    """Mean and standard deviation of one baseline h steps ahead, by loops from the definitions."""
    last_row = len(history) - 1
    seen = [(t, y) for t, y in enumerate(history) if not math.isnan(y)]
    last, value = seen[-1]
    steps = [(t - s, y - x) for (s, x), (t, y) in pairwise(seen)]
    squares = sum(rise**2 / gap for gap, rise in steps)
    sigma = math.sqrt(squares / len(steps)) if steps else 0.0
    ahead = last_row + h - last
    naive = value, sigma * math.sqrt(ahead)
    if name == "naive":
        return naive
    if name == "drift":
        first, begin = seen[0]
        if not steps:
            return naive
        slope = (value - begin) / (last - first)
        if len(steps) > 1:
            sigma = math.sqrt(sum((rise - gap * slope) ** 2 / gap for gap, rise in steps) / (len(steps) - 1))
        return value + slope * ahead, sigma * math.sqrt(ahead * (1 + ahead / (last - first)))
    if len(history) < m:
        return naive
    season = [[(t, y) for t, y in seen if t % m == s] for s in range(m)]
    own = season[(last_row + h) % m]
    if not own:
        return naive
    if name == "seasonal_naive":
        jumps = [(b - a) ** 2 / ((t - s) / m) for days in season for (s, a), (t, b) in pairwise(days)]
        wait = (last_row + h - own[-1][0]) / m
        spread = math.sqrt(sum(jumps) / len(jumps) * wait) if jumps else naive[1]
        return own[-1][1], spread
    means = [sum(y for _, y in days) / len(days) if days else 0.0 for days in season]
    freedom = len(seen) - sum(bool(days) for days in season)
    around = sum((y - mean) ** 2 for days, mean in zip(season, means, strict=True) for _, y in days)
    spread = math.sqrt(around / freedom * (1 + 1 / len(own))) if freedom else naive[1]
    return means[(last_row + h) % m], spread


def check_against_loops(series: list[list[float]], m: int, horizon: int) -> None:
    panel = panel_of(*series)
    origins = all_origins(panel)
    for name, baseline in standard_baselines(m).items():
        found = baseline.forecast(panel, origins, horizon, (0.5, ABOVE))
        assert found.shape == (len(origins), horizon, 2)
        expected = [
            [slow(name, series[index][:rows], m, h) for h in range(1, horizon + 1)]
            for index, rows in zip(origins.series, origins.rows, strict=True)
        ]
        mean, deviation = np.moveaxis(np.array(expected), 2, 0)
        np.testing.assert_allclose(found[:, :, 0], mean, rtol=1e-9, atol=1e-9, err_msg=name)
        # drift's variance is a difference, whose rounding is that of values up to 1e6
        rounding = 2e-4 if name == "drift" else 1e-9
        np.testing.assert_allclose(found[:, :, 1] - mean, deviation, rtol=1e-6, atol=rounding, err_msg=name)


class TestTwins:
    @given(
        st.lists(
            st.lists(st.one_of(st.just(math.nan), st.floats(-1e3, 1e3)), min_size=1, max_size=20),
            min_size=1,
            max_size=3,
        ),
        st.integers(1, 6),
        st.integers(1, 14),
    )
    def test_every_cutoff_equals_the_loops(self, series: list[list[float]], m: int, horizon: int) -> None:
        """All baselines, points and widths, at every cutoff of several series with gaps."""
        observed = [[0.0 if values[0] != values[0] else values[0], *values[1:]] for values in series]
        check_against_loops(observed, m, horizon)

    def test_long_series(self) -> None:
        """The same with many seasons, a series shorter than one, and one with a long gap."""
        random = np.random.default_rng(0)
        long = random.normal(size=90).cumsum().tolist()
        gap = [*long[:20], *[math.nan] * 30, *long[50:]]
        check_against_loops([long, long[:5], gap], 7, 16)


def of_statsforecast(name: str) -> Any:
    """A model of theirs; the package is slow to import."""
    from statsforecast import models

    return getattr(models, name)(*(12,) * (name == "SeasonalNaive"))


class TestAgainstStatsforecast:
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (Naive(), "Naive"),
            (SeasonalNaive(12), "SeasonalNaive"),
            (Drift(), "RandomWalkWithDrift"),
            (SeasonalAverage(1), "HistoricAverage"),
        ],
    )
    def test_points(self, ours: Any, theirs: str) -> None:
        y = np.random.default_rng(2).normal(size=50).cumsum()
        found = ours.forecast(panel_of(y), Origins(np.array([0]), np.array([50])), 30, (0.5,))
        np.testing.assert_allclose(found[0, :, 0], of_statsforecast(theirs).forecast(y, h=30)["mean"])

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [(Naive(), "Naive"), (SeasonalNaive(12), "SeasonalNaive"), (SeasonalAverage(1), "HistoricAverage")],
    )
    def test_intervals(self, ours: Any, theirs: str) -> None:
        """Where the definitions agree; their drift counts its slope as no parameter (see below)."""
        y = np.random.default_rng(3).normal(size=50).cumsum()
        found = ours.forecast(panel_of(y), Origins(np.array([0]), np.array([50])), 30, (0.1, 0.5, 0.9))
        other = of_statsforecast(theirs).forecast(y, h=30, level=[80])
        np.testing.assert_allclose(found[0, :, 0], other["lo-80"], rtol=1e-6)
        np.testing.assert_allclose(found[0, :, 2], other["hi-80"], rtol=1e-6)

    def test_width_of_drift(self) -> None:
        """The book divides by T - K - 1 residuals with K = 1 parameter, statsforecast by T - 1."""
        y = np.random.default_rng(4).normal(size=50).cumsum()
        found = Drift().forecast(panel_of(y), Origins(np.array([0]), np.array([50])), 30, (0.5, 0.9))
        other = of_statsforecast("RandomWalkWithDrift").forecast(y, h=30, level=[80])
        width = (other["hi-80"] - other["mean"]) * math.sqrt(49 / 48)
        np.testing.assert_allclose(found[0, :, 1] - found[0, :, 0], width, rtol=1e-6)


class TestLeaks:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_future_changes_nothing(self, name: str) -> None:
        """Values after a cutoff, of its series or of another, move no forecast made at it, not by one bit."""
        random = np.random.default_rng(5)
        series = [random.normal(size=60), random.normal(size=8), random.normal(size=45)]
        origins = Origins(np.array([0, 0, 1, 2]), np.array([20, 33, 5, 1]))
        baseline = standard_baselines(7)[name]
        before = baseline.forecast(panel_of(*series), origins, 10, (0.1, 0.5))
        for place in range(len(origins)):
            changed = [values.copy() for values in series]
            index, rows = origins.series[place], origins.rows[place]
            changed[index][rows:] = random.normal(1e6, 1e6, series[index].size - rows)
            changed[index][rows + 1] = np.nan
            for other in {0, 1, 2} - {index}:
                changed[other][:] = 1e9 * random.random(series[other].size)
            after = baseline.forecast(panel_of(*changed), origins, 10, (0.1, 0.5))
            np.testing.assert_array_equal(before[place], after[place])

    @pytest.mark.parametrize("name", NAMES)
    def test_the_file_cut_at_the_cutoff_forecasts_the_same(self, name: str) -> None:
        """One origin among many, and alone on the panel's head, agree to the last bit."""
        panel = panel_of(np.random.default_rng(6).normal(size=60))
        baseline, origins = standard_baselines(7)[name], all_origins(panel)
        batch = baseline.forecast(panel, origins, 10, (0.1, 0.5))
        for rows in (1, 2, 6, 7, 8, 40, 60):
            head = cut(panel, np.array([rows]))
            alone = baseline.forecast(head, Origins(np.array([0]), np.array([rows])), 10, (0.1, 0.5))
            np.testing.assert_array_equal(alone[0], batch[rows - 1])

    @pytest.mark.parametrize("name", NAMES)
    def test_the_last_value_counts(self, name: str) -> None:
        """Nor is anything known left unused: the row at the cutoff moves the forecast."""
        values = np.random.default_rng(7).normal(size=30)
        origin = Origins(np.array([0]), np.array([21]))
        before = standard_baselines(7)[name].forecast(panel_of(values), origin, 7, (0.5,))
        values[20] += 1
        assert (standard_baselines(7)[name].forecast(panel_of(values), origin, 7, (0.5,)) != before).any()


class TestByHand:
    def test_missing_values(self) -> None:
        """1 2 3 | 4 . 6 | 7 . .: seasons of three rows, the cutoff in a gap."""
        nan = math.nan
        panel, origin = panel_of([1, 2, 3, 4, nan, 6, 7, nan, nan, 5]), Origins(np.array([0]), np.array([9]))
        points = {
            name: baseline.forecast(panel, origin, 3, (0.5,))[0, :, 0].tolist()
            for name, baseline in standard_baselines(3).items()
        }
        assert points == {
            "naive": [7, 7, 7],
            "seasonal_naive": [7, 2, 6],
            "drift": [10, 11, 12],
            "seasonal_average": [4, 2, 4.5],
        }

    def test_a_season_longer_than_the_history_is_naive(self) -> None:
        panel, origin = panel_of([1, 5, 2, 8]), Origins(np.array([0]), np.array([4]))
        naive = Naive().forecast(panel, origin, 6, (0.1, 0.5, 0.9))
        for seasonal in (SeasonalNaive(5), SeasonalAverage(5), SeasonalNaive(10_000)):
            np.testing.assert_array_equal(seasonal.forecast(panel, origin, 6, (0.1, 0.5, 0.9)), naive)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_constant_series_has_no_width(self, name: str) -> None:
        found = standard_baselines(3)[name].forecast(
            panel_of([4.0] * 9), Origins(np.array([0, 0]), np.array([1, 9])), 5, (0.1, 0.5, 0.9)
        )
        assert (found == 4).all()

    @pytest.mark.parametrize("name", NAMES)
    def test_small_series_beside_large_ones(self, name: str) -> None:
        """A series of thousandths keeps its width beside one of billions: nothing is summed across series."""
        small = np.random.default_rng(8).normal(size=40) * 1e-3
        origin = Origins(np.array([1]), np.array([40]))
        both = standard_baselines(4)[name].forecast(panel_of(small * 1e12, small), origin, 5, (0.1, 0.9))
        alone = standard_baselines(4)[name].forecast(
            panel_of(small), Origins(np.array([0]), np.array([40])), 5, (0.1, 0.9)
        )
        np.testing.assert_array_equal(both, alone)

    def test_names(self) -> None:
        assert tuple(standard_baselines(12)) == NAMES

    @pytest.mark.parametrize("name", NAMES)
    def test_no_origins(self, name: str) -> None:
        nothing = Origins(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        assert standard_baselines(3)[name].forecast(panel_of([1, 2, 3]), nothing, 4, (0.5,)).shape == (0, 4, 1)
