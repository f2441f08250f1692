"""stacklstm: from a CSV file to a forecast by a stacked LSTM, in one command.

The names below are the public Python interface. They are loaded when first used: importing this package
costs nothing.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

STARTED = time.monotonic()
"""When the program started, as far as Python code can tell."""

HOMES = {
    "Panel": "data.panel",
    "read_panel": "data.reading",
    "Checkpoint": "model.checkpoint",
    "load": "model.checkpoint",
    "save": "model.checkpoint",
    "Forecaster": "model.forecaster",
    "evaluate": "evaluation.scoring",
    "resolve": "training.defaults",
    "Trainer": "training.fitting",
    "DataConfig": "config",
    "EvaluationConfig": "config",
    "MetricConfig": "config",
    "ModelConfig": "config",
    "RuntimeConfig": "config",
    "TrainingConfig": "config",
    "StacklstmError": "errors",
}
__all__ = ["__version__", *HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("stacklstm")
    if name in HOMES:
        return getattr(importlib.import_module(f"stacklstm_cli.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
