"""What is drawn of a forecast and of a backtest, whatever draws it.

Letters: H horizon, O origins, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.cells import cell_len

from stacklstm_cli.cli.axes import Axis, NumberAxis, TimeAxis
from stacklstm_cli.cli.messages import printable
from stacklstm_cli.config import MEDIAN
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.evaluation.metrics import central_intervals
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.frame import quantile_name

MOST_FORECASTS = 20
"""Series that one picture of forecasts has panels for."""
MOST_JUDGED = 3
"""Series whose forecasts are drawn beside what came."""
MOST_ORIGINS = 12
"""Origins of a series that are drawn."""
LEAST_TAIL = 24
"""Rows of history that are drawn, where there are so many."""
OFF_THE_SCALE = " (off the scale)"
OFF_SCALE = 3
"""Times the model's errors, beyond which those of a baseline are not followed."""


@dataclass(frozen=True, eq=False)
class Line:
    """Numbers over numbers; a gap is NaN."""

    label: str
    x: Floats
    y: Floats
    role: str
    """What it stands for, which settles its colour: "actual", "forecast", "training" … or a predictor's name."""
    points: bool = False
    """Whether it is a handful of points, to be marked."""


@dataclass(frozen=True, eq=False)
class Band:
    """What lies between two lines; gaps as in a line."""

    label: str
    x: Floats
    low: Floats
    high: Floats
    depth: int
    """0 is the widest of the bands that lie within each other."""


@dataclass(frozen=True, eq=False)
class Chart:
    """One pair of axes and what is drawn in it."""

    title: str
    axis: Axis
    lines: tuple[Line, ...]
    bands: tuple[Band, ...] = ()
    x_label: str = ""
    y_label: str = ""
    marks: tuple[tuple[float, str], ...] = ()
    """Places of vertical lines, and what they say; equal texts are said once."""
    top: float | None = None
    """Where the vertical axis ends, if what is above shall not be seen."""
    from_zero: bool = False
    """Whether the vertical axis begins at 0."""
    square: bool = False
    """Whether both axes are equal: shares over shares."""
    says: str = "the share of values they held"
    """What the numbers of a square chart are, where they are told in words."""

    @property
    def heights(self) -> tuple[float, float]:
        """The least and the greatest number that is drawn; 0 and 1 where there is none."""
        drawn = [line.y for line in self.lines] + [edge for band in self.bands for edge in (band.low, band.high)]
        values = np.concatenate([np.zeros(0), *drawn])
        values = values[np.isfinite(values)]
        if not values.size:
            return 0.0, 1.0
        low, high = float(values.min()), float(values.max())
        if self.top is not None:
            high = min(high, self.top)
        return min(low, 0.0) if self.from_zero else low, high

    @property
    def breadth(self) -> tuple[float, float]:
        """The first and the last place where something is drawn."""
        drawn = [line.x for line in self.lines] + [band.x for band in self.bands]
        places = np.concatenate([np.zeros(0), *drawn])
        places = places[np.isfinite(places)]
        return (float(places.min()), float(places.max())) if places.size else (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Counts of what was true by what was predicted; the first rows are the classes of the columns."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: Ints
    """[rows, columns]"""

    @property
    def shares(self) -> Floats:
        """[rows, columns] of each row's total; 0 in an empty row."""
        shares: Floats = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        return shares


@dataclass(frozen=True, eq=False)
class Picture:
    """Charts that belong together."""

    title: str
    subtitle: str
    charts: tuple[Chart, ...]
    """In rows from the top: panels of series, then what stands beside each other at the bottom."""
    beside: tuple[Chart, ...] = ()
    left_out: str = ""
    """What had no room, for a person; "" where everything is drawn."""
    matrix: Matrix | None = None
    """What stands beside the one chart of `beside`, where labels were predicted; then there are no `charts`."""


def forecast_picture(panel: Panel, frame: pd.DataFrame, horizon: int, seasonality: int, model: str) -> Picture:
    """The newest rows of each series and the forecast behind them.

    `frame` holds the forecasts of at least the first `MOST_FORECASTS` series of the panel, as `forecast_frame` does.
    """
    shown = min(panel.n_series, MOST_FORECASTS)
    quantiles = {float(name[1:]) / 100: name for name in frame.columns if is_quantile(name)}
    rows = [slice(index * horizon, (index + 1) * horizon) for index in range(shown)]
    single = panel.n_series == 1
    charts = tuple(
        forecast_chart(panel, index, frame.iloc[rows[index]], quantiles, seasonality, single) for index in range(shown)
    )
    last = panel.stamps([int(panel.ends[:shown].max()) - 1])[0]
    ahead = "1 row" if horizon == 1 else f"{horizon} rows"
    apart = "" if panel.step.unit == "step" else f" · step {panel.step.label}"
    return Picture(
        title=printable(f"Forecast of {target_of(panel)}"),
        subtitle=printable(f"{ahead} after {last}{apart} · model {model}"),
        charts=charts,
        left_out=left_out(shown, panel.n_series),
    )


def target_of(panel: Panel) -> str:
    """What is forecast, for a title."""
    return panel.columns.targets[0] if panel.columns.layout != "wide" else f"{panel.n_series} series"


def is_quantile(name: object) -> bool:
    """Whether a column of a forecast is named as `quantile_name` does."""
    text = str(name)
    try:
        return text[0] == "q" and quantile_name(float(text[1:]) / 100) == text
    except (ValueError, IndexError):
        return False


def left_out(shown: int, of: int) -> str:
    """What is said where some of the series have no panel."""
    return "" if shown >= of else f"the first {shown} of {of:,} series are drawn"


def forecast_chart(
    panel: Panel, index: int, frame: pd.DataFrame, quantiles: Mapping[float, str], seasonality: int, single: bool
) -> Chart:
    """The newest rows of one series and the forecast behind them."""
    history, end = panel.series(index), int(panel.ends[index])
    horizon = len(frame)
    tail = min(tail_length(horizon, seasonality), history.size)
    places = end + np.arange(horizon, dtype=np.float64)  # [H]
    columns = {level: frame[name].to_numpy(dtype=np.float64) for level, name in quantiles.items()}
    lines = [
        Line("history", end - tail + np.arange(tail, dtype=np.float64), history[history.size - tail :], "actual"),
        Line("forecast", places, frame["forecast"].to_numpy(dtype=np.float64), "forecast"),
    ]
    bands = tuple(bands_of(places, columns))
    alone = unpaired(columns)
    lines[1:1] = [Line(quantile_name(level), places, columns[level], "quantile") for level in alone]
    return Chart(
        title="" if single else printable(panel.name(index)),
        axis=TimeAxis(panel),
        lines=tuple(lines),
        bands=bands,
        y_label=printable(panel.columns.targets[0]) if single else "",
        marks=((end - 1.0, "last known row"),),
    )


def tail_length(horizon: int, seasonality: int) -> int:
    """Rows of history to draw: four seasons, but between three and nine times the horizon, which must be seen too."""
    return max(LEAST_TAIL, 3 * horizon, min(4 * seasonality, 9 * horizon))


def bands_of(x: Floats, columns: Mapping[float, Floats]) -> Iterator[Band]:
    """The central intervals among the quantiles, the widest first."""
    levels = sorted(columns)
    for depth, interval in enumerate(central_intervals(levels)):
        low, high = columns[levels[interval.lower]], columns[levels[interval.upper]]
        yield Band(f"{interval.label} % interval", x, low, high, depth)


def unpaired(levels: Mapping[float, Any]) -> list[float]:
    """Quantiles that bound no central interval; the median is the forecast itself."""
    ordered = sorted(levels)
    paired = {ordered[place] for one in central_intervals(ordered) for place in (one.lower, one.upper)}
    return [level for level in ordered if level not in paired and level != MEDIAN]


def backtest_picture(backtest: Backtest, step: int, rows: str, label: str) -> Picture:
    """What was forecast beside what came; the error by the step of the horizon; nominal and achieved coverage.

    `rows` says what was scored, `label` what forecast it.
    """
    scored = np.unique(backtest.origins.series)
    shown = scored[:MOST_JUDGED]
    charts = tuple(origins_chart(backtest, int(index), single=scored.size == 1) for index in shown)
    beside = [steps_chart(backtest)]
    covered = coverage_chart(backtest)
    first, last = backtest.panel.stamps([backtest.first_cutoff or 0, backtest.last_cutoff or 0])
    count = int(np.bincount(backtest.origins.series).max())
    origins = f"{count:,} origins {step} apart" if count > 1 else "1 origin"
    cutoffs = f"cutoffs {first} to {last}" if first != last else f"cutoff {first}"
    return Picture(
        title=printable(f"Backtest of {target_of(backtest.panel)}: {rows}"),
        subtitle=printable(f"{origins}, {cutoffs} · horizon {backtest.horizon} · {label}"),
        charts=charts,
        beside=(*beside, *([covered] if covered is not None else [])),
        left_out=left_out(shown.size, scored.size),
    )


def origins_chart(backtest: Backtest, index: int, single: bool) -> Chart:
    """One series and its newest forecasts that do not overlap."""
    panel, horizon = backtest.panel, backtest.horizon
    places = drawn_origins(backtest, index)  # [O']
    rows = backtest.origins.rows[places, None] + np.arange(horizon)  # [O', H]
    first = max(int(rows[0, 0]) - max(horizon, LEAST_TAIL // 2), 0)
    last = min(int(rows[-1, -1]) + 1, int(panel.lengths[index]))
    begin = int(panel.starts[index])
    x = (begin + np.concatenate([rows, rows[:, -1:]], axis=1)).astype(np.float64)  # [O', H + 1]
    x[:, -1] = np.nan  # each forecast is a line of its own

    def joined(values: Floats) -> Floats:
        return np.concatenate([values, np.full((values.shape[0], 1), np.nan)], axis=1).ravel()  # [O' (H + 1)]

    found = backtest.forecasts[MODEL][places]  # [O', H, Q]
    columns = {level: joined(found[:, :, at]) for at, level in enumerate(backtest.quantiles)}
    history = begin + np.arange(first, last, dtype=np.float64)
    return Chart(
        title="" if single else printable(panel.name(index)),
        axis=TimeAxis(panel),
        lines=(
            Line("actual", history, panel.series(index)[first:last], "actual"),
            Line("forecast", x.ravel(), columns[MEDIAN], "forecast"),
        ),
        bands=tuple(bands_of(x.ravel(), columns)),
        y_label=printable(panel.columns.targets[0]) if single else "",
        marks=tuple((float(begin + row - 1), "cutoff") for row in backtest.origins.rows[places]) if horizon > 1 else (),
    )


def drawn_origins(backtest: Backtest, index: int) -> Ints:
    """Places of the newest origins of a series whose forecasts do not overlap, in the order of time.

    At most `MOST_ORIGINS`, more where a horizon is short: as many as fill the tail of a forecast.
    """
    places = np.flatnonzero(backtest.origins.series == index)
    most = max(MOST_ORIGINS, tail_length(backtest.horizon, backtest.seasonality) // backtest.horizon)
    chosen: list[int] = []
    before = np.inf
    for place in places[::-1].tolist():
        if len(chosen) == most:
            break
        if backtest.origins.rows[place] + backtest.horizon <= before:
            chosen.append(place)
            before = backtest.origins.rows[place]
    return np.asarray(chosen[::-1], dtype=np.int64)


def steps_chart(backtest: Backtest) -> Chart:
    """The mean absolute error of each step of the horizon, of every predictor.

    Of several series the MASE, so that none outweighs the others, where there is one.
    """
    found = backtest.per_step()
    several = np.unique(backtest.origins.series).size > 1
    metric = "mase" if several and any(step["metrics"][MODEL]["mase"] is not None for step in found) else "mae"
    steps = np.asarray([step["step"] for step in found], dtype=np.float64)  # [H]
    errors = {
        name: np.asarray([step["metrics"][name][metric] for step in found], dtype=np.float64)  # [H], None is NaN
        for name in ordered(backtest.forecasts)
    }
    top = off_scale(errors)
    lines = tuple(
        Line(name + (OFF_THE_SCALE if leaves(values, top) else ""), steps, values, name, points=steps.size < 4)
        for name, values in errors.items()
    )
    return Chart(
        title="Error by step of the horizon",
        axis=NumberAxis(),
        lines=lines,
        x_label="step of the horizon",
        y_label="MASE" if metric == "mase" else printable(f"MAE, {backtest.panel.columns.targets[0]}"),
        top=top,
        from_zero=True,
    )


def ordered(predictors: Mapping[str, Any]) -> list[str]:
    """The model first."""
    return sorted(predictors, key=lambda name: name != MODEL)


def off_scale(errors: Mapping[str, Floats]) -> float | None:
    """Where the axis of errors ends, so that one poor baseline does not flatten the rest; None: nothing is cut."""
    peaks = {name: float(np.nanmax(values)) for name, values in errors.items() if np.isfinite(values).any()}
    others = [peak for name, peak in peaks.items() if name != MODEL]
    if MODEL not in peaks or not others:
        return None
    limit = OFF_SCALE * max(peaks[MODEL], min(others))
    seen = [peak for name, peak in peaks.items() if not leaves(errors[name], limit)]
    return min(limit, max(seen)) if max(others) > limit > 0 else None


def leaves(values: Floats, top: float | None) -> bool:
    """Whether nothing of a line is seen below `top`."""
    return top is not None and not bool((values[np.isfinite(values)] <= top).any())


def coverage_chart(backtest: Backtest) -> Chart | None:
    """What share of the values each interval held, over what it should; None without intervals."""
    intervals = central_intervals(backtest.quantiles)
    if not intervals:
        return None
    metrics = backtest.metrics()
    nominal = np.asarray([one.level for one in intervals][::-1])
    lines = []
    for name in ordered(backtest.forecasts):
        shares = [metrics[name].get(f"coverage_{one.label}") for one in intervals][::-1]
        achieved = np.asarray([np.nan if share is None else 100 * share for share in shares])
        lines.append(Line(name, nominal, achieved, name, points=True))
    lines.append(Line("as it should be", np.asarray([0.0, 100.0]), np.asarray([0.0, 100.0]), "ideal"))
    return Chart(
        title="Coverage of the intervals",
        axis=NumberAxis(),
        lines=tuple(lines),
        x_label="nominal, %",
        y_label="achieved, %",
        top=100.0,
        from_zero=True,
        square=True,
    )


def shortened(text: str, most: int) -> str:
    """At most so many columns: a longer text loses its middle, as names often differ at their ends."""
    if cell_len(text) <= most:
        return text
    begin, end = text, text
    while cell_len(begin) > most - most // 2 - 1:
        begin = begin[:-1]
    while cell_len(end) > most // 2:
        end = end[1:]
    return f"{begin}…{end}"
