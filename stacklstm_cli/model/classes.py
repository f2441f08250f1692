"""What a network that gives labels is, beyond its stack, with the standard library alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FORECASTS_ONLY = (
    *("horizon", "quantiles", "interval", "skip", "loss", "supervise", "calendar", "holidays", "gaps", "transform"),
    *("min", "max", "holdout", "refit", "seasonality", "per_series", "per_step", "baselines"),
)
"""Options of a training that say how values are forecast or judged."""
KERNELS = (7, 5, 3)
"""Steps that each convolution looks at: those of Wang et al. 2017 and Karim et al. 2018, the first one odd."""


@dataclass(frozen=True)
class LabelSpec:
    """Stored in the model file as a part of the network's description."""

    classes: tuple[str, ...]
    """K: the labels, as written."""
    every_row: bool
    """Whether each row has a label of its own, and not each series one."""
    filters: tuple[int, ...] = ()
    """Widths of the convolutions beside the stack, one for each of `KERNELS`; () is none."""
    stride: int = 1
    """Rows from one place that the convolutions look at to the next: more than 1 in long series."""
    members: int = 1
    """Networks whose probabilities are averaged; they differ by their seeds."""
    temperature: float = 1.0
    """What the logits are divided by (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""

    def as_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> LabelSpec:
        """Raises `TypeError`, `KeyError` or `ValueError` for one that makes no sense."""
        found = cls(**stored | {name: tuple(stored[name]) for name in ("classes", "filters")})
        sound = (
            len({*found.classes}) == len(found.classes) > 1
            and all(isinstance(name, str) for name in found.classes)
            and isinstance(found.every_row, bool)
            and len(found.filters) in (0, len(KERNELS))
            and all(isinstance(number, int) and number > 0 for number in (*found.filters, found.stride, found.members))
            and (found.stride == 1 or not found.every_row)
            and isinstance(found.temperature, float)
            and 0 < found.temperature < float("inf")
        )
        if not sound:
            raise ValueError("labels")
        return found
