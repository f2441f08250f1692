"""How time stamps are written: one form of them, which reads columns and writes them back."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.patterns import (
    DAY,
    MONDAY_BEFORE_EPOCH,
    MONTHS,
    SEPARATOR,
    WEEKDAYS,
    Ints,
    Stamps,
    first_not_integer,
    iso_weeks,
    parse,
    parse_integers,
)
from stacklstm_cli.data.texts import Texts, Words
from stacklstm_cli.data.zones import find_zone
from stacklstm_cli.errors import UsageError

if TYPE_CHECKING:
    from stacklstm_cli.data.calendar import Step

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
        values = {"m": month, "d": day, "H": hour, "I": (hour + 11) % 12 + 1, "M": minute, "S": second, "V": week}
        fields = {f"%{name}": f"{value:0{1 if name in self.unpadded else 2}d}" for name, value in values.items()}
        fields["%S"] += fraction
        fields |= {
            "%Y": f"{year:04d}", "%y": f"{year % 100:02d}", "%q": str((month + 2) // 3),
            "%b": self._cased(MONTHS[month - 1][:3]), "%B": self._cased(MONTHS[month - 1]),
            "%a": self._cased(WEEKDAYS[weekday][:3]), "%A": self._cased(WEEKDAYS[weekday]),
            "%G": f"{week_year:04d}",
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
