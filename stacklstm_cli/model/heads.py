"""Heads: what the network's last numbers mean, and the loss that teaches them.

Shape letters: B batch, H horizon, Q quantiles.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pinball(forecast: Tensor, target: Tensor, quantiles: Tensor) -> Tensor:
    """Quantile loss of forecasts [B, H, Q] of targets [B, H], mean over the quantiles -> [B, H].

    Doubled, so that its median part reads as the absolute error (Koenker & Bassett 1978,
    "Regression Quantiles").
    """
    error = target.unsqueeze(-1) - forecast  # [B, H, Q]
    return 2 * torch.maximum(quantiles * error, (quantiles - 1) * error).mean(-1)  # [B, H]


def masked_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the counted places; 0 where none is."""
    return (values * counted).sum() / counted.sum().clamp(min=1)
