"""Steps that rows may have without showing them: a model's, or the usual one next to theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stacklstm_cli.data.calendar import OffGridError, Step
from stacklstm_cli.data.panel import Ints
from stacklstm_cli.data.patterns import DAY, Stamps

USUAL_MINUTES = (1, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440)
"""Steps to bring irregular rows onto."""


def usual_step(step: Step, stamps: Stamps, mates: Ints) -> Step:
    """A step people use, near to the one of irregular rows; `mates` are rows of one series, in order of time."""
    if step.unit != "second" and (step.unit != "day" or step.count % 7 == 0):
        return step
    rises = np.diff(stamps[mates]).astype(np.int64)
    rises = rises[rises > 0]
    minutes = float(np.median(rises)) / 60_000_000 if rises.size else 60.0
    nearest = min(USUAL_MINUTES, key=lambda usual: abs(np.log(usual / minutes)))
    if nearest == USUAL_MINUTES[0] or minutes > USUAL_MINUTES[-1]:
        return step
    return Step("day") if nearest * 60_000_000 == DAY else Step("second", nearest * 60)


def placed(stored_step: Step, stamps: Stamps) -> Step:
    """The model's step, its grid moved where these stamps need it."""
    try:
        stored_step.ordinals(stamps)
    except OffGridError:
        return replace(stored_step, phase=None).fitted(stamps)
    return stored_step


def is_step_of(stored_step: Step, stamps: Stamps, offsets: Ints) -> bool:
    """Whether a model's step is a step of these rows as well: they lie on its grid, mostly one step apart.

    So three weekdays are rows of a business-day model, and one row is of any.
    """
    if (stamps.dtype.kind != "M") != (stored_step.unit == "step"):
        return False
    step = placed(stored_step, stamps)
    try:
        rises = np.diff(step.ordinals(stamps))
    except OffGridError:
        return False
    inside = np.ones(rises.size, dtype=bool)
    inside[offsets[1:-1] - 1] = False
    values, counts = np.unique(rises[inside], return_counts=True)
    return not values.size or int(values[np.argmax(counts)]) == 1
