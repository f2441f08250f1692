"""The JSON documents: what a command found, in the one envelope that all of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stacklstm_cli import STARTED
from stacklstm_cli.config import MetricConfig
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.evaluation.scoring import Scored
from stacklstm_cli.evaluation.verdict import verdict
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.training.defaults import Plan
from stacklstm_cli.training.fitting import Outcome, describe, describe_backtest
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
    facts = describe_backtest(backtest)
    found: dict[str, Any] = {
        "verdict": verdict(table, facts["origins"], facts["series"], backtest.seasonality),
        "metrics": table,
        "backtest": facts | {"step": step, "seasonality": backtest.seasonality, "undefined": backtest.undefined},
    }
    return found | ({"per_series": backtest.per_series()} if metrics.per_series else {})


def training_document(
    path: Path, panel: Panel, plan: Plan, outcome: Outcome, clock: Clock, metrics: MetricConfig
) -> dict[str, Any]:
    """What `train` found."""
    fits = outcome.fits
    timed = [fit for fit in fits if fit.windows_per_second]
    steady = sum(fit.windows / fit.windows_per_second for fit in timed if fit.windows_per_second)
    document = envelope("train", path, panel, outcome.checkpoint, "stopped" if outcome.stopped else "ok")
    if outcome.judgement is not None:
        document |= judged(outcome.judgement, plan.spec.horizon, metrics)
    else:
        document |= {"verdict": f"Saved {path}; nothing was judged.", "metrics": {}}
    document["training"] = {
        "windows_per_second": sum(fit.windows for fit in timed) / steady if timed else None,
        "windows": sum(fit.windows for fit in fits),
        "seconds": sum(fit.seconds for fit in fits),
        "seconds_before_training": (clock.started or STARTED) - STARTED,
        "first_epoch_seconds": fits[0].first_epoch_seconds,
        "epochs": outcome.checkpoint.training["epochs"],
        "steps": outcome.checkpoint.training["steps"],
        "processes": 1,
    }
    return document


def score_document(
    path: Path, panel: Panel, checkpoint: Checkpoint, scored: Scored, metrics: MetricConfig
) -> dict[str, Any]:
    """What `evaluate` found."""
    document = envelope("evaluate", path, panel, checkpoint) | judged(scored.backtest, scored.step, metrics)
    document["backtest"]["rows"] = scored.rows
    return document


def forecast_document(path: Path, panel: Panel, checkpoint: Checkpoint) -> dict[str, Any]:
    """What `predict` knows beside its forecasts."""
    return envelope("predict", path, panel, checkpoint)
