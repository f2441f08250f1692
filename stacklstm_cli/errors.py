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


class NothingLearnedError(StacklstmError):
    """Training ended before one optimiser step, or without a finite result."""

    exit_status = ExitStatus.NOTHING_LEARNED
