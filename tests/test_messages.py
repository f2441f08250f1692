"""`stacklstm_cli.cli.messages`: what standard error says, and how the program ends."""

import errno
import io
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from stacklstm_cli.cli.messages import ErrorGroup, Messages, is_styled, printable, prose_width, show_error, wrapped
from stacklstm_cli.errors import DataError, ExitStatus, ModelError, UsageError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("WT_SESSION", "1")


@pytest.mark.parametrize(
    ("verbosity", "said"),
    [
        (1, "note: n\nwarning: w\nd\n"),
        (0, "note: n\nwarning: w\n"),
        (-1, "warning: w\n"),
        (-2, ""),
    ],
)
def test_each_q_silences_more(verbosity: int, said: str) -> None:
    stream = io.StringIO()
    messages = Messages(verbosity, stream)
    messages.note("n")
    messages.warning("odd", "w")
    messages.detail("d")
    assert stream.getvalue() == said
    assert messages.warnings == [{"code": "odd", "message": "w"}]
    assert (messages.progress_stream is stream) == (verbosity >= 0)


def test_a_reader_of_messages_who_has_gone_does_not_end_the_work() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Messages(0, Gone()).note("n")


def test_closed_standard_error_does_not_put_messages_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    Messages().note("n")
    show_error(UsageError("u"), as_json=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("variables", "terminal", "styled"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_styles(variables: dict[str, str], terminal: bool, styled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.StringIO()
    Messages(0, stream).note("n")
    assert is_styled(stream) == styled
    assert ("\x1b[" in stream.getvalue()) == styled


def test_prose_is_wrapped_and_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prose_width(io.StringIO()) is None
    monkeypatch.setenv("COLUMNS", "20")
    assert prose_width(io.StringIO()) == 20
    text = "a few words and /a/path/that/is-longer/than-the-line\nand a second line of words"
    lines = wrapped(text, 20).split("\n")
    assert " ".join(lines).split() == text.split()
    assert "/a/path/that/is-longer/than-the-line" in lines
    assert all(len(line) <= 20 for line in lines if " " in line)
    assert wrapped(text, None) == text


def test_control_characters_from_data_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\rc\nd é") == "a\\x1b[31mb\\rc\nd é"
    stream = io.StringIO()
    Messages(0, stream).note("column '\x1b]0;x\x07'")
    assert "\x1b" not in stream.getvalue()


def test_an_error_for_a_person_and_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    error = DataError("sales.csv, line 3: 'x' is no number.", hint="Mend it.", code="bad_number")
    show_error(error, as_json=False)
    assert capsys.readouterr().err == "error: sales.csv, line 3: 'x' is no number.\nhint: Mend it.\n"
    show_error(error, as_json=True)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert json.loads(line) == {"error": {"code": "bad_number", "message": error.message, "hint": "Mend it."}}


def ended(work: Callable[[], object], *words: str) -> Result:
    app = typer.Typer(cls=ErrorGroup, no_args_is_help=True)
    app.callback()(lambda: None)

    @app.command()
    def run(format: str = "auto", number: int = 0) -> object:
        return work()

    return CliRunner().invoke(app, ["run", *words] if words[:1] != ("--",) else list(words[1:]))


def raises(error: BaseException) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("m"), 2),
        (DataError("m"), 3),
        (ModelError("m"), 4),
        (OSError(errno.ENOSPC, "No space", "/a/file"), 4),
        (PermissionError(errno.EACCES, "Denied", "/a/file"), 4),
        (OSError(errno.EROFS, "Read-only", "/a/file"), 4),
        (BrokenPipeError(errno.EPIPE, "Gone"), 0),
        (KeyboardInterrupt(), 130),
        (typer.Exit(5), 5),
        (ValueError("m"), 1),
        (OSError(errno.EIO, "Bad"), 1),
    ],
)
def test_how_a_command_ends(error: BaseException, status: int) -> None:
    result = ended(raises(error))
    assert result.exit_code == status
    assert ("Traceback" in result.stderr) == (status == 1)
    assert ("bug in stacklstm" in result.stderr) == (status == 1)
    if status == 4 and isinstance(error, OSError):
        assert "/a/file" in result.stderr
    if status in (0, 5, 130):
        assert result.stderr == ""
    assert result.stdout == ""


def test_a_command_may_return_its_exit_status() -> None:
    assert ended(lambda: ExitStatus.UNCHANGED).exit_code == 7
    assert ended(lambda: None).exit_code == 0


@pytest.mark.parametrize(
    "words", [("--number", "x"), ("--nonsense",), ("surplus",), ("--", "nocommand"), ("--", "--nonsense")]
)
def test_usage_errors_of_the_parser_look_like_ours(words: tuple[str, ...]) -> None:
    result = ended(lambda: None, *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "--help` shows what can be typed" in result.stderr
    as_json = ended(lambda: None, *words, "--format", "json")
    assert as_json.exit_code == 2
    assert json.loads(as_json.stderr)["error"]["code"] == "usage"


def test_no_arguments_show_the_help_and_no_error() -> None:
    result = ended(lambda: None, "--")
    assert result.exit_code == 2
    assert "Usage" in result.output
    assert "error" not in result.stderr


def test_a_bug_has_a_traceback_without_values_of_variables() -> None:
    def work() -> None:
        secret = "rows of " + "the user"
        raise ValueError(len(secret))

    result = ended(work, "--format=json")
    *traceback, last = result.stderr.splitlines()
    assert traceback[0].startswith("Traceback")
    assert "rows of the user" not in result.stderr
    assert json.loads(last)["error"]["code"] == "bug"


def test_outside_of_a_program_errors_come_through() -> None:
    app = typer.Typer(cls=ErrorGroup)
    app.callback()(lambda: None)
    app.command("run")(raises(DataError("m")))
    with pytest.raises(DataError):
        typer.main.get_command(app).main(["run"], standalone_mode=False)


PROGRAM = """
    import sys, typer
    from stacklstm_cli.cli.messages import ErrorGroup, Messages
    from stacklstm_cli.cli.report import write_forecast
    from stacklstm_cli.config import OutputConfig

    app = typer.Typer(cls=ErrorGroup)
    app.callback()(lambda: None)

    @app.command()
    def lines(): print(*range(200_000), sep="\\n")

    @app.command()
    def notes():
        for i in range(20_000): Messages().note("a note of some length " * 3)

    @app.command()
    def result():
        import pandas
        write_forecast(pandas.DataFrame({"forecast": range(200_000)}), OutputConfig(format="csv"))

    app()
"""


def shell(line: str, tmp_path: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    line = line.replace("PROGRAM", f"'{sys.executable}' '{program}'")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment)


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["lines", "notes 2>&1", "result", "--help"])
def test_a_closed_pipe_ends_quietly(command: str, unbuffered: str, tmp_path: Path) -> None:
    result = shell(f"PROGRAM {command} | head -1; exit ${{PIPESTATUS[0]}}", tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
    assert result.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["lines", "result"])
def test_a_full_disk_behind_standard_output_is_one_error(command: str, tmp_path: Path) -> None:
    result = shell(f"PROGRAM {command} > /dev/full", tmp_path)
    assert result.returncode == 4
    assert result.stderr.startswith("error: Cannot write")
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_closed_streams(tmp_path: Path) -> None:
    assert shell("PROGRAM notes 2>&-", tmp_path).returncode == 0
    result = shell("PROGRAM result >&-", tmp_path)
    assert result.returncode == 4
    assert "Standard output is closed" in result.stderr
