"""Commands as typed, each in a process of its own that need not import torch again, and killed in time.

`python forked.py` is the server: a line of JSON on its standard input is one run, a line on its standard output what
became of it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ended:
    """What became of a run."""

    status: int
    """Exit status; negative the signal that killed it."""
    seconds: float
    stderr: str


class Server:
    """The other side, seen from a test."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log

    def run(
        self,
        *words: str | Path,
        kill_after: float | None = None,
        number: int = signal.SIGTERM,
        limit: float = 120,
        memory: int = 0,
    ) -> Ended:
        """One run in the present working directory, sent a signal after so many seconds, killed at the limit.

        `memory` is how many bytes it may add to those of the server; 0 is no limit.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {"words": [str(word) for word in words], "folder": str(Path.cwd()), "log": str(self.log)}
        job |= {"kill_after": kill_after, "number": int(number), "limit": limit, "memory": memory}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return Ended(answer["status"], answer["seconds"], self.log.read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own."""
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked on POSIX systems only")
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{folder.parent}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    log = tmp_path_factory.mktemp("log") / "stderr"
    words = [sys.executable, __file__]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Server(process, log)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def one_run(job: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait, kill."""
    begin = time.monotonic()
    child = os.fork()
    if not child:
        as_command(job)
    killed = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - begin
        if ended:
            return {"status": os.waitstatus_to_exitcode(status), "seconds": seconds}
        if job["kill_after"] is not None and seconds > job["kill_after"] and not killed:
            os.kill(child, job["number"])
            killed, begin = True, time.monotonic()
        if seconds > job["limit"]:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def as_command(job: dict[str, Any]) -> None:
    """Be the command; never returns."""
    import resource

    from stacklstm_cli.cli.app import main

    status = 1
    try:
        os.chdir(job["folder"])
        os.dup2(os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if job["memory"]:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * os.sysconf("SC_PAGE_SIZE") + job["memory"]
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        main(job["words"])
    except KeyboardInterrupt:  # before the command heeds signals, as Python itself would end
        status = 130
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(status)


def random_moments(seed: int, most: float) -> Iterator[float]:
    """Endless moments in seconds, the early ones as likely as the late."""
    moments = random.Random(seed)  # noqa: S311 - moments, not secrets
    while True:
        yield moments.uniform(0, most)


if __name__ == "__main__":
    import torch

    from stacklstm_cli.cli import runs  # noqa: F401 - what every run would import first
    from stacklstm_cli.training import resume

    torch.set_num_threads(1)
    resume.LEAST_SECONDS = resume.MOST_SECONDS = 0.0  # so that runs of a second have something to resume
    for line in sys.stdin:
        sys.stdout.write(json.dumps(one_run(json.loads(line))) + "\n")
        sys.stdout.flush()
