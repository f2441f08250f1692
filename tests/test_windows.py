"""Contexts and targets against loops in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import make_panel, wave

from stacklstm_cli.data.panel import Panel
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.model.windows import Batch, Windows, location_and_scale

CPU = torch.device("cpu")


def spec_of(context: int, horizon: int = 2, location: int | None = None, scale: int | None = None) -> NetworkSpec:
    """What windows look at; the rest is arbitrary."""
    return NetworkSpec(1, 4, 0.0, 1, context, horizon, (0.5,), location or context, scale or context)


def contexts(panel: Panel, spec: NetworkSpec, series: list[int], rows: list[int]) -> Batch:
    return Windows(panel, spec, CPU).contexts(torch.tensor(series), torch.tensor(rows))


def mean_of(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def deviation_of(values: list[float]) -> float:
    mean = mean_of(values)
    return math.sqrt(mean_of([(value - mean) ** 2 for value in values]))


def slow_context(values: list[float], rows: int, spec: NetworkSpec) -> tuple[list[float], list[int], float, float]:
    """Normalised context, observed flags, location and scale of one origin, value by value."""
    if all(math.isnan(v) for v in values[max(rows - spec.context_length, 0) : rows]):
        # In a gap longer than the context: seasons back, until the last value is in the newest season.
        while all(math.isnan(v) for v in values[max(rows - spec.location_length, 0) : rows]):
            rows -= spec.location_length
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
            assert batch.observed[place].tolist() == observed
            assert batch.location[place].item() == pytest.approx(middle, rel=1e-12, abs=1e-12 * level)
            assert batch.scale[place].item() == pytest.approx(spread, rel=1e-9, abs=1e-12 * level)
            assert batch.context[place].tolist() == pytest.approx(normalised, rel=1e-5, abs=1e-5)

    def test_nothing_of_another_series_is_seen(self) -> None:
        """The first rows of a series are padded, not filled with the end of the one before."""
        batch = contexts(make_panel([1e6, 2e6, 3e6], [1.0, 3.0]), spec_of(4), [1, 1], [2, 1])
        assert batch.observed.tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
        assert batch.context.tolist() == [[0, 0, -1, 1], [0, 0, 0, 0]]
        assert batch.location.tolist() == [2, 1]
        assert batch.scale.tolist() == [1, 1e-6]

    @pytest.mark.parametrize("rubbish", [1e300, -1e-300, 7.0])
    def test_what_stands_in_a_missing_place_does_not_matter(self, rubbish: float) -> None:
        """Before the series, in its gaps, and in the next one: bit for bit the same."""
        gappy = np.array([1.0, 2.0, math.nan, 4.0, math.nan, math.nan, 7.0])
        spec = spec_of(6, horizon=3, location=2, scale=3)
        windows = Windows(make_panel([0.5, 0.25], gappy, [3.0, 1.0]), spec, CPU)
        series, rows = torch.ones(7, dtype=torch.int64), torch.arange(1, 8)
        before, (targets, known) = windows.contexts(series, rows), windows.targets(series, rows)
        own = torch.zeros(11, dtype=torch.bool)
        own[2:9] = True
        windows.values[~(own & windows.observed)] = rubbish
        after, (new_targets, new_known) = windows.contexts(series, rows), windows.targets(series, rows)
        assert torch.equal(before.context, after.context)
        assert torch.equal(before.observed, after.observed)
        assert torch.equal(before.location, after.location)
        assert torch.equal(before.scale, after.scale)
        assert torch.equal(known, new_known)
        assert torch.equal(targets[known], new_targets[known])

    def test_types(self) -> None:
        """The network gets float32; what leads back to user units keeps float64."""
        batch = contexts(make_panel([1.0, 2.0]), spec_of(2), [0], [2])
        assert (batch.context.dtype, batch.observed.dtype) == (torch.float32, torch.float32)
        assert (batch.location.dtype, batch.scale.dtype) == (torch.float64, torch.float64)

    def test_small_changes_at_a_high_level_are_kept(self) -> None:
        """1e9 plus or minus one: float32 alone would see a constant."""
        values = 1e9 + np.array([1.0, -1.0, 1.0, -1.0])
        windows = Windows(make_panel(np.tile(values, 2)), spec_of(4, horizon=4), CPU)
        location, scale = location_and_scale(torch.tensor(values)[None], torch.ones(1, 4, dtype=torch.bool), spec_of(4))
        batch = windows.contexts(torch.tensor([0]), torch.tensor([4]))
        assert location.item() == batch.location.item() == 1e9
        # The deviation is 1, but a millionth of the level is the least scale.
        assert scale.item() == batch.scale.item() == 1000
        assert batch.context[0].tolist() == pytest.approx([1e-3, -1e-3, 1e-3, -1e-3])
        target, _ = windows.targets(torch.tensor([0]), torch.tensor([4]))
        assert target[0].tolist() == values.tolist()
        back = batch.location[:, None] + batch.context.double() * batch.scale[:, None]
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
        assert batch.location.item() == pytest.approx(location, abs=1e-12)
        assert batch.scale.item() == pytest.approx(scale)

    def test_in_a_gap_longer_than_the_context_an_older_season_stands_in(self) -> None:
        """Whole seasons back, so that the forecast starts at the right season, with a level and a scale."""
        series = [500.0, 700.0, *[math.nan] * 6, 3.0]
        batch = contexts(make_panel([9.0], series), spec_of(4, location=2), [1, 1, 1], [5, 6, 8])
        assert batch.observed.tolist() == [[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
        assert batch.location[1:].tolist() == [600, 600]
        assert (batch.scale[1:] == 100).all()

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
            assert one.context.tolist() == other.context.tolist()
            assert (one.scale * unit).tolist() == other.scale.tolist()


class TestTargets:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(some_series, min_size=1, max_size=3), st.integers(1, 5), st.data())
    def test_equal_the_loop(self, series: list[list[float]], horizon: int, data: st.DataObject) -> None:
        """The rows from the origin on, unknown where missing and after the end of their series."""
        places = [(index, rows) for index, one in enumerate(series) for rows in range(len(one) + 1)]
        chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6))
        windows = Windows(make_panel(*series), spec_of(3, horizon), CPU)
        values, known = windows.targets(*(torch.tensor(column) for column in zip(*chosen, strict=True)))
        assert values.dtype == torch.float64
        for place, (index, rows) in enumerate(chosen):
            came = [series[index][row] if row < len(series[index]) else math.nan for row in range(rows, rows + horizon)]
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
    together = windows.contexts(series, rows)
    for place in range(5):
        alone = windows.contexts(series[place : place + 1], rows[place : place + 1])
        assert torch.equal(alone.context[0], together.context[place])
        assert torch.equal(alone.location[0], together.location[place])
        assert torch.equal(alone.scale[0], together.scale[place])
