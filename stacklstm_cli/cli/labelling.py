"""What the commands do where labels are learned: read, one call to the core, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stacklstm_cli.cli.documents import effort, envelope
from stacklstm_cli.cli.labels import Each, label_parts, label_picture, unseen_note
from stacklstm_cli.cli.messages import Messages
from stacklstm_cli.cli.pictures import check_pictures, drawn
from stacklstm_cli.cli.progress import TrainingProgress
from stacklstm_cli.cli.report import check_output, refuse_overwriting, write_document, write_forecast
from stacklstm_cli.cli.runs import finished
from stacklstm_cli.cli.scores import gate, refuse_baseline
from stacklstm_cli.cli.searching import chosen_configs, entries_of, plan_search, run_search
from stacklstm_cli.config import (
    LABEL_BASELINES,
    DataConfig,
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
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import UsageError
from stacklstm_cli.evaluation.labelled import judge_labels
from stacklstm_cli.evaluation.labels import worse_labels
from stacklstm_cli.files import check_writable
from stacklstm_cli.locking import model_lock
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.classes import FORECASTS_ONLY
from stacklstm_cli.model.inputs import unknown_categories
from stacklstm_cli.model.labels import label_spec
from stacklstm_cli.training import runtime as machine
from stacklstm_cli.training.label_plan import LabelPlan, plan_labels, refuse_twice
from stacklstm_cli.training.labels import LabelOutcome, LabelTrainer
from stacklstm_cli.training.placement import Places, training_places
from stacklstm_cli.training.resume import Resume


def refuse_forecasting(given: Collection[str], label: str) -> None:
    """Raise `UsageError` for an option that means nothing where labels are learned."""
    for name in FORECASTS_ONLY:
        if name in given:
            raise UsageError(
                f"{option_name(name)} does not go with --label {label}: it is about forecasts of values.",
                hint=f"Leave {option_name(name)} out.",
                code="label_conflict",
            )


def refuse_command(command: str, path: Path | str, instead: str) -> UsageError:
    """The error for a command that labels do not have."""
    return UsageError(f"{command} is for forecasts, and {path} is about labels.", hint=instead, code="not_for_labels")


def refuse_given(given: Collection[str], path: Path) -> None:
    """Raise `UsageError` for options that were given to a model of labels and are about forecasts."""
    if given:
        raise UsageError(
            f"{option_name(sorted(given)[0])} is about forecasts, and {path} gives labels.",
            hint="Leave it out.",
            code="label_conflict",
        )


def each_of(every_row: bool) -> Each:
    return "step" if every_row else "series"


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
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
    typed: Collection[str],
    clock: machine.Clock,
) -> int:
    """Train, save, report; returns the exit status."""
    refuse_forecasting(typed, str(data.label))
    with clock.interruptible():
        places = training_places(runtime)
    refuse_overwriting("--model", path, sources)
    check_writable(path)
    check_output(output, path, *sources)
    check_pictures(pictures, output, path, *sources)
    entries = entries_of(search, typed)
    with model_lock(path, run.wait, on_note=messages.note, on_warning=messages.warning, sleep=clock.sleep):
        with clock.interruptible():
            panel = read_labelled(sources, data, reading, messages)
            plan = plan_labels(panel, network, training)
        searched = None
        if entries:
            task = plan_search(panel, plan, network, training, MetricConfig(), search, entries, named=True)
            searched = run_search(task, search, StudyConfig(), places=places, clock=clock, messages=messages)
            network, training = chosen_configs(searched, network, training)
            plan = plan_labels(panel, network, training)
            clock.restart()
        for line in plan.explained():
            messages.note(line)
        resume = Resume(path, use=run.resume, on_note=messages.note, on_warning=messages.warning)
        with TrainingProgress(messages.progress_stream) as progress:
            trainer = LabelTrainer(panel, plan, device=places, clock=clock, on_event=progress.update, resume=resume)
            for line in places.explained() if searched is None else []:
                messages.note(line)
            try:
                outcome = trainer.run(checkpoints.given_options(data, reading, network, training))
            except machine.Interrupted:
                resume.close(ended=False)
                raise
        outcome.checkpoint.search = {} if searched is None else searched.record()
        checkpoints.save(outcome.checkpoint, path)
        resume.close(ended=outcome.stopped != "signal")
    messages.note(f"saved {path}")
    for code, text in outcome.warnings:
        messages.warning(code, text)
    document = training_document(path, panel, plan, outcome, clock, places)
    document |= {} if searched is None else {"search": searched.document(None)}

    def picture() -> Any:
        if outcome.judgement is None:
            return None
        each = each_of(plan.every_row)
        return label_picture(outcome.judgement, str(data.label), each, "out of fold", f"model {path.name}")

    with drawn(pictures, messages, picture):
        write_document(finished(document, messages), output)
    return clock.exit_status


def training_document(
    path: Path, panel: Panel, plan: LabelPlan, outcome: LabelOutcome, clock: machine.Clock, places: Places
) -> dict[str, Any]:
    """What `train` found."""
    document = envelope("train", path, panel, outcome.checkpoint, "stopped" if outcome.stopped else "ok")
    if outcome.judgement is None:
        document |= {"verdict": f"Saved {path}; nothing was judged.", "comparison": None, "metrics": {}}
    else:
        how = "each by a network that had not seen it"
        document |= label_parts(outcome.judgement, panel.columns.targets[0], each_of(plan.every_row), how)
    document["training"] = effort(outcome.fits, outcome.checkpoint, clock, places) | {
        "folds": outcome.checkpoint.training["folds"],
        "networks": label_spec(outcome.checkpoint.spec).members,
    }
    return document


def predict(
    saved: checkpoints.Checkpoint,
    panel: Panel,
    path: Path,
    device: torch.device,
    given: Collection[str],
    output: OutputConfig,
    messages: Messages,
) -> None:
    """Write the label of each series or row, and the probability of every class."""
    refuse_given(given, path)
    frame = label_frame(saved, panel, saved.classifier(device).probabilities(panel))
    write_forecast(frame, output, finished(envelope("predict", path, panel, saved), messages))


def label_frame(saved: checkpoints.Checkpoint, panel: Panel, probabilities: Floats) -> pd.DataFrame:
    """Key columns, time where each row has a label, the label, its probability, and that of every class.

    `probabilities` [N, K] or [R, K]; rows that the file lacks are left out. Raises `DataError` for two equal names.
    """
    labels, column = label_spec(saved.spec), panel.columns.targets[0]
    held = np.flatnonzero(~np.isnan(panel.values)) if labels.every_row else np.arange(panel.n_series)
    series = np.searchsorted(panel.offsets, held, "right") - 1 if labels.every_row else held
    frame: dict[str, Any] = {
        name: np.asarray([panel.keys[index][place] for index in series.tolist()], dtype=object)
        for place, name in enumerate(panel.columns.key_names)
    }
    if labels.every_row:
        positions = panel.starts[series] + held - panel.offsets[series]
        written = dict(zip(panel.columns.time_names, panel.times, strict=True)) if panel.times else None
        frame |= panel.time_columns(positions) if written is None else written
    found = probabilities[held]
    refuse_twice(list(frame), column, labels.classes)
    names = np.asarray(labels.classes, dtype=object)
    frame |= {column: names[found.argmax(1)], "probability": found.max(1)}
    return pd.DataFrame(frame | {f"p_{name}": found[:, at] for at, name in enumerate(labels.classes)})


def evaluate(
    saved: checkpoints.Checkpoint,
    panel: Panel,
    path: Path,
    device: torch.device,
    given: Collection[str],
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
    worst: str | None = None,
) -> None:
    """Score a saved model on the labels of a file, beside the baselines; `worst` is the one it must not fall behind."""
    refuse_given(given, path)
    refuse_baseline(worst, LABEL_BASELINES, "labels")
    labels, column = label_spec(saved.spec), panel.columns.targets[0]
    each = each_of(labels.every_row)
    judgement = judge_labels(saved.classifier(device), panel, saved.training["class_counts"])
    seen = panel.fingerprint() == saved.data["fingerprint"]
    if seen:
        messages.note("the file is the one that the model was trained on: the figures say how well it was learned")
    messages.note(
        "nearest_neighbour looks among the labels of this file, each among the others: a model holds no training rows"
    )
    if judgement.model.unseen:
        messages.note(unseen_note(judgement.model.unseen, each))
    document = envelope("evaluate", path, panel, saved) | label_parts(judgement, column, each)
    document["labels"] |= {"rows": "in sample" if seen else "as given", "neighbours": "of this file"}
    if seen:
        document["verdict"] = f"IN SAMPLE: {document['verdict']}"
    rows = "rows of the training" if seen else "the file given"

    def picture() -> Any:
        return label_picture(judgement, column, each, rows, f"model {path.name}")

    with gate(document, worst, worse_labels), drawn(pictures, messages, picture):
        write_document(finished(document, messages), output)


def read_labelled(sources: list[str], data: DataConfig, reading: ReadingConfig, messages: Messages) -> Panel:
    """Read DATA with its labels, and say what was understood."""
    panel = read_panel(sources, data, reading)
    for text in panel.notes:
        messages.note(text)
    messages.detail(f"{panel.rows_read} rows read; SHA-256 of the bytes {panel.sha256}")
    return panel


def read_for(saved: checkpoints.Checkpoint, sources: list[str], reading: ReadingConfig, messages: Messages) -> Panel:
    """Read DATA as a model of labels reads it, and say what was understood."""
    panel = read_panel(sources, saved.data_config, saved.reading(reading), stored=saved.stored)
    for text in panel.notes:
        messages.note(text)
    for name, texts in unknown_categories(panel, saved.spec.inputs):
        messages.note(f"{name!r} has texts that the model does not know, taken as unknown: {', '.join(texts[:3])}")
    return panel


def planned(plan: LabelPlan) -> dict[str, Any]:
    """What `check` says of the plan."""
    return {
        "layers": plan.spec.layers,
        **plan.spec.as_dict(),
        **vars(plan.schedule),
        "folds": len(plan.folds),
        "explained": plan.explained(),
    }


def differing(*configs: Any) -> set[str]:
    """The names of the options that are not as by default."""
    return {
        field.name
        for config in configs
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    }
