"""Small panels to test with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.panel import Columns, Panel, join_series


def make_panel(*series: npt.ArrayLike, starts: Sequence[int] | None = None) -> Panel:
    """An hourly panel of these series, named s0, s1 …; one alone has no name, as in a file of one series."""
    several = len(series) > 1
    keys, values, offsets, begins = join_series(
        [
            ((f"s{index}",) if several else (), starts[index] if starts else 0, np.asarray(values, dtype=np.float64))
            for index, values in enumerate(series)
        ]
    )
    columns = Columns("long", "ds", ("id",), ("y",)) if several else Columns("single", "ds", (), ("y",))
    form = TimeForm("datetime", "%Y-%m-%d %H:%M")
    return Panel(columns, Step("second", 3600), form, keys, values, offsets, begins)


def wave(rows: int, seed: int = 0, period: int = 24) -> npt.NDArray[np.float64]:
    """A seasonal wave with noise around 50."""
    noise = np.random.default_rng(seed).normal(size=rows)
    return 50 + 10 * np.sin(np.arange(rows) * 2 * np.pi / period) + noise
