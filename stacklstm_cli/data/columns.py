"""Which column plays which role: named by the user, known by its name, or guessed from its cells."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from stacklstm_cli.config import DataConfig
from stacklstm_cli.data.cells import is_missing, number_of
from stacklstm_cli.data.ids import UNIQUE_SHARE, find_ids, may_be_id, possible_ids
from stacklstm_cli.data.panel import Columns, Layout
from stacklstm_cli.data.patterns import MONTHS, parse_integers
from stacklstm_cli.data.sample import Kind, Sample
from stacklstm_cli.data.split import split_time, split_way
from stacklstm_cli.data.stamps import looks_like_time
from stacklstm_cli.data.wording import quoted, shown
from stacklstm_cli.errors import DataError, UsageError

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
ROLES = ("time", "id", "target", "past", "known", "static")
"""Options that name columns."""
COUNTING_SHARE = 0.6
"""Whole numbers of time rise at most rows; those that do not are repeats, to be settled."""
FIRST_YEAR, LAST_YEAR = 1500, 2200
"""Whole numbers between them that count up are calendar years, whatever the name of their column."""
LOOKED_AT = 400
"""Distinct cells that show whether a column holds dates."""


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
    """Columns that would make regular series, if they named them."""
    split_way: str = ""
    """What to type where the time may be split over columns that are not taken for it; "" where it is not."""
    classes: tuple[str, ...] | None = None
    """None where values are forecast; where the target is a label, the classes of the model, () at training."""

    @property
    def ways(self) -> tuple[str, ...]:
        """What to type where the rows do not make one row for each time."""
        if self.split_way:
            return (self.split_way,)
        return tuple(f"if {name!r} tells several series apart: --id {quoted(name)}" for name in self.possible_ids[:1])


def find_columns(header: Sequence[str], sample: pd.DataFrame, config: DataConfig, formats: Sequence[str] = ()) -> Found:
    """Give each column its role.

    `header` [columns] names; `sample` [rows, columns] cells as text, columns in the order of the
    header; `formats` are those of a typed --date-format, if there is one. Named roles win over known names, and
    those over what cells look like; covariates are named ones only.
    Raises `UsageError` for named columns that are not there and choices that only the user can make,
    `DataError` for a table in which nothing can be forecast.
    """
    return _Search(header, sample, config, formats).run()


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

    def __init__(self, header: Sequence[str], frame: pd.DataFrame, config: DataConfig, formats: Sequence[str]) -> None:
        self.header = tuple(header)
        self.config = config
        self.formats = tuple(formats)
        self.notes: list[str] = []
        self.named = {name: self._places(name, getattr(config, name)) for name in ROLES}
        self.named["label"] = self._places("label", [config.label] if config.label is not None else [])
        self._refuse_two_roles()
        self._refuse_beside_label()
        self.reserved = {at for name, places in self.named.items() if name != "time" for at in places}
        self.sample = Sample.of(header, frame)
        self.words = self.sample.words
        self.kinds = self.sample.kinds

    def run(self) -> Found:
        self._refuse_missing_header()
        time = self._time()
        self._refuse_time_across(time)
        free = [at for at in range(len(self.header)) if at not in self.reserved and at not in time]
        ids = self.named["id"] or find_ids(self.sample, time, free, self.formats)
        names = ["" if at in self.reserved else name for at, name in enumerate(self.header)]
        way = split_way(names, self.words, time)
        if way and not time:
            raise UsageError(
                "No column alone holds the time, and two columns may hold it together.",
                hint=f"{way[0].upper()}{way[1:]}; else name the column of time with --time.",
                code="which_time",
            )
        if not time:
            self._refuse_time_as_label()
            self.notes.append("No time column found: rows are steps 0, 1, 2 …")
        if self.named["label"]:
            self._find_features({*time, *ids})
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
        able = [at for at in range(len(self.header)) if at not in {*time, *ids, *covariates}]
        possible = possible_ids(self.sample, time, able, self.formats)
        notes = tuple(self.notes)
        return Found(columns, tuple(ignored), notes, kinds, possible, way, () if self.named["label"] else None)

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

    def _refuse_beside_label(self) -> None:
        """Raise `UsageError` for roles that mean nothing where labels are learned."""
        if not self.named["label"]:
            return
        for role, reason in (
            ("target", "the label is what is learned"),
            ("known", "nothing behind the last row of a series is asked for"),
        ):
            if self.named[role]:
                raise UsageError(
                    f"--{role} does not go with --label: {reason}.",
                    hint="Name features with --past, or leave them out: every other column is one.",
                    code="label_conflict",
                )

    def _find_features(self, taken: set[int]) -> None:
        """Every column without another role is a feature, where none is named. Raises `DataError` without any."""
        if not self.named["past"]:
            others = [at for at in range(len(self.header)) if at not in taken | self.reserved]
            self.named["past"] = [
                at for at in others if self.kinds[at] != "empty" and not self.sample.is_row_number(at)
            ]
        if not self.named["past"]:
            raise DataError(
                f"No column is left to tell the labels by: {_listed(self.header)}.",
                hint="Expected columns of features beside id, time and label; name them with --past.",
                code="no_features",
            )

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
        named = [at for name in TIME_NAMES for at in self.sample.named(name)]
        others = [at for at in range(len(self.header)) if at not in named]
        candidates = [at for at in (*named, *others) if at not in self.reserved]
        dated = self._dated(candidates)
        # Of two date columns with names of their own, the one that repeats less is the time: cohort, then stamp.
        dated.sort(key=lambda at: (at not in named, 0 if at in named else -pd.unique(self.words[at]).size))
        split = self._split_time()
        if self.formats and dated and dated[0] not in split:
            split = []
        if split or dated:
            return split or dated[:1]
        for name in INTEGER_TIME_NAMES:
            for at in self.sample.named(name):
                if at not in self.reserved and self._counts(at):
                    return [at]
        for name in STRICT_TIME_NAMES:
            for at in self.sample.named(name):
                if at not in self.reserved and self.kinds[at] != "empty":
                    if self.formats:
                        return [at]
                    found = shown(self.sample.present(at)[0])
                    raise DataError(
                        f"Column {self.header[at]!r} holds {found}, which is no date and does not count up; "
                        "expected time stamps such as 2024-03-01.",
                        hint="Write the dates as YYYY-MM-DD; or say how they are written, such as "
                        "--date-format '%d %b %Y', or name another column with --time.",
                        code="unreadable_time",
                    )
        self._refuse_time_as_covariate()
        return self._years()

    def _dated(self, candidates: Sequence[int]) -> list[int]:
        """Those columns that hold dates: of the typed form, or of any where no column is of that one."""
        for formats in (self.formats, ()) if self.formats else ((),):
            dated = [at for at in candidates if looks_like_time(self.sample.present(at)[:LOOKED_AT], formats)]
            if dated:
                return dated
        return []

    def _years(self) -> list[int]:
        """Where the first column of numbers stands if it counts calendar years, whatever its name: Jahr, FY."""
        numeric = [at for at, kind in enumerate(self.kinds) if kind == "number"]
        if len(numeric) < 2 or numeric[0] in self.reserved:
            return []
        return numeric[:1] if self._are_years(numeric[0]) else []

    def _are_years(self, at: int) -> bool:
        """Whether a column counts calendar years."""
        years = parse_integers(self.words[at])
        possible = years is not None and years.size > 2 and years.min() >= FIRST_YEAR and years.max() <= LAST_YEAR
        return possible and self._counts(at)

    def _refuse_time_as_covariate(self) -> None:
        for role in ("past", "known", "static"):
            for at in self.named[role]:
                if looks_like_time(self.sample.present(at)[:LOOKED_AT]):
                    raise UsageError(
                        f"Column {self.header[at]!r} is named by --{role}, and no other column holds time stamps.",
                        hint=f"Leave it out of --{role}; --calendar shows the network hour, weekday and season.",
                        code="role_conflict",
                    )

    def _refuse_time_as_label(self) -> None:
        """Raise `UsageError` where what is to be learned is the only column that holds the time."""
        counting = {at for name in INTEGER_TIME_NAMES for at in self.sample.named(name)}
        for at in self.named["label"]:
            dated = looks_like_time(self.sample.present(at)[:LOOKED_AT], self.formats)
            if dated or (at in counting and self._counts(at)) or self._are_years(at):
                raise UsageError(
                    f"--label names {self.header[at]!r}, which is the time column; expected a column of classes.",
                    hint="Name the column of classes with --label; if it is one, name the column of time with --time.",
                    code="role_conflict",
                )

    def _counts(self, at: int) -> bool:
        """Whether whole numbers rise by a usual step, in the whole sample or within some id column."""
        numbers = parse_integers(self.words[at]) if self.words[at].size else None
        if numbers is None:
            return False
        groups: list[npt.NDArray[np.int64]] = [np.zeros(numbers.size, dtype=np.int64)]
        if self.named["id"]:
            groups = [self.sample.codes(self.named["id"])]
        else:
            groups += [
                self.sample.codes([other])
                for other in range(len(self.header))
                if other != at and may_be_id(self.sample, other)
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
            days = self.sample.codes([*ids, split[0]])
            if np.unique(days).size >= UNIQUE_SHARE * days.size:
                return []
        return list(split)

    # --- targets ---

    def _targets(self, time: list[int], ids: list[int], taken: set[int]) -> tuple[Layout, list[int]]:
        numeric = [
            at
            for at in range(len(self.header))
            if at not in taken and self.kinds[at] == "number" and not self.sample.is_row_number(at)
        ]
        targets = self.named["target"]
        if self.named["label"]:
            return ("long" if ids else "single"), self.named["label"]
        named_ids = _listed([self.header[at] for at in ids])
        if not targets:
            known = [at for name in TARGET_NAMES for at in self.sample.named(name) if at not in taken]
            # `y` alone may be one of three axes; behind `ds` or an id it is what is forecast.
            if ids or (time and self.header[time[0]] == "ds"):
                known = [*self.sample.named("y"), *known]
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


def _listed(names: Sequence[str]) -> str:
    # A name may be a whole paragraph, where a quotation mark is not closed.
    return ", ".join(" ".join(name.split()) or '""' for name in names)
