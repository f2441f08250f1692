"""Which column plays which role: named by the user, known by its name, or guessed from its cells."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from stacklstm_cli.config import DataConfig
from stacklstm_cli.data.panel import Columns, Layout
from stacklstm_cli.data.stamps import Words, looks_like_time, parse_integers
from stacklstm_cli.data.table import is_missing, number_of
from stacklstm_cli.errors import DataError, UsageError

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
TIME_NAMES = (
    "ds",
    "timestamp",
    "datetime",
    "date_time",
    "date",
    "time",
    "month",
    "week",
    "day",
    "quarter",
    "year",
    "period",
)
INTEGER_TIME_NAMES = (
    "step",
    "t",
    "ds",
    "timestamp",
    "time",
    "ts",
    "epoch",
    "year",
    "yr",
    "years",
    "period",
    "index",
    *TIME_NAMES,
)
STRICT_TIME_NAMES = ("ds", "timestamp", "datetime", "date_time", "date", "time")
"""A column of such a name is never something to forecast."""
TARGET_NAMES = ("target", "value")
ROW_NUMBER_NAMES = ("", "no", "no.", "nr", "index", "row", "rownum", "id", "#")
CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[ap]m)?", re.IGNORECASE)
CLOCK_NAMES = ("time", "hour", "hr", "hours")

REPEATED_SHARE = 0.4
"""In a long file most stamps stand in several series; fewer repeats are stray duplicates, not series."""
UNIQUE_SHARE = 0.98
"""An id column may leave so many rows unsettled, as repeated rows, and still be the id."""

Kind = Literal["number", "text", "empty"]


@dataclass(frozen=True)
class Found:
    """Roles, and what was passed over on the way."""

    columns: Columns
    ignored: tuple[str, ...]
    """Columns without a role; all of them are named to the user in one note."""
    notes: tuple[str, ...] = ()


def find_columns(header: Sequence[str], sample: pd.DataFrame, config: DataConfig) -> Found:
    """Give each column its role.

    `header` [columns] names; `sample` [rows, columns] cells as text, columns in the order of the
    header. `--time`, `--target` and `--id` win over known names, and those over what cells look like.
    Raises `UsageError` for named columns that are not there and choices that only the user can make,
    `DataError` for a table in which nothing can be forecast.
    """
    return _Search(header, sample, config).run()


def require_columns(header: Sequence[str], names: Sequence[str], option: str) -> None:
    """Raise `UsageError` if a column named by `option` is not in the header."""
    for name in names:
        if name not in header:
            near = difflib.get_close_matches(name, header, 1, 0.5)
            raise UsageError(
                f"{option} names column {name!r}, which is not in the file; its columns are {_listed(header)}.",
                hint=f"Did you mean {option} {_quoted(near[0])}?"
                if near
                else f"Name one of them: {option} {_quoted(header[0])}.",
                code="unknown_column",
            )


class _Search:
    """One search for roles; the sample's columns are looked at by their place, as names may repeat."""

    def __init__(self, header: Sequence[str], sample: pd.DataFrame, config: DataConfig) -> None:
        self.header = tuple(header)
        self.config = config
        self.notes: list[str] = []
        require_columns(header, config.time, "--time")
        require_columns(header, config.id, "--id")
        require_columns(header, config.target, "--target")
        words = [sample.iloc[:, at].to_numpy(dtype=object) for at in range(len(self.header))]
        # Rows without anything are blank lines, not data.
        filled = np.zeros(len(sample), dtype=bool)
        for column in words:
            filled |= column != ""
        self.words: list[Words] = [column[filled] for column in words]
        self.kinds: list[Kind] = [_kind(column) for column in self.words]

    def run(self) -> Found:
        self._refuse_missing_header()
        time = self._time()
        ids = self._ids(time)
        taken = {*ids, *([time] if time is not None else [])}
        for name in self.config.target:
            if self.header.index(name) in taken:
                raise UsageError(
                    f"Column {name!r} is to be forecast and to be time or id at once.",
                    hint="Name another column with --target, --time or --id.",
                    code="role_conflict",
                )
        if time is None:
            self.notes.append("No time column found: rows are steps 0, 1, 2 …")
        layout, targets = self._targets(time, ids, taken)
        taken |= set(targets)
        ignored = [
            self.header[at]
            for at in range(len(self.header))
            if at not in taken and not (self.header[at] == "" and self.kinds[at] == "empty")
        ]
        columns = Columns(
            layout,
            () if time is None else (self.header[time],),
            tuple(self.header[at] for at in ids),
            tuple(self.header[at] for at in targets),
        )
        return Found(columns, tuple(ignored), tuple(self.notes))

    def _refuse_missing_header(self) -> None:
        def is_value(name: str) -> bool:
            return number_of(name) is not None or looks_like_time([name])

        counted = [str(number) for number in range(len(self.header))]
        if "" not in self.header and all(is_value(name) for name in self.header) and list(self.header) != counted:
            raise DataError(
                f"The first line holds values ({_listed(self.header[:3])}), expected the names of the columns.",
                hint="Put a header line such as date,value on top.",
                code="no_header",
            )

    # --- time ---

    def _time(self) -> int | None:
        if self.config.time:
            return self.header.index(self.config.time[0])
        named = [at for name in TIME_NAMES for at in self._named(name)]
        others = [at for at in range(len(self.header)) if at not in named]
        reserved = {self.header.index(name) for name in (*self.config.id, *self.config.target)}
        candidates = [at for at in (*named, *others) if at not in reserved]
        dated = [at for at in candidates if looks_like_time(_present(self.words[at])[:400])]
        if dated:
            self._refuse_split_clock(dated[0])
            return dated[0]
        self._refuse_split_date(reserved)
        for name in INTEGER_TIME_NAMES:
            for at in self._named(name):
                if at not in reserved and self._counts(at):
                    return at
        for name in STRICT_TIME_NAMES:
            for at in self._named(name):
                if at not in reserved and self.kinds[at] != "empty":
                    found = _present(self.words[at])[0]
                    raise DataError(
                        f"Column {self.header[at]!r} holds {found!r}, which is no date and does not count up; "
                        "expected time stamps such as 2024-03-01.",
                        hint="Name the column of time stamps with --time, or write the dates as YYYY-MM-DD.",
                        code="unreadable_time",
                    )
        return None

    def _named(self, name: str) -> list[int]:
        return [at for at, own in enumerate(self.header) if own.strip().lower() == name]

    def _counts(self, at: int) -> bool:
        """Whether whole numbers rise by a usual step, in the whole sample or within some id column."""
        numbers = parse_integers(self.words[at]) if self.words[at].size else None
        if numbers is None:
            return False
        groups: list[npt.NDArray[np.int64]] = [np.zeros(numbers.size, dtype=np.int64)]
        if self.config.id:
            groups = [_codes([self.words[self.header.index(name)] for name in self.config.id])]
        else:
            groups += [
                _codes([self.words[other]])
                for other in range(len(self.header))
                if other != at and self._may_be_id(other)
            ]
        for group in groups:
            order = np.lexsort((numbers, group))
            rises = np.diff(numbers[order])[np.diff(group[order]) == 0]
            if numbers.size == 1:
                return True
            if rises.size and np.mean(rises > 0) >= UNIQUE_SHARE:
                _, counts = np.unique(rises, return_counts=True)
                if 2 * counts.max() >= rises.size:
                    return True
        return False

    def _refuse_split_clock(self, time: int) -> None:
        """Dates in one column and the time of day in another are not read yet, and must not be read wrongly."""
        if any(":" in word for word in _present(self.words[time])[:5]) or not _repeats(self.words[time]):
            return
        for at, column in enumerate(self.words):
            present = _present(column)[:50]
            named = self.header[at].strip().lower() in CLOCK_NAMES
            clock = bool(present) and all(CLOCK.fullmatch(word.strip()) for word in present)
            if at != time and named and (clock or self.kinds[at] == "number"):
                raise self._split([self.header[time], self.header[at]])

    def _refuse_split_date(self, reserved: set[int]) -> None:
        split = [
            at for name in ("year", "month", "day", "hour") for at in self._named(name) if self.kinds[at] == "number"
        ]
        if {"year", "month"} <= {self.header[at].strip().lower() for at in split} and not reserved & set(split):
            raise self._split([self.header[at] for at in split])

    def _split(self, names: Sequence[str]) -> DataError:
        return DataError(
            f"The time is split over the columns {_listed(names)}; expected one column of time stamps.",
            hint="Join them into one column such as 2024-03-01 18:00.",
            code="split_time",
        )

    # --- ids ---

    def _ids(self, time: int | None) -> list[int]:
        if self.config.id:
            return [self.header.index(name) for name in self.config.id]
        targets = [self.header.index(name) for name in self.config.target]
        candidates = [at for at in range(len(self.header)) if at not in (time, *targets)]
        for name in ID_NAMES:
            for at in self._named(name):
                if at in candidates and self.kinds[at] != "empty" and not self._is_row_number(at):
                    return [at]
        if time is None or not self.words[time].size:
            return []
        stamps = _codes([self.words[time]])
        if np.mean(np.bincount(stamps)[stamps] > 1) < REPEATED_SHARE:
            return []
        for at in candidates:
            if self._may_be_id(at):
                pairs = _codes([self.words[at], self.words[time]])
                if np.unique(pairs).size >= UNIQUE_SHARE * pairs.size:
                    return [at]
        return []

    def _may_be_id(self, at: int) -> bool:
        name = self.header[at].strip().lower()
        return self.kinds[at] == "text" or (name in (*ID_NAMES, *WEAK_ID_NAMES) and not self._is_row_number(at))

    def _is_row_number(self, at: int) -> bool:
        """Whether a column only counts the rows: 0, 1, 2 … or 1, 2, 3 …"""
        name = self.header[at].strip().lower()
        if name not in ROW_NUMBER_NAMES and not name.startswith("unnamed: "):
            return False
        numbers = parse_integers(self.words[at]) if self.words[at].size > 1 else None
        return numbers is not None and numbers[0] in (0, 1) and bool((np.diff(numbers) == 1).all())

    # --- targets ---

    def _targets(self, time: int | None, ids: list[int], taken: set[int]) -> tuple[Layout, list[int]]:
        numeric = [
            at
            for at in range(len(self.header))
            if at not in taken and self.kinds[at] == "number" and not self._is_row_number(at)
        ]
        targets = [self.header.index(name) for name in dict.fromkeys(self.config.target)]
        named_ids = _listed([self.header[at] for at in ids])
        if not targets:
            known = [at for name in TARGET_NAMES for at in self._named(name) if at not in taken]
            # `y` alone may be one of three axes; behind `ds` or an id it is what is forecast.
            if ids or (time is not None and self.header[time] == "ds"):
                known = [*self._named("y"), *known]
            targets = known[:1]
        if not targets:
            targets = numeric
            if ids and len(numeric) > 1:
                raise UsageError(
                    f"Which column is to be forecast? The file has several series (by {named_ids}) "
                    f"and the numeric columns {_listed([self.header[at] for at in numeric])}.",
                    hint=f"Name one: --target {_quoted(self.header[numeric[-1]])}.",
                    code="which_target",
                )
        if not targets:
            raise DataError(
                f"No column of numbers to forecast among {_listed(self.header)}.",
                hint="Expected a time column and at least one column of numbers; name it with --target.",
                code="no_numbers",
            )
        if ids:
            if len(targets) > 1:
                raise UsageError(
                    f"--target names {len(targets)} columns in a file with an id column ({named_ids}); expected one.",
                    hint=f"Name one: --target {_quoted(self.header[targets[0]])}.",
                    code="which_target",
                )
            return "long", targets
        return ("wide" if len(targets) > 1 else "single"), targets


def _kind(words: Words) -> Kind:
    """Numbers, where most cells that hold something are numbers: one bad cell is an error to name, not a text."""
    present = _present(words)
    if not present:
        return "empty"
    # A decimal comma has been told apart by the reader; here it may stand for a number as well.
    good = sum(number_of(word) is not None or number_of(word.replace(",", ".")) is not None for word in present)
    return "number" if 2 * good > len(present) else "text"


def _present(words: Words) -> list[str]:
    """The distinct cells that hold something, in their order."""
    return [word for word in pd.unique(words) if not is_missing(word)]


def _repeats(words: Words) -> bool:
    return pd.unique(words).size < 0.6 * words.size


def _codes(columns: Sequence[Words]) -> npt.NDArray[np.int64]:
    """[rows] a number for each distinct combination of cells."""
    codes = np.zeros(columns[0].size, dtype=np.int64)
    for column in columns:
        more, unique = pd.factorize(column)
        codes = pd.factorize(codes * max(unique.size, 1) + more)[0].astype(np.int64)
    return codes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or '""' for name in names)


def _quoted(name: str) -> str:
    return f"'{name}'" if re.search(r"[^\w.-]", name) or not name else name
