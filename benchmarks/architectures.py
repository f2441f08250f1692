"""The architectures that texts on stacked LSTMs compare, on sample data: `python benchmarks/architectures.py`.

    python benchmarks/architectures.py [--seeds 0,1,2] [--only NAME] [--results FILE]

Each is a few options of `stacklstm train`. The last rows of each file are held out and scored by `stacklstm
evaluate`, a horizon apart, without refitting. Seconds are those of the training alone, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

SAMPLES = Path(__file__).parent.parent / "sample_data"
PROGRAM = [sys.executable, "-m", "stacklstm_cli"]
Cell = dict[str, float]

DATA = {
    # file, rows held out, options
    "air passengers": ("air_passengers.csv", 24, ["--horizon", "12"]),
    "bike sharing": ("bike_sharing.csv", 24 * 60, ["--horizon", "24", "--target", "users"]),
}
PLAIN = ["--no-skip", "--no-calendar", "--patch-length", "1", "--loss", "mse", "--no-residual"]
ARCHITECTURES = {
    "vanilla LSTM": [*PLAIN, "--layers", "1"],
    "stacked LSTM, 4 layers, as published": [*PLAIN, "--layers", "4"],
    "1 layer": ["--layers", "1"],
    "2 layers (default)": [],
    "3 layers": ["--layers", "3"],
    "4 layers": ["--layers", "4"],
    "8 layers": ["--layers", "8"],
    "bidirectional": ["--bidirectional"],
    "GRU": ["--cell", "gru"],
    "plain RNN": ["--cell", "rnn"],
    "attention": ["--attention"],
    "without residuals": ["--no-residual"],
    "layer norm": ["--layer-norm"],
    "dilations 1,2": ["--dilations", "1,2"],
    "all steps supervised": ["--supervise", "all"],
    "one step at a time": ["--patch-length", "1"],
}


def run(*words: str) -> str:
    """Standard output of one command. Ends the benchmark if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"stacklstm {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def score(name: str, options: list[str], seed: str, folder: Path) -> Cell:
    """One architecture on one file with one seed."""
    file, held_out, given = DATA[name]
    table = pd.read_csv(SAMPLES / file)
    table.iloc[:-held_out].to_csv(folder / "train.csv", index=False)
    model = str(folder / "m.safetensors")
    words = ["train", str(folder / "train.csv"), "-m", model, "--seed", seed, "--format", "json", *given, *options]
    trained: dict[str, Any] = json.loads(run(*words))
    found = json.loads(run("evaluate", str(SAMPLES / file), "-m", model, "--format", "json"))["metrics"]
    own, naive = found["stacklstm"], found["seasonal_naive"]
    return {"mase": own["mase"], "ratio": own["mase"] / naive["mase"], "seconds": trained["training"]["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", help="names of architectures, with semicolons: " + "; ".join(ARCHITECTURES))
    parser.add_argument("--results", type=Path, help="JSON file that keeps finished cells")
    asked = parser.parse_args()
    kept: dict[str, Cell] = json.loads(asked.results.read_text()) if asked.results and asked.results.exists() else {}
    names = asked.only.split(";") if asked.only else list(ARCHITECTURES)
    for data in DATA:
        print(f"\n{data}\n{'':40s}  MASE (lowest to highest)    ratio   seconds")
        for name in (name for name in ARCHITECTURES if name in names):
            cells = []
            for seed in asked.seeds.split(","):
                key = f"{data}/{name}/{seed}"
                if key not in kept:
                    with tempfile.TemporaryDirectory() as folder:
                        kept[key] = score(data, ARCHITECTURES[name], seed, Path(folder))
                    if asked.results:
                        asked.results.write_text(json.dumps(kept, indent=1))
                cells.append(kept[key])
            errors = [cell["mase"] for cell in cells]
            ratio, seconds = (statistics.mean(cell[figure] for cell in cells) for figure in ("ratio", "seconds"))
            spread = f"{statistics.mean(errors):.3f} ({min(errors):.3f}-{max(errors):.3f})"
            print(f"{name:40s}  {spread:26s}  {ratio:.3f}  {seconds:6.1f}", flush=True)


if __name__ == "__main__":
    main()
