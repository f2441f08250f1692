"""Delimited text as columns: rows told apart, cells read as text or numbers, some thousands of rows at a time."""

from __future__ import annotations

import csv
import io
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from stacklstm_cli.data.blocks import TextFile
from stacklstm_cli.data.cells import DOUBTFUL, NOTATIONS, Missing, decimals_of, plain_number
from stacklstm_cli.data.numbers import Floats, NumberReader
from stacklstm_cli.data.texts import Piece, Texts, Words
from stacklstm_cli.errors import DataError

SAMPLED_ROWS = 2000
LONGEST_ROW = 1 << 26
"""Bytes; a longer one has a quotation mark that is never closed."""
END = "\x1e\x1f\x1e"
"""A line behind the last; where it is not read as a row, the last row was never ended."""
LINE_END = re.compile(rb"\r\n|\n|\r")
# The default, 128 KiB, is for all of Python; a long text is no error.
csv.field_size_limit(max(csv.field_size_limit(), 2 * LONGEST_ROW))


def rows_of(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the line on which each row begins, from 0, and its cells; a blank line has none.

    Between blanks as delimiters there are no empty cells: several stand for one.
    """
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != " ")
    begin = 0
    for cells in reader:
        yield begin, [cell for cell in cells if cell] if delimiter == " " else cells
        begin = reader.line_num


@dataclass
class CsvSource:
    """Delimited text below a header."""

    text: TextFile
    header: tuple[str, ...]
    start: int
    """Bytes before the first row, as UTF-8."""
    first_line: int
    """Line of the first row behind the header."""
    delimiter: str
    line_end: bytes
    fields: int
    """Usual number of fields in a row; where it is not the header's, the last are empty."""
    decimal: str | None
    """As typed; None: to be found."""
    missing: Missing
    notes: tuple[str, ...] = ()
    _marks: list[tuple[int, int]] = field(default_factory=list)
    """Rows and bytes before each piece that was read."""

    @property
    def name(self) -> str:
        return self.text.name

    def sample(self, limit: int | None) -> pd.DataFrame:
        """Numbers are written with a decimal point, and without thousands parted or a unit."""
        everything = range(len(self.header))
        decimal = self.decimal or self._sampled_decimal()[0] or "."

        def plain(word: str) -> str:
            cell = word.strip()
            if cell.lower() in self.missing.words:
                # A missing number (-200) shows that the column is one of numbers.
                return cell if plain_number(cell, ".") else ""
            number = plain_number(cell, decimal)
            return number[0] if number else cell

        parts: list[list[Words]] = []
        rows = 0
        for table in self._tables(everything):
            wanted = table if limit is None else table.slice(0, limit - rows)
            parts.append([Piece.of(wanted.column(at)).turned(plain).words() for at in everything])
            rows += wanted.num_rows
            if rows == limit:
                break
        columns = {at: np.concatenate([part[at] for part in parts]) for at in everything}
        frame: pd.DataFrame = pd.DataFrame(columns, dtype=object)
        return frame

    def columns(
        self, text: Sequence[int], numbers: Sequence[int], covariates: Sequence[int] = ()
    ) -> tuple[dict[int, Texts], dict[int, Floats]]:
        wanted = list(dict.fromkeys([*text, *numbers, *covariates]))
        decimal = self._decimal(numbers)
        readers = {at: NumberReader(self, at, decimal) for at in numbers}
        pieces: dict[int, list[Piece]] = {at: [] for at in wanted if at not in readers}
        rows = 0
        for table in self._tables(wanted):
            for at, column in zip(wanted, table.columns, strict=True):
                if at in readers:
                    readers[at].read(column, rows)
                elif table.num_rows:
                    piece = Piece.of(pc.utf8_trim_whitespace(column))
                    pieces[at].append(piece.turned(self._known) if at in covariates else piece)
            rows += table.num_rows
        texts = {at: Texts(tuple(own)) for at, own in pieces.items()}
        return texts, {at: reader.numbers() for at, reader in readers.items()}

    def _known(self, word: str) -> str:
        return "" if self.missing.holds(word) else word

    # --- the decimal sign ---

    def _sampled_decimal(self) -> tuple[str | None, tuple[int, ...]]:
        """The decimal sign that the first rows show, if any, and the columns of numbers among them."""
        everything = range(len(self.header))
        numeric = []
        certain: set[str] = set()
        table = next(self._tables(everything)).slice(0, SAMPLED_ROWS)
        for at in everything:
            cells = [cell for cell in table.column(at).unique().to_pylist() if not self.missing.holds(cell)]
            good = sum(any(plain_number(cell, sign) for sign in NOTATIONS) for cell in cells)
            if 2 * good > len(cells):
                numeric.append(at)
                certain |= decimals_of(cells)[0]
        return _one_of(certain), tuple(numeric)

    def _decimal(self, numbers: Sequence[int]) -> str:
        """The decimal sign of the file, by all its columns of numbers, `numbers` among them.

        Raises `DataError` where each comma in `numbers` may as well part thousands: 1,234.
        """
        if self.decimal or not numbers:
            return self.decimal or "."
        found, numeric = self._sampled_decimal()
        if found:
            return found
        doubtful = ""
        wanted = list(dict.fromkeys([*numbers, *numeric]))
        for table in self._tables(wanted):
            certain: set[str] = set()
            for place, at in enumerate(wanted):
                column = table.column(place)
                marked = column.filter(pc.match_substring_regex(column, "[.,]"))
                unsure = pc.match_substring_regex(marked, rf"^\s*{DOUBTFUL}\s*$")
                signs, doubt = decimals_of(marked.filter(pc.invert(unsure)).unique().to_pylist())
                certain |= signs
                if at in numbers and not doubtful:
                    commas = marked.filter(pc.and_(unsure, pc.match_substring(marked, ",")))
                    cell = doubt or (commas[0].as_py() if len(commas) else "")
                    doubtful = f"column {self.header[at]!r}: {cell}" if cell else ""
            if certain:
                return _one_of(certain) or "."
        if doubtful:
            raise DataError(
                f"{self.name}, {doubtful} is 1000 times larger if its comma parts thousands; no number tells.",
                hint="Say which it is: --decimal , or --decimal . (then commas part thousands).",
                code="ambiguous_comma",
            )
        return "."

    # --- rows ---

    def body(self) -> Iterator[bytes]:
        """What stands below the header."""
        ahead = self.start
        for block in self.text.blocks():
            if ahead < len(block):
                yield block[ahead:]
            ahead = max(0, ahead - len(block))

    def _tables(self, wanted: Sequence[int]) -> Iterator[pa.Table]:
        """All rows in pieces; the wanted columns in this order, every cell as text."""
        rest, rows, passed = b"", 0, 0
        for block in chain(self.body(), (b"",)):
            rest = rest + block if rest else block
            last = not block or len(rest) > LONGEST_ROW
            end = len(rest) if not block else rest.rfind(self.line_end) + 1 if last else self._row_end(rest)
            if not end:
                continue
            if not self._marks or self._marks[-1][0] < rows:
                self._marks.append((rows, passed))
            table = self._table(rest[:end], wanted, rows, last)
            if table is not None:
                rest = rest[end:]
                rows += table.num_rows
                passed += end
                yield table
        if not rows:
            yield pa.table([pa.array([], pa.string())] * len(wanted), [str(at) for at in wanted])

    def _row_end(self, data: bytes) -> int:
        """Where the last whole row ends: at a line end with an even number of quotation marks before it."""
        end = data.rfind(self.line_end) + 1
        marks = data.count(b'"', 0, end)
        while marks % 2:
            before = data.rfind(self.line_end, 0, end - 1) + 1
            marks -= data.count(b'"', before, end)
            end = before
        return end

    def _table(self, piece: bytes, wanted: Sequence[int], rows: int, last: bool) -> pa.Table | None:
        """A piece as a table, behind `rows` others; None where it ends within a quoted cell."""
        table = self._regular(piece, wanted) if self._is_regular(piece) else None
        if table is not None:
            return table
        cells = self._cells(piece, rows, last)
        if cells is None:
            return None
        return pa.table([pa.array([row[at] for row in cells], pa.string()) for at in wanted], [*map(str, wanted)])

    def _regular(self, piece: bytes, wanted: Sequence[int]) -> pa.Table | None:
        """A piece as a table; None where some row has another number of fields than is usual."""
        names = [str(at) for at in range(self.fields)]
        found = [str(at) for at in wanted if at < self.fields]
        surplus = names[len(self.header) :]
        try:
            table = pacsv.read_csv(
                pa.BufferReader(piece),
                pacsv.ReadOptions(column_names=names, block_size=len(piece), use_threads=False),
                pacsv.ParseOptions(
                    delimiter=self.delimiter,
                    newlines_in_values=b'"' in piece,
                    ignore_empty_lines=len(self.header) > 1,
                ),
                pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=[*found, *surplus],
                    null_values=[],
                    check_utf8=False,
                ),
            )
        except pa.ArrowInvalid:
            return None
        if any(pc.any(pc.not_equal(table.column(name), "")).as_py() for name in surplus):
            return None
        empty = pa.array([""] * table.num_rows if len(found) < len(wanted) else [], pa.string())
        return pa.table([table.column(str(at)) if at < self.fields else empty for at in wanted], [*map(str, wanted)])

    def _is_regular(self, piece: bytes) -> bool:
        """Whether every quotation mark belongs to a cell that is quoted from its first to its last character."""
        if self.delimiter == " " or not self.delimiter.isascii():
            return False
        if b'"' not in piece:
            return True
        edge = rb"[\r\n" + re.escape(self.delimiter.encode()) + rb"]"
        quoted = rb"(?:\A|(?<=" + edge + rb'))"[^"]*(?:""[^"]*)*"(?=\Z|' + edge + rb")"
        return b'"' not in re.sub(quoted, b"", piece)

    def _cells(self, piece: bytes, rows: int, last: bool) -> list[list[str]] | None:
        """The rows of a piece with as many cells as the header has; None where it ends within a quoted cell."""
        width = len(self.header)
        found: list[list[str]] = []
        lines = chain(io.StringIO(piece.decode(), newline=""), (END,))
        ended = False
        try:
            for _, cells in rows_of(lines, self.delimiter):
                ended = cells == [END]
                if ended or (not cells and width > 1):
                    continue
                if any(cell.strip() for cell in cells[width:]) and END not in cells[-1]:
                    raise self._long_row(rows + len(found))
                found.append([*cells[:width], *[""] * (width - len(cells))])
        except csv.Error as error:
            raise DataError(
                f"{self.place(rows + len(found))}: the row cannot be read ({error}).",
                hint="Look for a quotation mark that is opened and never closed.",
                code="broken_csv",
            ) from error
        if ended:
            return found
        if not last:
            return None
        raise DataError(
            f"{self.place(rows + len(found) - 1)}: a quotation mark is opened and never closed.",
            hint="Close it, or take it out.",
            code="broken_csv",
        )

    def _long_row(self, row: int) -> DataError:
        return DataError(
            f"{self.place(row)}: more fields than the {len(self.header)} of the header.",
            hint="Quote texts that hold the delimiter, or give every column a name in the header.",
            code="ragged_row",
        )

    def place(self, row: int) -> str:
        return f"{self.name}, line {self.first_line + self._lines_before(row)}"

    def _lines_before(self, row: int) -> int:
        """Quoted cells may hold line ends, and blank lines are no rows; only messages pay for counting."""
        rows, ahead = self._marks[bisect_right(self._marks, row, key=lambda mark: mark[0]) - 1]
        lines = 0
        body = self.body()
        tail = before = b""
        for block in body:
            lines += len(LINE_END.findall(before + block[:ahead])) - len(before)
            if ahead < len(block):
                tail = block[ahead:]
                break
            ahead -= len(block)
            before = b"\r" if block.endswith(b"\r") else b""
        decoded = io.TextIOWrapper(io.BufferedReader(_Joined(chain((tail,), body))), encoding="utf-8", newline="")
        for begin, cells in rows_of(decoded, self.delimiter):
            if cells or len(self.header) == 1:
                if rows == row:
                    return lines + begin
                rows += 1
        return lines


class _Joined(io.RawIOBase):
    """Blocks as one file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = next(self._blocks)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _one_of(certain: set[str]) -> str | None:
    """The decimal sign; of two, the point, so that numbers with a comma are refused by name."""
    return "." if "." in certain else "," if certain else None
