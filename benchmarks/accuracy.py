"""Accuracy of the command line on public data, by published protocols.

    python benchmarks/accuracy.py --data DIR [--only NAME] [--seeds 0,1,2] [--results FILE] [--train="--layers 4"]

DIR holds the data sets as `long_horizon/ETTh1.csv.gz`, `m4/m4_hourly_train.csv.gz`, `univariate/*.csv` …; what
is missing is said and passed over. Every figure comes from `stacklstm train` and `stacklstm evaluate` or
`predict` with default options but for the horizon, run as a user would. Finished cells are kept in the
results file and not run again. `--train` adds options to each `stacklstm train`. AutoETS, beside the short series,
comes with `pip install 'stacklstm[baselines]'`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PROGRAM = [sys.executable, "-m", "stacklstm_cli"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
TRAIN_OPTIONS: list[str] = []
"""Further options of every training, from the command line."""
Cell = dict[str, Any]
Roles = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Task:
    """One row of the table: what is run, on which files, and how it is scored."""

    name: str
    files: tuple[str, ...]
    run: Callable[[Path, Path, int], Cell]
    target: str


def stacklstm(*words: str) -> tuple[str, float]:
    """Standard output and seconds of one command, cold start included. Ends the benchmark if it fails."""
    begin = time.perf_counter()
    words = (*words, *TRAIN_OPTIONS) if words[0] == "train" else words
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        sys.exit(f"stacklstm {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout, time.perf_counter() - begin


def rolling(file: str, horizon: int, origins: int) -> Callable[[Path, Path, int], Cell]:
    """One short series: train on the rows before the origins, score all origins without refitting."""

    def run(data: Path, folder: Path, seed: int) -> Cell:
        table = pd.read_csv(data / file)
        cut = len(table) - horizon * origins
        table.iloc[:cut].to_csv(folder / "train.csv", index=False)
        model = str(folder / "m.safetensors")
        _, seconds = stacklstm(
            "train", str(folder / "train.csv"), "-m", model, "--horizon", str(horizon), "--seed", str(seed)
        )
        text, _ = stacklstm("evaluate", str(data / file), "-m", model, "--format", "json", "--baselines", "auto_ets")
        metrics = json.loads(text)["metrics"]
        own, naive = metrics["stacklstm"], metrics["seasonal_naive"]
        ratio = own["mase"] / naive["mase"]
        return {
            "mase": own["mase"],
            "seasonal_naive": naive["mase"],
            "ratio": ratio,
            "auto_ets": metrics["auto_ets"]["mase"],
            "smape": own["smape"],
            "seconds": seconds,
        }

    return run


def with_covariates(file: str, target: str, end: str, horizon: int, roles: Roles) -> Callable[[Path, Path, int], Cell]:
    """One series with and without its covariates: train on the rows before `end`, score the rest, a horizon apart."""

    def run(data: Path, folder: Path, seed: int) -> Cell:
        table = pd.read_csv(data / file)
        table[table["timestamp"] < end].to_csv(folder / "train.csv", index=False)
        cell: Cell = {}
        for name, options in (("without", {}), ("with", roles)):
            model = str(folder / f"{name}.safetensors")
            words = ["--target", target, "--horizon", str(horizon), "--seed", str(seed), "-m", model]
            words += [word for role, columns in options.items() for word in (f"--{role}", ",".join(columns))]
            _, cell[f"{name}_seconds"] = stacklstm("train", str(folder / "train.csv"), *words)
            text, _ = stacklstm("evaluate", str(data / file), "-m", model, "--format", "json")
            metrics = json.loads(text)["metrics"]
            cell[f"{name}_mae"] = metrics["stacklstm"]["mae"]
        cell["seasonal_naive_mae"] = metrics["seasonal_naive"]["mae"]
        return cell | {"ratio": cell["with_mae"] / cell["without_mae"]}

    return run


def long_horizon(file: str, borders: tuple[int, int, int], horizon: int) -> Callable[[Path, Path, int], Cell]:
    """All columns, standardised by the training rows; every window of the test part, stride 1.

    Train and validation rows go to `train`, which keeps its own validation and refits on all of them.
    """

    def run(data: Path, folder: Path, seed: int) -> Cell:
        table = pd.read_csv(data / file).iloc[: borders[2]]
        columns = table.columns[1:]
        train = table[columns].iloc[: borders[0]]
        table[columns] = (table[columns] - train.mean()) / train.std(ddof=0)
        table.to_csv(folder / "all.csv", index=False)
        table.iloc[: borders[1]].to_csv(folder / "train.csv", index=False)
        model = str(folder / "m.safetensors")
        _, seconds = stacklstm(
            "train", str(folder / "train.csv"), "-m", model, "--horizon", str(horizon), "--seed", str(seed)
        )
        text, scoring = stacklstm("evaluate", str(folder / "all.csv"), "-m", model, "--step", "1", "--format", "json")
        document = json.loads(text)
        own = document["metrics"]["stacklstm"]
        origins = document["backtest"]["origins"]
        expected = borders[2] - borders[1] - horizon + 1
        if origins != expected:
            sys.exit(f"{file}: {origins} origins were scored, the protocol has {expected}")
        return {
            "mse": own["rmse"] ** 2,
            "mae": own["mae"],
            "origins": origins,
            "seconds": seconds,
            "evaluate_seconds": scoring,
        }

    return run


def competition(name: str, horizon: int, season: int) -> Callable[[Path, Path, int], Cell]:
    """All series of a set of a competition: one forecast each, scored by M4's formulas."""

    def run(data: Path, folder: Path, seed: int) -> Cell:
        source, model = data / f"{name}_train.csv.gz", str(folder / "m.safetensors")
        words = ["train", str(source), "-m", model, "--horizon", str(horizon), "--seed", str(seed)]
        _, seconds = stacklstm(*words, "--seasonality", str(season))
        stacklstm("predict", str(source), "-m", model, "-o", str(folder / "f.csv"))
        forecast = pd.read_csv(folder / "f.csv")
        train, test = pd.read_csv(source), pd.read_csv(data / f"{name}_test.csv")
        own = m4_scores(train, test, forecast["forecast"].to_numpy(), season)
        if (data / f"{name}_naive2.csv").exists():
            naive = pd.read_csv(data / f"{name}_naive2.csv")
            reference = m4_scores(train, test, naive["naive2"].to_numpy(), season)
            own["owa"] = (own["smape"] / reference["smape"] + own["mase"] / reference["mase"]) / 2
            own["seasonal_naive"] = m4_scores(train, test, naive["snaive"].to_numpy(), season)["mase"]
        return {**own, "seconds": seconds}

    return run


def classified(name: str) -> Callable[[Path, Path, int], Cell]:
    """One label per series, the archive's split: learned from the training file, scored once on the test file.

    The accuracy is computed here from what `predict` writes for the test file without its labels; `evaluate` must
    find the same.
    """

    def run(data: Path, folder: Path, seed: int) -> Cell:
        source, test, model = data / f"{name}_train.csv", data / f"{name}_test.csv", str(folder / "m.safetensors")
        _, seconds = stacklstm("train", str(source), "--label", "label", "-m", model, "--seed", str(seed))
        table = pd.read_csv(test, dtype={"series_id": str, "label": str})
        table.drop(columns="label").to_csv(folder / "unlabelled.csv", index=False)
        begin = time.perf_counter()
        stacklstm("predict", str(folder / "unlabelled.csv"), "-m", model, "-o", str(folder / "p.csv"))
        predicting = time.perf_counter() - begin
        predicted = pd.read_csv(folder / "p.csv", dtype={"series_id": str, "label": str}).set_index("series_id")[
            "label"
        ]
        truth = table.groupby("series_id", sort=False)["label"].first()
        accuracy = float((predicted.reindex(truth.index) == truth).mean())
        text, _ = stacklstm("evaluate", str(test), "-m", model, "--format", "json")
        metrics = json.loads(text)["metrics"]
        if abs(metrics["stacklstm"]["accuracy"] - accuracy) > 1e-9:
            sys.exit(f"{name}: evaluate says {metrics['stacklstm']['accuracy']}, the predictions {accuracy}")
        return {
            "accuracy": accuracy,
            "macro_f1": metrics["stacklstm"]["macro_f1"],
            "log_loss": metrics["stacklstm"]["log_loss"],
            "calibration_error": metrics["stacklstm"]["calibration_error"],
            "nearest_neighbour": metrics["nearest_neighbour"]["accuracy"],
            "series": len(truth),
            "seconds": seconds,
            "predict_seconds": predicting,
        }

    return run


def m4_scores(train: pd.DataFrame, test: pd.DataFrame, forecast: np.ndarray, season: int) -> Cell:
    """sMAPE (0 to 200) and MASE, mean over the horizon and then over the series."""
    smapes, mases = [], []
    history = {key: group.to_numpy() for key, group in train.groupby("series_id")["value"]}
    for key, rows in test.reset_index(drop=True).groupby("series_id"):
        actual, guess = rows["value"].to_numpy(), forecast[rows.index]
        smapes.append(np.mean(200 * np.abs(actual - guess) / (np.abs(actual) + np.abs(guess))))
        mases.append(np.mean(np.abs(actual - guess)) / np.mean(np.abs(history[key][season:] - history[key][:-season])))
    return {"smape": float(np.mean(smapes)), "mase": float(np.mean(mases))}


SERIES = [
    # file, horizon, origins
    ("airpassengers", 12, 4),
    ("co2_weekly", 13, 12),
    ("daily_female_births", 7, 12),
    ("daily_min_temperatures", 7, 12),
    ("sunspots_monthly", 12, 12),
    ("sunspots_yearly", 5, 12),
]
BIKES, AIR = "covariates/bike_sharing_hourly.csv.gz", "covariates/beijing_pm25.csv.gz"
BIKES_KNOWN = ("holiday", "workingday", "weather", "temp", "atemp", "hum", "windspeed")
AIR_KNOWN = ("DEWP", "TEMP", "PRES", "cbwd", "Iws", "Is", "Ir")
ETT_BORDERS = {"ETTh1": (8640, 11520, 14400), "ETTm1": (34560, 46080, 57600)}
"""Rows up to which the published protocols train, validate and test; others split 7 to 1 to 2."""
LONG_HORIZON = [
    # name, file, borders, horizon, target
    *(
        (f"{name.lower()}_{horizon}", f"long_horizon/{name}.csv.gz", ETT_BORDERS[name], horizon, target)
        for name, horizon, target in (
            ("ETTh1", 96, "MSE <= .365, MAE <= .388, 180 s"),
            ("ETTh1", 192, "MSE <= .400, 180 s"),
            ("ETTh1", 336, "MSE <= .425, 180 s"),
            ("ETTh1", 720, "MSE <= .450, 180 s"),
            ("ETTm1", 96, "MSE <= .300, 180 s"),
            ("ETTm1", 336, "MSE <= .370, 180 s"),
        )
    ),
    ("exchange_96", "long_horizon/exchange_rate.csv", (5311, 6071, 7588), 96, "MSE <= .086, 180 s"),
    ("ili_24", "long_horizon/national_illness.csv", (676, 773, 966), 24, "MSE <= 1.9, 180 s"),
]
COMPETITIONS = [
    # name, file, horizon, season, target
    ("m4_hourly", "m4/m4_hourly", 48, 24, "sMAPE <= 10.2, OWA <= .46, 480 s"),
    ("m4_weekly", "m4/m4_weekly", 13, 1, "sMAPE <= 7.1, OWA <= .77, 480 s"),
    ("m4_monthly", "m4/m4_monthly", 18, 12, "OWA <= .83, 120 s"),
    ("m3_monthly", "m3_tourism/m3_monthly", 18, 12, "sMAPE <= 14.2, 120 s"),
]
CLASSIFICATION = [
    # name, target
    ("JapaneseVowels", "accuracy >= .98, 300 s"),
    ("ItalyPowerDemand", "accuracy >= .96, 300 s"),
    ("BasicMotions", "accuracy 1.00, 300 s"),
]
TASKS = [
    Task("air12", ("univariate/airpassengers.csv",), rolling("univariate/airpassengers.csv", 12, 1), "sMAPE < 5"),
    *(
        Task(name, (f"univariate/{name}.csv",), rolling(f"univariate/{name}.csv", horizon, origins), "ratio < 1")
        for name, horizon, origins in SERIES
    ),
    Task(
        "bikes",
        (BIKES,),
        with_covariates(BIKES, "users", "2012-09-01", 24, {"known": BIKES_KNOWN}),
        "ratio <= .9",
    ),
    Task(
        "beijing",
        (AIR,),
        with_covariates(AIR, "pm2.5", "2014-01-01", 24, {"known": AIR_KNOWN}),
        "ratio < 1",
    ),
    *(
        Task(name, (file,), long_horizon(file, borders, horizon), target)
        for name, file, borders, horizon, target in LONG_HORIZON
    ),
    *(
        Task(name, (f"{file}_train.csv.gz", f"{file}_test.csv"), competition(file, horizon, season), target)
        for name, file, horizon, season, target in COMPETITIONS
    ),
    *(
        Task(
            name.lower(),
            tuple(f"classification/{name}_{part}.csv" for part in ("train", "test")),
            classified(f"classification/{name}"),
            target,
        )
        for name, target in CLASSIFICATION
    ),
]


def commit() -> str:
    """What is measured: the present commit of this folder, with a + where files were changed since; "" without git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", help="names of tasks, with commas: " + ",".join(task.name for task in TASKS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--results", type=Path, help="JSON file that keeps finished cells")
    parser.add_argument("--train", default="", help="further options of every training")
    asked = parser.parse_args()
    if importlib.util.find_spec("statsforecast") is None:
        sys.exit("AutoETS is compared with: pip install 'stacklstm[baselines]'")
    TRAIN_OPTIONS.extend(shlex.split(asked.train))
    kept: dict[str, Cell] = json.loads(asked.results.read_text()) if asked.results and asked.results.exists() else {}
    names = asked.only.split(",") if asked.only else [task.name for task in TASKS]
    for task in [task for task in TASKS if task.name in names]:
        missing = [file for file in task.files if not (asked.data / file).exists()]
        if missing:
            print(f"{task.name}: passed over, {asked.data} lacks {', '.join(missing)}")
            continue
        for seed in asked.seeds.split(","):
            key = "/".join([task.name, seed, *([asked.train] if asked.train else [])])
            if key not in kept:
                with tempfile.TemporaryDirectory() as folder:
                    kept[key] = task.run(asked.data, Path(folder), int(seed)) | {"commit": commit()}
                if asked.results:
                    asked.results.write_text(json.dumps(kept, indent=1))
            cell = "  ".join(
                f"{name} {value if isinstance(value, str) else format(value, '.4g')}"
                for name, value in kept[key].items()
            )
            print(f"{key:28s} {cell}   (target: {task.target})", flush=True)


if __name__ == "__main__":
    main()
