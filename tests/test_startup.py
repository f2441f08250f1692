"""What a command costs before it does anything: modules it must not load, and ratios of processor time."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys

import pytest
import typer
from commands import ok, run

from stacklstm_cli.cli.app import app
from stacklstm_cli.cli.command import Command

SLOW = {"torch", "pandas", "numpy", "pyarrow", "pydantic", "rich.console", "rich.markdown", "markdown_it"}
COMMANDS = ["train", "predict", "evaluate", "check", "inspect", "export"]


def processor_seconds(*words: str) -> float:
    """Of one process of this Python."""
    before = os.times()
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=120)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_loads_nothing_slow(words: list[str]) -> None:
    """Neither what draws Typer's own help nor what converts its values."""
    code = (
        f"import sys\nfrom stacklstm_cli.cli.app import main\ntry:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"print(*({SLOW!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.split() == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="has no processor time of ended processes")
def test_help_costs_no_more_than_its_ornaments_would() -> None:
    """Half of it was seen: what rich and pydantic cost would show, the load of the machine would not."""
    help_of_train = ("-m", "stacklstm_cli", "train", "--help")
    reference = ("-c", "import numpy, typer.rich_utils, pydantic.fields")
    pairs = [(processor_seconds(*help_of_train), processor_seconds(*reference)) for _ in range(5)]
    assert statistics.median(own / other for own, other in pairs) < 1.2


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_every_option_once_its_default_and_an_example(name: str) -> None:
    """In sections, wrapped at COLUMNS, brackets and all."""
    text = ok(name, "--help").stdout
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert isinstance(command, Command)
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("--"):
                assert len(re.findall(rf"^  (?:-\w, )?{option}\b(?!-)", text, re.MULTILINE)) == 1, option
    assert f"Example: stacklstm {name}" in text
    assert "Arguments:" in text
    assert "Output:" in text


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_help_keeps_to_the_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = ok("train", "--help").stdout.splitlines()
    assert max(map(len, lines)) <= min(columns, 100)


def test_help_of_the_program_lists_its_commands() -> None:
    text = ok("--help").stdout
    assert [name for name in COMMANDS if re.search(rf"^  {name} +[A-Z]", text, re.MULTILINE)] == COMMANDS


def test_no_arguments_end_with_status_2_and_the_help() -> None:
    done = run()
    assert done.exit_code == 2
    assert "Commands:" in done.stderr
    assert done.stdout == ""
