"""The JSON documents: what a command found, in the one envelope that all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stacklstm_cli import STARTED
from stacklstm_cli.config import MetricConfig
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.evaluation.comparison import LEVEL
from stacklstm_cli.evaluation.saved import Arrived, Saved
from stacklstm_cli.evaluation.scoring import Scored
from stacklstm_cli.evaluation.verdict import verdict
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.training.defaults import Plan
from stacklstm_cli.training.fitting import Outcome, describe, describe_backtest
from stacklstm_cli.training.loop import Fit
from stacklstm_cli.training.placement import Places
from stacklstm_cli.training.runtime import Clock

SCHEMA = 1


def envelope(command: str, path: Path, panel: Panel, checkpoint: Checkpoint, status: str = "ok") -> dict[str, Any]:
    """What every document begins with."""
    spec = checkpoint.spec
    return {
        "schema": SCHEMA,
        "command": command,
        "status": status,
        "model": {
            "path": str(path),
            "id": checkpoint.id,
            "layers": spec.layers,
            **spec.as_dict(),
            "seasonality": checkpoint.seasonality,
        },
        "data": describe(panel) | {"sha256": panel.sha256},
    }


def judged(backtest: Backtest, step: int, metrics: MetricConfig) -> dict[str, Any]:
    """The verdict, the table and the origins behind it."""
    table = backtest.metrics()
    text, baseline, comparison = verdict(backtest, table)
    found: dict[str, Any] = {
        "verdict": text,
        "comparison": None if comparison is None else {"baseline": baseline, **asdict(comparison), "level": LEVEL},
        "metrics": table,
        "backtest": describe_backtest(backtest)
        | {
            "step": step,
            "seasonality": backtest.seasonality,
            "undefined": backtest.undefined,
            "points": int(np.isfinite(backtest.actual).sum()),
        },
    }
    if metrics.per_series:
        found["per_series"] = backtest.per_series()
    if metrics.per_step:
        found["per_step"] = backtest.per_step()
    return found


def training_document(
    path: Path, panel: Panel, plan: Plan, outcome: Outcome, clock: Clock, places: Places, metrics: MetricConfig
) -> dict[str, Any]:
    """What `train` found."""
    document = envelope("train", path, panel, outcome.checkpoint, "stopped" if outcome.stopped else "ok")
    if outcome.judgement is not None:
        document |= judged(outcome.judgement, plan.spec.horizon, metrics)
    else:
        document |= {"verdict": f"Saved {path}; nothing was judged.", "comparison": None, "metrics": {}}
    document["training"] = effort(outcome.fits, outcome.checkpoint, clock, places)
    return document


def effort(fits: Sequence[Fit], checkpoint: Checkpoint, clock: Clock, places: Places) -> dict[str, Any]:
    """How much was trained, where and how fast: seconds are those of the clock, speed is that of steady state."""
    timed = [fit for fit in fits if fit.windows_per_second]
    steady = sum(fit.windows / fit.windows_per_second for fit in timed if fit.windows_per_second)
    return {
        "windows_per_second": sum(fit.windows for fit in timed) / steady if timed else None,
        "windows": sum(fit.windows for fit in fits),
        "seconds": sum(fit.seconds for fit in fits),
        "seconds_before_training": (clock.started or STARTED) - STARTED,
        "first_epoch_seconds": fits[0].first_epoch_seconds,
        "epochs": checkpoint.training["epochs"],
        "steps": checkpoint.training["steps"],
        "processes": fits[0].processes,
        **places.as_dict(),
    }


def score_document(
    path: Path, panel: Panel, checkpoint: Checkpoint, scored: Scored, metrics: MetricConfig
) -> dict[str, Any]:
    """What `evaluate` found."""
    document = envelope("evaluate", path, panel, checkpoint) | judged(scored.backtest, scored.step, metrics)
    document["backtest"] |= {"rows": scored.rows, **asdict(scored.tally)}
    if scored.rows == "in sample":
        document["verdict"] = f"IN SAMPLE: {document['verdict']}"
    return document


def saved_document(path: str, panel: Panel, saved: Saved, arrived: Arrived, metrics: MetricConfig) -> dict[str, Any]:
    """What `evaluate --against` found."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "command": "evaluate",
        "status": "ok",
        "data": describe(panel) | {"sha256": panel.sha256},
    }
    first = panel.stamps([int(saved.starts.min())])[0]
    if arrived.backtest is None:
        last = panel.stamps([int(panel.ends.max()) - 1])[0]
        document |= {
            "verdict": f"Nothing to score yet: the forecast begins at {first}, the data ends at {last}."
            if arrived.rows_awaited
            else "Nothing to score: DATA has no value in any row that was forecast.",
            "metrics": {},
        }
    else:
        document |= judged(arrived.backtest, arrived.backtest.horizon, metrics)
    span = arrived.span
    document["forecast"] = {
        "path": path,
        "first": None if span is None else panel.stamps([span[0]])[0],
        "last": None if span is None else panel.stamps([span[1]])[0],
        "series": len(saved.keys),
        "rows": arrived.rows,
        "rows_scored": arrived.rows - arrived.rows_awaited - arrived.rows_missing,
        "rows_awaited": arrived.rows_awaited,
        "rows_missing": arrived.rows_missing,
    }
    return document


def saved_line(document: Mapping[str, Any]) -> dict[str, Any]:
    """What `--append` keeps of that: the same figures for the same files, whenever it is run."""
    facts = {name: value for name, value in document["forecast"].items() if name != "path"}
    season = document.get("backtest", {}).get("seasonality")
    return {
        "schema": SCHEMA,
        "forecast": document["forecast"]["path"],
        **facts,
        "seasonality": season,
        "metrics": document["metrics"],
    }


def forecast_document(path: Path, panel: Panel, checkpoint: Checkpoint) -> dict[str, Any]:
    """What `predict` knows beside its forecasts."""
    return envelope("predict", path, panel, checkpoint)
