"""Covariates: cells become numbers, rows stand beside the series, and the future is complete or asked for.

Letters: N series, K keys of the rows, R' rows of `Panel.timed`, C timed covariates, S static ones, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stacklstm_cli.data.calendar import Step
from stacklstm_cli.data.gridding import Grid, Rows, count_of, refuse_long
from stacklstm_cli.data.panel import Columns, Covariate, Covered, Ints, Panel, Role
from stacklstm_cli.data.patterns import Words
from stacklstm_cli.data.wording import quoted, shown
from stacklstm_cli.errors import DataError, UsageError

ROLES: tuple[Role, ...] = ("past", "known", "static")


@dataclass(frozen=True)
class Timed:
    """Past and known covariates beside the series, as in a `Panel`."""

    rows: Covered
    at: Ints
    count: Ints


def names_and_roles(columns: Columns) -> list[tuple[str, Role]]:
    """Past, then known, then static covariates, in the order typed."""
    return [(name, role) for role in ROLES for name in getattr(columns, role)]


def category_codes(words: Words) -> tuple[tuple[str, ...], Covered]:
    """The distinct texts of a column, sorted, and [rows] the index of each cell's text; NaN where it is empty."""
    codes, unique = pd.factorize(words)
    categories = tuple(sorted({str(text) for text in unique if text}))
    index = {text: place for place, text in enumerate(categories)}
    places = np.asarray([index.get(text, np.nan) for text in unique], dtype=np.float32)
    return categories, places[codes]


def static_values(rows: Rows, covariates: Sequence[Covariate]) -> Covered:
    """[K, S] the static covariates of each key, of sorted rows.

    Raises `DataError` with both places for one that changes within a series.
    """
    columns = [at for at, covariate in enumerate(covariates) if covariate.role == "static"]
    found = np.full((len(rows.keys), len(columns)), np.nan, dtype=np.float32)  # [K, S]
    for place, at in enumerate(columns):
        value = rows.covariates[at]
        seen = np.flatnonzero(~np.isnan(value))
        codes = rows.codes[seen]
        new = np.ones(seen.size, dtype=bool)
        new[1:] = codes[1:] != codes[:-1]
        changed = ~new
        changed[1:] &= value[seen[1:]] != value[seen[:-1]]
        if changed.any():
            second = int(np.argmax(changed))
            raise _changes(rows, covariates[at], value, int(seen[second - 1]), int(seen[second]))
        found[codes[new], place] = value[seen[new]]
    return found


def _changes(rows: Rows, covariate: Covariate, value: Covered, row: int, other: int) -> DataError:
    cells = (cell_of(covariate, float(value[place])) for place in (row, other))
    first, second = (shown(cell) if isinstance(cell, str) else repr(cell) for cell in cells)
    return DataError(
        f"{rows.both_places(row, other)}: {rows.name(row)}static column {covariate.name!r} holds {first} and "
        f"{second}; expected one value in the whole series.",
        hint=f"If it changes in time, name it with --known {quoted(covariate.name)} (or --past); else mend the cells.",
        code="static_changes",
    )


def cell_of(covariate: Covariate, value: float) -> Any:
    """A cell as the file has it: text, the shortest number that is read as this 32-bit one, or None."""
    if np.isnan(value):
        return None
    return float(str(np.float32(value))) if covariate.categories is None else covariate.categories[int(value)]


def timed_values(
    grid: Grid,
    columns: Columns,
    covariates: Sequence[Covariate],
    rows: Rows,
    ordinals: Ints,
    future: tuple[Rows, Ints] | None,
    step: Step,
) -> Timed:
    """Past and known covariates from the first to the last value of each series, known ones also beyond it.

    `rows` and `ordinals` are the sorted rows of the file, `future` those of the file of future rows, which
    count only beyond the end of the series. Series of a wide file share one block of rows; where only some of
    them have ended, future rows fill what is missing.
    """
    roles = [covariate.role for covariate in covariates if covariate.role != "static"]
    shared = columns.layout == "wide"
    block = np.zeros(grid.codes.size, dtype=np.int64) if shared else np.arange(grid.codes.size)  # [N]
    starts = grid.starts.min(keepdims=True) if shared else grid.starts  # [blocks]
    ends = grid.ends.max(keepdims=True) if shared else grid.ends  # [blocks]
    first_ends = grid.ends.min(keepdims=True) if shared else grid.ends  # [blocks]
    block_of = np.full(len(rows.keys), -1)  # [K]
    block_of[grid.codes] = block

    reach = ends.copy()
    parts = [(rows, ordinals)] if future is None else [(rows, ordinals), future]
    for part, positions in parts:
        held = block_of[part.codes]
        some = np.zeros(part.count, dtype=bool)
        for at, role in enumerate(roles):
            if role == "known":
                some |= ~np.isnan(part.covariates[at])
        some &= held >= 0
        np.maximum.at(reach, held[some], positions[some] + 1)
    refuse_long(rows, int((reach - starts).sum()), step)
    begins = np.cumsum(reach - starts) - (reach - starts)  # [blocks]
    values = np.full((int((reach - starts).sum()), len(roles)), np.nan, dtype=np.float32)  # [R', C]
    for part, positions in parts:
        held = block_of[part.codes]
        inside = (held >= 0) & (positions >= starts[held]) & (positions < reach[held])
        if part is not rows:
            inside &= positions >= first_ends[held]
        place = (begins - starts)[held[inside]] + positions[inside]
        before = positions[inside] < ends[held[inside]]
        for at, role in enumerate(roles):
            cells = part.covariates[at][inside]
            given = ~np.isnan(cells)
            if role == "past":
                # What stands behind the last value of a series must not reach its forecast.
                given &= before
            if part is not rows:
                given &= ~before | np.isnan(values[place, at])
            values[place[given], at] = cells[given]
    return Timed(values, begins[block] + grid.starts - starts[block], reach[block] - grid.starts)


def behind_the_end(grid: Grid, rows: Rows, ordinals: Ints) -> Ints:
    """[rows] positions of sorted future rows without a time column: the first follows the end of its series."""
    ends = np.zeros(len(rows.keys), dtype=np.int64)  # [K]
    np.maximum.at(ends, grid.codes, grid.ends)
    codes, first = np.unique(rows.codes, return_index=True)
    shift = np.zeros_like(ends)
    shift[codes] = ends[codes] - ordinals[first]
    return ordinals + shift[rows.codes]


def require_known(panel: Panel, horizon: int) -> None:
    """Raise `DataError` where a known covariate is missing in the `horizon` rows after the end of a series."""
    columns = panel.timed_covariates("known")
    if not columns:
        return
    cells = _future_cells(panel, columns, np.arange(panel.n_series), panel.lengths, horizon)  # [N, H, C]
    missing = np.isnan(cells)
    if not missing.any():
        return
    series, row, column = (int(index[0]) for index in np.nonzero(missing))
    positions = panel.ends[:, None] + np.arange(horizon)  # [N, H]
    whose = np.zeros(panel.n_series, dtype=np.int64) if panel.columns.layout == "wide" else np.arange(panel.n_series)
    lacking = np.broadcast_to(whose[:, None, None], missing.shape)[missing]
    places = np.broadcast_to(positions[:, :, None], missing.shape)[missing]
    which = np.broadcast_to(np.arange(len(columns)), missing.shape)[missing]
    total = len(np.unique(np.stack([lacking, places, which]), axis=1).T)
    name = f"series {panel.name(series)!r}, " if panel.n_series > 1 else ""
    stamp = panel.stamps(positions[series, row : row + 1])[0]
    raise DataError(
        f"{name}time {stamp}: no value of the known covariate {panel.covariates[columns[column]].name!r}; the forecast "
        f"of {count_of(horizon, 'row')} needs {count_of(total, 'more cell')} of known covariates.",
        hint="Give the rows with --future FILE; predict --future-template writes them to fill in.",
        code="future_rows_missing",
    )


def _future_cells(panel: Panel, columns: Sequence[int], series: Ints, first: Ints, rows: int) -> Covered:
    """[series, rows, columns] cells of `timed` from row `first` of each series on; NaN beyond its rows."""
    row = first[:, None] + np.arange(rows)  # [series, rows]
    inside = row < panel.timed_rows[series, None]
    if not panel.timed.size:
        return np.full((*row.shape, len(columns)), np.nan, dtype=np.float32)
    flat = np.where(inside, panel.timed_at[series, None] + row, 0)
    return np.where(inside[:, :, None], panel.timed[:, columns][flat], np.float32(np.nan))


def future_template(panel: Panel, horizon: int) -> pd.DataFrame:
    """The `horizon` rows after the end of each series: id, time and known columns, empty where nothing is known.

    Raises `UsageError` where there are no known covariates.
    """
    known = panel.timed_covariates("known")
    if not known:
        raise UsageError(
            "There are no known covariates, so that no future rows are needed.",
            hint="Leave out --future-template, or name the columns at train with --known.",
            code="future_without_known",
        )
    if panel.columns.layout == "wide":
        # The series share their rows: from the first end to the last.
        first, last = int(np.argmin(panel.ends)), int(panel.ends.max())
        series = np.asarray([first])
        rows = last - int(panel.ends[first]) + horizon
    else:
        series, rows = np.arange(panel.n_series), horizon
    positions = panel.ends[series, None] + np.arange(rows)  # [series, rows]
    frame: dict[str, Any] = {
        name: np.repeat(np.asarray([panel.keys[index][place] for index in series], dtype=object), rows)
        for place, name in enumerate(panel.columns.ids)
    }
    frame |= panel.time_columns(positions.ravel())
    cells = _future_cells(panel, known, series, panel.lengths[series], rows).reshape(-1, len(known))
    for place, at in enumerate(known):
        covariate = panel.covariates[at]
        column = [cell_of(covariate, cell) for cell in cells[:, place].tolist()]
        frame[covariate.name] = pd.Series(column, dtype=np.float64 if covariate.categories is None else object)
    return pd.DataFrame(frame)
