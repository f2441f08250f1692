"""The network: a recurrent stack over patches of the context, beside a linear skip.

Shape letters: B batch, L context, P patch, S steps = ceil(L / P), U width of the decoded state, H horizon, K raw
numbers of the head, C covariates, E features of a row, D width of the decoder.

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
from stacklstm_cli.model.classes import LabelSpec
from stacklstm_cli.model.dropout import Dropout
from stacklstm_cli.model.heads import located_numbers
from stacklstm_cli.model.inputs import CATEGORY_WIDTH, InputSpec, feature_width, table
from stacklstm_cli.model.layers import StackSpec
from stacklstm_cli.model.smoothing import Smoothing
from stacklstm_cli.model.stack import Stack

if TYPE_CHECKING:
    from stacklstm_cli.model.windows import Inputs

ROLES: tuple[Role, ...] = ("past", "known", "static")
LARGEST_FEATURE = 5.0
"""A number further out than so many deviations is held there: one false reading must not decide."""


@dataclass(frozen=True)
class NetworkSpec:
    """What must be known to build the network. Stored in the model file."""

    stack: StackSpec
    dropout: float
    """Of the state that decodes the horizon."""
    patch_length: int
    context_length: int
    horizon: int
    quantiles: tuple[float, ...]
    """Those to be forecast, ascending; 0.5 is among them."""
    location_length: int
    """Newest rows of the context whose mean is subtracted from it."""
    scale_length: int
    """Newest rows of the context whose deviation it is divided by."""
    inputs: InputSpec = field(default_factory=InputSpec)
    skip: bool = True
    """Whether a linear forecast stands beside the stack."""
    loss: str = "quantile"
    """What the raw numbers of a forecast mean: see heads.py."""
    gaps: str = "mask"
    """What stands in the context for a missing value: nothing ("mask"), the last one before it ("ffill"), or a
    line between its neighbours ("interpolate"). A flag says that it is missing in any case."""
    transform: str = "none"
    """What is learned: the values themselves, their log(1 + y) ("log1p"), or sign(y) log(1 + |y|) ("symlog")."""
    minimum: float | None = None
    maximum: float | None = None
    """Between these, in user units, lies every forecast."""
    labels: LabelSpec | None = None
    """What a network that gives labels has beside; None where values are forecast."""
    calendar_rows: int = 1
    """Rows to forecast that share what the calendar and the static covariates say of the first of them."""
    smoothing_season: int = 0
    """Rows in the season of the forecasts by smoothing that the linear one is moved towards; 0 has none."""

    @property
    def steps(self) -> int:
        """S: how often the LSTM steps over one context."""
        return -(-self.context_length // self.patch_length)

    @property
    def rows_after_steps(self) -> Tensor:
        """[S] rows of the context that come after each step of the stack."""
        return torch.arange(self.steps - 1, -1, -1) * self.patch_length

    @property
    def layers(self) -> int:
        return len(self.stack.hidden_sizes)

    def as_dict(self) -> dict[str, Any]:
        stack = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self.stack).items()}
        stored = asdict(self) | {
            "quantiles": list(self.quantiles),
            "inputs": self.inputs.as_dict(),
            "stack": stack,
        }
        del stored["labels"]
        return stored if self.labels is None else stored | {"labels": self.labels.as_dict()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> NetworkSpec:
        parts = {
            "quantiles": tuple(stored["quantiles"]),
            "inputs": InputSpec.from_dict(stored["inputs"]),
            "stack": StackSpec.from_dict(stored["stack"]),
            "labels": LabelSpec.from_dict(stored["labels"]) if "labels" in stored else None,
        }
        return cls(**stored | parts)


class Features(nn.Module):
    """Covariates as the network sees them: numbers standardised, with a flag where missing; categories embedded.

    Mean and deviation of the numbers are those of the training part (`set_statistics`).
    """

    places: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, covariates: Sequence[Covariate]) -> None:
        super().__init__()
        self.numbers = [at for at, one in enumerate(covariates) if one.categories is None]
        self.texts = [at for at, one in enumerate(covariates) if one.categories is not None]
        places = torch.tensor(self.numbers, dtype=torch.int64, device="cpu")
        self.register_buffer("places", places, persistent=False)  # a list would be copied to a GPU at every step
        self.register_buffer("mean", torch.zeros(len(self.numbers)))
        self.register_buffer("deviation", torch.ones(len(self.numbers)))
        # Zero, and none of torch's random numbers: a category that training never meets stays as good as unknown,
        # and how many there are changes no other weight.
        self.embeddings = nn.ParameterList(
            torch.zeros(len(covariates[at].categories or ()) + 1, CATEGORY_WIDTH) for at in self.texts
        )
        self.width = feature_width(covariates)

    def forward(self, covariates: Tensor) -> Tensor:
        """[..., C], NaN where missing -> [..., E]"""
        raw = covariates[..., self.places]  # [..., C']
        missing = raw.isnan()
        numbers = ((raw - self.mean) / self.deviation).clamp(-LARGEST_FEATURE, LARGEST_FEATURE)
        parts = [numbers.masked_fill(missing, 0.0), missing.to(numbers)]
        for at, embedding in zip(self.texts, self.embeddings, strict=True):
            parts.append(functional.embedding(covariates[..., at].long(), embedding))  # [..., width]
        return torch.cat(parts, -1)  # [..., E]


class Decoder(nn.Module):
    """What the calendar and the covariates of each row to forecast change, given the state."""

    def __init__(self, spec: NetworkSpec, features: int, outputs: int) -> None:
        super().__init__()
        width = spec.stack.hidden_sizes[-1]
        self.state = nn.Linear(spec.stack.pooled_size, width)
        self.features = nn.Linear(features, width, bias=False)
        self.rows, self.horizon = spec.calendar_rows, spec.horizon
        self.step = nn.Parameter(torch.zeros(-(-spec.horizon // self.rows), width))
        self.hidden = nn.Linear(width, width)
        self.dropout = Dropout(spec.dropout)
        self.out = nn.Linear(width, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, state: Tensor, features: Tensor) -> Tensor:
        """state [..., U], features [..., H, E] -> [..., H, K]"""
        firsts = features[..., :: self.rows, :]  # [..., H / rows, E]
        hidden = self.state(state).unsqueeze(-2) + self.features(firsts) + self.step  # [..., H / rows, D]
        hidden = self.dropout(functional.relu(self.hidden(functional.relu(hidden))))
        decoded: Tensor = self.out(hidden)  # [..., H / rows, K]
        if self.rows == 1:
            return decoded
        return decoded.repeat_interleave(self.rows, -2)[..., : self.horizon, :]  # [..., H, K]


class StackedRNN(nn.Module):
    """Raw numbers of the head for the next H normalised values, from the last L of them.

    raw = located * line + bias + head(state) + decoder(state, rows to forecast), where
    line = context @ (skip_start + skip), moved towards forecasts by smoothing where there are some (smoothing.py).
    Head and decoder start at zero and `skip_start` at a linear forecast (see training/start.py), so training
    begins from a sound forecast and the stack learns what a straight line through the context cannot say.
    `skip` is what training adds to that start; weight decay draws it back there, not to zero.
    """

    skip_start: Tensor
    located: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        length, horizon, located = spec.context_length, spec.horizon, located_numbers(spec.loss, spec.quantiles)
        self.past, self.known, self.static = (Features(spec.inputs.of(role)) for role in ROLES)
        for cycle in spec.inputs.cycles:
            self.register_buffer(f"cycle_{cycle}", torch.as_tensor(table(cycle)))
        seen = self.past.width + self.known.width
        self.covariates = nn.Linear(seen, spec.inputs.row_width - 2, bias=False) if seen else None
        self.stack = Stack(spec.stack)
        self.dropout = Dropout(spec.dropout)
        self.head = nn.Linear(spec.stack.pooled_size, horizon * len(located))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if spec.skip:
            self.register_buffer("skip_start", torch.zeros(length, horizon))
        self.register_buffer("located", torch.tensor(located))
        self.skip = nn.Parameter(torch.zeros(length, horizon)) if spec.skip else None
        self.bias = nn.Parameter(torch.zeros(horizon, len(located)))
        width, season = spec.stack.pooled_size, spec.smoothing_season
        self.smoothing = Smoothing(length, horizon, season, width) if spec.skip and season else None
        ahead = self.ahead_width
        self.decoder = Decoder(spec, ahead, len(located)) if ahead else None

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
        """Inputs of a batch -> [B, H, K], from the newest step; of every step [B, S, H, K], where inputs are for all.

        To train every step on its own horizon is what Wen et al. 2017 call forking sequences.
        """
        outputs = self.stack(self.patches(inputs))  # [B, S, W]
        every_step = inputs.calendar.dim() > 3
        state = self.dropout(outputs if every_step else self.stack.pooled(outputs))  # [B, (S,) U]
        learned: Tensor = self.head(state).unflatten(-1, self.bias.shape)  # [B, (S,) H, K]
        if self.decoder is not None:
            learned = learned + self.decoder(state, self.ahead(inputs))
        if self.skip is not None:
            seen = self.seen_by_steps(inputs.context) if every_step else inputs.context  # [B, (S,) L]
            # Most of a forecast is this line: rounded to eight bits it would err by more than the stack can learn.
            with torch.autocast(seen.device.type, enabled=False):
                line: Tensor = seen @ (self.skip_start + self.skip)  # [B, (S,) H]
                if self.smoothing is not None:
                    observed = self.seen_by_steps(inputs.observed) if every_step else inputs.observed  # [B, (S,) L]
                    line = self.smoothing(state.to(seen), seen, observed, line)
            learned = learned + line.unsqueeze(-1) * self.located
        return learned + self.bias  # [B, (S,) H, K] in the precision of the bias

    def attention_weights(self, inputs: Inputs) -> Tensor:
        """[B, S] how much each step of the context counts beside the newest, 1 in total. Only with attention."""
        return self.stack.attention_weights(self.stack(self.patches(inputs)))

    def seen_by_steps(self, context: Tensor) -> Tensor:
        """[B, L] -> [B, S, L]: the context as each step has seen it, its newest row last, 0 before it begins."""
        length = self.spec.context_length
        longer = functional.pad(context, (length, 0))  # [B, 2L]
        after = self.spec.rows_after_steps.tolist()
        return torch.stack([longer[:, length - rows : 2 * length - rows] for rows in after], 1)  # [B, S, L]

    def patches(self, inputs: Inputs) -> Tensor:
        """-> [B, S, P * (2 + E)]; where P does not divide L, the oldest patch is filled up as missing."""
        spec = self.spec
        fill = spec.steps * spec.patch_length - spec.context_length
        channels = torch.stack([inputs.context, inputs.observed], 1)  # [B, 2, L]
        if self.covariates is not None:
            border = len(self.spec.inputs.of("past"))
            rows = torch.cat(
                [self.past(inputs.past[..., :border]), self.known(inputs.past[..., border:])], -1
            )  # [B, L, E]
            channels = torch.cat([channels, self.covariates(rows).transpose(1, 2)], 1)  # [B, 2 + E, L]
        channels = functional.pad(channels, (fill, 0))  # [B, 2 + E, S * P]
        channels = channels.view(*channels.shape[:2], spec.steps, spec.patch_length)  # [B, 2 + E, S, P]
        return channels.transpose(1, 2).flatten(2)  # [B, S, P * (2 + E)]

    def ahead(self, inputs: Inputs) -> Tensor:
        """-> [B, (S,) H, E] features of the rows to forecast."""
        parts = [
            self.get_buffer(f"cycle_{cycle}")[inputs.calendar[..., at]]  # [B, H, features]
            for at, cycle in enumerate(self.spec.inputs.cycles)
        ]
        if self.spec.inputs.holidays:
            parts.append(inputs.calendar[..., -1:].to(inputs.context))  # [B, H, 1]
        if self.known.width:
            parts.append(self.known(inputs.future))  # [B, H, E]
        if self.static.width:
            static = self.static(inputs.static)  # [B, E]
            ahead = inputs.calendar.shape[:-1]
            parts.append(
                static.view(-1, *(1,) * (len(ahead) - 1), static.shape[-1]).expand(*ahead, -1)
            )  # [B, (S,) H, E]
        return torch.cat(parts, -1)  # [B, H, E]
