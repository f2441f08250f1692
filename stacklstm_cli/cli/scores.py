"""What `evaluate` does once it is parsed: a saved model on rows it has not seen, or a saved forecast on what came."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stacklstm_cli.cli.charts import Picture, backtest_picture
from stacklstm_cli.cli.documents import saved_document, saved_line, score_document
from stacklstm_cli.cli.grids import plain
from stacklstm_cli.cli.messages import Messages
from stacklstm_cli.cli.pictures import check_pictures, drawn
from stacklstm_cli.cli.progress import TrainingProgress
from stacklstm_cli.cli.report import (
    check_forecasts,
    check_output,
    refuse_overwriting,
    write_document,
    write_forecasts,
)
from stacklstm_cli.cli.runs import diagnosed, finished, read, refuse_shared, require_same
from stacklstm_cli.cli.webpage import write_page
from stacklstm_cli.config import (
    BASELINES,
    POINT_LOSSES,
    EvaluationConfig,
    ForecastRuntimeConfig,
    MetricConfig,
    OutputConfig,
    PictureConfig,
    ReadingConfig,
    option_name,
)
from stacklstm_cli.data.opening import require_files
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import JudgementError, UsageError
from stacklstm_cli.evaluation.backtest import Backtest, Predictor
from stacklstm_cli.evaluation.saved import open_saved, read_actuals, read_saved, score_saved
from stacklstm_cli.evaluation.scoring import evaluate as score
from stacklstm_cli.evaluation.verdict import MODEL, worse_than
from stacklstm_cli.files import append_line, check_appendable
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.frame import backtest_frames, refuse_backtest_clash
from stacklstm_cli.ranks import Ranks
from stacklstm_cli.training import runtime as machine
from stacklstm_cli.training.defaults import season_of
from stacklstm_cli.training.placement import forecasting_device
from stacklstm_cli.training.refitting import Refitting

if TYPE_CHECKING:
    import torch

Compare = Callable[[Any, str], str]
"""From a table and a baseline to why the model is worse; "" where it is not."""
AGAINST = ("against", "append", "fail_if_worse_than", "report")
"""Options of evaluation that mean something for a saved forecast."""


def evaluate(
    sources: list[str],
    path: Path,
    config: EvaluationConfig,
    reading: ReadingConfig,
    metrics: MetricConfig,
    runtime: ForecastRuntimeConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
) -> None:
    """Score a saved model and write its table; several processes share the forecasts, and the first writes."""
    ranks = Ranks.of()
    refuse_shared(ranks, sources)
    with ranks.connected():
        with ranks.agreeing():
            device = machine.prepare(runtime, ranks=ranks)
            if ranks.leads:
                check_places(sources, path, config, output, pictures)
            require_files(sources)
            saved = checkpoints.load(path)
        if saved.spec.labels is not None:
            with ranks.agreeing():
                if ranks.leads:
                    evaluate_labels(
                        saved, sources, path, config, reading, metrics, runtime, device, output, pictures, messages
                    )
            return
        with ranks.agreeing():
            refuse_baseline(config.fail_if_worse_than, BASELINES, "forecasts")
            panel = read(sources, saved.data_config, reading, messages, saved, path)
            if config.forecasts is not None:
                refuse_backtest_clash(panel)
            most = panel.values.size // (config.step or saved.spec.horizon)
            windows = most if config.origins is None else min(most, config.origins * panel.n_series)
            device = forecasting_device(runtime, device, saved.spec, windows)
        asked = dataclasses.replace(config, forecasts=None, report=None)  # places where the first process writes
        require_same(ranks, saved, panel, device, asked, metrics, runtime.threads)
        with refits(saved, panel, config.refit_every, messages) as refitting:
            scored = score(saved, panel, config, metrics, device, refitting, messages.note, ranks)
    if not ranks.leads:
        return
    messages.note(scored.explanation)
    if scored.rows == "holdout" and panel.fingerprint() != saved.data["fingerprint"]:
        messages.note("the file is not the one that the model was trained on")
    if scored.tally.explained():
        messages.note(scored.tally.explained())
    diagnosed(scored.backtest, messages)
    document = score_document(path, panel, saved, scored, metrics)
    if config.forecasts is not None:
        write_backtest(scored.backtest, saved, config.forecasts, document)
        messages.note(f"wrote {config.forecasts}")

    def picture() -> Picture:
        return backtest_picture(scored.backtest, scored.step, scored.rows, f"model {path.name}")

    with gate(document, config.fail_if_worse_than), drawn(pictures, messages, picture):
        if config.report is not None:
            write_page(config.report, finished(document, messages), scored.backtest, picture(), messages)
        write_document(finished(document, messages), output)


def check_places(
    sources: list[str], path: Path, config: EvaluationConfig, output: OutputConfig, pictures: PictureConfig
) -> None:
    """Find out before the work whether everything can be written where it was asked for."""
    if config.append is not None:
        raise UsageError(
            "--append adds a line about a saved forecast, and none is given.",
            hint="Name the forecast with --against.",
            code="append_without_against",
        )
    check_output(output, path, *sources)
    others = [] if config.forecasts is None else [config.forecasts]
    check_pictures(pictures, output, path, *sources, *others, report=config.report)
    if config.forecasts is not None:
        check_forecasts(config.forecasts, path, *sources, *([output.output] if output.output else []))


def evaluate_labels(
    saved: checkpoints.Checkpoint,
    sources: list[str],
    path: Path,
    config: EvaluationConfig,
    reading: ReadingConfig,
    metrics: MetricConfig,
    runtime: ForecastRuntimeConfig,
    device: torch.device,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
) -> None:
    """Score a model of labels, which is done in a moment: several processes do not share it."""
    from stacklstm_cli.cli import labelling

    panel = labelling.read_for(saved, sources, reading, messages)
    device = forecasting_device(runtime, device, saved.spec, panel.n_series)
    given = labelling.differing(config, metrics) - {"in_sample", "fail_if_worse_than"}
    labelling.evaluate(saved, panel, path, device, given, output, pictures, messages, config.fail_if_worse_than)


def refuse_baseline(name: str | None, known: Sequence[str], what: str) -> None:
    """Raise `UsageError` for a baseline that is none of these models."""
    if name is not None and name not in known:
        raise UsageError(
            f"--fail-if-worse-than is {name!r}, which is no baseline of {what}; expected {', '.join(known)}.",
            hint=f"Type --fail-if-worse-than {known[-1]}.",
            code="unknown_baseline",
        )


@contextlib.contextmanager
def gate(document: dict[str, Any], baseline: str | None, compare: Compare = worse_than) -> Iterator[None]:
    """Mark the document of a model that is worse than this baseline and, once it is written, raise `JudgementError`."""
    worse = compare(document["metrics"], baseline) if baseline is not None else ""
    if worse:
        document["status"] = "refused"
    yield
    if worse:
        raise JudgementError(
            worse, hint=f"It was asked for by --fail-if-worse-than {baseline}.", code="worse_than_baseline"
        )


@contextlib.contextmanager
def refits(
    saved: checkpoints.Checkpoint, panel: Panel, every: int | None, messages: Messages
) -> Iterator[Callable[[Forecaster, Origins], Predictor] | None]:
    """What fits the network anew before every so many cutoffs, shown on a terminal and ended by a signal."""
    if every is None:
        yield None
        return
    clock = machine.Clock()
    with machine.signals_stop(clock), TrainingProgress(messages.progress_stream) as progress:

        def refitting(forecaster: Forecaster, origins: Origins) -> Predictor:
            found = Refitting(saved, forecaster, panel, origins, every, clock=clock, on_event=progress.update)
            messages.note(found.explained())
            return found

        yield refitting


def write_backtest(backtest: Backtest, saved: checkpoints.Checkpoint, place: str, document: dict[str, Any]) -> None:
    """Every forecast of the model, with what came."""
    values = backtest.forecasts[MODEL]  # [O, H, Q]
    point = values[:, :, backtest.quantiles.index(0.5)]  # [O, H]
    shown = () if saved.spec.loss in POINT_LOSSES else backtest.quantiles
    frames = backtest_frames(backtest.panel, backtest.origins, backtest.actual, point, values, shown)
    write_forecasts(frames, place, {name: document[name] for name in ("command", "model", "data", "backtest")})


def against(
    sources: list[str],
    model: Path | None,
    usual: Path | None,
    config: EvaluationConfig,
    reading: ReadingConfig,
    metrics: MetricConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
) -> None:
    """Score a saved forecast on the rows that have come since.

    DATA is read as the model reads it: the one that is typed, else the one of its name where there is one; else by
    the forecast's own columns.
    """
    if not Ranks.of().leads:  # nothing is forecast
        return
    forecast = str(config.against)
    refuse_without_effect(config)
    path = model or (usual if usual is not None and usual.exists() else None)
    taken: list[str | Path] = [forecast, *sources, *([path] if path is not None else [])]
    check_output(output, *taken)
    others = [] if config.append is None else [config.append]
    check_pictures(pictures, output, *taken, *others, report=config.report)
    if config.append is not None:
        refuse_overwriting("--append", config.append, [*taken, *([output.output] if output.output else [])])
        check_appendable(config.append)
    if forecast == "-" and "-" in sources:
        raise UsageError("DATA and --against are both standard input.", hint="Name a file for one of them.")
    require_files(sources)
    written = open_saved(forecast)
    saved = None if path is None else checkpoints.load(path)
    if saved is not None and saved.spec.labels is not None:
        from stacklstm_cli.cli.labelling import refuse_command

        raise refuse_command("--against", str(path), "Score its labels by evaluate without --against.")
    if saved is None:
        panel = read_actuals(sources, written, reading)
    else:
        panel = read_panel(sources, saved.data_config, saved.reading(reading), stored=saved.stored)
    for text in (*panel.notes, *([f"{path} says what the columns of DATA are"] if saved is not None else [])):
        messages.note(text)
    known = read_saved(written, panel, saved.reading(reading).tz if saved is not None else reading.tz)
    seasonality = metrics.seasonality or (
        saved.seasonality if saved is not None else season_of(panel.lengths, panel.step, None)
    )
    arrived = score_saved(known, panel, seasonality, forecast, metrics.baselines, messages.note)
    for text in arrived.explained():
        messages.note(text)
    document = saved_document(forecast, panel, known, arrived, metrics)
    if config.append is not None:
        line = json.dumps(plain(saved_line(document)), ensure_ascii=False, allow_nan=False) + "\n"
        append_line(config.append, line.encode("utf-8", "backslashreplace"))

    def picture() -> Picture | None:
        found = arrived.backtest
        label = f"forecast {Path(forecast).name}"
        return None if found is None else backtest_picture(found, found.horizon, "a saved forecast", label)

    with gate(document, config.fail_if_worse_than), drawn(pictures, messages, picture):
        if config.report is not None:
            write_page(config.report, finished(document, messages), arrived.backtest, picture(), messages)
        write_document(finished(document, messages), output)


def refuse_without_effect(config: EvaluationConfig) -> None:
    """Raise `UsageError` for an option of the backtest beside --against, which makes none, and a baseline of labels."""
    refuse_baseline(config.fail_if_worse_than, BASELINES, "forecasts")
    given = [field for field in dataclasses.fields(config) if getattr(config, field.name) != field.default]
    idle = [option_name(field) for field in given if field.name not in AGAINST]
    if idle:
        raise UsageError(
            f"--against scores a forecast as it is, so {', '.join(idle)} would do nothing.",
            hint="Leave out one of them.",
            code="options_exclude_each_other",
        )
