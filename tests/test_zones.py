"""Clocks of places, instants behind them, and hours that are shown twice or never."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklstm_cli.data.zones import UnorderedError, find_zone, instants_in_order, repeats_look_like_dst
from stacklstm_cli.errors import UsageError

NAMES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca", "UTC"]
MOMENTS = st.lists(st.datetimes(datetime(1991, 1, 1), datetime(2029, 1, 1)), min_size=1, max_size=20)
EPOCH = datetime(1970, 1, 1)


def micros(moments) -> np.ndarray:
    return np.asarray(moments, dtype="datetime64[us]").astype(np.int64)


@settings(deadline=None)
@given(st.sampled_from(NAMES), MOMENTS)
def test_the_clock_at_any_instant_is_that_of_the_zone(name, moments):
    offsets = [moment.replace(tzinfo=timezone.utc).astimezone(ZoneInfo(name)).utcoffset() for moment in moments]
    assert find_zone(name).ahead(micros(moments)).tolist() == [one // timedelta(microseconds=1) for one in offsets]


@settings(deadline=None)
@given(st.sampled_from(NAMES), MOMENTS)
def test_a_local_time_is_read_as_python_does(name, moments):
    """`fold` is Python's word for the second of two."""
    readings = find_zone(name).readings(micros(moments))

    def truth(fold: int) -> list[int]:
        instants = [moment.replace(tzinfo=ZoneInfo(name), fold=fold).astimezone(timezone.utc) for moment in moments]
        return micros([instant.replace(tzinfo=None) for instant in instants]).tolist()

    early, late = truth(0), truth(1)
    there = ~readings.skipped
    np.testing.assert_array_equal(readings.first, early)
    np.testing.assert_array_equal(readings.second[there], np.asarray(late)[there])
    # Python reads a skipped time forth and back, a repeated one in its order.
    np.testing.assert_array_equal(readings.skipped, np.less(late, early))
    np.testing.assert_array_equal(readings.switch >= 0, np.greater(late, early))


def test_switches_are_found_to_the_second():
    zone = find_zone("Europe/Berlin")
    switch = micros(datetime(2024, 3, 31, 1))
    hours = zone.ahead(np.array([switch - 1, switch])) / 3_600_000_000
    assert hours.tolist() == [1, 2]


@pytest.mark.parametrize("name", ["UTC", "Z", "+02:00", "-0330", "+5", "UTC+1", "Europe/Berlin"])
def test_zones_by_name_or_offset(name):
    hours = {"+02:00": 2, "-0330": -3.5, "+5": 5, "UTC+1": 1, "Europe/Berlin": 2}.get(name, 0)
    assert find_zone(name).ahead(micros([datetime(2024, 7, 1)])) / 3_600_000_000 == hours


@pytest.mark.parametrize(
    ("name", "near"),
    [("Europe/Berln", "Europe/Berlin"), ("berlin", "Europe/Berlin"), ("New York", "America/New_York")],
)
def test_an_unknown_zone_is_refused_with_a_near_one(name, near):
    with pytest.raises(UsageError, match="--tz") as caught:
        find_zone(name)
    assert caught.value.hint == f"Did you mean --tz {near}?"


@pytest.mark.parametrize("name", ["", "../x", "Europe", "Mars/Olympus", "+99:00", "C:\\zone"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(UsageError, match="no time zone"):
        find_zone(name)


# --- repeated hours ---


def read(locals_, series=None, zone="Europe/Berlin"):
    clock = micros(locals_)
    readings = find_zone(zone).readings(clock)
    instants = instants_in_order(readings, clock, np.zeros(clock.size, int) if series is None else np.asarray(series))
    return instants.astype("datetime64[us]")


@settings(deadline=None)
@given(
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    minutes=st.sampled_from([10, 15, 30, 60]),
    back=st.booleans(),
    count=st.integers(1, 3),
    data=st.data(),
)
def test_repeated_hours_are_told_by_the_order_of_the_rows(zone, minutes, back, count, data):
    """Ascending or descending, several series after one another or row by row, some rows missing."""
    start = "2024-03-20" if "Lord" in zone else "2024-10-20"
    truth = pd.date_range(start, periods=20 * 1440 // minutes, freq=f"{minutes}min", tz="UTC")
    if back:
        truth = truth[::-1]
    instants, series = np.tile(truth.tz_localize(None).to_numpy(), count), np.repeat(np.arange(count), truth.size)
    if data.draw(st.booleans()):
        instants, series = instants.reshape(count, -1).T.ravel(), series.reshape(count, -1).T.ravel()
    local = pd.DatetimeIndex(instants, tz="UTC").tz_convert(zone).tz_localize(None).to_numpy()
    np.testing.assert_array_equal(read(local, series, zone), instants.astype("datetime64[us]"))


def quarters(*texts: str) -> list[str]:
    return [f"2024-10-27T{text}" for text in texts]


def test_a_row_missing_in_the_repeated_hour():
    """Without the first 02:15, the one that is there comes after 02:45."""
    rows = quarters("01:45", "02:00", "02:30", "02:45", "02:00", "02:15", "02:30", "02:45", "03:00")
    steps = np.diff(read(rows)).astype(int) // 60_000_000
    assert steps.tolist() == [15, 30, 15, 15, 15, 15, 15, 15]
    back = np.diff(read(rows[::-1])).astype(int) // -60_000_000
    assert back.tolist() == [15, 15, 15, 15, 15, 15, 30, 15]
    rows = quarters("01:45", "02:00", "02:15", "02:30", "02:45", "02:00", "02:30", "02:45", "03:00")
    assert (np.diff(read(rows)).astype(int) // 60_000_000).tolist() == [15, 15, 15, 15, 15, 30, 15, 15]


def test_a_single_hour_is_summer_time():
    rows = quarters("00:00", "01:00", "02:00", "03:00", "04:00")
    assert (np.diff(read(rows)).astype(int) // 3_600_000_000).tolist() == [1, 1, 2, 1]


def test_sorted_by_the_clock_both_stand_side_by_side():
    rows = quarters("01:30", "02:00", "02:00", "02:30", "02:30", "03:00")
    assert np.sort(read(rows)).tolist() == pd.date_range("2024-10-26 23:30", periods=6, freq="30min").tolist()


def test_repeated_hours_without_order_are_refused():
    with pytest.raises(UnorderedError) as caught:
        read(quarters("02:00", "03:00", "01:00", "02:00", "04:00"))
    assert caught.value.index == 3


def test_repeats_that_look_like_the_end_of_summer_time():
    def at(*texts: str) -> np.ndarray:
        return np.asarray(texts, dtype="datetime64[us]")

    assert repeats_look_like_dst(at("2023-10-29T02:00", "2024-10-27T02:00", "2024-10-27T02:30"))
    assert repeats_look_like_dst(at("2024-04-07T01:30"))
    assert not repeats_look_like_dst(at("2024-10-27T02:00", "2024-07-01T02:00"))
    assert not repeats_look_like_dst(at("2024-10-27T14:00"))
    assert not repeats_look_like_dst(at("2024-10-27", "2024-10-28"))
    assert not repeats_look_like_dst(at("2024-10-26T02:00", "2024-10-27T02:00", "2024-10-28T02:00"))
    assert not repeats_look_like_dst(at())
    assert not repeats_look_like_dst(np.array([1, 2]))
