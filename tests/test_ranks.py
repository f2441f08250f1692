"""Processes that train together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from together import Server, server

from stacklstm_cli.errors import UsageError
from stacklstm_cli.training.ranks import Ranks, get_ranks

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
    assert ranks.text_of_first(b"said") == b"said"


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
    leader, killed = server.run(tmp_path, 2, TRAIN, dies=22)
    assert (killed.status, leader.status) == (-9, 143), leader.stderr
    assert "Another process of this training has ended" in leader.stderr
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
    """A file of its own would be noticed by nobody else; all say so."""
    other = [str(word) for word in (*TRAIN, "--seed", "7")]
    leader, differing = server.run(tmp_path, 2, TRAIN, other)
    assert differing.status == 3
    assert "Process 1 would train something else than the first one: the options differ." in differing.stderr
    assert leader.status == 3
    assert "Process 1 would train something else than the first one." in leader.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_what_one_process_does_the_others_leave_to_it(server: Server, tmp_path: Path) -> None:
    server.run(tmp_path, 1, TRAIN)
    for words in (("predict", AIR, "-m", "m.safetensors"), ("inspect", "m.safetensors")):
        leader, other = server.run(tmp_path, 2, words)
        assert leader.stdout
        assert (leader.status, other.status, other.stdout, other.stderr) == (0, 0, "", "")


@pytest.mark.parametrize("words", [("-", "-m", "m.safetensors"), (str(AIR), "--layers", "auto")])
def test_what_cannot_be_shared_is_refused(server: Server, tmp_path: Path, words: tuple[str, ...]) -> None:
    leader, other = server.run(tmp_path, 2, ("train", *words))
    assert leader.status == other.status == 2
    assert "2 processes cannot" in leader.stderr


@pytest.mark.slow
def test_torchrun(tmp_path: Path) -> None:
    """As typed. The batches of so small a network are worth one process, which is said."""
    words = [str(word) for word in TRAIN]
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "stacklstm_cli",
    ]
    told = subprocess.run([*run, *words], check=True, timeout=300, capture_output=True, text=True, cwd=tmp_path)
    assert "1 of 2 had nothing to do" in " ".join(told.stderr.split())
    together = (tmp_path / "m.safetensors").read_bytes()
    subprocess.run([sys.executable, "-m", "stacklstm_cli", *words], check=True, timeout=300, cwd=tmp_path)
    assert (tmp_path / "m.safetensors").read_bytes() == together
