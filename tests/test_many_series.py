"""Logarithms of many series whose swings grow with their level."""

from __future__ import annotations

import numpy as np
import pytest
from panels import make_panel

from stacklstm_cli.training.growth import grows_with_level


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
