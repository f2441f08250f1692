"""The linear forecast that training starts from, against numpy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from panels import make_panel, small_spec, wave

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.evaluation.conformal import Calibrations
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.model.smoothing import Smoothing
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training.defaults import resolve
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.lessons import Lessons, lesson_origins, series_weights
from stacklstm_cli.training.refitting import ridge_of
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.start import (
    SHARES,
    STRENGTHS,
    Ridge,
    Start,
    Towards,
    choose_start,
    last_skip,
    seasonal_skip,
    solve,
    start_with,
)

CPU = torch.device("cpu")
SPEC = small_spec(context_length=8, horizon=3, location_length=4, scale_length=8)


def gappy_panel() -> Panel:
    gap = wave(60, seed=1, period=4) * 30
    gap[[10, 11, 40]] = math.nan
    return make_panel(wave(50, period=4), gap)


def lessons_of(panel: Panel, first: list[int], last: list[int], spec: NetworkSpec = SPEC) -> Lessons:
    origins = lesson_origins(panel, np.array(first), np.array(last), spec)
    return Lessons(Windows(panel, spec, CPU), origins, series_weights(panel, np.array(first), 4))


def training() -> Lessons:
    return lessons_of(gappy_panel(), [8, 8], [36, 40])


def validation() -> Lessons:
    return lessons_of(gappy_panel(), [36, 40], [50, 60])


def fit_of(trainer: Trainer, ridge: Ridge) -> tuple[Any, ...]:
    """What one step of a fit from that start needs."""
    plan = trainer.plan
    lessons = trainer.lessons(plan.parts.train)
    schedule = dataclasses.replace(plan.schedule, max_steps=1)
    return lessons, None, start_with(lessons, ridge, plan.seasonality), schedule, plan.parts.train, "choosing", 1.0


def columns(lessons: Lessons) -> tuple[Floats, Floats, Floats, Floats]:
    """Contexts [W, L], targets [W, H], known [W, H] and gains [W, 1] of all windows."""
    lesson = lessons.batch(torch.arange(len(lessons)), exact=True)
    return lesson.inputs.context.numpy(), lesson.target.numpy(), lesson.known.numpy(), lesson.gain.numpy()


def direct(lessons: Lessons, ridge: Ridge, season: int) -> Floats:
    """Ridge regression towards the seasonal skip or the last value, by its normal equations [L, H]."""
    context, target, known, gain = columns(lessons)
    naive: Floats = np.zeros((context.shape[1], target.shape[1]))
    naive[-1] = 1.0
    if ridge.towards == "seasons":
        naive = seasonal_skip(context.shape[1], target.shape[1], season).numpy()
    if (strength := ridge.strength) is None:
        return naive
    residual = np.clip(target / gain - context @ naive, -10, 10) * known
    gram = (context * gain**2).T @ context
    shrink = strength * np.trace(gram) / len(gram) * np.eye(len(gram))
    moved: Floats = naive + np.linalg.solve(gram + shrink, (context * gain**2).T @ residual)
    return moved


class TestRidge:
    @pytest.mark.parametrize("towards", ["seasons", "last"])
    @pytest.mark.parametrize("strength", [None, 1e-5, 1e-2, 1.0, 300.0])
    def test_equals_the_normal_equations(self, strength: float | None, towards: Towards) -> None:
        """Every ridge from one decomposition, windows weighted by the square of their gain."""
        lessons, ridge = training(), Ridge(strength, towards)
        found = solve(lessons, 4).weights(ridge)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), direct(lessons, ridge, 4), rtol=1e-7, atol=1e-8)

    def test_the_last_value(self) -> None:
        values = np.random.default_rng(0).normal(size=8)
        assert (values @ last_skip(8, 3).numpy()).tolist() == [values[-1]] * 3

    def test_in_chunks_as_in_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = solve(training(), 4).weights(Ridge(0.1))
        monkeypatch.setattr("stacklstm_cli.training.lessons.chunk_size", lambda spec: 7)
        torch.testing.assert_close(solve(training(), 4).weights(Ridge(0.1)), whole, rtol=1e-9, atol=1e-9)

    def test_finds_the_line_that_is_there(self) -> None:
        """y[t] = y[t - 4] + y[t - 1] - y[t - 5]: a wave with drift, forecast without error."""
        series = np.arange(60) * 0.3 + np.tile([5.0, 1.0, -2.0, 0.5], 15)
        panel = make_panel(series)
        lessons = lessons_of(panel, [8], [60])
        context, target, _, gain = columns(lessons)
        found = start_with(lessons, Ridge(1e-8), 4)
        np.testing.assert_allclose(gain * (context @ found.skip.numpy()), target, atol=1e-3 * np.abs(target).max())

    def test_a_larger_context_than_windows_has_a_solution(self) -> None:
        """Fewer equations than unknowns: ridge still gives numbers."""
        lessons = lessons_of(gappy_panel(), [8, 60], [12, 60])
        assert len(lessons) == 2
        for strength in (None, *STRENGTHS):
            found = start_with(lessons, Ridge(strength), 4)
            assert found.skip.isfinite().all()
            assert found.bias.isfinite().all()

    def test_constant_series_have_a_solution(self) -> None:
        """No moment at all."""
        lessons = lessons_of(make_panel([3.0] * 40, [0.0] * 40), [8, 8], [40, 40])
        found = start_with(lessons, Ridge(1e-5), 4)
        assert found.skip.isfinite().all()
        assert not found.bias.any()


class TestSmoothing:
    """The start beside forecasts by smoothing."""

    SPEC = small_spec(context_length=12, horizon=3, location_length=4, scale_length=8, smoothing_season=4)

    def parts(self) -> tuple[Lessons, Lessons]:
        panel = gappy_panel()
        return lessons_of(panel, [12, 12], [36, 40], self.SPEC), lessons_of(panel, [36, 40], [50, 60], self.SPEC)

    def smoothed(self, lessons: Lessons) -> tuple[Floats, Floats]:
        """[W, H] of all windows, by a network of which nothing is learned; and [W, 1] how far they are followed: the
        share of the newest four rows that are there. What is not followed is 0."""
        network = Smoothing(12, 3, 4, 5).double()
        network.share.fill_(1.0)
        inputs = lessons.batch(torch.arange(len(lessons)), exact=True).inputs
        rows = len(inputs.context)
        with torch.no_grad():
            state, line = torch.zeros(rows, 5).double(), torch.zeros(rows, 3).double()
            found = network(state, inputs.context, inputs.observed, line).numpy()
        return found, inputs.observed[:, -4:].numpy().mean(1, keepdims=True)

    def test_the_share_that_does_best_on_validation(self) -> None:
        """Every ridge with every share, by hand."""
        lessons, validation = self.parts()
        found = choose_start(lessons, validation, 4)
        context, target, known, gain = columns(validation)
        (smoothed, followed), losses = self.smoothed(validation), {}
        for towards in get_args(Towards):
            for strength in (None, *STRENGTHS):
                line = context @ direct(lessons, Ridge(strength, towards), 4)
                for share in SHARES:
                    error = np.abs(target - gain * ((1 - share * followed) * line + share * smoothed)) * known
                    losses[Ridge(strength, towards, share)] = error.sum()
        assert losses[found.ridge] == pytest.approx(min(losses.values()), rel=1e-6)
        assert len({ridge.smoothing for ridge in sorted(losses, key=losses.__getitem__)[:5]}) < len(SHARES)

    @pytest.mark.parametrize("share", [0.0, 0.75])
    def test_the_network_begins_there(self, share: float) -> None:
        """What is left over has the quantiles of the bias, and the network adds both forecasts."""
        lessons, _ = self.parts()
        start = start_with(lessons, Ridge(0.1, "last", share), 4)
        context, target, known, gain = columns(lessons)
        smoothed, followed = self.smoothed(lessons)
        forecast = (1 - share * followed) * (context @ start.skip.numpy()) + share * smoothed
        left_over = np.where(known > 0, target / gain - forecast, np.nan)
        np.testing.assert_allclose(start.bias[:, 1].numpy(), np.nanmedian(left_over, axis=0), atol=1e-6)
        network = StackedRNN(self.SPEC).double()
        start.apply_to(network)
        network.eval()
        inputs = lessons.batch(torch.arange(len(lessons)), exact=True).inputs
        with torch.no_grad():
            raw = network(inputs)
        np.testing.assert_allclose(raw[..., 1].numpy(), forecast + start.bias[:, 1].numpy(), atol=1e-5)

    def test_a_refit_begins_as_the_model_did(self) -> None:
        """The share is in the file, and not looked for again."""
        rows = np.tile([3.0, 9.0, 4.0, 1.0], 20) + np.random.default_rng(0).normal(size=80).cumsum()
        panel = make_panel(rows)
        model = ModelConfig(context_length=12, horizon=3)
        plan = resolve(panel, model, TrainingConfig(epochs=1), MetricConfig(seasonality=4))
        trainer = Trainer(panel, plan, device=CPU, clock=Clock())
        chosen = trainer.fit(*fit_of(trainer, Ridge(0.1, "last", 0.75)))
        saved = trainer.checkpoint((chosen,), chosen, Ridge(0.1, "last", 0.75), None, Calibrations(), {}, "")
        assert ridge_of(saved) == Ridge(0.1, "last", 0.75)
        refitted = trainer.refit(1, ridge_of(saved))
        assert refitted is not None
        assert float(refitted.weights["smoothing.share"]) == 0.75


class TestSeasonal:
    @pytest.mark.parametrize(("context", "horizon", "season"), [(8, 3, 4), (9, 7, 3), (5, 3, 4), (6, 4, 1), (3, 5, 12)])
    def test_the_mean_of_the_last_two_seasons(self, context: int, horizon: int, season: int) -> None:
        """On values, by a loop; one season where two do not fit, the last value where none does."""
        values = np.random.default_rng(0).normal(size=context)
        found = values @ seasonal_skip(context, horizon, season).numpy()
        lag = season if season <= context else 1
        for step in range(horizon):
            same = [values[-lag + step % lag]]
            if 2 * lag <= context:
                same.append(values[-2 * lag + step % lag])
            assert found[step] == pytest.approx(sum(same) / len(same))

    @pytest.mark.parametrize("season", [4, 1])
    def test_a_forecaster_that_is_the_seasonal_forecast(self, season: int) -> None:
        """In the user's units, through normalisation and network: the strength None, without a bias."""
        panel = make_panel(wave(50, period=4), wave(60, seed=2, period=4) * 1000)
        lessons = lessons_of(panel, [8, 8], [50, 60])
        begin = start_with(lessons, Ridge(None), season)
        network = StackedRNN(SPEC)
        dataclasses.replace(begin, bias=torch.zeros_like(begin.bias)).apply_to(network)
        origins = Origins(np.array([0, 0, 1]), np.array([50, 20, 60]))
        found = Forecaster(network, CPU).forecast(panel, origins, 3, [0.1, 0.5])
        for place, (index, rows) in enumerate([(0, 50), (0, 20), (1, 60)]):
            past = panel.series(index)[:rows]
            expected = [(past[step % season - season] + past[step % season - 2 * season]) / 2 for step in range(3)]
            np.testing.assert_allclose(found[place, :, 0], expected, rtol=1e-5)
            np.testing.assert_allclose(found[place, :, 1], expected, rtol=1e-5)


class TestChoice:
    @pytest.mark.parametrize("season", [1, 4])
    def test_the_least_validation_error_wins(self, season: int) -> None:
        """Every ridge solved anew and tried on every validation window."""
        lessons, judged = training(), validation()
        context, target, known, gain = columns(judged)
        errors = {
            ridge: np.abs((target - gain * (context @ direct(lessons, ridge, season))) * known).sum()
            for ridge in (Ridge(strength, towards) for towards in get_args(Towards) for strength in (None, *STRENGTHS))
        }
        found = choose_start(lessons, judged, season)
        assert found.ridge == min(errors, key=errors.__getitem__)
        np.testing.assert_allclose(found.skip.numpy(), direct(lessons, found.ridge, season), rtol=1e-6, atol=1e-7)

    def test_noise_is_left_to_the_seasonal_forecast_or_a_strong_ridge(self) -> None:
        """Twenty windows of noise teach eight weights nothing."""
        noise = np.random.default_rng(0).normal(size=60)
        panel = make_panel(noise)
        found = choose_start(lessons_of(panel, [8], [30]), lessons_of(panel, [30], [60]), 4)
        assert found.ridge.strength is None or found.ridge.strength > 1e-2

    def test_a_random_walk_is_left_to_its_last_value(self) -> None:
        panel = make_panel(np.random.default_rng(1).normal(size=400).cumsum())
        found = choose_start(lessons_of(panel, [8], [24]), lessons_of(panel, [24], [400]), 4)
        assert found.ridge.towards == "last"

    def test_the_same_strength_gives_the_same_start(self) -> None:
        """What a refit does on the same rows."""
        chosen = choose_start(training(), validation(), 4)
        again = start_with(training(), chosen.ridge, 4)
        assert torch.equal(chosen.skip, again.skip)
        assert torch.equal(chosen.bias, again.bias)


class TestBias:
    def test_quantiles_of_what_is_left_over(self) -> None:
        """Per step of the horizon, over the training windows whose target is known, in normalised units."""
        lessons = training()
        context, target, known, gain = columns(lessons)
        found = start_with(lessons, Ridge(0.1), 4)
        left = target / gain - context @ found.skip.numpy()
        for step in range(3):
            seen = left[known[:, step] > 0, step]
            assert seen.size < len(lessons)
            np.testing.assert_allclose(found.bias[step].numpy(), np.quantile(seen, SPEC.quantiles), rtol=1e-9)

    def test_a_step_that_is_never_known_has_none(self) -> None:
        """The third row after each origin is always missing."""
        series = wave(14)
        series[10] = math.nan
        panel = make_panel(series)
        lessons = Lessons(Windows(panel, SPEC, CPU), Origins(np.array([0]), np.array([8])), np.array([1.0]))
        found = start_with(lessons, Ridge(1.0), 4)
        assert found.bias[2].tolist() == [0, 0, 0]
        assert found.bias[0].any()


class TestWithoutSkip:
    """A network without the linear skip starts from the mean of the newest season."""

    SPEC = dataclasses.replace(SPEC, skip=False)

    def test_quantiles_around_the_location(self) -> None:
        """Of the targets themselves, in normalised units; whatever strength or season is asked for."""
        lessons = lessons_of(gappy_panel(), [8, 8], [36, 40], self.SPEC)
        judged = lessons_of(gappy_panel(), [36, 40], [50, 60], self.SPEC)
        _, target, known, gain = columns(lessons)
        for found in (choose_start(lessons, judged, 4), start_with(lessons, Ridge(0.1), 4)):
            assert found.ridge.strength is None
            assert not found.skip.any()
            for step in range(3):
                seen = (target / gain)[known[:, step] > 0, step]
                np.testing.assert_allclose(found.bias[step].numpy(), np.quantile(seen, SPEC.quantiles), rtol=1e-9)

    def test_apply_to(self) -> None:
        network = StackedRNN(self.SPEC)
        Start(None, torch.ones(8, 3), torch.full((3, 3), 2.0, dtype=torch.float64)).apply_to(network)
        assert network.skip is None
        assert (network.bias == 2).all()


def test_apply_to() -> None:
    """The start becomes the fixed part of the skip, and the bias; the learned part stays zero."""
    network = StackedRNN(SPEC)
    Start(0.1, torch.full((8, 3), 0.25, dtype=torch.float64), torch.full((3, 3), 2.0, dtype=torch.float64)).apply_to(
        network
    )
    assert (network.skip_start == 0.25).all()
    assert (network.bias == 2).all()
    assert network.skip is not None
    assert not network.skip.any()
    assert network.bias.requires_grad
