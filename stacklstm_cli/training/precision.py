"""The precision of the arithmetic of training: float32, or bfloat16 where eight bits do.

In bfloat16 weights, their averages and moments, the normalisation, the linear skip and the loss stay float32; matrix
products of the stack, the head and the decoder are rounded (Micikevicius et al. 2018, "Mixed Precision Training"). Its
exponent is that of float32, so that no loss need be scaled. Validation, judging and forecasts are float32 always.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]


@contextlib.contextmanager
def lowered(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within it, this thread's matrix products on `device` are of this precision."""
    if precision == "float32":
        yield
        return
    # Each weight is used once in a forward pass, and the cache would be shared by the threads of the shards.
    with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
        yield


@contextlib.contextmanager
def usable(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within it, networks train in this precision on any CPU. For all threads: to be entered by the one that began.

    The LSTM of oneDNN, by which torch trains on CPUs, knows bfloat16 with AVX-512 alone; torch's own everywhere.
    """
    if precision == "float32" or device.type != "cpu" or trains_bfloat16(device):
        yield
        return
    # `flags` would set those of Intel's GPUs too, and warn.
    before = torch.backends.mkldnn.set_flags(False)[0]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before)  # type: ignore[no-untyped-call]


@cache
def trains_bfloat16(device: torch.device) -> bool:
    """Whether an LSTM can be trained in bfloat16 on this device, tried with one of two numbers."""
    try:
        rnn = nn.LSTM(2, 2).to(device)
        with lowered("bfloat16", device):
            outputs = rnn(torch.ones(1, 1, 2, device=device))[0]  # [1, 1, 2]
        outputs.float().sum().backward()
    except RuntimeError:
        return False
    return True
