"""Whether an ONNX file forecasts as torch does, on the windows of a panel.

The truth is `Forecaster.forecast`, from the panel to the user's units; the file gets raw contexts, cut here.

Shape letters: B windows, L context, H horizon, Q quantiles, N series.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Covariate, Floats, Panel
from stacklstm_cli.errors import ModelError
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.export import exported_forecaster, exported_levels, inputs_of
from stacklstm_cli.model.labels import LabelWindows, label_windows, mean_probabilities
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.model.windows import Windows, from_learned_units, learned_units

TOLERANCE = 1e-5
"""Of the unit in which a forecast is learned (`units`). Both compute the network in float32, in another order."""
WINDOWS = 256
"""Most windows to compare."""
RANDOM_SERIES = 64
MISSING = 0.2
"""Share of missing cells in every other random series."""


@dataclass(frozen=True)
class Agreement:
    """How near an ONNX file comes to torch."""

    windows: int
    largest_difference: float
    """In deviations of the window, or as a share of a distribution's parameter."""


def compare(data: bytes, checkpoint: Checkpoint, panel: Panel) -> Agreement:
    """Compare the bytes of an ONNX file with its model on windows of a panel, spread evenly over its rows.

    Raises `ModelError` where they differ by more than `TOLERANCE`.
    """
    spec = checkpoint.spec
    if spec.labels is not None:
        return compare_labels(data, checkpoint, panel)
    forecaster = checkpoint.forecaster(torch.device("cpu"))
    if spec.loss == "negative-binomial":
        forecaster = exported_forecaster(checkpoint)  # parameters are compared with parameters
    origins = windows_to_compare(panel, spec)
    expected = forecaster.forecast(panel, origins, spec.horizon, exported_levels(spec))  # [B, H, Q]
    found = run_onnx(data, raw_inputs(panel, origins, spec), forecaster.batch_size)  # [B, H, Q]
    unit = units(expected, panel, origins, spec)
    differs = found != expected  # [B, H, Q]; NaN is unlike anything, and no window without a value is compared
    difference = np.abs(found[differs] - expected[differs]) / unit[differs]
    largest = float(np.max(np.nan_to_num(difference, nan=np.inf), initial=0.0))
    if largest > TOLERANCE:
        raise disagreement("forecast", len(origins), f"{largest:.1e} deviations of the window")
    return Agreement(len(origins), largest)


def compare_labels(data: bytes, checkpoint: Checkpoint, panel: Panel) -> Agreement:
    """The same for a model that gives labels, by the probability of every class."""
    spec = checkpoint.spec
    origins = label_windows(panel.lengths, spec)
    chosen = np.unique(np.linspace(0, len(origins) - 1, WINDOWS).astype(np.int64))
    series, rows = (torch.as_tensor(part[chosen]) for part in (origins.series, origins.rows))
    windows = LabelWindows(panel, spec, torch.device("cpu"))
    inputs = windows.inputs(series, rows)
    classifier = checkpoint.classifier(torch.device("cpu"))
    with torch.inference_mode():
        taken = inputs.to(torch.device("cpu"), torch.float32)
        expected = mean_probabilities(classifier.members, taken, classifier.temperature).numpy()  # [B, H, K]
    given = {"observed": inputs.observed.bool(), "past": inputs.past, "static": inputs.static}
    raw = {slot.name: given[slot.name].to(slot.dtype).numpy() for slot in inputs_of(spec)}
    found = run_onnx(data, raw, max(1, len(chosen) // 2))
    difference = np.abs(found.reshape(expected.shape) - expected)
    largest = float(np.max(np.nan_to_num(difference, nan=np.inf), initial=0.0))
    if largest > TOLERANCE:
        raise disagreement("tell labels", len(chosen), f"{largest:.1e} in a probability")
    return Agreement(len(chosen), largest)


def disagreement(what: str, windows: int, difference: str) -> ModelError:
    """The error for an ONNX file that says something else than its model."""
    return ModelError(
        f"The ONNX file would not {what} as the model does: on {windows} windows it differs by up to {difference}, "
        f"{TOLERANCE:.0e} are allowed. Nothing was written.",
        hint="Please report it, with the output of `stacklstm inspect` for this model and the versions of torch, "
        "onnx and onnxruntime.",
        code="export_differs",
    )


def windows_to_compare(panel: Panel, spec: NetworkSpec) -> Origins:
    """Origins spread evenly over all rows, at most `WINDOWS`, whose contexts hold a value."""
    place = np.unique(np.linspace(0, panel.values.size - 1, WINDOWS).astype(np.int64))  # [B]
    series = np.searchsorted(panel.offsets, place, side="right") - 1
    values = np.concatenate([[0], np.cumsum(~np.isnan(panel.values))])
    oldest = np.maximum(place + 1 - spec.context_length, panel.offsets[series])
    seen = values[place + 1] > values[oldest]
    return Origins(series[seen], (place + 1 - panel.offsets[series])[seen])


def raw_inputs(panel: Panel, origins: Origins, spec: NetworkSpec) -> dict[str, npt.NDArray[Any]]:
    """What the graph takes for these origins, by the names of its inputs."""
    windows = Windows(learned_units(panel, spec), spec, torch.device("cpu"))
    series, rows = torch.as_tensor(origins.series), torch.as_tensor(origins.rows)
    inputs = windows.batch(series, rows).inputs
    begin, end = windows.offsets[series].unsqueeze(1), (windows.offsets[series] + rows).unsqueeze(1)  # [B, 1] each
    index = end + windows.steps_back  # [B, L]
    inside, index = index >= begin, index.clamp(min=0)
    values = torch.as_tensor(panel.values)[index]  # [B, L]
    if spec.gaps != "mask":
        filled = windows.filled(index, end)  # [B, L]
        values = torch.where(values.isnan(), from_learned_units(filled, spec), values)
    given = {
        "context": values.where(inside, torch.nan),
        "observed": inputs.observed.bool(),
        "past": inputs.past,
        "future": inputs.future,
        "static": inputs.static,
        "calendar": inputs.calendar,
    }
    return {slot.name: given[slot.name].to(slot.dtype).numpy() for slot in inputs_of(spec)}


def run_onnx(data: bytes, inputs: dict[str, npt.NDArray[Any]], batch_size: int) -> Floats:
    """[B, H, Q] what ONNX Runtime makes of them: the first window alone, the others in batches."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    count = len(next(iter(inputs.values())))
    borders = [0, *range(1, count, batch_size), count]
    parts = [
        session.run(None, {name: array[begin:end] for name, array in inputs.items()})[0]
        for begin, end in itertools.pairwise(borders)
    ]
    return np.concatenate(parts)


def units(expected: Floats, panel: Panel, origins: Origins, spec: NetworkSpec) -> Floats:
    """What a difference of each forecast is measured by: the window's deviation and how far the forecast lies from
    the window, in the units that are learned and from there in the user's. Of a parameter the parameter itself."""
    if spec.loss == "negative-binomial":
        return np.abs(expected)
    windows = Windows(learned_units(panel, spec), spec, torch.device("cpu"))
    scaling = windows.batch(torch.as_tensor(origins.series), torch.as_tensor(origins.rows)).scaling
    location, scale = scaling.location.unsqueeze(-1).numpy(), scaling.scale.unsqueeze(-1).numpy()  # [B, 1, 1] each
    if spec.transform == "none":
        return np.asarray(scale + np.abs(expected - location))
    near = np.maximum(expected, -1 + 1e-9)
    logarithm = np.log1p(near) if spec.transform == "log1p" else np.sign(expected) * np.log1p(np.abs(expected))
    return np.asarray((scale + np.abs(logarithm - location)) * (1 + np.abs(expected)))


def random_panel(checkpoint: Checkpoint, seed: int = 0) -> Panel:
    """Series of any level, spread and length, with gaps, beside random covariates and later than the training rows."""
    spec, generator = checkpoint.spec, np.random.default_rng(seed)
    lengths = np.concatenate([[1, 2, 3], generator.integers(1, 2 * spec.context_length + 2, RANDOM_SERIES - 3)])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    covariates = spec.inputs.covariates
    timed = [one for one in covariates if one.role != "static"]
    rows = lengths + spec.horizon if timed else np.empty(0, dtype=np.int64)
    names = checkpoint.columns.key_names
    return Panel(
        checkpoint.columns,
        checkpoint.step,
        checkpoint.time_form,
        tuple((str(number),) * len(names) for number in range(RANDOM_SERIES)),
        np.concatenate([random_series(length, spec, generator) for length in lengths.tolist()]),
        offsets,
        int(checkpoint.data_to.max()) + generator.integers(0, 500, RANDOM_SERIES),
        covariates,
        random_cells(timed, int(rows.sum()), generator),
        np.cumsum(rows) - rows,
        rows,
        random_cells([one for one in covariates if one.role == "static"], RANDOM_SERIES, generator),
    )


def random_series(length: int, spec: NetworkSpec, generator: np.random.Generator) -> Floats:
    """[length] a wave with noise and a trend around some level; the first and the last row are there."""
    level, spread = 10 ** generator.uniform(-2, 5), 10 ** generator.uniform(-3, 1)
    rows = np.arange(length)
    shape = generator.normal(size=length) + np.sin(rows / generator.uniform(0.5, 5)) + generator.normal() * rows / 50
    values = level * (generator.choice([-1, 1]) + spread * shape * generator.choice([0, 1], p=[0.1, 0.9]))
    if spec.loss == "negative-binomial" or spec.transform == "log1p":
        values = np.round(np.abs(values))
    missing = generator.random(length) < MISSING * generator.integers(0, 2)
    missing[[0, -1]] = False
    return np.where(missing, np.nan, values)


def random_cells(covariates: list[Covariate], rows: int, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """[rows, covariates] numbers of any size and categories, some of them missing."""
    cells = np.empty((rows, len(covariates)), dtype=np.float32)
    for at, one in enumerate(covariates):
        numbers = generator.normal(size=rows) * 10 ** generator.uniform(-1, 3)
        known = len(one.categories or ())
        codes = generator.integers(0, known, rows) if known else np.full(rows, np.nan)
        column = numbers if one.categories is None else codes
        cells[:, at] = np.where(generator.random(rows) < MISSING, np.nan, column)
    return cells
