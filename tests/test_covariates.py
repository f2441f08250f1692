"""Covariates: their cells, their rows beside the series, and the rows they need for a forecast."""

from __future__ import annotations

import dataclasses
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklstm_cli.config import DataConfig, ReadingConfig
from stacklstm_cli.data.covariates import category_codes, future_template, require_known
from stacklstm_cli.data.panel import Covariate
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import DataError, ModelError, StacklstmError, UsageError

NAN = np.nan
SALES = (
    "date,users,temp,weather,clicks\n"
    "2024-01-01,1,5.5,sun,10\n"
    "2024-01-02,2,6,rain,20\n"
    "2024-01-03,,7,,30\n"
    "2024-01-04,4,,sun,40\n"
    "2024-01-05,,9,snow,50\n"
)
SHOPS = (
    "shop,date,sales,price,size\n"
    "a,2024-01-01,1,10,S\na,2024-01-02,2,11,\na,2024-01-03,,12,S\n"
    "b,2024-01-02,3,20,\nb,2024-01-03,4,21,\nb,2024-01-04,5,22,\n"
)
WIDE = "date,a,b,temp\n2024-01-01,1,,10\n2024-01-02,2,5,11\n2024-01-03,,6,12\n2024-01-04,,7,13\n2024-01-05,,,14\n"


@pytest.fixture
def read(tmp_path):
    """Write a file, and a file of future rows, and read them."""

    def read_text(text: str, future: str | None = None, stored=None, **options):
        (tmp_path / "data.csv").write_text(text, encoding="utf-8")
        if future is not None:
            (tmp_path / "future.csv").write_text(future, encoding="utf-8")
        names = {field.name for field in dataclasses.fields(ReadingConfig)}
        reading = ReadingConfig(**{name: options.pop(name) for name in names & options.keys()})
        return read_panel(
            [str(tmp_path / "data.csv")],
            DataConfig(**options),
            reading,
            stored=stored,
            future=None if future is None else str(tmp_path / "future.csv"),
        )

    return read_text


def refused(read, *texts: str, error: type[StacklstmError] = DataError, **options) -> StacklstmError:
    with pytest.raises(error) as caught:
        read(*texts, **options)
    assert caught.value.hint
    return caught.value


# --- roles ---


def test_covariates_stand_beside_the_series(read):
    panel = read(SALES, past=("clicks",), known=("weather", "temp"))
    assert panel.columns.targets == ("users",)
    assert panel.covariates == (
        Covariate("clicks", "past"),
        Covariate("weather", "known", ("rain", "snow", "sun")),
        Covariate("temp", "known"),
    )
    np.testing.assert_array_equal(panel.values, [1, 2, NAN, 4])
    np.testing.assert_array_equal(panel.timed[:, 0], [10, 20, 30, 40, NAN])
    np.testing.assert_array_equal(panel.timed[:, 1], [2, 0, NAN, 2, 1])
    np.testing.assert_array_equal(panel.timed[:, 2], np.float32([5.5, 6, 7, NAN, 9]))
    assert (panel.timed_at.tolist(), panel.timed_rows.tolist(), panel.timed.dtype) == ([0], [5], np.float32)
    assert panel.notes[0] == (
        "one series: time 'date' (1 day), target 'users'; past 'clicks'; known 'weather' (categories), 'temp'"
    )


def test_covariates_of_a_long_file(read):
    panel = read(SHOPS, target=("sales",), known=("price",), static=("size",))
    assert panel.lengths.tolist() == [2, 3]
    assert panel.timed[:, 0].tolist() == [10, 11, 12, 20, 21, 22]
    assert (panel.timed_at.tolist(), panel.timed_rows.tolist()) == ([0, 3], [3, 3])
    np.testing.assert_array_equal(panel.static, [[0], [NAN]])
    assert panel.covariates == (Covariate("price", "known"), Covariate("size", "static", ("S",)))
    past = read(SHOPS, target=("sales",), past=("price",))
    np.testing.assert_array_equal(past.timed[:, 0], [10, 11, 20, 21, 22])
    assert past.timed_rows.tolist() == past.lengths.tolist()


def test_series_of_a_wide_file_share_their_rows(read):
    panel = read(WIDE, known=("temp",))
    assert panel.keys == (("a",), ("b",))
    assert panel.timed[:, 0].tolist() == [10, 11, 12, 13, 14]
    assert (panel.timed_at.tolist(), panel.timed_rows.tolist()) == ([0, 1], [5, 4])
    past = read(WIDE, past=("temp",))
    assert past.timed[:, 0].tolist() == [10, 11, 12, 13]
    assert past.timed_rows.tolist() == [4, 3]


def test_without_covariates_there_are_no_rows_of_them(read):
    panel = read(SALES, target=("users",))
    assert (panel.covariates, panel.timed.size, panel.timed_at.size, panel.static.size) == ((), 0, 0, 0)


def test_a_column_empty_at_first_is_what_it_holds_later(read):
    days = np.datetime_as_string(np.datetime64("2010-01-01") + np.arange(2100))
    rows = "".join(f"{day},1,{'fair' if at > 2050 else ''},{at if at > 2050 else ''},\n" for at, day in enumerate(days))
    panel = read("date,v,event,number,nothing\n" + rows, known=("event", "number", "nothing"))
    assert [each.categories for each in panel.covariates] == [("fair",), None, None]
    assert panel.timed[-1, :2].tolist() == [0, 2099]
    assert np.isnan(panel.timed[:, 2]).all()


def test_a_text_among_numbers_is_named(read):
    error = refused(read, SALES.replace("7,,30", "seven,,30"), known=("temp",), target=("users",))
    assert error.code == "not_a_number"
    assert "line 4, column 'temp': 'seven'" in error.message


def test_a_models_kinds_stay(read):
    model = read(SALES, target=("users",), known=("temp", "weather")).stored
    coded = SALES.replace("sun", "1").replace("rain", "2").replace("snow", "3")
    assert read(coded, stored=model).covariates[1].categories == ("1", "2", "3")
    worded = SALES.replace("5.5", "mild").replace(",6,", ",cool,").replace(",7,", ",cold,").replace(",9,", ",hot,")
    assert "line 2, column 'temp': 'mild'" in refused(read, worded, stored=model).message
    lacking = refused(read, SALES.replace("temp", "heat"), stored=model, error=ModelError)
    assert "'temp' is missing" in lacking.message


def test_infinite_and_huge_cells(read):
    panel = read(SALES.replace("5.5", "-inf"), target=("users",), known=("temp",))
    assert np.isnan(panel.timed[0, 0])
    assert "1 infinite value counted as missing." in panel.notes
    error = refused(read, SALES.replace("5.5", "1e31"), target=("users",), known=("temp",))
    assert (error.code, "line 2, column 'temp'" in error.message) == ("number_too_large", True)
    assert read(SALES.replace("5.5", "1e30"), target=("users",), known=("temp",)).timed[0, 0] == np.float32(1e30)


def test_category_codes_are_places_in_the_sorted_texts():
    words = np.array(["b", "a", "", "b", "c"], dtype=object)
    categories, codes = category_codes(words)
    assert categories == ("a", "b", "c")
    np.testing.assert_array_equal(codes, [1, 0, NAN, 1, 2])


def test_a_static_covariate_that_changes_is_named_with_both_places(read):
    error = refused(read, SHOPS.replace("12,S", "12,M"), target=("sales",), static=("size",))
    assert error.code == "static_changes"
    assert "lines 2 and 4: series 'a', static column 'size' holds 'S' and 'M'" in error.message
    assert "--known size" in error.hint
    height = "date,a,b,height\n2024-01-01,1,,3\n2024-01-02,2,5,\n2024-01-03,,6,3\n"
    assert read(height, static=("height",)).static.tolist() == [[3], [3]]


# --- future rows ---


def test_future_rows_in_a_file_of_their_own(read):
    ahead = "weather;other;temp;date\nsnow;x;-1,5;2024-01-06\nhail;x;2;2024-01-05\nsun;x;99;2024-01-02\n"
    panel = read(SALES, ahead, target=("users",), known=("temp", "weather"), past=("clicks",))
    assert panel.covariates[2].categories == ("hail", "rain", "snow", "sun")
    np.testing.assert_array_equal(panel.timed[:, 1], np.float32([5.5, 6, 7, NAN, 2, -1.5]))
    np.testing.assert_array_equal(panel.timed[:, 2], [3, 1, NAN, 3, 0, 2])
    np.testing.assert_array_equal(panel.timed[:, 0], [10, 20, 30, 40, NAN, NAN])
    assert panel.rows_read == 5


def test_future_rows_of_a_long_and_a_wide_file(read):
    ahead = "shop,date,price\nb,2024-01-05,23\nnew,2024-01-05,99\na,2024-01-04,13\na,2024-01-03,\n"
    panel = read(SHOPS, ahead, target=("sales",), known=("price",))
    assert panel.timed[:, 0].tolist() == [10, 11, 12, 13, 20, 21, 22, 23]
    assert any("1 series of the future rows are not in the data, ignored: new." in note for note in panel.notes)
    assert not any("without any value" in note for note in panel.notes)
    strangers = read(SHOPS, "shop,date,price\nnew,2024-01-05,99\n", target=("sales",), known=("price",))
    assert strangers.timed_rows.tolist() == [3, 3]
    wide = read(WIDE, "date,temp\n2024-01-06,15\n2024-01-05,24\n2024-01-03,99\n", known=("temp",))
    assert wide.timed[:, 0].tolist() == [10, 11, 12, 13, 24, 15]
    assert wide.timed_rows.tolist() == [6, 5]
    # The first series has ended where the second goes on: its future rows may be filled in, not changed.
    holes = WIDE.replace("7,13", "7,").replace("5,11", "5,")
    wide = read(holes, "date,temp\n2024-01-02,99\n2024-01-03,99\n2024-01-04,3\n", known=("temp",))
    np.testing.assert_array_equal(wide.timed[:, 0], [10, NAN, 12, 3, 14])
    require_known(wide, 1)


def test_future_rows_tell_what_an_empty_column_holds(read):
    text = "date,v,event\n2024-01-01,1,\n2024-01-02,2,\n"
    panel = read(text, "date,event\n2024-01-03,fair\n", known=("event",))
    assert panel.covariates == (Covariate("event", "known", ("fair",)),)
    assert panel.timed_rows.tolist() == [3]
    # Rows without any cell do not reach further.
    assert read(text, "date,event\n2024-01-03,fair\n2024-01-04,\n", known=("event",)).timed_rows.tolist() == [3]


def test_future_rows_without_time_follow_the_last_value(read):
    panel = read("v,temp\n1,10\n2,11\n,12\n\n", "temp\n22\n23\n", known=("temp",))
    assert panel.timed[:, 0].tolist() == [10, 11, 22, 23]
    long = read(
        "id,v,temp\na,1,10\nb,2,11\na,3,12\na,,13\n", "id,temp\nb,21\na,22\nb,23\n", known=("temp",), id=("id",)
    )
    assert long.timed[:, 0].tolist() == [10, 12, 22, 11, 21, 23]


def test_faults_of_future_rows(read):
    options = {"target": ("users",), "known": ("temp", "weather")}
    error = refused(read, SALES, "date,temp\n2024-01-06,1\n", **options)
    assert (error.code, "future.csv: column 'weather' is missing" in error.message) == ("columns_differ", True)
    assert "--future-template" in error.hint
    error = refused(read, SALES, "date,temp,weather\n2024-01-06,1,sun\n2024-01-06,2,sun\n", **options)
    assert error.code == "duplicate_timestamps"
    assert "future.csv, lines 2 and 3" in error.message
    error = refused(read, SALES, "date,temp,weather\nsoon,1,sun\n", **options)
    assert "future.csv, line 2, column 'date'" in error.message
    error = refused(read, SALES, "date,temp,weather\n2024-01-06,warm,sun\n2024-01-07,2,sun\n", **options)
    assert "future.csv, line 2, column 'temp': 'warm'" in error.message
    error = refused(read, SALES, "date,temp\n2024-01-06,1\n", target=("users",), error=UsageError)
    assert error.code == "future_without_known"


def test_a_far_future_row_is_named_before_memory_is_taken(read):
    hours = "date,v,k\n" + "".join(f"2024-01-01 {hour:02d}:00,1,1\n" for hour in range(24))
    error = refused(read, hours, "date,k\n9999-01-01 00:00,1\n", known=("k",))
    assert (error.code, "future.csv, line 2" in error.message) == ("far_timestamp", True)


def test_what_a_forecast_needs_is_asked_for(read):
    options = {"target": ("users",), "known": ("temp", "weather")}
    panel = read(SALES, **options)
    require_known(panel, 1)
    with pytest.raises(DataError, match=r"^time 2024-01-06: no value of the known covariate 'temp'") as caught:
        require_known(panel, 3)
    assert caught.value.code == "future_rows_missing"
    assert "needs 4 more cells" in caught.value.message
    assert "--future FILE" in caught.value.hint
    assert "--future-template" in caught.value.hint
    empty = read(SALES.replace("9,snow", "9,"), **options)
    with pytest.raises(DataError, match=r"2024-01-05: .*'weather'; .* 1 row needs 1 more cell "):
        require_known(empty, 1)
    long = read(SHOPS, target=("sales",), known=("price",))
    with pytest.raises(DataError, match=r"series 'b', time 2024-01-05: .*'price'.* 1 more cell "):
        require_known(long, 1)
    with pytest.raises(DataError, match=r"series 'a', time 2024-01-04: .* 3 more cells "):
        require_known(long, 2)
    # The series of a wide file wait for the same cells.
    with pytest.raises(DataError, match=r"series 'b', time 2024-01-06: .* 1 more cell "):
        require_known(read(WIDE, known=("temp",)), 2)
    with pytest.raises(DataError, match=r"series 'a', time 2024-01-06: .* 3 more cells "):
        require_known(read(WIDE, known=("temp",)), 4)
    require_known(read(WIDE, past=("temp",)), 100)
    require_known(read(WIDE, target=("a",)), 100)


def test_the_template_holds_what_is_known(read):
    frame = future_template(read(SALES, target=("users",), past=("clicks",), known=("temp", "weather")), 2)
    assert frame.to_csv(index=False) == "date,temp,weather\n2024-01-05,9.0,snow\n2024-01-06,,\n"
    frame = future_template(read(SHOPS, target=("sales",), known=("price",), static=("size",)), 2)
    rows = "a,2024-01-03,12.0\na,2024-01-04,\nb,2024-01-05,\nb,2024-01-06,\n"
    assert frame.to_csv(index=False) == "shop,date,price\n" + rows
    with pytest.raises(UsageError, match="no known covariates"):
        future_template(read(WIDE, past=("temp",)), 2)
    frame = future_template(read(WIDE.replace("14", "0.1"), known=("temp",)), 1)
    assert frame.to_csv(index=False) == "date,temp\n2024-01-03,12.0\n2024-01-04,13.0\n2024-01-05,0.1\n"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (SALES, {"target": ("users",), "known": ("temp", "weather")}),
        (SHOPS, {"target": ("sales",), "known": ("price",)}),
        (WIDE, {"known": ("temp",)}),
        ("v,temp\n1,10\n2,11\n,12\n", {"known": ("temp",)}),
        ("shop,v,temp\na,1,10\nb,2,11\na,,12\n", {"known": ("temp",), "id": ("shop",)}),
    ],
)
def test_a_filled_template_is_enough(read, text, options):
    panel = read(text, **options)
    template = future_template(panel, 3)
    filled = template.fillna({"temp": 1.5, "price": 2.5, "weather": "fog"})
    again = read(text, filled.to_csv(index=False), **options)
    require_known(again, 3)
    np.testing.assert_array_equal(again.values, panel.values)
    for index in range(panel.n_series):
        own, before = again.timed_at[index], panel.timed_at[index]
        length = panel.lengths[index]
        assert again.timed_rows[index] == length + 3 + (again.ends.max() - again.ends[index]) * (text is WIDE)
        np.testing.assert_array_equal(
            again.timed[own : own + length, -1], panel.timed[before : before + length, -1]
        ) if text is not SALES else None


# --- there and back ---

MISSING = ["", "NA", "n/A", "nUlL"]
WORDS = st.text(string.ascii_letters + ' é,"', min_size=1).map(lambda text: f"w{text.strip()}")


@st.composite
def covariate_cells(draw, count):
    """Truth and cells of a column: numbers or texts, some missing."""
    present = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    if draw(st.booleans()):
        numbers = draw(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=count, max_size=count))
        truth = [number if there else None for number, there in zip(numbers, present, strict=True)]
    else:
        words = draw(st.lists(WORDS, min_size=1, max_size=3))
        truth = [draw(st.sampled_from(words)) if there else None for there in present]
    return truth


@pytest.mark.parametrize("examples", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_a_panel_is_read_as_it_was_written(tmp_path, examples):
    """Covariates of all roles, gaps, future rows in the file or in another, rows in any order, some twice."""

    @settings(max_examples=examples, deadline=None)
    @given(data=st.data())
    def holds(data):
        there_and_back(tmp_path, data)

    holds()


def there_and_back(tmp_path, data):
    draw = data.draw
    layout = draw(st.sampled_from(["single", "wide", "long"]))
    count = 1 if layout == "single" else draw(st.integers(2 if layout == "wide" else 1, 4))
    names = [f"s{index}" for index in range(count)]
    first = np.datetime64("2024-02-20")
    starts = [draw(st.integers(0, 5)) for _ in names]
    series = []
    for _ in names:
        values = np.array(draw(st.lists(st.floats(-1e100, 1e100), min_size=8, max_size=14)))
        values[draw(st.lists(st.integers(5, values.size - 2), max_size=4))] = np.nan
        series.append(values)
    ends = [start + values.size for start, values in zip(starts, series, strict=True)]
    blocks = [(min(starts), max(ends))] if layout == "wide" else list(zip(starts, ends, strict=True))
    horizon = draw(st.integers(0, 4))
    roles = draw(st.lists(st.sampled_from(["past", "known", "static"]), max_size=4))
    rows = sum(end - start + horizon for start, end in blocks)
    columns = [(f"c{at}", role, draw(covariate_cells(rows))) for at, role in enumerate(roles)]
    apart = horizon > 0 and "known" in roles and draw(st.booleans())

    own, ahead, at = [], [], 0
    owners = [names] if layout == "wide" else [[name] for name in names]
    kept = {name: {} for name, _, _ in columns}
    for block, (begin, end) in enumerate(blocks):
        for position in range(begin, end + horizon):
            stamp = str(first + position)
            later = position >= end
            cells = []
            for name, role, truth in columns:
                cell = truth[at]
                if role == "static":
                    cell = truth[begin if layout == "wide" else block]
                if later and apart and role != "known":
                    cell = None
                kept[name][block, position] = cell
                if not (later and apart and role != "known"):
                    text = draw(st.sampled_from(MISSING)) if cell is None else str(cell)
                    cells.append('"' + text.replace('"', '""') + '"')
            key = [names[block]] if layout == "long" else []
            if later and apart:
                ahead.append([*key, stamp, *cells])
            else:
                values = [
                    repr(float(series[int(name[1:])][position - starts[int(name[1:])]]))
                    if starts[int(name[1:])] <= position < ends[int(name[1:])]
                    else ""
                    for name in owners[block]
                ]
                own.append([*key, stamp, *values, *cells])
            at += 1
    own += draw(st.lists(st.sampled_from(own), max_size=2))
    key = ["id"] if layout == "long" else []
    targets = names if layout == "wide" else ["y"]
    header = [*key, "date", *targets, *(name for name, _, _ in columns)]
    path, future = tmp_path / "data.csv", tmp_path / "future.csv"
    lines = [",".join(row) for row in (header, *draw(st.permutations(own)))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if apart:
        header = [*key, "date", *(name for name, role, _ in columns if role == "known")]
        lines = [",".join(row) for row in (header, *draw(st.permutations(ahead)))]
        future.write_text("\n".join(lines) + "\n", encoding="utf-8")
    named = {role: tuple(name for name, own_role, _ in columns if own_role == role) for role in set(roles)}
    config = DataConfig(target=tuple(targets), id=tuple(key), freq="D", **named)
    panel = read_panel([str(path)], config, future=str(future) if apart else None)

    assert sorted(panel.keys) == sorted([(name,) if layout != "single" else () for name in names])
    ordered = [column for role in ("past", "known", "static") for column in columns if column[1] == role]
    assert [(each.name, each.role) for each in panel.covariates] == [(name, role) for name, role, _ in ordered]
    for index, key in enumerate(panel.keys):
        who = int(key[0][1:]) if key else 0
        block = 0 if layout == "wide" else who
        np.testing.assert_array_equal(panel.series(index), series[who])
        assert panel.stamps(panel.starts[index : index + 1]) == [str(first + starts[who])]
        place = {"timed": 0, "static": 0}
        reach = blocks[block][1]
        for name, role, _ in ordered:
            if role == "known":
                there = [
                    position for (owner, position), cell in kept[name].items() if owner == block and cell is not None
                ]
                reach = max([reach, *(position + 1 for position in there)])
        for covariate, (name, role, _) in zip(panel.covariates, ordered, strict=True):
            texts = sorted({cell for cell in kept[name].values() if isinstance(cell, str)})
            assert covariate.categories == (tuple(texts) or None)
            if role == "static":
                expected = [next((kept[name][cell] for cell in kept[name] if cell[0] == block), None)]
                found = panel.static[index : index + 1, place["static"]]
                place["static"] += 1
            else:
                expected = [
                    kept[name].get((block, position)) if role == "known" or position < blocks[block][1] else None
                    for position in range(starts[who], reach)
                ]
                begin = panel.timed_at[index]
                found = panel.timed[begin : begin + panel.timed_rows[index], place["timed"]]
                place["timed"] += 1
            numbers = [
                np.nan if cell is None else float(texts.index(cell)) if isinstance(cell, str) else cell
                for cell in expected
            ]
            np.testing.assert_array_equal(found, np.float32(numbers))
