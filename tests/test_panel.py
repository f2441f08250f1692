"""The Panel and what it promises."""

from __future__ import annotations

import dataclasses

import numpy as np
from panels import join_series

from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.panel import Columns, Panel


def panel() -> Panel:
    keys, values, offsets, starts = join_series(
        [(("a",), 3, np.array([1.0, np.nan, 3.0, 4.0])), (("b",), 5, np.array([7.0, 8.0]))]
    )
    columns = Columns("long", ("t",), ("id",), ("y",))
    return Panel(columns, Step("step"), TimeForm("integer"), keys, values, offsets, starts)


def test_lengths_ends_and_gaps():
    own = panel()
    assert own.n_series == 2
    assert own.lengths.tolist() == [4, 2]
    assert own.ends.tolist() == [7, 7]
    assert own.gaps == 1
    assert own.series(1).tolist() == [7, 8]
    assert own.name(0) == "a"
    assert own.stamps([3, 4]) == ["3", "4"]


def test_columns_are_stored_and_found_again():
    for columns in (Columns("long", ("t",), ("a", "b"), ("y",)), Columns("wide", (), (), ("x", "z"))):
        assert Columns.from_dict(columns.as_dict()) == columns
    assert (Columns("wide", (), (), ("x", "z")).key_names, Columns("single", (), (), ("x",)).key_names) == (
        ("series",),
        (),
    )
    assert Columns("single", (), (), ("x",)).time_names == ("step",)


def test_the_fingerprint_is_of_the_content():
    own = panel()
    assert own.fingerprint() == dataclasses.replace(own, rows_read=9, sha256="x", notes=("y",)).fingerprint()
    changed = own.values.copy()
    changed[0] += 1e-9
    assert own.fingerprint() != dataclasses.replace(own, values=changed).fingerprint()
