"""Commands as typed, each in a process of its own that need not import torch again, and killed in time.

`python forked.py` is the server: a line of JSON on its standard input is one run, a line on its standard output what
became of it. conftest.py has one for all tests of a session.
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ended:
    """What became of a run."""

    status: int
    """Exit status; negative the signal that killed it."""
    seconds: float
    stdout: str
    stderr: str
    modules: frozenset[str]
    """What it had imported in the end; nothing where a signal killed it."""


class Server:
    """The other side, seen from a test."""

    def __init__(self, process: subprocess.Popen[str], logs: Path) -> None:
        self.process, self.logs = process, logs

    def run(self, *words: str | Path, **job: Any) -> Ended:
        """One run in the present working directory, as `start` takes it."""
        self.start(*words, **job)
        return self.end()

    def start(
        self,
        *words: str | Path,
        kill_after: float | None = None,
        kill_where: str = "",
        number: int = signal.SIGTERM,
        limit: float = 120,
        memory: int = 0,
        stdout: str | Path | None = None,
        stderr: str | Path | None = None,
        **variables: str,
    ) -> None:
        """Begin a run; one at a time. Sent a signal after so many seconds or where a file is there, killed at `limit`.

        `memory` is how many bytes it may add to those of the server; 0 is no limit. `stdout` and `stderr` are files,
        pipes or terminals in the place of what `Ended` gives; `variables` are added to the environment.
        """
        assert self.process.stdin is not None
        job: dict[str, Any] = {"words": [str(word) for word in words], "folder": str(Path.cwd())}
        job |= {"kill_after": kill_after, "kill_where": kill_where, "number": int(number), "limit": limit}
        job |= {"memory": memory, "variables": variables, "modules": str(self.logs / "modules")}
        job |= {"stdout": str(stdout or self.logs / "stdout"), "stderr": str(stderr or self.logs / "stderr")}
        for path in self.logs.iterdir():
            path.unlink()
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()

    def end(self) -> Ended:
        """Wait for what was begun."""
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        said = [path.read_text() if path.exists() else "" for path in (self.logs / name for name in LOGS)]
        return Ended(answer["status"], answer["seconds"], said[0], said[1], frozenset(said[2].split()))


LOGS = ("stdout", "stderr", "modules")


@contextmanager
def serve(logs: Path) -> Iterator[Server]:
    """A server of its own that writes into an empty folder."""
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{folder.parent}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Server(process, logs)
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
        due = job["kill_after"] is not None and seconds > job["kill_after"]
        if not killed and (due or (job["kill_where"] and Path(job["folder"], job["kill_where"]).exists())):
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
        os.environ.update(job["variables"])
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY), number)
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
        Path(job["modules"]).write_text("\n".join(sys.modules))
        sys.stderr.flush()
        os._exit(status)


def random_moments(seed: int, most: float) -> Iterator[float]:
    """Endless moments in seconds, the early ones as likely as the late."""
    moments = random.Random(seed)  # noqa: S311 - moments, not secrets
    while True:
        yield moments.uniform(0, most)


if __name__ == "__main__":
    import torch

    from stacklstm_cli.cli import runs, scores  # noqa: F401 - what every run would import first
    from stacklstm_cli.training import resume

    torch.set_num_threads(1)
    resume.LEAST_SECONDS = resume.MOST_SECONDS = 0.0  # so that runs of a second have something to resume
    for line in sys.stdin:
        sys.stdout.write(json.dumps(one_run(json.loads(line))) + "\n")
        sys.stdout.flush()
