"""Where a study is kept: in memory, in an SQLite or a journal file, or in a database.

Optuna is imported here and in `study.py` alone, inside functions: only a search needs it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stacklstm_cli.errors import ModelError, UsageError
from stacklstm_cli.files import check_writable

PAUSES = (0.1, 0.3, 1.0, 3.0)
"""Seconds to wait for another process that makes the tables of a new study."""


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


def opened(connect: Callable[[], Any]) -> Any:
    """A database, whose tables another process may be making at this moment: then it is asked again."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    for pause in PAUSES:
        try:
            return connect()
        except (OperationalError, ProgrammingError) as error:
            if "already exists" not in str(error):
                raise
            time.sleep(pause)
    return connect()


def open_storage(place: str | None) -> Any:
    """Optuna's storage for what `--study` names: nothing, a URL, an SQLite file or a journal file."""
    if place is None:
        return None
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if "://" in place:
        try:
            return opened(lambda: RDBStorage(place))
        except ImportError as error:
            raise UsageError(
                f"--study {place}: the driver for this database is missing ({error.name}).",
                hint=f"Install it beside stacklstm: pip install {error.name}.",
                code="study_driver_missing",
            ) from error
    kind = Path(place).suffix.lower()
    if kind in (".db", ".sqlite", ".sqlite3"):
        check_writable(place)
        url, waiting = f"sqlite:///{place}", {"connect_args": {"timeout": 60}}
        return opened(lambda: RDBStorage(url, engine_kwargs=waiting))
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
