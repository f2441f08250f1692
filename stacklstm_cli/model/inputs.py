"""What the network sees beside the series itself: covariates, and the calendar of the rows to forecast.

The calendar is told as codes, small whole numbers per row ("hour 17", "Tuesday"), and the network looks up
their features in fixed tables. Shape letters: T rows of the calendar, K cycles, C covariates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.panel import Covariate, Ints, Panel
from stacklstm_cli.errors import UsageError

Codes = npt.NDArray[np.int16]

DAY = 86_400
"""Seconds."""
SLOTS = 288
"""The time of day is told in five minutes."""
TIME_HARMONICS, YEAR_HARMONICS = 4, 3
DAYS_OF_CYCLE = {"time_of_day": 1, "weekday": 7, "monthday": 30, "month": 365, "year": 365}
LEAST_PERIODS = 2
"""Training data must span a cycle so often for it to be told from a trend."""
CATEGORY_WIDTH = 4
"""Numbers that stand for a category."""
COVARIATE_WIDTH = 4
"""Most numbers that stand for the past and known covariates of a row in the context: each more would be learned
by heart, as a context has many rows."""
MOST_CATEGORIES = 256
"""Rarer texts of a covariate count as unknown."""


@dataclass(frozen=True)
class InputSpec:
    """Which inputs there are. Stored in the model file."""

    covariates: tuple[Covariate, ...] = ()
    """Past ones first, then known, then static ones; categories are those of the training data."""
    cycles: tuple[str, ...] = ()
    """Keys of `DAYS_OF_CYCLE`."""
    holidays: str = ""
    """Country, or country and part of it: "US", "DE-BY"; "" is none."""

    def of(self, *roles: str) -> tuple[Covariate, ...]:
        return tuple(covariate for covariate in self.covariates if covariate.role in roles)

    @property
    def row_width(self) -> int:
        """Numbers of a row of the context: value, observed flag, and what stands for the covariates."""
        return 2 + min(COVARIATE_WIDTH, feature_width(self.of("past", "known")))

    def explained(self) -> str:
        """What there is, for a person; "" where there is nothing."""
        parts = []
        for role in ("past", "known", "static"):
            if self.of(role):
                parts.append(f"{role} {', '.join(one.name for one in self.of(role))}")
        if self.cycles:
            parts.append("calendar (" + ", ".join(name.replace("_", " ") for name in self.cycles) + ")")
        if self.holidays:
            parts.append(f"public holidays of {self.holidays}")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "covariates": [
                {
                    "name": one.name,
                    "role": one.role,
                    "categories": None if one.categories is None else [*one.categories],
                }
                for one in self.covariates
            ],
            "cycles": list(self.cycles),
            "holidays": self.holidays,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> InputSpec:
        covariates = [
            Covariate(one["name"], one["role"], None if one["categories"] is None else tuple(one["categories"]))
            for one in stored["covariates"]
        ]
        return cls(tuple(covariates), tuple(stored["cycles"]), stored["holidays"])


def label_row_width(inputs: InputSpec) -> int:
    """E of a network that gives labels: all that stands for the features of a row, and whether the row is there."""
    return feature_width(inputs.of("past")) + 1


def feature_width(covariates: Sequence[Covariate]) -> int:
    """E: a number and a flag where it is missing for each column of numbers, an embedding for each of texts."""
    return sum(2 if one.categories is None else CATEGORY_WIDTH for one in covariates)


def cycles_of(step: Step, rows: int) -> tuple[str, ...]:
    """The cycles that rows of this step pass through, and that so many `rows` of training data show often enough.

    A cycle that is no longer than the step, such as the hour of daily rows, says nothing.
    """
    if step.unit == "step":
        return ()
    if step.unit == "month":
        names: tuple[str, ...] = ("month",) if 12 % int(step.count) == 0 and step.count < 12 else ()
    elif step.unit == "second":
        names = ("time_of_day", "weekday", "year")
    elif step.unit == "day" and step.count > 1:
        names = ("year",)
    else:
        names = ("weekday", "monthday", "year")
    return tuple(name for name in names if is_shown(name, step, rows))


def is_shown(cycle: str, step: Step, rows: int) -> bool:
    """Whether so many rows of this step, one of time, show a cycle often enough for it to be told from a trend."""
    days_of_unit = {"second": 1 / DAY, "day": 1.0, "business_day": 7 / 5, "month": 365 / 12}
    days = rows * step.count * days_of_unit[step.unit]
    return days >= LEAST_PERIODS * DAYS_OF_CYCLE[cycle]


def table(cycle: str) -> npt.NDArray[np.float32]:
    """[codes, features] what each code of a cycle looks like to the network."""
    if cycle in ("weekday", "month"):
        return np.eye({"weekday": 7, "month": 12}[cycle], dtype=np.float32)
    sizes = {"time_of_day": (SLOTS, TIME_HARMONICS), "year": (366, YEAR_HARMONICS), "monthday": (31, 2)}
    codes, harmonics = sizes[cycle]
    angles = 2 * math.pi * np.outer(np.arange(codes) / codes, np.arange(1, harmonics + 1))  # [codes, harmonics]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


ROWS_AT_ONCE = 2**17
"""Whose calendar is worked out together: dates take ten times the memory of their codes."""


def calendar_codes(spec: InputSpec, step: Step, form: TimeForm, first: int, rows: int) -> Codes:
    """[T, K] codes of the positions `first` to `first + rows - 1` on the grid, by the clock of the place.

    Behind the cycles, one column counts the public holidays that each row covers, where a country is given.
    """
    codes = np.empty((rows, len(spec.cycles) + bool(spec.holidays)), dtype=np.int16)
    if codes.shape[1]:
        for begin in range(0, rows, ROWS_AT_ONCE):
            part = codes[begin : begin + ROWS_AT_ONCE]
            part[:] = _some_codes(spec, step, form, first + begin, len(part))
    return codes


def _some_codes(spec: InputSpec, step: Step, form: TimeForm, first: int, rows: int) -> Ints:
    """`calendar_codes` of so few rows that the steps to them take no memory to speak of."""
    stamps = form.clock(step.stamps(np.arange(first - 1, first + rows + 1)))  # [T + 2]
    days = stamps.astype("datetime64[D]")
    columns = [_codes(name, stamps[1:-1], days[1:-1]) for name in spec.cycles]
    if spec.holidays:
        # A row at the end of its month covers the days since the row before.
        covered = days[:-1] + 1 if step.anchor == "end" else days[1:]  # [T + 1]
        columns.append(_holidays(spec.holidays, covered))
    return np.stack(columns, axis=1)  # [T, K]


def _codes(name: str, stamps: npt.NDArray[Any], days: npt.NDArray[Any]) -> Ints:
    """[T] code of each row in one cycle."""
    if name == "time_of_day":
        seconds: Ints = (stamps - days).astype("timedelta64[s]").astype(np.int64)
        return seconds * SLOTS // DAY
    if name == "weekday":
        return (days.astype(np.int64) + 3) % 7  # 1 January 1970 was a Thursday
    months = days.astype("datetime64[M]")
    if name == "month":
        return months.astype(np.int64) % 12
    start = months if name == "monthday" else days.astype("datetime64[Y]")
    since: Ints = (days - start.astype("datetime64[D]")).astype(np.int64)
    return since


def _holidays(place: str, days: npt.NDArray[Any]) -> Ints:
    """[T] how many public holidays lie in each row, from its own day to the day before the next row's.

    `days` [T + 1]. Rows finer than a day count the holiday they lie in.
    """
    numbers = days.astype(np.int64)
    years = range(int(days[0].astype("datetime64[Y]").astype(int)) + 1970, int(numbers[-1] / 365.2425) + 1972)
    free = np.asarray(sorted(day.toordinal() - 719_163 for day in calendar_of(place, years)), dtype=np.int64)
    first, after = numbers[:-1], np.maximum(numbers[1:], numbers[:-1] + 1)
    return np.searchsorted(free, after) - np.searchsorted(free, first)


def calendar_of(place: str, years: range) -> Any:
    """The public holidays of a country, or of a part of it. Raises `UsageError` for a place that is not known."""
    import holidays

    country, _, part = place.partition("-")
    try:
        return holidays.country_holidays(country, subdiv=part or None, years=years)
    except NotImplementedError as error:
        raise UsageError(
            f"--holidays {place}: no public holidays are known for it.",
            hint="Give the code of a country, and of its part if wanted, such as US, DE or DE-BY.",
            code="unknown_holidays",
        ) from error


def known_categories(panel: Panel, training: Ints, ends: Ints) -> tuple[Covariate, ...]:
    """The panel's covariates; of categories the `MOST_CATEGORIES` most frequent in the first `ends` [N] rows.

    Those that stand in the first `training` [N] rows come first, by their frequency there: no later row may decide
    which of them the network can tell apart where it is judged.
    """
    timed = [one for one in panel.covariates if one.role != "static"]
    found = []
    for at, one in enumerate(panel.covariates):
        if one.categories is None:
            found.append(one)
            continue
        if one.role == "static":
            present = [panel.static[:, at - len(timed)]] * 2
        else:
            present = [panel.timed[_training_rows(panel, rows), at] for rows in (training, ends)]
        early, all_of_them = (
            np.bincount(codes[~np.isnan(codes)].astype(np.int64), minlength=len(one.categories)) for codes in present
        )
        order = np.lexsort((-all_of_them, -early))[:MOST_CATEGORIES]
        kept = [one.categories[code] for code in order.tolist() if all_of_them[code]]
        found.append(Covariate(one.name, one.role, tuple(sorted(kept))))
    return tuple(found)


def unknown_categories(panel: Panel, spec: InputSpec) -> list[tuple[str, list[str]]]:
    """Covariates of the panel with the texts that the model has not learned, where there are any."""
    pairs = zip(panel.covariates, spec.covariates, strict=True)
    found = [(mine.name, sorted({*(mine.categories or ())} - {*(theirs.categories or ())})) for mine, theirs in pairs]
    return [(name, texts) for name, texts in found if texts]


def number_statistics(panel: Panel, ends: Ints) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Mean and deviation [C] of each covariate over the first `ends` [N] rows; 0 and 1 for categories.

    Of static ones over the series that have such rows.
    """
    means, deviations = np.zeros(len(panel.covariates)), np.ones(len(panel.covariates))
    timed = [one for one in panel.covariates if one.role != "static"]
    rows = _training_rows(panel, ends) if timed else None
    for at, one in enumerate(panel.covariates):
        if one.categories is not None:
            continue
        column = panel.timed[rows, at] if at < len(timed) else panel.static[ends > 0, at - len(timed)]
        present = column[~np.isnan(column)].astype(np.float64)
        if present.size:
            means[at] = present.mean()
            deviations[at] = present.std() or 1.0
    return means, deviations


def _training_rows(panel: Panel, ends: Ints) -> npt.NDArray[np.bool_]:
    """[R'] which rows of the covariates belong to the first `ends[i]` rows of some series."""
    changes = np.zeros(len(panel.timed) + 1, dtype=np.int64)
    np.add.at(changes, panel.timed_at, 1)
    np.add.at(changes, panel.timed_at + ends, -1)
    marked: npt.NDArray[np.bool_] = np.cumsum(changes[:-1]) > 0
    return marked
