"""The time of each row: how it is written, the stamps, and the step between rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from stacklstm_cli.config import ReadingConfig
from stacklstm_cli.data.calendar import OffGridError, Step, TimeForm, infer_step, parse_freq
from stacklstm_cli.data.gridding import Rows, count_of
from stacklstm_cli.data.panel import Columns, Ints, Stored
from stacklstm_cli.data.stamps import StampError, Stamps, Words, find_forms
from stacklstm_cli.data.table import is_missing
from stacklstm_cli.errors import DataError, ModelError, UsageError

MUCH_FULLER = 2.0
"""How many times fewer grid rows settle whether dates are day-first."""


def read_time(
    rows: Rows,
    time: tuple[Words, ...],
    columns: Columns,
    freq: str | None,
    reading: ReadingConfig,
    stored: Stored | None,
    notes: list[str],
) -> tuple[TimeForm, Stamps, Step]:
    """How time is written, the stamp of each row, and the step between rows.

    `time` are the columns of time as text, [rows] each; `stored` is what a model knows.
    """
    given = parse_freq(freq) if freq is not None else None
    stored_step = stored.step if stored else None
    if not time:
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
    name, words = columns.time[0], time[0]
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
