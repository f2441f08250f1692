"""Mistakes that would cost a file, a model or a wrong forecast: each is refused in time."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import run, trained

from stacklstm_cli.cli.app import model_path

SMALL = ["--hidden-size", "4", "--epochs", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a series of 120 days and its model."""
    monkeypatch.chdir(tmp_path)
    days = pd.date_range("2024-01-01", periods=120).strftime("%Y-%m-%d")
    pd.DataFrame({"day": days, "sold": np.arange(120) % 7 + 1.5}).to_csv("d.csv", index=False)
    trained("d.csv", *SMALL)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["train", "d.csv", "-m", "d.csv"],
        ["train", "d.csv", "-o", "d.csv"],
        ["train", "d.csv", "-m", "./x", "-o", "x"],
        ["predict", "d.csv", "-o", "d.csv"],
        ["predict", "d.csv", "-o", "d.safetensors"],
        ["evaluate", "d.csv", "-o", "d.safetensors"],
        ["inspect", "d.safetensors", "-o", "d.safetensors"],
    ],
)
def test_nothing_that_is_read_is_overwritten(folder: Path, words: list[str]) -> None:
    """DATA and the model stay as they were; the mistake is a usage error."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = run(*words)
    assert (done.exit_code, "would overwrite" in done.stderr) == (2, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_missing_data_file_is_said_before_a_missing_model(folder: Path) -> None:
    """The likely mistake is the path of DATA."""
    done = run("predict", "nothing.csv")
    assert (done.exit_code, "nothing.csv" in done.stderr) == (3, True)


def test_a_compressed_name_for_a_plain_result(folder: Path) -> None:
    """A file that ends in .gz and is not compressed could not be read back."""
    assert run("predict", "d.csv", "-o", "f.csv.gz").exit_code == 2
    assert not Path("f.csv.gz").exists()


@pytest.mark.parametrize("name", ["series", "forecast", "q10"])
def test_a_column_that_the_forecast_needs_for_itself(folder: Path, name: str) -> None:
    """Two columns of one name in the forecast: refused before training."""
    frame = pd.read_csv("d.csv").rename(columns={"day": name})
    frame.assign(other=frame["sold"] + 1).to_csv("w.csv", index=False)
    done = run("train", "w.csv", *SMALL)
    assert (done.exit_code, repr(name) in done.stderr) == (3, True)


def test_a_comma_that_may_part_thousands(folder: Path) -> None:
    """1,112 is not read as 1.112 without a sign that it is; 0,112 is such a sign."""
    rows = [f"{day};1,{112 + place}" for place, day in enumerate(pd.read_csv("d.csv")["day"])]
    Path("c.csv").write_text("day;v\n" + "\n".join(rows) + "\n")
    done = run("train", "c.csv", *SMALL)
    assert (done.exit_code, "1,112" in done.stderr) == (3, True)
    Path("c.csv").write_text("day;v\n" + "\n".join([*rows[:-1], rows[-1].split(";")[0] + ";0,5"]) + "\n")
    assert run("train", "c.csv", *SMALL).exit_code == 0


def test_numbers_too_large_to_square(folder: Path) -> None:
    """One message instead of a failed eigendecomposition."""
    frame = pd.read_csv("d.csv")
    frame.assign(sold=frame["sold"] * 1e200).to_csv("h.csv", index=False)
    done = run("train", "h.csv", *SMALL)
    assert (done.exit_code, "too large" in done.stderr or "1e+100" in done.stderr) == (3, True)


@pytest.mark.parametrize(("holdout", "said"), [("3", "shorter"), ("119", "longest has 120")])
def test_a_holdout_that_cannot_be(folder: Path, holdout: str, said: str) -> None:
    """Too short for a forecast, or so long that nothing is left to learn from."""
    done = run("train", "d.csv", "--holdout", holdout)
    assert (done.exit_code, said in done.stderr) == (2, True)


def test_verbose_says_more(folder: Path) -> None:
    """-v tells how the fits went."""
    assert "windows/s" in run("train", "d.csv", "-v", *SMALL).stderr
    assert "windows/s" not in run("train", "d.csv", *SMALL).stderr


def test_another_file_is_not_called_the_training_file(folder: Path) -> None:
    """The holdout's rows of changed data are scored, with a note."""
    frame = pd.read_csv("d.csv")
    frame.assign(sold=frame["sold"] * 3).to_csv("tripled.csv", index=False)
    assert "not the one" in run("evaluate", "tripled.csv", "-m", "d.safetensors").stderr
    assert "not the one" not in run("evaluate", "d.csv").stderr


def test_model_path_drops_a_compression_suffix_and_one_more() -> None:
    """data.csv.gz -> data.safetensors; a dot in the name stays."""
    paths = {source: str(model_path(None, [source])) for source in ("a/data.csv.gz", "x.y.csv", "plain")}
    assert paths == {
        "a/data.csv.gz": "data.safetensors",
        "x.y.csv": "x.y.safetensors",
        "plain": "plain.safetensors",
    }


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no hang-up on Windows")
def test_a_hang_up_that_was_ignored_stays_ignored(folder: Path) -> None:
    """As `nohup` asks for."""
    import subprocess

    code = (
        "import signal, threading, os, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from stacklstm_cli.training.runtime import Clock, signals_stop\n"
        "clock = Clock()\n"
        "with signals_stop(clock):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    time.sleep(0.1)\n"
        "print(repr(clock.stopped()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "''\n"
