"""The step between rows: found from the data or given, and the grid of positions it makes.

A position (ordinal) counts steps from 1970 on, or from zero where time is a whole number; the stamp
of every position, past and future, follows from the step alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.patterns import DAY, MONDAY_BEFORE_EPOCH, MONTHS, WEEKDAYS, Stamps
from stacklstm_cli.data.stamps import TimeForm
from stacklstm_cli.errors import UsageError

__all__ = ["OffGridError", "Step", "TimeForm", "infer_step", "parse_freq"]

Ints = npt.NDArray[np.int64]
Unit = Literal["step", "second", "day", "business_day", "month"]

ROWS_AT_ONCE = 2**18
"""Whose positions are worked out together: several numbers are held for each of them."""
COMMON_SHARE = 0.1
"""A smallest difference that is rarer than this among all is a stray row, not the step."""


class OffGridError(ValueError):
    """A stamp that is not on the grid; `index` is its place among the stamps, `step` the grid's."""

    def __init__(self, index: int, step: Step) -> None:
        super().__init__(index, step)
        self.index = index
        self.step = step


@dataclass(frozen=True)
class Step:
    """The time from one row to the next."""

    unit: Unit
    count: int | float = 1
    """Units in a step; whole, except for seconds. A week is seven days, a quarter three months."""
    anchor: str = ""
    """Of months only: "start", "end", or the day of the month."""
    phase: int | None = field(default=0, compare=False)
    """Where the grid stands: microseconds after 1970 (seconds, days, business days), months after
    January 1970, or the number itself, each modulo the step. None: to be taken from the data (`fitted`)."""

    @property
    def _width(self) -> int:
        """Microseconds of a step of seconds or days."""
        return round(self.count * 1_000_000) if self.unit == "second" else int(self.count) * DAY

    def fitted(self, stamps: Stamps) -> Step:
        """This step with its phase settled: the grid runs through the first stamp, if it was open."""
        if self.phase is not None or not stamps.size:
            return self
        first = stamps[:1]
        count = int(self.count) or 1
        if self.unit == "step":
            return replace(self, phase=int(first[0]) % count)
        if self.unit == "month":
            return replace(self, phase=int(first.astype("datetime64[M]").astype(np.int64)[0]) % count)
        micros = int(first.astype(np.int64)[0])
        if self.unit == "business_day":
            number, _ = _business_numbers(np.asarray([micros // DAY]))
            return replace(self, phase=micros % DAY + DAY * (int(number[0]) % count))
        return replace(self, phase=micros % self._width)

    def ordinals(self, stamps: Stamps) -> Ints:
        """[rows] positions of datetime64[us] (or int64) stamps on the grid.

        Raises `OffGridError` with the index of the first stamp that is not on it.
        """
        ordinals = np.empty(stamps.size, dtype=np.int64)
        for begin in range(0, stamps.size, ROWS_AT_ONCE):
            some = slice(begin, begin + ROWS_AT_ONCE)
            ordinals[some], off = self._placed(stamps[some])
            if off.any():
                raise OffGridError(begin + int(np.argmax(off)), self)
        return ordinals

    def _placed(self, stamps: Stamps) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """[rows] position of each stamp, and whether it lies beside the grid."""
        phase = self.phase or 0
        if self.unit == "step":
            ordinals, rest = np.divmod(stamps.astype(np.int64) - phase, int(self.count))
            off = rest != 0
        elif self.unit == "month":
            months = stamps.astype("datetime64[M]").astype(np.int64)
            ordinals, rest = np.divmod(months - phase, int(self.count))
            off = (rest != 0) | (stamps != _month_stamps(months, self.anchor))
        elif self.unit == "business_day":
            days, clock = np.divmod(stamps.astype(np.int64), DAY)
            numbers, weekend = _business_numbers(days)
            ordinals, rest = np.divmod(numbers - phase // DAY, int(self.count))
            off = (rest != 0) | weekend | (clock != phase % DAY)
        else:
            ordinals, rest = np.divmod(stamps.astype(np.int64) - phase, self._width)
            off = rest != 0
        return ordinals.astype(np.int64), off

    def at_origin(self) -> Step:
        """This step with its phase settled without data, if it was open: bins begin at midnight and in January,
        and weeks end on Sunday."""
        if self.phase is not None:
            return self
        if self.unit == "month":
            return replace(self, phase=int(self.count) - 1 if self.anchor == "end" else 0)
        return replace(self, phase=(6 - MONDAY_BEFORE_EPOCH) * DAY if self._ends_bins else 0)

    @property
    def _ends_bins(self) -> bool:
        """Whether a row stands for the time up to its stamp: ends of months, and weeks."""
        return self.anchor == "end" or (self.unit == "day" and int(self.count) % 7 == 0)

    def floors(self, stamps: Stamps) -> Ints:
        """[rows] position of the bin that holds each stamp, on the grid or not.

        A bin is named by its begin; by its last day where that ends a month, a quarter, a year or a week.
        A weekend belongs to the business day before.
        """
        phase, count = self.phase or 0, int(self.count)
        if self.unit == "step":
            return (stamps.astype(np.int64) - phase) // count
        if self.unit == "month":
            months = stamps.astype("datetime64[M]").astype(np.int64)
            if self.anchor == "end":
                return -((phase - months) // count)
            position = (months - phase) // count
            # The month of the stamp may begin before its own position: 10 March is before 15 March.
            return position - (self.stamps(position) > stamps)
        micros = stamps.astype("datetime64[us]").astype(np.int64)
        if self.unit == "business_day":
            return (_business_numbers((micros - phase % DAY) // DAY)[0] - phase // DAY) // count
        if self._ends_bins:
            return -((phase // DAY - micros // DAY) // count)
        return (micros - phase) // self._width

    def stamps(self, ordinals: npt.ArrayLike) -> Stamps:
        """[rows] positions as datetime64[us], or as int64 where the unit is "step"."""
        positions = np.asarray(ordinals, dtype=np.int64)
        phase = self.phase or 0
        if self.unit == "step":
            return positions * int(self.count) + phase
        if self.unit == "month":
            return _month_stamps(positions * int(self.count) + phase, self.anchor)
        if self.unit == "business_day":
            weeks, weekday = np.divmod(positions * int(self.count) + phase // DAY, 5)
            return ((weeks * 7 + weekday - MONDAY_BEFORE_EPOCH) * DAY + phase % DAY).astype("datetime64[us]")
        return (positions * self._width + phase).astype("datetime64[us]")

    def floor(self, stamp: Any) -> int:
        """The last position at or before one stamp (int or datetime64), on the grid or not."""
        if self.unit == "step":
            return (int(stamp) - (self.phase or 0)) // int(self.count)
        instant = np.datetime64(stamp, "us")
        if self.unit == "month":
            position = (int(instant.astype("datetime64[M]").astype(np.int64)) - (self.phase or 0)) // int(self.count)
        elif self.unit == "business_day":
            day = int(instant.astype(np.int64)) // DAY
            number = _business_numbers(np.asarray([day]))[0][0]
            position = (int(number) - (self.phase or 0) // DAY) // int(self.count)
        else:
            position = (int(instant.astype(np.int64)) - (self.phase or 0)) // self._width
        # The month or day of the stamp may begin before its own position: 15 March is before 31 March.
        return position if self.stamps([position])[0] <= instant else position - 1

    def ceil(self, stamp: Any) -> int:
        """The first position at or after one stamp (int or datetime64), on the grid or not."""
        below = self.floor(stamp)
        exact = self.stamps([below])[0] == (int(stamp) if self.unit == "step" else np.datetime64(stamp, "us"))
        return below if exact else below + 1

    @property
    def label(self) -> str:
        """The step for people: "1 hour", "1 week (Saturday)", "1 quarter"."""
        count, name, remark = self.count, self.unit.replace("_", " "), ""
        if self.unit == "second":
            for seconds, larger in ((3600, "hour"), (60, "minute")):
                if count % seconds == 0:
                    count, name = count // seconds, larger
                    break
        elif self.unit == "day" and count % 7 == 0:
            count, name = count // 7, "week"
            if self.phase is not None:
                remark = f" ({WEEKDAYS[(self.phase // DAY + MONDAY_BEFORE_EPOCH) % 7]})"
        elif self.unit == "month":
            for months, larger in ((12, "year"), (3, "quarter")):
                if count % months == 0:
                    count, name = count // months, larger
                    break
            remark = "" if self.anchor == "start" else " (end)" if self.anchor == "end" else f" (day {self.anchor})"
        return f"{count:g} {name}{'' if count == 1 else 's'}{remark}"

    @property
    def alias(self) -> str:
        """The step as `parse_freq` reads it: "30min", "W-SAT", "QS"."""
        count, name = self.count, {"second": "s", "business_day": "B", "day": "D"}.get(self.unit, "")
        if self.unit == "second":
            for seconds, larger in ((3600, "h"), (60, "min")):
                if count % seconds == 0:
                    count, name = count // seconds, larger
                    break
        elif self.unit == "day" and count % 7 == 0:
            weekday = WEEKDAYS[((self.phase or 0) // DAY + MONDAY_BEFORE_EPOCH) % 7]
            count, name = count // 7, "W" if self.phase is None else f"W-{weekday[:3].upper()}"
        elif self.unit == "month":
            name = {12: "Y", 3: "Q"}.get(int(count), "M") + ("E" if self.anchor == "end" else "S")
            if int(count) in (3, 12):
                usual = replace(self, phase=None).at_origin().phase
                name += "" if self.phase in (None, usual) else f"-{MONTHS[self.phase][:3].upper()}"
                count = 1
        return f"{count:g}" if self.unit == "step" else name if count == 1 else f"{count:g}{name}"

    def season(self) -> int:
        """Rows in a season (m), where nobody says otherwise; 1 is none.

        Sub-daily: the rows of a day, else of an hour, else of a minute, whichever is a whole number
        from 2 to 1440. Days: the week. Weeks, months and quarters: the year.
        """
        if self.unit == "second":
            for period in (86_400, 3_600, 60):
                rows = period / self.count
                if abs(rows - round(rows)) < 1e-9 and 2 <= round(rows) <= 1440:
                    return round(rows)
            return 1
        season = {"step": 1, "business_day": 5, "day": 7, "month": 12}[self.unit]
        if self.unit == "day" and self.count % 7 == 0:
            season, count = 52, int(self.count) // 7
        else:
            count = int(self.count)
        return season // count if season % count == 0 else 1

    def as_dict(self) -> dict[str, Any]:
        return {"unit": self.unit, "count": self.count, "anchor": self.anchor, "phase": self.phase}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Step:
        return cls(stored["unit"], stored["count"], stored["anchor"], stored["phase"])


def _month_stamps(months: Ints, anchor: str) -> Stamps:
    """[rows] months after January 1970 as datetime64[us], at their anchor; day 30 is the last of February."""
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    after = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    if anchor == "start":
        days = first
    elif anchor == "end":
        days = after - 1
    else:
        days = np.minimum(first + int(anchor), after) - 1
    return days.astype("datetime64[D]").astype("datetime64[us]")


def _business_numbers(days: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Days after 1970 as a count of weekdays, and which of them are weekend (counted as the Friday before)."""
    weeks, weekday = np.divmod(days + MONDAY_BEFORE_EPOCH, 7)
    return weeks * 5 + np.minimum(weekday, 4), weekday > 4


def step_of_width(micros: int) -> Step:
    """A step of so many microseconds, in days where it is whole days; its phase is open."""
    if micros % DAY == 0:
        return Step("day", micros // DAY, phase=None)
    return Step("second", micros // 1_000_000 if micros % 1_000_000 == 0 else micros / 1_000_000, phase=None)


WIDTHS = {
    **dict.fromkeys(("s", "S", "sec"), 1_000_000),
    **dict.fromkeys(("min", "T", "t"), 60_000_000),
    **dict.fromkeys(("h", "H"), 3_600_000_000),
    **dict.fromkeys(("d", "D"), DAY),
    **dict.fromkeys(("w", "W"), 7 * DAY),
    **dict.fromkeys(("ms", "L"), 1_000),
    **dict.fromkeys(("us", "U"), 1),
}
PERIODS = {
    **dict.fromkeys(("M", "ME"), (1, "end")),
    "MS": (1, "start"),
    **dict.fromkeys(("q", "Q", "QE"), (3, "end")),
    "QS": (3, "start"),
    **dict.fromkeys(("y", "Y", "YE", "a", "A"), (12, "end")),
    **dict.fromkeys(("YS", "AS"), (12, "start")),
}


def parse_freq(text: str) -> Step:
    """A step as typed: a pandas alias, old or new, with a multiple (`15min`, `2W`, `QS-FEB`), or a whole number.

    Without a named weekday or month the phase is left open, for the data to settle.
    Raises `UsageError`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)?([A-Za-z]*)(?:-([A-Za-z]{3}))?", text.strip())
    number, name, anchor = match.groups() if match and match[0] else (None, "?", None)
    count = float(number or 1)
    step: Step | None = None
    if name == "" and anchor is None and count.is_integer():
        step = Step("step", int(count), phase=None)
    elif name in WIDTHS and (anchor is None or name in "wW"):
        step = step_of_width(round(count * WIDTHS[name]))
        if anchor is not None:
            days = [day[:3].upper() for day in WEEKDAYS]
            known = anchor.upper() in days
            # The first such weekday of 1970.
            phase = (days.index(anchor.upper()) - MONDAY_BEFORE_EPOCH) % 7 * DAY if known else 0
            step = replace(step, phase=phase) if known else None
    elif name in ("b", "B") and anchor is None and count.is_integer():
        step = Step("business_day", int(count), phase=None)
    elif name in PERIODS and count.is_integer():
        months, edge = PERIODS[name]
        step = Step("month", months * int(count), edge, phase=None)
        if anchor is not None:
            known_months = [month[:3].upper() for month in MONTHS]
            known = anchor.upper() in known_months and months > 1
            step = (
                replace(step, phase=known_months.index(anchor.upper()) % int(step.count)) if known and count else None
            )
    if step is None or step.count <= 0:
        raise UsageError(
            f"--freq {text!r} is no step between rows.",
            hint="Type a pandas alias such as 15min, h, D, B, W-SUN, MS or YS, or a whole number for counted rows.",
            code="bad_freq",
        )
    return step


def infer_step(stamps: Stamps, offsets: Ints) -> Step | None:
    """The step between the rows of all series together; None if no series has two rows.

    `stamps` [rows] datetime64[us] or int64, ascending and distinct within each series; series i is
    `stamps[offsets[i]:offsets[i + 1]]`. Rows may be missing: the most frequent difference is the
    step, and every stamp must lie on its grid. Raises `OffGridError` for the first that does not.
    """
    inside = np.ones(max(stamps.size - 1, 0), dtype=bool)
    borders = offsets[1:-1] - 1
    inside[borders[(borders >= 0) & (borders < inside.size)]] = False
    if not inside.any():
        return None
    failures: list[OffGridError] = []
    for candidate in _candidates(stamps, inside):
        step = candidate.fitted(stamps)
        try:
            step.ordinals(stamps)
        except OffGridError as error:
            failures.append(error)
        else:
            return step
    raise failures[0]


def _candidates(stamps: Stamps, inside: npt.NDArray[np.bool_]) -> Iterator[Step]:
    """Steps that may fit, the most telling first."""
    numbers = stamps.view(np.int64)
    if stamps.dtype.kind != "M":
        yield from (Step("step", count, phase=None) for count in _usual(numbers, inside))
        return
    if not (numbers % DAY).any():
        anchor = _month_anchor(stamps)
        if anchor:
            months = stamps.astype("datetime64[M]").astype(np.int64)
            yield from (Step("month", count, anchor, phase=None) for count in _usual(months, inside))
    widths = _usual(numbers, inside)
    if widths[0] == DAY:
        _, weekend = _business_numbers(numbers // DAY)
        # Monday to Thursday alone could as well be plain days: a weekend must have been passed over.
        if not weekend.any() and (np.diff(numbers)[inside] == 3 * DAY).any():
            yield Step("business_day", 1, phase=None)
    yield from (step_of_width(width) for width in widths)


def _usual(numbers: Ints, inside: npt.NDArray[np.bool_]) -> list[int]:
    """The most frequent difference (of equals the smallest), then the smallest if it is not rare.

    `inside` [rows - 1]: whether a number and the one before it are of one series.
    """
    differences = np.diff(numbers)
    values, counts = np.unique(differences if inside.all() else differences[inside], return_counts=True)
    usual = int(values[np.argmax(counts)])
    smallest = int(values[0])
    return [usual, smallest] if smallest != usual and counts[0] >= COMMON_SHARE * counts.sum() else [usual]


def _month_anchor(stamps: Stamps) -> str:
    """ "start", "end" or the day of the month on which all stamps fall; "" if there is none."""
    months = stamps.astype("datetime64[M]").astype(np.int64)
    day = (stamps.astype("datetime64[D]") - _month_stamps(months, "start").astype("datetime64[D]")).astype(np.int64) + 1
    latest = str(int(day.max()))
    for anchor in ("start", "end", latest):
        if (stamps == _month_stamps(months, anchor)).all():
            return anchor
    return ""
