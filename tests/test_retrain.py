"""`retrain` and `promote` as typed: what they print, write and leave alone, and how they end."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
import typer
from commands import ok, run
from typer.testing import CliRunner

from stacklstm_cli.cli.messages import ErrorGroup
from stacklstm_cli.cli.options import Overrides, takes
from stacklstm_cli.cli.retraining import append
from stacklstm_cli.config import ModelConfig, TrainingConfig
from stacklstm_cli.errors import ModelError
from stacklstm_cli.locking import model_lock
from stacklstm_cli.model.checkpoint import load
from stacklstm_cli.model.header import read_document

SMALL = ["--hidden-size", "4", "--layers", "1", "--epochs", "1", "--horizon", "12"]


def table(rows: int) -> pd.DataFrame:
    load = 50 + 10 * np.sin(np.arange(rows) * 2 * np.pi / 24) + np.random.default_rng(0).normal(size=2000)[:rows]
    times = pd.date_range("2024-01-01", periods=rows, freq="h").strftime("%Y-%m-%d %H:%M")
    return pd.DataFrame({"time": times, "load": load.round(3)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of the first 240 rows."""
    folder = tmp_path_factory.mktemp("trained")
    table(240).to_csv(folder / "d.csv", index=False)
    ok("train", folder / "d.csv", "-q", "-m", folder / "d.safetensors", *SMALL)
    return (folder / "d.safetensors").read_bytes()


@pytest.fixture
def model(folder: Path, trained: bytes) -> Path:
    """That model, in the working directory beside a file with twelve rows more."""
    table(252).to_csv("d.csv", index=False)
    Path("d.safetensors").write_bytes(trained)
    return Path("d.safetensors")


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


class TestPromoted:
    def test_one_line(self, model: Path, trained: bytes) -> None:
        """What happened to which model, the rows, both errors, the best baseline, why; notes apart."""
        before = load(model).id
        done = ok("retrain", "d.csv")
        assert done.stdout.count("\n") == 1
        assert f"({before} to {load(model).id}): +12 rows up to 2024-01-11 11:00; MASE " in done.stdout
        assert "seasonal_naive" in done.stdout or "seasonal_average" in done.stdout
        assert model.read_bytes() != trained
        assert names() == ["d.csv", "d.safetensors"]

    def test_quiet_is_silent(self, model: Path) -> None:
        done = ok("retrain", "d.csv", "-q")
        assert (done.stdout, done.stderr) == ("", "")
        done = ok("retrain", "d.csv", "-q")
        assert (done.stdout, done.stderr) == ("", "")

    def test_json(self, model: Path) -> None:
        """The envelope of all commands, with both models and the baselines; also with -q, as it was asked for."""
        before = load(model).id
        found = json.loads(ok("retrain", "d.csv", "-q", "--format", "json").stdout)
        assert (found["schema"], found["command"], found["status"]) == (1, "retrain", "ok")
        assert found["model"]["id"] == load(model).id
        assert found["parent"] == before
        assert {"rows", "series", "first", "last", "step", "gaps", "sha256"} <= found["data"].keys()
        assert {"champion", "challenger", "naive", "seasonal_naive"} <= found["metrics"].keys()
        assert {"mae", "rmse", "mase", "wql", "coverage_80"} <= found["metrics"]["challenger"].keys()
        assert found["decision"]["promoted"] is True
        assert found["decision"]["level"] == 0.05
        assert found["changes"]["rows"] == 12
        assert found["warnings"] == []
        assert found["seconds"] > 0

    @pytest.mark.slow
    def test_equal_runs_give_equal_files(self, model: Path, trained: bytes) -> None:
        """In two processes, with other hash seeds, another name and a log."""
        results = []
        for seed in ("1", "2"):
            Path(f"m{seed}").write_bytes(trained)
            command = [sys.executable, "-m", "stacklstm_cli", "retrain", "d.csv", "-q", "-m", f"m{seed}"]
            subprocess.run(
                [*command, "--log", f"log{seed}"], check=True, timeout=120, env={**os.environ, "PYTHONHASHSEED": seed}
            )
            results.append(Path(f"m{seed}").read_bytes())
        assert results[0] == results[1] != trained

    def test_the_table_of_inspect_and_the_way_back(self, model: Path, trained: bytes) -> None:
        """--keep 1 keeps the one before; promote --previous goes back and forth."""
        ok("retrain", "d.csv", "-q", "--keep", "1")
        new = model.read_bytes()
        assert Path("d.safetensors.1").read_bytes() == trained
        assert "+12" in ok("retrain", "d.csv", "-q", "--format", "json", "-m", "d.safetensors.1").stdout
        Path("d.safetensors.1").write_bytes(trained)
        shown = ok("inspect", model, "--history").stdout
        assert "2024-01-11 11:00" in shown
        assert "promoted" in shown
        done = ok("promote", model, "--previous")
        assert "is d.safetensors.1 now" in done.stderr
        assert (model.read_bytes(), Path("d.safetensors.1").read_bytes()) == (trained, new)
        done = ok("promote", model, "--previous", "-q")
        assert (done.stdout, done.stderr) == ("", "")
        assert (model.read_bytes(), Path("d.safetensors.1").read_bytes()) == (new, trained)

    def test_new_and_vanished_series(self, folder: Path) -> None:
        one = table(200).assign(id="a")
        frame = pd.concat([one, table(200).assign(id="b")])
        frame.to_csv("l.csv", index=False)
        ok("train", "l.csv", "-q", *SMALL)
        pd.concat([table(212).assign(id="a"), table(90).assign(id="c")]).to_csv("l.csv", index=False)
        done = ok("retrain", "l.csv")
        assert "1 of 2 series are new to the model: c" in done.stderr
        assert "1 of the model's 2 series are not in the data" in done.stderr
        assert "+102 rows" in done.stdout
        assert load(Path("l.safetensors")).keys == (("a",), ("c",))

    def test_new_categories(self, folder: Path) -> None:
        frame = table(260).assign(kind=["ab"[row // 12 % 2] for row in range(260)])
        frame[:240].to_csv("c.csv", index=False)
        ok("train", "c.csv", "-q", "--target", "load", "--past", "kind", *SMALL)
        frame.loc[250:, "kind"] = "z"
        frame.to_csv("c.csv", index=False)
        done = ok("retrain", "c.csv", "--gate", "always")
        assert "'kind' has texts that the model did not know, learned now: z" in done.stderr
        assert load(Path("c.safetensors")).spec.inputs.covariates[0].categories == ("a", "b", "z")


class TestUnchanged:
    def test_nothing_new(self, model: Path, trained: bytes) -> None:
        table(240).to_csv("d.csv", index=False)
        done = ok("retrain", "d.csv")
        assert "nothing new up to 2024-01-10 23:00" in done.stdout
        done = run("retrain", "d.csv", "-q", "--fail-if-unchanged")
        assert done.exit_code == 7
        assert "nothing new" in done.stdout
        found = json.loads(ok("retrain", "d.csv", "--format", "json").stdout)
        assert (found["status"], found["decision"], found["metrics"]) == ("unchanged", None, {})
        assert model.read_bytes() == trained

    def test_old_rows_that_are_gone_are_nothing_new(self, model: Path, trained: bytes) -> None:
        """As in a file that keeps the last so many rows."""
        table(240)[30:].to_csv("d.csv", index=False)
        done = ok("retrain", "d.csv")
        assert "30 of the oldest rows" in done.stderr
        assert "nothing new" in done.stdout
        assert model.read_bytes() == trained

    def test_revised_rows_are_something_new(self, model: Path, trained: bytes) -> None:
        frame = table(240)
        frame.loc[100:103, "load"] += 1
        frame.to_csv("d.csv", index=False)
        done = ok("retrain", "d.csv", "-q")
        assert done.stdout == ""
        assert "up to 16 rows, from 2024-01-04 16:00 on (1 of 1 series: load)" in done.stderr
        assert model.read_bytes() != trained
        again = ok("retrain", "d.csv", "-q")
        assert again.stderr == ""

    def test_removed_rows(self, model: Path) -> None:
        table(235).to_csv("d.csv", index=False)
        found = json.loads(ok("retrain", "d.csv", "-qq", "--format", "json", "--gate", "always").stdout)
        assert [warning["code"] for warning in found["warnings"]] == ["rows_removed"]


class TestRefused:
    def test_the_model_is_untouched(self, model: Path, trained: bytes) -> None:
        """Not a byte, not its time stamp, nothing beside it; one line even with -q."""
        before = model.stat().st_mtime_ns
        words = ["--from-scratch", "--learning-rate", "1", "--grad-clip", "0", "--keep", "2"]
        done = run("retrain", "d.csv", "-q", *words)
        assert done.exit_code == 5
        assert done.stdout.count("\n") == 1
        assert "the new model was refused" in done.stdout
        assert (model.read_bytes(), model.stat().st_mtime_ns) == (trained, before)
        assert names() == ["d.csv", "d.safetensors"]
        found = json.loads(run("retrain", "d.csv", "-q", "--format", "json", *words).stdout)
        assert (found["status"], found["decision"]["why"]) == ("refused", "clearly_worse")
        assert found["model"]["id"] == load(model).id == found["parent"]

    def test_options_that_need_a_new_network(self, model: Path, trained: bytes) -> None:
        done = run("retrain", "d.csv", "--layers", "3")
        assert done.exit_code == 2
        assert "--layers" in done.stderr
        assert "--from-scratch" in done.stderr
        ok("retrain", "d.csv", "-q", "--layers", "3", "--from-scratch", "--gate", "always")
        assert load(model).spec.layers == 3

    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            (table(252).rename(columns={"load": "power"}), "columns_differ"),
            (table(252).iloc[::2], "step_differs"),
        ],
    )
    def test_other_data(self, frame: pd.DataFrame, code: str, model: Path, trained: bytes) -> None:
        frame.to_csv("d.csv", index=False)
        done = run("retrain", "d.csv", "--format", "json", "-q")
        assert done.exit_code == 4
        assert json.loads(done.stderr)["error"]["code"] == code
        assert model.read_bytes() == trained

    def test_no_model_and_no_data(self, folder: Path) -> None:
        table(252).to_csv("d.csv", index=False)
        assert run("retrain", "d.csv").exit_code == 4
        assert run("retrain", "none.csv").exit_code == 3
        assert names() == ["d.csv"]

    def test_no_time(self, model: Path, trained: bytes) -> None:
        done = run("retrain", "d.csv", "-q", "--max-time", "0")
        assert done.exit_code == 8
        assert model.read_bytes() == trained
        assert names() == ["d.csv", "d.safetensors"]

    def test_another_run_holds_the_lock(self, model: Path, trained: bytes) -> None:
        code = (
            "import sys, time\nfrom stacklstm_cli.locking import model_lock\n"
            "with model_lock('d.safetensors'):\n    print('held', flush=True)\n    time.sleep(60)"
        )
        holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert run("retrain", "d.csv", "-q", "--log", "log").exit_code == 6
            assert run("promote", model, "--previous").exit_code == 6
        finally:
            holder.kill()
            holder.communicate()
        assert json.loads(Path("log").read_text())["code"] == "locked"
        assert model.read_bytes() == trained
        with model_lock(model):  # that of a dead process is taken over
            pass

    def test_promote(self, model: Path, trained: bytes) -> None:
        assert run("promote", model).exit_code == 2
        done = run("promote", model, "--previous")
        assert done.exit_code == 4
        assert "d.safetensors.1" in done.stderr
        assert model.read_bytes() == trained


class TestLog:
    def test_a_line_for_each_run(self, model: Path) -> None:
        """Promoted, unchanged, refused by an error; each knows its exit status."""
        ok("retrain", "d.csv", "-q", "--log", "log")
        ok("retrain", "d.csv", "-q", "--log", "log")
        table(252).rename(columns={"load": "power"}).to_csv("d.csv", index=False)
        run("retrain", "d.csv", "-q", "--log", "log")
        lines = [json.loads(line) for line in Path("log").read_text().splitlines()]
        assert [(line["status"], line["exit_status"]) for line in lines] == [("ok", 0), ("unchanged", 0), ("error", 4)]
        assert lines[0]["id"] == lines[1]["parent"] == load(model).id
        assert lines[0]["challenger"]["mase"] == read_document(model)["lineage"][-1]["challenger"]["mase"]
        assert lines[2]["code"] == "columns_differ"
        assert all(pd.Timestamp(line["time"]).tzinfo is not None for line in lines)

    def test_one_write_for_each_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Appended, so that lines of several processes never mix."""
        written: list[bytes] = []
        write = os.write
        monkeypatch.setattr(os, "write", lambda descriptor, data: written.append(data) or write(descriptor, data))
        for number in range(3):
            append(str(tmp_path / "log"), {"number": number, "nan": float("nan")})
        assert [json.loads(line) for line in written] == [{"number": number, "nan": None} for number in range(3)]
        assert (tmp_path / "log").read_bytes() == b"".join(written)

    def test_a_log_that_cannot_be_written(self, model: Path, trained: bytes) -> None:
        """Said before the work; it may not be the model or the data."""
        assert run("retrain", "d.csv", "-q", "--log", "none/log").exit_code == 4
        assert run("retrain", "d.csv", "-q", "--log", "d.csv").exit_code == 2
        assert run("retrain", "d.csv", "-q", "--log", "d.safetensors").exit_code == 2
        assert model.read_bytes() == trained
        with pytest.raises(ModelError):
            append("none/log", {})


class TestOverrides:
    def given(self, *words: str) -> tuple[int, list[Any]]:
        given: list[Any] = []
        app = typer.Typer(cls=ErrorGroup)
        app.callback()(lambda: None)

        def again(typed: Annotated[Overrides, ModelConfig, TrainingConfig]) -> None:
            given.append(typed)

        again.__annotations__["typed"] = Annotated[Overrides, ModelConfig, TrainingConfig]
        app.command()(takes(again))
        return CliRunner().invoke(app, ["again", *words]).exit_code, given

    def test_only_what_is_typed_is_there(self, tmp_path: Path) -> None:
        """Also where it is the default, and from a file."""
        assert self.given() == (0, [{}])
        assert self.given("--layers", "2", "--no-residual", "--dilations", "1,2") == (
            0,
            [{"layers": 2, "residual": False, "dilations": (1, 2)}],
        )
        (tmp_path / "c.toml").write_text('max-time = "2m"\nseed = 0\n')
        assert self.given("--config", str(tmp_path / "c.toml")) == (0, [{"max_time": 120.0, "seed": 0}])

    def test_bounds_hold(self) -> None:
        assert self.given("--layers", "100")[0] == 2
        assert self.given("--seed", "-1")[0] == 2

    def test_every_option_can_be_typed(self) -> None:
        for config in (ModelConfig, TrainingConfig):
            for field in dataclasses.fields(config):
                if isinstance(field.default, bool):
                    name = ("--no-" if field.default else "--") + field.name.replace("_", "-")
                    assert self.given(name)[1] == [{field.name: not field.default}]
