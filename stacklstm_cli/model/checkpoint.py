"""The model file: a Forecaster, and the one that was judged, on disk and back.

No pickle, no class names: tensors by name and one JSON document (see header.py). The file holds neither
training rows nor a clock's time nor a path, so equal runs give equal files.
"""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from stacklstm_cli.config import MEDIAN, DataConfig, ModelConfig, ReadingConfig, TrainingConfig
from stacklstm_cli.data.calendar import Step, TimeForm, Unit
from stacklstm_cli.data.history import History
from stacklstm_cli.data.panel import Columns, Ints, Layout, Panel, Stored
from stacklstm_cli.errors import ModelError, UsageError
from stacklstm_cli.files import write_atomically
from stacklstm_cli.model.calibration import Calibration, sound
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.header import FORMAT, NO_DIGEST, cannot_read, damaged, sealed, verify
from stacklstm_cli.model.heads import LABELS
from stacklstm_cli.model.inputs import DAYS_OF_CYCLE, InputSpec, label_row_width
from stacklstm_cli.model.labels import Classifier, LabelNetwork, label_spec
from stacklstm_cli.model.layers import StackSpec, check_stack
from stacklstm_cli.model.lineage import is_sound
from stacklstm_cli.model.network import ROLES, NetworkSpec, StackedRNN

SECTIONS = ("data", "metrics", "backtest", "training", "options")
"""Parts of the document that are objects of their own."""
ROWS = ("trained_to", "judged_to", "data_to")
CALIBRATION_TENSORS = ("offsets", "effective")
"""What a file holds of each calibration, as `calibration.final.offsets` and so on; none in earlier files."""
HISTORY = ("first", "digests")
LABEL_OPTIONS = ("label", "class_weights")
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
    """Weights fitted on all rows; without a refit those that were judged."""
    trained_to: Ints
    """[N] position on the grid one after the last row that `final` was fitted to or chosen by."""
    judged: Weights | None
    """Weights that have not seen the holdout; None where nothing was judged or `final` are these."""
    judged_to: Ints
    """[N] position one after the last row that the judged weights were fitted to or chosen by."""
    data_to: Ints
    """[N] position one after the last row of the training file: where the holdout ends."""
    calibration: Calibration | None = None
    """That of the final weights, from all rows held out of the judged ones; None where there are none or no intervals
    or the file was written before there were any."""
    judged_calibration: Calibration | None = None
    """That of the holdout table, from the rows that chose and no others."""
    intervals: dict[str, Any] = field(default_factory=dict)
    """What the calibrations were made of, and the share of the holdout that each interval was to hold and held."""
    data: dict[str, Any] = field(default_factory=dict)
    """What the training data was: rows, series, first, last, step, gaps, fingerprint."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """The table of the holdout; empty where nothing was judged."""
    backtest: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    """Options as resolved, steps, losses, how it ended."""
    options: dict[str, Any] = field(default_factory=dict)
    """Data, model and training options as given, for `retrain`."""
    lineage: list[dict[str, Any]] = field(default_factory=list)
    """The retrainings behind this model, the newest last: see lineage.py."""
    history: History | None = None
    """Digests of the training rows; None in files of earlier versions."""
    search: dict[str, Any] = field(default_factory=dict)
    """What was tried to find some of them, and how the choice was made; empty where nothing was searched."""
    digest: str = NO_DIGEST

    @property
    def id(self) -> str:
        """A short name that differs for any two models."""
        return self.digest[:12]

    @property
    def stored(self) -> Stored:
        """What the reader must know of the training data."""
        labels = self.spec.labels
        classes = () if labels is None else labels.classes
        return Stored(self.columns, self.step, self.time_form, self.spec.inputs.covariates, classes)

    @property
    def data_config(self) -> DataConfig:
        """The step that was typed for the training data; everything else of it is in `stored`."""
        return DataConfig(freq=self.options.get("freq"))

    def reading(self, typed: ReadingConfig) -> ReadingConfig:
        """How the training data was read, where nothing else is typed."""
        names = [field.name for field in fields(ReadingConfig)]
        given = {name: getattr(typed, name) or self.options.get(name) for name in names}
        return ReadingConfig(**given | {"missing_value": tuple(given["missing_value"] or ())})

    def network(self, weights: Weights) -> StackedRNN:
        """A network with these weights, on the CPU, ready to forecast."""
        with torch.device("meta"):
            network = StackedRNN(self.spec)
        network.load_state_dict(weights, strict=True, assign=True)
        return network.eval()

    def classifier(self, device: torch.device) -> Classifier:
        """The networks of a model that gives labels."""
        labels = label_spec(self.spec)
        members = []
        for place in range(labels.members):
            prefix = f"{place}."
            own = {name.removeprefix(prefix): one for name, one in self.final.items() if name.startswith(prefix)}
            with torch.device("meta"):
                network = LabelNetwork(self.spec)
            network.load_state_dict(own, strict=True, assign=True)
            members.append(network)
        return Classifier(members, device, labels.temperature)

    def forecaster(self, device: torch.device) -> Forecaster:
        """The final weights with their calibration."""
        return Forecaster(self.network(self.final), device, self.calibration)

    def judged_forecaster(self, device: torch.device) -> Forecaster:
        """The judged weights with the calibration that has not seen the holdout either."""
        weights = self.final if self.judged is None else self.judged
        return Forecaster(self.network(weights), device, self.judged_calibration)

    @property
    def knows_holdout(self) -> bool:
        """Whether the final weights were fitted to the rows that the judged ones were judged on."""
        return bool((self.trained_to >= self.data_to).all())

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
    tensors |= {f"rows.{name}": torch.as_tensor(getattr(checkpoint, name)) for name in ROWS}
    calibrations = {"final": checkpoint.calibration, "judged": checkpoint.judged_calibration}
    for which, calibration in calibrations.items():
        if calibration is not None:
            tensors |= {
                f"calibration.{which}.{name}": torch.as_tensor(getattr(calibration, name))
                for name in CALIBRATION_TENSORS
            }
    history = checkpoint.history
    if history is not None:
        tensors |= {f"history.{name}": torch.as_tensor(getattr(history, name)) for name in HISTORY}
    document = {
        "format": FORMAT,
        "network": checkpoint.spec.as_dict(),
        "columns": checkpoint.columns.as_dict(),
        "step": checkpoint.step.as_dict(),
        "time_form": checkpoint.time_form.as_dict(),
        "seasonality": checkpoint.seasonality,
        "series": [list(key) for key in checkpoint.keys],
        "versions": versions(),
        "calibration": checkpoint.intervals,
        **{name: getattr(checkpoint, name) for name in SECTIONS},
        "lineage": checkpoint.lineage,
        **({"history": {"block": history.block}} if history is not None else {}),
        **({"search": checkpoint.search} if checkpoint.search else {}),
    }
    checkpoint.digest = write_sealed(path, tensors, document)


def write_sealed(path: Path, tensors: Weights, document: dict[str, Any]) -> str:
    """Write tensors and a document with its `format` as one file, and return its digest. Raises `ModelError`."""
    rest = json.dumps(document, ensure_ascii=False, allow_nan=False)
    text = f'{{"digest": "{NO_DIGEST}", {rest[1:]}'  # first, see header.digest_at
    sound = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    data, digest = sealed(safetensors.torch.save(sound, {"stacklstm": text}))
    write_atomically(path, data)
    return digest


def load(path: Path) -> Checkpoint:
    """Read a model file, every bit of it checked. Raises `ModelError`."""
    document, data = read_sealed(path)
    try:
        tensors = safetensors.torch.load(data)
        if any(".mixture." in name for name in tensors):
            raise ModelError(
                f"{path} mixes forecasts by smoothing in as stacklstm did before its first release.",
                hint="Train the model again.",
                code="model_outdated",
            )
        return build(document, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, UsageError, safetensors.SafetensorError) as error:
        raise damaged(path, f"its document does not fit its tensors ({error})") from error


def read_sealed(path: Path) -> tuple[dict[str, Any], bytes]:
    """The document and the bytes of a sealed file, every bit of it checked. Raises `ModelError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    return verify(path, data), data


def build(document: dict[str, Any], tensors: Weights) -> Checkpoint:
    """A checkpoint from a file's document and tensors; weights that fit no network raise `RuntimeError`."""

    def part(prefix: str) -> Weights:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    require_sound(document, tensors)
    checkpoint = Checkpoint(
        columns=Columns.from_dict(document["columns"]),
        step=Step.from_dict(document["step"]),
        time_form=TimeForm.from_dict(document["time_form"]),
        seasonality=document["seasonality"],
        keys=tuple(tuple(key) for key in document["series"]),
        spec=NetworkSpec.from_dict(document["network"]),
        final=part("final."),
        judged=part("judged.") or None,
        calibration=calibration_of("final", document, tensors),
        judged_calibration=calibration_of("judged", document, tensors),
        intervals=document.get("calibration", {}),
        lineage=document.get("lineage", []),
        history=stored_history(document, tensors),
        digest=document["digest"],
        search=document.get("search", {}),
        **({name: document[name] for name in SECTIONS} | {name: tensors[f"rows.{name}"].numpy() for name in ROWS}),
    )
    if checkpoint.spec.labels is not None:
        checkpoint.classifier(torch.device("cpu"))
        return checkpoint
    for weights in (checkpoint.final, checkpoint.judged):
        if weights is not None:
            checkpoint.network(weights)
    return checkpoint


def calibration_of(which: str, document: dict[str, Any], tensors: Weights) -> Calibration | None:
    """The calibration of the final or of the judged weights, where the file has one. Raises `ValueError`, `KeyError`.

    Files written before there were calibrations have none.
    """
    if not any(name.startswith(f"calibration.{which}.") for name in tensors):
        return None
    levels = tuple(document["network"]["quantiles"])
    parts = {name: tensors[f"calibration.{which}.{name}"].numpy() for name in CALIBRATION_TENSORS}
    calibration = Calibration(levels, **parts)
    require(sound(calibration, document["network"]["horizon"]), f"calibration of the {which} weights")
    return calibration


def stored_history(document: dict[str, Any], tensors: Weights) -> History | None:
    """The digests of the training rows. Raises `ValueError` where they do not fit the series."""
    if "history" not in document:
        return None
    block = document["history"]["block"]
    first, digests, ends = (tensors[name] for name in ("history.first", "history.digests", "rows.data_to"))
    require(is_count(block) and first.shape == ends.shape, "history")
    require(first.dtype == digests.dtype == torch.int64 and bool((first < ends).all()), "history")
    counts = -(-ends // block) - first // block  # [N]
    require(digests.shape == (int(counts.sum()),), "history")
    return History(block, first.numpy(), digests.numpy())


def require_sound(document: dict[str, Any], tensors: Weights) -> None:
    """Raise `ValueError`, `KeyError`, `TypeError` or `UsageError` where a document makes no sense.

    The digest proves that a file is as it was written, not that whoever wrote it was sane: types, bounds and
    words are checked before anything is built from them.
    """
    network, columns, step, form = (document[name] for name in ("network", "columns", "step", "time_form"))
    for name in ("context_length", "patch_length", "horizon"):
        require(is_count(network[name]), name)
    for name in ("location_length", "scale_length"):
        require(is_count(network[name]) and network[name] <= network["context_length"], name)
    stack = StackSpec.from_dict(network["stack"])
    require(is_count(stack.input_size) and all(map(is_count, (*stack.hidden_sizes, *stack.dilations))), "stack")
    flags = (network["skip"], stack.bidirectional, stack.residual, stack.layer_norm, stack.attention)
    require(all(isinstance(flag, bool) for flag in flags), "stack")
    inputs, labelled = InputSpec.from_dict(network["inputs"]), "labels" in network
    width = network["patch_length"] * (label_row_width(inputs) if labelled else inputs.row_width)
    require((network["loss"] == LABELS) == labelled, "loss")
    require(stack.input_size == width, "input_size")
    shares = (network["dropout"], stack.dropout, stack.recurrent_dropout)
    require(all(is_number(share) and 0 <= share < 1 for share in shares), "dropout")
    require(is_number(stack.forget_bias), "forget_bias")
    check_stack(stack, -(-network["context_length"] // network["patch_length"]))
    require(network["gaps"] != "error", "gaps")
    require(is_count(network.get("calendar_rows", 1)), "calendar_rows")
    season = network.get("smoothing_season", 0)
    require(season == 0 or (is_count(season) and 2 * season <= network["context_length"]), "smoothing_season")
    if season:  # whose tables are made before the tensors are compared: a false length must not fill the memory
        shape = (network["context_length"], network["horizon"])
        require(season > 1 and network["skip"] and tuple(tensors["final.skip"].shape) == shape, "smoothing_season")
    options = {field.name for field in fields(ModelConfig)}
    given = {name: value for name, value in (network | network["stack"]).items() if name in options}
    if labelled:
        del given["loss"]
    bounds = {"min": network["minimum"], "max": network["maximum"]}
    layers = {"layers": len(stack.hidden_sizes), "hidden_size": stack.hidden_sizes}
    ModelConfig(**given | bounds | layers | {"quantiles": ()})
    quantiles = network["quantiles"]
    require(quantiles == sorted(set(quantiles)) and MEDIAN in quantiles and quantiles[0] > 0, "quantiles")
    require(quantiles[-1] < 1, "quantiles")
    require_sound_inputs(network)
    for role in ROLES:
        names = [one["name"] for one in network["inputs"]["covariates"] if one["role"] == role]
        require(names == columns[role], role)
    require(columns["layout"] in get_args(Layout), "layout")
    roles = ("time", "ids", "targets", "past", "known", "static")
    require(all(is_names(columns[role]) for role in roles) and bool(columns["targets"]), "columns")
    require(step["unit"] in get_args(Unit), "unit")
    require(isinstance(step["count"], (int, float)) and not isinstance(step["count"], bool), "count")
    require(0 < step["count"] < float("inf") and isinstance(step["phase"], int), "step")
    require(form["kind"] in ("datetime", "integer", "row") and isinstance(form["format"], str), "time_form")
    require(is_count(document["seasonality"]), "seasonality")
    series = document["series"]
    require(isinstance(series, list) and all(is_names(key) for key in series), "series")
    require(len({tuple(key) for key in series}) == len(series) > 0, "series")
    for name in SECTIONS:
        require(isinstance(document[name], dict), name)
    facts = document.get("calibration", {})
    stored = any(name.startswith("calibration.") for name in tensors)
    require(isinstance(facts, dict) and bool(facts) == stored, "calibration")
    require(is_sound(document.get("lineage", [])), "lineage")
    require(isinstance(document.get("search", {}), dict), "search")
    for name in ROWS:
        rows = tensors[f"rows.{name}"]
        require(rows.dtype == torch.int64 and rows.shape == (len(series),), name)


def require_sound_inputs(network: dict[str, Any]) -> None:
    """The same for what the network sees beside the series, and for how its numbers are meant."""
    inputs = network["inputs"]
    roles = [one["role"] for one in inputs["covariates"]]
    require(roles == sorted(roles, key=ROLES.index), "roles")
    for one in inputs["covariates"]:
        require(isinstance(one["name"], str), "covariate")
        categories = one["categories"]
        require(categories is None or (is_names(categories) and len(set(categories)) == len(categories)), "categories")
    cycles = inputs["cycles"]
    require(is_names(cycles) and set(cycles) <= DAYS_OF_CYCLE.keys() and len(set(cycles)) == len(cycles), "cycles")
    require(isinstance(inputs["holidays"], str), "holidays")
    for name in ("loss", "gaps", "transform"):
        require(isinstance(network[name], str), name)
    bounds = [network[name] for name in ("minimum", "maximum")]
    require(all(bound is None or is_number(bound) for bound in bounds), "bounds")
    require(None in bounds or bounds[0] < bounds[1], "bounds")


def require(sound: bool, name: str) -> None:
    """Raise `ValueError` naming what is not sound."""
    if not sound:
        raise ValueError(name)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


@cache
def versions() -> dict[str, str]:
    """The libraries that made a model, not to be changed."""
    return {"python": platform.python_version(), "stacklstm": version("stacklstm")} | {
        name: version(name) for name in LIBRARIES
    }


def given_options(*configs: DataConfig | ReadingConfig | ModelConfig | TrainingConfig) -> dict[str, Any]:
    """The options of some configurations as one JSON object, as they were given."""
    merged: dict[str, Any] = {}
    for config in configs:
        merged |= asdict(config)
    if merged.get("label") is None:  # a forecast has none of these
        for name in LABEL_OPTIONS:
            merged.pop(name, None)
    return merged
