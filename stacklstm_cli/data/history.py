"""What a model remembers of the rows it was trained on, and what has changed since.

A model file holds no rows. To notice rows that were revised later it keeps a short digest of each block of rows,
so that a change is found to within a block. Shape letters: N series, K blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.panel import Floats, Ints, Panel

LEAST_BLOCK = 16
"""Rows; fewer would tell more exactly what changed than anybody asks."""
MOST_BLOCKS = 4096
"""Blocks of all series together, if no series has less than one: 32 KiB of digests."""


@dataclass(frozen=True, eq=False)
class History:
    """The rows that a model was trained on, as digests."""

    block: int
    """Rows in a block; it begins where the position on the grid is a multiple of this."""
    first: Ints
    """[N] position on the grid of the first row of each series."""
    digests: Ints
    """[K] of the blocks of every series, in the order of the series and of time."""


@dataclass(frozen=True)
class Changes:
    """What a file holds that a model has not learned, and what of that it has learned is no longer there."""

    rows: int
    """Observed rows behind the last one of each series that the model was given; all those of new series."""
    new_series: tuple[str, ...]
    vanished_series: int
    """Series of the model that the file lacks."""
    revised_series: tuple[str, ...]
    revised_rows: int
    """At most so many rows: those of all blocks in which something changed."""
    revised_from: str
    """Time stamp of the first row of the first such block; "" where nothing changed."""
    removed_rows: int
    """Rows at the end of a series that the model has learned and the file lacks."""
    dropped_rows: int
    """Rows at the beginning of a series that the model has learned and the file lacks."""

    @property
    def nothing_new(self) -> bool:
        """Whether there is neither a new row nor a changed one."""
        return not (self.rows or self.revised_rows or self.removed_rows)


def remember(panel: Panel) -> History:
    """The digests of all rows of a panel."""
    block = block_length(panel.lengths)
    digests = [
        digest(panel, index, *one)
        for index, (start, end) in enumerate(zip(panel.starts.tolist(), panel.ends.tolist(), strict=True))
        for one in blocks(start, end, block)
    ]
    return History(block, panel.starts, np.asarray(digests, dtype=np.int64))


def block_length(lengths: Ints) -> int:
    """The smallest power of two that makes at most `MOST_BLOCKS` blocks of series of these lengths [N], or one each."""
    block = LEAST_BLOCK
    while block < int(lengths.max()) and int((-(-lengths // block)).sum()) > MOST_BLOCKS:
        block *= 2
    return block


def blocks(start: int, end: int, block: int) -> Iterator[tuple[int, int]]:
    """The positions (begin, end) of the blocks that cover the positions `start` to `end - 1`, cut to these."""
    for begin in range(start // block * block, end, block):
        yield max(begin, start), min(begin + block, end)


def rows_between(panel: Panel, index: int, begin: int, end: int) -> Floats:
    """The values of one series at the positions `begin` to `end - 1`."""
    first = int(panel.offsets[index] - panel.starts[index])
    return panel.values[first + begin : first + end]


def digest(panel: Panel, index: int, begin: int, end: int) -> int:
    """64 bits of BLAKE2b of one series between two positions: of its values, and where these are labels of what tells
    them; equal numbers give equal digests, also -0 and 0 and every NaN."""
    parts = [plain_bytes(rows_between(panel, index, begin, end))]
    if panel.classes:
        parts += features_between(panel, index, begin, end)
    return int.from_bytes(hashlib.blake2b(b"".join(parts), digest_size=8).digest(), "little", signed=True)


def plain_bytes(values: npt.NDArray[Any]) -> bytes:
    """Numbers as bytes, the same on every machine."""
    return np.where(np.isnan(values), np.nan, values + 0.0).astype("<f8").tobytes()


def features_between(panel: Panel, index: int, begin: int, end: int) -> Iterator[bytes]:
    """The covariates of one series between two positions; texts as they are, as their numbers are the file's own."""
    columns: list[npt.NDArray[Any]] = []
    if panel.timed_at.size:
        first = int(panel.timed_at[index] - panel.starts[index])
        columns += list(panel.timed[first + begin : first + end].T)
    if panel.static.size:
        columns += list(panel.static[index][:, None])
    for column, one in zip(columns, panel.covariates, strict=True):
        if one.categories is None:
            yield plain_bytes(column)
        else:
            texts = ("" if np.isnan(code) else one.categories[int(code)] for code in column.tolist())
            yield "\0".join(texts).encode("utf-8", "surrogatepass")


def changes(panel: Panel, keys: tuple[tuple[str, ...], ...], data_to: Ints, history: History | None) -> Changes:
    """What a panel holds beside the series `keys` [N] of a model.

    `data_to` [N] is the position one after the last row that the model was given. Without a `history`, as in files
    of earlier versions, revisions are not seen.
    """
    places = {key: place for place, key in enumerate(keys)}
    known = [(index, places[key]) for index, key in enumerate(panel.keys) if key in places]
    new = [index for index, key in enumerate(panel.keys) if key not in places]
    revised = revisions(panel, known, data_to, history)
    first = panel.starts if history is None else history.first
    return Changes(
        rows=sum(observed_from(panel, index, int(data_to[place])) for index, place in known)
        + sum(observed_from(panel, index, int(panel.starts[index])) for index in new),
        new_series=tuple(panel.name(index) for index in new),
        vanished_series=len(keys) - len(known),
        revised_series=tuple(panel.name(index) for index in dict.fromkeys(index for index, _, _ in revised)),
        revised_rows=sum(end - begin for _, begin, end in revised),
        revised_from=panel.stamps([min(begin for _, begin, _ in revised)])[0] if revised else "",
        removed_rows=sum(max(0, int(data_to[place] - panel.ends[index])) for index, place in known),
        dropped_rows=0
        if history is None
        else sum(max(0, int(panel.starts[index] - first[place])) for index, place in known),
    )


def observed_from(panel: Panel, index: int, position: int) -> int:
    """Observed rows of one series from a position on the grid on; of labels, those that have one."""
    begin = max(position, int(panel.starts[index]))
    values = rows_between(panel, index, begin, int(panel.ends[index]))
    return int((values >= 0).sum() if panel.classes else (~np.isnan(values)).sum())


def revisions(
    panel: Panel, known: list[tuple[int, int]], data_to: Ints, history: History | None
) -> list[tuple[int, int, int]]:
    """(series of the panel, begin, end) of each block whose digest differs, as positions on the grid.

    Only blocks that lie wholly in the panel can be compared. `known` pairs the series of the panel and of the model.
    """
    if history is None:
        return []
    first, block = history.first, history.block
    counts = -(-data_to // block) - first // block  # [N] blocks of each series
    at = np.concatenate([[0], np.cumsum(counts)])  # [N + 1]
    found = []
    for index, place in known:
        stored = history.digests[at[place] : at[place + 1]].tolist()
        own = blocks(int(first[place]), int(data_to[place]), block)
        for before, (begin, end) in zip(stored, own, strict=True):
            inside = panel.starts[index] <= begin and end <= panel.ends[index]
            if inside and digest(panel, index, begin, end) != before:
                found.append((index, begin, end))
    return found
