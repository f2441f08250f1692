"""A batch cut into shards, so that several cores share one optimiser step and its result stays the same to the bit.

The batch is always cut alike, each shard is computed with one OpenMP thread and random numbers of its own, and the
gradients are added in the order of the shards. How many shards run at once, and in which of several processes, changes
the time alone, so it may be chosen by the clock. What is too small to be cut is computed as by the plainest loop.

Why not OpenMP's threads: they wait for each other within every matrix product, and on a busy machine two of them are
up to fifteen times slower than one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from stacklstm_cli.model.dropout import drawing_from
from stacklstm_cli.model.heads import Teacher, masked_mean
from stacklstm_cli.model.labels import LabelNetwork
from stacklstm_cli.model.layers import GATES
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.ranks import Ranks, get_ranks
from stacklstm_cli.training.lessons import Lesson, Lessons
from stacklstm_cli.training.pace import Pace
from stacklstm_cli.training.precision import Precision, lowered
from stacklstm_cli.training.runtime import get_threads

LEAST_WORK = 300_000_000
"""Multiplications in the forward pass of a shard. Each costs some 4 ms beside its arithmetic, which is then less than
a twentieth: a single core loses next to nothing by the cut."""
LEAST_SHARD = 32
"""Windows: products of fewer leave a core's arithmetic units idle."""
MOST_SHARDS = 8

Network = StackedRNN | LabelNetwork
Part = tuple[Tensor, Tensor, tuple[Tensor, ...]]
"""Summed loss, number of known targets and gradients of one shard."""


def shard_count(batch_size: int, work: int, device: torch.device, processes: int = 1) -> int:
    """Into how many shards a batch is cut, where a window costs `work` multiplications.

    A matter of batch and network alone, so that equal runs stay equal: a power of two, which two and four cores share
    evenly. On other devices than CPUs one for each of the processes, as only several of these share the work there.
    """
    if device.type != "cpu":
        return min(processes, batch_size)
    most = max(1, min(MOST_SHARDS, batch_size // LEAST_SHARD, batch_size * work // LEAST_WORK))
    return 1 << (int(most).bit_length() - 1)


def multiplications(spec: NetworkSpec, *, every_step: bool = False) -> int:
    """In the forward pass of one window: those of the stack, the skip and the decoder: nearly all.

    With `every_step` of the stack forecasting, skip and decoder work for each.
    """
    weights = sum(
        (1 + layer.bidirectional) * GATES[layer.cell] * layer.hidden_size * (layer.input_size + layer.hidden_size)
        for layer in spec.stack.layers
    )
    seen = spec.inputs
    decodes = bool(seen.cycles or seen.holidays or seen.of("known") or seen.of("static"))
    decoder = decodes * -(-spec.horizon // spec.calendar_rows) * spec.stack.hidden_sizes[-1] ** 2
    ahead = spec.context_length * spec.horizon * spec.skip + decoder
    return spec.steps * weights + ahead * (spec.steps if every_step else 1)


def shard_generator(seed: int, place: int, device: torch.device) -> torch.Generator:
    """The random numbers of the `place`-th shard of every step. Those of the first are those of a batch in one piece.

    The seeds of the others are hashed: of neighbouring seeds the generator's first numbers are alike.
    """
    mixed = int.from_bytes(hashlib.blake2b(f"{seed} {place}".encode(), digest_size=4).digest(), "big")
    return torch.Generator(device).manual_seed(mixed if place else seed)


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
        network: Network,
        lessons: Lessons,
        head: Teacher,
        *,
        batch_size: int,
        seed: int,
        precision: Precision = "float32",
        ranks: Ranks | None = None,
    ) -> None:
        """As many of them run at once as `set_threads` has said, in this process and those it shares the work with."""
        self.network, self.lessons, self.head, self.precision = network, lessons, head, precision
        self.ranks = ranks or get_ranks()
        self.parameters = list(network.parameters())
        self.batch_size = batch_size
        device, spec = lessons.windows.device, network.spec
        work = multiplications(spec, every_step=lessons.every_step)
        # Batch normalisation of labels is over the whole batch.
        self.count = 1 if spec.labels is not None else shard_count(batch_size, work, device, self.ranks.size)
        self.generators = [shard_generator(seed, place, device) for place in range(self.count)]
        self.pieces = 1
        """In how many parts, one after the other, a shard is computed: more where memory did not suffice."""
        # `functional_call`, by which recurrent weights are dropped, changes the module for all threads.
        alone = bool(spec.stack.recurrent_dropout)
        own = len(range(self.ranks.rank, self.count, self.ranks.size))
        threads = get_threads()
        most = 1 if alone else max(1, min(own, threads or cores() // self.ranks.local_size))
        self.pace = Pace(most, fixed=threads is not None)
        self.pool = ThreadPoolExecutor(most - 1, initializer=torch.set_num_threads, initargs=(1,)) if most > 1 else None

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *error: object) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()

    def tensors(self) -> dict[str, Tensor]:
        """The state of the generators, by name: a copy. Of several processes each must ask for it at once."""
        states = torch.stack([generator.get_state() for generator in self.generators])  # [shards, bytes]
        self.ranks.complete(states)
        return {f"dropout.{place}": state for place, state in enumerate(states)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `tensors` gave. Raises `KeyError`, `TypeError` or `RuntimeError` for what it did not."""
        for place, generator in enumerate(self.generators):
            # Copied: torch reads a generator's state from the beginning of the memory that a tensor is a part of.
            generator.set_state(tensors[f"dropout.{place}"].clone())

    def backward(self, chosen: Tensor) -> Tensor:
        """Set the gradients of the mean loss over the known targets of a batch [B]; returns that loss, on the device.

        Of several processes each computes its shards, and all get the gradients of the whole.
        """
        if self.count == 1 and self.pieces == 1:
            return self.whole(chosen)
        begin = time.perf_counter()
        threads = self.pace.threads()
        parts = list(enumerate(chosen.tensor_split(self.count)))[self.ranks.rank :: self.ranks.size]
        if threads == 1 or self.pool is None:
            results = [self.shard(part, at) for at, part in parts]
        else:
            mine, others = parts[::threads], [part for place, part in enumerate(parts) if place % threads]
            waiting = {at: self.pool.submit(self.shard, part, at) for at, part in others}
            found = {at: self.shard(part, at) for at, part in mine}
            found |= {at: future.result() for at, future in waiting.items()}
            results = [found[at] for at, _ in parts]
        loss = self.add_up(self.exchanged(results))
        self.pace.took(threads, time.perf_counter() - begin)
        return loss

    def whole(self, chosen: Tensor) -> Tensor:
        """`backward` of a batch in one piece, by the first process alone."""
        if self.ranks.leads:
            try:
                with drawing_from(self.generators[0]):
                    loss = lesson_loss(self.network, self.lessons.batch(chosen), self.head, self.precision)
                loss.backward()  # type: ignore[no-untyped-call]
                loss, failed = loss.detach(), None
            except torch.OutOfMemoryError as error:
                failed = error.with_traceback(None)  # whose frames hold what was computed so far
            if failed is not None:
                loss = torch.zeros(())
                self.halve(chosen, failed)
                return self.backward(chosen)
        else:
            loss = torch.zeros((), device=self.lessons.windows.device)
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)
        if self.ranks.size > 1:
            self.ranks.copy_first(
                [loss, *(parameter.grad for parameter in self.parameters if parameter.grad is not None)]
            )
        return loss

    def shard(self, chosen: Tensor, place: int) -> Part:
        """One of the shards: windows `chosen`, the `place`-th of a step."""
        while True:
            try:
                return added([self.piece(part, place) for part in chosen.tensor_split(self.pieces)])
            except torch.OutOfMemoryError as error:
                failed = error.with_traceback(None)  # whose frames hold what was computed so far
            self.halve(chosen, failed)

    def piece(self, chosen: Tensor, place: int) -> Part:
        """A part of a shard."""
        lesson = self.lessons.batch(chosen)
        with drawing_from(self.generators[place]):
            loss = losses(self.network, lesson, self.head, self.precision)  # [B, H]
        total = (loss * lesson.known).sum()
        gradients = torch.autograd.grad(total, self.parameters, materialize_grads=True)
        return total.detach(), lesson.known.sum(), gradients

    def halve(self, chosen: Tensor, error: torch.OutOfMemoryError) -> None:
        """Compute half as much at a time from now on. Raises `error` where that cannot be."""
        if self.pieces >= len(chosen):
            raise error
        self.pieces *= 2
        for parameter in self.parameters:
            parameter.grad = None
        if self.lessons.windows.device.type == "cuda":
            torch.cuda.empty_cache()

    def exchanged(self, results: Sequence[Part]) -> Sequence[Part]:
        """The shards of this process -> those of all."""
        if self.ranks.size == 1:
            return results
        sizes = [1, 1, *(parameter.numel() for parameter in self.parameters)]
        rows = torch.zeros(self.count, sum(sizes), device=self.parameters[0].device)  # [shards, numbers]
        for at, (total, known, gradients) in zip(
            range(self.ranks.rank, self.count, self.ranks.size), results, strict=True
        ):
            rows[at] = torch.cat([part.reshape(-1) for part in (total, known, *gradients)])
        self.ranks.complete(rows)
        parts = [row.split(sizes) for row in rows]
        return [
            (
                total[0],
                known[0],
                tuple(part.view_as(parameter) for part, parameter in zip(gradients, self.parameters, strict=True)),
            )
            for total, known, *gradients in parts
        ]

    def add_up(self, results: Sequence[Part]) -> Tensor:
        """Gradients and loss of the batch, added in the order of the shards."""
        total, known, gradients = added(results)
        known = known.clamp(min=1)
        torch._foreach_div_(gradients, known)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return total / known


def added(parts: Sequence[Part]) -> Part:
    """Their sum, in order; the gradients of the first are overwritten by it."""
    totals, counts, gradients = zip(*parts, strict=True)
    first, *others = gradients
    for other in others:
        torch._foreach_add_(first, other)
    return torch.stack(totals).sum(), torch.stack(counts).sum(), first


def losses(network: Network, lesson: Lesson, head: Teacher, precision: Precision = "float32") -> Tensor:
    """[B, H] of each target of a batch, in the units of the loss; `precision` is the network's, never the loss's."""
    with lowered(precision, lesson.inputs.context.device):
        raw = network(lesson.inputs)  # [B, H, K]
    return head.loss(raw, lesson.target, lesson.gain, lesson.scaling)  # [B, H]


def lesson_loss(network: Network, lesson: Lesson, head: Teacher, precision: Precision = "float32") -> Tensor:
    """Mean loss over the known targets of a batch, in the units of the loss."""
    return masked_mean(losses(network, lesson, head, precision), lesson.known)
