"""Conformal calibration: it covers what it promises, from held-out rows alone, and trusts little data little."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import make_panel, shaken_network, small_spec, wave
from scipy.optimize import brentq
from scipy.stats import norm

from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.evaluation.conformal import (
    MOST_ORIGINS,
    NARROWING_FORECASTS,
    PRIOR_FORECASTS,
    Residuals,
    adapted,
    calibrations,
    conformal_quantile,
    conformalised,
    dense_origins,
    held_out,
)
from stacklstm_cli.model.calibration import MOST_OFFSET, Calibration, sound
from stacklstm_cli.model.forecaster import Forecaster

CPU = torch.device("cpu")
LEVELS = (0.025, 0.05, 0.1, 0.5, 0.9, 0.95, 0.975)
NORMAL = norm.ppf(LEVELS)


def residuals_of(actual: Floats, forecasts: Floats = NORMAL, scale: Floats | None = None) -> Residuals:
    """Of one series of values [O, H], each forecast by the same quantiles, a horizon apart."""
    origins = len(actual)
    return Residuals(
        levels=LEVELS,
        forecasts=np.broadcast_to(forecasts, (*actual.shape, len(LEVELS))),
        scale=np.ones(origins) if scale is None else scale,
        actual=actual,
        cutoffs=np.arange(origins) * actual.shape[1],
        apart=origins,
    )


def share_inside(calibration: Calibration, actual: Floats, forecasts: Floats = NORMAL) -> list[float]:
    """Of values [O, H], within the 95, 90 and 80 % interval."""
    learned = torch.as_tensor(np.broadcast_to(forecasts, (*actual.shape, len(LEVELS))).copy())
    found = calibration.calibrated(learned, torch.ones(len(actual), 1, dtype=torch.float64)).numpy()
    return [float(((found[..., k] <= actual) & (actual <= found[..., -1 - k])).mean()) for k in range(3)]


class TestConformalQuantile:
    @pytest.mark.parametrize(("n", "level"), [(9, 0.9), (19, 0.8), (20, 0.9), (50, 0.95), (7, 0.5)])
    def test_exact_coverage_of_exchangeable_scores(self, n: int, level: float) -> None:
        """A new score stays within with probability ⌈(n + 1) level⌉ / (n + 1), whatever the distribution."""
        random = np.random.default_rng(n)
        runs = 20_000
        scores = random.standard_exponential((runs, n + 1)) ** 2
        held = [one[0] <= conformal_quantile(one[1:], level, n) for one in scores]
        exact = math.ceil((n + 1) * level - 1e-9) / (n + 1)
        assert level <= exact <= level + 1 / (n + 1)
        assert np.mean(held) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / runs))

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.floats(0.5, 0.999))
    def test_is_the_rank_of_a_sorted_list(self, scores: list[int], level: float) -> None:
        """Missing ones do not count; beyond the largest there is none."""
        n = len(scores)
        expected = sorted(scores)[min(math.ceil((n + 1) * level - 1e-9), n) - 1]
        assert conformal_quantile(np.array([np.nan, *scores, np.nan]), level, n) == expected
        assert conformal_quantile(np.array(scores, dtype=float), level, 1e9) == expected

    def test_fewer_independent_scores_reach_further_out(self) -> None:
        """1,000 scores that say as much as 10: the quantile of 0.8 · (1 + 1 / 10)."""
        scores = np.random.default_rng(0).permutation(1000.0 + np.arange(1000))
        assert conformal_quantile(scores, 0.8, 10) == 1879
        assert conformal_quantile(scores, 0.8, 3) == 1999
        assert conformal_quantile(scores, 0.8, 1000) == 1800

    def test_no_score(self) -> None:
        assert conformal_quantile(np.full(3, np.nan), 0.9, 3) == 0


class TestConformalised:
    @pytest.mark.parametrize("wrong", [0.5, 1.0, 2.0])
    def test_much_data_mends_wrong_intervals(self, wrong: float) -> None:
        """Intervals half or twice as wide as they should be hold their share of new values."""
        random = np.random.default_rng(1)
        calibration = conformalised(residuals_of(random.normal(size=(4000, 3)), wrong * NORMAL))
        assert calibration is not None
        assert sound(calibration, 3)
        inside = share_inside(calibration, random.normal(size=(4000, 3)), wrong * NORMAL)
        assert inside == pytest.approx([0.95, 0.9, 0.8], abs=0.02)

    def test_each_side_has_half_an_offset_of_its_own(self) -> None:
        """Of a skewed distribution, forecast as if it were normal: the mean of its own offset and of that of both."""
        random = np.random.default_rng(2)
        calibration = conformalised(residuals_of(random.exponential(size=(20_000, 1))))
        assert calibration is not None
        own = (-np.log(1 - np.asarray(LEVELS)) - NORMAL) * np.sign(NORMAL)

        def outside(offset: float, end: float) -> float:
            """Share of an exponential distribution outside the interval [-end, end] widened by the offset."""
            return math.exp(-(end + offset)) + max(0.0, 1 - math.exp(end + offset))

        both = [brentq(lambda offset, k=k: outside(offset, NORMAL[k]) - 2 * (1 - LEVELS[k]), -3, 5) for k in (4, 5, 6)]
        expected = (own[4:] + both) / 2
        np.testing.assert_allclose(calibration.offsets[0, 4:], expected, atol=0.12)
        lower = (own[2::-1] + both) / 2
        lower *= np.where(lower < 0, 20_000 / 20_100, 1)
        np.testing.assert_allclose(-calibration.offsets[0, 2::-1], lower, atol=0.12)

    def test_steps_that_differ_are_told_apart_where_there_is_enough(self) -> None:
        """Errors that grow along the horizon, forecast as if they did not."""
        random = np.random.default_rng(3)
        growth = np.linspace(1, 3, 24)
        many = conformalised(residuals_of(growth * random.normal(size=(3000, 24))))
        few = conformalised(residuals_of(growth * random.normal(size=(3, 24))))
        assert many is not None
        assert few is not None
        ideal = (growth - 1) * NORMAL[-2]
        np.testing.assert_allclose(many.offsets[2:-2, -2], ideal[2:-2], atol=0.25)
        assert np.ptp(few.offsets, axis=0).max() == 0

    def test_little_data_is_trusted_little(self) -> None:
        """One forecast, far off, moves the quantiles by 1 / (1 + PRIOR_FORECASTS) of what it would alone."""
        calibration = conformalised(residuals_of(np.full((1, 4), 10.0)))
        assert calibration is not None
        np.testing.assert_allclose(calibration.offsets[:, 4:], [(10 - NORMAL[4:]) / (1 + PRIOR_FORECASTS)] * 4)

    def test_narrowing_is_trusted_less_than_widening(self) -> None:
        """A forecast that was exact narrows by 1 / (1 + NARROWING_FORECASTS) of what it would alone."""
        calibration = conformalised(residuals_of(np.zeros((1, 4))))
        assert calibration is not None
        np.testing.assert_allclose(calibration.offsets[:, 4:], [-NORMAL[4:] / (1 + NARROWING_FORECASTS)] * 4)

    def test_quantiles_without_a_mirror(self) -> None:
        """One side alone, by its own scores."""
        random = np.random.default_rng(9)
        values = random.normal(size=(20_000, 1))
        some = replace(residuals_of(values), levels=(0.5, 0.9), forecasts=np.zeros((20_000, 1, 2)))
        calibration = conformalised(some)
        assert calibration is not None
        assert calibration.offsets[0] == pytest.approx([0, norm.ppf(0.9)], abs=0.03)

    def test_scores_are_in_units_of_the_window(self) -> None:
        """Series of any size count together: ten times the size and the scale is the same."""
        actual, size = np.random.default_rng(4).normal(size=(50, 2)), np.where(np.arange(50) % 2, 10.0, 1.0)
        forecasts = np.broadcast_to(NORMAL, (50, 2, 7))
        plain = conformalised(residuals_of(actual))
        scaled = conformalised(
            residuals_of(actual * size[:, None], forecasts * size[:, None, None], size),
        )
        assert plain is not None
        assert scaled is not None
        np.testing.assert_allclose(scaled.offsets, plain.offsets, rtol=1e-9, atol=1e-12)

    def test_missing_values_and_scales_do_not_count(self) -> None:
        actual = np.random.default_rng(5).normal(size=(40, 2))
        plain = conformalised(residuals_of(actual))
        holes = np.concatenate([actual, np.full((1, 2), np.nan), np.full((1, 2), 1e9)])
        scale = np.concatenate([np.ones(41), [np.nan]])
        found = conformalised(replace(residuals_of(holes, scale=scale), apart=40))
        assert plain is not None
        assert found is not None
        np.testing.assert_array_equal(found.offsets, plain.offsets)

    def test_a_jump_out_of_all_proportion_is_bounded(self) -> None:
        calibration = conformalised(residuals_of(np.full((500, 2), 1e12)))
        assert calibration is not None
        assert sound(calibration, 2)
        assert calibration.offsets.max() == MOST_OFFSET

    def test_nothing_held_out(self) -> None:
        assert conformalised(None, None) is None
        assert conformalised() is None


class TestHeldOut:
    def panel(self) -> Panel:
        return make_panel(wave(60), 3 * wave(50, 1), starts=[0, 7])

    def forecaster(self) -> Forecaster:
        return Forecaster(shaken_network(small_spec(), dtype=torch.float32), CPU)

    def test_rows_before_are_never_a_residual(self) -> None:
        """A change of what came in training rows alone, seen by no window, changes no calibration; one later does."""
        panel, train = self.panel(), np.array([30, 25])
        forecaster, validation, end = self.forecaster(), np.array([45, 38]), panel.lengths

        def offsets(values: Floats) -> tuple[bytes, bytes]:
            found = calibrations(forecaster, replace(panel, values=values), train, validation, end)
            assert found.judged is not None
            assert found.final is not None
            return found.judged.offsets.tobytes(), found.final.offsets.tobytes()

        plain = offsets(panel.values)
        context = forecaster.spec.context_length
        for index, begin in enumerate(panel.offsets[:-1].tolist()):
            values = panel.values.copy()
            values[begin : begin + train[index] - context] = 1e6
            assert offsets(values) == plain
            values = panel.values.copy()
            values[begin + validation[index] : begin + end[index]] += 50
            judged, final = offsets(values)
            assert judged == plain[0]
            assert final != plain[1]
            values = panel.values.copy()
            values[begin + validation[index] - 1] += 1000
            assert offsets(values)[0] != plain[0]

    def test_the_whole_horizon_lies_in_the_part(self) -> None:
        found = held_out(self.forecaster(), self.panel(), np.array([30, 25]), np.array([36, 31]))
        assert found is not None
        assert found.cutoffs.tolist() == [29, 30, 31, 31, 32, 33]
        np.testing.assert_array_equal(found.actual[1], self.panel().values[31:35])
        assert found.apart == 2

    def test_none_where_there_is_nothing_to_learn_from(self) -> None:
        """No room for a horizon, no observed value, or no quantiles."""
        panel, forecaster = self.panel(), self.forecaster()
        assert held_out(forecaster, panel, np.array([58, 48]), panel.lengths) is None
        values = panel.values.copy()
        values[40:55] = np.nan
        assert held_out(forecaster, replace(panel, values=values), np.array([41, 50]), np.array([54, 50])) is None
        point = Forecaster(shaken_network(small_spec(loss="mae", quantiles=(0.5,)), dtype=torch.float32), CPU)
        assert held_out(point, panel, np.array([30, 25]), panel.lengths) is None

    def test_origins_are_dense_and_bounded(self) -> None:
        """Every row of small data; of large data so many, from the first to the last of them."""
        few = dense_origins(np.array([30, 25]), np.array([36, 31]), 4)
        assert (few.series.tolist(), few.rows.tolist()) == ([0, 0, 0, 1, 1, 1], [30, 31, 32, 25, 26, 27])
        many = dense_origins(np.full(10, 1000), np.full(10, 3000), 4)
        assert len(many) == MOST_ORIGINS
        assert (many.series[[0, -1]].tolist(), many.rows[[0, -1]].tolist()) == ([0, 9], [1000, 2996])
        assert np.bincount(many.series).tolist() == pytest.approx([MOST_ORIGINS / 10] * 10, abs=1)
        assert len(dense_origins(np.array([1000]), np.array([300_000]), 10_000)) == 52


class TestAdapted:
    def test_levels_follow_a_shift(self) -> None:
        """Errors become twice as large: intervals that have adapted hold their share again, the others do not."""
        random = np.random.default_rng(6)
        before = conformalised(residuals_of(random.normal(size=(500, 6))))
        assert before is not None
        held = []
        after = before
        for cutoff in range(400):
            now = 2 * random.normal(size=(1, 6))
            if cutoff >= 50:
                held.append(share_inside(after, now))
            after = adapted(after, replace(residuals_of(now), cutoffs=np.array([cutoff])))
            assert sound(after, 6)
        assert share_inside(before, 2 * random.normal(size=(3000, 6)))[2] < 0.52
        np.testing.assert_allclose(np.mean(held, axis=0), [0.95, 0.9, 0.8], atol=0.02)

    def test_and_back(self) -> None:
        """Errors become smaller: intervals narrow."""
        random = np.random.default_rng(7)
        before = conformalised(residuals_of(random.normal(size=(500, 6))))
        assert before is not None
        after = adapted(before, residuals_of(0.5 * random.normal(size=(300, 6))))
        new = 0.5 * random.normal(size=(3000, 6))
        assert share_inside(before, new)[2] > 0.98
        assert share_inside(after, new)[2] == pytest.approx(0.8, abs=0.05)

    def test_one_step_by_hand(self) -> None:
        """One cutoff, four values, one of them above every quantile: level + rate · (share beyond - nominal share)."""
        start = Calibration(LEVELS, np.zeros((4, 7)), np.asarray(LEVELS))
        found = adapted(start, residuals_of(np.array([[0.0, 0, 0, 9]])), rate=0.04)
        upper = [0.9 + 0.04 * (0.25 - 0.1), 0.95 + 0.04 * (0.25 - 0.05), 0.975 + 0.04 * (0.25 - 0.025)]
        lower = [0.025 + 0.04 * 0.025, 0.05 + 0.04 * 0.05, 0.1 + 0.04 * 0.1]
        np.testing.assert_allclose(found.effective, [*lower, 0.5, *upper], rtol=1e-12)
        np.testing.assert_array_equal(found.offsets, start.offsets)

    def test_it_is_pure_and_repeatable(self) -> None:
        """Nothing given is changed; the order of the origins in memory does not matter, that of time does."""
        random = np.random.default_rng(8)
        start = Calibration(LEVELS, np.zeros((3, 7)), np.asarray(LEVELS))
        new = residuals_of(3 * random.normal(size=(20, 3)))
        first = adapted(start, new)
        assert start.effective.tolist() == list(LEVELS)
        turned = Residuals(
            LEVELS, new.forecasts[::-1], new.scale[::-1], new.actual[::-1], new.cutoffs[::-1].copy(), new.apart
        )
        np.testing.assert_array_equal(adapted(start, turned).effective, first.effective)
        assert (adapted(start, replace(new, cutoffs=new.cutoffs[::-1])).effective != first.effective).any()

    def test_nothing_that_came_moves_nothing(self) -> None:
        """Missing values and windows without a scale."""
        start = Calibration(LEVELS, np.zeros((3, 7)), np.asarray(LEVELS))
        assert adapted(start, residuals_of(np.full((5, 3), np.nan))) is start
        assert adapted(start, residuals_of(np.ones((5, 3)), scale=np.full(5, np.nan))) is start

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(0.001, 1))
    def test_always_sound(self, values: list[float], rate: float) -> None:
        """Whatever comes: levels in order, the median as it was."""
        start = Calibration(LEVELS, np.zeros((1, 7)), np.asarray(LEVELS))
        assert sound(adapted(start, residuals_of(np.asarray(values)[:, None]), rate), 1)
