"""What each column of a stranger's file is taken for, and what is refused rather than guessed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_files import Read, following, read, refused, values_of

from stacklstm_cli.errors import DataError, UsageError

__all__ = ["read"]


def test_years_under_any_name_are_the_time(read: Read) -> None:
    """Not a series to forecast."""
    panel = read("Jahr;Umsatz\n" + "".join(f"{year};{year % 7},5\n" for year in range(1990, 2020)))
    assert panel.columns.time == ("Jahr",)
    assert panel.columns.targets == ("Umsatz",)
    assert following(panel, 2) == {"Jahr": ["2020", "2021"]}
    long = "shop,FY,sold\n" + "".join(f"{shop},{year},{year % 5}\n" for shop in "ab" for year in range(2000, 2020))
    assert read(long).columns.ids == ("shop",)
    assert following(read(long)) == {"FY": ["2020"]}


def test_numbers_that_count_no_years_are_a_series(read: Read) -> None:
    panel = read("made,sold\n" + "".join(f"{made},{made % 5}\n" for made in range(20)))
    assert panel.columns.targets == ("made", "sold")


def sensors() -> pd.DataFrame:
    """Two sensors that report at seconds of their own, one below the other."""
    parts = []
    for name, second in (("door", 11), ("roof", 37)):
        stamps = pd.date_range("2024-03-01", periods=30, freq="h") + pd.to_timedelta(
            (np.arange(30) * second) % 240, "s"
        )
        parts.append(pd.DataFrame({"sensor": name, "at": stamps.strftime("%Y-%m-%d %H:%M:%S"), "level": second}))
    return pd.concat(parts)


def test_series_that_share_no_time_stamp_are_not_mixed(read: Read) -> None:
    """The mean of an hour is that of one sensor, not of both."""
    panel = read(sensors().to_csv(index=False), freq="h", aggregate="mean")
    assert panel.keys == (("door",), ("roof",))
    assert values_of(panel, "door") == [11] * 30
    assert values_of(panel, "roof") == [37] * 30


def test_a_text_that_changes_with_time_names_no_series(read: Read) -> None:
    """Stages one after the other, and a file with its newest rows on top."""
    days = pd.date_range("2024-01-01", periods=40).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"day": days, "stage": np.repeat(["trial", "sale"], 20), "sold": np.arange(40)})
    for rows in (frame, frame[::-1]):
        panel = read(rows.to_csv(index=False))
        assert panel.columns.ids == ()
        assert panel.values.tolist() == list(range(40))


def test_a_name_of_another_case_is_proposed(read: Read) -> None:
    text = "day,pm2.5,TEMP,hour\n" + "".join(f"2024-01-{day:02d},{day},{day},1\n" for day in range(1, 29))
    said = refused(UsageError, "unknown_column", read, text, target=("pm2.5",), past=("temp",))
    assert "'temp'" in said
    assert "--past TEMP?" in said


def test_a_row_of_values_is_no_header(read: Read) -> None:
    """Also where a text stands among the values, and where two of them are equal."""
    rows = "".join(f"2024-01-{day:02d},0.0,0.0,clear\n" for day in range(1, 29))
    assert "2024-01-01" in refused(DataError, "no_header", read, rows)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["store_nbr", "family"], ("store_nbr", "family")),
        (["kind", "family", "store_nbr"], ("family", "store_nbr")),  # the kind says no more than the store
    ],
)
def test_series_named_by_two_columns_together(read: Read, names: list[str], expected: tuple[str, ...]) -> None:
    """Neither alone tells the rows of a day apart; what else is text is none of them."""
    days = pd.date_range("2024-01-01", periods=20).strftime("%Y-%m-%d")
    frames = [
        pd.DataFrame({"store_nbr": store, "family": family, "kind": "AB"[store % 2], "date": days, "sales": store})
        for store in (1, 2, 12)
        for family in ("BREAD", "EGGS")
    ]
    frame = pd.concat(frames)[[*names, "date", "sales"]]
    panel = read(frame.to_csv(index=False))
    assert panel.columns.ids == expected
    assert panel.n_series == 6
    assert panel.lengths.tolist() == [20] * 6


@pytest.mark.parametrize(
    ("header", "first"),
    [
        ("Country,Code," + ",".join(map(str, range(1990, 2020))), "1990"),
        ("item," + ",".join(f"2024-01-{day:02d}" for day in range(1, 31)), "2024-01-01"),
        ("Year,Jan,Feb,Mar,Apr,May,Jun,Jul,Aug,Sep,Oct,Nov,Dec", "Jan"),
        ("Year," + ",".join(f"{month:%B}" for month in pd.date_range("2020-01-01", periods=12, freq="MS")), "January"),
    ],
)
def test_time_across_the_columns_is_refused(read: Read, header: str, first: str) -> None:
    """It would make each month or year a series of its own."""
    names = header.split(",")
    texts = [at for at, name in enumerate(names) if name in ("Country", "Code", "item")]
    rows = [
        ",".join(
            f"n{row}" if at in texts else str(1990 + row) if name == "Year" else str(at)
            for at, name in enumerate(names)
        )
        for row in range(20)
    ]
    assert first in refused(DataError, "time_across", read, "\n".join([header, *rows]) + "\n")


def test_years_side_by_side_with_a_time_column_are_series(read: Read) -> None:
    text = "week,2019,2020,2021\n" + "".join(f"{week},{week},{week + 1},{week + 2}\n" for week in range(1, 40))
    assert read(text, time=("week",)).keys == (("2019",), ("2020",), ("2021",))


@pytest.mark.parametrize("word", ["..", "n.a.", "N/A", "#DIV/0!", "-", "."])
def test_words_of_offices_for_missing(read: Read, word: str) -> None:
    panel = read("day,v\n" + "".join(f"2024-01-{at:02d},{word if at == 9 else at}\n" for at in range(1, 29)))
    assert np.flatnonzero(np.isnan(panel.values)).tolist() == [8]


# --- time ---

DAYS = pd.date_range("2024-01-01", periods=60)


def column(name: str, dates: pd.DatetimeIndex, form: str) -> str:
    """A file of one series whose time stands in a form."""
    return f"{name},v\n" + "".join(f"{text},{at % 7}.5\n" for at, text in enumerate(dates.strftime(form)))


@pytest.mark.parametrize("name", ["date", "when"])
def test_a_typed_form_alone_shows_the_time(read: Read, name: str) -> None:
    """Also under a name that says nothing, and beside dates of another form."""
    panel = read(column(name, DAYS, "%d|%m|%Y"), date_format="%d|%m|%Y")
    assert following(panel) == {name: ["01|03|2024"]}
    both = f"made,{name},v\n" + "".join(f"2020-01-01,{text},1\n" for text in DAYS.strftime("%d|%m|%Y"))
    assert read(both, date_format="%d|%m|%Y").columns.time == (name,)


def test_a_form_that_no_cell_has_is_refused(read: Read) -> None:
    text = column("date", DAYS, "%d|%m|%Y")
    assert "--date-format" in refused(DataError, "unreadable_time", read, text)
    said = refused(DataError, "bad_timestamp", read, text, date_format="%d.%m.%Y")
    assert "line 2, column 'date': '01|01|2024'" in said
    other = column("when", DAYS, "%d|%m|%Y")
    assert "'%d.%m.%Y'" in refused(UsageError, "bad_date_format", read, other, date_format="%d.%m.%Y")


@pytest.mark.parametrize(
    ("name", "form", "after"),
    [
        ("date", "%y%m%d", "240301"),
        ("Tag", "%y%m%d", "240301"),
        ("date", "%Y%m%d.0", "20240301.0"),
        ("x", "%Y%m%d.0", "20240301.0"),
        ("date", "%y%m%d.0", "240301.0"),
    ],
)
def test_dates_of_digits_are_no_counter(read: Read, name: str, form: str, after: str) -> None:
    """A counter would have 41 false gaps between January and March."""
    panel = read(column(name, DAYS, form))
    assert panel.step.label == "1 day"
    assert panel.lengths.tolist() == [60]
    assert following(panel) == {name: [after]}


@pytest.mark.parametrize(
    ("name", "first", "rows", "label"),
    [
        ("t", 240101, 31, "1 step"),
        ("date", 240101, 31, "1 day"),
        ("date", 240101, 60, "1 step"),
        ("t", 7, 60, "1 step"),
    ],
)
def test_what_counts_up_evenly_is_a_counter(read: Read, name: str, first: int, rows: int, label: str) -> None:
    """Within one month both are as regular, and the name of the column tells; 240132 is no date."""
    panel = read(f"{name},v\n" + "".join(f"{first + at},{at % 7}.5\n" for at in range(rows)))
    assert panel.step.label == label
    assert panel.lengths.tolist() == [rows]


@pytest.mark.parametrize(
    ("form", "freq", "options"),
    [
        ("%Y-%m-%d", "h", {}),
        ("%Y-%m-%d", "12h", {}),
        ("%Y-%m-%d", "18h", {"aggregate": "mean"}),
        ("%Y-%m-%d %H:%M", "s", {}),
        ("%y%m%d", "h", {}),
    ],
)
def test_a_step_that_the_stamps_cannot_show_is_refused(read: Read, form: str, freq: str, options: dict) -> None:
    said = refused(UsageError, "bad_freq", read, column("date", DAYS, form), freq=freq, **options)
    assert f"--freq {freq} is finer than the time stamps are written" in said


@pytest.mark.parametrize(
    ("form", "freq", "tz"), [("%Y-%m-%d", "D", None), ("%Y-%m-%d", "W", None), ("%d.%m.%Y %H:%M", "h", "Europe/Berlin")]
)
def test_a_step_that_the_stamps_can_show_is_read(read: Read, form: str, freq: str, tz: str | None) -> None:
    """Also where the next hours stand twice on the clocks of the zone."""
    dates = pd.date_range(end="2024-10-27 01:00" if tz else "2024-10-27", periods=60, freq=freq)
    assert read(column("date", dates, form), freq=freq, **({"tz": tz} if tz else {})).lengths.tolist() == [60]


WEEKS = pd.date_range("2019-01-07", periods=150, freq="W-MON")
HOURS = pd.date_range("2024-01-01", periods=480, freq="h")


@pytest.mark.parametrize(
    ("text", "error", "code", "time", "form", "after"),
    [
        (
            "year,week,v\n" + "".join(f"{day.isocalendar()[0]},{day.isocalendar()[1]},1\n" for day in WEEKS),
            *(UsageError, "which_time", "year,week", "%G %V"),
            {"year": ["2021"], "week": ["47"]},
        ),
        (
            "date,hour,v\n" + "".join(f"{hour:%Y-%m-%d},{hour:%H%M},{at}\n" for at, hour in enumerate(HOURS)),
            *(DataError, "duplicate_timestamps", "date,hour", "%Y-%m-%d %H%M"),
            {"date": ["2024-01-21"], "hour": ["0000"]},
        ),
    ],
    ids=["weeks", "hours"],
)
def test_time_split_in_two_is_proposed_and_can_be_typed(
    read: Read, text: str, error: type, code: str, time: str, form: str, after: dict[str, list[str]]
) -> None:
    """Years and weeks would else be series of their own."""
    said = refused(error, code, read, text)
    assert f"--time {time} --date-format '{form}'" in said
    assert "--id" not in said
    panel = read(text, time=tuple(time.split(",")), date_format=form)
    assert following(panel) == after
    assert panel.lengths.tolist() == [text.count("\n") - 1]


def test_a_week_that_is_a_covariate_is_no_time(read: Read) -> None:
    """Rows are steps where the columns that might hold the time have been given another role."""
    text = "year,week,v\n" + "".join(f"{2020 + at // 52},{at % 52 + 1},{at % 7}\n" for at in range(156))
    panel = read(text, past=("week",), target=("v",))
    assert panel.step.label == "1 step"
    assert panel.lengths.tolist() == [156]


# --- what may tell series apart ---


def interleaved(rows: int) -> str:
    """Two sensors in one file sorted by time; each reports once an hour, some seconds late."""
    late = np.random.default_rng(0).integers(0, 240, (2, rows))
    parts = [
        pd.DataFrame(
            {
                "at": pd.date_range("2024-03-01", periods=rows, freq="h") + pd.to_timedelta(late[at], "s"),
                "sensor": name,
                "level": at,
            }
        )
        for at, name in enumerate(("door", "roof"))
    ]
    return pd.concat(parts).sort_values("at", kind="stable").to_csv(index=False)


def test_series_that_take_turns_are_proposed(read: Read) -> None:
    """Neither a guess nor silence: their mean would be that of both."""
    text = interleaved(40)
    assert "If 'sensor' tells several series apart: --id sensor" in refused(DataError, "irregular_time", read, text)
    mixed = read(text, freq="h", aggregate="mean")
    assert any("'sensor'" in note and "--id sensor" in note for note in mixed.notes)
    apart = read(text, freq="h", aggregate="mean", id=("sensor",))
    assert sorted(apart.keys) == [("door",), ("roof",)]
    assert not any("--id" in note for note in apart.notes)


def test_series_below_the_first_rows_are_found_where_stamps_are_irregular(read: Read) -> None:
    """The first 2000 rows hold one sensor only; the message names it, as no guess by these rows alone could."""
    parts = [
        pd.DataFrame({"sensor": name, "at": pd.date_range(first, periods=2500, freq=freq).astype(str), "v": 1})
        for name, first, freq in (("a", "2024-01-01", "h"), ("b", "2023-06-01", "45min"))
    ]
    assert "series 'a', times" in refused(DataError, "irregular_time", read, pd.concat(parts).to_csv(index=False))


def test_the_weather_of_an_hour_names_no_series(read: Read) -> None:
    """Two rows for one hour: a repeat to settle, though the weather would tell them apart."""
    weather = np.random.default_rng(1).choice(["clear", "cloudy", "rain", "mist"], 200)
    hours = pd.date_range("2024-01-01", periods=199, freq="h").insert(100, pd.Timestamp("2024-01-05 03:00"))
    weather[100], weather[99] = "snow", "rain"
    frame = pd.DataFrame({"date_time": hours, "weather": weather, "traffic": np.arange(200)})
    said = refused(DataError, "duplicate_timestamps", read, frame.to_csv(index=False))
    assert "--id" not in said
    assert "--duplicates first" in said


# --- wording ---


def test_long_cells_are_cut_in_messages(read: Read) -> None:
    days = DAYS.strftime("%Y-%m-%d").tolist()
    for row, column_of in ((f"{'x' * 500},1\n", "day"), (f"{days[9]},{'1x' * 300}\n", "v")):
        text = "day,v\n" + "".join(row if at == 9 else f"{day},{at}\n" for at, day in enumerate(days))
        code = "bad_timestamp" if column_of == "day" else "not_a_number"
        message = refused(DataError, code, read, text).split("\n")[0]
        assert f"line 11, column {column_of!r}" in message
        assert len(message) < 300


def test_a_word_among_numbers_can_be_made_missing(read: Read) -> None:
    rows = "".join(f"{day},{'closed' if at == 9 else at}\n" for at, day in enumerate(DAYS.strftime("%Y-%m-%d")))
    assert "--missing-value closed" in refused(DataError, "not_a_number", read, "day,v\n" + rows)
    assert np.isnan(read("day,v\n" + rows, missing_value=("closed",)).values[9])


def test_ignored_columns_named_by_numbers_stand_in_quotes(read: Read) -> None:
    text = "day,2019,note,v\n" + "".join(f"{day},{at},a,{at}\n" for at, day in enumerate(DAYS.strftime("%Y-%m-%d")))
    assert read(text, target=("v",)).notes[0].endswith("ignored: '2019', note")


def test_partial_sums_name_the_step(read: Read) -> None:
    hours = pd.date_range("2024-01-01 05:00", periods=200, freq="h").strftime("%Y-%m-%d %H:%M")
    text = "at,v\n" + "".join(f"{hour},1\n" for hour in hours)
    notes = read(text, freq="D", aggregate="sum").notes
    assert any("cover only a part of their step of 1 day" in note for note in notes)
