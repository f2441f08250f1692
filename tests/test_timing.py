"""The time of every row: read right and written on in the same form, or refused with the option that settles it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklstm_cli.config import ReadingConfig
from stacklstm_cli.data.calendar import Step, TimeForm, parse_freq
from stacklstm_cli.data.gridding import Rows
from stacklstm_cli.data.panel import Columns, Stored
from stacklstm_cli.data.split import split_time
from stacklstm_cli.data.timing import read_time
from stacklstm_cli.errors import DataError, ModelError, StacklstmError, UsageError

Texts = Sequence[str]


class Lines:
    """The part of a table that messages ask: the header is line 1."""

    name = "data.csv"

    def place(self, row: int) -> str:
        return f"data.csv, line {row + 2}"

    def places(self, first: int, second: int) -> str:
        return f"data.csv, lines {first + 2} and {second + 2}"


@dataclass
class Read:
    form: TimeForm
    stamps: np.ndarray
    step: Step
    notes: list[str]

    @property
    def positions(self) -> np.ndarray:
        return self.step.ordinals(self.stamps)

    def future(self, count: int) -> list[list[str]]:
        """The columns of the rows after the last one."""
        return self.form.columns(self.step, self.positions.max() + 1 + np.arange(count))

    @property
    def stored(self) -> Stored:
        return Stored(Columns("single", ("date",), (), ("v",)), self.step, self.form)


def read(
    *columns: Texts, names: str = "date", freq: str | None = None, stored: Stored | None = None, series=None, **reading
) -> Read:
    """Columns of time as text; `names` are theirs, apart by blanks."""
    time = tuple(np.asarray([*column, ""], dtype=object)[:-1] for column in columns)
    count = len(columns[0]) if columns else len(series)
    codes = np.zeros(count, dtype=np.int32) if series is None else np.asarray(series, dtype=np.int32)
    keys = tuple((f"s{number}",) for number in range(codes.max() + 1)) if series is not None else ((),)
    rows = Rows(Lines(), np.arange(count, dtype=np.int32), codes, keys, ())  # type: ignore[arg-type]
    roles = Columns("single", tuple(names.split()) if columns else (), (), ("v",))
    notes: list[str] = []
    return Read(*read_time(rows, time, roles, freq, ReadingConfig(**reading), stored, notes), notes)


def refused(error: type[StacklstmError], *columns: Texts, **options) -> StacklstmError:
    with pytest.raises(error) as caught:
        read(*columns, **options)
    assert caught.value.code
    assert caught.value.hint
    return caught.value


def days(first: str, count: int, form: str = "%Y-%m-%d", freq: str = "D") -> list[str]:
    return pd.date_range(first, periods=count, freq=freq).strftime(form).tolist()


# --- zones ---

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
LABELS = {"15min": "15 minutes", "h": "1 hour", "D": "1 day", "W": "1 week (Sunday)", "MS": "1 month"}
WRITTEN = ["naive", "day-first", "split", "offset", "Z"]


def text_of(moment: pd.Timestamp, written: str) -> tuple[str, ...]:
    """What stands in the columns of time."""
    if written == "naive":
        return (moment.strftime("%Y-%m-%d %H:%M"),)
    if written == "day-first":
        return (f"{moment.day}.{moment.month}.{moment.year} {moment.hour}:{moment.minute:02d}",)
    if written == "split":
        return moment.strftime("%m/%d/%Y"), moment.strftime("%H:%M")
    if written == "offset":
        return (moment.isoformat(),)
    return (moment.tz_convert("UTC").strftime("%Y-%m-%dT%H:%M:%SZ"),)


@settings(deadline=None, max_examples=50)
@given(
    zone=st.sampled_from(ZONES),
    freq=st.sampled_from(sorted(LABELS)),
    written=st.sampled_from(WRITTEN),
    first=st.dates(pd.Timestamp("2023-01-01").date(), pd.Timestamp("2024-12-31").date()),
    back=st.booleans(),
)
def test_any_zone_and_step_is_read_and_written_on_as_pandas_does(zone, freq, written, first, back):
    """Instants for steps below a day, days of the calendar from a day on; no row lost or doubled at a switch."""
    # pandas may know no switches behind 2037.
    count = {"15min": 2000, "MS": 120}.get(freq, 500)
    start = pd.Timestamp(first) + pd.Timedelta(hours=12 if freq in ("15min", "h") else 0)
    whole = pd.date_range(start, periods=count, freq=freq, tz=zone)
    truth, later = whole[:-50], whole[-50:]
    rows = truth[::-1] if back else truth
    columns = list(zip(*(text_of(moment, written) for moment in rows), strict=True))
    names = "Date Time" if written == "split" else "date"
    found = read(*columns, names=names, tz=zone)
    assert found.step.label == LABELS[freq]
    position = found.positions[::-1] if back else found.positions
    np.testing.assert_array_equal(np.diff(position), 1)
    assert found.form.columns(found.step, found.positions) == [list(column) for column in columns]
    following = list(zip(*(text_of(moment, written) for moment in later), strict=True))
    assert found.future(50) == [list(column) for column in following]
    np.testing.assert_array_equal(found.form.clock(found.stamps), rows.tz_localize(None).to_numpy())
    assert TimeForm.from_dict(found.form.as_dict()) == found.form


@pytest.mark.parametrize(("freq", "unit"), [("h", "second"), ("D", "day"), ("W-MON", "day"), ("MS", "month")])
def test_offsets_alone_tell_instants_and_calendar_days(freq, unit):
    """Without --tz the last offset is written on."""
    truth = pd.date_range("2024-01-01", periods=60 if freq != "h" else 3000, freq=freq, tz="Europe/Berlin")
    found = read([moment.isoformat() for moment in truth])
    assert found.step.unit == unit
    np.testing.assert_array_equal(np.diff(found.positions), 1)
    offset = truth[-1].isoformat()[-6:]
    assert all(text.endswith(offset) for text in found.future(3)[0])


def test_midnight_of_a_place_written_in_utc_is_its_day():
    """The zone that is typed tells what 23:00 and 22:00 UTC are."""
    truth = pd.date_range("2024-01-01", periods=200, freq="D", tz="Europe/Berlin")
    found = read(truth.tz_convert("UTC").strftime("%Y-%m-%dT%H:%MZ").tolist(), tz="Europe/Berlin")
    assert (found.step.label, found.future(1)) == ("1 day", [["2024-07-18T22:00Z"]])


def test_fixed_hours_of_the_clock_are_regular():
    truth = pd.date_range("2024-03-01", periods=80, freq="12h")
    found = read(truth.strftime("%Y-%m-%d %H:%M").tolist(), tz="Europe/Berlin")
    assert (found.step.label, found.form.local) == ("12 hours", True)


def test_a_skipped_hour_is_named():
    error = refused(DataError, days("2024-03-31", 5, "%Y-%m-%d %H:%M", "h"), tz="Europe/Berlin")
    assert "line 4: time 2024-03-31 02:00 is not there in Europe/Berlin" in error.message
    assert "--tz" in error.hint


def test_repeated_hours_in_no_order_are_named():
    rows = [f"2024-10-27 0{hour}:00" for hour in (2, 3, 1, 2, 4)]
    error = refused(DataError, rows, tz="Europe/Berlin")
    assert "line 5: time 2024-10-27 02:00 stands twice" in error.message
    assert "Sort" in error.hint


def test_two_series_have_two_repeated_hours():
    local = pd.date_range("2024-10-26", periods=60, freq="h", tz="Europe/Berlin").strftime("%Y-%m-%d %H:%M").tolist()
    found = read(local + local, tz="Europe/Berlin", series=[0] * 60 + [1] * 60)
    assert any("4 rows at hours that the clocks of Europe/Berlin show twice" in note for note in found.notes)
    assert np.diff(found.positions)[:59].tolist() == np.diff(found.positions)[60:].tolist() == [1] * 59


def test_a_zone_needs_dates():
    assert "whole numbers" in refused(UsageError, ["1", "2"], tz="UTC").message
    assert "--tz needs a time column" in refused(UsageError, series=[0, 0], tz="UTC").message
    assert "Europe/Berlin" in refused(UsageError, days("2024-01-01", 3), tz="Europe/Berln").hint


# --- dates split over columns ---


@pytest.mark.parametrize("freq", ["h", "D", "MS", "15min"])
@pytest.mark.parametrize("zeros", [True, False])
def test_year_month_day_and_hour(freq, zeros):
    """The parts come out as they came in, with zeros or without."""
    parts = {"MS": ["year", "month"], "D": ["year", "month", "day"], "h": ["year", "month", "day", "hour"]}
    names = parts.get(freq, ["year", "month", "day", "hour", "minute"])
    whole = pd.date_range("2023-11-01", periods=400, freq=freq)
    columns = [[f"{getattr(moment, name):0{1 + zeros}d}" for moment in whole] for name in names]
    found = read(*(column[:380] for column in columns), names=" ".join(names))
    np.testing.assert_array_equal(found.form.clock(found.stamps), whole[:380].to_numpy())
    assert found.future(20) == [column[380:] for column in columns]
    assert split_time(["v", *names], [np.array(column) for column in ([str(n / 7) for n in range(400)], *columns)]) == (
        *range(1, len(names) + 1),
    )


@pytest.mark.parametrize(
    ("names", "rows", "label", "following"),
    [
        ("Yr Mon", ["2023 Nov", "2023 Dec", "2024 Jan"], "1 month", "2024 Feb"),
        ("month year", ["November 2023", "December 2023"], "1 month", "January 2024"),
        ("year mnth dom hr", ["2024 2 28 22", "2024 2 28 23", "2024 2 29 0"], "1 hour", "2024 2 29 1"),
        ("YEAR QTR", ["2023 3", "2023 4", "2024 1"], "1 quarter", "2024 2"),
        ("year q", ["2023 Q3", "2023 Q4"], "1 quarter", "2024 Q1"),
        ("yr mo day hour min sec", ["24 1 1 0 0 50", "24 1 1 0 0 55"], "5 seconds", "24 1 1 0 1 0"),
        ("date time", ["31.12.2023 23.30.00", "01.01.2024 00.00.00"], "30 minutes", "01.01.2024 00.30.00"),
        ("Date Hour", ["20231231 22", "20231231 23"], "1 hour", "20240101 0"),
        ("day hour", ["2023-12-31 22:00", "2023-12-31 23:00"], "1 hour", "2024-01-01 00:00"),
        ("date hour", ["2023-12-31 22", "2023-12-31 23", "2023-12-31 24", "2024-01-01 1"], "1 hour", "2024-01-01 2"),
        ("month day", ["2023-12 30", "2023-12 31"], "1 day", "2024-01 1"),
    ],
)
def test_split_forms(names, rows, label, following):
    found = read(*zip(*(row.split() for row in rows), strict=True), names=names)
    assert found.step.label == label
    assert [column[0] for column in found.future(1)] == following.split()
    assert found.form.write(found.step, [found.positions.max() + 1]) == [following]


def test_a_clock_with_am_and_pm():
    found = read(["1/2/2024"] * 2 + ["1/3/2024"] * 2, ["6:00 AM", "6:00 PM"] * 2, names="Date Time", freq="12h")
    assert found.form.format == "%m/%d/%Y\x1f%I:%M %p"
    assert found.future(1) == [["1/4/2024"], ["6:00 AM"]]


def test_what_columns_make_no_time():
    error = refused(DataError, ["a", "b"], ["1", "2"], names="x y")
    assert (error.code, "'x' and 'y'" in error.message) == ("unreadable_time", True)
    assert "--date-format" in error.hint
    error = refused(DataError, ["2024", "2024", "2024"], ["1", "2", "13"], names="year month")
    assert "line 4, columns 'year' and 'month': '2024 13' is no time stamp" in error.message
    error = refused(DataError, ["2024-01-01"] * 3, ["0", "23", "24"], names="date hour")
    assert "line 4, columns 'date' and 'hour': '2024-01-01 24'" in error.message
    assert "24:00 is midnight only where no row is written 0:00" in error.message
    error = refused(DataError, ["2024", "2024"], ["1", ""], names="year month")
    assert "line 3, column 'month': no time stamp" in error.message


def columns_of(**columns) -> tuple[list[str], list[np.ndarray]]:
    return list(columns), [np.asarray([*map(str, column), ""], dtype=object)[:-1] for column in columns.values()]


HOURS = pd.date_range("2024-01-01", periods=72, freq="h")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (columns_of(v=range(72), Date=HOURS.date, Time=HOURS.time), (1, 2)),
        (columns_of(hr=HOURS.hour, v=range(72), dteday=HOURS.date), (2, 0)),
        (columns_of(hour=HOURS.hour, minute=[0] * 72, date=HOURS.date, v=range(72)), (2, 0, 1)),
        (columns_of(date=HOURS, hour=HOURS.hour, v=range(72)), ()),
        (columns_of(v=range(72), date=HOURS.date, hour=HOURS.hour, stamp=HOURS), ()),
        (columns_of(stamp=HOURS, year=HOURS.year, month=HOURS.month, day=HOURS.day), ()),
        (columns_of(date=HOURS.date.repeat(2)[::2], v=range(72)), ()),
        (columns_of(No=range(72), year=HOURS.year, month=HOURS.month, day=HOURS.day, hour=HOURS.hour), (1, 2, 3, 4)),
        (columns_of(month=HOURS.month_name(), year=HOURS.year, v=range(72)), (1, 0)),
        (columns_of(year=HOURS.year, month=HOURS.month, day=HOURS.day_name(), hour=HOURS.hour), (0, 1)),
        (columns_of(year=range(1950, 2022), v=range(72)), ()),
        (columns_of(year=HOURS.year, month=[99] * 72, v=range(72)), ()),
        # Hours that a shop is open are no clock: date and shop tell the rows apart.
        (
            columns_of(date=["2024-01-01", "2024-01-02"] * 36, shop=[f"s{n // 2}" for n in range(72)], hours=[8] * 72),
            (),
        ),
    ],
)
def test_which_columns_are_the_time(columns, expected):
    assert split_time(*columns) == expected


# --- a form that is typed ---


def test_a_typed_form_settles_what_comes_first():
    ambiguous = [f"01/{month:02d}/2024" for month in range(1, 13)]
    error = refused(DataError, ambiguous)
    assert error.code == "ambiguous_dates"
    assert "--date-format '%d/%m/%Y' or '%m/%d/%Y'" in error.hint
    assert read(ambiguous, date_format="%d/%m/%Y").step.label == "1 month"
    assert read(ambiguous, date_format="%m/%d/%Y").step.label == "1 day"


def test_a_row_of_another_form_is_named():
    error = refused(DataError, ["2024-01-01", "2024-01-02", "03.01.2024"], date_format="%Y-%m-%d")
    assert "line 4, column 'date': '03.01.2024' found; expected --date-format '%Y-%m-%d'" in error.message
    error = refused(DataError, ["2024-01-01", "2024-01-02", "03.01.2024"])
    assert "line 4, column 'date': '03.01.2024' is no time stamp" in error.message
    assert "--date-format" in error.hint
    assert "%j" in refused(UsageError, ["2024-001"], date_format="%Y-%j").message


def test_a_typed_form_of_several_columns():
    found = read(["1", "1", "2"], ["30", "31", "1"], ["24", "24", "24"], names="a b c", date_format="%m %d %y")
    assert found.future(1) == [["2"], ["2"], ["24"]]
    found = read(["2.1.2024"] * 2, ["11:00 AM", "12:00 PM"], names="d t", date_format="%d.%m.%Y %I:%M %p")
    assert found.future(1) == [["2.1.2024"], ["1:00 PM"]]


# --- what a model knows ---


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y"])
def test_a_model_settles_day_first_or_month_first(form):
    known = read(days("2024-01-20", 40, form)).stored
    few = read(days("2024-02-01", 3, form), stored=known)
    np.testing.assert_array_equal(few.stamps, pd.date_range("2024-02-01", periods=3).to_numpy())
    one = read(["04/03/2024"], stored=known)
    assert one.form.format == form


def test_business_days_and_days_are_two_steps():
    daily, business = read(days("2024-01-01", 30)).stored, read(days("2024-01-01", 30, freq="B")).stored
    error = refused(ModelError, days("2024-02-01", 20, freq="B"), stored=daily)
    assert (error.code, "--freq D" in error.hint) == ("step_differs", True)
    assert read(days("2024-02-01", 20, freq="B"), stored=daily, freq="D").step.unit == "day"
    refused(StacklstmError, days("2024-02-01", 20), stored=business)
    assert read(days("2024-02-05", 3), stored=business).step.unit == "business_day"


def test_business_days_without_holidays():
    rows = days("2024-01-01", 60, freq="B")
    found = read([row for at, row in enumerate(rows) if at not in (7, 20, 21)])
    assert (found.step.unit, found.future(1)) == ("business_day", [["2024-03-25"]])


# --- months that a spreadsheet has taken for days ---


def test_damaged_months_are_read_and_said():
    rows = [f"{year % 100}-Jan" if year > 2000 else f"Jan-{year % 100:02d}" for year in range(1983, 2023)]
    found = read(rows)
    assert (found.step.label, found.future(1)) == ("1 year", [["Jan-23"]])
    assert any("line 20: '1-Jan'" in note and "Jan-01" in note for note in found.notes)
    assert any("Two-digit years" in note for note in found.notes)


def test_damaged_months_that_make_no_grid_are_no_dates():
    error = refused(DataError, ["Jan-98", "Feb-98", "Mar-98", "3-Jan", "3-Jan-98"])
    assert error.code == "bad_timestamp"


# --- aggregation ---


def test_irregular_rows_are_refused_with_the_step_to_aggregate_to():
    rows = ["2024-01-01 07:59:42", "2024-01-01 08:25:42", "2024-01-01 08:59:42", "2024-01-01 09:32:10"]
    error = refused(DataError, rows)
    assert "lines 3 and 4: times 2024-01-01 08:25:42 and 2024-01-01 08:59:42" in error.message
    assert "--freq 30min --aggregate mean" in error.hint
    found = read(rows, freq="30min", aggregate="mean")
    assert str(found.step.stamps(found.step.floors(found.stamps))[0]) == "2024-01-01T07:30:00.000000"
    assert str(found.stamps[0]) == "2024-01-01T07:59:42.000000"
    assert "--freq W-SUN" in refused(DataError, [*days("2024-01-07", 9, freq="W"), "2024-03-12"]).hint


def test_aggregation_needs_a_step():
    error = refused(UsageError, days("2024-01-01", 9), aggregate="sum")
    assert "--freq" in error.message
    assert "--freq h --aggregate sum" in error.hint
    known = read(days("2024-01-07", 9, freq="W-WED")).stored
    found = read(days("2024-03-01", 30), aggregate="sum", stored=known)
    assert found.step.label == "1 week (Wednesday)"
    assert read(days("2024-03-01", 30), aggregate="sum", stored=known, freq="W").step.label == "1 week (Wednesday)"
    refused(ModelError, days("2024-03-01", 30), aggregate="sum", stored=known, freq="MS")
    assert "needs a time column" in refused(UsageError, series=[0, 0], aggregate="sum").message


@pytest.mark.parametrize(("freq", "first"), [("D", "2024-03-30"), ("W", "2024-03-31"), ("ME", "2024-03-31")])
def test_days_of_a_zone_are_aggregated_by_its_calendar(freq, first):
    truth = pd.date_range("2024-03-30", periods=100, freq="h", tz="Europe/Berlin")
    found = read([moment.isoformat() for moment in truth], freq=freq, aggregate="mean", tz="Europe/Berlin")
    bins = pd.Series(1, truth.tz_localize(None)).resample(freq).sum()
    names, rows = np.unique(found.step.stamps(found.step.floors(found.stamps)), return_counts=True)
    assert str(names[0])[:10] == first
    assert rows.tolist() == bins.tolist()


# --- steps ---


def test_a_given_step_must_fit():
    assert "holds dates" in refused(UsageError, days("2024-01-01", 3), freq="5").message
    assert "holds whole numbers" in refused(UsageError, ["1", "2"], freq="D").message
    assert "--freq (1 week" in refused(DataError, days("2024-01-01", 9, freq="2D"), freq="W").message
    assert "--freq needs a time column" in refused(UsageError, series=[0, 0], freq="D").message


def test_rows_without_time_are_counted_in_each_series():
    found = read(series=[0, 1, 0, 1, 1])
    assert found.stamps.tolist() == [0, 0, 1, 1, 2]
    assert found.form.columns(found.step, [3, 4]) == [["3", "4"]]


def test_whole_numbers_with_a_point_are_written_so():
    assert read(["1.0", "2.0", "3.0"]).future(2) == [["4.0", "5.0"]]


@pytest.mark.parametrize("alias", ["QS", "QE", "W-WED"])
def test_quarters_and_weeks(alias):
    texts = [f"{q.year}-Q{q.quarter}" for q in pd.period_range("2020Q1", periods=9, freq="Q")]
    found = read(texts if alias != "W-WED" else days("2024-01-01", 9, freq="W-WED"), freq=None)
    assert found.step == parse_freq("QS" if alias != "W-WED" else alias)
