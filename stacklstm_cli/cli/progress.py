"""A progress bar for training, drawn only where a person watches standard error."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from stacklstm_cli.cli.messages import is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class TrainingProgress:
    """A context manager whose `update` takes the events of the training loop.

    `stream` is `Messages.progress_stream`. Off a terminal, or with None, it does nothing and imports nothing.
    The bar is gone and the cursor back when the context ends, however it ends.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._phase = ""
        self._validation: float | None = None

    def __enter__(self) -> TrainingProgress:
        if not is_terminal(self._stream) or os.environ.get("TERM") == "dumb":
            return self
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[figures]}"))
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=Console(file=self._stream), transient=True, refresh_per_second=4
        )
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, event: Mapping[str, Any]) -> None:
        """Show a training event: phase, step, max_steps, epoch, loss, validation and windows_per_second."""
        if self._bar is None:
            return
        if self._task is None or event["phase"] != self._phase:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._phase, self._validation = event["phase"], None
            self._task = self._bar.add_task(self._phase, total=event["max_steps"], figures="")
        if event["validation"] is not None:
            self._validation = event["validation"]
        figures = _figures(event, self._validation)
        self._bar.update(self._task, completed=event["step"], total=event["max_steps"], figures=figures)


def _figures(event: Mapping[str, Any], validation: float | None) -> str:
    """The newest figures; the speed is not known during the first steps."""
    speed = event["windows_per_second"]
    parts = [f"epoch {event['epoch']:.1f}", f"loss {event['loss']:.4g}"]
    parts += [f"validation {validation:.4g}"] if validation is not None else []
    parts += [f"{speed:,.0f} windows/s"] if speed is not None else []
    return "  ".join(parts)


class SearchProgress(TrainingProgress):
    """The same for a search: `searched` takes its events; what follows the search is shown as a training is."""

    def __init__(self, stream: TextIO | None, max_time: float | None) -> None:
        super().__init__(stream)
        self._max_time = max_time
        self._begin = time.monotonic()
        self._seen: dict[str, Any] = {}

    def searched(self, event: Mapping[str, Any]) -> None:
        """Show candidates done and to be tried, the best so far, and how far the fits of the present one are."""
        if self._bar is None:
            return
        self._seen |= event
        if "params" in event or self._task is None:
            self._seen |= {"fit": 0, "fits": 1, "step": 0, "max_steps": 1}
        if self._task is None:
            self._phase = "searching"
            self._task = self._bar.add_task(self._phase, total=None, figures="")
        seen = self._seen
        share = (seen["fit"] + seen["step"] / seen["max_steps"]) / seen["fits"]
        tried, total = float(seen["done"] + share), seen["limit"]
        if total is None and self._max_time is not None:  # time, not a number, ends it
            tried, total = time.monotonic() - self._begin, self._max_time
        self._bar.update(self._task, completed=tried, total=total, figures=_search_figures(seen))


def _search_figures(seen: Mapping[str, Any]) -> str:
    """The candidates done, the best of them, and what is tried now."""
    of = "" if seen["limit"] is None else f" of {seen['limit']}"
    parts = [f"{seen['done']}{of} tried"]
    if seen["best"] is not None:
        score, layers = seen["best"]
        parts.append(f"best {score:.4g} ({_depth(layers)})")
    if "params" in seen:
        now = [_depth(seen["params"]["layers"])] if "layers" in seen["params"] else []
        parts.append(", ".join([*now, f"fit {min(seen['fit'] + 1, seen['fits'])} of {seen['fits']}"]))
    return "  ".join(parts)


def _depth(layers: int) -> str:
    return f"{layers} layer{'s' * (layers != 1)}"
