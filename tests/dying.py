"""The command as torchrun starts it, whose second process is killed at its 30th step, unless it was started again."""

from __future__ import annotations

import os
import signal
from typing import Any

from stacklstm_cli.cli.app import main
from stacklstm_cli.training import loop, resume

resume.LEAST_SECONDS = resume.MOST_SECONDS = resume.WORK_PER_WRITE = 0  # type: ignore[assignment]
train_step, begun = loop.train_step, list[int]()


def dying(*arguments: Any) -> float:
    begun.append(1)
    if len(begun) == 30 and (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(*arguments)


if __name__ == "__main__":
    loop.train_step = dying
    main()
