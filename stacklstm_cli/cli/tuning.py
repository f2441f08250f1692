"""The command `tune`: how many layers, and whatever else is asked for. Trains nothing but what it compares."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from pathlib import Path
from typing import Any

from stacklstm_cli.cli.depths import depth_picture
from stacklstm_cli.cli.documents import SCHEMA, judged
from stacklstm_cli.cli.labelling import each_of, read_labelled, refuse_forecasting
from stacklstm_cli.cli.labels import label_parts
from stacklstm_cli.cli.messages import Messages
from stacklstm_cli.cli.options import Typed
from stacklstm_cli.cli.pictures import check_pictures, drawn
from stacklstm_cli.cli.progress import TrainingProgress
from stacklstm_cli.cli.report import check_output, refuse_overwriting, write_search
from stacklstm_cli.cli.runs import finished, read, refuse_label_options
from stacklstm_cli.cli.searching import Found, chosen_configs, entries_of, plan_search, run_search
from stacklstm_cli.config import (
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
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import ExitStatus, NothingLearnedError
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.evaluation.labels import LabelJudgement
from stacklstm_cli.files import check_writable
from stacklstm_cli.locking import model_lock
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.training import runtime as machine
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.fitting import Trainer, describe
from stacklstm_cli.training.label_plan import LabelPlan, plan_labels
from stacklstm_cli.training.label_search import LABEL_USUAL
from stacklstm_cli.training.labels import LabelTrainer
from stacklstm_cli.training.placement import training_places
from stacklstm_cli.training.space import USUAL


def tune(
    sources: list[str],
    path: Path | None,
    data: DataConfig,
    reading: ReadingConfig,
    network: ModelConfig,
    training: TrainingConfig,
    search: SearchConfig,
    study: StudyConfig,
    runtime: RuntimeConfig,
    metrics: MetricConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
    typed: Typed,
    clock: machine.Clock,
) -> int:
    """Search, judge the choice once on the holdout, report; with `path` train it in full and save it.

    Returns the exit status.
    """
    if data.label is not None:
        refuse_forecasting(typed, data.label)
    else:
        refuse_label_options(typed)
    with clock.interruptible():
        places = training_places(runtime)
    kept = [study.study] if study.study is not None and "://" not in study.study else []
    taken: list[str | Path] = [*sources, *([path] if path is not None else [])]
    if path is not None:
        refuse_overwriting("--model", path, sources)
        check_writable(path)
    check_output(output, *taken)
    for place in kept:
        refuse_overwriting("--study", place, [*taken, *([output.output] if output.output else [])])
    check_pictures(pictures, output, *taken, *kept)
    entries = entries_of(search, typed, USUAL if data.label is None else LABEL_USUAL)
    with locked(path, messages, clock):
        with clock.interruptible():
            panel = (read if data.label is None else read_labelled)(sources, data, reading, messages)
            plan = planned(data, panel, network, training, metrics)
            task = plan_search(panel, plan, network, training, metrics, search, entries, named=bool(search.search))
        for line in plan.explained():
            messages.note(line)
        given = typed_words(typed, data, reading, network, training, metrics, runtime)
        found = run_search(task, search, study, places=places, clock=clock, messages=messages)
        if found.choice is None:
            raise nothing_found(clock)
        network, training = chosen_configs(found, network, training)
        plan = planned(data, panel, network, training, metrics)
        judgement: Backtest | None = None
        labelled: LabelJudgement | None = None
        saved: Checkpoint | None = None
        warnings: tuple[tuple[str, str], ...] = ()
        why = "a signal ended the search." if clock.signal_number is not None else "the search took all the time."
        clock.restart()
        with TrainingProgress(messages.progress_stream) as progress:
            options = checkpoints.given_options(data, reading, network, training)
            how: dict[str, Any] = {"device": places, "clock": clock, "on_event": progress.update}
            try:
                if isinstance(plan, LabelPlan):
                    if path is not None:
                        learned = LabelTrainer(panel, plan, **how).run(options)
                        labelled, saved, warnings = learned.judgement, learned.checkpoint, learned.warnings
                elif path is not None:
                    outcome = Trainer(panel, plan, **how).run(options)
                    judgement, saved, warnings = outcome.judgement, outcome.checkpoint, outcome.warnings
                elif training.holdout != 0 and not clock.stopped():
                    trainer = Trainer(panel, plan, **how)
                    chosen, _ = trainer.choose()
                    judgement = trainer.judge(chosen, trainer.calibrate(chosen).judged)
            except NothingLearnedError as error:
                why = error.message[:1].lower() + error.message[1:]
            except machine.Interrupted:
                why = "a signal ended that."
        if path is not None and saved is not None:
            saved.search = found.record()
            checkpoints.save(saved, path)
            messages.note(f"saved {path}")
    for code, text in warnings:
        messages.warning(code, text)
    stopped = clock.stopped() or found.missing
    if judgement is None and training.holdout != 0 and data.label is None:
        messages.warning("not_judged", f"The choice was not judged on the holdout: {why}")
    not_saved = path is not None and saved is None
    if not_saved:
        messages.warning("not_saved", f"No model was saved: {why}")
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "command": "tune",
        "status": "stopped" if stopped else "ok",
        "verdict": found.answer or chosen_sentence(found),
        "model": described(path, saved) | {"layers": plan.spec.layers, **plan.spec.as_dict()},
        "data": describe(panel) | {"sha256": panel.sha256},
        "search": found.document(judgement) | {"command": command(sources, given, found)},
    }
    document |= {"metrics": {}} if judgement is None else held_out(judgement, plan.spec.horizon, metrics)
    if labelled is not None and isinstance(plan, LabelPlan):
        document |= by_folds(labelled, str(data.label), plan)
    named = ", ".join(Path(source).name for source in sources)
    with drawn(pictures, messages, lambda: depth_picture(found, named)):
        write_search(finished(document, messages), output)
    return clock.exit_status or (ExitStatus.NOTHING_LEARNED if not_saved else ExitStatus.OK)


def locked(path: Path | None, messages: Messages, clock: machine.Clock) -> contextlib.AbstractContextManager[None]:
    """The lock of the model that is to be saved; nothing is locked without one."""
    if path is None:
        return contextlib.nullcontext()
    return model_lock(path, RunConfig().wait, on_note=messages.note, on_warning=messages.warning, sleep=clock.sleep)


def nothing_found(clock: machine.Clock) -> NothingLearnedError:
    """The error where not one candidate could be compared."""
    error = NothingLearnedError(
        "The search ended before it had scored a single candidate.",
        hint="Allow more time with --max-time; -v says of each candidate that failed why.",
        code="nothing_searched",
    )
    if clock.signal_number is not None:
        error.exit_status, error.hint = clock.exit_status, ""
    return error


def described(path: Path | None, saved: Checkpoint | None) -> dict[str, Any]:
    """Where the model is, if one was saved."""
    return {"path": None if saved is None else str(path), "id": None if saved is None else saved.id}


def held_out(judgement: Backtest, step: int, metrics: MetricConfig) -> dict[str, Any]:
    """The table of the holdout; its verdict under a name of its own, as the search has one."""
    table = judged(judgement, step, metrics)
    return {"holdout_verdict": table.pop("verdict"), **table}


def planned(
    data: DataConfig, panel: Panel, network: ModelConfig, training: TrainingConfig, metrics: MetricConfig
) -> Plan | LabelPlan:
    """What would be trained without a search."""
    if data.label is not None:
        return plan_labels(panel, network, training)
    return resolve(panel, network, training, metrics)


def by_folds(judgement: LabelJudgement, column: str, plan: LabelPlan) -> dict[str, Any]:
    """The table of the folds of what was trained; its verdict under a name of its own, as the search has one."""
    parts = label_parts(judgement, column, each_of(plan.every_row), "each by a network that had not seen it")
    return {"folds_verdict": parts.pop("verdict"), **parts}


def chosen_sentence(found: Found) -> str:
    """The answer where no depth was searched."""
    counted = found.task.rolling.counted()
    tried = sum(one.state == "complete" for one in found.candidates)
    return f"Chosen of {tried} compared: {' '.join(found.typed) or 'the defaults'} (n = {counted})."


def typed_words(typed: Typed, *configs: Any) -> list[str]:
    """The options that were typed beside the search, as they would be typed for `train`."""
    found: list[str] = []
    for config in configs:
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if field.name not in typed or field.name == "max_time":
                continue
            if isinstance(value, bool):
                found.append(option_name(field) if value else option_name("no_" + field.name))
            else:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                found += [option_name(field), text]
    return found


def command(sources: list[str], given: list[str], found: Found) -> str:
    """The command that trains the choice."""
    return shlex.join(["stacklstm", "train", *sources, *given, *found.typed])
