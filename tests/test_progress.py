"""`stacklstm_cli.cli.progress`: a bar for a person, nothing for a log."""

import io
import subprocess
import sys
from typing import Any

import pytest

from stacklstm_cli.cli.messages import Messages
from stacklstm_cli.cli.progress import TrainingProgress

EVENT: dict[str, Any] = {
    "phase": "choosing",
    "step": 10,
    "max_steps": 100,
    "epoch": 0.5,
    "loss": 0.123456,
    "validation": None,
    "windows_per_second": 12345.6,
}
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_terminal_sees_the_phase_and_the_figures() -> None:
    stream = Terminal()
    with TrainingProgress(stream) as progress:
        progress.update(EVENT)
        progress.update({**EVENT, "step": 90, "validation": 0.25})
        progress.update({**EVENT, "phase": "refitting", "max_steps": None, "step": 3})
    text = stream.getvalue()
    for part in ("refitting", "epoch 0.5", "loss 0.1235", "12,346 windows/s"):
        assert part in text


def test_the_last_phase_alone_is_shown_with_its_validation() -> None:
    stream = Terminal()
    with TrainingProgress(stream) as progress:
        progress.update({**EVENT, "validation": 0.25})
    assert "validation 0.25" in stream.getvalue()
    assert "choosing" in stream.getvalue()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_cursor_comes_back(error: type[BaseException] | None) -> None:
    stream, before = Terminal(), sys.stderr

    def work() -> None:
        with TrainingProgress(stream) as progress:
            progress.update(EVENT)
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    text = stream.getvalue()
    assert text.count(HIDE) == text.count(SHOW) == 1
    assert text.index(HIDE) < text.index(SHOW)
    assert sys.stderr is before


def test_notes_stand_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    messages = Messages()
    with TrainingProgress(messages.progress_stream) as progress:
        progress.update(EVENT)
        messages.note("the learning rate was halved")
    assert "the learning rate was halved\n" in stream.getvalue()


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_off_a_terminal_nothing_is_written(stream: io.StringIO | None) -> None:
    with TrainingProgress(stream) as progress:
        progress.update(EVENT)
    assert stream is None or stream.getvalue() == ""


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_off_a_terminal_nothing_is_imported_or_forced(variable: str) -> None:
    code = (
        "import sys\n"
        "from stacklstm_cli.cli.progress import TrainingProgress\n"
        f"with TrainingProgress(sys.stderr) as progress: progress.update({EVENT!r})\n"
        "sys.exit('rich' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={variable: "1"})
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "")
