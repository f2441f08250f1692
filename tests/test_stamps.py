"""The way time is written: found, read and written back."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacklstm_cli.data.calendar import Step
from stacklstm_cli.data.patterns import typed_formats
from stacklstm_cli.data.stamps import StampError, TimeForm, find_forms, looks_like_time
from stacklstm_cli.errors import UsageError


def words(*texts: str) -> np.ndarray:
    return np.asarray(texts, dtype=object)


FORMS = [
    ("2024-03-05", "%Y-%m-%d"), ("2024-03-05 18:30", "%Y-%m-%d %H:%M"), ("2024-03-05T18:30:15", "%Y-%m-%dT%H:%M:%S"),
    ("2024/03/05", "%Y/%m/%d"), ("25.03.2024", "%d.%m.%Y"), ("25/03/2024 06:05", "%d/%m/%Y %H:%M"),
    ("03/25/2024", "%m/%d/%Y"), ("25-03-24", "%d-%m-%y"), ("3/25/2024 6:05 PM", "%m/%d/%Y %I:%M %p"),
    ("20240305", "%Y%m%d"), ("202403", "%Y%m"), ("2024-03", "%Y-%m"), ("Mar 2024", "%b %Y"), ("Mar-24", "%b-%y"),
    ("05 Mar 2024", "%d %b %Y"), ("05MAR2024", "%d%b%Y"), ("March 2024", "%B %Y"), ("2024Q1", "%YQ%q"),
    ("2024-Q1", "%Y-Q%q"), ("Q1-2024", "Q%q-%Y"), ("2024M03", "%YM%m"), ("2024-M03", "%Y-M%m"), ("Mar2024", "%b%Y"),
    ("20240305T1830", "%Y%m%dT%H%M"), ("20240305T183015", "%Y%m%dT%H%M%S"), ("25.03.2024 18.30", "%d.%m.%Y %H.%M"),
    ("25.03.2024 18.30.15", "%d.%m.%Y %H.%M.%S"), ("Mon 25 Mar 2024", "%a %d %b %Y"),
    ("Monday, 25 March 2024", "%A, %d %B %Y"), ("TUE 05 MAR 2024", "%a %d %b %Y"), ("Mon 2024-03-25", "%a %Y-%m-%d"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "written"), FORMS, ids=[text for text, _ in FORMS])
def test_a_stamp_is_read_as_strptime_does_and_written_back(text, written):
    reading = find_forms(words(text))[0]
    form, stamps = reading.form, reading.clock
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
    reading = find_forms(words("2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00"))[
        0
    ]
    form, instants = reading.form, reading.instants
    assert np.diff(instants).tolist() == [datetime.timedelta(hours=1)] * 2
    assert form.texts(instants[1:]) == ["2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00"]
    np.testing.assert_array_equal(form.parse(words("2024-03-31T02:00:00Z")), instants[2:])
    assert form.clock(instants[2:]).tolist() == [datetime.datetime(2024, 3, 31, 4)]


def test_a_column_with_and_without_zone_is_refused():
    with pytest.raises(StampError) as caught:
        find_forms(words("2024-03-30T00:00:00Z", "2024-03-31T00:00:00"))
    assert caught.value.index == 1


def test_numbers_without_zeros_are_written_without():
    reading = find_forms(words("9/7/20", "10/7/20", "31/7/20"))[0]
    following = Step("day").ordinals(reading.clock)[-1] + np.arange(1, 3)
    assert reading.form.write(Step("day"), following) == ["1/8/20", "2/8/20"]


@pytest.mark.parametrize(
    ("texts", "later"),
    [
        (["1/05/2020", "12/31/2020"], "2/03/2021"),
        (["01/5/2020", "12/31/2020"], "02/3/2021"),
        (["10/11/2020", "12/31/2020"], "02/03/2021"),
        (["9/30/2020 14:05", "12/31/2020 14:05"], "2/3/2021 0:00"),
        (["9/30/2020 08:05", "12/31/2020 14:05"], "2/3/2021 00:00"),
        (["9/30/2020 8:05", "12/31/2020 14:05"], "2/3/2021 0:00"),
    ],
)
def test_each_number_keeps_its_own_zeros(texts, later):
    """Days that all have two digits are written as the months are."""
    form = next(one.form for one in find_forms(words(*texts)) if one.form.format.startswith("%m"))
    assert form.texts(np.asarray(["2021-02-03"], dtype="datetime64[us]")) == [later]


def test_a_model_knows_what_few_rows_do_not_show():
    known = find_forms(words("1/7/20", "31/7/20"))[0].form
    late = find_forms(words("10/11/20", "31/12/20"), like=known)[0].form
    assert late.texts(np.asarray(["2021-02-03"], dtype="datetime64[us]")) == ["3/2/21"]


def test_files_of_the_first_version_say_it_in_two_fields():
    old = {"kind": "datetime", "format": "%d/%m/%y %H:%M", "padded": False, "padded_hour": False, "fraction": 0}
    form = TimeForm.from_dict({**old, "zone": "", "local": False, "letters": "title"})
    assert form.texts(np.asarray(["2021-02-03T04:05"], dtype="datetime64[us]")) == ["3/2/21 4:05"]


def test_midnight_at_the_end_of_the_day_is_written_so():
    reading = find_forms(words("2024-02-28 23:00", "2024-02-28 24:00", "2024-02-29 01:00"))[0]
    assert reading.clock.astype("datetime64[h]").astype(str).tolist() == [
        "2024-02-28T23", "2024-02-29T00", "2024-02-29T01"
    ]  # fmt: skip
    assert reading.form.texts(reading.clock + np.timedelta64(1, "D"))[1] == "2024-02-29 24:00"
    with pytest.raises(StampError) as caught:
        find_forms(words("2024-02-28 00:00", "2024-02-28 23:00", "2024-02-28 24:00"))
    assert caught.value.index == 2


def test_iso_weeks_are_those_of_the_calendar():
    days = [datetime.date(2019, 12, 30) + datetime.timedelta(days=7 * week) for week in range(400)]
    texts = ["{:04d}-W{:02d}".format(*day.isocalendar()) for day in days]
    reading = find_forms(words(*texts))[0]
    assert [moment.date() for moment in reading.clock.tolist()] == days
    assert reading.form.texts(reading.clock) == texts
    assert not looks_like_time(["2021-W53"])


def test_whole_numbers_with_a_point():
    reading = find_forms(words("1.0", "2.0", "13.0"))[0]
    assert reading.clock.tolist() == [1, 2, 13]
    assert reading.form.texts(np.array([14])) == ["14.0"]
    with pytest.raises(StampError) as caught:
        find_forms(words("1.0", "2.0", "2.5"))
    assert caught.value.index == 2


def test_compact_hours():
    reading = find_forms(words("2024010100", "2024010123", "2024020115"))[0]
    assert str(reading.clock[1]) == "2024-01-01T23:00:00.000000"
    assert reading.form.texts(reading.clock) == ["2024010100", "2024010123", "2024020115"]


@pytest.mark.parametrize(
    ("texts", "kinds"),
    [
        (("240131", "240201"), ["integer", "datetime"]),
        (("240131", "240132"), ["integer"]),
        (("240131.0", "240201.0"), ["integer", "datetime"]),
        (("20240131.0", "20240201.0"), ["datetime"]),
        (("202401.0", "202402.0"), ["datetime"]),
    ],
)
def test_numbers_that_may_be_dates(texts, kinds):
    """Six digits may be both; each reading is written back with the zeros that pandas puts behind the point."""
    readings = find_forms(words(*texts))
    assert [reading.form.kind for reading in readings] == kinds
    for reading in readings:
        assert tuple(reading.form.texts(reading.form.parse(words(*texts)))) == texts


def test_six_digits_look_like_dates_only_beyond_a_month():
    """What counts up from 240101 to 240131 may be anything; further on it would hold days that are none."""
    january = [f"2401{day:02d}" for day in range(1, 32)]
    february = [f"2402{day:02d}" for day in range(1, 30)]
    assert not looks_like_time(january)
    assert looks_like_time(january + february)
    assert not looks_like_time([str(number) for number in range(240101, 240230)])
    assert not looks_like_time(["110101", "120229"])


def test_weeks_without_a_leading_zero():
    """In a column of their own."""
    form = find_forms(words("2024 1", "2024 10"), formats=typed_formats("%G %V", 2))[0].form
    assert form.texts(form.parse(words("2024 9", "2024 52"))) == ["2024 9", "2024 52"]


@pytest.mark.parametrize("shown", ["Jan-{:02d}", "Jan {:02d}"])
def test_months_that_a_spreadsheet_took_for_days(shown):
    """Jan-01 became the first of January, Jan-32 could not."""
    months = [f"{year % 100}-Jan" if year > 2000 else shown.format(year % 100) for year in range(1983, 2023)]
    reading = find_forms(words(*months))[0]
    assert reading.clock.astype("datetime64[Y]").astype(int).tolist() == list(range(13, 53))
    assert months[reading.damaged] == "1-Jan"
    assert reading.form.texts(reading.clock[-1:]) == [shown.format(22)]
    with pytest.raises(StampError):
        find_forms(words("1-Jan", "2-Jan"))
    assert find_forms(words("1-Jan", "2-Jan"), like=reading.form)[0].damaged == 0


# --- a form that was typed ---


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("%d/%m/%Y", "02/01/2024"),
        ("%Y-%m-%d %H:%M:%S", "2024-01-02 03:04:05"),
        ("%Y%m%d", "20240102"),
        ("%Y", "2024"),
        ("%d.%m.%y at %I:%M %p", "02.01.24 at 03:04 PM"),
        ("%A, %d %B %Y", "Tuesday, 02 January 2024"),
        ("%a %d-%b-%y", "Tue 02-Jan-24"),
        ("%G-W%V", "2024-W02"),
        ("%d%m%Y%H%M", "020120240304"),
        ("%Y-%m-%d %H:%M:%S.%f", "2024-01-02 03:04:05.678"),
        ("%Y-%m-%dT%H:%M%z", "2024-01-02T03:04+01:00"),
        ("week of %F", "week of 2024-01-02"),
        ("%d.%m.%Y 100%%", "02.01.2024 100%"),
    ],
)
def test_a_typed_form_is_what_strptime_reads(typed, text):
    reading = find_forms(words(text), formats=typed_formats(typed, 1))[0]
    long = typed.replace("%F", "%Y-%m-%d")
    dated = (text + "-1", long + "-%u") if "%V" in typed else (text, long)
    truth = datetime.datetime.strptime(*dated)
    assert reading.clock.tolist() == [truth.replace(tzinfo=None)]
    shown = reading.clock if reading.instants is None else reading.instants
    assert reading.form.texts(shown) == [text]


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("%Y-%j", "%j cannot be read"), ("%Y %U", "%U"), ("%s", "%s"), ("%Y-%m-%d %Z", "%Z"), ("%", "%"),
        ("%d/%m", "no year"), ("%H:%M", "no year"), ("%Y-%m-%d %I:%M", "%I and %p"), ("%Y-%m-%d %p", "%I and %p"),
        ("%Y %d", "day without a month"), ("%Y-%m %H", "hour without a day"), ("%Y %y", "%Y and %y both give the year"),
        ("%Y-%m-%b", "%m and %b both"), ("%G-%m", "%G and %V"), ("", "no year"),
    ],
)  # fmt: skip
def test_a_typed_form_that_is_none_is_refused(typed, why):
    with pytest.raises(UsageError, match="--date-format") as caught:
        typed_formats(typed, 1)
    assert why in caught.value.message
    assert "%Y" in caught.value.hint


def test_a_typed_form_of_several_columns():
    """A blank parts the columns, or stands inside of one."""
    assert typed_formats("%Y %m %d", 3) == ["%Y\x1f%m\x1f%d"]
    assert typed_formats("%d.%m.%Y %I:%M %p", 2) == ["%d.%m.%Y\x1f%I:%M %p", "%d.%m.%Y %I:%M\x1f%p"]
    with pytest.raises(UsageError, match="2 columns, and a blank"):
        typed_formats("%Y-%m-%d", 2)


def test_four_digits_are_numbers_unless_years_are_asked_for():
    assert find_forms(words("1960", "1961"))[0].form.kind == "integer"
    reading = find_forms(words("1960", "1961"), years=True)[0]
    assert (reading.form.texts(reading.clock), str(reading.clock[0])[:10]) == (["1960", "1961"], "1960-01-01")


def test_a_typed_stamp_may_be_short():
    form = find_forms(words("25/03/2024 06:00"))[0].form
    assert form.parse_stamp("26/03/2024 06:00") == np.datetime64("2024-03-26T06:00")
    assert form.parse_stamp("2024-03") == np.datetime64("2024-03-01")
    assert form.parse_stamp("2024-02", end=True) == np.datetime64("2024-02-29T23:59:59.999999")
    assert form.parse_stamp("1960", end=True) == np.datetime64("1960-12-31T23:59:59.999999")
    assert TimeForm("integer").parse_stamp("12") == 12
    zoned = find_forms(words("2024-03-30T06:00:00+02:00"))[0].form
    assert zoned.parse_stamp("2024-03-30T06:00:00") == np.datetime64("2024-03-30T04:00")
    for wrong in ("soon", "2024-03-30T06:00:00Z"):
        with pytest.raises(UsageError, match="no time stamp"):
            form.parse_stamp(wrong)
    with pytest.raises(UsageError, match="whole number"):
        TimeForm("integer").parse_stamp("2024-03")


def test_a_typed_stamp_is_local_time_of_the_zone():
    form = TimeForm("datetime", "%Y-%m-%d %H:%M", tz="Europe/Berlin")
    assert form.parse_stamp("2024-07-01 12:00") == np.datetime64("2024-07-01T10:00")
    assert form.parse_stamp("2024-07", end=True) == np.datetime64("2024-07-31T21:59:59.999999")
    assert form.parse_stamp("2024-07-01T12:00:00Z") == np.datetime64("2024-07-01T12:00")
    days = TimeForm("datetime", "%Y-%m-%d", tz="Europe/Berlin", local=True)
    assert days.parse_stamp("2024-07-01") == np.datetime64("2024-07-01")
    split = TimeForm("datetime", "%Y\x1f%m\x1f%d", unpadded="md")
    assert split.parse_stamp("2024 7 1") == np.datetime64("2024-07-01")


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
