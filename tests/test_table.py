"""Columns of text and numbers, out of text written in any usual way."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stacklstm_cli.config import ReadingConfig
from stacklstm_cli.data import blocks
from stacklstm_cli.data.cells import NA_WORDS, decimals_of, plain_number
from stacklstm_cli.data.opening import open_table
from stacklstm_cli.data.table import Table
from stacklstm_cli.errors import DataError


@pytest.fixture
def opened(tmp_path: Path):
    """Write text or bytes to a file and open it."""

    def open_text(text: str | bytes, name: str = "data.csv", **reading) -> Table:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return open_table([str(path)], ReadingConfig(**reading))

    return open_text


def numbers(table: Table, name: str = "v") -> list[float]:
    return table.columns([], [name])[1][name].tolist()


def refused(table: Table, name: str = "v") -> DataError:
    with pytest.raises(DataError) as caught:
        table.columns([], [name])
    return caught.value


# --- how numbers are written ---


@pytest.mark.parametrize(
    ("cell", "decimal", "plain", "unit"),
    [
        ("1,234.56", ".", "1234.56", ""),
        ("1,234,567", ".", "1234567", ""),
        ("1 234.5", ".", "1234.5", ""),
        ("1\u00a0234.5", ".", "1234.5", ""),
        ("1\u202f234\u202f567,5", ",", "1234567.5", ""),
        ("1'234.5", ".", "1234.5", ""),
        ("1.234,56", ",", "1234.56", ""),
        ("1.234", ",", "1234", ""),
        ("1.234", ".", "1.234", ""),
        ("-1.234.567", ",", "-1234567", ""),
        ("−5", ".", "-5", ""),
        ("$1,234.50", ".", "1234.50", "$"),
        ("-$5", ".", "-5", "$"),
        ("$-5", ".", "-5", "$"),
        ("€ 5,5", ",", "5.5", "€"),
        ("5 €", ",", "5", "€"),
        ("12%", ".", "12", "%"),
        ("1e5", ",", "1e5", ""),
        (",5", ",", ".5", ""),
        (" 7 ", ",", "7", ""),
    ],
)
def test_a_number_in_its_notation(cell: str, decimal: str, plain: str, unit: str) -> None:
    """Thousands are parted by one sign, and in threes."""
    assert plain_number(cell, decimal) == (plain, unit)


@pytest.mark.parametrize(
    "cell", ["1,23", "12,34,567", "1 23", "0,123", "1,234 567", "1.234.567", "$5€", "--5", "", ".", "5x"]
)
def test_what_is_no_number_with_a_decimal_point(cell: str) -> None:
    """Groups of two, mixed signs, two units."""
    assert plain_number(cell, ".") is None


def test_which_decimal_sign_a_cell_shows() -> None:
    """1,234 shows neither; 1.234 is a plain decimal number as long as nothing speaks against it."""
    assert decimals_of(["1.5", "x", "2024-01-01"]) == ({"."}, "")
    assert decimals_of(["0,5"]) == ({","}, "")
    assert decimals_of(["1,234,567"]) == ({"."}, "")
    assert decimals_of(["1.234.567"]) == ({","}, "")
    assert decimals_of(["7", "1,234", "1.234"]) == (set(), "1,234")


# --- the decimal sign of a file ---


def test_thousands_are_read_where_one_cell_tells(opened) -> None:
    """One decision for the file, made from all its columns of numbers."""
    assert numbers(opened('t,v\n1,"1,234.5"\n2,"1,234"\n3,17\n')) == [1234.5, 1234, 17]
    assert numbers(opened("t;v\n1;1.234,5\n2;1.234\n")) == [1234.5, 1234]
    assert numbers(opened("t;v;w\n1;1.234;1.234.567\n2;2.345;8\n")) == [1234, 2345]
    assert numbers(opened("t;v;w\n1;1,234;0.5\n2;2,345;8\n")) == [1234, 2345]
    assert numbers(opened("t\tv\n1\t1 234,5\n2\t1\u00a0234\n")) == [1234.5, 1234]
    assert numbers(opened("t;v\n1;1.234\n2;12.345\n")) == [1.234, 12.345]


@pytest.mark.parametrize("more", ["7", "1'234.5", " 1,234.5 ", "−1,234", "$1", "x", "12,34"])
def test_many_cells_are_read_as_each_alone(opened, more: str) -> None:
    """Parted thousands are joined column by column where all cells are alike, and cell by cell elsewhere."""
    cells = ["1,234.5", "-12,345", "999", "1,234,567.125", "0.5", more]
    alone = [plain_number(cell, ".") for cell in cells]
    table = opened("t;v\n" + "".join(f"1;{cell}\n" for cell in cells))
    if alone[-1] is None or alone[-1][1]:
        assert "line 7" in refused(table).message
    else:
        assert numbers(table) == [float(cell[0]) for cell in alone if cell]


def test_the_cell_that_tells_may_come_late(opened) -> None:
    """Behind the sample, in another column than the one that is asked for."""
    rows = "".join(f"{row};1.234;7\n" for row in range(5000))
    assert numbers(opened(f"t;v;w\n{rows}5000;1.234;1.234.567\n")) == [1234] * 5001
    assert numbers(opened(f"t;v;w\n{rows}5000;1.234;7\n")) == [1.234] * 5001
    assert numbers(opened(f"t;v;w\n{rows}5000;0,5;7\n"))[-1] == 0.5


def test_a_comma_that_nothing_explains_is_refused(opened) -> None:
    """Unless the decimal sign is typed, or the column is not asked for."""
    text = 't,v,w\n1,"1,234",3\n2,"5,678",4\n'
    error = refused(opened(text))
    assert (error.code, "'v': 1,234" in error.message, "--decimal" in error.hint) == ("ambiguous_comma", True, True)
    assert numbers(opened(text), "w") == [3, 4]
    assert numbers(opened(text, decimal=".")) == [1234, 5678]
    assert numbers(opened(text, decimal=",")) == [1.234, 5.678]
    assert numbers(opened("t;v\n1;1.234\n", decimal=",")) == [1234]


def test_both_decimal_signs_in_one_file_are_refused_by_cell(opened) -> None:
    """Neither reading holds for both cells."""
    error = refused(opened("t;v\n1;1.5\n2;1,5\n"))
    assert (error.code, "line 3" in error.message, "--decimal ," in error.hint) == ("not_a_number", True, True)


def test_units_stand_at_every_number_or_at_none(opened) -> None:
    """A missing cell needs none."""
    assert numbers(opened('t,v\n1,"$1,234.50"\n2,\n3,$7\n'))[::2] == [1234.5, 7]
    assert numbers(opened("t,v\n1,12%\n2,7.5%\n")) == [12, 7.5]
    for second in ("7", "€7"):
        error = refused(opened(f"t,v\n1,$5\n2,{second}\n"))
        assert (error.code, f"line 3, column 'v': '{second}' found" in error.message) == ("mixed_units", True)
    assert refused(opened("t,v\n" + "1,5\n" * 3 + "2,$5\n")).code == "mixed_units"


def test_the_sample_shows_plain_numbers(opened) -> None:
    """So that the roles of columns are found whatever the notation."""
    table = opened(
        "t;v;w;x\n2024-01-01;1.234,5; 12%;unknown\n2024-01-02;7;-200;-200\n", missing_value=("-200", "unknown")
    )
    assert table.sample(None).to_numpy().tolist() == [
        ["2024-01-01", "1234.5", "12", ""],
        ["2024-01-02", "7", "-200", "-200"],
    ]
    assert len(table.sample(1)) == 1


def test_numbers_are_read_exactly(opened) -> None:
    """Any float, as Python writes it and with forty decimals."""
    draw = np.random.default_rng(3)
    values = np.frombuffer(draw.bytes(8 * 3000), dtype=np.float64)
    cells = [repr(value) for value in values[np.isfinite(values)].tolist()]
    cells += [f"{value:.40f}" for value in draw.random(1000)] + ["+5", "5.", ".5", "1E5", "-0"]
    truth = [float(cell) for cell in cells]
    assert numbers(opened("v,t\n" + "".join(f"{cell},1\n" for cell in cells))) == truth
    assert numbers(opened("v;t\n" + "".join(f"{cell.replace('.', ',')};1\n" for cell in cells))) == truth


# --- missing cells ---


def test_missing_words_in_any_case(opened) -> None:
    """In a column of numbers; in text they are empty only in covariates."""
    words = [form for word in sorted(NA_WORDS) for form in (word, word.upper(), word.title(), f" {word} ")]
    table = opened("t,v\nx,1\n" + "".join(f"{word},{word}\n" for word in words))
    assert np.isnan(numbers(table)[1:]).all()
    assert table.columns(["t"], [])[0]["t"].tolist()[1:] == [word.strip() for word in words]
    assert table.columns([], ["v"], ["t"])[0]["t"].tolist() == ["x"] + [""] * len(words)


def test_what_else_is_missing_is_told(opened) -> None:
    """A number matches every way of writing it, a word any case."""
    text = "t,v\nUnknown,-200\na,-200.0\n-200,-2e2\nb,Unknown\nc,1\n"
    table = opened(text, missing_value=("-200", "unknown"))
    texts, values = table.columns(["t"], ["v"])
    assert np.isnan(values["v"][:4]).all()
    assert values["v"][4] == 1
    assert texts["t"].tolist() == ["Unknown", "a", "-200", "b", "c"]
    assert table.columns([], [], ["t"])[0]["t"].tolist() == ["", "a", "", "b", "c"]
    assert refused(opened(text, missing_value=("-200",))).code == "not_a_number"


# --- rows ---


def test_rows_may_be_short_empty_or_end_in_empty_fields(opened) -> None:
    """As spreadsheets write them."""
    text = "a,v,,\r\nx,1,,\r\n\r\ny\r\n,,,\r\n   \r\nz,2,,,,\r\n\r\n\r\n"
    table = opened(text)
    texts, values = table.columns(["a"], ["v"])
    assert texts["a"].tolist() == ["x", "y", "", "", "z"]
    assert [int(value) for value in values["v"][[0, -1]]] == [1, 2]
    assert np.isnan(values["v"][1:-1]).all()
    assert [table.place(row)[-6:] for row in range(5)] == ["line 2", "line 4", "line 5", "line 6", "line 7"]
    assert table.rows == (5,)


@pytest.mark.parametrize("text", ["a,v\nx,1,,\ny,2,,\nz,3\n", "a,v,,\nx,1\ny,2\nz,3,,\n", "a,v,w\nx,1\n\ny,2\nz,3,,\n"])
def test_all_rows_may_have_other_widths_than_the_header(opened, text: str) -> None:
    """As long as nothing stands in the fields without a name."""
    table = opened(text)
    assert table.columns(["a"], [])[0]["a"].tolist() == ["x", "y", "z"]
    assert numbers(table) == [1, 2, 3]
    assert set(table.sample(None).iloc[:, 2:].to_numpy().ravel()) <= {""}
    assert refused(opened(text.replace("y,2", "y,2,,,5"))).code == "ragged_row"


def test_a_blank_line_in_a_file_of_one_column_is_a_missing_value(opened) -> None:
    """There it cannot be anything else."""
    table = opened("v\n5\n\n7\n")
    assert [str(value) for value in numbers(table)] == ["5.0", "nan", "7.0"]
    assert table.place(2).endswith("line 4")


def test_a_row_with_too_many_fields_is_named(opened) -> None:
    """Whatever stands before it, even where only other columns are read."""
    rows = '"a\nb",1\n' + "x,1\n\n" * 3000
    error = refused(opened(f"a,v\n{rows}x,1,2\n"))
    assert (error.code, "line 6004: more fields than the 2" in error.message) == ("ragged_row", True)


def test_a_quotation_mark_that_is_never_closed_is_named(opened) -> None:
    """By the line on which its row begins."""
    for rows in ('x,1\nx,"2\nx,3\n', 'x,1\nx,"2\n' + "x,3\n" * 500_000):
        error = refused(opened("a,v\n" + rows))
        assert (error.code, "line 3: a quotation mark" in error.message) == ("broken_csv", True)


@pytest.mark.parametrize("block", [3, 16, 1 << 20])
def test_quotation_marks_within_cells_are_text(opened, block: int) -> None:
    """Inches, blanks before a quoted cell, a line end within one."""
    text = """a,v\n5" pipe,1\n"6"" pipe",2\n "b, c" ,3\n"x\n"y,4\n7",5\n"""
    with mock.patch.object(blocks, "BLOCK", block):
        table = opened(text)
        texts, values = table.columns(["a"], ["v"])
        assert texts["a"].tolist() == ['5" pipe', '6" pipe', "b, c", "x\ny", '7"']
        assert values["v"].tolist() == [1, 2, 3, 4, 5]
        assert [table.place(row)[-1] for row in range(5)] == ["2", "3", "4", "5", "7"]


def test_ids_come_out_as_they_went_in(opened) -> None:
    """Leading zeros stay, surrounding blanks go; equal cells are held once."""
    found = opened("id,v\n007, 1\n 007 ,2\n7,3\n1e3,4\nNA,5\n").columns(["id"], [])[0]["id"]
    assert found.tolist() == ["007", "007", "7", "1e3", "NA"]
    assert all(type(word) is str for word in found)
    same = opened("id,v\n" + "first series,1\n" * 3).columns(["id"], [])[0]["id"]
    assert [len(piece.cells) for piece in same.pieces] == [1]


def test_a_name_that_stands_twice_is_refused_where_it_is_asked_for(opened) -> None:
    """Other columns are read."""
    table = opened("a,v,v\nx,1,2\n")
    assert table.columns(["a"], [])[0]["a"].tolist() == ["x"]
    assert refused(table).code == "repeated_column"


# --- there and back ---


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_table_is_read_as_it_was_written(tmp_path: Path, data: st.DataObject) -> None:
    """Any delimiter, decimal sign, thousands, quoting, encoding, line end; missing words and empty columns."""
    decimal = data.draw(st.sampled_from(".,"))
    thousands = data.draw(st.sampled_from(["", " ", "\u00a0", "'", "," if decimal == "." else "."]))
    delimiter = data.draw(st.sampled_from([",", ";", "\t", "|"]))
    line_end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))
    empty = [""] * data.draw(st.integers(0, 2))
    typed = data.draw(st.booleans())
    name_of = st.text('abcé ö,;|"\t0', max_size=6).map(lambda text: ("s" + text).strip())
    size = data.draw(st.integers(1, 12))
    names = data.draw(st.lists(name_of, min_size=size, max_size=size))
    columns, cells = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        truth, written = [], []
        for _ in range(size):
            if data.draw(st.integers(0, 4)) == 0:
                truth.append(float("nan"))
                written.append(data.draw(st.sampled_from(sorted(NA_WORDS))).upper())
                continue
            whole, places = data.draw(st.integers(-(10**9), 10**9)), data.draw(st.integers(0, 6))
            rest = "".join(data.draw(st.lists(st.sampled_from("0123456789"), min_size=places, max_size=places)))
            truth.append(float(f"{whole}.{rest}0"))
            grouped = f"{whole:,}".replace(",", thousands)
            written.append(grouped + (decimal + rest if rest else ""))
        columns.append(truth)
        cells.append(written)
    if not typed:
        # Beyond doubt, wherever it stands.
        names.append("last")
        for truth, written in zip(columns, cells, strict=True):
            truth.append(0.5)
            written.append(f"0{decimal}5")
    text = io.StringIO(newline="")
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerow(["name", *(f"v{at}" for at in range(len(columns))), *empty])
    for row in zip(names, *cells, strict=True):
        writer.writerow([*row, *empty])
        if data.draw(st.integers(0, 9)) == 0:
            text.write(line_end)
    path = tmp_path / "table.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    reading = ReadingConfig(
        decimal=decimal if typed else None,
        delimiter=delimiter if data.draw(st.booleans()) else None,
        encoding=encoding if data.draw(st.booleans()) else None,
    )
    with mock.patch.object(blocks, "BLOCK", data.draw(st.sampled_from([8, 64, 1 << 20]))):
        table = open_table([str(path)], reading)
        texts, values = table.columns(["name"], [f"v{at}" for at in range(len(columns))])
    assert texts["name"].tolist() == names
    for at, truth in enumerate(columns):
        np.testing.assert_array_equal(values[f"v{at}"], truth)


# --- Parquet ---


def test_parquet_columns(tmp_path: Path) -> None:
    """Dates, dictionaries, decimals and text are read; what is missing is said as in a CSV file."""
    frame = {
        "day": pa.array([0, 1, None], pa.date32()),
        "kind": pa.array(["a ", "unknown", None]).dictionary_encode(),
        "price": pa.array(["1.50", "-200.00", None]).cast(pa.decimal128(8, 2)),
        "text": pa.array(["1", "unknown", "3"]),
        "parts": pa.array([[1], [2], [3]]),
    }
    pq.write_table(pa.table(frame), tmp_path / "data.parquet")
    table = open_table([str(tmp_path / "data.parquet")], ReadingConfig(missing_value=("-200", "unknown")))
    texts, values = table.columns(["day"], ["price", "text"], ["kind"])
    assert texts["day"].tolist() == ["1970-01-01", "1970-01-02", ""]
    assert texts["kind"].tolist() == ["a", "", ""]
    np.testing.assert_array_equal(values["price"], [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(values["text"], [1, np.nan, 3])
    assert table.sample(None)[4].tolist() == ["", "", ""]
    for text, number in ((["parts"], []), ([], ["parts"])):
        with pytest.raises(DataError, match="column 'parts' holds list"):
            table.columns(text, number)
    with pytest.raises(DataError, match="row 1, column 'kind': 'a' found"):
        table.columns([], ["kind"])
    pd.DataFrame({"v": [1, 2]}).to_parquet(tmp_path / "plain.parquet")
    assert numbers(open_table([str(tmp_path / "plain.parquet")])) == [1, 2]
