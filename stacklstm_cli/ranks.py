"""Several processes of one command: which of them this is, and what they tell each other.

Started as `torchrun --nproc-per-node N -m stacklstm_cli train …`. Every process reads the data. Of a training each
draws the same batches and computes its shards of them (training/shards.py); of the forecasts of `predict` and
`evaluate` each computes some (evaluation/backtest.py), and the first, which alone writes and prints, collects them.
They talk by `torch.distributed` (gloo between CPUs, NCCL between GPUs). What is decided by a clock or a signal is
agreed on, so that all take the same steps, and so is what went wrong.

Not torch's DistributedDataParallel: it averages the gradients of means over unequal numbers of known targets, and adds
in an order of its own. Here each shard's gradients reach every process, which adds them in the order of the shards, so
the model is that of one process, to the bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stacklstm_cli.errors import (
    DataError,
    ExitStatus,
    PeerLostError,
    StacklstmError,
    ToldError,
    UsageError,
    out_of_memory,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

LONGEST_SILENCE = timedelta(hours=6)
"""The others wait so long for one that judges a model, say; torchrun itself notices at once when one dies."""
SECONDS_BETWEEN_LOOKS = 0.02
"""While the processes find each other."""
NUMBERS_AT_ONCE = 2**20
"""Of forecasts, that travel between processes together: 8 MB."""
DIFFERENCES = {
    "data": "the data differs",
    "model": "the model file differs",
    "options": "the options differ",
    "origin": "it went on from another model",
    "device": "one computes on another kind of device",
}
"""What is said of the parts of an identity that differ."""
VERSIONS_DIFFER = "the version of stacklstm or of its libraries differs"
"""What is said of any other part."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together."""

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
    def connected(self, backend: str = "gloo") -> Iterator[None]:
        """Within it the processes can tell each other something."""
        if self.size == 1:
            yield
            return
        import torch
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        with peers_needed():
            try:
                store, *_ = next(iter(rendezvous("env://", self.rank, self.size)))
                own = PrefixStore(word_of_start(store, self.rank, self.size), store)
                torch.distributed.init_process_group(
                    backend, store=own, rank=self.rank, world_size=self.size, timeout=LONGEST_SILENCE
                )
            except ValueError as error:
                raise unreadable(f"The processes cannot find each other ({error}).") from error
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()

    @contextlib.contextmanager
    def together(self, device: torch.device) -> Iterator[None]:
        """Within it, what is trained in this process is shared with the others."""
        with self.connected("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"):
            _here[0] = self
            try:
                yield
            finally:
                _here[0] = ALONE

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Work that each process does for itself; none goes on where it failed in one.

        The first of the errors ends all of them with its status: the first process raises it, the others `ToldError`.
        """
        if self.size == 1:
            yield
            return
        own: StacklstmError | None = None
        try:
            yield
        except Exception as error:
            own = error if isinstance(error, StacklstmError) else out_of_memory(error)
            if own is None:
                raise
        failed = self.size - self.largest(self.size - self.rank if own else 0)
        if failed == self.size:
            return
        words = [own.exit_status, own.message, own.hint, own.code] if own else []
        status, message, hint, code = json.loads(self.text_of(failed, json.dumps(words).encode()))
        if not self.leads:
            raise ToldError(ExitStatus(status)) from own
        if own is not None:
            raise own
        told = StacklstmError(f"{message} (Process {failed} of {self.size} says so.)", hint=hint, code=code)
        told.exit_status = ExitStatus(status)
        raise told

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """Raise `DataError` where the processes are not about to do the same; `identity` is what decides that."""
        if self.size == 1:
            return
        first = json.loads(self.text_of(0, json.dumps(identity).encode()))
        differing = [name for name, value in identity.items() if first.get(name) != value]
        with self.agreeing():
            if differing:
                what = DIFFERENCES.get(differing[0], VERSIONS_DIFFER)
                raise DataError(
                    f"Not every process would do the same: {what}.",
                    hint="Give every process the same files, options and versions.",
                    code="ranks_differ",
                )

    def owners(self, pieces: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which process does what, from the number of the piece of work, counted from 0, that it belongs to.

        Neighbouring pieces go to one process, equally many to each; the first has no fewer than any other.
        """
        count = int(pieces.max(initial=0)) + 1
        return pieces * self.size // count

    def collect(self, rows: npt.NDArray[np.float64], owners: npt.NDArray[np.int64]) -> None:
        """Rows [N, …], of which each process knows its own by `owners` [N]: the first one knows them all now.

        Raises `PeerLostError`.
        """
        if self.size == 1:
            return
        import numpy as np
        import torch

        at_once = max(1, NUMBERS_AT_ONCE * len(rows) // max(rows.size, 1))
        for rank in range(1, self.size):
            places = np.flatnonzero(owners == rank)
            for begin in range(0, places.size if self.rank in (0, rank) else 0, at_once):
                some = places[begin : begin + at_once]
                block = torch.from_numpy(rows[some])
                with peers_needed():
                    if self.leads:
                        torch.distributed.recv(block, rank)
                        rows[some] = block.numpy()
                    else:
                        torch.distributed.send(block, 0)
        self.largest(0)  # none leaves before the first has everything

    def sums(self, numbers: Sequence[int]) -> list[int]:
        """The sum of each of these numbers over the processes."""
        if self.size == 1:
            return list(numbers)
        import torch

        told = torch.tensor(numbers)
        with peers_needed():
            torch.distributed.all_reduce(told)
        return [int(number) for number in told]

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

    def text_of(self, rank: int, data: bytes) -> bytes:
        """What that process gives."""
        if self.size == 1:
            return data
        import torch

        size = torch.tensor([len(data)])
        with peers_needed():
            torch.distributed.broadcast(size, rank)
            told = bytearray(data if self.rank == rank else int(size))
            if told:
                torch.distributed.broadcast(torch.frombuffer(told, dtype=torch.uint8), rank)
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


def word_of_start(store: Store, rank: int, size: int) -> str:
    """A word that is new with each start, the same for all processes that were started together.

    torchrun's store outlives them: where `--max-restarts` starts them again it still holds the addresses of the dead,
    and whoever reads one before its successor has written a new one waits in vain. So each puts down a word of its own
    until the first has read the present words of all; what it then offers names them, and an older offer does not.
    """
    mine = os.urandom(8).hex()
    store.set(f"here/{rank}", mine)
    while rank != 0:
        offer = json.loads(store.get("offer")) if store.check(["offer"]) else {}
        if offer.get(str(rank)) == mine:
            store.set(f"{offer['0']}/{rank}", "")
            return str(offer["0"])
        time.sleep(SECONDS_BETWEEN_LOOKS)
    others = range(1, size)
    while not store.check([f"{mine}/{other}" for other in others]):
        here = {str(other): store.get(f"here/{other}").decode() for other in others if store.check([f"here/{other}"])}
        store.set("offer", json.dumps({"0": mine} | here))
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return mine


@contextlib.contextmanager
def peers_needed() -> Iterator[None]:
    """Something that the other processes take part in. Raises `PeerLostError` where they do not."""
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise PeerLostError(
            f"Another process of this command has ended or cannot be reached ({reason_of(error)}).",
            hint="Start it again with the same command; a training goes on where it was.",
        ) from error


def reason_of(error: RuntimeError) -> str:
    """The first sentence of torch's message, without the place in its sources."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    line = re.sub(r"\[[^]]*\.cc:[0-9]+\] ", "", first)
    return line.partition(". ")[0][:200]


def unreadable(message: str) -> UsageError:
    """The error for an environment that no launcher makes."""
    return UsageError(
        message, hint="Start several processes with torchrun, or unset these variables.", code="ranks_unreadable"
    )
