"""Files become a Panel: roles found, time stamps read, rows put on one regular grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import pandas as pd

from stacklstm_cli.config import DataConfig, ReadingConfig
from stacklstm_cli.data.calendar import Step
from stacklstm_cli.data.columns import Found, find_columns
from stacklstm_cli.data.gridding import Rows, count_of, gridded, in_order, on_grid, shortened
from stacklstm_cli.data.opening import open_table
from stacklstm_cli.data.panel import Columns, Floats, Ints, Panel, Stored
from stacklstm_cli.data.stamps import Words
from stacklstm_cli.data.table import Table
from stacklstm_cli.data.timing import read_time
from stacklstm_cli.errors import DataError, ModelError, UsageError

SAMPLE_ROWS = 2000
NOTHING_SET = ReadingConfig()
LARGEST = 1e100


def read_panel(
    sources: Sequence[str],
    config: DataConfig,
    reading: ReadingConfig = NOTHING_SET,
    *,
    stored: Stored | None = None,
    future: str | None = None,
    stdin: BinaryIO | None = None,
) -> Panel:
    """Read paths, or "-" for standard input, as one Panel.

    `stored` is a model's: its roles are used as they are, and its step where the file has too few rows to
    show one. `future` is a file with future rows of the known covariates.

    Raises `DataError` for files that cannot be read one way only,
    `UsageError` for options that do not fit the file, `ModelError` where the file is not the model's.
    """
    table = open_table(sources, stdin)
    if stored is not None:
        return _read(table, _stored_roles(table, stored.columns), config, reading, stored)[0]
    found = _roles(table, SAMPLE_ROWS, config)
    try:
        panel, repeats = _read(table, found, config, reading, stored)
    except DataError as error:
        if error.code != "duplicate_timestamps":
            raise
        again = _roles_of_whole(table, found, config)
        if again is None:
            raise
    else:
        again = _roles_of_whole(table, found, config) if repeats else None
        if again is None:
            return panel
    return _read(table, again, config, reading, stored)[0]


def _roles(table: Table, rows: int | None, config: DataConfig) -> Found:
    """The roles by the first `rows` rows, or by all. Raises `DataError` or `UsageError` naming the file."""
    try:
        return find_columns(table.header, table.sample(rows), config)
    except (DataError, UsageError) as error:
        raise type(error)(f"{table.name}: {error.message}", hint=error.hint, code=error.code) from error


def _roles_of_whole(table: Table, found: Found, config: DataConfig) -> Found | None:
    """The roles by the whole file, where they are others than those by its first rows.

    The first rows may hold one series only; time stamps that repeat later on tell that.
    """
    if max(table.rows) <= SAMPLE_ROWS:
        return None
    again = _roles(table, None, config)
    return None if again.columns == found.columns else again


def _stored_roles(table: Table, stored: Columns) -> Found:
    roles = (*stored.time, *stored.ids, *stored.targets)
    for name in roles:
        if name not in table.header:
            raise ModelError(
                f"{table.name}: column {name!r} is missing; the columns are {', '.join(table.header)}. "
                "This model was trained on other data.",
                hint="Name the model of this data with --model, or give the file the column.",
                code="columns_differ",
            )
    return Found(stored, tuple(name for name in table.header if name and name not in roles))


def _read(
    table: Table, found: Found, config: DataConfig, reading: ReadingConfig, stored: Stored | None
) -> tuple[Panel, int]:
    """The panel, and how many rows repeated another."""
    columns = found.columns
    _refuse_clash(table, columns)
    notes = [*table.notes, *found.notes]
    rows, words = _load(table, columns, notes)
    form, stamps, step = read_time(rows, words, columns, config.freq, reading, stored, notes)
    ordinals = on_grid(rows, stamps, step)
    rows, ordinals, repeats = in_order(rows, ordinals, stamps, form, columns, notes)
    keys, values, offsets, starts = gridded(rows, ordinals, columns, form, step, notes)
    _refuse_huge(table, columns, values)
    layout = _layout_note(found, step, len(keys))
    all_notes = (layout, *notes)
    panel = Panel(
        columns,
        step,
        form,
        keys,
        values,
        offsets,
        starts,
        rows_read=sum(table.rows),
        sha256=table.sha256,
        notes=all_notes,
    )
    return panel, repeats


def _refuse_clash(table: Table, columns: Columns) -> None:
    """Raise `DataError` where a forecast would have two columns of one name."""
    names = (*columns.key_names, *columns.time_names)
    taken = [name for name in names if names.count(name) > 1 or re.fullmatch(r"forecast|q\d+(\.\d+)?", name)]
    if taken:
        raise DataError(
            f"{table.name}: column {taken[0]!r} has the name of another column of the forecast.",
            hint="Give the column another name.",
            code="column_clash",
        )


def _refuse_huge(table: Table, columns: Columns, values: Floats) -> None:
    """Raise `DataError` for a value whose square no number can hold."""
    largest = float(np.nanmax(np.abs(values)))
    if largest > LARGEST:
        raise DataError(
            f"{table.name}: {largest:g} found in {', '.join(columns.targets)}; expected numbers up to {LARGEST:g}.",
            hint="Mend the cell, or give the column in a larger unit.",
            code="number_too_large",
        )


def _load(table: Table, columns: Columns, notes: list[str]) -> tuple[Rows, tuple[Words, ...]]:
    """The rows that hold something, and their columns of time as text."""
    text, numbers = table.columns([*columns.time, *columns.ids], columns.targets)
    values = [numbers[name] for name in columns.targets]
    count = values[0].size
    filled = np.ones(count, dtype=bool)
    if columns.time or columns.ids:
        filled = np.logical_or.reduce(
            [text[name] != "" for name in (*columns.time, *columns.ids)] + [~np.isnan(value) for value in values]
        )
    if not filled.all():
        text = {name: words[filled] for name, words in text.items()}
        values = [value[filled] for value in values]
    infinite = 0
    for at, value in enumerate(values):
        wrong = np.isinf(value)
        if wrong.any():
            infinite += int(wrong.sum())
            values[at] = np.where(wrong, np.nan, value)
    if infinite:
        notes.append(f"{count_of(infinite, 'infinite value')} counted as missing.")
    codes, keys = _series([text[name] for name in columns.ids], int(filled.sum()))
    rows = Rows(table, np.flatnonzero(filled), codes, keys, tuple(values))
    return rows, tuple(text[name] for name in columns.time)


def _series(ids: Sequence[Words], count: int) -> tuple[Ints, tuple[tuple[str, ...], ...]]:
    """[rows] number of each row's series, in the order of the file, and the names of the series."""
    if not ids:
        return np.zeros(count, dtype=np.int64), ((),)
    codes = np.zeros(count, dtype=np.int64)
    for column in ids:
        more, unique = pd.factorize(column)
        codes = pd.factorize(codes * max(unique.size, 1) + more)[0].astype(np.int64)
    _, first = np.unique(codes, return_index=True)
    return codes, tuple(zip(*(column[first].tolist() for column in ids), strict=True))


def _layout_note(found: Found, step: Step, count: int) -> str:
    """One line: what the file was understood to be."""
    columns = found.columns
    time = f"time {', '.join(map(repr, columns.time))} ({step.label})" if columns.time else "rows in steps"
    if columns.layout == "long":
        by = " and ".join(map(repr, columns.ids))
        what = f"long file: {count} series by {by}, {time}, target {columns.targets[0]!r}"
    elif columns.layout == "wide":
        what = f"wide file: {count} series ({shortened(columns.targets)}), {time}"
    else:
        what = f"one series: {time}, target {columns.targets[0]!r}"
    return what + (
        f"; ignored: {shortened([name or 'a column without a name' for name in found.ignored])}"
        if found.ignored
        else ""
    )
