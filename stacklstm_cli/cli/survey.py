"""What stands in a panel and in the columns beside it: facts for `check`, none of them a guess.

N series. A gap is a run of missing values inside a series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stacklstm_cli.data.cells import is_missing, plain_number
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.data.stamps import Words, looks_like_time

NAMES_KEPT = 3
"""Names given as examples of a group of series."""
OFTEN = 3
CLOCK_MONTHS = (3, 4, 9, 10, 11)
"""Months in which clocks change, north and south of the equator."""
CLOCK_HOURS = (0, 1, 2, 3)
SUNDAY = 3
"""Days from the epoch, a Thursday, to the next Sunday."""


def stamp(panel: Panel, position: int) -> str:
    """One position on the grid as the file would write it."""
    return " ".join(texts[0] for texts in panel.time_columns([position]).values())


def series_facts(panel: Panel) -> dict[str, Any]:
    """How many series there are, how long, which are constant, which begin or end apart from most."""
    lengths = panel.lengths
    low, high = np.fmin.reduceat(panel.values, panel.offsets[:-1]), np.fmax.reduceat(panel.values, panel.offsets[:-1])
    return {
        "count": panel.n_series,
        "shortest": {"rows": int(lengths.min()), **_group(panel, lengths == lengths.min())},
        "median": float(np.median(lengths)),
        "longest": {"rows": int(lengths.max()), **_group(panel, lengths == lengths.max())},
        "constant": _group(panel, (low == high) & (not panel.classes)),  # one label for a series is as it should be
        "begin": _usual(panel, panel.starts),
        "end": _usual(panel, panel.ends - 1),
    }


def _group(panel: Panel, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """How many series are chosen [N], and the names of the first."""
    where = np.flatnonzero(chosen).tolist()
    return {"series": len(where), "names": [panel.name(index) for index in where[:NAMES_KEPT]]}


def _usual(panel: Panel, positions: Ints) -> dict[str, Any]:
    """The most frequent of the positions [N], and the series that stand at another one."""
    values, counts = np.unique(positions, return_counts=True)
    usual = int(values[np.argmax(counts)])
    return {
        "usual": stamp(panel, usual),
        "first": stamp(panel, int(values[0])),
        "last": stamp(panel, int(values[-1])),
        "others": _group(panel, positions != usual),
    }


def gap_facts(panel: Panel) -> dict[str, Any]:
    """How many values are missing, in how many series and gaps, and the longest gap."""
    begins, rows = _gaps(panel)
    series = np.searchsorted(panel.offsets, begins, side="right") - 1  # [gaps]
    facts: dict[str, Any] = {
        "missing": panel.gaps,
        "series": int(np.unique(series).size),
        "gaps": int(begins.size),
        "longest": None,
    }
    if begins.size:
        at = int(np.argmax(rows))
        index = int(series[at])
        first = int(panel.starts[index] + begins[at] - panel.offsets[index])
        facts["longest"] = {
            "rows": int(rows[at]),
            "series": panel.name(index),
            "first": stamp(panel, first),
            "last": stamp(panel, first + int(rows[at]) - 1),
        }
    return facts


def _gaps(panel: Panel) -> tuple[Ints, Ints]:
    """[gaps] where in `values` each begins, and [gaps] its rows; none spans two series, which end in values."""
    missing = np.isnan(panel.values).astype(np.int8)
    edges = np.diff(missing, prepend=0, append=0)
    begins = np.flatnonzero(edges == 1)
    return begins, np.flatnonzero(edges == -1) - begins


def skipped_hours(panel: Panel) -> list[str] | None:
    """First stamps of gaps of one hour at the times when clocks go forward; None where clocks do not matter.

    They do for time stamps of a day's parts that have no zone. Where most such gaps stand at other times, these
    stand there by chance.
    """
    step, form = panel.step, panel.time_form
    if form.kind != "datetime" or form.zone or form.tz or step.unit != "second" or 3600 % step.count:
        return None
    begins, rows = _gaps(panel)
    begins = begins[rows == 3600 // step.count]
    series = np.searchsorted(panel.offsets, begins, side="right") - 1
    positions = np.unique(panel.starts[series] + begins - panel.offsets[series])
    stamps = step.stamps(positions).astype("datetime64[s]")  # [gaps]
    days = stamps.astype("datetime64[D]")
    hours = (stamps - days).astype(np.int64) // 3600
    months = days.astype("datetime64[M]").astype(np.int64) % 12 + 1
    sundays = days.astype(np.int64) % 7 == SUNDAY
    likely = sundays & np.isin(hours, CLOCK_HOURS) & np.isin(months, CLOCK_MONTHS)
    if 2 * likely.sum() <= likely.size:
        return []
    return [stamp(panel, int(position)) for position in positions[likely]]


def column_facts(panel: Panel, sample: Mapping[str, Words]) -> list[dict[str, Any]]:
    """A dict of name, role and kind for each column with a role, then for the ignored ones.

    `sample` holds the first rows of every column as text; ignored columns are known by these alone.
    """
    roles = panel.columns
    facts: list[dict[str, Any]] = [{"name": name, "role": "time", "kind": "time"} for name in roles.time]
    facts += [
        {"name": name, "role": "id", "kind": "names", "different": len({key[at] for key in panel.keys})}
        for at, name in enumerate(roles.ids)
    ]
    if panel.classes:
        facts.append({"name": roles.targets[0], "role": "label", "kind": "categories", "different": len(panel.classes)})
    for name in () if panel.classes else roles.targets:
        values = panel.values if roles.layout != "wide" else _values_of(panel, name)
        facts.append({"name": name, "role": "target", **(_numbers(values) if values.size else {"kind": "empty"})})
    for role, cells in (("past", panel.timed), ("known", panel.timed), ("static", panel.static)):
        covariates = [one for one in panel.covariates if (one.role == "static") == (role == "static")]
        for at, covariate in enumerate(covariates):
            if covariate.role == role:
                kind = {"kind": "categories", "different": len(covariate.categories)} if covariate.categories else None
                facts.append({"name": covariate.name, "role": role, **(kind or _numbers(cells[:, at]))})
    taken = {fact["name"] for fact in facts}
    ignored = [name for name in sample if name not in taken]
    return facts + [{"name": name, "role": "ignored", **words_fact(sample[name])} for name in ignored]


def _values_of(panel: Panel, name: str) -> Floats:
    """The values of the series of this name in a wide file; empty where it was left out."""
    index = next((index for index, key in enumerate(panel.keys) if key == (name,)), None)
    return panel.series(index) if index is not None else np.empty(0)


def _numbers(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    if np.isnan(values).all():
        return {"kind": "empty"}
    return {"kind": "numbers", "least": float(np.nanmin(values)), "greatest": float(np.nanmax(values))}


def words_fact(words: Words) -> dict[str, Any]:
    """What the cells of a column look like: times, numbers or texts, and how many different ones."""
    unique = [str(word) for word in pd.unique(words) if not is_missing(str(word))]
    if not unique:
        return {"kind": "empty"}
    numbers = [plain_number(word, ".") or plain_number(word, ",") for word in unique]
    if 2 * sum(number is not None for number in numbers) > len(unique):
        return {"kind": "numbers", "different": len(unique)}
    if looks_like_time(unique[:400]):
        return {"kind": "time"}
    return {"kind": "categories", "different": len(unique)}


def unchanging(names: Sequence[str], ids: Sequence[str], sample: Mapping[str, Words]) -> list[str]:
    """Those of the columns that never change within a series of the sample; none where it holds one series only."""
    if not all(name in sample for name in ids) or not ids:
        return []
    keys = pd.MultiIndex.from_arrays([sample[name] for name in ids]).factorize()[0]
    series = np.unique(keys).size
    pairs = {name: np.unique(np.stack([keys, pd.factorize(sample[name])[0]]), axis=1).shape[1] for name in names}
    return [name for name in names if pairs[name] == series > 1]


def stray_values(panel: Panel) -> list[tuple[float, list[str]]]:
    """Values that may stand for a missing one, each with the names of the series that hold it.

    Such a value is the least or greatest of its series, stands there `OFTEN` times or more, and is further from
    all others than these are from each other.
    """
    found: dict[float, list[str]] = {}
    for index in range(panel.n_series):
        values, counts = np.unique(panel.series(index), return_counts=True)
        values, counts = values[~np.isnan(values)], counts[~np.isnan(values)]
        if values.size < 3:
            continue
        for at, rest in ((0, values[1:]), (-1, values[:-1])):
            if counts[at] >= OFTEN and abs(values[at] - rest[at]) > rest[-1] - rest[0]:
                found.setdefault(float(values[at]), []).append(panel.name(index))
    return sorted(found.items(), key=lambda item: -len(item[1]))
