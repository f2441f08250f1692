"""The Panel: all series of a file on one regular grid, in the user's own units."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.calendar import Step, TimeForm

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Layout = Literal["single", "wide", "long"]


@dataclass(frozen=True)
class Columns:
    """Which column plays which role. Stored in the model file."""

    layout: Layout
    time: str | None
    """Column of the time stamps; None where rows are steps 0, 1, 2 …"""
    ids: tuple[str, ...]
    """Columns that name a series; only in the long layout."""
    targets: tuple[str, ...]
    """Columns that are forecast; several only in the wide layout."""

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the output columns that tell the series apart."""
        return self.ids if self.layout == "long" else ("series",) if self.layout == "wide" else ()

    @property
    def time_name(self) -> str:
        """Name of the output column that holds the time."""
        return self.time or "step"

    def as_dict(self) -> dict[str, Any]:
        return {"layout": self.layout, "time": self.time, "ids": list(self.ids), "targets": list(self.targets)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Columns:
        return cls(stored["layout"], stored["time"], tuple(stored["ids"]), tuple(stored["targets"]))


@dataclass(frozen=True)
class Panel:
    """N series, one after another in a flat array.

    Every series begins and ends with an observed value; rows between them that the file lacks, and
    empty cells, are NaN.
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
    rows_read: int = 0
    """Rows of data in the file."""
    sha256: str = ""
    """Digest of the bytes that were read."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was guessed and what was passed over, one sentence each."""

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

    def name(self, index: int) -> str:
        """A series' name for messages."""
        return ", ".join(self.keys[index]) or self.columns.targets[0]

    def stamps(self, positions: npt.ArrayLike) -> list[str]:
        """Positions on the grid as text, in the form the file was written in."""
        return self.time_form.write(self.step, np.asarray(positions, dtype=np.int64))

    def fingerprint(self) -> str:
        """SHA-256 of what the panel holds, whatever file, compression or row order it came from."""
        digest = hashlib.sha256(repr((self.step, self.keys)).encode())
        for array in (self.values, self.offsets, self.starts):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
