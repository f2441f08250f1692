"""Every kind of stack: through the command line, in a model file, and what its forecasts may and must see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ok, run, table_of
from panels import architectures, every_origin, make_panel, named, shaken_network, small_spec, wave

from stacklstm_cli.config import DataConfig
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import ExitStatus
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.training.fitting import Outcome, Trainer

CPU = torch.device("cpu")
LEARNED = (0.1, 0.5, 0.9)
CONTEXT, HORIZON = 8, 4
ROWS = 120


@pytest.fixture
def data(folder: Path) -> Path:
    """A daily wave, by the hour."""
    stamps = pd.date_range("2024-01-01", periods=ROWS, freq="h").strftime("%Y-%m-%d %H:%M")
    pd.DataFrame({"time": stamps, "load": wave(ROWS)}).to_csv("d.csv", index=False)
    return folder / "d.csv"


def typed(architecture: dict[str, Any]) -> list[str]:
    """The options that ask for a stack."""
    words = []
    for name, value in architecture.items():
        option = "--" + name.replace("hidden_sizes", "hidden_size").replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-") if name == "residual" else "")
        elif value != ():
            words += [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return [word for word in words if word]


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What each training run of the command line leaves in memory."""
    found: list[Outcome] = []
    train = Trainer.run

    def run_and_keep(self: Trainer, options: dict[str, Any]) -> Outcome:
        found.append(train(self, options))
        return found[-1]

    monkeypatch.setattr(Trainer, "run", run_and_keep)
    return found


@pytest.mark.parametrize("architecture", architectures(), ids=named)
def test_trains_saves_loads_and_forecasts(architecture: dict[str, Any], data: Path, outcomes: list[Outcome]) -> None:
    """As typed: the stack that was asked for, the same file twice, and from the file what memory forecasts."""
    shape = ["--context-length", "16", "--patch-length", "2", "--horizon", "3", "--no-calendar"]
    words = ["train", "d.csv", *typed(architecture), *shape, "--epochs", "1", "--batch-size", "32"]
    table = table_of(ok(*words, "--format", "csv"))
    first = Path("d.safetensors").read_bytes()
    ok(*words)
    assert Path("d.safetensors").read_bytes() == first
    assert table["mae"].notna().all()
    trained = outcomes[0].checkpoint
    assert {name: getattr(trained.spec.stack, name) for name in architecture} == architecture
    assert all(weights.isfinite().all() for weights in trained.final.values())
    assert outcomes[0].fits[-1].steps > 1
    forecast = table_of(ok("predict", "d.csv"))
    panel = read_panel([str(data)], DataConfig(), stored=trained.stored)
    forecaster = trained.forecaster(CPU)
    expected = forecaster.forecast(panel, Origins(np.array([0]), np.array([ROWS])), 3, LEARNED)[0]
    assert forecast[["q10", "q50", "q90"]].to_numpy().tolist() == expected.tolist()
    assert np.isfinite(expected).all()


def series() -> Panel:
    """Three, of unequal size; one with gaps, one of them longer than the context, one shorter than it."""
    middle = wave(40, 1) * 1e4
    middle[[3, 12, 13]] = np.nan
    middle[20:31] = np.nan
    return make_panel(wave(30), middle, wave(6, 2) / 1e3)


def forecaster_of(architecture: dict[str, Any]) -> Forecaster:
    sizes = {"context_length": CONTEXT, "horizon": HORIZON, "location_length": 4, "scale_length": 8}
    return Forecaster(shaken_network(small_spec(**sizes, **architecture), dtype=torch.float32), CPU)


@pytest.mark.parametrize("architecture", architectures(), ids=named)
def test_nothing_behind_a_cutoff_changes_its_forecast(architecture: dict[str, Any]) -> None:
    """Not by one bit, also where a second direction reads the context from its newest row; and the rest is seen."""
    panel, forecaster = series(), forecaster_of(architecture)
    origins, generator = every_origin(panel), np.random.default_rng(0)
    before = forecaster.forecast(panel, origins, HORIZON, LEARNED)
    for cut in ([1, 1, 1], [17, 25, 3], [29, 38, 5]):
        pieces = [panel.series(index).copy() for index in range(3)]
        for piece, rows in zip(pieces, cut, strict=True):
            piece[rows:] = generator.normal(size=piece.size - rows) * 1e7
            piece[rows + 1 :: 3] = np.nan
        after = forecaster.forecast(make_panel(*pieces), origins, HORIZON, LEARNED)
        earlier = origins.rows <= np.array(cut)[origins.series]
        assert after[earlier].tobytes() == before[earlier].tobytes()
        assert (after[~earlier] != before[~earlier]).any((1, 2)).all()


@pytest.mark.parametrize("architecture", architectures(), ids=named)
def test_the_newest_value_moves_every_step(architecture: dict[str, Any]) -> None:
    """And every quantile, from every origin that has two values to forecast from."""
    panel, forecaster = series(), forecaster_of(architecture)
    for index in range(3):
        values = panel.series(index)
        rows = np.arange(2, values.size + 1)
        newest = [int(np.flatnonzero(~np.isnan(values[:known]))[-1]) for known in rows]
        moved = np.tile(values, (rows.size, 1))
        moved[np.arange(rows.size), newest] *= 1.5
        origins = Origins(np.arange(rows.size), rows)
        before = forecaster.forecast(make_panel(*[values] * rows.size), origins, HORIZON, LEARNED)
        after = forecaster.forecast(make_panel(*moved), origins, HORIZON, LEARNED)
        assert (after != before).all(), (index, rows[(after == before).any((1, 2))])


@pytest.mark.parametrize("words", [[], ["--cell", "gru"], ["--cell", "rnn"], ["--no-residual"]], ids="".join)
def test_sixteen_layers_train(words: list[str], data: Path, outcomes: list[Outcome]) -> None:
    """Every weight and every error stays a number."""
    ok("train", "d.csv", "--layers", "16", "--hidden-size", "5", "--epochs", "1", "--batch-size", "64", *words)
    (outcome,) = outcomes
    assert outcome.checkpoint.spec.layers == 16
    assert all(weights.isfinite().all() for weights in outcome.checkpoint.final.values())
    assert all(np.isfinite(error) for error in outcome.checkpoint.metrics["stacklstm"].values())
    assert table_of(ok("predict", "d.csv")).notna().all(axis=None)


@pytest.mark.parametrize("words", [["--supervise", "all"], ["--no-skip"], ["--supervise", "all", "--no-skip"]], ids=str)
def test_other_ways_to_train(words: list[str], data: Path, outcomes: list[Outcome]) -> None:
    """As typed: other weights than by default, the same file twice, a forecast that is a number."""
    short = ["train", "d.csv", "--hidden-size", "5", "--epochs", "1", "--batch-size", "32"]
    ok(*short)
    ok(*short, *words)
    first = Path("d.safetensors").read_bytes()
    ok(*short, *words)
    assert Path("d.safetensors").read_bytes() == first
    plain, changed, _ = (outcome.checkpoint for outcome in outcomes)
    assert not torch.equal(plain.final["head.weight"], changed.final["head.weight"])
    assert ("skip" in changed.final) == ("--no-skip" not in words)
    assert table_of(ok("predict", "d.csv")).notna().all(axis=None)


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "steps that know what fills a gap": (["--supervise", "all", "--gaps", "interpolate"], ["--gaps interpolate"]),
    "a forget gate that is not there": (["--cell", "gru", "--forget-bias", "1"], ["--forget-bias", "gru"]),
    "two widths of three layers": (
        ["--hidden-size", "8,4", "--layers", "3"],
        ["--hidden-size has 2 widths (8,4)", "--layers is 3"],
    ),
    "one dilation of two layers": (["--dilations", "1"], ["--dilations has 1 number", "2 layers"]),
    "three dilations of two layers": (["--dilations", "1,2,4"], ["3 numbers (1,2,4)", "2 layers"]),
    "a dilation beyond the context": (
        ["--dilations", "1,64", "--context-length", "48", "--patch-length", "3"],
        ["dilation of 64", "16 steps", "below 16"],
    ),
    "no layer sees the step before": (["--dilations", "2,4", "--patch-length", "1"], ["2,4", "dilation of 1"]),
    "attention over one step": (
        ["--attention", "--patch-length", "24", "--context-length", "24"],
        ["--attention", "at least 2 steps", "1 step long"],
    ),
    "a step that knows more": (["--supervise", "all", "--bidirectional"], ["--supervise all", "--bidirectional"]),
    "a mean of all steps": (["--supervise", "all", "--attention"], ["--supervise all", "--attention"]),
    "no such cell": (["--cell", "transformer"], ["--cell", "lstm, gru, rnn"]),
    "no width": (["--hidden-size", "8,0"], ["--hidden-size", "1 to 8192"]),
    "widths in words": (["--hidden-size", "8,many"], ["--hidden-size", "8,many"]),
    "a share of everything": (["--recurrent-dropout", "1"], ["--recurrent-dropout", "0 to 0.95"]),
    "no steps between": (["--dilations", "0,1"], ["--dilations", "1 to 100000"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_combinations_end_with_their_arithmetic(mistake: str, data: Path) -> None:
    """One message with the numbers, before anything is trained."""
    words, said = MISTAKES[mistake]
    done = run("train", "d.csv", *words)
    assert (done.exit_code, done.stdout) == (ExitStatus.USAGE, ""), done.stderr
    assert done.stderr.count("error:") == 1
    for word in said:
        assert word in done.stderr
    assert not Path("d.safetensors").exists()
