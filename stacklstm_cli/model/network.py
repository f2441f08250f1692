"""The network: a stacked LSTM over patches of the context, beside a linear skip.

Shape letters: B batch, L context, P patch, S steps = ceil(L / P), U hidden size, H horizon, Q quantiles,
C covariates, E features of a row.

The last state of the top layer decodes the whole horizon at once, so every step of a forecast sees the
newest value and no step is fed its own errors (direct forecasting: Ben Taieb et al. 2012,
"A review and comparison of strategies for multi-step ahead time series forecasting").
The linear skip from the context follows Zeng et al. 2023, "Are Transformers Effective for Time Series
Forecasting?"; patches follow Lin et al. 2023, "SegRNN"; what is known of each row of the horizon meets the
state in a decoder shared by all rows, as the local decoder of Wen et al. 2017, "A Multi-Horizon Quantile
Recurrent Forecaster".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from stacklstm_cli.data.panel import Covariate, Role
from stacklstm_cli.model.inputs import InputSpec, table

if TYPE_CHECKING:
    from stacklstm_cli.model.windows import Inputs

ROLES: tuple[Role, ...] = ("past", "known", "static")
LARGEST_FEATURE = 5.0
"""A number further out than so many deviations is held there: one false reading must not decide."""


@dataclass(frozen=True)
class NetworkSpec:
    """What must be known to build the network. Stored in the model file."""

    layers: int
    hidden_size: int
    dropout: float
    patch_length: int
    context_length: int
    horizon: int
    quantiles: tuple[float, ...]
    """Ascending; 0.5 is among them."""
    location_length: int
    """Newest rows of the context whose mean is subtracted from it."""
    scale_length: int
    """Newest rows of the context whose deviation it is divided by."""
    inputs: InputSpec = field(default_factory=InputSpec)
    gaps: str = "mask"
    """What stands in the context for a missing value: nothing ("mask"), the last one before it ("ffill"), or a
    line between its neighbours ("interpolate"). A flag says that it is missing in any case."""
    transform: str = "none"
    """What is learned: the values themselves, or their log(1 + y) ("log1p")."""
    minimum: float | None = None
    maximum: float | None = None
    """Between these, in user units, lies every forecast."""

    @property
    def steps(self) -> int:
        """S: how often the LSTM steps over one context."""
        return -(-self.context_length // self.patch_length)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"quantiles": list(self.quantiles), "inputs": self.inputs.as_dict()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> NetworkSpec:
        lists = {"quantiles": tuple(stored["quantiles"]), "inputs": InputSpec.from_dict(stored["inputs"])}
        return cls(**stored | lists)


class Features(nn.Module):
    """Covariates as the network sees them: numbers standardised, with a flag where missing; categories embedded.

    Mean and deviation of the numbers are those of the training part (`set_statistics`).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, covariates: Sequence[Covariate]) -> None:
        super().__init__()
        self.numbers = [at for at, one in enumerate(covariates) if one.categories is None]
        self.texts = [at for at, one in enumerate(covariates) if one.categories is not None]
        self.register_buffer("mean", torch.zeros(len(self.numbers)))
        self.register_buffer("deviation", torch.ones(len(self.numbers)))
        sizes = [len(covariates[at].categories or ()) + 1 for at in self.texts]  # and the unknown one
        self.embeddings = nn.ModuleList(nn.Embedding(size, embedding_width(size)) for size in sizes)
        for parameter in self.embeddings.parameters():
            nn.init.zeros_(parameter)  # a category that training never meets stays as good as unknown
        self.width = 2 * len(self.numbers) + sum(embedding_width(size) for size in sizes)

    def forward(self, covariates: Tensor) -> Tensor:
        """[B, X, C], NaN where missing -> [B, X, E]"""
        raw = covariates[..., self.numbers]  # [B, X, C']
        missing = raw.isnan()
        numbers = ((raw - self.mean) / self.deviation).clamp(-LARGEST_FEATURE, LARGEST_FEATURE)
        parts = [numbers.masked_fill(missing, 0.0), missing.to(numbers)]
        for at, embedding in zip(self.texts, self.embeddings, strict=True):
            parts.append(embedding(covariates[..., at].long()))  # [B, X, width]
        return torch.cat(parts, -1)  # [B, X, E]


def embedding_width(categories: int) -> int:
    """Numbers that stand for one of so many categories."""
    return min(8, (categories + 1) // 2)


class Decoder(nn.Module):
    """What the calendar and the covariates of each row to forecast change, given the state."""

    def __init__(self, spec: NetworkSpec, state_size: int, features: int, width: int) -> None:
        super().__init__()
        self.state = nn.Linear(state_size, width)
        self.features = nn.Linear(features, width, bias=False)
        self.step = nn.Parameter(torch.zeros(spec.horizon, width))
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(spec.dropout)
        self.out = nn.Linear(width, len(spec.quantiles))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, state: Tensor, features: Tensor) -> Tensor:
        """state [B, U], features [B, H, E] -> [B, H, Q]"""
        rows = functional.relu(self.state(state).unsqueeze(1) + self.features(features) + self.step)  # [B, H, D]
        rows = self.dropout(functional.relu(self.hidden(rows)))
        decoded: Tensor = self.out(rows)  # [B, H, Q]
        return decoded


class StackedRNN(nn.Module):
    """Quantiles of the next H normalised values from the last L of them.

    forecast = context @ (skip_start + skip) + bias + head(top state after the newest patch).
    The head starts at zero and `skip_start` at a linear forecast (see training/start.py), so training
    begins from a sound forecast and the LSTM learns what a straight line through the context cannot say.
    `skip` is what training adds to that start; weight decay draws it back there, not to zero.
    """

    skip_start: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        length, horizon, quantiles = spec.context_length, spec.horizon, len(spec.quantiles)
        self.past, self.known, self.static = (Features(spec.inputs.of(role)) for role in ROLES)
        for cycle in spec.inputs.cycles:
            self.register_buffer(f"cycle_{cycle}", torch.as_tensor(table(cycle)))
        self.lstm = nn.LSTM(
            input_size=spec.patch_length
            * (2 + self.past.width + self.known.width),  # values, observed flags, covariates
            hidden_size=spec.hidden_size,
            num_layers=spec.layers,
            dropout=spec.dropout if spec.layers > 1 else 0.0,
            batch_first=True,
        )
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(spec.hidden_size, horizon * quantiles)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("skip_start", torch.zeros(length, horizon))
        self.skip = nn.Parameter(torch.zeros(length, horizon))
        self.bias = nn.Parameter(torch.zeros(horizon, quantiles))
        ahead = self.ahead_width
        self.decoder = Decoder(spec, spec.hidden_size, ahead, spec.hidden_size) if ahead else None

    @property
    def ahead_width(self) -> int:
        """E: features of a row to forecast."""
        cycles = sum(self.get_buffer(f"cycle_{cycle}").shape[1] for cycle in self.spec.inputs.cycles)
        return cycles + bool(self.spec.inputs.holidays) + self.known.width + self.static.width

    def set_statistics(self, mean: npt.NDArray[Any], deviation: npt.NDArray[Any]) -> None:
        """Mean and deviation [covariates] of each covariate, in the order of the spec; not used for categories."""
        begin = 0
        for role in ROLES:
            features: Features = getattr(self, role)
            end = begin + len(self.spec.inputs.of(role))
            features.mean.copy_(torch.as_tensor(mean[begin:end][features.numbers]))
            features.deviation.copy_(torch.as_tensor(deviation[begin:end][features.numbers]))
            begin = end

    def forward(self, inputs: Inputs) -> Tensor:
        """Inputs of a batch -> [B, H, Q], not yet sorted."""
        context = inputs.context
        batch, horizon = len(context), self.spec.horizon
        line: Tensor = context @ (self.skip_start + self.skip)  # [B, H]
        top, _ = self.lstm(self.patches(inputs))  # [B, S, U]
        state = self.dropout(top[:, -1])  # [B, U]
        learned: Tensor = self.head(state).view(batch, horizon, len(self.spec.quantiles))  # [B, H, Q]
        if self.decoder is not None:
            learned = learned + self.decoder(state, self.ahead(inputs))
        return line.unsqueeze(-1) + self.bias + learned  # [B, H, Q]

    def patches(self, inputs: Inputs) -> Tensor:
        """-> [B, S, P * (2 + E)]; where P does not divide L, the oldest patch is filled up as missing."""
        spec = self.spec
        fill = spec.steps * spec.patch_length - spec.context_length
        channels = torch.stack([inputs.context, inputs.observed], 1)  # [B, 2, L]
        if inputs.past.shape[-1]:
            border = len(self.spec.inputs.of("past"))
            rows = torch.cat(
                [self.past(inputs.past[..., :border]), self.known(inputs.past[..., border:])], -1
            )  # [B, L, E]
            channels = torch.cat([channels, rows.transpose(1, 2)], 1)  # [B, 2 + E, L]
        channels = functional.pad(channels, (fill, 0))  # [B, 2 + E, S * P]
        channels = channels.view(*channels.shape[:2], spec.steps, spec.patch_length)  # [B, 2 + E, S, P]
        return channels.transpose(1, 2).flatten(2)  # [B, S, P * (2 + E)]

    def ahead(self, inputs: Inputs) -> Tensor:
        """-> [B, H, E] features of the rows to forecast."""
        parts = [
            self.get_buffer(f"cycle_{cycle}")[inputs.calendar[..., at]]  # [B, H, features]
            for at, cycle in enumerate(self.spec.inputs.cycles)
        ]
        if self.spec.inputs.holidays:
            parts.append(inputs.calendar[..., -1:].to(inputs.context))  # [B, H, 1]
        if self.known.width:
            parts.append(self.known(inputs.future))  # [B, H, E]
        if self.static.width:
            parts.append(self.static(inputs.static.unsqueeze(1)).expand(-1, self.spec.horizon, -1))  # [B, H, E]
        return torch.cat(parts, -1)  # [B, H, E]
