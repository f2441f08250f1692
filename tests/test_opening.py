"""Files in any wrapping are opened, or refused with what to type."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklstm_cli.config import ReadingConfig
from stacklstm_cli.data import blocks
from stacklstm_cli.data.opening import open_table
from stacklstm_cli.data.table import Table
from stacklstm_cli.errors import DataError, StacklstmError, UsageError

TEXT = "näme;v\nä;1,5\nb;2\n"


@pytest.fixture
def opened(tmp_path: Path):
    """Write text or bytes to a file and open it."""

    def open_text(content: str | bytes, name: str = "data.csv", **reading) -> Table:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return open_table([str(path)], ReadingConfig(**reading))

    return open_text


def cells(table: Table) -> list[list[str]]:
    """Header and rows as text."""
    names = list(dict.fromkeys(name for name in table.header if name))
    words = table.columns(names, [])[0]
    return [names, *map(list, zip(*(words[name].tolist() for name in names), strict=True))]


def refused(opened, content: str | bytes, error: type[StacklstmError] = DataError, **options) -> StacklstmError:
    with pytest.raises(error) as caught:
        cells(opened(content, **options))
    return caught.value


# --- bytes ---


@pytest.mark.parametrize("block", [8, 1 << 20])
@pytest.mark.parametrize("pack", [lambda raw: raw, gzip.compress, bz2.compress, lzma.compress, pa.compress])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_compression_and_encoding_are_found(opened, encoding: str, pack, block: int) -> None:
    """Whatever the size of the pieces in which a file is read; the digest is that of its bytes."""
    raw = TEXT.encode(encoding)
    raw = pa.compress(raw, "zstd", asbytes=True) if pack is pa.compress else pack(raw)
    with mock.patch.object(blocks, "BLOCK", block):
        table = opened(raw)
        assert cells(table) == [["näme", "v"], ["ä", "1,5"], ["b", "2"]]
    assert table.sha256 == hashlib.sha256(raw).hexdigest()
    assert any("Windows-1252" in note for note in table.notes) == (encoding == "cp1252")


def test_gzip_files_one_behind_the_other_are_one(opened) -> None:
    """As `cat a.gz b.gz` makes them."""
    assert cells(opened(gzip.compress(b"a,v\nx,1\n") + gzip.compress(b"y,2\n")))[1:] == [["x", "1"], ["y", "2"]]


def test_standard_input_is_read_once() -> None:
    """And its columns as often as they are asked for."""
    table = open_table(["-"], stdin=io.BytesIO(TEXT.encode()))
    assert cells(table) == cells(table)
    assert table.place(1) == "standard input, line 3"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """Such as <(zcat data.csv.gz)."""
    reading, writing = os.pipe()
    os.write(writing, TEXT.encode())
    os.close(writing)
    assert len(cells(open_table([f"/dev/fd/{reading}"]))) == 3
    os.close(reading)


def test_a_file_that_changes_while_it_is_read_is_refused(opened, tmp_path: Path) -> None:
    """Digest and rows would be of two files."""
    table = opened("a,v\nx,1\n")
    with (tmp_path / "data.csv").open("a") as file:
        file.write("y,2\n")
    with pytest.raises(DataError) as caught:
        cells(table)
    assert caught.value.code == "file_changed"
    (tmp_path / "data.csv").unlink()
    with pytest.raises(DataError) as caught:
        cells(table)
    assert caught.value.code == "file_missing"


@pytest.mark.parametrize(("content", "code"), [("", "no_rows"), ("\ufeff", "no_rows"), ("a,v\n\n", "no_rows")])
def test_an_empty_file_among_several_is_named(opened, tmp_path: Path, content: str, code: str) -> None:
    """Not taken for a file of other columns."""
    opened("a,v\nx,1\n", name="first.csv")
    (tmp_path / "second.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"second\.csv") as caught:
        open_table([str(tmp_path / "first.csv"), str(tmp_path / "second.csv")])
    assert caught.value.code == code


PIECES = [
    "a",
    "1",
    "2,5",
    "1.234",
    ",",
    ";",
    '"',
    '""',
    "\n",
    "\r",
    "\r\n",
    "\t",
    " ",
    "$",
    "%",
    "é",
    "\u2028",
    "\x1c",
    "\0",
]


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    header=st.sampled_from(["", "a,v\n"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]),
    block=st.sampled_from([8, 1 << 20]),
)
def test_any_file_is_a_table_or_one_message(text: str, header: str, encoding: str, block: int) -> None:
    """Sample and columns have the same rows, each on a line of its own, in order."""
    raw = (header + text).encode(encoding, "ignore")
    with mock.patch.object(blocks, "BLOCK", block):
        try:
            table = open_table(["-"], stdin=io.BytesIO(raw))
            rows = len(table.sample(None))
            once = [name for name in table.header if table.header.count(name) == 1]
            if once:
                table.columns(once[:1], [], once[1:])
            lines = [int(table.place(row).rsplit(" ", 1)[1]) for row in range(rows if once else 0)]
            assert lines == sorted(set(lines))
            assert max(lines, default=0) <= 1 + (header + text).count("\n") + (header + text).count("\r")
            for name in once:
                assert table.columns([], [name])[1][name].size == rows
        except DataError as error:
            refusal = error.hint and error.code
        else:
            refusal = "none"
        assert refusal


# --- encodings ---


def test_an_encoding_may_be_typed(opened) -> None:
    """Any that Python has; a byte-order mark is never text."""
    assert cells(opened(TEXT.encode("cp437"), encoding="cp437"))[0] == ["näme", "v"]
    assert cells(opened(TEXT.encode("utf-16-le"), encoding="UTF-16LE"))[0] == ["näme", "v"]
    assert cells(opened(TEXT.encode("utf-8-sig"), encoding="utf8"))[0] == ["näme", "v"]
    assert not opened(TEXT.encode("cp1252"), encoding="cp1252").notes


@pytest.mark.parametrize(
    ("typed", "near"), [("cp1253x", "cp1253"), ("utf9", "utf"), ("latin-one", "latin"), ("hex", "--encoding")]
)
def test_an_unknown_encoding_is_refused_with_a_near_one(opened, typed: str, near: str) -> None:
    """Codecs that do not make text are none."""
    error = refused(opened, TEXT, UsageError, encoding=typed)
    assert (error.code, repr(typed) in error.message, near in error.hint) == ("unknown_encoding", True, True)


def test_a_file_in_another_encoding_than_typed_is_refused_by_line(opened) -> None:
    """The line is that of the first byte that is wrong."""
    for block in (4, 1 << 20):
        with mock.patch.object(blocks, "BLOCK", block):
            error = refused(opened, "a,v\nx,1\nö,2\n".encode("cp1252"), encoding="utf-8")
            assert (error.code, "line 3: not in the encoding utf-8" in error.message) == ("not_in_encoding", True)
            assert refused(opened, "a,v\nx,ö\n", encoding="ascii").message.endswith(
                "line 2: not in the encoding ascii."
            )
    assert refused(opened, TEXT.encode("utf-16-le")).code == "not_text"


# --- delimiters ---


@pytest.mark.parametrize(
    ("typed", "character"),
    [("tab", "\t"), ("\\t", "\t"), ("TAB", "\t"), ("space", " "), ("comma", ","), ("semicolon", ";"), ("pipe", "|")]
    + [(character, character) for character in (",", "#", "~", "§", "\t", " ")],
)
def test_a_delimiter_may_be_typed(opened, typed: str, character: str) -> None:
    """By its name, or as it is; any character."""
    text = 'a,v\n"x, y",1\nz,2\n'.replace(",", character)
    assert cells(opened(text, delimiter=typed)) == [["a", "v"], [f"x{character} y", "1"], ["z", "2"]]


def test_several_blanks_are_one_delimiter(opened) -> None:
    """As in tables that are aligned."""
    text = "  a      v\n  x      1\n\n long   22 \n"
    assert cells(opened(text, delimiter="space")) == [["a", "v"], ["x", "1"], ["long", "22"]]


@pytest.mark.parametrize("typed", ["tabs", "", ";;", '"', "\n"])
def test_a_delimiter_that_cannot_be_is_refused(opened, typed: str) -> None:
    """With the names that there are."""
    error = refused(opened, TEXT, UsageError, delimiter=typed)
    assert (error.code, "semicolon" in error.message) == ("bad_delimiter", True)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_delimiter_is_found_below_titles_and_beside_others(opened, delimiter: str) -> None:
    """Commas within texts and numbers do not count."""
    rows = ["a", "v", "w"], ["x, y", "1,5", "2|3"], ["x; y", "2,25", "3"], ["z", "3,125", "4"]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    assert cells(opened(f"A title\n\n{text}\n")) == list(rows)


# --- what stands above the header ---


@pytest.mark.parametrize(
    "above",
    [
        "Sales 2024\n",
        "Sales 2024,,\n\n",
        "# made by hand\n# on Monday, twice\n",
        '"Sales\nof 2024"\n',
        "Region:,Berlin\n\n",
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_above_the_header_are_passed_over(opened, above: str, line_end: str) -> None:
    """With a note; lines are counted as they stand."""
    text = (above + "date,region,v\n2024-01-01,north,1\n2024-01-02,south,2\n").replace("\n", line_end)
    table = opened(text)
    assert cells(table)[:2] == [["date", "region", "v"], ["2024-01-01", "north", "1"]]
    lines = above.count("\n")
    assert table.place(1).endswith(f"line {lines + 3}")
    assert any(f"{lines} line" in note for note in table.notes)


@pytest.mark.parametrize(
    "text",
    [
        ",v\n2024-01-01,1\n2024-01-02,2\n",
        "#,v\n1,5\n2,6\n",
        "date,\n2024-01-01,1\n2024-01-02,2\n",
        "v\n1\n2\n",
        "a,b,c\nx\ny,1,2\n",
    ],
)
def test_a_header_is_not_taken_for_a_title(opened, text: str) -> None:
    """Nameless columns and short rows are no titles."""
    table = opened(text)
    assert list(table.header) == text.split("\n")[0].split(",")
    assert not table.notes


def test_a_title_without_a_header_is_refused_by_line(opened) -> None:
    """The first row of values must not become the header."""
    error = refused(opened, "Sales\n2024-01-01,north,1\n2024-01-02,south,2\n")
    assert (error.code, "line 1: 'Sales'" in error.message) == ("no_header", True)


def test_a_header_over_several_lines(opened) -> None:
    """Quoted names may hold line ends."""
    table = opened('"a\nb",v\nx,1\n"y\n",2\nz,3\n')
    assert table.header == ("a\nb", "v")
    assert cells(table)[2] == ["y", "2"]
    assert [table.place(row)[-6:] for row in range(3)] == ["line 3", "line 4", "line 6"]
