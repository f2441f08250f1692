"""Several processes that train one model: which of them this is, and what they tell each other.

Started as `torchrun --nproc-per-node N -m stacklstm_cli train …`. Every process reads the data and draws the same
batches; each computes its shards of them (shards.py), and the sums are exchanged by `torch.distributed` (gloo between
CPUs, NCCL between GPUs). What is decided by a clock or a signal is agreed on, so that all take the same steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from stacklstm_cli.errors import UsageError

LONGEST_SILENCE = timedelta(minutes=10)
"""A process that says nothing for so long has died, or its machine is gone: the others end with an error."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes of this machine: the number of its GPU."""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """As `torchrun` says; alone without it. Raises `UsageError` for what cannot be."""
        if "WORLD_SIZE" not in environment or "RANK" not in environment:
            return cls()
        try:
            found = cls(*(int(environment.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
        except ValueError as error:
            raise UsageError(
                f"RANK, WORLD_SIZE or LOCAL_RANK is no whole number ({error}).",
                hint="Start several processes with torchrun, or unset these variables.",
                code="ranks_unreadable",
            ) from error
        if not 0 <= found.rank < found.size:
            raise UsageError(
                f"RANK is {found.rank} of WORLD_SIZE {found.size}; expected 0 to {found.size - 1}.",
                hint="Start several processes with torchrun, or unset these variables.",
                code="ranks_unreadable",
            )
        return found

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def join(self, device: torch.device) -> None:
        """Meet the others. Only where there are any."""
        if self.size > 1 and not torch.distributed.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            torch.distributed.init_process_group(backend, timeout=LONGEST_SILENCE)

    def leave(self) -> None:
        """Part from the others."""
        if self.size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, the same bits on each of them."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def largest(self, number: int, device: torch.device) -> int:
        """The largest of the numbers that the processes give: one that stops, stops all."""
        if self.size == 1:
            return number
        told = torch.tensor([number], device=device)
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
        return int(told)


ALONE = Ranks()
