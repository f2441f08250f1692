"""Candidate after candidate, by Optuna: the depths first, then what its sampler proposes; kept in a study.

A study may be shared by several processes and machines: each asks it for the next candidate, and everything that a
result consists of is stored with the candidate.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig, option_name
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.errors import DataError, ModelError, NothingLearnedError, UsageError
from stacklstm_cli.training.defaults import resolve
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.loop import OnEvent
from stacklstm_cli.training.placement import CPU, Where, Work
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.search import Candidate, Rolling, State, StoppedError, fold_losses
from stacklstm_cli.training.space import Dimension, Params, Planned, apply, resolved, start_params
from stacklstm_cli.training.storage import open_storage, quiet_optuna, study_errors

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

NAME = "stacklstm"
FORMAT = 1
MOST_REPEATS = 20
"""Candidates proposed in a row that were tried before, after which nothing new is expected."""
REDUCTION = 2
"""Of the candidates that reach a budget, one in so many goes on to `REDUCTION` times as much."""
FIRST_CHECKS = 2
"""Validations of the first fit after which a candidate is compared for the first time."""
SILENT = 600.0
"""Seconds without a sign of life after which a candidate of another machine counts as abandoned."""
NOT_COMPARED = ("max_time", "refit")
"""Options that change no score of a search."""
NO_COMMON_LOSS = ("transform",)
"""Options whose values give the validation loss another unit, so that no fit is ended by comparing it."""

OnSearch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """What is searched, on what; enough for another process to take part."""

    panel: Panel
    plan: Planned
    """What would be trained without a search."""
    model: ModelConfig
    training: TrainingConfig
    metrics: MetricConfig
    space: tuple[Dimension, ...]
    rolling: Rolling
    fits: int
    """Fits of each candidate in each fold, with seeds of their own."""
    limit: int | None
    """Most candidates."""

    @property
    def starts(self) -> list[Params]:
        """The candidates that are tried first."""
        return start_params(self.space, self.plan, self.model, self.training)

    def changed(self, found: Candidate) -> Params:
        """The options of a candidate that must be typed to train it: of one of the first, what is not so anyway."""
        if not found.start:
            return found.params
        return {
            name: value
            for name, value in found.params.items()
            if name == "layers" or value != resolved(name, self.plan, self.model, self.training)
        }

    def plan_of(self, params: Params) -> Any:
        """The plan of a candidate. Raises `UsageError` where its options contradict each other."""
        return resolve(self.panel, *apply(params, self.model, self.training), self.metrics)

    def work(self) -> Work:
        """The work by which devices and precisions are compared: that of the training without a search."""
        return Trainer(self.panel, self.plan_of({}), device=CPU, clock=Clock()).work()

    def losses(self, plan: Any, fold: Any, seed: int, *, device: Where, clock: Clock, on_event: OnEvent) -> Floats:
        """[O] losses of a candidate with this plan on one fold. Raises as `fold_losses` does."""
        return fold_losses(self.panel, plan, fold, seed, device=device, clock=clock, on_event=on_event)

    def identity(self) -> dict[str, Any]:
        """What candidates of one study must share, as JSON has it."""
        searched = {dimension.name for dimension in self.space}
        options = asdict(self.model) | asdict(self.training)
        kept = {name: value for name, value in options.items() if name not in searched and name not in NOT_COMPARED}
        found = {
            "format": FORMAT,
            "data": self.panel.fingerprint(),
            "options": kept | {"seasonality": self.metrics.seasonality},
            "folds": len(self.rolling.folds),
            "fits": self.fits,
            "space": {one.name: {} if one.name == "layers" else one.as_dict() for one in self.space},
        }
        restored: dict[str, Any] = json.loads(json.dumps(found))
        return restored


def open_study(place: str | None, task: Task, seed: int) -> Study:
    """A new study, or the one that is kept at `place`.

    Raises `ModelError` for a damaged study and one of other data, `UsageError` for one of other options.
    """
    optuna = quiet_optuna()
    with study_errors(place):
        first = FIRST_CHECKS * task.plan.schedule.check_every
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
        try:
            storage = open_storage(place)
            study: Study = optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True, pruner=pruner)
            trials = study.get_trials(deepcopy=False)
            found = study.user_attrs.get("stacklstm")
            for trial in trials:
                candidate_of(trial)
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
            raise ModelError(
                f"{place} is no sound study: it cannot be read ({type(error).__name__}).",
                hint="Name another file with --study, or remove this one.",
                code="study_damaged",
            ) from error
        identity = task.identity()
        if found is None:
            study.set_user_attr("stacklstm", identity)
        elif found != identity:
            raise other_study(place or "", found, identity)
        study.sampler = optuna.samplers.TPESampler(seed=(seed + 7919 * len(trials)) % 2**32)
    return study


def other_study(place: str, found: Any, wanted: dict[str, Any]) -> ModelError | UsageError:
    """The error for a study whose candidates cannot be compared with these."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return ModelError(f"{place} is a study of another program or version.", code="study_foreign")
    if found.get("data") != wanted["data"]:
        return ModelError(
            f"{place} is a study of other data.", hint="Name another file with --study.", code="study_of_other_data"
        )
    before = flat(found)
    after = flat(wanted)
    names = sorted(name for name in before | after if before.get(name) != after.get(name))
    # What one searches and the other does not is said once.
    names = [name for name in names if f"--search {name[2:]}" not in names]
    return UsageError(
        f"{place} is a study made with other options: {', '.join(names)}.",
        hint="Type what was typed then, or name another file with --study.",
        code="study_of_other_options",
    )


def flat(identity: dict[str, Any]) -> dict[str, Any]:
    """The options behind an identity by what is typed."""
    space = identity.get("space", {})
    options = {option_name(name): value for name, value in identity.get("options", {}).items() if name not in space}
    searched = {f"--search {name.replace('_', '-')}": value for name, value in space.items()}
    return options | searched | {"--folds": identity.get("folds"), "--fits": identity.get("fits")}


def candidate_of(trial: FrozenTrial) -> Candidate | None:
    """What is stored of a candidate; None of one that waits, is tried just now, or was tried before."""
    stored = trial.user_attrs.get("result")
    if stored is None or "same_as" in trial.user_attrs:
        return None
    state: State = stored["state"]
    return Candidate(
        number=trial.number + 1,
        params=dict(stored["params"]),
        layers=stored["layers"],
        start="start" in trial.user_attrs,
        state=state,
        losses=np.asarray(stored["losses"], dtype=np.float64),
        seconds=stored["seconds"],
        why=stored["why"],
    )


def candidates(study: Study) -> list[Candidate]:
    """Every candidate of a study that has ended, in order; of equal ones the first."""
    found: dict[str, Candidate] = {}
    for trial in study.get_trials(deepcopy=False):
        candidate = candidate_of(trial)
        if candidate is not None:
            found.setdefault(key_of(candidate.params), candidate)
    return list(found.values())


def key_of(params: Params) -> str:
    return json.dumps(params, sort_keys=True)


def enqueue_starts(study: Study, task: Task) -> None:
    """Queue those of the first candidates that have no result yet and that nobody works on."""
    optuna = quiet_optuna()
    taken = set()
    for trial in study.get_trials(deepcopy=False):
        waits = trial.state == optuna.trial.TrialState.WAITING
        if waits or "result" in trial.user_attrs or is_alive(trial):
            taken.add(key_of(trial.user_attrs.get("start", {})))
    for params in task.starts:
        if key_of(params) not in taken:
            study.enqueue_trial(params, user_attrs={"start": params})


def is_alive(trial: FrozenTrial) -> bool:
    """Whether a process works on the candidate, as far as can be told."""
    owner = trial.user_attrs.get("owner")
    if trial.state.is_finished() or owner is None:
        return False
    if owner["host"] == socket.gethostname() and os.name != "nt":  # there, asking would end the process
        try:
            os.kill(owner["process"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return bool(time.time() - owner["seen"] < SILENT)


def explore(study: Study, task: Task, *, device: Where, clock: Clock, on_event: OnSearch) -> None:
    """Try candidates until the limit, the clock or the space ends it. `on_event` hears of every fit."""
    optuna = quiet_optuna()
    repeats = 0
    while not clock.stopped() and repeats < MOST_REPEATS:
        trials = study.get_trials(deepcopy=False)
        known = {key_of(one.params): one for one in candidates(study)}
        busy = sum(is_alive(trial) for trial in trials)
        waiting = any(trial.state == optuna.trial.TrialState.WAITING for trial in trials)
        if task.limit is not None and len(known) + busy >= task.limit:
            break
        if not waiting and len(known) + busy >= math.prod(one.size for one in task.space):
            break
        trial = study.ask()
        trial.set_user_attr("owner", owner())
        params = suggest(trial, task)
        before = known.get(key_of(params))
        if before is not None:
            repeats += 1
            trial.set_user_attr("same_as", before.number)
            tell(study, trial, before)
            continue
        repeats = 0
        on_event({"params": params, "done": len(known), "limit": task.limit, "best": best_of(known.values())})
        tell(study, trial, try_candidate(trial, params, task, device=device, clock=clock, on_event=on_event))
    on_event({"done": len(candidates(study)), "limit": task.limit, "best": best_of(candidates(study))})


def owner() -> dict[str, Any]:
    """Who works on a candidate, and since when."""
    return {"host": socket.gethostname(), "process": os.getpid(), "seen": time.time()}


def best_of(found: Any) -> tuple[float, int] | None:
    """Score and layers of the best candidate so far."""
    return min(((one.score, one.layers) for one in found if one.state == "complete"), default=None)


def suggest(trial: Trial, task: Task) -> Params:
    """The options of a candidate: those that were queued, or what the sampler proposes. Numbers have three digits."""
    start = trial.user_attrs.get("start")
    params: Params = {}
    for one in task.space:
        if start is not None and one.name not in start:
            continue
        if one.values:
            params[one.name] = trial.suggest_categorical(one.name, one.values)
        elif one.whole:
            params[one.name] = trial.suggest_int(one.name, int(one.low), int(one.high), log=one.log)
        else:
            value = trial.suggest_float(one.name, one.low, one.high, log=one.log)
            params[one.name] = min(max(float(f"{value:.3g}"), one.low), one.high)
    return params


def try_candidate(
    trial: Trial, params: Params, task: Task, *, device: Where, clock: Clock, on_event: OnSearch
) -> Candidate | None:
    """Fit and score a candidate on every fold; None where the clock ended it.

    The first fit of all but the first candidates ends early where the others were better after as many steps.
    """
    import optuna

    begin, start = time.monotonic(), "start" in trial.user_attrs
    layers, fits = int(params.get("layers", task.model.layers)), len(task.rolling.folds) * task.fits
    compared = not any(one.name in NO_COMMON_LOSS for one in task.space)
    number, seen = 0, begin

    def heard(event: dict[str, Any]) -> None:
        nonlocal seen
        if time.monotonic() - seen > SILENT / 10:
            seen = time.monotonic()
            trial.set_user_attr("owner", owner())
        on_event({"fit": number, "fits": fits, "step": event["step"], "max_steps": event["max_steps"]})
        if number == 0 and compared and event["validation"] is not None:
            trial.report(event["validation"], event["step"])
            if trial.should_prune() and not start:
                raise optuna.TrialPruned

    def ended(state: State, losses: Any = (), why: str = "") -> Candidate:
        taken = time.monotonic() - begin
        return Candidate(trial.number + 1, params, layers, start, state, np.asarray(losses), taken, why)

    try:
        plan = task.plan_of(params)
        layers = plan.spec.layers
        losses = []
        for fold in task.rolling.folds:
            repeated = []
            for seed in range(task.training.seed, task.training.seed + task.fits):
                one = task.losses(plan, fold, seed % 2**63, device=device, clock=clock, on_event=heard)  # [O]
                repeated.append(one)
                number += 1
            losses.append(np.mean(repeated, axis=0))  # [O]
        units = task.rolling.unit_losses(np.concatenate(losses))  # [U]
    except optuna.TrialPruned:
        return ended("pruned")
    except StoppedError:
        return None
    except (UsageError, DataError, NothingLearnedError) as error:
        return ended("failed", why=error.message)
    return ended("complete", units) if np.isfinite(units).all() else ended("failed", why="a forecast is not finite")


def tell(study: Study, trial: Trial, found: Candidate | None) -> None:
    """Store what came of a candidate; one that the clock ended is as if it had not been."""
    states = quiet_optuna().trial.TrialState
    if found is None:
        study.tell(trial, state=states.FAIL)
        return
    trial.set_user_attr(
        "result",
        {
            "params": found.params,
            "layers": found.layers,
            "state": found.state,
            "losses": found.losses.tolist(),
            "seconds": found.seconds,
            "why": found.why,
        },
    )
    if found.state == "complete":
        study.tell(trial, found.score)
    else:
        study.tell(trial, state=states.PRUNED if found.state == "pruned" else states.FAIL)
