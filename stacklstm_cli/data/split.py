"""Dates split over columns: year, month, day, hour …, or a date beside a clock."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from stacklstm_cli.data.cells import is_missing, number_of
from stacklstm_cli.data.patterns import SEPARATOR, expression, shape_of
from stacklstm_cli.data.stamps import DATES, PERIODS, TIMES, looks_like_time
from stacklstm_cli.data.texts import Piece, Texts, Words
from stacklstm_cli.data.wording import quoted

NAMES = {
    "year": ("year", "yr", "years"),
    "quarter": ("quarter", "qtr", "q"),
    "month": ("month", "mon", "mnth", "mo"),
    "day": ("day", "dom", "date"),
    "hour": ("hour", "hr", "hours", "time", "clock"),
    "minute": ("minute", "min", "minutes"),
    "second": ("second", "sec", "seconds"),
}
"""A column of such a name holds this part of the time, if its cells can."""
DIRECTIVES = {
    "year": ("%Y", "%y"),
    "quarter": ("%q", "Q%q"),
    "month": ("%m", "%b", "%B"),
    "day": ("%d",),
    "hour": ("%H",),
    "minute": ("%M",),
    "second": ("%S",),
}
CLOCKS = (*TIMES, "%H.%M", "%H.%M.%S")
RANGES = {"year": (1000, 2999), "month": (1, 12), "day": (1, 31), "hour": (0, 24), "minute": (0, 59), "second": (0, 59)}
WEEK_NAMES = ("week", "wk", "kw", "isoweek", "iso_week", "weekofyear", "week_of_year", "weeknumber", "week_number")
LOOKED_AT = 400
"""Distinct cells of a column that show how it is written."""
UNIQUE_SHARE = 0.98
REPEATED_SHARE = 0.6
"""A date alone repeats where there are fewer distinct ones than this share of the rows."""


def joined(columns: Sequence[Texts]) -> Texts:
    """One column of the cells of several, without blanks about them, joined by `SEPARATOR`."""
    pieces = [_joined(beside) for beside in zip(*(column.pieces for column in columns), strict=True)]
    return Texts(tuple(pieces))


def _joined(columns: Sequence[Piece]) -> Piece:
    """The same for some rows; each distinct combination of cells is made once."""
    codes = np.zeros(columns[0].codes.size, dtype=np.int64)
    for column in columns:
        codes = pd.factorize(codes * len(column.cells) + column.codes)[0]
    _, first = np.unique(codes, return_index=True)
    cells = [pc.utf8_trim_whitespace(column.cells.take(pa.array(column.codes[first]))) for column in columns]
    return Piece(pc.binary_join_element_wise(*cells, SEPARATOR), codes.astype(np.int32))


def split_formats(names: Sequence[str], columns: Sequence[Texts]) -> list[str]:
    """The formats that columns of time may have together, by their names and cells; [] if they make no time."""
    pieces = [_pieces(name, _usable(column.distinct())) for name, column in zip(names, columns, strict=True)]
    together = [SEPARATOR.join(one) for one in product(*pieces)]
    return [pattern for pattern in together if _whole(pattern)]


def _pieces(name: str, cells: Sequence[str]) -> list[str]:
    """What a column of these cells may hold: the part of its name, or a date or clock of any form."""
    part, shapes = _part(name), _shapes(cells)
    for formats in (DIRECTIVES.get(part, ()), (*DATES, *PERIODS, *CLOCKS)):
        fitting = [pattern for pattern in formats if _fits(shapes, pattern)]
        if fitting:
            return fitting
    return []


def _part(name: str) -> str:
    return next((part for part, names in NAMES.items() if name.strip().lower() in names), "")


def _cells(column: Words) -> list[str]:
    return _usable(pd.unique(column))


def _usable(cells: Iterable[str]) -> list[str]:
    return [cell.strip() for cell in islice(cells, LOOKED_AT) if not is_missing(cell)]


def _shapes(cells: Sequence[str]) -> Counter[str]:
    """How many cells have each shape; there are few of these."""
    return Counter(map(shape_of, cells))


def _fits(shapes: Counter[str], format: str) -> bool:
    """Whether most cells are of a format: one bad cell is an error to name, not another format."""
    pattern = expression(format)
    matching = sum(count for shape, count in shapes.items() if pattern.fullmatch(shape))
    return 2 * matching > sum(shapes.values())


def _whole(format: str) -> bool:
    """Whether each part is there once, and none without the next larger one."""
    kinds = {"year": "YyG", "month": "mbBqV", "day": "d", "hour": "HI", "minute": "M", "second": "S"}
    counts = [len(re.findall(f"%[{own}]", format)) for own in kinds.values()]
    return counts == sorted(counts, reverse=True) and counts[0] == counts[1] == 1


def split_time(header: Sequence[str], words: Sequence[Words]) -> tuple[int, ...]:
    """The columns that together make a time, in calendar order; () if none do.

    `header` [columns], `words` [columns] of cells [rows]: a date that repeats beside a clock or an hour, or
    year and month (or quarter), with day, hour, minute and second as far as they are there.
    """
    looking = [at for at, column in enumerate(words) if looks_like_time(_cells(column))]
    shapes = {at: _shapes(_cells(words[at])) for at in looking}
    dated = [at for at in looking if any(_fits(shapes[at], pattern) for pattern in DATES)]
    periods = [at for at in looking if any(_fits(shapes[at], pattern) for pattern in PERIODS)]
    if set(looking) - {*dated, *periods}:
        # A column holds both date and clock, and needs no other.
        return ()
    dated.sort(key=lambda at: _part(header[at]) != "day" and header[at].strip().lower() not in ("ds", "timestamp"))
    for at in dated:
        if pd.unique(words[at]).size < REPEATED_SHARE * words[at].size:
            clock = _clock_beside(at, header, words)
            if clock:
                return (at, *clock)
    if looking:
        return ()
    for larger in (("year", "month", "day", "hour", "minute", "second"), ("year", "quarter")):
        found = list(_chain(larger, header, words))
        if len(found) > 1:
            return tuple(found)
    return ()


def split_way(header: Sequence[str], words: Sequence[Words], time: Sequence[int]) -> str:
    """What to type where year and week, or a date and hours such as 0100, may be one time; "" where nothing shows that.

    Neither is taken for a time unasked: weeks are counted in several ways, and numbers of four digits may be any.
    """
    if len(time) > 1:
        return ""
    for at, name in enumerate(header):
        cells = _cells(words[at])
        if name.strip().lower() in WEEK_NAMES and _all_within(cells, r"\d\d?", 1, 53):
            year = next(_chain(["year"], header, words), at)
            if year != at:
                return _typed("week of the year", header[year], name, "%G %V")
        if time and _part(name) == "hour" and _all_within(cells, r"\d\d[0-5]\d", 0, 2400):
            shapes = _shapes(_cells(words[time[0]]))
            dates = [pattern for pattern in DATES if _fits(shapes, pattern)]
            if dates:
                return _typed("time of day", header[time[0]], name, f"{dates[0]} %H%M")
    return ""


def _all_within(cells: Sequence[str], digits: str, low: int, high: int) -> bool:
    return bool(cells) and all(re.fullmatch(digits, cell) and low <= int(cell) <= high for cell in cells)


def _typed(what: str, larger: str, smaller: str, format: str) -> str:
    return f"if {smaller!r} is the {what}: --time {quoted(larger)},{quoted(smaller)} --date-format '{format}'"


def _clock_beside(date: int, header: Sequence[str], words: Sequence[Words]) -> tuple[int, ...]:
    """The columns that tell the time of day next to a column of dates."""
    for at, name in enumerate(header):
        if at == date or _part(name) != "hour" or _explained(date, at, words):
            continue
        shapes = _shapes(_cells(words[at]))
        if shapes and any(_fits(shapes, pattern) for pattern in CLOCKS):
            return (at,)
    found = tuple(_chain(("hour", "minute", "second"), header, words))
    return () if found and _explained(date, found[0], words) else found


def _explained(date: int, clock: int, words: Sequence[Words]) -> bool:
    """Whether dates repeat only because the file holds several series: with the name of one, none does."""
    days = pd.factorize(words[date])[0].astype(np.int64)
    for at, column in enumerate(words):
        if at in (date, clock) or any(number_of(cell) is not None for cell in _cells(column)[:20]):
            continue
        codes, unique = pd.factorize(column)
        if np.unique(days * max(unique.size, 1) + codes).size >= UNIQUE_SHARE * days.size:
            return True
    return False


def _chain(parts: Sequence[str], header: Sequence[str], words: Sequence[Words]) -> Iterator[int]:
    """One column for each part, up to the first part that no column holds."""
    for part in parts:
        at = next((at for at, name in enumerate(header) if _part(name) == part and _holds(part, words[at])), None)
        if at is None:
            return
        yield at


def _holds(part: str, column: Words) -> bool:
    """Whether all cells can be that part of a time."""
    cells = _cells(column)
    if part in RANGES:
        low, high = RANGES[part]
        if cells and all(re.fullmatch(r"\d+", cell) and low <= int(cell) <= high for cell in cells):
            return True
    named = {"month": ("%b", "%B"), "quarter": ("%q", "Q%q")}.get(part, ())
    matches = [[expression(pattern).fullmatch(shape_of(cell)) for cell in cells] for pattern in named]
    return bool(cells) and any(map(all, matches))
