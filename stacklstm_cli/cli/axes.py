"""Where an axis has its ticks and what stands at them: dates, steps, numbers.

The horizontal axis of a chart of rows is the grid of positions that its panel is on, so that months are
equally wide, weekends that the data does not have take no room and no switch of the clocks bends a line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from stacklstm_cli.data.panel import Ints, Panel
from stacklstm_cli.data.patterns import DAY, MONDAY_BEFORE_EPOCH, MONTHS

HOUR, MINUTE, SECOND = DAY // 24, DAY // 1440, DAY // 86400
MONTHS_APART = (12_000, 6_000, 2_400, 1_200, 600, 240, 120, 60, 24, 12, 6, 3, 1)
DAYS_APART = (14, 7, 2, 1)
TIMES_APART = tuple(n * HOUR for n in (12, 6, 3, 1)) + tuple(
    n * unit for unit in (MINUTE, SECOND) for n in (30, 10, 5, 1)
)


class Tick(NamedTuple):
    """A place on an axis, and what stands there."""

    at: float
    label: str
    below: str = ""
    """The part of a date that the ticks to the right share, such as its year; "" where it did not change."""

    @property
    def line(self) -> str:
        """Both on one line."""
        return f"{self.label} {self.below}".rstrip()


class Axis(Protocol):
    """Whatever knows where the ticks of a range are."""

    @property
    def room(self) -> int:
        """Points of width that a label takes with the space about it."""
        ...

    def ticks(self, low: float, high: float, most: int) -> list[Tick]:
        """At most so many ticks from `low` to `high`."""
        ...


@dataclass(frozen=True, eq=False)
class TimeAxis:
    """Positions on a panel's grid, labelled by its dates or its numbers."""

    panel: Panel
    room: int = 62

    def ticks(self, low: float, high: float, most: int) -> list[Tick]:
        """Ticks at the first row of every year, month, day or hour, whichever are as many as there is room for.

        The first and the last row, in the form of the file, where no such unit begins twice.
        """
        first, last = math.ceil(low), math.floor(high)
        positions = np.arange(first - 1, last + 1)  # [1 + rows], the row before tells whether a unit begins
        if last < first:
            return []
        stamps = self.panel.step.stamps(positions)
        if stamps.dtype.kind != "M":
            return self._numbers(first, last, most)
        clock = self.panel.time_form.clock(stamps).astype("datetime64[us]").astype(np.int64)
        best: tuple[Ints, str] = np.empty(0, dtype=np.int64), ""
        for units, kind in _units(clock):
            begins = np.flatnonzero(np.diff(units) != 0) + 1
            if best[0].size < begins.size <= most:
                best = begins, kind
        begins, kind = best
        if begins.size < 2:
            ends = [first, last] if first < last else [first]
            return [Tick(at, label) for at, label in zip(ends, self.panel.stamps(ends), strict=True)]
        return _dated(positions[begins].tolist(), clock[begins], kind)

    def _numbers(self, first: int, last: int, most: int) -> list[Tick]:
        """Round numbers of a column of steps, where the grid has them."""
        low, high = self.panel.step.stamps([first, last]).tolist()
        found = [int(value) for value in round_numbers(low, high, most) if float(value).is_integer()]
        ticks = [(self.panel.step.floor(value), value) for value in found]
        exact = [at for at, value in ticks if int(self.panel.step.stamps([at])[0]) == value]
        places = exact if len(exact) > 1 else list(range(first, last + 1, max(1, -(-(last - first + 1) // most))))
        return [Tick(at, label) for at, label in zip(places, self.panel.stamps(places), strict=True)]


@dataclass(frozen=True)
class NumberAxis:
    """Numbers: steps of a horizon, of an optimiser, shares."""

    whole: bool = True
    room: int = 36

    def ticks(self, low: float, high: float, most: int) -> list[Tick]:
        found = [value for value in round_numbers(low, high, most) if not self.whole or float(value).is_integer()]
        return [Tick(value, f"{value:,.10g}") for value in found]


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten from `low` to `high`."""
    span = high - low
    if not span > 0:
        return [low]
    power = math.floor(math.log10(span)) - 2
    while True:
        for factor in (1, 2, 5):
            width = factor * 10.0**power
            first, last = math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9)
            if last - first + 1 <= max(most, 1):
                # Multiplied and rounded to the width, 3 × 0.1 is 0.3.
                return [round(number * width, max(0, -power)) for number in range(first, last + 1)]
        power += 1


def number_ticks(low: float, high: float, most: int) -> list[Tick]:
    """Ticks of an axis of values: as many decimals as tell them apart, an exponent where most digits are zeros."""
    values = round_numbers(low, high, most)
    largest = max((abs(value) for value in values), default=0.0)
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    power = power if power < -4 or power > 6 else 0
    scaled = np.asarray(values) / 10.0**power
    wrong = 1e-6 * (high - low) / 10.0**power
    decimals = next((d for d in range(15) if (np.abs(scaled - scaled.round(d)) <= wrong).all()), 15)
    tail = f"e{power}" if power else ""
    return [Tick(value, f"{value / 10.0**power:,.{decimals}f}{tail}" if value else "0") for value in values]


def value_range(low: float, high: float, from_zero: bool = False) -> tuple[float, float]:
    """The limits of an axis that shows `low` to `high`, also where these are equal but for rounding."""
    spread = high - low
    if spread <= 1e-7 * max(abs(low), abs(high)):
        spread = abs(high) or 1.0
    return (low if from_zero and low == 0 else low - 0.05 * spread), high + 0.05 * spread


def _units(clock: Ints) -> Iterator[tuple[Ints, str]]:
    """The number of the unit that each time [rows] is in, the longest units first, and how they are labelled."""
    days = clock // DAY
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) + 1970 * 12
    for apart in MONTHS_APART:
        yield months // apart, "year" if apart % 12 == 0 else "month"
    for apart in DAYS_APART:
        yield (days + MONDAY_BEFORE_EPOCH) // apart, "day"
    for apart in TIMES_APART:
        yield clock // apart, "second" if apart < MINUTE else "minute"


def _dated(places: list[int], clock: Ints, kind: str) -> list[Tick]:
    """Ticks at these places [ticks]; what a label leaves out stands below the first and where it changes."""
    ticks, shared = [], ""
    for place, moment in zip(places, clock.tolist(), strict=True):
        day, inside = divmod(moment, DAY)
        year, month, date = str(np.datetime64(day, "D")).rsplit("-", 2)
        month_name = MONTHS[int(month) - 1][:3]
        hour, minute, second = inside // HOUR, inside // MINUTE % 60, inside // SECOND % 60
        label, below = {
            "year": (year, ""),
            "month": (month_name, year),
            "day": (f"{int(date)} {month_name}", year),
            "minute": (f"{hour:02d}:{minute:02d}", f"{int(date)} {month_name} {year}"),
            "second": (f"{hour:02d}:{minute:02d}:{second:02d}", f"{int(date)} {month_name} {year}"),
        }[kind]
        ticks.append(Tick(place, label, below if below != shared else ""))
        shared = below
    return ticks
