"""Repeated rows are settled and finer rows aggregated as slow loops over plain dictionaries do it."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklstm_cli.config import DataConfig, ReadingConfig
from stacklstm_cli.data.gridding import combined
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import DataError

NAN = float("nan")
START = np.datetime64("2024-01-31T00:00")
GUESSED = DataConfig()
Cell = float | str | None


@pytest.fixture
def read(tmp_path):
    def read_text(text: str, *, config: DataConfig = GUESSED, **reading):
        path = tmp_path / "data.csv"
        path.write_text(text, encoding="utf-8")
        return read_panel([str(path)], config, ReadingConfig(**reading))

    return read_text


def settle(cells: list[Cell], how: str) -> Cell:
    """What becomes of the cells of one column, in order; by the definition, one after another."""
    if how == "first_row":
        return cells[0]
    if how == "last_row":
        return cells[-1]
    present = [cell for cell in cells if cell is not None]
    if not present:
        return None
    if how == "first":
        return present[0]
    if how == "last":
        return present[-1]
    return math.fsum(present) if how == "sum" else statistics.fmean(present)


HOWS = {
    # What is done to the target, to a numeric covariate and to a category.
    ("duplicates", "first"): ("first_row", "first_row", "first_row"),
    ("duplicates", "last"): ("last_row", "last_row", "last_row"),
    ("duplicates", "mean"): ("mean", "mean", "first"),
    ("duplicates", "sum"): ("sum", "mean", "first"),
    ("aggregate", "mean"): ("mean", "mean", "last"),
    ("aggregate", "last"): ("last", "last", "last"),
    ("aggregate", "sum"): ("sum", "mean", "last"),
}

NUMBERS = st.none() | st.floats(-1e6, 1e6, width=32)
TEXTS = st.none() | st.sampled_from(["sun", "rain", "snow"])


@pytest.mark.parametrize("examples", [8, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("option", "how"), HOWS)
def test_rows_of_one_time_become_one(read, option, how, examples):
    @settings(max_examples=examples, deadline=None)
    @given(data=st.data())
    def holds(data):
        become_one(read, option, how, data)

    holds()


def become_one(read, option, how, data):
    hours = st.integers(0, 40) if option == "duplicates" else st.integers(0, 40 * 60)
    rows = data.draw(st.lists(st.tuples(st.sampled_from("ab"), hours, NUMBERS, NUMBERS, TEXTS), min_size=4))
    # Each of the columns needs a cell that shows what it holds; the steps of the ends are whole.
    unit = "h" if option == "duplicates" else "m"
    rows += [(name, 0, 1.0, 2.0, "sun") for name in "ab"] + [
        (name, 40 * 60 + 59 if unit == "m" else 41, 3.0, None, None) for name in "ab"
    ]
    lines = [
        [name, str(START + np.timedelta64(at, unit)), *("" if cell is None else str(cell) for cell in cells)]
        for name, at, *cells in rows
    ]
    text = "".join(",".join(line) + "\n" for line in lines)
    if option == "duplicates":
        bins = {(name, at): [row for row in rows if row[:2] == (name, at)] for name, at, *_ in rows}
    else:
        # Equal rows are one; rows of a bin stand in the order of time, those of one time in the order of the file.
        groups = defaultdict(list)
        for row in sorted(rows, key=lambda row: row[1]):
            groups[row[:2]].append(row)
        bins = defaultdict(list)
        for (name, at), own in groups.items():
            bins[name, at // 60] += own[:1] if all(row == own[0] for row in own) else own
    truth = {
        key: [
            settle(list(cells), way)
            for cells, way in zip(list(zip(*own, strict=True))[2:], HOWS[option, how], strict=True)
        ]
        for key, own in bins.items()
    }
    config = DataConfig(id=("id",), target=("y",), known=("x", "w"), freq="h")
    panel = read("id,t,y,x,w\n" + text, config=config, **{option: how})
    words = panel.covariates[1].categories
    assert sorted(panel.keys) == [("a",), ("b",)]
    for index, (name,) in enumerate(panel.keys):
        own = {at: cells for (owner, at), cells in truth.items() if owner == name}
        seen = sorted(at for at, (y, _, _) in own.items() if y is not None)
        length = seen[-1] - seen[0] + 1
        expected = [own.get(at, [None] * 3) for at in range(seen[0], seen[-1] + 1)]
        assert panel.lengths[index] == length
        values = [NAN if y is None else y for y, _, _ in expected]
        np.testing.assert_allclose(panel.series(index), values, rtol=1e-12, atol=1e-9)
        begin = panel.timed_at[index]
        found = panel.timed[begin : begin + length]
        np.testing.assert_allclose(found[:, 0], [NAN if x is None else x for _, x, _ in expected], rtol=1e-6)
        np.testing.assert_array_equal(found[:, 1], [NAN if w is None else words.index(w) for _, _, w in expected])


def test_combining_by_hand():
    value, starts = np.array([NAN, 2.0, 4.0, NAN, 5.0, NAN]), np.array([0, 3, 4, 5])
    for how, expected in {"mean": [3, NAN, 5, NAN], "sum": [6, NAN, 5, NAN], "first": [2, NAN, 5, NAN]}.items():
        np.testing.assert_array_equal(combined(value, starts, how), expected)
    np.testing.assert_array_equal(combined(value, starts, "last"), [4, NAN, 5, NAN])


TWICE = "date,v,temp\n2024-01-01,1,5\n2024-01-02,2,6\n2024-01-02,2,6\n2024-01-03,4,7\n"


def test_repeats_are_dropped_where_all_is_equal(read):
    config = DataConfig(target=("v",), known=("temp",))
    panel = read(TWICE, config=config)
    assert panel.values.tolist() == [1, 2, 4]
    assert "1 repeated row dropped." in panel.notes
    with pytest.raises(
        DataError, match=r"lines 3 and 4: time 2024-01-02 stands twice, with 'temp' 6.0 and 8.0"
    ) as caught:
        read(TWICE.replace("2,6\n2024-01-03", "2,8\n2024-01-03"), config=config)
    assert caught.value.code == "duplicate_timestamps"
    assert "--duplicates" in caught.value.hint
    assert read(TWICE.replace("2,6\n2024-01-03", "2,8\n2024-01-03"), config=DataConfig(target=("v",))).values.size == 3
    with pytest.raises(DataError, match=r"with 'v' 2.0 and no value"):
        read(TWICE.replace("2,6\n2024-01-03", ",6\n2024-01-03"), config=config, duplicates="error")


def test_repeats_that_may_be_something_else_are_called_that(read):
    days = [f"2024-01-{day:02d}" for day in range(1, 20)]
    noted = "date,v,note\n" + "".join(f"{day},1,x\n" for day in days) + "2024-01-19,2,y\n"
    with pytest.raises(DataError) as caught:
        read(noted)
    assert "--id note" in caught.value.hint
    hours = [str(np.datetime64("2024-10-26T00:00") + hour) for hour in np.arange(48).astype("timedelta64[h]")]
    autumn = "date,v\n" + "".join(f"{hour},{at}\n" for at, hour in enumerate(hours)) + "2024-10-27T02:00,7\n"
    with pytest.raises(DataError) as caught:
        read(autumn)
    assert "--tz" in caught.value.hint
    with pytest.raises(DataError) as caught:
        read(autumn.replace("2024-10-27T02:00,7", "2024-10-26T02:00,7\n2024-10-26T14:00,7"))
    assert "--tz" not in caught.value.hint


def test_settled_repeats_are_counted(read):
    panel = read(
        TWICE.replace("2,6\n2024-01-03", "3,6\n2024-01-03"), duplicates="sum", config=DataConfig(target=("v",))
    )
    assert panel.values.tolist() == [1, 5, 4]
    assert "1 row repeating the time of another was settled by --duplicates sum." in panel.notes


MINUTES = "date,v\n" + "".join(
    f"{np.datetime64('2024-01-01T22:00') + np.timedelta64(30 * at, 'm')},1\n" for at in range(54)
)


def test_sums_of_a_part_of_a_step_are_left_out(read):
    # From 22:00 on the first day to 00:30 on the third.
    panel = read(MINUTES, config=DataConfig(freq="D"), aggregate="sum")
    assert panel.values.tolist() == [48]
    assert panel.stamps(panel.starts) == ["2024-01-02T00:00"]
    assert any(note.startswith("2 sums at the ends of the series left out") for note in panel.notes)
    assert any("54 rows became 3 by --aggregate sum" in note for note in panel.notes)
    mean = read(MINUTES, config=DataConfig(freq="D"), aggregate="mean")
    assert mean.values.tolist() == [1, 1, 1]
    whole = read(MINUTES, config=DataConfig(freq="2h"), aggregate="sum")
    assert whole.values.tolist() == [4] * 13
    assert any("1 sum at the ends of the series left out" in note for note in whole.notes)


def test_sums_of_irregular_rows_stay(read):
    stamps = [0, 7, 8, 31, 90, 91, 180, 200, 300]
    text = "date,v\n" + "".join(f"{np.datetime64('2024-01-01T00:03') + at},1\n" for at in stamps)
    panel = read(text, config=DataConfig(freq="h"), aggregate="sum")
    np.testing.assert_array_equal(panel.values, [4, 2, NAN, 2, NAN, 1])
    assert "2 missing time stamps read as gaps." in panel.notes


def test_repeats_with_other_values_are_rows_of_their_bin(read):
    text = (
        "date,v\n2024-01-01 00:10,1\n2024-01-01 00:10,1\n2024-01-01 00:30,2\n2024-01-01 00:30,4\n2024-01-01 01:20,5\n"
    )
    options = {"config": DataConfig(freq="h"), "aggregate": "mean"}
    panel = read(text, **options)
    np.testing.assert_allclose(panel.values, [7 / 3, 5])
    assert "1 repeated row dropped." in panel.notes
    assert read(text, duplicates="last", **options).values.tolist() == [2.5, 5]
    with pytest.raises(DataError, match="lines 4 and 5"):
        read(text, duplicates="error", **options)
