"""Forecasts as a table with the input's own columns.

Letters: N series, O origins, H horizon, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from stacklstm_cli.config import MEDIAN, POINT_LOSSES, ForecastConfig, interval_quantiles
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import DataError, UsageError
from stacklstm_cli.model.forecaster import Forecaster

CUTOFF, ACTUAL = "cutoff", "actual"
"""Columns of a backtest: the last known row of a forecast, and what came. The value has one name whatever the target
is called, as the forecast has: nothing is there twice where the rows are joined to the data."""
ROWS_AT_ONCE = 50_000


def forecast_frame(forecaster: Forecaster, panel: Panel, config: ForecastConfig) -> pd.DataFrame:
    """The rows after the last observed one of every series: key columns, time, `forecast`, quantiles.

    Series stand in the order of the input, rows in the order of time. Raises `UsageError` for a horizon or
    a quantile that the model has not learned.
    """
    horizon, shown = asked_rows(forecaster, config)
    values = forecaster.forecast(panel, newest(panel), horizon, [MEDIAN, *shown])  # [N, H, 1 + Q]
    return values_frame(panel, values, shown, config.wide)


def asked_rows(forecaster: Forecaster, config: ForecastConfig) -> tuple[int, list[float]]:
    """How many rows of which quantiles beside the point forecast. Raises `UsageError` for what was not learned."""
    horizon = config.horizon or forecaster.spec.horizon
    shown = wanted_quantiles(config, () if forecaster.spec.loss in POINT_LOSSES else forecaster.spec.quantiles)
    forecaster.check(horizon, [MEDIAN, *shown])
    return horizon, shown


def newest(panel: Panel) -> Origins:
    """The one after the last row of every series."""
    return Origins(np.arange(panel.n_series), panel.lengths)


def values_frame(panel: Panel, values: Floats, shown: Sequence[float], is_wide: bool) -> pd.DataFrame:
    """The table of forecasts [N, H, 1 + Q] after the newest origins: the point forecast, then the quantiles `shown`."""
    positions = panel.ends[:, None] + np.arange(values.shape[1])  # [N, H]
    return wide(panel, positions, values) if is_wide else long(panel, positions, values, shown)


def attention_frame(forecaster: Forecaster, panel: Panel) -> pd.DataFrame:
    """How much each step of the newest context of every series counts: key columns, the time of the step's last
    row, `weight`. Raises `UsageError` for a model without attention."""
    spec = forecaster.spec
    weights = forecaster.attention_weights(panel, newest(panel))  # [N, S]
    positions = panel.ends[:, None] - 1 - spec.rows_after_steps.numpy()  # [N, S]
    frame = keyed(panel, positions)
    frame["weight"] = weights.ravel()
    return frame


def refuse_backtest_clash(panel: Panel) -> None:
    """Raise `DataError` where the table of a backtest would have two columns of one name."""
    names = {*panel.columns.key_names, *panel.columns.time_names}
    for name in (CUTOFF, ACTUAL):
        if name in names:
            raise DataError(
                f"Column {name!r} of DATA has the name of another column of --forecasts.",
                hint="Give the column another name, or leave --forecasts out.",
                code="column_clash",
            )


def backtest_frames(
    panel: Panel, origins: Origins, actual: Floats, point: Floats, values: Floats, quantiles: Sequence[float]
) -> Iterator[pd.DataFrame]:
    """Every row of every forecast, some origins at a time: keys, `cutoff`, time, `actual`, `forecast`, quantiles.

    `actual`, `point` [O, H]; `values` [O, H, Q]. In the order of the origins, then of time.
    """
    horizon = actual.shape[1]
    ends = panel.starts[origins.series] + origins.rows  # [O]
    origins_at_once = max(1, ROWS_AT_ONCE // horizon)
    for begin in range(0, len(origins), origins_at_once):
        some = slice(begin, begin + origins_at_once)
        frame = keyed(panel, ends[some, None] + np.arange(horizon), origins.series[some])
        cutoffs = np.repeat(np.asarray(panel.stamps(ends[some] - 1), dtype=object), horizon)
        frame.insert(len(panel.columns.key_names), CUTOFF, cutoffs)
        frame[ACTUAL] = actual[some].ravel()
        frame["forecast"] = point[some].ravel()
        for place, quantile in enumerate(quantiles):
            frame[quantile_name(quantile)] = values[some, :, place].ravel()
        yield frame


def keyed(panel: Panel, positions: np.ndarray, series: Ints | None = None) -> pd.DataFrame:
    """The key and time columns of these positions [N, X] of each series, one row for each; [O, X] of `series` [O]."""
    keys = panel.keys if series is None else [panel.keys[index] for index in series.tolist()]
    columns: dict[str, object] = {
        name: np.repeat([key[place] for key in keys], positions.shape[1])
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
