"""Where and how long training runs: device, threads, time limit, signals.

torch is imported where it is used: a command must heed signals before those seconds have passed.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Literal, get_args

from stacklstm_cli.config import RuntimeConfig
from stacklstm_cli.errors import ExitStatus, StoppedError, UsageError
from stacklstm_cli.ranks import ALONE, Ranks, get_ranks

if TYPE_CHECKING:
    import torch

Stopped = Literal["", "time", "signal"]
REASONS: tuple[Stopped, ...] = get_args(Stopped)
SECONDS_AFTER_SIGNAL = 0.5
"""How long a validation may go on after a signal: two seconds are all there is, and the model is to be saved."""


_limits: dict[str, int | None] = {"threads": None}


def set_threads(threads: int | None) -> None:
    """Let so many shards run at once in this process from now on; None is as many as are fastest."""
    _limits["threads"] = threads


def get_threads() -> int | None:
    """What `set_threads` said last."""
    return _limits["threads"]


def prepare(config: RuntimeConfig, *, trains: bool = False, ranks: Ranks = ALONE) -> torch.device:
    """Set the threads and find the device. Raises `UsageError` for a device that is not there.

    What `trains` has one thread of OpenMP, whatever was asked for: several add in another order, which changes the
    last bits of a model. Of several `ranks` each has a GPU of its own, if not one by name; where there are fewer
    GPUs than processes, `auto` is the CPU.
    """
    import torch

    torch.set_num_threads(1 if trains else config.threads or 1)
    set_threads(config.threads)
    device = find_device(config.device)
    shared = ranks.local_size > 1 and device.type == "cuda" and device.index is None
    if shared and config.device == "auto" and ranks.local_size > torch.cuda.device_count():
        return torch.device("cpu")
    return find_device(f"cuda:{ranks.local_rank}") if shared else device


def find_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU; never MPS, which is slower for LSTMs."""
    import torch

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


class Interrupted(BaseException):
    """A signal came during work that is not worth finishing. No `except Exception` stops it."""


class Clock:
    """The time limit of a run, counted from the first optimiser step, and the wish to stop."""

    def __init__(self, max_time: float | None = None) -> None:
        self.max_time = max_time
        self.started: float | None = None
        self.earlier = 0.0
        """Seconds that earlier runs of the same training took, before they were interrupted."""
        self.signal_number: int | None = None
        self._signalled: float | None = None
        self._interruptible = False

    def start(self) -> None:
        """The first optimiser step begins now; later calls change nothing."""
        if self.started is None:
            self.started = time.monotonic()

    def restart(self) -> None:
        """Count from now on, with what is left of the limit: shares of it are then shares of the work ahead."""
        if self.max_time is not None:
            self.max_time = max(0.0, self.max_time - self.elapsed)
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the first optimiser step, those of interrupted runs included."""
        return self.earlier + (time.monotonic() - self.started if self.started is not None else 0.0)

    def stopped(self, share: float = 1.0) -> Stopped:
        """Whether to stop: at a signal, or once this share of the time limit has passed."""
        if self.signal_number is not None:
            return "signal"
        if self.max_time is None or self.started is None:
            return ""
        return "time" if self.elapsed >= share * self.max_time else ""

    def agreed(self, share: float = 1.0) -> Stopped:
        """`stopped`, as soon as it is that for one of several processes, all of which must ask."""
        return REASONS[get_ranks().largest(REASONS.index(self.stopped(share)))]

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that a signal ends at once, with `Interrupted`: long stretches that do not look at the clock.

        Only for work whose half-done results nobody needs.
        """
        before, self._interruptible = self._interruptible, True
        try:
            if self.signal_number is not None:
                raise Interrupted
            yield
        finally:
            self._interruptible = before

    def sleep(self, seconds: float) -> None:
        """Wait; a signal ends it with `Interrupted`."""
        with self.interruptible():
            time.sleep(seconds)

    def hurry(self) -> None:
        """Raise `Interrupted` where a signal came longer ago than `SECONDS_AFTER_SIGNAL`.

        Not of several processes: the others would wait for what this one has left out.
        """
        if (
            get_ranks().size == 1
            and self._signalled is not None
            and time.monotonic() - self._signalled > SECONDS_AFTER_SIGNAL
        ):
            raise Interrupted

    def signalled(self, number: int) -> None:
        """A signal has come. Raises `Interrupted` where the work in hand allows it."""
        self._signalled = time.monotonic()
        self.signal_number = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
        if self._interruptible:
            raise Interrupted

    @property
    def exit_status(self) -> ExitStatus:
        """What the process should end with after a signal."""
        return ExitStatus(128 + self.signal_number) if self.signal_number is not None else ExitStatus.OK


@contextlib.contextmanager
def signals_stop(clock: Clock) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP asks the clock to stop; a second one ends the program at once.

    Raises `StoppedError` where nobody has anything to save of the work that a signal has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        for one, before in earlier.items():
            signal.signal(one, before)
        clock.signalled(number)

    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # What was ignored stays so: `nohup` ignores the hang-up, a shell the interrupt of what it runs behind.
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield
    except Interrupted as stop:
        raise StoppedError(clock.exit_status) from stop
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)
