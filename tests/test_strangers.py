"""Files as strangers have them: each is read the right way, or refused with the line, the value and the way out.

The faults are those of real files; the rows are made here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_files import Read, following, read, refused, values_of

from stacklstm_cli.errors import DataError, UsageError

__all__ = ["read"]

# --- Date and Time in two columns, -200 for missing, empty columns and rows behind the table, CRLF ---


def air(first: str) -> str:
    hours = pd.date_range(first, periods=40, freq="h")
    rows = [
        f"{hour.month}/{hour.day}/{hour.year},{hour.hour:02d}:00:00,{-200 if at % 7 == 3 else at / 10},{at + 50},,"
        for at, hour in enumerate(hours)
    ]
    return "\r\n".join(["Date,Time,CO(GT),T,,", *rows, *[",,,,,"] * 4]) + "\r\n"


@pytest.mark.parametrize(
    ("first", "last"),
    [("2004-03-29 18:00", "3/31/2004"), ("2004-03-10 18:00", "3/12/2004"), ("2004-12-31", "1/1/2005")],
)
def test_a_date_and_a_clock_in_two_columns(read: Read, first: str, last: str) -> None:
    """Month-first also where no day is above 12: only that makes whole days."""
    panel = read(air(first), missing_value=("-200",))
    assert panel.keys == (("CO(GT)",), ("T",))
    assert panel.step.label == "1 hour"
    assert values_of(panel, "T") == [at + 50 for at in range(40)]
    expected = [np.nan if at % 7 == 3 else at / 10 for at in range(40)]
    np.testing.assert_array_equal(values_of(panel, "CO(GT)"), expected)
    behind = pd.Timestamp(first) + pd.Timedelta(hours=40)
    assert following(panel) == {"Date": [last], "Time": [f"{behind.hour:02d}:00:00"]}


def test_a_number_that_means_missing_is_not_guessed(read: Read) -> None:
    """Without --missing-value it is a number like any other."""
    assert np.nanmin(read(air("2004-03-29 18:00")).values) == -200


# --- year, month, day and hour in columns of their own, a row number, NA ---


def smog(rows: int = 60) -> str:
    hours = pd.date_range("2010-01-30 20:00", periods=rows, freq="h")
    lines = [
        f"{at + 1},{hour.year},{hour.month},{hour.day},{hour.hour},{'NA' if at < 3 or at == 30 else at},{-at},NW"
        for at, hour in enumerate(hours)
    ]
    return "No,year,month,day,hour,pm2.5,TEMP,cbwd\r\n" + "\r\n".join(lines) + "\r\n"


def test_a_date_split_over_four_columns(read: Read) -> None:
    """The row number is no series; NA is missing, and a series begins with its first value."""
    panel = read(smog())
    assert panel.columns.time == ("year", "month", "day", "hour")
    assert panel.keys == (("pm2.5",), ("TEMP",))
    expected = [np.nan if at == 30 else float(at) for at in range(3, 60)]
    np.testing.assert_array_equal(values_of(panel, "pm2.5"), expected)
    assert following(panel) == {"year": ["2010"], "month": ["2"], "day": ["2"], "hour": ["8"]}


def test_words_beside_the_target_are_covariates_once_named(read: Read) -> None:
    panel = read(smog(), target=("pm2.5",), past=("TEMP", "cbwd"))
    assert [(one.name, one.categories) for one in panel.covariates] == [("TEMP", None), ("cbwd", ("NW",))]
    first = int(panel.timed_at[0])
    assert panel.timed[first : first + 57, 0].tolist() == [-at for at in range(3, 60)]


# --- a long file at irregular half-hours, nights absent, equal rows twice ---


def parking() -> pd.DataFrame:
    usual = pd.date_range("2016-10-04 07:59:42", periods=160, freq="30min")
    usual = usual[(usual.hour >= 8) & (usual.hour < 17)]
    stamps = usual + pd.to_timedelta(np.random.default_rng(5).integers(-250, 250, usual.size), "s")
    rows = np.arange(stamps.size)
    parts = [
        pd.DataFrame({"Code": name, "Occupancy": rows * rise + 60, "Updated": stamps.strftime("%Y-%m-%d %H:%M:%S")})
        for name, rise in (("BHM01", 3), ("BHM02", -1))
    ]
    return pd.concat([*parts, parts[1].iloc[[4, 9]]])


def test_irregular_times_are_refused_with_the_options_that_settle_them(read: Read) -> None:
    said = refused(DataError, "irregular_time", read, parking().to_csv(index=False))
    first, second = parking()["Updated"].iloc[:2]
    assert "lines 2 and 3" in said
    assert "'BHM01'" in said
    assert first in said
    assert second in said
    assert "--freq 30min --aggregate mean" in said


def test_irregular_times_are_brought_onto_half_hours(read: Read) -> None:
    """As pandas does it; the equal rows count once."""
    frame = parking()
    panel = read(frame.to_csv(index=False), freq="30min", aggregate="mean")
    assert "2 repeated rows dropped." in panel.notes
    frame = frame.drop_duplicates()
    frame["Updated"] = pd.to_datetime(frame["Updated"])
    for index, (name,) in enumerate(panel.keys):
        own = frame[frame["Code"] == name].set_index("Updated")["Occupancy"].resample("30min").mean()
        np.testing.assert_allclose(panel.series(index), own.to_numpy())
        assert panel.stamps(panel.starts[index : index + 1]) == [own.index[0].strftime("%Y-%m-%d %H:%M:%S")]


# --- a byte-order mark, months that a spreadsheet has taken for days ---


def dairy(first: str = "1998-01-01", months: int = 54) -> bytes:
    stamps = pd.date_range(first, periods=months, freq="MS")
    rows = [
        f"{stamp:%b-%y},{at * 10}.00,{at * at}.00"
        if stamp.year < 2001
        else f"{stamp.year % 100}-{stamp:%b},{at * 10}.00,{at * at}.00"
        for at, stamp in enumerate(stamps)
    ]
    return ("\ufeff" + "\n".join(["date,butter,whey", *rows]) + "\n").encode()


def test_months_taken_for_days(read: Read) -> None:
    """1-Jan is January 2001 behind Dec-00; no month is lost, and the note names the first line of them."""
    panel = read(dairy())
    assert panel.columns.time == ("date",)
    assert panel.step.label == "1 month"
    assert values_of(panel, "butter") == [at * 10 for at in range(54)]
    assert panel.stamps(panel.starts[:1]) == ["Jan-98"]
    assert following(panel, 2) == {"date": ["Jul-02", "Aug-02"]}
    assert any("line 38" in note and "'1-Jan'" in note and "Jan-01" in note for note in panel.notes)


# --- the time not first, many rows of one hour with other texts, text covariates, CRLF ---


def traffic() -> str:
    hours = pd.date_range("2012-10-02 09:00", periods=48, freq="h")
    rows = []
    for at, hour in enumerate(hours):
        rows.append(f"None,{280 + at / 10},Clouds,{hour:%Y-%m-%d %H:%M:%S},{5000 + at}")
        if at % 8 == 5:
            rows.append(f"None,{280 + at / 10},Rain,{hour:%Y-%m-%d %H:%M:%S},{5000 + at}")
    return "\r\n".join(["holiday,temp,weather,date_time,volume", *rows]) + "\r\n"


def test_rows_that_differ_in_an_unused_text_only_are_one(read: Read) -> None:
    panel = read(traffic(), target=("volume",))
    assert panel.values.tolist() == [5000 + at for at in range(48)]
    assert "6 repeated rows dropped." in panel.notes


def test_rows_that_differ_in_a_covariate_are_refused_until_settled(read: Read) -> None:
    roles = {"target": ("volume",), "known": ("temp", "weather")}
    said = refused(DataError, "duplicate_timestamps", read, traffic(), **roles)
    assert "lines 7 and 8" in said
    assert "2012-10-02 14:00:00" in said
    assert "'weather'" in said
    assert "--duplicates first" in said
    for choice, text in (("first", "Clouds"), ("last", "Rain")):
        panel = read(traffic(), duplicates=choice, **roles)
        assert panel.values.tolist() == [5000 + at for at in range(48)]
        categories = panel.covariates[1].categories
        assert categories is not None
        assert categories[int(panel.timed[int(panel.timed_at[0]) + 5, 1])] == text


# --- months left out, quotes, a blank last line ---


def test_missing_months_are_gaps(read: Read) -> None:
    months = pd.period_range("1962-01", "1965-12", freq="M")
    rows = [f'"{month}",{589 + at}' for at, month in enumerate(months) if at not in (7, 20, 21, 40)]
    panel = read('"Month","Pounds per cow"\n' + "\n".join(rows) + "\n\n")
    assert np.flatnonzero(np.isnan(panel.values)).tolist() == [7, 20, 21, 40]
    assert panel.lengths.tolist() == [48]
    assert following(panel, 2) == {"Month": ["1966-01", "1966-02"]}
    assert "4 missing time stamps read as gaps." in panel.notes


# --- day-first dates ---


@pytest.mark.parametrize(
    ("first", "written", "behind"),
    [
        ("2019-01-02", "{0:%d/%m/%Y}", "03/02/2019"),
        ("2020-07-01", "{0.day}/{0.month}/{0:%y}", "2/8/20"),
        ("2020-12-20", "{0.day}.{0.month}.{0.year}", "21.1.2021"),
        ("2019-01-02", "{0:%d-%m-%y}", "03-02-19"),
    ],
)
def test_day_first_dates(read: Read, first: str, written: str, behind: str) -> None:
    """Over the turn of a month, with a byte-order mark; no date is read the other way round."""
    days = pd.date_range(first, periods=32)
    text = "Date,flights\n" + "".join(f"{written.format(day)},{at}\n" for at, day in enumerate(days))
    panel = read(b"\xef\xbb\xbf" + text.encode())
    assert panel.step.label == "1 day"
    assert panel.values.tolist() == list(range(32))
    assert following(panel) == {"Date": [behind]}


def test_dates_that_may_be_either_are_refused_with_both_forms(read: Read) -> None:
    """The first of each month, or the days of January."""
    text = "date,v\n" + "".join(f"01/{month:02d}/2020,{month}\n" for month in range(1, 13))
    said = refused(DataError, "ambiguous_dates", read, text)
    assert "line 2" in said
    assert "'01/01/2020'" in said
    assert "'%d/%m/%Y'" in said
    assert "'%m/%d/%Y'" in said
    assert read(text, date_format="%d/%m/%Y").step.label == "1 month"
    assert read(text, date_format="%m/%d/%Y").step.label == "1 day"


def test_one_date_of_the_other_order_is_named(read: Read) -> None:
    """It is never swapped on its own."""
    days = [f"{day:%d/%m/%Y}" for day in pd.date_range("2020-01-10", periods=30)]
    days[12] = "01/22/2020"
    said = refused(DataError, "bad_timestamp", read, "date,v\n" + "".join(f"{day},1\n" for day in days))
    assert "line 14" in said
    assert "'01/22/2020'" in said


# --- the step: aliases old and new, all series looked at ---


@pytest.mark.parametrize(
    ("old", "new", "index"),
    [
        ("H", "h", "h"),
        ("T", "min", "min"),
        ("15T", "15min", "15min"),
        ("S", "s", "s"),
        ("M", "ME", "ME"),
        ("Q", "QE", "QE"),
        ("A", "YE", "YE"),
        ("AS", "YS", "YS"),
    ],
)
def test_old_and_new_names_of_a_step_are_one(read: Read, old: str, new: str, index: str) -> None:
    """What is kept is the step, and no name of it."""
    stamps = pd.date_range("2020-01-31" if index.endswith("E") else "2020-01-01", periods=20, freq=index)
    text = "ds,y\n" + "".join(f"{stamp:%Y-%m-%d %H:%M:%S},{at}\n" for at, stamp in enumerate(stamps))
    found, *given = (read(text, freq=freq) for freq in (None, old, new))
    for panel in given:
        assert (panel.step, panel.step.phase) == (found.step, found.step.phase)
        assert panel.values.tolist() == found.values.tolist()
        assert following(panel) == following(found)


def test_an_unknown_step_is_refused_with_the_ones_there_are(read: Read) -> None:
    assert "15min" in refused(UsageError, "bad_freq", read, "ds,y\n2020-01-01,1\n2020-01-02,1\n", freq="fortnight")


def test_the_odd_row_of_the_last_series_is_named(read: Read) -> None:
    """The step is looked for in every series, not in the first alone."""
    days = pd.date_range("2024-01-01", periods=12)
    lines = [f"{name},{day:%Y-%m-%d %H:%M},{at}\n" for name in "abc" for at, day in enumerate(days)]
    lines[-3] = "c,2024-01-10 05:00,9\n"
    said = refused(DataError, "irregular_time", read, "unique_id,ds,y\n" + "".join(lines))
    assert "'c'" in said
    assert "2024-01-10 05:00" in said
    assert "line 35" in said or "lines 34 and 35" in said or "lines 35 and 36" in said


# --- the clocks ---


def berlin(first: str = "2024-03-28", last: str = "2024-11-02") -> tuple[str, pd.DatetimeIndex]:
    """Hours of Berlin without offsets, over both switches, and the instants they are."""
    instants = pd.date_range(first, last, freq="h", tz="Europe/Berlin")
    rows = "".join(f"{one:%Y-%m-%d %H:%M},{at}\n" for at, one in enumerate(instants))
    return "time,load\n" + rows, instants


def test_local_hours_over_both_switches_need_a_zone(read: Read) -> None:
    text, instants = berlin()
    said = refused(DataError, "duplicate_timestamps", read, text)
    assert "2024-10-27 02:00" in said
    assert "--tz" in said
    line = int(np.flatnonzero(instants.tz_localize(None).duplicated())[0]) + 2
    assert f"{line - 1} and {line}" in said


def test_local_hours_over_both_switches_with_their_zone(read: Read) -> None:
    """No gap in spring, two rows in autumn, each once."""
    text, instants = berlin()
    panel = read(text, tz="Europe/Berlin")
    assert panel.gaps == 0
    assert panel.values.tolist() == list(range(instants.size))
    whole = panel.starts[0] + np.arange(instants.size)
    assert panel.stamps(whole) == [f"{one:%Y-%m-%d %H:%M}" for one in instants]


@pytest.mark.parametrize("switch", ["2024-03-31", "2024-10-27"])
@pytest.mark.parametrize("written", ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S%z"])
def test_stamps_behind_the_end_cross_a_switch(read: Read, switch: str, written: str) -> None:
    """As the clocks of the place show it; with offsets they change at the right hour."""
    instants = pd.date_range(pd.Timestamp(switch, tz="Europe/Berlin") - pd.Timedelta(days=4), periods=120, freq="h")
    texts = [one.strftime(written) for one in instants]
    text = "time,load\n" + "".join(f"{one},{at}\n" for at, one in enumerate(texts[:96]))
    assert following(read(text, tz="Europe/Berlin"), 24) == {"time": texts[96:]}


# --- what must not be read two ways, or be lost ---


@pytest.mark.parametrize(
    ("rows", "value", "option"),
    [
        (["1,112", "2,500", "3,750"], "1,112", "--decimal"),
        (["1.112", "2.500", "13.750"], None, ""),  # a point parts decimals
    ],
)
def test_a_sign_that_may_part_thousands_or_decimals(
    read: Read, rows: list[str], value: str | None, option: str
) -> None:
    text = "day;v\n" + "".join(f"2024-01-{at + 1:02d};{cell}\n" for at, cell in enumerate(rows))
    if value is None:
        assert read(text).values.tolist() == [float(cell) for cell in rows]
        return
    said = refused(DataError, "ambiguous_comma", read, text)
    assert value in said
    assert option in said


def test_a_text_in_the_target_is_named_with_the_option(read: Read) -> None:
    rows = [f"2024-01-{at:02d},{at}\n" for at in range(1, 29)]
    rows[20] = "2024-01-21,closed\n"
    said = refused(DataError, "not_a_number", read, "day,v\n" + "".join(rows))
    assert "line 22" in said
    assert "'closed'" in said
    assert "--missing-value" in said
    panel = read("day,v\n" + "".join(rows), missing_value=("closed",))
    assert np.flatnonzero(np.isnan(panel.values)).tolist() == [20]
