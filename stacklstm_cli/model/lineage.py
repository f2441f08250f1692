"""Where a model comes from: the models before it, and the earlier files kept beside it.

Standard library alone, as `inspect` and `promote` answer at once.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from stacklstm_cli.errors import ModelError
from stacklstm_cli.files import copy_atomically, unwritable
from stacklstm_cli.model.header import cannot_read, damaged, read_document, verify

MOST_ENTRIES = 50
"""Retrainings that a model remembers."""
ENTRY_NUMBERS = ("rows_added", "series", "new_series", "revised_rows", "steps")


def extended(lineage: list[dict[str, Any]], entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The lineage with one more entry, without the oldest where that makes too many."""
    return [*lineage, entry][-MOST_ENTRIES:]


def is_sound(lineage: Any) -> bool:
    """Whether this is a list of objects that can be shown."""
    return isinstance(lineage, list) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(name, 0), int) for name in ENTRY_NUMBERS)
        for entry in lineage
    )


def history_card(path: Path) -> dict[str, Any]:
    """What `inspect --history` shows: one row for each retraining, the newest last. Raises `ModelError`."""
    document = read_document(path)
    lineage = document.get("lineage", [])
    if not is_sound(lineage):
        raise damaged(path, "its lineage is no list of retrainings")
    rows = [shown(entry) for entry in lineage]
    card: dict[str, Any] = {"path": str(path), "id": document["digest"][:12], "retrainings": len(rows)}
    return card | ({"history": rows} if rows else {})


def shown(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the lineage as a row of a table."""
    metric = "log_loss" if "labels" in entry else "mase"
    scores = {name: rounded((entry.get(name) or {}).get(metric)) for name in ("champion", "challenger")}
    counted = "labels" if "labels" in entry else "origins"
    first = {"parent": entry.get("parent", ""), "last": entry.get("last", ""), "rows": entry.get("rows_added", 0)}
    rest = {name: entry.get(name, "") for name in ("revised_rows", counted, "decision", "why")}
    return first | {f"{name}_{metric}": value for name, value in scores.items()} | rest


def rounded(value: float | None) -> float | None:
    """Six significant digits."""
    return None if value is None else float(f"{value:.6g}")


def earlier(path: Path, number: int = 1) -> Path:
    """The name of the model that was replaced so many promotions ago: m.safetensors.1 is the newest."""
    return path.with_name(f"{path.name}.{number}")


def keep_earlier(path: Path, keep: int) -> None:
    """Keep the model at `path` as the newest of at most `keep` earlier ones, before it is replaced.

    The model stays under its own name throughout. A run that is killed in between leaves a gap in the numbers or
    the same model twice; the next one fills the gap and keeps no model twice. Raises `ModelError`.
    """
    path = Path(os.path.realpath(path))
    if keep == 0 or not path.exists() or same(path, earlier(path)):
        return
    free = next((number for number in range(1, keep) if not earlier(path, number).exists()), keep)
    try:
        for number in range(free, 1, -1):
            earlier(path, number - 1).replace(earlier(path, number))
    except OSError as error:
        raise unwritable(earlier(path), error) from error
    copy_atomically(path, earlier(path), owner=path)


def swap_with_previous(path: Path) -> tuple[str, str]:
    """Make the newest earlier model the model, and the model the newest earlier one; the ids of both.

    Doing it twice changes nothing. The model under its own name is whole at every moment. Raises `ModelError`
    where there is no earlier model, or it is damaged.
    """
    path = Path(os.path.realpath(path))
    previous, aside = earlier(path), path.with_name(f"{path.name}.swap")
    finish_swap(path)
    try:
        promoted = verify(previous, previous.read_bytes())["digest"]
    except FileNotFoundError as error:
        raise ModelError(
            f"There is no earlier model {previous} to go back to.",
            hint="retrain keeps the model it replaces only with --keep N.",
            code="no_previous",
        ) from error
    except OSError as error:
        raise cannot_read(previous, error) from error
    replaced = ""
    if path.exists():
        with contextlib.suppress(ModelError):  # a damaged model is a reason to go back
            replaced = read_document(path)["digest"]
        copy_atomically(path, aside, owner=path)
    copy_atomically(previous, path, owner=path)
    finish_swap(path)
    return promoted[:12], replaced[:12]


def finish_swap(path: Path) -> None:
    """End a swap that was killed in between: forward where the model is replaced already, else back."""
    previous, aside = earlier(path), path.with_name(f"{path.name}.swap")
    if not aside.exists():
        return
    try:
        if same(path, previous):
            aside.replace(previous)
        else:
            aside.unlink()
    except OSError as error:
        raise unwritable(aside, error) from error


def same(one: Path, other: Path) -> bool:
    """Whether both files are there and hold the same bytes."""
    try:
        return one.read_bytes() == other.read_bytes()
    except OSError:
        return False
