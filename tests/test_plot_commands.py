"""--plot and --show as typed: which files there are in the end, and what is loaded to draw them."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ok, run
from forked import Server

from stacklstm_cli.cli import plots


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data.csv of two series and its model, and what training drew."""
    folder = tmp_path_factory.mktemp("model")
    rows = [
        f"{name},2024-01-{1 + hour // 24:02d} {hour % 24:02d}:00,{50 + 10 * math.sin(hour * math.pi / 12):.3f}"
        for name in ("<b>north</b>", 'south & "co"')
        for hour in range(240)
    ]
    (folder / "data.csv").write_text("\n".join(["shop,ds,sales", *rows]) + "\n", encoding="utf-8")
    ok(
        "train", folder / "data.csv", "-m", folder / "data.safetensors", "--epochs", "1", "--hidden-size", "4",
        "--plot", folder / "losses.svg", "-q",
    )  # fmt: skip
    return folder


class TestCommands:
    def test_training_draws_its_losses(self, model: Path) -> None:
        svg = (model / "losses.svg").read_text(encoding="utf-8")
        assert "training loss</text>" in svg
        assert sorted(path.name for path in model.iterdir()) == ["data.csv", "data.safetensors", "losses.svg"]

    @pytest.mark.parametrize("command", ["predict", "evaluate"])
    @pytest.mark.parametrize(
        "suffix", [".png", *(pytest.param(one, marks=pytest.mark.slow) for one in (".SVG", ".pdf"))]
    )
    def test_the_picture_is_all_that_is_written(self, model: Path, folder: Path, command: str, suffix: str) -> None:
        """And standard output is what it is without a picture."""
        words = [command, model / "data.csv", "-m", model / "data.safetensors", "--format", "csv"]
        plain, drawn = ok(*words), ok(*words, "--plot", f"picture{suffix}", "--show")
        assert drawn.stdout == plain.stdout
        assert [path.name for path in folder.iterdir()] == [f"picture{suffix}"]
        assert "┤" in drawn.stderr
        assert "┤" not in plain.stderr

    @pytest.mark.parametrize("place", ["forecast.gif", "forecast", "-", "forecast.png.gz"])
    def test_an_unknown_suffix_is_refused_before_the_work(self, model: Path, folder: Path, place: str) -> None:
        done = run("predict", "nowhere.csv", "-m", model / "data.safetensors", "--plot", place)
        assert done.exit_code == 2
        for suffix in plots.SUFFIXES:
            assert suffix in done.stderr

    def test_no_other_file_is_overwritten(self, model: Path, folder: Path) -> None:
        """Neither what is read nor what else is written; an old file stays as it was."""
        data = folder / "data.svg"
        data.write_bytes((model / "data.csv").read_bytes())
        words = ["-m", str(model / "data.safetensors")]
        assert run("predict", data, *words, "--plot", data).exit_code == 2
        assert run("evaluate", model / "data.csv", *words, "--plot", "a.svg", "-o", "a.svg").exit_code == 2
        assert run("evaluate", model / "data.csv", *words, "--report", "a.html", "-o", "a.html").exit_code == 2
        assert run("evaluate", model / "data.csv", *words, "--report", "a.png").exit_code == 2
        assert run("predict", model / "data.csv", *words, "--plot", "nowhere/a.svg").exit_code == 4
        assert data.read_bytes() == (model / "data.csv").read_bytes()
        assert [path.name for path in folder.iterdir()] == ["data.svg"]

    def test_nothing_to_draw_without_a_forecast(self, model: Path, folder: Path) -> None:
        done = run(
            "predict", model / "data.csv", "-m", model / "data.safetensors", "--future-template", "--plot", "a.svg"
        )
        assert done.exit_code == 2
        assert "--plot" in done.stderr

    def test_a_wide_forecast_is_drawn_with_its_intervals(self, model: Path, folder: Path) -> None:
        """Which its table does not have."""
        words = ["predict", model / "data.csv", "-m", model / "data.safetensors"]
        ok(*words, "--plot", "long.svg")
        ok(*words, "--wide", "--plot", "wide.svg")
        assert (folder / "long.svg").read_bytes() == (folder / "wide.svg").read_bytes()

    @pytest.mark.slow
    def test_any_environment_will_do(self, model: Path, folder: Path) -> None:
        """No home, no display, a backend that there is not, a spoilt `matplotlibrc`: the same picture, in silence."""
        Path("matplotlibrc").write_text("axes.grid: perhaps\nnonsense\nlines.linewidth: 9\n")
        words = ["predict", str(model / "data.csv"), "-m", str(model / "data.safetensors"), "-q"]
        ok(*words, "--plot", "usual.svg")
        command = [sys.executable, "-m", "stacklstm_cli", *words, "--plot", "bare.svg"]
        missing = str(folder / "none" / "such")
        bare = {
            "MPLBACKEND": "nonsense",
            "MPLCONFIGDIR": missing,
            "HOME": missing,
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        Path("none").write_text("a file where a folder would be made")
        done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert Path("bare.svg").read_bytes() == Path("usual.svg").read_bytes()
        assert {path.name for path in folder.iterdir()} == {"matplotlibrc", "none", "usual.svg", "bare.svg"}

    def test_matplotlib_is_loaded_for_files_alone(self, model: Path, folder: Path, server: Server) -> None:
        """Neither a forecast nor a drawing in the terminal needs it."""
        words = ("predict", model / "data.csv", "-m", model / "data.safetensors")
        shown, drawn = server.run(*words, "--show"), server.run(*words, "--plot", "p.png")
        assert (shown.status, drawn.status) == (0, 0)
        assert "matplotlib" not in shown.modules
        assert "matplotlib" in drawn.modules
