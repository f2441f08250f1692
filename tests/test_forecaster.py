"""Forecasts in the user's units: nothing from the future, everything from the present."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import cut as cut_panel
from panels import every_origin, make_panel, shaken_network, small_spec, wave

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.errors import ExitStatus, UsageError
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.heads import interpolation
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training.lessons import Lessons, lesson_origins, series_weights
from stacklstm_cli.training.loop import Schedule, fit
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.start import Ridge, start_with

CPU = torch.device("cpu")
LEARNED = (0.1, 0.5, 0.9)
SPEC = small_spec(context_length=24, patch_length=4, hidden_size=8, location_length=8, scale_length=24)


def forecaster_of(spec: NetworkSpec = SPEC, seed: int = 0) -> Forecaster:
    return Forecaster(shaken_network(spec, seed, torch.float32), CPU)


def gappy_panel() -> Panel:
    """Three series of unequal size, one with gaps, one shorter than the context."""
    middle = wave(60, seed=1) * 1e4
    middle[[3, 20, 21, 22, 40]] = np.nan
    return make_panel(wave(80), middle, wave(15, seed=2) / 1e3)


def walk(rows: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=rows).cumsum() + 30


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    """A network after a short fit on three random walks."""
    panel = make_panel(*(walk(rows, seed) for seed, rows in enumerate((120, 100, 90))))
    first, last = np.full(3, SPEC.context_length), panel.lengths
    lessons = Lessons(
        Windows(panel, SPEC, CPU), lesson_origins(panel, first, last, SPEC), series_weights(panel, last, 1)
    )
    torch.manual_seed(0)
    network = StackedRNN(SPEC)
    start_with(lessons, Ridge(1.0), 1).apply_to(network)
    schedule = Schedule(32, 1e-2, 0.01, 1.0, 30, 10, 3, 5, 0.9, 0.1, 1000)
    found = fit(network, lessons, None, schedule, seed=0, clock=Clock(), phase="")
    network.load_state_dict(found.weights)
    return Forecaster(network, CPU)


class TestNewest:
    def test_the_newest_value_moves_every_step_and_quantile(self, fitted: Forecaster) -> None:
        """Also where rows are missing before it, and where the series is shorter than the context."""
        gap = walk(50, seed=4)
        gap[-3:-1] = np.nan
        for series in (walk(50, seed=3), gap, walk(7, seed=5)):
            origins = Origins(np.array([0]), np.array([series.size]))
            self.check(fitted, series, series.size - 1, origins)

    def test_the_newest_value_of_a_cutoff_inside_a_gap(self, fitted: Forecaster) -> None:
        """The value before the gap is the newest one."""
        series = walk(50, seed=3)
        series[45:48] = np.nan
        for rows in (45, 46, 48):
            self.check(fitted, series, 44, Origins(np.array([0]), np.array([rows])))

    def check(self, fitted: Forecaster, series: Floats, row: int, origins: Origins) -> None:
        """A walk goes on from where it is: each number moves by a good part of the change, and with it."""
        moved = series.copy()
        moved[row] += 2.0
        before, after = (fitted.forecast(make_panel(one), origins, 4, LEARNED) for one in (series, moved))
        assert (after - before > 0.1).all()


class TestLeakage:
    @pytest.mark.parametrize("seed", range(3))
    def test_nothing_at_or_after_a_cutoff_changes_its_forecast(self, seed: int) -> None:
        """Each series gets other values from its own cutoff on, some missing: not a bit of a forecast changes."""
        panel, forecaster = gappy_panel(), forecaster_of(seed=seed)
        origins = every_origin(panel)
        before = forecaster.forecast(panel, origins, 4, LEARNED)
        generator = np.random.default_rng(seed)
        for cut in ([1, 1, 1], [30, 25, 10], [80, 21, 3]):
            pieces = []
            for index, rows in enumerate(cut):
                piece = panel.series(index).copy()
                piece[rows:] = generator.normal(size=piece.size - rows) * 1e7
                piece[rows::3] = np.nan
                pieces.append(piece)
            after = forecaster.forecast(make_panel(*pieces), origins, 4, LEARNED)
            earlier = origins.rows <= np.array(cut)[origins.series]
            assert after[earlier].tobytes() == before[earlier].tobytes()
            assert (after[~earlier] != before[~earlier]).any()

    def test_a_backtest_is_forecasting_day_by_day(self) -> None:
        """All origins in one call equal one forecast each on a panel that ends at the cutoff."""
        panel, forecaster = gappy_panel(), forecaster_of()
        origins = every_origin(panel)
        together = forecaster.forecast(panel, origins, 4, LEARNED)
        for place in range(0, len(origins), 3):
            index, rows = int(origins.series[place]), int(origins.rows[place])
            lengths = np.zeros(3, dtype=np.int64)
            lengths[index] = rows
            cut = cut_panel(panel, lengths)
            if cut.lengths[0] != rows:  # the cutoff is a missing row, which `head` drops
                continue
            alone = forecaster.forecast(cut, Origins(np.array([0]), cut.lengths), 4, LEARNED)
            np.testing.assert_allclose(together[place], alone[0], rtol=1e-5)

    def test_neither_the_order_nor_the_size_of_batches_matters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        panel, forecaster = gappy_panel(), forecaster_of()
        origins = every_origin(panel)
        expected = forecaster.forecast(panel, origins, 4, LEARNED)
        unit = np.array([50, 5e5, 0.05])[origins.series, None, None]  # of each series: a forecast may lie near zero

        def same(found: Floats) -> None:
            np.testing.assert_allclose(found / unit, expected / unit, rtol=0, atol=1e-5)

        order = np.random.default_rng(0).permutation(len(origins))
        shuffled = forecaster.forecast(panel, Origins(origins.series[order], origins.rows[order]), 4, LEARNED)
        same(shuffled[np.argsort(order)])
        backwards = make_panel(*[panel.series(index) for index in (2, 1, 0)])
        turned = forecaster.forecast(backwards, Origins(2 - origins.series, origins.rows), 4, LEARNED)
        same(turned)
        monkeypatch.setattr("stacklstm_cli.model.forecaster.BATCH_NUMBERS", 7 * 4 * 24)
        assert forecaster.batch_size < 10
        same(forecaster.forecast(panel, origins, 4, LEARNED))

    def test_the_same_call_gives_the_same_bytes(self) -> None:
        """Dropout and other chance have no part in a forecast."""
        panel, forecaster = gappy_panel(), forecaster_of(small_spec(dropout=0.5))
        first, second = (forecaster.forecast(panel, every_origin(panel), 4, LEARNED) for _ in range(2))
        assert first.tobytes() == second.tobytes()


class TestUnits:
    def test_by_hand(self) -> None:
        """location + scale * (line + bias): a network that says -1, 0 and 1, on 2, 4, 6, 8."""
        spec = small_spec(context_length=4, location_length=2, scale_length=4, horizon=1)
        network = StackedRNN(spec)
        with torch.no_grad():
            network.bias.copy_(torch.tensor([[-1.0, 0.0, 1.0]]))
        found = Forecaster(network, CPU).forecast(
            make_panel([2, 4, 6, 8]), Origins(np.array([0]), np.array([4])), 1, LEARNED
        )
        np.testing.assert_allclose(found, [[[7 - 5**0.5, 7, 7 + 5**0.5]]], rtol=1e-7)

    @pytest.mark.parametrize("level", [0.0, 1e9])
    def test_other_units_give_the_same_forecast_in_them(self, level: float) -> None:
        """Celsius or Fahrenheit: with a mean and a deviation taken out, only the units differ."""
        series, forecaster = wave(60), forecaster_of()
        origins = Origins(np.zeros(5, dtype=np.int64), np.arange(40, 45))
        one = forecaster.forecast(make_panel(series), origins, 4, LEARNED)
        other = forecaster.forecast(make_panel(1e5 * series + level), origins, 4, LEARNED)
        np.testing.assert_allclose((other - level) / 1e5, one, rtol=1e-4)

    @pytest.mark.parametrize("value", [0.0, 7.25, -1e9])
    def test_a_constant_stays_constant(self, value: float) -> None:
        """A network without a bias forecasts the constant itself."""
        forecaster = forecaster_of()
        with torch.no_grad():
            for tensor in (forecaster.network.bias, forecaster.network.head.weight, forecaster.network.head.bias):
                tensor.zero_()
        found = forecaster.forecast(make_panel([value] * 30), Origins(np.array([0]), np.array([30])), 4, LEARNED)
        assert (found == value).all()

    def test_a_single_value_is_repeated(self) -> None:
        """One value has no scale: whatever the network says, for every step and quantile, and it alone."""
        panel, forecaster = make_panel([7.25], [3.0, 4.0], [-1e9]), forecaster_of()
        origins = Origins(np.array([2, 1, 0, 1]), np.array([1, 1, 1, 2]))
        found = forecaster.forecast(panel, origins, 3, LEARNED)
        assert [np.unique(one).tolist() for one in found[:3]] == [[-1e9], [3.0], [7.25]]
        assert np.unique(found[3]).size > 1

    def test_a_gap_longer_than_the_context_is_bridged_from_the_last_value(self) -> None:
        """A network that says nothing forecasts what was there before the gap."""
        panel = make_panel([4.0], [1000.0, *[np.nan] * 40, 5.0])
        origins = Origins(np.array([1, 1]), np.array([30, 41]))
        assert (Forecaster(StackedRNN(SPEC), CPU).forecast(panel, origins, 4, LEARNED) == 1000).all()
        assert np.isfinite(forecaster_of().forecast(panel, origins, 4, LEARNED)).all()


class TestQuantiles:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10_000), st.lists(st.floats(0.1, 0.9), min_size=1, max_size=6))
    def test_never_cross(self, seed: int, wanted: list[float]) -> None:
        """Whatever the network says: a random one says them in random order."""
        wanted = sorted({round(quantile, 3) for quantile in wanted} | {*LEARNED})
        panel = gappy_panel()
        origins = Origins(np.arange(3), panel.lengths)
        found = forecaster_of(seed=seed).forecast(panel, origins, 4, wanted)
        assert (np.diff(found, axis=2) >= 0).all()

    @pytest.mark.parametrize("value", [0.1, 5.1, 1e9 / 3])
    def test_never_cross_where_there_is_no_spread(self, value: float) -> None:
        """All learned quantiles agree; those between them must not differ by a rounding error."""
        network = StackedRNN(small_spec())
        wanted = [round(0.1 + step / 100, 2) for step in range(81)]
        origins = Origins(np.array([0]), np.array([9]))
        found = Forecaster(network, CPU).forecast(make_panel([value] * 9), origins, 4, wanted)
        assert (np.diff(found, axis=2) >= 0).all()

    def test_between_learned_ones_lies_the_straight_line(self) -> None:
        """0.3 is half way from 0.1 to 0.5, 0.6 a quarter of the way from 0.5 to 0.9; in any order asked."""
        panel, forecaster = gappy_panel(), forecaster_of()
        origins = Origins(np.arange(3), panel.lengths)
        low, middle, high = np.moveaxis(forecaster.forecast(panel, origins, 4, LEARNED), 2, 0)
        found = forecaster.forecast(panel, origins, 4, [0.6, 0.9, 0.3, 0.5, 0.1])
        expected = [middle + (high - middle) / 4, high, (low + middle) / 2, middle, low]
        np.testing.assert_allclose(found, np.stack(expected, axis=2), rtol=1e-12)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.integers(1, 999), min_size=1, max_size=6, unique=True).map(sorted),
        st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6),
        st.data(),
    )
    def test_interpolation_equals_numpy(self, mille: list[int], values: list[float], data: st.DataObject) -> None:
        learned = [m / 1000 for m in mille]
        wanted = data.draw(st.lists(st.floats(learned[0], learned[-1]), min_size=1, max_size=4))
        known: Floats = np.array(values[: len(learned)])
        below, above, share = interpolation(learned, wanted)
        found = known[below] + share * (known[above] - known[below])
        np.testing.assert_allclose(found, np.interp(wanted, learned, known), rtol=1e-9, atol=1e-9)


class TestHorizon:
    def test_a_shorter_one_is_the_beginning(self) -> None:
        panel, forecaster = gappy_panel(), forecaster_of()
        origins = Origins(np.arange(3), panel.lengths)
        whole = forecaster.forecast(panel, origins, 4, LEARNED)
        for horizon in (1, 3):
            found = forecaster.forecast(panel, origins, horizon, LEARNED)
            assert found.tobytes() == whole[:, :horizon].tobytes()

    def test_a_longer_one_is_refused(self) -> None:
        panel = make_panel(wave(30))
        with pytest.raises(UsageError, match=r"--horizon is 5.*\b4 rows") as caught:
            forecaster_of().forecast(panel, Origins(np.array([0]), panel.lengths), 5, LEARNED)
        assert caught.value.exit_status == ExitStatus.USAGE
        assert "--horizon 5" in caught.value.hint

    @pytest.mark.parametrize("quantile", [0.05, 0.95])
    def test_a_quantile_further_out_is_refused(self, quantile: float) -> None:
        panel = make_panel(wave(30))
        with pytest.raises(UsageError, match=f"Quantile {quantile}.*0.1 to 0.9") as caught:
            forecaster_of().forecast(panel, Origins(np.array([0]), panel.lengths), 4, [0.5, quantile])
        assert "--quantiles" in caught.value.hint

    def test_no_origins_no_forecasts(self) -> None:
        nothing = np.empty(0, dtype=np.int64)
        assert forecaster_of().forecast(make_panel(wave(30)), Origins(nothing, nothing), 3, [0.5]).shape == (0, 3, 1)
