"""Batches in shards: the same bits with any number of threads, and the gradients of the whole."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import make_panel, small_spec, wave
from safetensors.torch import load_file, save_file

from stacklstm_cli.model.heads import build_head, masked_mean
from stacklstm_cli.model.inputs import InputSpec
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training import shards
from stacklstm_cli.training.lessons import Lesson, Lessons, lesson_origins
from stacklstm_cli.training.loop import Schedule, fit
from stacklstm_cli.training.pace import AGE, FALL, LOOKED_AT, TRIALS, Pace
from stacklstm_cli.training.runtime import Clock, set_threads
from stacklstm_cli.training.shards import Shards, shard_count

CPU = torch.device("cpu")
SCHEDULE = Schedule(
    batch_size=256,
    learning_rate=1e-2,
    weight_decay=0.0,
    grad_clip=1.0,
    max_steps=30,
    check_every=10,
    patience=9,
    warmup=3,
    average=0.9,
    skip_rate=0.1,
    validation_windows=200,
)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The networks of these tests are small: 64 windows are a shard all the same."""
    monkeypatch.setattr(shards, "LEAST_WORK", 1)
    monkeypatch.setattr(shards, "LEAST_SHARD", 64)
    yield
    set_threads(None)


def lessons_of(spec: NetworkSpec, rows: int = 400) -> Lessons:
    values = wave(rows)
    values[::17] = np.nan
    values[0] = values[-1] = 1.0
    panel = make_panel(values)
    origins = lesson_origins(panel, np.array([spec.context_length]), panel.lengths, spec)
    return Lessons(Windows(panel, spec, CPU), origins, np.array([0.7]))


def gradients(spec: NetworkSpec, threads: int, size: int = 200) -> list[torch.Tensor]:
    """Loss and gradients of one batch."""
    lessons = lessons_of(spec)
    torch.manual_seed(0)
    network = StackedRNN(spec).train()
    head = build_head(spec.loss, spec.quantiles, CPU)
    set_threads(threads)
    with Shards(network, lessons, head, batch_size=size, seed=3) as some:
        loss = some.backward(torch.arange(size))
    found = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert found
    return [loss, *found]


@pytest.mark.parametrize(
    "options", [{}, {"dropout": 0.3, "layers": 2}, {"recurrent_dropout": 0.3}, {"attention": True}]
)
def test_threads_change_no_bit(options: dict[str, object]) -> None:
    """One, two and more threads than shards."""
    spec = small_spec(context_length=8, hidden_size=6, **options)
    first = gradients(spec, 1)
    for threads in (2, 3, 8):
        assert all(map(torch.equal, gradients(spec, threads), first))


@pytest.mark.parametrize("size", [1, 63, 64, 129, 200, 300])
def test_shards_add_up_to_the_batch(size: int) -> None:
    """Gradients of the mean loss of the whole batch by autograd alone, where nothing is random."""
    spec = small_spec(context_length=8, hidden_size=6, dropout=0.0)
    loss, *found = gradients(spec, 2, size)
    lessons = lessons_of(spec)
    torch.manual_seed(0)
    network = StackedRNN(spec).train()
    lesson = lessons.batch(torch.arange(size))
    head = build_head(spec.loss, spec.quantiles, CPU)
    expected = masked_mean(head.loss(network(lesson.inputs), lesson.target, lesson.gain, lesson.scaling), lesson.known)
    expected.backward()  # type: ignore[no-untyped-call]
    wanted = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert len(found) == len(wanted)
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_each_shard_draws_its_own_numbers() -> None:
    """The first those of a batch in one piece; and none its neighbour's, of this seed or the next."""
    some = [shards.shard_generator(seed, place, CPU) for seed in range(20) for place in range(8)]
    drawn = [torch.rand(4, generator=one) for one in some]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 160
    for seed in range(20):
        assert torch.equal(torch.rand(4, generator=torch.Generator().manual_seed(seed)), drawn[8 * seed])


def test_what_was_drawn_is_drawn_again(tmp_path: Path) -> None:
    """From the states of all generators, also as they come from a file; the losses of three steps."""
    spec = small_spec(context_length=8, dropout=0.5)
    torch.manual_seed(0)
    network, chosen = StackedRNN(spec).train(), torch.arange(200)
    with Shards(network, lessons_of(spec), build_head(spec.loss, spec.quantiles, CPU), batch_size=200, seed=3) as some:
        assert some.count > 1
        some.backward(chosen)
        state = some.tensors()
        save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "state")
        straight = [some.backward(chosen) for _ in range(3)]
        for again in (
            state,
            load_file(tmp_path / "state"),
            dict(zip(state, torch.stack([*state.values()]), strict=True)),
        ):
            some.restore(again)
            assert [some.backward(chosen) for _ in range(3)] == straight


def test_an_error_in_a_shard_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory in another thread must not be lost, nor hang."""
    spec = small_spec(context_length=8, hidden_size=6)
    lessons = lessons_of(spec)
    network, head = StackedRNN(spec), build_head(spec.loss, spec.quantiles, CPU)
    set_threads(2)
    usual = Lessons.batch

    def failing(self: Lessons, chosen: torch.Tensor, *, exact: bool = False) -> object:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("out of memory")
        return usual(self, chosen, exact=exact)

    monkeypatch.setattr(Lessons, "batch", failing)
    with (
        Shards(network, lessons, head, batch_size=128, seed=1) as some,
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        some.backward(torch.arange(128))


def test_small_work_stays_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards cost milliseconds each: those of a small network or batch would cost more than they win."""
    monkeypatch.undo()
    spec = small_spec(context_length=336, patch_length=24, hidden_size=128, horizon=96)
    work = shards.multiplications(spec)
    stack = 4 * 128 * (2 * 24 + 128) + 4 * 128 * (128 + 128)
    assert work == 14 * stack + 336 * 96
    daily = dataclasses.replace(spec, inputs=InputSpec(cycles=("weekday",)))
    assert shards.multiplications(daily) == work + 96 * 128**2
    every_step = shards.multiplications(daily, every_step=True)
    assert every_step == 14 * stack + 14 * (336 * 96 + 96 * 128**2)
    shared = dataclasses.replace(daily, calendar_rows=24)
    assert shards.multiplications(shared) == work + 4 * 128**2
    assert 4 > 256 * work / shards.LEAST_WORK > 2
    assert shard_count(256, work, CPU) == 2
    assert shard_count(256, work, torch.device("cuda")) == 1
    assert shard_count(256, work, torch.device("cuda"), processes=3) == 3
    assert shard_count(10**6, work, CPU) == shards.MOST_SHARDS
    assert [shard_count(size, 10**9, CPU) for size in (63, 64, 127, 255, 256)] == [1, 2, 2, 4, 8], "of 32 at least"
    small = small_spec(context_length=36, hidden_size=32)
    assert shard_count(256, shards.multiplications(small), CPU) == 1
    assert shard_count(1, 1, CPU, processes=2) == 1, "what one process computes alone"


class TestPace:
    @settings(max_examples=60)
    @given(st.floats(0.001, 10), st.floats(0.001, 10))
    def test_the_faster_number_of_threads_wins(self, alone: float, together: float) -> None:
        pace = Pace(2)
        counts = {1: 0, 2: 0}
        while pace.chosen is None:
            threads = pace.threads()
            counts[threads] += 1
            pace.took(threads, alone if threads == 1 else together)
        assert counts == {1: TRIALS, 2: TRIALS}
        assert pace.threads() == (1 if alone <= together else 2)

    def test_a_busy_machine_is_noticed(self) -> None:
        """When steps take far longer than they did, the choice is made again."""
        pace = Pace(2)
        for _ in range(2 * TRIALS):
            pace.took(pace.threads(), 1.0 if pace.threads() == 1 else 0.6)
        assert pace.threads() == 2
        for _ in range(LOOKED_AT):
            pace.took(2, 0.6 * FALL * 1.1)
        for _ in range(2 * TRIALS):
            pace.took(pace.threads(), 1.0 if pace.threads() == 1 else 3.0)
        assert pace.threads() == 1

    def test_one_slow_step_changes_nothing(self) -> None:
        pace = Pace(2)
        for _ in range(2 * TRIALS):
            pace.took(pace.threads(), 1.0)
        chosen = pace.threads()
        for step in range(10 * LOOKED_AT):
            pace.took(chosen, 50.0 if step % 5 == 0 else 1.0)
            assert pace.threads() == chosen

    def test_an_idle_machine_is_noticed(self) -> None:
        """What was not worth it may be so later, and no step was slower than before."""
        pace = Pace(2)
        for _ in range(2 * TRIALS):
            pace.took(pace.threads(), 1.0 if pace.threads() == 1 else 3.0)
        for _ in range(AGE):
            assert pace.threads() == 1
            pace.took(1, 1.0)
        for _ in range(2 * TRIALS):
            pace.took(pace.threads(), 1.0 if pace.threads() == 1 else 0.6)
        assert pace.threads() == 2

    def test_a_number_that_was_asked_for_stays(self) -> None:
        pace = Pace(3, fixed=True)
        for seconds in (1.0, 50.0, *[9.0] * 50):
            assert pace.threads() == 3
            pace.took(3, seconds)

    def test_many_cores_are_tried_by_doubling(self) -> None:
        """Five shards: one, two, four and five at once."""
        pace, tried = Pace(5), set()
        while pace.chosen is None:
            tried.add(pace.threads())
            pace.took(pace.threads(), abs(pace.threads() - 4) + 1.0)
        assert (tried, pace.chosen) == ({1, 2, 4, 5}, 4)

    def test_one_core_has_nothing_to_choose(self) -> None:
        pace = Pace(1)
        pace.took(1, 5.0)
        assert pace.threads() == 1


def test_dropped_recurrent_weights_run_one_by_one() -> None:
    """They are put into the module in the place of its own, for all threads."""
    spec = small_spec(context_length=8, hidden_size=6, recurrent_dropout=0.2)
    lessons = lessons_of(spec)
    network, head = StackedRNN(spec), build_head(spec.loss, spec.quantiles, CPU)
    set_threads(4)
    assert Shards(network, lessons, head, batch_size=256, seed=1).pool is None


def test_a_fit_leaves_torchs_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with shards.one_openmp_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_fits_with_any_number_of_threads_give_the_same_bits() -> None:
    """Of the whole loop: weights, losses, history."""
    spec = small_spec(context_length=8, hidden_size=6, dropout=0.2)
    lessons = lessons_of(spec)
    found = []
    for threads in (1, 2, None):
        set_threads(threads)
        torch.manual_seed(0)
        network = StackedRNN(spec)
        found.append(fit(network, lessons, lessons, SCHEDULE, seed=1, clock=Clock(), phase=""))
    for other in found[1:]:
        assert other.history == found[0].history
        assert all(torch.equal(other.weights[name], tensor) for name, tensor in found[0].weights.items())


class TestOutOfMemory:
    """As a GPU says it: on a CPU the system kills the process instead."""

    def limited(self, monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
        """Batches of more windows than `most` do not fit; the sizes that were tried are told."""
        usual, sizes = Lessons.batch, list[int]()

        def batch(self: Lessons, chosen: torch.Tensor, *, exact: bool = False) -> Lesson:
            if torch.is_grad_enabled():
                sizes.append(len(chosen))
                if len(chosen) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
            return usual(self, chosen, exact=exact)

        monkeypatch.setattr(Lessons, "batch", batch)
        return sizes

    @pytest.mark.parametrize("least_shard", [64, 1000], ids=["shards", "one piece"])
    def test_fewer_windows_are_computed_at_a_time(self, monkeypatch: pytest.MonkeyPatch, least_shard: int) -> None:
        """The gradients are those of the whole batch, and what did not fit is not tried again."""
        monkeypatch.setattr(shards, "LEAST_SHARD", least_shard)
        spec = small_spec(context_length=8, hidden_size=6, dropout=0.0)
        loss, *expected = gradients(spec, 1)
        sizes = self.limited(monkeypatch, 30)
        found_loss, *found = gradients(spec, 1)
        assert found_loss == pytest.approx(float(loss), rel=1e-5)
        for own, other in zip(found, expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)
        first = next(place for place, size in enumerate(sizes) if size <= 30)
        assert all(size <= 30 for size in sizes[first:])
        assert sum(sizes[first:]) == 200

    def test_a_fit_goes_on_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = small_spec(context_length=8, hidden_size=6)
        lessons = lessons_of(spec)
        self.limited(monkeypatch, 70)
        found = fit(StackedRNN(spec), lessons, lessons, SCHEDULE, seed=1, clock=Clock(), phase="")
        assert (found.shards, found.pieces, found.steps > 0) == (4, 1, True)
        self.limited(monkeypatch, 20)
        found = fit(StackedRNN(spec), lessons, lessons, SCHEDULE, seed=1, clock=Clock(), phase="")
        assert (found.shards, found.pieces, found.steps > 0) == (4, 4, True)

    def test_a_single_window_that_does_not_fit_ends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limited(monkeypatch, 0)
        with pytest.raises(torch.OutOfMemoryError):
            gradients(small_spec(context_length=8, hidden_size=6), 1)
