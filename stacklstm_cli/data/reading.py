"""Files become a Panel: roles found, time stamps read, rows put on one regular grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from stacklstm_cli.config import DataConfig, ReadingConfig
from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.cells import number_of
from stacklstm_cli.data.columns import Found, find_columns
from stacklstm_cli.data.covariates import behind_the_end, static_values, timed_values
from stacklstm_cli.data.gridding import (
    Rows,
    aggregated,
    gridded,
    in_order,
    on_grid,
    refuse_far,
    shortened,
    without_repeats,
)
from stacklstm_cli.data.labels import refuse_beside_labels, unchanging_features
from stacklstm_cli.data.loading import load_rows
from stacklstm_cli.data.memory import give_back
from stacklstm_cli.data.opening import open_table
from stacklstm_cli.data.panel import Columns, Covariate, Ints, Panel, Stored
from stacklstm_cli.data.patterns import Stamps, typed_formats
from stacklstm_cli.data.sample import Kind
from stacklstm_cli.data.table import Table
from stacklstm_cli.data.timing import read_time
from stacklstm_cli.data.wording import quoted
from stacklstm_cli.errors import DataError, ModelError, UsageError

SAMPLE_ROWS = 2000
NOTHING_SET = ReadingConfig()


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
    table = open_table(sources, reading, stdin)
    # It need not be written as DATA is: a template comes from this program.
    own = replace(reading, delimiter=None, decimal=None, encoding=None)
    ahead = open_table([future], own) if future is not None else None
    if stored is not None:
        panel = _read(table, _stored_roles(table, stored), config, reading, stored, ahead)[0]
    else:
        panel = _understood(table, config, reading, ahead)
    give_back()
    return panel


def _understood(table: Table, config: DataConfig, reading: ReadingConfig, ahead: Table | None) -> Panel:
    """The panel by the roles that are found: by the first rows, and by all where these make no grid."""
    found = _roles(table, SAMPLE_ROWS, config, reading)
    try:
        panel, repeats = _read(table, found, config, reading, None, ahead)
    except DataError as error:
        if error.code not in ("duplicate_timestamps", "irregular_time"):
            raise
        again = _roles_of_whole(table, found, config, reading)
        if again is None:
            raise
    else:
        again = _roles_of_whole(table, found, config, reading) if repeats else None
    if again is not None:
        found = again
        panel = _read(table, found, config, reading, None, ahead)[0]
    if found.classes is None or config.past:
        return panel
    still = unchanging_features(panel)
    if not still:
        return panel
    past = tuple(name for name in found.columns.past if name not in still)
    columns = replace(found.columns, past=past, static=(*found.columns.static, *still))
    return _read(table, replace(found, columns=columns), config, reading, None, ahead)[0]


def _roles(table: Table, rows: int | None, config: DataConfig, reading: ReadingConfig) -> Found:
    """The roles by the first `rows` rows, or by all. Raises `DataError` or `UsageError` naming the file."""
    formats = typed_formats(reading.date_format, 1) if reading.date_format is not None else []
    sample = table.sample(rows)
    try:
        return find_columns(table.header, sample, config, formats)
    except (DataError, UsageError) as error:
        raise type(error)(f"{table.name}: {error.message}", hint=error.hint, code=error.code) from error


def _roles_of_whole(table: Table, found: Found, config: DataConfig, reading: ReadingConfig) -> Found | None:
    """The roles by the whole file, where they or what may be meant are others than by its first rows.

    The first rows may hold one series only; time stamps that repeat, or go back, later on tell that.
    """
    if max(table.rows) <= SAMPLE_ROWS:
        return None
    again = _roles(table, None, config, reading)
    return None if (again.columns, again.ways) == (found.columns, found.ways) else again


def _stored_roles(table: Table, stored: Stored) -> Found:
    roles = stored.columns.all_names
    labels = stored.columns.targets if stored.classes else ()
    for name in roles:
        if name not in table.header and name not in labels:
            raise ModelError(
                f"{table.name}: column {name!r} is missing; the columns are {', '.join(table.header)}. "
                "This model was trained on other data.",
                hint="Name the model of this data with --model, or give the file the column.",
                code="columns_differ",
            )
    kinds: dict[str, Kind] = {
        covariate.name: "number" if covariate.categories is None else "text" for covariate in stored.covariates
    }
    ignored = tuple(name for name in table.header if name and name not in roles)
    return Found(stored.columns, ignored, kinds=kinds, classes=stored.classes or None)


def _read(
    table: Table,
    found: Found,
    config: DataConfig,
    reading: ReadingConfig,
    stored: Stored | None,
    future: Table | None,
) -> tuple[Panel, int]:
    """The panel, and how many rows repeated the time of another."""
    columns = found.columns
    _refuse_clash(table, columns)
    notes = [*table.notes, *found.notes]
    rows, words, covariates = load_rows(table, found, future, notes)
    labelled = found.classes is not None
    if labelled:
        refuse_beside_labels(reading)
    form, stamps, step = read_time(
        rows, words, columns, config.freq, reading, stored, notes, found.ways, by_rank=labelled
    )
    times = tuple(column.words() for column in words) if columns.time and form.kind == "row" else ()
    places = rows.places
    if reading.aggregate is not None and found.possible_ids and not columns.ids:
        name = found.possible_ids[0]
        notes.append(f"If {name!r} tells several series apart, type --id {quoted(name)}: their rows are mixed now.")
    del words  # which may be the largest of all that is held
    give_back()
    ahead: tuple[Rows, Ints] | None = None
    own = rows.places < sum(table.rows)
    if not own.all():
        refuse_far(rows, step.floors(stamps), step)
        later, late_stamps = in_order(rows.taken(~own), stamps[~own], [])
        later, late_ordinals, _ = _on_grid(later, late_stamps, step, form, found, reading, [])
        ahead = later, late_ordinals
        rows, stamps = rows.taken(own), stamps[own]
    rows, stamps = in_order(rows, stamps, notes)
    static = static_values(rows, covariates)  # [K, S]
    rows, ordinals, repeats = _on_grid(rows, stamps, step, form, found, reading, notes)
    grid = gridded(rows, ordinals, columns, step, notes)
    if times:
        sorted_rows = np.searchsorted(places, rows.places)
        times = tuple(column[sorted_rows] for column in times)
    panel = Panel(
        columns,
        step,
        form,
        grid.keys,
        grid.values,
        grid.offsets,
        grid.starts,
        covariates,
        classes=rows.classes,
        times=times,
        rows_read=sum(table.rows),
        sha256=table.sha256,
        notes=(_layout_note(found, covariates, step, len(grid.keys)), *notes),
    )
    if columns.past or columns.known:
        if ahead is not None and not columns.time:
            ahead = ahead[0], behind_the_end(grid, *ahead)
        timed = timed_values(grid, columns, covariates, rows, ordinals, ahead, step)
        panel = replace(panel, timed=timed.rows, timed_at=timed.at, timed_rows=timed.count)
    if columns.static:
        panel = replace(panel, static=static[grid.codes])  # [N, S]
    return panel, repeats


def _on_grid(
    rows: Rows,
    stamps: Stamps,
    step: Step,
    form: TimeForm,
    found: Found,
    reading: ReadingConfig,
    notes: list[str],
) -> tuple[Rows, Ints, int]:
    """Sorted rows with one for each position of a series, those positions, and how many rows were repeats."""
    rows, stamps, repeats = without_repeats(
        rows,
        stamps,
        reading.duplicates,
        found.columns,
        form,
        found.ways,
        notes,
        aggregated=reading.aggregate is not None,
    )
    if reading.aggregate is not None:
        return *aggregated(rows, stamps, step, reading.aggregate, notes), repeats
    return rows, on_grid(rows, stamps, step), repeats


def _refuse_clash(table: Table, columns: Columns) -> None:
    """Raise `DataError` where a forecast, or the template of future rows, would have two columns of one name."""
    names = (*columns.key_names, *columns.time_names, *(name for name in columns.known if name in columns.time_names))
    taken = [name for name in names if names.count(name) > 1 or re.fullmatch(r"forecast|q\d+(\.\d+)?", name)]
    if taken:
        raise DataError(
            f"{table.name}: column {taken[0]!r} has the name of another column of the forecast.",
            hint="Give the column another name.",
            code="column_clash",
        )


def _layout_note(found: Found, covariates: Sequence[Covariate], step: Step, count: int) -> str:
    """One line: what the file was understood to be."""
    columns = found.columns
    time = f"time {_listed(columns.time)} ({step.label})" if columns.time else "rows in steps"
    what = "target" if found.classes is None else "label"
    if columns.layout == "long":
        by = " and ".join(map(repr, columns.ids))
        parts = [f"long file: {count} series by {by}, {time}, {what} {columns.targets[0]!r}"]
    elif columns.layout == "wide":
        parts = [f"wide file: {count} series ({shortened(columns.targets)}), {time}"]
    else:
        parts = [f"one series: {time}, {what} {columns.targets[0]!r}"]
    for role in ("past", "known", "static"):
        own = [
            repr(covariate.name) + (" (categories)" if covariate.categories is not None else "")
            for covariate in covariates
            if covariate.role == role
        ]
        if own:
            parts.append(f"{role} {', '.join(own)}")
    if found.ignored:
        parts.append(f"ignored: {shortened([_ignored(name) for name in found.ignored])}")
    return "; ".join(parts)


def _ignored(name: str) -> str:
    """A name that is a number would read as a count."""
    return (repr(name) if number_of(name) is not None else name) if name else "a column without a name"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
