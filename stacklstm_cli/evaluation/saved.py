"""A forecast that `predict` wrote, read back and set against the rows that have since arrived.

The file is read as any data is, each of its columns of forecasts as a target: time stamps, zones and ids mean there
what they mean in DATA.

Letters: K series of the saved forecast, O origins, H rows of its longest series, Q quantiles.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stacklstm_cli.config import MEDIAN, DataConfig, ReadingConfig
from stacklstm_cli.data.blocks import UTF8_MARK, file_at
from stacklstm_cli.data.calendar import OffGridError
from stacklstm_cli.data.opening import open_table
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Columns, Floats, Ints, Panel, Stored
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import DataError, StacklstmError
from stacklstm_cli.evaluation.backtest import Backtest, backtest
from stacklstm_cli.evaluation.scoring import baselines_for, tell_of
from stacklstm_cli.evaluation.verdict import MODEL

POINT = "forecast"
"""Column of the point forecast."""


@dataclass(frozen=True)
class Written:
    """The file of a saved forecast."""

    path: str
    held: bytes | None
    """Its rows as CSV, where the file is JSON; else it is read from its path."""
    header: tuple[str, ...]
    own: ReadingConfig
    """How it is written."""

    @property
    def quantiles(self) -> dict[str, float]:
        """Its columns of quantiles: "q2.5" -> 0.025."""
        found = {name: re.fullmatch(r"q(\d+(?:\.\d+)?)", name) for name in self.header}
        levels = {name: round(float(match[1]) / 100, 12) for name, match in found.items() if match}
        return {name: level for name, level in levels.items() if 0 < level < 1}

    def panel(self, columns: Columns, stored: Stored) -> Panel:
        """Its rows with these roles. Raises `DataError` naming the file."""
        source, stdin = (self.path, None) if self.held is None else ("-", io.BytesIO(self.held))
        try:
            return read_panel([source], DataConfig(), self.own, stored=replace(stored, columns=columns), stdin=stdin)
        except StacklstmError as error:
            message = error.message.replace("standard input", self.path)
            message = message.replace("the model was trained on", "those of DATA are")
            raise DataError(f"--against: {message}", hint="Give a forecast of this data.", code=error.code) from error


@dataclass(frozen=True, eq=False)
class Saved:
    """A saved forecast on the grid of the data. Satisfies the same interface as the baselines."""

    keys: tuple[tuple[str, ...], ...]
    """[K]"""
    starts: Ints
    """[K] position on the grid of each series' first row."""
    values: Floats
    """[K, H, Q] NaN where a series has no such row."""
    quantiles: tuple[float, ...]
    """Ascending, 0.5 among them: the point forecast, whatever it is."""

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """[O, H, Q] what was forecast of the series of each origin; its row must be that before the first forecast."""
        place = {key: at for at, key in enumerate(self.keys)}
        return self.values[[place[panel.keys[index]] for index in origins.series.tolist()]]


@dataclass(frozen=True)
class Arrived:
    """What has come of a saved forecast."""

    backtest: Backtest | None
    """None where nothing has."""
    rows: int
    """Rows that were forecast."""
    rows_awaited: int
    """Rows after the last one of their series in DATA, or of a series that DATA does not have."""
    rows_missing: int
    """Rows that DATA passes over, or has no value for."""
    without_history: int
    """Series of which DATA has no row before the forecast, so that there are no baselines."""

    @property
    def span(self) -> tuple[int, int] | None:
        """Positions on the grid of the first and the last row that are scored."""
        if self.backtest is None:
            return None
        origin, ahead = np.nonzero(~np.isnan(self.backtest.actual))
        positions = self.backtest.cutoffs[origin] + 1 + ahead
        return int(positions.min()), int(positions.max())

    def explained(self) -> list[str]:
        """What is not scored, and why, for a person."""
        found = []
        if self.rows_awaited:
            found.append(f"{self.rows_awaited:,} of the {self.rows:,} rows forecast have not come yet")
        if self.rows_missing:
            found.append(f"{self.rows_missing:,} of the {self.rows:,} rows forecast have no value in DATA")
        if self.without_history:
            found.append(f"no baselines: of {self.without_history:,} series DATA has no row before the forecast begins")
        return found


def open_saved(path: str) -> Written:
    """The file at a path, "-" being standard input: CSV, Parquet, JSON or NDJSON, whatever it is called.

    Raises `DataError`.
    """
    own = ReadingConfig(decimal=".")
    try:
        file = file_at(path)
        begin = next(file.blocks(), b"")[:64].removeprefix(UTF8_MARK).lstrip()
        held = csv_of_json(path, b"".join(file.blocks())) if begin[:1] in (b"{", b"[") else file.held
        source, stdin = (path, None) if held is None else ("-", io.BytesIO(held))
        return Written(path, held, tuple(open_table([source], own, stdin).header), own)
    except DataError as error:
        message = error.message.replace("standard input", path).removeprefix("--against: ")
        hint = error.hint if error.code == "broken_json" else "Check the path of the forecast."
        raise DataError(f"--against: {message}", hint=hint, code=error.code) from error


def csv_of_json(path: str, content: bytes) -> bytes:
    """The records of a JSON document's "forecasts", or of one a line, as CSV. Raises `DataError`."""
    try:
        text = content.decode("utf-8-sig")
        try:
            document: Any = json.loads(text)
        except json.JSONDecodeError:
            document = [json.loads(line) for line in text.splitlines() if line.strip()]
        if isinstance(document, dict):
            document = document.get("forecasts", [document])
        lines = io.StringIO()
        writer = csv.DictWriter(lines, list(document[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(document)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no forecast in JSON ({type(error).__name__}).",
            hint='Expected what predict writes: a document with "forecasts", or one record a line.',
            code="broken_json",
        ) from error
    return lines.getvalue().encode()


def read_actuals(sources: Sequence[str], written: Written, reading: ReadingConfig) -> Panel:
    """DATA without a model to say what its columns are: guessed as in training, else as the forecast's are named.

    Raises `DataError` or `UsageError` where the forecast does not fit it.
    """
    keys = written.header[: written.header.index(POINT)] if POINT in written.header else ()
    named = DataConfig(time=keys[-1:], id=keys[:-1])
    refusal: StacklstmError | None = None
    for config in (DataConfig(), named) if keys else (DataConfig(),):
        try:
            panel = read_panel(sources, config, reading)
            roles_in(written, panel.columns, [panel.name(index) for index in range(panel.n_series)])
        except StacklstmError as error:
            refusal = refusal or error
        else:
            return panel
    assert refusal is not None  # noqa: S101 - one of them was raised
    hint = "Name the model that made the forecast with --model: it knows which column of DATA is what."
    raise type(refusal)(refusal.message, hint=hint, code=refusal.code) from refusal


def roles_in(written: Written, columns: Columns, names: Sequence[str]) -> Columns:
    """The roles of the file's columns, its forecast the target, for data with these roles and names of series.

    Raises `DataError` where it has other columns.
    """
    keys, times, header = columns.key_names, columns.time_names, written.header
    if {"cutoff", "actual"} <= set(header):
        raise DataError(
            f"--against: {written.path} holds a backtest, which tells what came already.",
            hint="Give a forecast as predict writes it.",
            code="columns_differ",
        )
    if keys and set(times) <= set(header) and POINT not in header:  # as `predict --wide` writes it
        series = tuple(name for name in header if name not in times)
        if series and set(series) <= set(names):
            return Columns("wide" if len(series) > 1 else "single", times, (), series)
    missing = [name for name in (*keys, *times, POINT) if name not in header]
    extra = [name for name in header[: header.index(POINT)] if name not in (*keys, *times)] if not missing else []
    if missing or extra:
        found = ", ".join(header)
        raise DataError(
            f"--against: {written.path} has the columns {found}; a forecast of this data has "
            f"{', '.join((*keys, *times, POINT))}.",
            hint="Give a forecast of this data as predict writes it.",
            code="columns_differ",
        )
    return Columns("long" if keys else "single", times, keys, (POINT,))


def read_saved(written: Written, panel: Panel, tz: str | None) -> Saved:
    """The forecast on the grid of the data, whose time zone was typed as `tz`.

    Raises `DataError` where it cannot be of this data.
    """
    written = replace(written, own=replace(written.own, tz=tz))
    names = [panel.name(index) for index in range(panel.n_series)]
    columns = roles_in(written, panel.columns, names)
    form = panel.time_form if panel.columns.time else replace(panel.time_form, kind="integer")
    stored = Stored(columns, panel.step, form)
    point, levels = written.panel(columns, stored), {POINT: MEDIAN}
    if columns.targets == (POINT,):
        levels |= {name: level for name, level in written.quantiles.items() if level != MEDIAN}
    else:
        key_of = dict(zip(names, panel.keys, strict=True))
        point = replace(point, keys=tuple(key_of[point.name(index)] for index in range(point.n_series)))
    horizon = int(point.lengths.max())
    values = np.full((point.n_series, horizon, len(levels)), np.nan)
    place = {key: at for at, key in enumerate(point.keys)}
    ordered = sorted(levels, key=lambda name: levels[name])
    for at, name in enumerate(ordered):
        other = point if name == POINT else written.panel(replace(columns, targets=(name,)), stored)
        for index, key in enumerate(other.keys):
            series = place.get(key)
            if series is not None:
                ahead = int(other.starts[index] - point.starts[series]) + np.arange(other.lengths[index])
                inside = (ahead >= 0) & (ahead < horizon)
                values[series, ahead[inside], at] = other.series(index)[inside]
    return Saved(point.keys, positions_in(point, panel, written.path), values, tuple(levels[name] for name in ordered))


def positions_in(point: Panel, panel: Panel, path: str) -> Ints:
    """[K] the first rows of a forecast as positions on the grid of the data. Raises `DataError`."""
    stamps = point.step.stamps(point.starts)
    try:
        return panel.step.ordinals(stamps)
    except OffGridError as error:
        first = point.stamps(point.starts[[error.index]])[0]
        raise DataError(
            f"--against: {path}, time {first}: no row of DATA can have this time; its rows are {panel.step.label} "
            f"apart, such as {panel.stamps(panel.starts[:1])[0]}.",
            hint="Give a forecast of this data.",
            code="off_grid",
        ) from error


def score_saved(
    saved: Saved,
    panel: Panel,
    seasonality: int,
    path: str,
    names: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> Arrived:
    """The saved forecast beside the baselines, on the rows of the data that it covers.

    `names` of baselines beside the naive ones; `tell` takes what a person should know of them. Raises `DataError`
    where the data has none of the forecast's series.
    """
    index_of = {key: index for index, key in enumerate(panel.keys)}
    index = np.asarray([index_of.get(key, -1) for key in saved.keys], dtype=np.int64)  # [K]
    if (index < 0).all():
        raise DataError(
            f"--against: {path} forecasts {', '.join(saved.keys[0]) or 'a series'}, which DATA does not have; its "
            f"first series is {panel.name(0)}.",
            hint="Give a forecast of this data.",
            code="series_differ",
        )
    known = index >= 0
    rows = np.where(known, saved.starts - panel.starts[index], 0)  # [K]
    ahead = rows[:, None] + np.arange(saved.values.shape[1])  # [K, H]
    forecast = ~np.isnan(saved.values).any(axis=2)  # [K, H]
    inside = known[:, None] & (ahead < panel.lengths[index, None])  # [K, H]
    flat = np.where(inside & (ahead >= 0), panel.offsets[index, None] + ahead, 0)
    came = np.where(inside & (ahead >= 0), panel.values[flat], np.nan)  # [K, H]
    scored = forecast & ~np.isnan(came)
    some = np.flatnonzero(scored.any(axis=1))
    some = some[np.argsort(index[some], kind="stable")]
    counts = {
        "rows": int(forecast.sum()),
        "rows_awaited": int((forecast & ~inside).sum()),
        "rows_missing": int((forecast & inside & ~scored).sum()),
        "without_history": int((rows[some] < 1).sum()),
    }
    if not some.size:
        return Arrived(None, **counts)
    origins = Origins(index[some], rows[some])
    baselines = {} if counts["without_history"] else baselines_for(names, origins, seasonality, tell)
    found = backtest({MODEL: saved, **baselines}, panel, origins, saved.values.shape[1], saved.quantiles, seasonality)
    tell_of(baselines, tell)
    return Arrived(replace(found, actual=np.where(scored[some], came[some], np.nan)), **counts)
