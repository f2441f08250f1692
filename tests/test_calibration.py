"""Calibrated quantiles: moved as stored, never crossing, the median as it was, whatever is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import every_origin, make_panel, shaken_network, small_spec, wave
from scipy.stats import norm

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats
from stacklstm_cli.model.calibration import EFFECTIVE, MOST_OFFSET, Calibration, sound
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.heads import QuantileHead, Scaling

CPU = torch.device("cpu")
LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)


def calibration_of(
    offsets: Sequence[Sequence[float]], effective: Sequence[float] = LEVELS, levels: tuple[float, ...] = LEVELS
) -> Calibration:
    return Calibration(levels, np.asarray(offsets, dtype=np.float64), np.asarray(effective, dtype=np.float64))


def applied(calibration: Calibration, learned: Floats, scale: Floats, quantiles: Sequence[float]) -> Floats:
    """What comes out [B, H, Q'] for learned quantiles [B, H, Q] of a quantile head and scales [B]."""
    head, one = QuantileHead(calibration.levels, CPU), torch.ones(len(learned), 1, dtype=torch.float64)
    scaling = Scaling(0 * one, one)
    wanted = head.decode(torch.as_tensor(learned), scaling, quantiles)
    own = head.decode(torch.as_tensor(learned), scaling, calibration.levels)
    return calibration.apply(own, wanted, quantiles, torch.as_tensor(scale).unsqueeze(1)).numpy()


class TestApply:
    def test_by_hand(self) -> None:
        """Each row of the horizon has its own offsets, in units of the scale of its window."""
        calibration = calibration_of([[-1, 0.5, 0, 0.25, 2], [0, 0, 0, 0, 0]])
        learned = np.tile([1.0, 2, 3, 4, 5], (2, 2, 1))
        found = applied(calibration, learned, np.array([1.0, 2.0]), LEVELS)
        assert found[0].tolist() == [[0, 2.5, 3, 4.25, 7], [1, 2, 3, 4, 5]]
        assert found[1].tolist() == [[-1, 3, 3, 4.5, 9], [1, 2, 3, 4, 5]]

    def test_fewer_rows_than_the_horizon(self) -> None:
        """The first rows have the offsets of the first rows."""
        calibration = calibration_of([[-1, 0, 0, 0, 1], [-9, 0, 0, 0, 9]])
        found = applied(calibration, np.array([[[1.0, 2, 3, 4, 5]]]), np.array([1.0]), LEVELS)
        assert found.tolist() == [[[0, 2, 3, 4, 6]]]

    def test_a_quantile_moved_over_another_takes_it_along(self) -> None:
        """Upper ones push further ones up, lower ones down, and none is moved over the median."""
        calibration = calibration_of([[0, -3, 0, 5, -1]])
        found = applied(calibration, np.array([[[1.0, 2, 3, 4, 5]]]), np.array([1.0]), LEVELS)
        assert found.tolist() == [[[-1, -1, 3, 9, 9]]]
        calibration = calibration_of([[7, 7, 0, -7, -7]])
        found = applied(calibration, np.array([[[1.0, 2, 3, 4, 5]]]), np.array([1.0]), LEVELS)
        assert found.tolist() == [[[3, 3, 3, 3, 3]]]

    def test_levels_between_learned_ones_are_interpolated(self) -> None:
        """Linearly between the calibrated ones, as a quantile head does between its own."""
        calibration = calibration_of([[-1, -0.5, 0, 0.25, 2]])
        wanted = (0.05, 0.1, 0.2, 0.5, 0.66, 0.9, 0.95)
        found = applied(calibration, np.array([[[1.0, 2, 3, 4, 5]]]), np.array([1.0]), wanted)
        expected = np.interp(wanted, LEVELS, [0, 1.5, 3, 4.25, 7])
        np.testing.assert_allclose(found[0, 0], expected, rtol=1e-12)

    def test_equal_learned_quantiles_are_no_division_by_zero(self) -> None:
        calibration = calibration_of([[-1, -1, 0, 1, 1]])
        found = applied(calibration, np.full((1, 1, 5), 3.0), np.array([1.0]), (0.05, 0.3, 0.5, 0.7, 0.9))
        assert found.tolist() == [[[2, 2.5, 3, 3.5, 4]]]

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_never_crossing_and_the_median_stays(self, data: st.DataObject) -> None:
        """For any offsets, effective levels, scales and forecasts, at any levels."""
        number = st.floats(-1e3, 1e3)
        offset = st.floats(-MOST_OFFSET, MOST_OFFSET)
        offsets = np.asarray(data.draw(st.lists(st.lists(offset, min_size=5, max_size=5), min_size=3, max_size=3)))
        offsets[:, 2] = 0
        low, high = EFFECTIVE
        lower = sorted(data.draw(st.lists(st.floats(low, 0.5), min_size=2, max_size=2)))
        upper = sorted(data.draw(st.lists(st.floats(0.5, high), min_size=2, max_size=2)))
        effective = data.draw(st.sampled_from([list(LEVELS), [*lower, 0.5, *upper]]))
        calibration = calibration_of(offsets.tolist(), effective)
        assert sound(calibration, 3)
        rows = st.lists(number, min_size=5, max_size=5)
        learned = np.asarray(data.draw(st.lists(rows, min_size=6, max_size=6))).reshape(2, 3, 5)
        scale = np.asarray(data.draw(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=2)))
        wanted = sorted({0.5, *data.draw(st.lists(st.floats(LEVELS[0], LEVELS[-1]), max_size=6))})
        found = applied(calibration, learned, scale, wanted)
        assert np.isfinite(found).all()
        assert (np.diff(found, axis=-1) >= 0).all()
        np.testing.assert_array_equal(found[..., wanted.index(0.5)], np.sort(learned, -1)[..., 2])


class TestEffectiveLevels:
    def test_between_learned_levels(self) -> None:
        """A level that counts as another gives the quantile of that one."""
        learned = np.array([[[0.0, 1, 2, 3, 7]]])
        found = applied(calibration_of([[0] * 5], (0.0625, 0.2, 0.5, 0.7, 0.9)), learned, np.ones(1), LEVELS)
        np.testing.assert_allclose(found[0, 0], [0.5, 1.25, 2, 2.5, 3], rtol=1e-12)

    def test_beyond_the_outermost(self) -> None:
        """The distance to the median grows as that of a normal distribution."""
        learned = np.array([[[0.0, 1, 2, 3, 7]]])
        found = applied(calibration_of([[0] * 5], (0.01, 0.1, 0.5, 0.9, 0.99)), learned, np.ones(1), LEVELS)
        reach = norm.ppf(0.99) / norm.ppf(0.975)
        np.testing.assert_allclose(found[0, 0], [2 - 2 * reach, 1, 2, 3, 2 + 5 * reach], rtol=1e-12)

    def test_beyond_all_levels(self) -> None:
        """A level of 1 and more is the outermost that there is, a finite one."""
        learned = np.array([[[0.0, 1, 2, 3, 7]]])
        one, more = (
            applied(calibration_of([[0] * 5], (-over, 0.1, 0.5, 0.9, 1 + over)), learned, np.ones(1), LEVELS)
            for over in (0.0, 0.4)
        )
        reach = norm.ppf(1 - 1e-6) / norm.ppf(0.975)
        np.testing.assert_allclose(one[0, 0], [2 - 2 * reach, 1, 2, 3, 2 + 5 * reach], rtol=1e-8)
        np.testing.assert_array_equal(one, more)

    def test_the_quantiles_are_calibrated_first(self) -> None:
        learned = np.array([[[0.0, 1, 2, 3, 7]]])
        calibration = calibration_of([[0, 0, 0, 2, 0]], (0.025, 0.1, 0.5, 0.7, 0.975))
        found = applied(calibration, learned, np.ones(1), LEVELS)
        assert found[0, 0].tolist() == pytest.approx([0, 1, 2, 3.5, 7])


class TestForecaster:
    @pytest.mark.parametrize("loss", ["quantile", "student-t", "negative-binomial"])
    def test_every_loss_with_quantiles(self, loss: str) -> None:
        """The median stays, intervals move, nothing crosses, at learned levels and between and beyond them."""
        spec = small_spec(loss=loss)
        network = shaken_network(spec, dtype=torch.float32)
        calibration = calibration_of([[-0.5, 0, 0.75]] * 4, (0.1, 0.5, 0.9), spec.quantiles)
        panel = make_panel(np.round(wave(40)), 3 * np.round(wave(30, 1)))
        wanted = (0.1, 0.3, 0.5, 0.8, 0.9) if loss == "quantile" else (0.01, 0.1, 0.3, 0.5, 0.8, 0.9, 0.99)
        origins = Origins(np.array([0, 0, 1]), np.array([20, 40, 30]))
        raw = Forecaster(network, CPU).forecast(panel, origins, 4, wanted)
        found = Forecaster(network, CPU, calibration).forecast(panel, origins, 4, wanted)
        middle, high = wanted.index(0.5), wanted.index(0.9)
        np.testing.assert_array_equal(found[..., middle], raw[..., middle])
        assert (np.diff(found, axis=-1) >= 0).all()
        assert (found[..., high] > raw[..., high]).all()
        if loss == "negative-binomial":
            assert (found >= 0).all()
            assert (found == np.round(found)).all()

    def test_a_level_beyond_the_learned_ones_moves_with_the_outermost(self) -> None:
        network = shaken_network(small_spec(loss="student-t"), dtype=torch.float32)
        calibration = calibration_of([[-0.5, 0, 0.75]] * 4, (0.1, 0.5, 0.9), (0.1, 0.5, 0.9))
        panel, origins = make_panel(wave(40)), Origins(np.array([0]), np.array([40]))
        raw = Forecaster(network, CPU).forecast(panel, origins, 4, (0.01, 0.1, 0.9, 0.99))
        found = Forecaster(network, CPU, calibration).forecast(panel, origins, 4, (0.01, 0.1, 0.9, 0.99))
        np.testing.assert_allclose(np.diff(found)[..., [0, 2]], np.diff(raw)[..., [0, 2]], rtol=1e-9)

    def test_bounds_hold_for_intervals(self) -> None:
        """--min and --max cut what the calibration has moved."""
        spec = small_spec(minimum=45.0, maximum=55.0)
        network = shaken_network(spec, dtype=torch.float32)
        calibration = calibration_of([[-50, 0, 50]] * 4, (0.1, 0.5, 0.9), spec.quantiles)
        panel = make_panel(50 + 0.3 * (wave(40) - 50))
        found = Forecaster(network, CPU, calibration).forecast(panel, every_origin(panel), 4, (0.1, 0.5, 0.9))
        assert (found[5:, :, 0] == 45).all()
        assert (found[5:, :, 2] == 55).all()

    def test_offsets_of_a_transformed_model_are_in_its_logarithms(self) -> None:
        network = shaken_network(small_spec(transform="log1p"), dtype=torch.float32)
        calibration = calibration_of([[-0.5, 0, 0.75]] * 4, (0.1, 0.5, 0.9), (0.1, 0.5, 0.9))
        panel, origins = make_panel(wave(40)), Origins(np.array([0]), np.array([40]))
        learned, scale = Forecaster(network, CPU).learned(panel, origins)
        assert scale[0] == pytest.approx(np.log1p(panel.values[-6:]).std())
        found = Forecaster(network, CPU, calibration).forecast(panel, origins, 4, (0.1, 0.5, 0.9))
        np.testing.assert_allclose(np.log1p(found), learned + np.array([-0.5, 0, 0.75]) * scale[0], rtol=1e-9)

    def test_a_single_value_is_still_repeated(self) -> None:
        calibration = calibration_of([[-0.5, 0, 0.75]] * 4, (0.1, 0.5, 0.9), (0.1, 0.5, 0.9))
        forecaster = Forecaster(shaken_network(small_spec(), dtype=torch.float32), CPU, calibration)
        panel, origins = make_panel([7.0]), Origins(np.array([0]), np.array([1]))
        assert (forecaster.forecast(panel, origins, 4, (0.1, 0.5, 0.9)) == 7).all()
        assert np.isnan(forecaster.learned(panel, origins)[1]).all()

    def test_learned_quantiles_are_those_of_an_uncalibrated_forecast(self) -> None:
        network, panel = shaken_network(small_spec(), dtype=torch.float32), make_panel(wave(40), wave(9, 2))
        origins = every_origin(panel)
        raw = Forecaster(network, CPU).forecast(panel, origins, 4, (0.1, 0.5, 0.9))
        calibration = calibration_of([[-0.5, 0, 0.75]] * 4, (0.1, 0.5, 0.9), (0.1, 0.5, 0.9))
        found, scale = Forecaster(network, CPU, calibration).learned(panel, origins)
        known = ~np.isnan(scale)
        assert known.sum() == len(origins) - 2  # the first row of each series has no scale
        np.testing.assert_array_equal(found[known], raw[known])
