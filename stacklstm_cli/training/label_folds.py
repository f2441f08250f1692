"""What the folds of a training for labels say of what they have not seen, and the steps at which they say it best.

Shape letters: N series, R rows, K classes.
"""

from __future__ import annotations

import numpy as np
import torch

from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.evaluation.comparison import Paired
from stacklstm_cli.evaluation.labels import fit_temperature
from stacklstm_cli.model.checkpoint import Weights
from stacklstm_cli.model.labels import Classifier, LabelNetwork
from stacklstm_cli.training.label_plan import LabelPlan
from stacklstm_cli.training.loop import Snapshot
from stacklstm_cli.training.promotion import ENOUGH_UNITS

LEAST_CHANCE = 1e-12
"""Smaller probabilities count as this one."""
CURVE = "curve."
"""Before the names of tensors that hold what a fold has told after so many steps."""


class Curve:
    """What a fold's averaged weights say of the series that it has not seen, each time they are validated."""

    def __init__(self, panel: Panel, plan: LabelPlan, fold: int, device: torch.device) -> None:
        self.panel, self.fold, self.device = panel, fold, device
        self.held = np.flatnonzero(plan.held_out(fold))
        """Indices of the series, or rows, that are held out."""
        series = self.held if not plan.every_row else np.searchsorted(panel.offsets, self.held, "right") - 1
        self.wanted = np.isin(np.arange(panel.n_series), series)  # [N]
        self.found: dict[int, Floats] = {}
        """By steps: [held, K] probabilities."""

    def like(self, network: LabelNetwork) -> None:
        """Weights of this network will be looked at."""
        self.network = LabelNetwork(network.spec)
        self.network.load_state_dict(network.state_dict())

    def told(self) -> Weights:
        """What was found, as tensors that a file can hold."""
        return {f"{CURVE}{steps}": torch.as_tensor(found) for steps, found in self.found.items()}

    def recall(self, told: Weights) -> None:
        """Take up what an interrupted run has found."""
        mine = {name: found for name, found in told.items() if name.startswith(CURVE)}
        self.found |= {int(name.removeprefix(CURVE)): found.numpy() for name, found in mine.items()}

    def take(self, snapshot: Snapshot) -> None:
        """Look at the averaged weights of a snapshot."""
        names = [name for name, _ in self.network.named_parameters()]
        means = {name: snapshot.tensors[f"mean.{place}"] for place, name in enumerate(names)}
        norms = {name: snapshot.tensors[f"network.{name}"] for name in self.network.state_dict() if name not in means}
        self.look(means | norms, snapshot.numbers["step"])

    def look(self, weights: Weights, steps: int) -> None:
        """Look at the weights after so many steps."""
        self.network.load_state_dict(weights, strict=False)
        classifier = Classifier([self.network], self.device)
        self.found[steps] = classifier.probabilities(self.panel, self.wanted)[self.held]


def best_steps(curves: list[Curve], plan: LabelPlan) -> tuple[int, Ints, Floats]:
    """The steps at which the folds together are least surprised, what they were judged on, and [held, K] what they
    said of it. A fold that ended earlier stands with its last word.

    What counts is the surprise that is left once the probabilities are calibrated: networks of few series grow too sure
    of themselves long before they stop getting better.
    """
    told = [curve for curve in curves if curve.found]
    if not told:
        return plan.schedule.max_steps, np.empty(0, dtype=np.int64), np.empty((0, len(plan.classes)))
    held = np.concatenate([curve.held for curve in told])
    truth = plan.truth[held]

    def said(steps: int) -> Floats:
        parts = [curve.found[max([at for at in curve.found if at <= steps] or [min(curve.found)])] for curve in told]
        return np.concatenate(parts)  # [held, K]

    def surprise(steps: int) -> float:
        found = said(steps)
        sure = softened(found, fit_temperature(certain(found), truth))
        return float(surprises(sure, truth) @ plan.weights[truth])

    steps = min(sorted({at for curve in told for at in curve.found}), key=surprise)
    return steps, held, said(steps)


def units_of(panel: Panel, plan: LabelPlan, places: Ints, over: Paired | None = None) -> tuple[Paired, Ints]:
    """What is paired, and the unit [G] of each place: series; of rows of few series, stretches with one label.

    Of rows, `over` says which of the two; None is by the number of series.
    """
    if not plan.every_row:
        return "series", np.arange(places.size)
    series = np.searchsorted(panel.offsets, places, "right") - 1
    numbers = np.unique(series, return_inverse=True)[1]
    many = bool(places.size) and int(numbers.max()) + 1 >= ENOUGH_UNITS
    if not places.size or over == "series" or (over is None and many):
        return "series", np.asarray(numbers)
    begins = (np.diff(series) != 0) | (np.diff(plan.truth[places]) != 0)
    return "stretches", np.concatenate([[0], np.cumsum(begins)])


def unit_means(losses: Floats, groups: Ints) -> Floats:
    """[U] means of losses [G] over the units `groups` [G]."""
    return np.asarray(np.bincount(groups, losses) / np.bincount(groups))


def certain(probabilities: Floats) -> Floats:
    """The logarithms of probabilities."""
    return np.asarray(np.log(np.maximum(probabilities, LEAST_CHANCE)))


def surprises(probabilities: Floats, truth: Ints) -> Floats:
    """[R] -log of the probability [R, K] of each true class [nats]."""
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(truth.size), truth], LEAST_CHANCE)))


def spread(values: Floats) -> float | None:
    """Standard deviation; None of fewer than two."""
    return float(values.std(ddof=1)) if values.size > 1 else None


def softened(probabilities: Floats, temperature: float) -> Floats:
    """Probabilities [..., K] with their logarithms divided by a temperature."""
    powers = np.maximum(probabilities, LEAST_CHANCE) ** (1 / temperature)
    shares: Floats = powers / powers.sum(-1, keepdims=True)
    return shares
