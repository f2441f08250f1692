"""Paths become tables: bytes, compression, encoding, delimiter, header."""

from __future__ import annotations

import csv
import hashlib
import io
import lzma
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stacklstm_cli.data.table import COMMA_NUMBER, NA_WORDS, NUMBER, CsvSource, ParquetSource, Source, Table
from stacklstm_cli.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz"}
SNIFFED_LINES = 50
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
"""A number whose comma may as well part thousands."""
LONGEST_HEADER = 4_000_000
"""Characters; behind them rows are taken to begin."""


def open_table(sources: Sequence[str], stdin: BinaryIO | None = None) -> Table:
    """Read files ("-" is standard input) and their headers. Raises `DataError` naming the path."""
    digest = hashlib.sha256()
    opened: list[Source] = []
    for path in sources:
        raw = _raw_bytes(path, stdin)
        digest.update(raw)
        opened.append(_source("standard input" if path == "-" else path, path, raw))
    first = opened[0]
    orders = []
    for other in opened:
        if sorted(other.header) != sorted(first.header):
            missing = [name for name in first.header if name not in other.header]
            more = [name for name in other.header if name not in first.header]
            raise DataError(
                f"{other.name}: its columns are not those of {first.name}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; only here: {', '.join(more)}" if more else "")
                + ".",
                hint="Files given together must have the same columns.",
                code="columns_differ",
            )
        same = other.header == first.header
        orders.append(
            tuple(range(len(first.header))) if same else tuple(other.header.index(name) for name in first.header)
        )
    return Table(tuple(opened), tuple(orders), digest.hexdigest())


def require_files(sources: Sequence[str]) -> None:
    """Raise `DataError` for the first path that cannot be opened, before any other work is done."""
    for path in sources:
        if path != "-":
            try:
                Path(path).open("rb").close()
            except (OSError, ValueError) as error:
                raise _unreadable(path, error) from error


def _raw_bytes(path: str, stdin: BinaryIO | None) -> bytes:
    if path == "-":
        return (stdin or sys.stdin.buffer).read()
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError | ValueError) -> DataError:
    if isinstance(error, FileNotFoundError):
        reason, code = "there is no such file", "file_missing"
    elif Path(path).is_dir():  # Linux calls it that, Windows a lack of permission
        reason, code = "it is a directory, expected a file", "file_unreadable"
    elif isinstance(error, PermissionError):
        reason, code = "it may not be read", "file_unreadable"
    else:
        reason, code = getattr(error, "strerror", None) or str(error), "file_unreadable"
    return DataError(f"{path}: {reason}.", hint="Check the path of DATA.", code=code)


def _source(name: str, path: str, raw: bytes) -> Source:
    suffix = Path(path).suffix.lower()
    if suffix == ".parquet" or raw.startswith(b"PAR1"):
        try:
            return ParquetSource(name, _checked_rows(name, pq.read_table(io.BytesIO(raw))))
        except pa.ArrowException as error:
            raise DataError(
                f"{name}: no readable Parquet file ({error}).", hint="Write the file again.", code="file_damaged"
            ) from error
    method = COMPRESSIONS.get(suffix) or next(
        (method for magic, method in MAGIC.items() if raw.startswith(magic)), None
    )
    if method and raw:
        raw = _decompressed(name, raw, method)
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DataError(f"{name}: an Excel or zip file, expected text.", hint="Save the table as CSV.", code="not_text")
    return _csv_source(name, *_decoded(name, raw))


def _checked_rows(name: str, table: pa.Table) -> pa.Table:
    if table.num_rows == 0 or table.num_columns == 0:
        raise DataError(f"{name}: the file holds no rows.", hint="Check how the file was written.", code="no_rows")
    return table


def _decompressed(name: str, raw: bytes, method: str) -> bytes:
    try:
        if method == "xz":
            return lzma.decompress(raw)
        return bytes(pa.CompressedInputStream(pa.BufferReader(raw), method).read())
    except Exception as error:
        # Each library has its own exceptions for damaged data; all mean the same here.
        raise DataError(
            f"{name}: the compressed file is damaged or cut short ({error}).",
            hint="Copy or write it again.",
            code="file_damaged",
        ) from error


def _decoded(name: str, raw: bytes) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and what had to be guessed to read it."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in raw[:10_000]:
        encodings = []
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        return text, (f"{name}: not UTF-8; read as Windows-1252.",) if encoding == "cp1252" else ()
    raise DataError(
        f"{name}: no text that can be read; expected a CSV file in UTF-8.",
        hint="Save the file as CSV in UTF-8.",
        code="not_text",
    )


def _csv_source(name: str, text: str, notes: tuple[str, ...]) -> CsvSource:
    if not text or text.isspace():
        raise DataError(f"{name}: the file is empty.", hint="Expected a header line and rows of data.", code="no_rows")
    delimiter = _delimiter(text)
    lines = io.StringIO(text[:LONGEST_HEADER], newline="")
    reader = csv.reader(iter(lines.readline, ""), delimiter=delimiter, skipinitialspace=True)
    header: list[str] = []
    try:
        while not any(cell.strip() for cell in header):
            header = next(reader)
    except csv.Error as error:
        raise DataError(
            f"{name}: the header cannot be read ({error}).", hint="Check the first line.", code="broken_csv"
        ) from error
    body = text[lines.tell() :]
    if not body or body.isspace():
        raise DataError(
            f"{name}: the file has a header but no rows.",
            hint="Expected rows of data below the header.",
            code="no_rows",
        )
    guarded = delimiter * len(header) + "\n" + body
    source = CsvSource(
        name, tuple(cell.strip() for cell in header), guarded.encode(), delimiter, reader.line_num + 1, notes=notes
    )
    if delimiter != "," and _has_decimal_comma(source):
        source.decimal = ","
    return source


def _delimiter(text: str) -> str:
    """The delimiter that parts the first lines into the same number of fields, more than one."""
    lines = [line for line in io.StringIO(text[:200_000], newline="") if line.strip()][:SNIFFED_LINES]
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        score = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
        if widths[0] > 1 and score > best_score:
            best, best_score = delimiter, score
    return best


def _has_decimal_comma(source: CsvSource) -> bool:
    """Whether numbers such as 3,14 are found in some column, and none such as 3.14 in any.

    Raises `DataError` where each of them could as well be a whole number with its thousands apart: 1,234.
    """
    doubtful = ""
    certain = False
    sample = source.sample(2000)
    for place, column in enumerate(sample):
        for word in pd.unique(sample[column]):
            cell = word.strip()
            if "." in cell and NUMBER.fullmatch(cell) and cell not in NA_WORDS:
                return False
            if "," in cell and COMMA_NUMBER.fullmatch(cell):
                if THOUSANDS.fullmatch(cell):
                    doubtful = doubtful or f"column {source.header[place]!r}: {cell}"
                else:
                    certain = True
    if doubtful and not certain:
        raise DataError(
            f"{source.name}, {doubtful} is 1000 times larger if its comma parts thousands; no number tells.",
            hint="Write the numbers without thousands separators, and with a decimal point.",
            code="ambiguous_comma",
        )
    return certain
