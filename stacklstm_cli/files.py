"""Writing a file so that a reader never sees half of it and a crash never loses the old one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from stacklstm_cli.errors import ModelError

_HINTS = {
    errno.ENOSPC: "Free some space there, or name another place.",
    errno.EDQUOT: "Free some of your quota, or name another place.",
    errno.ENOENT: "Make the folder first, or name another place.",
    errno.ENOTDIR: "A part of the path is a file; name a folder.",
    errno.EISDIR: "Name a file inside that folder.",
}


def check_writable(path: str | Path) -> None:
    """Raise `ModelError` if `path` can be seen to be no place to write a file, before any work is done for it."""
    target = Path(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            mode = target.stat().st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not mode & 0o222 or not os.access(target, os.W_OK):  # root may write it all the same: it was protected
                raise PermissionError(errno.EACCES, "the file is read-only")
            if not stat.S_ISREG(mode):
                return
        folder = _real(target).parent
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"no files may be made in {folder}")
    except OSError as error:
        raise unwritable(target, error) from error


def write_atomically(path: str | Path, data: bytes | Iterable[bytes]) -> None:
    """Replace the file at `path` by `data`, or by its pieces one after another, whole or not at all.

    The bytes go to a temporary file in the same folder, to the disk, and then over the old file, whose
    permissions they take; a symbolic link stays one and its target is replaced. A device or a pipe is
    written to directly. Raises `ModelError` (exit status 4) naming the path and the reason; the old file
    is then as it was and the temporary file is gone.
    """
    check_writable(path)
    target = _real(Path(path))
    pieces = [data] if isinstance(data, bytes) else data
    try:
        if Path(path).exists() and not Path(path).is_file():
            _write(os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0)), pieces, to_disk=False)
            return
        with _replacing(target, target) as temporary:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            _write(os.open(temporary, flags, 0o666), pieces, to_disk=True)
            with contextlib.suppress(FileNotFoundError):
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
    except OSError as error:
        raise unwritable(path, error) from error


def check_appendable(path: str | Path) -> None:
    """Raise `ModelError` if `path` can be seen to be no place to append a line to, before any work is done for it."""
    target = Path(path)
    if not target.is_file():
        check_writable(target)
    elif not target.stat().st_mode & 0o222 or not os.access(target, os.W_OK):
        raise unwritable(target, PermissionError(errno.EACCES, "the file is read-only"))


def append_line(path: str | Path, line: bytes) -> None:
    """Put a line behind what the file at `path` holds, in one write, so that lines of several programs do not mix.

    The file is made if there is none. A last line that was cut short stays by itself. Raises `ModelError`.
    """
    check_appendable(path)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with contextlib.suppress(OSError):  # an empty file, or a pipe, has no last byte
                os.lseek(descriptor, -1, os.SEEK_END)
                line = line if os.read(descriptor, 1) == b"\n" else b"\n" + line
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unwritable(path, error) from error


def copy_atomically(source: Path, target: Path, owner: Path) -> None:
    """Put the file at `source` under another name of its folder too, whole or not at all.

    A second link to it where the file system has links, as models are replaced and never written into. What a
    killed run leaves behind counts as `owner`'s. Raises `ModelError` naming `target`.
    """
    try:
        with _replacing(target, owner) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copy2(source, temporary)
                with temporary.open("rb+") as copied:
                    os.fsync(copied.fileno())
    except OSError as error:
        raise unwritable(target, error) from error


def clear_leftovers(path: str | Path) -> None:
    """Remove what writers of `path` that were killed have left behind. Only for one who knows that none is at work."""
    target = _real(Path(path))
    for temporary in target.parent.glob(f"{_temporary_prefix(target)}*.tmp"):
        with contextlib.suppress(OSError):
            temporary.unlink()


def unwritable(path: str | Path, error: OSError) -> ModelError:
    """The error to show for a write to `path` that failed with `error`."""
    reason = error.strerror or str(error)
    hint = _HINTS.get(error.errno or 0, "Name a place where you may write.")
    return ModelError(f"Cannot write {path}: {reason[:1].lower()}{reason[1:]}.", hint=hint, code="not_writable")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def _replacing(target: Path, owner: Path) -> Iterator[Path]:
    """A place for a new file, which takes the name `target` at the end; whatever happens, nothing else is left.

    What a killed run leaves there counts as `owner`'s.
    """
    temporary = target.with_name(f"{_temporary_prefix(owner)}{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):  # after the replacement there is none
            temporary.unlink()
    _flush_folder(target.parent)


def _temporary_prefix(target: Path) -> str:
    """How temporary files of this target begin: as long for every name, so that no name becomes too long."""
    return f".stacklstm-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"


def _write(descriptor: int, pieces: Iterable[bytes], *, to_disk: bool) -> None:
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        if to_disk:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the renaming itself last through a power cut, where the platform can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):  # the new file is complete and in place; some file systems refuse this
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
