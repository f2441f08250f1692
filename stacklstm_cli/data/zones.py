"""Time zones: the clock of a place, and the instants behind it.

The days on which a zone sets its clocks are looked up once for the years of a file; whole columns are
then converted by searching in these few switches.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import numpy.typing as npt

from stacklstm_cli.errors import UsageError

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

EPOCH = datetime(1970, 1, 1)
SECOND = 1_000_000
DAY = 86_400 * SECOND
"""Microseconds in a day."""
OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d\d?)(?::?(\d\d))?")


class UnorderedError(ValueError):
    """Hours that the clocks show twice, in rows without order; `index` is the place of one such row."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass(frozen=True)
class Readings:
    """What instants a column of local times may mean: two of them where the clocks are set back."""

    first: Ints
    """[rows] microseconds since 1970, before the clocks are set."""
    second: Ints
    """[rows] the same after that; equal to `first` at all other times."""
    switch: Ints
    """[rows] number of the switch that repeats the time, -1 at all other times."""
    skipped: Flags
    """[rows] local times that no clock shows, where it is set forward; read by the clock before that."""


@dataclass(frozen=True)
class Zone:
    """A time zone by the name that was typed."""

    name: str
    info: tzinfo

    def ahead(self, instants: Ints) -> Ints:
        """[rows] microseconds that the local clock is ahead of UTC at instants, microseconds since 1970."""
        at, ahead = self._switches(instants)
        found: Ints = ahead[np.searchsorted(at, instants, side="right")]
        return found

    def readings(self, local: Ints) -> Readings:
        """The instants at which the clock shows `local` [rows], microseconds since 1970."""
        at, ahead = self._switches(local)
        # The clock at each switch, as it stood before and as it stands after.
        last = np.searchsorted(at + ahead[:-1], local, side="right")
        next_ = np.searchsorted(at + ahead[1:], local, side="right")
        skipped = last > next_
        first, second = local - ahead[np.minimum(last, next_)], local - ahead[next_]
        return Readings(first, second, np.where(next_ > last, last, -1), skipped)

    def _switches(self, moments: Ints) -> tuple[Ints, Ints]:
        if not moments.size:
            return _switches(self.info, 1970, 1979)
        years = np.asarray([moments.min(), moments.max()]).astype("datetime64[us]").astype("datetime64[Y]")
        first, last = (years.astype(np.int64) + 1970).tolist()
        # Whole decades, so that most columns of a file ask for the same.
        return _switches(self.info, max((first - 1) // 10 * 10, 2), min((last + 1) // 10 * 10 + 9, 9998))


@lru_cache(maxsize=64)
def _switches(info: tzinfo, first: int, last: int) -> tuple[Ints, Ints]:
    """Instants [K] at which the clocks are set, and [K + 1] microseconds ahead of UTC before, between and after."""

    def ahead(second: int) -> int:
        moment = (EPOCH + timedelta(seconds=second)).replace(tzinfo=info)
        offset = info.fromutc(moment).utcoffset() or timedelta()
        return offset // timedelta(microseconds=1)

    days = np.arange((datetime(first, 1, 1) - EPOCH).days, (datetime(last + 1, 1, 1) - EPOCH).days + 1).tolist()
    offsets = [ahead(day * 86_400) for day in days]
    at, kept = [], offsets[:1]
    for day, (before, after) in zip(days[:-1], pairwise(offsets), strict=True):
        if before != after:
            low, high = day * 86_400, (day + 1) * 86_400
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if ahead(middle) == before else (low, middle)
            at.append(high * SECOND)
            kept.append(after)
    return np.asarray(at, dtype=np.int64), np.asarray(kept, dtype=np.int64)


@lru_cache(maxsize=16)
def find_zone(name: str) -> Zone:
    """A zone by its name (`Europe/Berlin`, `UTC`) or its offset (`+02:00`). Raises `UsageError`."""
    match = OFFSET.fullmatch(name.strip())
    if match:
        minutes = int(match[2]) * 60 + int(match[3] or 0)
        if minutes < 24 * 60:
            return Zone(name, timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes)))
    if name.strip().upper() in ("UTC", "Z", "GMT"):
        return Zone(name, timezone.utc)
    try:
        return Zone(name, ZoneInfo(name))
    except (ValueError, KeyError, OSError) as error:
        near = _near(name)
        raise UsageError(
            f"--tz {name!r} is no time zone; expected a name such as Europe/Berlin, UTC or an offset such as +02:00.",
            hint=f"Did you mean --tz {near}?" if near else "Type --tz UTC, --tz +02:00 or the name of a large city.",
            code="unknown_tz",
        ) from error


def _near(name: str) -> str:
    """The known zone that looks most like a name, or whose city it is; "" if none does."""
    known = sorted(available_timezones())
    wanted = name.strip().lower().replace(" ", "_")
    spellings = {zone.lower(): zone for zone in known} | {zone.lower().rsplit("/", 1)[-1]: zone for zone in known}
    near = difflib.get_close_matches(wanted, spellings, 1, 0.7)
    return spellings[near[0]] if near else ""


def instants_in_order(readings: Readings, local: Ints, series: npt.NDArray[np.integer[Any]]) -> Ints:
    """[rows] the instant of each local time, told from the order of the rows where the clocks show it twice.

    `series` [rows] numbers the series. The rows of a series ascend or descend in time, at least about each
    switch: of two equal times the earlier row in time is summer time, and so is a single one unless a later
    clock time stands before it, or only winter time is a whole number of usual steps from other rows.
    Raises `UnorderedError` where the rows are in no order.
    """
    instants: Ints = readings.first.copy()
    order = np.argsort(series, kind="stable")
    folded = np.flatnonzero(readings.switch[order] >= 0)
    if not folded.size:
        return instants
    rows = order[folded]
    clock, owner, switch = local[rows], series[rows], readings.switch[rows]
    same = (owner[1:] == owner[:-1]) & (switch[1:] == switch[:-1])
    start = np.concatenate([[True], ~(same & (np.diff(folded) == 1))])
    begins = np.flatnonzero(start)
    ends = np.append(begins[1:], folded.size) - 1
    group = np.cumsum(start) - 1
    _refuse_scattered(rows, clock, owner, switch, group)

    # The rows next to each group, of the same series, tell which way time runs.
    ordered, owners = local[order], series[order]
    before, after = np.maximum(folded[begins] - 1, 0), np.minimum(folded[ends] + 1, order.size - 1)
    before = np.where(owners[before] == owner[begins], before, folded[begins])
    after = np.where(owners[after] == owner[begins], after, folded[ends])
    descending = (ordered[after] < ordered[before])[group]
    place = np.where(descending, ends[group] - np.arange(folded.size), np.arange(folded.size) - begins[group])

    by_time = np.lexsort((place, clock, group))
    again = np.zeros(folded.size, dtype=bool)
    again[by_time[1:]] = (np.diff(clock[by_time]) == 0) & (np.diff(group[by_time]) == 0)
    once = ~again
    once[by_time[:-1]] &= ~again[by_time[1:]]

    by_place = np.lexsort((place, group))
    # Groups are set apart, so that the highest clock time so far is that of the same group.
    height = (clock - readings.first.min()) // SECOND + group * np.int64(2**34)
    highest = np.maximum.accumulate(height[by_place])
    passed = np.zeros(folded.size, dtype=bool)
    passed[by_place] = highest > height[by_place]
    instants[rows[again]] = readings.second[rows[again]]
    single = rows[once]
    if single.size:
        later = passed[once] | _fit_later(instants, readings, order, single)
        instants[single[later]] = readings.second[single[later]]
    return instants


def _fit_later(instants: Ints, readings: Readings, order: Ints, single: Ints) -> Flags:
    """[single] whether the usual step of the rows leads to the second reading of a time and not to the first."""
    rises, counts = np.unique(np.abs(np.diff(instants[order])), return_counts=True)
    usual = max(int(rises[np.argmax(counts)]), 1) if rises.size else 1
    sure = instants[readings.switch < 0]
    phase = int(sure[0]) if sure.size else 0
    first, second = ((reading[single] - phase) % usual == 0 for reading in (readings.first, readings.second))
    fits: Flags = second & ~first
    return fits


def _refuse_scattered(rows: Ints, clock: Ints, owner: npt.NDArray[np.integer[Any]], switch: Ints, group: Ints) -> None:
    """Raise `UnorderedError` if equal times of one series and switch stand in two places of the file."""
    order = np.lexsort((group, clock, switch, owner))
    equal = np.ones(max(rows.size - 1, 0), dtype=bool)
    for key in (clock, switch, owner):
        equal &= np.diff(key[order]) == 0
    apart = equal & (np.diff(group[order]) != 0)
    if apart.any():
        raise UnorderedError(int(rows[order[int(np.argmax(apart)) + 1]]))


def repeats_look_like_dst(stamps: npt.NDArray[np.datetime64]) -> bool:
    """Whether stamps that stand twice in a file are hours of autumn that local clocks show twice.

    `stamps` [repeated rows]: all between midnight and four o'clock on at most two days a year, in the
    autumn of one half of the earth.
    """
    if not stamps.size or stamps.dtype.kind != "M":
        return False
    days = stamps.astype("datetime64[D]")
    inside = stamps.astype("datetime64[us]").astype(np.int64) % DAY
    month = stamps.astype("datetime64[M]").astype(np.int64) % 12 + 1
    autumn = np.isin(month, (9, 10, 11)).all() or np.isin(month, (3, 4, 5)).all()
    years = np.unique(days).astype("datetime64[Y]")
    _, days_a_year = np.unique(years, return_counts=True)
    return bool(autumn and (inside < DAY // 6).all() and inside.any() and days_a_year.max() <= 2)
