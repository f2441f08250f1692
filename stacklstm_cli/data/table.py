"""Tables: columns of text or numbers out of opened files.

A table knows the place of each row ("data.csv, line 12") for messages, and reads only the columns
it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from stacklstm_cli.data.cells import USUAL, Missing, number_of
from stacklstm_cli.data.numbers import Floats, not_a_number
from stacklstm_cli.data.texts import Texts, Words
from stacklstm_cli.errors import DataError


class Source(Protocol):
    """One file."""

    @property
    def name(self) -> str: ...

    @property
    def header(self) -> tuple[str, ...]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def sample(self, limit: int | None) -> pd.DataFrame:
        """The first `limit` rows (None: all), every cell as text; columns are numbered, not named."""

    def columns(
        self, text: Sequence[int], numbers: Sequence[int], covariates: Sequence[int] = ()
    ) -> tuple[dict[int, Texts], dict[int, Floats]]:
        """The asked columns by their number: text, then numbers as [rows] float64, NaN missing.

        In `covariates`, which are text, missing cells are empty.
        """

    def place(self, row: int) -> str:
        """Where row `row` (from 0) stands, for messages."""


@dataclass
class ParquetSource:
    """A Parquet file; time stamps become ISO text, so that everything behind reads one form of table."""

    name: str
    table: pa.Table
    missing: Missing = USUAL
    notes: tuple[str, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self.table.column_names)

    def sample(self, limit: int | None) -> pd.DataFrame:
        table = self.table if limit is None else self.table.slice(0, limit)
        words = {at: self._sampled(column) for at, column in enumerate(table.columns)}
        frame: pd.DataFrame = pd.DataFrame(words, dtype=object)
        return frame

    def columns(
        self, text: Sequence[int], numbers: Sequence[int], covariates: Sequence[int] = ()
    ) -> tuple[dict[int, Texts], dict[int, Floats]]:
        texts = {at: self._texts(at) for at in (*text, *covariates)}
        for at in covariates:
            texts[at] = texts[at].turned(lambda word: "" if self.missing.holds(word) else word)
        return texts, {at: self._numbers(at) for at in numbers}

    def _sampled(self, column: pa.ChunkedArray) -> Words:
        """Columns that cannot be read as text are empty, so that they play no role unless they are named."""
        try:
            return _arrow_words(column)
        except pa.ArrowException:
            return np.full(len(column), "", dtype=object)

    def _texts(self, at: int) -> Texts:
        column = self.table.column(at)
        try:
            return Texts.of(_arrow_words(column)).turned(str.strip)
        except pa.ArrowException as error:
            raise DataError(
                f"{self.name}: column {self.header[at]!r} holds {column.type}, expected text, numbers or time stamps.",
                hint="Leave the column out, or write its parts as columns of their own.",
                code="unreadable_column",
            ) from error

    def _numbers(self, at: int) -> Floats:
        column = self.table.column(at)
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            numbers: Floats = pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan")).to_numpy()
            return numbers
        codes, unique = self._texts(at).factorized()
        values = np.full(len(unique), np.nan)
        for code, word in enumerate(unique):
            number = float("nan") if self.missing.holds(word) else number_of(word)
            if number is None:
                row = int(np.argmax(codes == code))
                raise not_a_number(self.place(row), self.header[at], word)
            values[code] = number
        return values[codes]

    def place(self, row: int) -> str:
        return f"{self.name}, row {row + 1}"


def _arrow_words(column: pa.ChunkedArray) -> Words:
    """[rows] a column of Parquet as text; nulls are empty."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_timestamp(column.type):
        zone = "Z" if column.type.tz else ""
        stamps = pc.cast(pc.cast(column, pa.timestamp("us", column.type.tz)), pa.int64())
        missing = pc.is_null(stamps).to_numpy()
        micros = pc.fill_null(stamps, 0).to_numpy().astype("datetime64[us]")
        numbers = micros.astype(np.int64)
        unit: Any = "us" if (numbers % 1_000_000).any() else "s" if zone or (numbers % 86_400_000_000).any() else "D"
        text = np.char.replace(np.datetime_as_string(micros.astype(f"datetime64[{unit}]")), "T", " ")
        words = np.asarray([word + zone for word in text.tolist()] + [""], dtype=object)[:-1]
        words[missing] = ""
        return words
    words = pc.fill_null(pc.cast(column, pa.string()), "").to_numpy()
    return np.asarray(words, dtype=object)


@dataclass
class Table:
    """One or several files with the same columns, one below the other."""

    sources: tuple[Source, ...]
    orders: tuple[tuple[int, ...], ...]
    """For each file: where each column of the first file's header stands in it."""
    sha256: str
    missing: Missing = USUAL
    rows: tuple[int, ...] = ()
    """Rows of each file, known once columns were read."""

    @property
    def header(self) -> tuple[str, ...]:
        return self.sources[0].header

    @property
    def name(self) -> str:
        return (
            self.sources[0].name
            if len(self.sources) == 1
            else f"{self.sources[0].name} and {len(self.sources) - 1} more"
        )

    @property
    def notes(self) -> list[str]:
        return [note for source in self.sources for note in source.notes]

    def sample(self, limit: int | None) -> pd.DataFrame:
        """The first `limit` rows of each file (None: all) as text; columns in the order of the header, numbered."""
        frames = []
        for source, order in zip(self.sources, self.orders, strict=True):
            frame: pd.DataFrame = source.sample(limit)[list(order)]
            frame.columns = pd.Index(range(len(order)))
            frames.append(frame)
        whole: pd.DataFrame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        return whole

    def columns(
        self, text: Sequence[str], numbers: Sequence[str], covariates: Sequence[str] = ()
    ) -> tuple[dict[str, Texts], dict[str, Floats]]:
        """The named columns of all files: text, then numbers as [rows] float64, NaN missing.

        `covariates` are text as well; missing cells in them are empty.
        Raises `DataError` for a cell that is not a number, or a row with too many fields.
        """
        places = {name: self._position(name) for name in (*text, *numbers, *covariates)}
        texts: dict[str, list[Texts]] = {name: [] for name in (*text, *covariates)}
        values: dict[str, list[Floats]] = {name: [] for name in numbers}
        rows = []
        for source, order in zip(self.sources, self.orders, strict=True):
            at = {name: order[place] for name, place in places.items()}
            words, found = source.columns(*([at[name] for name in names] for names in (text, numbers, covariates)))
            for name, own in texts.items():
                own.append(words[at[name]])
            for name, parts in values.items():
                parts.append(_without(found[at[name]], self.missing.numbers))
            columns: list[Texts | Floats] = [*words.values(), *found.values()]
            rows.append(len(columns[0]))
        self.rows = tuple(rows)
        return (
            {name: Texts.below(own) for name, own in texts.items()},
            {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in values.items()},
        )

    def _position(self, name: str) -> int:
        if self.header.count(name) > 1:
            raise DataError(
                f"{self.name}: {self.header.count(name)} columns are named {name!r}; expected one.",
                hint="Give each column a name of its own.",
                code="repeated_column",
            )
        return self.header.index(name)

    def place(self, row: int) -> str:
        """Where a row stands, counted over all files: "data.csv, line 12"."""
        part, inside = self._locate(row)
        return self.sources[part].place(inside)

    def places(self, first: int, second: int) -> str:
        """Where two rows stand: "data.csv, lines 12 and 13"."""
        (part, one), (other_part, other) = sorted((self._locate(first), self._locate(second)))
        if part != other_part:
            return f"{self.place(first)} and {self.place(second)}"
        word = self.sources[part].place(one).rsplit(" ", 2)[1]
        source = self.sources[part]
        return f"{source.name}, {word}s {_last(source.place(one))} and {_last(source.place(other))}"

    def _locate(self, row: int) -> tuple[int, int]:
        for part, rows in enumerate(self.rows):
            if row < rows:
                return part, row
            row -= rows
        raise IndexError(row)


def _without(values: Floats, missing: tuple[float, ...]) -> Floats:
    return np.where(np.isin(values, missing), np.nan, values) if missing else values


def _last(place: str) -> str:
    return place.rsplit(" ", 1)[1]
