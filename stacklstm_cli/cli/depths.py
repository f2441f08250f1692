"""Error against depth as a picture: in a file by matplotlib, imported here alone, or in characters."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stacklstm_cli.cli.messages import prose_width
from stacklstm_cli.cli.report import number, refuse_overwriting
from stacklstm_cli.cli.searching import Found
from stacklstm_cli.config import PictureConfig
from stacklstm_cli.errors import UsageError
from stacklstm_cli.files import check_writable, write_atomically
from stacklstm_cli.training.search import Beside
from stacklstm_cli.training.space import LAYERS

SUFFIXES = (".png", ".svg", ".pdf")
INK, FAINT, BLUE, VERMILLION, SKY = "#1c2024", "#6a737d", "#0072b2", "#d55e00", "#56b4e9"
"""Okabe & Ito (2008), Color Universal Design, beside two greys."""
BESIDE = 0.12
"""How far candidates with other options stand beside those of their depth, in layers."""
REPEATABLE = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""What would make equal pictures unequal files."""


def check_plot(pictures: PictureConfig, taken: Iterable[str | Path]) -> None:
    """Raise `UsageError` or `ModelError` where the picture cannot be written, before any work is done for it."""
    if pictures.plot is None:
        return
    if Path(pictures.plot).suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--plot {pictures.plot} does not say what kind of file it shall be.",
            hint="Let its name end in .png, .svg or .pdf.",
            code="unknown_picture",
        )
    refuse_overwriting("--plot", pictures.plot, taken)
    check_writable(pictures.plot)


def draw(found: Found, place: Path, source: str) -> None:
    """Write the picture: mean error of each depth, its spread over the origins, and the error of its difference."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    kind = place.suffix.lower().removeprefix(".")
    text = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "stacklstm", "font.size": 9, "text.color": INK, "axes.edgecolor": FAINT}):
        figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        above.set_title(f"Error against depth: {source}", loc="left", fontsize=10)
        plot_errors(above, found)
        plot_differences(below, found)
        figure.supxlabel(found.answer, fontsize=8, color=FAINT)
        figure.savefig(text, format=kind, metadata=REPEATABLE[kind])
    write_atomically(place, text.getvalue())


def plot_errors(axes: Any, found: Found) -> None:
    """Mean error of every candidate, and the spread of the depths over the origins, on axes of matplotlib."""
    unit = "MASE" if found.task.rolling.metric == "mase" else "MAE"
    spread = f"mean, and spread over {found.task.rolling.counted()}"
    for one in depths_of(found):
        at, score, color = one.candidate.layers, one.candidate.score, color_of(one, found)
        if math.isfinite(one.candidate.spread):
            axes.errorbar(at, score, one.candidate.spread, color=SKY, linewidth=1.2, capsize=5, zorder=1)
        axes.plot(at, score, marker_of(one, found), color=color, zorder=3)
    handles = [axes.errorbar([], [], [], fmt="o", color=BLUE, ecolor=SKY, capsize=5, label=spread)]
    handles += axes.plot([], [], "D", color=VERMILLION, label="chosen")
    others = others_of(found)
    if others:
        for one in others:
            color, size = color_of(one, found, FAINT), 6 if is_chosen(one, found) else 5
            sign = "D" if is_chosen(one, found) else "x"
            axes.plot(one.candidate.layers + BESIDE, one.candidate.score, sign, color=color, markersize=size, zorder=2)
        handles += axes.plot([], [], "x", color=FAINT, markersize=5, label="other options changed too")
    axes.legend(handles=handles, frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, -0.17))
    axes.set_ylabel(f"{unit}, cross-validated")
    finish(axes, [*depths_of(found), *others])


def plot_differences(axes: Any, found: Found) -> None:
    """What each depth loses to the best candidate, with the standard error of the paired difference."""
    firsts = depths_of(found)
    for one in firsts:
        at, color = one.candidate.layers, color_of(one, found)
        if math.isfinite(one.error):
            axes.errorbar(at, one.difference, one.error, color=color, linewidth=1.2, capsize=5, zorder=1)
        axes.plot(at, one.difference, marker_of(one, found), color=color, zorder=3)
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_ylabel("more than the best\n(± standard error)")
    axes.set_xlabel("layers")
    finish(axes, firsts)


def finish(axes: Any, shown: Iterable[Beside]) -> None:
    """Ticks at the depths, a light grid, no frame."""
    axes.set_xticks(sorted({one.candidate.layers for one in shown}))
    axes.margins(x=0.15)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def is_chosen(one: Beside, found: Found) -> bool:
    return found.choice is not None and one.candidate.number == found.choice.chosen.number


def color_of(one: Beside, found: Found, otherwise: str = BLUE) -> str:
    return VERMILLION if is_chosen(one, found) else otherwise


def marker_of(one: Beside, found: Found) -> str:
    return "D" if is_chosen(one, found) else "o"


def depths_of(found: Found) -> list[Beside]:
    """The candidates that differ in their depth alone."""
    compared = found.choice.compared if found.choice is not None else ()
    return [one for one in compared if one.candidate.start]


def others_of(found: Found) -> list[Beside]:
    """The other candidates that were scored."""
    compared = found.choice.compared if found.choice is not None else ()
    return [one for one in compared if not one.candidate.start]


def show(found: Found) -> None:
    """The depths as bars of characters on standard error, in its width."""
    if sys.stderr is None:
        return
    firsts = depths_of(found)
    most = max((one.candidate.score for one in firsts), default=0.0)
    room = max(10, min(60, (prose_width(sys.stderr) or 80) - 30))
    for one in firsts:
        score, layers = one.candidate.score, one.candidate.layers
        name = f"{layers} layer{'s' * (layers != 1)}" if LAYERS in one.candidate.params else "the defaults"
        mark = " chosen" if is_chosen(one, found) else ""
        bar = "#" * round(room * score / most) if most > 0 else ""
        sys.stderr.write(f"{name:>12s} {bar} {number(score)}{mark}\n")
    sys.stderr.flush()
