"""The search: which rows it sees, what it tries, and how the choice is made."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from panels import make_panel, wave
from scipy import stats
from sqlalchemy.exc import OperationalError

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig, searchable
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.errors import DataError, ModelError, UsageError
from stacklstm_cli.training import study as studies
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.jobs import Within, left, search
from stacklstm_cli.training.runtime import Clock, Interrupted
from stacklstm_cli.training.search import (
    Candidate,
    Rolling,
    StoppedError,
    answer,
    choose,
    fold_losses,
    mean_and_error,
    roll,
    shortened,
)
from stacklstm_cli.training.space import FIELDS, USUAL, apply, build_space, option_names, resolved, start_params, words
from stacklstm_cli.training.storage import open_storage, opened
from stacklstm_cli.training.study import Task

SMALL = ModelConfig(hidden_size=(4,), context_length=12, horizon=4)
QUICK = TrainingConfig(epochs=1, seed=3)
METRICS = MetricConfig(seasonality=6)
CPU = torch.device("cpu")


def hourly(rows: int = 160, seed: int = 0) -> Panel:
    return make_panel(wave(rows, seed, period=6))


def task_of(
    panel: Panel,
    entries: tuple[str, ...] = ("layers",),
    *,
    limit: int | None = 2,
    folds: int | None = None,
    **changed: Any,
) -> Task:
    model = dataclasses.replace(SMALL, **changed)
    plan = resolve(panel, model, QUICK, METRICS)
    space = build_space(entries, plan, model, QUICK, max_layers=4)
    return Task(panel, plan, model, QUICK, METRICS, space, roll(panel, plan, folds), 1, limit)


def searched(task: Task, place: str | None = None, jobs: int = 1, clock: Clock | None = None) -> list[Candidate]:
    clock = clock or Clock()
    clock.start()
    return search(task, place, jobs, device=CPU, clock=clock, on_event=lambda event: None)


# Which rows are seen.


@given(st.lists(st.integers(2, 400), min_size=1, max_size=4), st.integers(1, 3), st.integers(1, 12), st.integers(2, 24))
def test_folds_judge_each_row_once_and_none_of_the_holdout(
    lengths: list[int], folds: int, horizon: int, context: int
) -> None:
    panel = make_panel(*[np.arange(length, dtype=float) % 7 for length in lengths])
    try:
        plan = resolve(panel, ModelConfig(horizon=horizon, context_length=context), TrainingConfig(), MetricConfig())
        rolling = roll(panel, plan, folds)
    except DataError:
        return
    assert len(rolling.folds) == folds
    judged: list[set[tuple[int, int]]] = []
    newer = plan.parts.validation
    for fold in rolling.folds:
        parts = fold.parts
        assert (parts.end == newer).all()
        assert (parts.train <= parts.validation).all()
        assert (parts.validation <= parts.end).all()
        assert len(fold.origins)
        origins = zip(fold.origins.series.tolist(), fold.origins.rows.tolist(), strict=True)
        rows = {(series, row + ahead) for series, row in origins for ahead in range(horizon)}
        assert all(parts.validation[series] <= row < parts.end[series] for series, row in rows)
        assert all(rows.isdisjoint(others) for others in judged)
        judged.append(rows)
        newer = parts.validation


def test_folds_of_a_file_of_144_rows_by_hand() -> None:
    """Holdout and validation take 15 % each in whole horizons: 24 of 144 rows, 24 of 120, 24 of 96."""
    panel = make_panel(wave(144, period=12))
    plan = resolve(panel, ModelConfig(horizon=12, context_length=36), TrainingConfig(), MetricConfig(seasonality=12))
    rolling = roll(panel, plan, None)
    cuts = [
        tuple(int(part[0]) for part in (one.parts.train, one.parts.validation, one.parts.end)) for one in rolling.folds
    ]
    assert cuts == [(72, 96, 120), (48, 72, 96)]
    assert [one.origins.rows.tolist() for one in rolling.folds] == [list(range(96, 109, 2)), list(range(72, 85, 2))]
    assert (rolling.counted(), rolling.overlap, rolling.metric) == ("14 origins", 6, "mase")


def test_no_value_of_the_holdout_reaches_a_score() -> None:
    """Other values there change no loss; one other value among the rows that choose does."""
    values = wave(160, period=6)
    begin = int(task_of(make_panel(values)).plan.parts.validation[0])
    before = searched(task_of(make_panel(values)))

    def changed(row: int) -> list[Candidate]:
        other = values.copy()
        other[row:] = 1e3 * np.arange(1, values.size - row + 1)
        return searched(task_of(make_panel(other)))

    for one, other in zip(before, changed(begin), strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)
    assert any((one.losses != other.losses).any() for one, other in zip(before, changed(begin - 1), strict=True))


def test_losses_are_those_of_a_slow_loop() -> None:
    """Mean absolute error of the medians over the seasonal naive error of the rows before the first origin."""
    panel = hourly()
    task = task_of(panel)
    plan, fold = task.plan, task.rolling.folds[0]
    found = fold_losses(panel, plan, fold, 5, device=CPU, clock=Clock(), on_event=lambda event: None)
    training = dataclasses.replace(plan.training, seed=5, refit=False)
    one = dataclasses.replace(shortened(plan), parts=fold.parts, training=training)
    trainer = Trainer(panel, one, device=CPU, clock=Clock())
    forecaster = trainer.forecaster(trainer.choose()[0])
    forecasts = forecaster.forecast(panel, fold.origins, 4, [0.5])[:, :, 0]
    past = panel.values[: fold.origins.rows[0]]
    scale = np.mean([abs(past[row] - past[row - 6]) for row in range(6, past.size)])
    expected = [
        np.mean([abs(panel.values[row + ahead] - forecasts[place, ahead]) for ahead in range(4)]) / scale
        for place, row in enumerate(fold.origins.rows)
    ]
    np.testing.assert_allclose(found, expected)


def test_many_series_are_paired_over_series() -> None:
    rolling = task_of(make_panel(*[wave(80, seed, period=6) for seed in range(30)])).rolling
    assert (rolling.paired_over, rolling.units, rolling.overlap) == ("series", 30, 1)
    losses = np.arange(rolling.groups.size, dtype=float)
    expected = [losses[rolling.groups == group].mean() for group in range(30)]
    np.testing.assert_allclose(rolling.unit_losses(losses), expected)


@pytest.mark.parametrize("asked", [1, 3])
def test_too_few_rows_are_an_error_whose_arithmetic_is_true(asked: int) -> None:
    """One row fewer than the message demands is refused; with that many the search can be planned."""

    def planned(rows: int) -> Rolling:
        panel = make_panel(wave(rows, period=6))
        return roll(panel, resolve(panel, SMALL, TrainingConfig(holdout=4), METRICS), asked)

    enough = next(rows for rows in range(30, 200) if possible(functools.partial(planned, rows)))
    with pytest.raises(
        DataError, match=rf"has {enough - 1} rows; .* needs at least {enough}: 23 to train, 4 to choose"
    ):
        planned(enough - 1)
    assert len(planned(enough).folds) == asked


def possible(work: Callable[[], object]) -> bool:
    try:
        work()
    except (DataError, UsageError):
        return False
    return True


# The choice.


def candidate(number: int, layers: int, losses: list[float] | Floats, **changed: Any) -> Candidate:
    usual: dict[str, Any] = {"params": {"layers": layers}, "start": True, "state": "complete"}
    return Candidate(number=number, layers=layers, losses=np.asarray(losses), **(usual | changed))


def rolling_of(units: int) -> Rolling:
    return Rolling((), np.arange(units), "cutoffs", 1, "mase")


def test_the_error_is_that_of_the_paired_difference() -> None:
    """As scipy has it, where origins do not overlap."""
    generator = np.random.default_rng(0)
    losses = [generator.normal(1, 0.3, 12) for _ in range(3)]
    found = choose([candidate(place + 1, place + 1, one) for place, one in enumerate(losses)], "one-se", 1)
    assert found is not None
    for one in found.compared:
        difference = losses[one.candidate.number - 1] - losses[found.best.number - 1]
        assert one.difference == pytest.approx(difference.mean())
        assert one.error == pytest.approx(stats.sem(difference))


@pytest.mark.parametrize(("units", "overlap"), [(14, 6), (60, 6), (20, 1)])
def test_the_error_of_origins_that_overlap_is_near_the_truth(units: int, overlap: int) -> None:
    """Forecasts that share rows: moving means of noise, whose means over all units scatter as they are said to."""
    noise = np.random.default_rng(0).normal(size=(2000, units + overlap - 1))
    windows = np.lib.stride_tricks.sliding_window_view(noise, overlap, axis=1).mean(axis=2)  # [2000, units]
    told = np.array([mean_and_error(one, overlap) for one in windows])  # [2000, 2]
    low, middle, high = np.quantile(told[:, 1], (0.1, 0.5, 0.9)) / told[:, 0].std()
    assert 0.4 < low < high < 1.4
    assert 0.7 < middle < 1.1


def test_the_shallowest_within_one_standard_error_is_chosen() -> None:
    """Differences to the best of +0.1 ± 0.05 (outside), and of +0.02 ± 0.05 (within)."""
    best = np.linspace(0.5, 1.5, 20)
    noise = np.tile([-1, 1], 10) * 0.05 * math.sqrt(19)  # its standard error is 0.05
    four = [
        candidate(1, 1, best + 0.1 + noise),
        candidate(2, 2, best + 0.02 + noise),
        candidate(3, 3, best + 0.001 + noise),
        candidate(4, 4, best),
    ]
    found = choose(four, "one-se", 1)
    assert found is not None
    assert (found.best.number, found.chosen.number) == (4, 2)
    assert answer(four, "one-se", rolling_of(20)) == (
        "2 layers: 1 is worse beyond noise, 3 and 4 are not better beyond noise (n = 20 origins)."
    )
    assert answer(four, "best", rolling_of(20)).startswith(
        "4 layers: 1 is worse beyond noise, 2 and 3 are worse, but within the noise (n"
    )


def test_of_equal_depths_the_better_is_chosen_and_what_was_not_scored_never() -> None:
    found = choose(
        [
            candidate(1, 1, [1.0, 1.0, 1.0]),
            candidate(2, 1, [0.9, 1.0, 1.0], start=False),
            candidate(3, 1, [], state="pruned", start=False),
            candidate(4, 1, [], state="failed", start=False),
        ],
        "one-se",
        1,
    )
    assert found is not None
    assert (found.chosen.number, len(found.compared)) == (2, 2)
    assert choose([candidate(1, 1, [], state="failed")], "one-se", 1) is None


def test_without_enough_origins_for_an_error_the_best_is_chosen() -> None:
    found = choose([candidate(1, 1, [1.0, 1.1]), candidate(2, 2, [0.9, 1.0])], "one-se", 1)
    assert found is not None
    assert found.chosen.number == 2


def test_answers_to_other_searches() -> None:
    assert answer([candidate(1, 2, [1.0, 1.0, 1.0], params={"cell": "gru"})], "best", rolling_of(3)) == ""
    assert answer([candidate(1, 1, [1.0, 1.0, 1.0])], "one-se", rolling_of(3)) == "1 layer: no other depth was tried."
    both = [candidate(1, 1, [1.0, 1.0, 1.0]), candidate(2, 2, [1.0, 1.1, 1.0])]
    assert answer(both, "one-se", rolling_of(3)) == "1 layer: 2 is not better beyond noise (n = 3 origins)."


# What is tried.

SEARCHABLE = [name for name, field in FIELDS.items() if searchable(field)]


def plan_and_space(entry: str) -> tuple[Plan, Any]:
    model = ModelConfig(horizon=6)
    plan = resolve(make_panel(wave(400)), model, TrainingConfig(), MetricConfig())
    return plan, build_space([entry], plan, model, TrainingConfig(), 4)[0]


@pytest.mark.parametrize("name", SEARCHABLE)
def test_every_value_that_is_tried_reaches_the_plan(name: str) -> None:
    """Two values of each option make different plans, within the bounds of the option."""
    plan, dimension = plan_and_space(name)
    values = dimension.values or tuple(
        (int if dimension.whole else float)(value) for value in (dimension.low, dimension.high)
    )
    assert len(values) > 1
    plans = []
    panel = make_panel(wave(400))
    for value in values:
        model, training = apply({name: value}, ModelConfig(horizon=6), TrainingConfig())
        plans.append(resolve(panel, model, training, MetricConfig()))
    described = {repr((one.spec, one.schedule, one.training)) for one in plans}
    assert len(described) == len(values)
    if not FIELDS[name].metadata["search"]:
        assert min(values) < resolved(name, plan, ModelConfig(), TrainingConfig()) < max(values)


def test_every_bounded_option_of_the_network_and_the_training_is_searched_or_sets_the_task() -> None:
    """So that an option that is added cannot be forgotten here."""
    bounded = {
        name
        for name, field in FIELDS.items()
        if field.metadata["choices"] or field.metadata["minimum"] is not None or field.type == "bool"
    }
    task = {"dilations", "horizon", "quantiles", "interval", "loss", "max_time", "holdout", "refit", "seed"}
    task |= {"class_weights"}  # of labels, which are not searched
    task |= {"precision"}  # of the arithmetic, which is to change no score
    assert bounded - set(SEARCHABLE) == task


def test_the_first_candidates_differ_in_their_depth_alone() -> None:
    task = task_of(hourly(), USUAL)
    starts = task.starts
    assert [one.pop("layers") for one in starts] == [1, 2, 3, 4]
    assert all(one == starts[0] for one in starts)
    plain = resolve(task.panel, SMALL, QUICK, METRICS)
    first = task.plan_of({"layers": 2} | starts[0])
    assert (first.spec, first.schedule) == (plain.spec, plain.schedule)


def test_contexts_stay_whole_seasons_that_fit() -> None:
    plan, dimension = plan_and_space("context_length")
    assert plan.seasonality == 24
    assert all(value % 24 == 0 for value in dimension.values)
    assert max(dimension.values) <= plan.parts.train.max()


@pytest.mark.parametrize(
    ("entry", "values", "low", "high"),
    [
        ("hidden-size=16..128", (), 16, 128),
        ("hidden_size=16/32", (16, 32), 0, 0),
        ("--dropout=0.1..0.1", (), 0.1, 0.1),
        ("cell=LSTM/gru", ("lstm", "gru"), 0, 0),
        ("skip=false", (False,), 0, 0),
        ("layers=2..3", (), 2, 3),
    ],
)
def test_bounds_as_typed(entry: str, values: tuple[Any, ...], low: float, high: float) -> None:
    _, dimension = plan_and_space(entry)
    assert (dimension.values, dimension.low, dimension.high) == (values, low, high)


@pytest.mark.parametrize(
    ("entry", "code", "said"),
    [
        ("layrs", "not_searchable", "no such option"),
        ("horizon", "not_searchable", "sets the task"),
        ("seed", "not_searchable", "sets the task"),
        ("hidden-size=64..16", "empty_bounds", "nothing from 64 to 16"),
        ("hidden-size=a..b", "search_not_readable", "16..128"),
        ("hidden-size=16..32..64", "search_not_readable", "16..128"),
        ("dropout=nan..1", "search_not_readable", "16..128"),
        ("hidden-size=", None, ""),
        ("cell=lstm/cnn", "search_not_readable", "lstm/gru/rnn"),
        ("layers=0..3", "option_out_of_bounds", "--layers is 0; expected 1 to 64"),
        ("dropout=0.5..2", "option_out_of_bounds", "--dropout is 2"),
    ],
)
def test_what_cannot_be_searched_is_a_usage_error(entry: str, code: str | None, said: str) -> None:
    if code is None:
        assert plan_and_space(entry)[1].values
        return
    with pytest.raises(UsageError, match=said) as caught:
        plan_and_space(entry)
    assert caught.value.code == code


def test_an_option_named_twice_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="twice"):
        option_names(["hidden-size", "hidden_size=3..4"])


def test_a_candidate_as_typed() -> None:
    params = {"layers": 3, "skip": False, "residual": True, "attention": False, "layer_norm": True, "dropout": 0.125}
    assert words(params) == ["--layers", "3", "--no-skip", "--layer-norm", "--dropout", "0.125"]


def test_bounds_without_the_default_begin_at_the_nearest_value() -> None:
    plan = resolve(hourly(), SMALL, QUICK, METRICS)
    space = build_space(["hidden_size=16..64", "dropout=0.3/0.5", "epochs"], plan, SMALL, TrainingConfig(), 4)
    assert start_params(space, plan, SMALL, TrainingConfig()) == [{"hidden_size": 16, "dropout": 0.3}]


# The study.


def test_equal_searches_find_equal_candidates() -> None:
    runs = [searched(task_of(hourly(), ("layers", "cell", "learning_rate"), limit=6)) for _ in range(2)]
    first, second = ([(one.params, one.state, one.losses.tolist()) for one in run] for run in runs)
    assert first == second
    assert len(first) == 6
    assert {one.params["cell"] for one in runs[0][:4]} == {"lstm"}


@pytest.mark.parametrize("name", ["study.log", pytest.param("study.db", marks=pytest.mark.slow)])
def test_a_study_goes_on_where_it_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is not fitted again; the whole equals a search without a break."""
    place = str(tmp_path / name)
    first = searched(task_of(hourly(), limit=2), place)
    assert [one.layers for one in first] == [1, 2]
    fitted: list[int] = []

    def counted(panel: Panel, plan: Plan, *others: Any, **named: Any) -> Floats:
        fitted.append(plan.spec.layers)
        return fold_losses(panel, plan, *others, **named)

    monkeypatch.setattr(studies, "fold_losses", counted)
    both = searched(task_of(hourly(), limit=3), place)
    assert fitted == [3, 3]
    whole = searched(task_of(hourly(), limit=3))
    assert [one.losses.tolist() for one in both] == [one.losses.tolist() for one in whole]
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_candidate_whose_process_is_gone_is_tried_again(tmp_path: Path) -> None:
    place = str(tmp_path / "study.log")
    task = task_of(hourly(), limit=4)
    study = studies.open_study(place, task, 0)
    studies.enqueue_starts(study, task)
    gone = study.ask()
    gone.set_user_attr("owner", studies.owner() | {"host": "elsewhere", "seen": 0.0})
    assert [one.layers for one in searched(task, place)] == [2, 3, 4, 1]


def test_a_candidate_of_another_machine_is_left_to_it(tmp_path: Path) -> None:
    place = str(tmp_path / "study.log")
    task = task_of(hourly(), limit=2)
    study = studies.open_study(place, task, 0)
    studies.enqueue_starts(study, task)
    study.ask().set_user_attr("owner", studies.owner() | {"host": "elsewhere"})
    assert [one.layers for one in searched(task, place)] == [2]


def test_a_study_of_other_data_or_other_options_is_refused(tmp_path: Path) -> None:
    place = str(tmp_path / "study.log")
    searched(task_of(hourly(), limit=1), place)
    with pytest.raises(ModelError, match="other data"):
        searched(task_of(hourly(seed=1), limit=1), place)
    with pytest.raises(UsageError, match="other options: --cell, --folds"):
        searched(task_of(hourly(), limit=1, folds=1, cell="gru"), place)
    with pytest.raises(UsageError, match="--search cell"):
        searched(task_of(hourly(), ("layers", "cell"), limit=1), place)


@pytest.mark.parametrize("name", ["study.log", "study.db"])
@pytest.mark.parametrize("content", [b"garbage\n" * 99, b'{"op_code": 1}\n', b"[1]\n"])
def test_a_damaged_study_is_a_model_error(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        searched(task_of(hourly(), limit=1), str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("place", ["study.txt", "study", "nothing://there"])
def test_a_study_of_no_known_kind_is_refused(place: str) -> None:
    with pytest.raises((UsageError, ModelError)):
        open_storage(place) if "://" not in place else searched(task_of(hourly(), limit=1), place)


def test_a_folder_that_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no folder"):
        searched(task_of(hourly(), limit=1), str(tmp_path / "none" / "study.db"))


def test_two_processes_may_make_a_study_at_the_same_moment() -> None:
    """The one that finds the tables half made asks again; whatever else is wrong is told at once."""
    asked: list[str] = []

    def connect() -> str:
        asked.append("once more")
        if len(asked) == 1:
            raise OperationalError("CREATE TABLE studies", {}, Exception("table studies already exists"))
        return "there"

    assert opened(connect) == "there"

    def damaged() -> str:
        raise OperationalError("SELECT", {}, Exception("disk image is malformed"))

    with pytest.raises(OperationalError, match="malformed"):
        opened(damaged)


def test_combinations_that_cannot_be_are_told_and_passed_over() -> None:
    """A patch longer than the context of a candidate is no error of the search."""
    found = searched(task_of(hourly(), ("context_length=6/24", "patch_length=12"), limit=3))
    failed = [one for one in found if one.state == "failed"]
    assert failed
    assert all("--patch-length 12 is longer than the context" in one.why for one in failed)
    assert any(one.state == "complete" for one in found)


def test_a_space_that_is_used_up_ends_the_search() -> None:
    found = searched(task_of(hourly(), ("cell",), limit=50))
    assert sorted(one.params["cell"] for one in found) == ["gru", "lstm", "rnn"]


def scripted(monkeypatch: pytest.MonkeyPatch, validation: Callable[[Plan], float], steps: int = 640) -> None:
    """Fits that make no steps and tell these validation losses."""

    def one(panel: Panel, plan: Plan, fold: Any, seed: int, *, device: Any, clock: Clock, on_event: Any) -> Floats:
        for step in range(20, steps + 1, 20):
            on_event({"step": step, "max_steps": steps, "validation": validation(plan)})
        return np.full(len(fold.origins), validation(plan))

    monkeypatch.setattr(studies, "fold_losses", one)


def test_candidates_that_fall_behind_are_ended_but_the_first_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeper is worse here: all depths are scored; of the later candidates those that are as bad end early."""
    scripted(monkeypatch, lambda plan: plan.spec.layers + plan.spec.dropout)
    found = searched(task_of(hourly(), ("layers", "dropout"), limit=30))
    assert [one.state for one in found[:4]] == ["complete"] * 4
    pruned = [one for one in found[4:] if one.state == "pruned"]
    assert pruned
    best = min(one.score for one in found if one.state == "complete")
    assert min(one.layers + one.params["dropout"] for one in pruned) > best
    choice = choose(found, "best", 1)
    assert choice is not None
    assert choice.chosen.layers == 1


def test_losses_in_other_units_end_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, lambda plan: float(plan.spec.layers))
    found = searched(task_of(hourly(), ("layers", "transform"), limit=8))
    assert {one.state for one in found} == {"complete"}


def test_the_clock_ends_a_search_with_what_was_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidate in hand is as if it had not been; with a study it is tried again."""
    real, clock = studies.fold_losses, Clock()

    def stops(panel: Panel, plan: Plan, *others: Any, **named: Any) -> Floats:
        if plan.spec.layers == 2:
            clock.signal_number = 2
        return real(panel, plan, *others, **named)

    monkeypatch.setattr(studies, "fold_losses", stops)
    assert [one.layers for one in searched(task_of(hourly(), limit=4), clock=clock)] == [1]


def test_a_fit_that_the_clock_ends_has_no_score() -> None:
    task, clock = task_of(hourly()), Clock(max_time=0.0)
    with pytest.raises(StoppedError) as caught:
        fold_losses(task.panel, task.plan, task.rolling.folds[0], 0, device=CPU, clock=_AfterOne(), on_event=print)
    assert caught.value.why == "time"
    assert searched(task, clock=clock) == []


def test_a_fit_whose_last_validation_a_signal_ended_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop then leaves a fit that looks as if it had ended by itself."""
    task, clock = task_of(hourly()), Clock()
    real = Trainer.choose

    def choose(trainer: Trainer) -> Any:
        found = real(trainer)
        clock.signal_number = 2
        return found

    monkeypatch.setattr(Trainer, "choose", choose)
    with pytest.raises(StoppedError, match="signal"):
        fold_losses(
            task.panel, task.plan, task.rolling.folds[0], 0, device=CPU, clock=clock, on_event=lambda event: None
        )


class _AfterOne(Clock):
    """Stops after the first question, which is asked before the first step."""

    asked = 0

    def stopped(self, share: float = 1.0) -> Any:
        self.asked += 1
        return "time" if self.asked > 1 else ""


def test_a_limit_inside_another() -> None:
    outer = Clock(10.0)
    assert left(outer) == 10.0
    inner = Within(outer, 0.0)
    inner.start()
    assert outer.started is not None
    assert (inner.stopped(), outer.stopped()) == ("time", "")
    with pytest.raises(Interrupted), inner.interruptible():
        outer.signalled(15)
    assert inner.stopped() == "signal"
    with pytest.raises(Interrupted), inner.interruptible():
        pass
    assert left(Clock()) is None


def test_what_is_stored_is_json_and_what_is_read_back_is_equal(tmp_path: Path) -> None:
    place = str(tmp_path / "study.log")
    task = task_of(hourly(), ("layers", "cell", "dropout", "skip"), limit=5)
    found = searched(task, place)
    assert all(json.loads(line) is not None for line in Path(place).read_text().splitlines())
    again = studies.candidates(studies.open_study(place, task, 0))
    assert [(one.params, one.losses.tolist(), one.start) for one in again] == [
        (one.params, one.losses.tolist(), one.start) for one in found
    ]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    one = {one.layers: one.losses.tolist() for one in searched(task_of(hourly(), limit=4))}
    for place in (None, str(tmp_path / "study.db")):
        two = {one.layers: one.losses.tolist() for one in searched(task_of(hourly(), limit=4), place, jobs=2)}
        assert two == one


@pytest.mark.parametrize(("rows", "most"), [(160, 150), (6_000, 150), (60_000, 300)])
def test_a_search_costs_a_part_of_a_training(rows: int, most: int) -> None:
    """A quarter of the steps and half the patience, but not fewer steps than tell depths apart."""
    plan = resolve(hourly(rows), SMALL, TrainingConfig(), METRICS)
    assert shortened(plan).schedule.max_steps == most
    assert shortened(plan).schedule.patience == plan.schedule.patience / 2
    few = dataclasses.replace(plan, schedule=dataclasses.replace(plan.schedule, max_steps=30))
    assert shortened(few).schedule.max_steps == 30
