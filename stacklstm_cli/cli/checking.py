"""The command `check`: what `train` would make of DATA, and why it would refuse it. Nothing is trained.

It goes the way of `train` up to the first optimiser step, by the same calls, so that it refuses what `train`
refuses. torch comes with it: the rules of the defaults and the windows are made of it.
"""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stacklstm_cli.cli import estimate, labelling, survey
from stacklstm_cli.cli.documents import SCHEMA
from stacklstm_cli.cli.messages import Messages, is_terminal
from stacklstm_cli.cli.options import Typed
from stacklstm_cli.cli.report import check_output, to_terminal, write_check
from stacklstm_cli.cli.runs import finished, refuse_label_options
from stacklstm_cli.cli.searching import announced, entries_of, plan_search
from stacklstm_cli.cli.wording import advice, described
from stacklstm_cli.config import (
    DataConfig,
    MetricConfig,
    ModelConfig,
    OutputConfig,
    ReadingConfig,
    RuntimeConfig,
    SearchConfig,
    TrainingConfig,
)
from stacklstm_cli.data.opening import open_table
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import SAMPLE_ROWS, read_panel
from stacklstm_cli.data.stamps import Words
from stacklstm_cli.errors import StacklstmError
from stacklstm_cli.training import runtime as machine
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.fitting import Trainer, describe, out_of_bounds
from stacklstm_cli.training.label_plan import plan_labels
from stacklstm_cli.training.lessons import Lessons
from stacklstm_cli.training.placement import training_places
from stacklstm_cli.training.study import Task


def check(
    sources: list[str],
    data: DataConfig,
    reading: ReadingConfig,
    network: ModelConfig,
    training: TrainingConfig,
    search: SearchConfig,
    metrics: MetricConfig,
    output: OutputConfig,
    messages: Messages,
    typed: Typed,
) -> None:
    """Write what was found; then raise what `train` would."""
    check_output(output, *sources)
    entries = entries_of(search, typed)
    if data.label is None:
        refuse_label_options(typed)
    else:
        labelling.refuse_forecasting(typed, data.label)
    stdin = sys.stdin.buffer.read() if "-" in sources else b""
    document: dict[str, Any] = {"schema": SCHEMA, "command": "check", "status": "ok"}
    refused: StacklstmError | None = None
    try:
        for part in _findings(sources, stdin, data, reading, network, training, metrics, search, entries):
            document |= part
    except StacklstmError as error:
        refused = error
        document |= {
            "status": "refused",
            "problems": [{"code": error.code, "message": error.message, "hint": error.hint}],
        }
    document |= {name: document.pop(name, []) for name in ("notes", "advice", "problems")}
    messages.warnings += document.pop("warnings", [])
    # Where a person reads both streams, the error that follows says it.
    follows = to_terminal(output) and is_terminal(sys.stderr)
    document = finished(document, messages)
    sections = described(document, problems=not follows)
    if len(sections) > 1 or output.format not in ("auto", "table"):
        write_check(document, sections, output)
    if refused is not None:
        raise refused


def _findings(
    sources: list[str],
    stdin: bytes,
    data: DataConfig,
    reading: ReadingConfig,
    network: ModelConfig,
    training: TrainingConfig,
    metrics: MetricConfig,
    search: SearchConfig,
    entries: tuple[str, ...],
) -> Iterator[dict[str, Any]]:
    """Part after part of the document, in the order in which `train` goes. Raises what `train` would."""
    places = training_places(RuntimeConfig())
    files = [_file(source, stdin) for source in sources]
    yield {"data": {"files": files}}
    panel = read_panel(sources, data, reading, stdin=io.BytesIO(stdin))
    whole = all(one["bytes"] is not None for one in files)  # a pipe can be read only once
    sample = _sample(sources, reading, stdin) if whole else {}
    understood = _understood(panel, sample)
    yield {"data": {"files": files} | describe(panel) | {"sha256": panel.sha256}} | understood
    if data.label is not None:
        labelled = plan_labels(panel, network, training)
        own = labelling.planned(labelled)
        if entries:
            task = plan_search(panel, labelled, network, training, metrics, search, entries, named=True)
            own |= _searched(task, own["explained"])
        yield {"plan": own}
        return
    plan = resolve(panel, network, training, metrics)
    planned = _planned(plan)
    if entries:
        task = plan_search(panel, plan, network, training, metrics, search, entries, named=True)
        planned |= _searched(task, planned["explained"])
    yield {"plan": planned}
    # The first device alone: with two of them a trainer would measure both, and `check` trains nothing.
    trainer = Trainer(panel, plan, device=places.devices[0], clock=machine.Clock(training.max_time))
    windows, lessons = estimate.count_windows(trainer)
    planned |= {"windows": {"train": windows.train, "choose": windows.choose}, "weights": windows.weights}
    yield {"warnings": _foreseen(trainer, windows), "advice": advice(panel, network, plan, understood, sample)}
    yield {"estimate": _estimated(trainer, windows, lessons, sample)}


def _searched(task: Task, explained: list[str]) -> dict[str, Any]:
    """What a search would try, before what is said of the training without it."""
    first = f"{announced(task)[0]}; what follows is the training without it"
    facts = {"options": [one.name for one in task.space], "candidates": task.limit}
    facts |= {"folds": len(task.rolling.folds), "n": task.rolling.units}
    return {"search": facts, "explained": [first, *explained]}


def _file(source: str, stdin: bytes) -> dict[str, Any]:
    """The name of a file, and its size; None where it has none, as a pipe."""
    if source == "-":
        return {"name": "standard input", "bytes": len(stdin)}
    try:
        status = Path(source).stat()
    except (OSError, ValueError):  # the reader says it better
        return {"name": source, "bytes": None}
    return {"name": source, "bytes": status.st_size if stat.S_ISREG(status.st_mode) else None}


def _sample(sources: list[str], reading: ReadingConfig, stdin: bytes) -> dict[str, Words]:
    """The first rows of every column that has a name, as text."""
    table = open_table(sources, reading, io.BytesIO(stdin))
    frame = table.sample(SAMPLE_ROWS)
    return {name: frame[at].to_numpy(dtype=object) for at, name in enumerate(table.header) if name}


def _understood(panel: Panel, sample: Mapping[str, Words]) -> dict[str, Any]:
    """What the files were understood to be."""
    columns = survey.column_facts(panel, sample)
    roles: dict[str, list[str]] = {role: [] for role in ("time", "id", "target", "past", "known", "static", "ignored")}
    if panel.classes:
        roles["label"] = []
    for column in columns:
        roles[column["role"]].append(column["name"])
    return {
        "layout": panel.columns.layout,
        "roles": roles,
        "columns": columns,
        "time": panel.time_form.as_dict() | {"season": panel.step.season()},
        "series": survey.series_facts(panel),
        "gaps": survey.gap_facts(panel) | {"skipped_hours": survey.skipped_hours(panel)},
        "notes": list(panel.notes),
    }


def _planned(plan: Plan) -> dict[str, Any]:
    """What would be trained."""
    parts = plan.parts
    rows = (parts.train, parts.validation - parts.train, parts.end - parts.validation)
    return {
        "seasonality": plan.seasonality,
        "layers": plan.spec.layers,
        **plan.spec.as_dict(),
        **vars(plan.schedule),
        "rows": dict(zip(("train", "choose", "judge"), (int(part.sum()) for part in rows), strict=True)),
        "explained": plan.explained(),
    }


def _estimated(
    trainer: Trainer, windows: estimate.Windows, lessons: Lessons, sample: Mapping[str, Words]
) -> dict[str, Any]:
    """Memory in bytes and seconds of training, both at most."""
    width = sum(_mean_width(words) for words in sample.values())
    memory = estimate.memory(trainer.panel, trainer.plan, windows, int(width * trainer.panel.rows_read))
    return {
        "memory": vars(memory) | {"peak": memory.peak},
        "seconds": estimate.most_seconds(trainer, lessons, windows),
    }


def _mean_width(words: Words) -> float:
    """Characters of a cell and the delimiter behind it, on average."""
    return float(np.mean([len(str(word)) for word in words])) + 1 if words.size else 0.0


def _foreseen(trainer: Trainer, windows: estimate.Windows) -> list[dict[str, str]]:
    """The warnings that a training would end with, as far as they can be known before it."""
    plan, found = trainer.plan, dict(out_of_bounds(trainer.panel, trainer.plan))
    if not windows.choose:
        steps = min(plan.unvalidated_steps, plan.most_steps(windows.train))
        found["not_validated"] = f"No rows to validate on: {steps} steps would be made without choosing."
    if not plan.parts.judging and plan.training.holdout != 0:
        found["not_judged"] = "No series has rows to spare to judge the model on."
    return [{"code": code, "message": text} for code, text in found.items()]
