"""The training loop: it learns, keeps the best, and ends when and as it should."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import NothingLearnedError
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training import loop
from stacklstm_cli.training.lessons import Lessons, lesson_origins
from stacklstm_cli.training.loop import Fit, Schedule, fit, shuffled_batches
from stacklstm_cli.training.runtime import Clock, Stopped
from tests.panels import make_panel, wave

SPEC = NetworkSpec(
    layers=2,
    hidden_size=16,
    dropout=0.0,
    patch_length=4,
    context_length=16,
    horizon=4,
    quantiles=(0.1, 0.5, 0.9),
    location_length=8,
    scale_length=16,
)
SCHEDULE = Schedule(
    batch_size=16,
    learning_rate=0.01,
    weight_decay=0.0,
    grad_clip=1.0,
    max_steps=12,
    check_every=3,
    patience=100,
    warmup=2,
    average=0.9,
    skip_rate=0.5,
    validation_windows=4096,
)


def lessons_of(panel: Panel, first: int, last: int, weight: float = 0.1, spec: NetworkSpec = SPEC) -> Lessons:
    """The windows of the first series between two rows."""
    origins = lesson_origins(panel, np.asarray([first]), np.asarray([last]), spec.horizon)
    return Lessons(Windows(panel, spec, torch.device("cpu")), origins, np.asarray([weight]))


def new_network(spec: NetworkSpec = SPEC) -> StackedRNN:
    """The same network every time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return StackedRNN(spec)


def run(
    schedule: Schedule = SCHEDULE,
    *,
    validated: bool = True,
    lessons: Lessons | None = None,
    clock: Clock | None = None,
    seed: int = 0,
    spec: NetworkSpec = SPEC,
    events: list[dict[str, Any]] | None = None,
) -> Fit:
    """A fit on a wave of 150 rows, validated on its end."""
    panel = make_panel(wave(150, 1))
    return fit(
        new_network(spec),
        lessons or lessons_of(panel, 16, 110, spec=spec),
        lessons_of(panel, 110, 150, spec=spec) if validated else None,
        schedule,
        seed=seed,
        clock=clock or Clock(),
        phase="testing",
        on_event=(lambda event: None) if events is None else events.append,
    )


class StopsAfter(Clock):
    """Says to stop once it has been asked so many times."""

    def __init__(self, steps: int, why: Stopped) -> None:
        super().__init__()
        self.left, self.why = steps, why

    def stopped(self, share: float = 1.0) -> Stopped:
        self.left -= 1
        return self.why if self.left < 0 else ""


def script_validation(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Let validation give these losses, one after another."""
    left = iter(values)
    monkeypatch.setattr(loop, "validate", lambda *arguments: next(left))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def finite(found: Fit) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in found.weights.values())


def test_overfits_one_batch() -> None:
    """Wrong if gradients, optimiser or loss do not fit together: eight windows of noise are then not learned."""
    noise = np.random.default_rng(3).normal(size=40)
    lessons = lessons_of(make_panel(noise), 20, 31, weight=1.0)
    assert len(lessons) == 8
    events: list[dict[str, Any]] = []
    fast = replace(SCHEDULE, learning_rate=0.02, max_steps=300, average=0.5)
    run(fast, validated=False, lessons=lessons, events=events)
    assert events[-1]["loss"] < 0.1 * events[0]["loss"]


def test_without_validation_every_step_is_made() -> None:
    """Wrong if a known number of steps is not kept, or a loss is claimed that nobody measured."""
    found = run(validated=False)
    assert (found.steps, found.validation, found.history, found.stopped) == (12, None, [], "")
    assert found.windows == 12 * 16


def test_the_best_validated_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if the last weights are returned in place of the best, or weights of another step."""
    script_validation(monkeypatch, [3.0, 1.0, 2.0, 4.0])
    found = run()
    assert (found.steps, found.validation) == (6, 1.0)
    assert [entry["validation"] for entry in found.history] == [3.0, 1.0, 2.0, 4.0]
    assert [entry["step"] for entry in found.history] == [3, 6, 9, 12]
    assert same(found.weights, run(replace(SCHEDULE, max_steps=6), validated=False).weights)
    assert not same(found.weights, run(validated=False).weights)


def test_the_kept_weights_are_the_average_that_was_validated() -> None:
    """Wrong if the reported validation loss is not that of the returned weights."""
    found = run()
    network = StackedRNN(SPEC)
    network.load_state_dict(found.weights)
    network.eval()
    lessons = lessons_of(make_panel(wave(150, 1)), 110, 150)
    lesson = lessons.batch(torch.arange(len(lessons)))
    with torch.no_grad():
        forecast = network(lesson.context, lesson.observed) * lesson.gain.unsqueeze(-1)
    total = 0.0
    for place, level in enumerate(SPEC.quantiles):
        error = (lesson.target - forecast[..., place]).double().numpy()
        total += float(np.where(error >= 0, level * error, (level - 1) * error).sum())
    count = len(lessons) * SPEC.horizon * len(SPEC.quantiles)
    assert found.validation == pytest.approx(2 * total / count, rel=1e-5)


def test_patience_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if training goes on after so many validations without improvement, or ends before."""
    script_validation(monkeypatch, [3.0, 2.0, 2.5, 1.0, 1.5, 1.2, 0.1])
    events: list[dict[str, Any]] = []
    found = run(replace(SCHEDULE, max_steps=1000, patience=2), events=events)
    assert (found.steps, found.validation, len(events)) == (12, 1.0, 18)


def test_a_hair_better_is_not_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if improvements too small to mean anything keep training alive."""
    script_validation(monkeypatch, [1.0, 0.99995, 0.99992, 0.5])
    assert run(replace(SCHEDULE, max_steps=1000, patience=2)).steps == 3


def test_a_validation_that_is_no_number_is_not_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if a loss of NaN or infinity is kept as the best."""
    script_validation(monkeypatch, [math.nan, math.inf, 2.0, math.nan])
    found = run()
    assert (found.steps, found.validation) == (9, 2.0)


@pytest.mark.parametrize("why", ["time", "signal"])
@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_clock_ends_it_with_the_weights_in_hand(why: Stopped, validated: bool, steps: int) -> None:
    """Wrong if a stop loses the weights, or they are not those of the steps that were made."""
    found = run(replace(SCHEDULE, check_every=50), validated=validated, clock=StopsAfter(steps, why))
    assert (found.stopped, found.steps) == (why, steps)
    assert finite(found)
    assert (found.validation is not None) == validated
    assert same(found.weights, run(replace(SCHEDULE, max_steps=steps), validated=False).weights)


def test_a_stop_between_validations_validates_what_is_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if steps that made the weights better are thrown away because no validation was due."""
    script_validation(monkeypatch, [3.0, 1.0])
    found = run(clock=StopsAfter(5, "time"))
    assert (found.steps, found.validation, found.stopped) == (5, 1.0, "time")


def test_a_stop_keeps_earlier_weights_that_were_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if a stop replaces the best weights by worse ones."""
    script_validation(monkeypatch, [1.0, 3.0])
    found = run(clock=StopsAfter(5, "signal"))
    assert (found.steps, found.validation, found.stopped) == (3, 1.0, "signal")


def test_no_step_is_nothing_learned() -> None:
    """Wrong if a run that had no time for a step returns a model."""
    with pytest.raises(NothingLearnedError, match="single optimiser step") as caught:
        run(clock=Clock(0.0))
    assert caught.value.exit_status == 8
    assert caught.value.code == "no_step"


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("weight", [math.nan, 1e39])
def test_a_loss_that_is_not_finite_is_nothing_learned(validated: bool, weight: float) -> None:
    """Wrong if broken weights are returned."""
    lessons = lessons_of(make_panel(wave(150, 1)), 16, 110, weight)
    with pytest.raises(NothingLearnedError, match="finite") as caught:
        run(validated=validated, lessons=lessons)
    assert caught.value.code == "diverged"


def test_divergence_after_a_validation_keeps_finite_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if a late explosion of the loss costs the good weights found before."""
    honest, steps = loop.lesson_loss, Counter[str]()

    def explode(network: StackedRNN, lesson: Any, quantiles: Tensor) -> Tensor:
        steps["train"] += network.training
        return honest(network, lesson, quantiles) * (math.nan if steps["train"] > 4 else 1.0)

    monkeypatch.setattr(loop, "lesson_loss", explode)
    found = run()
    assert found.steps == 3
    assert finite(found)


@given(count=st.integers(1, 80), share=st.floats(0.01, 1), seed=st.integers(0, 2**31))
def test_each_pass_covers_every_window_once(count: int, share: float, seed: int) -> None:
    """Wrong if a window is left out, comes twice in one pass, or a batch has another size."""
    size = max(1, int(share * count))
    batches = shuffled_batches(count, size, seed, torch.device("cpu"))
    taken: list[int] = []
    while len(taken) < 3 * count:
        batch = next(batches)
        assert len(batch) == size
        taken += batch.tolist()
    for begin in range(0, 3 * count, count):
        assert sorted(taken[begin : begin + count]) == list(range(count))
    if count > 20:
        assert taken[:count] != taken[count : 2 * count]


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Wrong if anything random is outside the seed, or the seed is ignored."""
    spec = replace(SPEC, dropout=0.3)
    one, again, other = run(spec=spec), run(spec=spec), run(spec=spec, seed=1)
    assert same(one.weights, again.weights)
    assert one.history == again.history
    assert not same(one.weights, other.weights)


def test_the_global_random_state_is_neither_used_nor_touched() -> None:
    """Wrong if a fit depends on what was drawn before it, or changes what is drawn after it."""
    spec = replace(SPEC, dropout=0.3)
    torch.manual_seed(1)
    one = run(spec=spec)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    other = run(spec=spec)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(one.weights, other.weights)


def test_dropout_is_on_in_training_only() -> None:
    """Wrong if dropout never acts, or spoils the validation."""
    heavy = replace(SPEC, dropout=0.5)
    assert not same(run().weights, run(spec=heavy).weights)
    one, again = run(spec=heavy), run(spec=heavy)
    assert one.validation == again.validation


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.001},
        {"weight_decay": 1.0},
        {"grad_clip": 1e-9},
        {"grad_clip": 0.0},
        {"max_steps": 9},
        {"batch_size": 8},
        {"warmup": 9},
        {"average": 0.1},
        {"skip_rate": 0.0},
    ],
)
def test_every_part_of_the_schedule_acts(change: dict[str, Any]) -> None:
    """Wrong if a setting of the schedule is carried along and never used."""
    lessons = lessons_of(make_panel(wave(150, 1)), 16, 110, weight=10.0)
    one = run(validated=False, lessons=lessons)
    other = run(replace(SCHEDULE, **change), validated=False, lessons=lessons)
    assert not same(one.weights, other.weights)


def test_fewer_validation_windows_are_looked_at() -> None:
    """Wrong if the limit on the windows of a validation is ignored."""
    assert run().validation != run(replace(SCHEDULE, validation_windows=3)).validation


def test_events_tell_every_step() -> None:
    """Wrong if a progress display would miss a step, the phase or the end."""
    events: list[dict[str, Any]] = []
    found = run(events=events)
    assert [event["step"] for event in events] == list(range(1, 13))
    assert {event["phase"] for event in events} == {"testing"}
    assert {event["max_steps"] for event in events} == {12}
    assert [event["step"] for event in events if event["validation"] is not None] == [3, 6, 9, 12]
    assert all(math.isfinite(event["loss"]) for event in events)
    assert events[-1]["epoch"] == pytest.approx(12 * 16 / 91) == found.epochs
    assert events[2]["windows_per_second"] is None
    assert events[3]["windows_per_second"] > 0
    assert found.first_epoch_seconds is not None
    assert 0 < found.first_epoch_seconds <= found.seconds


def test_a_batch_is_never_larger_than_what_there_is() -> None:
    """Wrong if few windows are repeated within one batch."""
    few = lessons_of(make_panel(wave(40)), 16, 24)
    found = run(replace(SCHEDULE, batch_size=1000), validated=False, lessons=few)
    assert found.windows == 12 * len(few)
    assert found.epochs == 12
