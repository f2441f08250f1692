"""Dropout from a named source of random numbers."""

from __future__ import annotations

import threading

import pytest
import torch

from stacklstm_cli.model.dropout import Dropout, drawing_from, dropout


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_a_share_is_zero_and_the_mean_stays() -> None:
    """Srivastava et al. 2014: what is kept is divided by the share that is kept."""
    with drawing_from(seeded(0)):
        values = dropout(torch.full((200_000,), 3.0), 0.25)
    kept = values != 0
    assert kept.float().mean() == pytest.approx(0.75, abs=0.005)
    assert set(values[kept].tolist()) == {4.0}


def test_gradients_pass_where_values_do() -> None:
    values = torch.ones(1000, requires_grad=True)
    with drawing_from(seeded(1)):
        result = dropout(values, 0.5)
    result.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == result.tolist()


def test_the_source_alone_decides() -> None:
    """Not torch's own generator, nor what else was drawn from it; and it is left alone."""
    before = torch.random.get_rng_state()
    with drawing_from(seeded(2)):
        first = dropout(torch.ones(50), 0.5)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)
    with drawing_from(seeded(2)):
        assert torch.equal(dropout(torch.ones(50), 0.5), first)
    with drawing_from(seeded(3)):
        assert not torch.equal(dropout(torch.ones(50), 0.5), first)


def test_each_thread_has_its_own() -> None:
    """Two threads that draw in turn get what each would have got alone."""
    alone = []
    for number in (4, 5):
        with drawing_from(seeded(number)):
            alone.append([dropout(torch.ones(20), 0.5) for _ in range(10)])
    found: dict[int, list[torch.Tensor]] = {}
    turn = threading.Barrier(2)

    def draw(number: int) -> None:
        with drawing_from(seeded(number)):
            for _ in range(10):
                turn.wait(timeout=20)
                found.setdefault(number, []).append(dropout(torch.ones(20), 0.5))

    threads = [threading.Thread(target=draw, args=(number,)) for number in (4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in zip((4, 5), alone, strict=True):
        assert all(map(torch.equal, found[number], expected))


def test_nested_sources_end_where_they_began() -> None:
    with drawing_from(seeded(6)):
        first = dropout(torch.ones(30), 0.5)
        with drawing_from(seeded(7)):
            dropout(torch.ones(30), 0.5)
        second = dropout(torch.ones(30), 0.5)
    with drawing_from(seeded(6)):
        assert torch.equal(dropout(torch.ones(30), 0.5), first)
        assert torch.equal(dropout(torch.ones(30), 0.5), second)


def test_no_dropout_outside_training() -> None:
    values = torch.randn(10)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0).train()(values), values)
    assert not torch.equal(Dropout(0.5).train()(values), values)
