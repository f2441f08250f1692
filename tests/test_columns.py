"""Which column plays which role."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from stacklstm_cli.config import DataConfig
from stacklstm_cli.data.columns import find_columns
from stacklstm_cli.data.sample import kind_of
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


@pytest.mark.parametrize("role", ["past", "known", "static"])
def test_covariates_are_columns_of_the_file(role):
    with pytest.raises(UsageError, match=rf"--{role} names column 'temperature'.*date, users, temp") as caught:
        find("date,users,temp\n2024-01-01,1,2\n", **{role: ("temperature",)})
    assert f"--{role} temp" in caught.value.hint


@pytest.mark.parametrize("one", ["time", "id", "target", "past", "known"])
@pytest.mark.parametrize("other", ["static", "target", "id", "known"])
def test_a_column_has_one_role(one, other):
    if one == other:
        return
    with pytest.raises(UsageError, match="Column 'b' is named by") as caught:
        find(WIDE, **{one: ("b",), other: ("a", "b")})
    assert caught.value.code == "role_conflict"
    assert f"--{one}" in caught.value.message
    assert f"--{other}" in caught.value.message


def test_covariates_are_not_forecast():
    text = "date,a,b,temp,weather,size\n" + "".join(f"2024-01-0{day},1,2,3,sun,\n" for day in range(1, 6))
    found = find(text, known=("weather", "temp"), static=("size",))[4]
    assert (found.columns.layout, found.columns.targets) == ("wide", ("a", "b"))
    assert (found.columns.known, found.columns.static) == (("weather", "temp"), ("size",))
    assert found.kinds == {"weather": "text", "temp": "number", "size": "empty"}
    assert roles(text, known=("temp", "size"), past=("b",)) == ("single", "date", (), ("a",))
    assert find(text, known=("temp", "temp"), target=("a",))[4].ignored == ("b", "weather", "size")
    # A covariate takes no part in guessing: neither as the time, nor as the id.
    assert roles("date,month,v,x\n2024-01-01,1,2,a\n2024-01-01,1,3,b\n", known=("month", "x"), time=("date",))[2] == ()
    assert roles("ds,day,y\n1,2024-01-01,2\n2,2024-01-02,2\n", known=("day",))[1] == "ds"


def test_the_only_time_is_no_covariate():
    with pytest.raises(UsageError, match="'date' is named by --known, and no other column holds time stamps") as caught:
        find("date,v\n2024-01-01,1\n2024-01-02,2\n", known=("date",))
    assert "--known" in caught.value.hint


def test_time_split_over_columns():
    dates = "year,month,day,v\n" + "".join(f"2024,1,{day},5\n" for day in range(1, 9))
    assert roles(dates) == ("single", "year,month,day", (), ("v",))
    assert roles(dates, time=("day", "month", "year"))[1] == "day,month,year"
    clocks = "Date,Time,v\n" + "".join(f"2024-01-0{day},{hour}:00:00,1\n" for day in (1, 2) for hour in range(10, 20))
    assert roles(clocks) == ("single", "Date,Time", (), ("v",))
    assert roles(dates, known=("month", "day"), target=("v",))[1] is None
    shops = "shop,date,hour,v\n" + "".join(
        f"{shop},2024-01-{day:02d},{shop},1\n" for shop in (7, 8, 9) for day in range(1, 20)
    )
    assert roles(shops, id=("shop",), target=("v",))[1] == "date"


def test_columns_that_may_tell_series_apart_are_known():
    repeated = "date,same,plant,v\n" + "".join(
        f"2024-01-0{day},x,{plant},1.5\n" for day in (1, 2, 3) for plant in (1, 2)
    )
    assert find(repeated)[4].possible_ids == ("plant",)
    assert find(repeated, known=("plant",))[4].possible_ids == ()


def test_texts_that_make_no_regular_series_are_not_proposed_as_names_of_series():
    """A note of each row, and two rows for each name."""
    assert find(WIDE)[4].possible_ids == ()
    pairs = "date,plant,v\n" + "".join(f"2024-01-0{day},{plant},1.5\n" for day in (1, 2) for plant in (1, 2))
    assert find(pairs)[4].possible_ids == ()


@pytest.mark.parametrize("name", ["store_nbr", "plantID", "Customer No", "station", "code"])
def test_numbers_under_the_name_of_an_id_tell_series_apart(name):
    text = f"{name},date,v\n" + "".join(f"{own},2024-01-0{day},1.5\n" for day in (1, 2, 3) for own in (7, 12))
    assert roles(text) == ("long", "date", (name,), ("v",))
    wide = f"date,{name},v\n2024-01-01,3,1\n2024-01-02,3,1\n"
    assert roles(wide)[0] == "wide"


def test_of_two_columns_of_dates_the_one_that_repeats_less_is_the_time():
    text = "batch,stamp,v\n" + "".join(f"2023-0{own}-01,2024-01-0{day},1\n" for own in (1, 2) for day in range(1, 8))
    assert roles(text) == ("long", "stamp", ("batch",), ("v",))


def test_row_numbers_are_not_forecast():
    assert roles(",date,v\n0,2024-01-01,5\n1,2024-01-02,6\n2,2024-01-03,8\n") == ("single", "date", (), ("v",))
    assert roles("Unnamed: 0,v\n0,5\n1,6\n") == ("single", None, (), ("v",))


def test_whole_numbers_may_count_time():
    assert roles("year,v\n1960,5\n1961,6\n1962,7\n") == ("single", "year", (), ("v",))
    assert roles("unique_id,ds,y\na,1,5\na,2,5\nb,1,5\nb,2,3\n") == ("long", "ds", ("unique_id",), ("y",))
    layout, time, _, targets, found = find("v\n5\n6\n")
    assert (layout, time, targets) == ("single", None, ("v",))
    assert "0, 1, 2" in found.notes[0]


def test_whole_numbers_of_time_may_repeat():
    assert roles("step,v\n1,1\n2,2\n2,3\n3,4\n")[1] == "step"
    assert roles("year,v\n" + "".join(f"{year},1\n" for year in range(1960, 1970) for _ in range(4)))[1] is None


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2", "x"], "number"),
        (["1", "x", "y"], "text"),
        (["0"] * 20 + ["trace"], "number"),
        (["0"] * 3 + ["trace"], "text"),
        (["", "NA", "nUll"], "empty"),
        (["", "1", "-"], "number"),
        ([], "empty"),
    ],
)
def test_most_cells_tell_the_kind(cells, kind):
    assert kind_of(np.asarray([*cells, ""], dtype=object)) == kind


def test_axes_called_y_are_not_taken_alone():
    assert roles("date,x,y,z\n2024-01-01,1,2,3\n2024-01-02,1,2,3\n")[3] == ("x", "y", "z")
    assert roles("ds,x,y\n2024-01-01,1,2\n2024-01-02,1,2\n")[3] == ("y",)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("date,what\n2024-01-01,x\n2024-01-02,y\n", "no_numbers"),
        ("2024-01-01,5\n2024-01-02,6\n", "no_header"),
        ("time,v\n0.5,1\n1.0,2\n", "unreadable_time"),
    ],
)  # fmt: skip
def test_tables_without_one_reading_are_refused(text, code):
    with pytest.raises(DataError) as caught:
        find(text)
    assert caught.value.code == code
    assert caught.value.hint
