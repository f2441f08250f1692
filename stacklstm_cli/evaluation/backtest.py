"""The rolling-origin backtest: every predictor forecasts the same origins and is scored alike.

Letters: O origins, H horizon, Q quantiles, N series.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stacklstm_cli.data.memory import give_back
from stacklstm_cli.data.origins import Origins, actuals
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.evaluation.metrics import (
    Scales,
    Sums,
    central_intervals,
    coverage,
    overall_metrics,
    seasonal_scales,
    series_metrics,
    sum_errors,
)
from stacklstm_cli.ranks import ALONE, Ranks

ROWS_AT_ONCE = 2**18


class Predictor(Protocol):
    """Whatever can forecast: the network and the baselines. What takes long has `pieces` too, see `Divisible`."""

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """[O, H, Q] in the user's units, from the rows before `origins.rows` of each series only."""
        ...


@runtime_checkable
class Divisible(Predictor, Protocol):
    """A predictor whose forecasts several processes may share, each giving those that one process would, to the bit."""

    def pieces(self, panel: Panel, origins: Origins, parts: Ints) -> Ints:
        """[O] numbers from 0: origins of one number are forecast by one process.

        `parts` [O] is the part of the panel in which `forecast` will be asked for each origin, see `in_parts`.
        """
        ...


@dataclass(frozen=True, eq=False)
class Backtest:
    """What was forecast, what came, and the judgement."""

    panel: Panel
    origins: Origins
    horizon: int
    quantiles: tuple[float, ...]
    seasonality: int
    actual: Floats
    """[O, H] NaN where missing."""
    forecasts: dict[str, Floats]
    """Predictor -> [O, H, Q]."""
    scales: Scales
    """[N] from the rows before each series' first origin."""

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Predictor -> metric -> value over all series; None where undefined."""
        return {
            name: {metric: _number(value) for metric, value in overall_metrics(sums, self.scales).items()}
            for name, sums in self._sums.items()
        }

    def per_series(self) -> list[dict[str, Any]]:
        """`{"series": name, "metrics": {predictor: {metric: value}}}` of each series with an origin, in panel order."""
        scored = np.unique(self.origins.series)
        tables = {}  # predictor -> (metric names, one row of values per scored series)
        for name, sums in self._sums.items():
            values = series_metrics(sums, self.scales)
            tables[name] = tuple(values), np.stack(list(values.values()), axis=1)[scored].tolist()
        return [
            {
                "series": self.panel.name(index),
                "metrics": {
                    name: dict(zip(metric_names, map(_number, rows[place]), strict=True))
                    for name, (metric_names, rows) in tables.items()
                },
            }
            for place, index in enumerate(scored.tolist())
        ]

    def per_step(self) -> list[dict[str, Any]]:
        """`{"step": 1, "metrics": {predictor: {metric: value}}}` of each step of the horizon, over all series."""
        tables: list[dict[str, Any]] = [{"step": step, "metrics": {}} for step in range(1, self.horizon + 1)]
        for name, forecast in self.forecasts.items():
            for at, table in enumerate(tables):
                actual, ahead = self.actual[:, at : at + 1], forecast[:, at : at + 1]  # [O, 1], [O, 1, Q]
                sums = sum_errors(actual, ahead, self.quantiles, self.origins.series, self.panel.n_series)
                found = overall_metrics(sums, self.scales)
                table["metrics"][name] = {metric: _number(value) for metric, value in found.items()}
        return tables

    def coverage(self, predictor: str) -> list[dict[str, Any]]:
        """`{"nominal": 0.8, "achieved": 0.79, "points": 360}` of each central interval, widest first: the share of
        the observed values that it should hold and held, and how many there were."""
        sums = self._sums[predictor].pooled()
        return [
            {
                "nominal": round(interval.level / 100, 9),
                "achieved": _number(float(coverage(sums, place)[0])),
                "points": int(sums.points[0]),
            }
            for place, interval in enumerate(central_intervals(self.quantiles))
        ]

    @property
    def undefined(self) -> int:
        """Scored series without a scale (too short, or unchanging), left out of mase, rmsse and msis."""
        scored = np.unique(self.origins.series[~np.isnan(self.actual).all(axis=1)])
        return int(np.isnan(self.scales.absolute[scored]).sum())

    @property
    def cutoffs(self) -> Ints:
        """[O] position on the panel's grid of each last known row."""
        return self.panel.starts[self.origins.series] + self.origins.rows - 1

    @property
    def first_cutoff(self) -> int | None:
        """Position on the panel's grid of the earliest cutoff; None without origins."""
        return int(self.cutoffs.min()) if len(self.origins) else None

    @property
    def last_cutoff(self) -> int | None:
        """Position on the panel's grid of the latest cutoff; None without origins."""
        return int(self.cutoffs.max()) if len(self.origins) else None

    @cached_property
    def _sums(self) -> dict[str, Sums]:
        return {
            name: sum_errors(self.actual, forecast, self.quantiles, self.origins.series, self.panel.n_series)
            for name, forecast in self.forecasts.items()
        }


def backtest(
    predictors: Mapping[str, Predictor],
    panel: Panel,
    origins: Origins,
    horizon: int,
    quantiles: Sequence[float],
    seasonality: int,
    ranks: Ranks = ALONE,
) -> Backtest:
    """Let every predictor forecast every origin.

    `quantiles` must hold 0.5, the point forecast. `seasonality` is the m that scales errors. Several `ranks` share
    the forecasts; the backtest of those that do not lead is of no use.
    """
    history = np.zeros(panel.n_series, dtype=np.int64)
    scored, first = np.unique(origins.series, return_index=True)
    history[scored] = np.maximum(origins.rows[first], 0)  # below 0 where a saved forecast begins before the series
    return Backtest(
        panel=panel,
        origins=origins,
        horizon=horizon,
        quantiles=tuple(quantiles),
        seasonality=seasonality,
        actual=actuals(panel, origins, horizon),
        forecasts={
            name: in_parts(predictor, panel, origins, horizon, quantiles, ranks)
            for name, predictor in predictors.items()
        },
        scales=seasonal_scales(panel.values, panel.offsets, history, seasonality),
    )


def in_parts(
    predictor: Predictor,
    panel: Panel,
    origins: Origins,
    horizon: int,
    quantiles: Sequence[float],
    ranks: Ranks = ALONE,
) -> Floats:
    """[O, H, Q] of all origins, some series at a time, as predictors hold several numbers for each row of a panel.

    Of several `ranks` each computes its pieces of a predictor that is `Divisible`, the first one all of any other; it
    has them all in the end, the others theirs and 0 elsewhere. What goes wrong in one is raised in all.
    """
    borders = part_borders(panel)
    if len(borders) == 2 and ranks.size == 1:
        return predictor.forecast(panel, origins, horizon, quantiles)
    forecasts = np.zeros((len(origins), horizon, len(quantiles)))
    with ranks.agreeing():
        parts = np.searchsorted(borders, origins.series, side="right") - 1  # [O]
        pieces = predictor.pieces(panel, origins, parts) if isinstance(predictor, Divisible) else np.zeros_like(parts)
        owners = ranks.owners(pieces)  # [O]
        for number, (begin, end) in enumerate(itertools.pairwise(borders)):
            mine = np.flatnonzero((parts == number) & (owners == ranks.rank))
            if mine.size:
                some = Origins(origins.series[mine] - begin, origins.rows[mine])
                forecasts[mine] = predictor.forecast(panel.part(begin, end), some, horizon, quantiles)
                give_back()
    ranks.collect(forecasts, owners)
    return forecasts


def part_borders(panel: Panel) -> list[int]:
    """The first series of each part of at least `ROWS_AT_ONCE` rows or so, and the number of series."""
    borders = [0]
    for index in range(1, panel.n_series):
        if panel.offsets[index + 1] - panel.offsets[borders[-1]] > ROWS_AT_ONCE:
            borders.append(index)
    return [*borders, panel.n_series]


def _number(value: float) -> float | None:
    """None in place of NaN and infinity, which JSON cannot hold."""
    return value if math.isfinite(value) else None
