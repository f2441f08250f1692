"""The exit statuses of the command line, and the one exception tree for what a user can mend.

Anything that is not a `StacklstmError` is a bug in stacklstm and keeps its traceback.
"""

from __future__ import annotations

import enum


class ExitStatus(enum.IntEnum):
    """What a script may branch on after a command has ended."""

    OK = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    MODEL = 4
    JUDGEMENT = 5
    LOCKED = 6
    UNCHANGED = 7
    NOTHING_LEARNED = 8
    SIGINT = 130
    SIGTERM = 143


class StacklstmError(Exception):
    """Something a user can mend.

    `message` says what was found, where and what was expected; `hint` says what to type;
    `code` is a stable word for programs.
    """

    exit_status = ExitStatus.BUG

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).__name__.removesuffix("Error").lower()


class UsageError(StacklstmError):
    """The command was typed in a way that cannot work: options, values, combinations."""

    exit_status = ExitStatus.USAGE


class DataError(StacklstmError):
    """The data file is missing or holds something that cannot be read one way only."""

    exit_status = ExitStatus.DATA


class ModelError(StacklstmError):
    """The model file is missing, damaged, newer than this program, not this data's, or not writable."""

    exit_status = ExitStatus.MODEL


class JudgementError(StacklstmError):
    """A judgement that was asked for went against the model."""

    exit_status = ExitStatus.JUDGEMENT


class LockedError(StacklstmError):
    """Another run is at work on the model."""

    exit_status = ExitStatus.LOCKED


class StoppedError(StacklstmError):
    """A signal ended the run before there was anything to save."""

    def __init__(self, exit_status: ExitStatus) -> None:
        super().__init__("Stopped by a signal before the first step; nothing was saved.", code="stopped")
        self.exit_status = exit_status


class ToldError(StacklstmError):
    """The first of several processes shows what went wrong; this one ends with the same status and says nothing."""

    def __init__(self, exit_status: ExitStatus) -> None:
        super().__init__("The first process says what went wrong.", code="told")
        self.exit_status = exit_status


class PeerLostError(StacklstmError):
    """Another of the processes that work together has ended; nothing is wrong with this one."""

    exit_status = ExitStatus.SIGTERM

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, code="peer_lost")


class NothingLearnedError(StacklstmError):
    """Training ended before one optimiser step, or without a finite result."""

    exit_status = ExitStatus.NOTHING_LEARNED


def out_of_memory(error: Exception) -> UsageError | None:
    """What to say of an allocation that failed, in Python, NumPy or torch, which has no class for it on the CPU."""
    known = ("can't allocate memory", "not enough memory", "out of memory", "unable to allocate")
    torch_failed = isinstance(error, RuntimeError) and any(words in str(error).lower() for words in known)
    if not torch_failed and not isinstance(error, MemoryError):
        return None
    return UsageError(
        "There is not enough memory for this network on this data.",
        hint="Give a smaller --hidden-size, --batch-size or --context-length.",
        code="out_of_memory",
    )
