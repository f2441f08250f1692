"""Which origins are scored, what came after them, and the judgement put together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panels import join_series, wave

from stacklstm_cli.data.origins import Origins, Tally, actuals, plan_origins, tally
from stacklstm_cli.data.panel import Columns, Floats, Panel
from stacklstm_cli.evaluation.backtest import Backtest, backtest
from stacklstm_cli.evaluation.baselines import standard_baselines


def panel_of(*series: npt.ArrayLike, starts: Sequence[int] | None = None) -> Panel:
    """A panel of these series, named 0, 1, 2 …; nothing here looks at its calendar."""
    keys, values, offsets, begins = join_series(
        [
            ((str(index),), starts[index] if starts else 0, np.asarray(values, dtype=np.float64))
            for index, values in enumerate(series)
        ]
    )
    columns = Columns("long", ("ds",), ("id",), ("y",))
    return Panel(columns, cast(Any, None), cast(Any, None), keys, values, offsets, begins)


def pairs(origins: Origins) -> list[tuple[int, int]]:
    return list(zip(origins.series.tolist(), origins.rows.tolist(), strict=True))


class Oracle:
    """Forecasts what comes, plus a constant; 0 where nothing comes."""

    def __init__(self, error: float) -> None:
        self.error = error

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        came = np.nan_to_num(actuals(panel, origins, horizon))
        spread = np.asarray(quantiles, dtype=np.float64) - 0.5
        return np.stack([came + self.error + shift for shift in spread], axis=2)


class TestPlan:
    @given(
        st.lists(st.tuples(st.integers(-9, 12), st.integers(0, 30)), min_size=1, max_size=4),
        st.integers(1, 6),
        st.integers(1, 6),
        st.one_of(st.none(), st.integers(1, 4)),
        st.sampled_from(["start", "end"]),
    )
    def test_equals_the_loop(
        self, ranges: list[tuple[int, int]], horizon: int, step: int, keep: int | None, count_from: Any
    ) -> None:
        """Walk the rows one step at a time; full horizons only; the last so many of each series."""
        expected = []
        for index, (first, last) in enumerate(ranges):
            rows = list(range(first, last - horizon + 1))
            rows = rows[::step] if count_from == "start" else rows[::-1][::step][::-1]
            rows = [row for row in rows if row > 0]
            expected += [(index, row) for row in (rows if keep is None else rows[-keep:])]
        first, last = np.array(ranges).T
        found = plan_origins(first, last, horizon, step, keep, count_from)
        assert pairs(found) == expected
        assert len(found) == len(expected)

    def test_counts_back_from_the_end(self) -> None:
        """Rows 10 to 19 in horizons of 3: the last forecast ends with the last row."""
        found = plan_origins(np.array([10]), np.array([20]), horizon=3, step=3)
        assert pairs(found) == [(0, 11), (0, 14), (0, 17)]

    def test_counts_forward_from_the_start(self) -> None:
        """The first forecast begins with the first row; what is left at the end is not scored."""
        found = plan_origins(np.array([10]), np.array([20]), horizon=3, step=3, count_from="start")
        assert pairs(found) == [(0, 10), (0, 13), (0, 16)]

    def test_series_without_room_have_none(self) -> None:
        found = plan_origins(np.array([5, 5, 9]), np.array([7, 8, 3]), horizon=3, step=1)
        assert pairs(found) == [(1, 5)]
        assert found.series.dtype == found.rows.dtype == np.int64


class TestTally:
    @given(
        st.lists(st.tuples(st.integers(-3, 9), st.integers(1, 25)), min_size=1, max_size=4),
        st.integers(1, 5),
        st.integers(1, 7),
        st.one_of(st.none(), st.integers(1, 3)),
        st.integers(0, 2**32 - 1),
    )
    def test_equals_the_loop(
        self, ranges: list[tuple[int, int]], horizon: int, step: int, keep: int | None, seed: int
    ) -> None:
        """Mark each row that some forecast covers, one at a time."""
        values = [np.random.default_rng(seed + at).normal(size=length) for at, (_, length) in enumerate(ranges)]
        for series in values:
            series[1:-1][series[1:-1] > 1] = np.nan
        panel = panel_of(*values)
        first = np.array([begin for begin, _ in ranges])
        origins = plan_origins(first, panel.lengths, horizon, step, keep)
        covered = {(series, row + ahead) for series, row in pairs(origins) for ahead in range(horizon)}
        missing = sum(np.isnan(values[series][row]) for series, row in covered)
        possible = sum(max(length - max(begin, 1), 0) for begin, length in ranges)
        found = tally(panel, origins, horizon, first, panel.lengths)
        assert (found.rows_scored, found.rows_missing) == (len(covered) - missing, missing)
        assert found.rows_left_out == possible - len(covered)
        assert found.series_left_out == len(ranges) - len({series for series, _ in pairs(origins)})

    def test_in_words(self) -> None:
        """Nothing is said of what is not left out."""
        assert Tally(10, 0, 0, 0).explained() == ""
        assert Tally(1000, 2, 500, 3).explained() == (
            "500 of 1,502 rows that could be scored are in no forecast; 2 rows in forecasts have no value and are not "
            "scored; 3 series have no room for a forecast"
        )


class TestActuals:
    def test_missing_and_beyond_the_end(self) -> None:
        """A gap is NaN, and so is a row after the series, never the next series' first."""
        panel = panel_of([1, np.nan, 3], [4, 5])
        found = actuals(panel, Origins(np.array([0, 0, 1]), np.array([1, 2, 1])), 3)
        np.testing.assert_array_equal(found, [[np.nan, 3, np.nan], [3, np.nan, np.nan], [5, np.nan, np.nan]])


@pytest.fixture
def judged() -> Backtest:
    """Three series (growing, constant, growing from row 7 on), two predictors, horizons of 2."""
    panel = panel_of(np.arange(12.0), [3.0] * 10, 2 * np.arange(9.0), starts=[0, 0, 7])
    origins = plan_origins(np.array([6, 6, 6]), panel.lengths, horizon=2, step=2)
    return backtest({"good": Oracle(1), "bad": Oracle(4)}, panel, origins, 2, (0.1, 0.5, 0.9), seasonality=1)


class TestBacktest:
    def test_figures_worked_out_by_hand(self, judged: Backtest) -> None:
        """Scales are 1 and 2: an error of 1 everywhere is a MASE of (1 + 1/2) / 2."""
        metrics = judged.metrics()
        assert list(metrics) == ["good", "bad"]
        assert pairs(judged.origins) == [(0, 6), (0, 8), (0, 10), (1, 6), (1, 8), (2, 7)]
        assert metrics["good"]["mae"] == pytest.approx(1)
        assert metrics["good"]["mase"] == pytest.approx(0.75)
        assert metrics["good"]["rmsse"] == pytest.approx(0.75)
        assert metrics["bad"]["mase"] == pytest.approx(3)
        assert metrics["bad"]["coverage_80"] == 0
        assert metrics["bad"]["width_80"] == pytest.approx(0.8)

    def test_metric_names(self, judged: Backtest) -> None:
        """The names that scripts rely on."""
        expected = {"mae", "rmse", "smape", "mase", "rmsse", "wql", "crps", "msis", "bias", "coverage_80", "width_80"}
        assert set(judged.metrics()["good"]) == expected

    def test_per_series(self, judged: Backtest) -> None:
        """One entry a series, in the panel's order; what is undefined is None, and JSON can hold it all."""
        entries = judged.per_series()
        assert [entry["series"] for entry in entries] == ["0", "1", "2"]
        assert [entry["metrics"]["good"]["mase"] for entry in entries] == pytest.approx([1, None, 0.5])
        assert entries[1]["metrics"]["bad"]["mae"] == pytest.approx(4)
        assert set(entries[0]["metrics"]["good"]) == set(judged.metrics()["good"])
        json.dumps([entries, judged.metrics()], allow_nan=False)

    def test_series_without_scale_are_counted(self, judged: Backtest) -> None:
        assert judged.undefined == 1

    def test_series_of_which_nothing_came_are_not_counted(self) -> None:
        """A constant series with no actual value is not scored, so it is not left out either."""
        panel = panel_of([3.0, 3.0, 3.0, np.nan, np.nan, 3.0])
        origins = plan_origins(np.array([3]), np.array([5]), horizon=2, step=2)
        assert backtest(standard_baselines(1), panel, origins, 2, (0.5,), 1).undefined == 0

    def test_cutoffs_are_positions_on_the_grid(self, judged: Backtest) -> None:
        """Row 6 of series 2, whose first row is at 7, is cut later than row 9 of series 0."""
        assert judged.cutoffs.tolist() == [5, 7, 9, 5, 7, 13]
        assert (judged.first_cutoff, judged.last_cutoff) == (5, 13)

    def test_a_constant_series_alone(self) -> None:
        """No MASE at all, and no warning."""
        panel = panel_of([3.0] * 10)
        origins = plan_origins(np.array([6]), panel.lengths, horizon=2, step=2)
        result = backtest(standard_baselines(4), panel, origins, 2, (0.1, 0.5, 0.9), 4)
        for metrics in result.metrics().values():
            assert [metrics[name] for name in ("mase", "rmsse", "msis")] == [None] * 3
            assert metrics["mae"] == 0
        assert result.undefined == 1

    def test_scales_come_from_before_the_first_origin(self) -> None:
        """Nothing that is scored, and nothing after it, changes what errors are divided by."""
        values = np.random.default_rng(0).normal(size=40)
        origins = plan_origins(np.array([20]), np.array([40]), horizon=5, step=5)
        before = backtest({}, panel_of(values), origins, 5, (0.5,), 4).scales
        values[20:] *= 1000
        after = backtest({}, panel_of(values), origins, 5, (0.5,), 4).scales
        np.testing.assert_array_equal(before.absolute, after.absolute)
        np.testing.assert_allclose(before.absolute, np.abs(values[4:20] - values[:16]).mean())

    def test_without_origins(self) -> None:
        """Nothing to score is no crash: figures are None and there is no cutoff."""
        panel = panel_of([1.0, 2.0])
        origins = plan_origins(np.array([1]), panel.lengths, horizon=5, step=5)
        result = backtest(standard_baselines(2), panel, origins, 5, (0.5,), 2)
        assert set(result.metrics()["naive"].values()) == {None}
        assert (result.first_cutoff, result.last_cutoff, result.undefined) == (None, None, 0)
        assert result.per_series() == []

    def test_series_without_origins_are_not_listed(self) -> None:
        """Nor do they count as left out."""
        panel = panel_of([1.0], np.arange(9.0))
        origins = plan_origins(np.array([1, 5]), panel.lengths, horizon=2, step=2)
        result = backtest(standard_baselines(2), panel, origins, 2, (0.5,), 2)
        assert [entry["series"] for entry in result.per_series()] == ["1"]
        assert result.undefined == 0

    def test_drift_is_perfect_on_a_line(self, judged: Backtest) -> None:
        """The baselines go through the same call as any predictor."""
        result = backtest(standard_baselines(1), judged.panel, judged.origins, 2, (0.1, 0.5, 0.9), 1)
        assert result.metrics()["drift"]["mae"] == pytest.approx(0, abs=1e-12)
        assert result.metrics()["naive"]["mase"] == pytest.approx(1.5)
        assert result.forecasts["naive"].shape == (6, 2, 3)


def test_some_series_at_a_time_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecasts of a large panel are made in parts; what comes out is the same."""
    panel = panel_of(*(wave(rows, seed) for seed, rows in enumerate((40, 90, 30, 60, 10))))
    origins = plan_origins(np.full(5, 20), panel.lengths, 4, 3)
    predictors = standard_baselines(24)
    whole = backtest(predictors, panel, origins, 4, (0.1, 0.5, 0.9), 24)
    monkeypatch.setattr("stacklstm_cli.evaluation.backtest.ROWS_AT_ONCE", 100)
    parts = backtest(predictors, panel, origins, 4, (0.1, 0.5, 0.9), 24)
    for name, forecast in whole.forecasts.items():
        np.testing.assert_array_equal(parts.forecasts[name], forecast)
