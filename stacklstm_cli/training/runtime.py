"""Where and how long training runs: device, threads, time limit, signals."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Literal

import torch

from stacklstm_cli.config import RuntimeConfig
from stacklstm_cli.errors import ExitStatus, UsageError

Stopped = Literal["", "time", "signal"]


def prepare(config: RuntimeConfig) -> torch.device:
    """Set the threads and find the device. Raises `UsageError` for a device that is not there."""
    torch.set_num_threads(config.threads)
    return find_device(config.device)


def find_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU; never MPS, which is slower for LSTMs."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"(cpu|mps|cuda)|cuda:([0-9]{1,4})", name)
    if match is None:
        raise UsageError(f"--device is {name!r}; expected auto, cpu, cuda, cuda:N or mps.", code="unknown_device")
    kind, index = match[1] or "cuda", int(match[2] or 0)
    here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if index >= here:
        raise UsageError(
            f"--device is {name!r}, but this machine has {here or 'no'} {kind} device{'s' * (here != 1)}.",
            hint="Use --device auto or --device cpu.",
            code="device_missing",
        )
    return torch.device(name)


class Clock:
    """The time limit of a run, counted from the first optimiser step, and the wish to stop."""

    def __init__(self, max_time: float | None = None) -> None:
        self.max_time = max_time
        self.started: float | None = None
        self.signal_number: int | None = None

    def start(self) -> None:
        """The first optimiser step begins now; later calls change nothing."""
        if self.started is None:
            self.started = time.monotonic()

    def stopped(self, share: float = 1.0) -> Stopped:
        """Whether to stop: at a signal, or once this share of the time limit has passed."""
        if self.signal_number is not None:
            return "signal"
        if self.max_time is None or self.started is None:
            return ""
        return "time" if time.monotonic() - self.started >= share * self.max_time else ""

    @property
    def exit_status(self) -> ExitStatus:
        """What the process should end with after a signal."""
        return ExitStatus(128 + self.signal_number) if self.signal_number is not None else ExitStatus.OK


@contextlib.contextmanager
def signals_stop(clock: Clock) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP asks the clock to stop; a second one ends the program at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        clock.signal_number = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
        for one, before in earlier.items():
            signal.signal(one, before)

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # What was ignored stays so: `nohup` ignores the hang-up, a shell the interrupt of what it runs behind.
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)
