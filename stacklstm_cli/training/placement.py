"""Where a network is trained, and in which precision: what was asked for, or what a trial finds the fastest.

Where there is nothing to choose from, as on a machine without a GPU, nothing is tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stacklstm_cli.config import RuntimeConfig
from stacklstm_cli.errors import UsageError
from stacklstm_cli.model.heads import build_teacher
from stacklstm_cli.model.network import NetworkSpec
from stacklstm_cli.ranks import ALONE, Ranks
from stacklstm_cli.training.lessons import Lessons
from stacklstm_cli.training.loop import WARM_STEPS, Schedule, ShuffledBatches, build_optimiser, train_step
from stacklstm_cli.training.precision import Precision, trains_bfloat16, usable
from stacklstm_cli.training.runtime import Clock, prepare
from stacklstm_cli.training.shards import Network, Shards, multiplications, one_openmp_thread

CPU = torch.device("cpu")
TRIAL_STEPS = 20
TRIAL_SECONDS = 1.0
"""A trial ends with the first of these; the steps that warm it up come before."""
WORTH_A_TRIAL = 10.0
"""Seconds: a training that the first place has done sooner than that is not worth waking a GPU for, which takes some
seconds (its driver and cuDNN are loaded), nor a trial of another precision."""
WORTH_A_GPU = 2e11
"""Multiplications of all forecasts of a run, below which `auto` leaves them to the CPU: some ten seconds of a core."""


@dataclass(frozen=True)
class Place:
    """A device, and the precision of a network's arithmetic on it."""

    device: torch.device
    precision: Precision = "float32"

    def __str__(self) -> str:
        return f"{self.device} in {self.precision}"

    def as_dict(self) -> dict[str, str]:
        return {"device": str(self.device), "precision": self.precision}


@dataclass(frozen=True)
class Work:
    """The work by which places are compared: the very network and batches of the training."""

    build: Callable[[torch.device], tuple[Network, Lessons]]
    """A new network, and its training windows, on a device."""
    schedule: Schedule
    steps: int
    """Most that the training may make."""


def finished_at(place: Place) -> float:
    """The time [s] when all that was asked of a device is done."""
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)
    elif place.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


class Places:
    """The devices among which a run may choose. The first network that is trained decides for all that follow."""

    def __init__(self, devices: Sequence[torch.device], now: Callable[[Place], float] = finished_at) -> None:
        """The first of `devices` is taken where nothing is faster; `now` tells the time once a place has done its
        work."""
        self.devices = tuple(devices)
        self.now = now
        self.chosen: Place | None = None
        self.recalled = False
        """Whether an interrupted run had chosen."""
        self.speeds: dict[Place, float] = {}
        """Windows per second of those that were tried."""
        self.failures: dict[Place, str] = {}

    @classmethod
    def at(cls, place: Place) -> Places:
        """The one place that another process has chosen."""
        found = cls((place.device,))
        found.chosen = place
        return found

    def settle(self, asked: str, work: Callable[[], Work], clock: Clock, recalled: Any = None) -> Place:
        """The place to train at in the precision that was `asked` for, which may be `auto`.

        `recalled` is what `Place.as_dict` gave an interrupted run, which goes on there if it still can: on another
        device it would not go on as it began. Raises `UsageError` where a device cannot do what was asked, and
        `Interrupted` where a signal ends a trial.
        """
        if self.chosen is None:
            open_to = self.candidates(asked)
            self.chosen = next((place for place in open_to if place.as_dict() == recalled), None)
            self.recalled = self.chosen is not None and len(open_to) > 1
            if self.chosen is None and len(open_to) > 1:
                with clock.interruptible():
                    self.chosen = self.fastest(open_to, work())
            self.chosen = self.chosen or open_to[0]
        return self.chosen

    def candidates(self, asked: str) -> list[Place]:
        """Every place that may be chosen, the one to fall back on first."""
        if asked == "bfloat16":
            able = [one for one in self.devices if one.type == "cpu" or trains_bfloat16(one)]
            if not able:
                raise UsageError(
                    f"--precision is bfloat16, in which {self.devices[0]} cannot train an LSTM.",
                    hint="Use --precision auto, or --device cpu.",
                    code="precision_missing",
                )
            return [Place(one, "bfloat16") for one in able]
        places = [Place(one) for one in self.devices]
        # Of several processes each would measure for itself, and they would not agree.
        if asked == "auto" and Ranks.of().size == 1:
            places += [Place(one, "bfloat16") for one in self.devices if one.type == "cuda"]
        return places

    def fastest(self, places: Sequence[Place], work: Work) -> Place:
        """Try one after another, unless the first is done with the whole training before that pays."""
        first, *others = places
        self.speeds[first], seconds = self.tried(first, work)
        if work.steps * seconds <= WORTH_A_TRIAL:
            return first
        for place in others:
            try:
                self.speeds[place], _ = self.tried(place, work)
            except RuntimeError as error:  # too little memory, no bfloat16, a driver that does not fit
                self.failures[place] = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return max(self.speeds, key=self.speeds.__getitem__)

    def tried(self, place: Place, work: Work) -> tuple[float, float]:
        """Windows per second, and seconds of a training step: of the fastest, as other work can only slow it down.

        On a CPU the number of threads is found meanwhile.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network, lessons = work.build(place.device)
        head = build_teacher(network.spec.loss, network.spec.quantiles, place.device)
        size = min(work.schedule.batch_size, len(lessons))
        batches = ShuffledBatches(len(lessons), size, 0, lessons.series.device)
        optimiser = build_optimiser(network, work.schedule)
        shards = Shards(network, lessons, head, batch_size=size, seed=0, precision=place.precision)
        times: list[float] = []
        with one_openmp_thread(), usable(place.precision, place.device), shards:
            while len(times) < WARM_STEPS + TRIAL_STEPS and sum(times[WARM_STEPS:]) < TRIAL_SECONDS:
                begin = self.now(place)
                train_step(shards, next(batches), optimiser, work.schedule.grad_clip)
                times.append(self.now(place) - begin)
        fastest = min(times[WARM_STEPS:])
        return size / fastest, fastest

    def explained(self) -> list[str]:
        """Where the network is trained and why, for a person; nothing where there was no choice."""
        chosen, failed = self.chosen, [f"{place} failed in a trial ({why})" for place, why in self.failures.items()]
        if chosen is None or not (self.speeds or self.recalled):
            return failed
        if self.recalled:
            return [f"trained on {chosen}, as before the interruption"]
        speed = f"trained on {chosen}: {self.speeds[chosen]:,.0f} windows/s in a trial"
        others = [f"{value:,.0f} on {place}" for place, value in self.speeds.items() if place != chosen]
        if others:
            return [f"{speed}, {', '.join(others)}", *failed]
        if failed:
            return [speed, *failed]
        return [f"{speed}, so that all is done before another device or precision would pay"]

    def as_dict(self) -> dict[str, Any]:
        """The same for the JSON documents."""
        tried = [place.as_dict() | {"windows_per_second": speed} for place, speed in self.speeds.items()]
        return {} if self.chosen is None else self.chosen.as_dict() | {"tried": tried}


Where = torch.device | Places
"""A device, or several to choose from."""


def places_of(where: Where) -> Places:
    """A device alone leaves nothing to choose but the precision."""
    return where if isinstance(where, Places) else Places((where,))


def training_places(config: RuntimeConfig, ranks: Ranks = ALONE) -> Places:
    """Set the threads and find the devices that training may choose from. Raises `UsageError` as `prepare` does."""
    device = prepare(config, trains=True, ranks=ranks)
    several = config.device == "auto" and device.type != "cpu" and ranks.size == 1
    return Places((CPU, device) if several else (device,))


def forecasting_device(config: RuntimeConfig, device: torch.device, spec: NetworkSpec, windows: int) -> torch.device:
    """Where so many windows are forecast: on the `device` that was found, but few on the CPU where it is `auto`."""
    few = windows * multiplications(spec) < WORTH_A_GPU
    return CPU if config.device == "auto" and few else device
