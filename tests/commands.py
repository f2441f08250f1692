"""Commands as typed, in this process."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
from typer.testing import CliRunner, Result

from stacklstm_cli.cli.app import app


def run(*words: str | Path, stdin: bytes | None = None) -> Result:
    """One command."""
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def ok(*words: str | Path, stdin: bytes | None = None) -> Result:
    """One command that must end well."""
    done = run(*words, stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return done


def table_of(result: Result) -> pd.DataFrame:
    """The CSV on standard output, its numbers to the last bit."""
    return pd.read_csv(io.StringIO(result.stdout), float_precision="round_trip")
