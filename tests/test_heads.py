"""The loss against loops and against utilsforecast."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from utilsforecast import losses

from stacklstm_cli.model.heads import masked_mean, pinball

numbers = st.floats(-1e6, 1e6)
QUANTILES = (0.025, 0.1, 0.5, 0.8)


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, (2, 3, 4), elements=numbers),
    arrays(np.float64, (2, 3), elements=numbers),
    st.lists(st.floats(0.001, 0.999), min_size=4, max_size=4),
)
def test_pinball_equals_the_loop(
    forecast: np.ndarray[tuple[int, int, int], np.dtype[np.float64]],
    target: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    quantiles: list[float],
) -> None:
    """Twice the share q of what lies above the forecast, or 1 - q of what lies below, mean over the quantiles."""
    found = pinball(torch.tensor(forecast), torch.tensor(target), torch.tensor(quantiles, dtype=torch.float64))
    assert found.shape == (2, 3)
    for b in range(2):
        for h in range(3):
            total = 0.0
            for q, quantile in enumerate(quantiles):
                above = target[b, h] - forecast[b, h, q]
                total += quantile * above if above > 0 else (1 - quantile) * -above
            assert found[b, h].item() == pytest.approx(2 * total / 4, rel=1e-12, abs=1e-9)


def test_pinball_equals_utilsforecast() -> None:
    """Their quantile loss times two, averaged over quantiles, on the same random forecasts."""
    generator = np.random.default_rng(0)
    forecast, target = generator.normal(size=(50, 4)), generator.normal(size=50)
    theirs = []
    for place, quantile in enumerate(QUANTILES):
        frame = pd.DataFrame({"unique_id": "a", "y": target, "model": forecast[:, place]})
        theirs.append(losses.quantile_loss(frame, {"model": "model"}, q=quantile)["model"].item())
    ours = pinball(torch.tensor(forecast)[None], torch.tensor(target)[None], torch.tensor(QUANTILES)).mean()
    assert ours.item() == pytest.approx(2 * np.mean(theirs), rel=1e-6)


def test_the_median_part_is_the_absolute_error() -> None:
    loss = pinball(torch.tensor([[[3.0], [-1.0]]]), torch.tensor([[1.0, 1.0]]), torch.tensor([0.5]))
    assert loss.tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_the_quantile_of_a_sample_has_the_least_loss(quantile: float) -> None:
    """What the loss is for: over a grid of constant forecasts, the sample's quantile wins."""
    sample = torch.tensor(np.random.default_rng(1).normal(size=2001))
    grid = torch.linspace(-3, 3, 601, dtype=torch.float64)
    level = torch.tensor([quantile], dtype=torch.float64)
    losses_of = [pinball(torch.full((2001, 1, 1), float(x)), sample[:, None], level).mean().item() for x in grid]
    assert float(grid[int(np.argmin(losses_of))]) == pytest.approx(float(sample.quantile(quantile)), abs=0.011)


def test_masked_mean() -> None:
    """Only counted places count; none at all is 0, and its gradient too."""
    values = torch.tensor([[1.0, 100.0], [4.0, 7.0]], requires_grad=True)
    assert masked_mean(values, torch.tensor([[1.0, 0.0], [1.0, 1.0]])).item() == 4.0
    nothing = masked_mean(values, torch.zeros(2, 2))
    assert nothing.item() == 0.0
    nothing.backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert not values.grad.any()
