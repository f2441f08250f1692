"""Training windows against loops, and the units of the loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import EVERY_INPUT, every_covariate, make_panel, small_spec, wave

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training.lessons import RELATIVE_SHARE, Lessons, lesson_origins, series_weights

CPU = torch.device("cpu")
values = st.one_of(st.just(math.nan), st.integers(-9, 9).map(float))


def pairs(origins: Origins) -> list[tuple[int, int]]:
    return list(zip(origins.series.tolist(), origins.rows.tolist(), strict=True))


class TestOrigins:
    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.lists(values, min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 5), st.data())
    def test_equal_the_loop(self, series: list[list[float]], horizon: int, data: st.DataObject) -> None:
        """Each origin whose horizon lies in the part; context and horizon each hold an observed value; in order."""
        first = [data.draw(st.integers(0, 14)) for _ in series]
        last = [data.draw(st.integers(0, len(one))) for one in series]
        context = data.draw(st.integers(1, 6))

        def seen(rows: list[float]) -> bool:
            return any(not math.isnan(value) for value in rows)

        expected = [
            (index, rows)
            for index, one in enumerate(series)
            for rows in range(len(one) + 1)
            if first[index] <= rows
            and rows + horizon <= last[index]
            and seen(one[rows : rows + horizon])
            and seen(one[max(rows - context, 0) : rows])
        ]
        spec = small_spec(context_length=context, horizon=horizon)
        assert pairs(lesson_origins(make_panel(*series), np.array(first), np.array(last), spec)) == expected

    def test_nothing_fits(self) -> None:
        panel = make_panel([1.0, 2.0], [3.0])
        assert len(lesson_origins(panel, np.array([1, 1]), panel.lengths, small_spec(horizon=2))) == 0


def slow_weight_parts(series: list[float], season: int) -> tuple[float, float]:
    """One over the mean seasonal change, and one over the mean size, of one series."""
    lag = season if len(series) > 2 * season else 1
    changes = [abs(b - a) for a, b in zip(series, series[lag:], strict=False) if not math.isnan(b - a)]
    observed = [value for value in series if not math.isnan(value)]
    if not observed:
        return 1.0, 1.0
    level = math.fsum(abs(value) for value in observed) / len(observed)
    mean = math.fsum(observed) / len(observed)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in observed) / len(observed))
    floor = max(level / 1000, deviation / 100) or 1.0
    change = math.fsum(changes) / len(changes) if changes else 0.0
    return 1 / max(change, floor), 1 / max(level, floor)


class TestWeights:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.lists(values, min_size=1, max_size=14), min_size=1, max_size=4),
        st.integers(1, 5),
        st.data(),
    )
    def test_equal_the_loop(self, series: list[list[float]], season: int, data: st.DataObject) -> None:
        """Series of one value, all zero, constant, all missing; `ends` from 0 on."""
        ends = [data.draw(st.integers(0, len(one))) for one in series]
        parts = [slow_weight_parts(one[: max(end, 1)], season) for one, end in zip(series, ends, strict=True)]
        middle = sorted(change / level for change, level in parts)
        half = len(middle) // 2
        median = middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) / 2
        expected = [(1 - RELATIVE_SHARE) * change + RELATIVE_SHARE * median * level for change, level in parts]
        found = series_weights(make_panel(*series), np.array(ends), season)
        assert found.tolist() == pytest.approx(expected, rel=1e-9)
        assert (found > 0).all()

    @pytest.mark.parametrize("unit", [1e-6, 60.0, 1e9])
    def test_a_series_counts_alike_in_any_unit(self, unit: float) -> None:
        """Metres or millimetres of one of the series: only its own weight changes, by as much."""
        one, two = wave(60), wave(50, seed=1)
        before = series_weights(make_panel(one, two), np.array([60, 50]), 24)
        after = series_weights(make_panel(one * unit, two), np.array([60, 50]), 24)
        np.testing.assert_allclose(after * [unit, 1], before, rtol=1e-9)

    def test_later_rows_have_no_say(self) -> None:
        one = wave(60)
        before = series_weights(make_panel(one), np.array([40]), 24)
        one[40:] = 1e9
        assert series_weights(make_panel(one), np.array([40]), 24).tobytes() == before.tobytes()


def lessons_of(weights: Floats | None = None) -> Lessons:
    gap = wave(30, seed=1) * 100
    gap[[5, 20, 21]] = math.nan
    panel = make_panel(wave(25), gap)
    origins = lesson_origins(panel, np.array([2, 2]), panel.lengths, small_spec())
    return Lessons(Windows(panel, small_spec(), CPU), origins, np.array([0.5, 4.0]) if weights is None else weights)


class TestBatch:
    def test_targets_in_the_units_of_the_loss(self) -> None:
        """(y - location) * weight where y is known, 0 elsewhere; gain leads from normalised units there."""
        lessons = lessons_of()
        chosen = torch.tensor([0, 30, 36, 12])
        lesson = lessons.batch(chosen, exact=True)
        series, rows = lessons.series[chosen], lessons.rows[chosen]
        windows = lessons.windows.batch(series, rows)
        targets, known = lessons.windows.targets(series, rows)
        assert not known.all()
        for place in range(4):
            weight = [0.5, 4.0][int(series[place])]
            location, scale = (one[place].item() for one in (windows.scaling.location, windows.scaling.scale))
            assert lesson.gain[place].item() == pytest.approx(scale * weight)
            for step in range(4):
                seen = bool(known[place, step])
                expected = (targets[place, step].item() - location) * weight if seen else 0.0
                assert lesson.known[place, step].item() == seen
                assert lesson.target[place, step].item() == pytest.approx(expected, rel=1e-12)
        assert torch.equal(lesson.inputs.context, windows.inputs.context)
        assert torch.equal(lesson.inputs.observed, windows.inputs.observed)

    def test_types(self) -> None:
        for exact, dtype in ((False, torch.float32), (True, torch.float64)):
            lesson = lessons_of().batch(torch.tensor([0, 1]), exact=exact)
            seen = lesson.inputs
            parts = (seen.context, seen.observed, lesson.target, lesson.known, lesson.gain)
            assert {part.dtype for part in parts} == {dtype}

    def test_covariates_and_calendar_are_those_of_the_window(self) -> None:
        """In the precision asked for; the codes of the calendar as they are."""
        panel = every_covariate(make_panel(wave(25), wave(30, seed=1)))
        spec = small_spec(inputs=EVERY_INPUT)
        origins = lesson_origins(panel, np.array([2, 2]), panel.lengths, spec)
        lessons = Lessons(Windows(panel, spec, CPU), origins, np.array([0.5, 4.0]))
        chosen = torch.tensor([3, 30, 40])
        expected = lessons.windows.batch(lessons.series[chosen], lessons.rows[chosen]).inputs
        for exact, dtype in ((False, torch.float32), (True, torch.float64)):
            found = lessons.batch(chosen, exact=exact).inputs
            for name in ("past", "future", "static"):
                sent = getattr(expected, name).to(dtype)
                torch.testing.assert_close(getattr(found, name), sent, rtol=0, atol=0, equal_nan=True)
            assert torch.equal(found.calendar, expected.calendar)
        assert [expected.past.shape[2], expected.future.shape[2], expected.static.shape[1]] == [4, 2, 2]


class TestThinned:
    @pytest.mark.parametrize("most", [1, 2, 7, 44])
    def test_spread_evenly(self, most: int) -> None:
        """No window twice, in order, and no gap more than one wider than another."""
        lessons = lessons_of()
        thin = lessons.thinned(most)
        everything = list(zip(lessons.series.tolist(), lessons.rows.tolist(), strict=True))
        kept = [everything.index(pair) for pair in zip(thin.series.tolist(), thin.rows.tolist(), strict=True)]
        assert len(kept) == min(most, len(everything))
        assert len(thin) == len(kept)
        steps = np.diff(kept)
        assert (steps > 0).all()
        assert steps.size == 0 or steps.max() - steps.min() <= 1
        if most > 1:
            assert (kept[0], kept[-1]) == (0, len(everything) - 1)
        assert torch.equal(thin.weights, lessons.weights)

    def test_few_stay_as_they_are(self) -> None:
        lessons = lessons_of()
        assert lessons.thinned(len(lessons)) is lessons


class TestEveryStep:
    """What each step of the stack is to forecast."""

    SPEC = small_spec(context_length=7, patch_length=2, inputs=EVERY_INPUT)
    AFTER = (6, 4, 2, 0)
    """Rows of the context behind each step, by hand."""

    def lessons(self, *, every_step: bool = True) -> Lessons:
        gap = wave(30, seed=1) * 100
        gap[[5, 20, 21]] = math.nan
        panel = every_covariate(make_panel(wave(25), gap))
        origins = lesson_origins(panel, np.array([2, 2]), panel.lengths, self.SPEC)
        return Lessons(Windows(panel, self.SPEC, CPU), origins, np.array([0.5, 4.0]), every_step=every_step)

    def test_each_step_is_a_window_that_ends_there(self) -> None:
        """Its rows to forecast, its known covariates and its calendar; location and scale are those of the whole."""
        lessons, last = self.lessons(), self.lessons(every_step=False)
        chosen = torch.arange(0, len(lessons), 3)
        lesson, whole = lessons.batch(chosen), last.batch(chosen)
        for place, window in enumerate(chosen.tolist()):
            series, rows = lessons.series[window : window + 1], int(lessons.rows[window])
            weight, location = [0.5, 4.0][int(series)], whole.scaling.location[place]
            for step, after in enumerate(self.AFTER):
                origin = torch.tensor([rows - after])
                if rows <= after:  # before the series begins there is nothing to forecast from
                    assert not lesson.known[place, step].any()
                    continue
                values, known = (one[0] for one in lessons.windows.targets(series, origin))
                expected = ((values - location) * weight).where(known, 0.0)
                assert lesson.known[place, step].tolist() == known.tolist()
                torch.testing.assert_close(lesson.target[place, step], expected.float())
                there = lessons.windows.batch(series, origin).inputs
                torch.testing.assert_close(
                    lesson.inputs.future[place, step], there.future[0].float(), rtol=0, atol=0, equal_nan=True
                )
                assert torch.equal(lesson.inputs.calendar[place, step], there.calendar[0])
        assert torch.equal(lesson.inputs.context, whole.inputs.context)
        assert torch.equal(lesson.gain.flatten(), whole.gain.flatten())
        assert torch.equal(lesson.scaling.scale.flatten(), whole.scaling.scale.flatten())

    def test_the_last_step_is_the_lesson_itself(self) -> None:
        chosen = torch.arange(len(self.lessons()))
        lesson, whole = self.lessons().batch(chosen), self.lessons(every_step=False).batch(chosen)
        assert lesson.target.shape == (len(chosen), 4, 4)
        assert torch.equal(lesson.target[:, -1], whole.target)
        assert torch.equal(lesson.known[:, -1], whole.known)

    def test_exact_lessons_have_the_newest_step_alone(self) -> None:
        """The linear start is solved for whole contexts."""
        assert self.lessons().batch(torch.tensor([3]), exact=True).target.shape == (1, 4)
        assert self.lessons().thinned(5).every_step
