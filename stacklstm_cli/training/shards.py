"""A batch cut into shards, so that several cores share one optimiser step and its result stays the same to the bit.

The batch is always cut alike, each shard is computed with one OpenMP thread and random numbers of its own, and the
gradients are added in the order of the shards. How many shards run at once changes the time alone, so it may be
chosen by the clock.

Why not OpenMP's threads: they wait for each other within every matrix product, and on a busy machine two of them are
up to fifteen times slower than one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from stacklstm_cli.model.dropout import drawing_from
from stacklstm_cli.model.heads import Head, masked_mean
from stacklstm_cli.model.layers import GATES
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.training.lessons import Lesson, Lessons
from stacklstm_cli.training.pace import Pace
from stacklstm_cli.training.ranks import ALONE, Ranks
from stacklstm_cli.training.runtime import get_threads

LEAST_WORK = 125_000_000
"""Multiplications in the forward pass of a shard. Each costs some milliseconds beside its arithmetic, on any machine:
with fewer, a single core would pay a fifth for it and more."""
LEAST_SHARD = 16
"""Windows: products of fewer leave a core's arithmetic units idle."""
MOST_SHARDS = 8

Part = tuple[Tensor, Tensor, tuple[Tensor | None, ...]]
"""Summed loss, number of known targets and gradients of one shard."""


def shard_count(batch_size: int, spec: NetworkSpec, device: torch.device, processes: int = 1) -> int:
    """Into how many shards a batch is cut: a matter of its size and the network, so that equal runs stay equal.

    At least one for each of the processes that share it.
    """
    enough = min(MOST_SHARDS, batch_size // LEAST_SHARD, batch_size * multiplications(spec) // LEAST_WORK)
    return max(1 if device.type != "cpu" else enough, processes, 1)


def multiplications(spec: NetworkSpec) -> int:
    """In the forward pass of one window: those of the stack, the skip and the decoder, which are nearly all."""
    weights = sum(
        (1 + layer.bidirectional) * GATES[layer.cell] * layer.hidden_size * (layer.input_size + layer.hidden_size)
        for layer in spec.stack.layers
    )
    seen = spec.inputs
    decodes = bool(seen.cycles or seen.holidays or seen.of("known") or seen.of("static"))
    decoder = decodes * spec.horizon * spec.stack.hidden_sizes[-1] ** 2
    return spec.steps * weights + spec.context_length * spec.horizon * spec.skip + decoder


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Within it, each matrix product of this thread runs on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Shards:
    """The gradients of a batch, shard by shard. To be closed."""

    def __init__(
        self,
        network: StackedRNN,
        lessons: Lessons,
        head: Head,
        *,
        batch_size: int,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        """As many of them run at once as `set_threads` has said."""
        self.network, self.lessons, self.head, self.seed, self.ranks = network, lessons, head, seed, ranks
        self.parameters = list(network.parameters())
        self.count = shard_count(batch_size, network.spec, lessons.windows.device, ranks.size)
        # `functional_call`, by which recurrent weights are dropped, changes the module for all threads.
        alone = bool(network.spec.stack.recurrent_dropout)
        own = len(range(ranks.rank, self.count, ranks.size))
        threads = get_threads()
        most = 1 if alone else min(own, threads or cores())
        self.pace = Pace(most, fixed=threads is not None)
        self.pool = ThreadPoolExecutor(most - 1, initializer=torch.set_num_threads, initargs=(1,)) if most > 1 else None

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *error: object) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()

    def backward(self, chosen: Tensor, step: int) -> float:
        """Set the gradients of the mean loss over the known targets of a batch [B]; returns that loss.

        Of several processes each computes its shards, and all get the gradients of the whole.
        """
        if self.count == 1:
            return self.whole(chosen, step)
        begin = time.perf_counter()
        threads = self.pace.threads()
        parts = list(enumerate(chosen.tensor_split(self.count)))[self.ranks.rank :: self.ranks.size]
        if threads == 1 or self.pool is None:
            results = [self.shard(part, step, at) for at, part in parts]
        else:
            mine, others = parts[::threads], [part for place, part in enumerate(parts) if place % threads]
            waiting = {at: self.pool.submit(self.shard, part, step, at) for at, part in others}
            found = {at: self.shard(part, step, at) for at, part in mine}
            found |= {at: future.result() for at, future in waiting.items()}
            results = [found[at] for at, _ in parts]
        loss = self.add_up(results)
        self.pace.took(threads, time.perf_counter() - begin)
        return loss

    def whole(self, chosen: Tensor, step: int) -> float:
        """`backward` of a batch in one piece."""
        with drawing_from(self.generator(step, 0)):
            loss = lesson_loss(self.network, self.lessons.batch(chosen), self.head)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def shard(self, chosen: Tensor, step: int, place: int) -> Part:
        """One of the shards: windows `chosen`, the `place`-th of this step."""
        lesson = self.lessons.batch(chosen)
        with drawing_from(self.generator(step, place)):
            known = lesson.known.sum()
            total = lesson_loss(self.network, lesson, self.head) * known
        gradients = torch.autograd.grad(total, self.parameters, allow_unused=True)
        return total.detach(), known, gradients

    def generator(self, step: int, place: int) -> torch.Generator:
        """The source of random numbers of one shard of one step, so that no other can change them."""
        number = (self.seed * 1_000_003 + step * self.count + place) % 2**63
        return torch.Generator(self.lessons.windows.device).manual_seed(number)

    def add_up(self, results: Sequence[Part]) -> float:
        """Gradients and loss of the batch, added in the order of the shards."""
        totals, counts, gradients = zip(*results, strict=True)
        sums = [torch.stack(totals).sum(), torch.stack(counts).sum()]
        learning = []
        for parameter, parts in zip(self.parameters, zip(*gradients, strict=True), strict=True):
            if parts[0] is None:  # of one shard as of all
                continue
            total = parts[0]
            for part in parts[1:]:
                total = total.add_(part)
            parameter.grad = total
            learning.append(total)
        self.ranks.add([*sums, *learning])
        loss, known = sums[0], sums[1].clamp(min=1)
        torch._foreach_div_(learning, known)
        return float(loss / known)


def lesson_loss(network: StackedRNN, lesson: Lesson, head: Head) -> Tensor:
    """Mean loss over the known targets of a batch, in the units of the loss."""
    loss = head.loss(network(lesson.inputs), lesson.target, lesson.gain, lesson.scaling)  # [B, H]
    return masked_mean(loss, lesson.known)
