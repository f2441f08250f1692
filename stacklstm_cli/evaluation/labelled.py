"""Labels of a panel, judged: which series or rows have one, and what the baselines say of them.

A model file holds no training rows. So the nearest neighbours are found among the very series that are judged,
in folds: each from the others.

Shape letters: N series, R rows, K classes, C features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stacklstm_cli.data.labels import row_labels, series_labels
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import DataError
from stacklstm_cli.evaluation.labels import LabelJudgement, judge, majority, nearest_neighbour
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.labels import Classifier, label_spec

MAJORITY, NEAREST = "majority", "nearest_neighbour"
FOLDS = 5


def judge_labels(classifier: Classifier, panel: Panel, counts: Sequence[int]) -> LabelJudgement:
    """A model beside its baselines on all labels of a panel; `counts` [K] are those of its training data.

    Raises `DataError` where the panel has no labels.
    """
    labels = label_spec(classifier.spec)
    truth = row_labels(panel) if labels.every_row else series_labels(panel)
    held = np.flatnonzero(truth >= 0)
    if not held.size:
        raise DataError(
            f"Column {panel.columns.targets[0]!r} holds no label to compare with.",
            hint="Give a file with labels; predict writes those that the model finds.",
            code="no_labels",
        )
    n_classes = len(labels.classes)
    known = np.where(truth < n_classes, truth, -1)
    place = np.full(truth.size, -1)
    place[held] = np.arange(held.size) % FOLDS
    folds = [np.where((place == fold) | (place < 0), -1, known) for fold in range(FOLDS)]
    near = neighbours(
        panel, labels.every_row, folds, [np.flatnonzero(place == fold) for fold in range(FOLDS)], n_classes
    )
    shares = majority(np.repeat(np.arange(n_classes), counts), held.size, n_classes)
    unseen = {name: int((truth == n_classes + at).sum()) for at, name in enumerate(panel.classes[n_classes:])}
    predictions = {MODEL: classifier.probabilities(panel)[held], MAJORITY: shares, NEAREST: near[held]}
    return judge(predictions, truth[held], labels.classes, unseen)


def neighbours(panel: Panel, every_row: bool, folds: Sequence[Ints], held: Sequence[Ints], n_classes: int) -> Floats:
    """[N, K] or [R, K] by the nearest neighbour: what each fold holds out, from what it has learned.

    For each fold `folds` [N] or [R] are the known classes, -1 for others, and `held` the places that it is asked for.
    """
    found = np.full((len(folds[0]), n_classes), np.nan)
    for learned, wanted in zip(folds, held, strict=True):
        known = np.flatnonzero(learned >= 0)
        if wanted.size and known.size:
            train, test = (features_of(panel, every_row, places) for places in (known, wanted))
            found[wanted] = nearest_neighbour(train, learned[known], test, n_classes)
        elif wanted.size:
            found[wanted] = 1 / n_classes
    return found


def features_of(panel: Panel, every_row: bool, places: Ints) -> list[Floats]:
    """[steps, C] features of some series, or [1, C] of some rows; categories by their numbers, missing ones NaN."""
    if every_row:
        series = np.searchsorted(panel.offsets, places, "right") - 1
        rows = panel.timed_at[series] + places - panel.offsets[series]
        return list(panel.timed[rows].astype(np.float64)[:, None])
    begins, lengths = panel.timed_at[places], panel.lengths[places]
    return [
        panel.timed[begin : begin + length].astype(np.float64)
        for begin, length in zip(begins.tolist(), lengths.tolist(), strict=True)
    ]
