"""Every metric against a plain loop, against hand-computed cases and against utilsforecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from utilsforecast import losses

from stacklstm_cli.evaluation import metrics
from stacklstm_cli.evaluation.metrics import (
    Interval,
    Scales,
    central_intervals,
    overall_metrics,
    seasonal_scales,
    series_metrics,
    sum_errors,
)

QUANTILES = (0.05, 0.1, 0.5, 0.9, 0.95)


def slow_scale(history: Sequence[float], m: int, power: int) -> float:
    """Mean |difference| ** power over the pairs m rows apart, by the definition."""
    m = m if len(history) >= m + 1 else 1
    pairs = [abs(history[t] - history[t - m]) ** power for t in range(m, len(history))]
    pairs = [pair for pair in pairs if not math.isnan(pair)]
    return sum(pairs) / len(pairs) if pairs and sum(pairs) > 0 else math.nan


def slow_metrics(
    actual: Any, forecast: Any, quantiles: Sequence[float], series: Sequence[int], scales: Scales
) -> dict[str, float]:
    """All metrics by loops over points, from their definitions; the pairs of QUANTILES are 90 and 80 %."""
    points: list[tuple[int, float, list[float]]] = [
        (series[o], y, list(forecast[o][h]))
        for o, row in enumerate(actual)
        for h, y in enumerate(row)
        if not math.isnan(y)
    ]
    median = quantiles.index(0.5)
    n = len(points)
    if n == 0:
        return {}
    result = {
        "mae": sum(abs(f[median] - y) for _, y, f in points) / n,
        "rmse": math.sqrt(sum((f[median] - y) ** 2 for _, y, f in points) / n),
        "smape": sum(
            200 * abs(y - f[median]) / (abs(y) + abs(f[median])) if y or f[median] else 0.0 for _, y, f in points
        )
        / n,
        "bias": sum(f[median] - y for _, y, f in points) / n,
    }
    size = sum(abs(y) for _, y, _ in points)
    losses_of_quantiles = [
        sum(q * (y - f[k]) if y >= f[k] else (1 - q) * (f[k] - y) for _, y, f in points)
        for k, q in enumerate(quantiles)
    ]
    result["wql"] = sum(2 * loss / size for loss in losses_of_quantiles) / len(quantiles) if size else math.nan
    result["crps"] = sum(2 * loss / n for loss in losses_of_quantiles) / len(quantiles)
    for label, low, high in (("90", 0, 4), ("80", 1, 3)):
        result[f"coverage_{label}"] = sum(f[low] <= y <= f[high] for _, y, f in points) / n
        result[f"width_{label}"] = sum(f[high] - f[low] for _, _, f in points) / n
    scaled: dict[str, list[float]] = {"mase": [], "rmsse": [], "msis": []}
    alpha = 2 * quantiles[0]
    for index in sorted({i for i, _, _ in points}):
        own = [(y, f) for i, y, f in points if i == index]
        if math.isnan(scales.absolute[index]):
            continue
        scaled["mase"].append(sum(abs(f[median] - y) for y, f in own) / len(own) / scales.absolute[index])
        scaled["rmsse"].append(math.sqrt(sum((f[median] - y) ** 2 for y, f in own) / len(own) / scales.squared[index]))
        score = 0.0
        for y, f in own:
            score += f[4] - f[0]
            score += 2 / alpha * (f[0] - y) if y < f[0] else 2 / alpha * (y - f[4]) if y > f[4] else 0.0
        scaled["msis"].append(score / len(own) / scales.absolute[index])
    return result | {name: sum(v) / len(v) if v else math.nan for name, v in scaled.items()}


def example(seed: int = 0, missing: float = 0.2) -> tuple[Any, Any, Any, Scales]:
    """30 origins of 5 series with gaps; series 3 has no origin and series 4 no scale."""
    random = np.random.default_rng(seed)
    actual = random.normal(5, 3, (30, 7))
    actual[random.random(actual.shape) < missing] = np.nan
    forecast = np.sort(random.normal(5, 3, (30, 7, len(QUANTILES))), axis=2)
    series = np.sort(random.choice([0, 1, 2, 4], 30))
    absolute = np.array([1.5, 0.3, 20.0, 1.0, np.nan])
    return actual, forecast, series, Scales(absolute, absolute**2 * 1.7)


def evaluated(actual: Any, forecast: Any, series: Any, scales: Scales, quantiles: Any = QUANTILES) -> dict[str, float]:
    return overall_metrics(sum_errors(actual, forecast, quantiles, series, scales.absolute.size), scales)


class TestTwins:
    def test_overall_equals_the_loops(self) -> None:
        """Pooled and averaged metrics follow their written definitions, whatever is missing."""
        actual, forecast, series, scales = example()
        slow = slow_metrics(actual.tolist(), forecast.tolist(), QUANTILES, series.tolist(), scales)
        assert evaluated(actual, forecast, series, scales) == pytest.approx(slow, rel=1e-12)

    @pytest.mark.parametrize("points", [1, 7, 50, 210])
    def test_scoring_in_blocks_changes_nothing(self, points: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """One origin at a time, several, all: the same figures."""
        whole = evaluated(*example())
        monkeypatch.setattr(metrics, "POINTS_AT_ONCE", points)
        assert evaluated(*example()) == pytest.approx(whole, rel=1e-12)

    def test_each_series_equals_the_loops_over_its_own_points(self) -> None:
        """A series' metrics are those of a panel that holds nothing else."""
        actual, forecast, series, scales = example()
        found = series_metrics(sum_errors(actual, forecast, QUANTILES, series, 5), scales)
        for index in (0, 1, 2, 4):
            own = series == index
            slow = slow_metrics(actual[own].tolist(), forecast[own].tolist(), QUANTILES, series[own].tolist(), scales)
            assert {name: values[index] for name, values in found.items()} == pytest.approx(
                slow, rel=1e-12, nan_ok=True
            )
        assert all(np.isnan(values[3]) for values in found.values())

    @given(
        actual=arrays(np.float64, (4, 3), elements=st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))),
        forecast=arrays(np.float64, (4, 3, 5), elements=st.floats(-1e6, 1e6)),
    )
    def test_overall_equals_the_loops_for_any_numbers(self, actual: Any, forecast: Any) -> None:
        """The same with zeros, ties, crossed quantiles and nothing observed at all."""
        forecast, series = np.sort(forecast, axis=2), [0, 0, 1, 2]
        scales = Scales(np.array([1.0, 2.0, np.nan]), np.array([1.0, 5.0, np.nan]))
        slow = slow_metrics(actual.tolist(), forecast.tolist(), QUANTILES, series, scales)
        fast = evaluated(actual, forecast, np.array(series), scales)
        if slow:
            assert fast == pytest.approx(slow, rel=1e-9, abs=1e-9, nan_ok=True)
        else:
            assert all(math.isnan(value) for value in fast.values())

    @given(
        st.lists(st.lists(st.one_of(st.just(math.nan), st.integers(-5, 5)), max_size=12), min_size=1, max_size=4),
        st.integers(1, 5),
        st.data(),
    )
    def test_scales_equal_the_loops(self, series: list[list[float]], m: int, data: st.DataObject) -> None:
        """Scales of several series in one array, each from its own history only."""
        history = [data.draw(st.integers(0, len(values))) for values in series]
        scales = seasonal_scales(
            np.array([value for values in series for value in values], dtype=np.float64),
            np.concatenate([[0], np.cumsum([len(values) for values in series])]).astype(np.int64),
            np.array(history),
            m,
        )
        known = [values[:rows] for values, rows in zip(series, history, strict=True)]
        np.testing.assert_allclose(scales.absolute, [slow_scale(values, m, 1) for values in known])
        np.testing.assert_allclose(scales.squared, [slow_scale(values, m, 2) for values in known])


class TestByHand:
    def test_points_in_the_middle(self) -> None:
        """Errors of 1 and 3 on actual values of 4 and 2: figures worked out on paper."""
        found = evaluated(
            np.array([[4.0, 2.0, np.nan]]),
            np.array([[[3.0, 5.0, 6.0], [4.0, 5.0, 7.0], [0.0, 9.0, 9.0]]]),
            np.array([0]),
            Scales(np.array([2.0]), np.array([4.0])),
            (0.1, 0.5, 0.9),
        )
        assert found == pytest.approx(
            {
                "mae": 2.0,
                "rmse": math.sqrt(5),
                "smape": (200 / 9 + 600 / 7) / 2,
                "bias": 2.0,
                # pinball sums: 0.1: .1·1 + .9·2 = 1.9; 0.5: .5 + 1.5 = 2; 0.9: .1·2 + .1·5 = 0.7
                "wql": 2 * 4.6 / 3 / 6,
                "crps": 2 * 4.6 / 3 / 2,
                "coverage_80": 0.5,
                "width_80": 3.0,
                "mase": 1.0,
                "rmsse": math.sqrt(5 / 4),
                # (3 + (3 + 2/0.2 · 2)) / 2 / 2
                "msis": 6.5,
            }
        )

    def test_seasonal_scale(self) -> None:
        """Differences 3 rows apart are 3, 4 and 7; 1 row apart where the history has 3 rows only."""
        values, offsets = np.array([1.0, 2, 4, 4, 6, 11]), np.array([0, 6])
        assert seasonal_scales(values, offsets, np.array([6]), 3).absolute == pytest.approx([14 / 3])
        assert seasonal_scales(values, offsets, np.array([6]), 3).squared == pytest.approx([74 / 3])
        assert seasonal_scales(values, offsets, np.array([3]), 3).absolute == pytest.approx([1.5])

    def test_a_bound_is_inside(self) -> None:
        """Coverage counts an actual value that equals a bound."""
        found = evaluated(
            np.array([[1.0, 3.0]]),
            np.array([[[1.0, 2, 3], [1, 2, 3]]]),
            np.array([0]),
            Scales(np.ones(1), np.ones(1)),
            (0.1, 0.5, 0.9),
        )
        assert (found["coverage_80"], found["msis"]) == (1.0, 2.0)

    def test_smape_of_zeros(self) -> None:
        """Nought forecast as nought is no error; nought forecast as anything else is the largest."""
        found = evaluated(
            np.zeros((1, 2)), np.array([[[0.0], [7.0]]]), np.array([0]), Scales(np.ones(1), np.ones(1)), (0.5,)
        )
        assert found["smape"] == 100.0
        assert math.isnan(found["wql"])


class TestIntervals:
    def test_symmetric_pairs_widest_first(self) -> None:
        """Only pairs that leave equal tails are intervals; 1 - 0.9 is not exactly 0.1."""
        assert central_intervals((0.5, 0.9, 0.1, 0.3, 0.0125, 0.9875)) == (
            Interval(97.5, 4, 5),
            Interval(80, 2, 1),
        )
        assert [interval.label for interval in central_intervals((0.0125, 0.1, 0.9, 0.9875))] == ["97.5", "80"]

    @given(st.integers(1, 499))
    def test_levels_are_named_without_rounding_dirt(self, per_mille: int) -> None:
        """Every pair written with three decimals gets the name a person would give it."""
        (interval,) = central_intervals((per_mille / 1000, 0.5, 1 - per_mille / 1000))
        assert interval.label == f"{(1000 - 2 * per_mille) / 10:g}"

    def test_no_pair_no_interval_metrics(self) -> None:
        """A point forecast has neither coverage, width nor msis."""
        actual, forecast, series, scales = example()
        found = evaluated(actual, forecast[:, :, 2:3], series, scales, (0.5,))
        assert set(found) == {"mae", "rmse", "smape", "mase", "rmsse", "wql", "crps", "bias"}
        assert found["crps"] == pytest.approx(found["mae"])

    def test_the_median_is_demanded(self) -> None:
        actual, forecast, series, _ = example()
        with pytest.raises(ValueError, match=r"expected 0\.5 among them"):
            sum_errors(actual, forecast[:, :, :2], (0.1, 0.9), series, 5)


class TestUndefined:
    def test_constant_and_short_histories_have_no_scale(self) -> None:
        """No change over a season, one row, no row, no pair observed: all undefined, without a warning."""
        values = np.array([2.0, 2, 2, 2, 5, 1, 9, 1, np.nan, 3])
        offsets = np.array([0, 4, 5, 7, 10])
        scales = seasonal_scales(values, offsets, np.array([4, 1, 0, 3]), 1)
        assert np.isnan(scales.absolute).all()
        assert np.isnan(scales.squared).all()

    def test_a_series_without_scale_is_left_out_of_averages(self) -> None:
        """Only the averages over series lose it: the pooled metrics count its points."""
        actual, forecast, series, scales = example()
        found = evaluated(actual, forecast, series, scales)
        rest = series != 4
        others = evaluated(actual[rest], forecast[rest], series[rest], scales)
        assert [found[name] for name in ("mase", "rmsse", "msis")] == pytest.approx(
            [others[name] for name in ("mase", "rmsse", "msis")]
        )
        assert found["mae"] != others["mae"]

    def test_nothing_scored(self) -> None:
        """No origin, or no actual value: every metric is NaN and nothing warns."""
        _, forecast, series, scales = example()
        for rows in (30, 0):
            found = evaluated(np.full((rows, 7), np.nan), forecast[:rows], series[:rows], scales)
            assert all(math.isnan(value) for value in found.values())

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_forecast_that_is_not_finite_is_not_passed_over(self, bad: float) -> None:
        """Where it is scored it spoils the averages; where the actual value is missing it does not."""
        actual, forecast, series, scales = example()
        first = np.argwhere(~np.isnan(actual) & (series < 4)[:, None])[0]
        forecast[first[0], first[1]] = bad
        found = evaluated(actual, forecast, series, scales)
        assert not np.isfinite([found[name] for name in ("mae", "rmse", "bias", "wql", "mase", "rmsse", "msis")]).any()
        actual[first[0], first[1]] = np.nan
        assert np.isfinite(list(evaluated(actual, forecast, series, scales).values())).all()

    def test_overflow_is_silent(self) -> None:
        """Values whose squares overflow give an infinite rmse and no scale, but no warning."""
        huge = np.array([1e200, -1e200, 3e200])
        assert np.isnan(seasonal_scales(huge, np.array([0, 3]), np.array([3]), 1).absolute).all()
        found = evaluated(huge[None], np.zeros((1, 3, 1)), np.array([0]), Scales(np.ones(1), np.ones(1)), (0.5,))
        assert found["rmse"] == np.inf
        assert found["mae"] == pytest.approx(5e200 / 3)


class TestAgainstUtilsforecast:
    """One series: there pooling over points and averaging over series are the same."""

    @pytest.fixture
    def compared(self) -> tuple[dict[str, float], pd.DataFrame, pd.DataFrame]:
        """Our metrics, and the frames of the same forecast and of the same history."""
        random = np.random.default_rng(1)
        history, actual = random.normal(10, 3, 40), random.normal(10, 3, 12)
        forecast = np.sort(random.normal(10, 3, (12, 5)), axis=1)
        scales = seasonal_scales(history, np.array([0, 40]), np.array([40]), 4)
        ours = evaluated(actual[None], forecast[None], np.array([0]), scales)
        frame = pd.DataFrame(
            {"unique_id": "a", "ds": range(40, 52), "y": actual, "model": forecast[:, 2]}
            | {f"q{k}": forecast[:, k] for k in range(5)}
            | {"model-lo-80": forecast[:, 1], "model-hi-80": forecast[:, 3]}
            | {"model-lo-90": forecast[:, 0], "model-hi-90": forecast[:, 4]}
        )
        return ours, frame, pd.DataFrame({"unique_id": "a", "ds": range(40), "y": history})

    def test_point_metrics(self, compared: Any) -> None:
        """utilsforecast's smape runs to 1, ours, as M4's, to 200."""
        ours, frame, _ = compared
        for name, factor in (("mae", 1), ("rmse", 1), ("smape", 200), ("bias", 1)):
            assert ours[name] == pytest.approx(factor * getattr(losses, name)(frame, ["model"])["model"].item()), name

    def test_scaled_metrics(self, compared: Any) -> None:
        ours, frame, history = compared
        for name in ("mase", "rmsse"):
            theirs = getattr(losses, name)(frame, ["model"], seasonality=4, train_df=history)["model"].item()
            assert ours[name] == pytest.approx(theirs), name

    def test_quantile_metrics(self, compared: Any) -> None:
        """crps and wql are their mean quantile loss doubled, and scaled by the mean |y|."""
        ours, frame, _ = compared
        theirs = [losses.quantile_loss(frame, {"m": f"q{k}"}, q=q)["m"].item() for k, q in enumerate(QUANTILES)]
        assert ours["crps"] == pytest.approx(2 * np.mean(theirs))
        every = {"m": [f"q{k}" for k in range(5)]}
        assert ours["crps"] == pytest.approx(2 * losses.mqloss(frame, every, np.array(QUANTILES))["m"].item())
        scaled = losses.scaled_crps(frame, {"m": [f"q{k}" for k in range(5)]}, np.array(QUANTILES))["m"].item()
        assert ours["wql"] == pytest.approx(scaled)

    def test_interval_score(self, compared: Any) -> None:
        """msis is Winkler's score of the widest interval over the scale of mase."""
        ours, frame, history = compared
        values = history["y"].to_numpy()
        scale = np.abs(values[4:] - values[:-4]).mean()
        winkler = losses.winkler_score(frame, ["model"], 90)["model"].item()
        assert ours["msis"] == pytest.approx(winkler / scale)
        outside = (frame["y"] < frame["q0"]) | (frame["y"] > frame["q4"])
        assert outside.any()

    def test_several_series(self) -> None:
        """Scaled metrics are the mean of theirs over series, of whatever size and history."""
        random = np.random.default_rng(2)
        histories = [random.normal(size=rows) * 10**index for index, rows in enumerate((30, 50, 20))]
        actual = np.stack([random.normal(size=8) * 10**index for index in range(3)])
        forecast = random.normal(size=(3, 8, 1))
        offsets = np.cumsum([0, 30, 50, 20])
        scales = seasonal_scales(np.concatenate(histories), offsets, np.diff(offsets), 7)
        ours = evaluated(actual, forecast, np.arange(3), scales, (0.5,))
        frame = pd.DataFrame(
            {"unique_id": np.repeat(range(3), 8), "ds": 50 + np.tile(range(8), 3), "y": actual.ravel()}
            | {"model": forecast.ravel()}
        )
        lengths = [values.size for values in histories]
        train = pd.DataFrame({"unique_id": np.repeat(range(3), lengths), "y": np.concatenate(histories)})
        train["ds"] = train.groupby("unique_id").cumcount()
        for name in ("mase", "rmsse"):
            theirs = getattr(losses, name)(frame, ["model"], seasonality=7, train_df=train)["model"]
            assert ours[name] == pytest.approx(theirs.mean()), name

    def test_coverage(self, compared: Any) -> None:
        ours, frame, _ = compared
        for level in (80, 90):
            theirs = losses.coverage(frame, ["model"], level)["model"].item()
            assert ours[f"coverage_{level}"] == pytest.approx(theirs)
            assert 0 < theirs < 1
