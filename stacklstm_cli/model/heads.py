"""Heads: what the network's last numbers mean, and the loss that teaches them.

The network gives some raw numbers per step of the horizon, in the normalised units of the window. A head
says how many, what their loss is, and which forecast in the user's units they stand for.

How series are weighed. Three units meet here: the user's, the window's (user = location + scale · normalised)
and those of the loss (gain · normalised), in which series of any size count alike (training/lessons.py).
`quantile`, `mae`, `mse` and `huber` measure errors in the units of the loss, so a quiet window of a lively
series counts little. The likelihoods of `student-t` and `negative-binomial` measure how surprising a value is,
which has no unit: each known value counts alike, whatever its series and window.

Shape letters: B batch, H horizon, K raw numbers per step, Q learned and Q' wanted quantiles, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stacklstm_cli.config import MEDIAN
from stacklstm_cli.data.panel import Floats, Ints
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.distributions import (
    negative_binomial_log_probability,
    negative_binomial_quantile,
    student_t_log_density,
    student_t_quantile,
)

LABELS = "labels"
"""The loss of a network that gives labels."""
PointLoss = Literal["mae", "mse", "huber"]
HUBER_DELTA = 1.0
"""In the units of the loss, in which a typical seasonal change is 1: larger errors count linearly."""
LEAST_SCALE = 1e-3
"""Of a distribution, in deviations of the window, so that a series that never moves has no infinite likelihood."""
LEAST_FREEDOM = 2.0
"""Fewer degrees of freedom have no finite variance."""
FIRST_FREEDOM = 6.0
"""Degrees of freedom that training starts from: tails heavier than the normal's, yet with four moments."""
MEAN_AT_ZERO = 0.05
"""Mean of counts, in deviations of the window, where the forecast is zero: how far it bends away from zero."""
LEAST_MEAN = 1e-12
LEAST_START = 1e-2
"""Of a parameter behind a softplus: from further down its flat end, training could not bring it up again."""
SIZES = (1e-10, 1e8)
"""Bounds of the negative binomial's size; at the upper one it is Poisson's distribution to eight digits."""


@dataclass(frozen=True)
class Scaling:
    """What leads from the normalised units of a batch of windows to the user's: location + scale · normalised."""

    location: Tensor
    """[B, 1] float64, where the windows lie."""
    scale: Tensor
    """[B, 1] float64, above zero."""


class Teacher(Protocol):
    """What a network learns from its raw numbers."""

    def loss(self, raw: Tensor, target: Tensor, gain: Tensor, scaling: Scaling) -> Tensor:
        """Loss of each place [B, H] of raw numbers [B, H, K]; the rest as of `Head.loss`."""


class Head(Teacher, Protocol):
    """One meaning of the raw numbers."""

    @property
    def located(self) -> tuple[float, ...]:
        """[K] 1 for a raw number that is a place on the axis of values, to which the linear skip is added; 0 for
        one that describes a shape. Its length is K."""

    def loss(self, raw: Tensor, target: Tensor, gain: Tensor, scaling: Scaling) -> Tensor:
        """Loss of each place [B, H] of raw numbers [B, H, K] in normalised units.

        `target` [B, H] less the window's location, in the units of the loss, anything where it is unknown;
        `gain` [B, 1] from normalised units to those of the loss.
        """

    def start(self, left_over: Tensor) -> Tensor:
        """Raw numbers [H, K] that training starts from, for what the linear skip leaves over [W, H], in
        normalised units, NaN where unknown."""

    def check(self, quantiles: Sequence[float]) -> None:
        """Raise `UsageError` for quantiles that this head cannot give."""

    def decode(self, raw: Tensor, scaling: Scaling, quantiles: Sequence[float]) -> Tensor:
        """Raw numbers [B, H, K] -> quantiles [B, H, Q'] float64 in user units, never crossing where wanted in
        ascending order."""


class QuantileHead:
    """Quantiles themselves; those between learned ones are interpolated linearly."""

    def __init__(self, quantiles: Sequence[float], device: torch.device) -> None:
        """`quantiles` [Q], ascending."""
        self.quantiles = tuple(quantiles)
        self.levels = torch.tensor(self.quantiles, device=device)  # [Q]

    @property
    def located(self) -> tuple[float, ...]:
        return (1.0,) * len(self.quantiles)

    def loss(self, raw: Tensor, target: Tensor, gain: Tensor, scaling: Scaling) -> Tensor:
        return pinball(raw * gain.unsqueeze(-1), target, self.levels)

    def start(self, left_over: Tensor) -> Tensor:
        levels = torch.as_tensor(self.quantiles, dtype=left_over.dtype, device=left_over.device)  # [Q]
        return left_over.nanquantile(levels, dim=0).T.nan_to_num(0.0)  # [H, Q]

    def check(self, quantiles: Sequence[float]) -> None:
        learned = self.quantiles
        for quantile in quantiles:
            if not learned[0] - 1e-9 <= quantile <= learned[-1] + 1e-9:
                raise UsageError(
                    f"Quantile {quantile:g} is outside what the model has learned ({learned[0]:g} to {learned[-1]:g}).",
                    hint="Train again with --quantiles that reach as far out.",
                    code="quantile_not_learned",
                )

    def decode(self, raw: Tensor, scaling: Scaling, quantiles: Sequence[float]) -> Tensor:
        ordered = raw.sort(-1).values.to(scaling.scale)  # [B, H, Q]
        learned = scaling.location.unsqueeze(-1) + ordered * scaling.scale.unsqueeze(-1)  # [B, H, Q]
        below, above, share = interpolation(self.quantiles, quantiles)  # each [Q']
        low, high = learned[..., below], learned[..., above]  # [B, H, Q'] each
        # Rounding must not lift a value over the learned one above it.
        return torch.minimum(low + torch.as_tensor(share, device=low.device) * (high - low), high)


class PointHead:
    """One number per step: the median for `mae`, the mean for `mse`, and for `huber` something between them."""

    located = (1.0,)

    def __init__(self, kind: PointLoss) -> None:
        self.kind = kind

    def loss(self, raw: Tensor, target: Tensor, gain: Tensor, scaling: Scaling) -> Tensor:
        forecast = raw.squeeze(-1) * gain  # [B, H]
        if self.kind == "mae":
            return (target - forecast).abs()
        if self.kind == "mse":
            return (target - forecast).square()
        return functional.huber_loss(forecast, target, reduction="none", delta=HUBER_DELTA)

    def start(self, left_over: Tensor) -> Tensor:
        middle = left_over.nanmean(0) if self.kind == "mse" else left_over.nanquantile(MEDIAN, dim=0)  # [H]
        return middle.nan_to_num(0.0).unsqueeze(-1)  # [H, 1]

    def check(self, quantiles: Sequence[float]) -> None:
        for quantile in quantiles:
            if quantile != MEDIAN:
                raise UsageError(
                    f"Quantile {quantile:g} was asked for, but a model trained with --loss {self.kind} forecasts one "
                    "number for each row and no quantiles.",
                    hint="Train with --loss quantile, student-t or negative-binomial for quantiles and intervals.",
                    code="quantile_not_learned",
                )

    def decode(self, raw: Tensor, scaling: Scaling, quantiles: Sequence[float]) -> Tensor:
        point = scaling.location.unsqueeze(-1) + raw.to(scaling.scale) * scaling.scale.unsqueeze(-1)  # [B, H, 1]
        return point.expand(-1, -1, len(quantiles))  # [B, H, Q']


class StudentTHead:
    """Student's t: its location, its scale before a softplus, its degrees of freedom less two before a softplus."""

    located = (1.0, 0.0, 0.0)

    def loss(self, raw: Tensor, target: Tensor, gain: Tensor, scaling: Scaling) -> Tensor:
        """Negative logarithm of the density in the units of the loss."""
        location, scale, freedom = self.parameters(raw.to(scaling.scale))  # [B, H] each
        exact_gain = gain.to(scaling.scale)  # [B, 1]
        z = (target.to(scaling.scale) / exact_gain - location) / scale  # [B, H]
        surprise = (scale * exact_gain).log() - student_t_log_density(z, freedom)  # [B, H]
        return surprise.to(raw.dtype).to(raw.device)

    def start(self, left_over: Tensor) -> Tensor:
        """Median, spread between the quartiles, and a few degrees of freedom."""
        levels = torch.tensor([0.25, 0.5, 0.75], dtype=left_over.dtype, device=left_over.device)
        lower, middle, upper = left_over.nanquantile(levels, dim=0).nan_to_num(0.0)  # [H] each
        freedom = torch.full_like(middle, FIRST_FREEDOM)
        quartile = student_t_quantile(levels[2], freedom)
        scale = (upper - lower) / (2 * quartile)
        parts = (middle, before_softplus(scale - LEAST_SCALE), before_softplus(freedom - LEAST_FREEDOM))
        return torch.stack(parts, -1)  # [H, 3]

    def check(self, quantiles: Sequence[float]) -> None:
        """A distribution has them all."""

    def decode(self, raw: Tensor, scaling: Scaling, quantiles: Sequence[float]) -> Tensor:
        parts = self.parameters(raw.to(scaling.scale).unsqueeze(-2))  # [B, H, 1] each
        levels = torch.tensor(quantiles, dtype=torch.float64, device=scaling.scale.device)  # [Q']
        location, scale, freedom = parts
        normalised = location + scale * student_t_quantile(levels, freedom)  # [B, H, Q']
        return scaling.location.unsqueeze(-1) + normalised * scaling.scale.unsqueeze(-1)

    def parameters(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw numbers [..., 3] -> location, scale and degrees of freedom [...], in normalised units."""
        location, scale, freedom = raw.unbind(-1)
        return location, functional.softplus(scale) + LEAST_SCALE, functional.softplus(freedom) + LEAST_FREEDOM


class NegativeBinomialHead:
    """Whole counts, in the user's units: their mean, and their deviation beyond Poisson's before a softplus.

    The network sees each window in units of its own deviation and can say nothing else. So the mean is the
    forecast in these units, bent away from zero (Barron 2021, "Squareplus": far below zero it falls slowly enough
    to be learned back), and the variance is the mean (Poisson's part) plus the square of a deviation in these
    units: mean + deviation² = mean + mean² / size. Salinas et al. 2020, "DeepAR", scale their parameters by the
    mean of the window for the same reason.
    """

    located = (1.0, 0.0)

    def loss(self, raw: Tensor, target: Tensor, gain: Tensor, scaling: Scaling) -> Tensor:
        """Negative logarithm of the probability."""
        mean, size = self.parameters(raw.to(scaling.scale), scaling.location, scaling.scale)  # [B, H] each
        user_units = scaling.scale / gain.to(scaling.scale)  # [B, 1]
        value = scaling.location + target.to(scaling.scale) * user_units  # [B, H]
        count = value.round().clamp(min=0)  # what float32 has blurred
        surprise = -negative_binomial_log_probability(count, mean, size)  # [B, H]
        return surprise.to(raw.dtype).to(raw.device)

    def start(self, left_over: Tensor) -> Tensor:
        """Mean and deviation."""
        mean = left_over.nanmean(0)  # [H]
        deviation = (left_over - mean).square().nanmean(0).sqrt().nan_to_num(1.0)  # [H]
        return torch.stack([mean.nan_to_num(0.0), before_softplus(deviation - LEAST_SCALE)], -1)  # [H, 2]

    def check(self, quantiles: Sequence[float]) -> None:
        """A distribution has them all."""

    def decode(self, raw: Tensor, scaling: Scaling, quantiles: Sequence[float]) -> Tensor:
        location, scale = scaling.location.unsqueeze(-1), scaling.scale.unsqueeze(-1)  # [B, 1, 1] each
        mean, size = self.parameters(raw.to(scaling.scale).unsqueeze(-2), location, scale)  # [B, H, 1] each
        levels = torch.tensor(quantiles, dtype=torch.float64, device=scaling.scale.device)  # [Q']
        return negative_binomial_quantile(levels, mean, size)  # [B, H, Q']

    def parameters(self, raw: Tensor, location: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Raw numbers [..., 2] of windows with this location and scale -> mean and size [...], in user units."""
        middle, deviation = raw.unbind(-1)
        forecast = location / scale + middle
        mean = scale * (forecast + (forecast.square() + 4 * MEAN_AT_ZERO**2).sqrt()) / 2
        mean = mean.clamp(min=LEAST_MEAN)
        beyond = (scale * (functional.softplus(deviation) + LEAST_SCALE)).square()
        return mean, (mean.square() / beyond).clamp(*SIZES)


class LabelHead:
    """Logits of K classes, of which one is true: their cross-entropy."""

    def loss(self, raw: Tensor, target: Tensor, gain: Tensor, scaling: Scaling) -> Tensor:
        """`target` [B, H] is the number of the true class; a label has no unit and no scale."""
        return functional.cross_entropy(raw.transpose(1, 2), target.long(), reduction="none")  # [B, H]


def build_teacher(loss: str, quantiles: Sequence[float], device: torch.device) -> Teacher:
    """What a network of this loss learns by: a head, or that of labels, which are no values."""
    return LabelHead() if loss == LABELS else build_head(loss, quantiles, device)


def build_head(loss: str, quantiles: Sequence[float], device: torch.device) -> Head:
    """The head of a `--loss`; `quantiles` [Q] are those that `--loss quantile` learns, on `device`."""
    if loss == "quantile":
        return QuantileHead(quantiles, device)
    if loss == "student-t":
        return StudentTHead()
    if loss == "negative-binomial":
        return NegativeBinomialHead()
    for kind in get_args(PointLoss):
        if kind == loss:
            return PointHead(kind)
    raise ValueError(f"no loss {loss!r}")


def located_numbers(loss: str, quantiles: Sequence[float]) -> tuple[float, ...]:
    """`Head.located` of a `--loss`."""
    return build_head(loss, quantiles, torch.device("cpu")).located


def pinball(forecast: Tensor, target: Tensor, quantiles: Tensor) -> Tensor:
    """Quantile loss of forecasts [B, H, Q] of targets [B, H], mean over the quantiles -> [B, H].

    Doubled, so that its median part reads as the absolute error (Koenker & Bassett 1978,
    "Regression Quantiles").
    """
    error = target.unsqueeze(-1) - forecast  # [B, H, Q]
    return 2 * torch.maximum(quantiles * error, (quantiles - 1) * error).mean(-1)  # [B, H]


def masked_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the counted places; 0 where none is."""
    return (values * counted).sum() / counted.sum().clamp(min=1)


def interpolation(learned: Sequence[float], wanted: Sequence[float]) -> tuple[Ints, Ints, Floats]:
    """For each wanted quantile [Q'] the learned ones below and above it, and how far it lies towards the latter."""
    places = np.interp(wanted, learned, np.arange(len(learned)))  # [Q']
    below = np.floor(places).astype(np.int64)
    return below, np.ceil(places).astype(np.int64), places - below


def before_softplus(value: Tensor) -> Tensor:
    """What the softplus makes `value` of, which counts as at least `LEAST_START`."""
    value = value.clamp(min=LEAST_START)
    return value + torch.log(-torch.expm1(-value))
