"""Does `stacklstm tune` pick a depth that is as good as the best of an exhaustive run, and in what time?

    python benchmarks/depth.py --data DIR [--only NAME] [--seeds 0,1,2] [--results FILE]

The exhaustive run trains depths 1 to 4 in full with each seed and scores them on rows that neither training nor tuning
has seen, a horizon apart, without refitting. The pick is that of one `tune` on the same training rows; its error is
that of the exhaustive run at its depth. Noise is the standard error over the seeds of the paired difference. Times are
those of whole commands, imports included. Finished cells are kept in the results file and not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

PROGRAM = [sys.executable, "-m", "stacklstm_cli"]
DEPTHS = (1, 2, 3, 4)
Cell = dict[str, Any]

DATA = {
    # file, id column of a long file, horizon, rows held out of each series
    "airpassengers": ("univariate/airpassengers.csv", None, 12, 24),
    "births": ("univariate/daily_female_births.csv", None, 7, 63),
    "temperatures": ("univariate/daily_min_temperatures.csv", None, 7, 364),
    "sunspots": ("univariate/sunspots_monthly.csv", None, 12, 564),
    "co2": ("univariate/co2_weekly.csv", None, 13, 455),
    "retail": ("many_series/aus_retail_monthly.csv.gz", "series_id", 12, 24),
    "etth1": ("long_horizon/ETTh1.csv.gz", None, 24, 2880),
    "m4_weekly": ("m4/m4_weekly_train.csv.gz", "series_id", 13, 13),
}


def run(*words: str) -> tuple[Cell, float]:
    """The JSON document and the seconds of one command. Ends the benchmark if it fails."""
    begin = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*PROGRAM, *words, "--format", "json"], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"stacklstm {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout), time.perf_counter() - begin


def split(source: Path, key: str | None, held_out: int, folder: Path) -> tuple[str, str]:
    """The training rows and all rows, as files."""
    table = pd.read_csv(source)
    if key is None:
        train = table.iloc[:-held_out]
    else:
        from_end = table.groupby(key, sort=False).cumcount(ascending=False)
        train = table[from_end >= held_out]
    whole, part = folder / "all.csv", folder / "train.csv"
    table.to_csv(whole, index=False)
    train.to_csv(part, index=False)
    return str(part), str(whole)


def trained(name: str, data: Path, depth: int, seed: str) -> Cell:
    """One full training of one depth, scored on the rows held out."""
    file, key, horizon, held_out = DATA[name]
    with tempfile.TemporaryDirectory() as folder:
        part, whole = split(data / file, key, held_out, Path(folder))
        model = str(Path(folder) / "m.safetensors")
        options = ["--layers", str(depth), "--horizon", str(horizon), "--seed", seed, "-m", model, "-q"]
        found, seconds = run("train", part, *options)
        scored, _ = run("evaluate", whole, "-m", model, "-q")
    error = scored["metrics"]["stacklstm"]["mase"]
    return {"mase": error, "seconds": seconds, "training_seconds": found["training"]["seconds"]}


def tuned(name: str, data: Path, seed: str) -> Cell:
    """One `tune` over the depths."""
    file, key, horizon, held_out = DATA[name]
    with tempfile.TemporaryDirectory() as folder:
        part, _ = split(data / file, key, held_out, Path(folder))
        found, seconds = run("tune", part, "--search", "layers", "--horizon", str(horizon), "--seed", seed, "-q")
    search = found["search"]
    rows = {row["candidate"]: row for row in search["candidates"]}
    return {
        "chosen": rows[search["chosen"]]["layers"],
        "best": rows[search["best"]]["layers"],
        "answer": search["answer"],
        "scores": {row["layers"]: row["score"] for row in search["candidates"]},
        "cross_validated": search["score"],
        "holdout": search["holdout"],
        "seconds": seconds,
        "training_seconds": sum(row["seconds"] for row in search["candidates"]),
    }


def summary(name: str, exhaustive: dict[int, list[Cell]], picks: list[Cell]) -> str:
    """One line of the table for each seed of `tune`."""
    means = {depth: statistics.mean(cell["mase"] for cell in cells) for depth, cells in exhaustive.items()}
    best = min(means, key=lambda depth: means[depth])
    seconds = sum(cell["seconds"] for cells in exhaustive.values() for cell in cells)
    errors = "  ".join(f"{depth}: {mean:.4f}" for depth, mean in means.items())
    lines = [f"{name}: {errors}  ({seconds:.0f} s)"]
    for pick in picks:
        chosen = pick["chosen"]
        paired = zip(exhaustive[chosen], exhaustive[best], strict=True)
        differences = [one["mase"] - other["mase"] for one, other in paired]
        noise = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        lines.append(
            f"  tune: {chosen} (best there {pick['best']}); error {100 * (means[chosen] / means[best] - 1):+.1f} % "
            f"of the best depth, {best}; noise {100 * noise / means[best]:.1f} %; {pick['seconds']:.0f} s, "
            f"{pick['seconds'] / seconds:.2f} of the exhaustive time; holdout {pick['holdout']:.3f} beside "
            f"{pick['cross_validated']:.3f} cross-validated. {pick['answer']}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", help="names of data sets, with commas: " + ",".join(DATA))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tune-seeds", default="0")
    parser.add_argument("--results", type=Path, help="JSON file that keeps finished cells")
    asked = parser.parse_args()
    kept: dict[str, Cell] = json.loads(asked.results.read_text()) if asked.results and asked.results.exists() else {}

    def cell(key: str, make: Any) -> Cell:
        if key not in kept:
            kept[key] = make()
            if asked.results:
                asked.results.write_text(json.dumps(kept, indent=1))
        return kept[key]

    for name in asked.only.split(",") if asked.only else DATA:
        if not (asked.data / DATA[name][0]).exists():
            print(f"{name}: passed over, {asked.data} lacks {DATA[name][0]}")
            continue
        picks = [
            cell(f"{name}/tune/{seed}", lambda name=name, seed=seed: tuned(name, asked.data, seed))
            for seed in asked.tune_seeds.split(",")
        ]
        exhaustive = {
            depth: [
                cell(
                    f"{name}/{depth}/{seed}",
                    lambda name=name, depth=depth, seed=seed: trained(name, asked.data, depth, seed),
                )
                for seed in asked.seeds.split(",")
            ]
            for depth in DEPTHS
        }
        print(summary(name, exhaustive, picks), flush=True)


if __name__ == "__main__":
    main()
