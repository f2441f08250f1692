"""What `check` found, in words: rows of an item and what there is to say of it, and advice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stacklstm_cli.cli import survey
from stacklstm_cli.config import ModelConfig
from stacklstm_cli.data.gridding import count_of
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.patterns import SEPARATOR
from stacklstm_cli.data.stamps import Words, parse_integers
from stacklstm_cli.training.defaults import Plan

Row = tuple[str, str]
COLUMNS_SHOWN = 12
"""Columns of one role that are described one by one."""
NAMES_ADVISED = 5
FEW_CATEGORIES = 50
KINDS = {"numbers": "numbers", "categories": "text", "time": "time stamps", "empty": "empty"}
FIELDS = {
    **{"%Y": "year", "%y": "year", "%m": "month", "%b": "month", "%B": "month", "%q": "quarter", "%d": "day"},
    **{"%H": "hour", "%I": "hour", "%M": "minute", "%S": "second", "%p": "AM/PM"},
}


def described(document: Mapping[str, Any], *, problems: bool) -> list[list[Row]]:
    """The sections of the table, each a list of (item, words); the first row says which files it is about."""
    sections = [_files(document)]
    if "layout" in document:
        sections += [[*_read(document), *_columns(document["columns"])]]
        sections += [[*_time(document), *_series(document["series"]), *_gaps(document)]]
    sections.append(_labelled("note", _own_notes(document["notes"])))
    if "plan" in document:
        sections += [_plan(document["plan"]), _estimate(document.get("estimate"))]
    sections.append(_labelled("warning", [one["message"] for one in document["warnings"]]))
    sections.append(_labelled("advice", [one["message"] for one in document["advice"]]))
    if problems:
        found = document["problems"]
        sections += [[("problem", one["message"]), ("code", one["code"]), ("hint", one["hint"])] for one in found]
    kept = [[(item, words) for item, words in section if words] for section in sections]
    return [section for section in kept if section]


def _labelled(label: str, texts: Sequence[str]) -> list[Row]:
    """The texts as rows, the label before the first only."""
    return [(label if not at else "", text) for at, text in enumerate(texts)]


def _files(document: Mapping[str, Any]) -> list[Row]:
    files = document["data"]["files"]
    texts = [one["name"] + ("" if one["bytes"] is None else f" ({size(one['bytes'])})") for one in files]
    return _labelled("file" if len(files) == 1 else "files", texts)


def _read(document: Mapping[str, Any]) -> list[Row]:
    layout, count = document["layout"], document["series"]["count"]
    text = {
        "single": "one series",
        "wide": f"wide: {count:,} series side by side",
        "long": f"long: {count:,} series, one below the other",
    }[layout]
    return [("read", count_of(document["data"]["rows"], "row")), ("layout", text)]


def size(count: float) -> str:
    """Bytes for a person: 2.2 kB, 350 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if count >= 99.5 or unit == "bytes" else f"{count:.2g} {unit}"


def duration(seconds: float) -> str:
    """Seconds for a person, two digits of them."""
    if seconds < 99.5:
        return f"{max(1, float(f'{seconds:.2g}')):g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.2g} hours"


def _columns(columns: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """A row for each column with a role, which stands before the first of it; then the ignored ones."""
    for role in ("time", "id", "target", "label", "past", "known", "static"):
        mine = [column for column in columns if column["role"] == role]
        texts = [f"{column['name']}{_kind(column)}" for column in mine[:COLUMNS_SHOWN]]
        if len(mine) > COLUMNS_SHOWN:
            texts.append(f"and {len(mine) - COLUMNS_SHOWN} more")
        yield from _labelled(role, texts)
    ignored = [column for column in columns if column["role"] == "ignored"]
    kinds = list(dict.fromkeys(column["kind"] for column in ignored))
    groups = [(kind, [column["name"] for column in ignored if column["kind"] == kind]) for kind in kinds]
    yield from _labelled("ignored", [f"{KINDS[kind]}: {listed(names, COLUMNS_SHOWN)}" for kind, names in groups])


def _kind(column: Mapping[str, Any]) -> str:
    kind = column["kind"]
    if kind == "numbers" and column["least"] == column["greatest"]:
        return f": always {column['least']:.6g}"
    if kind == "numbers":
        return f": numbers from {column['least']:.6g} to {column['greatest']:.6g}"
    if kind == "categories":
        return f": text, {count_of(column['different'], 'category').replace('categorys', 'categories')}"
    return ": empty" if kind == "empty" else ""


def _time(document: Mapping[str, Any]) -> list[Row]:
    data, time, form = document["data"], document["time"], document["time"]["format"]
    season = time["season"]
    zones = [time[name].strip() for name in ("zone", "tz") if time.get(name)]
    zone = f", zone {' of '.join(zones)}" if zones else ""
    return [
        ("step", data["step"]),
        ("first", f"{data['first']}" + (f", written as {written(form)}{zone}" if form else "")),
        ("last", data["last"]),
        ("season", count_of(season, "row") if season > 1 else "none known for this step"),
    ]


def written(form: str) -> str:
    """A strptime format in words: day/month/year. Formats of several columns are a space apart."""
    return re.sub("%[A-Za-z]", lambda found: FIELDS.get(found[0], found[0]), form.replace(SEPARATOR, " "))


def _series(series: Mapping[str, Any]) -> list[Row]:
    if series["count"] == 1:
        rows = [("length", count_of(series["longest"]["rows"], "row"))]
        return rows + ([("constant", "all values are equal")] if series["constant"]["series"] else [])
    shortest, longest = series["shortest"], series["longest"]
    lengths = f"{shortest['rows']:,} to {longest['rows']:,} rows, median {series['median']:,.6g}"
    if shortest["rows"] == longest["rows"]:
        lengths = f"{count_of(longest['rows'], 'row')} each"
    else:
        lengths += f"; shortest: {_group(shortest)}"
    constant = series["constant"]
    rows = [("length", lengths)] + ([("constant", _group(constant))] if constant["series"] else [])
    return rows + [row for side in ("begin", "end") for row in _apart(side, series[side], series["count"])]


def _apart(side: str, found: Mapping[str, Any], count: int) -> list[Row]:
    """Which series begin or end at other times than most."""
    others = found["others"]
    if not others["series"]:
        return []
    if 2 * others["series"] >= count:
        return [(side, f"at different times, from {found['first']} to {found['last']}")]
    return [(side, f"most at {found['usual']}, but not {_group(others)}")]


def _group(group: Mapping[str, Any]) -> str:
    return _names(group) if group["series"] <= len(group["names"]) else f"{group['series']:,} series: {_names(group)}"


def _names(group: Mapping[str, Any]) -> str:
    return ", ".join(group["names"]) + (" …" if group["series"] > len(group["names"]) else "")


def _gaps(document: Mapping[str, Any]) -> list[Row]:
    gaps, several = document["gaps"], document["series"]["count"] > 1
    rows = [("missing", "none")]
    if gaps["missing"]:
        where = f" in {gaps['series']:,} of {document['series']['count']:,} series" if several else ""
        text = f"{count_of(gaps['missing'], 'value')}{where}, in {count_of(gaps['gaps'], 'gap')}"
        longest = gaps["longest"]
        last = f" to {longest['last']}" if longest["rows"] > 1 else ""
        of = f" of {longest['series']}" if several else ""
        rows = [
            ("missing", text),
            ("longest gap", f"{count_of(longest['rows'], 'row')}{of}: {longest['first']}{last}"),
        ]
    skipped = gaps["skipped_hours"]
    if skipped:
        rows.append(("clocks", f"{count_of(len(skipped), 'hour')} missing as where clocks go forward: {skipped[0]}"))
    elif skipped is not None and document["data"]["step"].endswith(("hour", "minutes", "minute")):
        rows.append(("clocks", "no hour is missing as where they go forward"))
    return rows


def _own_notes(notes: Sequence[str]) -> list[str]:
    """The notes but for the first, on the layout, which the table says at length."""
    return [note for note in notes if not note.startswith(("one series:", "wide file:", "long file:"))]


def _plan(plan: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for text in plan["explained"]:
        item, _, words = text.partition(": ")
        rows.append((item, words))
    if "windows" in plan:
        windows = plan["windows"]
        choose = f", {windows['choose']:,} to choose" if windows["choose"] else ""
        rows.append(("windows", f"{windows['train']:,} to train{choose}"))
        rows.append(("weights", f"{plan['weights']:,}"))
    return rows


def _estimate(estimate: Mapping[str, Any] | None) -> list[Row]:
    if estimate is None:
        return []
    memory, seconds = estimate["memory"], estimate["seconds"]
    time = "not known: the first steps diverged"
    if seconds is not None:
        time = f"at most {duration(seconds)} here; validation may end it much sooner"
    return [
        ("memory", f"about {size(memory['peak'])}, of which {size(memory['imports'])} before any data"),
        ("duration", time),
    ]


def listed(names: Sequence[str], most: int = NAMES_ADVISED) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def advice(
    panel: Panel, model: ModelConfig, plan: Plan, understood: Mapping[str, Any], sample: Mapping[str, Words]
) -> list[dict[str, str]]:
    """What a user may want to type, one sentence each; only what applies to this data."""
    found = {
        "no_negative_value": _advice_min(panel, model),
        "long_gap": _advice_gap(understood["gaps"]["longest"], plan.spec.context_length),
        "few_seasons": _advice_seasons(panel),
        "missing_value": _advice_missing(panel),
        "clock_changes": _advice_clocks(understood["gaps"]["skipped_hours"]),
        **_advice_covariates(panel, understood, sample),
    }
    return [{"code": code, "message": text} for code, text in found.items() if text]


def _advice_min(panel: Panel, model: ModelConfig) -> str:
    if model.min is not None or model.loss == "negative-binomial" or np.nanmin(panel.values) < 0:
        return ""
    return "No value is negative; if none can be, --min 0 keeps every forecast from falling below 0."


def _advice_gap(longest: Mapping[str, Any] | None, context: int) -> str:
    if longest is None or longest["rows"] < context:
        return ""
    return (
        f"The longest gap ({longest['rows']:,} rows) is no shorter than the context of {context}: a forecast inside "
        "it is made from the newest like season before it. Fill it, or leave out the rows before it."
    )


def _advice_seasons(panel: Panel) -> str:
    season, longest = panel.step.season(), int(panel.lengths.max())
    if season == 1 or longest >= 3 * season:
        return ""
    return (
        f"The longest series has {count_of(longest, 'row')}, fewer than three seasons of {season}: "
        "more rows would show what comes back each season."
    )


def _advice_missing(panel: Panel) -> str:
    stray = survey.stray_values(panel)
    if not stray:
        return ""
    value, names = stray[0]
    where = f" in {listed(names, 3)}" if panel.n_series > 1 else ""
    return f"{value:g} is far from all other values{where}: --missing-value {value:g} if it stands for a missing one."


def _advice_clocks(skipped: Sequence[str] | None) -> str:
    if not skipped:
        return ""
    return (
        f"The hour missing at {skipped[0]} looks like clocks going forward: --tz with the time zone, such as "
        "--tz Europe/Berlin, tells such hours from gaps."
    )


def _advice_covariates(panel: Panel, understood: Mapping[str, Any], sample: Mapping[str, Words]) -> dict[str, str]:
    """Ignored columns beside one target that might help to forecast it."""
    if panel.columns.layout == "wide":
        return {}
    ignored = [column for column in understood["columns"] if column["role"] == "ignored"]
    useful = {
        column["name"]: 1 < column["different"] <= (FEW_CATEGORIES if column["kind"] == "categories" else np.inf)
        for column in ignored
        if column["kind"] in ("categories", "numbers") and not counts_rows(sample[column["name"]])
    }
    static = survey.unchanging(list(useful), panel.columns.ids, sample)
    part = any(words.size < panel.rows_read for words in sample.values())
    static = [name for name in static if useful[name] or part]  # what is one in a part may be many in the whole
    timed = [name for name, varies in useful.items() if varies and name not in static]
    found = {}
    if timed:
        verb = "stands" if len(timed) == 1 else "stand"
        found["covariates"] = (
            f"{_columns_named(timed)} {verb} beside the target: --past (known up to now) or --known (known for the "
            "future too) would use what helps."
        )
    if static:
        verb = "never changes" if len(static) == 1 else "never change"
        found["static_covariates"] = f"{_columns_named(static)} {verb} within a series: --static would use what helps."
    return found


def _columns_named(names: Sequence[str]) -> str:
    return f"Column{'s' if len(names) > 1 else ''} {listed(names)}"


def counts_rows(words: Words) -> bool:
    """Whether a column only counts: each whole number one more than the one before."""
    numbers = parse_integers(words) if words.size > 1 else None
    return numbers is not None and bool(np.all(np.diff(numbers) == 1))
