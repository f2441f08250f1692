"""What the commands do once they are parsed: read, one call to the core, report.

This is where torch and pandas are imported, so that `--help` need not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklstm_cli import STARTED
from stacklstm_cli.cli.charts import MOST_FORECASTS, Picture, forecast_picture
from stacklstm_cli.cli.documents import forecast_document, training_document
from stacklstm_cli.cli.losses import Losses, training_picture
from stacklstm_cli.cli.messages import Messages
from stacklstm_cli.cli.options import Typed
from stacklstm_cli.cli.pictures import check_pictures, drawn
from stacklstm_cli.cli.progress import TrainingProgress
from stacklstm_cli.cli.report import check_output, refuse_overwriting, write_document, write_forecast
from stacklstm_cli.cli.searching import chosen_configs, entries_of, plan_search, run_search
from stacklstm_cli.config import (
    MEDIAN,
    DataConfig,
    ForecastConfig,
    ForecastRuntimeConfig,
    MetricConfig,
    ModelConfig,
    OutputConfig,
    PictureConfig,
    ReadingConfig,
    RunConfig,
    RuntimeConfig,
    SearchConfig,
    StudyConfig,
    TrainingConfig,
    option_name,
)
from stacklstm_cli.data.covariates import future_template, require_known
from stacklstm_cli.data.opening import require_files
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import ExitStatus, PeerLostError, ToldError, UsageError
from stacklstm_cli.evaluation.backtest import Backtest, in_parts
from stacklstm_cli.evaluation.diagnosis import diagnose
from stacklstm_cli.evaluation.statistical import asked_for
from stacklstm_cli.files import check_writable
from stacklstm_cli.locking import model_lock
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.frame import asked_rows, attention_frame, forecast_frame, newest, values_frame
from stacklstm_cli.model.inputs import MOST_CATEGORIES, unknown_categories
from stacklstm_cli.ranks import Ranks
from stacklstm_cli.training import runtime as machine
from stacklstm_cli.training.loop import OnEvent
from stacklstm_cli.training.placement import Places, forecasting_device, training_places

if TYPE_CHECKING:
    import torch


def train(
    sources: list[str],
    path: Path,
    data: DataConfig,
    reading: ReadingConfig,
    network: ModelConfig,
    training: TrainingConfig,
    search: SearchConfig,
    run: RunConfig,
    runtime: RuntimeConfig,
    metrics: MetricConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
    typed: Typed,
    clock: machine.Clock,
) -> int:
    """Train, save, report; returns the exit status. What is written may not be what is read."""
    if data.label is not None:
        with clock.interruptible():
            from stacklstm_cli.cli import labelling
        if not Ranks.of().leads:  # labels are learned by one process
            return ExitStatus.OK
        options = (data, reading, network, training, search, run, runtime, output, pictures)
        return labelling.train(sources, path, *options, messages, typed, clock)
    refuse_label_options(typed)
    ranks = Ranks.of()
    entries = entries_of(search, typed)
    refuse_shared(ranks, sources, entries)
    with clock.interruptible():
        from stacklstm_cli.training.defaults import resolve
        from stacklstm_cli.training.fitting import Trainer
        from stacklstm_cli.training.resume import Resume

        places = training_places(runtime, ranks)
    with contextlib.ExitStack() as held:
        with clock.interruptible():
            held.enter_context(ranks.together(places.devices[0]))
        if not ranks.leads:
            return follow(ranks, sources, path, data, reading, network, training, metrics, places, clock)
        with ranks.agreeing():
            refuse_overwriting("--model", path, sources)
            check_writable(path)
            check_output(output, path, *sources)
            check_pictures(pictures, output, path, *sources)
            lock = model_lock(path, run.wait, on_note=messages.note, on_warning=messages.warning, sleep=clock.sleep)
            held.enter_context(lock)
            with clock.interruptible():
                panel = read(sources, data, reading, messages)
                if network.min is None and network.loss != "negative-binomial" and np.nanmin(panel.values) >= 0:
                    messages.note("no value is negative; --min 0 keeps every forecast from falling below 0")
                plan = resolve(panel, network, training, metrics)
                unknown = unknown_categories(panel, plan.spec.inputs)
                baselines = asked_for(metrics.baselines, plan.seasonality)
        found = None
        if entries:
            task = plan_search(panel, plan, network, training, metrics, search, entries, named=True)
            found = run_search(task, search, StudyConfig(), places=places, clock=clock, messages=messages)
            network, training = chosen_configs(found, network, training)
            plan = resolve(panel, network, training, metrics)
            clock.restart()
        for name, texts in unknown:
            messages.note(
                f"{name!r} has more than {MOST_CATEGORIES} texts; the rarest count as unknown: {named(texts)}"
            )
        for line in plan.explained():
            messages.note(line)
        resume = Resume(path, use=run.resume, on_note=messages.note, on_warning=messages.warning)
        losses = Losses()
        with TrainingProgress(messages.progress_stream) as progress:
            on_event = each_of(progress.update, losses.update)
            trainer = Trainer(
                panel, plan, device=places, clock=clock, on_event=on_event, baselines=baselines, resume=resume
            )
            for line in places.explained() if found is None else []:
                messages.note(line)
            try:
                outcome = trainer.run(checkpoints.given_options(data, reading, network, training))
            except PeerLostError:
                resume.close(ended=False)
                raise
        outcome.checkpoint.search = {} if found is None else found.record()
        checkpoints.save(outcome.checkpoint, path)
        resume.close(ended=outcome.stopped != "signal")
    messages.note(f"saved {path}")
    for one in baselines.values():
        messages.note(one.explained())
    for line in outcome.explained():
        messages.detail(line)
    for code, text in outcome.warnings:
        messages.warning(code, text)
    if outcome.judgement is not None:
        diagnosed(outcome.judgement, messages)
    document = training_document(path, panel, plan, outcome, clock, places, metrics)
    document |= {} if found is None else {"search": found.document(outcome.judgement)}
    with drawn(pictures, messages, lambda: training_picture(losses, outcome, "Losses of the training", path.name)):
        write_document(finished(document, messages), output)
    return clock.exit_status


def follow(
    ranks: Ranks,
    sources: list[str],
    path: Path,
    data: DataConfig,
    reading: ReadingConfig,
    network: ModelConfig,
    training: TrainingConfig,
    metrics: MetricConfig,
    places: Places,
    clock: machine.Clock,
) -> int:
    """`train` in a process that does not lead: the same steps, and nothing written."""
    from stacklstm_cli.training.defaults import resolve
    from stacklstm_cli.training.fitting import Trainer
    from stacklstm_cli.training.resume import Resume

    try:
        with ranks.agreeing():
            panel = read_panel(sources, data, reading)
            plan = resolve(panel, network, training, metrics)
        Trainer(panel, plan, device=places, clock=clock, resume=Resume(path)).run({})
    except PeerLostError as error:
        if clock.signal_number is None:
            raise
        raise ToldError(clock.exit_status) from error  # torchrun ends all and says which one has died
    return clock.exit_status


def refuse_shared(ranks: Ranks, sources: list[str], entries: tuple[str, ...] = ()) -> None:
    """Raise `UsageError` for what several processes cannot do together."""
    if ranks.size == 1 or not ("-" in sources or entries):
        return
    what = "read standard input" if "-" in sources else "search for options"
    raise UsageError(
        f"{ranks.size} processes cannot {what} together.",
        hint="Name a file that each of them can read." if "-" in sources else "Find them first with stacklstm tune.",
        code="ranks_cannot_share",
    )


def require_same(
    ranks: Ranks, saved: checkpoints.Checkpoint, panel: Panel, device: torch.device, *options: object
) -> None:
    """Raise `DataError` where several processes would not forecast alike."""
    if ranks.size > 1:
        told = {"data": panel.fingerprint(), "model": saved.digest, "options": repr(options), "device": device.type}
        ranks.require_same(told | checkpoints.versions())


def predict(
    sources: list[str],
    path: Path,
    config: ForecastConfig,
    reading: ReadingConfig,
    runtime: ForecastRuntimeConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
) -> None:
    """Forecast with a saved model and write the forecasts; several processes share them, and the first writes."""
    ranks = Ranks.of()
    refuse_shared(ranks, sources)
    with ranks.connected():
        with ranks.agreeing():
            device = machine.prepare(runtime, ranks=ranks)
            future = [] if config.future is None else [config.future]
            if ranks.leads:
                check_output(output, path, *sources, *future)
                check_pictures(pictures, output, path, *sources, *future)
            refuse_ignored(config, pictures)
            require_files([*sources, *future])
            saved = checkpoints.load(path)
        if saved.spec.labels is not None or config.attention_weights or config.future_template:
            with ranks.agreeing():
                if ranks.leads:
                    predict_alone(saved, sources, path, config, reading, runtime, device, output, pictures, messages)
            return
        with ranks.agreeing():
            panel = read(sources, saved.data_config, reading, messages, saved, path, config.future)
            forecaster = saved.forecaster(forecasting_device(runtime, device, saved.spec, panel.n_series))
            horizon, shown = asked_rows(forecaster, config)
            require_known(panel, horizon)
        require_same(ranks, saved, panel, forecaster.device, horizon, shown, runtime.threads)
        values = in_parts(forecaster, panel, newest(panel), horizon, [MEDIAN, *shown], ranks)  # [N, H, 1 + Q]
    if not ranks.leads:
        return
    frame = values_frame(panel, values, shown, config.wide)

    def picture() -> Picture:
        long = frame
        if config.wide:  # which has no intervals
            first = panel.part(0, min(panel.n_series, MOST_FORECASTS))
            long = forecast_frame(forecaster, first, dataclasses.replace(config, wide=False))
        return forecast_picture(panel, long, horizon, saved.seasonality, path.name)

    with drawn(pictures, messages, picture):
        write_forecast(frame, output, finished(forecast_document(path, panel, saved), messages))


def predict_alone(
    saved: checkpoints.Checkpoint,
    sources: list[str],
    path: Path,
    config: ForecastConfig,
    reading: ReadingConfig,
    runtime: ForecastRuntimeConfig,
    device: torch.device,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
) -> None:
    """What `predict` writes besides forecasts of values, none of which is worth a second process."""
    if saved.spec.labels is not None:
        from stacklstm_cli.cli import labelling

        panel = labelling.read_for(saved, sources, reading, messages)
        device = forecasting_device(runtime, device, saved.spec, panel.n_series)
        given = labelling.differing(config, pictures)
        labelling.predict(saved, panel, path, device, given, output, messages)
        return
    panel = read(sources, saved.data_config, reading, messages, saved, path, config.future)
    forecaster = saved.forecaster(forecasting_device(runtime, device, saved.spec, panel.n_series))
    horizon = config.horizon or saved.spec.horizon
    forecaster.check(horizon, [])
    frame = future_template(panel, horizon) if config.future_template else attention_frame(forecaster, panel)
    write_forecast(frame, output, finished(forecast_document(path, panel, saved), messages))


LABELS_ONLY = ("class_weights",)
"""Options that mean nothing without --label."""


def refuse_label_options(given: Collection[str]) -> None:
    """Raise `UsageError` for an option of labels where none are learned."""
    for name in LABELS_ONLY:
        if name in given:
            raise UsageError(
                f"{option_name(name)} is about labels, and no --label is named.",
                hint="Name the column of classes with --label, or leave the option out.",
                code="label_missing",
            )


def refuse_ignored(config: ForecastConfig, pictures: PictureConfig) -> None:
    """Raise `UsageError` where one option of `predict` would leave another without effect."""
    alone = [name for name in ("future_template", "attention_weights") if getattr(config, name)]
    given = {
        field.name
        for part in (config, pictures)
        for field in dataclasses.fields(part)
        if getattr(part, field.name) != field.default
    }
    others = sorted(given - {*alone[:1], "future"} - ({"horizon"} if alone[:1] == ["future_template"] else set()))
    if alone and others:
        raise UsageError(
            f"{option_name(alone[0])} writes no forecast, so {', '.join(map(option_name, others))} would do nothing.",
            hint="Leave out one of them.",
            code="options_exclude_each_other",
        )


def read(
    sources: list[str],
    data: DataConfig,
    reading: ReadingConfig,
    messages: Messages,
    saved: checkpoints.Checkpoint | None = None,
    path: Path | None = None,
    future: str | None = None,
) -> Panel:
    """Read DATA, with the roles of a saved model if there is one, and say what was understood."""
    if saved is None:
        panel = read_panel(sources, data, reading)
    else:
        panel = read_panel(sources, data, saved.reading(reading), stored=saved.stored, future=future)
    for text in panel.notes:
        messages.note(text)
    messages.detail(f"{panel.rows_read} rows read, {panel.gaps} missing; SHA-256 of the bytes {panel.sha256}")
    if saved is not None:
        if saved.options.get("gaps") == "error":
            panel.refuse_gaps()
        for name, texts in unknown_categories(panel, saved.spec.inputs):
            messages.note(f"{name!r} has texts that the model does not know, taken as unknown: {named(texts)}")
        known = set(saved.keys)
        unseen = [panel.name(index) for index, key in enumerate(panel.keys) if key not in known]
        if unseen:
            messages.note(f"{len(unseen)} of {panel.n_series} series are new to the model: {named(unseen)}")
        short = [panel.name(index) for index in np.flatnonzero(panel.lengths < 2).tolist()]
        if short:
            messages.warning(
                "naive_fallback",
                f"a single value says nothing of what comes; a naive forecast repeats it: {named(short)}",
            )
        if saved.calibration is None and len(saved.spec.quantiles) > 1:
            messages.note(f"the intervals of {path} are not calibrated: they are what the network has learned")
        if not saved.metrics:
            messages.note(f"{path} was never judged on a holdout; evaluate it before you rely on it.")
    return panel


def diagnosed(backtest: Backtest, messages: Messages) -> None:
    """Warn of what is wrong with the forecasts of a backtest."""
    for finding in diagnose(backtest):
        if finding.code:
            messages.warning(finding.code, finding.text)
        else:
            messages.note(finding.text)


def each_of(*takers: OnEvent) -> OnEvent:
    """Gives every event to each of these."""

    def take(event: dict[str, Any]) -> None:
        for taker in takers:
            taker(event)

    return take


def named(series: list[str]) -> str:
    """The first of these names."""
    return ", ".join(series[:3]) + (" …" if len(series) > 3 else "")


def finished(document: dict[str, Any], messages: Messages) -> dict[str, Any]:
    """The document with what is only known at the end."""
    return document | {"warnings": messages.warnings, "seconds": round(time.monotonic() - STARTED, 3)}
