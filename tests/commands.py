"""Commands as typed, in this process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
from typer.testing import CliRunner, Result

from stacklstm_cli.cli.app import app, model_path


def run(*words: str | Path, stdin: bytes | None = None) -> Result:
    """One command."""
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def ok(*words: str | Path, stdin: bytes | None = None) -> Result:
    """One command that must end well."""
    done = run(*words, stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return done


MODELS: dict[Any, bytes] = {}


def trained(*words: str | Path) -> Path:
    """Where `train DATA …` has put its model. Equal commands on equal files run once, so no more is wanted of them."""
    data, *options = map(str, words)
    model = Path(options[options.index("-m") + 1]) if "-m" in options else model_path(None, [data])
    key = (Path(data).read_bytes(), *(option for option in options if option != str(model)))
    if key not in MODELS:
        ok("train", *words)
        MODELS[key] = model.read_bytes()
    model.write_bytes(MODELS[key])
    return model


def table_of(result: Result) -> pd.DataFrame:
    """The CSV on standard output, its numbers to the last bit."""
    return pd.read_csv(io.StringIO(result.stdout), float_precision="round_trip")
