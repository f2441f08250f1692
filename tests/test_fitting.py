"""Choosing, judging and refitting: what each may see, what is kept, and how a stopped run ends."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clocks import StopsAfter
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import make_panel, wave
from torch import Tensor

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.origins import Origins, plan_origins
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import DataError, NothingLearnedError
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.evaluation.conformal import conformalised, held_out
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.calibration import Calibration
from stacklstm_cli.model.checkpoint import load, save
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.training.defaults import LEAST_WINDOWS, Plan, resolve
from stacklstm_cli.training.fitting import TIME_TO_CHOOSE, Outcome, Trainer
from stacklstm_cli.training.lessons import Lesson, Lessons
from stacklstm_cli.training.loop import Fit
from stacklstm_cli.training.runtime import Clock, Stopped
from stacklstm_cli.training.start import start_with

LENGTHS = (200, 150, 46)
"""The last one validates, but is too short to judge on."""
SEASON = 12
HORIZON = 6
CPU = torch.device("cpu")


def panel_of() -> Panel:
    """Three series of unequal lengths, sizes and starts."""
    one, other, short = (wave(length, index, SEASON) for index, length in enumerate(LENGTHS))
    return make_panel(one, 9 * other, 3 * short, starts=[0, 60, 20])


def plan_for(panel: Panel, **training: Any) -> Plan:
    """A plan for a small and quick network."""
    model = ModelConfig(layers=1, hidden_size=(6,), context_length=24, patch_length=4, horizon=HORIZON)
    plan = resolve(panel, model, TrainingConfig(**training), MetricConfig(seasonality=SEASON))
    schedule = plan.schedule
    if not training.get("epochs"):
        schedule = replace(schedule, max_steps=12, check_every=3, warmup=2, learning_rate=1e-4)
    return replace(plan, schedule=schedule, unvalidated_steps=5)


def train(panel: Panel, clock: Clock | None = None, **training: Any) -> Outcome:
    return Trainer(panel, plan_for(panel, **training), device=CPU, clock=clock or Clock()).run({})


def same(one: dict[str, Tensor] | None, other: dict[str, Tensor] | None) -> bool:
    assert one is not None
    assert other is not None
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def perturbed(panel: Panel, begin: list[int], end: list[int]) -> Panel:
    """The panel with rows [begin, end) of each series changed beyond recognition."""
    values = panel.values.copy()
    random = np.random.default_rng(9)
    for index, offset in enumerate(panel.offsets[:-1]):
        rows = slice(int(offset) + begin[index], int(offset) + end[index])
        values[rows] = 1000 * random.normal(size=values[rows].size)
    return replace(panel, values=values)


@pytest.fixture(scope="module")
def plain() -> Outcome:
    """The run on the untouched panel."""
    return train(panel_of())


def test_memory_that_did_not_suffice_is_said(plain: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the model is there; as a GPU says it, where only half a batch fits."""
    usual = Lessons.batch

    def batch(self: Lessons, chosen: Tensor, *, exact: bool = False) -> Lesson:
        if torch.is_grad_enabled() and not exact and len(chosen) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return usual(self, chosen, exact=exact)

    monkeypatch.setattr(Lessons, "batch", batch)
    found = train(panel_of())
    said = dict(found.warnings)["out_of_memory"]
    assert said == "Memory did not suffice for 32 windows at a time: they were computed in 2 parts."
    assert found.fits[0].steps > 0
    assert "out_of_memory" not in dict(plain.warnings)


def test_the_parts_of_this_panel() -> None:
    """Wrong if the panel of these tests is not the one they speak of."""
    parts = plan_for(panel_of()).parts
    assert (parts.end - parts.validation).tolist() == [30, 24, 0]
    assert (parts.validation - parts.train).tolist() == [30, 24, 6]


def test_holdout_values_do_not_reach_the_judged_weights(plain: Outcome) -> None:
    """Wrong if anything before the judgement sees the holdout, by one bit."""
    panel = panel_of()
    parts = plan_for(panel).parts
    other = train(perturbed(panel, parts.validation.tolist(), parts.end.tolist()))
    assert same(plain.checkpoint.judged, other.checkpoint.judged)
    assert (plain.fits[0].steps, plain.fits[0].history) == (other.fits[0].steps, other.fits[0].history)
    assert not same(plain.checkpoint.final, other.checkpoint.final)
    assert plain.checkpoint.metrics != other.checkpoint.metrics


def test_training_values_do(plain: Outcome) -> None:
    """Wrong if the test above passes because nothing is learned from any value."""
    panel = panel_of()
    parts = plan_for(panel).parts
    other = train(perturbed(panel, (parts.train - 5).tolist(), parts.train.tolist()))
    assert not same(plain.checkpoint.judged, other.checkpoint.judged)


def test_validation_values_choose_and_do_not_teach() -> None:
    """Wrong if validation rows change the weights of a given number of steps from a given start."""
    panel = panel_of()
    plan = plan_for(panel)
    changed = perturbed(panel, plan.parts.train.tolist(), plan.parts.validation.tolist())
    one, other = (Trainer(some, plan, device=CPU, clock=Clock()) for some in (panel, changed))
    (first, ridge), (second, ridge_of_changed) = one.choose(), other.choose()
    assert first.validation != second.validation
    assert ridge != ridge_of_changed
    # With the ridge, the rate and the steps of the first, the changed panel must teach the same.
    lessons, rate = other.lessons(plan.parts.train), first.rate * plan.schedule.learning_rate
    schedule = replace(plan.schedule, max_steps=first.steps, learning_rate=rate)
    start = start_with(lessons, ridge, plan.seasonality)
    again = other.fit(lessons, None, start, schedule, plan.parts.train, "again", 1.0)
    assert same(first.weights, again.weights)


def test_the_refit_sees_the_newest_rows(plain: Outcome) -> None:
    """Wrong if the final weights ignore the last row, or make another number of steps than was chosen."""
    panel = panel_of()
    other = train(perturbed(panel, [length - 1 for length in LENGTHS], list(LENGTHS)))
    assert not same(plain.checkpoint.final, other.checkpoint.final)
    chosen, refitted = plain.fits
    assert refitted.steps == chosen.steps == plain.checkpoint.training["steps"]
    assert not same(plain.checkpoint.judged, plain.checkpoint.final)
    assert plain.checkpoint.trained_to.tolist() == panel.ends.tolist() == plain.checkpoint.data_to.tolist()
    assert plain.checkpoint.judged_to.tolist() == (panel.starts + plan_for(panel).parts.validation).tolist()
    assert (plain.stopped, plain.warnings) == ("", ())


def test_the_judgement_is_of_the_judged_weights(plain: Outcome) -> None:
    """Wrong if the table is of other weights, or of other rows than the whole holdout."""
    panel, judgement = panel_of(), plain.judgement
    assert judgement is not None
    parts = plan_for(panel).parts
    origins = plan_origins(parts.validation, parts.end, HORIZON, HORIZON)
    assert judgement.origins.series.tolist() == origins.series.tolist() == [0] * 5 + [1] * 4
    assert judgement.origins.rows.tolist() == origins.rows.tolist()
    judged = plain.checkpoint.judged
    assert judged is not None
    forecaster = Forecaster(plain.checkpoint.network(judged), CPU, plain.checkpoint.judged_calibration)
    expected = forecaster.forecast(panel, origins, HORIZON, judgement.quantiles)
    np.testing.assert_array_equal(judgement.forecasts[MODEL], expected)
    assert plain.checkpoint.metrics == judgement.metrics()
    assert set(plain.checkpoint.metrics) > {MODEL, "naive", "seasonal_naive"}
    assert (plain.checkpoint.backtest["origins"], plain.checkpoint.backtest["series"]) == (5, 2)


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """Wrong if the same data and seed give another model file, or another seed the same."""
    paths = [tmp_path / name for name in ("one", "two", "three")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        torch.manual_seed(len(path.name))  # whatever was drawn before
        save(train(panel_of(), seed=seed).checkpoint, path)
    one, two, three = (path.read_bytes() for path in paths)
    assert one == two
    assert one != three


def test_no_refit_keeps_the_judged_weights(plain: Outcome) -> None:
    """Wrong if --no-refit trains again, keeps other weights, or claims rows they have not seen."""
    found = train(panel_of(), refit=False)
    assert len(found.fits) == 1
    assert same(found.checkpoint.final, plain.checkpoint.judged)
    assert found.checkpoint.judged is None
    assert found.checkpoint.metrics == plain.checkpoint.metrics
    parts = plan_for(panel_of()).parts
    assert found.checkpoint.trained_to.tolist() == (panel_of().starts + parts.validation).tolist()
    assert found.checkpoint.trained_to.tolist() == found.checkpoint.judged_to.tolist()
    assert (found.checkpoint.data_to - found.checkpoint.trained_to).tolist() == [30, 24, 0]


def test_no_holdout_means_no_judgement() -> None:
    """Wrong if --holdout 0 judges, or does not choose and refit."""
    found = train(panel_of(), holdout=0)
    assert found.judgement is None
    assert (found.checkpoint.metrics, found.checkpoint.backtest) == ({}, {})
    assert [fit.validation is not None for fit in found.fits] == [True, False]
    assert found.checkpoint.judged_to.tolist() == found.checkpoint.data_to.tolist()


def test_nothing_judged_keeps_no_judged_weights() -> None:
    """Wrong if the file carries weights as judged that no judgement was made of."""
    assert train(panel_of(), holdout=0).checkpoint.judged is None


def test_a_series_without_parts_trains_on_everything() -> None:
    """Wrong if data too short to choose on fails, is judged, or trains twice."""
    panel = make_panel(wave(40, 0, SEASON))
    found = train(panel)
    assert (plan_for(panel).parts.validation == plan_for(panel).parts.train).all()
    assert (len(found.fits), found.fits[0].steps, found.judgement) == (1, 5, None)
    assert found.checkpoint.trained_to.tolist() == [40]


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize(("rows", "gap"), [(40, 0), (200, 0), (200, 100)])
def test_epochs_are_the_most_passes(rows: int, gap: int, epochs: int) -> None:
    """Wrong if --epochs passes over the windows that there are more often, the last batch aside, or less often."""
    values = wave(rows, 0, SEASON)
    values[20 : 20 + gap] = np.nan
    panel = make_panel(values)
    plan = plan_for(panel, epochs=epochs)
    plan = replace(plan, schedule=replace(plan.schedule, patience=1000), unvalidated_steps=1000)
    trainer = Trainer(panel, plan, device=CPU, clock=Clock())
    chosen, _ = trainer.choose()
    windows = len(trainer.lessons(plan.parts.train))
    assert (windows < plan.windows(plan.parts.train).sum()) == (gap > 0)
    assert epochs * windows <= chosen.windows < epochs * windows + min(plan.schedule.batch_size, windows)


def test_too_few_rows_add_up() -> None:
    """Wrong if the message's numbers do not sum to what it asks for, or less would have done."""
    panel = make_panel(wave(20, 0, SEASON), wave(12, 1, SEASON))
    with pytest.raises(DataError, match="training needs at least") as caught:
        train(panel)
    message = caught.value.message
    assert (caught.value.exit_status, caught.value.code) == (3, "too_few_rows")
    assert "(s0) has 20 rows" in message
    needed, parts = re.findall(r"at least (\d+): (.*)$", message)[0]
    assert int(needed) == sum(int(number) for number in re.findall(r"\d+", parts)) == SEASON + HORIZON + 7
    assert "--horizon" in caught.value.hint


@settings(max_examples=60)
@given(rows=st.integers(3, 80), horizon=st.integers(1, 12), context=st.integers(2, 60))
def test_as_many_rows_as_asked_for_are_enough(rows: int, horizon: int, context: int) -> None:
    """Wrong if a user who brings the rows that the message asks for is refused again."""

    def windows(length: int) -> int:
        panel = make_panel(np.arange(float(length)))
        model = ModelConfig(layers=1, hidden_size=(1,), context_length=context, horizon=horizon)
        plan = resolve(panel, model, TrainingConfig(holdout=0), MetricConfig(seasonality=2))
        plan = replace(plan, parts=replace(plan.parts, train=plan.parts.end, validation=plan.parts.end))
        return len(Trainer(panel, plan, device=CPU, clock=Clock()).lessons(plan.parts.train))

    try:
        assert windows(rows) >= LEAST_WINDOWS
    except DataError as error:
        needed = int(re.findall(r"at least (\d+)", error.message)[0])
        assert needed > rows
        assert windows(needed) >= LEAST_WINDOWS


def test_a_signal_while_choosing_saves_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if an interrupted choice loses the weights, judges them, or goes on to refit."""
    found = train(panel_of(), StopsAfter(4, "signal", monkeypatch))
    assert (found.stopped, found.judgement, len(found.fits)) == ("signal", None, 1)
    assert [code for code, _ in found.warnings] == ["not_judged"]
    save(found.checkpoint, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert (loaded.metrics, loaded.judged, loaded.training["stopped"]) == ({}, None, "signal")
    assert loaded.trained_to.tolist() == (panel_of().starts + plan_for(panel_of()).parts.validation).tolist()
    assert same(loaded.final, found.fits[0].weights)


def test_time_while_choosing_judges_and_refits_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if a choice cut short is not judged, or the refit makes more steps than it found."""
    clock = StopsAfter(4, "time", monkeypatch)
    # Only choosing is short of time.
    monkeypatch.setattr(clock, "stopped", lambda share=1.0: "time" if share < 1 and clock.left <= 0 else "")
    found = train(panel_of(), clock)
    assert found.judgement is not None
    assert [fit.stopped for fit in found.fits] == ["time", ""]
    assert found.fits[1].steps == found.fits[0].steps <= 4
    assert (found.stopped, [code for code, _ in found.warnings]) == ("time", ["time_up"])


def test_a_signal_while_refitting_keeps_the_judged_weights(plain: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if half a refit is saved as a model, or the judgement is lost."""
    found = train(panel_of(), StopsAfter(12 + 2, "signal", monkeypatch))
    assert same(found.checkpoint.final, plain.checkpoint.judged)
    assert found.checkpoint.metrics == plain.checkpoint.metrics
    assert [code for code, _ in found.warnings] == ["not_refitted"]
    assert (found.stopped, found.fits[1].steps) == ("signal", 2)
    assert found.checkpoint.trained_to.tolist() == plain.checkpoint.judged_to.tolist()


def test_time_while_refitting_shortens_it(plain: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if a refit out of time is thrown away, or its shortness is not said."""
    found = train(panel_of(), StopsAfter(12 + 2, "time", monkeypatch))
    assert (found.stopped, found.fits[1].steps) == ("time", 2)
    assert same(found.checkpoint.final, found.fits[1].weights)
    assert same(found.checkpoint.judged, plain.checkpoint.judged)
    assert [code for code, _ in found.warnings] == ["refit_shortened"]
    assert f"2 of {found.fits[0].steps} steps" in found.warnings[0][1]


@pytest.mark.parametrize("why", ["time", "signal"])
def test_a_stop_between_choosing_and_refitting_saves_the_judged_weights(
    plain: Outcome, why: Stopped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong if a limit or a signal that comes while judging costs the model that was found."""
    clock, judge = StopsAfter(1000, why, monkeypatch), Trainer.judge

    def judge_and_stop(trainer: Trainer, chosen: Fit, calibration: Calibration | None) -> Backtest | None:
        clock.left = 0
        return judge(trainer, chosen, calibration)

    monkeypatch.setattr(Trainer, "judge", judge_and_stop)
    found = train(panel_of(), clock)
    assert same(found.checkpoint.final, plain.checkpoint.judged)
    assert found.checkpoint.metrics == plain.checkpoint.metrics
    assert found.checkpoint.training["stopped"] == found.stopped == why
    assert len(found.fits) == 1
    assert [code for code, _ in found.warnings] == ["not_refitted"]
    save(found.checkpoint, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").judged is None


def test_choosing_leaves_time_for_the_refit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if choosing may use the whole limit although a refit follows, or not although none does."""
    clock = StopsAfter(1000, "time", monkeypatch)
    train(panel_of(), clock)
    assert {share for left, share in clock.shares if left > 1000 - 12} == {TIME_TO_CHOOSE}
    assert {share for left, share in clock.shares if left < 1000 - 12} == {1.0}
    alone = StopsAfter(1000, "time", monkeypatch)
    train(panel_of(), alone, refit=False)
    assert {share for _, share in alone.shares} == {1.0}


@pytest.mark.parametrize("value", [9.96921e36, -1e45])
def test_a_fill_value_in_the_newest_rows_is_a_model_or_an_error(value: float, tmp_path: Path) -> None:
    """Wrong if an extreme number that stands for nothing ends in a traceback or a model without finite weights."""
    panel = panel_of()
    values = panel.values.copy()
    parts = plan_for(panel).parts
    values[panel.offsets[:-1] + parts.train + 2] = value
    try:
        found = train(replace(panel, values=values))
    except NothingLearnedError as error:
        assert error.code == "diverged"  # noqa: PT017 - either way out is sound
    else:
        save(found.checkpoint, tmp_path / "model.safetensors")
        assert all(tensor.isfinite().all() for tensor in load(tmp_path / "model.safetensors").final.values())


def test_nothing_observed_to_choose_on(tmp_path: Path) -> None:
    """Wrong if a gap over the whole validation part ends in a traceback."""
    values = wave(150, 0, SEASON)
    panel = make_panel(values)
    parts = plan_for(panel).parts
    values[int(parts.train[0]) : int(parts.validation[0])] = np.nan
    found = train(make_panel(values))
    assert found.fits[0].validation is None
    assert found.fits[0].steps == 5
    save(found.checkpoint, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").metrics == found.checkpoint.metrics


def test_a_refit_that_diverges_keeps_the_judged_weights(plain: Outcome) -> None:
    """Wrong if a refit that ends in no numbers is saved, or costs the model that was found and judged."""
    panel = panel_of()
    told: list[int] = []

    def spoil(event: dict[str, Any]) -> None:
        if event["phase"] == "refitting":
            trainer.windows.values = torch.full_like(trainer.windows.values, torch.inf)
            told.append(event["step"])

    plan = plan_for(panel)
    trainer = Trainer(panel, plan, device=CPU, clock=Clock(), on_event=spoil)
    found = trainer.run({})
    assert told == [1]  # the second step broke
    assert (found.stopped, len(found.fits)) == ("", 1)
    assert same(found.checkpoint.final, plain.checkpoint.judged)
    assert found.checkpoint.judged is None
    assert found.checkpoint.metrics == plain.checkpoint.metrics
    assert found.checkpoint.training["steps"] == plain.fits[0].steps
    assert found.checkpoint.trained_to.tolist() == (panel.starts + plan.parts.validation).tolist()
    assert [code for code, _ in found.warnings] == ["not_refitted"]


def test_diverging_while_choosing_is_nothing_learned() -> None:
    """Wrong if a run that never had a good weight ends with a model."""

    def spoil(event: dict[str, Any]) -> None:
        trainer.windows.values = torch.full_like(trainer.windows.values, torch.inf)

    trainer = Trainer(panel_of(), plan_for(panel_of()), device=CPU, clock=Clock(), on_event=spoil)
    with pytest.raises(NothingLearnedError, match="diverged") as caught:
        trainer.run({})
    assert caught.value.code == "diverged"


def test_rows_enough_but_hardly_any_observed() -> None:
    """Wrong if a long series that is one gap ends in a traceback or an empty fit."""
    values = np.full(80, np.nan)
    values[[0, 79]] = 1.0
    with pytest.raises(DataError, match="No training window") as caught:
        train(make_panel(values))
    assert (caught.value.exit_status, caught.value.code) == (3, "no_windows")
    assert "gaps" in caught.value.hint


def test_no_time_at_all_is_nothing_learned() -> None:
    """Wrong if a model is saved that has not made a step."""
    with pytest.raises(NothingLearnedError):
        train(panel_of(), Clock(0.0))


def test_the_checkpoint_says_what_it_was_trained_on(plain: Outcome) -> None:
    """Wrong if the model's card describes other data."""
    panel, data = panel_of(), plain.checkpoint.data
    assert (data["series"], data["gaps"], data["step"]) == (3, 0, "1 hour")
    assert (data["first"], data["last"]) == ("1970-01-01 00:00", "1970-01-09 17:00")
    assert data["fingerprint"] == panel.fingerprint()
    assert plain.checkpoint.keys == (("s0",), ("s1",), ("s2",))
    assert plain.checkpoint.seasonality == SEASON


class TestIntervals:
    def test_calibrations_are_those_of_the_held_out_parts(self, plain: Outcome) -> None:
        """Wrong if the table's intervals know the holdout, or the saved ones do not."""
        panel, saved = panel_of(), plain.checkpoint
        assert saved.judged is not None
        parts = plan_for(panel).parts
        forecaster = Forecaster(saved.network(saved.judged), CPU)
        validation = held_out(forecaster, panel, parts.train, parts.validation)
        holdout = held_out(forecaster, panel, parts.validation, parts.end)
        assert validation is not None
        assert holdout is not None
        for found, made in (
            (saved.judged_calibration, conformalised(validation)),
            (saved.calibration, conformalised(validation, holdout)),
        ):
            assert found is not None
            assert made is not None
            np.testing.assert_array_equal(found.offsets, made.offsets)
        assert saved.intervals["origins"] == {"judged": 45, "final": 89}
        assert len(validation) == 45  # 25 + 19 + 1, a row apart
        held = {"nominal": 0.8, "achieved": saved.metrics[MODEL]["coverage_80"], "points": 54}
        assert saved.intervals["coverage"] == {"80": held}

    def test_holdout_values_reach_the_saved_intervals_only(self, plain: Outcome) -> None:
        panel = panel_of()
        parts = plan_for(panel).parts
        other = train(perturbed(panel, parts.validation.tolist(), parts.end.tolist())).checkpoint
        for name, same_offsets in (("judged_calibration", True), ("calibration", False)):
            one, changed = getattr(plain.checkpoint, name), getattr(other, name)
            assert np.array_equal(one.offsets, changed.offsets) == same_offsets

    def test_the_point_forecast_is_not_moved(self, plain: Outcome) -> None:
        saved, panel = plain.checkpoint, panel_of()
        origins = plan_origins(panel.lengths - 40, panel.lengths, HORIZON, 5)
        raw = Forecaster(saved.network(saved.final), CPU).forecast(panel, origins, HORIZON, (0.1, 0.5, 0.9))
        found = saved.forecaster(CPU).forecast(panel, origins, HORIZON, (0.1, 0.5, 0.9))
        np.testing.assert_array_equal(found[..., 1], raw[..., 1])
        assert (found[..., [0, 2]] != raw[..., [0, 2]]).any()

    def test_without_a_holdout_the_validation_part_calibrates(self) -> None:
        """Also where the weights are kept as they were chosen."""
        for refit in (True, False):
            saved = train(panel_of(), holdout=0, refit=refit).checkpoint
            assert saved.calibration is not None
            assert saved.judged_calibration is not None
            np.testing.assert_array_equal(saved.calibration.offsets, saved.judged_calibration.offsets)
            assert saved.intervals["coverage"] == {}
            assert saved.knows_holdout

    def test_a_model_that_was_never_judged_has_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stopped by a signal while choosing: saved, raw, and loaded again."""
        saved = train(panel_of(), StopsAfter(4, "signal", monkeypatch)).checkpoint
        assert (saved.calibration, saved.judged_calibration, saved.intervals) == (None, None, {})
        save(saved, tmp_path / "m.safetensors")
        assert load(tmp_path / "m.safetensors").calibration is None

    def test_a_point_forecast_has_none(self) -> None:
        panel = panel_of()
        plan = plan_for(panel)
        point = replace(plan, spec=replace(plan.spec, loss="mae", quantiles=(0.5,)))
        saved = Trainer(panel, point, device=CPU, clock=Clock()).run({}).checkpoint
        assert (saved.calibration, saved.intervals) == (None, {})
        assert saved.metrics

    def test_two_runs_give_equal_bytes(self, plain: Outcome, tmp_path: Path) -> None:
        for name, outcome in (("a", plain), ("b", train(panel_of()))):
            save(outcome.checkpoint, tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_batched_forecasts_equal_those_of_the_cut_file(self, plain: Outcome) -> None:
        """With calibrated intervals too: 1e-5 of the value."""
        panel, forecaster = panel_of(), plain.checkpoint.forecaster(CPU)
        origins = plan_origins(panel.lengths - 30, panel.lengths, HORIZON, 7)
        found = forecaster.forecast(panel, origins, HORIZON, (0.1, 0.3, 0.5, 0.9))
        for place in range(len(origins)):
            series, rows = int(origins.series[place]), int(origins.rows[place])
            alone = make_panel(panel.series(series)[:rows], starts=[int(panel.starts[series])])
            one = forecaster.forecast(alone, Origins(np.array([0]), np.array([rows])), HORIZON, (0.1, 0.3, 0.5, 0.9))
            np.testing.assert_allclose(found[place], one[0], rtol=1e-5)
