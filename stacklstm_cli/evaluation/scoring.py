"""Which rows of a file a saved model may be scored on, by which of its weights.

N series, O origins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from stacklstm_cli.config import MEDIAN, EvaluationConfig, MetricConfig, interval_quantiles
from stacklstm_cli.data.origins import Origins, Tally, plan_origins, tally
from stacklstm_cli.data.panel import Ints, Panel
from stacklstm_cli.errors import DataError, UsageError
from stacklstm_cli.evaluation.backtest import Backtest, Predictor, backtest
from stacklstm_cli.evaluation.baselines import standard_baselines
from stacklstm_cli.evaluation.statistical import Statistical, added, asked_for
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.ranks import ALONE, Ranks

Rows = Literal["new rows", "holdout", "in sample"]
EXPLANATIONS: dict[Rows, str] = {
    "new rows": "scored: rows after the last training row, by the final weights",
    "holdout": "scored: the holdout of the training, by the weights that have not seen it (no horizon of newer "
    "rows to score)",
    "in sample": "scored IN SAMPLE: rows that the weights were trained on; expect worse on new ones",
}
REFITTED: dict[Rows, str] = {
    "new rows": "scored: rows after the last training row, by networks fitted anew on the rows before them",
    "holdout": "scored: the holdout of the training, by networks fitted anew on the rows before it (no horizon of "
    "newer rows to score)",
    "in sample": "scored IN SAMPLE: by networks fitted anew on earlier rows, whose settings were chosen on these rows",
}
"""The same where --refit-every replaces the weights."""
MOST_NUMBERS = 2**29
"""Forecast numbers of all predictors that are held in memory, 8 bytes each."""


@dataclass(frozen=True)
class Chosen:
    """The rows that may be scored, and the origins in them."""

    rows: Rows
    origins: Origins
    first: Ints
    """[N] first row of each series that may be scored; less than 1 where its first rows have no past."""
    last: Ints
    """[N] one after the last such row."""


@dataclass(frozen=True)
class Scored:
    """A backtest of a saved model, and what it was made on."""

    backtest: Backtest
    rows: Rows
    step: int
    tally: Tally
    refitted: bool

    @property
    def explanation(self) -> str:
        """Which rows were scored by what, for a person."""
        return (REFITTED if self.refitted else EXPLANATIONS)[self.rows]


def evaluate(
    checkpoint: Checkpoint,
    panel: Panel,
    config: EvaluationConfig,
    metrics: MetricConfig,
    device: torch.device,
    refitting: Callable[[Forecaster, Origins], Predictor] | None = None,
    tell: Callable[[str], None] = lambda note: None,
    ranks: Ranks = ALONE,
) -> Scored:
    """Backtest the saved model beside the baselines on the rows it may be scored on.

    New rows by the final weights, where there is a horizon of them; else the holdout by the judged weights.
    `refitting` makes, of the forecaster and the origins, a predictor that is fitted anew on the way; `tell` takes
    what a person should know of the baselines. Several `ranks` share the forecasts; only what the first of them
    returns is of use.
    Raises `UsageError` for a range that makes no sense, `DataError` where no origin is left.
    """
    with ranks.agreeing():
        horizon = checkpoint.spec.horizon
        step = config.step or horizon
        chosen = choose_origins(checkpoint, panel, config, step)
        rows, origins = chosen.rows, chosen.origins
        seasonality = metrics.seasonality or checkpoint.seasonality
        asked = {*config.quantiles, *interval_quantiles(config.interval)}
        quantiles = sorted({*(asked or checkpoint.spec.quantiles), MEDIAN})
        # Without a refit the rows after the last training row begin with the holdout, which the final calibration
        # knows.
        held = rows == "holdout" or (rows == "new rows" and not checkpoint.knows_holdout)
        forecaster = checkpoint.judged_forecaster(device) if held else checkpoint.forecaster(device)
        forecaster.check(horizon, quantiles)
        model = forecaster if refitting is None else refitting(forecaster, origins)
        baselines = baselines_for(metrics.baselines, origins, seasonality, tell)
        refuse_too_many(origins, horizon * len(quantiles) * (1 + len(baselines)), step)
    found = backtest({MODEL: model, **baselines}, panel, origins, horizon, quantiles, seasonality, ranks)
    tell_of(baselines, tell, ranks)
    return Scored(
        found,
        rows,
        step,
        tally(panel, origins, horizon, chosen.first, chosen.last),
        refitting is not None,
    )


def baselines_for(
    names: Sequence[str], origins: Origins, seasonality: int, tell: Callable[[str], None]
) -> dict[str, Predictor]:
    """The naive baselines and those that are named; where none is named, those that take seconds."""
    statistical = asked_for(names, seasonality)
    if not names:
        statistical, note = added(origins, seasonality)
        if note:
            tell(note)
    return {**standard_baselines(seasonality), **statistical}


def tell_of(baselines: Mapping[str, Predictor], tell: Callable[[str], None], ranks: Ranks = ALONE) -> None:
    """Say what became of the baselines that are fitted, by all processes together."""
    for one in baselines.values():
        if isinstance(one, Statistical):
            one.add_up(ranks)
            tell(one.explained())


def choose_origins(checkpoint: Checkpoint, panel: Panel, config: EvaluationConfig, step: int) -> Chosen:
    """The rows to score and the origins in them."""
    lengths, horizon = panel.lengths, checkpoint.spec.horizon
    start = position(panel, "--start", config.start)
    end = position(panel, "--end", config.end)
    last = lengths if end is None else np.clip(end + 1 - panel.starts, 0, lengths)
    if start is not None and end is not None and end < start:
        raise UsageError(f"--end {config.end} is before --start {config.start}.", code="empty_range")

    def plan(rows: Rows, first: Ints, last: Ints) -> Chosen:
        if start is not None:
            first = start - panel.starts
        count_from: Literal["start", "end"] = "end" if start is None else "start"
        return Chosen(rows, plan_origins(first, last, horizon, step, config.origins, count_from), first, last)

    context = np.minimum(checkpoint.spec.context_length, np.maximum(lengths - horizon, 1))
    new = checkpoint.rows_of(panel, checkpoint.trained_to, unseen=context)
    if config.in_sample:
        chosen = plan("in sample", context, last)
    else:
        if start is not None:
            refuse_trained(checkpoint, panel, config, start, new)
        chosen = plan("new rows", new, last)
        if not len(chosen.origins) and start is None:
            held = checkpoint.rows_of(panel, checkpoint.data_to, unseen=np.zeros_like(lengths))
            judged = checkpoint.rows_of(panel, checkpoint.judged_to, unseen=lengths)
            chosen = plan("holdout", judged, np.minimum(last, held))
    if not len(chosen.origins):
        raise nothing_to_score(checkpoint, panel, config, new)
    return chosen


def refuse_too_many(origins: Origins, numbers: int, step: int) -> None:
    """Raise `UsageError` where the forecasts, so many numbers for each origin, would not fit into memory."""
    total = len(origins) * numbers
    if total > MOST_NUMBERS:
        fewer = -(-total // MOST_NUMBERS)
        most = int(np.bincount(origins.series).max())
        raise UsageError(
            f"{len(origins):,} forecasts beside the baselines' would take {total * 8 / 1e9:.0f} GB of memory.",
            hint=f"Give --step {fewer * step} or more, or --origins {max(most // fewer, 1)} or fewer.",
            code="too_many_origins",
        )


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
