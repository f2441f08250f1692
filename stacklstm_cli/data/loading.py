"""Columns of tables become rows: series told apart, cells as numbers, future rows behind the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from stacklstm_cli.data.columns import Found
from stacklstm_cli.data.covariates import category_codes, names_and_roles
from stacklstm_cli.data.gridding import Codes, Flags, Rows, count_of, shortened
from stacklstm_cli.data.labels import label_codes
from stacklstm_cli.data.panel import Columns, Covariate, Covered, Floats
from stacklstm_cli.data.sample import Kind, kind_of
from stacklstm_cli.data.table import Table
from stacklstm_cli.data.texts import Texts
from stacklstm_cli.errors import DataError, UsageError

LARGEST_TARGET = 1e100
"""The square of a larger number could not be held."""
LARGEST_COVARIATE = 1e30
"""Covariates are 32-bit numbers."""


@dataclass
class _Cells:
    """The cells that play a role, of rows that hold something."""

    text: dict[str, Texts]
    numbers: dict[str, Floats]
    places: Codes
    """[rows] number of each row in its table."""

    def keep(self, rows: Flags) -> None:
        self.text = {name: texts.kept(rows) for name, texts in self.text.items()}
        self.numbers = {name: value[rows] for name, value in self.numbers.items()}
        self.places = self.places[rows]

    def append(self, other: _Cells, offset: int) -> None:
        """Put rows behind these; columns that only these have are missing there."""
        count = other.places.size
        for name, texts in self.text.items():
            more = other.text.get(name, Texts.of(np.full(count, "", dtype=object)))
            self.text[name] = Texts.below([texts, more])
        for name, value in self.numbers.items():
            self.numbers[name] = np.concatenate([value, other.numbers.get(name, np.full(count, np.nan))])
        self.places = np.concatenate([self.places, other.places + np.int32(offset)])


def load_rows(
    table: Table, found: Found, future: Table | None, notes: list[str]
) -> tuple[Rows, tuple[Texts, ...], tuple[Covariate, ...]]:
    """The rows that hold something, their columns of time, and what the covariates are.

    Rows of `future` follow behind those of `table`; only known covariates are read of them.
    Raises `DataError` for cells that cannot be read, `UsageError` for future rows that nothing needs.
    """
    columns = found.columns
    if future is not None:
        _require_known_columns(future, columns)
    kinds = _settled_kinds([table, *([future] if future is not None else [])], found.kinds)
    cells = _cells(table, columns, kinds, labelled=found.classes is not None)
    own = cells.places.size
    if future is not None:
        notes += future.notes
        ahead = _cells(future, replace(columns, targets=(), past=(), static=()), kinds)
        cells.append(ahead, sum(table.rows))
        table = replace(
            table,
            sources=(*table.sources, *future.sources),
            orders=(*table.orders, *future.orders),
            rows=(*table.rows, *future.rows),
        )
    codes, keys = _series(table, columns, cells)
    if future is not None:
        mine = int(codes[:own].max(initial=-1)) + 1
        known = codes < mine
        if not known.all():
            names = [", ".join(key) for key in keys[mine:]]
            notes.append(f"{len(names)} series of the future rows are not in the data, ignored: {shortened(names)}.")
            cells.keep(known)
            codes, keys = codes[known], keys[:mine]
    _refuse_huge(table, cells, columns)
    _drop_infinite(cells, notes)
    covariates, values = _covariates(columns, kinds, cells)
    classes: tuple[str, ...] = ()
    if found.classes is not None:
        classes, cells.numbers[columns.targets[0]] = label_codes(cells.text[columns.targets[0]].words(), found.classes)
    rows = Rows(
        table,
        cells.places,
        codes,
        keys,
        tuple(cells.numbers[name] for name in columns.targets),
        values,
        tuple(covariate.categories is not None for covariate in covariates),
        classes,
    )
    return rows, tuple(cells.text[name] for name in columns.time), covariates


def _settled_kinds(tables: Sequence[Table], kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """What each covariate holds; whole columns tell where the sample had no cell of it."""
    settled = dict(kinds)
    for name, kind in kinds.items():
        if kind == "empty":
            columns = [table.columns([], [], [name])[0][name] for table in tables if name in table.header]
            settled[name] = "text" if kind_of(Texts.below(columns).words()) == "text" else "number"
    return settled


def _cells(table: Table, columns: Columns, kinds: Mapping[str, Kind], *, labelled: bool = False) -> _Cells:
    """The cells of all roles; the targets of a `labelled` file are texts, empty ones where it has no such column."""
    covariates = [name for name, _ in names_and_roles(columns)]
    worded = [name for name in covariates if kinds[name] == "text"]
    numeric = [name for name in covariates if kinds[name] == "number"]
    targets = [] if labelled else columns.targets
    labels = [name for name in columns.targets if labelled and name in table.header]
    text, numbers = table.columns([*columns.time, *columns.ids], [*targets, *numeric], [*worded, *labels])
    count = sum(table.rows)
    for name in set(columns.targets) - {*targets, *labels}:
        text[name] = Texts.of(np.full(count, "", dtype=object))
    filled = np.zeros(count, dtype=bool)
    for texts in text.values():
        filled |= texts.filled()
    for value in numbers.values():
        filled |= ~np.isnan(value)
    if not columns.time and not columns.ids and filled.any():
        # Here a blank line is a step without a value, up to the last row.
        filled[: int(np.flatnonzero(filled)[-1])] = True
    cells = _Cells(text, numbers, np.arange(count, dtype=np.int32))
    if not filled.all():
        cells.keep(filled)
    return cells


def _require_known_columns(future: Table, columns: Columns) -> None:
    if not columns.known:
        raise UsageError(
            f"--future {future.name} gives future rows of known covariates, and there are none.",
            hint="Name the columns at train with --known, or leave --future out.",
            code="future_without_known",
        )
    for name in (*columns.time, *columns.ids, *columns.known):
        if name not in future.header:
            raise DataError(
                f"{future.name}: column {name!r} is missing; the columns are {', '.join(future.header)}.",
                hint="predict --future-template writes the file to fill in.",
                code="columns_differ",
            )


def _series(table: Table, columns: Columns, cells: _Cells) -> tuple[Codes, tuple[tuple[str, ...], ...]]:
    """[rows] number of each row's series, in the order of the file, and the names of the series."""
    if not columns.ids:
        return np.zeros(cells.places.size, dtype=np.int32), ((),)
    for name in columns.ids:
        row = cells.text[name].first(lambda own: pc.equal(pc.utf8_trim_whitespace(own), ""))
        if row is not None:
            raise DataError(
                f"{table.place(int(cells.places[row]))}, column {name!r}: the cell is empty; expected the name of "
                "a series.",
                hint="Fill the cell, take the row out, or name another column with --id.",
                code="missing_id",
            )
    parts = [cells.text[name].factorized() for name in columns.ids]
    if len(parts) == 1:
        codes, unique = parts[0]
        return codes, tuple((name,) for name in unique)
    together = np.zeros(cells.places.size, dtype=np.int64)
    for more, unique in parts:
        together = pd.factorize(together * max(len(unique), 1) + more)[0]
    _, first = np.unique(together, return_index=True)
    keys = tuple(zip(*([unique[code] for code in more[first]] for more, unique in parts), strict=True))
    return together.astype(np.int32), keys


def _refuse_huge(table: Table, cells: _Cells, columns: Columns) -> None:
    """Raise `DataError` for a number that cannot be reckoned with."""
    for name, value in cells.numbers.items():
        limit = LARGEST_TARGET if name in columns.targets else LARGEST_COVARIATE
        large = np.isfinite(value) & ((value > limit) | (value < -limit))
        if large.any():
            row = int(np.argmax(large))
            raise DataError(
                f"{table.place(int(cells.places[row]))}, column {name!r}: {value[row]:g} found; expected numbers up "
                f"to {limit:g}.",
                hint="Mend the cell, or give the column in a larger unit.",
                code="number_too_large",
            )


def _drop_infinite(cells: _Cells, notes: list[str]) -> None:
    infinite = 0
    for name, value in cells.numbers.items():
        wrong = np.isinf(value)
        if wrong.any():
            infinite += int(np.count_nonzero(wrong))
            cells.numbers[name] = np.where(wrong, np.nan, value)
    if infinite:
        notes.append(f"{count_of(infinite, 'infinite value')} counted as missing.")


def _covariates(
    columns: Columns, kinds: Mapping[str, Kind], cells: _Cells
) -> tuple[tuple[Covariate, ...], tuple[Covered, ...]]:
    """What each covariate is, and [rows] its cells as 32-bit numbers; the cells are taken out of `cells`."""
    covariates: list[Covariate] = []
    values: list[Covered] = []
    for name, role in names_and_roles(columns):
        categories = None
        if kinds[name] == "text":
            categories, value = category_codes(cells.text.pop(name).words())
        else:
            value = cells.numbers.pop(name).astype(np.float32)
        covariates.append(Covariate(name, role, categories))
        values.append(value)
    return tuple(covariates), tuple(values)
