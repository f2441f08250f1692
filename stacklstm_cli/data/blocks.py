"""The content of a file as text in blocks: where it lies, its compression, its encoding.

Nothing here holds a whole file, save what can be read only once (standard input, a pipe).
"""

from __future__ import annotations

import codecs
import io
import lzma
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from stacklstm_cli.errors import DataError

BLOCK = 1 << 20
"""Bytes."""
UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class File:
    """A file that can be read more than once."""

    name: str
    """For messages."""
    path: str
    held: bytes | None
    """The content of a file that can be read only once."""
    state: tuple[int, int] = (0, 0)
    """Size and time of change of a file that lies on disk."""

    def open(self) -> BinaryIO:
        """Raises `DataError` where the file has changed since it was first opened."""
        if self.held is not None:
            return io.BytesIO(self.held)
        try:
            handle = Path(self.path).open("rb")  # noqa: SIM115 - the caller closes it
        except (OSError, ValueError) as error:
            raise unreadable(self.path, error) from error
        if _state(os.fstat(handle.fileno())) != self.state:
            handle.close()
            raise DataError(
                f"{self.name}: the file was changed while it was read.",
                hint="Wait until it is written, or give a copy of it.",
                code="file_changed",
            )
        return handle

    def blocks(self) -> Iterator[bytes]:
        with self.open() as handle:
            while block := self._read(handle):
                yield block

    def _read(self, handle: BinaryIO) -> bytes:
        try:
            return handle.read(BLOCK)
        except OSError as error:
            raise unreadable(self.path, error) from error


def file_at(path: str, stdin: BinaryIO | None = None) -> File:
    """The file at a path; "-" is standard input. Raises `DataError` where it cannot be opened."""
    if path == "-":
        return File("standard input", path, (stdin or sys.stdin.buffer).read())
    try:
        with Path(path).open("rb") as handle:
            status = os.fstat(handle.fileno())
            if stat.S_ISREG(status.st_mode):
                return File(path, path, None, _state(status))
            return File(path, path, handle.read())
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def unreadable(path: str, error: OSError | ValueError) -> DataError:
    """The error for a path that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        reason, code = "there is no such file", "file_missing"
    elif Path(path).is_dir():  # Linux calls it that, Windows a lack of permission
        reason, code = "it is a directory, expected a file", "file_unreadable"
    elif isinstance(error, PermissionError):
        reason, code = "it may not be read", "file_unreadable"
    else:
        reason, code = getattr(error, "strerror", None) or str(error), "file_unreadable"
    return DataError(f"{path}: {reason}.", hint="Check the path of DATA.", code=code)


@dataclass(frozen=True)
class TextFile:
    """A file of text, whatever its compression and encoding, as blocks of UTF-8."""

    file: File
    compression: str
    """gzip, bz2, zstd, xz, or empty."""
    encoding: str = "utf-8"

    @property
    def name(self) -> str:
        return self.file.name

    def blocks(self) -> Iterator[bytes]:
        """UTF-8 without a byte-order mark. Raises `UnicodeDecodeError` in any encoding but UTF-8."""
        if self.encoding == "utf-8":
            marked = True
            for block in self.content():
                yield block.removeprefix(UTF8_MARK) if marked else block
                marked = False
        else:
            for text in self._decoded():
                yield text.encode()

    def undecodable_line(self) -> int | None:
        """The first line that is not text in the encoding."""
        line = 1
        try:
            for text in self._decoded():
                end = text.find("\0")
                line += text.count("\n", 0, None if end < 0 else end)
                if end >= 0:
                    return line
        except UnicodeDecodeError as error:
            return line + error.object[: error.start].decode(self.encoding, "replace").count("\n")
        return None

    def _decoded(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self.encoding)()
        marked = True
        for block in self.content():
            text = decoder.decode(block)
            yield text.removeprefix("\ufeff") if marked else text
            marked = marked and not text
        yield decoder.decode(b"", True)

    def content(self) -> Iterator[bytes]:
        """The bytes of the text as they are. Raises `DataError` for damaged compression."""
        if not self.compression:
            yield from self.file.blocks()
            return
        with self.file.open() as handle:
            try:
                with self._unpacked(handle) as unpacked:
                    while block := unpacked.read(BLOCK):
                        yield block
            except Exception as error:
                # Each library has its own exceptions for damaged data; all mean the same here.
                raise DataError(
                    f"{self.name}: the compressed file is damaged or cut short ({error}).",
                    hint="Copy or write it again.",
                    code="file_damaged",
                ) from error

    def _unpacked(self, handle: BinaryIO) -> Any:
        if self.compression == "xz":
            return lzma.LZMAFile(handle)
        return pa.CompressedInputStream(pa.PythonFile(handle, "r"), self.compression)
