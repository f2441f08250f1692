"""Where a study is kept: in memory, in an SQLite or a journal file, or in a database.

Optuna is imported here and in `study.py` alone, inside functions: only a search needs it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stacklstm_cli.errors import ModelError, UsageError
from stacklstm_cli.files import check_writable


def quiet_optuna() -> Any:
    """The module, its own messages off."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    return optuna


@contextlib.contextmanager
def study_errors(place: str | None) -> Iterator[None]:
    """What a storage raises, as a `ModelError` that names the study."""
    if place is None:
        yield
        return
    import sqlite3

    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        raise unusable(place, error) from error


def unusable(place: str, error: Exception) -> ModelError:
    """The error for a study that cannot be read or written."""
    reason = str(error).splitlines()[0].partition(") ")[2] or str(error).splitlines()[0]
    return ModelError(
        f"The study {place} cannot be used: {reason}.",
        hint="Name another file with --study, or remove this one if it is damaged.",
        code="study_unusable",
    )


def open_storage(place: str | None) -> Any:
    """Optuna's storage for what `--study` names: nothing, a URL, an SQLite file or a journal file."""
    if place is None:
        return None
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if "://" in place:
        try:
            return RDBStorage(place)
        except ImportError as error:
            raise UsageError(
                f"--study {place}: the driver for this database is missing ({error.name}).",
                hint=f"Install it beside stacklstm: pip install {error.name}.",
                code="study_driver_missing",
            ) from error
    kind = Path(place).suffix.lower()
    if kind in (".db", ".sqlite", ".sqlite3"):
        check_writable(place)
        return RDBStorage(f"sqlite:///{place}", engine_kwargs={"connect_args": {"timeout": 60}})
    if kind in (".log", ".journal"):
        check_writable(place)
        # Windows lets only those with special rights make the links that Optuna locks with.
        lock = JournalFileOpenLock(place) if os.name == "nt" else None
        return JournalStorage(JournalFileBackend(place, lock_obj=lock))
    raise UsageError(
        f"--study {place}: expected a file that ends in .db (SQLite) or .log (a journal), or the URL of a database.",
        hint="For example --study study.db.",
        code="unknown_study_kind",
    )
