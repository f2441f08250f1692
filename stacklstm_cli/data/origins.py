"""Origins: from which row of which series a forecast is made.

Letters: O origins, H horizon, N series.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    A series without room for a horizon has none, and there is none before the first row of a series.
    """
    first = np.maximum(first, 1)
    latest = last - horizon
    possible = np.maximum((latest - first) // step + 1, 0)
    count = possible if origins is None else np.minimum(possible, origins)
    anchor = latest if count_from == "end" else first + (possible - 1) * step
    series = np.repeat(np.arange(first.size), count)
    steps_back = np.repeat(np.cumsum(count), count) - 1 - np.arange(series.size)
    return Origins(series, anchor[series] - steps_back * step)


def actuals(panel: Panel, origins: Origins, horizon: int) -> Floats:
    """[O, H] what came after each cutoff; NaN where missing or beyond the end of the series."""
    row = origins.rows[:, None] + np.arange(horizon)  # [O, H]
    inside = row < panel.lengths[origins.series, None]
    flat = np.where(inside, panel.offsets[origins.series, None] + row, 0)
    return np.where(inside, panel.values[flat], np.nan)
