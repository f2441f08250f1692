"""The command as torchrun starts it, whose second process is killed in its second fit, unless it was started again."""

from __future__ import annotations

import os
import signal
from typing import Any

from stacklstm_cli.cli.app import main
from stacklstm_cli.training import loop, resume

resume.LEAST_SECONDS = resume.MOST_SECONDS = resume.WORK_PER_WRITE = 0  # type: ignore[assignment]
train_step, finish, begun = loop.train_step, resume.Resume.finish, list[int]()


def finishing(self: resume.Resume, *arguments: Any) -> None:
    finish(self, *arguments)
    begun.append(0)


def dying(*arguments: Any) -> float:
    if begun:  # the second fit
        begun[0] += 1
        if begun[0] == 3 and (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):
            os.kill(os.getpid(), signal.SIGKILL)
    return train_step(*arguments)


if __name__ == "__main__":
    resume.Resume.finish = finishing  # type: ignore[method-assign]
    loop.train_step = dying
    main()
