"""Which device and precision is chosen, by a clock that is made up: two names of the CPU stand for two devices."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clocks import StopsAfter
from panels import make_panel, small_spec, wave

from stacklstm_cli.config import MetricConfig, ModelConfig, RuntimeConfig, TrainingConfig
from stacklstm_cli.errors import UsageError
from stacklstm_cli.ranks import Ranks
from stacklstm_cli.training import placement
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.loop import WARM_STEPS
from stacklstm_cli.training.placement import (
    CPU,
    TRIAL_STEPS,
    WORTH_A_GPU,
    WORTH_A_TRIAL,
    Place,
    Places,
    Work,
    forecasting_device,
    training_places,
)
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.shards import multiplications

OTHER, CUDA = torch.device("cpu", 0), torch.device("cuda")
PANEL = make_panel(wave(300, 1, 12), 9 * wave(260, 2, 12))
STEPS = 40


def plan_for(precision: str = "auto") -> Plan:
    model = ModelConfig(layers=1, hidden_size=(4,), context_length=24, patch_length=4, horizon=6)
    plan = resolve(PANEL, model, TrainingConfig(precision=precision, batch_size=32), MetricConfig(seasonality=12))
    return replace(plan, schedule=replace(plan.schedule, max_steps=STEPS, check_every=10))


class MadeUp:
    """A clock by which each step takes so long at each place; None is a place that fails."""

    def __init__(self, **seconds: float | None) -> None:
        self.seconds = {Place(CPU): seconds["cpu"], Place(OTHER): seconds["other"]}
        self.time = 0.0
        self.asked: list[Place] = []

    def __call__(self, place: Place) -> float:
        self.asked.append(place)
        seconds = self.seconds[place]
        if seconds is None:
            raise RuntimeError("CUDA error: no kernel image is available\nfor execution")
        self.time += seconds
        return self.time


def settled(**seconds: float | None) -> tuple[Trainer, Places, MadeUp]:
    now = MadeUp(**seconds)
    places = Places((CPU, OTHER), now)
    return Trainer(PANEL, plan_for(), device=places, clock=Clock()), places, now


SLOW = 2 * WORTH_A_TRIAL / STEPS


class TestChoice:
    @pytest.mark.parametrize(("cpu", "other"), [(SLOW, 0.9 * SLOW), (SLOW, 1.1 * SLOW), (SLOW, 0.001), (SLOW, 60.0)])
    def test_the_faster_place_is_taken(self, cpu: float, other: float) -> None:
        trainer, places, _ = settled(cpu=cpu, other=other)
        speeds = {place: 32 / seconds for place, seconds in ((Place(CPU), cpu), (Place(OTHER), other))}
        assert places.speeds == {place: pytest.approx(speed, rel=1e-6) for place, speed in speeds.items()}
        assert trainer.device == (CPU if cpu <= other else OTHER)
        assert trainer.windows.values.device.type == "cpu"

    def test_warm_steps_are_not_counted(self) -> None:
        """They wake the device and pick its kernels."""
        now = MadeUp(cpu=SLOW, other=0.0)
        calls = itertools.count()

        def warming(place: Place) -> float:
            if place.device == OTHER:
                now.time += 50.0 if next(calls) < 2 * WARM_STEPS else 0.01
            return now(place)

        places = Places((CPU, OTHER), warming)
        assert Trainer(PANEL, plan_for(), device=places, clock=Clock()).device == OTHER
        assert places.speeds[Place(OTHER)] == pytest.approx(32 / 0.01)

    def test_a_quick_training_is_not_kept_waiting(self) -> None:
        """The other device is not even woken where all is done before its trial."""
        trainer, places, now = settled(cpu=0.4 * WORTH_A_TRIAL / STEPS, other=1e-6)
        assert trainer.device == CPU
        assert {*now.asked} == {Place(CPU)}
        assert "before another device" in places.explained()[0]

    def test_a_trial_is_short(self) -> None:
        """Of slow steps one after those that warm up, of quick ones so many."""
        _, _, now = settled(cpu=30.0, other=1e-3)
        assert now.asked.count(Place(CPU)) == 2 * (WARM_STEPS + 1)
        assert now.asked.count(Place(OTHER)) == 2 * (WARM_STEPS + TRIAL_STEPS)

    def test_a_place_that_fails_is_left_and_said(self) -> None:
        """Wrong if a driver that does not fit ends a training that the CPU can do."""
        trainer, places, _ = settled(cpu=SLOW, other=None)
        assert trainer.device == CPU
        assert places.explained()[1:] == [
            "cpu:0 in float32 failed in a trial (CUDA error: no kernel image is available)"
        ]

    def test_the_only_place_that_fails_is_an_error(self) -> None:
        with pytest.raises(RuntimeError, match="no kernel image"):
            settled(cpu=None, other=1.0)

    def test_the_choice_is_explained(self) -> None:
        _, places, _ = settled(cpu=SLOW, other=0.008)
        assert places.explained() == [
            f"trained on cpu:0 in float32: 4,000 windows/s in a trial, {32 / SLOW:,.0f} on cpu in float32"
        ]
        told = places.as_dict()
        assert (told["device"], told["precision"]) == ("cpu:0", "float32")
        assert [one["device"] for one in told["tried"]] == ["cpu", "cpu:0"]
        assert told["tried"][1]["windows_per_second"] == pytest.approx(4000)

    def test_the_first_network_decides_for_all(self) -> None:
        """As in a search, where each candidate would else be tried anew."""
        _, places, now = settled(cpu=SLOW, other=0.008)
        asked = len(now.asked)
        assert Trainer(PANEL, plan_for(), device=places, clock=Clock()).device == OTHER
        assert len(now.asked) == asked


def untried(place: Place) -> float:
    raise AssertionError(place)


def no_work() -> Work:
    raise AssertionError


class TestNoChoice:
    @pytest.mark.parametrize("asked", ["auto", "float32", "bfloat16"])
    def test_nothing_is_tried_on_a_cpu_alone(self, asked: str) -> None:
        places = Places((CPU,), untried)
        expected = Place(CPU, "bfloat16") if asked == "bfloat16" else Place(CPU)
        assert places.settle(asked, no_work, Clock()) == expected
        assert (places.explained(), places.as_dict()["tried"]) == ([], [])

    def test_nor_where_a_gpu_and_a_precision_are_named(self) -> None:
        assert Places((CUDA,), untried).settle("float32", no_work, Clock()) == Place(CUDA)

    def test_a_trial_changes_no_model(self) -> None:
        """Nor do the random numbers that it draws."""
        trainer, _, _ = settled(cpu=SLOW, other=0.008)
        found = trainer.run({}).checkpoint.final
        expected = Trainer(PANEL, plan_for(), device=CPU, clock=Clock()).run({}).checkpoint.final
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class TestCandidates:
    def test_only_a_cuda_device_is_tried_in_bfloat16(self) -> None:
        places = Places((CPU, CUDA)).candidates("auto")
        assert places == [Place(CPU), Place(CUDA), Place(CUDA, "bfloat16")]
        assert Places((torch.device("mps"),)).candidates("auto") == [Place(torch.device("mps"))]

    def test_what_was_asked_for_is_not_tried_against(self) -> None:
        assert Places((CPU, CUDA)).candidates("float32") == [Place(CPU), Place(CUDA)]

    def test_a_device_without_bfloat16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is left out where there is another, and refused where it was named."""
        monkeypatch.setattr(placement, "trains_bfloat16", lambda device: False)
        assert Places((CPU, CUDA)).candidates("bfloat16") == [Place(CPU, "bfloat16")]
        with pytest.raises(UsageError, match="--precision is bfloat16, in which cuda cannot") as caught:
            Places((CUDA,)).candidates("bfloat16")
        assert (caught.value.code, "--precision auto" in caught.value.hint) == ("precision_missing", True)

    def test_several_processes_measure_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each would choose for itself."""
        monkeypatch.setattr(placement.Ranks, "of", lambda: Ranks(0, 2, 0, 2))
        assert Places((CUDA,)).candidates("auto") == [Place(CUDA)]


class TestResumed:
    def test_a_run_goes_on_where_it_was(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wrong if the clock decides anew, or the resumed model differs."""
        path, plan = folder / "model", plan_for()
        state = Resume(path)
        with monkeypatch.context() as patched:
            clock = StopsAfter(15, "signal", patched)
            places = Places((CPU, OTHER), MadeUp(cpu=SLOW, other=0.008))
            Trainer(PANEL, plan, device=places, clock=clock, resume=state).run({})
        state.close(ended=False)
        again = Places((CPU, OTHER), untried)
        trainer = Trainer(PANEL, plan, device=again, clock=Clock(), resume=Resume(path))
        assert trainer.device == OTHER
        assert again.explained() == ["trained on cpu:0 in float32, as before the interruption"]
        expected = Trainer(PANEL, plan, device=CPU, clock=Clock()).run({}).checkpoint.final
        found = trainer.run({}).checkpoint.final
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

    @pytest.mark.parametrize("recalled", [None, {"device": "cuda:3", "precision": "float32"}, {}, "cpu"])
    def test_what_is_not_there_any_more_is_chosen_anew(self, recalled: Any) -> None:
        places = Places((CPU,))
        assert places.settle("auto", no_work, Clock(), recalled) == Place(CPU)
        assert not places.recalled


class TestMachine:
    @pytest.fixture(autouse=True)
    def two_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def test_auto_lets_the_clock_choose(self) -> None:
        assert training_places(RuntimeConfig()).devices == (CPU, CUDA)

    def test_what_is_named_is_taken(self) -> None:
        for name in ("cpu", "cuda", "cuda:1"):
            assert training_places(RuntimeConfig(device=name)).devices == (torch.device(name),)

    def test_several_processes_take_a_gpu_each(self) -> None:
        assert training_places(RuntimeConfig(), Ranks(1, 2, 1, 2)).devices == (torch.device("cuda", 1),)

    def test_forecasts_go_to_the_gpu_where_they_are_many(self) -> None:
        spec = small_spec()
        enough = int(np.ceil(WORTH_A_GPU / multiplications(spec)))
        assert forecasting_device(RuntimeConfig(), CUDA, spec, enough) == CUDA
        assert forecasting_device(RuntimeConfig(), CUDA, spec, enough - 1) == CPU
        assert forecasting_device(RuntimeConfig(device="cuda"), CUDA, spec, 1) == CUDA
