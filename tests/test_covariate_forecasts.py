"""Forecasts that see more than their own series: what may reach them, what does, and that it pays."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import (
    EVERY_INPUT,
    architectures,
    every_covariate,
    every_origin,
    last_row_shown,
    make_panel,
    named,
    random_covariates,
    shaken_network,
    small_spec,
    wave,
    with_covariates,
)

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Covariate, Floats, Panel
from stacklstm_cli.errors import DataError, ExitStatus
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import load, save
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.inputs import number_statistics
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.training.defaults import resolve
from stacklstm_cli.training.fitting import Outcome, Trainer
from stacklstm_cli.training.runtime import Clock

CPU = torch.device("cpu")
QUANTILES = (0.1, 0.5, 0.9)
CONTEXT, HORIZON, AHEAD = 8, 4, 9
SIZES: dict[str, Any] = {
    "context_length": CONTEXT,
    "horizon": HORIZON,
    "hidden_size": 6,
    "location_length": 4,
    "scale_length": 8,
}
SPEC, PLAIN = small_spec(**SIZES, inputs=EVERY_INPUT), small_spec(**SIZES)
GAPS = ("mask", "ffill", "interpolate")


def forecaster_of(spec: NetworkSpec = SPEC, seed: int = 0) -> Forecaster:
    network = shaken_network(spec, seed, torch.float32)
    if network.decoder is not None:
        network.set_statistics(np.full(6, 3.0), np.full(6, 2.0))
        with torch.no_grad():  # no unit may be asleep: whatever changes must show
            network.decoder.state.bias.add_(4)
            network.decoder.hidden.bias.add_(4)
    return Forecaster(network, CPU)


def gappy_panel() -> Panel:
    """Three series with gaps, one of them longer than the context, and covariates of every kind with future rows."""
    one, other = wave(40), wave(36, 1) * 100
    one[[3, 4, 11, 20, 21, 22]] = np.nan
    other[8:20] = np.nan
    return every_covariate(make_panel(one, other, wave(9, 2), starts=[0, 5, 30]), ahead=AHEAD)


def forecast(forecaster: Forecaster, panel: Panel, origins: Origins) -> Floats:
    return forecaster.forecast(panel, origins, HORIZON, QUANTILES)


class TestLeakage:
    @pytest.mark.parametrize("gaps", GAPS)
    @pytest.mark.parametrize("cut", [(1, 1, 1), (13, 7, 5), (22, 21, 8), (39, 35, 3)])
    def test_no_target_and_no_past_covariate_behind_a_cutoff_is_seen(self, gaps: str, cut: tuple[int, ...]) -> None:
        """Not by one bit, also where the cutoff lies in a gap; and the earlier rows are seen."""
        self.check(forecaster_of(replace(SPEC, gaps=gaps)), cut)

    @pytest.mark.parametrize("architecture", architectures(), ids=named)
    def test_in_no_architecture(self, architecture: dict[str, Any]) -> None:
        """Not where every layer reads the context from its newest row to its oldest either."""
        self.check(forecaster_of(small_spec(**SIZES | architecture, inputs=EVERY_INPUT)), (22, 21, 8))

    def check(self, forecaster: Forecaster, cut: tuple[int, ...]) -> None:
        """Other values and past covariates from these rows on: the same forecasts before them, others after."""
        panel = gappy_panel()
        origins, generator = every_origin(panel), np.random.default_rng(4)
        before = forecast(forecaster, panel, origins)
        assert np.isfinite(before).all()
        values, timed = panel.values.copy(), panel.timed.copy()
        for index, rows in enumerate(cut):
            begin, end = int(panel.offsets[index]) + rows, int(panel.offsets[index + 1])
            values[begin:end] = generator.normal(size=end - begin) * 1e7
            values[begin : end - 1 : 3] = np.nan
            first, count = int(panel.timed_at[index]) + rows, int(panel.timed_rows[index]) - rows
            timed[first : first + count, :2] = random_covariates(EVERY_INPUT.of("past"), count, 77)
        after = forecast(forecaster, replace(panel, values=values, timed=timed), origins)
        earlier = origins.rows <= np.array(cut)[origins.series]
        assert after[earlier].tobytes() == before[earlier].tobytes()
        moved = (after != before).any((1, 2))
        for index, rows in enumerate(cut):  # the very next cutoff sees the new values
            assert moved[(origins.series == index) & (origins.rows > rows)].all()

    def test_a_past_covariate_alone_is_seen_up_to_the_cutoff(self) -> None:
        """The row of the cutoff moves every step; the rows before the context none."""
        panel, forecaster = gappy_panel(), forecaster_of()
        origins = every_origin(panel)
        before = forecast(forecaster, panel, origins)
        for row in (6, 25, 39):
            timed = panel.timed.copy()
            timed[row, 0] = 9.0 if np.isnan(timed[row, 0]) else np.nan
            moved = (forecast(forecaster, replace(panel, timed=timed), origins) != before).any(2)  # [O, H]
            seen = (origins.series == 0) & (origins.rows > row) & (origins.rows <= row + CONTEXT)
            assert moved[seen].all()
            assert not moved[~seen].any()

    @pytest.mark.parametrize("gaps", GAPS)
    @pytest.mark.parametrize("column", [2, 3])
    def test_a_known_covariate_moves_its_own_step(self, column: int, gaps: str) -> None:
        """Inside the horizon its own step alone; beyond it nothing; in the context every step."""
        panel, forecaster = gappy_panel(), forecaster_of(replace(SPEC, gaps=gaps))
        origins = every_origin(panel)
        before = forecast(forecaster, panel, origins)
        for row in (5, 30, 41, 48):
            timed = panel.timed.copy()
            timed[row, column] = 1.0 if timed[row, column] != 1 else 0.0
            moved = (forecast(forecaster, replace(panel, timed=timed), origins) != before).any(2)  # [O, H]
            for place, (index, rows) in enumerate(zip(origins.series, origins.rows, strict=True)):
                inside = rows - CONTEXT <= row < rows
                expected = [index == 0 and (inside or row == rows + step) for step in range(HORIZON)]
                assert moved[place].tolist() == expected, (row, rows)

    def test_a_known_covariate_of_a_row_without_one_is_missing(self) -> None:
        """Beyond the future rows of the file: as if its cell were empty."""
        panel, forecaster = gappy_panel(), forecaster_of()
        origins = Origins(np.arange(3), panel.lengths)
        short = replace(panel, timed_rows=panel.lengths + 2)
        timed = panel.timed.copy()
        for index, length in enumerate(panel.lengths.tolist()):
            begin = int(panel.timed_at[index])
            timed[begin + length + 2 : begin + int(panel.timed_rows[index])] = np.nan
        empty = replace(panel, timed=timed)
        found = forecast(forecaster, short, origins)
        assert found.tobytes() == forecast(forecaster, empty, origins).tobytes()
        full = forecast(forecaster, panel, origins)
        assert found[:, :2].tobytes() == full[:, :2].tobytes()
        assert (found[:, 2:] != full[:, 2:]).any()

    def test_a_static_covariate_moves_its_own_series(self) -> None:
        panel, forecaster = gappy_panel(), forecaster_of()
        origins = every_origin(panel)
        before = forecast(forecaster, panel, origins)
        for column in (0, 1):
            static = panel.static.copy()
            static[1, column] = 1 - static[1, column]
            moved = (forecast(forecaster, replace(panel, static=static), origins) != before).any(2)
            for place, (index, rows) in enumerate(zip(origins.series.tolist(), origins.rows.tolist(), strict=True)):
                values = panel.series(index).tolist()
                last = last_row_shown(values, rows, SPEC)
                shown = np.asarray(values[max(last - CONTEXT, 0) : last])
                single = np.isfinite(shown).sum() < 2  # and is repeated
                assert moved[place].tolist() == [index == 1 and not single] * HORIZON, (index, rows)

    @pytest.mark.parametrize("gaps", GAPS)
    def test_a_backtest_is_forecasting_day_by_day(self, gaps: str) -> None:
        """All origins in one call equal one forecast each from a file that ends at the cutoff."""
        panel, forecaster = gappy_panel(), forecaster_of(replace(SPEC, gaps=gaps))
        origins = every_origin(panel)
        together = forecast(forecaster, panel, origins)
        for place, (index, rows) in enumerate(zip(origins.series.tolist(), origins.rows.tolist(), strict=True)):
            values = panel.series(index)[:rows]
            if np.isnan(values[-1]):  # a file that ends there has a shorter series
                continue
            begin, count = int(panel.timed_at[index]), int(panel.timed_rows[index])
            block = panel.timed[begin : begin + count].copy()
            block[rows:, :2] = np.nan
            alone = make_panel(values, starts=[int(panel.starts[index])])
            alone = with_covariates(alone, panel.covariates, [block], panel.static[index : index + 1])
            found = forecast(forecaster, alone, Origins(np.array([0]), np.array([rows])))
            np.testing.assert_allclose(found[0], together[place], rtol=1e-4, atol=1e-5)


class TestCategories:
    def test_their_numbers_in_the_file_do_not_matter(self) -> None:
        """A file that has other categories too, in which the same texts have other numbers: the same forecasts."""
        panel, forecaster = gappy_panel(), forecaster_of()
        mine = tuple(
            one
            if one.categories is None
            else replace(one, categories=("!", *one.categories[:1], "aa", *one.categories[1:]))
            for one in panel.covariates
        )
        timed, static = panel.timed.copy(), panel.static.copy()
        for at, one in enumerate(panel.covariates):
            if one.categories is not None:
                cells = timed[:, at] if at < 4 else static[:, at - 4]
                cells[:] = np.where(cells == 0, 1, cells + 2)  # NaN stays NaN
        other = replace(panel, covariates=mine, timed=timed, static=static)
        origins = every_origin(panel)
        assert forecast(forecaster, other, origins).tobytes() == forecast(forecaster, panel, origins).tobytes()

    def test_an_unknown_one_is_a_missing_one(self) -> None:
        panel, forecaster = gappy_panel(), forecaster_of()
        origins = every_origin(panel)
        timed = panel.timed.copy()
        timed[10:40, [1, 3]] = np.nan
        mine = tuple(
            one if one.categories is None else replace(one, categories=(*one.categories, "zz"))
            for one in panel.covariates
        )
        unknown = timed.copy()
        unknown[10:40, 1], unknown[10:40, 3] = 2, 3
        missing = forecast(forecaster, replace(panel, timed=timed), origins)
        found = forecast(forecaster, replace(panel, timed=unknown, covariates=mine), origins)
        assert found.tobytes() == missing.tobytes()
        assert found.tobytes() != forecast(forecaster, panel, origins).tobytes()


class TestTransform:
    def test_log1p_is_the_forecast_of_the_logarithms(self) -> None:
        """Of every quantile, also between learned ones, which lie on a line of logarithms."""
        panel = replace(gappy_panel(), values=np.exp(gappy_panel().values / 2000))
        origins = every_origin(panel)
        logarithms = replace(panel, values=np.log1p(panel.values))
        wanted = (0.1, 0.3, 0.5, 0.9)
        found = forecaster_of(replace(SPEC, transform="log1p")).forecast(panel, origins, HORIZON, wanted)
        plain = forecaster_of().forecast(logarithms, origins, HORIZON, wanted)
        np.testing.assert_allclose(found, np.expm1(plain), rtol=1e-12)
        assert (found > -1).all()
        assert (np.diff(found, axis=2) >= 0).all()

    def test_symlog_has_negative_values(self) -> None:
        """sign(y) log(1 + |y|), there and back; of values that are not negative it is log1p."""
        panel = replace(gappy_panel(), values=np.sinh(gappy_panel().values / 2000 - 0.5))
        origins = every_origin(panel)
        logarithms = replace(panel, values=np.sign(panel.values) * np.log1p(np.abs(panel.values)))
        found = forecast(forecaster_of(replace(SPEC, transform="symlog")), panel, origins)
        plain = forecast(forecaster_of(), logarithms, origins)
        np.testing.assert_allclose(found, np.sign(plain) * np.expm1(np.abs(plain)), rtol=1e-12)
        assert (found < 0).any()
        assert (found > 0).any()

    def test_numbers_stay_numbers(self) -> None:
        """A network gone wild forecasts the largest number that a file may hold, not infinity."""
        forecaster = forecaster_of(replace(PLAIN, transform="log1p"))
        with torch.no_grad():
            forecaster.network.bias.fill_(1e6)
        panel = make_panel(wave(20))
        found = forecast(forecaster, panel, Origins(np.array([0]), np.array([20])))
        assert np.isfinite(found).all()
        assert (found > 1e99).all()

    @pytest.mark.parametrize(("low", "high"), [(45.0, 55.0), (45.0, None), (None, 55.0), (0.0, None)])
    @pytest.mark.parametrize("transform", ["none", "log1p"])
    def test_bounds_hold_for_every_quantile(self, low: float | None, high: float | None, transform: str) -> None:
        """In user units; what lies between them is left alone."""
        panel = make_panel(wave(40), wave(30, 1))
        origins = every_origin(panel)
        free = forecast(forecaster_of(replace(PLAIN, transform=transform)), panel, origins)
        bound = replace(PLAIN, transform=transform, minimum=low, maximum=high)
        found = forecast(forecaster_of(bound), panel, origins)
        expected = free.copy()
        if low is not None:
            expected[expected < low] = low
        if high is not None:
            expected[expected > high] = high
        assert found.tobytes() == expected.tobytes()
        assert (low in found) == (low is not None and bool((free < low).any()))
        assert low in (None, 0.0) or (found == low).any()
        assert high is None or (found == high).any()

    def test_bounds_hold_for_a_series_of_one_value(self) -> None:
        """Which is repeated as it is, within the bounds."""
        panel, spec = make_panel([100.0], [1.0], [50.0]), replace(PLAIN, minimum=45.0, maximum=55.0)
        found = forecast(forecaster_of(spec), panel, every_origin(panel))
        assert [np.unique(one).tolist() for one in found] == [[55], [45], [50]]

    @pytest.mark.parametrize("lowest", [-3.5, -0.25])
    def test_a_value_without_a_logarithm(self, lowest: float) -> None:
        """The lowest, with its series and its time; below -1 or not, as counts and sizes are never below 0."""
        values = wave(30)
        values[[7, 12]] = -0.125, lowest
        panel = make_panel(wave(20), values, starts=[0, 48])
        with pytest.raises(DataError, match=rf"log1p .* series 's1', time 1970-01-03 12:00 has {lowest}") as caught:
            forecast(forecaster_of(replace(PLAIN, transform="log1p")), panel, every_origin(panel))
        assert (caught.value.exit_status, caught.value.code) == (ExitStatus.DATA, "no_logarithm")
        assert "--transform" in caught.value.hint

    def test_zero_has_one(self) -> None:
        panel = make_panel([0.0, 3.0, 0.0, 7.0])
        forecaster = forecaster_of(replace(PLAIN, transform="log1p"))
        assert np.isfinite(forecast(forecaster, panel, every_origin(panel))).all()


def outcome(panel: Panel, steps: int = 40, model: dict[str, Any] | None = None, **training: Any) -> Outcome:
    """A short training run."""
    given: dict[str, Any] = {"layers": 1, "hidden_size": (12,), "context_length": 12, "patch_length": 3, "horizon": 3}
    config = ModelConfig(**given | {"calendar": False} | (model or {}))
    plan = resolve(panel, config, TrainingConfig(**training), MetricConfig(seasonality=1))
    schedule = replace(plan.schedule, max_steps=steps, check_every=max(steps // 4, 1), warmup=2, patience=100)
    plan = replace(plan, schedule=schedule, unvalidated_steps=5)
    return Trainer(panel, plan, device=CPU, clock=Clock()).run({})


class TestLearning:
    ROWS = 260

    def driven(self) -> Panel:
        """y[t] = 3 x[t] + noise, where x is known ahead and noise itself."""
        generator = np.random.default_rng(0)
        x = generator.normal(size=self.ROWS + 3)
        y = 20 + 3 * x[: self.ROWS] + 0.3 * generator.normal(size=self.ROWS)
        return with_covariates(make_panel(y), [Covariate("x", "known")], [x[:, None]])

    def test_a_known_covariate_pays(self) -> None:
        """On the holdout: less than half the error of the same training without it."""
        panel = self.driven()
        errors = []
        for one in (panel, make_panel(panel.values)):
            metrics = outcome(one, 100, learning_rate=3e-2, refit=False).checkpoint.metrics
            errors.append(metrics[MODEL]["mae"])
        assert errors[0] < 0.5 * errors[1]

    def test_a_known_category_pays(self) -> None:
        """A level for each of three texts, in no order that a number could tell."""
        generator = np.random.default_rng(1)
        codes = generator.integers(0, 3, self.ROWS + 3)
        y = np.array([10.0, 30.0, 15.0])[codes[: self.ROWS]] + 0.5 * generator.normal(size=self.ROWS)
        covariate = Covariate("kind", "known", ("a", "b", "c"))
        panel = with_covariates(make_panel(y), [covariate], [codes[:, None]])
        with_it = outcome(panel, 100, learning_rate=3e-2, refit=False).checkpoint.metrics[MODEL]["mae"]
        without = outcome(make_panel(y), 100, learning_rate=3e-2, refit=False).checkpoint.metrics[MODEL]["mae"]
        assert with_it < 0.5 * without


class TestTraining:
    def panel(self) -> Panel:
        return every_covariate(make_panel(wave(120), wave(90, 1) * 9, wave(40, 2), starts=[0, 30, 10]), ahead=3)

    MODEL = {"calendar": True, "holidays": "DE", "gaps": "ffill", "transform": "log1p", "min": 0.0}  # noqa: RUF012

    def test_equal_runs_give_equal_files(self, tmp_path: Path) -> None:
        """Byte by byte, with every kind of input; another seed gives another file."""
        files = []
        for name, seed in (("one", 0), ("two", 0), ("three", 1)):
            save(outcome(self.panel(), 8, self.MODEL, seed=seed).checkpoint, tmp_path / name)
            files.append((tmp_path / name).read_bytes())
        assert files[0] == files[1] != files[2]

    def test_what_was_saved_forecasts_the_same(self, tmp_path: Path) -> None:
        """Bit for bit, through the file."""
        panel = self.panel()
        made = outcome(panel, 8, self.MODEL).checkpoint
        save(made, tmp_path / "m.safetensors")
        found = load(tmp_path / "m.safetensors")
        assert found.spec == made.spec
        assert found.stored.covariates == made.spec.inputs.covariates
        origins = Origins(np.arange(3), panel.lengths)
        before, after = (
            Forecaster(one.network(one.final), CPU).forecast(panel, origins, 3, QUANTILES) for one in (made, found)
        )
        assert before.tobytes() == after.tobytes()
        assert (before >= 0).all()

    def test_statistics_are_those_of_what_was_trained_on(self) -> None:
        """Those of the training part in the judged weights, those of all rows in the refitted ones."""
        panel = self.panel()
        found = outcome(panel, 8, self.MODEL).checkpoint
        assert found.judged is not None
        parts = resolve(
            panel,
            ModelConfig(layers=1, hidden_size=(12,), context_length=12, patch_length=3, horizon=3),
            TrainingConfig(),
            MetricConfig(seasonality=1),
        ).parts
        for weights, ends in ((found.judged, parts.train), (found.final, panel.lengths)):
            mean, deviation = number_statistics(panel, ends)
            for role, place in (("past", 0), ("known", 2), ("static", 4)):
                assert weights[f"{role}.mean"].item() == pytest.approx(mean[place])
                assert weights[f"{role}.deviation"].item() == pytest.approx(deviation[place])
        assert not torch.equal(found.judged["known.mean"], found.final["known.mean"])

    @pytest.mark.parametrize("role", ["past", "known"])
    def test_the_holdout_does_not_reach_the_judged_weights(self, role: str) -> None:
        """Targets and covariates of the holdout, known ones too: the weights that are judged have not seen them."""
        panel = self.panel()
        plain = outcome(panel, 8, self.MODEL)
        judged_to = plain.checkpoint.judged_to - panel.starts
        timed, columns = panel.timed.copy(), [0, 1] if role == "past" else [2, 3]
        for index, rows in enumerate(judged_to.tolist()):
            begin, end = int(panel.timed_at[index]) + rows, int(panel.timed_at[index] + panel.timed_rows[index])
            fresh = random_covariates(EVERY_INPUT.of(role), end - begin, 5)
            timed[begin:end, columns] = fresh
        other = outcome(replace(panel, timed=timed), 8, self.MODEL)
        assert plain.checkpoint.judged is not None
        assert other.checkpoint.judged is not None
        for name, tensor in plain.checkpoint.judged.items():
            assert torch.equal(tensor, other.checkpoint.judged[name]), name
        assert any(
            not torch.equal(tensor, other.checkpoint.final[name]) for name, tensor in plain.checkpoint.final.items()
        )

    def test_an_untrained_network_is_the_linear_start(self) -> None:
        """Covariates, calendar and holidays say nothing before the first step."""
        panel = gappy_panel()
        torch.manual_seed(0)
        network, plain = StackedRNN(SPEC), StackedRNN(PLAIN)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for one in (network, plain):
                one.skip_start.copy_(torch.randn(CONTEXT, HORIZON, generator=generator.manual_seed(1)))
                one.bias.copy_(torch.randn(HORIZON, 3, generator=generator))
        origins = every_origin(panel)
        bare = replace(panel, covariates=(), timed=np.empty((0, 0), dtype=np.float32))
        bare = dataclasses.replace(bare, static=np.empty((0, 0), dtype=np.float32))
        found = forecast(Forecaster(network, CPU), panel, origins)
        assert found.tobytes() == forecast(Forecaster(plain, CPU), bare, origins).tobytes()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(GAPS), st.sampled_from(["none", "log1p"]))
def test_every_forecast_is_a_number(seed: int, gaps: str, transform: str) -> None:
    """Whatever is missing, at every origin, also before there is a whole context."""
    panel = gappy_panel()
    generator = np.random.default_rng(seed)
    timed = np.where(generator.random(panel.timed.shape) < 0.5, np.float32(np.nan), panel.timed)
    static = np.where(generator.random(panel.static.shape) < 0.5, np.float32(np.nan), panel.static)
    panel = replace(panel, values=np.abs(panel.values), timed=timed, static=static)
    found = forecast(forecaster_of(replace(SPEC, gaps=gaps, transform=transform), seed), panel, every_origin(panel))
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=2) >= 0).all()
