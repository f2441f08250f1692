"""The one training loop.

Everything that learns here goes through `fit`: choosing the number of steps on a validation part, and
refitting for a number of steps that is known. Everything that the rest of a fit depends on is in its
`Learner`, whose snapshots lead back to a sound state when a fit diverges, and on when it was interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stacklstm_cli.errors import NothingLearnedError
from stacklstm_cli.model.heads import Teacher, build_teacher, masked_mean
from stacklstm_cli.ranks import get_ranks
from stacklstm_cli.training.lessons import Lessons
from stacklstm_cli.training.optimiser import AdamW, Group, WeightAverage
from stacklstm_cli.training.precision import Precision, usable
from stacklstm_cli.training.runtime import Clock, Interrupted, Stopped
from stacklstm_cli.training.shards import Network, Shards, losses, one_openmp_thread

WARM_STEPS = 3
"""Steps left out of the steady speed: they allocate memory and pick kernels."""
LEAST_IMPROVEMENT = 1e-4
"""Share by which a validation loss must fall to count as better."""
MOST_RECOVERIES = 3
"""How often a fit that diverges goes back and halves its learning rate."""
VALIDATED_AT_ONCE = 256
"""Windows that a processor's core takes at a time: more do not fit into its cache, are slower and take more memory than
a step of training. The parts are always the same, as the last bits of a product may depend on their size."""
RETREAT = 0.25
"""Share of the learning rate that is left where the first steps only made the start worse."""

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Schedule:
    """How one fit goes, as resolved from the options and the data."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    grad_clip: float
    max_steps: int
    check_every: int
    """Steps between validations."""
    patience: int
    """Validations without improvement before the fit ends."""
    warmup: int
    average: float
    """Decay of the moving average of the weights, which is what is validated and kept."""
    skip_rate: float
    """Learning rate of the linear skip, as a share of the network's: it starts where it should end."""
    validation_windows: int
    """Most windows one validation looks at."""
    keep_start: bool = False
    """Whether the weights it starts with are kept where no validation is better: those of a fitted network."""
    every_step: bool = False
    """Whether each step of the stack is trained on the horizon behind it, and not the newest alone."""
    anneal: bool = False
    """Whether the learning rates fall to zero until `max_steps`."""


@dataclass
class Fit:
    """What a fit found and how it went."""

    weights: dict[str, Tensor]
    """The best weights, or the last where nothing was validated; on the CPU."""
    steps: int
    """Optimiser steps behind these weights."""
    validation: float | None
    history: list[dict[str, float | None]] = field(default_factory=list)
    stopped: Stopped = ""
    windows: int = 0
    seconds: float = 0.0
    epochs: float = 0.0
    """Passes over the training windows behind these weights."""
    first_epoch_seconds: float | None = None
    windows_per_second: float | None = None
    recoveries: int = 0
    """How often it diverged, went back and halved its learning rate."""
    rate: float = 1.0
    """Share of the learning rate that it ended with."""
    processes: int = 1
    """How many shared the work."""
    shards: int = 1
    """Into how many a batch was cut."""
    pieces: int = 1
    """In how many parts, one after the other, each was computed: more where memory did not suffice."""
    start_validation: float | None = None
    """Validation loss of the network before the first step."""


@dataclass(frozen=True)
class Snapshot:
    """Everything that the rest of a fit depends on, at one moment, in a form that a file can hold."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    """What JSON can hold."""


OnSnapshot = Callable[[Snapshot, bool], None]
"""Takes a snapshot, and whether its validation was the best so far."""


class Stopwatch:
    """Counts windows and seconds, and those of the optimiser's steady state alone."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.windows = self.steady_windows = 0
        self.steady_seconds = 0.0
        self.from_the_start = True
        """Whether no earlier run has counted some of the windows."""
        self.first_epoch_seconds: float | None = None

    def count(self, step: int, windows: int, seconds: float, epoch_windows: int) -> None:
        self.windows += windows
        if step > WARM_STEPS:
            self.steady_windows += windows
            self.steady_seconds += seconds
        if self.first_epoch_seconds is None and self.windows >= epoch_windows and self.from_the_start:
            self.first_epoch_seconds = time.perf_counter() - self.begin

    @property
    def windows_per_second(self) -> float | None:
        return self.steady_windows / self.steady_seconds if self.steady_seconds else None


def no_snapshots(snapshot: Snapshot, better: bool) -> None:
    """Keep none."""


class Learner:
    """A fit under way."""

    def __init__(self, shards: Shards, schedule: Schedule, seed: int) -> None:
        self.shards, self.network, lessons = shards, shards.network, shards.lessons
        self.optimiser = build_optimiser(self.network, schedule)
        self.average = WeightAverage(self.network, schedule.average)
        self.batches = ShuffledBatches(len(lessons), shards.batch_size, seed, device=lessons.series.device)
        self.watch = Stopwatch()
        self.step = self.checks_since_best = self.recoveries = 0
        self.retreated = False
        self.best = Fit({}, 0, None)
        self.history: list[dict[str, float | None]] = []

    def tensors(self) -> dict[str, Tensor]:
        """The very tensors that steps change, by name; generators and the best weights are not among them."""
        weights = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return weights | self.optimiser.tensors() | self.average.tensors()

    def snapshot(self) -> Snapshot:
        """A copy of the present state."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.tensors().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.weights.items()}
        tensors |= {"batches.queue": self.batches.queue, "batches.generator": self.batches.generator.get_state()}
        tensors |= self.shards.tensors()
        numbers = {
            "step": self.step,
            "windows": self.watch.windows,
            "checks_since_best": self.checks_since_best,
            "recoveries": self.recoveries,
            "retreated": self.retreated,
            "best_steps": self.best.steps,
            "best_validation": self.best.validation,
            "history": list(self.history),
        }
        return Snapshot(tensors, numbers)

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, or on from one of an earlier run.

        Raises `KeyError`, `TypeError`, `ValueError` or `RuntimeError` for one of another network.
        """
        tensors, numbers = snapshot.tensors, snapshot.numbers
        for name, tensor in self.tensors().items():
            if tensors[name].shape != tensor.shape:
                raise ValueError(name)
            tensor.copy_(tensors[name])
        self.shards.restore(tensors)
        self.batches.queue = tensors["batches.queue"]
        self.batches.generator.set_state(tensors["batches.generator"].clone())
        self.step = self.optimiser.step_count = self.average.step_count = int(numbers["step"])
        self.watch.windows = int(numbers["windows"])
        self.checks_since_best = int(numbers["checks_since_best"])
        best = {name.removeprefix("best."): tensor for name, tensor in tensors.items() if name.startswith("best.")}
        validation = numbers["best_validation"]
        self.best = Fit(best, int(numbers["best_steps"]), None if validation is None else float(validation))
        self.history = list(numbers["history"])
        self.retreated = bool(numbers["retreated"])
        self.slow_down(int(numbers["recoveries"]))

    def resume(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot of an earlier run; one that does not fit changes nothing."""
        before = self.snapshot()
        try:
            self.restore(snapshot)
            self.watch.from_the_start = False
        except (KeyError, TypeError, ValueError, RuntimeError):
            self.restore(before)

    def slow_down(self, recoveries: int) -> None:
        """Halve the learning rate so many times."""
        self.recoveries = recoveries
        self.optimiser.rate = 0.5**recoveries * (RETREAT if self.retreated else 1.0)

    def retreat(self) -> None:
        """Go on more gently, once."""
        self.retreated = True
        self.slow_down(self.recoveries)

    def is_sound(self) -> bool:
        """Whether every weight is a number."""
        return all(bool(parameter.isfinite().all()) for parameter in self.network.parameters())

    def keep_best(self, validation: float | None) -> bool:
        """Count one validation; whether it is the best so far, whose weights are then kept."""
        self.checks_since_best += 1
        better = improves(validation, self.best.validation)
        if better:
            self.best = Fit(averaged_weights(self.network, self.average), self.step, validation)
            self.checks_since_best = 0
        return better


def fit(
    network: Network,
    lessons: Lessons,
    validation: Lessons | None,
    schedule: Schedule,
    *,
    seed: int,
    clock: Clock,
    phase: str,
    share_of_time: float = 1.0,
    precision: Precision = "float32",
    on_event: OnEvent = lambda event: None,
    state: Snapshot | None = None,
    on_snapshot: OnSnapshot = no_snapshots,
) -> Fit:
    """Train `network` in place and return the best weights.

    With `validation`, the averaged weights are validated every `check_every` steps and the best are kept;
    without, `max_steps` steps are made. `clock` may end it earlier: the weights in hand are then validated
    and the best returned. A fit that diverges goes back to its newest snapshot and halves the learning rate.
    From `state`, a snapshot that `on_snapshot` was given, it goes on to the same end as if never interrupted.

    Raises `NothingLearnedError` if no step was made or the loss is not finite, `Interrupted` where a signal
    came before the first step.
    """
    head = build_teacher(network.spec.loss, network.spec.quantiles, lessons.windows.device)
    judged = validation.thinned(schedule.validation_windows) if validation is not None else None
    diverged, validated = False, judged is not None
    size = min(schedule.batch_size, len(lessons))
    shards = Shards(network, lessons, head, batch_size=size, seed=seed, precision=precision)
    shards.ranks.copy_first([*network.state_dict().values()])
    learner = Learner(shards, schedule, seed)
    with one_openmp_thread(), usable(precision, lessons.windows.device), shards:
        watch, at_start = learner.watch, None
        if judged is not None:
            at_start = finite(validate(network, learner.average, judged, head, clock))
            if schedule.keep_start:
                learner.keep_best(at_start)
        if state is not None:
            learner.resume(state)
        good, batch_size = learner.snapshot(), learner.batches.size
        clock.start()
        stopped = clock.agreed(share_of_time)
        while learner.step < schedule.max_steps and learner.checks_since_best < schedule.patience and not stopped:
            begin = time.perf_counter()
            loss = train_step(shards, next(learner.batches), learner.optimiser, schedule.grad_clip)
            stopped = clock.agreed(share_of_time)  # then the weights in hand are validated too
            if math.isfinite(loss):
                learner.average.update()
                learner.step += 1
                watch.count(learner.step, batch_size, time.perf_counter() - begin, len(lessons))
            due = learner.step % schedule.check_every == 0 or learner.step == schedule.max_steps
            if not math.isfinite(loss) or ((due or stopped) and not learner.is_sound()):
                diverged = learner.recoveries == MOST_RECOVERIES
                if diverged:
                    break
                recoveries = learner.recoveries + 1
                learner.restore(good)
                learner.slow_down(recoveries)
                continue
            entry = {"step": learner.step, "epoch": watch.windows / len(lessons), "loss": loss, "validation": None}
            better = retreats = False
            if (due or stopped) and judged is not None:
                try:
                    entry["validation"] = finite(validate(network, learner.average, judged, head, clock))
                except Interrupted:
                    validated = False
                    break
                learner.history.append(entry)
                retreats = not learner.retreated and worsened(learner, at_start)
                if retreats and not stopped:
                    recoveries = learner.recoveries
                    learner.restore(good)
                    learner.retreat()
                    learner.slow_down(recoveries)
                    good = learner.snapshot()
                    on_snapshot(good, False)
                    continue
                better = learner.keep_best(entry["validation"])
            on_event(
                entry
                | {"phase": phase, "max_steps": schedule.max_steps, "windows_per_second": watch.windows_per_second}
            )
            if due and not retreats:  # a run that goes on from here later retreats first
                good = learner.snapshot()
                on_snapshot(good, better)
    best = learner.best
    if best.validation is None or learner.step == 0:
        if learner.step == 0 and stopped == "signal":
            raise Interrupted
        best = Fit(averaged_weights(network, learner.average), learner.step, None)
        require_finite(best, learner.step, diverged=diverged or (validated and learner.step > 0))
    best.history, best.stopped = learner.history, stopped
    best.windows, best.seconds = watch.windows, time.perf_counter() - watch.begin
    best.epochs, best.first_epoch_seconds = best.steps * batch_size / len(lessons), watch.first_epoch_seconds
    best.windows_per_second, best.shards, best.pieces = watch.windows_per_second, shards.count, shards.pieces
    best.processes = shards.ranks.size
    best.recoveries, best.rate, best.start_validation = learner.recoveries, learner.optimiser.rate, at_start
    return best


def build_optimiser(network: Network, schedule: Schedule) -> AdamW:
    """Three groups: the network; the bias, which must not decay; the linear skip, where there is one, slower."""
    own = [parameter for name, parameter in network.named_parameters() if name not in ("skip", "bias")]
    rate, decay = schedule.learning_rate, schedule.weight_decay
    groups = [Group(own, rate, decay), Group([network.bias], rate, 0.0)]
    if network.skip is not None:
        groups.append(Group([network.skip], rate * schedule.skip_rate, decay))
    return AdamW(groups, schedule.warmup, schedule.max_steps if schedule.anneal else None)


def train_step(shards: Shards, chosen: Tensor, optimiser: AdamW, grad_clip: float) -> float:
    """One optimiser step on the windows `chosen` [B]; returns their loss before it.

    Where the loss or its gradient is not finite no step is made, and NaN is returned.
    """
    network = shards.network.train()
    loss_there = shards.backward(chosen)
    norm_there = nn.utils.clip_grad_norm_(network.parameters(), grad_clip or math.inf)
    loss, norm = torch.stack([loss_there, norm_there]).tolist()  # one wait for the device
    if not math.isfinite(norm) or not math.isfinite(loss):
        network.zero_grad()
        return math.nan
    optimiser.step()
    return float(loss)


def validate(network: Network, average: WeightAverage, lessons: Lessons, head: Teacher, clock: Clock) -> float:
    """Mean loss of the averaged weights over all windows of `lessons`; of several processes, what the first one found.

    Raises `Interrupted` where a signal came some time ago.
    """
    average.swap()
    network.eval()
    total = known = 0.0
    at_once = VALIDATED_AT_ONCE if lessons.windows.device.type == "cpu" else len(lessons)
    try:
        with torch.no_grad():
            for chosen in lessons.indices():
                parts = [lessons.batch(some) for some in torch.split(chosen, at_once)]
                shown = torch.cat([lesson.known for lesson in parts])
                found = torch.cat([losses(network, lesson, head) for lesson in parts])  # [B, H]
                count = float(shown.sum())
                total += float(masked_mean(found, shown)) * count
                known += count
                clock.hurry()
    finally:
        average.swap()
    value = torch.tensor(total / max(known, 1.0), dtype=torch.float64)
    get_ranks().copy_first([value])
    return float(value)


def worsened(learner: Learner, at_start: float | None) -> bool:
    """Whether the first validation of a fit is above that of its start."""
    first = learner.history[-1]["validation"]
    return len(learner.history) == 1 and first is not None and at_start is not None and first > at_start


def improves(value: float | None, best: float | None) -> bool:
    """Whether a validation loss is there and clearly below the best so far."""
    return value is not None and (best is None or value < best - LEAST_IMPROVEMENT * abs(best))


def finite(value: float) -> float | None:
    """None in place of NaN and infinity, which neither compare nor fit into JSON."""
    return value if math.isfinite(value) else None


def averaged_weights(network: Network, average: WeightAverage) -> dict[str, Tensor]:
    """A copy of the averaged weights on the CPU."""
    average.swap()
    weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
    average.swap()
    return weights


class ShuffledBatches(Iterator[Tensor]):
    """Endless batches of window indices [size]; each pass over all windows is in a new random order."""

    def __init__(self, count: int, size: int, seed: int, device: torch.device) -> None:
        self.count, self.size, self.device = count, size, device
        self.generator = torch.Generator().manual_seed(seed)
        self.queue = torch.empty(0, dtype=torch.int32)
        """What is left of the order that was drawn."""

    def __next__(self) -> Tensor:
        while len(self.queue) < self.size:
            drawn = torch.randperm(self.count, generator=self.generator, dtype=torch.int32)
            self.queue = torch.cat([self.queue, drawn]) if len(self.queue) else drawn
        batch, self.queue = self.queue[: self.size], self.queue[self.size :]
        return batch.to(self.device, torch.int64, non_blocking=True)  # without waiting for the step before


def require_finite(fit: Fit, steps: int, *, diverged: bool) -> None:
    """Raise `NothingLearnedError` unless a step was made and left finite numbers."""
    if steps == 0 and not diverged:
        raise NothingLearnedError(
            "Training ended before a single optimiser step.", hint="Allow more time with --max-time.", code="no_step"
        )
    weights_finite = all(bool(tensor.isfinite().all()) for tensor in fit.weights.values())
    if diverged or not weights_finite:
        raise NothingLearnedError(
            "Training diverged: the loss is not a finite number.",
            hint="Try a smaller --learning-rate, or look for extreme values in the data.",
            code="diverged",
        )
