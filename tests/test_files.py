"""`stacklstm_cli.files`: whole or not at all, whatever goes wrong."""

import errno
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklstm_cli.errors import ExitStatus, ModelError
from stacklstm_cli.files import (
    append_line,
    check_appendable,
    check_writable,
    clear_leftovers,
    copy_atomically,
    write_atomically,
)

posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX permissions, links and pipes")


def test_a_new_file_holds_the_bytes_and_has_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.write_bytes(b"")
    write_atomically(tmp_path / "new", b"abc")
    assert (tmp_path / "new").read_bytes() == b"abc"
    assert (tmp_path / "new").stat().st_mode == usual.stat().st_mode


@posix_only
def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"old")
    target.chmod(0o640)
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@posix_only
def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "model").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to("store/model")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "store" / "model").read_bytes() == b"new"


@posix_only
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"abc")
    reader.join()
    assert received == [b"abc"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_litter(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "model"
    target.write_bytes(b"old")
    monkeypatch.setattr(Path if step == "replace" else os, step, full)
    with pytest.raises(ModelError) as caught:
        write_atomically(target, b"new")
    assert caught.value.exit_status == ExitStatus.MODEL
    assert str(target) in caught.value.message
    assert "no space left" in caught.value.message
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]  # noqa: PTH208 - names are what is compared


def test_an_interrupt_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "model", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_one_byte_at_a_time_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1]))
    write_atomically(tmp_path / "model", b"abc")
    assert (tmp_path / "model").read_bytes() == b"abc"


@posix_only
def test_a_folder_that_cannot_be_flushed_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    write_atomically(tmp_path / "model", b"abc")
    assert (tmp_path / "model").read_bytes() == b"abc"


def test_a_place_where_nothing_can_be_written_is_named_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "kept").write_bytes(b"")
    (tmp_path / "kept").chmod(0o444)
    for target, reason in [
        (tmp_path, "directory"),
        (tmp_path / "none" / "model", "there is no folder"),
        (tmp_path / "file" / "model", "directory"),
        (tmp_path / "kept", "read-only"),
    ]:
        for refuses in (check_writable, lambda path: write_atomically(path, b"x")):
            with pytest.raises(ModelError) as caught:
                refuses(target)
            assert str(target) in caught.value.message
            assert reason in caught.value.message
            assert caught.value.hint
    assert (tmp_path / "kept").read_bytes() == b""


class TestAppend:
    def test_lines_stand_behind_each_other(self, tmp_path: Path) -> None:
        """In a file that is made for the first; a line that was cut short is not continued."""
        path = tmp_path / "log"
        append_line(path, b"one\n")
        append_line(path, b"two\n")
        path.write_bytes(path.read_bytes() + b"cut")
        append_line(path, b"three\n")
        assert path.read_bytes() == b"one\ntwo\ncut\nthree\n"

    def test_no_place_for_a_line(self, tmp_path: Path) -> None:
        """A directory, a folder that is not there, a file that may not be written: named, and nothing is made."""
        (tmp_path / "read_only").write_bytes(b"")
        (tmp_path / "read_only").chmod(0o444)
        for place in (tmp_path, tmp_path / "no" / "log", tmp_path / "read_only"):
            for attempt in (lambda: check_appendable(place), lambda: append_line(place, b"x\n")):  # noqa: B023
                with pytest.raises(ModelError, match=re.escape(str(place))) as caught:
                    attempt()
                assert caught.value.exit_status == 4
        assert (tmp_path / "read_only").read_bytes() == b""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
    def test_a_full_disk(self) -> None:
        with pytest.raises(ModelError, match="/dev/full"):
            append_line("/dev/full", b"x\n")


def test_pieces_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """The old file stays where the pieces end in an error, and nothing else is left."""
    path = tmp_path / "file"
    write_atomically(path, iter([b"a", b"b"]))
    assert path.read_bytes() == b"ab"

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, pieces())
    assert path.read_bytes() == b"ab"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_writer_are_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this file alone: another one's writer may be at work."""

    def killed(descriptor: int) -> None:
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process cleans nothing up
        raise KeyboardInterrupt

    for name in ("model", "other"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", killed)
            with pytest.raises(KeyboardInterrupt):
                write_atomically(tmp_path / name, b"new")
        monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2
    clear_leftovers(tmp_path / "model")
    (left,) = tmp_path.iterdir()
    clear_leftovers(tmp_path / "model")
    assert left.exists()
    clear_leftovers(tmp_path / "other")
    assert list(tmp_path.iterdir()) == []


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    """The temporary file's name is no longer."""
    target = tmp_path / ("m" * 255)
    write_atomically(target, b"abc")
    assert target.read_bytes() == b"abc"


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no links and the disk is full half-way: the error names the target, the source is alone again."""
    source = tmp_path / "model"
    source.write_bytes(b"abc")

    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def half(_: Path, target: Path) -> None:
        target.write_bytes(b"a")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr("shutil.copy2", half)
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / "model.1"))):
        copy_atomically(source, tmp_path / "model.1", source)
    assert list(tmp_path.iterdir()) == [source]
