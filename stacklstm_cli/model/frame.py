"""Forecasts as a table with the input's own columns.

Letters: N series, H horizon, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stacklstm_cli.config import MEDIAN, POINT_LOSSES, ForecastConfig, interval_quantiles
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.forecaster import Forecaster


def forecast_frame(forecaster: Forecaster, panel: Panel, config: ForecastConfig) -> pd.DataFrame:
    """The rows after the last observed one of every series: key columns, time, `forecast`, quantiles.

    Series stand in the order of the input, rows in the order of time. Raises `UsageError` for a horizon or
    a quantile that the model has not learned.
    """
    horizon = config.horizon or forecaster.spec.horizon
    learned = () if forecaster.spec.loss in POINT_LOSSES else forecaster.spec.quantiles
    shown = wanted_quantiles(config, learned)
    origins = Origins(np.arange(panel.n_series), panel.lengths)
    values = forecaster.forecast(panel, origins, horizon, [MEDIAN, *shown])  # [N, H, 1 + Q]
    positions = panel.ends[:, None] + np.arange(horizon)  # [N, H]
    return wide(panel, positions, values) if config.wide else long(panel, positions, values, shown)


def attention_frame(forecaster: Forecaster, panel: Panel) -> pd.DataFrame:
    """How much each step of the newest context of every series counts: key columns, the time of the step's last
    row, `weight`. Raises `UsageError` for a model without attention."""
    spec = forecaster.spec
    weights = forecaster.attention_weights(panel, Origins(np.arange(panel.n_series), panel.lengths))  # [N, S]
    positions = panel.ends[:, None] - 1 - spec.rows_after_steps.numpy()  # [N, S]
    frame = keyed(panel, positions)
    frame["weight"] = weights.ravel()
    return frame


def keyed(panel: Panel, positions: np.ndarray) -> pd.DataFrame:
    """The key and time columns of these positions [N, X] of each series, one row for each."""
    columns: dict[str, object] = {
        name: np.repeat([key[place] for key in panel.keys], positions.shape[1])
        for place, name in enumerate(panel.columns.key_names)
    }
    return pd.DataFrame(columns | panel.time_columns(positions.ravel()))


def wanted_quantiles(config: ForecastConfig, learned: Sequence[float]) -> list[float]:
    """The quantile columns to write: those asked for, else all that were learned, none of a point forecast."""
    asked = {*config.quantiles, *interval_quantiles(config.interval)}
    if config.wide and asked:
        raise UsageError(
            "--wide writes point forecasts only; leave out --quantiles and --interval.", code="wide_quantiles"
        )
    return sorted(asked) or list(learned)


def long(panel: Panel, positions: np.ndarray, values: Floats, shown: Sequence[float]) -> pd.DataFrame:
    """One row per series and step."""
    frame = keyed(panel, positions)
    frame["forecast"] = values[:, :, 0].ravel()
    for place, quantile in enumerate(shown, start=1):
        frame[quantile_name(quantile)] = values[:, :, place].ravel()
    return frame


def wide(panel: Panel, positions: np.ndarray, values: Floats) -> pd.DataFrame:
    """One row per step, one column per series, as in a wide input; blank where a series ends elsewhere."""
    steps, place = np.unique(positions, return_inverse=True)
    table = np.full((steps.size, panel.n_series), np.nan)
    table[place.reshape(positions.shape), np.arange(panel.n_series)[:, None]] = values[:, :, 0]
    names = [panel.name(index) if key else "forecast" for index, key in enumerate(panel.keys)]
    frame: pd.DataFrame = pd.DataFrame(table, columns=names)
    for at, (name, words) in enumerate(panel.time_columns(steps).items()):
        frame.insert(at, name, words)
    return frame


def quantile_name(quantile: float) -> str:
    """0.1 -> q10, 0.025 -> q2.5."""
    return f"q{round(100 * quantile, 9):g}"
