"""Going on from a fitted network: with which options, from which weights, and how gently.

Shape letters: N series, E features of a category.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig, option_name
from stacklstm_cli.data.panel import Covariate, Panel
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.checkpoint import Checkpoint, Weights
from stacklstm_cli.model.inputs import MOST_CATEGORIES
from stacklstm_cli.model.network import ROLES, NetworkSpec, StackedRNN
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.start import Ridge

RATE_SHARE = 0.3
"""Of the learning rate of a new network: the weights are near a good place and shall stay there."""
STEPS_SHARE = 3
"""A new network may make so many times as many steps."""
UNVALIDATED_STEPS = 30
"""Where no rows are left that could tell when to stop."""
CHANGEABLE = ("dropout", "recurrent_dropout", "supervise", "min", "max")
"""Options of the network that leave its weights what they are."""


@dataclass(frozen=True)
class FromWeights:
    """A fitted network to begin from, in place of a linear forecast."""

    weights: Weights
    keep_statistics: bool
    """Whether means and deviations of covariates stay those of the weights."""
    ridge: ClassVar[Ridge] = Ridge(None)

    def apply_to(self, network: StackedRNN) -> None:
        """Set a network to these weights."""
        own = {f"{role}.{name}" for role in ROLES for name in ("mean", "deviation")}
        kept = {name: tensor for name, tensor in self.weights.items() if self.keep_statistics or name not in own}
        network.load_state_dict(kept, strict=self.keep_statistics)


@dataclass(frozen=True)
class Continuation:
    """What a retraining goes on from."""

    choosing: FromWeights
    """Weights that have not seen the rows which are to judge, nor, where there are such, those which choose."""
    refitting: FromWeights
    """The weights that know the newest rows."""


def continued_options(
    saved: Checkpoint, typed: Mapping[str, Any], *, from_scratch: bool
) -> tuple[ModelConfig, TrainingConfig]:
    """The options of a saved model with what is `typed` in their place.

    `--max-time` is that of the run alone. The horizon stays, so that whoever reads the forecasts finds as many rows.
    Raises `UsageError` for options that would need other weights.
    """
    model, training = (stored_config(kind, saved.options) for kind in (ModelConfig, TrainingConfig))
    present = vars(model) | {"transform": saved.spec.transform}
    changed = {name: typed[name] for name in vars(model) if name in typed and typed[name] != present[name]}
    others = [name for name in changed if name not in CHANGEABLE]
    if others and not from_scratch:
        raise UsageError(
            f"{', '.join(map(option_name, others))} would change what the weights of this model mean, so they cannot "
            "be continued.",
            hint="Add --from-scratch to fit a new network, or leave the option out.",
            code="needs_from_scratch",
        )
    model = replace(model, **{"horizon": saved.spec.horizon, **changed})
    own = {name: typed[name] for name in vars(training) if name in typed}
    if training.holdout == 0:  # which spared `train` its judging: a retraining needs one, and has new rows for it
        own = {"holdout": None} | own
    if not from_scratch and training.epochs is not None:
        own = {"epochs": max(1, training.epochs // STEPS_SHARE)} | own
    return model, replace(training, **{"max_time": None, **own})


def stored_config(kind: type[Any], options: Mapping[str, Any]) -> Any:
    """The configuration of one kind among the options of a model file; what it lacks is the default."""
    names = {field.name for field in fields(kind)} & options.keys()
    return kind(**{name: tuple(options[name]) if isinstance(options[name], list) else options[name] for name in names})


def continued_plan(
    saved: Checkpoint,
    panel: Panel,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    from_scratch: bool,
    refit_scaling: bool,
    gentle: bool,
) -> Plan:
    """The plan of a retraining; `gentle` lowers the learning rate. Raises as `resolve` does."""
    metrics = MetricConfig(seasonality=saved.seasonality)
    if from_scratch:
        return resolve(panel, model, training, metrics)
    spec = saved.spec
    sizes = {name: getattr(spec, name) for name in ("horizon", "context_length", "patch_length")}
    plan = resolve(panel, replace(model, **sizes), training, metrics)
    found = plan.spec.inputs.covariates
    covariates = found if refit_scaling else with_new_categories(spec.inputs.covariates, found)
    schedule = plan.schedule
    shorter = replace(
        schedule,
        keep_start=not refit_scaling,
        learning_rate=(RATE_SHARE if gentle else 1.0) * schedule.learning_rate,
        max_steps=max(1, schedule.max_steps // STEPS_SHARE),
        check_every=max(1, schedule.check_every // 2),
    )
    inputs = replace(spec.inputs, covariates=covariates)
    changed = changed_spec(spec, plan.spec, model)
    return replace(plan, spec=replace(changed, inputs=inputs), schedule=shorter, unvalidated_steps=UNVALIDATED_STEPS)


def changed_spec(spec: NetworkSpec, asked: NetworkSpec, model: ModelConfig) -> NetworkSpec:
    """The network of a model with the options that leave its weights what they are as they are `asked` for now."""
    dropout = spec.dropout if model.dropout is None else asked.dropout
    stack = replace(spec.stack, dropout=dropout, recurrent_dropout=asked.stack.recurrent_dropout)
    return replace(spec, stack=stack, dropout=dropout, minimum=asked.minimum, maximum=asked.maximum)


def with_new_categories(known: tuple[Covariate, ...], found: tuple[Covariate, ...]) -> tuple[Covariate, ...]:
    """The covariates of a model, the categories it does not know behind those it does, as far as there is room."""
    grown = []
    for mine, theirs in zip(known, found, strict=True):
        if mine.categories is None:
            grown.append(mine)
            continue
        new = [text for text in theirs.categories or () if text not in set(mine.categories)]
        room = max(0, MOST_CATEGORIES - len(mine.categories))
        grown.append(replace(mine, categories=(*mine.categories, *new[:room])))
    return tuple(grown)


def learned_anew(old: NetworkSpec, new: NetworkSpec) -> dict[str, list[str]]:
    """Covariate -> categories of `new` that `old` does not have, where there are any."""
    pairs = zip(old.inputs.covariates, new.inputs.covariates, strict=True)
    texts = {theirs.name: sorted({*(theirs.categories or ())} - {*(mine.categories or ())}) for mine, theirs in pairs}
    return {name: new_texts for name, new_texts in texts.items() if new_texts}


def fitted_to(weights: Weights, old: NetworkSpec, new: NetworkSpec) -> Weights:
    """Weights for the categories of `new`: what a category has learned moves with it, a new one begins as unknown."""
    moved = dict(weights)
    for role in ROLES:
        before = [one for one in old.inputs.of(role) if one.categories is not None]
        after = [one for one in new.inputs.of(role) if one.categories is not None]
        for at, (mine, theirs) in enumerate(zip(before, after, strict=True)):
            name = f"{role}.embeddings.{at}"
            numbers = {text: number for number, text in enumerate(mine.categories or (), start=1)}
            places = torch.tensor([0, *(numbers.get(text, 0) for text in theirs.categories or ())])
            moved[name] = taken(weights[name], places)  # [1 + categories, E]
    return moved


def taken(rows: Tensor, places: Tensor) -> Tensor:
    """The rows at these places, as a tensor of its own."""
    return rows.detach()[places].clone()
