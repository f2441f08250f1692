"""Trainings of labels that are interrupted or run out of time: the resume state, and what is saved."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from clocks import StopsAfter
from commands import ok, run
from test_labels import TINY, rows, whole_series

from stacklstm_cli.config import DataConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import NothingLearnedError
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.training import resume
from stacklstm_cli.training.label_plan import LabelPlan, plan_labels
from stacklstm_cli.training.labels import LabelOutcome, LabelTrainer
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock, Interrupted, Stopped

STEPS, MEMBERS, FOLDS = 8, 2, 4
Case = tuple[Panel, LabelPlan]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is written whenever there is a new one."""
    for name in ("LEAST_SECONDS", "MOST_SECONDS", "WORK_PER_WRITE"):
        monkeypatch.setattr(resume, name, 0)


@pytest.fixture(scope="module", params=["series", "rows"])
def case(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Case:
    """A small panel and a plan of two networks, each fit of 8 steps with a check every 2."""
    changing = {f"s{at}": ["up", "down", "down"] * 3 for at in range(3)}
    frame = whole_series() if request.param == "series" else rows(changing)
    path = tmp_path_factory.mktemp("case") / "d.csv"
    frame.to_csv(path, index=False)
    panel = read_panel([str(path)], DataConfig(label="label"))
    plan = plan_labels(panel, ModelConfig(hidden_size=(4,), layers=1), TrainingConfig(batch_size=4))
    assert plan.spec.labels is not None
    assert len(plan.folds) == (FOLDS if request.param == "series" else 1)
    schedule = replace(plan.schedule, max_steps=STEPS, check_every=2, warmup=2)
    labels = replace(plan.spec.labels, members=MEMBERS, filters=())
    return panel, replace(plan, schedule=schedule, spec=replace(plan.spec, labels=labels))


def train(case: Case, path: Path, clock: Clock | None = None, **options: Any) -> LabelOutcome | None:
    """As the command does it; None where a signal left nothing to save."""
    state = Resume(path, **options)
    trainer = LabelTrainer(
        *case, device=torch.device("cpu"), clock=clock or Clock(), on_event=lambda event: None, resume=state
    )
    try:
        outcome = trainer.run({})
    except Interrupted:
        return None
    checkpoints.save(outcome.checkpoint, path)
    state.close(ended=outcome.stopped != "signal")
    return outcome


@pytest.fixture(scope="module")
def whole(case: Case, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model file of a training that nothing has interrupted."""
    path = tmp_path_factory.mktemp("whole") / "m"
    train(case, path)
    assert not path.with_name("m.resume").exists()
    return path.read_bytes()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("steps", [3, 11, 35])
def test_wherever_it_is_interrupted_it_ends_with_the_same_bytes(
    case: Case, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    total = STEPS * len(case[1].folds)
    with monkeypatch.context() as patch:
        before = train(case, tmp_path / "parts", StopsAfter(min(steps, total + 3), "signal", patch))
    assert before is None or before.stopped == "signal"
    assert (tmp_path / "parts.resume").exists()
    notes: list[str] = []
    after = train(case, tmp_path / "parts", on_note=notes.append)
    assert after is not None
    assert after.stopped == ""
    assert "goes on" in notes[0]
    assert (tmp_path / "parts").read_bytes() == whole
    assert not (tmp_path / "parts.resume").exists()


@pytest.mark.usefixtures("impatient")
def test_the_state_of_other_labels_is_not_used(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, plan = case
    with monkeypatch.context() as patch:
        train(case, tmp_path / "m", StopsAfter(5, "signal", patch))
    notes: list[str] = []
    other = plan.truth.copy()
    other[:2] = other[:2][::-1]
    train((panel, replace(plan, truth=other)), tmp_path / "m", on_note=notes.append)
    assert "the options differ" in notes[0]


@pytest.mark.parametrize("case", ["series"], indirect=True)
@pytest.mark.parametrize(
    ("steps", "codes"),
    [
        (5, {"fewer_folds", "not_refitted"}),
        (35, {"refit_shortened"}),
        (43, {"time_up"}),
        (10_000, set()),
    ],
)
def test_what_a_time_limit_leaves_is_said(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, codes: set[str]
) -> None:
    with monkeypatch.context() as patch:
        outcome = train(case, tmp_path / "m", StopsAfter(steps, "time", patch))
    assert outcome is not None
    assert {code for code, _ in outcome.warnings} == codes
    assert outcome.stopped == ("time" if codes else "")
    saved = checkpoints.load(tmp_path / "m")
    assert saved.spec.labels is not None
    assert saved.spec.labels.members == (1 if codes else MEMBERS)  # half a network is no part of a mean


class HalfTime(Clock):
    """Half of the time is over once the first fold has ended, and no more than that."""

    def __init__(self) -> None:
        super().__init__()
        self.folds = 0

    def stopped(self, share: float = 1.0) -> Stopped:
        return "time" if share <= 0.5 and self.folds else ""


@pytest.mark.parametrize("case", ["series"], indirect=True)
def test_folds_that_time_cuts_have_not_diverged(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, fit = HalfTime(), LabelTrainer.fit

    def counted(*arguments: Any, **options: Any) -> Any:
        fitted = fit(*arguments, **options)
        clock.folds += 1
        return fitted

    monkeypatch.setattr(LabelTrainer, "fit", counted)
    outcome = train(case, tmp_path / "m", clock)
    assert outcome is not None
    assert outcome.warnings == (("fewer_folds", "Time was up: 1 of 4 folds have judged."),)
    assert outcome.stopped == "time"


@pytest.mark.parametrize("case", ["series"], indirect=True)
def test_no_step_at_all_is_an_error(case: Case, tmp_path: Path) -> None:
    with pytest.raises(NothingLearnedError):
        train(case, tmp_path / "m", Clock(1e-9))


def test_a_time_limit_is_obeyed_and_a_model_is_there(tmp_path: Path) -> None:
    whole_series(24).to_csv(tmp_path / "d.csv", index=False)
    begin = time.monotonic()
    ok("train", tmp_path / "d.csv", "--label", "label", "-m", tmp_path / "m", "--max-time", "1s", "-q")
    assert time.monotonic() - begin < 6
    assert ok("predict", tmp_path / "d.csv", "-m", tmp_path / "m").exit_code == 0
    assert not (tmp_path / "m.resume").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals to other processes are POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_what_is_there(tmp_path: Path, number: int, status: int) -> None:
    whole_series(40).to_csv(tmp_path / "d.csv", index=False)
    words = ["train", str(tmp_path / "d.csv"), "--label", "label", "-m", str(tmp_path / "m"), "--epochs", "5000"]
    with subprocess.Popen(
        [sys.executable, "-m", "stacklstm_cli", *words, "--format", "json"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "training:" in line:
                break
        time.sleep(3)
        process.send_signal(number)
        assert process.wait(30) == status
    assert (tmp_path / "m").exists()
    assert run("predict", tmp_path / "d.csv", "-m", tmp_path / "m").exit_code == 0


def test_tiny_trainings_leave_nothing_but_the_model(tmp_path: Path) -> None:
    whole_series().to_csv(tmp_path / "d.csv", index=False)
    ok("train", tmp_path / "d.csv", "--label", "label", "-m", tmp_path / "m", *TINY, "-q")
    assert {one.name for one in tmp_path.iterdir()} == {"d.csv", "m"}
