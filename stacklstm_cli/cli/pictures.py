"""Pictures of what a command found: checked before the work, then written to a file or drawn in the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stacklstm_cli.cli.charts import Picture
from stacklstm_cli.cli.messages import Messages, is_styled, prose_width
from stacklstm_cli.cli.plots import SUFFIXES, picture_bytes
from stacklstm_cli.cli.report import refuse_overwriting
from stacklstm_cli.cli.terminal import text_of
from stacklstm_cli.config import OutputConfig, PictureConfig
from stacklstm_cli.errors import UsageError
from stacklstm_cli.files import check_writable, write_atomically

PAGES = (".html", ".htm")
WIDTH, HEIGHT = 80, 24
"""Columns and rows where no terminal says how many it has."""


def check_pictures(
    pictures: PictureConfig, output: OutputConfig, *taken: str | Path, report: str | None = None
) -> None:
    """Find out before the work whether its pictures can be written, and over none of the files `taken`.

    Raises `UsageError` for a file name that ends in no kind of picture, `ModelError` where nothing can be written.
    """
    others = [*taken, *([output.output] if output.output is not None else [])]
    for option, place, suffixes in (("--plot", pictures.plot, SUFFIXES), ("--report", report, PAGES)):
        if place is None:
            continue
        if Path(place).suffix.lower() not in suffixes:
            raise UsageError(
                f"{option} is {place!r}; expected a file that ends in {named(suffixes)}.",
                hint=f"For example: {option} {Path(place).stem or 'picture'}{suffixes[0]}",
                code="unknown_suffix",
            )
        refuse_overwriting(option, place, others)
        check_writable(place)
        others.append(place)


def named(suffixes: Iterable[str]) -> str:
    *first, last = suffixes
    return f"{', '.join(first)} or {last}"


@contextlib.contextmanager
def drawn(pictures: PictureConfig, messages: Messages, picture: Callable[[], Picture | None]) -> Iterator[None]:
    """Where a picture was asked for: write its file before the body, which writes the result, and show it after that.

    Raises `ModelError` where the file cannot be written.
    """
    if pictures.plot is None and not pictures.show:
        yield
        return
    made = picture()
    if made is None:
        messages.note("there is nothing to draw")
    elif pictures.plot is not None:
        write_atomically(pictures.plot, picture_bytes(made, Path(pictures.plot).suffix.lower()))
        messages.note(f"drew {pictures.plot}" + (f"; {made.left_out}" if made.left_out else ""))
    yield
    if pictures.show and made is not None:
        show(made)


def show(picture: Picture) -> None:
    """Draw on standard error, in its width, as standard output holds the result alone."""
    stream = sys.stderr
    if stream is None:
        return
    height = HEIGHT
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no terminal has no height
        height = os.get_terminal_size(stream.fileno()).lines or HEIGHT
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with contextlib.suppress(BrokenPipeError):
        stream.write(text_of(picture, prose_width(stream) or WIDTH, height, is_styled(stream), encoding))
        stream.flush()
