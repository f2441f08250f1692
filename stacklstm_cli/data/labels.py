"""Labels: cells become classes, and classes belong to whole series or to single rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from stacklstm_cli.config import ReadingConfig
from stacklstm_cli.data.cells import is_missing, number_of
from stacklstm_cli.data.panel import Floats, Ints, Panel, Words
from stacklstm_cli.errors import DataError, UsageError

UNLABELLED = -1
"""The class of a row without a label."""


def label_codes(words: Words, known: tuple[str, ...]) -> tuple[tuple[str, ...], Floats]:
    """The classes among the cells of a column, and [rows] the number of each cell's class; -1 where it is empty.

    The `known` classes of a model come first, in its order; others are sorted, as numbers where all are numbers.
    """
    codes, unique = pd.factorize(words)
    cells = ["" if is_missing(str(cell)) else str(cell).strip() for cell in unique]
    classes = (*known, *sorted_labels({cell for cell in cells if cell} - {*known}))
    place = {name: number for number, name in enumerate(classes)} | {"": UNLABELLED}
    numbers: Floats = np.asarray([place[cell] for cell in cells], dtype=np.float64)[codes]  # [rows]
    return classes, numbers


def sorted_labels(labels: set[str]) -> list[str]:
    """2 before 10 where all labels are numbers; else by their characters."""
    counted = are_numbers(labels)
    return sorted(labels, key=lambda label: (float(number_of(label) or 0) if counted else 0.0, label))


def are_numbers(labels: Iterable[str]) -> bool:
    return all(number_of(label) is not None for label in labels)


def refuse_beside_labels(reading: ReadingConfig) -> None:
    """Raise `UsageError` for options that would reckon with labels."""
    if reading.aggregate is not None or reading.duplicates in ("mean", "sum"):
        option = "--aggregate" if reading.aggregate is not None else f"--duplicates {reading.duplicates}"
        raise UsageError(
            f"{option} does not go with --label: labels have no mean and no sum.",
            hint="Leave it out; of repeated rows, --duplicates first or last takes one.",
            code="label_conflict",
        )


def labels_change(panel: Panel) -> bool:
    """Whether some series holds more than one class, so that each row has a label of its own."""
    return any(np.unique(labels[labels >= 0]).size > 1 for labels in map(panel.series, range(panel.n_series)))


def series_labels(panel: Panel) -> Ints:
    """[N] the class of each series; -1 where it has none. Raises `DataError` where it changes within one."""
    found = np.full(panel.n_series, UNLABELLED, dtype=np.int64)
    for index in range(panel.n_series):
        labels = panel.series(index)
        held = np.unique(labels[labels >= 0]).astype(np.int64)
        if held.size > 1:
            first, second = (panel.classes[number] for number in held[:2])
            raise DataError(
                f"series {panel.name(index)!r}: its label {panel.columns.targets[0]!r} is {first!r} and {second!r}; "
                "this model gives one label to a whole series.",
                hint="Mend the labels, or train a model on rows with labels of their own.",
                code="labels_change",
            )
        found[index] = held[0] if held.size else UNLABELLED
    return found


def unchanging_features(panel: Panel) -> tuple[str, ...]:
    """The past covariates that hold one value in each series, and not the same in all: they belong to whole series.

    None where fewer than two series have several rows, which could show it, and none where no other would be left, as
    a sequence is needed. Missing values are no value.
    """
    if np.count_nonzero(panel.lengths > 1) < 2 or not panel.timed_at.size:
        return ()
    low, high = (way.reduceat(panel.timed, panel.timed_at, axis=0) for way in (np.fmin, np.fmax))  # [N, C] each
    still = ((low == high) | np.isnan(low)).all(axis=0)  # [C]
    still &= np.fmin.reduce(low, axis=0) < np.fmax.reduce(high, axis=0)
    names = tuple(name for name, found in zip(panel.columns.past, still.tolist(), strict=True) if found)
    return names if len(names) < len(panel.columns.past) else ()


def row_labels(panel: Panel) -> Ints:
    """[R] the class of each row; -1 where it has none or the file lacks the row."""
    return np.nan_to_num(panel.values, nan=UNLABELLED).astype(np.int64)
