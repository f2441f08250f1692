"""Two predictors beside each other: the test of their difference, its size, and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import make_panel
from scipy import fft, stats

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.evaluation.comparison import (
    LEVEL,
    Metric,
    compare,
    contributions,
    covariance_of_means,
    paired_test,
    student_limit,
    two_sided,
)
from stacklstm_cli.evaluation.metrics import Scales


def backtest_of(
    errors: dict[str, npt.ArrayLike],
    series: Sequence[int],
    rows: Sequence[int],
    scales: Sequence[float],
    starts: Sequence[int] | None = None,
) -> Backtest:
    """A backtest whose predictors have these errors [O, H]; NaN is a row without an observed value."""
    arrays = {name: np.asarray(error, dtype=np.float64) for name, error in errors.items()}
    first = next(iter(arrays.values()))
    panel = make_panel(*[np.arange(max(rows) + first.shape[1]) for _ in scales], starts=starts)
    absolute = np.asarray(scales, dtype=np.float64)
    return Backtest(
        panel=panel,
        origins=Origins(np.asarray(series), np.asarray(rows)),
        horizon=first.shape[1],
        quantiles=(0.5,),
        seasonality=1,
        actual=np.where(np.isnan(first), np.nan, 0.0),
        forecasts={name: np.nan_to_num(error)[:, :, None] for name, error in arrays.items()},
        scales=Scales(absolute, absolute**2),
    )


def one_series(losses: Sequence[npt.ArrayLike], step: int = 4, horizon: int = 4) -> Backtest:
    """Predictors a and b on one series whose errors at each origin are these."""
    errors = {
        name: np.repeat(np.asarray(loss, dtype=np.float64)[:, None], horizon, axis=1)
        for name, loss in zip("ab", losses, strict=True)
    }
    count = len(errors["a"])
    return backtest_of(errors, [0] * count, [10 + step * i for i in range(count)], [1.0])


class TestWhatIsPaired:
    @pytest.mark.parametrize("metric", ["mase", "mae"])
    @pytest.mark.parametrize("seed", range(5))
    def test_the_origins_add_up_to_the_table(self, metric: Metric, seed: int) -> None:
        """Gaps, a series without scale, one without an observed value: the difference is the table's."""
        random = np.random.default_rng(seed)
        errors = random.normal(size=(2, 30, 4))
        errors[:, random.random((30, 4)) < 0.2] = np.nan
        series = np.sort(random.integers(0, 5, 30))
        errors[:, series == 4] = np.nan
        rows = np.arange(30) * 4 + 9
        found = backtest_of(dict(zip("ab", errors, strict=True)), series.tolist(), rows.tolist(), [1, 5, np.nan, 2, 1])
        for name in "ab":
            table = found.metrics()[name][metric]
            assert np.nansum(contributions(found, name, metric)) == pytest.approx(table)
        comparison = compare(found, "a", "b", metric)
        assert comparison is not None
        a, b = (found.metrics()[name][metric] or math.nan for name in "ab")
        assert comparison.difference == pytest.approx(a - b)
        assert comparison.relative == pytest.approx(a / b - 1)
        assert comparison.units == 30 - int(np.isin(series, [4, *([2] if metric == "mase" else [])]).sum())

    def test_cutoffs_hold_all_their_series(self) -> None:
        """Two series of different start, six cutoffs: six units, whatever the rows are called."""
        errors = {name: np.random.default_rng(ord(name)).normal(size=(12, 3)) for name in "ab"}
        series, rows = [0] * 6 + [1] * 6, [*range(20, 38, 3), *range(10, 28, 3)]
        found = compare(backtest_of(errors, series, rows, [1, 3], starts=[0, 10]), "a", "b", "mase")
        assert found is not None
        assert (found.units, found.paired_over) == (6, "cutoffs")
        by_cutoff = {n: (np.abs(errors[n][:6]).mean(1) + np.abs(errors[n][6:]).mean(1) / 3) / 2 for n in "ab"}
        assert found.p_value == pytest.approx(stats.ttest_rel(by_cutoff["a"], by_cutoff["b"]).pvalue)

    def test_many_series_at_one_cutoff_are_the_units(self) -> None:
        errors = {name: np.random.default_rng(ord(name)).normal(size=(9, 3)) for name in "ab"}
        found = compare(backtest_of(errors, list(range(9)), [20] * 9, list(range(1, 10))), "a", "b", "mase")
        assert found is not None
        assert (found.units, found.paired_over) == (9, "series")
        scaled = [np.abs(errors[name]).mean(axis=1) / np.arange(1, 10) for name in "ab"]
        assert found.p_value == pytest.approx(stats.ttest_rel(*scaled).pvalue)

    def test_cutoffs_that_overlap_count_by_the_horizons_they_cover(self) -> None:
        """40 cutoffs of one horizon are fewer than 4 series, 40 of ten are more."""
        random = np.random.default_rng(0)
        for horizon, paired in ((40, "series"), (4, "cutoffs")):
            errors = {name: random.normal(size=(160, horizon)) for name in "ab"}
            series, rows = np.repeat(range(4), 40), np.tile(np.arange(40) + 9, 4)
            found = compare(backtest_of(errors, series.tolist(), rows.tolist(), [1] * 4), "a", "b", "mae")
            assert found is not None
            assert found.paired_over == paired

    def test_nothing_in_common(self) -> None:
        nothing = np.full((4, 2), np.nan)
        empty = backtest_of({"a": nothing, "b": nothing}, [0] * 4, [9, 11, 13, 15], [1])
        assert compare(empty, "a", "b", "mae") is None
        ones = np.ones((4, 2))
        unscaled = backtest_of({"a": ones, "b": ones}, [0] * 4, [9, 11, 13, 15], [np.nan])
        assert compare(unscaled, "a", "b", "mase") is None
        broken = backtest_of({"a": ones, "b": ones * np.inf}, [0] * 4, [9, 11, 13, 15], [1])
        broken.forecasts["b"][:] = np.inf
        assert compare(broken, "a", "b", "mae") is None

    @pytest.mark.parametrize(("count", "step"), [(1, 4), (2, 4), (3, 1), (7, 1)])
    def test_too_few_units_have_no_test(self, count: int, step: int) -> None:
        """Two cutoffs, or seven within less than two horizons."""
        found = compare(one_series([np.ones(count), np.arange(2.0, 2 + count)], step), "a", "b", "mae")
        assert found is not None
        assert math.isnan(found.p_value)
        assert found.interval is None
        assert found.units == count
        assert not found.clearly_better(0.4)


class TestTest:
    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.tuples(st.floats(0.01, 9), st.floats(0.01, 9)), min_size=3, max_size=40))
    def test_without_overlap_it_is_students(self, pairs: list[tuple[float, float]]) -> None:
        """As scipy has it, and as Harvey, Leybourne & Newbold's correction for one step ahead gives it."""
        a, b = np.asarray(pairs).T
        if np.std(a - b) < 1e-6:
            return
        found = compare(one_series([a, b]), "a", "b", "mae")
        assert found is not None
        assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6, abs=1e-12)
        n, difference = a.size, a - b
        original = difference.mean() / math.sqrt(np.mean((difference - difference.mean()) ** 2) / n)
        corrected = original * math.sqrt((n + 1 - 2 + 0) / n)
        assert found.p_value == pytest.approx(2 * stats.t.sf(abs(corrected), n - 1), rel=1e-6, abs=1e-12)

    @pytest.mark.parametrize(("count", "overlap"), [(24, 12), (50, 3), (7, 2), (100, 24)])
    def test_with_overlap_it_is_by_the_slowest_cosines(self, count: int, overlap: int) -> None:
        """Equal to the orthonormal cosine transform."""
        values = np.random.default_rng(count).normal(size=(2, count))
        spread, freedom = covariance_of_means(values, overlap)
        slow = fft.dct(values, norm="ortho")[:, 1 : freedom + 1]
        assert freedom == max(count // (2 * overlap), 1)
        np.testing.assert_allclose(spread, slow @ slow.T / freedom / count)

    def test_all_cosines_are_students_test(self) -> None:
        """What makes the two cases one: the mean square of all cosines is the sample variance."""
        values = np.random.default_rng(1).normal(size=20)
        every = fft.dct(values, norm="ortho")[1:]
        assert every @ every / 19 / 20 == pytest.approx(covariance_of_means(values[None], 1)[0].item())

    @settings(deadline=None, max_examples=30)
    @given(st.integers(1, 300))
    def test_limits_of_students_t(self, freedom: int) -> None:
        assert student_limit(freedom) == pytest.approx(stats.t.ppf((1 + LEVEL) / 2, freedom), rel=1e-9)
        assert two_sided(student_limit(freedom), freedom) == pytest.approx(1 - LEVEL)

    def test_alike_and_alike_but_for_a_constant(self) -> None:
        losses = np.random.default_rng(0).random(8)
        same, shifted = (compare(one_series([losses, losses + more]), "a", "b", "mae") for more in (0, 0.5))
        assert same is not None
        assert (same.difference, same.p_value) == (0, 1)
        assert shifted is not None
        assert shifted.p_value == 0
        assert shifted.clearly_better(1e-9)
        assert not shifted.clearly_worse(0.4)

    def test_a_baseline_without_error_has_no_share(self) -> None:
        found = compare(one_series([np.arange(1.0, 6), np.zeros(5)]), "a", "b", "mae")
        assert found is not None
        assert math.isnan(found.relative)
        assert found.interval is None
        assert found.clearly_worse(0.05)


class TestInterval:
    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.tuples(st.floats(0.5, 9), st.floats(0.5, 9)), min_size=4, max_size=40), st.integers(1, 2))
    def test_its_ends_are_shares_that_the_test_just_rejects(self, pairs: Any, overlap: int) -> None:
        """So 0 is outside exactly where p is below one minus the level."""
        losses = np.asarray(pairs).T
        p_value, interval = paired_test(losses, overlap)
        if interval is None or np.ptp(losses[0] / losses[1]) < 1e-3:
            return
        assert interval[0] <= losses[0].mean() / losses[1].mean() - 1 <= interval[1]
        if abs(p_value - (1 - LEVEL)) > 1e-6:
            assert (interval[0] <= 0 <= interval[1]) == (p_value > 1 - LEVEL)
        for end in interval:
            if end > -1:
                shifted = paired_test(np.stack([losses[0], losses[1] * (1 + end)]), overlap)[0]
                assert shifted == pytest.approx(1 - LEVEL, rel=1e-4)

    def test_where_the_baseline_may_be_without_error_there_is_none(self) -> None:
        assert paired_test(np.asarray([[1.0, 2, 1], [0.01, 0.0, 5]]), 1)[1] is None

    def test_swapped_predictors(self) -> None:
        a, b = np.random.default_rng(0).random((2, 9)) + 0.5
        one, other = compare(one_series([a, b]), "a", "b", "mae"), compare(one_series([b, a]), "a", "b", "mae")
        assert one is not None
        assert one.interval is not None
        assert other is not None
        assert other.interval is not None
        assert (other.difference, other.p_value) == pytest.approx((-one.difference, one.p_value))
        assert 1 + other.interval[0] == pytest.approx(1 / (1 + one.interval[1]))


def overlapping(random: np.random.Generator, count: int, overlap: int, horizon: int) -> Floats:
    """[2, U] mean losses of two predictors that are equally good, by forecasts that share their rows."""
    step = horizon // overlap
    by_row = 1 + 0.3 * random.normal(size=(2, (count - 1) * step + horizon))
    windows = np.lib.stride_tricks.sliding_window_view(by_row, horizon, axis=1)[:, ::step]  # [2, U, H]
    losses: Floats = windows.mean(axis=2)
    return losses


def rejected(losses: Floats, overlap: int) -> bool:
    """Whether the test finds a difference; without the p-value, which takes a hundred times as long."""
    spread, freedom = covariance_of_means(losses, overlap)
    variance = spread[0, 0] - 2 * spread[0, 1] + spread[1, 1]
    limit = stats.t.ppf((1 + LEVEL) / 2, freedom)
    return bool(abs(losses[0].mean() - losses[1].mean()) > limit * math.sqrt(variance))


@pytest.mark.parametrize(
    ("count", "overlap", "most"), [(5, 1, 0.08), (12, 1, 0.08), (12, 4, 0.09), (60, 12, 0.09), (24, 12, 0.12)]
)
def test_size(count: int, overlap: int, most: float) -> None:
    """Of two predictors that are equally good one is called better in about 5 of 100 cases, whatever the overlap.

    The bound of the shortest stretch is wider: two horizons tell little of how one differs from the next.
    """
    random = np.random.default_rng(count)
    share = np.mean([rejected(overlapping(random, count, overlap, 12), overlap) for _ in range(500)])
    assert 0.025 < share < most


def test_power() -> None:
    """A fifth less error over some ten horizons of overlapping origins is seen."""
    random, less = np.random.default_rng(0), np.asarray([[0.8], [1.0]])
    found = [rejected(overlapping(random, 120, 12, 12) * less, 12) for _ in range(200)]
    assert np.mean(found) > 0.8
