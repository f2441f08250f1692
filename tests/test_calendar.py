"""The step between rows, and the grid it makes."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacklstm_cli.data.calendar import OffGridError, Step, infer_step, parse_freq
from stacklstm_cli.errors import UsageError


def micros(values) -> np.ndarray:
    return np.asarray(values, dtype="datetime64[us]")


def infer(*series) -> Step | None:
    offsets = np.cumsum([0, *(len(one) for one in series)])
    return infer_step(np.concatenate(series), offsets)


GRIDS = [
    # pandas alias, first day, label, season
    ("h", "2023-03-01 00:30", "1 hour", 24),
    ("15min", "2023-03-01", "15 minutes", 96),
    ("30min", "2023-03-01", "30 minutes", 48),
    ("10min", "2023-03-01", "10 minutes", 144),
    ("min", "2023-03-01", "1 minute", 1440),
    ("s", "2023-03-01", "1 second", 60),
    ("30s", "2023-03-01", "30 seconds", 120),
    ("100ms", "2023-03-01", "0.1 seconds", 600),
    ("D", "2024-02-20", "1 day", 7),
    ("B", "2024-02-20", "1 business day", 5),
    ("W-SAT", "2024-02-03", "1 week (Saturday)", 52),
    ("2W-TUE", "2024-02-06", "2 weeks (Tuesday)", 26),
    ("MS", "2023-11-01", "1 month", 12),
    ("ME", "2023-11-30", "1 month (end)", 12),
    ("QS-FEB", "2023-02-01", "1 quarter", 4),
    ("QE", "2023-03-31", "1 quarter (end)", 4),
    ("YS", "1960-01-01", "1 year", 1),
    ("YE-JUN", "1960-06-30", "1 year (end)", 1),
]


@pytest.mark.parametrize(("alias", "first", "label", "season"), GRIDS, ids=[grid[0] for grid in GRIDS])
def test_a_step_is_found_and_its_future_is_that_of_pandas(alias, first, label, season):
    """Month ends, leap years, quarters, weekdays: the independent truth is date_range."""
    truth = micros(pd.date_range(first, periods=60, freq=alias).to_numpy())
    step = infer(truth[:20])
    assert (step.label, step.season()) == (label, season)
    start = step.ordinals(truth[:1])[0]
    np.testing.assert_array_equal(step.stamps(np.arange(start, start + 60)), truth)
    np.testing.assert_array_equal(step.ordinals(truth), np.arange(start, start + 60))
    assert Step.from_dict(step.as_dict()) == step
    assert parse_freq(alias) == step
    given_step = parse_freq(alias).fitted(truth)
    np.testing.assert_array_equal(given_step.ordinals(truth), np.arange(60) + given_step.ordinals(truth[:1])[0])


OLD_AND_NEW = "H=h T=min S=s M=ME Q=QE A=YE Y=YE AS=YS W=7D 24h=D 60min=h"


@pytest.mark.parametrize(("old", "new"), [pair.split("=") for pair in OLD_AND_NEW.split()])
def test_old_and_new_aliases_are_one_step(old, new):
    assert parse_freq(old) == parse_freq(new)


@pytest.mark.parametrize("text", ["", "x", "0", "0h", "m", "1.5D-MON", "W-XYZ", "MS-JAN", "-1", "1.5MS"])
def test_what_is_no_step_is_refused(text):
    with pytest.raises(UsageError, match="--freq"):
        parse_freq(text)


def test_a_named_weekday_is_meant():
    """W takes the weekday from the data, W-SUN does not."""
    saturdays = micros(pd.date_range("2024-01-06", periods=5, freq="W-SAT").to_numpy())
    assert parse_freq("W").fitted(saturdays).label == "1 week (Saturday)"
    with pytest.raises(OffGridError):
        parse_freq("W-SUN").fitted(saturdays).ordinals(saturdays)


def test_missing_rows_do_not_hide_the_step():
    hours = micros(pd.date_range("2024-01-01", periods=50, freq="h").to_numpy())
    assert infer(np.delete(hours, [3, 4, 20])).label == "1 hour"
    months = micros(pd.date_range("2020-01-31", periods=50, freq="ME").to_numpy())
    assert infer(np.delete(months, [1, 13, 14])).label == "1 month (end)"


def test_a_step_is_found_over_all_series_together():
    """One series alone, of every other month, would say two months."""
    one = micros(["2020-01-01", "2020-03-01"])
    other = micros(["2020-01-01", "2020-02-01", "2020-03-01", "2020-04-01"])
    assert infer(one, other).label == "1 month"
    assert infer(one[:1], other[:1]) is None


def test_day_of_the_month_thirty_is_the_last_of_february():
    stamps = micros(["2024-01-30", "2024-02-29", "2024-03-30", "2024-04-30"])
    step = infer(stamps)
    assert step.label == "1 month (day 30)"
    assert str(step.stamps([step.ordinals(stamps[:1])[0] + 13])[0]).startswith("2025-02-28")


def test_a_few_weekdays_are_days_and_weeks_of_them_business_days():
    assert infer(micros(["2024-01-01", "2024-01-02", "2024-01-03"])).unit == "day"
    assert infer(micros(["2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09"])).unit == "business_day"


def test_whole_numbers():
    assert infer(np.array([5, 10, 15, 25])).label == "5 steps"
    with pytest.raises(OffGridError) as caught:
        infer(np.array([5, 10, 15, 17]))
    assert caught.value.index == 3


def test_an_irregular_row_is_named():
    stamps = micros(["2024-01-01T00", "2024-01-01T01", "2024-01-01T02", "2024-01-01T02:40", "2024-01-01T04"])
    with pytest.raises(OffGridError) as caught:
        infer(stamps)
    assert caught.value.index == 3


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_positions_of_many_rows_are_found_some_at_a_time(monkeypatch, at_once):
    monkeypatch.setattr("stacklstm_cli.data.calendar.ROWS_AT_ONCE", at_once)
    step = Step("second", 3600)
    hours = np.arange(10)
    np.testing.assert_array_equal(step.ordinals(micros(hours.astype("datetime64[h]"))), hours)
    stamps = micros(hours.astype("datetime64[h]"))
    stamps[[7, 9]] += np.timedelta64(1, "s")
    with pytest.raises(OffGridError) as caught:
        step.ordinals(stamps)
    assert caught.value.index == 7


def test_floor_and_ceil_find_the_neighbours_on_the_grid():
    ends = Step("month", 1, "end")
    below = ends.floor(np.datetime64("2024-03-15"))
    assert str(ends.stamps([below])[0])[:10] == "2024-02-29"
    assert ends.ceil(np.datetime64("2024-03-15")) == below + 1
    assert ends.ceil(np.datetime64("2024-02-29")) == below
    weekdays = Step("business_day", 1)
    assert str(weekdays.stamps([weekdays.floor(np.datetime64("2024-03-17"))])[0])[:10] == "2024-03-15"
    assert str(weekdays.stamps([weekdays.ceil(np.datetime64("2024-03-17"))])[0])[:10] == "2024-03-18"
    assert (Step("step", 5, phase=2).floor(11), Step("step", 5, phase=2).ceil(12)) == (1, 2)


BINS = ["h", "15min", "7h", "D", "B", "W", "W-WED", "MS", "ME", "QS", "QS-FEB", "QE", "YS", "YE", "YE-JUN"]


@given(
    st.sampled_from(BINS),
    st.lists(st.datetimes(datetime.datetime(2019, 12, 20), datetime.datetime(2021, 2, 3)), min_size=1, max_size=30),
)
def test_rows_fall_into_the_bins_of_pandas(alias, moments):
    """W ends on Sunday, month ends name the month before them, a weekend is the Friday's."""
    index = pd.DatetimeIndex(sorted(moments)).as_unit("us")
    bins = pd.Series(1, index).resample(alias, **({"origin": "epoch"} if alias == "7h" else {})).sum()
    step = parse_freq(alias).at_origin()
    names, rows = np.unique(step.stamps(step.floors(index.to_numpy())), return_counts=True)
    np.testing.assert_array_equal(names, micros(bins[bins > 0].index.to_numpy()))
    assert rows.tolist() == bins[bins > 0].tolist()


@pytest.mark.parametrize("alias", [grid[0] for grid in GRIDS] + ["7", "QS-MAR", "W"])
def test_rows_on_the_grid_are_their_own_bins(alias):
    step = parse_freq(alias).at_origin()
    positions = np.arange(-300, 300)
    np.testing.assert_array_equal(step.floors(step.stamps(positions)), positions)


def test_other_bins():
    assert Step("step", 5, phase=2).floors(np.array([1, 2, 6, 7])).tolist() == [-1, 0, 0, 1]
    fifteenth = Step("month", 1, "15")
    named = fifteenth.stamps(fifteenth.floors(micros(["2024-03-14", "2024-03-15", "2024-04-01"])))
    assert named.astype("datetime64[D]").astype(str).tolist() == ["2024-02-15", "2024-03-15", "2024-03-15"]
    four = Step("business_day", 1, phase=16 * 3_600_000_000)
    named = four.stamps(four.floors(micros(["2024-03-15T15", "2024-03-15T16", "2024-03-18T10"])))
    assert named.astype(str).tolist() == [f"2024-03-{day}T16:00:00.000000" for day in (14, 15, 15)]


@pytest.mark.parametrize("alias", [grid[0] for grid in GRIDS] + ["7", "90min", "2D", "2MS", "QS-MAR", "0.5s"])
def test_a_step_names_its_alias(alias):
    """What a hint says to type is read as the same step, with the same weekday or month."""
    step = parse_freq(alias)
    assert parse_freq(step.alias) == step
    assert parse_freq(step.alias).at_origin().phase == step.at_origin().phase
