"""`predict` and `evaluate` by several processes: the bytes of one, and one voice.

Batches, parts of the panel and blocks are small here (together.py), so that there are several of each.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from together import Ended, Server, server

from stacklstm_cli.evaluation.backtest import Divisible
from stacklstm_cli.evaluation.baselines import Naive
from stacklstm_cli.evaluation.statistical import Statistical
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.ranks import Ranks
from stacklstm_cli.training.refitting import Refitting

__all__ = ["server"]

SMALL = ("--epochs", "2", "--hidden-size", "4", "--context-length", "8", "--horizon", "3")


@pytest.fixture(scope="module")
def folder(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and models: seven series, a single one, labels."""
    made = tmp_path_factory.mktemp("shared")
    draw = np.random.default_rng(0)
    rows = [
        f"{name},{month},{20 + 5 * np.sin(month / 2) + draw.normal():.3f},{month % 3}"
        for name, count in zip("abcdefg", (60, 45, 50, 40, 55, 60, 48), strict=True)
        for month in range(60 - count, 60)
    ]
    (made / "many.csv").write_text("\n".join(["name,month,value,plan", *rows]) + "\n")
    (made / "one.csv").write_text("\n".join(["value", *(row.split(",")[2] for row in rows[:60])]) + "\n")
    (made / "labels.csv").write_text(
        "\n".join(
            [
                "name,value,kind",
                *(f"{n},{np.sin(n + t * (1 + n % 2)):.3f},{n % 2}" for n in range(12) for t in range(9)),
            ]
        )
    )
    for words in (
        ("many.csv", "--past", "plan", "--no-refit", *SMALL),
        ("one.csv", *SMALL),
        ("labels.csv", "--label", "kind", "--id", "name", "--epochs", "2"),
    ):
        (trained,) = server.run(made, 1, ("train", *words, "-q"))
        assert trained.status == 0, trained.stderr
    return made


def outputs(folder: Path, ended: Ended) -> dict[str, object]:
    """What a command printed and wrote, without the seconds it took."""
    found: dict[str, object] = {"stdout": ended.stdout, "notes": ended.stderr}
    if ended.stdout.startswith("{"):
        found["stdout"] = json.loads(ended.stdout) | {"seconds": 0}
    for path in sorted(folder.glob("made.*")):
        found[path.name] = path.read_bytes()
        path.unlink()
    return found


@pytest.mark.parametrize(
    ("sizes", "typed"),
    [
        ((2, 3), "predict many.csv --interval 80"),
        ((3,), "predict many.csv -o made.parquet"),
        ((2,), "predict many.csv --format json"),
        ((3,), "predict one.csv --horizon 2 --quantiles 0.1,0.9"),
        ((2,), "predict labels.csv"),
        ((2, 3), "evaluate many.csv --step 1 --forecasts made.csv --format json --per-series"),
        ((2, 3), "evaluate one.csv --in-sample --step 1 --quantiles 0.25,0.75 --forecasts made.parquet"),
        ((3,), "evaluate many.csv --baselines auto_ets --step 2 --origins 1"),
        ((2,), "evaluate one.csv --step 3 --origins 2 --refit-every 1 --in-sample"),
        ((3,), "evaluate labels.csv --in-sample"),
    ],
)
def test_several_give_the_bytes_of_one(server: Server, folder: Path, sizes: tuple[int, ...], typed: str) -> None:
    """Many series, fewer of them or of their batches than processes, and many origins of a single one."""
    words = typed.split()
    (alone,) = server.run(folder, 1, words)
    assert alone.status == 0, alone.stderr
    expected = outputs(folder, alone)
    for size in sizes:
        leader, *others = server.run(folder, size, words)
        assert leader.status == 0, leader.stderr
        assert outputs(folder, leader) == expected
        assert [(one.status, one.stdout, one.stderr) for one in others] == [(0, "", "")] * (size - 1)


@pytest.mark.parametrize("typed", ["predict many.csv -o made.csv", "evaluate one.csv --in-sample --step 1"])
def test_one_that_dies_ends_the_others(server: Server, folder: Path, typed: str) -> None:
    """With one reason, and what was there stays. It dies in a batch of its own, so they are shared indeed."""
    words = typed.split()
    (folder / "made.csv").write_text("old")
    leader, other, killed = server.run(folder, 3, words, dies=1, patient=True)
    assert (killed.status, leader.status, other.status) == (-9, 143, 143)
    assert leader.stderr.count("error: ") == 1
    assert "Another process of this command has ended" in leader.stderr
    assert leader.stdout == ""
    assert (folder / "made.csv").read_text() == "old"
    (folder / "made.csv").unlink()


@pytest.mark.parametrize(
    ("status", "typed"),
    [
        (3, "predict missing.csv -m many.safetensors"),
        (4, "predict many.csv -m missing.safetensors"),
        (2, "predict many.csv --horizon 99"),
        (2, "predict many.csv --quantiles 0.999"),
        (4, "predict many.csv -o missing/made.csv"),
        (2, "predict labels.csv --horizon 2"),
        (2, "evaluate many.csv --start 900"),
        (2, "evaluate labels.csv --fail-if-worse-than drift"),
        (4, "evaluate one.csv -m many.safetensors"),
    ],
)
def test_a_mistake_is_told_once(server: Server, folder: Path, status: int, typed: str) -> None:
    """In the words that one process has for it, and all end with its status, whether or not a launcher ends them."""
    words = typed.split()
    (alone,) = server.run(folder, 1, words)
    leader, *others = server.run(folder, 3, words, patient=True)
    assert (alone.status, leader.status) == (status, status), leader.stderr
    assert leader.stderr.splitlines()[-2:] == alone.stderr.splitlines()[-2:]
    assert [(one.status, one.stderr) for one in others] == [(status, "")] * 2


@pytest.mark.parametrize(
    ("last", "status", "reason"),
    [
        (("predict", "missing.csv"), 3, "missing.csv: there is no such file"),
        (("predict", "fewer.csv"), 3, "Not every process would do the same: the data differs"),
        (("predict", "many.csv", "--horizon", "2"), 3, "Not every process would do the same: the options differ"),
    ],
)
def test_a_mistake_of_one_is_told_by_the_first(
    server: Server, folder: Path, last: tuple[str, ...], status: int, reason: str
) -> None:
    words = ("predict", "many.csv", "-m", "many.safetensors")
    (folder / "fewer.csv").write_text("\n".join((folder / "many.csv").read_text().split("\n")[:-2]))
    leader, other = server.run(folder, 2, words, [*last, "-m", "many.safetensors"])
    assert (leader.status, other.status, other.stderr) == (status, status, "")
    assert reason in leader.stderr
    assert "Process 1 of 2 says so" in leader.stderr


@pytest.mark.parametrize(
    ("size", "pieces", "owners"),
    [
        (1, [0, 1, 2], [0, 0, 0]),
        (2, [0, 1, 2], [0, 0, 1]),
        (3, [0, 0, 1, 1, 1, 2, 2], [0, 0, 1, 1, 1, 2, 2]),
        (3, [1, 0, 1, 0], [1, 0, 1, 0]),
        (3, [0, 0], [0, 0]),
        (2, [], []),
    ],
)
def test_who_does_what(size: int, pieces: list[int], owners: list[int]) -> None:
    """Neighbours go together, a piece is never divided, and the first process has no fewer than the others."""
    assert Ranks(0, size, 0, size).owners(np.asarray(pieces, dtype=np.int64)).tolist() == owners


def test_what_takes_long_is_divided() -> None:
    """The naive baselines are the first process's alone: to fetch their forecasts takes as long as to make them."""
    assert all(hasattr(kind, "pieces") for kind in (Forecaster, Statistical, Refitting))
    assert not isinstance(Naive(), Divisible)
