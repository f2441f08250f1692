"""How a file writes its time stamps, found from a column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from stacklstm_cli.data.patterns import (
    SEPARATOR,
    WEEKDAYS,
    Parsed,
    Stamps,
    decimals_of,
    expression,
    first_not_integer,
    parse,
    parse_integers,
    shape_of,
)
from stacklstm_cli.data.texts import Texts, Words
from stacklstm_cli.data.timeform import StampError, TimeForm

__all__ = [
    "Reading",
    "StampError",
    "Stamps",
    "TimeForm",
    "Words",
    "find_forms",
    "looks_like_time",
    "parse_integers",
]

DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y"),
    *("%m/%d/%y", "%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y", "%m-%d-%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d%b%Y"),
    *("%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
)
PERIODS = (
    *("%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%Y%m", "%b %Y", "%b-%Y", "%b-%y", "%b %y", "%B %Y", "%Y-%b", "%Y %b"),
    *("%YM%m", "%Y-M%m", "%b%Y", "%YQ%q", "%Y-Q%q", "%Y Q%q", "Q%q %Y", "Q%q-%Y", "%G-W%V", "%GW%V"),
)
TIMES = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%I:%M:%S%p")
FORMATS = (
    *DATES,
    *(f"{date} {time}" for date in DATES for time in TIMES),
    *(f"%Y-%m-%dT{time}" for time in ("%H:%M", "%H:%M:%S")),
    *("%Y-%m-%d %H", "%Y-%m-%dT%H", "%Y%m%dT%H%M", "%Y%m%dT%H%M%S", "%d.%m.%Y %H.%M", "%d.%m.%Y %H.%M.%S"),
    *PERIODS,
)
COMPACT = ("%Y%m%d", "%Y%m", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S")
"""Dates that could as well be whole numbers."""
SHORT_COMPACT = "%y%m%d"
"""The same; so few digits are dates only where these make the more regular rows."""
LEAST_SHORT = 10
"""So many distinct numbers of that form are no chance."""
MONTH_OF_SHORT = 100
"""From the first of a month to that of the next, in such numbers."""
WEEKDAY = re.compile(rf"\s*({'|'.join(WEEKDAYS)}|{'|'.join(day[:3] for day in WEEKDAYS)})(,? )(?=\S)", re.IGNORECASE)
"""A weekday in front of a date."""
DAMAGED = r"^\s*([0-9][0-9]?)-([A-Za-z]{3})\s*$"
"""What Excel makes of Jan-09 (January 2009): the ninth of January of no year."""


@dataclass(frozen=True)
class Reading:
    """A whole column, read by one form."""

    form: TimeForm
    clock: Stamps
    """[rows] what the clock showed, datetime64[us]; or whole numbers."""
    instants: Stamps | None = None
    """[rows] the same in UTC, where a zone is written."""
    damaged: int | None = None
    """The first row that was read with day and year exchanged."""


def find_forms(
    words: Texts | Words, *, years: bool = False, formats: Sequence[str] = (), like: TimeForm | None = None
) -> list[Reading]:
    """Every form that reads the whole column; day-first and month-first may be two, as may a count and yymmdd.

    `words` [rows] are not empty. `years`: four digits are years of the calendar, not
    numbers. `formats`: no others are tried. `like` is a model's form: it settles what the words do not
    show, such as zeros before numbers that all have two digits.
    Raises `StampError` at the first row that the best form cannot read.
    """
    words = Texts.of(words)
    numbers = None if formats else parse_integers(words)
    if not formats:
        formats = (
            _possible_formats(words[0]) if numbers is None else _compact([*COMPACT, *(["%Y"] if years else [])], words)
        )
    found: list[Reading] = []
    failures: list[npt.NDArray[np.bool_]] = []
    for pattern in formats:
        parsed = parse(words, pattern)
        if parsed.bad.any():
            failures.append(parsed.bad)
            continue
        reading = _reading(pattern, parsed, words[len(words) - 1], like)
        if not any(np.array_equal(reading.clock, other.clock) for other in found):
            found.append(reading)
    if found:
        return found
    if numbers is not None:
        short = [(pattern, parse(words, pattern)) for pattern in _compact([SHORT_COMPACT], words)]
        return [
            Reading(TimeForm("integer", fraction=decimals_of(words)), numbers),
            *(_reading(pattern, parsed, words[0], like) for pattern, parsed in short if not parsed.bad.any()),
        ]
    mended = _undamaged(words, like)
    if mended is not None:
        return [mended]
    if not failures:
        raise StampError(first_not_integer(words))
    best = min(failures, key=lambda bad: int(bad.sum()))
    raise StampError(int(np.argmax(best)))


def _compact(patterns: Sequence[str], words: Texts | Words) -> list[str]:
    """Formats of whole numbers as these are written: pandas puts .0 behind them where a cell of the column is empty."""
    zeros = decimals_of(words)
    return [f"{pattern}.{'0' * zeros}" if zeros else pattern for pattern in patterns]


def _possible_formats(word: str) -> list[str]:
    weekday = WEEKDAY.match(word)
    if weekday:
        directive = "%A" if weekday[1].title() in WEEKDAYS else "%a"
        return [directive + weekday[2] + pattern for pattern in _possible_formats(word[weekday.end() :])]
    marks = {*word.lower(), " ", SEPARATOR}
    # To make an expression of each format would take longer than to read most files.
    likely = [pattern for pattern in FORMATS if marks.issuperset(re.sub(r"%[A-Za-z]", "", pattern).lower())]
    return [pattern for pattern in likely if expression(pattern).fullmatch(shape_of(word))]


def _reading(format: str, parsed: Parsed, last_word: str, like: TimeForm | None) -> Reading:
    names = [match[name] for match in parsed.matches for name in ("b", "a", "p") if match.groupdict().get(name)]
    letters: Literal["title", "upper", "lower"] = "title"
    if names and all(name.islower() for name in names):
        letters = "lower"
    elif names and all(name.isupper() for name in names if name.lower() not in ("am", "pm")):
        letters = "upper"
    match = expression(format).fullmatch(shape_of(last_word))
    start, end = match.span("zone") if match else (0, 0)
    form = TimeForm(
        "datetime",
        format,
        unpadded=_unpadded(format, parsed, like),
        fraction=max(parsed.widths("f"), default=0),
        zone=last_word[start:end],
        letters=letters,
        hour_24=parsed.hour_24,
    )
    instants = (parsed.local - parsed.ahead).view("datetime64[us]") if parsed.zoned else None
    return Reading(form, parsed.local.view("datetime64[us]"), instants)


def _unpadded(format: str, parsed: Parsed, like: TimeForm | None) -> str:
    """The directives of numbers that are written without a leading zero.

    Those that all have two digits are written as a model knows, or as the others are: the month as the day, a
    number that has a column of its own rather without.
    """
    able = [name for name in "mdHIMSV" if f"(?P<{name}>99?)" in expression(format).pattern]
    short = {name for name in able if 1 in parsed.widths(name)}
    known = frozenset(short | (parsed.zeros & set(able)))
    own_column = {part[1:] for part in format.split(SEPARATOR)} if SEPARATOR in format else set()
    for name in [name for name in able if name not in known]:
        other = {"m": "d", "d": "m"}.get(name)
        if like is not None and like.format == format:
            write_short = name in like.unpadded
        elif other in known:
            write_short = other in short
        else:
            write_short = not (known - short) and bool(known or name in own_column)
        if write_short:
            short.add(name)
    return "".join(name for name in "mdHIMSV" if name in short)


def _undamaged(words: Texts, like: TimeForm | None) -> Reading | None:
    """The column with the months mended that Excel took for days: 9-Jan beside Jan-83 is Jan-09.

    A day without a year is no date, so that nothing else can be meant, where other rows (or a model) show
    how the months were written.
    """
    first = words.first(lambda cells: pc.match_substring_regex(cells, DAMAGED))
    if first is None:
        return None
    whole = words.first(lambda cells: pc.invert(pc.match_substring_regex(cells, DAMAGED))) is None
    for pattern in ("%b-%y", "%b %y"):
        if whole and not (like and like.format == pattern):
            continue
        mended = words.turned(partial(_mended, mark=pattern[2]))
        parsed = parse(mended, pattern)
        if not parsed.bad.any():
            return replace(_reading(pattern, parsed, mended[len(mended) - 1], like), damaged=first)
    return None


def _mended(word: str, mark: str) -> str:
    return re.sub(DAMAGED, lambda match: f"{match[2]}{mark}{int(match[1]):02d}", word)


def looks_like_time(words: Sequence[str], formats: Sequence[str] = ()) -> bool:
    """Whether most of these texts are dates of one form (whole numbers: every one of them).

    `words` are distinct. `formats`: no others are tried.
    """
    column = np.asarray([*words, ""], dtype=object)[:-1]
    if not column.size:
        return False
    numbers = None if formats else parse_integers(column)
    if numbers is None:
        possible = formats or _possible_formats(column[0])
        return any(2 * int(parse(column, pattern).bad.sum()) <= column.size for pattern in possible)
    patterns = list(COMPACT)
    # What only counts up would hold the 32nd of a month.
    if column.size >= LEAST_SHORT and numbers.max() - numbers.min() >= MONTH_OF_SHORT:
        patterns.append(SHORT_COMPACT)
    return any(not parse(column, pattern).bad.any() for pattern in _compact(patterns, column))
