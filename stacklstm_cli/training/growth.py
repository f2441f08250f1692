"""Whether the swings of series grow with their level, so that their logarithms are easier to learn."""

from __future__ import annotations

import numpy as np

from stacklstm_cli.data.panel import Floats, Ints, Panel

LEAST_SEASONS = 3
"""Fewer do not show how swings and level go together."""
LEAST_LEVEL = 1.0
"""Half of the values must be as large: log(1 + y) of smaller ones is nearly a straight line."""
LEAST_VALUE = 1e-6
"""None may be smaller: log(1 + y) would leave it too few digits."""
MOST_SERIES = 1000
"""Series that are looked at, evenly spread: enough to tell."""


def grows_with_level(panel: Panel, ends: Ints, season: int) -> bool:
    """Whether relative swings within a season vary less than absolute ones, in the first `ends[i]` rows.

    The measure of Guerrero 1993, "Time-series analysis supported by power transformations": how much the deviation
    of a season, divided by its mean for the logarithm and as it is for none, varies from season to season; mean
    over the series.
    """
    learned = np.arange(panel.values.size) - np.repeat(panel.offsets[:-1], panel.lengths) < np.repeat(
        ends, panel.lengths
    )
    values = panel.values[learned & ~np.isnan(panel.values)]
    if season < 2 or not values.size or values.min() < LEAST_VALUE or np.median(values) < LEAST_LEVEL:
        return False
    looked_at = np.unique(np.linspace(0, panel.n_series - 1, MOST_SERIES).astype(np.int64))
    found = [variations(panel.series(index)[: int(ends[index])], season) for index in looked_at]
    known = [one for one in found if one is not None]
    if not known:
        return False
    relative, absolute = np.mean(known, axis=0)
    return bool(relative < absolute)


def variations(values: Floats, season: int) -> tuple[float, float] | None:
    """Coefficients of variation of relative and of absolute swings; None where the series shows none."""
    rows = values.size // season * season
    seasons = values[values.size - rows :].reshape(-1, season)  # [seasons, season]
    seasons = seasons[~np.isnan(seasons).any(1)]  # [seasons', season]
    swings = seasons.std(1)  # [seasons']
    if len(seasons) < LEAST_SEASONS or not swings.any():
        return None
    relative = swings / seasons.mean(1)  # [seasons']
    return float(relative.std(ddof=1) / relative.mean()), float(swings.std(ddof=1) / swings.mean())
