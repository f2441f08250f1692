"""Columns of numbers out of cells of text: decimal signs, thousands, units, missing values."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stacklstm_cli.data.cells import APOSTROPHES, BLANKS, NA_WORDS, Missing, plain_number
from stacklstm_cli.data.texts import Piece
from stacklstm_cli.data.wording import LONGEST_SHOWN, quoted, shown
from stacklstm_cli.errors import DataError

Floats = npt.NDArray[np.float64]

# The usual spellings; rarer ones (nAn) are met cell by cell.
NA_CELLS = pa.array(
    sorted({form for word in NA_WORDS for form in (word, word.upper(), word.title(), word.capitalize())} | {"NaN"})
)


class SourceFile(Protocol):
    """What is asked of the file to which a column belongs."""

    @property
    def header(self) -> tuple[str, ...]: ...

    @property
    def missing(self) -> Missing: ...

    def place(self, row: int) -> str: ...


class NumberReader:
    """Reads one column of a file piece by piece, all its numbers in one unit."""

    def __init__(self, source: SourceFile, at: int, decimal: str) -> None:
        self._source = source
        self._column = source.header[at]
        self._decimal = decimal
        self._unit: str | None = None
        """Known from the first number on."""
        self._numbers = np.empty(0, dtype=np.float64)
        self._size = 0

    def read(self, column: pa.ChunkedArray, rows: int) -> None:
        """Read a piece behind `rows` others. Raises `DataError` for a cell that is no number."""
        end = rows + len(column)
        if end > self._numbers.size:
            # In place where it can: two copies of a long column would be held else.
            self._numbers.resize(max(end, self._numbers.size * 5 // 4), refcheck=False)
        self._numbers[rows:end] = self._read(column, rows)
        self._size = end

    def numbers(self) -> Floats:
        """[rows] float64, NaN missing."""
        self._numbers.resize(self._size, refcheck=False)
        return self._numbers

    def _read(self, column: pa.ChunkedArray, rows: int) -> Floats:
        cells = pc.ascii_trim_whitespace(column)
        cells = pc.if_else(pc.is_in(cells, NA_CELLS), None, cells)
        plain = None
        if self._decimal == "." or not pc.any(pc.match_substring(cells, ".")).as_py():
            plain = self._cast(cells)
        if plain is None:
            plain = self._cast(self._joined(cells))
        if plain is None or (cells.null_count < len(cells) and self._settled("")):
            return self._by_cell(column, rows)
        return plain

    def _settled(self, unit: str) -> str:
        """The unit of the column; that of its first number."""
        self._unit = unit if self._unit is None else self._unit
        return self._unit

    def _cast(self, cells: pa.ChunkedArray | None) -> Floats | None:
        """[rows] cells without parted thousands as numbers; None where some cell is written in another way."""
        if cells is None:
            return None
        pointed = cells if self._decimal == "." else pc.replace_substring(cells, ",", ".")
        try:
            values: Floats = pc.fill_null(pc.cast(pointed, pa.float64()), np.nan).to_numpy()
        except pa.ArrowInvalid:
            return None
        return values

    def _joined(self, cells: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """Cells with their thousands joined; None where not all of them part thousands by one sign, or not at all."""
        for mark in ("," if self._decimal == "." else ".", *BLANKS, *APOSTROPHES):
            if pc.any(pc.match_substring(cells, mark)).as_py():
                notation = rf"^[+-]?([0-9]+|[1-9][0-9]{{0,2}}([{mark}][0-9]{{3}})+)([{self._decimal}][0-9]*)?$"
                fits = pc.all(pc.match_substring_regex(cells, notation)).as_py()
                return pc.replace_substring(cells, mark, "") if fits else None
        return None

    def _by_cell(self, column: pa.ChunkedArray, rows: int) -> Floats:
        piece = Piece.of(column)
        values = np.full(len(piece.cells), np.nan)
        for code, word in enumerate(piece.cells.to_pylist()):
            if self._source.missing.holds(word):
                continue
            number = plain_number(word, self._decimal)
            if number is None:
                raise self._no_number(rows + int(np.argmax(piece.codes == code)), word.strip())
            digits, unit = number
            if unit != self._settled(unit):
                raise self._other_unit(rows + int(np.argmax(piece.codes == code)), word.strip())
            values[code] = float(digits)
        numbers: Floats = values[piece.codes]
        return numbers

    def _no_number(self, row: int, cell: str) -> DataError:
        error = not_a_number(self._source.place(row), self._column, cell)
        other = "," if self._decimal == "." else "."
        if plain_number(cell, other):
            error.hint = f"Numbers are read with {self._decimal!r} as decimal sign; if that is wrong: --decimal {other}"
        return error

    def _other_unit(self, row: int, cell: str) -> DataError:
        found = f"{shown(cell)} found, where the cells above " + (
            f"have {self._unit!r}" if self._unit else "have no unit"
        )
        return DataError(
            f"{self._source.place(row)}, column {self._column!r}: {found}.",
            hint="Write all numbers of a column in one unit, best without its sign.",
            code="mixed_units",
        )


def not_a_number(place: str, column: str, cell: str) -> DataError:
    """The error for a cell of a column of numbers that is none."""
    word = quoted(cell) if cell.isprintable() and len(cell) <= LONGEST_SHOWN else "WORD"
    return DataError(
        f"{place}, column {column!r}: {shown(cell)} found, expected a number.",
        hint="Mend the cell (an empty one is a missing value; if such words mean that, too: --missing-value "
        f"{word}), or name the columns to forecast with --target.",
        code="not_a_number",
    )
