"""The optimiser against torch's own class, and the average of the weights against its recursion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stacklstm_cli.training.optimiser import BETAS, EPSILON, AdamW, Group, WeightAverage

Shapes = [(4, 3), (5,), (2, 2, 2)]


def parameters(seed: int) -> list[nn.Parameter]:
    """The same parameters for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in Shapes]


def set_gradients(chosen: list[nn.Parameter], seed: int) -> None:
    """The same gradients for the same seed, now small, now large."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in chosen:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0 ** (seed % 4 - 2)


@pytest.mark.parametrize("warmup", [1, 7])
def test_steps_equal_those_of_torch(warmup: int) -> None:
    """Wrong if a rate, a decay, the warm-up or a moment of any group differs from torch.optim.AdamW at any step."""
    rates, decays = [0.01, 0.002, 0.05], [0.1, 0.0, 0.3]
    ours, theirs = parameters(1), parameters(1)
    optimiser = AdamW(
        [Group([one], rate, decay) for one, rate, decay in zip(ours, rates, decays, strict=True)], warmup=warmup
    )
    reference = torch.optim.AdamW(
        [
            {"params": [one], "lr": rate, "weight_decay": decay}
            for one, rate, decay in zip(theirs, rates, decays, strict=True)
        ],
        betas=BETAS,
        eps=EPSILON,
    )
    for step in range(1, 26):
        for group, rate in zip(reference.param_groups, rates, strict=True):
            group["lr"] = rate * (step / warmup if step < warmup else 1.0)
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimiser.step()
        reference.step()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    assert not torch.equal(ours[0], parameters(1)[0])


def test_several_parameters_in_one_group_move_as_alone() -> None:
    """Wrong if parameters of one group share a moment or a count of steps."""
    together, alone = parameters(2), parameters(2)
    first = AdamW([Group(together, 0.01, 0.1)], warmup=3)
    second = AdamW([Group([one], 0.01, 0.1) for one in alone], warmup=3)
    for step in range(5):
        set_gradients(together, step)
        set_gradients(alone, step)
        first.step()
        second.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_gradients_are_forgotten() -> None:
    """Wrong if the gradient of one step adds to the next one's."""
    chosen = parameters(3)
    optimiser = AdamW([Group(chosen, 0.01, 0.0)], warmup=1)
    set_gradients(chosen, 1)
    optimiser.step()
    assert all(parameter.grad is None for parameter in chosen)


class Holder(nn.Module):
    """A module with two parameters and a buffer, which no average may touch."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.zeros(3))
        self.other = nn.Parameter(torch.ones(2, 2))
        self.register_buffer("fixed", torch.full((2,), 9.0))


def move(network: nn.Module, step: int) -> None:
    """Set the weights to something new."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.99])
def test_average_equals_its_recursion(decay: float) -> None:
    """Wrong if the average forgets faster or slower than its formula, at any of its steps."""
    network = Holder()
    average = WeightAverage(network, decay)
    expected = [parameter.detach().double().clone() for parameter in network.parameters()]
    for step in range(1, 41):
        move(network, step)
        average.update()
        kept = min(decay, (1 + step) / (10 + step))
        expected = [
            kept * mean + (1 - kept) * parameter.detach().double()
            for mean, parameter in zip(expected, network.parameters(), strict=True)
        ]
        for mean, other in zip(average.means, expected, strict=True):
            torch.testing.assert_close(mean.double(), other, rtol=1e-5, atol=1e-6)


def test_swap_exchanges_and_a_second_swap_undoes_it() -> None:
    """Wrong if the weights after two swaps differ by one bit, or one swap does not bring the average."""
    network = Holder()
    average = WeightAverage(network, 0.5)
    move(network, 1)
    average.update()

    def state() -> tuple[list[Tensor], list[Tensor]]:
        return [one.detach().clone() for one in network.parameters()], [one.clone() for one in average.means]

    weights, means = state()
    average.swap()
    swapped_weights, swapped_means = state()
    assert all(torch.equal(one, other) for one, other in zip(swapped_weights, means, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(swapped_means, weights, strict=True))
    assert not torch.equal(weights[0], means[0])
    average.swap()
    again_weights, again_means = state()
    assert all(torch.equal(one, other) for one, other in zip(again_weights, weights, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(again_means, means, strict=True))
    assert dict(network.named_buffers())["fixed"].tolist() == [9.0, 9.0]
