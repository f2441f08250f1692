"""Metrics of predicted classes and their probabilities, the baselines beside them, and the temperature of a softmax.

A class is predicted where its probability is the highest, the first of equal ones. A row without a label (-1) is left
out of everything. A row of a class that was not in the training data counts as wrong, as it can only be; the log loss
alone leaves it out, which would be infinite. What is not defined is NaN, and left out of the means over classes.

Letters: R rows (series, or time steps where each has its own label), K classes of the model, U classes it has not
seen, N training series, L steps, F features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from stacklstm_cli.data.panel import Floats, Ints
from stacklstm_cli.evaluation.verdict import MODEL, Table

LABEL_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
"""In the order of tables. Of the last two less is better."""
BINS = 15
"""Of equal width, as in Guo et al. (2017)."""
TEMPERATURES = (0.05, 20.0)
"""Bounds of a temperature."""
LONGEST = 512
"""Steps to which longer series are resampled before they are compared."""
MOST_NEIGHBOURS = 2_000
"""Training series that each series is compared with: of more, as many evenly spaced ones."""
DISTANCES_AT_ONCE = 4_000_000
NONE_UNSEEN: Mapping[str, int] = MappingProxyType({})


class ClassScore(NamedTuple):
    """How well one class is found."""

    label: str
    support: int
    """Rows of this class."""
    precision: float
    """Share of the rows predicted as this class that are of it; NaN where none is predicted so."""
    recall: float
    """Share of the rows of this class that are predicted so; NaN where there is none."""
    f1: float
    """2 tp / (2 tp + fp + fn); NaN where the class is neither there nor predicted."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often predictions of about one confidence are right; B bins, equally wide between 0 and 1."""

    count: Ints
    """[B] rows whose highest probability lies in the bin, its upper bound included."""
    confidence: Floats
    """[B] mean of the highest probability; NaN in an empty bin."""
    accuracy: Floats
    """[B] share of the rows that are right; NaN in an empty bin."""

    @property
    def error(self) -> float:
        """Expected calibration error: |accuracy - confidence|, weighted by the rows of each bin; NaN without rows.

        Guo, Pleiss, Sun & Weinberger (2017), On calibration of modern neural networks, ICML, equation 3.
        """
        filled = self.count > 0
        if not filled.any():
            return math.nan
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return round(float(np.average(gaps, weights=self.count[filled])), 12)  # without what summing adds to nothing


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Predicted classes beside the true ones."""

    accuracy: float
    balanced_accuracy: float
    """Mean recall of the classes that have rows."""
    macro_f1: float
    """Mean F1 of the classes that are there or predicted."""
    log_loss: float
    """Mean of -log of the true class's probability, in nats, over the rows of known classes."""
    calibration_error: float
    per_class: tuple[ClassScore, ...]
    """The classes of the model, then those it has not seen."""
    confusion: Ints
    """[K + U, K] rows of each true class (down: those of the model, then unseen ones) by predicted class (across)."""
    n_rows: int
    """Rows that have a label."""
    unseen: Mapping[str, int]
    """Rows of each class that was not in the training data."""
    reliability: Reliability

    def metrics(self) -> dict[str, float]:
        """The five metrics by name."""
        return {name: getattr(self, name) for name in LABEL_METRICS}


def score(
    probabilities: Floats, truth: Ints, classes: tuple[str, ...], unseen: Mapping[str, int] = NONE_UNSEEN
) -> LabelScores:
    """Score `probabilities` [R, K] of `classes` (K names) against `truth` [R].

    `truth` is the position of the row's class among `(*classes, *unseen)`, or -1 for a row without a label. Rows of
    unseen classes may also be given as -1; then they are counted by `unseen` and left out of every metric. Without
    a labelled row every metric is NaN.

    The definitions are scikit-learn's: `accuracy_score`, `balanced_accuracy_score`, `f1_score(average="macro")`,
    `log_loss` (probabilities clipped to the machine epsilon), `confusion_matrix`.
    """
    labelled = truth >= 0
    known, found = truth[labelled], probabilities[labelled]  # [R'], [R', K]
    predicted = found.argmax(axis=1) if found.size else np.zeros(0, dtype=np.int64)  # [R']
    shape = (len(classes) + len(unseen), len(classes))
    cells = np.bincount(known * shape[1] + predicted, minlength=shape[0] * shape[1])
    confusion = cells.reshape(shape).astype(np.int64)  # [K + U, K]
    per_class = class_scores(confusion, (*classes, *unseen))
    curve = reliability(found, known)
    return LabelScores(
        accuracy=float(np.trace(confusion[: shape[1]]) / known.size) if known.size else math.nan,
        balanced_accuracy=mean_defined([one.recall for one in per_class]),
        macro_f1=mean_defined([one.f1 for one in per_class]),
        log_loss=log_loss(found, known),
        calibration_error=curve.error,
        per_class=per_class,
        confusion=confusion,
        n_rows=int(known.size),
        unseen=dict(unseen),
        reliability=curve,
    )


def class_scores(confusion: Ints, labels: Sequence[str]) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class by the `confusion` [K + U, K] of all of them; `labels` K + U names.

    van Rijsbergen (1979), Information Retrieval, chapter 7.
    """
    n_classes = confusion.shape[1]
    scores = []
    for index, label in enumerate(labels):
        support = int(confusion[index].sum())
        chosen = int(confusion[:, index].sum()) if index < n_classes else 0
        right = int(confusion[index, index]) if index < n_classes else 0
        precision, recall = share(right, chosen), share(right, support)
        scores.append(ClassScore(label, support, precision, recall, share(2 * right, support + chosen)))
    return tuple(scores)


def share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def mean_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN where there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def log_loss(probabilities: Floats, truth: Ints) -> float:
    """Mean of -log of the true class's probability [nats] over the rows whose class is one of the K; NaN without.

    `probabilities` [R, K], `truth` [R].
    """
    known = truth < probabilities.shape[1]
    given = probabilities[known, truth[known]]
    smallest = np.finfo(np.float64).eps
    return float(-np.log(np.clip(given, smallest, 1 - smallest)).mean()) if given.size else math.nan


def reliability(probabilities: Floats, truth: Ints) -> Reliability:
    """Confidence and accuracy of `probabilities` [R, K] against `truth` [R], in `BINS` bins."""
    if not truth.size:
        nothing = np.full(BINS, np.nan)
        return Reliability(np.zeros(BINS, dtype=np.int64), nothing, nothing)
    highest = probabilities.max(axis=1)  # [R]
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)  # [R]
    place = np.clip(np.ceil(highest * BINS).astype(np.int64) - 1, 0, BINS - 1)  # [R]
    count = np.bincount(place, minlength=BINS)  # [B]
    with np.errstate(invalid="ignore"):  # an empty bin is 0 / 0, NaN
        confidence = np.bincount(place, weights=highest, minlength=BINS) / count
        accuracy = np.bincount(place, weights=right, minlength=BINS) / count
    return Reliability(count.astype(np.int64), confidence, accuracy)


@dataclass(frozen=True)
class Paired:
    """Two predictors on the same rows."""

    better: int
    """Rows where the first alone is right."""
    worse: int
    """Rows where the second alone is right."""

    @property
    def p_value(self) -> float:
        """Two-sided probability of so uneven numbers if both predictors are equally good and the rows independent.

        The exact test of McNemar (1947), Note on the sampling error of the difference between correlated proportions
        or percentages, Psychometrika 12(2), 153-157: binomial with a share of one half.
        """
        total, fewer = self.better + self.worse, min(self.better, self.worse)
        logs = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(fewer + 1)]
        return min(1.0, 2 * math.fsum(math.exp(log - total * math.log(2)) for log in logs))


@dataclass(frozen=True, eq=False)
class LabelJudgement:
    """The model and the baselines on the same rows."""

    scores: Mapping[str, LabelScores]
    """The model's under `MODEL`, first."""
    best: str | None
    """The baseline with the highest accuracy, the first of equal ones; None without baselines or rows."""
    comparison: Paired | None
    """The model beside that baseline."""

    @property
    def model(self) -> LabelScores:
        return self.scores[MODEL]

    def metrics(self) -> dict[str, dict[str, float]]:
        """Predictor -> metric -> value."""
        return {name: scores.metrics() for name, scores in self.scores.items()}


def judge(
    predictions: Mapping[str, Floats], truth: Ints, classes: tuple[str, ...], unseen: Mapping[str, int] = NONE_UNSEEN
) -> LabelJudgement:
    """Score the probabilities [R, K] of each predictor, among them `MODEL`; the other arguments as `score` has them."""
    names = sorted(predictions, key=lambda name: name != MODEL)
    scores = {name: score(predictions[name], truth, classes, unseen) for name in names}
    if len(names) < 2 or not scores[MODEL].n_rows:
        return LabelJudgement(scores, None, None)
    best = max(names[1:], key=lambda name: scores[name].accuracy)
    labelled = truth >= 0
    own, other = (predictions[name][labelled].argmax(axis=1) == truth[labelled] for name in (MODEL, best))  # [R']
    return LabelJudgement(scores, best, Paired(int((own & ~other).sum()), int((other & ~own).sum())))


def worse_labels(metrics: Table, baseline: str) -> str:
    """Why the model is worse than this baseline, "" where it is not, by accuracy."""
    model, figure = metrics.get(MODEL, {}).get("accuracy"), metrics.get(baseline, {}).get("accuracy")
    if model is None or figure is None or not model < figure:
        return ""
    return f"{MODEL} is worse than {baseline} (accuracy {model:.3f} against {figure:.3f})."


def majority(train_truth: Ints, n_rows: int, n_classes: int) -> Floats:
    """The shares of the classes among the training rows, for each of `n_rows` rows: [n_rows, K].

    `train_truth` [N] holds positions of classes; rows without a label (-1) do not count. The commonest class is the
    one predicted. Without a labelled row all classes are equal.
    """
    counts = np.bincount(train_truth[train_truth >= 0], minlength=n_classes).astype(np.float64)  # [K]
    shares = counts / counts.sum() if counts.sum() else np.full(n_classes, 1 / n_classes)
    return np.tile(shares, (n_rows, 1))  # [n_rows, K]


def nearest_neighbour(train: Sequence[Floats], train_truth: Ints, test: Sequence[Floats], n_classes: int) -> Floats:
    """Probabilities [len(test), K] by the class of the nearest training series.

    `train` (N) and `test` hold series [steps, F], missing values NaN. Features are standardised by the mean and the
    deviation of all training rows, missing values are the mean, and series are resampled (linearly) to the length of
    the longest training series, at most `LONGEST`; the distance is Euclidean. The neighbour's class gets the share of
    training series whose own nearest neighbour, themselves left out, has their class, smoothed by Laplace's rule of
    succession ((right + 1) / (N + 2)) and never less than what the others get, who share the rest equally.

    Cover & Hart (1967), Nearest neighbor pattern classification, IEEE Transactions on Information Theory 13(1), 21-27.
    """
    chosen = np.flatnonzero(train_truth >= 0)
    if chosen.size > MOST_NEIGHBOURS:
        chosen = chosen[np.linspace(0, chosen.size - 1, MOST_NEIGHBOURS).round().astype(np.int64)]
    if not chosen.size:
        return majority(train_truth, len(test), n_classes)
    members, classes = [train[index] for index in chosen.tolist()], train_truth[chosen]
    length = min(max(1, *(len(series) for series in members)), LONGEST)
    centre, deviation = moments(members)
    known = aligned(members, centre, deviation, length)  # [N', L F]
    own = nearest(known, known, themselves=True)  # [N']
    right = int((classes[own] == classes).sum()) if classes.size > 1 else 0
    trust = max((right + 1) / (classes.size + 2), 1.01 / n_classes) if n_classes > 1 else 1.0
    found = classes[nearest(aligned(test, centre, deviation, length), known)]  # [R]
    rest = (1 - trust) / max(n_classes - 1, 1)
    return np.where(np.arange(n_classes) == found[:, None], trust, rest)  # [R, K]


def moments(series: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Mean and deviation [F] of the observed values of each feature; 0 and 1 where they tell nothing."""
    rows = np.concatenate(series)  # [sum of lengths, F]
    observed = ~np.isnan(rows)
    count = np.maximum(observed.sum(axis=0), 1)
    centre = np.where(observed, rows, 0.0).sum(axis=0) / count
    deviation = np.sqrt(np.where(observed, np.square(rows - centre), 0.0).sum(axis=0) / count)
    return centre, np.where(deviation > 0, deviation, 1.0)


def aligned(series: Sequence[Floats], centre: Floats, deviation: Floats, length: int) -> Floats:
    """Each series [steps, F] standardised, its gaps the mean, and resampled to `length` steps: [len(series), L F]."""
    found = np.zeros((len(series), length, centre.size))
    for index, values in enumerate(series):
        if not len(values):
            continue
        standard = np.nan_to_num((values - centre) / deviation, nan=0.0)  # [steps, F]
        places = np.linspace(0, len(values) - 1, length)
        before = np.floor(places).astype(np.int64)
        part = (places - before)[:, None]  # [L, 1]
        after = np.minimum(before + 1, len(values) - 1)
        found[index] = (1 - part) * standard[before] + part * standard[after]  # [L, F]
    return found.reshape(len(series), length * centre.size)  # [len(series), L F]


def nearest(points: Floats, known: Floats, *, themselves: bool = False) -> Ints:
    """Position of the nearest row of `known` [N, D] to each of `points` [R, D], the first of equally near ones: [R].

    `themselves` says that both are the same, and no row is its own neighbour (but where it is the only one).
    """
    found = np.zeros(len(points), dtype=np.int64)
    squares = np.square(known).sum(axis=1)  # [N]
    block = max(1, DISTANCES_AT_ONCE // len(known))
    for begin in range(0, len(points), block):
        part = points[begin : begin + block]
        distance = squares - 2 * part @ known.T  # [block, N], but for what a row's distances have in common
        if themselves:
            distance[np.arange(len(part)), begin + np.arange(len(part))] = np.inf
        found[begin : begin + block] = distance.argmin(axis=1)
    return found


def softmax(logits: Floats) -> Floats:
    """exp(z) / Σ exp(z) over the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def fit_temperature(logits: Floats, truth: Ints) -> float:
    """The temperature T with the least log loss of softmax(`logits` / T) [R, K] on held-out `truth` [R].

    Guo et al. (2017), section 4.2. The targets are smoothed as Platt (1999) does, Probabilistic outputs for support
    vector machines: (R + 1) / (R + K) for the true class and 1 / (R + K) for the others. So few rows which are all
    right do not ask for certainty, and many leave the log loss as it is. The loss is convex in 1 / T, and the place
    where its slope passes 0 is bisected. Rows without a known class are left out. 1 where nothing can be told: no
    row, or logits that prefer no class.
    """
    labelled = (truth >= 0) & (truth < logits.shape[1])
    z, known = logits[labelled], truth[labelled]  # [R', K], [R']
    if not known.size or not (np.ptp(z, axis=1) > 0).any():
        return 1.0
    z = z - z.max(axis=1, keepdims=True)
    rows, n_classes = z.shape
    targets = np.full(z.shape, 1 / (rows + n_classes))
    targets[np.arange(rows), known] = (rows + 1) / (rows + n_classes)
    wanted = float((targets * z).sum())

    def slope(inverse: float) -> float:
        return float((softmax(inverse * z) * z).sum()) - wanted

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    for _ in range(100):  # halves the bracket until the two ends are neighbouring numbers
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)
