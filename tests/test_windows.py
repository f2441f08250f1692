"""Contexts and targets against loops in plain Python."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import (
    EVERY_INPUT,
    every_covariate,
    last_row_shown,
    make_panel,
    random_covariates,
    small_spec,
    wave,
    with_covariates,
)

from stacklstm_cli.data.panel import Covariate, Panel
from stacklstm_cli.model.inputs import InputSpec
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.model.windows import Batch, Windows, location_and_scale, model_numbers

CPU = torch.device("cpu")


def spec_of(context: int, horizon: int = 2, location: int | None = None, scale: int | None = None) -> NetworkSpec:
    """What windows look at; the rest is arbitrary."""
    lengths = {"location_length": location or context, "scale_length": scale or context}
    return small_spec(context_length=context, patch_length=1, horizon=horizon, quantiles=(0.5,), **lengths)


def contexts(panel: Panel, spec: NetworkSpec, series: list[int], rows: list[int]) -> Batch:
    return Windows(panel, spec, CPU).batch(torch.tensor(series), torch.tensor(rows))


def mean_of(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def deviation_of(values: list[float]) -> float:
    mean = mean_of(values)
    return math.sqrt(mean_of([(value - mean) ** 2 for value in values]))


def slow_context(values: list[float], rows: int, spec: NetworkSpec) -> tuple[list[float], list[int], float, float]:
    """Normalised context, observed flags, location and scale of one origin, value by value."""
    rows = last_row_shown(values, rows, spec)
    known = values[:rows]
    window = [math.nan] * max(spec.context_length - rows, 0) + known[max(rows - spec.context_length, 0) :]

    def present(newest: int) -> list[float]:
        return [v for v in window[-newest:] if not math.isnan(v)] or [v for v in window if not math.isnan(v)]

    location = mean_of(present(spec.location_length))
    whole = deviation_of(present(spec.context_length))
    observed = [int(not math.isnan(v)) for v in window]
    least = max(0.1 * whole, 1e-6 * abs(location))
    scale = max(deviation_of(present(spec.scale_length)), least) or 1.0
    return (
        [(v - location) / scale if seen else 0.0 for v, seen in zip(window, observed, strict=True)],
        observed,
        (location),
        scale,
    )


plain_values = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
some_series = st.tuples(
    plain_values, st.lists(st.one_of(st.just(math.nan), st.just(7.0), plain_values), max_size=11)
).map(lambda drawn: [drawn[0], *drawn[1]])
"""A panel's series begins with an observed value."""


class TestContexts:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(some_series, min_size=1, max_size=3),
        st.integers(1, 8),
        st.integers(1, 10),
        st.integers(1, 10),
        st.data(),
    )
    def test_equal_the_loop(
        self, series: list[list[float]], context: int, location: int, scale: int, data: st.DataObject
    ) -> None:
        """Every origin of every series: before the series begins, among missing values, at its end."""
        spec = spec_of(context, location=location, scale=scale)
        places = [(index, rows) for index, one in enumerate(series) for rows in range(1, len(one) + 1)]
        chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6))
        batch = contexts(make_panel(*series), spec, *map(list, zip(*chosen, strict=True)))
        for place, (index, rows) in enumerate(chosen):
            normalised, observed, middle, spread = slow_context(series[index], rows, spec)
            level = max((abs(v) for v in series[index] if not math.isnan(v)), default=0.0)
            assert batch.inputs.observed[place].tolist() == observed
            assert batch.scaling.location[place].item() == pytest.approx(middle, rel=1e-12, abs=1e-12 * level)
            assert batch.scaling.scale[place].item() == pytest.approx(spread, rel=1e-9, abs=1e-12 * level)
            assert batch.inputs.context[place].tolist() == pytest.approx(normalised, rel=1e-5, abs=1e-5)

    def test_nothing_of_another_series_is_seen(self) -> None:
        """The first rows of a series are padded, not filled with the end of the one before."""
        batch = contexts(make_panel([1e6, 2e6, 3e6], [1.0, 3.0]), spec_of(4), [1, 1], [2, 1])
        assert batch.inputs.observed.tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
        assert batch.inputs.context.tolist() == [[0, 0, -1, 1], [0, 0, 0, 0]]
        assert batch.scaling.location.tolist() == [[2], [1]]
        assert batch.scaling.scale.tolist() == [[1], [1e-6]]

    @pytest.mark.parametrize("rubbish", [1e300, -1e-300, 7.0])
    def test_what_stands_in_other_series_does_not_matter(self, rubbish: float) -> None:
        """Before the series and behind it: bit for bit the same."""
        gappy = np.array([1.0, 2.0, math.nan, 4.0, math.nan, math.nan, 7.0])
        spec = spec_of(6, horizon=3, location=2, scale=3)
        windows = Windows(make_panel([0.5, 0.25], gappy, [3.0, 1.0]), spec, CPU)
        series, rows = torch.ones(7, dtype=torch.int64), torch.arange(1, 8)
        before, (targets, known) = windows.batch(series, rows), windows.targets(series, rows)
        own = torch.zeros(11, dtype=torch.bool)
        own[2:9] = True
        windows.values = windows.values.where(own, rubbish)
        after, (new_targets, new_known) = windows.batch(series, rows), windows.targets(series, rows)
        assert torch.equal(before.inputs.context, after.inputs.context)
        assert torch.equal(before.inputs.observed, after.inputs.observed)
        assert torch.equal(before.scaling.location, after.scaling.location)
        assert torch.equal(before.scaling.scale, after.scaling.scale)
        assert torch.equal(known, new_known)
        assert torch.equal(targets[known], new_targets[known])

    def test_types(self) -> None:
        """The network gets float32; what leads back to user units keeps float64."""
        batch = contexts(make_panel([1.0, 2.0]), spec_of(2), [0], [2])
        sent = batch.inputs.to(CPU, torch.float32)
        assert (sent.context.dtype, sent.observed.dtype) == (torch.float32, torch.float32)
        assert (batch.scaling.location.dtype, batch.scaling.scale.dtype) == (torch.float64, torch.float64)

    def test_small_changes_at_a_high_level_are_kept(self) -> None:
        """1e9 plus or minus one: float32 alone would see a constant."""
        values = 1e9 + np.array([1.0, -1.0, 1.0, -1.0])
        windows = Windows(make_panel(np.tile(values, 2)), spec_of(4, horizon=4), CPU)
        location, scale = location_and_scale(torch.tensor(values)[None], torch.ones(1, 4, dtype=torch.bool), spec_of(4))
        batch = windows.batch(torch.tensor([0]), torch.tensor([4]))
        assert location.item() == batch.scaling.location.item() == 1e9
        # The deviation is 1, but a millionth of the level is the least scale.
        assert scale.item() == batch.scaling.scale.item() == 1000
        assert batch.inputs.context[0].tolist() == pytest.approx([1e-3, -1e-3, 1e-3, -1e-3])
        target, _ = windows.targets(torch.tensor([0]), torch.tensor([4]))
        assert target[0].tolist() == values.tolist()
        sent = batch.inputs.to(CPU, torch.float32).context.double()
        back = batch.scaling.location + sent * batch.scaling.scale
        assert back[0].tolist() == pytest.approx(values.tolist(), abs=1e-4, rel=0)


class TestScale:
    @pytest.mark.parametrize(
        ("values", "location_length", "scale_length", "location", "scale"),
        [
            ([0.0, 0.0, 0.0, 0.0], 4, 4, 0.0, 1.0),
            ([5.0, 5.0, 5.0, 5.0], 4, 4, 5.0, 5e-6),
            ([-5.0, -5.0, -5.0, -5.0], 4, 4, -5.0, 5e-6),
            ([0.0, 8.0, 0.0, 0.0], 2, 2, 0.0, 0.1 * math.sqrt(12)),  # newest rows do not move: 0.1 of the whole
            ([0.0, 8.0, 3.0, 5.0], 2, 2, 4.0, 1.0),
            ([0.0, 8.0, 3.0, 5.0], 1, 4, 5.0, math.sqrt(8.5)),
            ([2.0, 6.0, math.nan, math.nan], 2, 2, 4.0, 2.0),  # nothing new: the whole context counts
            ([2.0, 6.0, 9.0, math.nan], 2, 1, 9.0, math.sqrt(74 / 9)),
        ],
    )
    def test_by_hand(
        self, values: list[float], location_length: int, scale_length: int, location: float, scale: float
    ) -> None:
        batch = contexts(make_panel(values), spec_of(4, location=location_length, scale=scale_length), [0], [4])
        assert batch.scaling.location.item() == pytest.approx(location, abs=1e-12)
        assert batch.scaling.scale.item() == pytest.approx(scale)

    def test_in_a_gap_longer_than_the_context_an_older_season_stands_in(self) -> None:
        """Whole seasons back, so that the forecast starts at the right season, with a level and a scale."""
        series = [500.0, 700.0, *[math.nan] * 6, 3.0]
        batch = contexts(make_panel([9.0], series), spec_of(4, location=2), [1, 1, 1], [5, 6, 8])
        assert batch.inputs.observed.tolist() == [[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
        assert batch.scaling.location[1:].tolist() == [[600], [600]]
        assert (batch.scaling.scale[1:] == 100).all()

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.integers(-1000, 1000).map(float), min_size=4, max_size=4),
        st.sampled_from([0.25, 2.0, 1024.0]),
        st.integers(1, 4),
    )
    def test_the_unit_of_the_data_does_not_matter(self, values: list[float], unit: float, newest: int) -> None:
        """Powers of two change no rounding: the network sees the same numbers."""
        spec = spec_of(4, location=newest, scale=newest)
        one = contexts(make_panel(values), spec, [0], [4])
        other = contexts(make_panel(np.array(values) * unit), spec, [0], [4])
        if any(values):
            assert one.inputs.context.tolist() == other.inputs.context.tolist()
            assert (one.scaling.scale * unit).tolist() == other.scaling.scale.tolist()


class TestTargets:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(some_series, min_size=1, max_size=3), st.integers(1, 5), st.data())
    def test_equal_the_loop(self, series: list[list[float]], horizon: int, data: st.DataObject) -> None:
        """The rows from the origin on, unknown where missing, after the end, and where none is known before them."""
        places = [(index, rows) for index, one in enumerate(series) for rows in range(-horizon, len(one) + 1)]
        chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6))
        windows = Windows(make_panel(*series), spec_of(3, horizon), CPU)
        values, known = windows.targets(*(torch.tensor(column) for column in zip(*chosen, strict=True)))
        assert values.dtype == torch.float64
        for place, (index, rows) in enumerate(chosen):
            own = dict(enumerate(series[index])) if rows > 0 else {}
            came = [own.get(row, math.nan) for row in range(rows, rows + horizon)]
            assert known[place].tolist() == [not math.isnan(value) for value in came]
            for found, expected in zip(values[place].tolist(), came, strict=True):
                assert math.isnan(expected) or found == expected

    def test_no_value_is_ever_nan(self) -> None:
        """NaN times zero is NaN: a missing place must hold a number."""
        windows = Windows(make_panel([1.0, math.nan, 2.0], [3.0]), spec_of(3, 3), CPU)
        values, _ = windows.targets(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]))
        assert values.isfinite().all()


def test_a_batch_is_its_windows_one_by_one() -> None:
    """No window changes with the others in its batch."""
    panel = make_panel(wave(40), wave(30, seed=1) * 1000)
    windows = Windows(panel, spec_of(12, location=6, scale=9), CPU)
    series, rows = torch.tensor([0, 1, 0, 1, 0]), torch.tensor([40, 30, 3, 12, 1])
    together = windows.batch(series, rows)
    for place in range(5):
        alone = windows.batch(series[place : place + 1], rows[place : place + 1])
        assert torch.equal(alone.inputs.context[0], together.inputs.context[place])
        assert torch.equal(alone.scaling.location[0], together.scaling.location[place])
        assert torch.equal(alone.scaling.scale[0], together.scaling.scale[place])


class TestFilled:
    """What stands in a gap of the context."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(some_series, min_size=1, max_size=3),
        st.integers(1, 8),
        st.integers(1, 8),
        st.sampled_from(["mask", "ffill", "interpolate"]),
        st.data(),
    )
    def test_equals_pandas_on_the_series_as_it_ends_at_the_cutoff(
        self, series: list[list[float]], context: int, location: int, gaps: str, data: st.DataObject
    ) -> None:
        """Whatever comes later, also the value behind a gap that the cutoff lies in."""
        spec = dataclasses.replace(spec_of(context, location=location), gaps=gaps)
        places = [(index, rows) for index, one in enumerate(series) for rows in range(1, len(one) + 1)]
        chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6))
        batch = contexts(make_panel(*series), spec, *map(list, zip(*chosen, strict=True)))
        for place, (index, rows) in enumerate(chosen):
            _, observed, middle, spread = slow_context(series[index], rows, spec)
            known = pd.Series(series[index][: last_row_shown(series[index], rows, spec)], dtype=float)
            if gaps != "mask":
                known = known.ffill() if gaps == "ffill" else known.interpolate()
            shown = [math.nan] * max(context - len(known), 0) + known.tolist()[-context:]
            expected = [0.0 if math.isnan(v) else (v - middle) / spread for v in shown]
            assert batch.inputs.context[place].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
            assert batch.inputs.observed[place].tolist() == observed
            assert batch.scaling.location[place].item() == pytest.approx(middle, rel=1e-9, abs=1e-6)

    def test_by_hand(self) -> None:
        """10, a gap of three, 50: the cutoff behind the gap sees a line, a cutoff inside it the last value."""
        panel = make_panel([3.0], [10.0, math.nan, math.nan, math.nan, 50.0])
        for gaps, inside, behind in (
            ("mask", [None] * 3, [None] * 3),
            ("ffill", [10, 10, 10], [10, 10, 10]),
            ("interpolate", [10, 10, 10], [20, 30, 40]),
        ):
            spec = dataclasses.replace(spec_of(6), gaps=gaps)
            batch = contexts(panel, spec, [1, 1], [4, 5])
            values = batch.scaling.location + batch.scaling.scale * batch.inputs.context
            for place, first, expected in ((0, 2, [10, *inside]), (1, 1, [10, *behind, 50])):
                found = values[place, first:].tolist()
                middle = batch.scaling.location[place].item()
                assert found == pytest.approx([middle if one is None else one for one in expected])
                assert not batch.inputs.context[place, :first].any()
            assert batch.inputs.observed.tolist() == [[0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 1]]


COVARIATES = (
    *(Covariate("p", "past"), Covariate("q", "past", ("a", "b", "c"))),
    *(Covariate("k", "known"), Covariate("l", "known", ("u", "v"))),
    *(Covariate("s", "static"), Covariate("t", "static", ("x", "y", "z"))),
)
MODEL = (
    *(COVARIATES[0], Covariate("q", "past", ("b", "c", "d"))),
    *(COVARIATES[2], Covariate("l", "known", ("v",))),
    *(COVARIATES[4], Covariate("t", "static", ("w", "z"))),
)
"""What the model was trained on: some other categories."""
TIMED = 4


class TestCovariates:
    @settings(max_examples=120, deadline=None)
    @given(
        st.lists(some_series, min_size=1, max_size=3),
        st.integers(1, 6),
        st.integers(1, 4),
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from([("past",), ("known",), ("past", "known"), ("past", "known", "static"), ("static",)]),
        st.integers(0, 99),
        st.data(),
    )
    def test_equal_the_loop(
        self,
        series: list[list[float]],
        context: int,
        horizon: int,
        ahead: int,
        shared: bool,
        roles: tuple[str, ...],
        seed: int,
        data: st.DataObject,
    ) -> None:
        """Cell by cell from dictionaries, for panels whose series share their rows and panels whose do not."""
        covariates = [one for one in COVARIATES if one.role in roles]
        trained = InputSpec(tuple(one for one in MODEL if one.role in roles))
        timed = [one for one in covariates if one.role != "static"]
        starts = [data.draw(st.integers(-3, 5)) for _ in series]
        panel, first = make_panel(*series, starts=starts), min(starts)
        last = max(start + len(one) for start, one in zip(starts, series, strict=True)) + ahead
        # (series, position on the grid, name) -> cell
        cells: dict[tuple[int, int, str], float] = {}
        blocks = []
        for index, one in enumerate(series):
            if shared and index:
                continue
            begin, rows = (first, last - first) if shared else (starts[index], len(one) + ahead)
            blocks.append(random_covariates(timed, rows, seed + index))
            for owner in range(len(series)) if shared else [index]:
                for row in range(rows):
                    for at, covariate in enumerate(timed):
                        cells[owner, begin + row, covariate.name] = float(blocks[-1][row, at])
        static = random_covariates([one for one in covariates if one.role == "static"], len(series), seed)
        panel = with_covariates(panel, covariates, blocks if timed else [], static)

        def number(name: str, cell: float) -> float:
            mine, theirs = (next(one.categories for one in some if one.name == name) for some in (COVARIATES, MODEL))
            if mine is None or theirs is None:
                return cell
            text = None if math.isnan(cell) else mine[int(cell)]
            return theirs.index(text) + 1 if text in theirs else 0

        spec = dataclasses.replace(spec_of(context, horizon), inputs=trained)
        places = [(index, rows) for index, one in enumerate(series) for rows in range(1, len(one) + 1)]
        chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=5))
        found = contexts(panel, spec, *map(list, zip(*chosen, strict=True))).inputs
        names, known = [one.name for one in timed], [one.name for one in timed if one.role == "known"]
        assert found.past.shape == (len(chosen), context, len(names))
        assert found.future.shape == (len(chosen), horizon, len(known))
        for place, (index, rows) in enumerate(chosen):
            end = last_row_shown(series[index], rows, spec)
            for step in range(context):
                row = end - context + step
                for at, name in enumerate(names):
                    cell = cells[index, starts[index] + row, name] if row >= 0 else math.nan
                    assert same(found.past[place, step, at].item(), number(name, cell)), (name, row)
            for step in range(horizon):
                for at, name in enumerate(known):
                    cell = cells.get((index, starts[index] + rows + step, name), math.nan)
                    assert same(found.future[place, step, at].item(), number(name, cell)), (name, step)
            for at, name in enumerate(one.name for one in covariates if one.role == "static"):
                assert same(found.static[place, at].item(), number(name, float(static[index, at])))

    def test_a_panel_without_any(self) -> None:
        """Empty tensors of the right shapes, not none."""
        found = contexts(make_panel([1.0, 2.0], [3.0]), spec_of(3, horizon=2), [0, 1], [2, 1]).inputs
        shapes = [tuple(one.shape) for one in (found.past, found.future, found.static, found.calendar)]
        assert shapes == [(2, 3, 0), (2, 2, 0), (2, 0), (2, 2, 0)]

    def test_gathering_changes_no_row(self) -> None:
        """Categories are numbered in a copy: the second batch equals the first."""
        spec = dataclasses.replace(spec_of(6, horizon=4), inputs=EVERY_INPUT)
        windows = Windows(every_covariate(make_panel(wave(30), wave(20, 1))), spec, CPU)
        one, other = (windows.batch(torch.tensor([0, 1]), torch.tensor([30, 12])).inputs for _ in range(2))
        for field in dataclasses.fields(one):
            first, second = getattr(one, field.name), getattr(other, field.name)
            torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)

    def test_types(self) -> None:
        """Everything but the codes of the calendar in the precision asked for."""
        spec = dataclasses.replace(spec_of(6, horizon=4), inputs=EVERY_INPUT)
        batch = Windows(every_covariate(make_panel(wave(30))), spec, CPU).batch(torch.tensor([0]), torch.tensor([30]))
        for dtype in (torch.float32, torch.float64):
            sent = batch.inputs.to(CPU, dtype)
            assert {one.dtype for one in (sent.context, sent.observed, sent.past, sent.future, sent.static)} == {dtype}
            assert sent.calendar.dtype == torch.int64

    def test_a_batch_is_its_windows_one_by_one(self) -> None:
        spec = dataclasses.replace(spec_of(6, horizon=4), inputs=EVERY_INPUT)
        windows = Windows(every_covariate(make_panel(wave(30), wave(20, 1), starts=[3, 11])), spec, CPU)
        series, rows = torch.tensor([0, 1, 0, 1]), torch.tensor([30, 20, 3, 1])
        together = windows.batch(series, rows).inputs
        for place in range(4):
            alone = windows.batch(series[place : place + 1], rows[place : place + 1]).inputs
            for field in dataclasses.fields(alone):
                one, other = getattr(alone, field.name)[0], getattr(together, field.name)[place]
                torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def test_numbers_of_categories() -> None:
    """Places from 1 in the model's list; nothing, and what the model does not know, is 0."""
    assert model_numbers(("a", "b", "c"), ("b", "x", "a")).tolist() == [0, 3, 1, 0]
    assert model_numbers((), ("b",)).tolist() == [0]
    assert model_numbers(("a",), ()).tolist() == [0, 0]


class TestCalendar:
    def test_codes_of_each_row_to_forecast(self) -> None:
        """Hour by hour from the stamps, for series that begin at other times, with counted holidays behind."""
        spec = dataclasses.replace(
            spec_of(6, horizon=5), inputs=InputSpec(cycles=("weekday", "time_of_day"), holidays="DE-BY")
        )
        # Hour 0 of the first series is 30 December 2019, 22:00.
        begin = int((pd.Timestamp("2019-12-30 22:00") - pd.Timestamp("1970-01-01")) / pd.Timedelta("1h"))
        windows = Windows(make_panel(wave(40), wave(60, 1), starts=[begin, begin - 7]), spec, CPU)
        series, rows = [0, 1, 0, 1], [40, 60, 1, 24]
        codes = windows.batch(torch.tensor(series), torch.tensor(rows)).inputs.calendar
        for place, (index, known) in enumerate(zip(series, rows, strict=True)):
            for step in range(5):
                stamp = pd.Timestamp("2019-12-30 22:00") + pd.Timedelta(hours=known + step - 7 * index)
                free = stamp.date() in (pd.Timestamp("2020-01-01").date(),)
                assert codes[place, step].tolist() == [stamp.dayofweek, stamp.hour * 12, free]
