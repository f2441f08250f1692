"""The page of an evaluation: one file, valid, safe, the same each time, legible in light and dark."""

from __future__ import annotations

import functools
import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ok, run

from stacklstm_cli.cli.axes import NumberAxis
from stacklstm_cli.cli.charts import Band, Chart, Line, Picture
from stacklstm_cli.cli.messages import printable
from stacklstm_cli.cli.report import number
from stacklstm_cli.cli.webpage import COLOURS, MOST_ROWS, flat, inline, page

VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}
HOSTILE = "<script>alert(1)</script> & \"quoted\" 'single' #0072b2 url(#x) \x1b[2J"


class Page(HTMLParser):
    """What a parser makes of a page: elements must be closed in the order they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert "script" not in self.open
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data


def chart(title: str = "") -> Chart:
    """A line in a band, with a mark, all called by a name that is meant to do harm."""
    x = np.arange(9, dtype=np.float64)
    name = printable(HOSTILE)  # as all texts of charts are
    band = Band(name, x, x - 1, x + 1, 0)
    return Chart(title, NumberAxis(), (Line(name, x, x, "actual"), Line("b", x, x[::-1], "forecast")), (band,))


def document(**changes: Any) -> dict[str, Any]:
    scores = {"mae": 1.25, "mase": 0.5, "coverage_80": 0.75}
    metrics = {"stacklstm": scores, "naive": scores | {"mae": 2.5, "mase": None}}
    return {
        "verdict": f"stacklstm wins {HOSTILE}",
        "metrics": metrics,
        "backtest": {"origins": 3, "undefined": 1},
        "model": {"path": HOSTILE, "stack": {"layers": 2, "widths": [3, 4]}},
        "warnings": [{"code": "flat_forecast", "message": HOSTILE}],
        "seconds": 12.5,
    } | changes


def made(**changes: Any) -> str:
    picture = Picture(HOSTILE, HOSTILE, (chart(HOSTILE), chart("other")), (chart("third"),), "the first 2 of 9")
    return page(document(**changes), picture).decode()


@functools.cache
def plain() -> str:
    """The page of that document, made once."""
    return made()


def test_it_is_well_formed_and_needs_no_other_file() -> None:
    """No script, no source, no link but those inside it; the browser is told so."""
    text = plain()
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert not {tag for tag, _ in found.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href"):
                assert value is not None
                assert value.startswith("#")
    assert not re.search(r"https?://(?!www\.w3\.org)|@import|@font-face|url\((?!#)", re.sub(r">[^<]*<", "><", text))
    policy = [attributes["content"] for tag, attributes in found.tags if attributes.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_texts_are_shown_as_they_are() -> None:
    """Markup in names is text; control characters are made visible."""
    text = plain()
    visible = HOSTILE.replace("\x1b", "\\x1b")
    assert Page(text).text.count(visible) >= 6
    assert "\x1b" not in text
    assert "<script" not in text


def test_identifiers_are_those_of_one_page() -> None:
    """Each is there once, and whatever is referred to is there."""
    found = Page(plain())
    names = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(names) == len(set(names)) > 3
    tags = "".join(re.findall(r"<[^>]*>", plain().replace(html.escape(printable(HOSTILE)), "")))
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", tags))
    assert used
    assert used <= set(names)


def test_plots_take_the_colours_of_light_and_dark() -> None:
    """No colour of a plot is fixed; each has a value for both. Texts are left alone."""
    text = inline(chart(), 0, "caption")
    styles = " ".join(re.findall(r'style="([^"]*)"', text))
    assert not re.search(r"#[0-9a-f]{6}", styles)
    assert "var(--ink)" in styles
    assert "var(--blue)" in styles
    assert "#0072b2" in Page(text).text
    sheet = plain().partition("</style>")[0]
    light, dark = sheet.split("prefers-color-scheme:dark")
    for name, _ in COLOURS.values():
        assert f"--{name}:" in light
        assert f"--{name}:" in dark


def test_tables_hold_the_figures() -> None:
    """Metrics in rows, predictors in columns, the model first; blank where undefined; the best stressed."""
    text = plain()
    rows = Page(text).cells
    assert ["", "stacklstm", "naive"] in rows
    assert ["mae", number(1.25), number(2.5)] in rows
    assert ["mase", number(0.5), ""] in rows
    assert f'<span class="best">{number(1.25)}</span>' in text
    assert ["stack.widths", "3, 4"] in rows
    assert "1 series without a scale are left out" in Page(text).text


def test_parts_are_tables_of_the_metric_of_the_verdict() -> None:
    """Of each step and each series; of very many the first."""
    parts = [{"step": step, "metrics": document()["metrics"]} for step in (1, 2)]
    rows = Page(made(per_step=parts)).cells
    assert ["step", "stacklstm", "naive", "stacklstm coverage_80"] in rows
    assert ["2", number(0.5), "", number(0.75)] in rows
    many = [{"series": f"s{index}", "metrics": document()["metrics"]} for index in range(MOST_ROWS + 7)]
    text = made(per_series=many)
    assert sum(row[0].startswith("s") and row[0][1:].isdigit() for row in Page(text).cells) == MOST_ROWS
    assert "7 more are left out" in text


def test_it_tells_no_time_and_is_always_the_same() -> None:
    assert made() == made(seconds=99.0)


def test_nothing_scored_is_a_page_too() -> None:
    text = page({"verdict": "Nothing to score yet.", "metrics": {}, "warnings": []}, None).decode()
    assert "Nothing to score yet." in Page(text).text
    assert "<svg" not in text


def test_sections_are_flattened() -> None:
    section = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": [{"f": True}], "g": 0.123456}
    assert dict(flat(section)) == {"a": "1", "b.c": "1, 2", "b.d": "", "e.1.f": "yes", "g": "0.1235"}


def test_the_command_writes_the_page_and_its_figures(folder: Path) -> None:
    """Those of the JSON document, for each series where that is asked for; written whole, equal when run again."""
    names = ["<b>north</b>", "south & co"]
    rows = [
        f"{name},{2000 + month // 12}-{1 + month % 12:02d}-01,{100 + 30 * math.sin(month / 2) + place:.2f}"
        for place, name in enumerate(names)
        for month in range(96)
    ]
    Path("data.csv").write_text("\n".join(["shop,month,sales", *rows]) + "\n", encoding="utf-8")
    ok("train", "data.csv", "--epochs", "1", "--hidden-size", "4", "-q")
    words = ["evaluate", "data.csv", "-q", "--report", "report.html", "--per-series", "--format", "json"]
    scored = json.loads(ok(*words).stdout)
    first = Path("report.html").read_bytes()
    ok(*words)
    assert Path("report.html").read_bytes() == first
    found = Page(first.decode())
    for metric, value in scored["metrics"]["stacklstm"].items():
        assert next(row for row in found.cells if row[0] == metric)[1] == ("" if value is None else number(value))
    for name in names:
        assert [row for row in found.cells if row and row[0] == name]
        assert found.text.count(name) >= 2
    assert scored["verdict"] in found.text
    assert sum(tag == "svg" for tag, _ in found.tags) == 4
    assert sorted(path.name for path in folder.iterdir()) == ["data.csv", "data.safetensors", "report.html"]
    assert str(folder).encode() not in first


@pytest.mark.parametrize("place", ["report.pdf", "report", "data.csv"])
def test_other_suffixes_are_refused(folder: Path, place: str) -> None:
    """Before anything is read."""
    done = run("evaluate", "nowhere.csv", "--report", place)
    assert done.exit_code == 2
    assert ".html" in done.stderr
