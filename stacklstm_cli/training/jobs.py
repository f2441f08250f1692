"""One search by one process or several, in its share of a time limit."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from stacklstm_cli.errors import StacklstmError
from stacklstm_cli.training.placement import Place, Places, Where, places_of
from stacklstm_cli.training.precision import Precision
from stacklstm_cli.training.runtime import Clock, Stopped, get_threads, set_threads, signals_stop
from stacklstm_cli.training.search import Candidate
from stacklstm_cli.training.storage import study_errors
from stacklstm_cli.training.study import OnSearch, Task, candidates, enqueue_starts, explore, open_study

TIME_TO_SEARCH = 2 / 3
"""Share of a time limit after which a search ends, so that what it has chosen can be trained."""


class Within(Clock):
    """A time limit inside a run that has one of its own; a signal to the run ends both."""

    def __init__(self, outer: Clock, max_time: float | None) -> None:
        super().__init__(max_time)
        self.outer = outer

    def start(self) -> None:
        self.outer.start()
        super().start()

    def stopped(self, share: float = 1.0) -> Stopped:
        return "signal" if self.outer.signal_number is not None else super().stopped(share)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        with self.outer.interruptible():
            yield

    def hurry(self) -> None:
        self.outer.hurry()


def left(clock: Clock) -> float | None:
    """Seconds until the limit of a clock; None without one."""
    if clock.max_time is None:
        return None
    return max(0.0, clock.max_time - (0.0 if clock.started is None else time.monotonic() - clock.started))


@dataclass(frozen=True)
class Share:
    """What another process needs to take part in a search."""

    task: Task
    place: str
    seed: int
    seconds: float | None
    device: str
    precision: Precision
    threads: int | None


def search(
    task: Task, place: str | None, jobs: int, *, device: Where, clock: Clock, on_event: OnSearch
) -> list[Candidate]:
    """Every candidate of the study when the search ends; in `place` it goes on where it was.

    `clock` must have been started. The other processes work on the same study, in a temporary file if it has no
    place of its own, and end with this one.
    """
    with shared_place(place, jobs) as kept, study_errors(kept):
        study = open_study(kept, task, task.training.seed)
        enqueue_starts(study, task)
        rest = left(clock)
        limit = Within(clock, None if rest is None else TIME_TO_SEARCH * rest)
        limit.start()
        places = places_of(device)
        chosen = places.settle(task.training.precision, task.work, limit)
        with helpers(task, kept, jobs, limit, chosen):
            explore(study, task, device=places, clock=limit, on_event=on_event)
        return candidates(study)


@contextlib.contextmanager
def shared_place(place: str | None, jobs: int) -> Iterator[str | None]:
    """Where the study is kept: as named, or in a temporary folder where several processes need a place."""
    if place is not None or jobs == 1:
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="stacklstm-") as folder:
        yield str(Path(folder) / "study.log")


@contextlib.contextmanager
def helpers(task: Task, place: str | None, jobs: int, clock: Clock, chosen: Place) -> Iterator[None]:
    """Other processes that work on the study at `place` meanwhile; a signal to this one ends them too."""
    context = multiprocessing.get_context("spawn")
    processes = []
    for number in range(1, jobs):
        where = str(chosen.device), chosen.precision
        assigned = Share(task, str(place), task.training.seed + number, left(clock), *where, get_threads())
        processes.append(context.Process(target=take_part, args=(assigned,), daemon=True))
        with interrupts_ignored():
            processes[-1].start()
    try:
        yield
        while any(process.is_alive() for process in processes) and clock.stopped() != "signal":
            processes[0].join(0.1)
            processes = [process for process in processes if process.is_alive()] or processes[:1]
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Processes that are started here leave Ctrl-C, which a terminal sends to all, to the one that ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def take_part(share: Share) -> None:
    """The work of another process: the same search, in silence."""
    torch.set_num_threads(1)
    set_threads(share.threads)
    clock = Clock(share.seconds)
    clock.start()
    # The process that started this one shows what is wrong.
    with signals_stop(clock), contextlib.suppress(StacklstmError), study_errors(share.place):
        study = open_study(share.place, share.task, share.seed)
        places = Places.at(Place(torch.device(share.device), share.precision))
        explore(study, share.task, device=places, clock=clock, on_event=lambda event: None)
