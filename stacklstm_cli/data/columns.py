"""Which column plays which role: named by the user, known by its name, or guessed from its cells."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from stacklstm_cli.config import DataConfig
from stacklstm_cli.data.cells import is_missing, number_of
from stacklstm_cli.data.panel import Columns, Layout
from stacklstm_cli.data.patterns import MONTHS, Words, parse_integers
from stacklstm_cli.data.split import split_time
from stacklstm_cli.data.stamps import StampError, find_forms, looks_like_time
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
NUMBERED = re.compile(r"(?i:(?:^|[_ .-])(?:id|nr|nbr|no|num|number|code|key))$|[a-z](?:Id|ID|Nr|No|Code|Number)$")
"""Names of columns of whole numbers that tell things apart: store_nbr, plantID."""
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

ROLES = ("time", "id", "target", "past", "known", "static")
"""Options that name columns."""
REPEATED_SHARE = 0.4
"""In a long file most stamps stand in several series; fewer repeats are stray duplicates, not series."""
COUNTING_SHARE = 0.6
"""Whole numbers of time rise at most rows; those that do not are repeats, to be settled."""
MOSTLY = 0.9
"""Such a share of the cells being numbers makes a column one of numbers, whatever texts there are."""
MOST_ID_COLUMNS = 8
"""So many columns are tried together, where none alone tells series apart."""
FIRST_YEAR, LAST_YEAR = 1500, 2200
"""Whole numbers between them that count up are calendar years, whatever the name of their column."""
LOOKED_AT = 400
"""Distinct cells that show whether a column holds dates."""
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
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """What the cells of each covariate are; "empty" where the sample holds none."""
    possible_ids: tuple[str, ...] = ()
    """Columns that would tell apart rows of one time, if they named series."""


def find_columns(header: Sequence[str], sample: pd.DataFrame, config: DataConfig) -> Found:
    """Give each column its role.

    `header` [columns] names; `sample` [rows, columns] cells as text, columns in the order of the
    header. Named roles win over known names, and those over what cells look like; covariates are named ones only.
    Raises `UsageError` for named columns that are not there and choices that only the user can make,
    `DataError` for a table in which nothing can be forecast.
    """
    return _Search(header, sample, config).run()


def require_columns(header: Sequence[str], names: Sequence[str], option: str) -> None:
    """Raise `UsageError` if a column named by `option` is not in the header."""
    for name in names:
        if name not in header:
            lowered = [own.lower() for own in header]
            near = [header[lowered.index(close)] for close in difflib.get_close_matches(name.lower(), lowered, 1, 0.5)]
            raise UsageError(
                f"{option} names column {name!r}, which is not in the file; its columns are {_listed(header)}.",
                hint=f"Did you mean {option} {quoted(near[0])}?"
                if near
                else f"Name one of them: {option} {quoted(header[0])}.",
                code="unknown_column",
            )


class _Search:
    """One search for roles; the sample's columns are looked at by their place, as names may repeat."""

    def __init__(self, header: Sequence[str], sample: pd.DataFrame, config: DataConfig) -> None:
        self.header = tuple(header)
        self.config = config
        self.notes: list[str] = []
        self.named = {name: self._places(name, getattr(config, name)) for name in ROLES}
        self._refuse_two_roles()
        self.reserved = {at for name in ROLES if name != "time" for at in self.named[name]}
        words = [sample.iloc[:, at].to_numpy(dtype=object) for at in range(len(self.header))]
        # Rows without anything are blank lines, not data.
        filled = np.zeros(len(sample), dtype=bool)
        for column in words:
            filled |= column != ""
        self.words: list[Words] = [column[filled] for column in words]
        self.kinds: list[Kind] = [kind_of(column) for column in self.words]

    def run(self) -> Found:
        self._refuse_missing_header()
        time = self._time()
        self._refuse_time_across(time)
        ids = self._ids(time)
        if not time:
            self.notes.append("No time column found: rows are steps 0, 1, 2 …")
        covariates = [*self.named["past"], *self.named["known"], *self.named["static"]]
        layout, targets = self._targets(time, ids, {*time, *ids, *covariates})
        taken = {*time, *ids, *covariates, *targets}
        ignored = [
            self.header[at]
            for at in range(len(self.header))
            if at not in taken and not (self.header[at] == "" and self.kinds[at] == "empty")
        ]
        places = (time, ids, targets, *(self.named[role] for role in ("past", "known", "static")))
        columns = Columns(layout, *(tuple(self.header[at] for at in role) for role in places))
        kinds = {self.header[at]: self.kinds[at] for at in covariates}
        possible_ids = self._possible_ids(time, {*time, *ids, *covariates})
        return Found(columns, tuple(ignored), tuple(self.notes), kinds, possible_ids)

    def _places(self, role: str, names: Sequence[str]) -> list[int]:
        """Where the columns named for one role stand, each once. Raises `UsageError`."""
        require_columns(self.header, names, f"--{role}")
        return [self.header.index(name) for name in dict.fromkeys(names)]

    def _refuse_two_roles(self) -> None:
        roles: dict[int, str] = {}
        for role, places in self.named.items():
            for at in places:
                if at in roles:
                    raise UsageError(
                        f"Column {self.header[at]!r} is named by --{roles[at]} and by --{role}; "
                        "expected one role for each column.",
                        hint=f"Leave it out of one of them, or name another column with --{role}.",
                        code="role_conflict",
                    )
                roles[at] = role

    def _refuse_missing_header(self) -> None:
        def is_value(name: str) -> bool:
            return number_of(name) is not None or looks_like_time([name])

        counted = [str(number) for number in range(len(self.header))]
        values = "" not in self.header and all(is_value(name) for name in self.header) and list(self.header) != counted
        # Dates alone may be the names of columns, and so may numbers; both together are a row.
        numbers = [number_of(name) is not None for name in self.header if not is_missing(name)]
        dates = [looks_like_time([name]) and number_of(name) is None for name in self.header]
        if values or (any(numbers) and any(dates)):
            raise DataError(
                f"The first line holds values ({_listed(self.header[:3])}), expected the names of the columns.",
                hint="Put a header line such as date,value on top.",
                code="no_header",
            )

    def _refuse_time_across(self, time: list[int]) -> None:
        """Time that runs along the header: months beside a year, or dates or years where no column holds time."""
        free = [name for at, name in enumerate(self.header) if at not in self.reserved]
        months = [name for name in free if name[:3].title() in {month[:3] for month in MONTHS}]
        years = [name for name in free if name.isdecimal() and FIRST_YEAR <= int(name) <= LAST_YEAR]
        dates = [name for name in free if number_of(name) is None and looks_like_time([name])]
        across = max(years, dates, key=len) if not time else months if len(months) == len(MONTHS) else []
        if len(across) > 2:
            raise DataError(
                f"Time runs across the columns ({_listed(across[:3])} …), expected it to run down the rows.",
                hint="Turn the table: one row for each time stamp, with a column for the time and one for each series.",
                code="time_across",
            )

    # --- time ---

    def _time(self) -> list[int]:
        """Where the columns of time stand: several where a date is split over them, none where rows are steps."""
        if self.named["time"]:
            return self.named["time"]
        named = [at for name in TIME_NAMES for at in self._named(name)]
        others = [at for at in range(len(self.header)) if at not in named]
        candidates = [at for at in (*named, *others) if at not in self.reserved]
        dated = [at for at in candidates if looks_like_time(_present(self.words[at])[:LOOKED_AT])]
        # Of two date columns with names of their own, the one that repeats less is the time: cohort, then stamp.
        dated.sort(key=lambda at: (at not in named, 0 if at in named else -pd.unique(self.words[at]).size))
        split = self._split_time()
        if split or dated:
            return split or dated[:1]
        for name in INTEGER_TIME_NAMES:
            for at in self._named(name):
                if at not in self.reserved and self._counts(at):
                    return [at]
        for name in STRICT_TIME_NAMES:
            for at in self._named(name):
                if at not in self.reserved and self.kinds[at] != "empty":
                    found = _present(self.words[at])[0]
                    raise DataError(
                        f"Column {self.header[at]!r} holds {found!r}, which is no date and does not count up; "
                        "expected time stamps such as 2024-03-01.",
                        hint="Name the column of time stamps with --time, or write the dates as YYYY-MM-DD.",
                        code="unreadable_time",
                    )
        self._refuse_time_as_covariate()
        return self._years()

    def _years(self) -> list[int]:
        """Where the first column of numbers stands if it counts calendar years, whatever its name: Jahr, FY."""
        numeric = [at for at, kind in enumerate(self.kinds) if kind == "number"]
        if len(numeric) < 2 or numeric[0] in self.reserved or not self._counts(numeric[0]):
            return []
        years = parse_integers(self.words[numeric[0]])
        possible = years is not None and years.size > 2 and years.min() >= FIRST_YEAR and years.max() <= LAST_YEAR
        return numeric[:1] if possible else []

    def _refuse_time_as_covariate(self) -> None:
        for role in ("past", "known", "static"):
            for at in self.named[role]:
                if looks_like_time(_present(self.words[at])[:LOOKED_AT]):
                    raise UsageError(
                        f"Column {self.header[at]!r} is named by --{role}, and no other column holds time stamps.",
                        hint=f"Leave it out of --{role}; --calendar shows the network hour, weekday and season.",
                        code="role_conflict",
                    )

    def _named(self, name: str) -> list[int]:
        return [at for at, own in enumerate(self.header) if own.strip().lower() == name]

    def _counts(self, at: int) -> bool:
        """Whether whole numbers rise by a usual step, in the whole sample or within some id column."""
        numbers = parse_integers(self.words[at]) if self.words[at].size else None
        if numbers is None:
            return False
        groups: list[npt.NDArray[np.int64]] = [np.zeros(numbers.size, dtype=np.int64)]
        if self.named["id"]:
            groups = [_codes([self.words[other] for other in self.named["id"]])]
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
            if rises.size and np.mean(rises > 0) >= COUNTING_SHARE:
                _, counts = np.unique(rises[rises > 0], return_counts=True)
                if 2 * counts.max() >= rises.size:
                    return True
        return False

    def _split_time(self) -> list[int]:
        """Columns over which the time is split, in calendar order."""
        ids = self.named["id"]
        hidden = np.full(self.words[0].size, "", dtype=object)
        words = [hidden if at in self.reserved and at not in ids else column for at, column in enumerate(self.words)]
        split = split_time(self.header, words)
        if set(split) & self.reserved:
            return []
        if split and ids:
            # Dates repeat in a long file; beside a clock they repeat within a series.
            days = _codes([self.words[at] for at in (*ids, split[0])])
            if np.unique(days).size >= UNIQUE_SHARE * days.size:
                return []
        return list(split)

    # --- ids ---

    def _ids(self, time: list[int]) -> list[int]:
        if self.named["id"]:
            return self.named["id"]
        candidates = [at for at in range(len(self.header)) if at not in self.reserved and at not in time]
        for name in ID_NAMES:
            for at in self._named(name):
                if at in candidates and self.kinds[at] != "empty" and not self._is_row_number(at):
                    return [at]
        if not time or not self.words[time[0]].size:
            return []
        stamps = _codes([self.words[at] for at in time])
        repeated = np.mean(np.bincount(stamps)[stamps] > 1) >= REPEATED_SHARE
        able = sorted((at for at in candidates if self._may_be_id(at)), key=lambda at: not self._has_id_name(at))
        for at in sorted(able):
            if self._tells_apart([at], time) and (repeated or self._starts_anew(at, time)):
                return [at]
        if not repeated:
            return []
        together = (group for size in (2, 3) for group in combinations(able[:MOST_ID_COLUMNS], size))
        return sorted(next((group for group in together if self._tells_apart(group, time)), ()))

    def _starts_anew(self, at: int, time: list[int]) -> bool:
        """Whether the rows of each name stand together, and time goes back where they change, but nowhere else.

        So series stand one below the other whose time stamps have nothing in common.
        """
        names = _codes([self.words[at]])
        last = np.flatnonzero(np.diff(names))
        if not last.size or last.size != names.max() or len(time) > 1:
            return False
        codes, unique = pd.factorize(self.words[time[0]])
        if any(is_missing(word) for word in unique):
            return False
        try:
            forms = find_forms(unique)
        except StampError:
            return False
        for form in forms:
            back = np.diff(form.clock[codes].astype(np.int64)) < 0
            if back[last].all() and back.sum() == last.size:
                return True
        return False

    def _possible_ids(self, time: list[int], taken: set[int]) -> tuple[str, ...]:
        if not time or not self.words[time[0]].size:
            return ()
        stamps = _codes([self.words[at] for at in time])
        numbers_too = np.mean(np.bincount(stamps)[stamps] > 1) >= REPEATED_SHARE
        return tuple(
            self.header[at]
            for at, kind in enumerate(self.kinds)
            if at not in taken
            and (kind == "text" or (kind == "number" and numbers_too and parse_integers(self.words[at]) is not None))
            and self._tells_apart([at], time)
        )

    def _tells_apart(self, places: Sequence[int], time: list[int]) -> bool:
        """Whether nearly all rows differ by some columns and the time together."""
        together = _codes([self.words[at] for at in (*places, *time)])
        return bool(np.unique(together).size >= UNIQUE_SHARE * together.size)

    def _has_id_name(self, at: int) -> bool:
        name = self.header[at].strip()
        return name.lower() in (*ID_NAMES, *WEAK_ID_NAMES) or NUMBERED.search(name) is not None

    def _may_be_id(self, at: int) -> bool:
        numbered = self.kinds[at] == "number" and self._has_id_name(at) and not self._is_row_number(at)
        return self.kinds[at] == "text" or numbered

    def _is_row_number(self, at: int) -> bool:
        """Whether a column only counts the rows: 0, 1, 2 … or 1, 2, 3 …"""
        name = self.header[at].strip().lower()
        if name not in ROW_NUMBER_NAMES and not name.startswith("unnamed: "):
            return False
        numbers = parse_integers(self.words[at]) if self.words[at].size > 1 else None
        return numbers is not None and numbers[0] in (0, 1) and bool((np.diff(numbers) == 1).all())

    # --- targets ---

    def _targets(self, time: list[int], ids: list[int], taken: set[int]) -> tuple[Layout, list[int]]:
        numeric = [
            at
            for at in range(len(self.header))
            if at not in taken and self.kinds[at] == "number" and not self._is_row_number(at)
        ]
        targets = self.named["target"]
        named_ids = _listed([self.header[at] for at in ids])
        if not targets:
            known = [at for name in TARGET_NAMES for at in self._named(name) if at not in taken]
            # `y` alone may be one of three axes; behind `ds` or an id it is what is forecast.
            if ids or (time and self.header[time[0]] == "ds"):
                known = [*self._named("y"), *known]
            targets = known[:1]
        if not targets:
            targets = numeric
            if ids and len(numeric) > 1:
                raise UsageError(
                    f"Which column is to be forecast? The file has several series (by {named_ids}) "
                    f"and the numeric columns {_listed([self.header[at] for at in numeric])}.",
                    hint=f"Name one: --target {quoted(self.header[numeric[-1]])}.",
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
                    hint=f"Name one: --target {quoted(self.header[targets[0]])}.",
                    code="which_target",
                )
            return "long", targets
        return ("wide" if len(targets) > 1 else "single"), targets


def kind_of(words: Words) -> Kind:
    """Numbers, where most texts are numbers or most cells are: a bad cell is then an error to name, not a text."""
    codes, unique = pd.factorize(words)
    held = np.asarray([not is_missing(word) for word in unique], dtype=bool)
    if not held.any():
        return "empty"
    good = np.asarray([number_of(word) is not None for word in unique], dtype=bool) & held
    cells = np.bincount(codes, minlength=held.size)
    most = 2 * np.count_nonzero(good) > np.count_nonzero(held) or cells[good].sum() >= MOSTLY * cells[held].sum()
    return "number" if most else "text"


def _present(words: Words) -> list[str]:
    """The distinct cells that hold something, in their order."""
    return [word for word in pd.unique(words) if not is_missing(word)]


def _codes(columns: Sequence[Words]) -> npt.NDArray[np.int64]:
    """[rows] a number for each distinct combination of cells."""
    codes = np.zeros(columns[0].size, dtype=np.int64)
    for column in columns:
        more, unique = pd.factorize(column)
        codes = pd.factorize(codes * max(unique.size, 1) + more)[0].astype(np.int64)
    return codes


def _listed(names: Sequence[str]) -> str:
    # A name may be a whole paragraph, where a quotation mark is not closed.
    return ", ".join(" ".join(name.split()) or '""' for name in names)


def quoted(name: str) -> str:
    return f"'{name}'" if re.search(r"[^\w.-]", name) or not name else name
