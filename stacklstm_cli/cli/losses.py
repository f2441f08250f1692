"""What is drawn of a training: its losses, kept while it runs."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stacklstm_cli.cli.axes import NumberAxis
from stacklstm_cli.cli.charts import Chart, Line, Picture
from stacklstm_cli.cli.messages import printable
from stacklstm_cli.data.panel import Floats
from stacklstm_cli.training.fitting import Outcome

MOST_POINTS = 400
"""Points of a loss curve; each is the mean of so many steps that they suffice."""


@dataclass
class Losses:
    """The losses of a training, step by step, kept while it runs."""

    phases: dict[str, tuple[array[float], array[float], array[float]]] = field(default_factory=dict)
    """Phase of the training -> step, training loss, validation loss (NaN where none was measured)."""

    def update(self, event: Mapping[str, Any]) -> None:
        """Keep the losses of an event of the training loop."""
        steps, losses, validations = self.phases.setdefault(event["phase"], (array("d"), array("d"), array("d")))
        while steps and steps[-1] >= event["step"]:  # it went back, to go on more gently
            for column in (steps, losses, validations):
                column.pop()
        steps.append(event["step"])
        losses.append(event["loss"])
        validations.append(np.nan if event["validation"] is None else event["validation"])


def training_picture(losses: Losses, outcome: Outcome, title: str, model: str) -> Picture:
    """How the losses fell, and which weights were kept."""
    lines: list[Line] = []
    for number, (phase, columns) in enumerate(losses.phases.items()):
        steps, training, validation = (np.asarray(column, dtype=np.float64) for column in columns)
        label, role = ("training loss", "training") if number == 0 else (f"training loss, {phase} on all rows", "refit")
        lines.append(Line(label, *thinned(steps, training), role))
        measured = np.isfinite(validation)
        if measured.any():
            few = int(measured.sum()) < MOST_POINTS // 10
            lines.append(Line("validation loss", steps[measured], validation[measured], "validation", points=few))
    chosen = outcome.fits[0]
    kept = f"step {chosen.steps:,}: best validation loss" if chosen.validation is not None else ""
    chart = Chart(
        title="",
        axis=NumberAxis(),
        lines=tuple(lines),
        x_label="optimiser step",
        y_label="loss",
        marks=((float(chosen.steps), kept),) if kept else (),
        top=loss_top(lines),
    )
    return Picture(printable(title), printable(f"model {model}"), (chart,))


def thinned(steps: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Steps and means of as many neighbouring losses as leave at most `MOST_POINTS`."""
    size = -(-steps.size // MOST_POINTS)
    begins = np.arange(0, steps.size, size)
    counts = np.diff(np.append(begins, steps.size))
    return np.add.reduceat(steps, begins) / counts, np.add.reduceat(losses, begins) / counts


def loss_top(lines: Sequence[Line]) -> float | None:
    """Above all but the first steps of each curve, where these are much higher; None: nothing is cut."""
    peak = max((float(np.nanmax(line.y)) for line in lines), default=np.nan)
    tails = [line.y[max(line.y.size // 20, 1) :] if line.y.size > 1 else line.y for line in lines]
    low = min((float(np.nanmin(tail)) for tail in tails), default=np.nan)
    usual = max((float(np.nanmax(tail)) for tail in tails), default=np.nan)
    limit = usual + 0.5 * (usual - low)
    return limit if peak > limit > low else None
