"""Covariates and calendar as the network is told them, against pandas, the holidays library and plain counting."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import holidays
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import EVERY_INPUT, every_covariate, make_panel, random_covariates, wave, with_covariates

from stacklstm_cli.data.calendar import Step, parse_freq
from stacklstm_cli.data.panel import Covariate, Panel
from stacklstm_cli.data.stamps import TimeForm
from stacklstm_cli.errors import ExitStatus, UsageError
from stacklstm_cli.model import inputs
from stacklstm_cli.model.inputs import (
    InputSpec,
    calendar_codes,
    calendar_of,
    cycles_of,
    known_categories,
    number_statistics,
    table,
)

FORM = TimeForm("datetime", "%Y-%m-%d %H:%M")
CYCLES = ("time_of_day", "weekday", "monthday", "month", "year")
EPOCH = pd.Timestamp("1970-01-01")


def step_of(freq: str, first: str) -> tuple[Step, int]:
    """The step whose grid holds this stamp, and the position of the stamp on it."""
    stamps = np.asarray([first], dtype="datetime64[us]")
    step = parse_freq(freq).fitted(stamps)
    return step, int(step.ordinals(stamps)[0])


def codes_by_pandas(stamp: Any) -> list[int]:
    """The codes of `CYCLES`, from 0."""
    seconds = stamp.hour * 3600 + stamp.minute * 60 + stamp.second
    return [seconds // 300, stamp.dayofweek, stamp.day - 1, stamp.month - 1, stamp.dayofyear - 1]


class TestCodes:
    @pytest.mark.parametrize(
        ("freq", "first", "alias"),
        [
            ("h", "2023-12-28 05:00", "h"),
            ("30min", "2024-02-28 23:30", "30min"),
            ("7min", "1969-12-31 20:03", "7min"),
            ("30s", "2024-12-31 23:50:30", "30s"),
            ("36h", "2024-01-01 12:00", "36h"),
            ("D", "1967-12-20", "D"),
            ("D", "2023-12-20 06:00", "D"),
            ("2D", "2024-02-20", "2D"),
            ("B", "2024-02-20", "B"),
            ("W", "2019-12-22", "W-SUN"),
            ("W", "2019-12-24", "W-TUE"),
            ("MS", "2019-11-01", "MS"),
            ("ME", "2019-11-30", "ME"),
            ("QS", "2019-10-01", "QS"),
            ("YE", "2019-12-31", "YE"),
        ],
    )
    def test_equal_pandas(self, freq: str, first: str, alias: str) -> None:
        """200 rows: over midnights, new years, leap days and before 1970."""
        step, position = step_of(freq, first)
        found = calendar_codes(InputSpec(cycles=CYCLES), step, FORM, position, 200)
        assert found.dtype == np.int16
        assert found.tolist() == [codes_by_pandas(s) for s in pd.date_range(first, periods=200, freq=alias)]

    @pytest.mark.parametrize("first", ["2024-03-30 20:00", "2024-10-26 20:00"])
    def test_by_the_clock_of_the_place(self, first: str) -> None:
        """Over both changes of the clocks: stamps are instants, and people live by the local hour."""
        step, position = step_of("h", first)
        form = replace(FORM, tz="Europe/Berlin", zone="+01:00")
        found = calendar_codes(InputSpec(cycles=CYCLES), step, form, position, 60)
        local = pd.date_range(first, periods=60, freq="h", tz="UTC").tz_convert("Europe/Berlin")
        assert found.tolist() == [codes_by_pandas(stamp) for stamp in local]

    def test_by_the_offset_that_was_written(self) -> None:
        step, position = step_of("h", "2024-03-30 20:00")
        found = calendar_codes(InputSpec(cycles=CYCLES), step, replace(FORM, zone="-05:30"), position, 60)
        local = pd.date_range("2024-03-30 20:00", periods=60, freq="h") - pd.Timedelta("5h30min")
        assert found.tolist() == [codes_by_pandas(stamp) for stamp in local]

    def test_columns_stand_in_the_order_of_the_cycles(self) -> None:
        step, position = step_of("h", "2024-02-29 13:00")
        one = calendar_codes(InputSpec(cycles=("year", "weekday")), step, FORM, position, 30)
        other = calendar_codes(InputSpec(cycles=("weekday", "year")), step, FORM, position, 30)
        assert one.tolist() == other[:, ::-1].tolist()
        assert one[0].tolist() == [59, 3]  # a Thursday

    def test_nothing_where_nothing_is_asked(self) -> None:
        assert calendar_codes(InputSpec(), Step("step", 1), TimeForm("row"), 0, 7).shape == (7, 0)


class TestTables:
    @pytest.mark.parametrize("cycle", CYCLES)
    def test_every_code_has_its_own_features(self, cycle: str) -> None:
        found = table(cycle)
        assert found.shape[0] == {"time_of_day": 288, "weekday": 7, "monthday": 31, "month": 12, "year": 366}[cycle]
        assert found.dtype == np.float32
        assert len(np.unique(found.round(5), axis=0)) == len(found)
        assert np.abs(found).max() <= 1

    @pytest.mark.parametrize("cycle", ["time_of_day", "monthday", "year"])
    def test_the_last_code_is_as_near_to_the_first_as_any_neighbours(self, cycle: str) -> None:
        """23:55 is next to midnight: no seam."""
        found = table(cycle).astype(float)
        gaps = np.linalg.norm(np.roll(found, -1, axis=0) - found, axis=1)
        assert gaps == pytest.approx(np.full(len(gaps), gaps[0]), rel=1e-4)


def rows_by_counting(days: list[date]) -> list[int]:
    """Holidays of California from each row's day to the day before the next row's, day by day."""
    free = holidays.country_holidays("US", subdiv="CA")
    return [
        sum(free.get(day + timedelta(days=n)) is not None for n in range(max((after - day).days, 1)))
        for day, after in pairwise(days)
    ]


class TestHolidays:
    @pytest.mark.parametrize(
        ("freq", "first", "rows"),
        [("h", "2023-12-22 07:00", 800), ("6h", "2023-12-22 06:00", 400), ("36h", "2023-12-21 12:00", 300)],
    )
    def test_rows_of_less_than_a_day_count_the_one_they_lie_in(self, freq: str, first: str, rows: int) -> None:
        step, position = step_of(freq, first)
        stamps = [stamp.date() for stamp in pd.date_range(first, periods=rows + 1, freq=freq)]
        found = calendar_codes(InputSpec(holidays="US-CA"), step, FORM, position, rows)
        assert found.shape == (rows, 1)
        assert found[:, 0].tolist() == rows_by_counting(stamps)
        assert found.any()

    @pytest.mark.parametrize(
        ("freq", "first", "alias"),
        [
            ("D", "1968-11-01", "D"),
            ("D", "2023-11-01", "D"),
            ("B", "2023-11-01", "B"),
            ("W", "2023-11-06", "W-MON"),
            ("MS", "2015-03-01", "MS"),
            ("QS", "1965-01-01", "QS"),
            ("YS", "1960-01-01", "YS"),
        ],
    )
    def test_longer_rows_count_all_they_cover(self, freq: str, first: str, alias: str) -> None:
        """Weeks, months and years with several; every year of the file is looked up."""
        step, position = step_of(freq, first)
        stamps = [stamp.date() for stamp in pd.date_range(first, periods=121, freq=alias)]
        found = calendar_codes(InputSpec(holidays="US-CA"), step, FORM, position, 120)
        assert found[:, 0].tolist() == rows_by_counting(stamps)
        assert found.any()

    def test_a_row_named_by_its_last_day_counts_the_days_before_it(self) -> None:
        """31 December stands for December: its holidays are Christmas, not new year's."""
        step, position = step_of("ME", "2019-01-31")
        found = calendar_codes(InputSpec(holidays="DE-BY"), step, FORM, position, 48)
        free = holidays.country_holidays("DE", subdiv="BY", years=range(2019, 2023))
        months = Counter((day.year, day.month) for day in free)
        assert found[:, 0].tolist() == [months[2019 + n // 12, n % 12 + 1] for n in range(48)]

    @pytest.mark.parametrize("year", [*range(1962, 1976), *range(1990, 2030)])
    def test_the_first_and_the_last_day_of_a_year_alone(self, year: int) -> None:
        """Also where the rows end with one of them: no year is left out."""
        for first in (f"{year}-01-01 00:00", f"{year - 1}-12-31 05:00"):
            step, position = step_of("h", first)
            found = calendar_codes(InputSpec(holidays="US-CA"), step, FORM, position, 20)
            stamps = [stamp.date() for stamp in pd.date_range(first, periods=21, freq="h")]
            assert found[:, 0].tolist() == rows_by_counting(stamps)
            assert found[-1, 0] == 1

    def test_behind_the_cycles(self) -> None:
        step, position = step_of("D", "2023-12-20")
        both = calendar_codes(InputSpec(cycles=("weekday",), holidays="DE"), step, FORM, position, 30)
        alone = calendar_codes(InputSpec(holidays="DE"), step, FORM, position, 30)
        assert both[:, 1:].tolist() == alone.tolist()
        assert both[:, 0].tolist() == [(n + 2) % 7 for n in range(30)]

    def test_by_the_clock_of_the_place(self) -> None:
        """23:00 in UTC is the next day in Berlin."""
        step, position = step_of("h", "2023-12-31 20:00")
        form = replace(FORM, tz="Europe/Berlin", zone="+01:00")
        found = calendar_codes(InputSpec(holidays="DE"), step, form, position, 30)[:, 0]
        assert found.tolist() == [0] * 3 + [1] * 24 + [0] * 3

    @pytest.mark.parametrize("place", ["US", "DE", "DE-BY", "US-CA"])
    def test_the_days_of_the_library(self, place: str) -> None:
        country, _, part = place.partition("-")
        expected = holidays.country_holidays(country, subdiv=part or None, years=[2022, 2023])
        assert sorted(calendar_of(place, range(2022, 2024))) == sorted(expected)

    @pytest.mark.parametrize("place", ["XX", "DE-XX", "Atlantis", "-", "us", "DE-BY-M"])
    def test_a_place_that_is_not_known(self, place: str) -> None:
        with pytest.raises(UsageError, match=f"--holidays {place}") as caught:
            calendar_of(place, range(2024, 2025))
        assert (caught.value.exit_status, caught.value.code) == (ExitStatus.USAGE, "unknown_holidays")
        assert "DE-BY" in caught.value.hint


class TestCycles:
    @pytest.mark.parametrize(
        ("freq", "rows", "expected"),
        [
            ("h", 47, ()),
            ("h", 48, ("time_of_day",)),
            ("h", 335, ("time_of_day",)),
            ("h", 336, ("time_of_day", "weekday")),
            ("h", 17_519, ("time_of_day", "weekday")),
            ("h", 17_520, ("time_of_day", "weekday", "year")),
            ("30min", 96, ("time_of_day",)),
            ("12h", 3, ()),
            ("12h", 4, ("time_of_day",)),
            ("s", 172_799, ()),
            ("s", 172_800, ("time_of_day",)),
            ("D", 13, ()),
            ("D", 14, ("weekday",)),
            ("D", 59, ("weekday",)),
            ("D", 60, ("weekday", "monthday")),
            ("D", 729, ("weekday", "monthday")),
            ("D", 730, ("weekday", "monthday", "year")),
            ("B", 9, ()),
            ("B", 10, ("weekday",)),  # two weeks
            ("W", 104, ()),
            ("W", 105, ("year",)),  # 104 weeks are 728 days
            ("2D", 364, ()),
            ("2D", 365, ("year",)),
            ("MS", 23, ()),
            ("MS", 24, ("month",)),
            ("QS", 7, ()),
            ("QS", 8, ("month",)),
            ("6MS", 4, ("month",)),
            ("5MS", 500, ()),  # no whole number of such rows is a year
            ("YS", 500, ()),
            ("24MS", 500, ()),
            ("1", 10_000, ()),
        ],
    )
    def test_by_hand(self, freq: str, rows: int, expected: tuple[str, ...]) -> None:
        """Two periods of each cycle that is longer than a row."""
        assert cycles_of(replace(parse_freq(freq), phase=0), rows) == expected

    @pytest.mark.parametrize("count", [1, 5, 7, 10, 30, 60, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 14400, 21600])
    def test_exactly_two_days_are_enough(self, count: int) -> None:
        """Whatever the rounding."""
        rows = -(-2 * 86_400 // count)
        assert cycles_of(Step("second", count), rows) == ("time_of_day",)
        assert cycles_of(Step("second", count), rows - 1) == ()

    @given(st.sampled_from(["min", "h", "D", "B", "W", "MS", "QS", "YS", "1"]), st.integers(1, 20_000))
    def test_more_rows_lose_no_cycle(self, freq: str, rows: int) -> None:
        step = replace(parse_freq(freq), phase=0)
        assert set(cycles_of(step, rows)) <= set(cycles_of(step, rows + 1)) <= set(CYCLES)


COVARIATES = (
    *(Covariate("p", "past"), Covariate("q", "past", ("a", "b", "c", "d", "e"))),
    *(Covariate("k", "known"), Covariate("l", "known", ("u", "v", "w"))),
    *(Covariate("s", "static"), Covariate("t", "static", ("x", "y", "z"))),
)


def covered(shared: bool, seed: int = 0) -> Panel:
    """Three series with covariates of every kind, of their own or shared."""
    panel = make_panel(wave(20), wave(12, 1), wave(7, 2), starts=[4, 0, 9])
    rows = [30] if shared else [24, 16, 7]
    blocks = [random_covariates(COVARIATES[:4], count, seed + at, 0.3) for at, count in enumerate(rows)]
    return with_covariates(panel, COVARIATES, blocks, random_covariates(COVARIATES[4:], 3, seed + 9, 0.2))


def training_cells(panel: Panel, ends: list[int], at: int) -> list[float]:
    """The cells of one covariate in the first rows of each series, each row of the file once; missing ones left out."""
    if at >= 4:
        cells = [float(panel.static[index, at - 4]) for index, end in enumerate(ends) if end]
    else:
        rows = {int(panel.timed_at[index]) + row for index, end in enumerate(ends) for row in range(end)}
        cells = [float(panel.timed[row, at]) for row in sorted(rows)]
    return [cell for cell in cells if not math.isnan(cell)]


class TestStatistics:
    @settings(max_examples=60, deadline=None)
    @given(st.booleans(), st.tuples(st.integers(0, 20), st.integers(0, 12), st.integers(0, 7)), st.integers(0, 99))
    def test_equal_numpy_over_training_rows(self, shared: bool, ends: tuple[int, int, int], seed: int) -> None:
        """0 and 1 for categories, and where nothing is known."""
        panel = covered(shared, seed)
        means, deviations = number_statistics(panel, np.array(ends))
        for at, covariate in enumerate(COVARIATES):
            cells = training_cells(panel, list(ends), at)
            if covariate.categories is not None or not cells:
                expected = (0.0, 1.0)
            else:
                expected = (float(np.mean(cells)), float(np.std(cells)) or 1.0)
            assert (means[at], deviations[at]) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("shared", [False, True])
    def test_later_rows_have_no_say(self, shared: bool) -> None:
        """Rows behind the training parts, future rows among them: not a bit."""
        panel, ends = covered(shared), [10, 6, 2]
        used = {int(panel.timed_at[index]) + row for index, end in enumerate(ends) for row in range(end)}
        timed = panel.timed.copy()
        timed[[row for row in range(len(timed)) if row not in used]] = 1e6
        other = replace(panel, timed=timed)
        before, after = number_statistics(panel, np.array(ends)), number_statistics(other, np.array(ends))
        assert [one.tobytes() for one in before] == [one.tobytes() for one in after]
        assert known_categories(panel, np.array(ends), np.array(ends)) == known_categories(
            other, np.array(ends), np.array(ends)
        )
        timed[next(iter(used))] = 1e6
        assert number_statistics(replace(panel, timed=timed), np.array(ends))[0].tolist() != before[0].tolist()

    def test_a_constant_is_divided_by_one(self) -> None:
        panel = with_covariates(make_panel(wave(5)), [Covariate("k", "known")], [[[7.0]] * 5])
        assert [one.tolist() for one in number_statistics(panel, np.array([5]))] == [[7], [1]]

    def test_large_numbers_are_summed_in_double_precision(self) -> None:
        """A million rows around 1e6: float32 sums would be off by far more than the deviation."""
        cells = 1e6 + np.random.default_rng(0).integers(-1, 2, 200_000).astype(np.float32)
        panel = with_covariates(make_panel(np.zeros(200_000)), [Covariate("k", "known")], [cells[:, None]])
        (mean,), (deviation,) = number_statistics(panel, np.array([200_000]))
        assert mean == pytest.approx(cells.astype(float).mean(), rel=1e-12)
        assert deviation == pytest.approx(cells.astype(float).std(), rel=1e-9)

    def test_without_covariates(self) -> None:
        found = number_statistics(make_panel(wave(5)), np.array([5]))
        assert [one.shape for one in found] == [(0,), (0,)]


class TestCategories:
    @pytest.mark.parametrize("most", [1, 2, 3, 256])
    @pytest.mark.parametrize("shared", [False, True])
    @pytest.mark.parametrize("seed", range(3))
    def test_the_most_frequent_sorted(
        self, most: int, shared: bool, seed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By counting; of equals the first in the alphabet; those that training never meets are left out."""
        monkeypatch.setattr(inputs, "MOST_CATEGORIES", most)
        panel, ends = covered(shared, seed), [8, 4, 1]
        found = known_categories(panel, np.array(ends), np.array(ends))
        assert [(one.name, one.role) for one in found] == [(one.name, one.role) for one in COVARIATES]
        for at, (one, mine) in enumerate(zip(found, COVARIATES, strict=True)):
            if mine.categories is None:
                assert one.categories is None
                continue
            counts = Counter(mine.categories[int(cell)] for cell in training_cells(panel, ends, at))
            ranks = sorted((-count, text) for text, count in counts.items())
            assert one.categories == tuple(sorted(text for _, text in ranks[:most]))

    def test_later_rows_do_not_displace_what_training_met(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rare in the training rows, but there: kept before what is frequent in newer rows only."""
        monkeypatch.setattr(inputs, "MOST_CATEGORIES", 2)
        cells = [[[code] for code in (0, 0, 1, 2, 2, 2, 3, 3)]]
        panel = with_covariates(make_panel(wave(8)), [Covariate("l", "known", ("a", "b", "c", "d"))], cells)
        (found,) = known_categories(panel, np.array([3]), np.array([8]))
        assert found.categories == ("a", "b")
        (found,) = known_categories(panel, np.array([2]), np.array([8]))
        assert found.categories == ("a", "c")

    def test_nothing_met(self) -> None:
        """All cells empty: no category, and the unknown one alone is left."""
        panel = with_covariates(make_panel(wave(5)), [Covariate("l", "known", ("a",))], [[[np.nan]] * 5])
        assert known_categories(panel, np.array([5]), np.array([5])) == (Covariate("l", "known", ()),)

    def test_without_covariates(self) -> None:
        assert known_categories(make_panel(wave(5)), np.array([5]), np.array([5])) == ()


class TestSpec:
    def test_survives_json(self) -> None:
        for spec in (EVERY_INPUT, InputSpec(), InputSpec((Covariate("größe\n", "static", ()),), (), "US")):
            assert InputSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec

    def test_of(self) -> None:
        assert [one.name for one in EVERY_INPUT.of("past", "known")] == ["load", "state", "price", "event"]
        assert [one.name for one in EVERY_INPUT.of("static")] == ["size", "kind"]
        assert InputSpec().of("past", "known", "static") == ()

    def test_what_it_says(self) -> None:
        assert InputSpec().explained() == ""
        assert EVERY_INPUT.explained() == (
            "past load, state; known price, event; static size, kind; calendar (time of day, weekday, year); "
            "public holidays of DE-BY"
        )

    def test_the_panel_of_these_tests(self) -> None:
        """Wrong if the covariates of a made panel are not those that the spec names."""
        panel = every_covariate(make_panel(wave(9), wave(5, 1)))
        assert panel.covariates == EVERY_INPUT.covariates
        assert panel.timed_rows.tolist() == [13, 9]
        assert np.isnan(panel.timed[9:13, :2]).all()
        assert not np.isnan(panel.timed[9:13, 2:]).all()
