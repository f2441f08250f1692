"""Files become a Panel: roles found, time stamps read, rows put on one regular grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import pandas as pd

from stacklstm_cli.config import DataConfig
from stacklstm_cli.data.calendar import OffGridError, Step, TimeForm, infer_step, parse_freq
from stacklstm_cli.data.columns import Found, find_columns
from stacklstm_cli.data.gridding import Rows, count_of, gridded, in_order, on_grid, shortened
from stacklstm_cli.data.opening import open_table
from stacklstm_cli.data.panel import Columns, Floats, Ints, Panel
from stacklstm_cli.data.stamps import StampError, Stamps, Words, find_forms
from stacklstm_cli.data.table import Table, is_missing
from stacklstm_cli.errors import DataError, ModelError, UsageError

SAMPLE_ROWS = 2000
LARGEST = 1e100
MUCH_FULLER = 2.0
"""How many times fewer grid rows settle whether dates are day-first."""


def read_panel(
    sources: Sequence[str],
    config: DataConfig,
    *,
    stored: Columns | None = None,
    stored_step: Step | None = None,
    stdin: BinaryIO | None = None,
) -> Panel:
    """Read paths, or "-" for standard input, as one Panel.

    `stored` and `stored_step` are a model's: its roles are used as they are, and its step where the
    file has too few rows to show one. Raises `DataError` for files that cannot be read one way only,
    `UsageError` for options that do not fit the file, `ModelError` where the file is not the model's.
    """
    table = open_table(sources, stdin)
    if stored is not None:
        return _read(table, _stored_roles(table, stored), config, stored_step)[0]
    found = _roles(table, SAMPLE_ROWS, config)
    try:
        panel, repeats = _read(table, found, config, stored_step)
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
    return _read(table, again, config, stored_step)[0]


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
    roles = (*([stored.time] if stored.time is not None else []), *stored.ids, *stored.targets)
    for name in roles:
        if name not in table.header:
            raise ModelError(
                f"{table.name}: column {name!r} is missing; the columns are {', '.join(table.header)}. "
                "This model was trained on other data.",
                hint="Name the model of this data with --model, or give the file the column.",
                code="columns_differ",
            )
    return Found(stored, tuple(name for name in table.header if name and name not in roles))


def _read(table: Table, found: Found, config: DataConfig, stored_step: Step | None) -> tuple[Panel, int]:
    """The panel, and how many rows repeated another."""
    columns = found.columns
    _refuse_clash(table, columns)
    notes = [*table.notes, *found.notes]
    rows, words = _load(table, columns, notes)
    form, stamps, step = _time(rows, words, columns, config, stored_step, notes)
    ordinals = on_grid(rows, stamps, step)
    rows, ordinals, repeats = in_order(rows, ordinals, stamps, form, columns, notes)
    keys, values, offsets, starts = gridded(rows, ordinals, columns, form, step, notes)
    _refuse_huge(table, columns, values)
    layout = _layout_note(found, step, len(keys))
    all_notes = (layout, *notes)
    panel = Panel(columns, step, form, keys, values, offsets, starts, sum(table.rows), table.sha256, all_notes)
    return panel, repeats


def _refuse_clash(table: Table, columns: Columns) -> None:
    """Raise `DataError` where a forecast would have two columns of one name."""
    names = (*columns.key_names, columns.time_name)
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


def _load(table: Table, columns: Columns, notes: list[str]) -> tuple[Rows, Words | None]:
    """The rows that hold something, and their time stamps as text."""
    time = [columns.time] if columns.time is not None else []
    text, numbers = table.columns([*time, *columns.ids], columns.targets)
    values = [numbers[name] for name in columns.targets]
    count = values[0].size
    filled = np.ones(count, dtype=bool)
    if time or columns.ids:
        filled = np.logical_or.reduce(
            [text[name] != "" for name in (*time, *columns.ids)] + [~np.isnan(value) for value in values]
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
    return Rows(table, np.flatnonzero(filled), codes, keys, tuple(values)), text[
        columns.time
    ] if columns.time is not None else None


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


# --- time ---


def _time(
    rows: Rows, words: Words | None, columns: Columns, config: DataConfig, stored_step: Step | None, notes: list[str]
) -> tuple[TimeForm, Stamps, Step]:
    """How time is written, the stamp of each row, and the step between rows."""
    given = parse_freq(config.freq) if config.freq is not None else None
    if words is None:
        if given is not None:
            raise UsageError(
                "--freq needs a time column, and the file has none.",
                hint="Name it with --time, or leave --freq out.",
                code="bad_freq",
            )
        order = np.argsort(rows.codes, kind="stable")
        sizes = np.bincount(rows.codes, minlength=len(rows.keys))
        stamps = np.empty(rows.codes.size, dtype=np.int64)
        stamps[order] = np.arange(rows.codes.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        step = Step("step")
        _refuse_other_step(step, stored_step, rows)
        return TimeForm("row"), stamps, step
    name = columns.time or ""
    codes, unique = pd.factorize(words)
    distinct: Words = np.asarray(unique, dtype=object)
    # The words for missing are short, and there may be millions of stamps.
    empty = [code for code, word in enumerate(distinct) if len(word) < 6 and is_missing(word)]
    if empty:
        row = int(np.flatnonzero(np.isin(codes, empty))[0])
        raise DataError(
            f"{rows.place(row)}, column {name!r}: no time stamp.",
            hint="Fill the cell, or take the row out.",
            code="missing_timestamp",
        )
    if not distinct.size:
        raise DataError(
            f"{rows.table.name}: the file holds no rows of data.",
            hint="Check how the file was written.",
            code="no_rows",
        )
    years = given is not None and given.unit == "month" and given.count % 12 == 0
    try:
        forms = find_forms(distinct, years=years)
    except StampError as error:
        row = int(np.flatnonzero(codes == error.index)[0])
        first = (
            "a date such as 2024-03-01 18:00 or a whole number"
            if error.index == 0
            else f"the form of the first row, {words[0]!r}"
        )
        raise DataError(
            f"{rows.place(row)}, column {name!r}: {words[row]!r} is no time stamp; expected {first}.",
            hint="Write all time stamps in one form, best as YYYY-MM-DD, or name another column with --time.",
            code="bad_timestamp",
        ) from error
    form, per_word, step = _settle(rows, codes, distinct, forms, given, stored_step, name)
    if "%y" in form.format:
        notes.append("Two-digit years are read as 1969 to 2068.")
    return form, per_word[codes], step


def _settle(
    rows: Rows,
    codes: Ints,
    distinct: Words,
    forms: list[tuple[TimeForm, Stamps]],
    given: Step | None,
    stored_step: Step | None,
    name: str,
) -> tuple[TimeForm, Stamps, Step]:
    """The one form whose stamps make a regular grid, and its step."""
    fitting: list[tuple[float, TimeForm, Stamps, Step]] = []
    failures: list[Exception] = []
    for form, stamps in forms:
        try:
            step = _step(rows, stamps[codes], given, stored_step, name)
            positions = step.ordinals(stamps[codes])
        except (OffGridError, DataError, ModelError, UsageError) as error:
            failures.append(error)
        else:
            fitting.append((float(positions.max() - positions.min() + 1), form, stamps, step))
    fitting.sort(key=lambda fit: fit[0])
    if not fitting:
        failure = failures[0]
        if isinstance(failure, OffGridError):
            raise _off_grid(rows, forms[0][1][codes], failure.index, failure.step, given, forms[0][0]) from failure
        raise failure
    if len(fitting) > 1 and fitting[1][0] < MUCH_FULLER * fitting[0][0]:
        raise DataError(
            f"{rows.place(0)}, column {name!r}: {distinct[codes[0]]!r} may be day-first or month-first, "
            "and both make a regular file.",
            hint="Write the dates as YYYY-MM-DD.",
            code="ambiguous_dates",
        )
    return fitting[0][1:]


def _step(rows: Rows, stamps: Stamps, given: Step | None, stored_step: Step | None, name: str) -> Step:
    """The step of these rows: given, found, or the model's. Raises `OffGridError` and the errors of a user."""
    counted = stamps.dtype.kind != "M"
    if given is not None:
        if counted != (given.unit == "step"):
            found, expected = ("whole numbers", "a whole number") if counted else ("dates", "an alias such as D or h")
            raise UsageError(
                f"--freq does not fit column {name!r}, which holds {found}; expected {expected}.", code="bad_freq"
            )
        step: Step | None = given.fitted(stamps)
    else:
        order = np.lexsort((stamps, rows.codes))
        ordered, series = stamps[order], rows.codes[order]
        new = np.ones(ordered.size, dtype=bool)
        new[1:] = (ordered[1:] != ordered[:-1]) | (series[1:] != series[:-1])
        ordered, series = ordered[new], series[new]
        offsets = np.concatenate([np.flatnonzero(np.diff(series, prepend=-1)), [series.size]])
        try:
            step = infer_step(ordered, offsets)
        except OffGridError as error:
            if stored_step is not None and _is_step_of(stored_step, ordered, offsets):
                return _placed(stored_step, ordered)
            raise OffGridError(int(order[new][error.index]), error.step) from error
        if stored_step is not None and step != stored_step and _is_step_of(stored_step, ordered, offsets):
            return _placed(stored_step, ordered)
    if step is None:
        raise DataError(
            f"{rows.table.name}: {count_of(rows.codes.size, 'row')} in {len(rows.keys)} series; "
            "a step between rows needs at least 2 rows in one series.",
            hint="Give more rows, or the step with --freq.",
            code="too_few_rows",
        )
    _refuse_other_step(step, stored_step, rows)
    return step


def _placed(stored_step: Step, stamps: Stamps) -> Step:
    """The model's step, its grid moved where these stamps need it."""
    try:
        stored_step.ordinals(stamps)
    except OffGridError:
        return replace(stored_step, phase=None).fitted(stamps)
    return stored_step


def _is_step_of(stored_step: Step, stamps: Stamps, offsets: Ints) -> bool:
    """Whether a model's step is a step of these rows as well: they lie on its grid, mostly one step apart.

    So three weekdays are rows of a business-day model, and one row is of any.
    """
    if (stamps.dtype.kind != "M") != (stored_step.unit == "step"):
        return False
    step = _placed(stored_step, stamps)
    try:
        rises = np.diff(step.ordinals(stamps))
    except OffGridError:
        return False
    inside = np.ones(rises.size, dtype=bool)
    inside[offsets[1:-1] - 1] = False
    values, counts = np.unique(rises[inside], return_counts=True)
    return not values.size or int(values[np.argmax(counts)]) == 1


def _refuse_other_step(step: Step, stored_step: Step | None, rows: Rows) -> None:
    if stored_step is not None and step != stored_step:
        raise ModelError(
            f"{rows.table.name}: the rows are {step.label} apart; the model was trained on {stored_step.label}.",
            hint="Name the model of this data with --model, or train one.",
            code="step_differs",
        )


def _off_grid(rows: Rows, stamps: Stamps, row: int, step: Step, given: Step | None, form: TimeForm) -> DataError:
    """The error for a row that is not a whole number of steps from the others; names it and its neighbour."""
    mates = np.flatnonzero(rows.codes == rows.codes[row])
    mates = mates[np.argsort(stamps[mates], kind="stable")]
    at = int(np.flatnonzero(mates == row)[0])
    other = int(mates[at - 1] if at else mates[min(1, mates.size - 1)])
    this, that = form.texts(stamps[[row, other]])
    if other == row:
        found = f"{rows.place(row)}: {rows.name(row)}time {this} is"
    else:
        pair = sorted([(int(rows.places[row]), this), (int(rows.places[other]), that)])
        found = f"{rows.table.places(pair[0][0], pair[1][0])}: {rows.name(row)}times {pair[0][1]} and {pair[1][1]} are"
    what = (
        f"not on the grid of --freq ({step.label})"
        if given is not None
        else f"not a whole number of steps apart ({step.label} is the usual one)"
    )
    return DataError(
        f"{found} {what}.",
        hint="Give the true step with --freq, or bring the rows to regular times first.",
        code="irregular_time",
    )


def _layout_note(found: Found, step: Step, count: int) -> str:
    """One line: what the file was understood to be."""
    columns = found.columns
    time = f"time {columns.time!r} ({step.label})" if columns.time is not None else "rows in steps"
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
