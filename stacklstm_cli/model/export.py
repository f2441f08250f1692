"""A fitted network as ONNX: contexts in the user's units in, quantiles in the user's units out.

torch traces the very operations that `Forecaster` runs, with the normalisation before and the way back after
them. Two things differ. What needs a file, gathering rows and telling the calendar, stays outside: a batch of
contexts comes in. And two heads end in loops that ONNX has no words for: Student's quantiles become polynomials
of the degrees of freedom, and of the negative binomial distribution its parameters come out.

Shape letters: B batch, L context, H horizon, Q quantiles, C past and known covariates, C' known ones, S static
ones, K codes of the calendar, T terms of a polynomial.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from stacklstm_cli.config import MEDIAN, POINT_LOSSES
from stacklstm_cli.data.panel import Covariate
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.distributions import student_t_quantile
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.frame import quantile_name
from stacklstm_cli.model.heads import LABELS, LEAST_FREEDOM, NegativeBinomialHead, Scaling, StudentTHead
from stacklstm_cli.model.labels import Classifier, label_spec, mean_probabilities
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.model.windows import Batch, Inputs, location_and_scale, user_units

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""Of May 2022: the first with a layer normalisation; ONNX Runtime reads it from 1.12 on."""
TERMS = 20
"""Of the polynomials of Student's quantiles; exact to ten digits from 2 degrees of freedom to the normal."""
PACKAGES = ("onnx", "onnxruntime")
LOGARITHMS = {"log1p": "log(1 + y)", "symlog": "sign(y) log(1 + |y|)"}
CODES = {
    "time_of_day": "seconds since midnight * 288 // 86400",
    "weekday": "0 Monday to 6 Sunday",
    "monthday": "day of the month - 1",
    "month": "0 January to 11 December",
    "year": "day of the year - 1",
    "holidays": "number of public holidays in {place} from the row's day to the day before the next row's",
}
"""The codes of `inputs.calendar_codes`, by the clock of the place."""


@dataclass(frozen=True)
class Slot:
    """An input or output of the graph."""

    name: str
    shape: tuple[int, ...]
    """Without the batch, which comes first."""
    dtype: torch.dtype
    meaning: str
    columns: tuple[str, ...] = ()
    """What stands at each place of the last axis."""
    categories: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Columns of text, and their texts in the order of their numbers, from 1 on."""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the file and in the document of the command."""
        described: dict[str, Any] = {
            "name": self.name,
            "type": str(self.dtype).removeprefix("torch."),
            "shape": ["batch", *self.shape],
            "meaning": self.meaning,
        }
        if self.columns:
            described["columns"] = list(self.columns)
        if self.categories:
            described["categories"] = {name: list(texts) for name, texts in self.categories}
        return described


def inputs_of(spec: NetworkSpec) -> list[Slot]:
    """What the graph takes."""
    if spec.labels is not None:
        return label_inputs(spec)
    length, horizon = spec.context_length, spec.horizon
    filled = "" if spec.gaps == "mask" else f" NaN before the series begins only: gaps filled as --gaps {spec.gaps}."
    missing = " NaN where missing or before the series begins." if spec.gaps == "mask" else filled
    slots = [
        Slot("context", (length,), torch.float64, f"The newest {length} rows in user units, oldest first.{missing}")
    ]
    if filled:
        if spec.gaps == "interpolate" and spec.transform != "none":
            slots[0] = replace(
                slots[0], meaning=slots[0].meaning + f" The line goes through {LOGARITHMS[spec.transform]}."
            )
        slots.append(Slot("observed", (length,), torch.bool, "Where the context holds a value that was not filled in."))
    timed, known, static = (spec.inputs.of(*roles) for roles in (("past", "known"), ("known",), ("static",)))
    cells = "NaN where missing; of a column of text the number of the text, 0 where unknown."
    if timed:
        slots.append(covariate_slot("past", (length,), timed, f"Covariates of the context's rows. {cells}"))
    if known:
        slots.append(covariate_slot("future", (horizon,), known, f"Known covariates of the rows to forecast. {cells}"))
    if static:
        slots.append(covariate_slot("static", (), static, f"Covariates of the series. {cells}"))
    cycles = (*spec.inputs.cycles, *(["holidays"] if spec.inputs.holidays else []))
    if cycles:
        told = "; ".join(f"{name}: {CODES[name].format(place=spec.inputs.holidays)}" for name in cycles)
        meaning = f"Codes of the rows to forecast by the local clock. {told}."
        slots.append(Slot("calendar", (horizon, len(cycles)), torch.int64, meaning, cycles))
    return slots


def covariate_slot(name: str, rows: tuple[int, ...], covariates: Sequence[Covariate], meaning: str) -> Slot:
    categories = tuple((one.name, one.categories) for one in covariates if one.categories is not None)
    columns = tuple(one.name for one in covariates)
    return Slot(name, (*rows, len(columns)), torch.float32, meaning, columns, categories)


def label_inputs(spec: NetworkSpec) -> list[Slot]:
    """What the graph of a model of labels takes: a window of rows, the newest last, and what is known of the series."""
    length = spec.context_length
    there = f"Whether each of the newest {length} rows, oldest first, is there: a shorter series begins with rows that "
    slots = [Slot("observed", (length,), torch.bool, there + "are not.")]
    timed, static = (spec.inputs.of(role) for role in ("past", "static"))
    cells = "NaN where missing; of a column of text the number of the text, 0 where unknown."
    if timed:
        slots.append(covariate_slot("past", (length,), timed, f"Features of the rows. {cells}"))
    if static:
        slots.append(covariate_slot("static", (), static, f"Features of the series. {cells}"))
    return slots


def label_output(spec: NetworkSpec) -> Slot:
    """What the graph of a model of labels gives."""
    labels = label_spec(spec)
    rows = (spec.context_length,) if labels.every_row else ()
    meaning = "The probability of each class " + ("in each row." if labels.every_row else "for the series.")
    if labels.members > 1:
        meaning += f" The mean over {labels.members} networks."
    return Slot("probabilities", (*rows, len(labels.classes)), torch.float64, meaning, labels.classes)


def output_of(spec: NetworkSpec) -> Slot:
    """What the graph gives."""
    if spec.labels is not None:
        return label_output(spec)
    if spec.loss == "negative-binomial":
        meaning = (
            "The distribution of each row in user units. Quantile q is the smallest count k with "
            "P(X <= k) >= q, in SciPy nbinom.ppf(q, size, size / (size + mean)), before any calibration"
            + (f", held between {spec.minimum} and {spec.maximum}" if {spec.minimum, spec.maximum} != {None} else "")
            + ". A context with a single value says nothing of the spread: both numbers are that value."
        )
        return Slot("parameters", (spec.horizon, 2), torch.float64, meaning, ("mean", "size"))
    meaning = "The rows after the context in user units. NaN where the context holds no value at all."
    columns = ("forecast",) if spec.loss in POINT_LOSSES else tuple(map(quantile_name, spec.quantiles))
    return Slot("forecast", (spec.horizon, len(columns)), torch.float64, meaning, columns)


def exported_levels(spec: NetworkSpec) -> tuple[float, ...]:
    """[Q] the quantiles that come out: those that were learned; for what is none, a median in each place."""
    is_quantile = spec.loss not in (*POINT_LOSSES, "negative-binomial")
    return spec.quantiles if is_quantile else (MEDIAN,) * len(output_of(spec).columns)


class Graph(nn.Module):
    """What is traced: a batch of contexts in the user's units to quantiles in them."""

    def __init__(self, forecaster: Forecaster) -> None:
        super().__init__()
        self.forecaster = forecaster
        self.network = forecaster.network
        self.slots = inputs_of(forecaster.spec)

    def forward(self, *given: Tensor) -> Tensor:
        """The inputs, in the order of `inputs_of` -> [B, H, Q] float64."""
        spec = self.forecaster.spec
        there = dict(zip([slot.name for slot in self.slots], given, strict=True))
        context = there["context"]  # [B, L]
        shown = ~context.isnan()
        observed = there.get("observed", shown)
        values = context.where(shown, 0.0)
        if spec.transform != "none":
            values = values.sign() * values.abs().log1p()
        location, scale = location_and_scale(values.where(observed, 0.0), observed, spec)  # [B], [B]
        scaling = Scaling(location.unsqueeze(1), scale.unsqueeze(1))
        normalised = ((values - scaling.location) / scaling.scale).where(shown, 0.0)  # [B, L]
        nothing = values.new_zeros(context.shape[0], spec.horizon, 0)  # in the place of what the network does not see
        past, future, static = (there.get(name, nothing) for name in ("past", "future", "static"))
        calendar = there.get("calendar", nothing.long())
        inputs = Inputs(normalised, observed.to(values), past, future, static, calendar)
        batch = Batch(inputs, scaling, torch.empty(0))
        forecast = user_units(self.forecaster.decoded(batch, spec.horizon, exported_levels(spec)), spec)  # [B, H, Q]
        return torch.where(observed.any(1)[:, None, None], forecast, torch.nan)


def without_missing_texts(cells: Tensor, covariates: Sequence[Covariate]) -> Tensor:
    """[..., C] cells in whose columns of text a missing one is unknown, 0."""
    texts = torch.tensor([one.categories is not None for one in covariates])  # [C]
    return torch.where(cells.isnan() & texts, 0.0, cells)


class LabelGraph(nn.Module):
    """What is traced of a model of labels: a batch of windows to the probability of every class."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.members = nn.ModuleList(classifier.members)
        self.spec, self.temperature = classifier.spec, classifier.temperature
        self.slots = inputs_of(self.spec)

    def forward(self, *given: Tensor) -> Tensor:
        """The inputs, in the order of `inputs_of` -> [B, K], or [B, L, K] of every row; float64."""
        there = dict(zip([slot.name for slot in self.slots], given, strict=True))
        observed = there["observed"].float()  # [B, L]
        nothing = observed.new_zeros(observed.shape[0], self.spec.context_length, 0)
        past, static = (
            without_missing_texts(there[role], self.spec.inputs.of(role)) if role in there else empty
            for role, empty in (("past", nothing), ("static", nothing[:, 0]))
        )
        inputs = Inputs(torch.zeros_like(observed), observed, past, nothing, static, nothing.long())
        found = mean_probabilities(self.members, inputs, self.temperature)  # [B, H, K]
        return found if label_spec(self.spec).every_row else found[:, 0]


class PolynomialStudentTHead(StudentTHead):
    """Student's t with its quantiles as Chebyshev series of 1 / degrees of freedom, between 0 and a half."""

    def __init__(self, quantiles: Sequence[float]) -> None:
        nodes = np.cos(np.pi * (np.arange(TERMS) + 0.5) / TERMS)  # [T] in -1 to 1
        freedom = torch.from_numpy(2 * LEAST_FREEDOM / (nodes + 1)).unsqueeze(1)  # [T, 1]
        exact = student_t_quantile(torch.tensor(quantiles, dtype=torch.float64), freedom)  # [T, Q]
        self.terms = torch.from_numpy(np.polynomial.chebyshev.chebfit(nodes, exact.numpy(), TERMS - 1))  # [T, Q]

    def decode(self, raw: Tensor, scaling: Scaling, quantiles: Sequence[float]) -> Tensor:
        """As `StudentTHead.decode`, for the quantiles that it was made for (Clenshaw 1955)."""
        # ONNX Runtime has a softplus of float32 alone.
        location, scale, freedom = (part.to(scaling.scale) for part in self.parameters(raw.unsqueeze(-2)))  # [B, H, 1]
        x = 2 * LEAST_FREEDOM / freedom - 1
        last, before = torch.zeros_like(self.terms[0]), torch.zeros_like(self.terms[0])  # [Q], then [B, H, Q]
        for term in self.terms[1:].flip(0):
            last, before = term + 2 * x * last - before, last
        normalised = location + scale * (self.terms[0] + x * last - before)  # [B, H, Q]
        return scaling.location.unsqueeze(-1) + normalised * scaling.scale.unsqueeze(-1)


class ParameterHead(NegativeBinomialHead):
    """The mean and the size of a negative binomial distribution in the place of its quantiles."""

    def decode(self, raw: Tensor, scaling: Scaling, quantiles: Sequence[float]) -> Tensor:
        """-> [B, H, 2]"""
        return torch.stack(self.parameters(raw, scaling.location, scaling.scale), -1)  # [B, H, 2]


def exported_forecaster(checkpoint: Checkpoint) -> Forecaster:
    """The final weights, with a head that ONNX can express; bounds and calibration are for quantiles alone."""
    forecaster = checkpoint.forecaster(torch.device("cpu"))
    if isinstance(forecaster.head, StudentTHead):
        forecaster.head = PolynomialStudentTHead(exported_levels(forecaster.spec))
    elif isinstance(forecaster.head, NegativeBinomialHead):
        forecaster.head = ParameterHead()
        forecaster.calibration = None
        forecaster.spec = replace(forecaster.spec, minimum=None, maximum=None)
    return forecaster


def require_packages() -> None:
    """Raise `UsageError` where the packages of the extra `export` are missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"export needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            hint="Install what is missing with: pip install 'stacklstm[export]'",
            code="extra_missing",
        )


def to_onnx(checkpoint: Checkpoint) -> bytes:
    """The model as the bytes of an ONNX file, the same at each call. Raises `UsageError` without the extra `export`."""
    require_packages()
    import onnx

    graph: Graph | LabelGraph
    if checkpoint.spec.labels is not None:
        graph = LabelGraph(checkpoint.classifier(torch.device("cpu"))).eval()
    else:
        graph = Graph(exported_forecaster(checkpoint)).eval()
    output = output_of(checkpoint.spec)
    example = tuple(torch.ones(2, *slot.shape).to(slot.dtype) for slot in graph.slots)
    names = [*(slot.name for slot in graph.slots), output.name]
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        # torch's newer exporter needs onnxscript and writes other graphs in each release. The older one is
        # deprecated, not gone, and its cautions about what it traces are answered by the comparison.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            example,
            buffer,  # type: ignore[arg-type, unused-ignore]  # the older exporter takes it in every release
            dynamo=False,
            opset_version=OPSET,
            input_names=names[:-1],
            output_names=names[-1:],
            dynamic_axes={name: {0: "batch"} for name in names},
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    describe(model, checkpoint, graph.slots, output)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def describe(model: onnx.ModelProto, checkpoint: Checkpoint, inputs: Sequence[Slot], output: Slot) -> None:
    """Write into the file what its inputs and outputs are: in words, and as JSON by key."""
    import onnx

    spec = checkpoint.spec
    for value, slot in zip((*model.graph.input, *model.graph.output), (*inputs, output), strict=True):
        value.doc_string = slot.meaning + (f" Columns: {', '.join(slot.columns)}." if slot.columns else "")
    levels = "" if spec.loss in POINT_LOSSES else f", quantiles {', '.join(f'{one:g}' for one in spec.quantiles)}"
    what = ", ".join(checkpoint.columns.targets)
    told = f"{spec.horizon} steps of {what} after a context of {spec.context_length}{levels}"
    if spec.labels is not None:
        told = f"{what} by {spec.context_length} rows"
    model.doc_string = f"stacklstm model {checkpoint.id}: {told}. Normalisation is inside."
    facts = {
        "stacklstm": checkpoint.id,
        "columns": checkpoint.columns.as_dict(),
        "step": checkpoint.data.get("step") or checkpoint.step.as_dict(),
        "context_length": spec.context_length,
        "horizon": spec.horizon,
        "loss": spec.loss,
        "quantiles": [] if spec.loss in (*POINT_LOSSES, LABELS) else list(spec.quantiles),
        "inputs": [slot.as_dict() for slot in inputs],
        "outputs": [output.as_dict()],
    }
    texts = {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}
    onnx.helper.set_model_props(model, texts)
