"""Many nights in a row, as cron makes them: a file that grows, drifts, is revised, has gaps and a bad day."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import ok, run, table_of

from stacklstm_cli.model.checkpoint import load
from stacklstm_cli.model.header import read_document
from stacklstm_cli.model.lineage import MOST_ENTRIES

ZONE = "Europe/Berlin"
SMALL = ["--hidden-size", "4", "--layers", "1", "--epochs", "2", "--horizon", "24", "--context-length", "48"]
PROMOTED = ("better", "not_clearly_worse")


def local(first: str, rows: int) -> pd.DatetimeIndex:
    """Hours of the local clock, the one that spring leaves out missing."""
    return pd.date_range(first, periods=rows, freq="h", tz=ZONE)


def words(stamps: pd.DatetimeIndex) -> list[str]:
    return list(stamps.strftime("%Y-%m-%d %H:%M"))


@dataclass
class Source:
    """A file that somebody writes a day into each night."""

    path: Path
    first: str = "2024-02-20"
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    missing: set[int] = field(default_factory=set)

    def grow(self, rows: int, drift: float = 0.0, factor: float = 1.0) -> None:
        hours = np.arange(self.values.size, self.values.size + rows)
        wave = 50 + 10 * np.sin(hours * 2 * np.pi / 24) + self.random.normal(size=rows)
        wave += np.maximum(drift * (hours - 1200), 0)
        self.values = np.concatenate([self.values, (wave * factor).round(3)])

    def write(self) -> None:
        stamps = words(local(self.first, self.values.size))
        kept = [at for at in range(self.values.size) if at not in self.missing]
        frame = pd.DataFrame({"time": [stamps[at] for at in kept], "load": self.values[kept]})
        frame.to_csv(self.path, index=False)

    def next_day(self) -> list[str]:
        """The hours after the last row, as the local clock shows them."""
        return words(local(self.first, self.values.size + 24))[-24:]


def bad_day(source: Source) -> None:
    source.grow(24, factor=20)


def revised(source: Source) -> None:
    source.values[300:310] += 4
    source.grow(24)


def with_gap(source: Source) -> None:
    end = source.values.size
    source.missing |= set(range(end + 2, end + 9))
    source.grow(24)


def few_rows(source: Source) -> None:
    source.grow(3)


def nothing(source: Source) -> None:
    pass


def plain(source: Source) -> None:
    source.grow(24)


def drifting(source: Source) -> None:
    source.grow(24, drift=0.02)


def night(source: Source, event: Callable[[Source], None]) -> dict[str, object]:
    """One night and the morning after it: the file grows, the model is retrained, a forecast is made."""
    event(source)
    source.write()
    done = run("retrain", source.path, "-q", "--log", "runs.ndjson", "--keep", "1")
    line = json.loads(Path("runs.ndjson").read_text().splitlines()[-1])
    assert done.exit_code == line["exit_status"]
    assert done.exit_code in (0, 5), done.stderr
    assert done.stdout == "" if done.exit_code == 0 else "refused" in done.stdout
    forecast = table_of(ok("predict", source.path, "-q"))
    assert forecast["time"].tolist() == source.next_day()
    assert np.isfinite(forecast["forecast"]).all()
    return line


def begin(folder: Path) -> Source:
    source = Source(folder / "load.csv")
    source.grow(24 * 24)
    source.write()
    ok("train", source.path, "--tz", ZONE, "-q", *SMALL)
    return source


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.exists() else 0


def test_five_nights(folder: Path) -> None:
    """A plain one, one with revised rows, one without new rows, one with a gap, one with three rows."""
    source = begin(folder)
    lines = [night(source, event) for event in (plain, revised, nothing, with_gap, few_rows)]
    assert [line["rows_added"] for line in lines] == [24, 24, 0, 17, 3]
    assert [line["status"] for line in lines] == ["ok", "ok", "unchanged", "ok", "ok"]
    assert [line["revised_rows"] > 0 for line in lines] == [False, True, False, False, False]  # type: ignore[operator]
    assert lines[1]["warnings"] == ["history_revised"]
    assert len(read_document(Path("load.safetensors"))["lineage"]) == 4
    assert {path.name for path in folder.iterdir()} == {
        "load.csv", "load.safetensors", "load.safetensors.1", "runs.ndjson",
    }  # fmt: skip


@pytest.mark.slow
def test_sixty_nights(folder: Path) -> None:
    """Every decision is in the log and follows from it, sizes stay, forecasts are dated right through spring."""
    source = begin(folder)
    special = {4: few_rows, 9: revised, 14: with_gap, 20: bad_day, 25: nothing, 33: revised, 45: with_gap}
    sizes, memory = [], []
    for number in range(60):
        event = special.get(number, drifting if number >= 28 else plain)
        explained(night(source, event), event)
        sizes.append(Path("load.safetensors").stat().st_size)
        memory.append(resident())
    lines = [json.loads(text) for text in Path("runs.ndjson").read_text().splitlines()]
    assert len(lines) == 60
    lineage = read_document(Path("load.safetensors"))["lineage"]
    promoted = [line for line in lines if line["status"] == "ok"]
    assert len(lineage) == MOST_ENTRIES
    assert [entry["parent"] for entry in lineage] == [line["parent"] for line in promoted[-MOST_ENTRIES:]]
    assert [line["id"] for line in promoted[:-1]] == [line["parent"] for line in promoted[1:]]
    assert max(sizes[-5:]) - min(sizes[-5:]) < 1500
    assert memory[-1] - memory[10] < 100e6
    assert error_of_the_last(lines) < 1.5


def explained(line: dict[str, object], event: Callable[[Source], None]) -> None:
    """The decision is what the figures of the same line say."""
    if line["status"] == "unchanged":
        assert event is nothing
        return
    champion, challenger = (line[name]["mase"] for name in ("champion", "challenger"))  # type: ignore[index]
    if line["status"] == "ok":
        assert line["why"] in PROMOTED
        assert (challenger < champion) == (line["why"] == "better")
        assert line["p_value"] >= 0.05 or challenger <= 1.01 * champion  # type: ignore[operator]
    else:
        assert line["why"] == "clearly_worse"
        assert challenger > 1.01 * champion
        assert line["p_value"] < 0.05  # type: ignore[operator]
    assert event is not revised or line["revised_rows"]


def error_of_the_last(lines: list[dict[str, object]]) -> float:
    """The MASE of the newest challenger as a share of the seasonal naive forecast's."""
    return lines[-1]["challenger"]["mase"] / lines[-1]["seasonal_naive"]["mase"]  # type: ignore[index, no-any-return]


TWENTY = """
import os
import torch
from stacklstm_cli.cli import retraining
from stacklstm_cli.cli.app import main
torch.set_num_threads(1)
children = []
for number in range(20):
    children.append(os.fork())
    if not children[-1]:
        status = 1
        try:
            main(["retrain", "load.csv", "-q", "--log", "runs.ndjson", *(["--wait", "4m"] if number % 2 else [])])
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            os._exit(status)
print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
"""Forked from one process, so that torch is imported once."""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on POSIX systems only")
def test_twenty_retrains_at_once(folder: Path) -> None:
    """One works at a time; half of them wait their turn and find nothing new, the others end at once where the lock
    is held; the model is that of a single run."""
    source = begin(folder)
    before = Path("load.safetensors").read_bytes()
    plain(source)
    source.write()
    ok("retrain", source.path, "-q")
    expected = Path("load.safetensors").read_bytes()
    Path("load.safetensors").write_bytes(before)
    done = subprocess.run([sys.executable, "-c", TWENTY], capture_output=True, text=True, check=True, timeout=240)
    ends = [int(word) for word in done.stdout.split()]
    lines = [json.loads(text) for text in Path("runs.ndjson").read_text().splitlines()]
    assert sorted(line["exit_status"] for line in lines) == sorted(ends)
    assert set(ends) <= {0, 6}
    assert ends[1::2] == [0] * 10
    assert sorted(line["status"] for line in lines if line["exit_status"] == 0).count("ok") == 1
    assert Path("load.safetensors").read_bytes() == expected
    assert load(Path("load.safetensors")).id == next(line["id"] for line in lines if line["status"] == "ok")
    assert sorted(path.name for path in folder.iterdir()) == ["load.csv", "load.safetensors", "runs.ndjson"]
