"""Dropout whose random numbers come from a generator that the caller names.

Torch's own draws from one generator for all threads: what each thread gets depends on which comes first.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_here = threading.local()


@contextlib.contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Within it, dropout in this thread takes its random numbers from `generator`, which lies on the device."""
    before = getattr(_here, "generator", None)
    _here.generator = generator
    try:
        yield
    finally:
        _here.generator = before


def dropout(values: Tensor, share: float) -> Tensor:
    """A share of the values made zero and the others larger, so that the mean stays; any shape.

    Srivastava et al. 2014, "Dropout: A simple way to prevent neural networks from overfitting".
    """
    kept = torch.empty_like(values).bernoulli_(1 - share, generator=getattr(_here, "generator", None))
    return values * kept.div_(1 - share)


class Dropout(nn.Module):
    """`dropout` in training, nothing else."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """The same shape."""
        return dropout(values, self.share) if self.training and self.share else values
