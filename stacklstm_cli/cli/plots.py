"""Charts as pictures in files, by matplotlib: imported here, inside functions, and nowhere else.

Figures are made without pyplot, so that neither a display nor a window system is asked for. The colours are
those of Okabe and Ito (2008), Color Universal Design, which people with any colour vision can tell apart.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len

from stacklstm_cli.cli.axes import number_ticks, value_range
from stacklstm_cli.cli.charts import OFF_THE_SCALE, Chart, Line, Matrix, Picture, shortened
from stacklstm_cli.data.panel import Floats
from stacklstm_cli.evaluation.verdict import MODEL

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
INK, FAINT, GRID, PAPER = "#1c2024", "#6a737d", "#e3e6ea", "#ffffff"
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
STYLES: dict[str, dict[str, Any]] = {
    "actual": {"color": INK, "linewidth": 1.1, "marker": "."},
    "forecast": {"color": BLUE, "linewidth": 1.9, "marker": "o"},
    "quantile": {"color": BLUE, "linewidth": 0.9, "linestyle": (0, (4, 2)), "marker": "_"},
    "ideal": {"color": FAINT, "linewidth": 0.9, "linestyle": (0, (1, 2)), "marker": ""},
    "training": {"color": SKY, "linewidth": 1.3, "marker": "."},
    "validation": {"color": VERMILLION, "linewidth": 1.6, "marker": "o"},
    "refit": {"color": GREEN, "linewidth": 1.3, "linestyle": (0, (4, 2)), "marker": "."},
    MODEL: {"color": BLUE, "linewidth": 2.2, "marker": "o"},
    "naive": {"color": ORANGE, "linewidth": 1.3, "linestyle": (0, (5, 2)), "marker": "s"},
    "seasonal_naive": {"color": VERMILLION, "linewidth": 1.3, "linestyle": (0, (5, 1, 1, 1)), "marker": "^"},
    "drift": {"color": PURPLE, "linewidth": 1.3, "linestyle": (0, (1, 1)), "marker": "v"},
    "seasonal_average": {"color": GREEN, "linewidth": 1.3, "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "D"},
    "auto_ets": {"color": SKY, "linewidth": 1.3, "linestyle": (0, (8, 2)), "marker": "P"},
    "auto_theta": {"color": FAINT, "linewidth": 1.3, "linestyle": (0, (2, 1)), "marker": "X"},
}
"""How each role is drawn: by colour, dash and marker, so that no two differ by colour alone."""
OTHER = {"color": FAINT, "linewidth": 1.0, "marker": "x"}
BAND_OPACITY = 0.2
"""Of one band; where bands lie within each other it adds up."""
SETTINGS: dict[Any, Any] = {
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.dash_capstyle": "butt",
    "text.parse_math": False,
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and shown in any script
    "svg.hashsalt": "stacklstm",
    "pdf.fonttype": 42,
    "path.simplify": False,
}
OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")
"""Fonts for names that the font of matplotlib cannot write, where the machine has them."""
METADATA = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What would differ from day to day, or from one version of matplotlib to the next, is left out."""
DPI = 150
MOST_COUNTED, MOST_NAMED, LONGEST_NAME = 25, 60, 16
"""Classes up to which the cells of a matrix have numbers and its sides names; characters of a name."""
TITLE_HEIGHT, LEGEND_ROW = 0.75, 0.19
"""Inches of the title of a picture with what was drawn, and of a row of a legend."""


@contextlib.contextmanager
def drawing(size: float = 9.0) -> Iterator[None]:
    """matplotlib in our style, whatever a `matplotlibrc` says, and silent about fonts and folders for its cache."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        matplotlib = imported()
        from matplotlib.font_manager import fontManager

        there = {font.name for font in fontManager.ttflist}
        fonts = ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in there)]
        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(SETTINGS | {"font.family": fonts, "font.size": size})
            yield
    finally:
        logger.setLevel(before)


def imported() -> ModuleType:
    """matplotlib, whatever the environment says of windows: it ends the import where that has no such backend."""
    before = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if before is not None:
            os.environ["MPLBACKEND"] = before
    return matplotlib


def picture_bytes(picture: Picture, suffix: str) -> bytes:
    """The picture as a file ending in `suffix`, one of `SUFFIXES`; equal pictures give equal bytes."""
    with drawing(8.0 if len(picture.charts) > 8 else 9.0):
        figure = figure_of(picture) if picture.matrix is None else figure_of_matrix(picture, picture.matrix)
        return saved(figure, suffix)


def chart_svg(chart: Chart, width: float, height: float) -> str:
    """One chart alone as SVG, for a page that has its own titles; sizes in inches."""
    with drawing():
        return saved(figure_of_chart(chart, width, height), ".svg", transparent=True).decode()


def saved(figure: Figure, suffix: str, transparent: bool = False) -> bytes:
    """A figure as the bytes of a file."""
    target = io.BytesIO()
    figure.savefig(target, format=suffix.removeprefix("."), dpi=DPI, metadata=METADATA[suffix], transparent=transparent)
    return target.getvalue()


def figure_of(picture: Picture) -> Figure:
    """All charts of a picture under its title. To be called within `drawing`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    count, below = len(picture.charts), len(picture.beside)
    columns = 1 if count < 4 or below else 2 if count <= 8 else 3 if count <= 12 else 4
    rows = -(-count // columns)
    width = {1: 9.0, 2: 11.0, 3: 12.5, 4: 14.0}[columns]
    each = 3.6 if count == 1 else 2.3 if columns == 1 else 2.0
    heights = [each] * rows + [3.4] * bool(below)
    figure = Figure(figsize=(width, sum(heights)))
    grid = figure.add_gridspec(rows + bool(below), 12, height_ratios=heights)
    span = 12 // columns
    for place, chart in enumerate(picture.charts):
        row, column = divmod(place, columns)
        axes = figure.add_subplot(grid[row, column * span : (column + 1) * span])
        draw(axes, chart, width / columns)
    split = [0, 12] if below == 1 else [0, 7, 12][: below + 1]
    for chart, (begin, end) in zip(picture.beside, itertools.pairwise(split), strict=True):
        draw(figure.add_subplot(grid[rows, begin:end]), chart, width * (end - begin) / 12)
    upper, lower = figure.axes[:count], figure.axes[count:]
    # Legends are placed by hand, as the title is, in strips that the layout leaves free.
    (above, head), (beneath, foot) = (legend_shape(entries(axes), width) for axes in (upper, lower))
    height = sum(heights) + TITLE_HEIGHT + LEGEND_ROW * (head + foot + bool(foot))
    bottom, top = LEGEND_ROW * (foot + bool(foot)) / height, (TITLE_HEIGHT + LEGEND_ROW * head) / height
    figure.set_size_inches(width, height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, bottom, 1, 1 - top - bottom), h_pad=0.06, w_pad=0.06))
    title(figure, picture, width, height)
    legend_of(figure, upper, "upper left", (0.04 / width, 1 - 0.58 / height), above)
    if lower:
        legend_of(figure, lower, "lower center", (0.5, 0.05 / height), beneath)
    return figure


def figure_of_matrix(picture: Picture, matrix: Matrix) -> Figure:
    """A matrix and the chart beside it under the title of their picture. To be called within `drawing`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    side = min(max(3.4, 0.34 * len(matrix.rows)), 9.0)
    width, height = side + 5.6, side + 0.6 + TITLE_HEIGHT + 2 * LEGEND_ROW
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(1, 2, width_ratios=[side + 1.2, 4.4])
    draw_matrix(figure.add_subplot(grid[0, 0]), matrix, side)
    beside = figure.add_subplot(grid[0, 1])
    draw(beside, picture.beside[0], 4.4)
    beside.set_box_aspect(1)
    bottom = 2 * LEGEND_ROW / height
    area = (0, bottom, 1, 1 - TITLE_HEIGHT / height - bottom)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=area, h_pad=0.06, w_pad=0.06))
    title(figure, picture, width, height)
    shape = legend_shape(entries([beside]), width)
    legend_of(figure, [beside], "lower center", (0.5, 0.05 / height), shape[0])
    return figure


def draw_matrix(axes: Axes, matrix: Matrix, side: float) -> None:
    """Cells shaded by their share of the row: what is right in blue, mistakes in vermillion; `side` in inches."""
    from matplotlib.colors import to_rgb

    down, across = matrix.counts.shape
    right = np.eye(down, across, dtype=bool)
    shades = np.where(right, matrix.shares, matrix.shares**0.5)  # few mistakes shall be seen as well
    colours = np.where(right[:, :, None], to_rgb(BLUE), to_rgb(VERMILLION))  # [rows, columns, 3]
    colours = 1 - shades[:, :, None] * (1 - colours)
    axes.pcolormesh(np.arange(across + 1), np.arange(down + 1), colours)
    for row, column in np.argwhere(matrix.counts > 0).tolist() if max(down, across) <= MOST_COUNTED else []:
        ink = PAPER if shades[row, column] > 0.55 else INK
        size = 9 if side / max(down, across) > 0.3 else 7
        count = f"{matrix.counts[row, column]:,}"
        axes.text(column + 0.5, row + 0.5, count, ha="center", va="center", color=ink, size=size)
    apart = max(1, -(-max(down, across) // MOST_NAMED))
    names = [shortened(name, LONGEST_NAME) for name in matrix.rows]
    tilted = sum(map(cell_len, names[:across])) * 0.075 > side
    axes.set(xlim=(0, across), ylim=(down, 0), xlabel="predicted", ylabel="true", aspect="equal")
    axes.set_xticks(np.arange(0, across, apart) + 0.5, names[:across:apart], rotation=45 if tilted else 0)
    axes.set_yticks(np.arange(0, down, apart) + 0.5, names[::apart])
    if tilted:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set_title(matrix.title, size=9, pad=4)


def title(figure: Figure, picture: Picture, width: float, height: float) -> None:
    """What the picture shows, and what was drawn."""
    left, points = 0.12 / width, 72 * width
    figure.text(left, 1 - 0.12 / height, shortened(picture.title, int(points / 9)), va="top", size=13, weight="bold")
    note = picture.subtitle + (f" · {picture.left_out}" if picture.left_out else "")
    figure.text(left, 1 - 0.40 / height, shortened(note, int(points / 4.8)), va="top", size=9, color=FAINT)


def figure_of_chart(chart: Chart, width: float, height: float) -> Figure:
    """One chart under its legend. To be called within `drawing`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    draw(axes, chart, width, titled=False)
    columns, rows = legend_shape(entries([axes]), width)
    head = 0.08 + LEGEND_ROW * rows
    height += LEGEND_ROW * (rows - 1)
    figure.set_size_inches(width, height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - head / height)))
    legend_of(figure, [axes], "upper left", (0, 1), columns)
    return figure


def legend_shape(labels: Iterable[str], width: float) -> tuple[int, int]:
    """Columns and rows of a legend that is no wider than so many inches."""
    widths = [36 + 5.4 * cell_len(text) for text in labels]  # points of a sign, its label and the space
    if not widths:
        return 1, 0
    most = len(widths) if sum(widths) < 72 * width else max(1, int(72 * width / max(widths)))
    rows = -(-len(widths) // most)
    return -(-len(widths) // rows), rows


def legend_of(
    figure: Figure,
    axes: Iterable[Axes],
    location: Literal["upper left", "lower center"],
    anchor: tuple[float, float],
    columns: int,
) -> None:
    """One legend of everything in these axes, each label once."""
    found = entries(axes)
    figure.legend(
        list(found.values()), list(found), loc=location, bbox_to_anchor=anchor, ncols=columns, columnspacing=1.6,
        handletextpad=0.6, labelspacing=0.3, borderpad=0.3,
    )  # fmt: skip


def entries(axes: Iterable[Axes]) -> dict[str, Artist]:
    """Label -> what it stands for, in the order drawn; what is off the scale in one chart may not be in another."""
    found: dict[str, Artist] = {}
    for one in axes:
        for handle, text in zip(*one.get_legend_handles_labels(), strict=True):
            if not {text, text + OFF_THE_SCALE} & found.keys():
                found[text] = handle
    return found


def draw(axes: Axes, chart: Chart, width: float, titled: bool = True) -> None:
    """Draw one chart in axes that are about `width` inches wide."""
    for line in chart.lines:
        draw_line(axes, line)
    for band in chart.bands:
        color = STYLES["forecast"]["color"]
        for x, low, high in pieces(band.x, band.low, band.high):
            axes.fill_between(x, low, high, color=color, alpha=BAND_OPACITY, linewidth=0, zorder=2)
        seen = 1 - (1 - BAND_OPACITY) ** (band.depth + 1)  # bands within each other add up
        axes.fill_between([], [], color=color, alpha=seen, linewidth=0, label=band.label)  # for the legend
    texts: set[str] = set()
    for place, text in chart.marks:
        mark = {"color": FAINT, "linewidth": 0.9, "linestyle": (0, (2, 2)), "zorder": 1.5}
        axes.axvline(place, label=text if text not in texts else None, **mark)  # type: ignore[arg-type]
        texts.add(text)
    set_limits(axes, chart, width)
    if titled and chart.title:
        axes.set_title(shortened(chart.title, int(72 * (width - 0.5) / 6)), size=9, pad=4)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(shortened(chart.y_label, 36))


def draw_line(axes: Axes, line: Line) -> None:
    """A line; values without neighbours, which a line does not show, as points."""
    style = STYLES.get(line.role, OTHER)
    order = 4 if line.role in (MODEL, "forecast") else 3
    marker = style["marker"] if line.points else ""
    plain = {name: value for name, value in style.items() if name != "marker"}
    axes.plot(line.x, line.y, label=line.label, zorder=order, marker=marker, markersize=5, **plain)
    alone = isolated(line.y)
    if alone.any() and not line.points:
        dots: dict[str, Any] = {"marker": style["marker"] or ".", "markersize": 4 if style["marker"] == "." else 3.5}
        axes.plot(line.x[alone], line.y[alone], color=style["color"], linestyle="", zorder=order, **dots)


def isolated(values: Floats) -> npt.NDArray[np.bool_]:
    """[points] whether a value has no neighbour."""
    known = np.isfinite(np.concatenate([[np.nan], values, [np.nan]]))
    alone: npt.NDArray[np.bool_] = known[1:-1] & ~known[:-2] & ~known[2:]
    return alone


def pieces(x: Floats, low: Floats, high: Floats) -> Iterator[tuple[Floats, Floats, Floats]]:
    """The parts of a band between its gaps; a part of one place is widened, as it would not be seen."""
    known = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    for part in np.split(np.arange(x.size), np.flatnonzero(np.diff(known)) + 1):
        if part.size and known[part[0]]:
            one = part.size == 1
            places = np.array([x[part[0]] - 0.4, x[part[0]] + 0.4]) if one else x[part]
            yield places, low[part].repeat(1 + one), high[part].repeat(1 + one)


def set_limits(axes: Axes, chart: Chart, width: float) -> None:
    """Limits and ticks; labels have room for themselves."""
    low, high = value_range(*chart.heights, from_zero=chart.from_zero)
    left, right = chart.breadth
    margin = 0.015 * (right - left) or 0.5
    if chart.square:
        axes.set(xlim=(0, 103), ylim=(0, 103))
        own = [point for line in chart.lines if line.role == MODEL for point in zip(line.x, line.y, strict=True)]
        for x, y in own if not chart.bands else []:
            if np.isfinite(y):
                axes.annotate(f"{y:.0f}", (x, y), (-6, 4), textcoords="offset points", ha="right", color=BLUE)
        ticks = chart.axis.ticks(0, 100, 6)
        rising: Sequence[Any] = ticks
    else:
        axes.set(xlim=(left - margin, right + margin), ylim=(low, high))
        ticks = chart.axis.ticks(left, right, max(2, int(72 * (width - 0.8) / chart.axis.room)))
        rising = number_ticks(low, high, 7 if width > 6 else 5)
    axes.set_xticks([tick.at for tick in ticks], ["\n".join(filter(None, (tick.label, tick.below))) for tick in ticks])
    axes.set_yticks([tick.at for tick in rising], [tick.label for tick in rising])
