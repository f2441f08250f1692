"""A clock to test with."""

from __future__ import annotations

from typing import Any

import pytest

from stacklstm_cli.training import loop
from stacklstm_cli.training.runtime import Clock, Stopped


class StopsAfter(Clock):
    """Says to stop once so many optimiser steps of all fits together were made, however often it is asked."""

    def __init__(self, steps: int, why: Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.left, self.why = steps, why
        self.shares: list[tuple[int, float]] = []
        train_step = loop.train_step

        def counted(*arguments: Any) -> float:
            self.left -= 1
            return train_step(*arguments)

        monkeypatch.setattr(loop, "train_step", counted)

    def stopped(self, share: float = 1.0) -> Stopped:
        self.shares.append((self.left, share))
        return self.why if self.left <= 0 else ""
