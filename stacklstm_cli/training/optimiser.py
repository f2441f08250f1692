"""AdamW with warm-up and an average of the weights.

The step itself is torch's own functional AdamW. The class `torch.optim.AdamW` imports torch's compiler when
it is made, which costs more time (1.7 s measured, as long as importing torch) than training a small network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS = (0.9, 0.99)
EPSILON = 1e-8


@dataclass
class Group:
    """Parameters that share a learning rate and a weight decay."""

    parameters: list[nn.Parameter]
    learning_rate: float
    weight_decay: float
    first_moments: list[Tensor] = field(init=False)
    second_moments: list[Tensor] = field(init=False)
    steps: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.first_moments = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second_moments = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = [torch.zeros((), dtype=torch.float32) for _ in self.parameters]


class AdamW:
    """Decoupled weight decay regularisation (Loshchilov & Hutter 2019) over groups of parameters."""

    def __init__(self, groups: Iterable[Group], warmup: int, end: int | None = None) -> None:
        """The learning rates rise linearly over the first `warmup` steps; with `end`, they fall to zero at that step.

        They fall as half a period of a cosine does (Loshchilov & Hutter 2017, "SGDR").
        """
        self.groups = list(groups)
        self.warmup, self.end = warmup, end
        self.step_count = 0
        self.rate = 1.0
        """Share of every group's learning rate that is used."""

    def tensors(self) -> dict[str, Tensor]:
        """What the next step depends on beside the weights and `step_count`: the very tensors, by name."""
        return {
            f"{kind}.{index}.{place}": tensor
            for index, group in enumerate(self.groups)
            for kind in ("first_moments", "second_moments", "steps")
            for place, tensor in enumerate(getattr(group, kind))
        }

    def share(self) -> float:
        """Of the learning rates, that the present step is made with."""
        if self.step_count <= self.warmup or self.end is None:
            return min(1.0, self.step_count / self.warmup)
        done = (self.step_count - self.warmup) / (self.end + 1 - self.warmup)  # the last step moves something too
        return 0.5 + 0.5 * math.cos(math.pi * min(done, 1.0))

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter along its gradient, then forget the gradients."""
        self.step_count += 1
        share = self.share()
        for group in self.groups:
            gradients = [parameter.grad for parameter in group.parameters if parameter.grad is not None]
            adamw(
                list(group.parameters),
                gradients,
                group.first_moments,
                group.second_moments,
                [],
                group.steps,
                foreach=True,
                amsgrad=False,
                maximize=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=share * self.rate * group.learning_rate,
                weight_decay=group.weight_decay,
                eps=EPSILON,
            )
            for parameter in group.parameters:
                parameter.grad = None


class WeightAverage:
    """An exponential moving average of a network's parameters (Polyak & Juditsky 1992).

    It follows closely at first and reaches `decay` after some steps, so that a short training is not held
    back by its own start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.step_count = 0
        self.sources: list[Tensor] = list(network.parameters())
        self.means = [parameter.detach().clone() for parameter in self.sources]

    def tensors(self) -> dict[str, Tensor]:
        """The very averages, by name."""
        return {f"mean.{place}": mean for place, mean in enumerate(self.means)}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's present weights."""
        self.step_count += 1
        decay = min(self.decay, (1 + self.step_count) / (10 + self.step_count))
        torch._foreach_lerp_(self.means, self.sources, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's weights with the average; a second call undoes it."""
        for mean, source in zip(self.means, self.sources, strict=True):
            now = source.clone()
            source.copy_(mean)
            mean.copy_(now)
