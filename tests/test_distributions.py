"""Densities and quantiles against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats  # type: ignore[import-untyped]
from torch import Tensor

from stacklstm_cli.model.distributions import (
    incomplete_beta,
    log_beta,
    negative_binomial_log_probability,
    negative_binomial_quantile,
    student_t_log_density,
    student_t_quantile,
)

LEVELS = (0.001, 0.01, 0.025, 0.1, 0.25, 0.45, 0.5, 0.55, 0.75, 0.9, 0.975, 0.999)
logarithms = st.floats(-3, 6)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=300, deadline=None)
@given(logarithms, logarithms, st.floats(-12, 12))
def test_incomplete_beta(log_a: float, log_b: float, deviations: float) -> None:
    """From a thousandth to a million, around the mean of the beta distribution, where it is neither 0 nor 1."""
    a, b = 10**log_a, 10**log_b
    mean, deviation = a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
    x = float(np.clip(mean + deviations * deviation, 1e-9, 1 - 1e-9))
    found = incomplete_beta(tensor(a), tensor(b), tensor(x), tensor(1 - x)).item()
    assert found == pytest.approx(special.betainc(a, b, x), rel=1e-7, abs=1e-9)


def test_incomplete_beta_at_its_ends() -> None:
    zero, one = tensor(0.0), tensor(1.0)
    assert incomplete_beta(tensor(2.0), tensor(3.0), zero, one).item() == 0
    assert incomplete_beta(tensor(2.0), tensor(3.0), one, zero).item() == 1


@pytest.mark.parametrize("large", [1e-3, 0.7, 15.9, 16.1, 1e3, 1e6, 1e8])
def test_log_beta(large: float) -> None:
    """B(n, b) = (n - 1)! / (b (b + 1) … (b + n - 1)); a difference of logarithms would lose half its digits."""
    for whole in (1, 2, 3, 7):
        expected = math.lgamma(whole) - sum(math.log(large + step) for step in range(whole))
        assert log_beta(tensor(whole), tensor(large)).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert log_beta(tensor(large), tensor(whole)).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("freedom", [2.0, 2.001, 2.5, 3, 4, 4.9, 5, 7, 10, 30, 200, 1e4, 1e6])
def test_student_t_quantiles(freedom: float) -> None:
    """Nine digits, and the median is zero."""
    found = student_t_quantile(tensor(*LEVELS), tensor(freedom))
    np.testing.assert_allclose(found.numpy(), stats.t.ppf(LEVELS, freedom), rtol=1e-9, atol=1e-12)
    assert student_t_quantile(tensor(0.5), tensor(freedom)).item() == 0


def test_student_t_density() -> None:
    z, freedom = tensor(-40, -1, 0, 0.3, 7), tensor(2, 3.5, 80, 6, 2.2)
    found = student_t_log_density(z, freedom)
    np.testing.assert_allclose(found.numpy(), stats.t.logpdf(z.numpy(), freedom.numpy()), rtol=1e-12)


def test_negative_binomial_probability() -> None:
    count, mean, size = tensor(0, 1, 7, 1000, 1_000_000), tensor(0.01, 3, 7, 900, 1.1e6), tensor(0.05, 2, 1e6, 4, 30)
    found = negative_binomial_log_probability(count, mean, size)
    share = size / (size + mean)
    np.testing.assert_allclose(found.numpy(), stats.nbinom.logpmf(count, size, share), rtol=1e-8)


@pytest.mark.parametrize("size", [0.05, 0.5, 1.7, 5, 50, 1e4, 1e8])
@pytest.mark.parametrize("mean", [1e-12, 0.01, 0.1, 1.1, 3.3, 10.3, 100.3, 1e3, 1e4 + 7])
def test_negative_binomial_quantiles(size: float, mean: float) -> None:
    """The very same counts."""
    found = negative_binomial_quantile(tensor(*LEVELS), tensor(mean), tensor(size))
    assert found.tolist() == stats.nbinom.ppf(LEVELS, size, size / (size + mean)).tolist()


@pytest.mark.parametrize("size", [0.5, 5, 1e3, 1e8])
def test_negative_binomial_quantiles_of_a_million(size: float) -> None:
    """To one in a million, which is the last count or the one beside it."""
    found = negative_binomial_quantile(tensor(*LEVELS), tensor(1e6), tensor(size))
    np.testing.assert_allclose(found.numpy(), stats.nbinom.ppf(LEVELS, size, size / (size + 1e6)), rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.floats(-2, 4), st.floats(-1, 5), st.floats(0.002, 0.998))
def test_a_quantile_is_the_smallest_count_that_reaches_its_level(
    log_mean: float, log_size: float, level: float
) -> None:
    mean, size = 10**log_mean, 10**log_size
    found = negative_binomial_quantile(tensor(level), tensor(mean), tensor(size)).item()
    below = stats.nbinom(size, size / (size + mean)).cdf
    assert found >= 0
    assert found == int(found)
    assert below(found) >= level - 1e-9
    assert below(found - 1) < level + 1e-9


def test_counts_that_touch_a_level_exactly_reach_it() -> None:
    """With size and mean 1, half of all counts are zero."""
    assert negative_binomial_quantile(tensor(0.5, 0.75, 0.875), tensor(1.0), tensor(1.0)).tolist() == [0, 1, 2]
