"""Charts drawn with characters, for a terminal or a log.

Lines are drawn in the eight dots of Braille characters, two by four to a cell. Where colours tell lines apart they
are used; without colours a line that crosses another is drawn with a sign of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len

from stacklstm_cli.cli.axes import Axis, Tick, number_ticks, value_range
from stacklstm_cli.cli.charts import Band, Chart, Line, Matrix, Picture, shortened
from stacklstm_cli.cli.messages import wrapped
from stacklstm_cli.data.panel import Floats
from stacklstm_cli.evaluation.verdict import MODEL

MOST_CHARTS = 4
"""Charts of series; more would only scroll by."""
SMALL, LEAST_WIDTH = 8, 40
"""Rows of a chart that is not alone; columns of a terminal that is still drawn in."""
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""[4, 2] the bit of each dot of a Braille character, from U+2800 on."""
LINES = {
    "actual": ("", "*"), "forecast": ("94", "•"), "quantile": ("94", "-"), "training": ("36", "*"),
    "validation": ("33", "•"), "refit": ("32", "+"), "ideal": ("2", "·"), MODEL: ("1;94", "●"), "naive": ("33", "n"),
    "seasonal_naive": ("31", "s"), "drift": ("35", "d"), "seasonal_average": ("32", "a"), "auto_ets": ("36", "e"),
    "auto_theta": ("37", "t"),
}  # fmt: skip
"""Role of a line -> its colour (the digits of an escape sequence) and its sign."""
BRAILLE = ("actual", "training")
"""Roles drawn in dots even without colours."""
IN_COLOURS = (*BRAILLE, "forecast", "validation", "refit", "quantile")
"""Roles drawn in dots where there are colours; the others are marked at each of their points."""
BAND_COLOUR = "34"
SHADES = "░▒▓"
"""Signs of bands within each other, the widest first."""
PLAIN = str.maketrans("•●·░▒▓┊┤│└─┴", "o@..:#|+|+-+")
"""What stands in for signs that the stream cannot show."""


@dataclass
class Canvas:
    """Cells of a plot, row 0 at the top; later drawings cover earlier ones."""

    low: float
    high: float
    left: float
    right: float
    width: int
    height: int
    dots: bool

    def __post_init__(self) -> None:
        self.signs = np.full((self.height, self.width), " ", dtype="<U1")
        self.colours = np.full((self.height, self.width), "", dtype="<U4")
        self.bits = np.zeros((self.height, self.width), dtype=np.int64)

    def column(self, x: Floats, parts: int = 1) -> Floats:
        """Columns, or halves of them, of places on the horizontal axis; not rounded."""
        span = self.right - self.left
        share = (x - self.left) / span if span else np.full(x.shape, 0.5)
        return share * (self.width * parts - 1)

    def row(self, y: Floats, parts: int = 1) -> Floats:
        """Rows, or quarters of them, of numbers; not rounded."""
        return (self.high - y) / (self.high - self.low) * (self.height * parts - 1)

    def put(self, row: int, column: int, sign: str, colour: str) -> None:
        if 0 <= row < self.height and 0 <= column < self.width:
            self.signs[row, column], self.colours[row, column], self.bits[row, column] = sign, colour, 0

    def vertical(self, x: float) -> None:
        """A vertical line where nothing else is."""
        column = round(float(self.column(np.array([x]))[0]))
        for row in range(self.height):
            if 0 <= column < self.width and self.signs[row, column] == " ":
                self.put(row, column, "┊", "2")

    def band(self, band: Band) -> None:
        """The cells that lie within a band."""
        x, columns = self.column(band.x), np.arange(self.width, dtype=np.float64)
        low, high = (interpolated(columns, x, self.row(edge)) for edge in (band.low, band.high))
        for column in np.flatnonzero(np.isfinite(low) & np.isfinite(high)).tolist():
            for row in range(max(0, round(high[column])), min(self.height - 1, round(low[column])) + 1):
                self.put(row, column, SHADES[min(band.depth, 2)], BAND_COLOUR)

    def curve(self, line: Line) -> None:
        """A line through all cells between its points."""
        colour, sign = LINES.get(line.role, ("", "x"))
        across, down = (2, 4) if self.dots else (1, 1)
        x, y = self.column(line.x, across), self.row(line.y, down)
        for begin, end in segments(x, y):
            count = int(max(abs(x[end] - x[begin]), abs(y[end] - y[begin]))) + 1
            for share in np.linspace(0, 1, count + 1).tolist():
                column, row = (round(float(v[begin] + share * (v[end] - v[begin]))) for v in (x, y))
                if not self.dots:
                    self.put(row, column, sign, colour)
                elif 0 <= row < self.height * 4 and 0 <= column < self.width * 2:
                    self.dot(row, column, colour)

    def dot(self, row: int, column: int, colour: str) -> None:
        cell = row // 4, column // 2
        self.bits[cell] |= DOTS[row % 4, column % 2]
        self.signs[cell], self.colours[cell] = chr(0x2800 + self.bits[cell]), colour

    def points(self, line: Line, sign: str, colour: str) -> None:
        """A sign at each point of a line; at each column where the points are further apart than columns."""
        x, y = self.column(line.x), self.row(line.y)
        if not line.points:
            columns = np.arange(self.width, dtype=np.float64)
            x, y = np.concatenate([x, columns]), np.concatenate([y, interpolated(columns, x, y)])
        for column, row in zip(x.tolist(), y.tolist(), strict=True):
            if np.isfinite(row) and np.isfinite(column):
                self.put(round(row), round(column), sign, colour)


def segments(x: Floats, y: Floats) -> Iterable[tuple[int, int]]:
    """(begin, end) of what a line joins; a point without neighbours is joined to itself."""
    known = np.isfinite(x) & np.isfinite(y)
    for place in np.flatnonzero(known).tolist():
        joined = place + 1 < known.size and known[place + 1]
        before = place > 0 and known[place - 1]
        if joined or not before:
            yield place, place + 1 if joined else place


def interpolated(columns: Floats, x: Floats, y: Floats) -> Floats:
    """[columns] the height of a line at each of them; NaN where it has a gap or does not reach."""
    found = np.full(columns.shape, np.nan)
    for begin, end in segments(x, y):
        low, high = sorted((x[begin], x[end]))
        inside = (columns >= low - 0.5) & (columns <= high + 0.5)
        found[inside] = np.interp(columns[inside], *np.array([[x[begin], x[end]], [y[begin], y[end]]]))
    return found


def text_of(picture: Picture, width: int, height: int, styled: bool, encoding: str) -> str:
    """The picture in lines of at most `width` columns, its only chart as high as the terminal."""
    width = max(width, LEAST_WIDTH)
    shown = picture.charts[: 1 if picture.beside else MOST_CHARTS]
    rows = max(height - 8, SMALL) if len(shown) == 1 and not picture.beside else SMALL if len(shown) > 1 else 12
    unicode = can_show(encoding)
    parts = [wrapped(f"{picture.title}: {picture.subtitle}", width)]
    parts += [text for chart in shown for text in chart_lines(chart, width, rows, styled, unicode)]
    parts += [key(shown, width, styled, unicode)] if shown else []
    parts += matrix_lines(picture.matrix, width, styled) if picture.matrix is not None else []
    for chart in picture.beside:
        parts += ["", *(shares(chart, width) if chart.square else chart_lines(chart, width, SMALL, styled, unicode))]
        parts += [] if chart.square else [key([chart], width, styled, unicode)]
    note = f"the first {len(shown)} of {len(picture.charts)} charts" if len(shown) < len(picture.charts) else ""
    parts += [wrapped(f"Not all series are drawn here: {note or picture.left_out}.", width)] * bool(
        note or picture.left_out
    )
    text = "\n".join(parts) + "\n"
    return text if unicode else text.translate(PLAIN).encode(encoding, "replace").decode(encoding)


def can_show(encoding: str) -> bool:
    """Whether a stream of this encoding has Braille and lines."""
    try:
        "⠿░▒▓•●┊┤│└─┴…".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def chart_lines(chart: Chart, width: int, rows: int, styled: bool, unicode: bool) -> list[str]:
    """Title, plot with its vertical axis, horizontal axis and its labels."""
    low, high = value_range(*chart.heights, from_zero=chart.from_zero)
    left, right = chart.breadth
    ticks = number_ticks(low, high, max(2, rows // 3))
    gutter = max(len(tick.label) for tick in ticks)
    canvas = Canvas(low, high, left, right, width - gutter - 2, rows, unicode)
    for band in chart.bands:
        canvas.band(band)
    for line in chart.lines[::-1] if len(chart.lines) > 3 else chart.lines:  # the model covers the baselines
        colour, sign = LINES.get(line.role, ("", "x"))
        if line.role in (IN_COLOURS if styled else BRAILLE):
            canvas.curve(line)
        else:
            canvas.points(line, sign, colour)
    for place, _ in chart.marks:
        canvas.vertical(place)
    labels = {round(float(canvas.row(np.array([tick.at]))[0])): tick.label for tick in ticks}
    body = [
        f"{labels.get(row, ''):>{gutter}} {'┤' if row in labels else '│'}{coloured(canvas, row, styled)}".rstrip()
        for row in range(rows)
    ]
    across, places = legible(chart.axis, canvas)
    rule = "".join("┴" if column in places else "─" for column in range(canvas.width))
    titles = [shortened(chart.title, width)] if chart.title else []
    unit = [shortened(chart.y_label, width)] if chart.y_label and not chart.title else []
    return [
        *titles,
        *unit,
        *body,
        " " * (gutter + 1) + "└" + rule,
        foot(across, places, gutter + 2, width, chart.x_label),
    ]


def legible(axis: Axis, canvas: Canvas) -> tuple[list[Tick], list[int]]:
    """As many ticks as have room for their labels, and their columns."""
    for room in (8, 12, 16, 20):
        ticks = axis.ticks(canvas.left, canvas.right, max(2, canvas.width // room))
        places = [round(float(canvas.column(np.array([tick.at]))[0])) for tick in ticks]
        widths = [len(tick.line) for tick in ticks]
        if all(
            after - before > (width + other) / 2 + 2
            for before, after, width, other in zip(places, places[1:], widths, widths[1:], strict=False)
        ):
            break
    return ticks, places


def coloured(canvas: Canvas, row: int, styled: bool) -> str:
    """One row of a canvas, each run of one colour between its escape sequences."""
    if not styled:
        return "".join(canvas.signs[row])
    text, before = "", ""
    for sign, colour in zip(canvas.signs[row].tolist(), canvas.colours[row].tolist(), strict=True):
        if colour != before and sign != " ":
            text += ("\x1b[0m" if before else "") + (f"\x1b[{colour}m" if colour else "")
            before = colour
        text += sign
    return text + ("\x1b[0m" if before else "")


def foot(ticks: Sequence[Tick], places: Sequence[int], indent: int, width: int, title: str) -> str:
    """The labels of the horizontal axis, centred below their ticks where there is room; its title at the right."""
    text = ""
    for tick, place in zip(ticks, places, strict=True):
        begin = min(max(indent + place - len(tick.line) // 2, 0), width - len(tick.line))
        if not text or begin > len(text) + 1:
            text = text.ljust(begin) + tick.line
    room = width - len(text) - 2
    return text + title.rjust(room + 2) if title and len(title) <= room else text


def key(charts: Sequence[Chart], width: int, styled: bool, unicode: bool) -> str:
    """What each sign stands for, each label once."""
    found: dict[str, str] = {}
    for chart in charts:
        for line in chart.lines:
            colour, sign = LINES.get(line.role, ("", "x"))
            dots = line.role in (IN_COLOURS if styled else BRAILLE)
            found.setdefault(line.label, painted("⠒⠒" if dots and unicode else sign, colour, styled))
        for band in chart.bands:
            found.setdefault(band.label, painted(2 * SHADES[min(band.depth, 2)], BAND_COLOUR, styled))
        for _, text in chart.marks:
            found.setdefault(text, painted("┊", "2", styled))
    lines, room = [""], 0
    for label, sign in found.items():
        size = cell_len(label) + 6
        if size > room:
            lines.append("  ")
            room = width - 2
        lines[-1] += f"{sign} {label}   "
        room -= size
    return "\n".join(line.rstrip() for line in lines[1:])


def painted(text: str, colour: str, styled: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if styled and colour else text


def shares(chart: Chart, width: int) -> list[str]:
    """A chart of shares over shares in words: a table of a few numbers says more than their dots.

    Of more intervals than have room, some between the narrowest and the widest.
    """
    named = [line for line in chart.lines if line.role != "ideal"]
    size = max(len(line.label) for line in named)
    nominal = named[0].x
    shown = np.linspace(0, nominal.size - 1, min(nominal.size, max((width - size) // 10, 1))).round().astype(int)
    head = " " * size + "".join(f"{f'{round(level, 2):g} %':>10}" for level in nominal[shown].tolist())
    rows = [
        f"{line.label:<{size}}" + "".join(f"{'' if np.isnan(y) else f'{y:.1f} %':>10}" for y in line.y[shown].tolist())
        for line in named
    ]
    return [wrapped(f"{chart.title}: {chart.says}", width), head, *rows]


def matrix_lines(matrix: Matrix, width: int, styled: bool) -> list[str]:
    """Counts in cells that are as wide as the longest name they have room for; what is right is painted."""
    down, across = matrix.counts.shape
    digits = len(str(int(matrix.counts.max(initial=0))))
    longest = min(max(map(cell_len, matrix.rows), default=1), max(width // 4, 4))
    cell = max(digits, min(longest, (width - longest) // max(across, 1) - 2)) + 2
    shown = min(across, (width - longest) // cell)
    head = " " * longest + "".join(aligned(shortened(name, cell - 2), cell) for name in matrix.columns[:shown])
    lines = [matrix.title + ": true down, predicted across", head]
    for row in range(down):
        cells = [f"{count or '·':>{cell}}" for count in matrix.counts[row, :shown].tolist()]
        if row < shown:
            cells[row] = painted(cells[row], LINES[MODEL][0], styled)
        name = shortened(matrix.rows[row], longest)
        lines.append(name + " " * (longest - cell_len(name)) + "".join(cells))
    return lines + ([f"the first {shown} of {across} classes across"] if shown < across else [])


def aligned(text: str, room: int) -> str:
    return " " * max(room - cell_len(text), 0) + text
