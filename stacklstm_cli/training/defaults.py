"""Defaults: what is not set on the command line, chosen from the data by rules with their reasons.

The rules see the step, the lengths and the number of series; never a name, never a holdout.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from stacklstm_cli.config import MEDIAN, POINT_LOSSES, MetricConfig, ModelConfig, TrainingConfig, interval_quantiles
from stacklstm_cli.data.calendar import Step
from stacklstm_cli.data.panel import Covariate, Ints, Panel
from stacklstm_cli.errors import DataError, UsageError
from stacklstm_cli.model.inputs import InputSpec, calendar_of, cycles_of, is_shown, known_categories
from stacklstm_cli.model.layers import Cell, StackSpec, check_stack, layer_widths
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.training.growth import grows_with_level
from stacklstm_cli.training.loop import Schedule
from stacklstm_cli.training.parts import Parts, cut_parts

MOST_STEPS = 16
"""Steps over one context, where the patch is chosen here. Over more than these, the forget gates start at 1; over
fewer, that only made small data be learned by heart sooner."""
QUANTILES = (0.1, 0.9)
LONGEST_HORIZON = 288
LONGEST_CONTEXT = 1024
"""Rows, where they are chosen here."""
ENOUGH_CONTEXT = 336
"""Rows of context that are enough for a forecast of any length, where a season is not long: two weeks of hours."""
FAR_AHEAD = 3
"""Seasons, beyond which a horizon is long."""
MANY_SERIES = 20
"""From so many series on, rules that hold for most of them can be told from the data."""
DAY = 86_400
"""Seconds."""
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

    @property
    def most_context(self) -> int:
        """Rows of the longest context that the training part of a series can fill."""
        return int(self.parts.train.max()) - self.spec.horizon

    def least_context(self, ends: Ints) -> Ints:
        """Rows [N] that must precede a training window in series of these lengths [N].

        A full context, where the series leaves room for some windows behind it; else what there is, padded
        as missing, but not less than a season.
        """
        spec = self.spec
        room = max(3 * spec.horizon, spec.horizon + LEAST_WINDOWS - 1)
        least = np.maximum(ends - room, max(2, self.seasonality))
        return np.minimum(least, spec.context_length)

    def windows(self, ends: Ints) -> Ints:
        """Training windows [N] in the first `ends[i]` rows of each series, were every row observed."""
        windows: Ints = np.maximum(ends - self.spec.horizon - self.least_context(ends) + 1, 0)
        return windows

    def most_steps(self, windows: int) -> int:
        """Optimiser steps of the longest fit on so many windows."""
        if self.training.epochs is None:
            return self.schedule.max_steps
        return math.ceil(self.training.epochs * windows / min(self.schedule.batch_size, windows))

    def explained(self) -> list[str]:
        """What was chosen, for a person."""
        spec, schedule, parts = self.spec, self.schedule, self.parts
        epochs = self.training.epochs
        most = f"{schedule.max_steps} steps" if epochs is None else f"{epochs} epoch{'s' * (epochs != 1)}"
        return [
            f"network: {spec.stack.explained()}, context {spec.context_length} in patches of "
            f"{spec.patch_length}, horizon {spec.horizon}, seasonality {self.seasonality}",
            f"training: batches of {schedule.batch_size}, learning rate {schedule.learning_rate:g}, at most {most}, "
            f"dropout {spec.dropout:g}",
            *(["forecasts by smoothing beside the line"] if spec.smoothing_season else []),
            *([f"inputs: {spec.inputs.explained()}"] if spec.inputs.explained() else []),
            *([f"learned as logarithms ({spec.transform})"] if spec.transform != "none" else []),
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
    """Fill in what was left open.

    Raises `UsageError` where options contradict each other, `DataError` where the data is too short for them or has
    gaps that were to be refused.
    """
    if model.gaps == "error":
        panel.refuse_gaps()
    if model.loss == "negative-binomial":
        refuse_uncountable(panel, model)
    plan = plan_for(panel.lengths, panel.step, model, training, metrics, panel.covariates)
    covariates = known_categories(panel, plan.parts.train, panel.lengths)
    inputs = inputs_for(panel, model, covariates, plan)
    rows = calendar_rows(panel.step, inputs, plan)
    spec = replace(plan.spec, inputs=inputs, transform=transform_for(panel, plan, model), calendar_rows=rows)
    plan = replace(plan, spec=spec)
    check_stack(plan.spec.stack, plan.spec.steps)
    ahead = {"--bidirectional": model.bidirectional, "--attention": model.attention}
    ahead |= {"--gaps interpolate": model.gaps == "interpolate"}
    other = next((name for name, there in ahead.items() if there), "")
    if plan.schedule.every_step and other:
        raise UsageError(
            f"--supervise all lets every step forecast from what came before it, and with {other} a step knows more.",
            hint=f"Leave out {other} or --supervise all.",
            code="steps_know_the_future",
        )
    if plan.windows(plan.parts.train).sum() < LEAST_WINDOWS:
        raise too_short(panel, model, training, metrics)
    if training.holdout and not plan.parts.judging:
        raise UsageError(
            f"--holdout {training.holdout} leaves no series rows enough to train on; the longest has "
            f"{int(panel.lengths.max())}.",
            hint="Give a smaller --holdout, or 0 not to judge.",
            code="holdout_too_long",
        )
    return plan


def refuse_uncountable(panel: Panel, model: ModelConfig) -> None:
    """Raise for values that no negative binomial distribution has: `DataError`, or `UsageError` for a transform."""
    if model.transform not in (None, "none"):
        raise UsageError(
            f"--loss negative-binomial counts, and --transform {model.transform} makes no counts.",
            hint="Leave out one of the two.",
            code="transformed_counts",
        )
    wrong = np.flatnonzero((panel.values < 0) | (panel.values != np.floor(panel.values)) & ~np.isnan(panel.values))
    if wrong.size:
        raise DataError(
            f"--loss negative-binomial needs whole numbers from 0 up; {panel.place(wrong[0])} has "
            f"{panel.values[wrong[0]]:g} ({len(wrong):,} such values).",
            hint="Train with --loss quantile or student-t.",
            code="not_counts",
        )


def transform_for(panel: Panel, plan: Plan, model: ModelConfig) -> str:
    """Logarithms of many series whose swings grow with their level, as far as the training part shows it.

    Of a single series they were as often worse as better (benchmarks/RESULTS.md). Those that negative values have too,
    as later rows may be negative. Not for what has no logarithm to learn or to export: counts by their distribution,
    and lines across gaps; nor for means, which those of logarithms are not.
    """
    if model.transform is not None:
        return model.transform
    learnable = model.loss not in ("negative-binomial", "mse") and model.gaps != "interpolate"
    fits = learnable and panel.n_series >= MANY_SERIES
    return "symlog" if fits and grows_with_level(panel, plan.parts.train, plan.seasonality) else "none"


def inputs_for(panel: Panel, model: ModelConfig, covariates: tuple[Covariate, ...], plan: Plan) -> InputSpec:
    """The covariates of the panel, and the calendar as far as the longest training part shows it.

    Far ahead, what the calendar adds to a context that shows a cycle twice was learned by heart, and took most of the
    time: such cycles are left to the context.
    """
    cycles = cycles_of(panel.step, int(plan.parts.train.max())) if model.calendar else ()
    if plan.spec.horizon > FAR_AHEAD * plan.seasonality > FAR_AHEAD:
        cycles = tuple(name for name in cycles if not is_shown(name, panel.step, plan.spec.context_length))
    if model.holidays:
        if panel.step.unit == "step":
            raise UsageError(
                f"--holidays {model.holidays} needs dates, and the rows of this file are counted.",
                code="holidays_without_dates",
            )
        calendar_of(model.holidays, range(2024, 2025))
    return InputSpec(covariates, cycles, model.holidays or "")


def calendar_rows(step: Step, inputs: InputSpec, plan: Plan) -> int:
    """Rows to forecast that share what is said of the calendar: those of a patch, far ahead, within a day.

    What does not change within a day need not be worked out row by row, which took most of the time.
    """
    far = plan.spec.horizon > FAR_AHEAD * plan.seasonality > FAR_AHEAD
    slow = bool(inputs.cycles) and "time_of_day" not in inputs.cycles and not inputs.of("known")
    within = step.unit == "second" and DAY % (step.count * plan.spec.patch_length) == 0
    return plan.spec.patch_length if far and slow and within else 1


def too_short(panel: Panel, model: ModelConfig, training: TrainingConfig, metrics: MetricConfig) -> DataError:
    """The error for data without enough windows, with the arithmetic of the shortest series that has them."""
    longest = int(panel.lengths.argmax())

    def planned(rows: int) -> Plan:
        return plan_for(np.asarray([rows]), panel.step, model, training, metrics)

    def enough(rows: int) -> bool:
        plan = planned(rows)
        judged = plan.parts.judging > 0 or not training.holdout
        return judged and bool(plan.windows(plan.parts.train).sum() >= LEAST_WINDOWS)

    below = above = int(panel.lengths[longest])
    while not enough(above):
        below, above = above, 2 * above
    rows = bisect_left(range(above), True, lo=below + 1, key=enough)
    plan = planned(rows)
    least, horizon = int(plan.least_context(plan.parts.train)[0]), plan.spec.horizon
    kept = rows - int(plan.parts.train[0])
    return DataError(
        f"The longest series ({panel.name(longest)}) has {panel.lengths[longest]} rows; training needs at least "
        f"{rows}: {least} of context, {horizon} of horizon, {LEAST_WINDOWS - 1} for more windows"
        + (f", {kept} to choose and judge." if kept else "."),
        hint="Give more rows" + (" or a shorter --horizon." if horizon > 1 else "."),
        code="too_few_rows",
    )


def plan_for(
    lengths: Ints,
    step: Step,
    model: ModelConfig,
    training: TrainingConfig,
    metrics: MetricConfig,
    covariates: tuple[Covariate, ...] = (),
) -> Plan:
    """The plan for series of these lengths [N]. Raises `UsageError` where options contradict each other."""
    seasonality = metrics.seasonality or season_of(lengths, step, model.horizon)
    # A season that was typed may be longer than any series shows it.
    season = seasonality if 2 * seasonality <= int(lengths.max()) else 1
    horizon = model.horizon or default_horizon(lengths, season)
    context = model.context_length or default_context(lengths, horizon, season)
    patch = model.patch_length or default_patch(context, season)
    if patch > context:
        raise UsageError(
            f"--patch-length {patch} is longer than the context of {context} rows.",
            hint=f"Give a --patch-length of at most {context}, or a longer --context-length.",
            code="patch_too_long",
        )
    if model.min is not None and model.max is not None and model.min >= model.max:
        raise UsageError(f"--min {model.min:g} is not below --max {model.max:g}.", code="empty_range")
    if model.forget_bias is not None and model.cell != "lstm":
        raise UsageError(
            f"--forget-bias is for --cell lstm; a cell of kind {model.cell} has no forget gate.", code="no_forget_gate"
        )
    size = size_of(lengths)
    dropout = 0.2 if model.dropout is None else model.dropout
    spec = NetworkSpec(
        stack=StackSpec(
            input_size=patch * InputSpec(covariates).row_width,
            hidden_sizes=layer_widths(model.hidden_size or ((32, 64, 128)[size],), model.layers),
            cell=cast(Cell, model.cell),
            bidirectional=model.bidirectional,
            residual=model.residual,
            layer_norm=model.layer_norm,
            dropout=dropout,
            recurrent_dropout=model.recurrent_dropout,
            dilations=model.dilations,
            forget_bias=float(context > patch * MOST_STEPS) if model.forget_bias is None else model.forget_bias,
            attention=model.attention,
        ),
        dropout=dropout,
        patch_length=patch,
        context_length=context,
        horizon=horizon,
        quantiles=learned_quantiles(model),
        inputs=InputSpec(covariates),
        skip=model.skip,
        loss=model.loss,
        location_length=min(seasonality, context),
        scale_length=min(7 * seasonality, context) if seasonality > 1 else context,
        gaps="mask" if model.gaps == "error" else model.gaps,
        transform=model.transform or "none",
        minimum=model.min,
        maximum=model.max,
        smoothing_season=season if model.skip and 1 < season <= context // 2 else 0,
    )
    batch_size = training.batch_size or (32, 128, 256)[size]
    schedule = Schedule(
        batch_size=batch_size,
        learning_rate=training.learning_rate or (2e-3, 2e-3, 3e-3)[size],
        weight_decay=0.01 if training.weight_decay is None else training.weight_decay,
        grad_clip=training.grad_clip,
        max_steps=(300, 600, 1200)[size],
        check_every=(20, 30, 40)[size],
        patience=training.patience or 6,
        warmup=20,
        average=0.99,
        skip_rate=0.5,
        validation_windows=4096,
        every_step=model.supervise == "all",
    )
    if training.holdout is not None and 0 < training.holdout < horizon:
        raise UsageError(
            f"--holdout {training.holdout} is shorter than the horizon of {horizon} rows, so nothing could be judged.",
            hint=f"Give --holdout {horizon} or more, or 0 not to judge.",
            code="holdout_too_short",
        )
    parts = cut_parts(
        lengths,
        horizon,
        least_train=least_train(context, seasonality, horizon),
        holdout=training.holdout,
    )
    return Plan(spec, schedule, parts, training, seasonality, start_strength=1.0, unvalidated_steps=100)


def least_train(context: int, seasonality: int, horizon: int) -> int:
    """Rows of the shortest training part beside which some rows are kept to choose and to judge."""
    return min(context, 2 * seasonality) + horizon + LEAST_WINDOWS - 1


def learned_quantiles(model: ModelConfig) -> tuple[float, ...]:
    """The quantiles to forecast; of a loss that has none, the point alone. Raises `UsageError`."""
    asked = {*model.quantiles, *interval_quantiles(model.interval)}
    if model.loss not in POINT_LOSSES:
        return tuple(sorted({*(model.quantiles or QUANTILES), *asked, MEDIAN}))
    if asked:
        raise UsageError(
            f"--loss {model.loss} forecasts one number for each row and no quantiles.",
            hint="Leave out --quantiles and --interval, or train with --loss quantile or student-t.",
            code="quantiles_of_a_point",
        )
    return (MEDIAN,)


def season_of(lengths: Ints, step: Step, horizon: int | None) -> int:
    """Rows in a season, by the step; 1 where no series is two seasons long, or it would leave no room to train."""
    season, longest = step.season(), int(lengths.max())
    room = season + (horizon or default_horizon(lengths, season)) + LEAST_WINDOWS - 1
    return season if longest >= max(2 * season, room) else 1


def default_horizon(lengths: Ints, season: int) -> int:
    """One season, or 6 rows without one; a quarter of a year for weeks; never over a fifth of the longest series.

    A season of very many rows, such as the minutes of a day, is more than one forecast is asked for.
    """
    wanted = 6 if season == 1 else 13 if season == 52 else min(season, LONGEST_HORIZON)
    return max(1, min(wanted, int(lengths.max()) // 5))


def default_context(lengths: Ints, horizon: int, season: int) -> int:
    """Rows of context: more where the data can teach more weights, whole seasons, at least three of them.

    At most `ENOUGH_CONTEXT` rows, also for a horizon that is longer, unless three seasons are.
    """
    typical = float(np.median(lengths))
    length = min(typical * math.sqrt(len(lengths)) / 10, 8 * horizon, ENOUGH_CONTEXT)
    length = max(length, min(3 * horizon, ENOUGH_CONTEXT), min(3 * season, max(season, LONGEST_CONTEXT)))
    length = min(length, max(typical / 3, horizon, season))
    rows = max(1, int(length))
    if season > 1:
        return max(season, rows // season * season)
    return next(length for length in range(rows, 0, -1) if length % default_patch(length, season) == 0)


def default_patch(context: int, season: int) -> int:
    """The smallest divisor of the season that leaves the LSTM at most 16 steps: short sequences train fast and well."""
    sizes = [size for size in range(1, season + 1) if season % size == 0] if season > 1 else list(range(1, 65))
    patch = next((size for size in sizes if context / size <= MOST_STEPS), sizes[-1])
    return min(patch, context)


def size_of(lengths: Ints) -> int:
    """0, 1 or 2: how much data there is, in steps of ten."""
    total = int(lengths.sum())
    return 0 if total < 5_000 else 1 if total < 50_000 else 2
