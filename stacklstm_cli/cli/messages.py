"""Everything that goes to standard error, and the one place where errors are shown."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import signal
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from stacklstm_cli.cli.command import Light
from stacklstm_cli.errors import (
    ExitStatus,
    ModelError,
    StacklstmError,
    StoppedError,
    ToldError,
    UsageError,
    out_of_memory,
)
from stacklstm_cli.files import unwritable
from stacklstm_cli.ranks import Ranks

_STYLES = {"error": "1;31", "warning": "33", "hint": "36", "note": "2"}
SILENT = -2
"""The verbosity that says nothing but errors."""
SECONDS_TO_BE_ENDED = 3.0
"""How long one of several processes waits before it shows its error: torchrun looks ten times a second whether the
first one has failed, which then has said why."""
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class Messages:
    """Notes, warnings and details for the person who waits.

    `verbosity` is 0, plus one per -v, minus one per -q: below 0 notes are silent, below -1 warnings too.
    Without a `stream` each message goes to what `sys.stderr` is at that moment.
    """

    def __init__(self, verbosity: int = 0, stream: TextIO | None = None) -> None:
        self.verbosity = verbosity
        self.warnings: list[dict[str, str]] = []
        self._stream = stream

    @property
    def progress_stream(self) -> TextIO | None:
        """Where a progress bar may be drawn; None with -q."""
        return (self._stream or sys.stderr) if self.verbosity >= 0 else None

    def note(self, text: str) -> None:
        """Say what was understood or chosen; silent with -q."""
        if self.verbosity >= 0:
            say("note", text, self._stream)

    def warning(self, code: str, text: str) -> None:
        """Say what may be wrong, and keep it for the JSON document; silent with -qq."""
        self.warnings.append({"code": code, "message": text})
        if self.verbosity >= -1:
            say("warning", text, self._stream)

    def detail(self, text: str) -> None:
        """Explain more; only with -v."""
        if self.verbosity > 0:
            say("", text, self._stream)


def say(label: str, text: str, stream: TextIO | None = None) -> None:
    """Write one message, wrapped as `prose_width` says. A closed standard error never ends the work."""
    stream = stream or sys.stderr
    if stream is None:  # Python's own value for a standard error that was closed at the start
        return
    head = f"{label}: " if label else ""
    message = wrapped(head + printable(text), prose_width(stream))
    if head and is_styled(stream):
        message = f"\x1b[{_STYLES[label]}m{label}:\x1b[0m" + message[len(label) + 1 :]
    with contextlib.suppress(BrokenPipeError):
        stream.write(message + "\n")
        stream.flush()


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads this stream."""
    return stream is not None and stream.isatty()


def is_styled(stream: TextIO | None) -> bool:
    """Whether to use bold and colours: NO_COLOR forbids, FORCE_COLOR demands, else only on a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("TERM") == "dumb" or (os.name == "nt" and "WT_SESSION" not in os.environ):
        return False
    return is_terminal(stream)


def prose_width(stream: TextIO | None) -> int | None:
    """Columns to wrap at: COLUMNS, else the terminal's width; None, no wrapping, off a terminal."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    if stream is None or not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except OSError:  # a terminal without a size, such as a test's
        return None


def wrapped(text: str, width: int | None) -> str:
    """`text` in lines of at most `width` columns, never cutting a word; as it is where `width` is None."""
    if width is None:
        return text
    fill = functools.partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(fill(line) for line in text.split("\n"))


def printable(text: str) -> str:
    """`text` with control characters, which could drive a terminal, in their escaped form."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", lambda found: repr(found[0])[1:-1], text)


def show_error(error: StacklstmError, as_json: bool) -> None:
    """Write the error to standard error: message and hint for a person, or one line of JSON for a program."""
    if not as_json:
        say("error", error.message)
        if error.hint:
            say("hint", error.hint)
    elif sys.stderr is not None:
        line = json.dumps({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


class ErrorGroup(Light, TyperGroup):
    """The group of commands that ends the program: shows what went wrong and exits with its `ExitStatus`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that was typed and exit; with `standalone_mode` off, let errors through."""
        run = functools.partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        configured: dict[str, Any] = {}  # the context's `obj`: `--config` leaves the format here
        follows = _follows()
        with _without_output() if follows else contextlib.nullcontext():
            status, error = _outcome(functools.partial(run, obj=configured))
        if error is not None and not (follows and (isinstance(error, (ToldError, StoppedError)) or _is_ended())):
            typed = _typed_format(sys.argv[1:] if args is None else args)
            show_error(error, as_json=(typed or configured.get("format")) == "json")
        for stream in (sys.stdout, sys.stderr):
            _leave(stream)
        sys.exit(int(status))


def _follows() -> bool:
    """Whether this is one of several processes, and not the first."""
    try:
        return not Ranks.of().leads
    except UsageError:  # shown when a command asks
        return False


@contextlib.contextmanager
def _without_output() -> Iterator[None]:
    """Where several processes do the same, a help or a result is shown by the first."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):  # noqa: PTH123
        yield


def _is_ended() -> bool:
    """Wait for torchrun to end this process, as it does at once where the first one has failed, and said why.

    Without that the error is this process's own, such as a file that is missing on its machine.
    """
    ended: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: ended.append(number)) for number in numbers}
    begin = time.monotonic()
    while not ended and time.monotonic() - begin < SECONDS_TO_BE_ENDED:
        time.sleep(0.05)
    for number, handler in before.items():
        signal.signal(number, handler)
    return bool(ended)


def _outcome(run: Callable[[], Any]) -> tuple[int, StacklstmError | None]:
    """Run it; the exit status, and the error to show if there is one."""
    try:
        status = run()
        if sys.stdout is not None:
            sys.stdout.flush()
        return status if isinstance(status, int) else ExitStatus.OK, None
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # how Typer ends when the reader has gone, as in `| head`
            return ExitStatus.OK, None
        raise
    except BrokenPipeError:
        return ExitStatus.OK, None
    except KeyboardInterrupt:
        return ExitStatus.SIGINT, None
    except StacklstmError as error:
        return error.exit_status, error
    except typer.TyperException as error:
        return ExitStatus.USAGE, _usage_error(error)
    except OSError as error:
        if error.errno in _NO_PLACE:
            return ExitStatus.MODEL, _no_place(error)
        return ExitStatus.BUG, _bug(error)
    except Exception as error:
        explained = out_of_memory(error)
        return (ExitStatus.BUG, _bug(error)) if explained is None else (explained.exit_status, explained)


def _usage_error(error: typer.TyperException) -> UsageError | None:
    """Typer's error in our form; None where the help is shown instead, as for no arguments at all."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help, and Typer does not export it
        typer.echo(message, err=not _follows())
        return None
    hint = f"`{context.command_path} --help` shows what can be typed." if context else ""
    return UsageError(message, hint=hint) if message else None


def _no_place(error: OSError) -> ModelError:
    return unwritable(error.filename or "a file", error)


def _bug(error: Exception) -> StacklstmError:
    """Print the traceback, without local variables: they may hold rows of the user's data."""
    if sys.stderr is not None:
        with contextlib.suppress(BrokenPipeError):
            traceback.print_exception(error, file=sys.stderr)
    message = f"This is a bug in stacklstm ({type(error).__name__}: {error})."
    return StacklstmError(message, hint="Please report it with the traceback above and what you typed.", code="bug")


def _typed_format(words: Sequence[str]) -> str:
    """The last `--format` on the command line; read here too because an error may come before parsing is done."""
    found = ""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word == "--":
            break
        if word == "--format":
            found = following
        elif word.startswith("--format="):
            found = word.removeprefix("--format=")
    return found


def _leave(stream: TextIO | None) -> None:
    """Flush; where that fails, point the stream at nothing, or Python would complain about it at exit."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
