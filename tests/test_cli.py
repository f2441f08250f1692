"""The commands as typed: what they write where, and how they end."""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import ok, run, table_of
from forked import Server

SAMPLES = Path(__file__).parent.parent / "sample_data"
SMALL = ["--hidden-size", "4", "--epochs", "2"]


def wave(rows: int, seed: int = 0) -> np.ndarray:
    """A daily wave with noise."""
    return 50 + 10 * np.sin(np.arange(rows) * 2 * np.pi / 24) + np.random.default_rng(seed).normal(size=rows)


def hourly(rows: int) -> list[str]:
    return pd.date_range("2024-01-01", periods=rows, freq="h").strftime("%Y-%m-%d %H:%M").tolist()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one series of 400 hours and a model of it."""
    folder = tmp_path_factory.mktemp("single")
    pd.DataFrame({"time": hourly(400), "load": wave(400)}).to_csv(folder / "data.csv", index=False)
    ok("train", folder / "data.csv", "-m", folder / "data.safetensors", "--layers", "2", *SMALL)
    return folder


@pytest.fixture
def single(home: Path, folder: Path) -> Path:
    """That series with its model beside it, as `train data.csv` leaves it."""
    shutil.copy(home / "data.safetensors", folder)
    return Path(shutil.copy(home / "data.csv", folder))


def test_three_commands_with_nothing_else_typed(single: Path) -> None:
    """train, predict, evaluate find the model by the data's name and leave nothing else behind."""
    trained = Path("data.safetensors").read_bytes()
    Path("data.safetensors").unlink()
    ok("train", "data.csv", "--layers", "2", *SMALL)
    assert Path("data.safetensors").read_bytes() == trained
    forecast = table_of(ok("predict", "data.csv"))
    scores = table_of(ok("evaluate", "data.csv", "--format", "csv"))
    assert list(forecast) == ["time", "forecast", "q10", "q50", "q90"]
    assert forecast["time"].tolist() == hourly(424)[400:]
    assert (forecast["forecast"] == forecast["q50"]).all()
    assert ((forecast["q10"] <= forecast["q50"]) & (forecast["q50"] <= forecast["q90"])).all()
    assert scores["model"].tolist() == ["stacklstm", "naive", "seasonal_naive", "drift", "seasonal_average"]
    assert sorted(path.name for path in Path().iterdir()) == ["data.csv", "data.safetensors"]


def test_wide_file(folder: Path) -> None:
    """Each column is a series; `--wide` mirrors the input."""
    pd.DataFrame({"ts": hourly(300), "b": wave(300), "a": wave(300, 1)}).to_csv("w.csv", index=False)
    ok("train", "w.csv", *SMALL)
    forecast = table_of(ok("predict", "w.csv", "--horizon", "3"))
    assert list(forecast) == ["series", "ts", "forecast", "q10", "q50", "q90"]
    assert forecast["series"].tolist() == ["b"] * 3 + ["a"] * 3
    mirrored = table_of(ok("predict", "w.csv", "--wide", "--horizon", "3"))
    assert list(mirrored) == ["ts", "b", "a"]
    np.testing.assert_array_equal(mirrored["a"], forecast["forecast"][3:])
    assert run("predict", "w.csv", "--wide", "--quantiles", "0.1").exit_code == 2


def test_long_file_with_unequal_ends(folder: Path) -> None:
    """Series come out in the order of the input, each from its own last row on; ids keep their zeros."""
    pieces = [
        pd.DataFrame(
            {"store": name, "day": pd.date_range("2024-01-01", periods=rows).strftime("%d.%m.%Y"), "sold": wave(rows)}
        )
        for name, rows in (("007", 120), ("001", 90))
    ]
    pd.concat(pieces).to_csv("l.csv", index=False)
    ok("train", "l.csv", *SMALL)
    forecast = pd.read_csv(io.StringIO(ok("predict", "l.csv", "--horizon", "2").stdout), dtype=str)
    assert list(forecast) == ["store", "day", "forecast", "q10", "q50", "q90"]
    assert forecast["store"].tolist() == ["007", "007", "001", "001"]
    assert forecast["day"].tolist() == ["30.04.2024", "01.05.2024", "31.03.2024", "01.04.2024"]


def test_series_the_model_has_not_seen(folder: Path) -> None:
    """They are forecast and scored, with a note."""
    frame = pd.DataFrame({"id": "a", "ds": hourly(300), "y": wave(300)})
    frame.to_csv("a.csv", index=False)
    ok("train", "a.csv", "--id", "id", *SMALL)
    frame.assign(id="b").to_csv("b.csv", index=False)
    done = ok("predict", "b.csv", "-m", "a.safetensors")
    assert "1 of 1 series are new to the model: b" in done.stderr
    assert len(table_of(done)) == 24
    assert ok("evaluate", "b.csv", "-m", "a.safetensors").exit_code == 0


def test_rows_without_time(folder: Path) -> None:
    """Rows are steps 0, 1, 2 … and the output says so."""
    Path("v.csv").write_text("v\n" + "\n".join(f"{value:.3f}" for value in wave(120)) + "\n")
    ok("train", "v.csv", *SMALL)
    forecast = table_of(ok("predict", "v.csv"))
    assert forecast["step"].iloc[0] == 120


def test_json_envelope(single: Path) -> None:
    """One document on standard output, with what the contract names."""
    trained = json.loads(ok("train", "data.csv", "--format", "json", "--per-series", *SMALL).stdout)
    scored = json.loads(ok("evaluate", "data.csv", "--format", "json", "--per-series").stdout)
    for document in (trained, scored):
        assert document["schema"] == 1
        assert document["status"] == "ok"
        assert {"path", "id", "layers"} <= set(document["model"])
        assert {"rows", "series", "first", "last", "step", "gaps", "sha256"} <= set(document["data"])
        assert {"stacklstm", "seasonal_naive", "naive", "drift"} <= set(document["metrics"])
        assert {"mae", "rmse", "smape", "mase", "rmsse", "wql", "coverage_80", "width_80"} <= set(
            document["metrics"]["naive"]
        )
        assert document["per_series"][0]["metrics"]["stacklstm"]["mae"] == pytest.approx(
            document["metrics"]["stacklstm"]["mae"]
        )
        assert document["seconds"] > 0
    assert {
        "windows_per_second",
        "windows",
        "seconds",
        "seconds_before_training",
        "first_epoch_seconds",
        "epochs",
        "processes",
    } <= set(trained["training"])
    assert {"origins", "step", "horizon", "first_cutoff", "last_cutoff"} <= set(scored["backtest"])
    assert trained["metrics"] == scored["metrics"]


def test_holdout_metrics_equal_those_of_the_written_forecasts(single: Path) -> None:
    """The table's MAE is that of `predict` on the file cut at each cutoff, with weights that stopped there."""
    ok("train", "data.csv", "-m", "judged.safetensors", "--no-refit", *SMALL)
    document = json.loads(ok("evaluate", "data.csv", "-m", "judged.safetensors", "--format", "json").stdout)
    data, errors = pd.read_csv("data.csv"), []
    for cutoff in range(400 - 24 * document["backtest"]["origins"], 400, 24):
        data.iloc[:cutoff].to_csv("cut.csv", index=False)
        forecast = table_of(ok("predict", "cut.csv", "-m", "judged.safetensors"))
        errors.append(np.abs(forecast["forecast"] - data["load"].iloc[cutoff : cutoff + 24].to_numpy()).mean())
    assert document["metrics"]["stacklstm"]["mae"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_new_rows_are_scored_by_the_final_weights(single: Path) -> None:
    """A file that has grown is scored after the last training row only."""
    pd.DataFrame({"time": hourly(460), "load": wave(460)}).to_csv("grown.csv", index=False)
    done = ok("evaluate", "grown.csv", "-m", "data.safetensors", "--format", "json")
    backtest = json.loads(done.stdout)["backtest"]
    assert (backtest["rows"], backtest["origins"]) == ("new rows", 2)
    assert backtest["last_cutoff"] == hourly(460)[460 - 25]
    assert "final weights" in done.stderr


def test_what_was_scored_in_sample_is_marked_where_it_is_read(single: Path) -> None:
    """The table by itself says so, without the notes; the same rows unseen are not marked."""
    seen = ok("evaluate", "data.csv", "--in-sample", "-qq")
    assert (seen.stdout.startswith("IN SAMPLE: stacklstm "), seen.stderr) == (True, "")
    found = json.loads(ok("evaluate", "data.csv", "--in-sample", "--format", "json").stdout)
    assert (found["backtest"]["rows"], found["verdict"][:11]) == ("in sample", "IN SAMPLE: ")
    assert ok("evaluate", "data.csv", "-q").stdout.startswith("stacklstm ")


def test_range_of_evaluation(single: Path) -> None:
    """--start is the first row forecast, --end the last, --step the rows between origins."""
    pd.DataFrame({"time": hourly(500), "load": wave(500)}).to_csv("grown.csv", index=False)
    start, end = hourly(500)[410], hourly(500)[459]
    words = ["evaluate", "grown.csv", "-m", "data.safetensors", "--format", "json"]
    backtest = json.loads(ok(*words, "--start", start, "--end", end, "--step", "2").stdout)["backtest"]
    assert (backtest["first_cutoff"], backtest["last_cutoff"], backtest["origins"]) == (
        hourly(500)[409],
        hourly(500)[435],
        14,
    )
    assert json.loads(ok(*words, "--origins", "1").stdout)["backtest"]["origins"] == 1
    inside = run("evaluate", "data.csv", "--start", hourly(400)[390])
    assert inside.exit_code == 2
    assert "--in-sample" in inside.stderr
    assert run(*words, "--start", "2030-01-01").exit_code == 2
    assert run(*words, "--start", "yesterday").exit_code == 2


@pytest.mark.parametrize("form", ["table", "csv", "json", "ndjson", "markdown", "parquet"])
@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_every_format_of_every_command(single: Path, command: str, form: str) -> None:
    """Each is written to --output, and reads back."""
    small = ["--hidden-size", "4", "--epochs", "1", "--no-refit"]
    ok(command, "data.csv", "--format", form, "-o", "out", *(small if command == "train" else []))
    if form == "parquet":
        assert len(pd.read_parquet("out")) > 1
    elif form == "json":
        assert json.loads(Path("out").read_text())["command"] == command
    elif form == "csv":
        assert len(pd.read_csv("out")) > 1
    else:
        assert Path("out").read_text().strip()


def test_inspect(single: Path) -> None:
    """The card names the network, the data and the errors."""
    card = json.loads(ok("inspect", "data.safetensors", "--format", "json").stdout)
    assert [(layer["cell"], layer["output"]) for layer in card["stack"]] == [("lstm", 4), ("lstm", 4)]
    assert card["network"]["layers"] == 2
    assert card["data"]["last"] == hourly(400)[-1]
    assert card["metrics"]["stacklstm"]["mae"] > 0
    assert "layer 2" in ok("inspect", "data.safetensors").stdout


def test_quantiles_and_intervals_are_picked_by_interpolation(single: Path) -> None:
    """Between learned quantiles a line; outside them a refusal."""
    learned = table_of(ok("predict", "data.csv"))
    asked = table_of(ok("predict", "data.csv", "--quantiles", "0.3"))
    np.testing.assert_allclose(asked["q30"], (learned["q10"] + learned["q50"]) / 2, rtol=1e-6)
    assert list(table_of(ok("predict", "data.csv", "--interval", "80")))[2:] == ["q10", "q90"]
    refused = run("predict", "data.csv", "--interval", "95")
    assert (refused.exit_code, "0.1 to 0.9" in refused.stderr) == (2, True)
    assert "at most 24" in run("predict", "data.csv", "--horizon", "25").stderr


def test_same_command_same_bytes(single: Path) -> None:
    """Equal runs give equal files, wherever they lie and whatever they are called; another seed does not."""
    first = Path("data.safetensors").read_bytes()
    Path("elsewhere").mkdir()
    Path("elsewhere/other.csv.gz").write_bytes(__import__("gzip").compress(single.read_bytes()))
    ok("train", "elsewhere/other.csv.gz", *SMALL, "--layers", "2")
    assert Path("other.safetensors").read_bytes() == first
    ok("train", "data.csv", *SMALL, "--layers", "2", "--seed", "1")
    assert Path("data.safetensors").read_bytes() != first


def test_standard_input(single: Path) -> None:
    """`-` reads CSV from standard input, and then the model must be named."""
    assert run("predict", "-", stdin=single.read_bytes()).exit_code == 2
    piped = ok("predict", "-", "-m", "data.safetensors", stdin=single.read_bytes())
    assert piped.stdout == ok("predict", "data.csv").stdout


def test_config_file(single: Path) -> None:
    """Options from TOML; what is typed wins."""
    Path("c.toml").write_text('layers = 3\nhidden-size = 4\nepochs = 1\nmax_time = "5m"\n')
    document = json.loads(ok("train", "data.csv", "--config", "c.toml", "--layers", "1", "--format", "json").stdout)
    assert (document["model"]["layers"], document["model"]["stack"]["hidden_sizes"]) == (1, [4])


def mistakes() -> dict[str, tuple[list[str], int, list[str]]]:
    """What is typed, how it ends, what the message must say."""
    return {
        "no such file": (["train", "nothing.csv"], 3, ["nothing.csv"]),
        "no such column": (["train", "data.csv", "--target", "laod"], 2, ["laod", "load"]),
        "text in the target": (["train", "text.csv"], 3, ["text.csv", "line 4", "many"]),
        "no usable column": (["train", "words.csv"], 3, ["words.csv"]),
        "too few rows": (["train", "few.csv"], 3, ["3"]),
        "empty file": (["train", "empty.csv"], 3, ["empty.csv"]),
        "repeated time": (["train", "twice.csv"], 3, ["twice.csv", "line"]),
        "no model": (["predict", "data.csv", "-m", "none.safetensors"], 4, ["none.safetensors"]),
        "another data set": (["predict", "other.csv", "-m", "data.safetensors"], 4, ["load"]),
        "another step": (["predict", "daily.csv", "-m", "data.safetensors"], 4, ["1 day", "1 hour"]),
        "damaged model": (["predict", "data.csv", "-m", "damaged.safetensors"], 4, ["damaged.safetensors"]),
        "zero layers": (["train", "data.csv", "--layers", "0"], 2, ["--layers", "1 to 64"]),
        "layers in words": (["train", "data.csv", "--layers", "two"], 2, ["--layers"]),
        "no such option": (["train", "data.csv", "--layer", "2"], 2, ["--layer"]),
        "patch too long": (["train", "data.csv", "--patch-length", "50", "--context-length", "24"], 2, ["50", "24"]),
        "no folder": (["train", "data.csv", "-m", "no/where.safetensors"], 4, ["no/where.safetensors"]),
        "no device": (["train", "data.csv", "--device", "cuda:7"], 2, ["cuda:7"]),
        "no threads": (["train", "data.csv", "--threads", "0"], 2, ["--threads", "1 to 1024"]),
        "no time": (["train", "data.csv", "--max-time", "0"], 8, ["--max-time"]),
    }


@pytest.mark.parametrize("mistake", mistakes())
def test_mistakes_end_with_one_message(single: Path, mistake: str) -> None:
    """One message that says what and where, the right exit code, nothing on stdout, the old model intact."""
    before = Path("data.safetensors").read_bytes()
    Path("text.csv").write_text("t,y\n2024-01-01,1\n2024-01-02,2\n2024-01-03,many\n2024-01-04,4\n")
    Path("words.csv").write_text("a,b\nx,y\nz,w\n")
    Path("few.csv").write_text("t,y\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n")
    Path("empty.csv").write_text("")
    Path("twice.csv").write_text("t,y\n2024-01-01,1\n2024-01-02,2\n2024-01-02,3\n2024-01-03,4\n")
    pd.DataFrame({"time": hourly(400), "wind": wave(400)}).to_csv("other.csv", index=False)
    days = pd.date_range("2024-01-01", periods=90).strftime("%Y-%m-%d")
    pd.DataFrame({"time": days, "load": wave(90)}).to_csv("daily.csv", index=False)
    Path("damaged.safetensors").write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    words, status, said = mistakes()[mistake]
    done = run(*words)
    assert done.exit_code == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    for word in said:
        assert word in done.stderr
    assert Path("data.safetensors").read_bytes() == before
    machine = run(*words, "--format", "json")
    assert json.loads(machine.stderr.strip().splitlines()[-1])["error"]["message"]


def test_streams_of_a_real_process(single: Path, server: Server) -> None:
    """stdout is the result alone; -q silences the notes; a closed pipe ends quietly."""
    loud, quiet = server.run("predict", "data.csv"), server.run("predict", "data.csv", "-q")
    assert loud.stdout == quiet.stdout
    assert (len(loud.stdout.splitlines()), "note:" in loud.stderr, quiet.stderr) == (25, True, "")
    shell = f"{sys.executable} -m stacklstm_cli predict data.csv -q | head -1"
    piped = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, timeout=60)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, "time,forecast,q10,q50,q90\n", "")


def test_progress_bar_on_a_terminal(single: Path, server: Server) -> None:
    """A bar with phase, epoch, loss and speed where standard error is a terminal; the cursor comes back."""
    master, slave = os.openpty()
    words = ("train", "data.csv", "--epochs", "30", "--hidden-size", "4")
    server.start(*words, stderr=os.ttyname(slave), TERM="xterm", COLUMNS="120")
    seen, ready = b"", [master]
    while ready == [master]:
        seen += os.read(master, 4096)
        ready = select.select([master], [], [], 0)[0] or select.select([master, server.process.stdout], [], [], 60)[0]
    assert server.end().status == 0, seen.decode()
    for end in (slave, master):
        os.close(end)
    for word in (b"choosing", b"refitting", b"epoch", b"loss", b"windows/s", b"validation", b"\x1b[?25h"):
        assert word in seen


@pytest.mark.parametrize(
    ("number", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_saves_the_best_model_so_far(
    folder: Path, server: Server, number: signal.Signals, status: int
) -> None:
    """The model is there, usable, and says that it was not judged."""
    pd.DataFrame({"time": hourly(1000), "load": wave(1000)}).to_csv("data.csv", index=False)
    words = [
        "train",
        "data.csv",
        "--epochs",
        "100000",
        "--patience",
        "100000",
        "--hidden-size",
        "8",
        "--format",
        "json",
    ]
    ended = server.run(*words, kill_where="data.safetensors.resume", number=number)
    assert ended.status == status, ended.stderr
    assert json.loads(ended.stdout)["status"] == "stopped"
    # The resume state stays: the same command goes on from it.
    assert {path.name for path in Path().iterdir()} == {"data.csv", "data.safetensors", "data.safetensors.resume"}
    assert "never judged" in ok("predict", "data.csv").stderr


def test_max_time_is_kept_and_the_refit_shortened(folder: Path) -> None:
    """The limit counts from the first step; a model is saved all the same."""
    pd.DataFrame({"time": hourly(1000), "load": wave(1000)}).to_csv("data.csv", index=False)
    words = ["--epochs", "100000", "--patience", "100000", "--hidden-size", "8", "--max-time", "1s", "--format", "json"]
    document = json.loads(ok("train", "data.csv", *words).stdout)
    assert document["status"] == "stopped"
    assert document["training"]["seconds"] < 4
    assert {warning["code"] for warning in document["warnings"]} & {"refit_shortened", "time_up"}
    assert document["metrics"]["stacklstm"]["mae"] > 0
