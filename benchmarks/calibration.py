"""What share of new values the intervals hold, on public data, beside what they should: calibrated and as learned.

    python benchmarks/calibration.py --data DIR [--only NAME] [--seeds 0,1,2] [--results FILE] [--train="--layers 4"]

DIR holds the data sets of benchmarks/accuracy.py. The last rows of each are held out; a model is trained on the rest
as a user would, with intervals of 80, 90 and 95 %, and `stacklstm evaluate` scores every origin in the rows held out.
The same weights are then saved without their calibration and scored alike. `error` is the absolute difference of the
share held and the nominal one, averaged over the three intervals; `holdout` is that of the table `train` prints.
Finished cells are kept in the results file and not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stacklstm_cli.model.checkpoint import load, save

PROGRAM = [sys.executable, "-m", "stacklstm_cli"]
INTERVALS = (80, 90, 95)
Cell = dict[str, float]


@dataclass(frozen=True)
class Task:
    """One data set: a file, and how many of its last rows are held out or which file continues it."""

    name: str
    file: str
    horizon: int
    held_out: int = 0
    continued: str = ""
    rows: int | None = None
    """Of the file, where its protocol uses fewer."""
    step: int = 1
    options: tuple[str, ...] = ()

    def split(self, data: Path, folder: Path) -> None:
        """Write `train.csv` and `all.csv`."""
        table = pd.read_csv(data / self.file, dtype=str).iloc[: self.rows]
        train = table if self.continued else table.iloc[: -self.held_out]
        if self.continued:
            table = pd.concat([table, pd.read_csv(data / self.continued, dtype=str)])
        train.to_csv(folder / "train.csv", index=False)
        table.to_csv(folder / "all.csv", index=False)


def univariate(name: str, horizon: int, held_out: int) -> Task:
    """A fifth of the rows, or what benchmarks/accuracy.py holds out where that is more: shares of few values, all of
    one summer or one solar maximum, say little."""
    return Task(name, f"univariate/{name}.csv", horizon, held_out)


TASKS = [
    univariate("airpassengers", 12, 48),
    univariate("co2_weekly", 13, 455),
    univariate("daily_female_births", 7, 84),
    univariate("daily_min_temperatures", 7, 728),
    univariate("sunspots_monthly", 12, 564),
    univariate("sunspots_yearly", 5, 60),
    Task("etth1", "long_horizon/ETTh1.csv.gz", 96, 2880, rows=14400),
    Task(
        "m4_hourly",
        "m4/m4_hourly_train.csv.gz",
        48,
        continued="m4/m4_hourly_test.csv",
        step=48,
        options=("--seasonality", "24"),
    ),
]


def stacklstm(*words: str) -> dict[str, Any]:
    """The JSON document of one command. Ends the benchmark if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*PROGRAM, *words, "--format", "json"], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"stacklstm {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def run(task: Task, data: Path, seed: str, options: list[str]) -> Cell:
    """Train, score, and score again without the calibration."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task.split(data, folder)
        model, bare = folder / "m.safetensors", folder / "raw.safetensors"
        words = ["--horizon", str(task.horizon), "--interval", ",".join(map(str, INTERVALS)), "--seed", seed]
        trained = stacklstm("train", str(folder / "train.csv"), "-m", str(model), *words, *task.options, *options)
        raw = dataclasses.replace(load(model), calibration=None, judged_calibration=None, intervals={})
        save(raw, bare)
        cell: Cell = {"holdout": error(trained["metrics"]["stacklstm"])}
        for label, path in (("", model), ("raw_", bare)):
            scoring = ["-m", str(path), "--step", str(task.step), "--baselines", "none"]
            document = stacklstm("evaluate", str(folder / "all.csv"), *scoring)
            metrics = document["metrics"]["stacklstm"]
            cell |= {f"{label}{level}": metrics[f"coverage_{level}"] for level in INTERVALS}
            cell |= {f"{label}error": error(metrics), f"{label}wql": metrics["wql"]}
    return cell | {"wql_ratio": cell["wql"] / cell["raw_wql"], "origins": document["backtest"]["origins"]}


def error(metrics: dict[str, float]) -> float:
    """Mean absolute difference of the shares held and the nominal ones."""
    return statistics.mean(abs(metrics[f"coverage_{level}"] - level / 100) for level in INTERVALS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", help="names, with commas: " + ",".join(task.name for task in TASKS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--results", type=Path, help="JSON file that keeps finished cells")
    parser.add_argument("--train", default="", help="further options of every training")
    asked = parser.parse_args()
    kept: dict[str, Cell] = json.loads(asked.results.read_text()) if asked.results and asked.results.exists() else {}
    names = asked.only.split(",") if asked.only else [task.name for task in TASKS]
    shown: list[Cell] = []
    for task in [task for task in TASKS if task.name in names]:
        missing = [file for file in (task.file, task.continued) if file and not (asked.data / file).exists()]
        if missing:
            print(f"{task.name}: passed over, {asked.data} lacks {', '.join(missing)}")
            continue
        for seed in asked.seeds.split(","):
            key = "/".join([task.name, seed, *([asked.train] if asked.train else [])])
            if key not in kept:
                kept[key] = run(task, asked.data, seed, shlex.split(asked.train))
                if asked.results:
                    asked.results.write_text(json.dumps(kept, indent=1))
            shown.append(kept[key])
            print(f"{key:28s} " + "  ".join(f"{name} {value:.4g}" for name, value in kept[key].items()), flush=True)
    for name in ("raw_error", "error", "wql_ratio"):
        if shown:
            print(f"mean {name} {statistics.mean(cell[name] for cell in shown):.4f}")


if __name__ == "__main__":
    main()
