"""How a file writes its time stamps: found from a column, read and written back in the same form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from stacklstm_cli.data.patterns import (
    DAY,
    MONDAY_BEFORE_EPOCH,
    MONTHS,
    SEPARATOR,
    WEEKDAYS,
    Ints,
    Parsed,
    Stamps,
    decimals_of,
    expression,
    first_not_integer,
    iso_weeks,
    parse,
    parse_integers,
    shape_of,
)
from stacklstm_cli.data.texts import Texts, Words
from stacklstm_cli.data.zones import find_zone
from stacklstm_cli.errors import UsageError

if TYPE_CHECKING:
    from stacklstm_cli.data.calendar import Step

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
    *("%YQ%q", "%Y-Q%q", "%Y Q%q", "Q%q %Y", "%G-W%V", "%GW%V"),
)
TIMES = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%I:%M:%S%p")
FORMATS = (
    *DATES,
    *(f"{date} {time}" for date in DATES for time in TIMES),
    *(f"%Y-%m-%dT{time}" for time in ("%H:%M", "%H:%M:%S")),
    *("%Y-%m-%d %H", "%Y-%m-%dT%H"),
    *PERIODS,
)
COMPACT = ("%Y%m%d", "%Y%m", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S")
"""Dates that could as well be whole numbers."""
SHORT_FORMATS = (
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H",
    "%Y-%m-%d",
    "%Y-%m",
    "%Y",
)
"""What a user may type for one stamp, whatever the form of the file."""
DAMAGED = r"^\s*([0-9][0-9]?)-([A-Za-z]{3})\s*$"
"""What Excel makes of Jan-09 (January 2009): the ninth of January of no year."""


class StampError(ValueError):
    """A stamp that is not of the form; `index` is its row."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


def zone_offset(zone: str) -> int:
    """Microseconds that `zone` ("Z", "+02:00", …) is ahead of UTC."""
    match = re.fullmatch(r"([+-])(\d\d):?(\d\d)?", zone.strip())
    if match is None:
        return 0
    minutes = int(match[2]) * 60 + int(match[3] or 0)
    return (-1 if match[1] == "-" else 1) * minutes * 60_000_000


def _zone_text(ahead: int, like: str) -> str:
    """An offset from UTC in microseconds, written as `like` is: "+02:00", "+0200", "+02"."""
    hours, minutes = divmod(abs(ahead) // 60_000_000, 60)
    colon = ":" if ":" in like or (minutes and len(like.strip()) == 3) else ""
    tail = f"{colon}{minutes:02d}" if minutes or len(like.strip()) > 3 else ""
    return f"{' ' * like.startswith(' ')}{'-' if ahead < 0 else '+'}{hours:02d}{tail}"


@dataclass(frozen=True)
class TimeForm:
    """How the time stamps of a file are written."""

    kind: Literal["datetime", "integer", "row"]
    """Dates and times; whole numbers; or no column at all, only the number of the row."""
    format: str = ""
    """Format of a "datetime", as `patterns` knows it, without fraction and zone."""
    unpadded: str = ""
    """Directives of the numbers that are written without a leading zero: "md" in 1/7/20."""
    fraction: int = 0
    """Decimals of the seconds, or of whole numbers."""
    zone: str = ""
    """Zone of the last stamp, as written: "", "Z", "+02:00", " UTC"."""
    local: bool = False
    """True: steps are calendar days and longer, so that stamps are those of the local clock, not instants."""
    letters: Literal["title", "upper", "lower"] = "title"
    tz: str = ""
    """The zone of the place, where it was typed."""
    hour_24: bool = False
    """True: midnight is written 24:00 of the day before."""

    def parse(self, words: Texts | Words) -> Stamps:
        """[rows] text as datetime64[us] (UTC instants where there is a zone, unless `local`) or int64.

        Raises `StampError` at the first word of another form.
        """
        if self.kind != "datetime":
            numbers = parse_integers(words)
            if numbers is None:
                raise StampError(first_not_integer(words))
            return numbers
        parsed = parse(words, self.format)
        # The rows of one column agree on having a zone; whether they are meant to is this form's to say.
        if parsed.matches and parsed.zoned != bool(self.zone):
            raise StampError(0)
        if parsed.bad.any():
            raise StampError(int(np.argmax(parsed.bad)))
        return self._stamps(parsed.local, parsed.ahead if parsed.zoned else None)

    def _stamps(self, clock: Ints, ahead: Ints | None) -> Stamps:
        """[rows] what the clock shows and how far it is ahead of UTC (None: not written) as stamps."""
        if self.local and (ahead is None or not self.tz):
            return clock.astype("datetime64[us]")
        if ahead is None:
            ahead = clock - find_zone(self.tz).readings(clock).first if self.tz else np.int64(zone_offset(self.zone))
        instants = clock - ahead
        if self.local:
            return (instants + find_zone(self.tz).ahead(instants)).astype("datetime64[us]")
        return instants.astype("datetime64[us]")

    def clock(self, stamps: Stamps) -> Stamps:
        """[rows] what the local clock shows at stamps as `parse` and `Step.stamps` give them."""
        if self.kind != "datetime" or self.local:
            return stamps
        instants = stamps.astype("datetime64[us]").astype(np.int64)
        ahead = find_zone(self.tz).ahead(instants) if self.tz else zone_offset(self.zone)
        return (instants + ahead).astype("datetime64[us]")

    def write(self, step: Step, ordinals: npt.ArrayLike) -> list[str]:
        """Positions on the grid of `step`, as text in this form."""
        return [text.replace(SEPARATOR, " ") for text in self._write(step, ordinals)]

    def columns(self, step: Step, ordinals: npt.ArrayLike) -> list[list[str]]:
        """The same, apart for each column of time that the file has."""
        split = [text.split(SEPARATOR) for text in self._write(step, ordinals)]
        return [[parts[at] for parts in split] for at in range(self.format.count(SEPARATOR) + 1)]

    def texts(self, stamps: Stamps) -> list[str]:
        """Stamps as `parse` gives them, as text in this form; several columns are joined by blanks."""
        return [text.replace(SEPARATOR, " ") for text in self._texts(stamps)]

    def _write(self, step: Step, ordinals: npt.ArrayLike) -> list[str]:
        unique, inverse = np.unique(np.asarray(ordinals, dtype=np.int64), return_inverse=True)
        texts = self._texts(step.stamps(unique))
        written: list[str] = np.asarray([*texts, ""], dtype=object)[inverse.ravel()].tolist()
        return written

    def _texts(self, stamps: Stamps) -> list[str]:
        if self.kind != "datetime":
            tail = "." + "0" * self.fraction if self.fraction else ""
            return [f"{stamp}{tail}" for stamp in stamps.tolist()]
        micros, zones = self._shown(stamps)
        days, inside = np.divmod(micros, DAY)
        if self.hour_24:
            late = inside == 0
            days, inside = days - late, inside + DAY * late
        months = days.astype("datetime64[D]").astype("datetime64[M]")
        numbers = months.astype(np.int64)
        columns = {"day": days - months.astype("datetime64[D]").astype(np.int64) + 1, "inside": inside}
        columns |= {"year": numbers // 12 + 1970, "month": numbers % 12 + 1}
        columns |= {"weekday": (days + MONDAY_BEFORE_EPOCH) % 7, **iso_weeks(days)}
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [
            self._text(**dict(zip(columns, row, strict=True))) + zone for row, zone in zip(rows, zones, strict=True)
        ]

    def _shown(self, stamps: Stamps) -> tuple[Ints, list[str]]:
        """[rows] microseconds on the clock that is written, and the zone behind each."""
        micros = stamps.astype("datetime64[us]").astype(np.int64)
        clock = self.clock(stamps).astype("datetime64[us]").astype(np.int64)
        if not (self.tz and self.zone):
            return clock, [self.zone] * clock.size
        instants = find_zone(self.tz).readings(clock).first if self.local else micros
        if self.zone.strip().upper() in ("Z", "UTC"):
            return instants, [self.zone] * clock.size
        return clock, [_zone_text(ahead, self.zone) for ahead in (clock - instants).tolist()]

    def _text(self, year: int, month: int, day: int, inside: int, weekday: int, week_year: int, week: int) -> str:
        seconds, micros = divmod(inside, 1_000_000)
        hour, minute, second = seconds // 3600, seconds // 60 % 60, seconds % 60
        fraction = f".{micros:06d}000"[: self.fraction + 1] if self.fraction else ""
        half = "AM" if hour % 24 < 12 else "PM"
        values = {"m": month, "d": day, "H": hour, "I": (hour + 11) % 12 + 1, "M": minute, "S": second}
        fields = {f"%{name}": f"{value:0{1 if name in self.unpadded else 2}d}" for name, value in values.items()}
        fields["%S"] += fraction
        fields |= {
            "%Y": f"{year:04d}", "%y": f"{year % 100:02d}", "%q": str((month + 2) // 3),
            "%b": self._cased(MONTHS[month - 1][:3]), "%B": self._cased(MONTHS[month - 1]),
            "%a": self._cased(WEEKDAYS[weekday][:3]), "%A": self._cased(WEEKDAYS[weekday]),
            "%G": f"{week_year:04d}", "%V": f"{week:02d}",
            "%p": half.lower() if self.letters == "lower" else half, "%%": "%",
        }  # fmt: skip
        return re.sub("%[A-Za-z%]", lambda match: fields[match[0]], self.format)

    def _cased(self, name: str) -> str:
        return name.upper() if self.letters == "upper" else name.lower() if self.letters == "lower" else name

    def parse_stamp(self, text: str, *, end: bool = False) -> Any:
        """One stamp typed by a user, as int or datetime64[us].

        The form of the file and ISO are known, and the latter may be shortened ("1960-03", "1960", a
        date without time): its first instant is meant, or its last one with `end`.
        Raises `UsageError`.
        """
        word = np.asarray([text.strip()], dtype=object)
        if self.kind != "datetime":
            numbers = parse_integers(word)
            if numbers is None:
                raise UsageError(f"{text!r} is no time stamp of this file; expected a whole number.", code="bad_stamp")
            return int(numbers[0])
        for pattern in (self.format, *SHORT_FORMATS):
            parsed = parse(word, pattern)
            if parsed.bad[0]:
                continue
            if parsed.zoned and not (self.zone or self.tz):
                break
            clock = parsed.local + (_span(pattern, parsed.local[0]) - 1 if end else 0)
            return self._stamps(clock, parsed.ahead if parsed.zoned else None)[0]
        example = self.texts(np.asarray(["2024-03-01"], dtype="datetime64[us]"))[0]
        raise UsageError(
            f"{text!r} is no time stamp; expected the form of the file, such as {example}, or 2024-03-01 or 2024-03.",
            code="bad_stamp",
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> TimeForm:
        # Files of version 0.1.0 say it in two fields.
        fields = dict(stored)
        days, hours = fields.pop("padded", True), fields.pop("padded_hour", True)
        old = ("" if days else "md") + ("" if hours else "HI")
        return cls(**{"unpadded": old, **fields})


def _span(format: str, clock: np.int64) -> int:
    """Microseconds that a period lasts which is written in `format` and begins when the clock shows `clock`."""
    for directives, micros in (
        ("%S", 1_000_000),
        ("%M", 60_000_000),
        ("%H%I", 3_600_000_000),
        ("%d", DAY),
        ("%V", 7 * DAY),
    ):
        if any(name in format for name in re.findall("%.", directives)):
            return micros
    count = 3 if "%q" in format else 1 if any(name in format for name in ("%m", "%b", "%B")) else 12
    first = clock.astype("datetime64[us]").astype("datetime64[M]")
    days = (first + count).astype("datetime64[D]") - first.astype("datetime64[D]")
    return int(days.astype(np.int64)) * DAY


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
    """Every form that reads the whole column; day-first and month-first may be two.

    `words` [rows] are not empty. `years`: four digits are years of the calendar, not
    numbers. `formats`: no others are tried. `like` is a model's form: it settles what the words do not
    show, such as zeros before numbers that all have two digits.
    Raises `StampError` at the first row that the best form cannot read.
    """
    words = Texts.of(words)
    numbers = None if formats else parse_integers(words)
    if not formats:
        formats = _possible_formats(words[0]) if numbers is None else [*COMPACT, *(["%Y"] if years else [])]
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
        return [Reading(TimeForm("integer", fraction=decimals_of(words)), numbers)]
    mended = _undamaged(words, like)
    if mended is not None:
        return [mended]
    if not failures:
        raise StampError(first_not_integer(words))
    best = min(failures, key=lambda bad: int(bad.sum()))
    raise StampError(int(np.argmax(best)))


def _possible_formats(word: str) -> list[str]:
    return [pattern for pattern in FORMATS if expression(pattern).fullmatch(shape_of(word))]


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
    instants = (parsed.local - parsed.ahead).astype("datetime64[us]") if parsed.zoned else None
    return Reading(form, parsed.local.astype("datetime64[us]"), instants)


def _unpadded(format: str, parsed: Parsed, like: TimeForm | None) -> str:
    """The directives of numbers that are written without a leading zero.

    Those that all have two digits are written as a model knows, or as the others are: the month as the day, a
    number that has a column of its own rather without.
    """
    able = [name for name in "mdHIMS" if f"(?P<{name}>99?)" in expression(format).pattern]
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
    return "".join(name for name in "mdHIMS" if name in short)


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


def looks_like_time(words: Sequence[str]) -> bool:
    """Whether most of these texts are dates of one form (whole numbers: every one of them)."""
    column = np.asarray([*words, ""], dtype=object)[:-1]
    if not column.size:
        return False
    if parse_integers(column) is not None:
        return any(not parse(column, pattern).bad.any() for pattern in COMPACT)
    return any(2 * int(parse(column, pattern).bad.sum()) <= column.size for pattern in _possible_formats(column[0]))
