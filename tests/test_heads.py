"""Losses and decoded forecasts against loops, utilsforecast and scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor
from utilsforecast import losses

from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.heads import Head, NegativeBinomialHead, Scaling, build_head, masked_mean, pinball

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


# Heads.

BATCH, HORIZON = 3, 4
HEADS = ("quantile", "mae", "mse", "huber", "student-t", "negative-binomial")
CPU = torch.device("cpu")


def head_of(loss: str) -> Head:
    return build_head(loss, (0.1, 0.5, 0.9), CPU)


def scaling_of(location: float = 20.0, scale: float = 6.0) -> Scaling:
    """Three windows of different levels and deviations."""
    factors = torch.tensor([[1.0], [0.3], [40.0]], dtype=torch.float64)
    return Scaling(location * factors, scale * factors)


def raw_of(head: Head, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, HORIZON, len(head.located), generator=generator, dtype=torch.float64)


def lesson_of(scaling: Scaling, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Counts in user units, the target in the units of the loss, and the gain."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(BATCH, HORIZON, generator=generator, dtype=torch.float64)
    counts = (scaling.location + scaling.scale * noise).round().clamp(min=0)  # [B, H]
    weight = torch.tensor([[0.2], [1.5], [0.01]], dtype=torch.float64)
    return counts, (counts - scaling.location) * weight, scaling.scale * weight


@pytest.mark.parametrize("loss", HEADS)
def test_shapes(loss: str) -> None:
    """K raw numbers come from `start` and go into `loss` and `decode`, whose result never crosses."""
    head, scaling = head_of(loss), scaling_of()
    outputs = len(head.located)
    _, target, gain = lesson_of(scaling)
    assert head.loss(raw_of(head), target, gain, scaling).shape == (BATCH, HORIZON)
    left_over = torch.randn(50, HORIZON, dtype=torch.float64)
    left_over[3, 1] = torch.nan
    left_over[:, 2] = torch.nan  # a step that is never observed
    start = head.start(left_over)
    assert start.shape == (HORIZON, outputs)
    assert start.isfinite().all()
    wanted = (0.5,) if loss in ("mae", "mse", "huber") else (0.1, 0.3, 0.5, 0.77, 0.9)
    head.check(wanted)
    found = head.decode(raw_of(head).float(), scaling, wanted)
    assert found.shape == (BATCH, HORIZON, len(wanted))
    assert found.dtype == torch.float64
    assert (found.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("loss", HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_has_the_type_of_the_network(loss: str, dtype: torch.dtype) -> None:
    """And in single precision nearly the value that it has in double."""
    head, scaling = head_of(loss), scaling_of()
    raw, (_, target, gain) = raw_of(head), lesson_of(scaling)
    exact = head.loss(raw, target, gain, scaling)
    found = head.loss(raw.to(dtype), target.to(dtype), gain.to(dtype), scaling)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", HEADS)
def test_gradients_of_a_loss_are_those_of_finite_differences(loss: str) -> None:
    head, scaling = head_of(loss), scaling_of()
    _, target, gain = lesson_of(scaling)
    assert torch.autograd.gradcheck(
        lambda raw: head.loss(raw, target, gain, scaling), (raw_of(head).requires_grad_(),), atol=1e-5
    )


def test_the_quantile_head_is_the_pinball_loss() -> None:
    """Bit by bit, as models trained before were."""
    head, scaling = head_of("quantile"), scaling_of()
    raw, (_, target, gain) = raw_of(head).float(), lesson_of(scaling)
    found = head.loss(raw, target.float(), gain.float(), scaling)
    expected = pinball(raw * gain.float().unsqueeze(-1), target.float(), torch.tensor([0.1, 0.5, 0.9]))
    assert torch.equal(found, expected)


def test_learned_quantiles_are_sorted_scaled_and_interpolated() -> None:
    """Against numpy, place by place."""
    head, scaling = head_of("quantile"), scaling_of()
    raw, wanted = raw_of(head), (0.1, 0.2, 0.5, 0.6, 0.9)
    found = head.decode(raw, scaling, wanted)
    for b in range(BATCH):
        for h in range(HORIZON):
            learned = scaling.location[b, 0].item() + np.sort(raw[b, h].numpy()) * scaling.scale[b, 0].item()
            expected = np.interp(wanted, (0.1, 0.5, 0.9), learned)
            np.testing.assert_allclose(found[b, h].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("loss", "expected"), [("mae", [6.0, 0.5]), ("mse", [36.0, 0.25]), ("huber", [5.5, 0.125])])
def test_point_losses_by_hand(loss: str, expected: list[float]) -> None:
    """Gain 2: forecasts of 1 and -0.25 are 2 and -0.5 in the units of the loss, against 8 and -1."""
    raw, target = torch.tensor([[[1.0], [-0.25]]]), torch.tensor([[8.0, -1.0]])
    scaling = Scaling(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    head = head_of(loss)
    assert head.loss(raw, target, torch.tensor([[2.0]]), scaling).tolist() == [expected]
    assert head.decode(raw, scaling, (0.5,)).tolist() == [[[1.0], [-0.25]]]


@pytest.mark.parametrize(("loss", "expected"), [("mae", 2.0), ("mse", 4.0)])
def test_point_losses_start_from_their_best_constant(loss: str, expected: float) -> None:
    """The median and the mean of 0, 1, 2, 3 and 14."""
    left_over = torch.tensor([[0.0], [1.0], [2.0], [3.0], [14.0], [torch.nan]], dtype=torch.float64)
    assert head_of(loss).start(left_over).tolist() == [[expected]]


@pytest.mark.parametrize(("loss", "quantile"), [("mse", 0.9), ("mae", 0.1), ("quantile", 0.95), ("quantile", 0.05)])
def test_quantiles_that_a_head_does_not_have(loss: str, quantile: float) -> None:
    """Exit 2, and what to type."""
    with pytest.raises(UsageError, match=f"{quantile:g}") as caught:
        head_of(loss).check((0.5, quantile))
    assert caught.value.code == "quantile_not_learned"
    assert "--loss" in caught.value.hint or "--quantiles" in caught.value.hint


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(x.exp())


def test_student_t_is_scipys() -> None:
    """Density in the units of the loss, quantiles in the user's."""
    head, scaling = head_of("student-t"), scaling_of()
    raw, (_, target, gain) = raw_of(head), lesson_of(scaling)
    scale, freedom = softplus(raw[..., 1]) + 1e-3, softplus(raw[..., 2]) + 2
    expected = -stats.t.logpdf(target, freedom, raw[..., 0] * gain, scale * gain)
    np.testing.assert_allclose(head.loss(raw, target, gain, scaling).numpy(), expected, rtol=1e-10)
    levels = (0.025, 0.5, 0.8, 0.999)
    user = stats.t(
        freedom.unsqueeze(-1),
        (scaling.location + scaling.scale * raw[..., 0]).unsqueeze(-1),
        (scaling.scale * scale).unsqueeze(-1),
    )
    np.testing.assert_allclose(head.decode(raw, scaling, levels).numpy(), user.ppf(levels), rtol=1e-9)


def test_student_t_starts_from_the_quartiles() -> None:
    """Of what is left over, step by step."""
    left_over = torch.tensor(np.random.default_rng(0).standard_t(4, size=(500, HORIZON)) * 3 + 1)
    head = head_of("student-t")
    scaling = Scaling(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    found = head.decode(head.start(left_over).unsqueeze(0), scaling, (0.25, 0.5, 0.75))[0]
    expected = np.quantile(left_over.numpy(), [0.25, 0.5, 0.75], axis=0).T
    spread = expected[:, 2:] - expected[:, :1]
    np.testing.assert_allclose(found[:, 2:] - found[:, :1], spread, rtol=1e-9)
    np.testing.assert_allclose(found[:, 1], expected[:, 1], rtol=1e-9)


def counts_of(raw: Tensor, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """Mean and size by the words of the head's docstring."""
    forecast = scaling.location / scaling.scale + raw[..., 0]
    mean = scaling.scale * (forecast + (forecast**2 + 0.01) ** 0.5) / 2
    beyond = scaling.scale * (softplus(raw[..., 1]) + 1e-3)
    return mean, mean**2 / beyond**2


def test_negative_binomial_is_scipys() -> None:
    """Probability and quantiles of counts in the user's units, of windows of any size."""
    head, scaling = head_of("negative-binomial"), scaling_of()
    raw, (counts, target, gain) = raw_of(head), lesson_of(scaling)
    mean, size = counts_of(raw, scaling)
    expected = -stats.nbinom.logpmf(counts, size, size / (size + mean))
    np.testing.assert_allclose(head.loss(raw, target, gain, scaling).numpy(), expected, rtol=1e-8)
    levels = (0.025, 0.5, 0.8, 0.999)
    share = (size / (size + mean)).unsqueeze(-1)
    found = head.decode(raw, scaling, levels)
    np.testing.assert_array_equal(found.numpy(), stats.nbinom.ppf(levels, size.unsqueeze(-1), share))


def test_a_count_survives_single_precision() -> None:
    """The target is made of counts in double precision and comes back from single: the count is the same."""
    head, location = head_of("negative-binomial"), torch.tensor([[123456.7]], dtype=torch.float64)
    scaling = Scaling(location, torch.full_like(location, 250.0))
    count, weight = 123_999.0, 0.0013
    target, gain = (count - location) * weight, scaling.scale * weight
    raw = torch.zeros(1, 1, 2, dtype=torch.float64)
    blurred = head.loss(raw, target.float(), gain.float(), scaling)
    assert torch.equal(blurred, head.loss(raw, target, gain, scaling))


def test_the_mean_of_counts_follows_the_forecast_and_stays_above_zero() -> None:
    """Above zero it is nearly the forecast itself; far below it is small, and still learns."""
    head, scaling = head_of("negative-binomial"), scaling_of(location=0.0, scale=6.0)
    assert isinstance(head, NegativeBinomialHead)
    raw = torch.tensor([[1.0, 0.0], [4.0, 0.0], [-30.0, 0.0], [0.0, 0.0]], dtype=torch.float64).requires_grad_()
    mean, _ = head.parameters(raw, scaling.location[:1, 0], scaling.scale[:1, 0])
    assert mean[:2].tolist() == pytest.approx([6, 24], rel=3e-3)
    assert 0 < mean[2].item() < 1e-3
    assert mean[3].item() == pytest.approx(0.05 * 6)
    target = torch.full((1, 1), 5.0, dtype=torch.float64)
    one = Scaling(scaling.location[:1], scaling.scale[:1])
    head.loss(raw[2].view(1, 1, 2), target, one.scale, one).sum().backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert -1 < raw.grad[2, 0].item() < -1e-3


def test_negative_binomial_starts_from_mean_and_deviation() -> None:
    """For counts well above zero, where the mean does not bend."""
    left_over = torch.tensor(np.random.default_rng(0).normal(0.2, 0.8, size=(5000, 2)))
    head, location = head_of("negative-binomial"), torch.full((1, 1), 5000.0, dtype=torch.float64)
    assert isinstance(head, NegativeBinomialHead)
    mean, size = head.parameters(head.start(left_over), location[0], location[0] / 10)
    np.testing.assert_allclose(mean, 5000 + 500 * left_over.mean(0), rtol=1e-4)
    beyond = mean**2 / size
    np.testing.assert_allclose(beyond.sqrt(), 500 * left_over.std(0, correction=0), rtol=1e-6)


@pytest.mark.parametrize("loss", ["student-t", "negative-binomial"])
def test_a_likelihood_is_least_at_the_truth(loss: str) -> None:
    """Where values come from the distribution itself, its parameters have no gradient on average."""
    head = head_of(loss)
    scaling = Scaling(torch.full((1, 1), 9.0, dtype=torch.float64), torch.full((1, 1), 3.0, dtype=torch.float64))
    raw = torch.tensor([0.4, 0.3, 1.0][: len(head.located)], dtype=torch.float64).requires_grad_()
    levels = (np.arange(200_000) + 0.5) / 200_000
    if loss == "student-t":
        scale, freedom = softplus(raw.detach()[1:]) + torch.tensor([1e-3, 2.0])
        values = 9 + 3 * stats.t.ppf(levels, freedom.item(), 0.4, scale.item())
    else:
        mean, size = counts_of(raw.detach()[None, None], scaling)
        values = stats.nbinom.ppf(levels, size.item(), (size / (size + mean)).item())
    target = (torch.as_tensor(values)[None] - 9) * 0.5  # [1, W]
    gain = scaling.scale * 0.5
    head.loss(raw.expand(1, len(levels), -1), target, gain, scaling).mean().backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    np.testing.assert_allclose(raw.grad.numpy(), 0, atol=2e-4)


def test_no_such_loss() -> None:
    with pytest.raises(ValueError, match="quadratic"):
        head_of("quadratic")
