"""Tables: columns of text or numbers out of opened files.

A table knows the place of each row ("data.csv, line 12") for messages, and reads only the columns
it is asked for.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from stacklstm_cli.data.stamps import Words
from stacklstm_cli.errors import DataError

Floats = npt.NDArray[np.float64]

NA_WORDS = frozenset(("", "na", "n/a", "nan", "null", "none", "-", "?", "."))
"""Cells without a value, in any case."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
COMMA_NUMBER = re.compile(r"[+-]?\d*,?\d+(e[+-]?\d+)?", re.IGNORECASE)
# The C parser knows these spellings; rarer ones (nAn) are met in `numbers_of`.
NA_SPELLINGS = sorted(
    {form for word in NA_WORDS for form in (word, word.upper(), word.title(), word.capitalize())} | {"NaN"}
)


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

    def columns(self, text: Sequence[int], numbers: Sequence[int]) -> dict[int, Any]:
        """The asked columns by their number: text as [rows] str objects, numbers as [rows] float64, NaN missing."""

    def place(self, row: int) -> str:
        """Where row `row` (from 0) stands, for messages."""


def is_missing(word: str) -> bool:
    return word.strip().lower() in NA_WORDS


def number_of(word: str) -> float | None:
    """A cell as a number; NaN where it is missing, None where it is neither."""
    cleaned = word.strip()
    if cleaned.lower() in NA_WORDS:
        return float("nan")
    return float(cleaned) if NUMBER.fullmatch(cleaned) else None


def numbers_of(words: Words, complain: Callable[[int, str], DataError]) -> Floats:
    """[rows] cells as numbers; `complain(row, cell)` makes the error for the first that is none."""
    codes, unique = pd.factorize(words)
    values = [number_of(word) for word in unique]
    wrong = [code for code, value in enumerate(values) if value is None]
    if wrong:
        row = int(np.flatnonzero(np.isin(codes, wrong))[0])
        raise complain(row, str(words[row]))
    return np.asarray(values, dtype=np.float64)[codes]


@dataclass
class CsvSource:
    """Delimited text in UTF-8."""

    name: str
    header: tuple[str, ...]
    body: bytes
    """A guard row of delimiters, one more than the header has, then the rows of the file. It makes pandas
    see rows that are too long, which it otherwise lets pass wherever only some columns are read."""
    delimiter: str
    first_line: int
    """Line of the first row behind the header."""
    decimal: str = "."
    notes: tuple[str, ...] = ()

    def sample(self, limit: int | None) -> pd.DataFrame:
        return self._read(list(range(len(self.header))), dict.fromkeys(range(len(self.header)), object), {}, limit)

    def columns(self, text: Sequence[int], numbers: Sequence[int]) -> dict[int, Any]:
        extra = len(self.header)
        wanted = [*text, *numbers, extra]
        types: dict[int, Any] = {**dict.fromkeys([*text, extra], object), **dict.fromkeys(numbers, np.float64)}
        try:
            frame = self._read(wanted, types, dict.fromkeys(numbers, NA_SPELLINGS), None)
        except ValueError as error:
            if not numbers or isinstance(error, pd.errors.ParserError):
                raise
            # Some cell is not a plain number: read text to find it, or to read what pandas cannot.
            frame = self._read(wanted, dict.fromkeys(wanted, object), {}, None)
        self._refuse_long_rows(frame[extra].to_numpy(dtype=object))
        found: dict[int, Any] = {column: frame[column].to_numpy(dtype=object) for column in text}
        for column in numbers:
            if frame[column].dtype == np.float64:
                found[column] = frame[column].to_numpy()
            else:
                found[column] = self._numbers(column, frame[column].to_numpy(dtype=object))
        return found

    def _numbers(self, column: int, words: Words) -> Floats:
        if self.delimiter != ",":
            # A decimal comma may first appear after the sample, behind whole numbers.
            unique = [word.strip() for word in pd.unique(words) if not is_missing(word)]
            if self.decimal == "," or all(COMMA_NUMBER.fullmatch(word) for word in unique):
                words = np.asarray([word.replace(",", ".") for word in words], dtype=object)

        def complain(row: int, cell: str) -> DataError:
            return not_a_number(self, row, self.header[column], cell)

        return numbers_of(words, complain)

    def _refuse_long_rows(self, extra: Words) -> None:
        long = extra != ""
        if long.any():
            row = int(np.argmax(long))
            raise DataError(
                f"{self.place(row)}: more fields than the {len(self.header)} of the header.",
                hint="Quote texts that hold the delimiter, or give every column a name in the header.",
                code="ragged_row",
            )

    def _read(
        self, wanted: Sequence[int], types: dict[int, Any], missing: dict[int, list[str]], limit: int | None
    ) -> pd.DataFrame:
        # pandas-stubs know no columns that are named by numbers.
        read_csv: Any = pd.read_csv
        try:
            frame: pd.DataFrame = read_csv(
                io.BytesIO(self.body),
                sep=self.delimiter,
                header=None,
                names=list(range(len(self.header) + 1)),
                usecols=list(wanted),
                index_col=False,
                dtype=types,
                nrows=None if limit is None else limit + 1,
                decimal=self.decimal,
                keep_default_na=False,
                na_values=missing or None,
                skip_blank_lines=False,
                skipinitialspace=True,
                float_precision="round_trip",
                encoding="utf-8",
                engine="c",
                # In chunks, pandas would look for the guard row in each.
                low_memory=False,
            )
        except pd.errors.ParserError as error:
            raise DataError(
                f"{self.name}: the rows cannot be told apart ({str(error).removeprefix('Error tokenizing data. ')}).",
                hint="Look for a quotation mark that is opened and never closed.",
                code="broken_csv",
            ) from error
        rows: pd.DataFrame = frame.iloc[1:].reset_index(drop=True)
        return rows

    def place(self, row: int) -> str:
        return f"{self.name}, line {self.first_line + self._lines_before(row)}"

    def _lines_before(self, row: int) -> int:
        if b'"' not in self.body:
            return row
        # Quoted cells may hold line ends, so that rows and lines part; only messages pay for counting.
        reader = csv.reader(io.StringIO(self.body.decode(), newline=""), delimiter=self.delimiter)
        lines = 0
        for index, _ in enumerate(reader):
            # The guard row is read first.
            lines = reader.line_num - 1
            if index == row:
                break
        return lines


@dataclass
class ParquetSource:
    """A Parquet file; time stamps become ISO text, so that everything behind reads one form of table."""

    name: str
    table: pa.Table
    notes: tuple[str, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self.table.column_names)

    def sample(self, limit: int | None) -> pd.DataFrame:
        table = self.table if limit is None else self.table.slice(0, limit)
        words = {index: _arrow_words(table.column(index)) for index in range(table.num_columns)}
        frame: pd.DataFrame = pd.DataFrame(words, dtype=object)
        return frame

    def columns(self, text: Sequence[int], numbers: Sequence[int]) -> dict[int, Any]:
        found: dict[int, Any] = {index: _arrow_words(self.table.column(index)) for index in text}
        for index in numbers:
            column = self.table.column(index)
            kind = column.type
            if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
                found[index] = pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan")).to_numpy()
            else:
                found[index] = self._numbers(index)
        return found

    def _numbers(self, index: int) -> Floats:
        def complain(row: int, cell: str) -> DataError:
            return not_a_number(self, row, self.header[index], cell)

        return numbers_of(_arrow_words(self.table.column(index)), complain)

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


def not_a_number(source: Source, row: int, column: str, cell: str) -> DataError:
    """The error for a cell of a target column that is not a number."""
    return DataError(
        f"{source.place(row)}, column {column!r}: {cell!r} found, expected a number.",
        hint="Mend the cell (an empty one is a missing value), or name the columns to forecast with --target.",
        code="not_a_number",
    )


@dataclass
class Table:
    """One or several files with the same columns, one below the other."""

    sources: tuple[Source, ...]
    orders: tuple[tuple[int, ...], ...]
    """For each file: where each column of the first file's header stands in it."""
    sha256: str
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

    def columns(self, text: Sequence[str], numbers: Sequence[str]) -> tuple[dict[str, Words], dict[str, Floats]]:
        """The named columns of all files: text as [rows] str objects, numbers as [rows] float64, NaN missing.

        Raises `DataError` for a cell that is not a number, or a row with too many fields.
        """
        text_at, numbers_at = [self._position(name) for name in text], [self._position(name) for name in numbers]
        parts, rows = [], []
        for source, order in zip(self.sources, self.orders, strict=True):
            part = source.columns([order[at] for at in text_at], [order[at] for at in numbers_at])
            parts.append({at: part[order[at]] for at in (*text_at, *numbers_at)})
            rows.append(len(next(iter(parts[-1].values()))))
        self.rows = tuple(rows)
        whole = {
            at: np.concatenate([part[at] for part in parts]) if len(parts) > 1 else parts[0][at] for at in parts[0]
        }
        return (
            {name: whole[at] for name, at in zip(text, text_at, strict=True)},
            {name: whole[at] for name, at in zip(numbers, numbers_at, strict=True)},
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


def _last(place: str) -> str:
    return place.rsplit(" ", 1)[1]
