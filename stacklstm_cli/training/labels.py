"""Training for labels: series are held out in folds, which say how long to train and how good and sure the result is.

No row is spared for a holdout, as labelled series are few: each fold's network is judged on the series that it has not
seen (stratified cross-validation, Kohavi 1995), the steps are those at which the folds together judge best, and the
networks that are saved are fitted to everything for that many steps, with seeds of their own.

Shape letters: B batch, N series, R rows, K classes, W windows, H labels of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stacklstm_cli.data.history import remember
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import NothingLearnedError
from stacklstm_cli.evaluation.labelled import MAJORITY, NEAREST, neighbours
from stacklstm_cli.evaluation.labels import LabelJudgement, fit_temperature, judge, majority
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import Checkpoint, Weights
from stacklstm_cli.model.heads import Scaling
from stacklstm_cli.model.inputs import number_statistics
from stacklstm_cli.model.labels import LabelNetwork, LabelWindows, label_spec, label_windows
from stacklstm_cli.training.fitting import describe
from stacklstm_cli.training.label_folds import (
    Curve,
    best_steps,
    certain,
    softened,
    spread,
    surprises,
    unit_means,
    units_of,
)
from stacklstm_cli.training.label_plan import (
    LabelPlan,
    last_known,
)
from stacklstm_cli.training.lessons import Lesson, Lessons
from stacklstm_cli.training.loop import Fit, OnEvent, OnSnapshot, Snapshot, fit
from stacklstm_cli.training.placement import Where, Work, places_of
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock, Interrupted

FOLD_SHARE = 0.5
"""Of a time limit, for the folds."""
DIVERGED = "diverged"
STOPPED = {"time": "Time was up", "signal": "Stopped by a signal"}
"""Why a run left something out, in words."""


@dataclass(frozen=True)
class LabelOutcome:
    """A trained model and how it was judged."""

    checkpoint: Checkpoint
    fits: tuple[Fit, ...]
    judgement: LabelJudgement | None
    """The model and the baselines, out of fold; None where training was stopped before."""
    stopped: str
    warnings: tuple[tuple[str, str], ...]


class LabelLessons(Lessons):
    """W windows with the classes of their series or rows."""

    def __init__(self, windows: LabelWindows, origins: Origins, truth: Tensor, weights: Tensor) -> None:
        """`truth` [N] or [R], -1 where nothing is to be learned; `weights` [K] of the classes."""
        self.windows: Any = windows
        self.every_step = False
        self.series = torch.as_tensor(origins.series, device=windows.device)  # [W]
        self.rows = torch.as_tensor(origins.rows, device=windows.device)  # [W]
        self.truth, self.weights = truth, weights
        self.every_row = label_spec(windows.spec).every_row
        kept = (self.labels(self.series, self.rows) >= 0).any(1)
        self.series, self.rows = self.series[kept], self.rows[kept]

    def labels(self, series: Tensor, rows: Tensor) -> Tensor:
        """[B, H] the class of each label of some windows; -1 where there is none."""
        if not self.every_row:
            return self.truth[series].unsqueeze(1)  # [B, 1]
        places = rows.unsqueeze(1) + self.windows.steps_back  # [B, L]
        inside = places >= 0
        index = torch.where(inside, self.windows.offsets[series].unsqueeze(1) + places, 0)
        return torch.where(inside, self.truth[index], -1)  # [B, L]

    def batch(self, chosen: Tensor, *, exact: bool = False) -> Lesson:
        series, rows = self.series[chosen], self.rows[chosen]  # [B], [B]
        labels = self.labels(series, rows)  # [B, H]
        known = torch.where(labels >= 0, self.weights[labels.clamp(min=0)], 0.0)  # [B, H]
        one = torch.ones(len(series), 1, device=self.series.device)
        inputs = self.windows.inputs(series, rows).to(self.windows.device, torch.float32)
        return Lesson(inputs, labels.clamp(min=0), known, one, Scaling(one, one))

    def thinned(self, most: int) -> Lessons:
        """All of them: labelled series are few."""
        return self


@dataclass(frozen=True)
class CrossValidation:
    """What the folds have told."""

    curves: tuple[Curve, ...]
    fits: tuple[Fit, ...]
    steps: int
    """At which the folds together judge best."""
    held: Ints
    """Series, or rows, that were held out of some fold."""
    found: Floats
    """[held, K] what the networks that had not seen them say of them at these steps, calibrated."""
    temperature: float
    cut: str = ""
    """Why folds are missing: "time", "signal", "diverged"; "" where all have judged."""

    def losses(self, truth: Ints) -> Floats:
        """[held] what the true class of each was a surprise [nats]."""
        return surprises(self.found, truth[self.held])


class LabelTrainer:
    """One training, from the folds to the networks that are saved."""

    def __init__(
        self,
        panel: Panel,
        plan: LabelPlan,
        *,
        device: Where,
        clock: Clock,
        on_event: OnEvent,
        resume: Resume | None = None,
    ) -> None:
        """`resume` is asked where an earlier run was interrupted, and told how far this one is.

        Of several devices one is chosen, which may take a trial. Raises `UsageError` as `Places.settle` does.
        """
        if resume is not None:
            resume.open(panel, plan, clock)
        self.resume = resume
        self.panel, self.plan, self.clock, self.on_event = panel, plan, clock, on_event
        self.origins = label_windows(panel.lengths, plan.spec)
        recalled = None if resume is None else resume.place
        place = places_of(device).settle(plan.precision, self.work, clock, recalled)
        self.device, self.precision = place.device, place.precision
        if resume is not None:
            resume.place = place.as_dict()
        self.windows = LabelWindows(panel, plan.spec, self.device)

    def work(self) -> Work:
        """The work by which devices and precisions are compared."""
        plan = self.plan
        fits = len(plan.folds) + label_spec(plan.spec).members

        def build(device: torch.device) -> tuple[LabelNetwork, Lessons]:
            truth, weights = (torch.as_tensor(part, device=device) for part in (plan.truth, plan.weights))
            windows = LabelWindows(self.panel, plan.spec, device)
            return LabelNetwork(plan.spec).to(device), LabelLessons(windows, self.origins, truth, weights.float())

        return Work(build, plan.schedule, fits * plan.schedule.max_steps)

    def run(self, options: dict[str, Any]) -> LabelOutcome:
        """Train and judge. `options` are those that were given. Raises `NothingLearnedError` or `Interrupted`."""
        return self.finish(self.cross_validate(), options)

    def cross_validate(self) -> CrossValidation:
        """Fit a network on each fold, as far as time allows. Raises as `run` does where there is not one."""
        plan = self.plan
        curves: list[Curve] = []
        fits: list[Fit] = []
        cut: str = ""
        for fold in range(len(plan.folds)):
            cut = self.clock.stopped(FOLD_SHARE) if curves else ""
            if cut:
                break
            curve = Curve(self.panel, plan, fold, self.device)
            try:
                fits.append(self.fit(plan.folds[fold], fold, curve, f"fold {fold + 1}", FOLD_SHARE))
            except (NothingLearnedError, Interrupted):
                if not fits:
                    raise
                cut = self.clock.stopped(FOLD_SHARE) or DIVERGED
                break
            curves.append(curve)
        steps, held, found = best_steps(curves, plan)
        temperature = fit_temperature(certain(found), plan.truth[held]) if len(held) else 1.0
        return CrossValidation(tuple(curves), tuple(fits), steps, held, softened(found, temperature), temperature, cut)

    def finish(self, told: CrossValidation, options: dict[str, Any]) -> LabelOutcome:
        """Fit the networks that are saved on all that has a label, for as many steps as the folds have found."""
        members, cut = self.members(told.steps)
        whole = [one for one in members if one.steps >= told.steps]
        final = whole or members[:1] or [told.fits[0]]
        judgement = self.judged(told.held, told.found) if len(told.held) else None
        reasons = (*(one.stopped for one in told.fits), told.cut, cut)
        stopped = next((why for why in reasons if why in STOPPED), "")
        return LabelOutcome(
            self.checkpoint(final, told, judgement, options, stopped),
            (*told.fits, *members),
            judgement,
            stopped,
            tuple(self.warnings(told, members, whole, cut)),
        )

    def members(self, steps: int) -> tuple[list[Fit], str]:
        """The networks on all that has a label, as far as time allows, and why some are missing or short: "time",
        "signal", "diverged", or "" where none is."""
        found: list[Fit] = []
        count = label_spec(self.plan.spec).members
        for member in range(count):
            cut = self.clock.stopped((1 + FOLD_SHARE + member / count * FOLD_SHARE) / 2 if found else 1.0)
            if cut == "signal" or (found and cut):
                return found, cut
            try:
                found.append(self.fit(self.plan.truth, member, None, f"network {member + 1}", 1.0, steps))
            except (NothingLearnedError, Interrupted):
                return found, self.clock.stopped() or DIVERGED
        return found, next((one.stopped for one in found if one.stopped), "")

    def warnings(
        self, told: CrossValidation, members: list[Fit], whole: list[Fit], cut: str
    ) -> Iterator[tuple[str, str]]:
        """(code, sentence) of what a user must know before trusting this model; `cut` is why networks are missing."""
        plan = self.plan
        wanted, folds = label_spec(plan.spec).members, len(plan.folds)
        why = STOPPED.get(cut, "Training diverged")
        early = STOPPED.get(
            told.cut or next((one.stopped for one in told.fits if one.stopped), ""), "Training diverged"
        )
        if len(told.curves) < folds:
            yield "fewer_folds", f"{early}: {len(told.curves)} of {folds} folds have judged."
        if not told.held.size:
            yield "not_judged", f"{early} before judging: the model has no table."
        if not members:
            yield "not_refitted", f"{why} before the last fit: the network of the first fold was kept."
        elif not whole:
            yield "refit_shortened", f"{why}: the network made {members[0].steps} of {told.steps} steps."
        elif len(whole) < wanted:
            yield "time_up", f"{why}: {len(whole)} of {wanted} networks were fitted."
        late = plan.never_judged()
        if late:
            yield (
                "class_not_judged",
                f"Nothing is known of how well these classes are told, which {plan.alone}: {', '.join(late)}.",
            )
        recoveries = sum(one.recoveries for one in (*told.fits, *members))
        if recoveries:
            times = f"{recoveries} time{'s' * (recoveries > 1)}"
            yield (
                "diverged_recovered",
                f"Training diverged {times}: each time it went back and halved the learning rate.",
            )

    def fit(
        self, truth: Ints, number: int, curve: Curve | None, phase: str, share: float, steps: int | None = None
    ) -> Fit:
        """A new network, fitted to what `truth` holds; its statistics of features are those of the same series."""
        plan = self.plan
        done = self.resume.finished(phase) if self.resume is not None else None
        if done is not None:
            if curve is not None:
                curve.recall(done.told)
            return done.fit
        seed = plan.seed + 1000 * number
        with self.clock.interruptible(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = LabelNetwork(plan.spec)
        set_statistics(network, self.panel, truth, plan.every_row)
        known, weights = (torch.as_tensor(part, device=self.device) for part in (truth, plan.weights))
        lessons = LabelLessons(self.windows, self.origins, known, weights.float())
        judged = None
        state = self.resume.snapshot(phase) if self.resume is not None else None
        if curve is not None:
            curve.like(network)
            curve.recall({} if state is None else state.tensors)
            held = torch.as_tensor(np.where(plan.held_out(curve.fold), plan.truth, -1), device=self.device)
            judged = LabelLessons(self.windows, self.origins, held, weights.float())
        fitted = fit(
            network.to(self.device),
            lessons,
            judged,
            replace(plan.schedule, max_steps=steps or plan.schedule.max_steps),
            seed=seed,
            clock=self.clock,
            phase=phase,
            share_of_time=share,
            precision=self.precision,
            on_event=self.on_event,
            state=state,
            on_snapshot=self.taker(phase, curve),
        )
        if curve is not None and not curve.found and fitted.stopped != "signal":
            curve.look(fitted.weights, fitted.steps)
        if self.resume is not None and fitted.stopped != "signal":
            self.resume.finish(phase, fitted, told={} if curve is None else curve.told())
        return fitted

    def taker(self, phase: str, curve: Curve | None) -> OnSnapshot:
        """What becomes of the snapshots of a fit."""

        def take(snapshot: Snapshot, better: bool) -> None:
            told: Weights = {}
            if curve is not None:
                curve.take(snapshot)
                told = curve.told()
            if self.resume is not None:
                self.resume.offer(phase, replace(snapshot, tensors=snapshot.tensors | told), better)

        return take

    def judged(self, held: Ints, found: Floats) -> LabelJudgement:
        """The model's probabilities [held, K] beside the baselines', each fold's from what that fold has learned."""
        plan, size = self.plan, len(self.plan.classes)
        places = [np.flatnonzero(plan.held_out(fold)) for fold in range(len(plan.folds))]
        plain = np.empty((plan.truth.size, size))
        for learned, wanted in zip(plan.folds, places, strict=True):
            # What a stratified fold leaves lacks just what it asks for, and its shares would be wrong the more for it.
            plain[wanted] = majority(learned if plan.every_row else plan.truth, wanted.size, size)
        near = neighbours(self.panel, plan.every_row, plan.folds, places, size)
        predictions = {MODEL: found, MAJORITY: plain[held], NEAREST: near[held]}
        return judge(predictions, plan.truth[held], plan.classes)

    def checkpoint(
        self,
        final: list[Fit],
        told: CrossValidation,
        judgement: LabelJudgement | None,
        options: dict[str, Any],
        stopped: str,
    ) -> Checkpoint:
        panel, plan = self.panel, self.plan
        over, groups = units_of(panel, plan, told.held)
        losses = unit_means(told.losses(plan.truth), groups)  # [U]
        labels = replace(label_spec(plan.spec), members=len(final), temperature=told.temperature)
        return Checkpoint(
            columns=panel.columns,
            step=panel.step,
            time_form=panel.time_form,
            seasonality=1,
            keys=panel.keys,
            spec=replace(plan.spec, labels=labels),
            final={
                f"{place}.{name}": weight for place, one in enumerate(final) for name, weight in one.weights.items()
            },
            trained_to=panel.ends,
            judged=None,
            judged_to=panel.ends,
            data_to=panel.ends,
            data=describe(panel) | {"fingerprint": panel.fingerprint()},
            metrics={} if judgement is None else judgement.metrics(),
            training={
                **vars(plan.schedule),
                "seed": plan.seed,
                "folds": len(told.curves),
                "judged": len(told.held),
                "units": losses.size,
                "paired_over": over,
                "unit_loss": float(losses.mean()) if losses.size else None,
                "spread": spread(losses),
                "class_counts": np.bincount(plan.truth[plan.truth >= 0], minlength=len(plan.classes)).tolist(),
                "history": [],
                "steps": final[0].steps,
                "epochs": final[0].epochs,
                "stopped": stopped,
            },
            options=options,
            history=remember(panel),
        )


def set_statistics(network: LabelNetwork, panel: Panel, truth: Ints, every_row: bool) -> None:
    """Means and deviations of the features, over the series from which something is learned, of rows up to the last
    one that teaches."""
    known = truth >= 0
    ends = np.where(known, panel.lengths, 0) if not every_row else last_known(panel, known)
    mean, deviation = number_statistics(panel, ends)
    timed = len(network.spec.inputs.of("past"))
    for features, begin, end in ((network.past, 0, timed), (network.static, timed, len(mean))):
        features.mean.copy_(torch.as_tensor(mean[begin:end][features.numbers]))
        features.deviation.copy_(torch.as_tensor(deviation[begin:end][features.numbers]))
