"""What holds for every test: one thread, whatever the machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from panels import make_panel, shaken_network, small_spec, wave

from stacklstm_cli.model.calibration import Calibration
from stacklstm_cli.model.checkpoint import Checkpoint

torch.set_num_threads(1)
# A red run is then a change's doing, not chance's. `--hypothesis-profile=default` looks for further cases.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and messages would be wrapped


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint() -> Checkpoint:
    """A small model of two series, with something in every field."""
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
