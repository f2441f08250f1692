"""What a command costs before it does anything, beside what its imports cost.

    python benchmarks/startup.py [--runs 7] [--peers]

Each command is timed as a whole process, in turn with its reference, after one run that is not counted; the
medians and the median of the pairwise ratios are printed, since the speed of a machine drifts. Seconds of the
processor are beside those of the clock: where other work runs, only they mean something. Modules are compiled once,
into a folder of their own, as they are for who installs the program.

--peers times instead the whole way from the CSV file to the forecast, `train` and `predict` one after the other, beside
a script of neuralforecast and one of Darts, where they are installed (in an environment of their own: pip install
-c constraints.txt . neuralforecast darts): an LSTM of as many layers and units, the same context, horizon, quantiles
and batch, as many optimiser steps as both fits of `train` make together. The scripts choose nothing, judge nothing and
fit once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = [sys.executable, "-m", "stacklstm_cli"]
AIR = Path(__file__).parent.parent / "sample_data" / "air_passengers.csv"
IMPORTS = [sys.executable, "-c", "import torch, pandas"]
BARE = [sys.executable, "-c", "pass"]


PEERS = {
    "neuralforecast": """
import sys, pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MQLoss
from neuralforecast.models import LSTM
rows = pd.read_csv(sys.argv[1], parse_dates=["timestamp"])
rows = rows.rename(columns={"timestamp": "ds", "passengers": "y"}).assign(unique_id="one")
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
model = LSTM(h=12, input_size=36, encoder_n_layers=2, encoder_hidden_size=32, decoder_hidden_size=32, batch_size=1,
             windows_batch_size=32, scaler_type="standard", max_steps=int(sys.argv[2]),
             loss=MQLoss(quantiles=[.1, .5, .9]), **quiet)
forecast = NeuralForecast(models=[model], freq="MS")
forecast.fit(rows)
forecast.predict().to_csv(sys.stdout)
""",
    "darts": """
import sys, pandas as pd
from darts import TimeSeries
from darts.dataprocessing.transformers import Scaler
from darts.models import BlockRNNModel
from darts.utils.likelihood_models.torch import QuantileRegression
rows = pd.read_csv(sys.argv[1], parse_dates=["timestamp"])
scaler = Scaler()
series = scaler.fit_transform(TimeSeries.from_dataframe(rows, "timestamp", "passengers").astype("float32"))
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu",
         "max_steps": int(sys.argv[2])}
model = BlockRNNModel(model="LSTM", input_chunk_length=36, output_chunk_length=12, hidden_dim=32, n_rnn_layers=2,
                      batch_size=32, n_epochs=10**6, pl_trainer_kwargs=quiet,
                      likelihood=QuantileRegression([.1, .5, .9]))
model.fit(series)
scaler.inverse_transform(model.predict(12, num_samples=100)).to_dataframe().to_csv(sys.stdout)
""",
}


def seconds(command: list[str], compiled: str) -> tuple[float, float]:
    """Of the clock, and of the processor."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin, before = time.perf_counter(), os.times()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment | {"PYTHONPYCACHEPREFIX": compiled},
    )
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begin, processor


def paired(name: str, command: list[str], reference: list[str], runs: int, compiled: str) -> None:
    """Print the medians of both and of their ratio over interleaved runs, by the clock and by the processor."""
    seconds(command, compiled), seconds(reference, compiled)
    pairs = [(seconds(command, compiled), seconds(reference, compiled)) for _ in range(runs)]
    shown = []
    for at in (0, 1):
        own, other = (statistics.median(pair[side][at] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(one[at] / max(two[at], 1e-3) for one, two in pairs)
        shown.append(f"{own:6.2f} s  beside {other:6.2f} s  ratio {ratio:5.2f}")
    print(f"{name:32s} clock {shown[0]}   processor {shown[1]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="the whole way, beside neuralforecast and Darts")
    asked = parser.parse_args()
    runs = asked.runs
    with tempfile.TemporaryDirectory() as folder:
        compiled = str(Path(folder) / "compiled")
        model = str(Path(folder) / "air.safetensors")
        train = [*PROGRAM, "train", str(AIR), "-m", model, "-q", "--layers", "2", "--batch-size", "32"]
        if asked.peers:
            compare_peers(train, [*PROGRAM, "predict", str(AIR), "-m", model], runs, compiled)
            return
        paired("train air passengers / imports", train, IMPORTS, runs, compiled)
        paired("predict / imports", [*PROGRAM, "predict", str(AIR), "-m", model], IMPORTS, runs, compiled)
        paired("evaluate / imports", [*PROGRAM, "evaluate", str(AIR), "-m", model], IMPORTS, runs, compiled)
        paired("inspect / python", [*PROGRAM, "inspect", model], BARE, runs, compiled)
        paired("--help / python", [*PROGRAM, "--help"], BARE, runs, compiled)
        paired("train --help / python", [*PROGRAM, "train", "--help"], BARE, runs, compiled)


def compare_peers(train: list[str], predict: list[str], runs: int, compiled: str) -> None:
    """Print the medians of the whole way beside each peer that is there."""
    words = [*train, "--format", "json"]
    told = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    steps = str(told["training"]["windows"] // 32)
    both = f"import subprocess; [subprocess.run(words, check=True) for words in {[train, predict]!r}]"
    for name, script in PEERS.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed and left out; pip install -c constraints.txt {name}")
            continue
        other = [sys.executable, "-W", "ignore", "-c", script, str(AIR), steps]
        paired(f"train, predict / {name}", [sys.executable, "-c", both], other, runs, compiled)


if __name__ == "__main__":
    main()
