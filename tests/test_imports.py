"""The order of the rooms, and what a command may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Server

from stacklstm_cli.model.checkpoint import Checkpoint, save

PACKAGE = Path(__file__).parent.parent / "stacklstm_cli"
ROOMS = ["data", "model", "evaluation", "training", "cli"]
"""Each may import itself and those before it, and the modules beside them."""
HEAVY = ("torch", "pandas", "numpy", "pyarrow", "matplotlib", "rich.table", "rich.progress")


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/*.py")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_rooms_import_only_the_rooms_before_them(path: Path) -> None:
    """data, model, evaluation, training, cli, in this order."""
    own = ROOMS.index(path.parent.name)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "stacklstm_cli" and len(parts) > 1 and parts[1] in ROOMS:
            assert ROOMS.index(parts[1]) <= own, f"{path.parent.name} imports {name}"


def test_modules_beside_the_rooms_import_no_room() -> None:
    """errors, config and files stand below everything."""
    for name in ("errors", "config", "files", "locking"):
        assert not {found for found in imports_of(PACKAGE / f"{name}.py") for room in ROOMS if f"cli.{room}" in found}


def loaded_by(*words: str) -> set[str]:
    """Which heavy modules a command has loaded when it ends."""
    code = (
        "import sys\nfrom stacklstm_cli.cli.app import main\n"
        f"try:\n    main({list(words)!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["predict", "--help"]])
def test_help_and_version_import_neither_torch_nor_pandas(words: list[str]) -> None:
    """They answer at once."""
    assert not loaded_by(*words) & {"torch", "pandas", "numpy", "pyarrow"}


def test_inspect_imports_neither_torch_nor_pandas(folder: Path, checkpoint: Checkpoint) -> None:
    """The header alone is read."""
    save(checkpoint, folder / "data.safetensors")
    assert not loaded_by("inspect", "data.safetensors") & {"torch", "pandas", "numpy", "pyarrow"}


def test_only_the_module_of_plots_imports_matplotlib(server: Server) -> None:
    """And that one inside functions, once a picture is drawn."""
    importing = {path.name for path in PACKAGE.glob("*/*.py") if any("matplotlib" in name for name in imports_of(path))}
    assert importing == {"plots.py"}
    loaded = server.run("--version").modules
    assert {"stacklstm_cli.cli.runs", "stacklstm_cli.cli.scores"} <= loaded
    assert "matplotlib" not in loaded


def test_importing_the_package_imports_nothing() -> None:
    """The public names are loaded when first used."""
    code = f"import sys, stacklstm_cli; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
