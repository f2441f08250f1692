"""Which column plays which role."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from stacklstm_cli.config import DataConfig
from stacklstm_cli.data.columns import find_columns
from stacklstm_cli.errors import DataError, UsageError


def find(text: str, **options):
    frame = pd.read_csv(io.StringIO(text), dtype=object, keep_default_na=False, header=None)
    header = tuple(str(name) for name in frame.iloc[0])
    found = find_columns(header, frame.iloc[1:].reset_index(drop=True), DataConfig(**options))
    columns = found.columns
    return columns.layout, ",".join(columns.time) or None, columns.ids, columns.targets, found


def roles(text: str, **options):
    return find(text, **options)[:4]


LONG = "shop,when,sales\na,2024-01-01,1\nb,2024-01-01,2\na,2024-01-02,3\nb,2024-01-02,4\n"
WIDE = "date,a,b,note\n2024-01-01,1,2,x\n2024-01-02,3,4,y\n2024-01-03,3,4,x\n"


def test_layouts_are_recognised():
    assert roles("date,passengers\n2024-01-01,1\n2024-01-02,2\n") == ("single", "date", (), ("passengers",))
    assert roles(WIDE) == ("wide", "date", (), ("a", "b"))
    assert roles(LONG) == ("long", "when", ("shop",), ("sales",))


@pytest.mark.parametrize(("id_name", "time", "target"), [("unique_id", "ds", "y"), ("item_id", "timestamp", "target")])
def test_known_names_win(id_name, time, target):
    text = f"{target},{time},{id_name},price\n1,2024-01-01,7,3\n2,2024-01-02,7,4\n"
    assert roles(text) == ("long", time, (id_name,), (target,))


def test_named_roles_win_and_the_rest_is_ignored():
    assert roles(WIDE, target=("a",)) == ("single", "date", (), ("a",))
    assert find(WIDE, target=("b", "a"))[3:][0] == ("b", "a")
    assert find(WIDE, target=("a",))[4].ignored == ("b", "note")
    assert roles("a,b,d,v\nx,1,2024-01-01,1\nx,2,2024-01-01,2\n", id=("a", "b"))[2] == ("a", "b")


def test_the_first_text_column_that_makes_rows_unique_is_the_id():
    text = "state,shop,date,v\n" + "".join(
        f"{state},{state}{shop},2024-01-0{day},{day}\n" for state in "xy" for shop in "12" for day in (1, 2, 3)
    )
    assert roles(text)[2] == ("shop",)
    assert find(text)[4].ignored == ("state",)


def test_a_few_repeated_stamps_do_not_make_a_text_column_an_id():
    rows = [f"2024-01-{day:02d},rain,{day}\n" for day in range(1, 20)] + ["2024-01-19,snow,3\n"]
    assert roles("date,weather,v\n" + "".join(rows)) == ("single", "date", (), ("v",))


def test_several_numbers_in_a_long_file_need_a_choice():
    text = LONG.replace("sales", "sales,price").replace(",1\n", ",1,5\n").replace(",2\n", ",2,6\n")
    text = text.replace(",3\n", ",3,7\n").replace(",4\n", ",4,8\n")
    with pytest.raises(UsageError, match="sales, price") as caught:
        find(text)
    assert "--target" in caught.value.hint
    assert roles(text, target=("price",)) == ("long", "when", ("shop",), ("price",))
    with pytest.raises(UsageError, match="expected one"):
        find(text, target=("price", "sales"))


def test_a_column_that_is_not_there_is_named_with_its_neighbour():
    with pytest.raises(UsageError, match=r"--target names column 'passenger'.*date, passengers") as caught:
        find("date,passengers\n2024-01-01,1\n", target=("passenger",))
    assert "--target passengers" in caught.value.hint
    with pytest.raises(UsageError, match="--time"):
        find(WIDE, time=("when",))
    with pytest.raises(UsageError, match="--id"):
        find(WIDE, id=("who",))
    with pytest.raises(UsageError, match="at once"):
        find(WIDE, time=("date",), target=("date",))


def test_row_numbers_are_not_forecast():
    assert roles(",date,v\n0,2024-01-01,5\n1,2024-01-02,6\n2,2024-01-03,8\n") == ("single", "date", (), ("v",))
    assert roles("Unnamed: 0,v\n0,5\n1,6\n") == ("single", None, (), ("v",))


def test_whole_numbers_may_count_time():
    assert roles("year,v\n1960,5\n1961,6\n1962,7\n") == ("single", "year", (), ("v",))
    assert roles("unique_id,ds,y\na,1,5\na,2,5\nb,1,5\nb,2,3\n") == ("long", "ds", ("unique_id",), ("y",))
    layout, time, _, targets, found = find("v\n5\n6\n")
    assert (layout, time, targets) == ("single", None, ("v",))
    assert "0, 1, 2" in found.notes[0]


def test_axes_called_y_are_not_taken_alone():
    assert roles("date,x,y,z\n2024-01-01,1,2,3\n2024-01-02,1,2,3\n")[3] == ("x", "y", "z")
    assert roles("ds,x,y\n2024-01-01,1,2\n2024-01-02,1,2\n")[3] == ("y",)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("date,what\n2024-01-01,x\n2024-01-02,y\n", "no_numbers"),
        ("2024-01-01,5\n2024-01-02,6\n", "no_header"),
        ("time,v\n0.5,1\n1.0,2\n", "unreadable_time"),
        ("year,month,day,v\n2024,1,1,5\n2024,1,2,6\n", "split_time"),
        ("Date,Time,v\n" + "".join(f"2024-01-01,{hour}:00:00,1\n" for hour in range(10, 20)), "split_time"),
    ],
)  # fmt: skip
def test_tables_without_one_reading_are_refused(text, code):
    with pytest.raises(DataError) as caught:
        find(text)
    assert caught.value.code == code
    assert caught.value.hint
