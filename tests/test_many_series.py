"""What is done for many series alone: forecasts by smoothing, and logarithms where swings grow with the level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panels import make_panel

from stacklstm_cli.model.network import LEVEL_RATE, SMOOTHING_RATES, smoothing_forecasts
from stacklstm_cli.training.growth import grows_with_level

SEASON, LENGTH, HORIZON = 4, 14, 6


@pytest.fixture
def context() -> np.ndarray:
    return np.random.default_rng(0).normal(size=LENGTH) + 10.0


def smoothed(context: np.ndarray, rate: float, seasons: int) -> list[float]:
    """A slow loop over the definition; no pattern with 0 seasons."""
    newest = [context[LENGTH - back * SEASON :][:SEASON] for back in range(1, seasons + 1)]
    pattern = sum((one - one.mean() for one in newest), np.zeros(SEASON)) / max(1, seasons)
    weights = [(1 - rate) ** back for back in range(2 * SEASON)]
    freed = [context[-1 - back] - pattern[-1 - back % SEASON] for back in range(2 * SEASON)]
    level = sum(weight * value for weight, value in zip(weights, freed, strict=True)) / sum(weights)
    return [level + pattern[ahead % SEASON] for ahead in range(HORIZON)]


def test_forecasts_by_smoothing(context: np.ndarray) -> None:
    forecasts, trend = smoothing_forecasts(LENGTH, HORIZON, SEASON)
    found = np.einsum("l,mlh->mh", context, forecasts.double().numpy())
    expected = [smoothed(context, rate, seasons) for seasons in (1, 3) for rate in SMOOTHING_RATES]
    expected.append(smoothed(context, LEVEL_RATE, 0))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    change = (context[-SEASON:].mean() - context[-2 * SEASON : -SEASON].mean()) / SEASON
    np.testing.assert_allclose(context @ trend.double().numpy(), change * np.arange(1, HORIZON + 1), atol=1e-5)


def test_forecasts_follow_a_shift() -> None:
    """A context that is higher by 1 is forecast higher by 1, and has the same trend."""
    forecasts, trend = smoothing_forecasts(LENGTH, HORIZON, SEASON)
    torch.testing.assert_close(forecasts.sum(1), torch.ones(len(forecasts), HORIZON))
    torch.testing.assert_close(trend.sum(0), torch.zeros(HORIZON))


@pytest.mark.parametrize(("power", "expected"), [(1.0, True), (0.0, False)])
def test_swings_that_grow_with_the_level(power: float, expected: bool) -> None:
    """Wrong if swings in proportion to the level are taken for steady ones, or the other way round."""
    rows = np.arange(96)
    level = 100.0 + 50 * (rows // 12)
    swing = np.sin(2 * np.pi * rows / 12) * 10 * (level / 100) ** power
    panel = make_panel(level + swing)
    assert grows_with_level(panel, panel.lengths, 12) is expected


def test_zeros_have_no_logarithm_to_gain() -> None:
    rows = np.arange(96)
    values = 100 * 1.02**rows * (1 + 0.1 * np.sin(2 * np.pi * rows / 12))
    values[3] = 0.0
    panel = make_panel(values)
    assert not grows_with_level(panel, panel.lengths, 12)


@pytest.mark.parametrize(("size", "expected"), [(1.0, True), (1e-3, False), (1e-18, False)])
def test_small_numbers_keep_their_digits(size: float, expected: bool) -> None:
    """log(1 + y) of them is nearly y itself, with fewer digits."""
    rows = np.arange(96)
    level = 100.0 + 50 * (rows // 12)
    panel = make_panel(size * level * (1 + 0.1 * np.sin(2 * np.pi * rows / 12)))
    assert grows_with_level(panel, panel.lengths, 12) is expected


def test_only_training_rows_are_asked() -> None:
    """A later value that has no logarithm to gain changes nothing; one among them does."""
    rows = np.arange(96)
    values = (100.0 + 50 * (rows // 12)) * (1 + 0.1 * np.sin(2 * np.pi * rows / 12))
    values[90] = -1.0
    panel = make_panel(values, values[:40])
    assert grows_with_level(panel, np.array([84, 36]), 12)
    assert not grows_with_level(panel, np.array([91, 36]), 12)
    assert not grows_with_level(panel, np.array([0, 0]), 12)
