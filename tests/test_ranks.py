"""Processes that train together; those that forecast together are in test_shared_forecasts.py."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from together import Server, server

from stacklstm_cli.cli.app import main
from stacklstm_cli.errors import UsageError
from stacklstm_cli.ranks import Ranks, get_ranks, word_of_start

__all__ = ["server"]

AIR = Path(__file__).parent.parent / "sample_data" / "air_passengers.csv"
TRAIN = ("train", AIR, "-m", "m.safetensors", "--epochs", "16", "--no-refit")


def test_alone_without_torchrun() -> None:
    """A single variable of that name, as other programs set it, means nothing."""
    ranks = Ranks.of({"RANK": "3"})
    assert ranks == Ranks(0, 1, 0, 1) == get_ranks()
    assert ranks.leads
    numbers = torch.tensor([1.0, 2.0])
    ranks.complete(numbers)
    ranks.copy_first([numbers])
    assert numbers.tolist() == [1, 2]
    assert ranks.largest(3) == 3
    assert ranks.text_of(0, b"said") == b"said"


def places(rank: str = "0", size: str = "2", local_rank: str = "0", local_size: str = "2") -> dict[str, str]:
    return {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": local_size}


def test_as_torchrun_says() -> None:
    ranks = Ranks.of(places("2", "4", "1", "2"))
    assert ranks == Ranks(2, 4, 1, 2)
    assert not ranks.leads


@pytest.mark.parametrize(
    "environment",
    [places("x"), places("2"), places("-1"), places(local_rank="2"), places(local_size="3"), places("0", "0")],
)
def test_what_cannot_be(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="RANK"):
        Ranks.of(environment)


def test_those_who_start_together_find_a_word() -> None:
    """The store still has all that those said who died, and one of them is late."""
    store = torch.distributed.HashStore()
    words = set()
    for _ in range(3):
        with ThreadPoolExecutor() as pool:
            places = [pool.submit(word_of_start, store, rank, 3) for rank in (0, 1)]
            time.sleep(0.1)
            assert not places[0].done()
            (word,) = {place.result() for place in [*places, pool.submit(word_of_start, store, 2, 3)]}
        words.add(word)
    assert len(words) == 3


def test_several_processes_make_the_model_of_one(server: Server, tmp_path: Path) -> None:
    """Byte for byte, of four shards, which three cannot share evenly. One says what was done."""
    made = []
    for size in (1, 3):
        leader, *others = server.run(tmp_path, size, TRAIN)
        assert leader.status == 0, leader.stderr
        assert "MASE" in leader.stdout
        assert [(other.status, other.stdout, other.stderr) for other in others] == [(0, "", "")] * (size - 1)
        made.append((tmp_path / "m.safetensors").read_bytes())
        assert [path.name for path in tmp_path.glob("*m.safetensors*")] == ["m.safetensors"]
    assert made[1] == made[0]


def test_one_that_dies_ends_the_others_and_loses_nothing(server: Server, tmp_path: Path) -> None:
    """The model that was there stays, and the same command goes on to the same end."""
    server.run(tmp_path, 1, TRAIN)
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(b"the old model")
    leader, killed = server.run(tmp_path, 2, TRAIN, dies=22, patient=True)
    assert (killed.status, leader.status) == (-9, 143), leader.stderr
    assert leader.stderr.count("Another process of this command has ended") == 1
    assert (tmp_path / "m.safetensors").read_bytes() == b"the old model"
    leader, other = server.run(tmp_path, 2, TRAIN)
    assert (leader.status, other.status) == (0, 0), leader.stderr
    assert "goes on at step" in leader.stderr
    assert (tmp_path / "m.safetensors").read_bytes() == whole


def test_a_time_limit_ends_all_at_the_same_step(server: Server, tmp_path: Path) -> None:
    words = (
        "train",
        AIR,
        "-m",
        "m.safetensors",
        "--max-time",
        "0.5s",
        "--no-refit",
        "--patience",
        "1000",
        "--epochs",
        "100000",
    )
    leader, other = server.run(tmp_path, 2, words)
    assert (leader.status, other.status) == (0, 0), leader.stderr + other.stderr
    assert "Time was up" in leader.stderr
    assert (tmp_path / "m.safetensors").exists()


def test_each_must_train_the_same(server: Server, tmp_path: Path) -> None:
    """A file of its own would be noticed by nobody else."""
    other = [str(word) for word in (*TRAIN, "--seed", "7")]
    leader, differing = server.run(tmp_path, 2, TRAIN, other)
    assert (differing.status, differing.stderr, leader.status) == (3, "", 3)
    assert "Not every process would do the same: the options differ. (Process 1 of 2 says so.)" in leader.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_what_one_process_does_the_others_leave_to_it(server: Server, tmp_path: Path) -> None:
    """So is the help."""
    server.run(tmp_path, 1, TRAIN)
    for words in (("inspect", "m.safetensors"), ("train", "--help")):
        leader, other = server.run(tmp_path, 2, words)
        assert leader.stdout
        assert (leader.status, other.status, other.stdout, other.stderr) == (0, 0, "", "")


@pytest.mark.parametrize("typed", ["--layers x", "--no-such-option"])
def test_what_cannot_be_typed_is_told_once(server: Server, tmp_path: Path, typed: str) -> None:
    """The launcher ends the others as soon as the first one has failed, some before they have got so far."""
    leader, *others = server.run(tmp_path, 3, (*TRAIN, *typed.split()))
    assert leader.stderr.count("error: ") == 1
    assert leader.status == 2
    assert all(one.status in (2, -signal.SIGTERM) and one.stderr == "" for one in others)


@pytest.mark.parametrize(("typed", "status"), [("--target nowhere", 2), ("--horizon 1000", 3), ("-o missing/x", 4)])
def test_a_mistake_is_told_once(server: Server, tmp_path: Path, typed: str, status: int) -> None:
    """All end alike, whether or not a launcher ends them."""
    leader, *others = server.run(tmp_path, 3, (*TRAIN, *typed.split()), patient=True)
    assert leader.stderr.count("error: ") == 1
    assert (leader.status, [(one.status, one.stderr) for one in others]) == (status, [(status, "")] * 2)


def test_a_mistake_of_one_alone_is_told_by_the_first(server: Server, tmp_path: Path) -> None:
    """Such as a file that its machine does not have."""
    leader, other = server.run(tmp_path, 2, TRAIN, ["train", "missing.csv", "-m", "m.safetensors"], patient=True)
    assert (leader.status, other.status, other.stderr) == (3, 3, "")
    assert "missing.csv: there is no such file. (Process 1 of 2 says so.)" in leader.stderr


def test_what_no_launcher_ends_tells_its_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one may have been started with other words, on another machine."""
    for name, value in places("1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("stacklstm_cli.cli.messages.SECONDS_TO_BE_ENDED", 0)
    with pytest.raises(SystemExit) as end:
        main(["train", "data.csv", "--layers", "x"])
    assert end.value.code == 2
    assert "--layers is 'x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("train", "-", "-m", "m.safetensors"),
        ("train", str(AIR), "--layers", "auto"),
        ("predict", "-", "-m", "m.safetensors"),
        ("evaluate", "-", "-m", "m.safetensors"),
    ],
)
def test_what_cannot_be_shared_is_refused(server: Server, tmp_path: Path, words: tuple[str, ...]) -> None:
    leader, other = server.run(tmp_path, 2, words)
    assert (leader.status, other.stderr) == (2, "")
    assert other.status in (2, -signal.SIGTERM)
    assert "2 processes cannot" in leader.stderr


def torchrun(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """As typed, with two processes."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run([*run, *map(str, words)], timeout=300, capture_output=True, text=True, cwd=folder)


def alone(folder: Path, *words: str | Path) -> str:
    """What one process prints."""
    run = [sys.executable, "-m", "stacklstm_cli", *map(str, words)]
    return subprocess.run(run, check=True, timeout=300, capture_output=True, text=True, cwd=folder).stdout


@pytest.mark.slow
def test_torchrun(tmp_path: Path) -> None:
    """The batches of so small a network are worth one process, which is said."""
    told = torchrun(tmp_path, "-m", "stacklstm_cli", *TRAIN)
    assert told.returncode == 0, told.stderr
    assert "1 of 2 had nothing to do" in " ".join(told.stderr.split())
    together = (tmp_path / "m.safetensors").read_bytes()
    alone(tmp_path, *TRAIN)
    assert (tmp_path / "m.safetensors").read_bytes() == together
    for words in (["predict", AIR], ["evaluate", AIR, "--step", "1", "--in-sample"]):
        told = torchrun(tmp_path, "-m", "stacklstm_cli", *words, "-m", "m.safetensors")
        assert told.returncode == 0, told.stderr
        assert told.stdout == alone(tmp_path, *words, "-m", "m.safetensors")


@pytest.mark.slow
def test_torchrun_tells_a_mistake_once(tmp_path: Path) -> None:
    """Its own status is 1, whatever the command's is; that is in the lines it adds."""
    told = torchrun(tmp_path, "-m", "stacklstm_cli", *TRAIN, "--layers", "x")
    assert told.returncode == 1
    assert told.stderr.count("error: ") == 1
    root = told.stderr.partition("Root Cause")[2]
    assert "(local_rank: 0)" in root
    assert "exitcode  : 2 " in root


@pytest.mark.slow
def test_torchrun_starts_again(tmp_path: Path) -> None:
    """In the second of two fits, and as if nothing had happened: the bytes of the model and of the table."""
    train = ("train", AIR, "-m", "m.safetensors", "--epochs", "16")
    told = torchrun(tmp_path, "--max-restarts", "1", Path(__file__).parent / "dying.py", *train)
    assert told.returncode == 0, told.stderr
    assert "exitcode: -9" in told.stderr
    assert "an interrupted training goes on after choosing" in told.stderr
    again = (tmp_path / "m.safetensors").read_bytes()
    assert told.stdout == alone(tmp_path, *train)
    assert (tmp_path / "m.safetensors").read_bytes() == again
