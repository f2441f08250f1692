"""The training loop: what it learns, what it keeps, when it ends."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from clocks import StopsAfter
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import EVERY_INPUT, make_panel, small_spec, wave

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats
from stacklstm_cli.errors import ExitStatus, NothingLearnedError
from stacklstm_cli.model.heads import masked_mean
from stacklstm_cli.model.inputs import InputSpec
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training import loop, runtime, shards
from stacklstm_cli.training.lessons import Lesson, Lessons, lesson_origins
from stacklstm_cli.training.loop import (
    LEAST_IMPROVEMENT,
    Fit,
    Schedule,
    ShuffledBatches,
    build_optimiser,
    fit,
    improves,
)
from stacklstm_cli.training.runtime import Clock, Interrupted, Stopped
from stacklstm_cli.training.shards import Shards

CPU = torch.device("cpu")
SPEC = small_spec(context_length=8, hidden_size=6)
SCHEDULE = Schedule(
    batch_size=8,
    learning_rate=1e-2,
    weight_decay=0.0,
    grad_clip=1.0,
    max_steps=20,
    check_every=5,
    patience=100,
    warmup=2,
    average=0.5,
    skip_rate=0.5,
    validation_windows=1000,
)


def lessons_of(values: Floats, weight: float = 0.1, most: int = 10_000, spec: NetworkSpec = SPEC) -> Lessons:
    panel = make_panel(values)
    first = np.array([spec.context_length])
    origins = lesson_origins(panel, first, panel.lengths, spec)
    return Lessons(Windows(panel, spec, CPU), Origins(origins.series[:most], origins.rows[:most]), np.array([weight]))


def network_of(spec: NetworkSpec = SPEC, seed: int = 0) -> StackedRNN:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return StackedRNN(spec)


def fitted(
    lessons: Lessons, validation: Lessons | None = None, clock: Clock | None = None, seed: int = 0, **changes: Any
) -> Fit:
    """A fit of a new network."""
    events = changes.pop("on_event", lambda event: None)
    schedule = dataclasses.replace(SCHEDULE, **changes)
    return fit(
        network_of(lessons.windows.spec),
        lessons,
        validation,
        schedule,
        seed=seed,
        clock=clock or Clock(),
        phase="testing",
        on_event=events,
    )


def loss_by_loops(weights: dict[str, torch.Tensor], lessons: Lessons) -> float:
    """The mean pinball loss over every known target of every window, one number at a time."""
    network = StackedRNN(lessons.windows.spec)
    network.load_state_dict(weights)
    network.eval()
    total, count = 0.0, 0
    for window in range(len(lessons)):
        lesson = lessons.batch(torch.tensor([window]))
        with torch.no_grad():
            forecast = network(lesson.inputs)[0] * lesson.gain[0, 0]
        for step in range(lessons.windows.spec.horizon):
            if not lesson.known[0, step]:
                continue
            for place, quantile in enumerate(lessons.windows.spec.quantiles):
                above = float(lesson.target[0, step] - forecast[step, place])
                total += 2 * max(quantile * above, (quantile - 1) * above) / 3
            count += 1
    return total / count


def bytes_of(found: Fit) -> bytes:
    return b"".join(found.weights[name].numpy().tobytes() for name in sorted(found.weights))


class TestLearning:
    def test_learns_one_batch_by_heart(self) -> None:
        """Eight windows of noise, to a hundredth of the loss of saying nothing."""
        lessons = lessons_of(
            np.random.default_rng(0).normal(size=40),
            weight=1.0,
            most=8,
            spec=small_spec(context_length=8, hidden_size=16),
        )
        nothing = loss_by_loops(network_of(lessons.windows.spec).state_dict(), lessons)
        found = fitted(lessons, learning_rate=0.03, max_steps=300, average=0.9, skip_rate=1.0)
        assert loss_by_loops(found.weights, lessons) < 0.03 * nothing

    def test_gaps_in_the_targets_teach_nothing(self) -> None:
        """Whatever target stands where none is known changes no bit of the weights."""

        class Rubbish(Lessons):
            def batch(self, chosen: torch.Tensor, *, exact: bool = False) -> Lesson:
                lesson = super().batch(chosen, exact=exact)
                return dataclasses.replace(lesson, target=lesson.target.where(lesson.known > 0, 1e9))

        values = wave(40)
        values[[12, 25, 26]] = math.nan
        lessons = lessons_of(values)
        origins = Origins(lessons.series.numpy(), lessons.rows.numpy())
        assert bytes_of(fitted(Rubbish(lessons.windows, origins, lessons.weights.numpy()))) == bytes_of(fitted(lessons))

    def test_the_loss_of_an_event_is_that_of_its_batch(self) -> None:
        """One batch holds all windows: the first loss is that of the untrained network."""
        lessons = lessons_of(wave(40))
        losses: list[float] = []
        fitted(lessons, batch_size=1000, on_event=lambda event: losses.append(event["loss"]))
        assert losses[0] == pytest.approx(loss_by_loops(network_of().state_dict(), lessons), rel=1e-5)
        assert len(losses) == SCHEDULE.max_steps

    def test_clipping(self) -> None:
        """0 does not clip: the result differs from that of a small norm."""
        lessons = lessons_of(wave(40))
        assert bytes_of(fitted(lessons, grad_clip=0.0)) != bytes_of(fitted(lessons, grad_clip=1e-3))
        assert bytes_of(fitted(lessons, grad_clip=0.0)) == bytes_of(fitted(lessons, grad_clip=1e9))


class TestEveryStep:
    """Each step of the stack is trained on the horizon behind it."""

    def test_the_loss_is_that_of_all_steps(self) -> None:
        """Every known target of every step of every window, one number at a time."""
        values = wave(40)
        values[[12, 25, 26]] = math.nan
        plain = lessons_of(values)
        origins = Origins(plain.series.numpy(), plain.rows.numpy())
        lessons = Lessons(plain.windows, origins, plain.weights.numpy(), every_step=True)
        losses: list[float] = []
        fitted(lessons, batch_size=1000, max_steps=1, on_event=lambda event: losses.append(event["loss"]))
        network, total, count = network_of().eval(), 0.0, 0
        for window in range(len(lessons)):
            lesson = lessons.batch(torch.tensor([window]))
            with torch.no_grad():
                forecast = network(lesson.inputs)[0] * lesson.gain.flatten()  # [S, H, Q]
            for step, row in itertools.product(range(SPEC.steps), range(SPEC.horizon)):
                if lesson.known[0, step, row]:
                    count += 1
                    for place, quantile in enumerate(SPEC.quantiles):
                        above = float(lesson.target[0, step, row] - forecast[step, row, place])
                        total += 2 * max(quantile * above, (quantile - 1) * above) / 3
        assert losses == [pytest.approx(total / count, rel=1e-5)]

    def test_it_learns_by_heart_what_the_newest_step_forecasts(self) -> None:
        """Validated on the newest step alone: it falls, and the weights are others than without."""
        plain = lessons_of(wave(40))
        origins = Origins(plain.series.numpy(), plain.rows.numpy())
        lessons = Lessons(plain.windows, origins, plain.weights.numpy(), every_step=True)
        found = fitted(lessons, plain, max_steps=60)
        assert found.validation is not None
        assert found.validation < 0.7 * loss_by_loops(network_of().state_dict(), plain)
        assert bytes_of(found) != bytes_of(fitted(plain, plain, max_steps=60))


class TestGroups:
    @pytest.mark.parametrize("skip", [True, False])
    @pytest.mark.parametrize("inputs", [InputSpec(), EVERY_INPUT], ids=["plain", "every"])
    def test_every_parameter_is_in_one_group(self, inputs: InputSpec, skip: bool) -> None:
        """The skip learns slower; the bias does not decay. Embeddings and the decoder are not forgotten."""
        network = network_of(small_spec(context_length=8, inputs=inputs, skip=skip))
        groups = build_optimiser(network, dataclasses.replace(SCHEDULE, weight_decay=0.1)).groups
        found = {id(parameter): group for group in groups for parameter in group.parameters}
        assert sum(len(group.parameters) for group in groups) == len(found)
        for name, parameter in network.named_parameters():
            group = found[id(parameter)]
            assert group.learning_rate == pytest.approx(0.005 if name == "skip" else 0.01), name
            assert group.weight_decay == (0.0 if name == "bias" else 0.1), name


class TestBest:
    @pytest.fixture(scope="class")
    @staticmethod
    def overfitted() -> tuple[Fit, Lessons]:
        """A fit that learns four windows by heart and gets worse on all others."""
        noise = np.random.default_rng(3).normal(size=200)
        lessons, validation = lessons_of(noise[:30], weight=1.0, most=4), lessons_of(noise[30:], weight=1.0)
        return fitted(lessons, validation, learning_rate=0.02, max_steps=200, average=0.8), validation

    def test_the_best_weights_are_kept_not_the_last(self, overfitted: tuple[Fit, Lessons]) -> None:
        """The least of the validations, and the weights that gave it."""
        found, validation = overfitted
        steps = [entry["step"] for entry in found.history]
        losses = [entry["validation"] or math.nan for entry in found.history]
        assert steps == list(range(5, 201, 5))
        assert found.steps < 200
        assert losses[-1] > 1.1 * min(losses)
        assert found.validation == losses[steps.index(found.steps)]
        assert found.validation <= min(losses) * (1 + LEAST_IMPROVEMENT)
        assert loss_by_loops(found.weights, validation) == pytest.approx(found.validation, rel=1e-4)

    def test_without_validation_the_last_average_is_kept(self) -> None:
        """As many steps as asked, and the weights a validation at that step would have judged."""
        lessons = lessons_of(wave(60))
        found = fitted(lessons, max_steps=15)
        assert (found.steps, found.validation, found.history) == (15, None, [])
        judged = fitted(lessons, lessons, max_steps=15, check_every=15)
        assert bytes_of(judged) == bytes_of(found)

    def test_validating_changes_nothing(self) -> None:
        """How often it looks has no influence on what is learned."""
        lessons = lessons_of(wave(60), spec=small_spec(context_length=8, dropout=0.3))
        results = {every: fitted(lessons, lessons, max_steps=12, check_every=every) for every in (3, 4, 12)}
        last = {every: found.history[-1]["validation"] for every, found in results.items()}
        assert len(set(last.values())) == 1

    def test_a_validation_in_parts_as_in_one_piece(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """To the bit, also where targets are missing; on whole chunks it is the mean over the known targets."""
        values = wave(60)
        values[30:33] = np.nan
        lessons = lessons_of(values)
        network, head = StackedRNN(SPEC), loop.build_teacher(SPEC.loss, SPEC.quantiles, CPU)
        average = loop.WeightAverage(network, 0.5)
        found = set()
        for at_once in (1, 7, 1000):
            monkeypatch.setattr(loop, "VALIDATED_AT_ONCE", at_once)
            found.add(loop.validate(network, average, lessons, head, Clock()))
        with torch.no_grad():
            lesson = lessons.batch(torch.arange(len(lessons)))
            expected = float(masked_mean(shards.losses(network.eval(), lesson, head), lesson.known))
        assert found == {expected}

    @pytest.mark.parametrize(
        ("value", "best", "better"),
        [
            (1.0, None, True),
            (0.9, 1.0, True),
            (1.0, 1.0, False),
            (1.0 - LEAST_IMPROVEMENT / 2, 1.0, False),
            (None, None, False),
            (0.0, 0.0, False),
        ],
    )
    def test_improvement(self, value: float | None, best: float | None, better: bool) -> None:
        assert improves(value, best) is better

    @pytest.mark.parametrize("weight", [math.nan, math.inf])
    def test_a_validation_that_is_no_number_is_none(self, weight: float) -> None:
        """It is no improvement, and the history holds nothing that JSON does not."""
        lessons = lessons_of(wave(60))

        def spoil(event: dict[str, Any]) -> None:
            if event["step"] == 7:
                validation.weights[:] = weight

        validation = lessons_of(wave(60))
        found = fitted(lessons, validation, on_event=spoil)
        assert found.steps == 5
        assert [entry["validation"] for entry in found.history][1:] == [None, None, None]


class TestEnd:
    def test_patience(self) -> None:
        """Nothing improves at the least rate: the first validation is best, and so many more are made."""
        lessons = lessons_of(wave(60))
        found = fitted(lessons, lessons, learning_rate=1e-12, patience=3, max_steps=1000)
        assert [entry["step"] for entry in found.history] == [5, 10, 15, 20]
        assert (found.steps, found.stopped) == (5, "")
        assert found.windows == 20 * 8

    def test_the_last_step_is_validated(self) -> None:
        lessons = lessons_of(wave(60))
        assert [entry["step"] for entry in fitted(lessons, lessons, max_steps=7).history] == [5, 7]

    @pytest.mark.parametrize("why", ["time", "signal"])
    @pytest.mark.parametrize("steps", [1, 3])
    def test_the_clock(self, steps: int, why: Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
        """The weights in hand are kept, and validated where nothing has been yet."""
        lessons = lessons_of(wave(60))
        found = fitted(lessons, lessons, StopsAfter(steps, why, monkeypatch))
        assert (found.steps, found.stopped) == (steps, why)
        assert found.validation == pytest.approx(loss_by_loops(found.weights, lessons), rel=1e-4)
        plain = fitted(lessons, None, StopsAfter(steps, why, monkeypatch))
        assert (plain.steps, plain.stopped, plain.validation) == (steps, why, None)
        assert bytes_of(plain) == bytes_of(found)

    def test_the_weights_in_hand_are_validated_when_the_clock_ends_a_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three steps after the last validation, better than then: these are returned."""
        lessons = lessons_of(wave(60))
        later = fitted(lessons, lessons, max_steps=8, check_every=8)
        assert later.validation is not None
        found = fitted(lessons, lessons, StopsAfter(8, "time", monkeypatch), check_every=5)
        first = found.history[0]["validation"]
        assert first is not None
        assert later.validation < first * (1 - LEAST_IMPROVEMENT)
        assert (found.steps, found.validation) == (8, later.validation)

    @pytest.mark.parametrize("step", [1, 3, 5, 8])
    @pytest.mark.parametrize("validated", [False, True])
    def test_a_signal_while_an_event_is_told(self, step: int, validated: bool) -> None:
        """As a handler sets it while a line of progress is drawn: at most one more step, validated and returned."""
        clock, lessons = Clock(), lessons_of(wave(60))

        def stop(event: dict[str, Any]) -> None:
            if event["step"] == step:
                clock.signal_number = 15

        found = fitted(lessons, lessons if validated else None, clock, on_event=stop)
        assert found.stopped == "signal"
        assert found.steps in (step, step + 1)
        assert bytes_of(found) == bytes_of(fitted(lessons, max_steps=found.steps))
        if validated:
            assert found.validation == pytest.approx(loss_by_loops(found.weights, lessons), rel=1e-4)

    def test_the_share_of_time_is_passed_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock, lessons = StopsAfter(2, "time", monkeypatch), lessons_of(wave(60))
        fit(network_of(), lessons, lessons, SCHEDULE, seed=0, clock=clock, phase="", share_of_time=0.25)
        assert {share for _, share in clock.shares} == {0.25}


class TestNothingLearned:
    @pytest.mark.parametrize("validated", [False, True])
    def test_no_step(self, validated: bool) -> None:
        lessons = lessons_of(wave(60))
        with pytest.raises(NothingLearnedError, match="single optimiser step") as caught:
            fitted(lessons, lessons if validated else None, Clock(max_time=0.0))
        assert caught.value.exit_status == ExitStatus.NOTHING_LEARNED
        assert "--max-time" in caught.value.hint

    @pytest.mark.parametrize("validated", [False, True])
    def test_a_loss_that_is_no_number(self, validated: bool) -> None:
        lessons = lessons_of(wave(60), weight=math.nan)
        with pytest.raises(NothingLearnedError, match="not a finite number") as caught:
            fitted(lessons, lessons if validated else None)
        assert "--learning-rate" in caught.value.hint

    def test_an_infinite_loss(self) -> None:
        """A target beyond float32 has finite gradients: the weights are numbers, and yet the fit broke off."""
        values = wave(60)
        values[-1] = 1e45
        lessons = lessons_of(values)
        with pytest.raises(NothingLearnedError, match="finite"):
            fitted(lessons, batch_size=1000)

    def test_an_infinite_validation_loss(self) -> None:
        """Every weight is a number, but nothing tells good from bad: a result that JSON cannot hold."""
        values = wave(60)
        values[-1] = 1e45
        with pytest.raises(NothingLearnedError, match="finite"):
            fitted(lessons_of(wave(60)), lessons_of(values))

    def test_what_was_good_before_it_broke_is_kept(self) -> None:
        """A best validated fit survives a loss that is no number later on."""
        lessons = lessons_of(wave(60))

        def spoil(event: dict[str, Any]) -> None:
            if event["step"] == 12:
                lessons.weights[:] = math.nan

        found = fitted(lessons, lessons_of(wave(60)), on_event=spoil)
        assert found.steps in (5, 10)
        assert found.validation is not None
        assert all(tensor.isfinite().all() for tensor in found.weights.values())


class TestDivergence:
    """Back to the newest sound state with half the learning rate, at most three times."""

    @staticmethod
    def spoiled(steps: set[int], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
        """Let these calls of a training step find no number; [(call, rate)] of all calls is filled in."""
        calls: list[tuple[int, float]] = []
        step = loop.train_step

        def counted(some: Shards, chosen: torch.Tensor, optimiser: loop.AdamW, grad_clip: float) -> float:
            calls.append((len(calls) + 1, optimiser.rate))
            weights = some.lessons.weights.clone()
            if len(calls) in steps:
                some.lessons.weights[:] = math.nan  # of which targets are made
            loss = step(some, chosen, optimiser, grad_clip)
            some.lessons.weights[:] = weights
            return loss

        monkeypatch.setattr(loop, "train_step", counted)
        return calls

    def test_it_goes_on_from_the_last_check(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Steps 6 and 7 are made again at half the rate: the result is that of a fit that did so from step 6 on."""
        lessons = lessons_of(wave(60), spec=small_spec(context_length=8, dropout=0.3))
        events: list[int] = []
        with monkeypatch.context() as patch:
            calls = self.spoiled({8}, patch)
            found = fitted(lessons, lessons, on_event=lambda event: events.append(event["step"]))
        assert events == [1, 2, 3, 4, 5, 6, 7, *range(6, 21)]
        assert [rate for _, rate in calls] == [1.0] * 8 + [0.5] * 15
        assert found.recoveries == 1

        class Slower(loop.AdamW):
            def step(self) -> None:
                self.rate = 1.0 if self.step_count < 5 else 0.5
                super().step()

        monkeypatch.setattr(loop, "AdamW", Slower)
        straight = fitted(lessons, lessons)
        assert (straight.recoveries, straight.history) == (0, found.history)
        assert bytes_of(straight) == bytes_of(found)

    @pytest.mark.parametrize(("times", "kept"), [(3, 20), (4, 5)])
    def test_three_times_at_most(self, times: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """After the fourth, what was good before it is returned."""
        calls = self.spoiled({6 + back for back in range(times)}, monkeypatch)
        lessons = lessons_of(wave(60))
        found = fitted(lessons, lessons)
        assert [rate for _, rate in calls][5:9] == [1.0, 0.5, 0.25, 0.125]
        assert found.recoveries == 3
        assert found.history[-1]["step"] == kept
        assert all(tensor.isfinite().all() for tensor in found.weights.values())

    def test_a_gradient_that_is_no_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The loss is finite, its gradient overflows: no weight is touched."""
        lessons = lessons_of(wave(60))

        def overflowing(network: StackedRNN, lesson: Lesson, *others: object) -> torch.Tensor:
            return masked_mean(lesson.known, lesson.known) + 0 * (network.bias * 1e-30).sqrt().sum()

        monkeypatch.setattr(shards, "lesson_loss", overflowing)
        with pytest.raises(NothingLearnedError, match="not a finite number"):
            fitted(lessons)

    def test_weights_that_overflow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Found at the next check, also where no validation would show it, and also at the last step."""
        lessons, step, calls = lessons_of(wave(60)), loop.train_step, list[int]()

        def broken(some: Shards, *arguments: Any) -> float:
            calls.append(1)
            loss = step(some, *arguments)
            if len(calls) in (9, 30):
                with torch.no_grad():
                    some.network.head.weight[0, 0] = math.inf
            return loss

        monkeypatch.setattr(loop, "train_step", broken)
        found = fitted(lessons, max_steps=25)
        assert (found.recoveries, found.steps) == (2, 25)
        assert all(tensor.isfinite().all() for tensor in found.weights.values())

    def test_the_start_is_measured(self) -> None:
        """The validation loss of the untouched network, for whoever compares."""
        lessons = lessons_of(wave(60))
        found = fitted(lessons, lessons)
        assert found.start_validation == pytest.approx(loss_by_loops(network_of().state_dict(), lessons), rel=1e-5)
        assert fitted(lessons).start_validation is None

    def test_first_steps_that_make_it_worse_are_taken_back(self) -> None:
        """Once, to a quarter of the rate: as if it had been trained so from the start."""
        lessons = lessons_of(wave(60))
        found = fitted(lessons, lessons, learning_rate=4.0)
        gentle = fitted(lessons, lessons, learning_rate=1.0)
        assert (found.rate, gentle.rate) == (0.25, 1.0)
        assert bytes_of(found) == bytes_of(gentle)


class TestSnapshots:
    SPEC = small_spec(context_length=8, dropout=0.4)

    @pytest.mark.parametrize("validated", [False, True])
    def test_any_snapshot_leads_to_the_same_end(self, validated: bool) -> None:
        """Weights, best weights, history and figures, with random numbers drawn in between."""
        lessons = lessons_of(wave(60), spec=self.SPEC)
        snapshots: list[loop.Snapshot] = []

        def one(state: loop.Snapshot | None = None) -> Fit:
            torch.rand(3)
            judged = lessons if validated else None
            return fit(
                *(network_of(self.SPEC), lessons, judged, SCHEDULE), seed=0, clock=Clock(), phase="", state=state,
                on_snapshot=lambda snapshot, better: snapshots.append(snapshot),
            )  # fmt: skip

        straight = one()
        assert [snapshot.numbers["step"] for snapshot in snapshots] == [5, 10, 15, 20]
        for snapshot in snapshots[:4]:
            again = one(snapshot)
            assert bytes_of(again) == bytes_of(straight)
            for name in ("steps", "validation", "history", "windows", "epochs", "start_validation"):
                assert getattr(again, name) == getattr(straight, name)
            assert again.first_epoch_seconds is None

    def test_a_snapshot_is_a_copy(self) -> None:
        """Steps that are made later do not change it."""
        lessons, snapshots, sums = lessons_of(wave(60)), list[loop.Snapshot](), list[float]()

        def keep(snapshot: loop.Snapshot, better: bool) -> None:
            snapshots.append(snapshot)
            sums.append(sum(float(tensor.double().sum()) for tensor in snapshot.tensors.values()))

        fit(network_of(), lessons, lessons, SCHEDULE, seed=0, clock=Clock(), phase="", on_snapshot=keep)
        assert sums == [sum(float(tensor.double().sum()) for tensor in one.tensors.values()) for one in snapshots]
        assert len(set(sums)) == 4


class TestSignals:
    def test_before_the_first_step(self) -> None:
        """There is nothing to save."""
        clock = Clock()
        clock.signal_number = 15
        with pytest.raises(Interrupted):
            fitted(lessons_of(wave(60)), clock=clock)

    def test_a_long_validation_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The best weights so far are returned, or those in hand; the state of the network is as it should be."""
        now = [0.0]
        monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
        lessons = lessons_of(wave(60))
        for step in (3, 8):
            clock = Clock()

            def stop(event: dict[str, Any], clock: Clock = clock, step: int = step) -> None:
                if event["step"] == step - 1:
                    clock.signalled(15)
                    now[0] += runtime.SECONDS_AFTER_SIGNAL + 0.01

            found = fitted(lessons, lessons, clock, on_event=stop)
            assert found.stopped == "signal"
            assert [entry["step"] for entry in found.history] == ([] if step == 3 else [5])
            assert bytes_of(found) == bytes_of(fitted(lessons, max_steps=3 if step == 3 else 5))


class TestBatches:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**63 - 1))
    def test_each_window_once_per_pass(self, count: int, size: int, seed: int) -> None:
        """Over any number of passes, batches of any size, also larger than a pass."""
        batches = ShuffledBatches(count, size, seed, CPU)
        drawn = torch.cat(list(itertools.islice(batches, 3 * count // size + 3)))
        assert len(drawn) >= 3 * count
        for begin in range(0, 3 * count, count):
            assert sorted(drawn[begin : begin + count].tolist()) == list(range(count))

    def test_each_batch_is_full(self) -> None:
        assert {len(batch) for batch in itertools.islice(ShuffledBatches(7, 3, 0, CPU), 20)} == {3}

    def test_each_pass_has_its_own_order(self) -> None:
        one, two = itertools.islice(ShuffledBatches(50, 50, 0, CPU), 2)
        assert one.tolist() != two.tolist()
        assert one.tolist() != next(ShuffledBatches(50, 50, 1, CPU)).tolist()


class TestChance:
    SPEC = small_spec(context_length=8, dropout=0.4)

    def test_the_same_seed_gives_the_same_bytes(self) -> None:
        """With dropout, whatever was drawn before; another seed gives others."""
        lessons = lessons_of(wave(60), spec=self.SPEC)
        first = fitted(lessons, lessons)
        torch.rand(17)
        second = fitted(lessons, lessons)
        assert bytes_of(second) == bytes_of(first)
        assert second.history == first.history
        assert bytes_of(fitted(lessons, lessons, seed=1)) != bytes_of(first)

    def test_the_global_generator_is_left_alone(self) -> None:
        network, lessons = network_of(self.SPEC), lessons_of(wave(60), spec=self.SPEC)
        torch.manual_seed(5)
        before = torch.get_rng_state()
        fit(network, lessons, lessons, SCHEDULE, seed=0, clock=Clock(), phase="")
        assert torch.equal(torch.get_rng_state(), before)


class TestReport:
    def test_counts(self) -> None:
        """49 windows in batches of 8: 20 steps are three passes and a bit."""
        lessons = lessons_of(wave(60))
        assert len(lessons) == 49
        found = fitted(lessons)
        assert found.windows == 160
        assert found.epochs == pytest.approx(160 / 49)
        assert found.first_epoch_seconds is not None
        assert 0 < found.first_epoch_seconds <= found.seconds
        assert found.windows_per_second is not None
        assert found.windows_per_second > 0
        short = fitted(lessons, max_steps=3)
        assert short.first_epoch_seconds is None
        assert short.windows_per_second is None

    def test_events(self) -> None:
        """One per step, with what a progress line shows."""
        events: list[dict[str, Any]] = []
        lessons = lessons_of(wave(60))
        found = fitted(lessons, lessons, on_event=events.append)
        assert [event["step"] for event in events] == list(range(1, 21))
        assert {event["phase"] for event in events} == {"testing"}
        assert {event["max_steps"] for event in events} == {20}
        assert [event["step"] for event in events if event["validation"] is not None] == [5, 10, 15, 20]
        assert found.history == [
            {key: event[key] for key in ("step", "epoch", "loss", "validation")}
            for event in events
            if event["validation"] is not None
        ]

    def test_weights_are_a_copy(self) -> None:
        """Training the same network on does not change what was found."""
        lessons, network = lessons_of(wave(60)), network_of()
        found = fit(network, lessons, None, SCHEDULE, seed=0, clock=Clock(), phase="")
        before = bytes_of(found)
        fit(network, lessons, None, SCHEDULE, seed=1, clock=Clock(), phase="")
        assert bytes_of(found) == before
