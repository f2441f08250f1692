"""Small files, written in a test and read at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stacklstm_cli.config import DataConfig, ReadingConfig
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import StacklstmError

Read = Callable[..., Panel]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write text or bytes to a file and read it with options."""

    def read_text(text: str | bytes, **options: Any) -> Panel:
        path = tmp_path / "data.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        names = {field.name for field in dataclasses.fields(ReadingConfig)} & options.keys()
        reading = ReadingConfig(**{name: options.pop(name) for name in names})
        return read_panel([str(path)], DataConfig(**options), reading)

    return read_text


def refused(error: type[StacklstmError], code: str, read: Read, text: str | bytes, **options: Any) -> str:
    """The message and the hint of a refusal."""
    with pytest.raises(error) as caught:
        read(text, **options)
    assert caught.value.code == code
    return f"{caught.value.message}\n{caught.value.hint}"


def following(panel: Panel, rows: int = 1) -> dict[str, list[str]]:
    """The columns of time of the rows behind the end of the first series."""
    return panel.time_columns(panel.ends[0] + np.arange(rows))


def values_of(panel: Panel, name: str) -> list[float]:
    return panel.series([panel.name(index) for index in range(panel.n_series)].index(name)).tolist()
