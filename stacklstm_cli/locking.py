"""One run at a time on a model.

The lock belongs to an open file that the system forgets when its process ends, however it ends: nobody has to guess
whether a process is alive, and what a dead one has left is taken over. The file beside the model carries the lock
and names the process that holds it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from stacklstm_cli.errors import LockedError
from stacklstm_cli.files import clear_leftovers, unwritable

BETWEEN_TRIES = 0.2
"""Seconds."""
HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""What the system says of a lock that another process holds."""

if sys.platform == "win32":
    import msvcrt

    FAR_BEHIND = 2**30
    """The byte that is locked: not one of the text, which others must be able to read."""

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, FAR_BEHIND, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def model_lock(
    path: str | Path,
    wait: float | None = None,
    *,
    on_note: Callable[[str], None] = lambda text: None,
    on_warning: Callable[[str, str], None] = lambda code, text: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock of the model at `path`; a symbolic link has the lock of its target.

    Waits up to `wait` seconds for another process. Raises `LockedError` naming it, `ModelError` where no file can
    be made beside the model. On a file system without locks it warns and goes on. A device has no lock.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield
        return
    place = target.with_name(f".{target.name}.lock")
    descriptor = _acquire(place, path, wait, on_note, on_warning, sleep)
    try:
        clear_leftovers(target)
        yield
    finally:
        _release(place, descriptor)


def _acquire(
    place: Path,
    path: str | Path,
    wait: float | None,
    on_note: Callable[[str], None],
    on_warning: Callable[[str, str], None],
    sleep: Callable[[float], None],
) -> int:
    """The open file that holds the lock."""
    deadline, said = time.monotonic() + (wait or 0), False
    while True:
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise unwritable(place, error) from error
        ours = False
        try:
            ours = _try(descriptor, path, on_warning)
            if ours and _is_at(descriptor, place):
                _sign(descriptor, place)
                return descriptor
        except BaseException:
            _release(place, descriptor) if ours else os.close(descriptor)
            raise
        if ours:  # the holder removed its file while this one was opening it: there is a new one
            os.close(descriptor)
            continue
        holder = _holder(descriptor)
        os.close(descriptor)
        left = deadline - time.monotonic()
        if left <= 0:
            raise LockedError(
                f"{path} is in use: {holder} is at work on it.",
                hint="Wait for it with --wait 10m, or name another model with --model PATH.",
                code="locked",
            )
        if not said:
            on_note(f"{path} is in use: waiting for {holder}")
            said = True
        sleep(min(BETWEEN_TRIES, left))


def _try(descriptor: int, path: str | Path, on_warning: Callable[[str, str], None]) -> bool:
    """Whether the lock is ours now, or cannot be anybody's."""
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in HELD:
            return False
        reason = error.strerror or str(error)
        on_warning("no_lock", f"No lock where {path} is ({reason}): a second run at the same time is not noticed.")
    return True


def _is_at(descriptor: int, place: Path) -> bool:
    """Whether the open file is still the one at `place`."""
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int, place: Path) -> None:
    """Name this process in its lock file."""
    text = json.dumps({"pid": os.getpid(), "host": platform.node()})
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text.encode())
    except OSError as error:
        raise unwritable(place, error) from error


def _holder(descriptor: int) -> str:
    """Who holds the lock, for a message; it may not have signed yet."""
    for _ in range(5):
        os.lseek(descriptor, 0, os.SEEK_SET)
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            signed = json.loads(os.read(descriptor, 1000))
            return f"process {int(signed['pid'])} on {signed['host']}"
        time.sleep(0.02)
    return "another process"


def _release(place: Path, descriptor: int) -> None:
    """Remove the file while the lock is held, so that nobody can lock a file that is about to go."""
    with contextlib.suppress(OSError):
        if os.name != "nt" and _is_at(descriptor, place):
            place.unlink()
    os.close(descriptor)
    if os.name == "nt":  # an open file cannot be removed there; another that has opened it keeps it from going
        with contextlib.suppress(OSError):
            place.unlink()
