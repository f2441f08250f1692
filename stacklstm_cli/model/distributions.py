"""Densities and quantiles of distributions that torch has no quantiles of, tensor by tensor.

All in float64: counts of a million need every digit of the logarithm of the gamma function.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CONVERGED = 1e-10
"""Share by which a term of the continued fraction changes it at its end: above rounding, which for large counts
reaches 1e-11."""
MOST_TERMS = 2000
"""Of the continued fraction; counts of a million take some 600."""
ROUNDING = 1e-13
"""A share of counts that reaches a level but for this is not below it."""
STIRLING_FROM = 16.0
"""From here on three terms of Stirling's series are exact to twelve digits."""
TERMS_PER_CHECK = 8
"""Terms between two looks at whether all places have converged: a look waits for the device."""
NEWTON_STEPS = 3
"""Hill's start has six digits or more where it is used, and each step doubles them."""
TINY = 1e-300


def student_t_log_density(z: Tensor, freedom: Tensor) -> Tensor:
    """Of Student's t with this many degrees of freedom at z, for location 0 and scale 1 (Student 1908)."""
    normaliser = torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - torch.log(freedom * math.pi) / 2
    return normaliser - (freedom + 1) / 2 * torch.log1p(z.square() / freedom)


def student_t_quantile(level: Tensor, freedom: Tensor) -> Tensor:
    """Where Student's t has the share `level` below it; `freedom` at least 2.

    Hill's start, made exact by Newton's method on the tail I_x(n / 2, 1 / 2) / 2 with x = n / (n + t²)
    (Abramowitz & Stegun 1964, 26.7.1).
    """
    level, freedom = torch.broadcast_tensors(level, freedom)  # type: ignore[no-untyped-call]
    tail = torch.minimum(level, 1 - level)
    t = hill_start(2 * tail, freedom)
    half = torch.full_like(t, 0.5)
    for _ in range(NEWTON_STEPS):
        total = freedom + t.square()
        beyond = incomplete_beta(freedom / 2, half, freedom / total, t.square() / total) / 2
        t = (t + (beyond - tail) / student_t_log_density(t, freedom).exp()).clamp(min=0)
    return torch.where(level < 0.5, -t, t)


def hill_start(both_tails: Tensor, freedom: Tensor) -> Tensor:
    """Where |t| leaves the share `both_tails` outside, to several digits (Hill 1970, "Algorithm 396: Student's
    t-quantiles"; letters as printed there)."""
    p, n = both_tails, freedom
    a = 1 / (n - 0.5)
    b = 48 / a.square()
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * (a * math.pi / 2).sqrt() * n
    y = (d * p) ** (2 / n)
    far = ((1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1) * (n + 1) / (n + 2)
    x = torch.special.ndtri(p / 2)
    near_c = torch.where(n < 5, c + 0.3 * (n - 4.5) * (x + 0.6), c)
    near_c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + near_c
    xx = x.square()
    near = (((((0.4 * xx + 6.3) * xx + 36) * xx + 94.5) / near_c - xx - 3) / b + 1) * x
    return (n * torch.where(y > 0.05 + a, torch.expm1(a * near.square()), far + 1 / y)).sqrt()


def negative_binomial_log_probability(count: Tensor, mean: Tensor, size: Tensor) -> Tensor:
    """Of a count k with mean m and variance m + m² / size:

    Γ(k + size) / (Γ(size) k!) · (size / (size + m))^size · (m / (size + m))^k    (Hilbe 2011, "Negative Binomial
    Regression", NB2)
    """
    ways = torch.lgamma(count + size) - torch.lgamma(size) - torch.lgamma(count + 1)
    return ways - size * torch.log1p(mean / size) - count * torch.log1p(size / mean)


def negative_binomial_below(count: Tensor, mean: Tensor, size: Tensor) -> Tensor:
    """Share of counts up to and with `count`: I_p(size, count + 1) with p = size / (size + mean); 0 below zero."""
    total = size + mean
    share = incomplete_beta(size, count.clamp(min=0) + 1, size / total, mean / total)
    return share * (count >= 0)


def negative_binomial_quantile(level: Tensor, mean: Tensor, size: Tensor) -> Tensor:
    """The smallest count that has at least the share `level` up to and with it, by bisection between brackets.

    They open around the third-order normal start (Cornish & Fisher 1938), as far as the next order may reach.
    """
    level, mean, size = torch.broadcast_tensors(level, mean, size)  # type: ignore[no-untyped-call]
    reached = level - ROUNDING
    variance = mean + mean.square() / size
    deviation, skewness, kurtosis = variance.sqrt(), (1 + 2 * mean / size) / variance.sqrt(), 6 / size + 1 / variance
    z = torch.special.ndtri(level)
    second, third = skewness * (z.square() - 1) / 6, kurtosis * (z**3 - 3 * z) / 24
    start = mean + deviation * (z + second + third - skewness.square() * (2 * z**3 - 5 * z) / 36) - 0.5
    width = (deviation * skewness.clamp(max=1) ** 3 / 10).ceil()
    start = torch.minimum(start.clamp(min=0), mean + 10 * deviation).round()
    low, high = (start - width).clamp(min=-1), start + width
    while True:
        low_is_high = negative_binomial_below(low, mean, size) >= reached
        high_is_low = negative_binomial_below(high, mean, size) < reached
        if not bool((low_is_high | high_is_low).any()):
            break
        width = 2 * width
        low, high = (
            torch.where(high_is_low, high, torch.where(low_is_high, (low - width).clamp(min=-1), low)),
            torch.where(low_is_high, low, torch.where(high_is_low, high + width, high)),
        )
    while bool((high - low > 1).any()):
        middle = ((low + high) / 2).floor()
        enough = negative_binomial_below(middle, mean, size) >= reached
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high


def incomplete_beta(a: Tensor, b: Tensor, x: Tensor, rest: Tensor) -> Tensor:
    """The regularised incomplete beta function I_x(a, b), with `rest` = 1 - x to full precision.

    Its continued fraction by Lentz's method, on the side where it converges fast (Press et al. 2007, "Numerical
    Recipes", 6.4; DLMF 8.17.22).
    """
    turned = x > (a + 1) / (a + b + 2)
    a, b = torch.where(turned, b, a), torch.where(turned, a, b)
    x, rest = torch.where(turned, rest, x), torch.where(turned, x, rest)
    front = (a * x.log() + b * rest.log() - log_beta(a, b)).exp() / a
    share = front * beta_fraction(a, b, x)
    return torch.where(turned, 1 - share, share)


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """log B(a, b), without subtracting large numbers that are nearly equal where one of the two is large."""
    small, large = torch.minimum(a, b), torch.maximum(a, b)
    grown = large + small
    base = (large - 0.5) * torch.log1p(small / large) + small * grown.log() - small
    by_series = base + stirling_rest(grown) - stirling_rest(large)
    by_lgamma = torch.lgamma(grown) - torch.lgamma(large)
    return torch.lgamma(small) - torch.where(large >= STIRLING_FROM, by_series, by_lgamma)


def stirling_rest(x: Tensor) -> Tensor:
    """What Stirling's formula leaves of log Γ(x), by its series (DLMF 5.11.1)."""
    return (1 / 12 - (1 / 360 - 1 / (1260 * x.square())) / x.square()) / x


def beta_fraction(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """The continued fraction of the incomplete beta function."""
    c = torch.ones_like(x)
    d = 1 / away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    done = torch.zeros_like(x, dtype=torch.bool)
    for m in range(1, MOST_TERMS):
        even = m * (b - m) * x / ((a - 1 + 2 * m) * (a + 2 * m))
        d, c = 1 / away_from_zero(1 + even * d), away_from_zero(1 + even / c)
        fraction = fraction * d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 1 + 2 * m))
        d, c = 1 / away_from_zero(1 + odd * d), away_from_zero(1 + odd / c)
        change = d * c
        fraction = fraction * change
        done |= (change - 1).abs() < CONVERGED
        if m % TERMS_PER_CHECK == 0 and bool(done.all()):
            break
    return fraction


def away_from_zero(value: Tensor) -> Tensor:
    """A tiny number in the place of zero, as Lentz's method divides."""
    return torch.where(value.abs() < TINY, TINY, value)
