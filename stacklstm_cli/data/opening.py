"""Paths become tables: compression, encoding, delimiter, header."""

from __future__ import annotations

import codecs
import csv
import difflib
import encodings.aliases
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stacklstm_cli.config import ReadingConfig
from stacklstm_cli.data.blocks import File, TextFile, file_at, unreadable
from stacklstm_cli.data.cells import NOTATIONS, Missing, plain_number
from stacklstm_cli.data.delimited import CsvSource, rows_of
from stacklstm_cli.data.stamps import looks_like_time
from stacklstm_cli.data.table import ParquetSource, Source, Table
from stacklstm_cli.data.wording import shown
from stacklstm_cli.errors import DataError, UsageError

DELIMITERS = (",", ";", "\t", "|")
DELIMITER_WORDS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";", "pipe": "|"}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz"}
SNIFFED_LINES = 50
SNIFFED_CHARACTERS = 200_000
LONGEST_HEADER = 4_000_000
"""Bytes; behind them rows are taken to begin."""
NOTHING_SET = ReadingConfig()


def open_table(sources: Sequence[str], reading: ReadingConfig = NOTHING_SET, stdin: BinaryIO | None = None) -> Table:
    """Read files ("-" is standard input) and their headers.

    What `reading` does not set is found. Raises `DataError` naming the path, or `UsageError` for a
    delimiter or an encoding that there is not.
    """
    delimiter = _typed_delimiter(reading.delimiter)
    encoding = _typed_encoding(reading.encoding)
    missing = Missing.of(reading.missing_value)
    digest = hashlib.sha256()
    opened: list[Source] = []
    for path in sources:
        file = file_at(path, stdin)
        for block in file.blocks():
            digest.update(block)
        opened.append(_source(file, delimiter, encoding, reading.decimal, missing))
    first = opened[0]
    orders = []
    for other in opened:
        if sorted(other.header) != sorted(first.header):
            lacking = [name for name in first.header if name not in other.header]
            more = [name for name in other.header if name not in first.header]
            raise DataError(
                f"{other.name}: its columns are not those of {first.name}"
                + (f"; missing: {', '.join(lacking)}" if lacking else "")
                + (f"; only here: {', '.join(more)}" if more else "")
                + ".",
                hint="Files given together must have the same columns.",
                code="columns_differ",
            )
        same = other.header == first.header
        orders.append(
            tuple(range(len(first.header))) if same else tuple(other.header.index(name) for name in first.header)
        )
    return Table(tuple(opened), tuple(orders), digest.hexdigest(), missing)


def require_files(sources: Sequence[str]) -> None:
    """Raise `DataError` for the first path that cannot be opened, before any other work is done."""
    for path in sources:
        if path != "-":
            try:
                Path(path).open("rb").close()
            except (OSError, ValueError) as error:
                raise unreadable(path, error) from error


# --- what is typed ---


def _typed_delimiter(delimiter: str | None) -> str | None:
    if delimiter is None:
        return None
    character = DELIMITER_WORDS.get(delimiter.lower(), delimiter)
    if len(character) != 1 or character in '"\r\n\0':
        raise UsageError(
            f"--delimiter is {delimiter!r}; expected one character, or one of {', '.join(DELIMITER_WORDS)}.",
            hint="For example: --delimiter semicolon",
            code="bad_delimiter",
        )
    return character


def _typed_encoding(encoding: str | None) -> str | None:
    """The encoding under the name that Python gives it."""
    if encoding is None:
        return None
    try:
        b"a".decode(encoding, "replace")
    except (LookupError, ValueError) as error:
        names = sorted({name.replace("_", "-") for pair in encodings.aliases.aliases.items() for name in pair})
        near = difflib.get_close_matches(encoding.lower().replace("_", "-"), names, 1, 0.5)
        raise UsageError(
            f"--encoding is {encoding!r}, which is no encoding of text that Python knows.",
            hint=f"Did you mean --encoding {near[0]}?" if near else "For example: --encoding cp1252",
            code="unknown_encoding",
        ) from error
    return codecs.lookup(encoding).name


# --- one file ---


def _source(file: File, delimiter: str | None, encoding: str | None, decimal: str | None, missing: Missing) -> Source:
    suffix = Path(file.path).suffix.lower()
    begin = next(file.blocks(), b"")[:10]
    if suffix == ".parquet" or begin.startswith(b"PAR1"):
        return _parquet_source(file, missing)
    method = COMPRESSIONS.get(suffix) or next(
        (method for magic, method in MAGIC.items() if begin.startswith(magic)), ""
    )
    text, notes = _text(TextFile(file, method if begin else ""), encoding)
    return _csv_source(text, delimiter, decimal, missing, notes)


def _parquet_source(file: File, missing: Missing) -> ParquetSource:
    try:
        with file.open() as handle:
            table = pq.read_table(handle)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file.name}: no readable Parquet file ({error}).", hint="Write the file again.", code="file_damaged"
        ) from error
    if table.num_rows == 0 or table.num_columns == 0:
        raise DataError(f"{file.name}: the file holds no rows.", hint="Check how the file was written.", code="no_rows")
    return ParquetSource(file.name, table, missing)


def _text(text: TextFile, typed: str | None) -> tuple[TextFile, tuple[str, ...]]:
    """The file with its encoding, and what had to be guessed to read it."""
    begin = next(text.content(), b"")
    if begin.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DataError(
            f"{text.name}: an Excel or zip file, expected text.", hint="Save the table as CSV.", code="not_text"
        )
    if typed is not None:
        plain = TextFile(text.file, text.compression, typed)
        line = plain.undecodable_line()
        if line is not None:
            raise DataError(
                f"{text.name}, line {line}: not in the encoding {typed}.",
                hint="Name another one with --encoding, or leave it out.",
                code="not_in_encoding",
            )
        return plain, ()
    marked = begin.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8", "cp1252"):
        found = TextFile(text.file, text.compression, encoding)
        if found.undecodable_line() is None:
            notes = (f"{text.name}: not UTF-8; read as Windows-1252.",) if encoding == "cp1252" else ()
            return found, notes
    raise DataError(
        f"{text.name}: no text that can be read; expected a CSV file in UTF-8.",
        hint="Save the file as CSV in UTF-8, or name its encoding with --encoding.",
        code="not_text",
    )


def _csv_source(
    text: TextFile, delimiter: str | None, decimal: str | None, missing: Missing, notes: tuple[str, ...]
) -> CsvSource:
    head = _head(text)
    delimiter = delimiter or _delimiter(head)
    above = _lines_above_header(text.name, head, delimiter)
    lines = io.StringIO(head, newline="")
    try:
        rows = rows_of(iter(lines.readline, ""), delimiter)
        header = next((cells for begin, cells in rows if begin >= above and any(map(str.strip, cells))), None)
    except csv.Error as error:
        raise DataError(
            f"{text.name}: the header cannot be read ({error}).", hint="Check the first line.", code="broken_csv"
        ) from error
    if header is None:
        raise DataError(
            f"{text.name}: the file is empty.", hint="Expected a header line and rows of data.", code="no_rows"
        )
    if above:
        skipped = "line above the header is" if above == 1 else "lines above the header are"
        notes = (*notes, f"{text.name}: {above} {skipped} passed over.")
    start = lines.tell()
    source = CsvSource(
        text,
        tuple(cell.strip() for cell in header),
        len(head[:start].encode()),
        len(re.findall("\r\n|\n|\r", head[:start])) + 1,
        delimiter,
        b"\n" if "\n" in head else b"\r",
        _width(_sniffed(head[start:], delimiter)) or len(header),
        decimal,
        missing,
        notes,
    )
    if _is_blank(source.body()):
        raise DataError(
            f"{text.name}: the file has a header but no rows.",
            hint="Expected rows of data below the header.",
            code="no_rows",
        )
    return source


def _head(text: TextFile) -> str:
    found = b""
    for block in text.blocks():
        found += block
        if len(found) >= LONGEST_HEADER:
            break
    return found.decode(errors="ignore")


def _is_blank(blocks: Iterable[bytes]) -> bool:
    return not any(block.strip() for block in blocks)


def _sniffed(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """The first rows that hold something, with their lines from 0."""
    lines = io.StringIO(text[:SNIFFED_CHARACTERS], newline="")
    rows = ((line, cells) for line, cells in rows_of(lines, delimiter) if any(cell.strip() for cell in cells))
    return list(islice(rows, SNIFFED_LINES))


def _width(rows: list[tuple[int, list[str]]]) -> int:
    """The usual number of fields; of two that are as usual, the larger."""
    counts = Counter(len(cells) for _, cells in rows)
    return max(counts, key=lambda width: (counts[width], width), default=0)


def _delimiter(head: str) -> str:
    """The delimiter that parts the first lines into the same number of fields, more than one."""
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        try:
            rows = _sniffed(head, delimiter)
        except csv.Error:
            continue
        width = _width(rows)
        if width < 2:
            continue
        score = (sum(len(cells) == width for _, cells in rows) / len(rows), width)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _lines_above_header(name: str, head: str, delimiter: str) -> int:
    """How many lines, such as titles and comments, stand above the header.

    Raises `DataError` where the first line is one of them and no header follows.
    """
    try:
        rows = _sniffed(head, delimiter)
    except csv.Error:
        return 0
    width = _width(rows)
    place = 0
    while place < len(rows) - 1 and _is_title(rows[place][1], width):
        place += 1
    if place == 0:
        return 0
    line, cells = rows[place]
    if len(cells) == width and _names_what_follows(cells, rows[place + 1 :]):
        return line
    line, cells = rows[0]
    if len(cells) < width and len(cells) == 1:
        raise DataError(
            f"{name}, line {line + 1}: {shown(cells[0])} is one field, and the lines below have {width}; "
            "expected the names of the columns.",
            hint="Take out the lines above the names, or put the names on top.",
            code="no_header",
        )
    return 0


def _is_title(cells: list[str], width: int) -> bool:
    """Whether a line has fewer fields than the table, or holds one text in the first of them."""
    filled = [cell for cell in cells if cell.strip()]
    return len(cells) < width or (width > 1 and len(filled) == 1 and cells[0] == filled[0])


def _names_what_follows(names: list[str], rows: list[tuple[int, list[str]]]) -> bool:
    """Whether a line has names above values."""
    return any(
        name.strip() and not _is_value(name) and len(cells) == len(names) and _is_value(cells[at])
        for _, cells in rows[:1]
        for at, name in enumerate(names)
    )


def _is_value(cell: str) -> bool:
    return bool(cell.strip()) and (
        any(plain_number(cell, sign) for sign in NOTATIONS) or bool(looks_like_time([cell.strip()]))
    )
