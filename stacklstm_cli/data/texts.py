"""Columns of text, held so that millions of cells need little memory.

Time stamps are mostly distinct, names of series mostly repeat: some thousand rows at a time, the distinct
cells are held once, side by side, and each row as the number of its cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Codes = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
Words = npt.NDArray[np.object_]

PIECE_ROWS = 1 << 15


@dataclass(frozen=True)
class Piece:
    """Some thousand rows of a column."""

    cells: pa.StringArray
    """What the rows hold, each cell once, in the order of the rows; no other cell."""
    codes: Codes
    """[rows] number of each row's cell."""

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> Piece:
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        encoded = whole.dictionary_encode()
        return cls(encoded.dictionary, encoded.indices.to_numpy())

    def kept(self, rows: Flags) -> Piece:
        """The flagged rows."""
        codes, held = pd.factorize(self.codes[rows])
        return Piece(self.cells.take(pa.array(held)), codes.astype(np.int32))

    def turned(self, turn: Callable[[str], str]) -> Piece:
        """Each cell turned by `turn`."""
        cells = Piece.of(pa.array([turn(cell) for cell in self.cells.to_pylist()], pa.string()))
        return Piece(cells.cells, cells.codes[self.codes])

    def words(self) -> Words:
        """[rows] the cells as str; equal ones are one object."""
        words: Words = self.cells.to_numpy(zero_copy_only=False)[self.codes]
        return words


@dataclass(frozen=True)
class Texts:
    """A column of text. Columns read together are cut into pieces at the same rows."""

    pieces: tuple[Piece, ...]
    """None of them is empty."""

    @classmethod
    def of(cls, words: Texts | Words) -> Texts:
        """A column, or [rows] str as one."""
        if isinstance(words, Texts):
            return words
        starts = range(0, len(words), PIECE_ROWS)
        return cls(tuple(Piece.of(pa.array(words[at : at + PIECE_ROWS], pa.string())) for at in starts))

    def __len__(self) -> int:
        return sum(piece.codes.size for piece in self.pieces)

    def __getitem__(self, row: int) -> str:
        for span, piece in self.spans():
            if row < span.stop:
                return str(piece.cells[int(piece.codes[row - span.start])])
        raise IndexError(row)

    @classmethod
    def below(cls, columns: Iterable[Texts]) -> Texts:
        """Columns one below the other."""
        return cls(tuple(piece for column in columns for piece in column.pieces))

    def spans(self) -> Iterator[tuple[slice, Piece]]:
        """The pieces, each with the rows that it is."""
        start = 0
        for piece in self.pieces:
            yield slice(start, start + piece.codes.size), piece
            start += piece.codes.size

    def words(self) -> Words:
        """[rows] the cells as str."""
        return np.concatenate([np.empty(0, dtype=object), *(piece.words() for piece in self.pieces)])

    def tolist(self) -> list[str]:
        cells: list[str] = self.words().tolist()
        return cells

    def filled(self) -> Flags:
        """[rows] whether a cell holds something."""
        parts = [pc.not_equal(piece.cells, "").to_numpy(zero_copy_only=False)[piece.codes] for piece in self.pieces]
        return np.concatenate([np.empty(0, dtype=bool), *parts])

    def kept(self, rows: Flags) -> Texts:
        """The flagged rows."""
        parts = [(piece, rows[span]) for span, piece in self.spans()]
        return Texts(tuple(piece if own.all() else piece.kept(own) for piece, own in parts if own.any()))

    def turned(self, turn: Callable[[str], str]) -> Texts:
        """Each cell turned by `turn`."""
        return Texts(tuple(piece.turned(turn) for piece in self.pieces))

    def distinct(self) -> Iterator[str]:
        """Each cell once, in the order of the rows."""
        seen: set[str] = set()
        for piece in self.pieces:
            for cell in piece.cells.to_pylist():
                if cell not in seen:
                    seen.add(cell)
                    yield cell

    def first(self, test: Callable[[pa.StringArray], pa.BooleanArray]) -> int | None:
        """The first row whose cell passes a test, which is given many cells at once."""
        for span, piece in self.spans():
            code = int(pc.index(test(piece.cells), True).as_py())
            if code >= 0:
                return int(span.start + np.argmax(piece.codes == code))
        return None

    def factorized(self) -> tuple[Codes, list[str]]:
        """[rows] a number for each cell that is distinct in the whole column, and these cells."""
        numbers = {cell: number for number, cell in enumerate(self.distinct())}
        codes = np.empty(len(self), dtype=np.int32)
        for rows, piece in self.spans():
            own = [numbers[cell] for cell in piece.cells.to_pylist()]
            codes[rows] = np.asarray(own, dtype=np.int32)[piece.codes]
        return codes, list(numbers)
