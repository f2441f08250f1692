"""Devices by name, the time limit, and signals that ask before they end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from stacklstm_cli.config import RuntimeConfig
from stacklstm_cli.errors import ExitStatus, StoppedError, UsageError
from stacklstm_cli.ranks import Ranks
from stacklstm_cli.training import runtime
from stacklstm_cli.training.runtime import Clock, Interrupted, find_device, prepare, signals_stop

SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restores the handlers of the signals, whatever a test does."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:  # under nohup, some are ignored
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: int) -> None:
    """A machine with so many CUDA devices and no MPS."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("cuda", "name", "expected"),
    [
        (0, "auto", "cpu"),
        (2, "auto", "cuda"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch, cuda: int, name: str, expected: str) -> None:
    """Wrong if a device that is there is refused, or another one taken."""
    pretend(monkeypatch, cuda)
    assert find_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("cuda", "name", "code"),
    [
        (0, "cuda", "device_missing"),
        (0, "cuda:0", "device_missing"),
        (2, "cuda:2", "device_missing"),
        (2, "mps", "device_missing"),
        (2, "tpu", "unknown_device"),
        (2, "", "unknown_device"),
        (2, "cuda:x", "unknown_device"),
        (2, "cuda:-1", "unknown_device"),
        (2, "cpu:0", "unknown_device"),
        (2, "mps:0", "unknown_device"),
        (2, "CPU", "unknown_device"),
        (2, "cpu:", "unknown_device"),
        (2, "cuda:", "unknown_device"),
        (2, "cuda:²", "unknown_device"),
        (2, "cuda:0:1", "unknown_device"),
    ],
)
def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch, cuda: int, name: str, code: str) -> None:
    """Wrong if such a name ends in a traceback or silently on another device."""
    pretend(monkeypatch, cuda)
    with pytest.raises(UsageError, match="--device is") as caught:
        find_device(name)
    assert (caught.value.exit_status, caught.value.code) == (2, code)
    assert repr(name) in caught.value.message


def test_a_missing_device_says_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if the message miscounts the devices or gives no way out."""
    pretend(monkeypatch, 1)
    with pytest.raises(UsageError, match="this machine has 1 cuda device\\.") as caught:
        find_device("cuda:3")
    assert "--device auto" in caught.value.hint
    pretend(monkeypatch, 0)
    with pytest.raises(UsageError, match="this machine has no cuda devices\\."):
        find_device("cuda")


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless one is named; and each alone has the first."""
    pretend(monkeypatch, 2)
    second = Ranks(rank=3, size=4, local_rank=1, local_size=2)
    for name in ("auto", "cuda"):
        assert prepare(RuntimeConfig(device=name), trains=True, ranks=second) == torch.device("cuda:1")
        assert prepare(RuntimeConfig(device=name), trains=True) == torch.device("cuda")
    assert prepare(RuntimeConfig(device="cuda:0"), trains=True, ranks=second) == torch.device("cuda:0")
    assert prepare(RuntimeConfig(device="cpu"), trains=True, ranks=second) == torch.device("cpu")
    with pytest.raises(UsageError, match="cuda:2"):
        prepare(RuntimeConfig(device="cuda"), trains=True, ranks=Ranks(2, 3, 2, 3))
    for rank in range(3):  # a GPU for each there is not, and what nobody has typed is no mistake
        assert prepare(RuntimeConfig(), trains=True, ranks=Ranks(rank, 3, rank, 3)) == torch.device("cpu")


@pytest.mark.usefixtures("threads")
def test_prepare_sets_the_threads() -> None:
    """Wrong if --threads is ignored."""
    assert prepare(RuntimeConfig(device="cpu", threads=2)) == torch.device("cpu")
    assert torch.get_num_threads() == 2


def test_the_clock_counts_from_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if time runs before the first step, a later start resets it, or a share of the limit is not kept."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(10.0)
    now[0] = 500.0
    assert clock.stopped() == ""
    clock.start()
    now[0] = 505.9
    assert clock.stopped(0.6) == ""
    now[0] = 506.1
    clock.start()
    assert clock.stopped(0.6) == "time"
    assert clock.stopped() == ""
    now[0] = 510.0
    assert clock.stopped() == "time"
    assert clock.exit_status == ExitStatus.OK


def test_a_clock_without_a_limit_never_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if no limit is taken as some limit, or none at all as zero."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    endless, nothing = Clock(), Clock(0.0)
    endless.start()
    nothing.start()
    now[0] = 1e9
    assert endless.stopped() == ""
    assert nothing.stopped() == "time"


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks(number: signal.Signals) -> None:
    """Wrong if a signal ends the run at once, is lost, or ends with another status than 130 or 143."""
    before = {one: signal.getsignal(one) for one in SIGNALS}
    clock = Clock()
    with signals_stop(clock):
        assert clock.stopped() == ""
        assert clock.exit_status == ExitStatus.OK
        signal.raise_signal(number)
        assert clock.stopped() == "signal"
    assert clock.exit_status == (130 if number == signal.SIGINT else 143)
    assert {one: signal.getsignal(one) for one in SIGNALS} == before


@pytest.mark.usefixtures("handlers")
def test_a_signal_counts_before_the_time() -> None:
    """Wrong if a run that is both out of time and interrupted hides the interruption."""
    clock = Clock(0.0)
    clock.start()
    with signals_stop(clock):
        signal.raise_signal(signal.SIGTERM)
    assert clock.stopped() == "signal"


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_signal_goes_to_the_earlier_handler(first: signal.Signals) -> None:
    """Wrong if a user who insists is not heard, whichever signal came first."""
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    clock = Clock()
    with signals_stop(clock):
        signal.raise_signal(first)
        assert heard == []
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    with signals_stop(Clock()):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_interruptible_work_at_once(number: signal.Signals, status: int) -> None:
    """Wrong if reading a long file goes on after a signal, or ends without the status and a message."""
    done: list[str] = []
    clock = Clock()

    def work() -> None:
        with signals_stop(clock):
            with clock.interruptible():
                done.append("before")
                signal.raise_signal(number)
                done.append("after")
            done.append("behind")

    with pytest.raises(StoppedError, match="nothing was saved") as caught:
        work()
    assert done == ["before"]
    assert caught.value.exit_status == status


@pytest.mark.usefixtures("handlers")
def test_work_that_is_worth_saving_goes_on() -> None:
    """Wrong if a signal behind or between interruptible work tears anything, or the next such work is begun."""
    clock, done = Clock(), list[str]()
    with signals_stop(clock):
        with clock.interruptible(), clock.interruptible():
            pass
        signal.raise_signal(signal.SIGTERM)
        done.append("saved")
        with pytest.raises(Interrupted), clock.interruptible():
            done.append("begun")
        with pytest.raises(Interrupted):
            clock.sleep(60)
    assert done == ["saved"]
    assert clock.exit_status == 143


@pytest.mark.usefixtures("handlers")
def test_a_pause_ends_at_a_signal() -> None:
    """Wrong if a run that waits for another one cannot be stopped."""
    clock = Clock()
    begin = time.monotonic()
    if not hasattr(signal, "pthread_kill"):
        pytest.skip("a signal reaches another thread on POSIX systems only")
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGTERM])
    timer.start()
    with pytest.raises(StoppedError), signals_stop(clock):
        clock.sleep(60)
    timer.join()
    assert time.monotonic() - begin < 10


def test_hurrying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if a validation is given up without a signal, at once, or never."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock()
    clock.hurry()
    clock.signalled(signal.SIGTERM)
    now[0] += 0.9 * runtime.SECONDS_AFTER_SIGNAL
    clock.hurry()
    now[0] += 0.2 * runtime.SECONDS_AFTER_SIGNAL
    with pytest.raises(Interrupted):
        clock.hurry()


def test_earlier_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong if an interrupted run gets its whole time limit again."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(10.0)
    clock.earlier = 7.0
    clock.start()
    now[0] = 2.9
    assert (clock.stopped(), clock.elapsed) == ("", 9.9)
    now[0] = 3.1
    assert clock.stopped() == "time"


@pytest.mark.usefixtures("handlers")
def test_handlers_are_restored_after_an_error() -> None:
    """Wrong if a failed run leaves its handlers behind."""
    before = {one: signal.getsignal(one) for one in SIGNALS}
    with pytest.raises(ValueError, match="broken"), signals_stop(Clock()):
        raise ValueError("broken")
    assert {one: signal.getsignal(one) for one in SIGNALS} == before


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("ignored", SIGNALS)
def test_an_ignored_signal_stays_ignored(ignored: signal.Signals) -> None:
    """Wrong if what `nohup` or a shell's background silenced stops the run, before or after another signal."""
    signal.signal(ignored, signal.SIG_IGN)
    clock = Clock()
    with signals_stop(clock):
        assert signal.getsignal(ignored) == signal.SIG_IGN
        signal.raise_signal(ignored)
        assert clock.stopped() == ""
        signal.raise_signal(next(number for number in SIGNALS if number != ignored))
        assert clock.stopped() == "signal"
        signal.raise_signal(ignored)
    assert signal.getsignal(ignored) == signal.SIG_IGN


def test_another_thread_leaves_signals_alone() -> None:
    """Wrong if training in a thread, where no handler may be set, fails."""
    ran: list[object] = []

    def work() -> None:
        with runtime.signals_stop(Clock()):
            ran.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [before]
