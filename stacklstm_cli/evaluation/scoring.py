"""Which rows of a file a saved model may be scored on, by which of its weights.

N series, O origins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from stacklstm_cli.config import MEDIAN, EvaluationConfig, MetricConfig, interval_quantiles
from stacklstm_cli.data.origins import Origins, plan_origins
from stacklstm_cli.data.panel import Ints, Panel
from stacklstm_cli.errors import DataError, UsageError
from stacklstm_cli.evaluation.backtest import Backtest, backtest
from stacklstm_cli.evaluation.baselines import standard_baselines
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.forecaster import Forecaster

Rows = Literal["new rows", "holdout", "in sample"]
EXPLANATIONS: dict[Rows, str] = {
    "new rows": "scored: rows after the last training row, by the final weights",
    "holdout": "scored: the holdout of the training, by the weights that have not seen it (no horizon of newer "
    "rows to score)",
    "in sample": "scored IN SAMPLE: rows that the weights were trained on; expect worse on new ones",
}


@dataclass(frozen=True)
class Scored:
    """A backtest of a saved model, and what it was made on."""

    backtest: Backtest
    rows: Rows
    step: int


def evaluate(
    checkpoint: Checkpoint,
    panel: Panel,
    config: EvaluationConfig,
    metrics: MetricConfig,
    device: torch.device,
) -> Scored:
    """Backtest the saved model beside the baselines on the rows it may be scored on.

    New rows by the final weights, where there is a horizon of them; else the holdout by the judged weights.
    Raises `UsageError` for a range that makes no sense, `DataError` where no origin is left.
    """
    horizon = checkpoint.spec.horizon
    step = config.step or horizon
    rows, origins = choose_origins(checkpoint, panel, config, step)
    weights = checkpoint.judged if rows == "holdout" and checkpoint.judged is not None else checkpoint.final
    seasonality = metrics.seasonality or checkpoint.seasonality
    asked = {*config.quantiles, *interval_quantiles(config.interval)}
    quantiles = sorted({*(asked or checkpoint.spec.quantiles), MEDIAN})
    predictors = {MODEL: Forecaster(checkpoint.network(weights), device), **standard_baselines(seasonality)}
    return Scored(backtest(predictors, panel, origins, horizon, quantiles, seasonality), rows, step)


def choose_origins(checkpoint: Checkpoint, panel: Panel, config: EvaluationConfig, step: int) -> tuple[Rows, Origins]:
    """The rows to score and the origins in them."""
    lengths, horizon = panel.lengths, checkpoint.spec.horizon
    start = position(panel, "--start", config.start)
    end = position(panel, "--end", config.end)
    last = lengths if end is None else np.clip(end + 1 - panel.starts, 0, lengths)
    if start is not None and end is not None and end < start:
        raise UsageError(f"--end {config.end} is before --start {config.start}.", code="empty_range")

    def plan(first: Ints, last: Ints) -> Origins:
        if start is not None:
            first = np.maximum(start - panel.starts, 0)
        return plan_origins(first, last, horizon, step, config.origins, "end" if start is None else "start")

    context = np.minimum(checkpoint.spec.context_length, np.maximum(lengths - horizon, 1))
    new = checkpoint.rows_of(panel, checkpoint.trained_to, unseen=context)
    if config.in_sample:
        rows: Rows = "in sample"
        origins = plan(context, last)
    else:
        if start is not None:
            refuse_trained(checkpoint, panel, config, start, new)
        rows, origins = "new rows", plan(new, last)
        if not len(origins) and start is None:
            rows = "holdout"
            held = checkpoint.rows_of(panel, checkpoint.data_to, unseen=np.zeros_like(lengths))
            origins = plan(checkpoint.rows_of(panel, checkpoint.judged_to, unseen=lengths), np.minimum(last, held))
    if not len(origins):
        raise nothing_to_score(checkpoint, panel, config, new)
    return rows, origins


def position(panel: Panel, option: str, text: str | None) -> int | None:
    """A time stamp from the command line as a position on the panel's grid.

    The first row at or after `--start`, the last at or before `--end`.
    """
    if text is None:
        return None
    try:
        stamp = panel.time_form.parse_stamp(text, end=option == "--end")
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint, code=error.code) from error
    return panel.step.floor(stamp) if option == "--end" else panel.step.ceil(stamp)


def refuse_trained(checkpoint: Checkpoint, panel: Panel, config: EvaluationConfig, start: int, new: Ints) -> None:
    """Raise `UsageError` where `--start` would score rows that the final weights have trained on."""
    begin = start - panel.starts  # [N]
    known = set(checkpoint.keys)
    seen = np.asarray([key in known for key in panel.keys])
    inside = seen & (begin < new) & (begin < panel.lengths)
    if inside.any():
        trained = panel.stamps([int((panel.starts + new)[inside].max()) - 1])[0]
        raise UsageError(
            f"--start {config.start} is inside the rows this model was trained on, which end at {trained}.",
            hint="Give a later --start, or add --in-sample to score rows the model has seen.",
            code="start_in_trained_rows",
        )


def nothing_to_score(checkpoint: Checkpoint, panel: Panel, config: EvaluationConfig, new: Ints) -> Exception:
    """The error for a file or a range without a single origin, with the arithmetic."""
    horizon = checkpoint.spec.horizon
    first, last = panel.stamps([int(panel.starts.min()), int(panel.ends.max()) - 1])
    if config.start is not None or config.end is not None:
        return UsageError(
            f"No forecast of {horizon} rows fits between --start and --end; the data runs from {first} to {last}.",
            hint="Give a wider range.",
            code="no_origin",
        )
    most = int(np.maximum(panel.lengths - new, 0).max())
    return DataError(
        f"Nothing to score: the file has at most {most} rows after the last training row, a forecast covers "
        f"{horizon}, and it does not hold the model's holdout.",
        hint="Wait for more rows, or add --in-sample to score rows the model has seen.",
        code="no_origin",
    )
