"""What `evaluate` found as one HTML page that needs no other file: tables and plots, for paper, phone and darkness.

The page holds no script, loads nothing from anywhere and says so to the browser. There is no clock in it: equal
results give equal pages. Every text that comes from the data is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stacklstm_cli.cli.charts import Chart, Picture
from stacklstm_cli.cli.grids import best_of
from stacklstm_cli.cli.messages import Messages, printable
from stacklstm_cli.cli.plots import BLUE, FAINT, GREEN, GRID, INK, ORANGE, PURPLE, SKY, VERMILLION, chart_svg
from stacklstm_cli.cli.report import number
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.evaluation.verdict import METRICS, MODEL
from stacklstm_cli.files import write_atomically

MOST_ROWS = 1_000
"""Rows of a table by series or steps; JSON has all of them."""
WIDTH, HEIGHT = 5.2, 3.0
"""Inches of a plot: text of this size can still be read where a phone shows it smaller."""
COLOURS = {
    INK: ("ink", "#e6e9ed"), FAINT: ("faint", "#98a2ad"), GRID: ("grid", "#333a42"), BLUE: ("blue", "#4aa8e0"),
    VERMILLION: ("vermillion", "#f0803c"), GREEN: ("green", "#2fc39a"), ORANGE: ("orange", "#f0b53c"),
    PURPLE: ("purple", "#dc9dbf"), SKY: ("sky", "#a5d8f5"),
}  # fmt: skip
"""Colour of a plot -> its name on the page, and what it becomes in the dark."""
STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2rem 0 .5rem}
.verdict{font-size:1.1rem;border-left:.3rem solid var(--blue);padding-left:.8rem;margin:1rem 0}
.note{color:var(--faint);font-size:.9rem}
.warnings{border:1px solid var(--orange);border-radius:.4rem;padding:.6rem 1rem .6rem 2rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.5rem}
figure{margin:0;min-width:0}
figcaption{font-weight:600;overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto;max-width:44rem;stroke-linejoin:round;stroke-linecap:butt}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--grid);text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
thead th{vertical-align:bottom}
th:first-child{overflow-wrap:anywhere;min-width:6rem;max-width:14rem}
.facts td{text-align:left;overflow-wrap:anywhere}
.facts th{text-align:left;font-weight:400;color:var(--faint)}
.own{font-weight:600}
.best{color:var(--blue);font-weight:700}
summary{cursor:pointer;font-weight:600;font-size:1.1rem;margin-top:1.5rem}
dt{font-weight:600}
dd{margin:0 0 .4rem}
@media print{details>*{display:block}}
"""
MEANINGS = {
    "mae": "mean absolute error, in the units of the data",
    "rmse": "root of the mean squared error, in the units of the data",
    "smape": "symmetric mean absolute percentage error, from 0 to 200, as in the M4 competition",
    "mase": "mean absolute error over that of the seasonal naive forecast on the rows before: below 1 is better",
    "rmsse": "the same of the root of squared errors",
    "wql": "weighted quantile loss: how well the quantiles fit, relative to the size of the values",
    "crps": "continuous ranked probability score, from the quantiles, in the units of the data",
    "bias": "mean of forecast less actual: above 0 where forecasts are too high",
    "msis": "mean scaled interval score of the widest interval: its width, and a penalty for each value outside",
    "coverage": "share of the values inside the interval: .8 is right for an 80 % interval",
    "width": "mean width of the interval, in the units of the data",
}


def write_page(
    place: str, document: Mapping[str, Any], backtest: Backtest | None, picture: Picture | None, messages: Messages
) -> None:
    """Write the page of a document, the metrics of each step among its tables. Raises `ModelError`."""
    steps = [] if backtest is None else backtest.per_step()
    write_atomically(place, page({**document, "per_step": steps}, picture))
    messages.note(f"wrote {place}")


def page(document: Mapping[str, Any], picture: Picture | None) -> bytes:
    """The page of a document of `evaluate`, as bytes of UTF-8.

    `document` may hold "per_step" and "per_series"; their metric is that of the verdict. `picture` is None where
    nothing was scored.
    """
    title = picture.title if picture is not None else "Evaluation"
    parts = [
        f"<h1>{safe(title)}</h1>",
        f'<p class="note">{safe(picture.subtitle)}</p>' if picture is not None else "",
        f'<p class="verdict">{safe(document.get("verdict") or "")}</p>',
        *warnings_of(document),
        *plots_of(picture),
        *metrics_of(document),
        *parts_of(document, "per_step", "step", "Step by step of the horizon"),
        *parts_of(document, "per_series", "series", "Series by series"),
        *facts_of(document),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{safe(title)}</title>\n<style>{palettes()}{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    ).encode("utf-8", "backslashreplace")


def safe(text: object) -> str:
    """Text for HTML, be it between tags or in an attribute; control characters in their escaped form."""
    return html.escape(printable(str(text)))


def palettes() -> str:
    """The colours by their names, for light and for dark."""
    light = "".join(f"--{name}:{colour};" for colour, (name, _) in COLOURS.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in COLOURS.values())
    return (
        f":root{{color-scheme:light dark;--paper:#fff;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{--paper:#14181c;{dark}}}}}"
    )


def warnings_of(document: Mapping[str, Any]) -> Iterator[str]:
    """What may be wrong, if anything."""
    found = document.get("warnings") or []
    if found:
        rows = "".join(f"<li>{safe(one['message'])} <code>{safe(one['code'])}</code></li>" for one in found)
        yield f'<h2>Warnings</h2>\n<ul class="warnings">{rows}</ul>'


def plots_of(picture: Picture | None) -> Iterator[str]:
    """Every chart with its title."""
    if picture is None:
        return
    yield '<h2>Plots</h2>\n<div class="plots">'
    for place, chart in enumerate((*picture.charts, *picture.beside)):
        caption = chart.title or "Actual and forecast by origin"
        yield f"<figure>\n<figcaption>{safe(caption)}</figcaption>\n{inline(chart, place, caption)}\n</figure>"
    yield "</div>"
    if picture.left_out:
        yield f'<p class="note">Of the series {safe(picture.left_out)}.</p>'


def inline(chart: Chart, place: int, caption: str) -> str:
    """A chart as SVG inside a page: as wide as its place, its colours those of the page, its ids its own."""
    text = chart_svg(chart, WIDTH, HEIGHT)
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"<metadata>.*?</metadata>\s*|<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    # Only inside tags: a text of the data may look like any of this.
    body = re.sub(r"<[^>]*>", lambda tag: owned(tag[0], f"plot{place}-"), text[text.index(">") + 1 :])
    return f'<svg {box[0] if box else ""} role="img" aria-label="{safe(caption)}">{body}'


def owned(tag: str, prefix: str) -> str:
    """A tag whose identifiers, and those that it refers to, are no other plot's, in the page's colours."""
    tag = re.sub(r'\bid="', f'id="{prefix}', tag)
    tag = tag.replace('xlink:href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    return re.sub(r'style="[^"]*"', lambda style: themed(style[0]), tag)


def themed(style: str) -> str:
    """A style with the page's colours and fonts."""
    for colour, (name, _) in COLOURS.items():
        style = style.replace(colour, f"var(--{name})")
    return re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", style)


def metrics_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Every metric of the model beside the baselines; the best of each stressed."""
    metrics: Mapping[str, Mapping[str, Any]] = document.get("metrics") or {}
    if not metrics:
        return
    predictors = sorted(metrics, key=lambda name: name != MODEL)
    names = list(dict.fromkeys(name for scores in metrics.values() for name in scores))
    rows = []
    for name in names:
        values = [metrics[predictor].get(name) for predictor in predictors]
        best = best_of(name, values)
        rows.append([f"<code>{safe(name)}</code>", *(figure(value, at in best) for at, value in enumerate(values))])
    yield f"<h2>Metrics</h2>\n{table(['', *map(safe, predictors)], rows)}"
    undefined = (document.get("backtest") or {}).get("undefined")
    if undefined:
        yield f'<p class="note">{undefined:,} series without a scale are left out of mase, rmsse and msis.</p>'
    kinds = dict.fromkeys(name.split("_")[0] for name in names)
    meanings = "".join(f"<dt>{safe(kind)}</dt><dd>{MEANINGS[kind]}</dd>" for kind in kinds if kind in MEANINGS)
    yield f"<details><summary>What the figures mean</summary><dl>{meanings}</dl></details>"


def parts_of(document: Mapping[str, Any], section: str, key: str, title: str) -> Iterator[str]:
    """The metric of the verdict for each step or series, of every predictor, and the model's coverage."""
    parts: Sequence[Mapping[str, Any]] = document.get(section) or []
    if not parts:
        return
    metric = next((name for name in METRICS if (document["metrics"][MODEL] or {}).get(name) is not None), METRICS[-1])
    predictors = sorted(parts[0]["metrics"], key=lambda name: name != MODEL)
    covered = [name for name in parts[0]["metrics"][MODEL] if name.startswith("coverage_")]
    rows = []
    for part in parts[:MOST_ROWS]:
        values = [part["metrics"][name].get(metric) for name in predictors]
        best = best_of(metric, values)
        shares = [figure(part["metrics"][MODEL].get(name)) for name in covered]
        rows.append([safe(part[key]), *(figure(value, at in best) for at, value in enumerate(values)), *shares])
    heads = [safe(key), *map(safe, predictors), *(f"{MODEL} {safe(name)}" for name in covered)]
    rest = len(parts) - MOST_ROWS
    yield f"<details><summary>{title} (<code>{metric}</code>)</summary>\n{table(heads, rows)}"
    yield (
        f'<p class="note">{rest:,} more are left out here; --format json has all.</p></details>'
        if rest > 0
        else ("</details>")
    )


def figure(value: float | None, best: bool = False) -> str:
    """A number of a table, blank where undefined."""
    text = "" if value is None else number(float(value))
    return f'<span class="best">{text}</span>' if best and text else text


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are HTML already; the model's column stands first and is stressed."""
    head = "".join(f'<th scope="col">{name.replace("_", "_<wbr>")}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{' class=own' if at == 0 else ''}>{cell}</td>" for at, cell in enumerate(row[1:]))
        + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


SECTIONS = {"backtest": "What was scored", "forecast": "The forecast", "comparison": "The comparison",
            "data": "The data", "model": "The model"}  # fmt: skip


def facts_of(document: Mapping[str, Any]) -> Iterator[str]:
    """What was scored, on which data, by which model."""
    for name, title in SECTIONS.items():
        section = document.get(name)
        if section:
            rows = "".join(
                f'<tr><th scope="row">{safe(key)}</th><td>{safe(value)}</td></tr>\n' for key, value in flat(section)
            )
            opened = " open" if name in ("backtest", "forecast") else ""
            yield (
                f"<details{opened}><summary>{title}</summary>"
                f'<table class="facts"><tbody>{rows}</tbody></table></details>'
            )


def flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value of a section and of those in it, as text."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value, start=1):
                yield from flat(item, f"{prefix}{key}.{place}.")
        elif isinstance(value, (list, tuple)):
            yield prefix + key, ", ".join(map(written, value))
        else:
            yield prefix + key, written(value)


def written(value: object) -> str:
    """One value for a person."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
