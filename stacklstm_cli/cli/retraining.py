"""What `retrain` does once it is parsed: lock, read, one call to the core, replace the model, report.

A run ends in one line that a mail from cron can carry, and in one line of a log where one is asked for.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stacklstm_cli.cli.documents import envelope
from stacklstm_cli.cli.grids import plain
from stacklstm_cli.cli.labelling import each_of, refuse_given
from stacklstm_cli.cli.labels import percent, things
from stacklstm_cli.cli.messages import Messages
from stacklstm_cli.cli.options import Overrides
from stacklstm_cli.cli.progress import TrainingProgress
from stacklstm_cli.cli.report import check_output, number, refuse_overwriting, write_document
from stacklstm_cli.cli.runs import finished, named
from stacklstm_cli.config import OutputConfig, ReadingConfig, RetrainConfig, RunConfig, RuntimeConfig
from stacklstm_cli.data.history import Changes
from stacklstm_cli.data.opening import require_files
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import ExitStatus, StacklstmError, StoppedError
from stacklstm_cli.files import append_line, check_appendable, check_writable
from stacklstm_cli.locking import model_lock
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.classes import FORECASTS_ONLY
from stacklstm_cli.model.lineage import finish_swap, keep_earlier
from stacklstm_cli.training import promotion
from stacklstm_cli.training import runtime as machine
from stacklstm_cli.training.placement import Places, training_places
from stacklstm_cli.training.promotion import CHALLENGER, CHAMPION, EXPLANATIONS, LEVEL, Retrained
from stacklstm_cli.training.relabelling import LABEL_SCORES, LabelContest, LabelRetrained, retrain_labels
from stacklstm_cli.training.resume import Resume

EXPECTED = ("not_validated", "not_judged")
"""Warnings of `train` that a retraining of few new rows gives every night: nothing to send a mail about."""


@dataclass(frozen=True)
class Night:
    """One run: what was there, what was found, what is there now."""

    path: Path
    champion: Checkpoint
    panel: Panel
    changes: Changes
    found: Retrained | LabelRetrained | None
    """None where there was nothing new."""

    @property
    def model(self) -> Checkpoint:
        """The model that is in place after the run."""
        return self.champion if self.found is None else self.found.checkpoint or self.champion

    @property
    def status(self) -> str:
        """As in the JSON document."""
        if self.found is None:
            return "unchanged"
        if not self.found.decision.promoted:
            return "refused"
        return "stopped" if self.found.stopped else "ok"


def retrain(
    sources: list[str],
    path: Path,
    config: RetrainConfig,
    reading: ReadingConfig,
    typed: Overrides,
    run: RunConfig,
    runtime: RuntimeConfig,
    output: OutputConfig,
    messages: Messages,
    clock: machine.Clock,
) -> int:
    """Continue a saved model on new rows and replace it where that is safe; returns the exit status."""
    refuse_overwriting("--model", path, sources)
    check_output(output, path, *sources, *filter(None, [config.log]))
    if config.log is not None:
        refuse_overwriting("--log", config.log, [path, *sources])
        check_appendable(config.log)
    with logged(config.log, path, clock) as line:
        with clock.interruptible():
            places = training_places(runtime)
        with locked(path, run, messages, clock):
            night = work(sources, path, config, reading, typed, run, places, messages, clock)
        document = finished(night_document(night, config), messages)
        status = exit_status(night, config)
        line |= log_line(document, status)
    if messages.verbosity >= 0 or status != ExitStatus.OK or output != OutputConfig():
        write_document(document, output, brief=messages.verbosity <= 0)
    return status


@contextlib.contextmanager
def locked(path: Path, run: RunConfig, messages: Messages, clock: machine.Clock) -> Iterator[None]:
    """Hold the model's lock; the time spent waiting for it does not count."""
    begin = time.monotonic()
    with model_lock(path, run.wait, on_note=messages.note, on_warning=messages.warning, sleep=clock.sleep):
        if clock.started is not None:
            clock.started += time.monotonic() - begin
        check_writable(path)
        finish_swap(path)
        yield


def work(
    sources: list[str],
    path: Path,
    config: RetrainConfig,
    reading: ReadingConfig,
    typed: Overrides,
    run: RunConfig,
    places: Places,
    messages: Messages,
    clock: machine.Clock,
) -> Night:
    """Read, look what is new, retrain where something is, and replace the model where it is promoted."""
    with clock.interruptible():
        require_files(sources)
        champion = checkpoints.load(path)
        labelled = champion.spec.labels is not None
        if labelled:
            refuse_given({*typed} & {*FORECASTS_ONLY}, path)
        panel = read(sources, champion, reading, messages)
        changed = promotion.look(champion, panel)
    tell_changes(changed, champion, panel, messages)
    tell = (messages.note, messages.warning)
    origin = f"{champion.digest} scaling={config.refit_scaling}"
    resume = Resume(path, use=run.resume, origin=origin, on_note=tell[0], on_warning=tell[1])
    if changed.nothing_new:
        resume.drop_spent()
        return Night(path, champion, panel, changed, None)
    clock.restart()
    try:
        with TrainingProgress(messages.progress_stream) as progress:
            found = (retrain_labels if labelled else promotion.retrain)(
                champion,
                panel,
                changed,
                config,
                typed,
                device=places,
                clock=clock,
                on_event=progress.update,
                resume=resume,
            )
    except machine.Interrupted:
        resume.close(ended=False)
        raise
    if found.checkpoint is not None:
        keep_earlier(path, config.keep)
        checkpoints.save(found.checkpoint, path)
    resume.close(ended=True)
    for line in places.explained():
        messages.note(line)
    tell_found(found, messages)
    return Night(path, champion, panel, changed, found)


def read(sources: list[str], champion: Checkpoint, reading: ReadingConfig, messages: Messages) -> Panel:
    """Read DATA as the model's training data was read. Raises `ModelError` where it is not this model's."""
    panel = read_panel(sources, champion.data_config, champion.reading(reading), stored=champion.stored)
    for text in panel.notes:
        messages.note(text)
    if champion.options.get("gaps") == "error":
        panel.refuse_gaps()
    return panel


def tell_changes(changed: Changes, champion: Checkpoint, panel: Panel, messages: Messages) -> None:
    """Say what is new, what was revised and what is gone."""
    if changed.new_series:
        count = f"{len(changed.new_series)} of {panel.n_series}"
        messages.note(f"{count} series are new to the model: {named(list(changed.new_series))}")
    if changed.vanished_series:
        messages.note(f"{changed.vanished_series} of the model's {len(champion.keys)} series are not in the data")
    if changed.dropped_rows:
        messages.note(f"{changed.dropped_rows:,} of the oldest rows that the model has learned are no longer there")
    if champion.history is None:
        messages.note("the model was made by an earlier version: rows that were revised cannot be told")
    if changed.revised_rows:
        count = f"{len(changed.revised_series)} of {panel.n_series} series: {named(list(changed.revised_series))}"
        messages.warning(
            "history_revised",
            f"Rows that the model has learned were revised since: up to {changed.revised_rows:,} rows, from "
            f"{changed.revised_from} on ({count}). "
            + (
                "It goes on from what it learned of the old ones; --from-scratch forgets them."
                if champion.spec.labels is None
                else "The new model learns them as they are now."
            ),
        )
    if changed.removed_rows:
        messages.warning(
            "rows_removed", f"{changed.removed_rows:,} of the newest rows that the model has learned are gone."
        )


def tell_found(found: Retrained | LabelRetrained, messages: Messages) -> None:
    """Say how the retraining went."""
    if isinstance(found, LabelRetrained) and found.new_classes and found.decision.promoted:
        messages.note(f"classes that the model did not know, learned now: {named(list(found.new_classes))}")
    for name, texts in found.new_categories.items():
        messages.note(f"{name!r} has texts that the model did not know, learned now: {named(texts)}")
    for line in found.plan.explained():
        messages.detail(line)
    for code, text in found.warnings:
        if code in EXPECTED:
            messages.note(text)
        else:
            messages.warning(code, text)


def exit_status(night: Night, config: RetrainConfig) -> ExitStatus:
    """What the process ends with."""
    if night.found is None:
        return ExitStatus.UNCHANGED if config.fail_if_unchanged else ExitStatus.OK
    return ExitStatus.OK if night.found.decision.promoted else ExitStatus.JUDGEMENT


def night_document(night: Night, config: RetrainConfig) -> dict[str, Any]:
    """What `retrain` found, in the envelope of all commands."""
    found, panel = night.found, night.panel
    document = envelope("retrain", night.path, panel, night.model, night.status)
    document |= {"verdict": summary(night), "parent": night.champion.id, "changes": asdict(night.changes)}
    if found is None:
        return document | {"decision": None, "metrics": {}}
    comparison, contest = found.comparison, found.contest
    document["decision"] = {
        **asdict(found.decision),
        "gate": config.gate,
        "level": LEVEL,
        "p_value": promotion.p_value(comparison),
        "units": 0 if comparison is None else comparison.units,
        "paired_over": "" if comparison is None else comparison.paired_over,
        "champion_weights": found.side,
    }
    document["metrics"] = {} if contest is None else contest.metrics()
    if isinstance(found, LabelRetrained):
        document["labels"] = {"column": panel.columns.targets[0], "one_per": each_of(found.plan.every_row)}
        if found.contest is not None:
            document["labels"] |= {"scored": found.contest.labels, "ground": found.contest.ground}
    elif found.contest is not None:
        document["backtest"] = promotion.describe_contest(found.contest)
    document["training"] = {
        "steps": found.fits[-1].steps,
        "windows": sum(fit.windows for fit in found.fits),
        "seconds": sum(fit.seconds for fit in found.fits),
    }
    return document


def summary(night: Night) -> str:
    """The run in one line."""
    found, changed, champion = night.found, night.changes, night.champion
    last = f"up to {night.panel.stamps([int(night.panel.ends.max()) - 1])[0]}"
    if champion.spec.labels is not None and not champion.spec.labels.every_row:  # whose series have no time in common
        last = f"in {night.panel.n_series:,} series"
    if found is None:
        return f"{night.path} unchanged ({champion.id}): nothing new {last}."
    rows = f"+{changed.rows:,} rows {last}"
    if found.decision.promoted:
        done = f"{night.path} retrained ({champion.id} to {night.model.id}): {rows}"
    else:
        done = f"{night.path} kept ({champion.id}), the new model was refused: {rows}"
    return f"{done}; {contest_words(found)}."


def contest_words(found: Retrained | LabelRetrained) -> str:
    """Both errors, that of the best baseline, and what follows."""
    why = EXPLANATIONS[found.decision.why]
    if isinstance(found, LabelRetrained):
        return label_words(found.contest, found.plan.every_row, why)
    if found.fits[0].steps == 0 and found.decision.promoted:
        why += "; no step made it better, so its weights stay"
    if found.contest is None:
        return f"not judged, {why}"
    table = found.contest.metrics()
    metric = "mase" if table[CHAMPION].get("mase") is not None else "mae"
    figures = {name: value for name, scores in table.items() if (value := scores.get(metric)) is not None}
    if not {CHAMPION, CHALLENGER} <= figures.keys():
        return why
    both = f"{number(figures.pop(CHALLENGER))} against {number(figures.pop(CHAMPION))} before"
    best = min(figures, key=figures.__getitem__, default="")
    baseline = f", {best} {number(figures[best])}" if best else ""
    origins = len(found.contest.origins)
    return f"{metric.upper()} {both}{baseline} ({origins} origin{'s' * (origins != 1)}): {why}"


def label_words(contest: LabelContest | None, every_row: bool, why: str) -> str:
    """Both models' log loss and accuracy, on what, and what follows."""
    if contest is None:
        return f"not judged, {why}"
    table = contest.metrics()
    new, before = table[CHALLENGER], table[CHAMPION]
    both = {name: [value for one in (new, before) if (value := one[name]) is not None] for name in LABEL_SCORES}
    figures = f"log loss {' against '.join(map(number, both['log_loss']))} before"
    figures += f", accuracy {' against '.join(map(percent, both['accuracy']))}"
    scored = things(contest.labels, each_of(every_row))
    where = f"{scored} that neither has seen" if contest.ground == "new" else f"each by its own folds, {scored} now"
    return f"{figures} ({where}): {why}"


@contextlib.contextmanager
def logged(log: str | None, path: Path, clock: machine.Clock) -> Iterator[dict[str, Any]]:
    """Add one line to the log, whatever becomes of the run. Yields what it shall say of a run that ends.

    A signal is told as one that leaves the model as it was. Raises `ModelError` where the log cannot be written.
    """
    line: dict[str, Any] = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "command": "retrain"}
    line["model"] = str(path)
    try:
        try:
            yield line
        except machine.Interrupted as stop:
            error = StoppedError(clock.exit_status)
            error.message = f"Stopped by a signal; {path} is as it was."
            raise error from stop
    except StacklstmError as error:
        line |= {"status": "error", "exit_status": int(error.exit_status)}
        line |= {"code": error.code, "message": error.message}
        raise
    finally:
        if log is not None:
            append(log, line)


def log_line(document: dict[str, Any], status: int) -> dict[str, Any]:
    """What the log keeps of a run."""
    decision, scores = document["decision"] or {}, document["metrics"]
    kept = LABEL_SCORES if "labels" in document else promotion.SCORES
    return {
        "status": document["status"],
        "exit_status": int(status),
        "id": document["model"]["id"],
        "parent": document["parent"],
        "last": document["data"]["last"],
        "rows_added": document["changes"]["rows"],
        "revised_rows": document["changes"]["revised_rows"],
        "why": decision.get("why", "nothing_new"),
        "p_value": decision.get("p_value"),
        **{name: {metric: scores[name].get(metric) for metric in kept} for name in scores},
        "warnings": [warning["code"] for warning in document["warnings"]],
        "seconds": document["seconds"],
        "message": document["verdict"],
    }


def append(log: str, line: dict[str, Any]) -> None:
    """Add one line of JSON, in one write. Raises `ModelError`."""
    text = json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n"
    append_line(log, text.encode("utf-8", "backslashreplace"))
