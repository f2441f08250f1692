"""Patterns of time stamps: a strptime format, matched with a whole column of text at once.

Digits are replaced by 9, so that the rows of a piece fall into a few shapes ("99/9/9999"); each shape is
matched once by a regular expression, and the numbers of all its rows are read at once. `%q` is the quarter, which
strptime lacks; fractions of seconds and a zone at the end need no directive. A date that is split over
columns is one text with `SEPARATOR` between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stacklstm_cli.data.texts import Piece, Texts
from stacklstm_cli.data.texts import Words as Words
from stacklstm_cli.errors import UsageError

Stamps = npt.NDArray[Any]
"""datetime64[us], or int64 where time is counted in whole numbers."""
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DAY = 86_400_000_000
"""Microseconds in a day."""
SEPARATOR = "\x1f"
"""Between the columns of a date that is split: no cell holds it."""
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONDAY_BEFORE_EPOCH = 3
"""1 January 1970 was a Thursday: days since the Monday before are days since 1970 plus three."""
NUMBERS = "YGymdHIMSVq"
"""Directives that are numbers."""

MAX_SHAPES = 500
"""No form has more shapes (twelve month names, one or two digits, am or pm); beyond it a column is no time."""
LONGEST = 200
"""Bytes; no longer text is a time stamp."""
MAX_INTEGER_DIGITS = 15
"""Longer whole numbers are no time stamps, and their differences might overflow."""


@cache
def expression(format: str) -> re.Pattern[str]:
    """The format as an expression over text whose digits are all 9."""
    pieces = re.split(r"(%[A-Za-z%])", format)
    texts = []
    for at, piece in enumerate(pieces):
        if at % 2 == 0:
            # Someone who types a stamp puts blanks between the columns.
            texts.append(re.escape(shape_of(piece)).replace(re.escape(SEPARATOR), f"[{SEPARATOR} ]"))
            continue
        close = any(
            not pieces[beside] and 0 < far < len(pieces) and pieces[far][1] in NUMBERS
            for beside, far in ((at - 1, at - 2), (at + 1, at + 2))
        )
        alone = all(text in ("", SEPARATOR) for text in (pieces[at - 1], pieces[at + 1])) and not close
        texts.append(_piece(piece[1], close, alone))
    zone = r"(?P<zone> ?(?:Z|UTC|[+-]99(?::?99)?))?" if "%H" in format or "%I" in format else "(?P<zone>)"
    return re.compile(rf"\s*{''.join(texts)}{zone}\s*", re.IGNORECASE)


def _piece(directive: str, close: bool, alone: bool) -> str:
    # Next to another number the width must be fixed, or 2020115 would be a date.
    some = "99" if close else "99?"
    if directive in "YG":
        return f"(?P<{directive}>9{{4}})"
    if directive in "mdHI":
        return f"(?P<{directive}>{some})"
    if directive in "bB":
        return f"(?P<b>{'|'.join(name[:3] if directive == 'b' else name for name in MONTHS)})"
    if directive in "aA":
        return f"(?P<a>{'|'.join(name[:3] if directive == 'a' else name for name in WEEKDAYS)})"
    two = "99?" if alone else "99"
    return {
        "y": "(?P<y>99)",
        "q": "(?P<q>9)",
        "V": f"(?P<V>{two})",
        "M": f"(?P<M>{two})",
        "S": rf"(?P<S>{two})(?:[.,](?P<f>9{{1,9}}))?",
        "p": "(?P<p>[ap]m)",
        "%": "%",
    }[directive]


def shape_of(word: str) -> str:
    return re.sub(r"[0-9]", "9", word)


@dataclass(frozen=True)
class Parsed:
    """A column read by one format."""

    local: Ints
    """[rows] microseconds since 1970 on the clock of the place."""
    ahead: Ints
    """[rows] microseconds that clock is ahead of UTC."""
    bad: Flags
    matches: tuple[re.Match[str], ...]
    zeros: frozenset[str]
    """Fields that some row writes with a leading zero."""
    hour_24: bool
    """Some row writes midnight as 24:00 of the day before."""

    @property
    def zoned(self) -> bool:
        return bool(self.matches) and bool(self.matches[0]["zone"])

    def widths(self, *names: str) -> set[int]:
        """How many characters the named fields have."""
        return {len(match[name]) for match in self.matches for name in names if match.groupdict().get(name)}


def parse(words: Texts | Words, format: str) -> Parsed:
    """Read a column [rows] of text by one format."""
    column = Texts.of(words)
    parser = _Parser(format, len(column))
    for rows, piece in column.spans():
        parser.read(rows, piece)
    return parser.parsed()


class _Parser:
    """A column while it is read piece by piece."""

    def __init__(self, format: str, rows: int) -> None:
        self.expression = expression(format)
        self.local = np.zeros(rows, dtype=np.int64)
        self.ahead = np.zeros(rows, dtype=np.int64)
        self.bad = np.ones(rows, dtype=bool)
        self.late = np.zeros(rows, dtype=bool)
        """[rows] whether midnight is written 24:00."""
        self.midnight = False
        """Some row writes it 0:00."""
        self.matches: dict[str, re.Match[str]] = {}
        self.zeros: set[str] = set()

    def read(self, rows: slice, piece: Piece) -> None:
        """Read some rows; each distinct cell of them once."""
        letters = _letters(piece.cells)
        local, ahead = np.zeros((2, len(letters)), dtype=np.int64)
        bad, late = np.ones(len(letters), dtype=bool), np.zeros(len(letters), dtype=bool)
        for shape, same in _shapes(letters):
            match = self._match(shape)
            if match is None:
                continue
            fields = _Fields(letters[same], match)
            day, known_day = fields.weeks() if fields.has("G") else fields.days()
            clock, known_clock = fields.clock()
            ahead[same], known_zone = fields.ahead()
            local[same] = day * DAY + clock
            bad[same] = ~(known_day & known_clock & known_zone)
            late[same] = fields.has("H") & (clock == DAY)
            self.midnight |= fields.has("H") and bool((clock == 0).any())
            self.zeros |= fields.zeros
        self.local[rows], self.bad[rows], self.late[rows] = (found[piece.codes] for found in (local, bad, late))
        if ahead.any():
            self.ahead[rows] = ahead[piece.codes]

    def _match(self, shape: str) -> re.Match[str] | None:
        match = self.matches.get(shape) or self.expression.fullmatch(shape)
        # A zone stands behind every stamp or behind none.
        if match is None or any(bool(match["zone"]) != bool(other["zone"]) for other in self.matches.values()):
            return None
        return self.matches.setdefault(shape, match)

    def parsed(self) -> Parsed:
        # A file that writes 0:00 does not mean the same midnight by 24:00.
        bad = self.bad | self.late if self.midnight else self.bad
        matches, hour_24 = tuple(self.matches.values()), bool((self.late & ~bad).any())
        return Parsed(self.local, self.ahead, bad, matches, frozenset(self.zeros), hour_24)


def _letters(cells: pa.StringArray) -> npt.NDArray[np.uint8]:
    """[cells, width] the cells as bytes, zeros behind them; what is not ASCII becomes `?`, which no form has."""
    cells = pc.if_else(pc.greater(pc.binary_length(cells), LONGEST), "?", cells)
    _, offsets, data = cells.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[cells.offset : cells.offset + len(cells) + 1]
    found = np.frombuffer(data or b"", dtype=np.uint8)[ends[0] : ends[-1]]
    found = np.where(found < 128, found, np.uint8(ord("?")))
    lengths = np.diff(ends)
    letters = np.zeros((lengths.size, max(int(lengths.max()), 1)), dtype=np.uint8)
    letters[np.arange(letters.shape[1]) < lengths[:, None]] = found
    return letters


def _shapes(letters: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Ints | slice]]:
    """Each shape of the cells with its rows, up to `MAX_SHAPES`."""
    digits = (letters >= ord("0")) & (letters <= ord("9"))
    shapes = np.where(digits, np.uint8(ord("9")), letters).view(f"S{letters.shape[1]}").ravel()
    if (shapes == shapes[0]).all():
        yield shapes[0].decode(), slice(None)
        return
    left = np.arange(shapes.size)
    for _ in range(MAX_SHAPES):
        if not left.size:
            return
        same = shapes[left] == shapes[left[0]]
        yield shapes[left[0]].decode(), left[same]
        left = left[~same]


class _Fields:
    """The fields of all rows of one shape."""

    def __init__(self, letters: npt.NDArray[np.uint8], match: re.Match[str]) -> None:
        self.letters = letters
        self.match = match
        self.groups = match.groupdict()
        self.zeros: set[str] = set()

    def has(self, name: str) -> bool:
        return bool(self.groups.get(name))

    def number(self, name: str, default: int) -> Ints:
        """[rows] one field as a number."""
        if not self.has(name):
            return np.full(len(self.letters), default, dtype=np.int64)
        start, end = self.match.span(name)
        if end - start == 2 and (self.letters[:, start] == ord("0")).any():
            self.zeros.add(name)
        return self._digits(start, end)

    def _digits(self, start: int, end: int) -> Ints:
        total = np.zeros(len(self.letters), dtype=np.int64)
        for column in range(start, end):
            total = total * 10 + (self.letters[:, column].astype(np.int64) - ord("0"))
        return total

    def days(self) -> tuple[Ints, Flags]:
        """[rows] days since 1970 by year, month and day, and whether there is such a day."""
        if self.has("y"):
            # POSIX: 69 to 99 are the 1900s.
            short = self.number("y", 0)
            year = short + np.where(short < 69, 2000, 1900)
        else:
            year = self.number("Y", 1970)
        if self.has("q"):
            quarter = self.number("q", 1)
            month = np.where((quarter >= 1) & (quarter <= 4), quarter * 3 - 2, 0)
        elif self.has("b"):
            names = [name[:3].lower() for name in MONTHS]
            month = np.full(len(self.letters), names.index(self.groups["b"][:3].lower()) + 1, dtype=np.int64)
        else:
            month = self.number("m", 1)
        day = self.number("d", 1)
        good = (month >= 1) & (month <= 12) & (year >= 1)
        months = ((year - 1970) * 12 + np.where(good, month, 1) - 1).astype("datetime64[M]")
        first = months.astype("datetime64[D]").astype(np.int64)
        after = (months + 1).astype("datetime64[D]").astype(np.int64)
        return first + day - 1, good & (day >= 1) & (day <= after - first)

    def weeks(self) -> tuple[Ints, Flags]:
        """[rows] days since 1970 of the Monday of an ISO week, and whether the year has that week."""
        year, week = self.number("G", 1970), self.number("V", 1)
        monday = first_monday(year) + (week - 1) * 7
        return monday, (year >= 1) & (week >= 1) & (monday < first_monday(year + 1))

    def clock(self) -> tuple[Ints, Flags]:
        """[rows] microseconds since midnight, and whether a clock shows that; 24:00 is the end of the day."""
        minute, second, fraction = self.number("M", 0), self.number("S", 0), self.number("f", 0)
        if self.has("I"):
            twelve = self.number("I", 12)
            noon = 12 if self.groups["p"].lower() == "pm" else 0
            hour = np.where((twelve >= 1) & (twelve <= 12), twelve % 12 + noon, 25)
        else:
            hour = self.number("H", 0)
        places = len(self.groups.get("f") or "")
        fraction = fraction * 10 ** (6 - places) if places <= 6 else fraction // 10 ** (places - 6)
        clock = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction
        return clock, (clock <= DAY) & (minute < 60) & (second < 60)

    def ahead(self) -> tuple[Ints, Flags]:
        """[rows] microseconds ahead of UTC, and whether there is such a zone."""
        zone = self.groups["zone"] or ""
        ahead = np.zeros(len(self.letters), dtype=np.int64)
        if "9" in zone:
            sign = zone.strip()[0]
            start = self.match.start("zone") + zone.index(sign) + 1
            ahead = self._digits(start, start + 2) * 60
            if zone.count("9") == 4:
                ahead = ahead + self._digits(self.match.end("zone") - 2, self.match.end("zone"))
            ahead = ahead * (-60_000_000 if sign == "-" else 60_000_000)
        return ahead, np.abs(ahead) <= DAY


def first_monday(year: Ints) -> Ints:
    """[rows] days since 1970 of the Monday of the first ISO week of a year: the week of 4 January."""
    fourth = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64) + 3
    return fourth - (fourth + MONDAY_BEFORE_EPOCH) % 7


def iso_weeks(days: Ints) -> dict[str, Ints]:
    """[rows] the ISO year and week of days since 1970."""
    thursday = days - (days + MONDAY_BEFORE_EPOCH) % 7 + 3
    year = thursday.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    return {"week_year": year, "week": (thursday - first_monday(year)) // 7 + 1}


def decimals_of(words: Texts | Words) -> int:
    """Zeros behind the point of whole numbers written as 1.0, 2.0 …; 0 where there are none."""
    match = re.fullmatch(r"\s*[+-]?\d+\.(0+)\s*", str(words[0])) if len(words) else None
    return len(match[1]) if match else 0


def _integer(decimals: int) -> str:
    """The expression of a whole number with so many zeros behind its point."""
    tail = rf"\.0{{{decimals}}}" if decimals else ""
    return rf"^\s*[+-]?[0-9]{{1,{MAX_INTEGER_DIGITS}}}{tail}\s*$"


def first_not_integer(words: Texts | Words) -> int:
    """The first row that is no whole number as the first row is."""
    whole = _integer(decimals_of(words))
    return Texts.of(words).first(lambda cells: pc.invert(pc.match_substring_regex(cells, whole))) or 0


def parse_integers(words: Texts | Words) -> Ints | None:
    """[rows] whole numbers, or None if some word is not one (or is longer than a time stamp can be).

    Numbers that all end in `.0` are whole ones.
    """
    whole = _integer(decimals_of(words))
    if not len(words) or not re.match(whole, words[0]):
        return None
    column = Texts.of(words)
    numbers = np.empty(len(column), dtype=np.int64)
    for rows, piece in column.spans():
        if not pc.all(pc.match_substring_regex(piece.cells, whole)).as_py():
            return None
        digits = pc.replace_substring_regex(piece.cells, r"^\s*\+?|(\.0+)?\s*$", "")
        numbers[rows] = pc.cast(digits, pa.int64()).to_numpy()[piece.codes]
    return numbers


DIRECTIVES = "YymbBdHIMSpaAqGV%"
"""What `expression` knows."""
SHORTHANDS = {"%F": "%Y-%m-%d", "%T": "%H:%M:%S", "%R": "%H:%M", "%D": "%m/%d/%y", "%h": "%b", "%e": "%d"}


def typed_formats(text: str, columns: int) -> list[str]:
    """The formats that `--date-format` may mean for so many columns: each blank may stand between two of them.

    Raises `UsageError` for what no whole date can be read by.
    """
    pattern = re.sub(r"%[-#](?=[mdHIMSV])", "%", text.strip())
    for short, long in SHORTHANDS.items():
        pattern = pattern.replace(short, long)
    pattern = re.sub(r" ?%z$", "", re.sub(r"%S[.,]%f", "%S", pattern))
    used = [piece[1:] for piece in re.findall(r"%.?", pattern, re.DOTALL)]
    unknown = [f"%{name}" for name in used if not name or name not in DIRECTIVES]
    wrong = f"{', '.join(unknown)} cannot be read" if unknown else _unfit([name for name in used if name != "%"])
    blanks = [match.start() for match in re.finditer(" ", pattern)]
    if not wrong and len(blanks) < columns - 1:
        wrong = f"the time has {columns} columns, and a blank is expected between what is in each"
    if wrong:
        known = " ".join(f"%{name}" for name in DIRECTIVES[:-1])
        raise UsageError(
            f"--date-format {text!r}: {wrong}.",
            hint=f"Type for example --date-format '%d/%m/%Y %H:%M'; it may hold {known}, and %z at its end.",
            code="bad_date_format",
        )
    places = combinations(blanks, columns - 1)
    return ["".join(SEPARATOR if at in place else sign for at, sign in enumerate(pattern)) for place in places]


def _unfit(used: list[str]) -> str:
    """Why these directives together make no date; "" if they do."""
    fields = {"year": "YyG", "month": "mbBq", "week": "V", "day": "d", "hour": "HI", "minute": "M", "second": "S"}
    have = {name for name, own in fields.items() if any(one in own for one in used)}
    for name, own in {**fields, "weekday": "aA", "half of the day": "p"}.items():
        twice = [f"%{one}" for one in used if one in own]
        if len(twice) > 1:
            return f"{' and '.join(twice)} both give the {name}"
    if "year" not in have:
        return "there is no year (%Y, %y)"
    if ("G" in used) != ("V" in used):
        return "%G and %V belong together"
    if ("I" in used) != ("p" in used):
        return "%I and %p belong together"
    for larger, smaller in (("month", "day"), ("day", "hour"), ("hour", "minute"), ("minute", "second")):
        if smaller in have and larger not in have:
            return f"there is a {smaller} without a {larger}"
    return ""
