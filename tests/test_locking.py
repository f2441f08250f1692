"""The lock of a model: one run at a time, whatever becomes of the others."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stacklstm_cli import locking
from stacklstm_cli.errors import ExitStatus, LockedError, ModelError
from stacklstm_cli.files import write_atomically
from stacklstm_cli.locking import model_lock

posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX permissions, links and signals")
HOLDER = """
import sys, time
from stacklstm_cli.locking import model_lock
with model_lock(sys.argv[1], 60):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
WORKER = """
import os, sys, time
from stacklstm_cli.locking import model_lock
for _ in range(5):
    with model_lock(sys.argv[1], 100, sleep=lambda seconds: time.sleep(0.003)):
        inside = os.open(sys.argv[2], os.O_CREAT | os.O_EXCL)  # fails where another one is inside
        count = int(open(sys.argv[3]).read())
        time.sleep(0.001)
        open(sys.argv[3], "w").write(str(count + 1))
        os.close(inside)
        os.unlink(sys.argv[2])
"""


def start(script: str, *words: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def holder(path: Path, seconds: float = 60.0) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = start(HOLDER, path, seconds)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_twenty_at_once(tmp_path: Path) -> None:
    """Exactly one at a time, a hundred times over; the file that says so comes and goes under them."""
    count = tmp_path / "count"
    count.write_text("0")
    workers = [start(WORKER, tmp_path / "model", tmp_path / "inside", count) for _ in range(20)]
    for worker in workers:
        _, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
    assert count.read_text() == "100"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_second_run_is_told_who_holds_it(tmp_path: Path) -> None:
    """At once, with the process and its machine by name, and what to type."""
    other = holder(tmp_path / "model")
    begin = time.monotonic()
    with pytest.raises(LockedError, match=rf"process {other.pid} on \S") as caught, model_lock(tmp_path / "model"):
        pass
    assert time.monotonic() - begin < 1
    assert (caught.value.exit_status, caught.value.code) == (ExitStatus.LOCKED, "locked")
    assert "--wait" in caught.value.hint
    with pytest.raises(LockedError), model_lock(tmp_path / "model"):  # being refused has not let go of it
        pass
    end(other)


def test_waiting(tmp_path: Path) -> None:
    """The one that waits says so once and begins when the other has ended."""
    other, said = holder(tmp_path / "model", 1.0), list[str]()
    with model_lock(tmp_path / "model", 60, on_note=said.append):
        assert other.wait(10) == 0
    assert len(said) == 1
    assert str(other.pid) in said[0]
    end(other)


def test_waiting_ends(tmp_path: Path) -> None:
    other = holder(tmp_path / "model")
    begin = time.monotonic()
    with pytest.raises(LockedError), model_lock(tmp_path / "model", 0.5):
        pass
    assert 0.5 <= time.monotonic() - begin < 5
    end(other)


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    """What it has left is cleared away: the lock's file, and the temporary file of a model half written."""
    end(holder(tmp_path / "model"))
    assert (tmp_path / ".model.lock").exists()
    with model_lock(tmp_path / "model"):
        assert str(os.getpid()) in (tmp_path / ".model.lock").read_text()
    assert list(tmp_path.iterdir()) == []


@posix_only
def test_a_stopped_process_still_holds_it(tmp_path: Path) -> None:
    """Asleep is not dead."""
    other = holder(tmp_path / "model")
    other.send_signal(signal.SIGSTOP)
    with pytest.raises(LockedError), model_lock(tmp_path / "model"):
        pass
    end(other)


def test_it_is_let_go_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), model_lock(tmp_path / "model"):
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_two_models_have_two_locks(tmp_path: Path) -> None:
    with model_lock(tmp_path / "one"), model_lock(tmp_path / "other"):
        pass


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    """The lock belongs to an open file, not to the process."""
    found: list[str] = []

    def enter() -> None:
        try:
            with model_lock(tmp_path / "model"):
                found.append("entered")
        except LockedError as error:
            found.append(error.code)

    with model_lock(tmp_path / "model"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert found == ["locked"]


@posix_only
def test_a_link_has_the_lock_of_its_target(tmp_path: Path) -> None:
    """Also before the target is there."""
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store/model")
    with model_lock(tmp_path / "link"), pytest.raises(LockedError), model_lock(tmp_path / "store" / "model"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"store", "link"}


@posix_only
def test_a_device_has_no_lock() -> None:
    with model_lock(os.devnull), model_lock(os.devnull):
        pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning, and the work goes on."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locking, "_lock", refuse)
    told: list[str] = []
    with model_lock(tmp_path / "model", on_warning=lambda code, text: told.extend([code, text])):
        pass
    assert told[0] == "no_lock"
    assert "No locks available" in told[1]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.\.model\.lock"), model_lock(tmp_path / "none" / "model"):
        pass


def test_a_folder_that_vanishes(tmp_path: Path) -> None:
    """No error of the lock's own hides what happened to the work."""
    folder = tmp_path / "folder"
    folder.mkdir()

    def work() -> None:
        with model_lock(folder / "model"):
            (folder / ".model.lock").unlink()
            folder.rmdir()
            write_atomically(folder / "model", b"")

    with pytest.raises(ModelError, match="there is no folder"):
        work()


def test_a_lock_file_removed_by_hand_is_not_missed(tmp_path: Path) -> None:
    """Whoever comes next locks a file of its own; the first one leaves that alone when it ends."""
    first = model_lock(tmp_path / "model")
    first.__enter__()
    (tmp_path / ".model.lock").unlink()
    with model_lock(tmp_path / "model"):
        first.__exit__(None, None, None)
        with pytest.raises(LockedError), model_lock(tmp_path / "model"):
            pass
    assert list(tmp_path.iterdir()) == []
