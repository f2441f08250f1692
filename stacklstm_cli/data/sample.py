"""The rows of a file by which roles are guessed, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from stacklstm_cli.data.cells import is_missing, number_of
from stacklstm_cli.data.patterns import Words, parse_integers

MOSTLY = 0.9
"""Such a share of the cells being numbers makes a column one of numbers, whatever texts there are."""
ROW_NUMBER_NAMES = ("", "no", "no.", "nr", "index", "row", "rownum", "id", "#")

Kind = Literal["number", "text", "empty"]


@dataclass(frozen=True)
class Sample:
    """Rows without blank lines; columns are known by their place, as names may repeat."""

    header: tuple[str, ...]
    words: tuple[Words, ...]
    """For each column: [rows] cells as text."""
    kinds: tuple[Kind, ...]

    @classmethod
    def of(cls, header: Sequence[str], frame: pd.DataFrame) -> Sample:
        words = [frame.iloc[:, at].to_numpy(dtype=object) for at in range(len(header))]
        # Rows without anything are blank lines, not data.
        filled = np.zeros(len(frame), dtype=bool)
        for column in words:
            filled |= column != ""
        held = tuple(column[filled] for column in words)
        return cls(tuple(header), held, tuple(map(kind_of, held)))

    def named(self, name: str) -> list[int]:
        """Where columns of a name stand, in any case."""
        return [at for at, own in enumerate(self.header) if own.strip().lower() == name]

    def present(self, at: int) -> list[str]:
        """The distinct cells of a column that hold something, in their order."""
        return [word for word in pd.unique(self.words[at]) if not is_missing(word)]

    def codes(self, places: Sequence[int]) -> npt.NDArray[np.int64]:
        """[rows] a number for each distinct combination of the cells of some columns."""
        codes = np.zeros(self.words[places[0]].size, dtype=np.int64)
        for at in places:
            more, unique = pd.factorize(self.words[at])
            codes = pd.factorize(codes * max(unique.size, 1) + more)[0].astype(np.int64)
        return codes

    def is_row_number(self, at: int) -> bool:
        """Whether a column only counts the rows: 0, 1, 2 … or 1, 2, 3 …"""
        name = self.header[at].strip().lower()
        if name not in ROW_NUMBER_NAMES and not name.startswith("unnamed: "):
            return False
        numbers = parse_integers(self.words[at]) if self.words[at].size > 1 else None
        return numbers is not None and numbers[0] in (0, 1) and bool((np.diff(numbers) == 1).all())


def kind_of(words: Words) -> Kind:
    """Numbers, where most texts are numbers or most cells are: a bad cell is then an error to name, not a text."""
    codes, unique = pd.factorize(words)
    held = np.asarray([not is_missing(word) for word in unique], dtype=bool)
    if not held.any():
        return "empty"
    good = np.asarray([number_of(word) is not None for word in unique], dtype=bool) & held
    cells = np.bincount(codes, minlength=held.size)
    most = 2 * np.count_nonzero(good) > np.count_nonzero(held) or cells[good].sum() >= MOSTLY * cells[held].sum()
    return "number" if most else "text"
