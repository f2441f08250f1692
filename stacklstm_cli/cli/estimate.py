"""What a training would cost: memory by arithmetic, time by a trial of about a second.

Shape letters as in the network: B batch, L context, S steps, U hidden size, H horizon, Q quantiles; R rows of
all series, W windows.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch

from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import NothingLearnedError
from stacklstm_cli.model.heads import located_numbers
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.smoothing import smoothing_numbers
from stacklstm_cli.training.defaults import Plan
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.lessons import Lessons, chunk_size, lesson_origins
from stacklstm_cli.training.loop import WARM_STEPS
from stacklstm_cli.training.placement import CPU
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.shards import multiplications, shard_count
from stacklstm_cli.training.start import MOST_JUDGED, MOST_WINDOWS, STRENGTHS, Ridge, Start

IMPORTS = 350_000_000
"""Bytes of a training that has hardly any data; measured on Linux with torch for the CPU."""
READING = 25_000_000
"""Bytes of what is loaded to read a first row."""
TRIAL_SECONDS = 0.3
TRIAL_STEPS = 50
"""A trial of whole batches ends with the first of these."""
MOST_TRIED = 20_000_000
"""Weights; a larger network is not made, and the time that training takes is not foretold."""
TRIAL_WINDOWS = 8
"""Windows of the first trial's batches, which are quick with any network."""
SLOW_BATCH = 3.0
"""Seconds of a batch, as the first trial tells, from which on no whole batch is tried."""
FORWARD_SHARE = 1 / 3
"""Time of a forecast as a share of a training step: the backward pass costs about twice the forward one."""
FLOPS = 5e9
"""Assumption: operations per second of one core in float64 matrix products."""


@dataclass(frozen=True)
class Windows:
    """How many windows a training has."""

    train: int
    choose: int
    weights: int
    """Numbers that the network learns."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by what they are for."""

    imports: int
    reading: int
    """The text of the files and its columns; given back before training."""
    data: int
    windows: int
    network: int

    @property
    def peak(self) -> int:
        return self.imports + max(self.reading, self.data + self.windows + self.network)


def memory(panel: Panel, plan: Plan, windows: Windows, text: int) -> Memory:
    """The arithmetic. `text` is the size of the files' text in bytes."""
    spec, rows = plan.spec, panel.values.size
    covariates = panel.timed.nbytes + panel.static.nbytes
    length, horizon, quantiles = spec.context_length, spec.horizon, len(spec.quantiles)
    batch = min(plan.schedule.batch_size, windows.train)
    # Gathering in float64: index, values, observed flags, and what the normalisation makes of them.
    gathered = max(plan.schedule.batch_size, min(chunk_size(spec), windows.train)) * (80 * length + 60 * horizon)
    ahead = horizon * (spec.steps if plan.schedule.every_step else 1)
    # Covariates and the calendar of each row, as features.
    gathered += 24 * batch * (length + ahead) * (len(spec.inputs.covariates) + len(spec.inputs.cycles))
    # Gates, states and outputs of each layer and step are kept for the backward pass, the widest twice over.
    states = 4 * 10 * batch * spec.steps * spec.stack.width
    judged = 4 * 8 * min(chunk_size(spec), windows.choose) * spec.steps * max(spec.stack.hidden_sizes)
    outputs = 4 * 6 * max(batch * ahead, min(chunk_size(spec), windows.choose) * horizon) * quantiles
    # Six tensors of the decoder's width for each row to forecast are kept for the backward pass.
    decodes = spec.inputs.cycles or spec.inputs.holidays or spec.inputs.of("known", "static")
    decoded = 4 * 6 * batch * (ahead // spec.calendar_rows) * spec.stack.hidden_sizes[-1] if decodes else 0
    shards = shard_count(batch, multiplications(spec, every_step=plan.schedule.every_step), CPU)
    # Weights, their average, two moments, the copy to go back to of these, the best ones, and a gradient of each shard.
    learned = 4 * (9 + shards) * windows.weights
    smoothed = smoothed_judged = smoothed_start = 0
    if spec.skip and spec.smoothing_season:
        matrices, window = smoothing_numbers(length, horizon, spec.smoothing_season)
        at_once = batch * (spec.steps if plan.schedule.every_step else 1)
        smoothed = 4 * (matrices + window * at_once)
        smoothed_judged = 4 * (matrices + window * min(chunk_size(spec), windows.choose))
        smoothed_start = 12 * matrices + 8 * window * min(chunk_size(spec), windows.train)
    start = 8 * (
        4 * length**2 + (2 * len(STRENGTHS) + 6) * length * horizon + 3 * min(MOST_JUDGED, windows.train) * horizon
    )
    trained = states + outputs + decoded + smoothed
    return Memory(
        imports=IMPORTS,
        reading=reading_memory(panel, text),
        data=41 * rows + 2 * covariates,
        windows=64 * windows.train + 16 * windows.choose,
        network=learned + gathered + max(trained, judged + outputs + smoothed_judged, start + smoothed_start),
    )


def reading_memory(panel: Panel, text: int) -> int:
    """Bytes at the peak of reading; the factors were fitted to three files of 14 to 48 MB."""
    columns, rows = panel.columns, panel.rows_read
    texts = len(columns.time) + len(columns.ids) + sum(one.categories is not None for one in panel.covariates)
    numbers = len(columns.targets) + sum(one.categories is None for one in panel.covariates)
    stamps = min(rows, int(panel.ends.max() - panel.starts.min())) if columns.time else 0
    return READING + text + 50 * texts * rows + 20 * numbers * rows + 190 * stamps


def count_windows(trainer: Trainer) -> tuple[Windows, Lessons]:
    """The windows of a training, and its lessons. Raises `DataError` as `Trainer.run` does."""
    panel, plan = trainer.panel, trainer.plan
    lessons = trainer.lessons(plan.parts.train)
    if trainer.refits:
        trainer.lessons(plan.parts.end)
    choosing = lesson_origins(panel, plan.parts.train, plan.parts.validation, plan.spec)
    with torch.device("meta"):  # counted, not made
        weights = sum(parameter.numel() for parameter in StackedRNN(plan.spec).parameters())
    return Windows(len(lessons), len(choosing), weights), lessons


def most_seconds(trainer: Trainer, lessons: Lessons, windows: Windows) -> float | None:
    """How long choosing and refitting take at most, by a short trial.

    None where the trial diverges, or the network is too large to be tried.
    """
    plan = trainer.plan
    if windows.weights > MOST_TRIED:
        return None
    per_window = _trial(trainer, lessons)
    if per_window is None:
        return None
    batch, steps = min(plan.schedule.batch_size, windows.train), plan.most_steps(windows.train)
    fits = 2 if trainer.refits else 1
    if not windows.choose:
        steps = min(steps, plan.unvalidated_steps)
    validations = steps // plan.schedule.check_every + 1 if windows.choose else 0
    judged = validations * min(windows.choose, plan.schedule.validation_windows)
    solved = min(windows.train, MOST_WINDOWS) * plan.spec.context_length**2 + 10 * plan.spec.context_length**3
    seconds = per_window * (fits * steps * batch + FORWARD_SHARE * judged) + fits * solved / FLOPS
    return seconds if plan.training.max_time is None else min(seconds, plan.training.max_time)


def _trial(trainer: Trainer, lessons: Lessons) -> float | None:
    """Seconds per window of training steps on this machine: of a few windows first, then of whole batches."""
    plan = trainer.plan
    located = located_numbers(plan.spec.loss, plan.spec.quantiles)
    skip = torch.zeros(plan.spec.context_length, plan.spec.horizon)
    start = Start(Ridge(None), skip, torch.zeros(plan.spec.horizon, len(located)))
    trial = copy.copy(trainer)
    trial.clock, trial.on_event = Clock(), lambda event: None
    batch = min(plan.schedule.batch_size, len(lessons))
    size, steps, fastest = min(TRIAL_WINDOWS, batch), 2 * WARM_STEPS, math.inf
    try:
        for _ in range(3):
            schedule = replace(plan.schedule, batch_size=size, max_steps=steps)
            fit = trial.fit(lessons, None, start, schedule, plan.parts.train, "trial", 1.0)
            fastest = min(fastest, 1 / fit.windows_per_second if fit.windows_per_second else math.inf)
            if fastest * batch > SLOW_BATCH:
                break
            size, steps = batch, WARM_STEPS + math.ceil(min(TRIAL_STEPS, TRIAL_SECONDS / (fastest * batch)))
    except NothingLearnedError:
        return None
    return fastest
