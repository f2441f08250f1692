"""How many threads pay: found by the clock, and found again when the machine has changed."""

from __future__ import annotations

import statistics
from collections import deque

TRIALS = 4
"""Steps by which each number of threads is judged."""
FALL = 1.3
"""A step that takes this much longer than when its number of threads was chosen is a reason to choose again."""
LOOKED_AT = 15
"""Newest steps whose median is held against that."""
AGE = 1000
"""Steps after which it is chosen again in any case: a machine that was busy may be idle by now."""


class Pace:
    """Chooses how many threads run, by the time that steps take with each number."""

    def __init__(self, most: int, *, fixed: bool = False) -> None:
        """`most` at once; with `fixed` neither more nor fewer."""
        self.numbers = [most] if fixed else sorted({1, *(2**power for power in range(most.bit_length())), most})
        self.trials: dict[int, list[float]] = {}
        self.chosen: int | None = None
        self.expected = 0.0
        self.recent: deque[float] = deque(maxlen=LOOKED_AT)
        self.steps = 0
        self.choose_again()

    def choose_again(self) -> None:
        """Forget what was chosen, if there is a choice."""
        self.trials = {number: [] for number in self.numbers}
        self.chosen = None if len(self.numbers) > 1 else self.numbers[0]

    def threads(self) -> int:
        """How many to run now: each number in turn while that is open."""
        if self.chosen is not None:
            return self.chosen
        return min(self.numbers, key=lambda number: len(self.trials[number]))

    def took(self, threads: int, seconds: float) -> None:
        """A step with so many threads took so long."""
        if self.chosen is None:
            self.trials[threads].append(seconds)
            if all(len(times) >= TRIALS for times in self.trials.values()):
                medians = {number: statistics.median(times) for number, times in self.trials.items()}
                self.chosen = min(medians, key=medians.__getitem__)
                self.expected = medians[self.chosen]
                self.recent.clear()
                self.steps = 0
            return
        self.recent.append(seconds)
        self.steps += 1
        slower = len(self.recent) == LOOKED_AT and statistics.median(self.recent) > FALL * self.expected
        if slower or self.steps == AGE:
            self.choose_again()
