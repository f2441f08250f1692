"""How a file writes its time stamps: found from a column, read and written back in the same form.

A form is a strptime format, and two things strptime cannot say: whether numbers are padded with
zeros, and the zone behind the time. `%q` is the quarter, which strptime lacks.

Columns are parsed whole: digits are replaced by 9, so that rows fall into a few shapes ("99/9/9999");
each shape is matched once by a regular expression, and the numbers of all its rows are read at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from stacklstm_cli.errors import UsageError

if TYPE_CHECKING:
    from stacklstm_cli.data.calendar import Step

Stamps = npt.NDArray[Any]
"""datetime64[us], or int64 where time is counted in whole numbers."""
Words = npt.NDArray[np.object_]

DAY = 86_400_000_000
"""Microseconds in a day."""
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

DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y"),
    *("%m/%d/%y", "%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y", "%m-%d-%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d%b%Y"),
    *("%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
)
PERIODS = (
    *("%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%Y%m", "%b %Y", "%b-%Y", "%b-%y", "%b %y", "%B %Y", "%Y-%b", "%Y %b"),
    *("%YQ%q", "%Y-Q%q", "%Y Q%q", "Q%q %Y"),
)
TIMES = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%I:%M:%S%p")
FORMATS = (
    *DATES,
    *(f"{date} {time}" for date in DATES for time in TIMES),
    *(f"%Y-%m-%dT{time}" for time in ("%H:%M", "%H:%M:%S")),
    *("%Y-%m-%d %H", "%Y-%m-%dT%H"),
    *PERIODS,
)
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

MAX_SHAPES = 500
"""No form has more shapes (twelve month names, one or two digits, am or pm); beyond it a column is no time."""
MAX_INTEGER_DIGITS = 15
"""Longer whole numbers are no time stamps, and their differences might overflow."""


class StampError(ValueError):
    """A stamp that is not of the form; `index` is its place in the column."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@cache
def _expression(format: str) -> re.Pattern[str]:
    """The format as an expression over text whose digits are all 9."""
    # Without separators the widths must be fixed, or 2020115 would be a date.
    some = "99" if "%Y%m" in format else "99?"
    short = "|".join(name[:3] for name in MONTHS)
    fields = {
        "%Y": "(?P<Y>9{4})", "%y": "(?P<y>99)", "%m": f"(?P<m>{some})", "%d": f"(?P<d>{some})", "%q": "(?P<q>9)",
        "%b": f"(?P<b>{short})", "%B": f"(?P<b>{'|'.join(MONTHS)})", "%H": "(?P<H>99?)", "%I": "(?P<I>99?)",
        "%M": "(?P<M>99)", "%S": r"(?P<S>99)(?:[.,](?P<f>9{1,9}))?", "%p": "(?P<p>[ap]m)",
    }  # fmt: skip
    pieces = re.split(r"(%[A-Za-z])", format)
    text = "".join(fields[piece] if piece in fields else re.escape(piece) for piece in pieces)
    zone = r"(?P<zone> ?(?:Z|UTC|[+-]99(?::?99)?))?" if "%H" in format or "%I" in format else "(?P<zone>)"
    return re.compile(rf"\s*{text}{zone}\s*", re.IGNORECASE)


def _letters(words: Words) -> npt.NDArray[np.uint8]:
    """[rows, width] the words as bytes; what is not ASCII becomes `?`, which no form has."""
    try:
        raw = words.astype("S")
    except UnicodeEncodeError:
        raw = np.asarray([word.encode("ascii", "replace") for word in words], dtype="S")
    width = max(raw.dtype.itemsize, 1)
    return np.ascontiguousarray(raw).view(np.uint8).reshape(words.size, width)


def _shapes(letters: npt.NDArray[np.uint8]) -> Iterator[tuple[str, npt.NDArray[np.int64] | slice]]:
    """Each shape of the column with its rows, up to `MAX_SHAPES`."""
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


@dataclass(frozen=True)
class _Parsed:
    """A column read by one format."""

    local: npt.NDArray[np.int64]
    """[rows] microseconds since 1970 on the clock of the place."""
    offset: npt.NDArray[np.int64]
    """[rows] microseconds that clock is ahead of UTC."""
    bad: npt.NDArray[np.bool_]
    matches: tuple[re.Match[str], ...]


def _parse(words: Words, format: str) -> _Parsed:
    letters = _letters(words)
    local = np.zeros(words.size, dtype=np.int64)
    offset = np.zeros(words.size, dtype=np.int64)
    bad = np.ones(words.size, dtype=bool)
    matches: list[re.Match[str]] = []
    for shape, rows in _shapes(letters):
        match = _expression(format).fullmatch(shape)
        # A zone stands behind every stamp or behind none.
        if match is None or (matches and bool(match["zone"]) != bool(matches[0]["zone"])):
            continue
        matches.append(match)
        local[rows], offset[rows], good = _read_shape(letters[rows], match)
        bad[rows] = ~good
    return _Parsed(local, offset, bad, tuple(matches))


def _read_shape(
    letters: npt.NDArray[np.uint8], match: re.Match[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Rows of one shape: local microseconds, microseconds ahead of UTC, and whether the date exists."""
    groups = match.groupdict()

    def number(name: str, default: int) -> npt.NDArray[np.int64]:
        start, end = match.span(name) if groups.get(name) else (0, 0)
        return digits(start, end) if end else np.full(len(letters), default, dtype=np.int64)

    def digits(start: int, end: int) -> npt.NDArray[np.int64]:
        total = np.zeros(len(letters), dtype=np.int64)
        for column in range(start, end):
            total = total * 10 + (letters[:, column].astype(np.int64) - ord("0"))
        return total

    if groups.get("y"):
        # POSIX: 69 to 99 are the 1900s.
        short = number("y", 0)
        year = short + np.where(short < 69, 2000, 1900)
    else:
        year = number("Y", 1970)
    if groups.get("q"):
        quarter = number("q", 1)
        month = np.where((quarter >= 1) & (quarter <= 4), quarter * 3 - 2, 0)
    elif groups.get("b"):
        names = [name[:3].lower() for name in MONTHS]
        month = np.full(len(letters), names.index(groups["b"][:3].lower()) + 1, dtype=np.int64)
    else:
        month = number("m", 1)
    day, minute, second = number("d", 1), number("M", 0), number("S", 0)
    if groups.get("I"):
        twelve = number("I", 12)
        hour = np.where((twelve >= 1) & (twelve <= 12), twelve % 12 + (12 if groups["p"].lower() == "pm" else 0), 24)
    else:
        hour = number("H", 0)
    fraction = number("f", 0)
    places = len(groups.get("f") or "")
    fraction = fraction * 10 ** (6 - places) if places <= 6 else fraction // 10 ** (places - 6)

    good = (month >= 1) & (month <= 12) & (year >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    months = ((year - 1970) * 12 + np.where(good, month, 1) - 1).astype("datetime64[M]")
    first = months.astype("datetime64[D]").astype(np.int64)
    after = (months + 1).astype("datetime64[D]").astype(np.int64)
    good &= (day >= 1) & (day <= after - first)
    local = (first + day - 1) * DAY + ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction

    ahead = np.zeros(len(letters), dtype=np.int64)
    zone = groups["zone"] or ""
    if "9" in zone:
        sign = zone.strip()[0]
        start = match.start("zone") + zone.index(sign) + 1
        ahead = digits(start, start + 2) * 60
        if zone.count("9") == 4:
            ahead = ahead + digits(match.end("zone") - 2, match.end("zone"))
        ahead = ahead * (-60_000_000 if sign == "-" else 60_000_000)
        good &= np.abs(ahead) <= DAY
    return local, ahead, good


def zone_offset(zone: str) -> int:
    """Microseconds that `zone` ("Z", "+02:00", …) is ahead of UTC."""
    match = re.fullmatch(r"([+-])(\d\d):?(\d\d)?", zone.strip())
    if match is None:
        return 0
    minutes = int(match[2]) * 60 + int(match[3] or 0)
    return (-1 if match[1] == "-" else 1) * minutes * 60_000_000


@dataclass(frozen=True)
class TimeForm:
    """How the time stamps of a file are written."""

    kind: Literal["datetime", "integer", "row"]
    """Dates and times; whole numbers; or no column at all, only the number of the row."""
    format: str = ""
    """strptime format of a "datetime", without fraction and zone; `%q` is the quarter."""
    padded: bool = True
    """False: day and month are written without a leading zero, as in 1/7/20."""
    padded_hour: bool = True
    fraction: int = 0
    """Decimals of the seconds."""
    zone: str = ""
    """Zone of the last stamp, as written: "", "Z", "+02:00", " UTC"."""
    local: bool = False
    """True: stamps have a zone but all stand at midnight there, so calendar days count, not instants."""
    letters: Literal["title", "upper", "lower"] = "title"

    def parse(self, words: Words) -> Stamps:
        """[rows] text as datetime64[us] (UTC instants where stamps have a zone) or int64.

        Raises `StampError` at the first word of another form.
        """
        if self.kind != "datetime":
            numbers = parse_integers(words)
            if numbers is None:
                raise StampError(next(i for i, word in enumerate(words) if not _is_integer(word)))
            return numbers
        parsed = _parse(words, self.format)
        # The rows of one column agree on having a zone; whether they are meant to is this form's to say.
        if parsed.matches and bool(parsed.matches[0]["zone"]) != bool(self.zone):
            raise StampError(0)
        if parsed.bad.any():
            raise StampError(int(np.argmax(parsed.bad)))
        return (parsed.local if self.local else parsed.local - parsed.offset).astype("datetime64[us]")

    def write(self, step: Step, ordinals: npt.ArrayLike) -> list[str]:
        """Positions on the grid of `step`, as text in this form."""
        unique, inverse = np.unique(np.asarray(ordinals, dtype=np.int64), return_inverse=True)
        texts = self.texts(step.stamps(unique))
        written: list[str] = np.asarray([*texts, ""], dtype=object)[inverse.ravel()].tolist()
        return written

    def texts(self, stamps: Stamps) -> list[str]:
        """Stamps as `parse` gives them, as text in this form."""
        if self.kind != "datetime":
            return [str(stamp) for stamp in stamps.tolist()]
        shift = 0 if self.local else zone_offset(self.zone)
        micros = stamps.astype("datetime64[us]").astype(np.int64) + shift
        days, inside = np.divmod(micros, DAY)
        months = days.astype("datetime64[D]").astype("datetime64[M]")
        day = days - months.astype("datetime64[D]").astype(np.int64) + 1
        numbers = months.astype(np.int64)
        year, month = numbers // 12 + 1970, numbers % 12 + 1
        return [
            self._text(*fields)
            for fields in zip(year.tolist(), month.tolist(), day.tolist(), inside.tolist(), strict=True)
        ]

    def _text(self, year: int, month: int, day: int, inside: int) -> str:
        seconds, micros = divmod(inside, 1_000_000)
        hour, minute, second = seconds // 3600, seconds // 60 % 60, seconds % 60
        width, hour_width = 1 + self.padded, 1 + self.padded_hour
        fraction = f".{micros:06d}000"[: self.fraction + 1] if self.fraction else ""
        half = "AM" if hour < 12 else "PM"
        fields = {
            "%Y": f"{year:04d}", "%y": f"{year % 100:02d}", "%m": f"{month:0{width}d}", "%d": f"{day:0{width}d}",
            "%q": str((month + 2) // 3), "%b": self._cased(MONTHS[month - 1][:3]), "%B": self._cased(MONTHS[month - 1]),
            "%H": f"{hour:0{hour_width}d}", "%I": f"{(hour + 11) % 12 + 1:0{hour_width}d}", "%M": f"{minute:02d}",
            "%S": f"{second:02d}{fraction}", "%p": half.lower() if self.letters == "lower" else half,
        }  # fmt: skip
        return re.sub("%[A-Za-z]", lambda match: fields[match[0]], self.format) + self.zone

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
            parsed = _parse(word, pattern)
            if parsed.bad[0]:
                continue
            zoned = bool(parsed.matches[0]["zone"])
            if zoned and not self.zone:
                break
            ahead = 0 if self.local else int(parsed.offset[0]) if zoned else zone_offset(self.zone)
            instant = np.int64(int(parsed.local[0]) - ahead).astype("datetime64[us]")
            return instant + _span(pattern, instant) - np.timedelta64(1, "us") if end else instant
        example = self.texts(np.asarray(["2024-03-01"], dtype="datetime64[us]"))[0]
        raise UsageError(
            f"{text!r} is no time stamp; expected the form of the file, such as {example}, or 2024-03-01 or 2024-03.",
            code="bad_stamp",
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> TimeForm:
        return cls(**stored)


def _span(format: str, instant: np.datetime64) -> np.timedelta64:
    """How long a period lasts that is written in `format` and begins at `instant`."""
    for directive, micros in (
        ("%S", 1_000_000),
        ("%M", 60_000_000),
        ("%H", 3_600_000_000),
        ("%I", 3_600_000_000),
        ("%d", DAY),
    ):
        if directive in format:
            return np.timedelta64(micros, "us")
    count = 3 if "%q" in format else 1 if any(name in format for name in ("%m", "%b", "%B")) else 12
    # A zone may have moved the instant off the first of the month by some hours: round to the nearest day.
    first = (instant + np.timedelta64(DAY // 2, "us")).astype("datetime64[M]")
    days = (first + count).astype("datetime64[D]") - first.astype("datetime64[D]")
    return np.timedelta64(int(days.astype(np.int64)) * DAY, "us")


def _is_integer(word: str) -> bool:
    return re.fullmatch(rf"\s*[+-]?\d{{1,{MAX_INTEGER_DIGITS}}}\s*", word) is not None


def parse_integers(words: Words) -> npt.NDArray[np.int64] | None:
    """[rows] whole numbers, or None if some word is not one (or is longer than a time stamp can be)."""
    if not words.size or not _is_integer(words[0]):
        return None
    letters = _letters(words)
    if (
        letters.shape[1] > MAX_INTEGER_DIGITS + 1
        or not np.isin(letters, np.frombuffer(b"0123456789+- \0", np.uint8)).all()
    ):
        return None
    try:
        return words.astype("S").astype(np.int64)
    except ValueError:
        return None


def find_forms(words: Words, *, years: bool = False) -> list[tuple[TimeForm, Stamps]]:
    """Every form that reads the whole column, with the stamps it gives; day-first and month-first may be two.

    `words` [rows] are distinct and not empty. `years`: four digits are years of the calendar, not
    numbers. Raises `StampError` at the first word that the best form cannot read.
    """
    numbers = parse_integers(words)
    formats = _possible_formats(words[0]) if numbers is None else ["%Y%m%d", "%Y%m", *(["%Y"] if years else [])]
    found: list[tuple[TimeForm, Stamps]] = []
    failures: list[npt.NDArray[np.bool_]] = []
    for pattern in formats:
        parsed = _parse(words, pattern)
        if parsed.bad.any():
            failures.append(parsed.bad)
            continue
        form = _form(pattern, parsed, str(words[-1]))
        stamps = (parsed.local if form.local else parsed.local - parsed.offset).astype("datetime64[us]")
        if not any(np.array_equal(stamps, other) for _, other in found):
            found.append((form, stamps))
    if found:
        return found
    if numbers is not None:
        return [(TimeForm("integer"), numbers)]
    if not failures:
        raise StampError(0)
    best = min(failures, key=lambda bad: int(bad.sum()))
    raise StampError(int(np.argmax(best)))


def _possible_formats(word: str) -> list[str]:
    shape = re.sub(r"[0-9]", "9", word)
    return [pattern for pattern in FORMATS if _expression(pattern).fullmatch(shape)]


def _form(format: str, parsed: _Parsed, last_word: str) -> TimeForm:
    def widths(*names: str) -> set[int]:
        return {len(match[name]) for match in parsed.matches for name in names if match.groupdict().get(name)}

    names = [
        name for match in parsed.matches for name in (match.groupdict().get("b"), match.groupdict().get("p")) if name
    ]
    letters: Literal["title", "upper", "lower"] = "title"
    if names and all(name.islower() for name in names):
        letters = "lower"
    elif names and all(name.isupper() for name in names):
        letters = "upper"
    match = _expression(format).fullmatch(re.sub(r"[0-9]", "9", last_word))
    start, end = match.span("zone") if match else (0, 0)
    zone = last_word[start:end] if end > start else ""
    return TimeForm(
        "datetime",
        format,
        padded=1 not in widths("m", "d"),
        padded_hour=1 not in widths("H", "I"),
        fraction=max(widths("f"), default=0),
        zone=zone,
        local=bool(zone) and not (parsed.local % DAY).any(),
        letters=letters,
    )


def looks_like_time(words: Sequence[str]) -> bool:
    """Whether most of these texts are dates of one form (whole numbers: every one of them)."""
    column = np.asarray([*words, ""], dtype=object)[:-1]
    if not column.size:
        return False
    if parse_integers(column) is not None:
        return any(not _parse(column, pattern).bad.any() for pattern in ("%Y%m%d", "%Y%m"))
    return any(2 * int(_parse(column, pattern).bad.sum()) <= column.size for pattern in _possible_formats(column[0]))
