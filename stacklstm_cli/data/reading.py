"""Files become a Panel: roles found, time stamps read, rows put on one regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from stacklstm_cli.config import DataConfig
from stacklstm_cli.data.calendar import OffGridError, Step, TimeForm, infer_step, parse_freq
from stacklstm_cli.data.columns import Found, find_columns
from stacklstm_cli.data.panel import Columns, Panel
from stacklstm_cli.data.stamps import StampError, Stamps, Words, find_forms
from stacklstm_cli.data.table import Table, is_missing, open_table
from stacklstm_cli.errors import DataError, ModelError, UsageError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SAMPLE_ROWS = 2000
MAX_GRID_ROWS = 500_000_000
"""Eight bytes each: four gigabytes of values."""
SPARSE_GRID_ROWS = 1_000_000
"""Larger grids must hold at least one row in `SPARSEST`, or some stamp is wrong."""
SPARSEST = 500
MUCH_FULLER = 2.0
"""How many times fewer grid rows settle whether dates are day-first."""
NAMES_SHOWN = 12


@dataclass(frozen=True)
class _Rows:
    """The rows of a file that hold something, still in the file's order."""

    table: Table
    places: Ints
    """[rows] number of each row in the file."""
    codes: Ints
    """[rows] number of each row's series."""
    keys: tuple[tuple[str, ...], ...]
    values: tuple[Floats, ...]
    """For each target column: [rows]."""

    def place(self, row: int) -> str:
        return self.table.place(int(self.places[row]))

    def name(self, row: int) -> str:
        """ "series 'a', " for messages; nothing where there is one series only."""
        key = ", ".join(self.keys[int(self.codes[row])])
        return f"series {key!r}, " if key else ""


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
        return _read(table, _stored_roles(table, stored), config, stored_step)
    found = find_columns(table.header, table.sample(SAMPLE_ROWS), config)
    try:
        return _read(table, found, config, stored_step)
    except DataError as error:
        # The first rows may hold one series only: what repeats later is for the whole file to say.
        if error.code != "duplicate_timestamps" or sum(table.rows) <= SAMPLE_ROWS:
            raise
        again = find_columns(table.header, table.sample(None), config)
        if again.columns == found.columns:
            raise
        return _read(table, again, config, stored_step)


def _stored_roles(table: Table, stored: Columns) -> Found:
    roles = (*([stored.time] if stored.time is not None else []), *stored.ids, *stored.targets)
    for name in roles:
        if name not in table.header:
            raise ModelError(
                f"{table.name}: column {name!r} is missing; the columns are {', '.join(table.header)}. This model was trained on other data.",
                hint="Name the model of this data with --model, or give the file the column.",
                code="columns_differ",
            )
    return Found(stored, tuple(name for name in table.header if name and name not in roles))


def _read(table: Table, found: Found, config: DataConfig, stored_step: Step | None) -> Panel:
    columns = found.columns
    notes = [*table.notes, *found.notes]
    rows, words = _load(table, columns, notes)
    form, stamps, step = _time(rows, words, columns, config, stored_step, notes)
    ordinals = _on_grid(rows, stamps, step, config)
    rows, ordinals = _in_order(rows, ordinals, stamps, form, columns, notes)
    keys, values, offsets, starts = _gridded(rows, ordinals, columns, form, step, notes)
    layout = _layout_note(found, step, len(keys))
    return Panel(columns, step, form, keys, values, offsets, starts, sum(table.rows), table.sha256, (layout, *notes))


def _load(table: Table, columns: Columns, notes: list[str]) -> tuple[_Rows, Words | None]:
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
        notes.append(f"{_count(infinite, 'infinite value')} counted as missing.")
    codes, keys = _series([text[name] for name in columns.ids], int(filled.sum()))
    return _Rows(table, np.flatnonzero(filled), codes, keys, tuple(values)), text[
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
    rows: _Rows, words: Words | None, columns: Columns, config: DataConfig, stored_step: Step | None, notes: list[str]
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
    empty = [code for code, word in enumerate(distinct) if is_missing(word)]
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
            hint="Write all time stamps of the column in one form, best as YYYY-MM-DD, or name another column with --time.",
            code="bad_timestamp",
        ) from error
    form, per_word, step = _settle(rows, codes, distinct, forms, given, stored_step, name)
    if "%y" in form.format:
        notes.append("Two-digit years are read as 1969 to 2068.")
    return form, per_word[codes], step


def _settle(
    rows: _Rows,
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
            f"{rows.place(0)}, column {name!r}: {distinct[codes[0]]!r} may be day-first or month-first, and both make a regular file.",
            hint="Write the dates as YYYY-MM-DD.",
            code="ambiguous_dates",
        )
    return fitting[0][1:]


def _step(rows: _Rows, stamps: Stamps, given: Step | None, stored_step: Step | None, name: str) -> Step:
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
            f"{rows.table.name}: {_count(rows.codes.size, 'row')} in {len(rows.keys)} series; a step between rows needs at least 2 rows in one series.",
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


def _refuse_other_step(step: Step, stored_step: Step | None, rows: _Rows) -> None:
    if stored_step is not None and step != stored_step:
        raise ModelError(
            f"{rows.table.name}: the rows are {step.label} apart; the model was trained on a step of {stored_step.label}.",
            hint="Name the model of this data with --model, or train one.",
            code="step_differs",
        )


def _on_grid(rows: _Rows, stamps: Stamps, step: Step, config: DataConfig) -> Ints:
    """[rows] position of each row; the last word on whether all rows lie on the grid."""
    ordinals = step.ordinals(stamps)
    low, high = int(ordinals.min()), int(ordinals.max())
    size = high - low + 1
    if size > MAX_GRID_ROWS or (size > SPARSE_GRID_ROWS and size > SPARSEST * ordinals.size):
        middle = np.median(ordinals)
        row = int(np.argmax(np.abs(ordinals - middle)))
        raise DataError(
            f"{rows.place(row)}: this time stamp is far from all others; from the first to the last there would be "
            f"{size:,} rows of {step.label}, and the file has {ordinals.size:,}.",
            hint="Mend the time stamp, or give the true step with --freq.",
            code="far_timestamp",
        )
    return ordinals


def _off_grid(rows: _Rows, stamps: Stamps, row: int, step: Step, given: Step | None, form: TimeForm) -> DataError:
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


# --- rows onto the grid ---


def _in_order(
    rows: _Rows, ordinals: Ints, stamps: Stamps, form: TimeForm, columns: Columns, notes: list[str]
) -> tuple[_Rows, Ints]:
    """Rows sorted by series and time, identical repeats dropped. Raises `DataError` for other repeats."""
    rises = np.diff(ordinals)
    within = rows.codes[1:] == rows.codes[:-1]
    if (np.diff(rows.codes) < 0).any() or (rises[within] < 0).any():
        # A file sorted by time alone is in order, too.
        by_time = np.lexsort((np.arange(ordinals.size), ordinals, rows.codes))
        same = rows.codes[by_time][1:] == rows.codes[by_time][:-1]
        if (np.diff(by_time)[same] < 0).any():
            notes.append("The rows were not in time order; sorted.")
        rows = _Rows(
            rows.table,
            rows.places[by_time],
            rows.codes[by_time],
            rows.keys,
            tuple(value[by_time] for value in rows.values),
        )
        ordinals, stamps = ordinals[by_time], stamps[by_time]
    repeated = np.zeros(ordinals.size, dtype=bool)
    repeated[1:] = (np.diff(ordinals) == 0) & (np.diff(rows.codes) == 0)
    if not repeated.any():
        return rows, ordinals
    for name, value in zip(columns.targets, rows.values, strict=True):
        other = np.zeros(ordinals.size, dtype=bool)
        other[1:] = ~((value[1:] == value[:-1]) | (np.isnan(value[1:]) & np.isnan(value[:-1])))
        wrong = repeated & other
        if wrong.any():
            row = int(np.argmax(wrong))
            stamp = form.texts(stamps[row : row + 1])[0]
            first, second = value[row - 1 : row + 1].tolist()
            raise DataError(
                f"{rows.table.places(int(rows.places[row - 1]), int(rows.places[row]))}: {rows.name(row)}time {stamp} stands twice, "
                f"with {name!r} {first:g} and {second:g}; expected one row for each time ({_count(int(wrong.sum()), 'such row')}).",
                hint="Take out the wrong rows; if the file holds several series, name their column with --id.",
                code="duplicate_timestamps",
            )
    notes.append(f"{_count(int(repeated.sum()), 'repeated row')} dropped.")
    keep = ~repeated
    return _Rows(
        rows.table, rows.places[keep], rows.codes[keep], rows.keys, tuple(value[keep] for value in rows.values)
    ), ordinals[keep]


def _gridded(
    rows: _Rows, ordinals: Ints, columns: Columns, form: TimeForm, step: Step, notes: list[str]
) -> tuple[tuple[tuple[str, ...], ...], Floats, Ints, Ints]:
    """Keys, values, offsets and starts of the series, each from its first to its last value, gaps NaN."""
    keys: list[tuple[str, ...]] = []
    pieces: list[Floats] = []
    lengths: list[Ints] = []
    starts: list[Ints] = []
    empty: list[str] = []
    absent = 0
    for name, value in zip(columns.targets, rows.values, strict=True):
        names = [(name,)] if columns.layout == "wide" else rows.keys
        seen = np.flatnonzero(~np.isnan(value))
        series = rows.codes[seen]
        borders = np.flatnonzero(np.diff(series, prepend=-1))
        first, last = seen[borders], seen[np.append(borders[1:], seen.size) - 1] if seen.size else seen
        start, length = ordinals[first], ordinals[last] - ordinals[first] + 1
        total = int(length.sum())
        if total > MAX_GRID_ROWS:
            raise DataError(
                f"{rows.table.name}: at a step of {step.label} the series would have {total:,} rows together; at most {MAX_GRID_ROWS:,} are read.",
                hint="Give the true step with --freq, or fewer series.",
                code="too_many_rows",
            )
        filled = np.full(total, np.nan)
        begin = np.cumsum(length) - length
        nth = np.cumsum(np.diff(series, prepend=-1) != 0) - 1
        filled[begin[nth] + ordinals[seen] - start[nth]] = value[seen]
        absent += total - int((last - first + 1).sum())
        present = set(series[borders].tolist())
        empty += [", ".join(key) or name for code, key in enumerate(names) if code not in present]
        keys += [names[code] for code in series[borders].tolist()]
        pieces.append(filled)
        lengths.append(length)
        starts.append(start)
    if not keys:
        raise DataError(
            f"{rows.table.name}: no value in {', '.join(columns.targets)}; every cell is empty.",
            hint="Name the column to forecast with --target.",
            code="no_values",
        )
    if empty:
        notes.append(f"{len(empty)} series without any value left out: {_shortened(empty)}.")
    if absent:
        notes.append(f"{_count(absent, 'missing time stamp')} read as gaps.")
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return tuple(keys), np.concatenate(pieces), offsets, np.concatenate(starts).astype(np.int64)


def _layout_note(found: Found, step: Step, count: int) -> str:
    """One line: what the file was understood to be."""
    columns = found.columns
    time = f"time {columns.time!r} ({step.label})" if columns.time is not None else "rows in steps"
    if columns.layout == "long":
        what = f"long file: {count} series by {' and '.join(map(repr, columns.ids))}, {time}, target {columns.targets[0]!r}"
    elif columns.layout == "wide":
        what = f"wide file: {count} series ({_shortened(columns.targets)}), {time}"
    else:
        what = f"one series: {time}, target {columns.targets[0]!r}"
    return what + (
        f"; ignored: {_shortened([name or 'a column without a name' for name in found.ignored])}"
        if found.ignored
        else ""
    )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (
        f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
