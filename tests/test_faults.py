"""Kills, disks that fail and bits that flip: no model is ever lost, and no run ends in a traceback."""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ok, run
from forked import Server, random_moments
from panels import wave

from stacklstm_cli.errors import ModelError
from stacklstm_cli.model.checkpoint import load
from stacklstm_cli.training import resume
from stacklstm_cli.training.defaults import resolve
from stacklstm_cli.training.runtime import Clock

SMALL = ("--hidden-size", "4", "--context-length", "12", "--horizon", "4", "--patch-length", "2", "-q")
LONG = (*SMALL, "--epochs", "40", "--patience", "1000", "--dropout", "0.3")
SHORT = (*SMALL, "--epochs", "2")
NIGHT = ("--epochs", "30", "--patience", "1000", "--gate", "always", "--keep", "1")
MODEL = Path("data.safetensors")
KEPT = Path("data.safetensors.1")
STATE = Path("data.safetensors.resume")


@pytest.fixture
def data(folder: Path) -> Path:
    """A small file, alone in the working directory."""
    path = folder / "data.csv"
    path.write_text("v\n" + "\n".join(map(str, wave(160, period=12))) + "\n")
    return path


def names() -> set[str]:
    return {path.name for path in Path().iterdir()}


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_any_moment(data: Path, server: Server, kills: int) -> None:
    """The model is whole, old or new, after each kill; the run that is let through ends as if there had been none."""
    straight = server.run("train", data, *LONG)
    assert straight.status == 0, straight.stderr
    expected = MODEL.read_bytes()
    ok("train", data, *SHORT, "--seed", "1")
    before = MODEL.read_bytes()
    assert before != expected
    moments, finished, resumed = random_moments(kills, 1.2 * straight.seconds), 0, 0
    for _ in range(kills):
        ended = server.run("train", data, *LONG, kill_after=next(moments), number=signal.SIGKILL)
        assert ended.status in (0, -signal.SIGKILL), ended.stderr
        resumed += "goes on" in ended.stderr
        assert "damaged" not in ended.stderr
        load(MODEL)
        assert MODEL.read_bytes() in (before, expected)
        if ended.status == 0:
            finished += 1
            assert MODEL.read_bytes() == expected
            assert names() == {"data.csv", "data.safetensors"}
            MODEL.write_bytes(before)
    assert server.run("train", data, *LONG).status == 0
    assert MODEL.read_bytes() == expected
    assert names() == {"data.csv", "data.safetensors"}


@pytest.fixture
def champion(data: Path) -> bytes:
    """A model of that file, which has grown since."""
    ok("train", data, *SHORT)
    with data.open("a") as file:
        file.write("\n".join(map(str, wave(184, period=12)[160:])) + "\n")
    return MODEL.read_bytes()


@pytest.mark.parametrize("kills", [pytest.param(60, marks=pytest.mark.slow)])
def test_retraining_killed_at_any_moment(data: Path, champion: bytes, server: Server, kills: int) -> None:
    """As above; the model that was replaced is the one kept, and a killed run leaves nothing for good."""
    command = ("retrain", data, *NIGHT)
    straight = server.run(*command)
    assert straight.status == 0, straight.stderr
    expected = MODEL.read_bytes()
    assert expected != champion
    moments = random_moments(kills + 1, 1.2 * straight.seconds)
    finished = resumed = 0
    for number in range(kills + 1):
        if number in (0, kills) or MODEL.read_bytes() == expected:
            MODEL.write_bytes(champion)
            KEPT.unlink(missing_ok=True)
        ended = server.run(*command, kill_after=next(moments), number=signal.SIGKILL)
        assert ended.status in (0, -signal.SIGKILL), ended.stderr
        resumed += "goes on" in ended.stderr
        assert "damaged" not in ended.stderr
        load(MODEL)
        assert MODEL.read_bytes() in (champion, expected)
        if MODEL.read_bytes() == expected:
            assert KEPT.read_bytes() == champion
        if ended.status == 0:
            finished += 1
            assert MODEL.read_bytes() == expected
            assert names() == {"data.csv", MODEL.name, KEPT.name}
    assert server.run(*command).status == 0
    assert (MODEL.read_bytes(), KEPT.read_bytes()) == (expected, champion)
    assert names() == {"data.csv", MODEL.name, KEPT.name}
    assert kills < 10 or (finished and resumed)


def test_a_stopped_retraining_goes_on(data: Path, champion: bytes, server: Server) -> None:
    """A signal leaves the model, keeps the work, and the same command ends as a straight run; another one says why."""
    command = ("retrain", data, *NIGHT)
    straight = server.run(*command)
    expected = MODEL.read_bytes()
    for share in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2):
        if not STATE.exists():
            MODEL.write_bytes(champion)
            KEPT.unlink(missing_ok=True)
            ended = server.run(*command, kill_after=share * straight.seconds)
            assert ended.status in (0, 128 + signal.SIGTERM, -signal.SIGTERM), ended.stderr
            assert ended.seconds < 5
    assert STATE.exists()
    assert "is as it was" in ended.stderr
    assert MODEL.read_bytes() == champion
    state = STATE.read_bytes()
    ended = server.run(*command)
    assert ended.status == 0, ended.stderr
    assert "an interrupted training goes on" in ended.stderr
    assert MODEL.read_bytes() == expected
    assert names() == {"data.csv", MODEL.name, KEPT.name}
    STATE.write_bytes(state)  # as if that run had been killed at its very end
    assert server.run(*command).status == 0
    assert names() == {"data.csv", MODEL.name, KEPT.name}
    MODEL.write_bytes(champion)
    KEPT.unlink()
    STATE.write_bytes(state)
    ended = server.run(*command, "--seed", "1")
    assert "is the state of another training (the options differ): not used, replaced" in ended.stderr
    assert MODEL.read_bytes() not in (champion, expected)


@pytest.mark.parametrize("signals", [pytest.param(15, marks=pytest.mark.slow)])
def test_signals_at_any_moment(data: Path, server: Server, signals: int) -> None:
    """Each ends soon, with 130 or 143 and a message or a model; what goes on from there ends as a straight run."""
    straight = server.run("train", data, *LONG)
    expected = MODEL.read_bytes()
    moments, numbers = random_moments(1, straight.seconds), itertools.cycle([signal.SIGTERM, signal.SIGINT])
    for moment, number in itertools.islice(zip(moments, numbers, strict=False), signals):
        MODEL.unlink(missing_ok=True)
        STATE.unlink(missing_ok=True)
        ended = server.run("train", data, *LONG, kill_after=moment, number=number)
        assert ended.status in (0, 128 + number, -number), ended.stderr
        assert "Traceback" not in ended.stderr
        if ended.status == 128 + number and ended.stderr:  # the first moments belong to Python, which says nothing
            assert MODEL.exists() or "nothing was saved" in ended.stderr
        if MODEL.exists():
            load(MODEL)
        again = server.run("train", data, *LONG)
        assert again.status == 0, again.stderr
        assert MODEL.read_bytes() == expected
        assert names() == {"data.csv", "data.safetensors"}


class Faults:
    """The system calls behind every write, of which one shall fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.failing, self.error = -1, errno.ENOSPC
        for owner, name in (
            *((os, name) for name in ("open", "write", "fsync", "ftruncate")),
            *((Path, name) for name in ("chmod", "replace")),
        ):
            monkeypatch.setattr(owner, name, self.layer(name, getattr(owner, name)))

    def layer(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, counted where it is part of a write in the working directory, and failing where it is its turn."""

        def counted(*arguments: Any, **named: Any) -> Any:
            place = str(arguments[0])
            if isinstance(arguments[0], int):
                place = str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
            writes = name != "open" or bool(arguments[1] & (os.O_WRONLY | os.O_RDWR))
            if writes and Path(place).parent == Path.cwd():
                self.calls.append(f"{name} {Path(place).name}")
                if len(self.calls) - 1 == self.failing:
                    raise OSError(self.error, os.strerror(self.error), place)
            return call(*arguments, **named)

        return counted


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the file behind a descriptor is looked up in /proc")
@pytest.mark.parametrize(
    ("errors", "words"),
    [
        pytest.param([errno.ENOSPC], ["--no-refit"], id="full"),
        pytest.param([errno.ENOSPC, errno.EACCES, errno.EIO], [], id="any", marks=pytest.mark.slow),
    ],
)
def test_every_write_and_rename_fails_in_turn(
    data: Path, errors: list[int], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old model is as it was and the status is 4, or the new one is there and only its resume state was lost."""
    monkeypatch.setattr(resume, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(resume, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(resume, "WORK_PER_WRITE", 0)
    command: tuple[Any, ...] = ("train", data, *SMALL, "--epochs", "1", *words)
    ok(*command)
    new = MODEL.read_bytes()
    ok(*command, "--seed", "1")
    fail_in_turn(command, errors, MODEL.read_bytes(), new, {"data.csv", MODEL.name}, monkeypatch)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the file behind a descriptor is looked up in /proc")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_every_write_and_rename_of_a_retraining_fails_in_turn(
    data: Path, champion: bytes, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above; the model that is kept beside it is whole or not there."""
    monkeypatch.setattr(resume, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(resume, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(resume, "WORK_PER_WRITE", 0)
    command = ("retrain", data, "--epochs", "1", "--gate", "always", "--keep", "1", "-q")
    ok(*command)
    new = MODEL.read_bytes()
    MODEL.write_bytes(champion)
    KEPT.unlink()
    fail_in_turn(command, [error], champion, new, {"data.csv", MODEL.name, KEPT.name}, monkeypatch)
    assert KEPT.read_bytes() == champion


def fail_in_turn(
    command: tuple[Any, ...],
    errors: list[int],
    old: bytes,
    new: bytes,
    files: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command with each of its writes failing in turn: from the model `old` it makes `new` and leaves `files`."""
    MODEL.write_bytes(old)
    faults = Faults(monkeypatch)
    ok(*command)
    calls = faults.calls
    assert {call.split()[0] for call in calls} == {"open", "write", "fsync", "ftruncate", "chmod", "replace"}
    statuses = set()
    for error, failing in itertools.product(errors, range(len(calls))):
        MODEL.write_bytes(old)
        STATE.unlink(missing_ok=True)
        KEPT.unlink(missing_ok=True)
        faults.calls, faults.failing, faults.error = [], failing, error
        done = run(*command)
        assert "Traceback" not in done.stderr, done.stderr
        assert "bug" not in done.stderr, done.stderr
        statuses.add(done.exit_code)
        if done.exit_code == 4:
            assert MODEL.read_bytes() == old, calls[failing]
            assert os.strerror(error).lower() in done.stderr.lower()
        else:
            assert (done.exit_code, MODEL.read_bytes() == new) == (0, True), calls[failing]
            assert names() == files, calls[failing]
        assert names() <= files | {STATE.name}, calls[failing]
        assert not KEPT.exists() or KEPT.read_bytes() == old, calls[failing]
    assert statuses == {0, 4}


def damages(content: bytes, count: int, seed: int) -> list[bytes]:
    """As many damaged copies: flipped bits, and every fourth one cut off."""
    drawn, found = random.Random(seed), []  # noqa: S311 - places, not secrets
    for number in range(count):
        place = drawn.randrange(len(content))
        if number % 2:  # half of them in the header, which is the smaller and the more delicate part
            place = drawn.randrange(min(len(content), 4000))
        changed = bytearray(content)
        changed[place] ^= 1 << drawn.randrange(8)
        found.append(bytes(changed) if number % 4 else content[:place])
    return found


@pytest.fixture
def interrupted(data: Path, server: Server) -> Path:
    """The working directory with a model and the state of an interrupted training."""
    server.run("train", data, *LONG, kill_where=STATE.name)
    assert STATE.exists()
    ok("predict", data, "-q")
    return data


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files_in_one_process(interrupted: Path, count: int) -> None:
    """A model is refused, a resume state passed over; both are said, and nothing else happens."""
    model, state = MODEL.read_bytes(), STATE.read_bytes()
    for damaged in damages(model, count // 2, 1):
        MODEL.write_bytes(damaged)
        with pytest.raises(ModelError):
            load(MODEL)
    MODEL.write_bytes(model)
    panel, plan = read_plan(interrupted)
    for damaged in damages(state, count // 2, 2):
        STATE.write_bytes(damaged)
        told: list[str] = []
        found = resume.Resume(MODEL, on_warning=lambda code, text, told=told: told.append(code))
        found.open(panel, plan, Clock())
        assert told == ["resume_damaged"]
        assert found.snapshot("choosing") is None


def read_plan(data: Path) -> tuple[Any, Any]:
    """The panel of a file and a plan for it."""
    from stacklstm_cli.config import DataConfig, MetricConfig, ModelConfig, ReadingConfig, TrainingConfig
    from stacklstm_cli.data.reading import read_panel

    panel = read_panel([str(data)], DataConfig(), ReadingConfig())
    return panel, resolve(panel, ModelConfig(), TrainingConfig(), MetricConfig())


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_damaged_files_through_the_command(interrupted: Path, server: Server, count: int) -> None:
    """Status 4 and one message of a model; of a resume state a warning and a training from the beginning."""
    model, state = MODEL.read_bytes(), STATE.read_bytes()
    for damaged in damages(model, count // 2, 3):
        MODEL.write_bytes(damaged)
        ended = server.run("predict", interrupted, "-q", limit=30)
        assert ended.status == 4, ended.stderr
        assert re.match("error: .*no sound stacklstm model|error: .*model format", ended.stderr), ended.stderr
        assert "Traceback" not in ended.stderr
    for damaged in damages(state, count // 2, 4):
        MODEL.write_bytes(model)
        STATE.write_bytes(damaged)
        ended = server.run("train", interrupted, *SHORT, limit=60)
        assert ended.status == 0, ended.stderr
        assert "is damaged: not used" in ended.stderr
        assert names() == {"data.csv", "data.safetensors"}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory in use is looked up in /proc")
def test_memory_that_is_not_there(folder: Path, server: Server) -> None:
    """A message with a way out, no traceback."""
    np.savetxt("data.csv", wave(3000), header="v", comments="")
    ended = server.run("train", "data.csv", "--hidden-size", "8192", "--layers", "1", memory=2**28)
    assert (ended.status, "Traceback" in ended.stderr) == (2, False), ended.stderr
    assert "--hidden-size" in ended.stderr.splitlines()[-1]
