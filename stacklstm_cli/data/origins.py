"""Origins: from which row of which series a forecast is made.

Letters: O origins, H horizon, N series.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from stacklstm_cli.data.panel import Floats, Ints, Panel


@dataclass(frozen=True, eq=False)
class Origins:
    """The forecasts to be made, ordered by series, then by rows."""

    series: Ints
    """[O] index of the series in the panel."""
    rows: Ints
    """[O] rows of that series known at the cutoff, which is row `rows - 1`; the forecast covers the
    rows `rows` to `rows + H - 1`."""

    def __len__(self) -> int:
        return self.rows.size


def plan_origins(
    first: Ints,
    last: Ints,
    horizon: int,
    step: int,
    origins: int | None = None,
    count_from: Literal["start", "end"] = "end",
) -> Origins:
    """The origins whose whole horizon lies in the rows `first[i]` to `last[i] - 1` of series i.

    `first`, `last` [N]. Origins are `step` rows apart, counted back from the last possible one, or
    forward from `first` with `count_from="start"`; `origins` keeps the last so many of each series.
    A series without room for a horizon has none, and there is none before the first row of a series: one that
    begins after `first` joins the others at the next of their steps.
    """
    late = np.maximum(1 - first, 0)  # [N]
    first = first + (late if count_from == "end" else -(-late // step) * step)
    latest = last - horizon
    possible = np.maximum((latest - first) // step + 1, 0)
    count = possible if origins is None else np.minimum(possible, origins)
    anchor = latest if count_from == "end" else first + (possible - 1) * step
    series = np.repeat(np.arange(first.size), count)
    steps_back = np.repeat(np.cumsum(count), count) - 1 - np.arange(series.size)
    return Origins(series, anchor[series] - steps_back * step)


@dataclass(frozen=True)
class Tally:
    """What a backtest looks at of the rows that it may score, over all series."""

    rows_scored: int
    """Rows in the horizon of some origin that have a value."""
    rows_missing: int
    """Rows in the horizon of some origin that have none."""
    rows_left_out: int
    """Rows in no horizon: before the first origin, after the last horizon, or between two."""
    series_left_out: int
    """Series without an origin."""

    def explained(self) -> str:
        """What is left out, for a person; nothing where nothing is."""
        parts = []
        if self.rows_left_out:
            whole = self.rows_scored + self.rows_missing + self.rows_left_out
            parts.append(f"{self.rows_left_out:,} of {whole:,} rows that could be scored are in no forecast")
        if self.rows_missing:
            parts.append(f"{self.rows_missing:,} rows in forecasts have no value and are not scored")
        if self.series_left_out:
            parts.append(f"{self.series_left_out:,} series have no room for a forecast")
        return "; ".join(parts)


def tally(panel: Panel, origins: Origins, horizon: int, first: Ints, last: Ints) -> Tally:
    """Count what the origins cover of the rows `first[i]` to `last[i] - 1` of series i; `first`, `last` [N]."""
    begin = panel.offsets[origins.series] + origins.rows  # [O]
    size = panel.values.size + 1
    changes = np.bincount(begin, minlength=size) - np.bincount(begin + horizon, minlength=size)
    covered = np.cumsum(changes[:-1]) > 0  # [sum of lengths]
    missing = int(np.count_nonzero(covered & np.isnan(panel.values)))
    inside = int(np.maximum(np.minimum(last, panel.lengths) - np.maximum(first, 1), 0).sum())
    total = int(np.count_nonzero(covered))
    return Tally(total - missing, missing, inside - total, panel.n_series - np.unique(origins.series).size)


def known_at(panel: Panel, position: int) -> Panel:
    """What a file holds that ends at this position of the grid: rows up to it, series that have begun by then.

    Covariates known for the future stay. Raises ValueError where no series has begun.
    """
    pieces: list[Floats] = []
    kept: list[int] = []
    for index, rows in enumerate(np.minimum(panel.lengths, position + 1 - panel.starts).tolist()):
        observed = np.flatnonzero(~np.isnan(panel.series(index)[: max(rows, 0)]))
        if observed.size:
            kept.append(index)
            pieces.append(panel.series(index)[: observed[-1] + 1])
    if not kept:
        raise ValueError(f"no series has begun at {position}")
    return replace(
        panel,
        keys=tuple(panel.keys[index] for index in kept),
        values=np.concatenate(pieces),
        offsets=np.cumsum([0, *map(len, pieces)], dtype=np.int64),
        starts=panel.starts[kept],
        timed_at=panel.timed_at[kept] if panel.timed_at.size else panel.timed_at,
        timed_rows=panel.timed_rows[kept] if panel.timed_rows.size else panel.timed_rows,
        static=panel.static[kept] if panel.static.size else panel.static,
    )


def actuals(panel: Panel, origins: Origins, horizon: int) -> Floats:
    """[O, H] what came after each cutoff; NaN where missing, before the series or beyond its end."""
    row = origins.rows[:, None] + np.arange(horizon)  # [O, H]
    inside = (row >= 0) & (row < panel.lengths[origins.series, None])
    flat = np.where(inside, panel.offsets[origins.series, None] + row, 0)
    return np.where(inside, panel.values[flat], np.nan)
