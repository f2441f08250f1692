"""What holds for every test: one thread, whatever the machine; what is slow to import only where tests run."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from forked import Server

    from stacklstm_cli.model.checkpoint import Checkpoint

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and messages would be wrapped


def pytest_configure(config: pytest.Config) -> None:
    """Prepare a process that runs tests; that of pytest-xdist which hands them out imports none of this."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        prepare()


def prepare() -> None:
    """One thread, equal examples at every run, and the commands built once, not before each that is typed."""
    import torch
    import typer.testing
    from hypothesis import settings

    torch.set_num_threads(1)
    # A red run is then a change's doing, not that of chance or of a busy machine. `--hypothesis-profile=default` looks
    # for further cases.
    settings.register_profile("same", derandomize=True, deadline=None)
    settings.load_profile("same")
    typer.testing._get_command = functools.cache(typer.testing._get_command)


@pytest.fixture(autouse=True, scope="module")
def without_statsforecast(request: pytest.FixtureRequest) -> Iterator[None]:
    """`evaluate` as without the `baselines` extra, which fits models at each origin unasked; a module may want it."""
    if getattr(request.module, "WITH_STATSFORECAST", False):
        yield
        return
    from stacklstm_cli.evaluation import statistical

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistical, "installed", lambda: False)
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Where commands run in processes of their own."""
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked on POSIX systems only")
    from forked import serve

    with serve(tmp_path_factory.mktemp("logs")) as found:
        yield found


@pytest.fixture(scope="module")
def small_labels() -> Iterator[None]:
    """Two networks of narrow convolutions where labels are trained as by default with three of 64, 128, 64."""
    from stacklstm_cli.training import label_plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_plan, "FILTERS", (8, 8, 8))
        patch.setattr(label_plan, "MEMBERS", 2)
        yield


@pytest.fixture
def checkpoint() -> Checkpoint:
    """A small model of two series, with something in every field."""
    import numpy as np
    import torch
    from panels import make_panel, shaken_network, small_spec, wave

    from stacklstm_cli.model.calibration import Calibration
    from stacklstm_cli.model.checkpoint import Checkpoint

    spec, panel = small_spec(), make_panel(wave(40), wave(30), starts=[5, 9])
    return Checkpoint(
        columns=panel.columns,
        step=panel.step,
        time_form=panel.time_form,
        seasonality=24,
        keys=panel.keys,
        spec=spec,
        final=shaken_network(spec, seed=1, dtype=torch.float32).state_dict(),
        trained_to=panel.ends,
        judged=shaken_network(spec, seed=2, dtype=torch.float32).state_dict(),
        judged_to=panel.ends - 4,
        data_to=panel.ends,
        calibration=Calibration(spec.quantiles, np.array([[-0.5, 0, 0.25]] * 4), np.array([0.05, 0.5, 0.9])),
        judged_calibration=Calibration(spec.quantiles, np.array([[0.5, 0, 0.125]] * 4), np.array(spec.quantiles)),
        intervals={"origins": {"judged": 5, "final": 9}, "coverage": {}},
        data={"rows": 70, "step": "1 hour", "fingerprint": panel.fingerprint()},
        metrics={"stacklstm": {"mae": 0.1 + 0.2, "mase": None}},
        backtest={"origins": 1},
        training={"seed": 0, "history": [{"step": 20, "loss": 1 / 3}], "note": "größer\n"},
        options={"horizon": 4, "quantiles": [0.1, 0.5, 0.9]},
    )
