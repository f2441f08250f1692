"""The network: a stacked LSTM over patches of the context, beside a linear skip.

Shape letters: B batch, L context, P patch, S steps = ceil(L / P), U hidden size, H horizon, Q quantiles.

The last state of the top layer decodes the whole horizon at once, so every step of a forecast sees the
newest value and no step is fed its own errors (direct forecasting: Ben Taieb et al. 2012,
"A review and comparison of strategies for multi-step ahead time series forecasting").
The linear skip from the context follows Zeng et al. 2023, "Are Transformers Effective for Time Series
Forecasting?"; patches follow Lin et al. 2023, "SegRNN".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


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

    @property
    def steps(self) -> int:
        """S: how often the LSTM steps over one context."""
        return -(-self.context_length // self.patch_length)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"quantiles": list(self.quantiles)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> NetworkSpec:
        return cls(**stored | {"quantiles": tuple(stored["quantiles"])})


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
        self.lstm = nn.LSTM(
            input_size=2 * spec.patch_length,  # values and observed flags
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

    def forward(self, context: Tensor, observed: Tensor) -> Tensor:
        """context [B, L] normalised, 0 where missing; observed [B, L] 1 or 0 -> [B, H, Q], not yet sorted."""
        batch = context.shape[0]
        line: Tensor = context @ (self.skip_start + self.skip)  # [B, H]
        top, _ = self.lstm(self.patches(context, observed))  # [B, S, U]
        state = self.dropout(top[:, -1])  # [B, U]
        learned: Tensor = self.head(state).view(batch, self.spec.horizon, len(self.spec.quantiles))  # [B, H, Q]
        return line.unsqueeze(-1) + self.bias + learned  # [B, H, Q]

    def patches(self, context: Tensor, observed: Tensor) -> Tensor:
        """[B, L] twice -> [B, S, 2P]; where P does not divide L, the oldest patch is filled up as missing."""
        fill = self.spec.steps * self.spec.patch_length - self.spec.context_length
        both = functional.pad(torch.stack([context, observed], 1), (fill, 0))  # [B, 2, S * P]
        both = both.view(len(context), 2, self.spec.steps, self.spec.patch_length)  # [B, 2, S, P]
        return both.transpose(1, 2).flatten(2)  # [B, S, 2P]
