"""Rows become series on one regular grid: sorted, repeats settled, gaps opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.panel import Columns, Floats, Ints
from stacklstm_cli.data.stamps import Stamps
from stacklstm_cli.data.table import Table
from stacklstm_cli.errors import DataError

MAX_GRID_ROWS = 500_000_000
"""Eight bytes each: four gigabytes of values."""
SPARSE_GRID_ROWS = 1_000_000
"""Larger grids must hold at least one row in `SPARSEST`, or some stamp is wrong."""
SPARSEST = 500
NAMES_SHOWN = 12


@dataclass(frozen=True)
class Rows:
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

    def taken(self, order: Ints) -> Rows:
        """Some of these rows, in another order."""
        values = tuple(value[order] for value in self.values)
        return Rows(self.table, self.places[order], self.codes[order], self.keys, values)

    def name(self, row: int) -> str:
        """ "series 'a', " for messages; nothing where there is one series only."""
        key = ", ".join(self.keys[int(self.codes[row])])
        return f"series {key!r}, " if key else ""


def on_grid(rows: Rows, stamps: Stamps, step: Step) -> Ints:
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


def in_order(
    rows: Rows, ordinals: Ints, stamps: Stamps, form: TimeForm, columns: Columns, notes: list[str]
) -> tuple[Rows, Ints, int]:
    """Rows sorted by series and time, identical repeats dropped, and how many those were.

    Raises `DataError` for repeats with another value.
    """
    rises = np.diff(ordinals)
    within = rows.codes[1:] == rows.codes[:-1]
    if (np.diff(rows.codes) < 0).any() or (rises[within] < 0).any():
        # A file sorted by time alone is in order, too.
        by_time = np.lexsort((np.arange(ordinals.size), ordinals, rows.codes))
        same = rows.codes[by_time][1:] == rows.codes[by_time][:-1]
        if (np.diff(by_time)[same] < 0).any():
            notes.append("The rows were not in time order; sorted.")
        rows = rows.taken(by_time)
        ordinals, stamps = ordinals[by_time], stamps[by_time]
    repeated = np.zeros(ordinals.size, dtype=bool)
    repeated[1:] = (np.diff(ordinals) == 0) & (np.diff(rows.codes) == 0)
    if not repeated.any():
        return rows, ordinals, 0
    for name, value in zip(columns.targets, rows.values, strict=True):
        other = np.zeros(ordinals.size, dtype=bool)
        other[1:] = ~((value[1:] == value[:-1]) | (np.isnan(value[1:]) & np.isnan(value[:-1])))
        wrong = repeated & other
        if wrong.any():
            row = int(np.argmax(wrong))
            stamp = form.texts(stamps[row : row + 1])[0]
            first, second = value[row - 1 : row + 1].tolist()
            where = rows.table.places(int(rows.places[row - 1]), int(rows.places[row]))
            raise DataError(
                f"{where}: {rows.name(row)}time {stamp} stands twice, with {name!r} {first!r} and {second!r}; "
                f"expected one row for each time ({count_of(int(wrong.sum()), 'such row')}).",
                hint="Take out the wrong rows; if the file holds several series, name their column with --id.",
                code="duplicate_timestamps",
            )
    notes.append(f"{count_of(int(repeated.sum()), 'repeated row')} dropped.")
    kept = np.flatnonzero(~repeated)
    return rows.taken(kept), ordinals[kept], int(repeated.sum())


def gridded(
    rows: Rows, ordinals: Ints, columns: Columns, form: TimeForm, step: Step, notes: list[str]
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
                f"{rows.table.name}: at a step of {step.label} the series would have {total:,} rows together; "
                f"at most {MAX_GRID_ROWS:,} are read.",
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
        notes.append(f"{len(empty)} series without any value left out: {shortened(empty)}.")
    if absent:
        notes.append(f"{count_of(absent, 'missing time stamp')} read as gaps.")
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return tuple(keys), np.concatenate(pieces), offsets, np.concatenate(starts).astype(np.int64)


def shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (
        f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    )


def count_of(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
