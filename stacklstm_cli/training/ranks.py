"""Several processes that train one model: which of them this is, and what they tell each other.

Started as `torchrun --nproc-per-node N -m stacklstm_cli train …`. Every process reads the data and draws the same
batches; each computes its shards of them (shards.py), and these are exchanged by `torch.distributed` (gloo between
CPUs, NCCL between GPUs). What is decided by a clock or a signal is agreed on, so that all take the same steps.

Not torch's DistributedDataParallel: it averages the gradients of means over unequal numbers of known targets, and adds
in an order of its own. Here each shard's gradients reach every process, which adds them in the order of the shards, so
the model is that of one process, to the bit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from stacklstm_cli.errors import PeerLostError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LONGEST_SILENCE = timedelta(hours=6)
"""The others wait so long for one that judges a model, say; torchrun itself notices at once when one dies."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes of this machine: the number of its GPU."""
    local_size: int = 1
    """Processes of this machine."""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """As `torchrun` says; alone without it. Raises `UsageError` for what cannot be."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        if not {*names} <= {*environment}:
            return cls()
        try:
            found = cls(*(int(environment[name]) for name in names))
        except ValueError as error:
            raise unreadable(f"One of {', '.join(names)} is no whole number ({error}).") from error
        if not (0 <= found.rank < found.size and 0 <= found.local_rank < found.local_size <= found.size):
            raise unreadable(f"RANK is {found.rank} of WORLD_SIZE {found.size}; expected 0 to {found.size - 1}.")
        return found

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    @contextlib.contextmanager
    def together(self, device: torch.device) -> Iterator[None]:
        """Within it, what is trained in this process is shared with the others."""
        if self.size == 1:
            yield
            return
        import torch

        with peers_needed():
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            try:
                torch.distributed.init_process_group(backend, timeout=LONGEST_SILENCE)
            except ValueError as error:
                raise unreadable(f"The processes cannot find each other ({error}).") from error
        _here[0] = self
        try:
            yield
        finally:
            _here[0] = ALONE
            torch.distributed.destroy_process_group()

    def complete(self, rows: Tensor) -> None:
        """Rows [N, …], each of which its process knows (the i-th the i-th of them, in turn): known to all now.

        Raises `PeerLostError`, as all of these do.
        """
        if self.size == 1:
            return
        import torch

        others = [at for at in range(len(rows)) if at % self.size != self.rank]
        rows[others] = 0  # a number plus zeros is that number, whatever is added first
        with peers_needed():
            torch.distributed.all_reduce(rows)

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the first process."""
        if self.size == 1:
            return
        import torch

        with peers_needed():
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)

    def text_of_first(self, data: bytes) -> bytes:
        """What the first process gives."""
        import torch

        size = torch.tensor([len(data)])
        self.copy_first([size])
        told = bytearray(data if self.leads else int(size))
        if told:
            self.copy_first([torch.frombuffer(told, dtype=torch.uint8)])
        return bytes(told)

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give: one that stops, stops all."""
        if self.size == 1:
            return number
        import torch

        told = torch.tensor([number])
        with peers_needed():
            torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
        return int(told)


ALONE = Ranks()
_here = [ALONE]


def get_ranks() -> Ranks:
    """Those with which this process is `together` now."""
    return _here[0]


@contextlib.contextmanager
def peers_needed() -> Iterator[None]:
    """Work that the other processes take part in. Raises `PeerLostError` where they do not."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(
            f"Another process of this training has ended or cannot be reached ({str(error).splitlines()[0][:200]}).",
            hint="Start it again with the same command: it goes on where it was.",
        ) from error


def unreadable(message: str) -> UsageError:
    """The error for an environment that no launcher makes."""
    return UsageError(
        message, hint="Start several processes with torchrun, or unset these variables.", code="ranks_unreadable"
    )
