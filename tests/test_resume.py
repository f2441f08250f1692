"""The resume state: wherever a training is interrupted, the same command ends with the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clocks import StopsAfter
from panels import EVERY_INPUT, every_covariate, make_panel, wave

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import ModelError
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.training import resume
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.fitting import Outcome, Trainer
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock, Interrupted, Stopped

CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"dropout": 0.4, "recurrent_dropout": 0.3, "layers": 2, "hidden_size": (4, 4)},
    "other cell": {"cell": "gru", "bidirectional": True, "attention": True, "skip": False},
    "covariates": {"loss": "student-t", "layer_norm": True, "layers": 2, "hidden_size": (4, 4)},
    "short": {"dropout": 0.4},
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is written whenever there is a new one."""
    monkeypatch.setattr(resume, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(resume, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(resume, "WORK_PER_WRITE", 0)


def case(kind: str) -> tuple[Panel, Plan]:
    """A small panel, and a plan of 12 steps with a check every 3; "short" has no part to validate on."""
    panel = make_panel(wave(34, 0, 12)) if kind == "short" else make_panel(wave(150, 0, 12), 9 * wave(120, 1, 12))
    if kind == "covariates":
        panel = every_covariate(panel)
    options = {"layers": 1, "hidden_size": (4,), "context_length": 24, "patch_length": 4, "horizon": 6} | KINDS[kind]
    plan = resolve(panel, ModelConfig(**options), TrainingConfig(), MetricConfig(seasonality=12))
    assert plan.spec.inputs.covariates == (EVERY_INPUT.covariates if kind == "covariates" else ())
    schedule = replace(plan.schedule, max_steps=12, check_every=3, warmup=2, batch_size=16)
    return panel, replace(plan, schedule=schedule, unvalidated_steps=12)


def train(panel: Panel, plan: Plan, path: Path, clock: Clock | None = None, **options: Any) -> Outcome | None:
    """As the command does it; None where a signal left nothing to save."""
    state = Resume(path, **options)
    try:
        outcome = Trainer(panel, plan, device=CPU, clock=clock or Clock(), resume=state).run({})
    except Interrupted:
        return None
    checkpoints.save(outcome.checkpoint, path)
    state.close(ended=outcome.stopped != "signal")
    return outcome


def state_of(path: Path) -> Path:
    return path.with_name(path.name + ".resume")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of the plain case, trained in one go."""
    path = tmp_path_factory.mktemp("straight") / "model"
    train(*case("plain"), path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that a signal has ended after its eighth step; three more were made in vain before."""
    path = tmp_path_factory.mktemp("stopped") / "model"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LEAST_SECONDS", "MOST_SECONDS", "WORK_PER_WRITE"):
            patch.setattr(resume, name, 0)
        train(*case("plain"), path, StopsAfter(3 + 8, "signal", patch))
    assert state_of(path).exists()
    return path


@pytest.fixture
def interrupted(stopped: Path, tmp_path: Path) -> tuple[Panel, Plan, Path]:
    """A copy of it to go on from."""
    for path in (stopped, state_of(stopped)):
        shutil.copy(path, tmp_path)
    return *case("plain"), tmp_path / "model"


SLOW = ("dropout", "other cell", "covariates", "short")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in KINDS])
def test_wherever_it_is_interrupted(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing, judging or refitting: again and again after a few steps, and once after each number of steps."""
    panel, plan = case(kind)
    straight = train(panel, plan, tmp_path / "straight")
    assert straight is not None
    steps = sum(fit.history[-1]["step"] if fit.history else fit.steps for fit in straight.fits)  # type: ignore[misc]
    assert steps >= 12
    expected = (tmp_path / "straight").read_bytes()
    path = tmp_path / "model"
    for after in (1, 3, 5, 11, 12, 13, 17, 20):
        with monkeypatch.context() as patch:
            outcome = train(panel, plan, path, StopsAfter(after, "signal", patch))
        if outcome is not None and outcome.stopped:
            assert checkpoints.load(path).training["stopped"] == "signal"
            train(panel, plan, path)
        assert path.read_bytes() == expected, after
        assert {one.name for one in tmp_path.iterdir()} == {"straight", "model"}
    for _ in range(30):  # a check every 3 steps, so each run gets at least one further
        with monkeypatch.context() as patch:
            outcome = train(panel, plan, path, StopsAfter(4, "signal", patch))
        if outcome is not None and not outcome.stopped:
            break
    else:
        pytest.fail("it never ended")
    assert path.read_bytes() == expected


@pytest.mark.parametrize("kind", ["dropout", pytest.param("covariates", marks=pytest.mark.slow)])
def test_killed_after_any_write(kind: str, tmp_path: Path) -> None:
    """Each state that a training has written, as a power cut would leave it, leads to the same model."""
    panel, plan = case(kind)
    states: list[bytes] = []

    def kept(*arguments: Any) -> str:
        digest = write(*arguments)
        states.append(arguments[0].read_bytes())
        return digest

    write = resume.write_sealed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "write_sealed", kept)
        train(panel, plan, tmp_path / "model")
    expected = (tmp_path / "model").read_bytes()
    assert len(states) > 6
    assert len(set(states)) == len(states)
    for content in states:
        state_of(tmp_path / "model").write_bytes(content)
        told: list[str] = []
        train(panel, plan, tmp_path / "model", on_note=told.append)
        assert "goes on" in told[0]
        assert (tmp_path / "model").read_bytes() == expected


def test_less_is_done_again(interrupted: tuple[Panel, Plan, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on from the last check before the signal, and what is finished is not fitted again."""
    panel, plan, path = interrupted
    events: list[tuple[str, int]] = []

    def again(clock: Clock) -> None:
        state = Resume(path)
        trainer = Trainer(
            *(panel, plan), device=CPU, clock=clock, resume=state,
            on_event=lambda event: events.append((event["phase"], event["step"])),
        )  # fmt: skip
        state.close(ended=not trainer.run({}).stopped)

    with monkeypatch.context() as patch:
        again(StopsAfter(10, "signal", patch))
    assert events[0] == ("choosing", 7)
    events.clear()
    again(Clock())
    assert {phase for phase, _ in events} == {"refitting"}


def test_a_model_saved_at_a_signal_is_not_the_states(interrupted: tuple[Panel, Plan, Path]) -> None:
    """The weights in hand were validated once more for the model; the state knows nothing of that."""
    _, _, path = interrupted
    assert [entry["step"] for entry in checkpoints.load(path).training["history"]] == [3, 6, 8]
    document, _ = checkpoints.read_sealed(state_of(path))
    assert [entry["step"] for entry in document["current"]["numbers"]["history"]] == [3, 6]


def other_data(panel: Panel, plan: Plan) -> tuple[Panel, Plan]:
    values = panel.values.copy()
    values[-1] += 1
    return replace(panel, values=values), plan


def other_rate(panel: Panel, plan: Plan) -> tuple[Panel, Plan]:
    return panel, replace(plan, schedule=replace(plan.schedule, learning_rate=plan.schedule.learning_rate * 1.1))


def other_seed(panel: Panel, plan: Plan) -> tuple[Panel, Plan]:
    return panel, replace(plan, training=replace(plan.training, seed=1))


def other_parts(panel: Panel, plan: Plan) -> tuple[Panel, Plan]:
    return panel, replace(plan, parts=replace(plan.parts, validation=plan.parts.end))


@pytest.mark.parametrize(
    ("change", "word"),
    [(other_data, "data"), (other_rate, "options"), (other_seed, "options"), (other_parts, "options")],
)
def test_the_state_of_another_training_is_not_used(
    interrupted: tuple[Panel, Plan, Path], change: Callable[[Panel, Plan], tuple[Panel, Plan]], word: str
) -> None:
    """Said why, and the result is that of a training that found none."""
    panel, plan, path = interrupted
    panel, plan = change(panel, plan)
    told: list[str] = []
    train(panel, plan, path, on_note=told.append)
    assert len(told) == 1
    assert f"(the {word} differ{'s' * (word == 'data')})" in told[0]
    train(panel, plan, path.with_name("straight"))
    assert path.read_bytes() == path.with_name("straight").read_bytes()
    assert not state_of(path).exists()


def test_the_state_of_another_version_or_origin_is_not_used(
    interrupted: tuple[Panel, Plan, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other libraries may compute other bytes; another model to go on from gives another one."""
    panel, plan, path = interrupted
    told: list[str] = []
    Resume(path, origin="another", on_note=told.append).open(panel, plan, Clock())
    monkeypatch.setattr(resume, "versions", lambda: checkpoints.versions() | {"torch": "0.1"})
    Resume(path, on_note=told.append).open(panel, plan, Clock())
    assert "it went on from another model" in told[0]
    assert "version" in told[1]
    assert state_of(path).exists()


def test_no_resume_starts_again(interrupted: tuple[Panel, Plan, Path]) -> None:
    """Without a word, and the old state is gone in the end."""
    panel, plan, path = interrupted
    told: list[str] = []
    state = Resume(path, use=False, on_note=told.append)
    state.open(panel, plan, Clock())
    assert (state.snapshot("choosing"), told) == (None, [])
    train(panel, plan, path, use=False)
    assert not state_of(path).exists()


@pytest.mark.parametrize("damage", ["cut", "bit", "model", "text", "folder"])
def test_a_damaged_state_is_not_used(interrupted: tuple[Panel, Plan, Path], straight: bytes, damage: str) -> None:
    """Said, and the training starts again."""
    panel, plan, path = interrupted
    content = state_of(path).read_bytes()
    if damage == "folder":
        state_of(path).unlink()
        state_of(path).mkdir()
    else:
        flipped = bytes([*content[:-9], content[-9] ^ 1, *content[-8:]])
        wrong = {"cut": content[:-1], "bit": flipped, "model": path.read_bytes(), "text": b"not this"}
        state_of(path).write_bytes(wrong[damage])
    told: list[str] = []
    train(panel, plan, path, on_warning=lambda code, text: told.append(code))
    assert told[0] == "resume_damaged"
    assert path.read_bytes() == straight


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda tensors, numbers: tensors.pop("network.bias"), "a weight is missing"),
        (lambda tensors, numbers: tensors.update({"network.bias": torch.zeros(1)}), "a weight of another shape"),
        (
            lambda tensors, numbers: tensors.update({"batches.generator": torch.zeros(3, dtype=torch.uint8)}),
            "no generator",
        ),
        (lambda tensors, numbers: numbers.pop("step"), "no step"),
        (lambda tensors, numbers: numbers.update(step="many"), "a step that is no number"),
    ],
)
def test_a_sound_file_with_nonsense_changes_nothing(
    interrupted: tuple[Panel, Plan, Path],
    straight: bytes,
    spoil: Callable[[dict[str, Any], dict[str, Any]], Any],
    name: str,
) -> None:
    """The digest proves what was written, not that whoever wrote it was sane."""
    panel, plan, path = interrupted
    state = Resume(path)
    trainer = Trainer(panel, plan, device=CPU, clock=Clock(), resume=state)
    snapshot = state.snapshot("choosing")
    assert snapshot is not None, name
    spoil(snapshot.tensors, snapshot.numbers)
    checkpoints.save(trainer.run({}).checkpoint, path)
    assert path.read_bytes() == straight


def test_a_state_that_cannot_be_written_ends_nothing(
    straight: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once; the training goes on and its model is the same."""

    def full(*arguments: Any) -> str:
        raise ModelError("Cannot write it: no space left on device.")

    panel, plan = case("plain")
    told: list[str] = []
    monkeypatch.setattr(resume, "write_sealed", full)
    train(panel, plan, tmp_path / "model", on_warning=lambda code, text: told.append(code))
    assert told == ["resume_not_written"]
    assert (tmp_path / "model").read_bytes() == straight


def test_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A better state after ten seconds, another after two minutes, and never more than a fiftieth of the time."""
    now, cost, times = [0.0], [0.0], list[float]()

    def write(*arguments: Any) -> str:
        times.append(now[0])
        now[0] += cost[0]
        return ""

    monkeypatch.undo()
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(resume, "write_sealed", write)
    state, snapshot = Resume(tmp_path / "model"), resume.Snapshot({}, {})

    def offered(seconds: int, *, better: bool) -> list[float]:
        times.clear()
        begin = now[0]
        for _ in range(seconds):
            now[0] += 1
            state.offer("choosing", snapshot, better)
        return [time - begin for time in times]

    assert offered(9, better=True) == []
    assert offered(21, better=True) == [1, 11, 21]
    assert offered(240, better=False) == [120, 240]
    cost[0] = 2.0
    assert offered(10, better=True) == [10]
    assert offered(250, better=True) == [100, 202]


def test_time_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted run has used of its time limit is not given again, unless the clock runs already."""
    panel, plan = case("plain")
    clock = StopsAfter(8, "signal", monkeypatch)
    monkeypatch.setattr(Clock, "elapsed", property(lambda self: 5.0))
    train(panel, plan, tmp_path / "model", clock)
    monkeypatch.undo()
    waiting, running = Clock(), Clock()
    running.start()
    for one in (waiting, running):
        Resume(tmp_path / "model").open(panel, plan, one)
    assert (waiting.earlier, running.earlier) == (5.0, 0.0)


@pytest.mark.parametrize("why", ["time", ""])
def test_it_is_gone_when_training_has_ended(why: Stopped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, plan = case("plain")
    train(panel, plan, tmp_path / "model", StopsAfter(8, why, monkeypatch))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_no_training_rows_are_in_it(interrupted: tuple[Panel, Plan, Path]) -> None:
    """Only weights, generators and figures."""
    panel, _, path = interrupted
    content = state_of(path).read_bytes()
    for kind in (np.float32, np.float64):
        assert panel.values[:8].astype(kind).tobytes() not in content


def test_beside_a_device_there_is_none() -> None:
    state = Resume(Path("/dev/null"))
    state.offer("choosing", resume.Snapshot({}, {}), True)
    state.close(ended=False)
    assert not Path("/dev/null.resume").exists()
