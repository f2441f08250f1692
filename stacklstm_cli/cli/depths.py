"""Error against depth: what is drawn of a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stacklstm_cli.cli.axes import NumberAxis
from stacklstm_cli.cli.charts import Band, Chart, Line, Picture
from stacklstm_cli.cli.messages import printable
from stacklstm_cli.cli.searching import Found
from stacklstm_cli.data.panel import Floats
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.training.search import Beside


def depth_picture(found: Found, source: str) -> Picture | None:
    """Mean error of each depth with its spread, and what it loses to the best with the error of that difference.

    None where no candidate was scored.
    """
    if found.choice is None:
        return None
    depths = [one for one in found.choice.compared if one.candidate.start]
    others = [one for one in found.choice.compared if not one.candidate.start]
    chosen = ((float(found.choice.chosen.layers), "chosen"),)
    return Picture(
        title=printable(f"Error against depth: {source}"),
        subtitle=printable(found.answer or f"{found.task.rolling.explained()}"),
        charts=(error_chart(found, depths, others, chosen), difference_chart(depths, chosen)),
    )


def error_chart(
    found: Found, depths: Sequence[Beside], others: Sequence[Beside], chosen: tuple[tuple[float, str], ...]
) -> Chart:
    """The score of every candidate; the spread is that of the depths."""
    at = layers_of(depths)  # [D]
    score = np.array([one.candidate.score for one in depths])  # [D]
    spread = np.array([one.candidate.spread for one in depths])  # [D]
    counted = found.task.rolling.counted()
    return Chart(
        title="",
        axis=NumberAxis(),
        lines=(Line("mean error", at, score, MODEL, points=True), *([scattered(others)] if others else [])),
        bands=(Band(f"spread over {counted}", at, score - spread, score + spread, 0),),
        x_label="layers",
        y_label=f"{found.task.rolling.metric.upper().replace('_', ' ')}, cross-validated",
        marks=chosen,
    )


def difference_chart(depths: Sequence[Beside], chosen: tuple[tuple[float, str], ...]) -> Chart:
    """The paired difference of each depth to the best candidate."""
    at = layers_of(depths)  # [D]
    difference = np.array([one.difference for one in depths])  # [D]
    error = np.array([one.error for one in depths])  # [D]
    return Chart(
        title="",
        axis=NumberAxis(),
        lines=(
            Line("no difference", at, np.zeros_like(at), "ideal"),
            Line("more than the best", at, difference, "forecast", points=True),
        ),
        bands=(Band("± its standard error", at, difference - error, difference + error, 1),),
        x_label="layers",
        y_label="difference to the best, paired",
        marks=chosen,
    )


def layers_of(compared: Sequence[Beside]) -> Floats:
    """[D]"""
    return np.array([one.candidate.layers for one in compared], dtype=np.float64)


def scattered(others: Sequence[Beside]) -> Line:
    """Candidates that differ in more than their depth: points, which gaps keep from being joined."""
    x, y = (np.full(2 * len(others), np.nan) for _ in range(2))  # [2 candidates] each
    x[::2], y[::2] = layers_of(others), [one.candidate.score for one in others]
    return Line("other options changed too", x, y, "others", points=True)
