"""The model file: a Forecaster, and the one that was judged, on disk and back.

No pickle, no class names: tensors by name and one JSON document (see header.py). The file holds neither
training rows nor a clock's time nor a path, so equal runs give equal files.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from stacklstm_cli.config import DataConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.panel import Columns, Ints, Panel
from stacklstm_cli.errors import ModelError
from stacklstm_cli.files import write_atomically
from stacklstm_cli.model.header import FORMAT, NO_DIGEST, cannot_read, damaged, seal, verify
from stacklstm_cli.model.network import NetworkSpec, StackedRNN

LIBRARIES = ("numpy", "pandas", "safetensors", "torch")
Weights = dict[str, Tensor]


@dataclass
class Checkpoint:
    """Everything prediction, evaluation and retraining need, and what a person may ask of a model."""

    columns: Columns
    step: Step
    time_form: TimeForm
    seasonality: int
    keys: tuple[tuple[str, ...], ...]
    """[N] the series it was trained on."""
    spec: NetworkSpec
    final: Weights
    """Weights fitted on all rows (or on all but the holdout, without a refit)."""
    trained_to: Ints
    """[N] position on the grid one after the last row that `final` has seen."""
    judged: Weights | None
    """Weights that have not seen the holdout; None where nothing was judged or `final` are these."""
    judged_to: Ints
    """[N] position one after the last row that the judged weights have seen."""
    data_to: Ints
    """[N] position one after the last row of the training file: where the holdout ends."""
    data: dict[str, Any] = field(default_factory=dict)
    """What the training data was: rows, series, first, last, step, gaps, fingerprint."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """The table of the holdout; empty where nothing was judged."""
    backtest: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    """Options as resolved, steps, losses, how it ended."""
    options: dict[str, Any] = field(default_factory=dict)
    """Data, model and training options as given, for `retrain`."""
    digest: str = NO_DIGEST

    @property
    def id(self) -> str:
        """A short name that differs for any two models."""
        return self.digest[:12]

    def network(self, weights: Weights) -> StackedRNN:
        """A network with these weights, on the CPU, ready to forecast."""
        with torch.device("meta"):
            network = StackedRNN(self.spec)
        network.load_state_dict(weights, strict=True, assign=True)
        return network.eval()

    def rows_of(self, panel: Panel, positions: Ints, unseen: Ints) -> Ints:
        """Positions of the trained series [N] as row counts of the panel's series [N'].

        A series that the model has not seen gets its count from `unseen` [N']. Counts may lie outside the series.
        """
        known = dict(zip(self.keys, positions.tolist(), strict=True))
        return np.asarray(
            [
                known[key] - start if key in known else other
                for key, start, other in zip(panel.keys, panel.starts.tolist(), unseen.tolist(), strict=True)
            ],
            dtype=np.int64,
        )


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write the model file at once or not at all, and set the checkpoint's digest. Raises `ModelError`."""
    tensors = {f"final.{name}": tensor for name, tensor in checkpoint.final.items()}
    tensors |= {f"judged.{name}": tensor for name, tensor in (checkpoint.judged or {}).items()}
    tensors |= {
        f"rows.{name}": torch.as_tensor(getattr(checkpoint, name)) for name in ("trained_to", "judged_to", "data_to")
    }
    document = {
        "format": FORMAT,
        "digest": NO_DIGEST,
        "network": checkpoint.spec.as_dict(),
        "columns": checkpoint.columns.as_dict(),
        "step": checkpoint.step.as_dict(),
        "time_form": checkpoint.time_form.as_dict(),
        "seasonality": checkpoint.seasonality,
        "series": [list(key) for key in checkpoint.keys],
        "data": checkpoint.data,
        "metrics": checkpoint.metrics,
        "backtest": checkpoint.backtest,
        "training": checkpoint.training,
        "options": checkpoint.options,
        "versions": versions(),
    }
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, sort_keys=True)
    sound = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    data = safetensors.torch.save(sound, {"stacklstm": text})
    digest = seal(data)
    write_atomically(path, data.replace(NO_DIGEST.encode(), digest.encode(), 1))
    checkpoint.digest = digest


def load(path: Path) -> Checkpoint:
    """Read a model file, every bit of it checked. Raises `ModelError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    document = verify(path, data)
    try:
        return build(document, safetensors.torch.load(data))
    except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise damaged(path, f"its document does not fit its tensors ({error})") from error


def build(document: dict[str, Any], tensors: Weights) -> Checkpoint:
    """A checkpoint from a file's document and tensors; weights that fit no network raise `RuntimeError`."""

    def part(prefix: str) -> Weights:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    checkpoint = Checkpoint(
        columns=Columns.from_dict(document["columns"]),
        step=Step.from_dict(document["step"]),
        time_form=TimeForm.from_dict(document["time_form"]),
        seasonality=int(document["seasonality"]),
        keys=tuple(tuple(key) for key in document["series"]),
        spec=NetworkSpec.from_dict(document["network"]),
        final=part("final."),
        judged=part("judged.") or None,
        data=document["data"],
        metrics=document["metrics"],
        backtest=document["backtest"],
        training=document["training"],
        options=document["options"],
        digest=document["digest"],
        **{name: tensor.numpy() for name, tensor in part("rows.").items()},
    )
    checkpoint.network(checkpoint.final)
    return checkpoint


def versions() -> dict[str, str]:
    """The libraries that made a model."""
    return {"python": platform.python_version(), "stacklstm": version("stacklstm")} | {
        name: version(name) for name in LIBRARIES
    }


def given_options(*configs: DataConfig | ModelConfig | TrainingConfig) -> dict[str, Any]:
    """The options of some configurations as one JSON object, as they were given."""
    merged: dict[str, Any] = {}
    for config in configs:
        merged |= asdict(config)
    return merged


def check_fits(checkpoint: Checkpoint, panel: Panel, path: Path) -> None:
    """Raise `ModelError` where a panel's step is not the model's."""
    if panel.step != checkpoint.step:
        raise ModelError(
            f"{path} was trained on steps of {checkpoint.step.label}, but the data has steps of {panel.step.label}.",
            hint="Name the model of this data with --model PATH, or train one.",
            code="step_differs",
        )
