"""A network that gives labels: the stack over the features of a series, and a fully connected layer to its classes.

No label is ever an input: what the network sees of a row are its features, and whether the row is there.
Beside the stack stand the convolutions of Karim et al. 2018, "LSTM Fully Convolutional Networks for Time Series
Classification": the stack keeps the order of what happens, they find short shapes wherever they are. The stack reads
several rows of a long series at a time; the convolutions see every row, and its features once more without the level
and size that they have in that series. As in that paper, what the stack says is dropped often in training, and what
they say never: else the stack learns the few series by heart before they find a shape.

Shape letters: B batch, L rows of a window, P patch, S steps = ceil(L / P), E features of a row, W width of the stack's
outputs, F filters, T places that the convolutions look at, H labels of a window (1, or L where every row has one),
K classes, N series, R rows, O windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.model.classes import KERNELS, LabelSpec
from stacklstm_cli.model.dropout import Dropout
from stacklstm_cli.model.inputs import label_row_width
from stacklstm_cli.model.network import Features, NetworkSpec
from stacklstm_cli.model.stack import Stack
from stacklstm_cli.model.windows import CovariateRows, Inputs

Flags = npt.NDArray[np.bool_]
BATCH_NUMBERS = 2**22
"""Numbers that a batch of windows may hold in its widest tensor."""
MOMENTUM = 0.1
"""Share of a batch in the running statistics of the norms: torch's own."""
LEAST_DEVIATION = 1e-3
"""Of a feature in a window, in standard deviations of all rows: a flat series has no shape but noise."""
EPSILON = 1e-5
"""Added to the variances of the norms: torch's own."""


def label_spec(spec: NetworkSpec) -> LabelSpec:
    """The part of a description that only networks which give labels have."""
    if spec.labels is None:
        raise ValueError("labels")
    return spec.labels


class SeenNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) of each filter over the places that are seen; the others are zero.

    torch's own would take the rows in front of short series for zeros, and counts its batches in whole numbers.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, places: Tensor, seen: Tensor) -> Tensor:
        """places [B, F, T], seen [B, 1, T] -> [B, F, T]."""
        mean, variance = self.mean, self.variance  # [F], [F]
        if self.training:
            count = seen.sum().clamp(min=1)
            mean = (places * seen).sum((0, 2)) / count  # [F]
            variance = (((places - mean.unsqueeze(1)) * seen) ** 2).sum((0, 2)) / count  # [F]
            for running, found in ((self.mean, mean), (self.variance, variance)):
                running.lerp_(found.detach(), MOMENTUM)
        gain = self.weight * (variance + EPSILON).rsqrt()  # [F]
        return (places * gain.unsqueeze(1) + (self.bias - mean * gain).unsqueeze(1)) * seen


class Convolutions(nn.Module):
    """Three convolutions over the rows, each normalised and rectified; a place outside the series stays zero."""

    def __init__(self, inputs: int, labels: LabelSpec) -> None:
        super().__init__()
        self.stride = labels.stride
        widths = [inputs, *labels.filters]
        kernels = (max(KERNELS[0], 2 * self.stride - 1), *KERNELS[1:])  # the last place sees the newest row too
        self.layers = nn.ModuleList(
            nn.Conv1d(narrow, wide, kernel, labels.stride if place == 0 else 1, kernel // 2, bias=False)
            for place, (narrow, wide, kernel) in enumerate(zip(widths, labels.filters, kernels, strict=False))
        )
        self.norms = nn.ModuleList(SeenNorm(width) for width in labels.filters)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """rows [B, L, E], whose last number says whether there is one -> [B, T, F] and which places [B, T, 1] are."""
        places = rows.transpose(1, 2)  # [B, E, L]
        seen = functional.max_pool1d(places[:, -1:], self.stride, ceil_mode=True)  # [B, 1, T]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            places = functional.relu(norm(layer(places), seen))  # [B, F, T]
        return places.transpose(1, 2), seen.transpose(1, 2)


class LabelNetwork(nn.Module):
    """Logits of the classes of a window, or of each of its rows."""

    skip = None
    """No straight line leads to a label."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        labels = label_spec(spec)
        self.past, self.static = (Features(spec.inputs.of(role)) for role in ("past", "static"))
        self.stack = Stack(spec.stack)
        shaped = label_row_width(spec.inputs) + len(self.past.numbers)
        self.convolutions = Convolutions(shaped, labels) if labels.filters else None
        convolved = labels.filters[-1] if labels.filters else 0
        self.dropout = Dropout(spec.dropout)
        state = spec.stack.output_size if labels.every_row else 2 * spec.stack.output_size
        rows = spec.patch_length if labels.every_row else 1
        self.head = nn.Linear(state + rows * convolved + self.static.width, rows * len(labels.classes), bias=False)
        self.bias = nn.Parameter(torch.zeros(len(labels.classes)))

    def forward(self, inputs: Inputs) -> Tensor:
        """Inputs of a batch -> logits [B, H, K]."""
        spec, labels = self.spec, label_spec(self.spec)
        rows = self.rows(inputs)  # [B, S * P, E]
        steps = rows.view(rows.shape[0], spec.steps, -1)  # [B, S, P * E]
        outputs = self.stack(steps)  # [B, S, W]
        if not labels.every_row:
            seen = rows[..., -1].view(rows.shape[0], spec.steps, -1).amax(-1, keepdim=True)  # [B, S, 1]
            outputs = self.pooled(outputs, seen)  # [B, 2W]
        parts = [self.dropout(outputs)]
        if self.convolutions is not None:
            found, places = self.convolutions(torch.cat([self.shapes(rows), rows], -1))  # [B, T, F], [B, T, 1]
            each = found.reshape(rows.shape[0], spec.steps, -1) if labels.every_row else None  # [B, S, P * F]
            parts.append(found.sum(1) / places.sum(1).clamp(min=1) if each is None else each)
        if self.static.width:
            static = self.static(inputs.static)  # [B, E]
            parts.append(static.unsqueeze(1).expand(-1, spec.steps, -1) if labels.every_row else static)
        logits = self.head(torch.cat(parts, -1))  # [B, (S,) rows * K]
        if not labels.every_row:
            whole: Tensor = (logits + self.bias).unsqueeze(1)  # [B, 1, K]
            return whole
        each_row: Tensor = logits.view(logits.shape[0], -1, len(labels.classes))  # [B, S * P, K]
        return each_row[:, -spec.context_length :] + self.bias  # [B, L, K]

    def pooled(self, outputs: Tensor, seen: Tensor) -> Tensor:
        """[B, S, W] -> [B, 2W]: the newest state, and the mean of those seen, weighted where there is attention."""
        newest = self.stack.newest(outputs)  # [B, W]
        weights = seen  # [B, S, 1]
        if self.stack.attention is not None:
            weights = weights * self.stack.attention(outputs, newest).unsqueeze(-1)
        mean = (outputs * weights).sum(1) / weights.sum(1).clamp(min=1e-6)  # [B, W]
        return torch.cat([newest, mean], -1)  # [B, 2W]

    def shapes(self, rows: Tensor) -> Tensor:
        """[B, S * P, E] -> [B, S * P, numbers]: each feature less its mean in the window, over its deviation there.

        What is missing is zero. Series of one class often differ in level and size more than the classes do.
        """
        count = len(self.past.numbers)
        values = rows[..., :count]  # [B, S * P, numbers]
        there = (1 - rows[..., count : 2 * count]) * rows[..., -1:]  # [B, S * P, numbers]
        rows_there = there.sum(1, keepdim=True).clamp(min=1)  # [B, 1, numbers]
        values = (values - (values * there).sum(1, keepdim=True) / rows_there) * there
        deviation = (values.square().sum(1, keepdim=True) / rows_there + LEAST_DEVIATION**2).sqrt()  # [B, 1, numbers]
        shape: Tensor = values / deviation
        return shape

    def rows(self, inputs: Inputs) -> Tensor:
        """-> [B, S * P, E]; the last number says whether there is a row. Where P does not divide L, zeros in front."""
        spec = self.spec
        observed = inputs.observed.unsqueeze(-1)  # [B, L, 1]
        rows = torch.cat([self.past(inputs.past) * observed, observed], -1)  # [B, L, E]
        return functional.pad(rows, (0, 0, spec.steps * spec.patch_length - spec.context_length, 0))  # [B, S * P, E]


class LabelWindows:
    """The features of all series, ready to be gathered. What labels the panel holds is not looked at."""

    def __init__(self, panel: Panel, spec: NetworkSpec, device: torch.device) -> None:
        self.device = self.home = device
        self.spec = spec
        self.there = torch.as_tensor(~np.isnan(panel.values), device=device)  # [R]
        self.offsets = torch.as_tensor(panel.offsets, device=device)  # [N + 1]
        self.steps_back = torch.arange(-spec.context_length, 0, device=device)  # [L]
        self.covariates = CovariateRows(panel, spec, device)

    def inputs(self, series: Tensor, rows: Tensor) -> Inputs:
        """The L rows before row `rows` [B] of each of these series [B]."""
        places = rows.unsqueeze(1) + self.steps_back  # [B, L]
        inside = places >= 0
        index = torch.where(inside, self.offsets[series].unsqueeze(1) + places, 0)
        observed = (inside & self.there[index]).float()  # [B, L]
        past, future, static, calendar = self.covariates.gather(series, places, inside, rows.unsqueeze(1))
        return Inputs(torch.zeros_like(observed), observed, past, future, static, calendar)


def label_windows(lengths: Ints, spec: NetworkSpec) -> Origins:
    """Windows that hold every row of series of these lengths [N]; they overlap by half where rows have labels."""
    size = spec.context_length
    stride = max(1, size // 2) if label_spec(spec).every_row else size
    counts = 1 + -(-np.maximum(lengths - size, 0) // stride)  # [N]
    series = np.repeat(np.arange(lengths.size), counts)  # [O]
    place = np.arange(series.size) - np.repeat(np.cumsum(counts) - counts, counts)  # [O] of each in its series
    room = np.maximum(lengths - size, 0)[series]
    first = np.minimum(lengths, size)[series]
    return Origins(series, first + room * place // np.maximum(counts[series] - 1, 1))


def mean_probabilities(members: Iterable[nn.Module], inputs: Inputs, temperature: float) -> Tensor:
    """[B, H, K] the mean over networks of the probability of each class, their logits softened."""
    logits = torch.stack([member(inputs).double() for member in members])  # [M, B, H, K]
    return (logits / temperature).softmax(-1).mean(0)  # [B, H, K]


class Classifier:
    """Fitted networks that differ by their seeds, and what their mean probability of each class is."""

    def __init__(self, members: Sequence[LabelNetwork], device: torch.device, temperature: float = 1.0) -> None:
        self.members = [member.to(device).eval() for member in members]
        self.spec = members[0].spec
        self.device = device
        self.temperature = temperature

    def probabilities(self, panel: Panel, wanted: Flags | None = None) -> Floats:
        """[N, K] of each series, or [R, K] of each row where rows have labels of their own; 1 in total.

        Of the `wanted` series [N] alone where they are given; NaN for the others.
        """
        rows = label_spec(self.spec).every_row
        total = np.zeros((len(panel.values) if rows else panel.n_series, len(label_spec(self.spec).classes)))
        for places, found in self.parts(panel, wanted):
            np.add.at(total, places, found)
        with np.errstate(invalid="ignore"):
            shares: Floats = total / total.sum(1, keepdims=True)
        return shares

    def parts(self, panel: Panel, wanted: Flags | None) -> Iterator[tuple[Ints, Floats]]:
        """Places [...] and their probabilities [..., K] in one batch of windows after another."""
        spec, labels = self.spec, label_spec(self.spec)
        windows = LabelWindows(panel, spec, self.device)
        origins = label_windows(panel.lengths, spec)
        kept = np.ones(len(origins), dtype=bool) if wanted is None else wanted[origins.series]
        series = torch.as_tensor(origins.series[kept], device=self.device)
        rows = torch.as_tensor(origins.rows[kept], device=self.device)
        convolved = -(-spec.context_length // labels.stride) * 4 * sum(labels.filters)
        widest = max(spec.steps * max(4 * spec.stack.width, spec.stack.input_size), convolved)
        for part in torch.split(torch.arange(len(series), device=self.device), max(1, BATCH_NUMBERS // widest)):
            inputs = windows.inputs(series[part], rows[part]).to(self.device, torch.float32)
            with torch.inference_mode():
                found = mean_probabilities(self.members, inputs, self.temperature)  # [B, H, K]
            if not labels.every_row:
                yield series[part].cpu().numpy(), found[:, 0].cpu().numpy()
                continue
            places = rows[part].unsqueeze(1) + windows.steps_back  # [B, L]
            inside = places >= 0
            flat = (windows.offsets[series[part]].unsqueeze(1) + places)[inside]
            yield flat.cpu().numpy(), found[inside].cpu().numpy()
