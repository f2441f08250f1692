"""Rows become series on one regular grid: sorted, repeats settled, finer rows aggregated, gaps opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.panel import Columns, Covered, Floats, Ints
from stacklstm_cli.data.patterns import Stamps
from stacklstm_cli.data.table import Table
from stacklstm_cli.data.zones import repeats_look_like_dst
from stacklstm_cli.errors import DataError

Codes = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

MAX_GRID_ROWS = 500_000_000
"""Eight bytes each: four gigabytes of values."""
SPARSE_GRID_ROWS = 1_000_000
"""Larger grids must hold at least one row in `SPARSEST`, or some stamp is wrong."""
SPARSEST = 500
REGULAR_SHARE = 0.9
"""Rows of which so many are equally far apart have a step of their own, which tells whether a bin is complete."""
NAMES_SHOWN = 12


@dataclass(frozen=True)
class Rows:
    """The rows of a file that hold something, still in the file's order."""

    table: Table
    places: Codes
    """[rows] number of each row in the file."""
    codes: Codes
    """[rows] number of each row's series."""
    keys: tuple[tuple[str, ...], ...]
    values: tuple[Floats, ...]
    """For each target column: [rows]."""
    covariates: tuple[Covered, ...] = ()
    """For each covariate: [rows] numbers, or which category it is; NaN is missing."""
    texts: tuple[bool, ...] = ()
    """For each covariate: whether it holds categories."""
    classes: tuple[str, ...] = ()
    """Labels whose numbers the values are; () where they are numbers themselves."""

    @property
    def count(self) -> int:
        return self.codes.size

    @property
    def columns(self) -> list[Floats | Covered]:
        """Targets, then covariates."""
        return [*self.values, *self.covariates]

    def place(self, row: int) -> str:
        return self.table.place(int(self.places[row]))

    def both_places(self, row: int, other: int) -> str:
        return self.table.places(int(self.places[row]), int(self.places[other]))

    def taken(self, order: npt.NDArray[Any]) -> Rows:
        """Some of these rows, in another order; `order` are indices or flags."""
        return replace(
            self,
            places=self.places[order],
            codes=self.codes[order],
            values=tuple(value[order] for value in self.values),
            covariates=tuple(value[order] for value in self.covariates),
        )

    def name(self, row: int) -> str:
        """ "series 'a', " for messages; nothing where there is one series only."""
        key = ", ".join(self.keys[int(self.codes[row])])
        return f"series {key!r}, " if key else ""


@dataclass(frozen=True)
class Grid:
    """N series on the grid, each from its first to its last value, gaps NaN."""

    keys: tuple[tuple[str, ...], ...]
    codes: Ints
    """[N] number of each series among the keys of the rows; the same for all in a wide file."""
    values: Floats
    offsets: Ints
    starts: Ints

    @property
    def ends(self) -> Ints:
        return self.starts + np.diff(self.offsets)


def in_order(rows: Rows, stamps: Stamps, notes: list[str]) -> tuple[Rows, Stamps]:
    """Rows sorted by series, then by time; rows of one time stay in the order of the file."""
    if are_in_order(rows, stamps):
        return rows, stamps
    by_time = np.lexsort((stamps, rows.codes))
    same = rows.codes[by_time[1:]] == rows.codes[by_time[:-1]]
    # A file sorted by time alone is in order, too.
    if (by_time[1:] < by_time[:-1])[same].any():
        notes.append("The rows were not in time order; sorted.")
    return rows.taken(by_time), stamps[by_time]


def are_in_order(rows: Rows, stamps: Stamps) -> bool:
    """Whether rows stand sorted by series, then by time."""
    later = stamps[1:] >= stamps[:-1]
    if len(rows.keys) > 1:
        same = rows.codes[1:] == rows.codes[:-1]
        later = (rows.codes[1:] > rows.codes[:-1]) | (same & later)
    return bool(later.all())


def without_repeats(
    rows: Rows,
    stamps: Stamps,
    duplicates: str | None,
    columns: Columns,
    form: TimeForm,
    ways: Sequence[str],
    notes: list[str],
    *,
    aggregated: bool,
) -> tuple[Rows, Stamps, int]:
    """One row for each time of a series, and how many rows repeated another's time.

    Rows that are equal in all values are dropped. What becomes of others `duplicates` says; without it they
    are a `DataError`, or stay where they are to be `aggregated` with the other rows of their bin. `ways` are
    what may be typed where rows only look like repeats.
    """
    new = new_groups(rows.codes, stamps)
    repeats = int(new.size - np.count_nonzero(new))
    if not repeats:
        return rows, stamps, 0
    found = count_of(repeats, "row") + f" repeating the time of another {'was' if repeats == 1 else 'were'}"
    if duplicates in ("first", "last", "mean", "sum"):
        starts = np.flatnonzero(new)
        notes.append(f"{found} settled by --duplicates {duplicates}.")
        return _one_each(rows, starts, duplicates), stamps[starts], repeats
    other = _differing(rows, new)
    if other.any() and not (aggregated and duplicates is None):
        raise _repeated(rows, stamps, other, columns, form, ways)
    dropped = ~new
    if other.any():
        group = np.cumsum(new) - 1
        settled = np.ones(int(group[-1]) + 1, dtype=bool)
        settled[group[other]] = False
        dropped &= settled[group]
    if dropped.any():
        notes.append(f"{count_of(int(np.count_nonzero(dropped)), 'repeated row')} dropped.")
    return rows.taken(~dropped), stamps[~dropped], repeats


def new_groups(codes: Codes, moments: npt.NDArray[Any]) -> Flags:
    """[rows] whether a row of sorted ones has another series or another time than the row before."""
    new = np.ones(codes.size, dtype=bool)
    new[1:] = (moments[1:] != moments[:-1]) | (codes[1:] != codes[:-1])
    return new


def _differing(rows: Rows, new: Flags) -> Flags:
    """[rows] whether a row repeats the time of the row before, with another value."""
    other = np.zeros(rows.count, dtype=bool)
    for value in rows.columns:
        other[1:] |= _unequal(value)
    return other & ~new


def _unequal(value: Floats | Covered) -> Flags:
    """[rows - 1] whether a value is another than the one before; missing ones are equal."""
    unequal: Flags = (value[1:] != value[:-1]) & ~(np.isnan(value[1:]) & np.isnan(value[:-1]))
    return unequal


def _repeated(
    rows: Rows, stamps: Stamps, other: Flags, columns: Columns, form: TimeForm, ways: Sequence[str]
) -> DataError:
    row = int(np.argmax(other))
    names = (*columns.targets, *columns.past, *columns.known, *columns.static)
    what = ""
    texts = (*(bool(rows.classes) for _ in rows.values), *rows.texts)
    for name, value, text in zip(names, rows.columns, texts, strict=True):
        pair = value[row - 1 : row + 1]
        if _unequal(pair).any():
            cells = " and ".join("no value" if np.isnan(cell) else repr(float(cell)) for cell in pair)
            what = f"with another {name!r}" if text else f"with {name!r} {cells}"
            break
    return DataError(
        f"{rows.both_places(row - 1, row)}: {rows.name(row)}time {form.texts(stamps[row : row + 1])[0]} stands "
        f"twice, {what}; expected one row for each time ({count_of(int(np.count_nonzero(other)), 'such row')}).",
        hint=_ways_out(stamps[other], form, ways),
        code="duplicate_timestamps",
    )


def _ways_out(repeats: Stamps, form: TimeForm, meant: Sequence[str]) -> str:
    """What to type where time stamps stand twice."""
    ways = []
    if not form.zone and repeats_look_like_dst(repeats):
        ways.append("if clocks repeat this hour in autumn, name their zone: --tz Europe/Berlin")
    ways += meant
    ways.append("if one of the rows or their mean or sum is meant: --duplicates first, last, mean or sum")
    hint = "; ".join(ways)
    return hint[0].upper() + hint[1:] + "."


def _one_each(rows: Rows, starts: Ints, duplicates: str) -> Rows:
    """One row for each group of rows; `starts` are the first rows of the groups."""
    if duplicates == "first":
        return rows.taken(starts)
    if duplicates == "last":
        return rows.taken(np.append(starts[1:], rows.count) - 1)
    return _combined(rows, starts, "sum" if duplicates == "sum" else "mean", "first")


def _combined(rows: Rows, starts: Ints, how: str, text: str) -> Rows:
    """Groups of rows as one row each: targets by `how`, covariates by their mean or last, categories by `text`."""
    own = "last" if how == "last" else "mean"
    return replace(
        rows,
        places=rows.places[starts],
        codes=rows.codes[starts],
        values=tuple(combined(value, starts, how) for value in rows.values),
        covariates=tuple(
            combined(value, starts, text if category else own).astype(np.float32)
            for value, category in zip(rows.covariates, rows.texts, strict=True)
        ),
    )


def combined(value: Floats | Covered, starts: Ints, how: str) -> Floats:
    """[groups] one number of each group of rows, missing ones passed over; NaN where all are missing."""
    seen = ~np.isnan(value)
    if how in ("mean", "sum"):
        count = np.add.reduceat(seen, starts, dtype=np.int64)  # [groups]
        total = np.add.reduceat(np.where(seen, value, 0.0), starts, dtype=np.float64)  # [groups]
        divisor = count if how == "mean" else 1
        return np.where(count > 0, total / np.maximum(divisor, 1), np.nan)
    row = np.arange(value.size)
    if how == "last":
        chosen = np.maximum.reduceat(np.where(seen, row, -1), starts)  # [groups]
    else:
        chosen = np.minimum.reduceat(np.where(seen, row, value.size), starts)  # [groups]
        chosen[chosen == value.size] = -1
    return np.where(chosen >= 0, value[chosen], np.nan).astype(np.float64)


def aggregated(rows: Rows, stamps: Stamps, step: Step, how: str, notes: list[str]) -> tuple[Rows, Ints]:
    """One row for each step of a series that holds rows, and its position.

    Missing cells are passed over. Numeric covariates become their mean (their last with "last"), categories
    the last. A sum at an end of a series is left out where rows of a regular finer step show that its bin is
    not complete.
    """
    ordinals = step.floors(stamps)
    refuse_far(rows, ordinals, step)
    starts = np.flatnonzero(new_groups(rows.codes, ordinals))
    merged = _combined(rows, starts, how, "last")
    if how == "sum":
        merged = _without_partial_sums(rows, stamps, merged, starts, step, notes)
    notes.append(f"{count_of(rows.count, 'row')} became {starts.size:,} by --aggregate {how}.")
    return merged, ordinals[starts]


def _without_partial_sums(rows: Rows, stamps: Stamps, merged: Rows, starts: Ints, step: Step, notes: list[str]) -> Rows:
    """The merged rows without the first and last sums of a series whose bin the file does not cover.

    `starts` are the first of the `rows` that each merged row was made of.
    """
    rises = np.diff(stamps)[rows.codes[1:] == rows.codes[:-1]]
    if not rises.size:
        return merged
    widths, counts = np.unique(rises, return_counts=True)
    width = widths[np.argmax(counts)]
    if counts.max() < REGULAR_SHARE * rises.size:
        return merged
    left_out = 0
    values = []
    for value, total in zip(rows.values, merged.values, strict=True):
        seen = np.flatnonzero(~np.isnan(value))
        border = rows.codes[seen[1:]] != rows.codes[seen[:-1]]
        partial = np.zeros(total.size, dtype=bool)
        for edge, beyond in ((seen[np.append(True, border)], -width), (seen[np.append(border, True)], width)):
            cut = step.floors(stamps[edge] + beyond) == step.floors(stamps[edge])
            partial[np.searchsorted(starts, edge[cut], "right") - 1] = True
        left_out += int(np.count_nonzero(partial))
        values.append(np.where(partial, np.nan, total))
    if left_out:
        notes.append(
            f"{count_of(left_out, 'sum')} at the ends of the series left out: the rows cover only a part of "
            f"{'its' if left_out == 1 else 'their'} step of {step.label}."
        )
    return replace(merged, values=tuple(values))


def on_grid(rows: Rows, stamps: Stamps, step: Step) -> Ints:
    """[rows] position of each row; the last word on whether all rows lie on the grid."""
    ordinals = step.ordinals(stamps)
    refuse_far(rows, ordinals, step)
    return ordinals


def refuse_far(rows: Rows, ordinals: Ints, step: Step) -> None:
    """Raise `DataError` where one stamp would stretch the grid far beyond all others."""
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


def gridded(rows: Rows, ordinals: Ints, columns: Columns, step: Step, notes: list[str]) -> Grid:
    """The series of sorted rows with one row for each time. Series without any value are left out, said."""
    borders = np.searchsorted(rows.codes, np.arange(len(rows.keys) + 1, dtype=np.int32))  # [K + 1]
    keys: list[tuple[str, ...]] = []
    codes: list[Ints] = []
    spans: list[tuple[Ints, Ints]] = []
    empty: list[str] = []
    for name, value in zip(columns.targets, rows.values, strict=True):
        names = [(name,)] if columns.layout == "wide" else rows.keys
        seen = np.flatnonzero(~np.isnan(value))
        place = np.searchsorted(seen, borders)  # [K + 1]
        present = np.flatnonzero(place[1:] > place[:-1])
        spans.append((seen[place[present]], seen[place[present + 1] - 1]))
        codes.append(present)
        keys += [names[code] for code in present.tolist()]
        left_out = np.flatnonzero(place[1:] == place[:-1])
        empty += [", ".join(names[code]) or name for code in left_out.tolist()]
    if not keys:
        raise DataError(
            f"{rows.table.name}: no value in {', '.join(columns.targets)}; every cell is empty.",
            hint="Name the column to forecast with --target.",
            code="no_values",
        )
    starts = np.concatenate([ordinals[first] for first, _ in spans])
    lengths = np.concatenate([ordinals[last] - ordinals[first] + 1 for first, last in spans])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    refuse_long(rows, int(offsets[-1]), step)
    values, absent = _spread(rows, ordinals, spans, int(offsets[-1]))
    if empty:
        notes.append(f"{len(empty)} series without any value left out: {shortened(empty)}.")
    if absent:
        notes.append(f"{count_of(absent, 'missing time stamp')} read as gaps.")
    return Grid(tuple(keys), np.concatenate(codes), values, offsets, starts.astype(np.int64))


def refuse_long(rows: Rows, total: int, step: Step) -> None:
    """Raise `DataError` where the series together would have more rows than memory can be expected to hold."""
    if total > MAX_GRID_ROWS:
        raise DataError(
            f"{rows.table.name}: at a step of {step.label} the series would have {total:,} rows together; "
            f"at most {MAX_GRID_ROWS:,} are read.",
            hint="Give the true step with --freq, or fewer series.",
            code="too_many_rows",
        )


def _spread(rows: Rows, ordinals: Ints, spans: Sequence[tuple[Ints, Ints]], total: int) -> tuple[Floats, int]:
    """The values of all series, one after another on the grid, and how many of its rows the file lacks."""
    values = np.full(total, np.nan)
    held = at = 0
    for value, (first, last) in zip(rows.values, spans, strict=True):
        # Runs of rows are copied whole where the grid has no gap; so an index is only made for the others.
        for begin, end in zip(first.tolist(), (last + 1).tolist(), strict=True):
            length = int(ordinals[end - 1] - ordinals[begin]) + 1
            held += end - begin
            if length == end - begin:
                values[at : at + length] = value[begin:end]
            else:
                values[at + (ordinals[begin:end] - ordinals[begin])] = value[begin:end]
            at += length
    return values, total - held


def shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (
        f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    )


def count_of(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
