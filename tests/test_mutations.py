"""Damaged files: `check` reads them or refuses them in one message; it never fails with a traceback."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stacklstm_cli.cli import estimate
from stacklstm_cli.cli.app import app

SAMPLES = sorted((Path(__file__).parent.parent / "sample_data").glob("*.csv"))
GARBAGE = (b"\0", b"\xff\xfe", b"\x80\x81", b'"', b"\r", b"\x1f", b"\xe2\x80\xae", b"=1+1", b"\t", b"NaN", b"\n\n\n")
CELLS = (
    *("inf", "-inf", "1e999", "9" * 400, "-9e307", "1,234", "1.234,5", "12 %"),
    *("", "  ", "NA", "x", "''", "0x1F", "٣", "½"),
)
DATES = (
    *("2024-02-30", "31/12/1999", "0000-00-00", "9999-12-31", "1", "now"),
    *("12:00", "2024-W99", "1e9", "Jan", "2024-01-01T25:00Z"),
)
NAMES = (b"", b"forecast", b"q10", b"1", b"2024-01-01", b"\xc3\xa9")


def deleted_row(rows: list[bytes], chance: random.Random) -> None:
    del rows[chance.randrange(len(rows))]


def repeated_row(rows: list[bytes], chance: random.Random) -> None:
    rows.insert(chance.randrange(len(rows)), chance.choice(rows))


def swapped_rows(rows: list[bytes], chance: random.Random) -> None:
    one, other = chance.randrange(len(rows)), chance.randrange(len(rows))
    rows[one], rows[other] = rows[other], rows[one]


def without_a_header(rows: list[bytes], chance: random.Random) -> None:
    del rows[0]


def cut_off(rows: list[bytes], chance: random.Random) -> None:
    del rows[chance.randrange(1, max(len(rows), 2)) :]
    rows[-1] = rows[-1][: chance.randrange(len(rows[-1]) + 1)]


def garbage(rows: list[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(rows))
    place = chance.randrange(len(rows[at]) + 1)
    rows[at] = rows[at][:place] + chance.choice(GARBAGE) + rows[at][place:]


def other_delimiter(rows: list[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(rows))
    rows[at] = rows[at].replace(b",", chance.choice((b";", b"\t", b"|", b",,", b"")))


def open_quote(rows: list[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(rows))
    rows[at] = rows[at].replace(b",", b',"', 1)


def _cell(rows: list[bytes], chance: random.Random, change: Callable[[list[bytes], int], None], first: int = 0) -> None:
    at = chance.randrange(1, len(rows)) if len(rows) > 1 else 0
    cells = rows[at].split(b",")
    change(cells, chance.randrange(first, len(cells)) if first < len(cells) else 0)
    rows[at] = b",".join(cells)


def deleted_cell(rows: list[bytes], chance: random.Random) -> None:
    _cell(rows, chance, lambda cells, at: cells.pop(at) and None)


def repeated_cell(rows: list[bytes], chance: random.Random) -> None:
    _cell(rows, chance, lambda cells, at: cells.insert(at, cells[at]))


def swapped_cells(rows: list[bytes], chance: random.Random) -> None:
    _cell(rows, chance, lambda cells, at: cells.insert(0, cells.pop(at)))


def strange_cell(rows: list[bytes], chance: random.Random) -> None:
    _cell(rows, chance, lambda cells, at: cells.__setitem__(at, chance.choice(CELLS).encode()))


def strange_date(rows: list[bytes], chance: random.Random) -> None:
    def change(cells: list[bytes], at: int) -> None:
        dates = [place for place, cell in enumerate(cells) if cell.count(b"-") == 2]
        cells[dates[0] if dates else 0] = chance.choice(DATES).encode()

    _cell(rows, chance, change)


def strange_column(rows: list[bytes], chance: random.Random) -> None:
    """Every cell of a column."""
    place, cell = chance.randrange(rows[0].count(b",") + 1), chance.choice((*CELLS, *DATES)).encode()
    for at in range(1, len(rows)):
        cells = rows[at].split(b",")
        cells[min(place, len(cells) - 1)] = cell
        rows[at] = b",".join(cells)


def strange_name(rows: list[bytes], chance: random.Random) -> None:
    cells = rows[0].split(b",")
    cells[chance.randrange(len(cells))] = chance.choice((*cells, *NAMES))
    rows[0] = b",".join(cells)


MUTATIONS = (
    *(deleted_row, repeated_row, swapped_rows, without_a_header, cut_off, garbage, other_delimiter, open_quote),
    *(deleted_cell, repeated_cell, swapped_cells, strange_cell, strange_date, strange_column, strange_name),
)


def damaged(seed: int) -> tuple[bytes, str]:
    """The first rows of a sample file with one to three faults, and what was done."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    sample = chance.choice(SAMPLES)
    with sample.open("rb") as file:
        rows = file.read(chance.choice((300, 2_000, 12_000))).splitlines()[:-1]
    done = [chance.choice(MUTATIONS) for _ in range(chance.randint(1, 3))]
    for mutation in done:
        if rows:
            mutation(rows, chance)
    return b"\n".join(rows) + b"\n", f"{sample.name}, seed {seed}: {', '.join(one.__name__ for one in done)}"


def ends_well(folder: Path, seed: int) -> None:
    data, what = damaged(seed)
    path = folder / "data.csv"
    path.write_bytes(data)
    done = CliRunner().invoke(app, ["check", str(path)])
    assert done.exit_code in (0, 2, 3), f"{what}: {done.stderr}"
    assert "Traceback" not in done.stderr, what
    lines = done.stderr.splitlines()
    if done.exit_code == 0:
        assert not any(line.startswith("error") for line in lines), what
    else:
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, f"{what}: {done.stderr}"
        assert errors[0].count(str(path)) <= 1, f"{what}: {errors[0]}"
        assert len(errors[0].replace(str(path), "")) > 20, errors[0]
        assert all(line.startswith(("error: ", "hint: ", "note: ", "warning: ")) for line in lines), done.stderr


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of a step or two instead of half a second."""
    monkeypatch.setattr(estimate, "TRIAL_SECONDS", 0.001)


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    for seed in range(20):
        ends_well(tmp_path, seed)


@pytest.mark.slow
def test_many_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    for seed in range(1_000, 3_000):
        ends_well(tmp_path, seed)
