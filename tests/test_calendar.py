"""The step between rows and the way time is written."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacklstm_cli.data.calendar import OffGridError, Step, TimeForm, infer_step, parse_freq
from stacklstm_cli.data.stamps import StampError, find_forms, looks_like_time
from stacklstm_cli.errors import UsageError


def micros(values) -> np.ndarray:
    return np.asarray(values, dtype="datetime64[us]")


def words(*texts: str) -> np.ndarray:
    return np.asarray(texts, dtype=object)


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


FORMS = [
    ("2024-03-05", "%Y-%m-%d"), ("2024-03-05 18:30", "%Y-%m-%d %H:%M"), ("2024-03-05T18:30:15", "%Y-%m-%dT%H:%M:%S"),
    ("2024/03/05", "%Y/%m/%d"), ("25.03.2024", "%d.%m.%Y"), ("25/03/2024 06:05", "%d/%m/%Y %H:%M"),
    ("03/25/2024", "%m/%d/%Y"), ("25-03-24", "%d-%m-%y"), ("3/25/2024 6:05 PM", "%m/%d/%Y %I:%M %p"),
    ("20240305", "%Y%m%d"), ("202403", "%Y%m"), ("2024-03", "%Y-%m"), ("Mar 2024", "%b %Y"), ("Mar-24", "%b-%y"),
    ("05 Mar 2024", "%d %b %Y"), ("05MAR2024", "%d%b%Y"), ("March 2024", "%B %Y"), ("2024Q1", "%YQ%q"),
    ("2024-Q1", "%Y-Q%q"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "written"), FORMS, ids=[text for text, _ in FORMS])
def test_a_stamp_is_read_as_strptime_does_and_written_back(text, written):
    form, stamps = find_forms(words(text))[0]
    assert form.format == written
    assert form.texts(stamps) == [text]
    assert TimeForm.from_dict(form.as_dict()) == form
    if "%q" in written:
        assert str(stamps[0])[:10] == "2024-01-01"
    else:
        assert stamps[0] == np.datetime64(datetime.datetime.strptime(text, written), "us")


@pytest.mark.parametrize("text", ["2024-02-30", "31/02/2024", "2024-13", "25:00", "abc", "2020115", "2024-01-01x", "é"])
def test_what_is_no_date_is_no_time(text):
    assert not looks_like_time([text])


def test_offsets_become_instants():
    form, stamps = find_forms(
        words("2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00")
    )[0]
    assert np.diff(stamps).tolist() == [datetime.timedelta(hours=1)] * 2
    assert form.texts(stamps[1:]) == ["2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00"]
    np.testing.assert_array_equal(form.parse(words("2024-03-31T02:00:00Z")), stamps[2:])


def test_days_with_offsets_stay_calendar_days():
    form, stamps = find_forms(
        words("2024-03-30T00:00:00+01:00", "2024-03-31T00:00:00+01:00", "2024-04-01T00:00:00+02:00")
    )[0]
    assert infer(stamps).label == "1 day"
    assert form.texts(stamps[-1:]) == ["2024-04-01T00:00:00+02:00"]


def test_a_column_with_and_without_zone_is_refused():
    with pytest.raises(StampError) as caught:
        find_forms(words("2024-03-30T00:00:00Z", "2024-03-31T00:00:00"))
    assert caught.value.index == 1


def test_numbers_without_zeros_are_written_without():
    form, stamps = find_forms(words("9/7/20", "10/7/20", "31/7/20"))[0]
    step = infer(stamps)
    assert form.write(step, step.ordinals(stamps)[-1] + np.arange(1, 3)) == ["1/8/20", "2/8/20"]


def test_four_digits_are_numbers_unless_years_are_asked_for():
    assert find_forms(words("1960", "1961"))[0][0].kind == "integer"
    form, stamps = find_forms(words("1960", "1961"), years=True)[0]
    assert (form.texts(stamps), str(stamps[0])[:10]) == (["1960", "1961"], "1960-01-01")


def test_a_typed_stamp_may_be_short():
    form, _ = find_forms(words("25/03/2024 06:00"))[0]
    assert form.parse_stamp("26/03/2024 06:00") == np.datetime64("2024-03-26T06:00")
    assert form.parse_stamp("2024-03") == np.datetime64("2024-03-01")
    assert form.parse_stamp("2024-02", end=True) == np.datetime64("2024-02-29T23:59:59.999999")
    assert form.parse_stamp("1960", end=True) == np.datetime64("1960-12-31T23:59:59.999999")
    assert TimeForm("integer").parse_stamp("12") == 12
    zoned, _ = find_forms(words("2024-03-30T06:00:00+02:00"))[0]
    assert zoned.parse_stamp("2024-03-30T06:00:00") == np.datetime64("2024-03-30T04:00")
    for wrong in ("soon", "2024-03-30T06:00:00Z"):
        with pytest.raises(UsageError, match="no time stamp"):
            form.parse_stamp(wrong)
    with pytest.raises(UsageError, match="whole number"):
        TimeForm("integer").parse_stamp("2024-03")


MOMENTS = ["%Y-%m-%dT%H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d %b %Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p"]


@given(
    st.sampled_from(MOMENTS),
    st.lists(st.datetimes(datetime.datetime(1000, 1, 1), datetime.datetime(9998, 1, 1)), min_size=1, max_size=20),
)  # fmt: skip
def test_any_moment_is_read_as_strptime_does(pattern, moments):
    texts = [f"{moment:%Y}".zfill(4).join(moment.strftime(part) for part in pattern.split("%Y")) for moment in moments]
    truth = [datetime.datetime.strptime(text, pattern) for text in texts]
    form = TimeForm("datetime", pattern)
    stamps = form.parse(words(*texts))
    assert stamps.tolist() == truth
    assert form.texts(stamps) == texts
