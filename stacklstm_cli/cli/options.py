"""From the configurations of `config.py` to the options of a command, and from `--config FILE.toml` to their values."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperOption

from stacklstm_cli.cli.messages import SILENT, Messages
from stacklstm_cli.config import (
    AUTO,
    SearchConfig,
    check_bounds,
    option_name,
    parse_duration,
    searchable,
)
from stacklstm_cli.errors import UsageError
from stacklstm_cli.ranks import Ranks

_EXPECTED: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    tuple[int, ...]: "whole numbers with commas between them",
    tuple[float, ...]: "numbers with commas between them",
    tuple[str, ...]: "names with commas between them",
}


class Overrides(dict[str, Any]):
    """The options that were typed, or stand in `--config`, by their names; what was not is the model's own.

    A parameter of a command is annotated `Annotated[Overrides, SomeConfig, OtherConfig]`.
    """


class Typed(frozenset[str]):
    """The options that were typed or stand in the `--config` file, by the names of their fields."""


def takes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option per field of each configuration among its parameters, and hand it these built.

    One of `Overrides` gets the values that were typed alone, one of `Typed` the names of what was typed. A parameter
    annotated `Messages` becomes -q and -v. Every command also gets `--config FILE.toml`. Where a command takes
    `SearchConfig`, `auto` in place of the value of an option that can be searched adds it to `--search`.
    Raises `TypeError`, at import, where two parameters or configurations would define the same option.
    """
    declared = inspect.signature(command, eval_str=True).parameters
    configs: dict[str, Any] = {n: p.annotation for n, p in declared.items() if dataclasses.is_dataclass(p.annotation)}
    messages = [name for name, p in declared.items() if p.annotation is Messages]
    overrides = {n: get_args(p.annotation)[1:] for n, p in declared.items() if overrides_options(p.annotation)}
    typed_names = [name for name, p in declared.items() if p.annotation is Typed]
    taken = {*configs, *overrides, *messages, *typed_names}
    shown = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in declared.values() if p.name not in taken]
    searches = SearchConfig in configs.values()
    readers: dict[str, _Reader] = {}
    for config in configs.values():
        hints = get_type_hints(config)
        for field in dataclasses.fields(config):
            readers[field.name] = _Reader(field, _kind(hints[field.name]), searches)
            shown.append(_parameter(readers[field.name], config))
    for config in (one for own in overrides.values() for one in own):
        hints = get_type_hints(config)
        for field in dataclasses.fields(config):
            readers[field.name] = _Reader(field, _kind(hints[field.name]), searches=False)
            shown.append(_parameter(readers[field.name], config, own="the model's"))
    if messages:
        shown += [_count("quiet", "-q", "Silence notes; -qq warnings too."), _count("verbose", "-v", "Explain more.")]
    shown.append(_config_parameter(readers))
    if typed_names:
        shown.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    _refuse_twins(command, shown)

    @functools.wraps(command)
    def wrapper(**values: Any) -> Any:
        values.pop("config")
        built: dict[str, Any] = {}
        if messages:
            verbosity = values.pop("verbose") - values.pop("quiet")
            built = dict.fromkeys(messages, Messages(verbosity if Ranks.of().leads else SILENT))
        searched = [name for name, reader in readers.items() if reader.is_auto(values[name])]
        if typed_names:
            context = values.pop("context")
            names = [name for name in readers if _was_typed(context, name) and name not in searched]
            built |= dict.fromkeys(typed_names, Typed(names))
        for name, config in configs.items():
            typed = {field.name: values.pop(field.name) for field in dataclasses.fields(config)}
            if config is SearchConfig:
                typed["search"] = (*(typed["search"] or ()), *searched)
            kept = {option: value for option, value in typed.items() if value is not None and option not in searched}
            built[name] = config(**kept)
        for name, own in overrides.items():
            built[name] = Overrides()
            for config in own:
                typed = {field.name: values.pop(field.name) for field in dataclasses.fields(config)}
                given = {option: value for option, value in typed.items() if value is not None}
                config(**given)  # which checks bounds
                built[name] |= given
        return command(**values, **built)

    wrapper.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # what Typer reads
    wrapper.__annotations__ = {p.name: p.annotation for p in shown}
    del wrapper.__wrapped__  # its signature is not the one that Typer shall see
    return wrapper


def overrides_options(annotation: Any) -> bool:
    """Whether a parameter wants what was typed alone."""
    return get_origin(annotation) is Annotated and get_args(annotation)[0] is Overrides


def _was_typed(context: typer.Context, name: str) -> bool:
    """Whether an option was typed, or stands in a file, and is not as by default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _kind(hint: Any) -> Any:
    """The type without `| None`."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (member for member in get_args(hint) if member is not types.NoneType)
    return hint


def _parameter(reader: _Reader, config: type, own: str = "") -> inspect.Parameter:
    """The field as a parameter of the command, in the form that Typer reads; `own` says what holds if it is not typed
    where that is not the field's default."""
    field, kind = reader.field, reader.kind
    listed, duration = get_origin(kind) is tuple, reader.is_duration
    choices = field.metadata["choices"]
    names = [option_name(field)] + ([field.metadata["short"]] if field.metadata["short"] else [])
    if kind is bool and field.default:
        names[0] += f"/--no-{names[0][2:]}"
    unset: Any = field.default
    default = ",".join(map(str, unset)) or None if listed else unset
    shown: bool | str = field.metadata["unset"] or True
    if own:
        shown, default = own if default is not None or field.metadata["unset"] else True, None
    option = typer.Option(
        *names,
        help=field.metadata["help"],
        show_default=shown,
        parser=None if kind is bool else reader,
        metavar="LIST" if listed else "DURATION" if duration else None,
        autocompletion=(lambda: list(choices)) if choices else None,
        rich_help_panel=config.__name__.removesuffix("Config").removeprefix("Forecast") or "Forecast",
    )
    annotation: Any = Annotated[str if listed else (kind | None if own else kind), option]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _count(name: str, short: str, help: str) -> inspect.Parameter:
    annotation = Annotated[int, typer.Option(f"--{name}", short, count=True, metavar="", show_default=False, help=help)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=0, annotation=annotation)


def _config_parameter(readers: dict[str, _Reader]) -> inspect.Parameter:
    def load(context: typer.Context, path: Path | None) -> Path | None:
        if path is not None and not context.resilient_parsing:
            context.default_map = _stored_options(path, context, readers)
            context.ensure_object(dict)["format"] = context.default_map.get("format")  # for errors, see ErrorGroup
        return path

    text = "Options from a TOML file, by their names here; what is typed wins."
    option = typer.Option("--config", metavar="FILE.toml", is_eager=True, callback=load, help=text)
    annotation = Annotated[Path | None, option]
    return inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _refuse_twins(command: Callable[..., Any], parameters: Iterable[inspect.Parameter]) -> None:
    seen: set[str] = set()
    for parameter in parameters:
        infos = getattr(parameter.annotation, "__metadata__", ())
        typed = {flag for info in infos for names in info.param_decls or () for flag in names.split("/")}
        for name in {option_name(parameter.name), *typed}:
            if name in seen:
                raise TypeError(f"{command.__name__}: {name} is defined twice")
            seen.add(name)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Makes a value as typed, or as TOML holds it, one of the field's type."""

    field: dataclasses.Field[Any]
    kind: Any
    searches: bool
    """Whether the command can search."""

    def __call__(self, value: Any) -> Any:
        """Raises `UsageError` naming the option."""
        if self.is_auto(value):
            return AUTO
        try:
            if self.is_duration and isinstance(value, str):
                return parse_duration(value)
            if get_origin(self.kind) is not tuple:
                return _read_one(self.kind, value)
            parts = value.split(",") if isinstance(value, str) else value
            items = parts if isinstance(parts, (list, tuple)) else [parts]
            return tuple(_read_one(get_args(self.kind)[0], item) for item in items)
        except UsageError as error:
            raise UsageError(f"{option_name(self.field)}: {error.message}", code="option_not_readable") from error
        except (TypeError, ValueError):
            raise self.misread(value) from None

    @property
    def is_duration(self) -> bool:
        return bool(self.field.metadata["parse"] == "duration")

    def is_auto(self, value: Any) -> bool:
        """Whether a search shall find the value."""
        return self.searches and self.kind is not bool and value == AUTO and searchable(self.field)

    def misread(self, value: Any) -> UsageError:
        """The error for a value of another type."""
        message = f"{option_name(self.field)} is {value!r}; expected {_EXPECTED[self.kind]}."
        return UsageError(message, code="option_not_readable")


def _read_one(kind: Any, value: Any) -> Any:
    """Raises `ValueError` for a value of another type."""
    if isinstance(value, str) and kind is not bool:
        if not value.strip():
            raise ValueError(value)
        return kind(value.strip())
    if isinstance(value, bool) or kind is bool:
        if isinstance(value, bool) and kind is bool:
            return value
        raise ValueError(value)
    if kind is str and isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, int) or (isinstance(value, float) and kind is not int):
        return kind(value)
    raise ValueError(value)


def _stored_options(path: Path, context: typer.Context, readers: dict[str, _Reader]) -> dict[str, Any]:
    """The values in the file for this command: its own table before the top level.

    Raises `UsageError` for a file that cannot be read, an option that no command has, and a value of the
    wrong type.
    """
    document = _read_toml(path)
    group = getattr(context.find_root().command, "commands", {})
    commands = {name: _options(command) for name, command in group.items()}
    own = commands.setdefault(context.info_name or "", _options(context.command))
    tables = {name: table for name, table in document.items() if name in commands and isinstance(table, dict)}
    top = {key: value for key, value in document.items() if key not in tables}
    stored = _names(top, set().union(*commands.values()), str(path))
    for name, table in tables.items():
        named = _names(table, commands[name], f"{path}, [{name}]")
        if name == context.info_name:
            stored |= named
    return {name: _checked(path, name, value, readers) for name, value in stored.items() if name in own}


def _options(command: Any) -> set[str]:
    """The names of a command's options, as parameters: `hidden_size`."""
    return {p.name for p in command.params if isinstance(p, TyperOption) and p.name not in ("config", "help")}


def _names(table: dict[str, Any], known: set[str], place: str) -> dict[str, Any]:
    """The table by parameter names. Raises `UsageError` for a key that is not known or is there twice."""
    named: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
            hint = f"Did you mean {near[0].replace('_', '-')}?" if near else "Keys are option names without the dashes."
            raise UsageError(f"{place}: there is no option {key!r}.", hint=hint, code="config_unknown_option")
        if name in named:
            raise UsageError(f"{place}: {key!r} is given twice, with a hyphen and an underscore.", code="config_twice")
        named[name] = value
    return named


def _checked(path: Path, name: str, value: Any, readers: dict[str, _Reader]) -> Any:
    """The value in its option's type and bounds. Raises `UsageError` naming the file."""
    if name not in readers:  # an option of the command itself: Typer checks it
        return value
    reader = readers[name]
    try:
        if reader.is_auto(value):
            return AUTO
        if isinstance(value, str) and reader.kind in (int, float) and not reader.is_duration:
            raise reader.misread(value)
        read = reader(value)
        check_bounds(reader.field, read)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", code=error.code) from error
    return read


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]  # on Python 3.10 only
    try:
        document: dict[str, Any] = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        message = f"--config {path}: {error.strerror}."
        raise UsageError(message, hint="Name a TOML file that can be read.", code="config_not_readable") from error
    except ValueError as error:  # not UTF-8, or not TOML
        hint = 'One option a line, such as: layers = 2 or max-time = "10m".'
        raise UsageError(f"--config {path} is no TOML file: {error}.", hint=hint, code="config_not_toml") from error
    return document
