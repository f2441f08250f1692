"""Which rows a saved model is scored on, and by which of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from panels import make_panel, wave

from stacklstm_cli.config import EvaluationConfig, MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import DataError, UsageError
from stacklstm_cli.evaluation.scoring import EXPLANATIONS, Scored, choose_origins, evaluate, position
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.training.defaults import resolve
from stacklstm_cli.training.fitting import Outcome, Trainer
from stacklstm_cli.training.runtime import Clock

CPU = torch.device("cpu")
HORIZON = 6
LENGTHS, STARTS = (200, 150, 46), (0, 60, 20)
"""The series end at the rows 200, 210 and 66 of the grid; the last one is too short to judge on."""


def file_of(*lengths: int, starts: Sequence[int] = STARTS, names: Sequence[str] = ("s0", "s1", "s2")) -> Panel:
    """The three series with these lengths: longer ones have new rows."""
    series = [wave(length, index, 12) for index, length in enumerate(lengths)]
    panel = make_panel(*series, starts=list(starts)[: len(lengths)])
    return replace(panel, keys=tuple((name,) for name in names[: len(lengths)]))


def train(panel: Panel, **training: Any) -> Outcome:
    model = ModelConfig(layers=1, hidden_size=(4,), context_length=24, patch_length=4, horizon=HORIZON)
    plan = resolve(panel, model, TrainingConfig(**training), MetricConfig(seasonality=12))
    plan = replace(plan, schedule=replace(plan.schedule, max_steps=8, check_every=2, warmup=2))
    return Trainer(panel, plan, device=CPU, clock=Clock()).run({})


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """A model of the three series."""
    return train(file_of(*LENGTHS))


@pytest.fixture(scope="module")
def saved(outcome: Outcome) -> Checkpoint:
    return outcome.checkpoint


def score(saved: Checkpoint, panel: Panel, metrics: MetricConfig | None = None, **options: Any) -> Scored:
    config = EvaluationConfig(**options)
    return evaluate(saved, panel, config, metrics or MetricConfig(), CPU)


def chosen(saved: Checkpoint, panel: Panel, **options: Any) -> tuple[str, dict[int, list[int]]]:
    """What is scored, and the origins of each series that has some."""
    config = EvaluationConfig(**options)
    choice = choose_origins(saved, panel, config, config.step or HORIZON)
    rows, origins = choice.rows, choice.origins
    found: dict[int, list[int]] = {}
    for series, row in zip(origins.series.tolist(), origins.rows.tolist(), strict=True):
        found.setdefault(series, []).append(row)
    return rows, found


def stamp(at: int) -> str:
    """The hour at a position of the grid."""
    return str(np.datetime64("1970-01-01T00:00") + np.timedelta64(at, "h")).replace("T", " ")


def test_the_training_file_gives_the_figures_of_training(outcome: Outcome, saved: Checkpoint) -> None:
    """Wrong if evaluate scores other rows, weights or scales than training judged, by one bit."""
    scored, judgement = score(saved, file_of(*LENGTHS)), outcome.judgement
    assert judgement is not None
    assert scored.rows == "holdout"
    assert scored.step == HORIZON
    assert scored.backtest.origins.series.tolist() == judgement.origins.series.tolist()
    assert scored.backtest.origins.rows.tolist() == judgement.origins.rows.tolist()
    assert scored.backtest.forecasts.keys() == judgement.forecasts.keys()
    for name, forecast in judgement.forecasts.items():
        np.testing.assert_array_equal(scored.backtest.forecasts[name], forecast)
    assert scored.backtest.metrics() == judgement.metrics() == saved.metrics
    assert scored.backtest.per_series() == judgement.per_series()


def test_the_training_file_gives_them_without_a_refit_too() -> None:
    """Wrong if a model without a refit is scored on rows that chose its number of steps, as if they were new."""
    found = train(file_of(*LENGTHS), refit=False)
    scored = score(found.checkpoint, file_of(*LENGTHS))
    assert scored.backtest.metrics() == found.checkpoint.metrics


def test_less_than_a_horizon_of_new_rows_scores_the_holdout(outcome: Outcome, saved: Checkpoint) -> None:
    """Wrong if a few new rows change what the holdout figures are made on."""
    more = file_of(*(length + HORIZON - 1 for length in LENGTHS))
    rows, origins = chosen(saved, more)
    assert (rows, origins) == ("holdout", {0: [170, 176, 182, 188, 194], 1: [126, 132, 138, 144]})
    assert outcome.judgement is not None
    np.testing.assert_array_equal(score(saved, more).backtest.forecasts[MODEL], outcome.judgement.forecasts[MODEL])


def test_new_rows_are_scored_by_the_final_weights(saved: Checkpoint) -> None:
    """Wrong if rows after the last training row are scored by the older weights, or the holdout with them."""
    panel = file_of(214, 156, 51)
    scored = score(saved, panel)
    assert scored.rows == "new rows"
    assert chosen(saved, panel) == ("new rows", {0: [202, 208], 1: [150]})
    expected = Forecaster(saved.network(saved.final), CPU, saved.calibration).forecast(
        panel, scored.backtest.origins, HORIZON, saved.spec.quantiles
    )
    np.testing.assert_array_equal(scored.backtest.forecasts[MODEL], expected)
    other = Forecaster(saved.network(saved.judged or {}), CPU).forecast(
        panel, scored.backtest.origins, HORIZON, saved.spec.quantiles
    )
    assert not np.array_equal(expected, other)


def test_a_file_of_new_rows_only_and_of_cut_history(saved: Checkpoint) -> None:
    """Wrong if rows are counted from the file's first row and not by their time."""
    rows, origins = chosen(saved, file_of(22, starts=[190]))
    assert (rows, origins) == ("new rows", {0: [10, 16]})
    rows, origins = chosen(saved, file_of(13, starts=[200]))  # nothing before: the first row has no past
    assert (rows, origins) == ("new rows", {0: [1, 7]})
    rows, origins = chosen(saved, file_of(100, starts=[100]))
    assert (rows, origins) == ("holdout", {0: [70, 76, 82, 88, 94]})
    rows, origins = chosen(saved, file_of(185))  # the file ends inside the holdout
    assert (rows, origins) == ("holdout", {0: [173, 179]})


def test_unseen_series_are_scored_behind_a_context(saved: Checkpoint) -> None:
    """Wrong if a series that no weights have seen is left out, or scored without a past."""
    panel = file_of(200, 150, 46, names=("s0", "new", "s2"))
    assert chosen(saved, panel) == ("new rows", {1: list(range(24, 145, 6))})
    short = file_of(10, names=("new",))
    assert chosen(saved, short) == ("new rows", {0: [4]})


def test_unseen_series_do_not_enter_the_holdout(saved: Checkpoint) -> None:
    """Wrong if a series too short for a horizon takes part in the figures of training."""
    panel = file_of(200, 150, 46, 6, starts=(*STARTS, 0), names=("s0", "s1", "s2", "new"))
    rows, origins = chosen(saved, panel)
    assert rows == "holdout"
    assert set(origins) == {0, 1}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [200, 206, 212]),
        ({"step": 1, "origins": 2}, [211, 212]),
        ({"step": 5}, [202, 207, 212]),
        ({"origins": 1}, [212]),
        ({"start": stamp(201)}, [201, 207]),
        ({"start": stamp(201), "step": 4}, [201, 205, 209]),
        ({"start": stamp(201), "step": 4, "origins": 1}, [209]),
        ({"end": stamp(216)}, [205, 211]),
        ({"end": stamp(400)}, [200, 206, 212]),
        ({"start": stamp(200), "end": stamp(205)}, [200]),
        ({"start": stamp(203), "end": stamp(209), "step": 1}, [203, 204]),
        ({"start": "1970-01-09 08:00"}, [200, 206, 212]),
    ],
)
def test_ranges_of_one_series(saved: Checkpoint, options: dict[str, Any], expected: list[int]) -> None:
    """Wrong if --start, --end, --step or --origins picks other origins than the contract says.

    --start is the first row forecast, counted forward; --end the last one; else origins count back from the end.
    """
    rows, origins = chosen(saved, file_of(218), **options)
    assert (rows, origins) == ("new rows", {0: expected})


def test_a_range_for_series_of_unequal_ends(saved: Checkpoint) -> None:
    """Wrong if a range is taken in rows of each series instead of in time, or a shorter series is scored beyond."""
    panel = file_of(230, 165, 200)  # on the grid: up to 230, 225 and 220; trained up to 200, 210 and 66
    rows, origins = chosen(saved, panel, start=stamp(212))
    assert (rows, origins) == ("new rows", {0: [212, 218, 224], 1: [152, 158], 2: [192]})
    rows, origins = chosen(saved, panel, start=stamp(212), end=stamp(222))
    assert origins == {0: [212], 1: [152], 2: [192]}
    rows, origins = chosen(saved, panel, end=stamp(219), origins=2)
    assert origins == {0: [208, 214], 1: [154], 2: [188, 194]}


def test_a_series_that_begins_after_the_start_keeps_step_with_the_others(saved: Checkpoint) -> None:
    """Wrong if its forecasts are made at cutoffs of its own, or at its first row, which has no past."""
    panel = file_of(240, 26, starts=(0, 214), names=("s0", "new"))
    rows, origins = chosen(saved, panel, start=stamp(202), step=8)
    assert (rows, origins) == ("new rows", {0: [202, 210, 218, 226, 234], 1: [4, 12, 20]})
    scored = score(saved, panel, start=stamp(202), step=8)
    counted = (scored.tally.rows_scored, scored.tally.rows_left_out)
    assert counted == (8 * 6, 38 + 25 - 8 * 6)


def test_what_is_left_out_is_counted(saved: Checkpoint) -> None:
    """Wrong if rows of other series, or those before the last training row, count as left out."""
    panel = file_of(214, 156, 51)  # 14, 6 and 5 new rows on the grid up to 214, 216 and 71
    found = score(saved, panel).tally
    assert (found.rows_scored, found.rows_left_out, found.series_left_out) == (18, 2 + 0 + 5, 1)
    held = score(saved, file_of(*LENGTHS)).tally  # 30 and 24 rows
    assert (held.rows_scored, held.rows_left_out, held.series_left_out) == (54, 0, 1)


def test_step_and_origins_hold_in_the_holdout(saved: Checkpoint) -> None:
    """Wrong if options are ignored where the holdout is scored."""
    rows, origins = chosen(saved, file_of(*LENGTHS), step=3, origins=2)
    assert (rows, origins) == ("holdout", {0: [191, 194], 1: [141, 144]})
    rows, origins = chosen(saved, file_of(*LENGTHS), end=stamp(190))
    assert (rows, origins) == ("holdout", {0: [173, 179, 185]})


def test_in_sample_is_everything_behind_a_context_by_the_final_weights(saved: Checkpoint) -> None:
    """Wrong if --in-sample leaves rows out, is not marked, or takes the judged weights."""
    panel = file_of(*LENGTHS)
    scored = score(saved, panel, in_sample=True)
    assert scored.rows == "in sample"
    assert "IN SAMPLE" in EXPLANATIONS[scored.rows]
    rows, origins = chosen(saved, panel, in_sample=True)
    assert origins == {0: list(range(26, 195, 6)), 1: list(range(24, 145, 6)), 2: [28, 34, 40]}
    expected = Forecaster(saved.network(saved.final), CPU, saved.calibration).forecast(
        panel, scored.backtest.origins, HORIZON, saved.spec.quantiles
    )
    np.testing.assert_array_equal(scored.backtest.forecasts[MODEL], expected)
    rows, origins = chosen(saved, panel, in_sample=True, start=stamp(193), end=stamp(205))
    assert (rows, origins) == ("in sample", {0: [193], 1: [133, 139]})


@pytest.mark.parametrize(("at", "refused"), [(199, True), (209, True), (210, False), (0, True)])
def test_a_start_inside_trained_rows_is_refused(saved: Checkpoint, at: int, refused: bool) -> None:
    """Wrong if rows a series was trained on are scored as new, or new ones are refused."""
    panel = file_of(230, 180, 46)
    if not refused:
        assert chosen(saved, panel, start=stamp(at))[0] == "new rows"
        return
    with pytest.raises(UsageError, match="inside the rows this model was trained on") as caught:
        chosen(saved, panel, start=stamp(at))
    assert (caught.value.exit_status, caught.value.code) == (2, "start_in_trained_rows")
    assert f"end at {stamp(209)}" in caught.value.message
    assert "--in-sample" in caught.value.hint
    assert chosen(saved, panel, start=stamp(at), in_sample=True)[0] == "in sample"


def test_a_start_is_no_matter_to_unseen_series(saved: Checkpoint) -> None:
    """Wrong if a series the model has never seen is refused for rows it was not trained on."""
    assert chosen(saved, file_of(40, names=("new",)), start=stamp(30)) == ("new rows", {0: [30]})


def test_positions_of_stamps_between_rows() -> None:
    """Wrong if --start takes a row before it, --end one after it, or a bare date means its first hour as an end."""
    panel = file_of(*LENGTHS)
    assert position(panel, "--start", None) is None
    assert position(panel, "--start", "1970-01-02 03:30") == 28
    assert position(panel, "--end", "1970-01-02 03:30") == 27
    assert position(panel, "--start", "1970-01-02") == 24
    assert position(panel, "--end", "1970-01-02") == 47


@pytest.mark.parametrize("option", ["start", "end"])
def test_nonsense_stamps_name_the_option(saved: Checkpoint, option: str) -> None:
    """Wrong if a typing mistake ends in a traceback or does not say which option it is."""
    with pytest.raises(UsageError, match=f"^--{option}: 'soon'"):
        chosen(saved, file_of(*LENGTHS), **{option: "soon"})


def test_an_end_before_the_start_is_wrong_usage(saved: Checkpoint) -> None:
    """Wrong if such a range is taken as empty data."""
    with pytest.raises(UsageError, match=r"--end .* is before --start"):
        chosen(saved, file_of(230), start=stamp(220), end=stamp(210))


@pytest.mark.parametrize(
    "options",
    [{"start": stamp(226)}, {"start": stamp(999)}, {"start": stamp(210), "end": stamp(212)}, {"end": stamp(3)}],
)
def test_a_range_without_room_says_what_there_is(saved: Checkpoint, options: dict[str, str]) -> None:
    """Wrong if a range without one forecast is scored, or the message lacks the limits of the data."""
    with pytest.raises(UsageError, match=f"No forecast of {HORIZON} rows fits") as caught:
        chosen(saved, file_of(230), **options)
    assert caught.value.code == "no_origin"
    assert f"from {stamp(0)} to {stamp(229)}" in caught.value.message


def test_nothing_to_score_has_its_arithmetic() -> None:
    """Wrong if a model without a holdout is scored on rows it knows, or the message counts wrongly."""
    saved = train(file_of(*LENGTHS), holdout=0).checkpoint
    with pytest.raises(DataError, match="at most 4 rows after the last training row, a forecast covers 6") as caught:
        chosen(saved, file_of(203, 154, 46))
    assert (caught.value.exit_status, caught.value.code) == (3, "no_origin")
    assert chosen(saved, file_of(206, 154, 46)) == ("new rows", {0: [200]})


def test_step_and_seasonality_are_said(saved: Checkpoint) -> None:
    """Wrong if --step or --seasonality does not reach the backtest."""
    scored = score(saved, file_of(218), MetricConfig(seasonality=5), step=2)
    assert (scored.step, scored.backtest.seasonality) == (2, 5)
    assert score(saved, file_of(218)).backtest.seasonality == 12


def test_a_change_after_the_cutoff_changes_no_forecast(saved: Checkpoint) -> None:
    """Wrong if a forecast that is scored has seen its own target."""
    panel = file_of(212)
    values = panel.values.copy()
    values[206:] += 1000
    one = score(saved, panel).backtest
    other = score(saved, replace(panel, values=values)).backtest
    for name, forecast in one.forecasts.items():
        np.testing.assert_array_equal(forecast[:2], other.forecasts[name][:2])
    assert one.metrics() != other.metrics()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.5, 0.9]),
        ({"interval": (80.0,)}, [0.1, 0.5, 0.9]),
        ({"interval": (60.0,)}, [0.2, 0.5, 0.8]),
        ({"interval": (80.0, 40.0)}, [0.1, 0.3, 0.5, 0.7, 0.9]),
        ({"quantiles": (0.7,)}, [0.5, 0.7]),
        ({"quantiles": (0.7,), "interval": (60.0,)}, [0.2, 0.5, 0.7, 0.8]),
    ],
)
def test_what_is_scored_is_what_was_asked_for(
    saved: Checkpoint, options: dict[str, Any], expected: list[float]
) -> None:
    """Wrong if --quantiles or --interval is ignored, or its forecasts are not the line between the learned ones."""
    panel = file_of(218)
    found, learned = score(saved, panel, **options).backtest, score(saved, panel).backtest
    assert list(found.quantiles) == expected
    assert list(learned.quantiles) == [0.1, 0.5, 0.9]
    low, middle, high = np.moveaxis(learned.forecasts[MODEL], 2, 0)
    for place, quantile in enumerate(expected):
        towards = (quantile - 0.1) / 0.4 if quantile < 0.5 else (quantile - 0.5) / 0.4
        begin, end = (low, middle) if quantile < 0.5 else (middle, high)
        np.testing.assert_allclose(found.forecasts[MODEL][..., place], begin + towards * (end - begin), rtol=1e-9)
    assert {forecast.shape[2] for forecast in found.forecasts.values()} == {len(expected)}
    for percent in options.get("interval", ()):
        assert f"coverage_{percent:g}" in found.metrics()[MODEL]


def test_an_interval_wider_than_was_learned_is_refused(saved: Checkpoint) -> None:
    """Wrong if the outermost learned quantile is passed off as one further out."""
    with pytest.raises(UsageError, match=r"Quantile 0\.025 is outside") as caught:
        score(saved, file_of(218), interval=(95.0,))
    assert caught.value.code == "quantile_not_learned"
