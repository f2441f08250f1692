"""A search as `tune` and `train --layers auto` share it: planned, run, and told."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from stacklstm_cli.cli.messages import Messages
from stacklstm_cli.cli.progress import SearchProgress
from stacklstm_cli.config import MetricConfig, ModelConfig, SearchConfig, StudyConfig, TrainingConfig, option_name
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import UsageError
from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.training.defaults import Plan
from stacklstm_cli.training.jobs import search
from stacklstm_cli.training.label_plan import LabelPlan
from stacklstm_cli.training.label_search import LabelTask, label_entries, roll_labels
from stacklstm_cli.training.placement import Places
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.search import Candidate, Choice, answer, choose, judged_score, roll
from stacklstm_cli.training.space import LAYERS, apply, build_space, option_names, start_params, words
from stacklstm_cli.training.study import Task

CANDIDATES = 20
"""Candidates tried where more than the depth is searched and neither their number nor the time is given."""


def entries_of(config: SearchConfig, typed: Collection[str], usual: Sequence[str] = ()) -> tuple[str, ...]:
    """What is searched: the entries of `--search`, or those of the usual options that were not typed.

    Raises `UsageError` for an option that is to be searched and was typed.
    """
    if config.search:
        names = option_names(config.search)
        both = [name for name in names if name in typed]
        if both:
            raise UsageError(
                f"{option_name(both[0])} has a value and is to be searched.",
                hint=f"Leave out the value, or {both[0].replace('_', '-')} from --search.",
                code="searched_and_set",
            )
        if "max_layers" in typed and (LAYERS not in names or f"{LAYERS}=" in "".join(config.search)):
            raise UsageError(
                "--max-layers would do nothing, as no depth is searched up to it.",
                hint="Add layers to --search.",
                code="options_exclude_each_other",
            )
        return config.search
    return tuple(name for name in usual if name not in typed)


def plan_search(
    panel: Panel,
    plan: Plan | LabelPlan,
    model: ModelConfig,
    training: TrainingConfig,
    metrics: MetricConfig,
    config: SearchConfig,
    entries: Sequence[str],
    *,
    named: bool,
) -> Task:
    """The search. `named` says whether its options were named, so that it goes on after the depths by itself.

    Raises `UsageError` for what cannot be searched, `DataError` where the series are too short.
    """
    if not entries:
        raise UsageError(
            "Every option that tune usually searches has a value, so nothing is left to search.",
            hint="Leave out one of them, or name others with --search.",
            code="nothing_to_search",
        )
    if isinstance(plan, LabelPlan):
        entries = label_entries(entries, plan, named=named)
    if LAYERS in option_names(entries) and (len(model.hidden_size) > 1 or model.dilations):
        name = "dilations" if model.dilations else "hidden_size"
        raise UsageError(
            f"{option_name(name)} has a number for each layer, and the number of layers is to be searched.",
            hint=f"Give a number of --layers, or leave out {option_name(name)}"
            + (" but for one width." if name == "hidden_size" else "."),
            code="widths_do_not_fit",
        )
    space = build_space(entries, plan, model, training, config.max_layers)
    starts = len(start_params(space, plan, model, training))
    depths_alone = [one.name for one in space] == [LAYERS]
    limit = config.trials
    if limit is None and (depths_alone or (training.max_time is None and not named)):
        limit = starts
    elif limit is None and training.max_time is None:
        limit = max(CANDIDATES, starts)
    rest = (config.fits, limit)
    if isinstance(plan, LabelPlan):
        rolling = roll_labels(panel, plan, config.folds)
        return LabelTask(panel, plan, model, training, metrics, space, rolling, *rest)
    return Task(panel, plan, model, training, metrics, space, roll(panel, plan, config.folds), *rest)


def announced(task: Task) -> list[str]:
    """What will be searched, for a person."""
    depth = next((one for one in task.space if one.name == LAYERS), None)
    others = [one.name.replace("_", "-") for one in task.space if one.name != LAYERS]
    starts = len(task.starts)
    first = f"{starts} depth{'s' * (starts != 1)}" if depth is not None else "the defaults"
    goes_on = task.limit is None or task.limit > starts
    parts = f"search: {first}" + (f", then {', '.join(others)}" if others and goes_on else "")
    if task.limit is not None and goes_on:
        parts += f", {task.limit} candidates in all"
    where = f"at {task.rolling.explained()}, before the holdout"
    if task.rolling.metric == "log_loss":
        where = f"on {task.rolling.explained()}, each by a network that had not seen it"
    told = [f"{parts}; compared {where}"]
    if others and not goes_on:
        told.append(f"--trials 30 or --max-time 10m would also try {', '.join(others)}")
    return told


@dataclass(frozen=True)
class Found:
    """A search that has ended."""

    task: Task
    pick: str
    candidates: tuple[Candidate, ...]
    choice: Choice | None
    """None where not one candidate was finished."""

    @property
    def answer(self) -> str:
        """The depth question in one sentence; "" where no depth was searched."""
        return answer(self.candidates, self.pick, self.task.rolling)

    @property
    def missing(self) -> int:
        """How many of the first candidates were not finished."""
        wanted = len(self.task.starts) if self.task.limit is None else min(self.task.limit, len(self.task.starts))
        return max(0, wanted - sum(one.start for one in self.candidates))

    @property
    def typed(self) -> list[str]:
        """The choice as options of `train`."""
        return [] if self.choice is None else words(self.task.changed(self.choice.chosen))

    def record(self) -> dict[str, Any]:
        """What the model file keeps: no times, so that equal runs give equal files."""
        rolling, choice = self.task.rolling, self.choice
        chosen = None if choice is None else choice.chosen
        return {
            "answer": self.answer,
            "pick": self.pick,
            "metric": rolling.metric,
            "n": rolling.units,
            "paired_over": rolling.paired_over,
            "folds": len(rolling.folds),
            "fits": self.task.fits,
            "best": None if choice is None else choice.best.number,
            "chosen": None if chosen is None else chosen.number,
            "score": None if chosen is None else chosen.score,
            "options": {} if chosen is None else self.task.changed(chosen),
            "candidates": [self.row(one) for one in self.candidates],
        }

    def row(self, one: Candidate) -> dict[str, Any]:
        """A candidate as the table and the model file show it."""
        beside = {} if self.choice is None else {other.candidate.number: other for other in self.choice.compared}
        figures = beside.get(one.number)
        marks = []
        if self.choice is not None:
            marks = ["best"] * (one.number == self.choice.best.number)
            marks += ["chosen"] * (one.number == self.choice.chosen.number)
        return {
            "candidate": one.number,
            "layers": one.layers,
            **{dimension.name: one.params.get(dimension.name) for dimension in self.task.space},
            "state": ", ".join(marks) or one.state.replace("complete", ""),
            "score": None if figures is None else one.score,
            "spread": None if figures is None else one.spread if one.losses.size > 1 else None,
            "difference": None if figures is None else figures.difference,
            "standard_error": None if figures is None or figures.error != figures.error else figures.error,
        }

    def document(self, judgement: Backtest | None) -> dict[str, Any]:
        """The same with times, and with the one score on the holdout beside the cross-validated one."""
        record = self.record()
        for row, one in zip(record["candidates"], self.candidates, strict=True):
            row["seconds"] = round(one.seconds, 3)
            if one.why:
                row["why"] = one.why
        record["holdout"] = None if judgement is None else judged_score(judgement, self.task.rolling)
        return record


def run_search(
    task: Task,
    config: SearchConfig,
    study: StudyConfig,
    *,
    places: Places,
    clock: Clock,
    messages: Messages,
) -> Found:
    """Search with a progress bar and until a signal; say what was found."""
    for line in announced(task):
        messages.note(line)
    places.settle(task.training.precision, task.work, clock)
    for line in places.explained():
        messages.note(line)
    progress = SearchProgress(messages.progress_stream, clock.max_time)
    with progress:
        tried = search(task, study.study, study.jobs, device=places, clock=clock, on_event=progress.searched)
    found = Found(task, config.pick, tuple(tried), choose(tried, config.pick, task.rolling.overlap))
    for one in tried:
        if one.state == "failed":
            messages.detail(f"candidate {one.number} ({' '.join(words(one.params))}): {one.why}")
    if found.missing:
        messages.warning("search_unfinished", f"The search ended before {found.missing} of the first candidates.")
    return found


def chosen_configs(found: Found, network: ModelConfig, training: TrainingConfig) -> tuple[ModelConfig, TrainingConfig]:
    """The configurations with what was chosen; as they were where nothing was."""
    if found.choice is None:
        return network, training
    return apply(found.task.changed(found.choice.chosen), network, training)
