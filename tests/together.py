"""Commands as torchrun starts them, as several processes that know each other, none of which need import torch again.

`python together.py` is the server: a line of JSON on its standard input is one run of them all, a line on its standard
output what became of each. Shards, batches, parts and blocks are small there, so that small data has several of each.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest


@dataclass(frozen=True)
class Ended:
    """What became of one process."""

    status: int
    """Exit status; negative the signal that killed it."""
    stdout: str
    stderr: str


class Server:
    """The other side, seen from a test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(
        self,
        folder: Path,
        size: int,
        words: Sequence[str | Path],
        *last: Sequence[str],
        dies: int | None = None,
        patient: bool = False,
    ) -> list[Ended]:
        """A command in `size` processes; that of the last one may differ. With `dies` it is killed at that step of
        training or batch of forecasts. They end each other as with torchrun, unless one is `patient`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        typed = [[str(word) for word in words] for _ in range(size)]
        typed[-1:] = [list(other) for other in last] or typed[-1:]
        job = {"folder": str(folder), "words": typed, "dies": dies, "patient": patient}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        statuses = json.loads(self.process.stdout.readline())
        for name in (f"{rank}.{stream}" for rank in range(size) for stream in ("out", "err")):
            (folder / name).touch()  # of one that was ended before it could write
        return [
            Ended(status, (folder / f"{rank}.out").read_text(), (folder / f"{rank}.err").read_text())
            for rank, status in enumerate(statuses)
        ]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of its own."""
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked on POSIX systems only")
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{folder.parent}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def one_run(job: dict[str, Any]) -> list[int]:
    """Fork and wait."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children, size = [], len(job["words"])
    for rank in range(size):
        child = os.fork()
        if not child:
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            os.environ.update({name: str(number) for name, number in places.items()})
            os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
            as_command(job, rank)
        children.append(child)
    statuses: dict[int, int] = {}
    while len(statuses) < size:
        child, told = os.wait()
        statuses[child] = os.waitstatus_to_exitcode(told)
        if statuses[child] and not job["patient"]:
            for other in {*children} - {*statuses}:
                os.kill(other, signal.SIGTERM)
    return [statuses[child] for child in children]


def as_command(job: dict[str, Any], rank: int) -> NoReturn:
    """Be the command."""
    from stacklstm_cli.cli.app import main
    from stacklstm_cli.model.forecaster import Forecaster
    from stacklstm_cli.training import loop

    status = 1
    signal.alarm(100)
    try:
        os.chdir(job["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        steps = list[int]()

        def dying(work: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any) -> Any:
                steps.append(1)
                if len(steps) == job["dies"]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return work(*arguments)

            return step

        if rank == len(job["words"]) - 1:
            loop.train_step = dying(loop.train_step)
            Forecaster.decoded = dying(Forecaster.decoded)  # type: ignore[method-assign]
        main(job["words"][rank])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    import torch

    from stacklstm_cli import ranks
    from stacklstm_cli.cli import labelling, messages  # noqa: F401  # imported once for all, as what follows
    from stacklstm_cli.evaluation import backtest
    from stacklstm_cli.evaluation.statistical import installed
    from stacklstm_cli.model import forecaster
    from stacklstm_cli.training import resume, shards

    if installed():
        importlib.import_module("statsforecast.models")
    torch.set_num_threads(1)
    shards.LEAST_WORK, shards.LEAST_SHARD = 1, 8
    forecaster.BATCH_NUMBERS, backtest.ROWS_AT_ONCE, ranks.NUMBERS_AT_ONCE = 2**9, 100, 50
    messages.SECONDS_TO_BE_ENDED = 1.0
    resume.LEAST_SECONDS = resume.MOST_SECONDS = resume.WORK_PER_WRITE = 0  # type: ignore[assignment]
    for line in sys.stdin:
        sys.stdout.write(json.dumps(one_run(json.loads(line))) + "\n")
        sys.stdout.flush()
