"""The one training loop.

Everything that learns here goes through `fit`: choosing the number of steps on a validation part, and
refitting for a number of steps that is known.
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
from stacklstm_cli.model.heads import Head, build_head, masked_mean
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.training.lessons import Lesson, Lessons
from stacklstm_cli.training.optimiser import AdamW, Group, WeightAverage
from stacklstm_cli.training.runtime import Clock, Stopped

WARM_STEPS = 3
"""Steps left out of the steady speed: they allocate memory and pick kernels."""
LEAST_IMPROVEMENT = 1e-4
"""Share by which a validation loss must fall to count as better."""

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
    every_step: bool = False
    """Whether each step of the stack is trained on the horizon behind it, and not the newest alone."""


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


class Stopwatch:
    """Counts windows and seconds, and those of the optimiser's steady state alone."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.windows = self.steady_windows = 0
        self.steady_seconds = 0.0
        self.first_epoch_seconds: float | None = None

    def count(self, step: int, windows: int, seconds: float, epoch_windows: int) -> None:
        self.windows += windows
        if step > WARM_STEPS:
            self.steady_windows += windows
            self.steady_seconds += seconds
        if self.first_epoch_seconds is None and self.windows >= epoch_windows:
            self.first_epoch_seconds = time.perf_counter() - self.begin

    @property
    def windows_per_second(self) -> float | None:
        return self.steady_windows / self.steady_seconds if self.steady_seconds else None


def fit(
    network: StackedRNN,
    lessons: Lessons,
    validation: Lessons | None,
    schedule: Schedule,
    *,
    seed: int,
    clock: Clock,
    phase: str,
    share_of_time: float = 1.0,
    on_event: OnEvent = lambda event: None,
) -> Fit:
    """Train `network` in place and return the best weights.

    With `validation`, the averaged weights are validated every `check_every` steps and the best are kept;
    without, `max_steps` steps are made. `clock` may end it earlier: the weights in hand are then validated
    and the best returned. Raises `NothingLearnedError` if no step was made or the loss is not finite.
    """
    device = lessons.windows.device
    head = build_head(network.spec.loss, network.spec.quantiles, device)
    optimiser, average = build_optimiser(network, schedule), WeightAverage(network, schedule.average)
    judged = validation.thinned(schedule.validation_windows) if validation is not None else None
    batch_size = min(schedule.batch_size, len(lessons))
    watch, best = Stopwatch(), Fit({}, 0, None)
    history: list[dict[str, float | None]] = []
    checks_since_best = step = 0
    loss = math.nan
    clock.start()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        batches = shuffled_batches(len(lessons), batch_size, seed, device=lessons.series.device)
        stopped = clock.stopped(share_of_time)
        while step < schedule.max_steps and not stopped:
            begin = time.perf_counter()
            loss = train_step(network, lessons.batch(next(batches)), head, optimiser, schedule.grad_clip)
            average.update()
            step += 1
            watch.count(step, batch_size, time.perf_counter() - begin, len(lessons))
            if not math.isfinite(loss):
                break
            entry = {"step": step, "epoch": watch.windows / len(lessons), "loss": loss, "validation": None}
            stopped = clock.stopped(share_of_time)  # then the weights in hand are validated too
            due = step % schedule.check_every == 0 or step == schedule.max_steps or stopped
            if due and judged is not None:
                entry["validation"] = finite(validate(network, average, judged, head))
                history.append(entry)
                checks_since_best += 1
                if improves(entry["validation"], best.validation):
                    best = Fit(averaged_weights(network, average), step, entry["validation"])
                    checks_since_best = 0
            on_event(
                entry
                | {"phase": phase, "max_steps": schedule.max_steps, "windows_per_second": watch.windows_per_second}
            )
            if checks_since_best >= schedule.patience:
                break
    if best.validation is None:
        best = Fit(averaged_weights(network, average), step, None)
        require_finite(best, step, loss, validated=judged is not None)
    best.history, best.stopped = history, stopped
    best.windows, best.seconds = watch.windows, time.perf_counter() - watch.begin
    best.epochs, best.first_epoch_seconds = best.steps * batch_size / len(lessons), watch.first_epoch_seconds
    best.windows_per_second = watch.windows_per_second
    return best


def build_optimiser(network: StackedRNN, schedule: Schedule) -> AdamW:
    """Three groups: the network; the bias, which must not decay; the linear skip, where there is one, slower."""
    own = [parameter for name, parameter in network.named_parameters() if name not in ("skip", "bias")]
    rate, decay = schedule.learning_rate, schedule.weight_decay
    groups = [Group(own, rate, decay), Group([network.bias], rate, 0.0)]
    if network.skip is not None:
        groups.append(Group([network.skip], rate * schedule.skip_rate, decay))
    return AdamW(groups, schedule.warmup)


def train_step(network: StackedRNN, lesson: Lesson, head: Head, optimiser: AdamW, grad_clip: float) -> float:
    """One optimiser step; returns the loss of its batch before the step."""
    network.train()
    loss = lesson_loss(network, lesson, head)
    loss.backward()  # type: ignore[no-untyped-call]
    if grad_clip > 0:
        nn.utils.clip_grad_norm_(network.parameters(), grad_clip)
    optimiser.step()
    return float(loss.detach())


def lesson_loss(network: StackedRNN, lesson: Lesson, head: Head) -> Tensor:
    """Mean loss over the known targets of a batch, in the units of the loss."""
    loss = head.loss(network(lesson.inputs), lesson.target, lesson.gain, lesson.scaling)  # [B, H]
    return masked_mean(loss, lesson.known)


def validate(network: StackedRNN, average: WeightAverage, lessons: Lessons, head: Head) -> float:
    """Mean loss of the averaged weights over all windows of `lessons`."""
    average.swap()
    network.eval()
    total = known = 0.0
    with torch.no_grad():
        for lesson in lessons.chunks():
            count = float(lesson.known.sum())
            total += float(lesson_loss(network, lesson, head)) * count
            known += count
    average.swap()
    return total / max(known, 1.0)


def improves(value: float | None, best: float | None) -> bool:
    """Whether a validation loss is there and clearly below the best so far."""
    return value is not None and (best is None or value < best - LEAST_IMPROVEMENT * abs(best))


def finite(value: float) -> float | None:
    """None in place of NaN and infinity, which neither compare nor fit into JSON."""
    return value if math.isfinite(value) else None


def averaged_weights(network: StackedRNN, average: WeightAverage) -> dict[str, Tensor]:
    """A copy of the averaged weights on the CPU."""
    average.swap()
    weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
    average.swap()
    return weights


def shuffled_batches(count: int, size: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Endless batches of window indices [size]; each pass over all windows is in a new random order."""
    generator = torch.Generator().manual_seed(seed)
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        while len(queue) < size:
            queue = torch.cat([queue, torch.randperm(count, generator=generator)])
        yield queue[:size].to(device)
        queue = queue[size:]


def require_finite(fit: Fit, steps: int, loss: float, *, validated: bool) -> None:
    """Raise `NothingLearnedError` unless a step was made, and it and its validation left finite numbers."""
    if steps == 0:
        raise NothingLearnedError(
            "Training ended before a single optimiser step.", hint="Allow more time with --max-time.", code="no_step"
        )
    weights_finite = all(bool(tensor.isfinite().all()) for tensor in fit.weights.values())
    if validated or not math.isfinite(loss) or not weights_finite:
        raise NothingLearnedError(
            "Training diverged: the loss is not a finite number.",
            hint="Try a smaller --learning-rate, or look for extreme values in the data.",
            code="diverged",
        )
