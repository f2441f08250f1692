"""Commands as Typer makes them, without what makes Typer slow to start: rich to draw the help, pydantic to convert
what was typed. Together they cost more than everything else that `--help` and `inspect` do."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperArgument, TyperCommand

if TYPE_CHECKING:
    from typer import Context

HELP_WIDTH = 100
LEAST_WIDTH = 50
"""Columns of the help: longer lines are hard to follow, shorter ones leave no room beside the names."""
NAME_WIDTH = 30
"""Longer names stand on a line of their own."""
_NOT_OURS = object()


class App(typer.Typer):
    """Commands with the help and the parameters of this module."""

    def command(  # type: ignore[override]  # the settings are handed through
        self, name: str | None = None, **settings: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return super().command(name, **{"cls": Command} | settings)


class Light:
    """What makes a command or a group of commands light."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, their values read here: Typer has no place to name other classes for them."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if "process_value" not in vars(parameter):
                parameter.process_value = functools.partial(process_value, parameter, parameter.process_value)
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, what the command does, and its parameters in sections."""
        formatter.width = max(min(shutil.get_terminal_size().columns, HELP_WIDTH) - 2, LEAST_WIDTH)
        for part in ("usage", "help_text", "options", "epilog"):
            getattr(self, f"format_{part}")(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the options of the command itself, then those of each configuration under its name."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if isinstance(parameter, TyperArgument) else "Options"
                sections.setdefault(parameter.rich_help_panel or usual, []).append(record)
        commands = {name: one for name, one in getattr(self, "commands", {}).items() if not one.hidden}
        sections["Commands"] = [(name, (one.help or "").partition("\n\n")[0]) for name, one in commands.items()]
        names = [left for rows in sections.values() for left, _ in rows]
        width = max((len(name) for name in names if len(name) <= NAME_WIDTH), default=0)
        for name, rows in sections.items():
            write_section(formatter, name, [(left.ljust(width), right) for left, right in rows])


class Command(Light, TyperCommand):
    """One command."""


def process_value(parameter: Any, by_typer: Callable[[Context, Any], Any], context: Context, value: Any) -> Any:
    """The value of a parameter in its type, after its callback; what is not known here, and errors, are Typer's."""
    read = read_value(parameter, value)
    if read is _NOT_OURS or (parameter.required and parameter.value_is_missing(read)):
        return by_typer(context, value)
    return read if parameter.callback is None else parameter.callback(context, parameter, read)


def read_value(parameter: Any, value: Any) -> Any:
    """The value in its type, or `_NOT_OURS`."""
    if value is None:
        return None
    described = getattr(parameter, "type_descriptor", None)  # of Typer from 0.29 on; earlier ones import no pydantic
    if described is None:
        return _NOT_OURS
    if described.parameter_info.parser is not None:
        return described.parameter_info.parser(value)
    kind = described.annotation
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind == list[str] and isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return list(value)
    return value if kind in (str, int, bool) and type(value) is kind else _NOT_OURS


def write_section(formatter: Any, name: str, rows: Sequence[tuple[str, str]]) -> None:
    """A heading and its rows, nothing where there are none."""
    from stacklstm_cli.cli.messages import is_styled  # which imports this module

    if not rows:
        return
    styled = is_styled(sys.stdout)
    with formatter.section(f"\x1b[1m{name}\x1b[0m" if styled else name):
        shown = [(f"\x1b[36m{left}\x1b[0m" if styled else left, right) for left, right in rows]
        formatter.write_dl(shown, col_max=NAME_WIDTH)
