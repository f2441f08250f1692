"""Which columns tell the series of a file apart, and which might."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from stacklstm_cli.data.cells import is_missing
from stacklstm_cli.data.patterns import Ints, parse_integers
from stacklstm_cli.data.sample import Sample
from stacklstm_cli.data.split import joined, split_formats
from stacklstm_cli.data.stamps import StampError, find_forms
from stacklstm_cli.data.texts import Texts

ID_NAMES = ("unique_id", "item_id", "series_id", "series", "id", "ts_id")
"""A column of such a name always tells series apart."""
WEAK_ID_NAMES = (
    "store",
    "store_id",
    "shop",
    "shop_id",
    "product",
    "product_id",
    "item",
    "sku",
    "station",
    "sensor",
    "device",
    "region",
)
"""Whole numbers under such a name tell series apart where time stamps repeat, as any text does."""
NUMBERED = re.compile(r"(?i:(?:^|[_ .-])(?:id|nr|nbr|no|num|number|code|key))$|[a-z](?:Id|ID|Nr|No|Code|Number)$")
"""Names of columns of whole numbers that tell things apart: store_nbr, plantID."""
REPEATED_SHARE = 0.4
"""In a long file most stamps stand in several series; fewer repeats are stray duplicates, not series."""
MOST_ID_COLUMNS = 8
"""So many columns are tried together, where none alone tells series apart."""
UNIQUE_SHARE = 0.98
"""An id column may leave so many rows unsettled, as repeated rows, and still be the id."""
LEAST_ROWS = 3
"""Series of fewer rows on average are none to propose."""
REGULAR_SHARE = 0.7
"""So many rows of a series that is proposed follow each other at about the same distance."""


def may_be_id(sample: Sample, at: int) -> bool:
    numbered = sample.kinds[at] == "number" and _has_id_name(sample, at) and not sample.is_row_number(at)
    return sample.kinds[at] == "text" or numbered


def find_ids(sample: Sample, time: Sequence[int], candidates: Sequence[int], formats: Sequence[str]) -> list[int]:
    """Where the columns stand that tell series apart; [] where the file seems to hold one series.

    `time` and `candidates` are places of columns; `formats` as for `find_forms`.
    """
    for name in ID_NAMES:
        for at in sample.named(name):
            if at in candidates and sample.kinds[at] != "empty" and not sample.is_row_number(at):
                return [at]
    if not time or not sample.words[time[0]].size:
        return []
    repeated = _repeated(sample, time)
    able = sorted((at for at in candidates if may_be_id(sample, at)), key=lambda at: not _has_id_name(sample, at))
    for at in sorted(able):
        if _tells_apart(sample, [at], time) and (repeated or _starts_anew(sample, at, time, formats)):
            return [at]
    if not repeated:
        return []
    together = (group for size in (2, 3) for group in combinations(able[:MOST_ID_COLUMNS], size))
    return sorted(next((group for group in together if _tells_apart(sample, group, time)), ()))


def possible_ids(
    sample: Sample, time: Sequence[int], candidates: Sequence[int], formats: Sequence[str]
) -> tuple[str, ...]:
    """Names of columns each of which would make series with one row for each time, more regular than all rows are.

    What changes with time, such as the weather, makes series full of holes, and is none of them.
    """
    if not time or not sample.words[time[0]].size:
        return ()
    numbers_too = _repeated(sample, time)
    able = [
        at
        for at in candidates
        if sample.kinds[at] == "text"
        or (sample.kinds[at] == "number" and numbers_too and parse_integers(sample.words[at]) is not None)
    ]
    able = [at for at in able if _unique_share(sample, [at], time) == 1]
    clocks = _clocks(sample, time, formats) if able else []
    everything = np.zeros(sample.words[time[0]].size, dtype=np.int64)
    found = []
    for at in able:
        names = sample.codes([at])
        if names.size < LEAST_ROWS * (names.max() + 1):
            continue
        shares = [(_regularity(names, clock), _regularity(everything, clock)) for clock in clocks]
        if any(own >= REGULAR_SHARE and own > mixed for own, mixed in shares):
            found.append(sample.header[at])
    return tuple(found)


def _repeated(sample: Sample, time: Sequence[int]) -> bool:
    """Whether so many time stamps repeat that the file must hold several series."""
    stamps = sample.codes(time)
    return bool(np.mean(np.bincount(stamps)[stamps] > 1) >= REPEATED_SHARE)


def _unique_share(sample: Sample, places: Sequence[int], time: Sequence[int]) -> float:
    """The distinct combinations of some columns and the time, as a share of the rows."""
    together = sample.codes([*places, *time])
    return float(np.unique(together).size / together.size)


def _tells_apart(sample: Sample, places: Sequence[int], time: Sequence[int]) -> bool:
    """Whether nearly all rows differ by some columns and the time together."""
    return _unique_share(sample, places, time) >= UNIQUE_SHARE


def _starts_anew(sample: Sample, at: int, time: Sequence[int], formats: Sequence[str]) -> bool:
    """Whether the rows of each name stand together, and time goes back where they change, but nowhere else.

    So series stand one below the other whose time stamps have nothing in common.
    """
    names = sample.codes([at])
    last = np.flatnonzero(np.diff(names))
    if not last.size or last.size != names.max() or len(time) > 1:
        return False
    for clock in _clocks(sample, time, formats):
        back = np.diff(clock) < 0
        if back[last].all() and back.sum() == last.size:
            return True
    return False


def _clocks(sample: Sample, time: Sequence[int], formats: Sequence[str]) -> list[Ints]:
    """For each form in which the time may be written: [rows] numbers that rise with it. [] if it cannot be read."""
    columns = [Texts.of(sample.words[at]) for at in time]
    if any(is_missing(word) for column in columns for word in column.distinct()):
        return []
    if len(columns) > 1:
        formats = split_formats([sample.header[at] for at in time], columns)
        if not formats:
            return []
    codes, words = (joined(columns) if len(columns) > 1 else columns[0]).factorized()
    distinct = np.asarray([*words, ""], dtype=object)[:-1]
    try:
        return [form.clock[codes].astype(np.int64) for form in find_forms(distinct, formats=formats)]
    except StampError:
        return []


def _regularity(names: npt.NDArray[np.int64], clock: Ints) -> float:
    """The share of rows that follow the one before in their series at about the usual distance."""
    order = np.lexsort((clock, names))
    rises = np.diff(clock[order])[np.diff(names[order]) == 0]
    if not (rises > 0).any():
        return 0.0
    usual = np.median(rises[rises > 0])
    return float(np.mean((rises >= usual / 2) & (rises <= usual * 3 / 2)))


def _has_id_name(sample: Sample, at: int) -> bool:
    name = sample.header[at].strip()
    return name.lower() in (*ID_NAMES, *WEAK_ID_NAMES) or NUMBERED.search(name) is not None
