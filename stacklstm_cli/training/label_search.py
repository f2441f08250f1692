"""What a search compares where labels are learned: candidates by the log loss of the folds.

A candidate is fitted once on each fold, in fewer steps than a training makes, and judged on what the fold has held
out, at the steps and the temperature that suit it best there: what `train` prints of a network, and as much in favour
of each candidate. Paired are series, or stretches of rows with one label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stacklstm_cli.config import option_name
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.errors import DataError, NothingLearnedError, UsageError
from stacklstm_cli.evaluation.labels import fit_temperature
from stacklstm_cli.model.classes import FORECASTS_ONLY
from stacklstm_cli.training.label_folds import Curve, best_steps, certain, softened, surprises, units_of
from stacklstm_cli.training.label_plan import LabelPlan, plan_labels
from stacklstm_cli.training.labels import LabelTrainer
from stacklstm_cli.training.loop import OnEvent
from stacklstm_cli.training.placement import CPU, Where, Work
from stacklstm_cli.training.runtime import Clock, Interrupted
from stacklstm_cli.training.search import Candidate, Rolling, StoppedError, shortened_schedule
from stacklstm_cli.training.space import LAYERS, Params, apply, option_names, resolved
from stacklstm_cli.training.study import Task

LABEL_USUAL = (LAYERS, "hidden_size", "cell", "attention", "dropout", "learning_rate")
"""What `tune` searches for labels where nothing is named."""
FIXED = ("bidirectional", "skip", "context_length", "patch_length")
"""What no search changes of a network that gives labels: it reads whole series, and from both ends."""


def label_entries(entries: Sequence[str], plan: LabelPlan, *, named: bool) -> tuple[str, ...]:
    """What is searched for these labels, of the entries of `--search`, or where none were `named` of the usual ones.

    Raises `UsageError` for an entry that changes nothing of a network that gives labels.
    """
    fixed = (*FORECASTS_ONLY, *FIXED, *(["attention"] if plan.every_row else []))
    if not named:
        return tuple(entry for entry in entries if entry not in fixed)
    for name in option_names(entries):
        if name in fixed:
            raise UsageError(
                f"--search {name.replace('_', '-')}: {option_name(name)} is not searched for labels.",
                hint="Searched are, among others: " + ", ".join(LABEL_USUAL).replace("_", "-") + ".",
                code="label_conflict",
            )
    return tuple(entries)


def roll_labels(panel: Panel, plan: LabelPlan, folds: int | None) -> Rolling:
    """The folds that candidates are compared on: those of the plan, or the first of them.

    Raises `DataError` where there are fewer than were asked for.
    """
    there = len(plan.folds)
    if folds is not None and folds > there:
        raise DataError(
            f"A search of {folds} folds was asked for; these labels give {there}.",
            hint=f"Give --folds {there}, or leave it out.",
            code="too_few_rows_to_search",
        )
    chosen = tuple(range(folds or there))
    places = np.concatenate([np.flatnonzero(plan.held_out(fold)) for fold in chosen])  # [O]
    over, groups = units_of(panel, plan, places)
    return Rolling(chosen, groups, over, 1, "log_loss")


class LabelTask(Task):
    """What is searched where labels are learned. `plan` is a `LabelPlan`, a fold its number."""

    def plan_of(self, params: Params) -> LabelPlan:
        """The plan of a candidate. Raises `UsageError` where its options contradict each other."""
        every_row = self.plan.spec.labels is not None and self.plan.spec.labels.every_row
        return plan_labels(self.panel, *apply(self.own(params), self.model, self.training), every_row=every_row)

    def changed(self, found: Candidate) -> Params:
        """The options of a candidate that must be typed to train it."""
        return self.own(found.params)

    def own(self, params: Params) -> Params:
        """Those that are not so anyway: what is typed may mean more than what is found for each part of a network."""
        return {
            name: value
            for name, value in params.items()
            if name == LAYERS or value != resolved(name, self.plan, self.model, self.training)
        }

    def work(self) -> Work:
        trainer = LabelTrainer(self.panel, self.plan_of({}), device=CPU, clock=Clock(), on_event=lambda event: None)
        return trainer.work()

    def losses(
        self, plan: LabelPlan, fold: int, seed: int, *, device: Where, clock: Clock, on_event: OnEvent
    ) -> Floats:
        """[O] log loss of a candidate on what a fold has held out, each as much as its class counts.

        Raises `StoppedError` where the clock ended the fit, `NothingLearnedError` where it diverged.
        """
        one = replace(plan, seed=seed, schedule=shortened_schedule(plan.schedule))
        trainer = LabelTrainer(self.panel, one, device=device, clock=clock, on_event=on_event)
        curve = Curve(self.panel, one, fold, trainer.device)
        try:
            fitted = trainer.fit(one.folds[fold], 0, curve, f"fold {fold + 1}", 1.0)
        except (NothingLearnedError, Interrupted):
            if clock.stopped():  # before the first step
                raise StoppedError(clock.stopped()) from None
            raise
        if fitted.stopped or clock.stopped() == "signal":
            raise StoppedError(fitted.stopped or "signal")
        _, held, found = best_steps([curve], one)
        truth = one.truth[held]
        losses = surprises(softened(found, fit_temperature(certain(found), truth)), truth)
        return np.asarray(losses * one.weights[truth])
