"""The resume state: a training that was killed goes on where it was, and ends as if it never had been.

A file beside the model, sealed like a model file and written in the same way: the fits that are done, and a snapshot
of the one under way. It is of use to the same training alone: same data, same plan, same libraries.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch

from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import ModelError
from stacklstm_cli.files import clear_leftovers
from stacklstm_cli.model.checkpoint import Weights, read_sealed, versions, write_sealed
from stacklstm_cli.model.header import FORMAT, verify
from stacklstm_cli.ranks import DIFFERENCES, VERSIONS_DIFFER, Ranks, get_ranks
from stacklstm_cli.training.loop import Fit, Snapshot
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.start import Ridge

SUFFIX = ".resume"
NO_RIDGE = Ridge(None)
"""That of a network which does not start from a linear forecast."""
LEAST_SECONDS = 10.0
"""Between two writes, even where the newer state is better: a training that is over sooner never writes one."""
MOST_SECONDS = 120.0
"""After which a state is written that is no better than the one before."""
WORK_PER_WRITE = 50
"""How many times as long as a write takes must pass before the next."""


@dataclass(frozen=True)
class Finished:
    """A fit that is done."""

    fit: Fit
    ridge: Ridge
    """That of its start."""
    told: Weights = field(default_factory=dict)
    """What else was found on the way, by name."""


class Resume:
    """The resume state of one training. Tells what it does through callables; a failing write ends nothing."""

    def __init__(
        self,
        model: Path,
        *,
        use: bool = True,
        origin: str = "",
        on_note: Callable[[str], None] = lambda text: None,
        on_warning: Callable[[str, str], None] = lambda code, text: None,
    ) -> None:
        """The state of the training that makes `model`. Without `use`, one that is there is passed over.

        `origin` names whatever besides data and plan the training begins from, such as the digest of a model.
        The model's lock must be held.
        """
        target = model.resolve()
        self.path = target.with_name(target.name + SUFFIX)
        self.use = use
        self.on_note, self.on_warning = on_note, on_warning
        self.identity: dict[str, Any] = {"origin": origin}
        self._clock = Clock()
        leads = Ranks.of().leads
        self._is_kept = leads and (target.is_file() or not target.exists())  # not beside a device
        self.place: dict[str, str] | None = None
        """Where and in which precision the training goes on: what was decided by the clock is not decided anew."""
        self._finished: dict[str, Finished] = {}
        self._current: tuple[str, Snapshot] | None = None
        self._written = time.monotonic()
        self._cost = 0.0
        self._unwritten = self._failed = False
        if leads:
            clear_leftovers(self.path)

    def open(self, panel: Panel, plan: Any, clock: Clock) -> None:
        """Take up the state that is there, if it is of this training; else say why not.

        The time that the training has already taken counts on `clock`, unless that is already running.
        """
        self._clock = clock
        self.identity |= {"data": panel.fingerprint(), "options": digest_of(plan), **versions()}
        if self._is_kept and self.use and self.path.exists():
            self._open()
        if get_ranks().size > 1:
            self._share()

    def _share(self) -> None:
        """Let all processes go on where the first does. Raises `DataError` where one would train something else."""
        ranks = get_ranks()
        ranks.require_same(self.identity)
        goes_on = bool(self._finished or self._current)
        data = ranks.text_of(0, self.path.read_bytes() if goes_on else b"")
        if data and not ranks.leads:
            self._take(verify(self.path, data), safetensors.torch.load(data))

    def _open(self) -> None:
        """`open` where there is a state."""
        try:
            document, data = read_sealed(self.path)
            differing = [name for name, value in self.identity.items() if document["identity"].get(name) != value]
            if differing:
                what = DIFFERENCES.get(differing[0], VERSIONS_DIFFER)
                self.on_note(f"{self.path} is the state of another training ({what}): not used, replaced")
                return
            self._take(document, safetensors.torch.load(data))
        except (ModelError, KeyError, TypeError, ValueError, AttributeError, safetensors.SafetensorError):
            self._finished, self._current, self.place = {}, None, None
            self.on_warning("resume_damaged", f"{self.path} is damaged: not used, replaced; training starts again.")
            return
        self.on_note(f"an interrupted training goes on {self._where()}; --no-resume starts again")

    def finished(self, phase: str) -> Finished | None:
        """The fit of this phase, if it was done before the interruption."""
        return self._finished.get(phase)

    def snapshot(self, phase: str) -> Snapshot | None:
        """Where the fit of this phase was interrupted."""
        return self._current[1] if self._current is not None and self._current[0] == phase else None

    def offer(self, phase: str, snapshot: Snapshot, better: bool) -> None:
        """Where the fit of this phase is now; written when it is time."""
        self._current = phase, snapshot
        self._write_if_due(LEAST_SECONDS if better else MOST_SECONDS)

    def finish(self, phase: str, fit: Fit, ridge: Ridge = NO_RIDGE, told: Weights | None = None) -> None:
        """The fit of this phase is done; `told` is what else is to be kept of it."""
        self._finished[phase], self._current = Finished(fit, ridge, told or {}), None
        self._write_if_due(LEAST_SECONDS)

    def close(self, *, ended: bool) -> None:
        """The model is saved: the state goes, or stays for the next run where the training has not `ended`."""
        if ended:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                self.on_warning("resume_not_removed", f"{self.path} cannot be removed: {error.strerror or error}.")
        elif self._unwritten:
            self._write()

    def drop_spent(self) -> None:
        """Remove the state of a training that went on from another model than this one does.

        It was killed when the new model was already in place.
        """
        with contextlib.suppress(ModelError):
            began_from = read_sealed(self.path)[0]["identity"]["origin"].split()[:1]
            if began_from not in ([], self.identity["origin"].split()[:1]):
                self.close(ended=True)

    def _write_if_due(self, seconds: float) -> None:
        self._unwritten = True
        if time.monotonic() - self._written >= max(seconds, WORK_PER_WRITE * self._cost):
            self._write()

    def _write(self) -> None:
        if not self._is_kept:
            return
        begin = time.monotonic()
        tensors: Weights = {}
        finished = {}
        for phase, done in self._finished.items():
            tensors |= {f"finished.{phase}.{name}": tensor for name, tensor in done.fit.weights.items()}
            tensors |= {f"told.{phase}.{name}": tensor for name, tensor in done.told.items()}
            finished[phase] = asdict(replace(done.fit, weights={}, seconds=0.0)) | {"ridge": asdict(done.ridge)}
        current = None
        if self._current is not None:
            current = {"phase": self._current[0], "numbers": self._current[1].numbers}
            tensors |= {f"current.{name}": tensor for name, tensor in self._current[1].tensors.items()}
        document = {
            "format": FORMAT,
            "identity": self.identity,
            "seconds": self._clock.elapsed,
            "place": self.place,
            "finished": finished,
            "current": current,
        }
        try:
            write_sealed(self.path, tensors, document)
            self._unwritten = False
        except ModelError as error:
            if not self._failed:
                self.on_warning("resume_not_written", f"{error.message} An interruption would cost the work so far.")
            self._failed = True
        self._written = time.monotonic()
        self._cost = self._written - begin

    def _take(self, document: dict[str, Any], tensors: Weights) -> None:
        """The contents of a sound file. Raises `KeyError`, `TypeError`, `ValueError` or `AttributeError` else."""

        def part(prefix: str) -> Weights:
            found = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            return {name.removeprefix(prefix): tensor for name, tensor in found.items()}

        for phase, stored in document["finished"].items():
            ridge = Ridge(**stored.pop("ridge"))
            found = Fit(**stored | {"weights": part(f"finished.{phase}.")})
            self._finished[phase] = Finished(found, ridge, part(f"told.{phase}."))
        self.place = document["place"]
        current = document["current"]
        if current is not None:
            self._current = current["phase"], Snapshot(part("current."), dict(current["numbers"]))
        if self._clock.started is None:
            self._clock.earlier = float(document["seconds"])

    def _where(self) -> str:
        if self._current is not None:
            return f"at step {self._current[1].numbers.get('step')} of {self._current[0]}"
        return f"after {', '.join(self._finished)}"


def digest_of(plan: Any) -> str:
    """SHA-256 of everything in a plan, which is a dataclass; of its arrays as they lie in memory."""
    text = json.dumps(asdict(plan), default=lambda array: hashlib.sha256(array.tobytes()).hexdigest())
    return hashlib.sha256(text.encode()).hexdigest()
