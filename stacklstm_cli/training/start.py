"""Where training starts: a linear forecast solved in closed form.

The linear skip starts as the mean of the last two seasons or as the last value, moved towards the least-squares
forecast, which and how far as validation says (ridge regression shrunk towards a forecast instead of towards zero:
Hoerl & Kennard 1970). So the first step of training already stands where a linear model ends.

Shape letters: B batch, L context, H horizon, K raw numbers of the head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from stacklstm_cli.model.heads import build_head
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.smoothing import Smoothing, heard
from stacklstm_cli.model.windows import Inputs
from stacklstm_cli.training.lessons import Lessons

MOST_WINDOWS = 20_000
"""More windows than this change a least-squares solution of a few hundred inputs by nothing one can see."""
MOST_JUDGED = 4096
"""Windows that choose the strength and give the quantiles of the residuals."""
MOST_RESIDUALS = 2**24
"""More numbers than this, torch's quantile refused in older versions."""
SEASONS = 2
"""Seasons averaged by the forecast that a strong ridge shrinks to: half the noise of the seasonal naive one."""
LARGEST_RESIDUAL = 10.0
"""In deviations of the window; larger ones are clipped, as least squares knows no outliers."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the forecast by smoothing tried beside each of them."""
STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-10, 6))
"""Ridge strengths tried, as shares of the mean eigenvalue of the windows' second moments."""


Towards = Literal["seasons", "last"]
"""What is shrunk to: the mean of the last two seasons, or the last value, beyond which a random walk has nothing."""


@dataclass(frozen=True)
class Ridge:
    """Which linear forecast is solved for."""

    strength: float | None
    """None is the forecast that a strong ridge shrinks to itself."""
    towards: Towards = "seasons"
    smoothing: float = 0.0
    """Share of the forecast by smoothing, where the network has one; the rest is the linear one's."""


@dataclass(frozen=True)
class Start:
    """A linear forecast to begin from."""

    ridge: Ridge
    skip: Tensor
    """[L, H] weights on the normalised context."""
    bias: Tensor
    """[H, K] raw numbers of the head for what the skip leaves over."""

    def apply_to(self, network: StackedRNN) -> None:
        """Set a new network to this forecast."""
        with torch.no_grad():
            if network.skip is not None:
                network.skip_start.copy_(self.skip)
            if network.smoothing is not None:
                network.smoothing.share.fill_(self.ridge.smoothing)
            network.bias.copy_(self.bias)


@dataclass(frozen=True)
class Path:
    """The eigenvectors that give the solution for every ridge at little cost."""

    naive: dict[Towards, Tensor]
    """[L, H] the forecast that a strong ridge shrinks to."""
    eigenvalues: Tensor
    """[L]"""
    eigenvectors: Tensor
    """[L, L]"""
    projected: dict[Towards, Tensor]
    """[L, H] what least squares would add to the naive forecast, before dividing by the eigenvalues."""

    def weights(self, ridge: Ridge) -> Tensor:
        """[L, H] the skip of one ridge."""
        naive = self.naive[ridge.towards]
        if ridge.strength is None:
            return naive
        damped = self.eigenvalues + ridge.strength * self.eigenvalues.mean() + torch.finfo(torch.float64).tiny
        return naive + self.eigenvectors @ (self.projected[ridge.towards] / damped.unsqueeze(1))


def choose_start(lessons: Lessons, validation: Lessons, season: int) -> Start:
    """The start whose ridge does best on `validation` in mean absolute error."""
    if not lessons.windows.spec.skip:
        return without_skip(lessons)
    path = solve(lessons, season)
    smoothing = smoothing_of(lessons)
    shares = SHARES if smoothing else (0.0,)
    lines = [Ridge(strength, towards) for towards in get_args(Towards) for strength in (None, *STRENGTHS)]
    weights = [path.weights(ridge) for ridge in lines]  # each [L, H]
    totals = torch.zeros(len(lines), len(shares), dtype=torch.float64, device=lessons.windows.home)
    sample = validation.thinned(MOST_JUDGED)
    for lesson in sample.chunks(exact=True):
        smoothed, trusted = smoothing(lesson.inputs) if smoothing else (0.0, 0.0)  # [B, H], [B, 1]
        for place, weight in enumerate(weights):
            line = lesson.inputs.context @ weight  # [B, H]
            wrong = (lesson.target - lesson.gain * line) * lesson.known  # [B, H]
            moved = lesson.gain * trusted * (smoothed - line) * lesson.known  # [B, H]
            for at, share in enumerate(shares):
                totals[place, at] += (wrong - share * moved).abs().sum()
    best, at = divmod(int(totals.nan_to_num(nan=math.inf).argmin()), len(shares))
    return finish(lessons, replace(lines[best], smoothing=shares[at]), weights[best])


def smoothing_of(lessons: Lessons) -> Callable[[Inputs], tuple[Tensor, Tensor]] | None:
    """What forecasts by smoothing before anything is learned: windows -> [B, H], and how far it is to be followed
    [B, 1]; None where the network does not."""
    spec = lessons.windows.spec
    if not spec.smoothing_season:
        return None
    smoothing = Smoothing(spec.context_length, spec.horizon, spec.smoothing_season, spec.stack.pooled_size)
    smoothing = smoothing.to(lessons.windows.home, torch.float64)

    def forecast(inputs: Inputs) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            found = smoothing.smoothed(inputs.context, smoothing.merit(inputs.context, inputs.observed))  # [B, H]
        return found, heard(inputs.observed)

    return forecast


def start_with(lessons: Lessons, ridge: Ridge, season: int) -> Start:
    """The start with a ridge that is already known, as a refit uses it."""
    if not lessons.windows.spec.skip:
        return without_skip(lessons)
    return finish(lessons, ridge, solve(lessons, season).weights(ridge))


def without_skip(lessons: Lessons) -> Start:
    """The start of a network without a linear skip: the mean of the newest season, which windows subtract."""
    spec = lessons.windows.spec
    zero = torch.zeros(spec.context_length, spec.horizon, dtype=torch.float64, device=lessons.windows.home)  # [L, H]
    return finish(lessons, Ridge(None), zero)


def solve(lessons: Lessons, season: int) -> Path:
    """Second moments of the windows, weighted so that a squared error counts in the units of the loss."""
    spec = lessons.windows.spec
    home = lessons.windows.home
    naive: dict[Towards, Tensor] = {
        "seasons": seasonal_skip(spec.context_length, spec.horizon, season).to(home),
        "last": last_skip(spec.context_length, spec.horizon).to(home),
    }  # [L, H] each
    gram = torch.zeros(spec.context_length, spec.context_length, dtype=torch.float64, device=home)  # [L, L]
    cross = {towards: torch.zeros_like(skip) for towards, skip in naive.items()}  # [L, H] each
    for lesson in lessons.thinned(MOST_WINDOWS).chunks(exact=True):
        weight = lesson.gain.square()  # [B, 1]
        gram += lesson.inputs.context.T @ (lesson.inputs.context * weight)
        for towards, skip in naive.items():
            residual = lesson.target / lesson.gain - lesson.inputs.context @ skip  # [B, H]
            residual = residual.clamp(-LARGEST_RESIDUAL, LARGEST_RESIDUAL) * lesson.known
            cross[towards] += lesson.inputs.context.T @ (residual * weight)
    eigenvalues, eigenvectors = torch.linalg.eigh(gram)
    projected = {towards: eigenvectors.T @ product for towards, product in cross.items()}
    return Path(naive, eigenvalues.clamp(min=0), eigenvectors, projected)


def last_skip(context_length: int, horizon: int) -> Tensor:
    """Weights [L, H] of the newest row alone."""
    weights = torch.zeros(context_length, horizon, dtype=torch.float64)
    weights[-1] = 1.0
    return weights


def seasonal_skip(context_length: int, horizon: int, season: int) -> Tensor:
    """Weights [L, H] of the mean of the same rows of the newest `SEASONS` seasons, as many as fit."""
    season = season if season <= context_length else 1
    seasons = min(SEASONS, context_length // season)
    ahead = torch.arange(horizon)
    weights = torch.zeros(context_length, horizon, dtype=torch.float64)
    for back in range(1, seasons + 1):
        weights[context_length - back * season + ahead % season, ahead] = 1 / seasons
    return weights


def finish(lessons: Lessons, ridge: Ridge, skip: Tensor) -> Start:
    """Add what the head says of what the forecast leaves over on training windows, per step of the horizon."""
    sample = lessons.thinned(max(1, min(MOST_JUDGED, MOST_RESIDUALS // lessons.windows.spec.horizon)))
    smoothing = smoothing_of(lessons) if ridge.smoothing else None
    left_over = []
    for lesson in sample.chunks(exact=True):
        forecast = lesson.inputs.context @ skip  # [B, H]
        if smoothing:
            found, trusted = smoothing(lesson.inputs)  # [B, H], [B, 1]
            forecast = forecast + ridge.smoothing * trusted * (found - forecast)
        left_over.append(torch.where(lesson.known > 0, lesson.target / lesson.gain - forecast, math.nan))
    spec = lessons.windows.spec
    residuals = torch.cat(left_over)  # [W, H]
    bias = build_head(spec.loss, spec.quantiles, residuals.device).start(residuals)  # [H, K]
    return Start(ridge, skip, bias)
