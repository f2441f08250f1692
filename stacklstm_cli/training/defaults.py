"""Defaults: what is not set on the command line, chosen from the data by rules with their reasons.

The rules see the step, the lengths and the number of series; never a name, never a holdout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.panel import Ints, Panel
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.training.loop import Schedule
from stacklstm_cli.training.parts import Parts, cut_parts

MEDIAN = 0.5
LEAST_WINDOWS = 8
"""Fewer training windows than this teach nothing that would hold on the next one."""


@dataclass(frozen=True)
class Plan:
    """Everything a training run needs, with nothing left open."""

    spec: NetworkSpec
    schedule: Schedule
    parts: Parts
    training: TrainingConfig
    seasonality: int
    start_strength: float
    """Ridge strength of the start where no validation part can choose it."""
    unvalidated_steps: int
    """Steps where no validation part can choose them."""

    def least_context(self, ends: Ints) -> Ints:
        """Rows [N] that must precede a training window in series of these lengths [N].

        A full context, where the series leaves room for some windows behind it; else what there is, padded
        as missing, but not less than a season.
        """
        spec = self.spec
        least = np.maximum(ends - 3 * spec.horizon, max(2, self.seasonality))
        return np.minimum(least, spec.context_length)

    def explained(self) -> list[str]:
        """What was chosen, for a person."""
        spec, schedule, parts = self.spec, self.schedule, self.parts
        return [
            f"network: {spec.layers} layers of {spec.hidden_size}, context {spec.context_length} in patches of "
            f"{spec.patch_length}, horizon {spec.horizon}, seasonality {self.seasonality}",
            f"training: batches of {schedule.batch_size}, learning rate {schedule.learning_rate:g}, at most "
            f"{schedule.max_steps} steps, dropout {spec.dropout:g}",
            self.explained_parts(parts),
        ]

    def explained_parts(self, parts: Parts) -> str:
        total = len(parts.end)
        rows = [int(part.sum()) for part in (parts.train, parts.validation - parts.train, parts.end - parts.validation)]
        text = f"rows: {rows[0]} to train, {rows[1]} to choose, {rows[2]} to judge"
        if parts.judging < total and rows[2]:
            text += f"; {total - parts.judging} of {total} series are too short to judge on"
        return text + ("; then all for the final weights" if self.training.refit and rows[1] + rows[2] else "")


def resolve(panel: Panel, model: ModelConfig, training: TrainingConfig, metrics: MetricConfig) -> Plan:
    """Fill in what was left open. Raises `UsageError` where options contradict each other."""
    lengths = panel.lengths
    seasonality = metrics.seasonality or season_of(panel)
    horizon = model.horizon or default_horizon(panel, seasonality)
    context = model.context_length or default_context(lengths, horizon, seasonality)
    patch = model.patch_length or default_patch(context, seasonality)
    if patch > context:
        raise UsageError(
            f"--patch-length {patch} is longer than the context of {context} rows.",
            hint=f"Give a --patch-length of at most {context}, or a longer --context-length.",
            code="patch_too_long",
        )
    size = size_of(lengths)
    spec = NetworkSpec(
        layers=model.layers,
        hidden_size=model.hidden_size or (32, 64, 128)[size],
        dropout=0.2 if model.dropout is None else model.dropout,
        patch_length=patch,
        context_length=context,
        horizon=horizon,
        quantiles=tuple(sorted({*model.quantiles, MEDIAN})),
        location_length=min(seasonality, context),
        scale_length=min(7 * seasonality, context) if seasonality > 1 else context,
    )
    batch_size = training.batch_size or (32, 128, 256)[size]
    windows = max(int(np.maximum(lengths - context - horizon + 1, 1).sum()), 1)
    schedule = Schedule(
        batch_size=batch_size,
        learning_rate=training.learning_rate or (2e-3, 2e-3, 3e-3)[size],
        weight_decay=0.01 if training.weight_decay is None else training.weight_decay,
        grad_clip=training.grad_clip,
        max_steps=max(1, math.ceil(training.epochs * windows / batch_size))
        if training.epochs
        else (300, 600, 1200)[size],
        check_every=(20, 30, 40)[size],
        patience=training.patience or 6,
        warmup=20,
        average=0.99,
        skip_rate=0.5,
        validation_windows=4096,
    )
    parts = cut_parts(
        lengths,
        horizon,
        least_train=min(context, 2 * seasonality) + horizon + LEAST_WINDOWS - 1,
        holdout=training.holdout,
    )
    return Plan(spec, schedule, parts, training, seasonality, start_strength=1.0, unvalidated_steps=100)


def season_of(panel: Panel) -> int:
    """Rows in a season, by the step; 1 where no series is two seasons long."""
    season = panel.step.season()
    return season if int(panel.lengths.max()) >= 2 * season else 1


def default_horizon(panel: Panel, season: int) -> int:
    """One season, or 6 rows without one; a quarter of a year for weeks; never over a fifth of the longest series."""
    wanted = 6 if season == 1 else 13 if season == 52 else season
    return max(1, min(wanted, int(panel.lengths.max()) // 5))


def default_context(lengths: Ints, horizon: int, season: int) -> int:
    """Rows of context: more where the data can teach more weights, whole seasons, at least three of them."""
    typical = float(np.median(lengths))
    length = min(typical * math.sqrt(len(lengths)) / 10, 8 * horizon, 336)
    length = max(length, 3 * horizon, 3 * season)
    length = min(length, max(typical / 3, horizon, season))
    unit = season if season > 1 else default_patch(int(length), season)
    return max(unit, int(length) // unit * unit)


def default_patch(context: int, season: int) -> int:
    """The smallest divisor of the season that leaves the LSTM at most 16 steps: short sequences train fast and well."""
    divisors = [size for size in range(1, season + 1) if season % size == 0] if season > 1 else list(range(1, 65))
    patch = next((size for size in divisors if context / size <= 16), divisors[-1])
    return min(patch, context)


def size_of(lengths: Ints) -> int:
    """0, 1 or 2: how much data there is, in steps of ten."""
    total = int(lengths.sum())
    return 0 if total < 5_000 else 1 if total < 50_000 else 2
