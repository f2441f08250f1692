"""Documents as rows under columns, whatever they are then rendered as."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stacklstm_cli.cli.messages import printable

if TYPE_CHECKING:
    import pandas

_HIGHER_IS_BETTER = ("accuracy", "balanced_accuracy", "macro_f1")
_MOST_CLASSES, _MOST_MISTAKES = 20, 15
"""Of more classes the commonest mistakes are listed in place of the whole confusion matrix."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Rows under columns, whatever they are rendered as; the first `keys` columns name the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    keys: int = 1
    best: frozenset[tuple[int, int]] = frozenset()  # (row, column) of the values to stress
    breaks: frozenset[int] = frozenset()  # rows that begin a new section, for people

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows by column name, as JSON has them."""
        return (dict(zip(self.columns, map(plain, row), strict=True)) for row in self.rows)


def plain(value: Any) -> Any:
    """`value` in the types of JSON: NaN, infinity and missing values are null, NumPy's numbers are Python's."""
    if value is None or isinstance(value, (str, bool)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None  # NaT is not equal to itself
    return plain(value.item())  # NumPy's booleans


def caption(backtest: Mapping[str, Any]) -> str:
    """What the metrics were measured on, from those of its facts that are there."""
    origins, season = backtest.get("origins"), backtest.get("seasonality")
    first, last = backtest.get("first_cutoff"), backtest.get("last_cutoff")
    points, undefined = backtest.get("points"), backtest.get("undefined")
    facts = [f"{origins:,} origin{'s' if origins != 1 else ''}"] if origins is not None else []
    facts += [f"{points:,} value{'s' if points != 1 else ''} scored"] if points is not None else []
    facts += [f"{name} {backtest[name]}" for name in ("horizon", "step") if backtest.get(name) is not None]
    facts += [f"seasonality m = {season}"] if season is not None else []
    facts += [f"cutoffs {first} to {last}"] if first is not None else []
    left_out = f"; {undefined:,} series without a scale left out of mase, rmsse and msis" if undefined else ""
    return printable(", ".join(facts) + left_out)


def metrics_grid(parts: Iterable[tuple[tuple[Any, ...], Mapping[str, Mapping[str, Any]]]], keys: Sequence[str]) -> Grid:
    """A row per model, stacklstm first, for each part, which is named by all `keys` but the model; its best marked."""
    parts = list(parts)
    names = list(dict.fromkeys(name for _, models in parts for scores in models.values() for name in scores))
    rows: list[list[Any]] = []
    best: set[tuple[int, int]] = set()
    for part, models in parts:
        first, ordered = len(rows), sorted(models, key=lambda model: model != "stacklstm")
        for model in ordered:
            rows.append([*part, model, *(models[model].get(name) for name in names)])
        for column, name in enumerate(names, len(keys)):
            best |= {(first + row, column) for row in best_of(name, [line[column] for line in rows[first:]])}
    return Grid([*keys, *names], rows, keys=len(keys), best=frozenset(best))


def best_of(metric: str, values: Sequence[float | None]) -> list[int]:
    """The indices of the best values of a metric; none where there is nothing to choose from."""
    if metric.startswith("width_"):  # narrow is good only with the right coverage
        return []
    if metric.startswith("coverage_"):
        aim = float(metric.removeprefix("coverage_")) / 100
        losses = {i: abs(v - aim) for i, v in enumerate(values) if v is not None and math.isfinite(v)}
    elif metric == "bias":
        losses = {i: abs(v) for i, v in enumerate(values) if v is not None and math.isfinite(v)}
    else:
        sign = -1 if metric in _HIGHER_IS_BETTER else 1
        losses = {i: sign * v for i, v in enumerate(values) if v is not None and math.isfinite(v)}
    return [i for i, loss in losses.items() if loss == min(losses.values())] if len(losses) > 1 else []


def series_grid(document: Mapping[str, Any]) -> Grid:
    """The metrics of each series."""
    parts = [((str(one["series"]),), one["metrics"]) for one in document["per_series"]]
    return metrics_grid(parts, ("series", "model"))


def whole_grid(document: Mapping[str, Any]) -> Grid:
    """The metrics as one grid: of the whole, whose series and step are empty, then of each series and of each step."""
    empty = {key: value for key, value in (("series", ""), ("step", None)) if document.get(f"per_{key}")}
    parts = [(empty, document.get("metrics") or {})]
    for key in empty:
        parts += [(empty | {key: one[key]}, one["metrics"]) for one in document[f"per_{key}"]]
    return metrics_grid([(tuple(part.values()), models) for part, models in parts], (*empty, "model"))


def step_grid(document: Mapping[str, Any]) -> tuple[str, Grid]:
    """One metric by step of the horizon, a column per model, and its name: for people, who look at how errors grow."""
    steps = document["per_step"]
    models = sorted(steps[0]["metrics"], key=lambda model: model != "stacklstm")
    found = {name for one in steps for name, value in one["metrics"][models[0]].items() if value is not None}
    metric = "mase" if "mase" in found else "mae"
    rows = [[one["step"], *(one["metrics"][model].get(metric) for model in models)] for one in steps]
    best = {(place, 1 + at) for place, row in enumerate(rows) for at in best_of(metric, row[1:])}
    return metric, Grid(["step", *models], rows, best=frozenset(best))


def label_grids(document: Mapping[str, Any]) -> list[tuple[Grid, str]]:
    """The table of classes and that of the confusion matrix, for people, each with what to say below it.

    None where no labels were predicted.
    """
    if not document.get("confusion"):
        return []
    confusion = document["confusion"]
    several = len(confusion["true"]) > _MOST_CLASSES
    return [(class_grid(document["per_class"]), ""), mistakes_grid(confusion) if several else confusion_grid(confusion)]


def class_grid(per_class: Sequence[Mapping[str, Any]]) -> Grid:
    """A row per class: how many rows are of it, and how well they are found."""
    names = ("support", "precision", "recall", "f1")
    return Grid(("class", *names), [[one["class"], *(one[name] for name in names)] for one in per_class])


def confusion_grid(confusion: Mapping[str, Any]) -> tuple[Grid, str]:
    """True classes down, predicted ones across; a dot for none, what is right is marked."""
    rows = [
        [name, *(count or "." for count in line)]
        for name, line in zip(confusion["true"], confusion["counts"], strict=True)
    ]
    right = frozenset((place, place + 1) for place in range(len(confusion["predicted"])))
    grid = Grid(("true \\ predicted", *confusion["predicted"]), rows, best=right)
    return grid, "confusion matrix: true classes down, predicted ones across"


def mistakes_grid(confusion: Mapping[str, Any]) -> tuple[Grid, str]:
    """The commonest mistakes, the most frequent first."""
    found = [
        [true, predicted, count]
        for true, line in zip(confusion["true"], confusion["counts"], strict=True)
        for predicted, count in zip(confusion["predicted"], line, strict=True)
        if true != predicted and count
    ]
    found.sort(key=lambda one: -one[2])
    shown = found[:_MOST_MISTAKES]
    total = sum(count for _, _, count in found)
    said = f"{sum(row[2] for row in shown):,} of {total:,} mistakes; the whole confusion matrix with --format json"
    return Grid(("true", "predicted", "rows"), shown, keys=2), said if total else "no mistakes"


def frame_grid(frame: pandas.DataFrame) -> Grid:
    """A table of pandas; what stands before its forecasts names the row."""
    columns = [
        [None if missing else value for value, missing in zip(column.tolist(), column.isna().tolist(), strict=True)]
        for _, column in frame.items()
    ]
    names = [str(name) for name in frame.columns]
    keys = names.index("forecast") if "forecast" in names else 1
    return Grid(names, list(zip(*columns, strict=True)), keys=keys)


def card_grids(card: Mapping[str, Any]) -> Iterator[Grid]:
    """What stands at the top of the card, then a grid for each section; the metrics as `train` shows them.

    A section that is a list of objects has a row for each of them.
    """
    top = [(key, field_text(value)) for key, value in card.items() if not isinstance(value, (Mapping, list))]
    if top:
        yield Grid(("field", "value"), top)
    for title, section in card.items():
        if title == "metrics" and section:
            yield metrics_grid([((), section)], ("model",))
        elif isinstance(section, list) and section:
            columns = list(dict.fromkeys(key for item in section for key in item))
            rows = [[field_text(item.get(key)) for key in columns] for item in section]
            yield Grid((title, *columns[1:]), rows)
        elif isinstance(section, Mapping) and section:
            yield Grid((title, "value"), [(key, field_text(value)) for key, value in flat(section)])


def flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of nested sections by their names with dots between them."""
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for place, item in enumerate(value, start=1):
                yield from flat(item, f"{prefix}{key}.{place}.")
        else:
            yield f"{prefix}{key}", value


def field_text(value: Any) -> str:
    """A value of a card as text."""
    value = plain(value)
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return ", ".join(field_text(item) for item in value)
    if value is None or value == {}:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def search_grid(search: Mapping[str, Any], people: bool) -> Grid:
    """A row per candidate; for people without the options that never changed."""
    rows = search["candidates"]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "why"]
    fixed = {"candidate", "layers", "state", "score", "spread", "difference", "standard_error", "seconds"}
    if people:
        names = [name for name in names if name in fixed or len({row.get(name) for row in rows}) > 1]
    values = [[_listed(row.get(name)) for name in names] for row in rows]
    score = names.index("score")
    best = frozenset((at, score) for at, row in enumerate(rows) if "chosen" in row["state"])
    return Grid(names if not people else [name.replace("_", " ") for name in names], values, keys=1, best=best)


def _listed(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
