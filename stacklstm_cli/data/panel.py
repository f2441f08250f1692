"""The Panel: all series of a file on one regular grid, in the user's own units."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.errors import DataError

Floats = npt.NDArray[np.float64]
Covered = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.object_]
Layout = Literal["single", "wide", "long"]


Role = Literal["past", "known", "static"]


@dataclass(frozen=True)
class Columns:
    """Which column plays which role. Stored in the model file."""

    layout: Layout
    time: tuple[str, ...]
    """Columns of the time stamps, several where a date is split over them; none where rows are steps 0, 1, 2 …"""
    ids: tuple[str, ...]
    """Columns that name a series; only in the long layout."""
    targets: tuple[str, ...]
    """Columns that are forecast; several only in the wide layout."""
    past: tuple[str, ...] = ()
    """Covariates known up to now only."""
    known: tuple[str, ...] = ()
    """Covariates known for the future too."""
    static: tuple[str, ...] = ()
    """Covariates that never change within a series."""

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every column that has a role."""
        return (*self.time, *self.ids, *self.targets, *self.past, *self.known, *self.static)

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the output columns that tell the series apart."""
        return self.ids if self.layout == "long" else ("series",) if self.layout == "wide" else ()

    @property
    def time_names(self) -> tuple[str, ...]:
        """Names of the output columns that hold the time."""
        return self.time or ("step",)

    def as_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Columns:
        names = {name: tuple(stored[name]) for name in ("time", "ids", "targets", "past", "known", "static")}
        return cls(stored["layout"], **names)


@dataclass(frozen=True)
class Covariate:
    """A column that helps to forecast another."""

    name: str
    role: Role
    categories: tuple[str, ...] | None = None
    """The texts it holds, sorted; a cell is then the index of its text. None: it holds numbers."""


@dataclass(frozen=True)
class Stored:
    """What a model knows of the data it was trained on."""

    columns: Columns
    step: Step
    form: TimeForm
    """Settles whether dates are day-first, where a file does not tell."""
    covariates: tuple[Covariate, ...] = ()
    classes: tuple[str, ...] = ()
    """Those of a model that gives labels; () is one that forecasts."""


@dataclass(frozen=True)
class Panel:
    """N series, one after another in a flat array.

    Every series begins and ends with an observed value; rows between them that the file lacks, and
    empty cells, are NaN. Where there are `classes`, a value is the number of a row's class, -1 where it has none: the
    series then keep all their rows, and only those that the file lacks are NaN.
    """

    columns: Columns
    step: Step
    time_form: TimeForm
    keys: tuple[tuple[str, ...], ...]
    """[N] name of each series, in the order of the input: () where there is one series only."""
    values: Floats
    """[sum of lengths] values in the user's units; NaN is missing."""
    offsets: Ints
    """[N + 1] series i is `values[offsets[i]:offsets[i + 1]]`."""
    starts: Ints
    """[N] position of each series' first row on the grid of `step`."""
    covariates: tuple[Covariate, ...] = ()
    """Past ones first, then known, then static ones."""
    timed: Covered = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    """[R', C] past and known covariates, row by row; NaN is missing. A series that ends earlier than they do
    has future rows; several series of a wide file share the same rows."""
    timed_at: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """[N] row of `timed` that belongs to the first row of each series; empty without past and known covariates."""
    timed_rows: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """[N] rows of `timed` from there on that belong to the series, future ones included; at least its length."""
    static: Covered = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    """[N, S] static covariates; NaN is missing."""
    classes: tuple[str, ...] = ()
    """Labels that the column of targets holds; those of the model first, in its order. () where values are numbers."""
    times: tuple[Words, ...] = ()
    """For each column of time: [sum of lengths] as written, where the rows lie on no grid and are steps instead."""
    rows_read: int = 0
    """Rows of data in the file."""
    sha256: str = ""
    """Digest of the bytes that were read."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was guessed and what was passed over, one sentence each."""

    @property
    def stored(self) -> Stored:
        """What a model trained on this panel knows of it."""
        return Stored(self.columns, self.step, self.time_form, self.covariates, self.classes)

    @property
    def n_series(self) -> int:
        return len(self.keys)

    @property
    def lengths(self) -> Ints:
        """[N] rows of each series, missing ones counted."""
        return np.diff(self.offsets)

    @property
    def ends(self) -> Ints:
        """[N] position on the grid one after each series' last row."""
        return self.starts + self.lengths

    @property
    def gaps(self) -> int:
        """Rows inside the series without a value."""
        return int(np.isnan(self.values).sum())

    def series(self, index: int) -> Floats:
        """[length] the values of one series."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def part(self, begin: int, end: int) -> Panel:
        """The series `begin` to `end - 1` alone; rows are shared, not copied."""
        series = slice(begin, end)
        return replace(
            self,
            keys=self.keys[series],
            values=self.values[self.offsets[begin] : self.offsets[end]],
            offsets=self.offsets[begin : end + 1] - self.offsets[begin],
            starts=self.starts[series],
            timed_at=self.timed_at[series],
            timed_rows=self.timed_rows[series],
            static=self.static[series],
        )

    def name(self, index: int) -> str:
        """A series' name for messages."""
        return ", ".join(self.keys[index]) or self.columns.targets[0]

    def timed_covariates(self, role: Role) -> list[int]:
        """Columns of `timed` that hold the covariates of one role."""
        return [at for at, covariate in enumerate(self.covariates) if covariate.role == role]

    def time_columns(self, positions: npt.ArrayLike) -> dict[str, list[str]]:
        """Positions on the grid as the columns of time that the input has."""
        return dict(zip(self.columns.time_names, self.time_form.columns(self.step, positions), strict=True))

    def stamps(self, positions: npt.ArrayLike) -> list[str]:
        """Positions on the grid as text, in the form the file was written in."""
        return self.time_form.write(self.step, np.asarray(positions, dtype=np.int64))

    def place(self, row: int) -> str:
        """Where a row of `values` stands, for messages: "series 'a', time 2024-03-01"."""
        series = int(np.searchsorted(self.offsets, row, "right")) - 1
        stamp = self.stamps([self.starts[series] + row - self.offsets[series]])[0]
        return (f"series {self.name(series)!r}, " if self.n_series > 1 else "") + f"time {stamp}"

    def refuse_gaps(self) -> None:
        """Raise `DataError` for the first row inside a series that has no value."""
        missing = np.flatnonzero(np.isnan(self.values))
        if not missing.size:
            return
        count = f"{missing.size:,} such row{'' if missing.size == 1 else 's'}"
        raise DataError(
            f"{self.place(int(missing[0]))}: no value, and --gaps error refuses gaps ({count}).",
            hint="--gaps mask shows the network which values are missing.",
            code="gaps",
        )

    def fingerprint(self) -> str:
        """SHA-256 of what the panel holds, whatever file, compression or row order it came from."""
        digest = hashlib.sha256(repr((self.step, self.keys, self.covariates)).encode())
        for array in (self.values, self.offsets, self.starts, self.timed, self.timed_at, self.timed_rows, self.static):
            digest.update(np.ascontiguousarray(array).data)
        if self.classes:
            digest.update(repr(self.classes).encode())
        return digest.hexdigest()
