"""`tune`, and `auto` in place of a value, as typed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from commands import ok, run, table_of
from forked import Server
from panels import wave

from stacklstm_cli.cli.progress import SearchProgress
from stacklstm_cli.errors import NothingLearnedError
from stacklstm_cli.locking import model_lock
from stacklstm_cli.model.checkpoint import load
from stacklstm_cli.model.header import card
from stacklstm_cli.training.fitting import Trainer

SMALL = ["--horizon", "4", "--hidden-size", "4", "--context-length", "12", "--seasonality", "6", "--epochs", "1"]


@pytest.fixture
def data(folder: Path) -> Path:
    """A file of one series of 160 rows."""
    rows = "".join(f"{value}\n" for value in wave(160, period=6))
    (folder / "data.csv").write_text("y\n" + rows)
    return Path("data.csv")


def tuned(*words: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ok("tune", "data.csv", *SMALL, "--format", "json", "-q", *words).stdout)
    return document


def test_tune_answers_in_the_envelope_and_writes_nothing(data: Path) -> None:
    found = tuned("--search", "layers=1..2")
    assert (found["schema"], found["command"], found["status"]) == (1, "tune", "ok")
    search = found["search"]
    assert [row["layers"] for row in search["candidates"]] == [1, 2]
    chosen = next(row for row in search["candidates"] if "chosen" in row["state"])
    assert (chosen["candidate"], chosen["score"]) == (search["chosen"], search["score"])
    assert found["model"]["layers"] == chosen["layers"]
    assert found["verdict"] == search["answer"]
    assert search["answer"].endswith(f"(n = {search['n']} origins).")
    assert set(search["command"].split()) >= {"stacklstm", "train", "data.csv", *SMALL, "--layers"}
    assert {"stacklstm", "naive", "seasonal_naive"} <= found["metrics"].keys()
    assert {path.name for path in Path().iterdir()} == {"data.csv"}


def test_the_command_it_prints_trains_what_it_chose(data: Path) -> None:
    """Typed as printed: the same holdout figures, which the search itself has not seen."""
    found = tuned("--search", "layers=1..2,cell", "--trials", "3")
    words = found["search"]["command"].split()
    assert words[:2] == ["stacklstm", "train"]
    trained = json.loads(ok(*words[1:], "--format", "json", "-q").stdout)
    assert trained["metrics"] == found["metrics"]
    assert trained["model"]["layers"] == found["model"]["layers"]


@pytest.mark.slow
def test_equal_commands_give_equal_answers(data: Path) -> None:
    def once() -> dict[str, Any]:
        search: dict[str, Any] = tuned("--search", "layers=1..2,learning-rate", "--trials", "4")["search"]
        return search | {"candidates": [row | {"seconds": 0} for row in search["candidates"]]}

    assert once() == once()


def test_train_auto_is_the_same_search_and_the_same_training(data: Path) -> None:
    """The weights are those of a training with the depth that was chosen; the file says how it was."""
    answer = tuned("--search", "layers", "--max-layers", "2")["search"]
    ok("train", data, *SMALL, "--layers", "auto", "--max-layers", "2", "-m", "auto.safetensors", "-q")
    chosen = next(row["layers"] for row in answer["candidates"] if row["candidate"] == answer["chosen"])
    ok("train", data, *SMALL, "--layers", str(chosen), "-m", "typed.safetensors", "-q")
    auto, typed = (safetensors.torch.load_file(f"{name}.safetensors") for name in ("auto", "typed"))
    assert auto.keys() == typed.keys()
    assert all(auto[name].equal(typed[name]) for name in auto)
    kept = load(Path("auto.safetensors"))
    assert kept.search["answer"] == answer["answer"]
    assert kept.options["layers"] == chosen
    assert load(Path("typed.safetensors")).search == {}
    assert "search" not in card(Path("typed.safetensors"))
    shown = ok("inspect", "auto.safetensors").stdout
    assert answer["answer"] in shown
    assert "standard_error" in shown


@pytest.mark.slow
def test_equal_runs_with_a_search_give_equal_files(data: Path) -> None:
    for name in ("a", "b"):
        ok("train", data, *SMALL, "--layers", "auto", "--max-layers", "2", "-m", f"{name}.safetensors", "-q")
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "layers",
        "cell",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("hidden-size", "context-length", "patch-length", "dropout")
        ),
    ],
)
def test_auto_stands_where_a_value_is_expected(name: str, data: Path) -> None:
    words = ["--horizon", "4", "--epochs", "1", "--trials", "2", "--max-layers", "2"] if name == "layers" else []
    words = words or ["--horizon", "4", "--epochs", "1", "--trials", "2"]
    document = json.loads(ok("train", data, f"--{name}", "auto", *words, "--format", "json", "-q").stdout)
    assert len(document["search"]["candidates"]) == 2
    assert all(row[name.replace("-", "_")] is not None for row in document["search"]["candidates"])


def test_auto_in_a_file_of_options(data: Path) -> None:
    Path("o.toml").write_text('layers = "auto"\nmax-layers = 2\nhidden-size = 4\nepochs = 1\nhorizon = 4\n')
    document = json.loads(ok("train", data, "--config", "o.toml", "--format", "json", "-q").stdout)
    assert [row["layers"] for row in document["search"]["candidates"]] == [1, 2]


def test_check_says_what_would_be_searched(data: Path) -> None:
    said = ok("check", data, *SMALL, "--layers", "auto").stdout
    assert "4 depths; compared at" in said
    short = run("check", data, *SMALL, "--layers", "auto", "--folds", "50")
    refused = run("train", data, *SMALL, "--layers", "auto", "--folds", "50")
    assert short.exit_code == refused.exit_code == 3
    assert refused.stderr.splitlines()[-2] == short.stderr.splitlines()[-2]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--search", "layrs"], 2, "Did you mean layers?"),
        (["--search", "horizon"], 2, "--horizon sets the task"),
        (["--search", "layers=3..2"], 2, "nothing from 3 to 2"),
        (["--search", "layers", "--layers", "2"], 2, "--layers has a value and is to be searched"),
        (["--search", "cell", "--max-layers", "3"], 2, "--max-layers would do nothing"),
        (["--layers", "auto", "--hidden-size", "4,4"], 2, "a number for each layer"),
        (["--folds", "9", "--horizon", "12"], 3, "needs at least"),
        (["--study", "study.txt"], 2, ".db"),
        (["--study", "data.csv"], 2, "would overwrite"),
        (["--study", "none/study.db"], 4, "no folder"),
        (["--plot", "plot.gif"], 2, ".png, .svg or .pdf"),
        (["--pick", "worst"], 2, "one-se, best"),
        (["--horizon", "auto"], 2, "--horizon is 'auto'; expected a whole number"),
        (["--max-time", "0"], 8, "before it had scored a single candidate"),
    ],
)
def test_what_cannot_work_is_one_message(words: list[str], status: int, said: str, data: Path) -> None:
    found = run("tune", data, *words)
    assert found.exit_code == status, found.stderr
    assert said in found.stderr.replace("\n", " ")
    assert found.stdout == ""
    assert {path.name for path in Path().iterdir()} == {"data.csv"}


def test_only_a_command_that_searches_takes_auto(data: Path) -> None:
    found = run("predict", data, "--horizon", "auto")
    assert found.exit_code == 2
    assert "expected a whole number" in found.stderr


def test_what_is_typed_is_not_searched(data: Path) -> None:
    found = tuned("--layers", "2", "--trials", "2")
    assert {row["layers"] for row in found["search"]["candidates"]} == {2}
    assert "cell" in found["search"]["candidates"][0]
    assert "hidden_size" not in found["search"]["candidates"][0]


def test_a_study_is_kept_and_goes_on(data: Path) -> None:
    one = tuned("--search", "layers", "--trials", "1", "--study", "study.log")
    two = tuned("--search", "layers", "--trials", "2", "--study", "study.log")
    assert [row["layers"] for row in two["search"]["candidates"]] == [1, 2]
    assert two["search"]["candidates"][0]["seconds"] == one["search"]["candidates"][0]["seconds"]
    assert {path.name for path in Path().iterdir()} == {"data.csv", "study.log"}
    Path("study.log").write_text("nothing\n")
    damaged = run("tune", data, *SMALL, "--search", "layers", "--study", "study.log")
    assert damaged.exit_code == 4
    assert "study.log" in damaged.stderr


def test_candidates_as_csv_and_as_a_table(data: Path) -> None:
    words = ["--search", "layers", "--max-layers", "2", "-q"]
    table = table_of(ok("tune", data, *SMALL, *words, "--format", "csv"))
    assert table["layers"].tolist() == [1, 2]
    assert table["difference"].min() == 0
    text = ok("tune", data, *SMALL, *words).stdout
    lines = text.splitlines()
    assert lines[0].split(": ")[0] in ("1 layer", "2 layers")
    assert "To train it: stacklstm train data.csv" in lines[-1]
    assert "On the holdout, which had no part in the choice, it scores" in text


@pytest.mark.parametrize("kind", ["svg", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("png", "pdf"))])
def test_the_plot_is_a_picture_and_equal_each_time(kind: str, data: Path) -> None:
    for name in ("a", "b"):
        ok("tune", data, *SMALL, "--search", "layers", "--max-layers", "2", "-q", "--plot", f"{name}.{kind}")
    content = Path(f"a.{kind}").read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert Path(f"b.{kind}").read_bytes() == content


def test_the_depths_in_the_terminal(data: Path) -> None:
    shown = ok("tune", data, *SMALL, "--search", "layers", "--max-layers", "2", "-q", "--show").stderr
    assert "Error against depth: data.csv: " in shown
    assert "MASE, cross-validated" in shown
    assert shown.count("chosen") == 1


def test_tune_can_train_and_save_its_choice(data: Path) -> None:
    found = tuned("--search", "layers", "--max-layers", "2", "-m", "best.safetensors")
    saved = load(Path("best.safetensors"))
    assert (found["model"]["path"], found["model"]["id"]) == ("best.safetensors", saved.id)
    assert saved.search["answer"] == found["search"]["answer"]
    assert saved.metrics == found["metrics"]


def test_a_choice_that_could_not_be_trained_is_no_success(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that was up before the first step of the training: the result of the search, but status 8."""

    def no_time(trainer: Trainer, options: Any) -> Any:
        raise NothingLearnedError("Training ended before a single optimiser step.")

    monkeypatch.setattr(Trainer, "run", no_time)
    words = ["--search", "layers", "--max-layers", "1", "-m", "best.safetensors", "-q"]
    found = run("tune", data, *SMALL, *words)
    assert found.exit_code == 8
    assert "To train it: stacklstm train data.csv" in found.stdout
    assert "No model was saved: training ended before" in found.stderr
    assert {path.name for path in Path().iterdir()} == {"data.csv"}


def test_a_model_that_another_run_holds_is_not_tuned_into(data: Path) -> None:
    with model_lock("best.safetensors"):
        assert run("tune", data, *SMALL, "--search", "layers", "-m", "best.safetensors").exit_code == 6


def test_without_a_holdout_nothing_is_judged(data: Path) -> None:
    found = tuned("--search", "layers", "--max-layers", "2", "--holdout", "0")
    assert (found["metrics"], found["search"]["holdout"]) == ({}, None)
    assert found["warnings"] == []


def test_neither_optuna_nor_matplotlib_is_imported_unasked(data: Path, server: Server) -> None:
    ended = server.run("train", "data.csv", *SMALL, "-qq")
    assert (ended.status, ended.stderr) == (0, "")
    assert "torch" in ended.modules
    assert not {"optuna", "matplotlib", "sqlalchemy"} & ended.modules


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_an_interrupt_reports_the_best_so_far(data: Path) -> None:
    """Status 130 and a result, once a candidate has been scored; and the study goes on afterwards."""
    words = ["tune", "data.csv", *SMALL[:-2], "--search", "layers", "--max-layers", "60", "--study", "study.log", "-q"]
    command = [sys.executable, "-m", "stacklstm_cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    study, end = Path("study.log"), time.monotonic() + 120
    while time.monotonic() < end and (not study.exists() or '"result"' not in study.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "To train it: stacklstm train data.csv" in stdout
    assert "not judged on the holdout" in stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_what_is_tried_and_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "150", "TERM": "xterm", "TTY_COMPATIBLE": "1"}.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    progress = SearchProgress(stream, None)
    with progress:
        progress.searched({"params": {"layers": 2}, "done": 1, "limit": 4, "best": (0.123456, 1)})
        progress.searched({"fit": 1, "fits": 2, "step": 10, "max_steps": 20})
    assert "1 of 4 tried  best 0.1235 (1 layer)  2 layers, fit 2 of 2" in stream.getvalue()


def test_off_a_terminal_a_search_draws_nothing() -> None:
    stream = io.StringIO()
    with SearchProgress(stream, 60.0) as progress:
        assert isinstance(progress, SearchProgress)
        progress.searched({"done": 0, "limit": None, "best": None})
    assert stream.getvalue() == ""
