"""AdamW against torch's class, the average of the weights against its recursion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stacklstm_cli.training.optimiser import BETAS, EPSILON, AdamW, Group, WeightAverage


def network_of(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def loss_of(network: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    outputs: Tensor = network(inputs)
    return (outputs - inputs[:, :2].sin() * 3).square().mean()


def weights_of(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


class TestAdamW:
    @pytest.mark.parametrize("warmup", [1, 5, 1000])
    def test_equals_torch_step_by_step(self, warmup: int) -> None:
        """Three groups with their own rates and decays, rates rising over the warm-up."""
        ours, theirs = network_of(), network_of()
        rates, decays = [0.05, 0.005, 0.02], [0.1, 0.0, 0.5]

        def split(network: nn.Module) -> list[list[nn.Parameter]]:
            one, two, three, four = network.parameters()
            return [[one, two], [three], [four]]

        optimiser = AdamW([Group(*group) for group in zip(split(ours), rates, decays, strict=True)], warmup)
        reference = torch.optim.AdamW(
            [
                {"params": parameters, "lr": rate, "weight_decay": decay}
                for parameters, rate, decay in zip(split(theirs), rates, decays, strict=True)
            ],
            betas=BETAS,
            eps=EPSILON,
        )
        for step in range(1, 13):
            for group, rate in zip(reference.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, step / warmup)
            reference.zero_grad()
            loss_of(theirs, step).backward()  # type: ignore[no-untyped-call]
            reference.step()
            loss_of(ours, step).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)

    def test_a_share_of_the_rate(self) -> None:
        """Half of it is what half the rate in every group would be."""
        half, slow = network_of(), network_of()
        one = AdamW([Group(list(half.parameters()), 0.02, 0.1)], 3)
        other = AdamW([Group(list(slow.parameters()), 0.01, 0.1)], 3)
        one.rate = 0.5
        for step in range(5):
            for network, optimiser in ((half, one), (slow, other)):
                loss_of(network, step).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        assert all(torch.equal(a, b) for a, b in zip(half.parameters(), slow.parameters(), strict=True))

    def test_its_tensors_are_all_of_its_state(self) -> None:
        """Another optimiser with the same tensors and count makes the same steps."""
        network, copy = network_of(), network_of(1)
        one = AdamW([Group(list(network.parameters()), 0.02, 0.1)], 3)
        for step in range(4):
            loss_of(network, step).backward()  # type: ignore[no-untyped-call]
            one.step()
        other = AdamW([Group(list(copy.parameters()), 0.02, 0.1)], 3)
        other.step_count = one.step_count
        copy.load_state_dict(network.state_dict())
        for name, tensor in other.tensors().items():
            tensor.copy_(one.tensors()[name])
        for step in range(4, 7):
            for some, optimiser in ((network, one), (copy, other)):
                loss_of(some, step).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), copy.parameters(), strict=True))

    def test_gradients_are_forgotten(self) -> None:
        """The next loss must not add to them."""
        network = network_of()
        optimiser = AdamW([Group(list(network.parameters()), 0.01, 0.0)], 1)
        loss_of(network, 0).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_decay_draws_to_zero(self) -> None:
        """Without a gradient a decayed weight shrinks by rate times decay, another stays."""
        decayed, kept = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([2.0]))
        decayed.grad, kept.grad = torch.zeros(1), torch.zeros(1)
        AdamW([Group([decayed], 0.1, 0.5), Group([kept], 0.1, 0.0)], 1).step()
        assert decayed.item() == pytest.approx(2 * 0.95)
        assert kept.item() == 2


class TestAverage:
    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
    def test_equals_its_recursion(self, decay: float) -> None:
        """m <- d m + (1 - d) w, where d rises as (1 + t) / (10 + t) up to the decay."""
        network = network_of()
        average = WeightAverage(network, decay)
        means = weights_of(network)
        for step in range(1, 30):
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(torch.randn_like(parameter))
            average.update()
            share = min(decay, (1 + step) / (10 + step))
            means = [share * mean + (1 - share) * now for mean, now in zip(means, weights_of(network), strict=True)]
        before = weights_of(network)
        average.swap()
        for found, expected in zip(network.parameters(), means, strict=True):
            torch.testing.assert_close(found.detach(), expected, rtol=1e-10, atol=1e-12)
        average.swap()
        assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))

    def test_swapping_twice_is_nothing(self) -> None:
        """Bit for bit, in the network and in the average: the next update goes on as if nothing had been."""
        swapped, straight = network_of(), network_of()
        one, other = WeightAverage(swapped, 0.9), WeightAverage(straight, 0.9)
        for step in range(5):
            for network, average in ((swapped, one), (straight, other)):
                with torch.no_grad():
                    for parameter in network.parameters():
                        parameter.mul_(1.1 + step / 10)
                average.update()
            one.swap()
            one.swap()
        assert all(torch.equal(a, b) for a, b in zip(swapped.parameters(), straight.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(one.means, other.means, strict=True))

    def test_a_swap_copies(self) -> None:
        """Changing the network afterwards does not change the average."""
        network = network_of()
        average = WeightAverage(network, 0.9)
        average.swap()
        before = [mean.clone() for mean in average.means]
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        assert all(torch.equal(a, b) for a, b in zip(before, average.means, strict=True))
