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
