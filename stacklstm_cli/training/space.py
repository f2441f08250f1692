"""What a search tries: for each option its values, derived from the option's own definition in `config.py`."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stacklstm_cli.config import ModelConfig, TrainingConfig, check_bounds, option_name, searchable
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.training.loop import Schedule

LAYERS = "layers"
USUAL = (LAYERS, "hidden_size", "cell", "context_length", "patch_length", "dropout", "learning_rate")
"""What `tune` searches where nothing is named."""
FIELDS: dict[str, dataclasses.Field[Any]] = {
    field.name: field for config in (ModelConfig, TrainingConfig) for field in dataclasses.fields(config)
}
Params = dict[str, Any]
"""Option -> value of one candidate; what is not there is as typed, or by default."""


class Planned(Protocol):
    """What a search must know of a training, of forecasts or of labels."""

    @property
    def spec(self) -> NetworkSpec: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def seasonality(self) -> int: ...

    @property
    def most_context(self) -> int:
        """Rows of the longest context that may be tried."""


@dataclass(frozen=True)
class Dimension:
    """The values of one option."""

    name: str
    values: tuple[Any, ...] = ()
    """Each of them; none where the option is a number between `low` and `high`."""
    low: float = 0
    high: float = 0
    whole: bool = False
    log: bool = False

    @property
    def size(self) -> float:
        """How many values there are; infinite for a continuous number."""
        return len(self.values) or (self.high - self.low + 1 if self.whole else math.inf)

    def nearest(self, value: Any) -> Any:
        """The value of this dimension that is nearest to another, None where they cannot be compared."""
        if value in self.values or isinstance(value, str):
            return value if value in self.values else None
        if value is None:
            return None
        if self.values:
            return min(self.values, key=lambda other: abs(other - value))
        return min(max(value, self.low), self.high)

    def as_dict(self) -> dict[str, Any]:
        """For a study's own description."""
        if self.values:
            return {"values": list(self.values)}
        return {"low": self.low, "high": self.high, "log": self.log}


def option_names(entries: Sequence[str]) -> list[str]:
    """The fields that the entries of `--search` name, in their order. Raises `UsageError`."""
    names = []
    for entry in entries:
        name = entry.partition("=")[0].strip().lstrip("-").replace("-", "_")
        if name not in FIELDS or not searchable(FIELDS[name]):
            raise not_searchable(entry, name)
        if name in names:
            raise UsageError(f"--search names {name.replace('_', '-')} twice.", code="search_twice")
        names.append(name)
    return names


def not_searchable(entry: str, name: str) -> UsageError:
    """The error for an entry of `--search` that names no option, or one that is not searched."""
    known = [field.name for field in FIELDS.values() if searchable(field)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = "Searched are: " + ", ".join(known).replace("_", "-") + "."
    if name in FIELDS:
        message = f"--search {entry}: {option_name(name)} sets the task or the budget, not the network, so no search."
    else:
        message = f"--search {entry}: there is no such option."
        hint = (f"Did you mean {near[0].replace('_', '-')}? " if near else "") + hint
    return UsageError(message, hint=hint, code="not_searchable")


def build_space(
    entries: Sequence[str], plan: Planned, model: ModelConfig, training: TrainingConfig, max_layers: int
) -> tuple[Dimension, ...]:
    """A dimension for each entry of `--search`; `plan` is what the data leads to where nothing is searched.

    Raises `UsageError` for an option that is not searched, and for bounds that are empty or not possible.
    """
    dimensions = []
    for name, entry in zip(option_names(entries), entries, strict=True):
        field, bounds = FIELDS[name], entry.partition("=")[2].strip()
        default = resolved(name, plan, model, training)
        if bounds:
            dimension = typed_dimension(field, bounds)
        elif name == LAYERS:
            dimension = Dimension(name, low=1, high=max_layers, whole=True)
        elif field.metadata["around"]:
            dimension = around(field, default, plan)
        else:
            dimension = between(field)
        for value in dimension.values or (dimension.low, dimension.high):
            check_bounds(field, value)
        dimensions.append(dimension)
    return tuple(dimensions)


def resolved(name: str, plan: Planned, model: ModelConfig, training: TrainingConfig) -> Any:
    """The value of an option where it is not searched: as typed, or as chosen from the data; None without any."""
    if name == "hidden_size":
        return plan.spec.stack.hidden_sizes[0]
    owners = (plan.spec, plan.schedule, plan.spec.stack, model, training)
    return next(getattr(owner, name) for owner in owners if hasattr(owner, name))


def whole(field: dataclasses.Field[Any]) -> bool:
    """Whether an option is a whole number, by its type."""
    return "int" in str(field.type)


def between(field: dataclasses.Field[Any]) -> Dimension:
    """The range or the words of an option's definition."""
    found = field.metadata["search"]
    if isinstance(found[0], (str, bool)):
        return Dimension(field.name, values=found)
    return Dimension(field.name, (), found[0], found[1], whole(field), field.metadata["log"])


def around(field: dataclasses.Field[Any], default: Any, plan: Planned) -> Dimension:
    """Values around a default: doubled and halved for whole numbers, any between for others.

    Contexts stay whole seasons where the default is, and none is longer than what the series can fill.
    """
    factor = field.metadata["around"]
    if not whole(field):
        return Dimension(field.name, (), default / factor, default * factor, log=True)
    doublings = int(math.log2(factor))
    values = [round(default * 2.0**power) for power in range(-doublings, doublings + 1)]
    if field.name == "context_length":
        season = plan.seasonality if default % plan.seasonality == 0 else 1
        most = max(default, plan.most_context)
        values = [max(1, round(value / season)) * season for value in values]
        values = [value for value in values if value <= most]
    low, high = field.metadata["minimum"] or 1, field.metadata["maximum"] or math.inf
    return Dimension(field.name, tuple(sorted({value for value in values if low <= value <= high} | {default})))


def typed_dimension(field: dataclasses.Field[Any], bounds: str) -> Dimension:
    """`16..128` or `16/32/64` as a dimension. Raises `UsageError`."""
    words = field.metadata["search"] if isinstance((*field.metadata["search"], 0)[0], (str, bool)) else ()
    spelled = {str(word).lower(): word for word in words}
    try:
        if ".." in bounds and not words:
            low, high = (number(part, whole(field)) for part in bounds.split(".."))
            if low > high:
                raise empty(field, bounds)
            log = bool(field.metadata["log"] or field.metadata["around"]) and low > 0
            return Dimension(field.name, (), low, high, whole(field), log)
        parts = [part.strip() for part in bounds.split("/")]
        values = tuple(spelled[part.lower()] if words else number(part, whole(field)) for part in parts)
    except (ValueError, KeyError):
        expected = f"some of {'/'.join(spelled)}" if words else "bounds such as 16..128, or values such as 16/32/64"
        message = f"--search {field.name.replace('_', '-')}={bounds}: expected {expected}."
        raise UsageError(message, code="search_not_readable") from None
    return Dimension(field.name, tuple(dict.fromkeys(values)))


def number(text: str, is_whole: bool) -> float:
    """Raises `ValueError`."""
    value = int(text) if is_whole else float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def empty(field: dataclasses.Field[Any], bounds: str) -> UsageError:
    """The error for bounds with nothing between them."""
    low, _, high = bounds.partition("..")
    return UsageError(
        f"--search {field.name.replace('_', '-')}={bounds}: there is nothing from {low} to {high}.",
        hint=f"Type {field.name.replace('_', '-')}={high}..{low}.",
        code="empty_bounds",
    )


def apply(
    params: Mapping[str, Any], model: ModelConfig, training: TrainingConfig
) -> tuple[ModelConfig, TrainingConfig]:
    """The configurations of a candidate. Raises `UsageError` for a value out of bounds."""
    values: dict[str, Any] = {name: (value,) if name == "hidden_size" else value for name, value in params.items()}
    own = {field.name for field in dataclasses.fields(ModelConfig)}
    return (
        dataclasses.replace(model, **{name: value for name, value in values.items() if name in own}),
        dataclasses.replace(training, **{name: value for name, value in values.items() if name not in own}),
    )


def start_params(
    space: Sequence[Dimension], plan: Planned, model: ModelConfig, training: TrainingConfig
) -> list[Params]:
    """The candidates that are tried first: every depth with all else as it would be without a search."""
    others: Params = {}
    for dimension in space:
        value = dimension.nearest(resolved(dimension.name, plan, model, training))
        if dimension.name != LAYERS and value is not None:
            others[dimension.name] = value
    depth = next((dimension for dimension in space if dimension.name == LAYERS), None)
    if depth is None:
        return [others]
    return [{LAYERS: layers} | others for layers in depth.values or range(int(depth.low), int(depth.high) + 1)]


def words(params: Mapping[str, Any]) -> list[str]:
    """The options as typed: `["--layers", "3", "--no-skip"]`; a flag that is as by default is not typed."""
    typed: list[str] = []
    for name, value in params.items():
        if not isinstance(value, bool):
            typed += [option_name(name), str(value)]
        elif value != FIELDS[name].default:
            typed.append(option_name(name) if value else option_name("no_" + name))
    return typed
