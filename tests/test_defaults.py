"""What is chosen from the data: each rule on steps and lengths of many kinds, and every option heard."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import EVERY_INPUT, every_covariate, make_panel

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.calendar import Step, parse_freq
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import DataError, StacklstmError, UsageError
from stacklstm_cli.training.defaults import LEAST_WINDOWS, Plan, default_patch, plan_for, resolve, size_of
from stacklstm_cli.training.lessons import lesson_origins

SEASONS = {"h": 24, "30min": 48, "min": 1440, "s": 60, "5h": 1, "D": 7, "B": 5, "W": 52, "MS": 12, "QS": 4, "YS": 1}
"""Rows in a season of each step: the day, hour or minute, else the week, else the year."""
FREQUENCIES = ("h", "30min", "D", "B", "W", "MS", "QS", "YS", "5h")


def panel_of(lengths: Sequence[int], frequency: str = "h") -> Panel:
    """Series of zeros, as no rule may look at a value."""
    step = replace(parse_freq(frequency), phase=0)
    return replace(make_panel(*[np.zeros(length) for length in lengths]), step=step)


def plan_of(
    lengths: Sequence[int],
    frequency: str = "h",
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    seasonality: int | None = None,
) -> Plan:
    return resolve(
        panel_of(lengths, frequency),
        ModelConfig(**model or {}),
        TrainingConfig(**training or {}),
        MetricConfig(seasonality=seasonality),
    )


def rules_of(
    lengths: Sequence[int], frequency: str = "h", model: dict[str, Any] | None = None, seasonality: int | None = None
) -> Plan:
    """What the rules say of these lengths, also where they are too short to train on."""
    panel = panel_of(lengths, frequency)
    return plan_for(
        panel.lengths, panel.step, ModelConfig(**model or {}), TrainingConfig(), MetricConfig(seasonality=seasonality)
    )


@pytest.mark.parametrize("frequency", SEASONS)
def test_the_season_follows_from_the_step(frequency: str) -> None:
    """Wrong if a step has another season, or one is believed that no series holds twice with room for its windows."""
    season = SEASONS[frequency]
    assert rules_of([3 * season + 50], frequency).seasonality == season
    end, few = 3 * season + 50, 1 if season < 500 else 37
    looked_at = sorted({*range(2, end, few), *range(max(2 * season - 60, 2), min(2 * season + 60, end))})
    found = {rows: rules_of([rows, 1], frequency).seasonality for rows in looked_at}
    first = next(rows for rows, one in found.items() if one == season)
    assert first >= 2 * season
    assert {one for rows, one in found.items() if rows < first} <= {1}
    assert {one for rows, one in found.items() if rows >= first} == {season}
    horizon = rules_of([first, 1], frequency).spec.horizon
    assert season == 1 or first == max(2 * season, season + horizon + LEAST_WINDOWS - 1)
    assert rules_of([3 * season + 50], frequency, seasonality=3).seasonality == 3


@pytest.mark.parametrize(
    ("frequency", "rows", "expected"),
    [
        ("h", 1000, 24),
        ("h", 120, 24),
        ("h", 119, 23),
        ("D", 1000, 7),
        ("W", 1000, 13),
        ("W", 60, 6),
        ("MS", 1000, 12),
        ("QS", 1000, 4),
        ("YS", 1000, 6),
        ("YS", 20, 4),
        ("YS", 3, 1),
        ("min", 1_000_000, 288),  # a day of minutes is more than one forecast is asked for
    ],
)
def test_the_horizon_is_a_season(frequency: str, rows: int, expected: int) -> None:
    """Wrong if the default horizon is another than the docstring's for this step and length."""
    assert rules_of([rows, 2], frequency).spec.horizon == expected


@given(
    lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=8),
    frequency=st.sampled_from(FREQUENCIES),
)
def test_every_default_keeps_its_bounds(lengths: list[int], frequency: str) -> None:
    """Wrong if, for any step and lengths, a default is outside what its rule says."""
    plan = rules_of(lengths, frequency)
    spec, season = plan.spec, plan.seasonality
    assert season in (1, SEASONS[frequency])
    assert season == 1 or max(lengths) >= 2 * season
    assert 1 <= spec.horizon <= max(1, max(lengths) // 5)
    assert spec.context_length % season == 0
    assert spec.context_length <= max(336, 3 * season)
    assert 1 <= spec.patch_length <= spec.context_length
    assert spec.context_length % spec.patch_length == 0
    assert season == 1 or season % spec.patch_length == 0
    assert spec.steps <= 16 or spec.patch_length == season
    assert spec.location_length == season
    assert 1 <= spec.scale_length <= spec.context_length
    assert spec.scale_length == (spec.context_length if season == 1 else min(7 * season, spec.context_length))
    assert spec.quantiles == (0.1, 0.5, 0.9)
    assert plan.schedule.max_steps >= 1
    assert plan.schedule.check_every <= plan.schedule.max_steps


@given(
    rows=st.integers(100, 5000),
    horizon=st.integers(1, 100),
    frequency=st.sampled_from(FREQUENCIES),
)
def test_a_default_patch_divides_a_default_context(rows: int, horizon: int, frequency: str) -> None:
    """Wrong if, with a horizon of the user's, the oldest patch of a default context is filled up."""
    spec = rules_of([rows], frequency, {"horizon": horizon}).spec
    assert spec.context_length % spec.patch_length == 0


@pytest.mark.parametrize(
    ("frequency", "lengths", "expected"),
    [
        ("h", [10_000], 192),  # eight horizons
        ("h", [1000], 96),  # a tenth of the rows, in whole days
        ("h", [300], 72),  # at least three seasons
        ("h", [150], 48),  # but at most a third of the rows
        ("h", [1000] * 4, 192),  # more series, more context
        ("D", [10_000], 56),
        ("MS", [40], 12),
        ("MS", [100_000], 96),
        ("YS", [1000], 48),
        ("YS", [90], 18),
        ("min", [200_000], 1440),  # one season alone where three would be very many rows
    ],
)
def test_context_by_example(frequency: str, lengths: list[int], expected: int) -> None:
    """Wrong if the rule for the context gives another length on these data."""
    assert plan_of(lengths, frequency).spec.context_length == expected


@pytest.mark.parametrize(("frequency", "horizon", "expected"), [("h", 72, 336), ("h", 720, 336), ("15min", 720, 288)])
def test_a_longer_horizon_needs_no_longer_context(frequency: str, horizon: int, expected: int) -> None:
    """Wrong if the context grows with the horizon beyond what is enough for any: in whole seasons, 336 rows at most."""
    assert plan_of([20_000], frequency, {"horizon": horizon}).spec.context_length == expected


@pytest.mark.parametrize(
    ("frequency", "rows", "horizon", "expected"),
    [
        ("h", 10_000, 72, ("time_of_day", "weekday")),
        ("h", 10_000, 73, ()),  # the context of 336 rows shows two weeks
        ("h", 40_000, 73, ("year",)),
        ("15min", 20_000, 289, ("weekday",)),  # and that of 288 rows three days
        ("YS", 100, 30, ()),
    ],
)
def test_far_ahead_cycles_that_the_context_shows_are_left_to_it(
    frequency: str, rows: int, horizon: int, expected: tuple[str, ...]
) -> None:
    """Wrong if more than three seasons ahead the calendar tells what the context shows twice, or nearer it does not."""
    assert plan_of([rows], frequency, {"horizon": horizon}).spec.inputs.cycles == expected


@pytest.mark.parametrize(
    ("frequency", "rows", "horizon", "expected"),
    [
        ("15min", 20_000, 289, 24),
        ("15min", 20_000, 288, 1),
        ("h", 40_000, 73, 24),
        ("D", 2_000, 30, 1),
        ("MS", 300, 60, 1),
    ],
)
def test_far_ahead_rows_of_a_patch_share_the_calendar(frequency: str, rows: int, horizon: int, expected: int) -> None:
    """Wrong if rows of different days share what is said of the weekday, or near rows share the time of day."""
    assert plan_of([rows], frequency, {"horizon": horizon}).spec.calendar_rows == expected


@given(context=st.integers(1, 2000), season=st.integers(1, 200))
def test_patch_is_the_smallest_divisor_that_leaves_short_sequences(context: int, season: int) -> None:
    """Wrong if a smaller patch would do, or the patch cuts a season unevenly."""
    sizes = [size for size in range(1, season + 1) if season % size == 0] if season > 1 else list(range(1, 65))
    short = [size for size in sizes if context <= 16 * size]
    assert default_patch(context, season) == min(short[0] if short else sizes[-1], context)


@pytest.mark.parametrize(
    ("lengths", "size"),
    [([4_999], 0), ([2_000, 3_000], 1), ([49_999], 1), ([25_000, 25_000], 2)],
)
def test_size_counts_the_rows_of_all_series(lengths: list[int], size: int) -> None:
    """Wrong if the amount of data is misjudged, or does not decide the width, the batch and the steps."""
    assert size_of(np.asarray(lengths)) == size
    plan = plan_of(lengths)
    assert plan.spec.stack.hidden_sizes == ((32, 64, 128)[size],) * 2
    assert plan.schedule.batch_size == (32, 128, 256)[size]
    assert plan.schedule.max_steps == (300, 600, 1200)[size]


MODEL_CASES: dict[str, tuple[dict[str, Any], Callable[[Plan], Any], Any]] = {
    "layers": ({"layers": 5}, lambda plan: plan.spec.layers, 5),
    "hidden_size": ({"hidden_size": (17,)}, lambda plan: plan.spec.stack.hidden_sizes, (17, 17)),
    "cell": ({"cell": "gru"}, lambda plan: plan.spec.stack.cell, "gru"),
    "bidirectional": ({"bidirectional": True}, lambda plan: plan.spec.stack.bidirectional, True),
    "attention": ({"attention": True}, lambda plan: plan.spec.stack.attention, True),
    "residual": ({"residual": False}, lambda plan: plan.spec.stack.residual, False),
    "layer_norm": ({"layer_norm": True}, lambda plan: plan.spec.stack.layer_norm, True),
    "forget_bias": ({"forget_bias": 0.25}, lambda plan: plan.spec.stack.forget_bias, 0.25),
    "dilations": ({"dilations": (1, 2)}, lambda plan: plan.spec.stack.dilations, (1, 2)),
    "dropout": ({"dropout": 0.0}, lambda plan: (plan.spec.dropout, plan.spec.stack.dropout), (0.0, 0.0)),
    "recurrent_dropout": ({"recurrent_dropout": 0.3}, lambda plan: plan.spec.stack.recurrent_dropout, 0.3),
    "skip": ({"skip": False}, lambda plan: plan.spec.skip, False),
    "loss": ({"loss": "huber"}, lambda plan: plan.spec.loss, "huber"),
    "supervise": ({"supervise": "all"}, lambda plan: plan.schedule.every_step, True),
    "context_length": ({"context_length": 37}, lambda plan: plan.spec.context_length, 37),
    "patch_length": ({"patch_length": 5}, lambda plan: plan.spec.patch_length, 5),
    "horizon": ({"horizon": 11}, lambda plan: plan.spec.horizon, 11),
    "quantiles": ({"quantiles": (0.8, 0.05)}, lambda plan: plan.spec.quantiles, (0.05, 0.5, 0.8)),
    "interval": (
        {"interval": (95.0, 50.0)},
        lambda plan: plan.spec.quantiles,
        (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975),
    ),
    "calendar": ({"calendar": False}, lambda plan: plan.spec.inputs.cycles, ()),
    "holidays": ({"holidays": "DE-BY"}, lambda plan: plan.spec.inputs.holidays, "DE-BY"),
    "gaps": ({"gaps": "ffill"}, lambda plan: plan.spec.gaps, "ffill"),
    "transform": ({"transform": "log1p"}, lambda plan: plan.spec.transform, "log1p"),
    "min": ({"min": -1.5}, lambda plan: plan.spec.minimum, -1.5),
    "max": ({"max": 0.0}, lambda plan: plan.spec.maximum, 0.0),
}
TRAINING_CASES: dict[str, tuple[dict[str, Any], Callable[[Plan], Any], Any]] = {
    "epochs": ({"epochs": 2}, lambda plan: plan.most_steps(65), 5),  # 130 windows in batches of 32
    "max_time": ({"max_time": 12.5}, lambda plan: plan.training.max_time, 12.5),
    "batch_size": ({"batch_size": 9}, lambda plan: plan.schedule.batch_size, 9),
    "learning_rate": ({"learning_rate": 0.123}, lambda plan: plan.schedule.learning_rate, 0.123),
    "weight_decay": ({"weight_decay": 0.0}, lambda plan: plan.schedule.weight_decay, 0.0),
    "grad_clip": ({"grad_clip": 0.0}, lambda plan: plan.schedule.grad_clip, 0.0),
    "patience": ({"patience": 2}, lambda plan: plan.schedule.patience, 2),
    "holdout": ({"holdout": 31}, lambda plan: (plan.parts.end - plan.parts.validation).tolist(), [31]),
    "refit": ({"refit": False}, lambda plan: plan.training.refit, False),
    "class_weights": ({"class_weights": "balanced"}, lambda plan: plan.training.class_weights, "balanced"),
    "seed": ({"seed": 77}, lambda plan: plan.training.seed, 77),
    "precision": ({"precision": "bfloat16"}, lambda plan: plan.training.precision, "bfloat16"),
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ModelConfig)])
def test_every_option_of_the_network_reaches_the_plan(name: str) -> None:
    """Wrong if an option is ignored; a new option without a case here fails."""
    options, where, expected = MODEL_CASES[name]
    assert where(plan_of([1000], model=options)) == expected
    assert where(plan_of([1000])) != expected


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainingConfig)])
def test_every_option_of_training_reaches_the_plan(name: str) -> None:
    """Wrong if an option is ignored; a new option without a case here fails."""
    options, where, expected = TRAINING_CASES[name]
    plan = plan_of([1000], training=options)
    assert where(plan) == expected
    assert where(plan_of([1000])) != expected
    assert getattr(plan.training, name) == options[name]


def test_a_holdout_of_nothing_is_no_default() -> None:
    """Wrong if `--holdout 0` is taken for "not given"."""
    plan = plan_of([1000], training={"holdout": 0})
    assert plan.parts.judging == 0
    assert (plan.parts.validation > plan.parts.train).tolist() == [True]


def test_set_options_steer_the_defaults_that_follow_from_them() -> None:
    """Wrong if the other defaults ignore what was set."""
    assert plan_of([10_000], model={"horizon": 48}).spec.context_length == 336
    assert plan_of([10_000], model={"context_length": 24}).spec.patch_length == 2
    assert plan_of([10_000], seasonality=12).spec.horizon == 12
    assert plan_of([10_000], model={"context_length": 10}).spec.location_length == 10


def test_a_patch_longer_than_the_context_is_wrong_usage() -> None:
    """Wrong if contradicting options pass, or the message lacks the numbers and the way out."""
    with pytest.raises(UsageError, match=r"--patch-length 20 .* context of 16 rows") as caught:
        plan_of([1000], model={"patch_length": 20, "context_length": 16})
    assert (caught.value.exit_status, caught.value.code) == (2, "patch_too_long")
    assert "at most 16" in caught.value.hint


@given(
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=5),
    context=st.none() | st.integers(1, 400),
    horizon=st.none() | st.integers(1, 100),
)
def test_least_context_by_rule(lengths: list[int], context: int | None, horizon: int | None) -> None:
    """Wrong if a window is asked for more context than the rule says, or a short series loses all its windows."""
    plan = rules_of(lengths, model={"context_length": context, "horizon": horizon})
    found, spec = plan.least_context(np.asarray(lengths)).tolist(), plan.spec
    season = max(2, plan.seasonality)
    for length, least in zip(lengths, found, strict=True):
        windows = length - spec.horizon - least + 1
        assert 1 <= least <= spec.context_length
        assert least >= min(season, spec.context_length)
        if least > min(season, spec.context_length):  # more than it must be: windows enough are left
            assert windows >= max(LEAST_WINDOWS, 2 * spec.horizon + 1)
        if least < spec.context_length and least > season:  # less than it might be: no window more than wanted
            assert windows == max(LEAST_WINDOWS, 2 * spec.horizon + 1)
        if length >= season + spec.horizon + LEAST_WINDOWS - 1:
            assert windows >= LEAST_WINDOWS


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    context=st.none() | st.integers(1, 100),
    horizon=st.none() | st.integers(1, 30),
    data=st.data(),
)
def test_windows_are_those_that_lessons_are_made_of(
    lengths: list[int], context: int | None, horizon: int | None, data: st.DataObject
) -> None:
    """Wrong if the plan counts other windows than training finds in series without gaps."""
    plan = rules_of(lengths, model={"context_length": context, "horizon": horizon})
    ends = np.asarray([data.draw(st.integers(1, length)) for length in lengths])
    origins = lesson_origins(panel_of(lengths), plan.least_context(ends), ends, plan.spec)
    assert plan.windows(ends).tolist() == np.bincount(origins.series, minlength=len(lengths)).tolist()


@given(lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=5), horizon=st.integers(1, 60))
def test_parts_leave_enough_windows_to_train(lengths: list[int], horizon: int) -> None:
    """Wrong if a series gives rows away and then has no room to train on."""
    plan = rules_of(lengths, model={"horizon": horizon})
    parts, spec = plan.parts, plan.spec
    least = min(spec.context_length, 2 * plan.seasonality) + horizon + LEAST_WINDOWS - 1
    cut = parts.train < parts.end
    assert (parts.train[cut] >= least).all()
    assert (plan.windows(parts.train)[cut] >= LEAST_WINDOWS).all()


def refused(
    lengths: Sequence[int], frequency: str, model: dict[str, Any], training: dict[str, Any]
) -> StacklstmError | None:
    """The error for these lengths, where there is one."""
    try:
        plan_of(lengths, frequency, model, training)
    except StacklstmError as error:
        return error
    return None


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    frequency=st.sampled_from(FREQUENCIES),
    horizon=st.none() | st.integers(1, 20),
    context=st.none() | st.integers(1, 60),
    holdout=st.none() | st.just(0),
)
def test_as_many_rows_as_asked_for_are_enough(
    lengths: list[int], frequency: str, horizon: int | None, context: int | None, holdout: int | None
) -> None:
    """Wrong if a user who brings the rows that the message asks for is refused again, or fewer would have done."""
    model, training = {"horizon": horizon, "context_length": context}, {"holdout": holdout}
    error = refused(lengths, frequency, model, training)
    if not isinstance(error, DataError):
        return
    assert (error.exit_status, error.code) == (3, "too_few_rows")
    needed, parts = re.findall(r"at least (\d+): (.*)$", error.message)[0]
    assert int(needed) == sum(int(number) for number in re.findall(r"\d+", parts))
    assert int(needed) > max(lengths)
    seasonless = frequency in ("YS", "5h")  # else see test_rows_needed_by_hand
    for rows in range(max(lengths) + 1, int(needed) if seasonless else 0):
        assert refused([rows], frequency, model, training)
    longer = [*lengths]
    longer[lengths.index(max(lengths))] = int(needed)
    assert refused([int(needed)], frequency, model, training) is None
    assert refused(longer, frequency, model, training) is None


@pytest.mark.parametrize(("frequency", "rows", "needed"), [("YS", 10, 11), ("h", 10, 11), ("MS", 5, 11), ("D", 10, 11)])
def test_rows_needed_by_hand(frequency: str, rows: int, needed: int) -> None:
    """A season or two rows, a horizon of a fifth of the rows, and one row for each window after the first."""
    error = refused([rows], frequency, {}, {})
    assert error is not None
    assert f"has {rows} rows; training needs at least {needed}:" in error.message
    assert "--horizon" in error.hint


@pytest.mark.parametrize("frequency", ["h", "D", "MS", "W", "YS", "3h", "4h"])
@pytest.mark.parametrize("horizon", [None, 3, 20])
def test_more_rows_are_never_refused_where_fewer_are_enough(frequency: str, horizon: int | None) -> None:
    """Wrong if the rules for short series leave a length between two that train without enough windows."""
    refusals = [refused([rows], frequency, {"horizon": horizon}, {}) is not None for rows in range(2, 150)]
    assert refusals == sorted(refusals, reverse=True)


@pytest.mark.parametrize("holdout", [1, 23])
def test_a_holdout_shorter_than_the_horizon_is_wrong_usage(holdout: int) -> None:
    """Wrong if rows are given away that nothing can be judged on, or the message lacks the way out."""
    with pytest.raises(UsageError, match=f"--holdout {holdout} .* horizon of 24 rows") as caught:
        plan_of([1000], training={"holdout": holdout})
    assert (caught.value.exit_status, caught.value.code) == (2, "holdout_too_short")
    assert "--holdout 24" in caught.value.hint
    plan = plan_of([1000], training={"holdout": 24})
    assert (plan.parts.end - plan.parts.validation).tolist() == [24]
    assert plan_of([1000], model={"horizon": holdout}, training={"holdout": holdout}).parts.judging == 1


@pytest.mark.parametrize(
    ("interval", "quantiles", "expected"),
    [
        ((80.0,), (0.1, 0.5, 0.9), (0.1, 0.5, 0.9)),  # the same numbers, not their rounded neighbours
        ((90.0,), (0.5,), (0.05, 0.5, 0.95)),
        ((99.8, 0.2), (0.3,), (0.001, 0.3, 0.499, 0.5, 0.501, 0.999)),
    ],
)
def test_an_interval_is_learned_by_its_two_quantiles(
    interval: tuple[float, ...], quantiles: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    """Wrong if --interval is not learned, or drives out what --quantiles asks for."""
    plan = plan_of([1000], model={"interval": interval, "quantiles": quantiles})
    assert plan.spec.quantiles == expected


def test_what_was_chosen_is_said() -> None:
    """Wrong if the notes state other numbers than the plan holds."""
    plan = plan_of([1000, 60])
    network, training, smoothed, seen, rows = plan.explained()
    assert smoothed == "forecasts by smoothing beside the line"
    assert seen == "inputs: calendar (time of day, weekday)"
    spec, parts = plan.spec, plan.parts
    for number in (spec.layers, *spec.stack.hidden_sizes, spec.context_length, spec.patch_length, spec.horizon):
        assert str(number) in network
    assert str(plan.schedule.batch_size) in training
    assert str(plan.schedule.max_steps) in training
    train, choose = int(parts.train.sum()), int((parts.validation - parts.train).sum())
    judge = 1060 - train - choose
    assert rows.startswith(f"rows: {train} to train, {choose} to choose, {judge} to judge")
    assert "1 of 2 series are too short to judge on" in rows
    assert rows.endswith("; then all for the final weights")
    assert "final weights" not in plan_of([1000], training={"refit": False}).explained()[4]
    blind = plan_of([1000], model={"calendar": False, "skip": False}).explained()
    assert [line.split(":")[0] for line in blind] == ["network", "training", "rows"]


def test_values_and_names_change_no_default() -> None:
    """Wrong if a rule sees anything but step, lengths and number of series."""
    panel = panel_of([700, 90])
    other = replace(panel, values=np.random.default_rng(0).normal(size=790) * 1e6, keys=(("a",), ("b",)))
    configs = ModelConfig(), TrainingConfig(), MetricConfig()
    one, two = resolve(panel, *configs), resolve(other, *configs)
    assert (one.spec, one.schedule, one.seasonality) == (two.spec, two.schedule, two.seasonality)
    assert one.parts.train.tolist() == two.parts.train.tolist()


def test_seasons_named_here_are_those_of_the_step() -> None:
    """Wrong if a step of this list is read as another one."""
    assert parse_freq("h") == Step("second", 3600)
    assert all(math.isfinite(season) for season in SEASONS.values())


@pytest.mark.parametrize("rows", [1, 10, 20])
def test_as_many_rows_as_asked_for_are_enough_for_a_holdout_too(rows: int) -> None:
    """Wrong if the rows to keep for judging are left out of what the message asks for."""
    model, training = {"horizon": 6}, {"holdout": 30}
    error = refused([rows], "YS", model, training)
    assert isinstance(error, DataError | UsageError)
    found = re.findall(r"at least (\d+)", error.message)
    for needed in found:
        assert refused([int(needed)], "YS", model, training) is None


def test_a_holdout_that_leaves_no_rows_to_train_on_is_wrong_usage() -> None:
    """Wrong if --holdout is quietly dropped where no series has room for it."""
    with pytest.raises(UsageError, match=r"--holdout 90 .* longest has 100") as caught:
        plan_of([100, 40], training={"holdout": 90})
    assert (caught.value.exit_status, caught.value.code) == (2, "holdout_too_long")
    assert "0 not to judge" in caught.value.hint
    plan = plan_of([1000, 100], training={"holdout": 90})
    assert (plan.parts.end - plan.parts.validation).tolist() == [90, 0]


def test_the_inputs_are_those_of_the_panel() -> None:
    """Wrong if a covariate, or a category, of the panel is not what the network is made for."""
    panel = every_covariate(panel_of([700, *[90] * 8]))
    found = resolve(panel, ModelConfig(holidays="US"), TrainingConfig(), MetricConfig()).spec.inputs
    assert found.covariates == EVERY_INPUT.covariates
    assert (found.cycles, found.holidays) == (("time_of_day", "weekday"), "US")


def test_the_training_part_must_show_a_cycle_twice() -> None:
    """Wrong if a weekday that was seen in training once only is told to the network."""
    weeks = {}
    for rows in range(336, 700, 4):
        plan = plan_of([rows, 60])
        weeks[rows] = "weekday" in plan.spec.inputs.cycles
        assert weeks[rows] == (plan.parts.train.max() >= 336)
    assert set(weeks.values()) == {False, True}


def test_gaps_that_are_refused_are_masked_elsewhere() -> None:
    """Wrong if --gaps error, which only the training data is held to, reaches the network."""
    assert plan_of([1000], model={"gaps": "error"}).spec.gaps == "mask"


@pytest.mark.parametrize(("low", "high"), [(2.0, 2.0), (2.0, 1.0), (0.0, -10.0)])
def test_bounds_that_leave_nothing_are_wrong_usage(low: float, high: float) -> None:
    """Wrong if no forecast can lie between the bounds, and nobody says so."""
    with pytest.raises(UsageError, match=f"--min {low:g} .* --max {high:g}") as caught:
        plan_of([1000], model={"min": low, "max": high})
    assert (caught.value.exit_status, caught.value.code) == (2, "empty_range")
    assert plan_of([1000], model={"min": high - 1, "max": low}).spec.maximum == low


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["min", "max"])
def test_a_bound_that_is_no_number_is_wrong_usage(name: str, value: float) -> None:
    """Wrong if it ends in a traceback, or only when the trained model is saved."""
    with pytest.raises(UsageError, match=f"--{name}"):
        plan_of([1000], model={name: value})


@pytest.mark.parametrize(
    ("frequency", "place", "code"), [("1", "US", "holidays_without_dates"), ("h", "XX", "unknown_holidays")]
)
def test_holidays_that_cannot_be_found_are_wrong_usage(frequency: str, place: str, code: str) -> None:
    """Wrong if it is found out when the first batch is made."""
    with pytest.raises(UsageError, match=f"--holidays {place}") as caught:
        plan_of([1000], frequency, model={"holidays": place})
    assert (caught.value.exit_status, caught.value.code) == (2, code)


def test_forget_gates_start_open_over_many_steps_only() -> None:
    """Up to 16 steps at 0, over more at 1, so that the oldest ones are not forgotten before learning begins."""

    def bias(context: int, patch: int) -> float:
        model = ModelConfig(context_length=context, patch_length=patch, horizon=3)
        return plan_for(
            np.asarray([400]), Step("second", 3600), model, TrainingConfig(), MetricConfig()
        ).spec.stack.forget_bias

    assert [bias(16, 1), bias(17, 1), bias(48, 3), bias(49, 3)] == [0.0, 1.0, 0.0, 1.0]
