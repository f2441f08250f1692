"""`stacklstm_cli.cli.report`: one document, many renderings."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stacklstm_cli.cli.grids import plain
from stacklstm_cli.cli.report import check_output, number, write_card, write_document, write_forecast
from stacklstm_cli.config import OutputConfig
from stacklstm_cli.errors import ModelError, UsageError

METRICS = {
    "seasonal_naive": {"mae": 20.0, "rmse": 123456.7, "bias": 3.0, "coverage_80": None, "width_80": None},
    "stacklstm": {"mae": 12.3456, "rmse": 0.00123456, "bias": -4.0, "coverage_80": 0.81, "width_80": 5.0},
    "naive": {"mae": 12.3456, "rmse": 9999.96, "bias": -2.0, "coverage_80": 0.7, "width_80": 2.0},
}
DOCUMENT = {
    "schema": 1,
    "command": "evaluate",
    "status": "ok",
    "verdict": "stacklstm beats naive by 3% on 12 origins.",
    "metrics": METRICS,
    "backtest": {"origins": 12, "step": 24, "horizon": 24, "seasonality": 7, "first_cutoff": "a", "last_cutoff": "b"},
    "warnings": [],
    "seconds": 1.5,
}
PER_SERIES = {
    **DOCUMENT,
    "per_series": [
        {"series": "north|[bold]", "metrics": {"stacklstm": {"mae": 1.0}, "naive": {"mae": 2.0}}},
        {"series": "süd", "metrics": {"stacklstm": {"mae": None}, "naive": {"mae": 4.0}}},
    ],
}
FRAME = pd.DataFrame(
    {
        "shop": ["a", "b"],
        "date": ["2020-01-01", "2020-01-02"],
        "forecast": [0.1 + 0.2, 1e22],
        "q10": [1 / 3, float("nan")],
    }
)


class Stream(io.TextIOWrapper):
    """A standard output that keeps what it was sent and may say that it is a terminal."""

    def __init__(self, encoding: str = "utf-8", terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def text(self) -> str:
        return self.data.decode(self.encoding)

    @property
    def data(self) -> bytes:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue()


@pytest.fixture(autouse=True)
def stdout(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stream]:
    """Makes the standard output of a test: a pipe, unless it is asked for a terminal."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("WT_SESSION", "1")

    def make(encoding: str = "utf-8", terminal: bool = False, columns: int | None = None) -> Stream:
        if columns is not None:
            monkeypatch.setenv("COLUMNS", str(columns))
        stream = Stream(encoding, terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return make


def shown(write: Callable[..., None], what: Any, stream: Stream, **options: Any) -> str:
    write(what, OutputConfig(**options))
    return stream.text


def test_the_table_begins_with_the_verdict_and_has_the_model_first(stdout: Callable[..., Stream]) -> None:
    lines = shown(write_document, DOCUMENT, stdout()).splitlines()
    assert lines[0] == DOCUMENT["verdict"]
    assert lines[2].split() == ["model", "mae", "rmse", "bias", "coverage_80", "width_80"]
    assert lines[3].split() == ["stacklstm", "12.35", "0.001235", "-4.000", "0.8100", "5.000"]
    assert lines[4].split() == ["seasonal_naive", "20.00", "123457", "3.000"]
    assert lines[5].split() == ["naive", "12.35", "10000", "-2.000", "0.7000", "2.000"]
    assert lines[6] == "12 origins, horizon 24, step 24, seasonality m = 7, cutoffs a to b"
    assert len(lines) == 7


def test_off_a_terminal_a_wide_table_is_plain_and_whole(stdout: Callable[..., Stream]) -> None:
    wide = {"metrics": {f"model_{i}": {f"metric_number_{j}": i + j / 7 for j in range(40)} for i in range(300)}}
    text = shown(write_document, wide, stdout("ascii", columns=40))
    lines = text.splitlines()
    assert len(lines) == 301
    assert all(len(line.split()) == 41 for line in lines)
    assert len(lines[0]) > 400
    assert text.isascii()
    assert "\x1b" not in text


def test_on_a_terminal_it_fits_the_width_and_loses_nothing(stdout: Callable[..., Stream]) -> None:
    scores = {f"metric_{j}": 1000.0 + j for j in range(20)}
    text = shown(write_document, {"metrics": {"stacklstm": scores, "naive": scores}}, stdout(terminal=True, columns=60))
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in text.splitlines()) <= 60
    assert "─" in text
    for j in range(20):
        assert f"metric_{j}" in text
        assert text.count(f"{1000 + j}") == 2


def test_a_terminal_without_line_characters_gets_ascii(stdout: Callable[..., Stream]) -> None:
    assert shown(write_document, DOCUMENT, stdout("ascii", terminal=True, columns=100)).isascii()


def test_the_best_value_of_each_metric_is_bold_on_a_terminal(stdout: Callable[..., Stream]) -> None:
    def bold(row: str) -> list[str]:
        return [piece.partition("\x1b[0m")[0].strip() for piece in row.split("\x1b[1m")[1:]]

    rows = shown(write_document, DOCUMENT, stdout(terminal=True, columns=100)).splitlines()
    by_model = {name: next(row for row in rows[1:] if f" {name} " in row) for name in METRICS}
    assert bold(by_model["stacklstm"]) == ["12.35", "0.001235", "0.8100"]
    assert bold(by_model["seasonal_naive"]) == []
    assert bold(by_model["naive"]) == ["12.35", "-2.000"]


@pytest.mark.parametrize(
    ("variables", "terminal", "styled"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"FORCE_COLOR": "1"}, False, True), ({}, False, False)],
)
def test_colours_are_as_the_environment_says(
    variables: dict[str, str],
    terminal: bool,
    styled: bool,
    stdout: Callable[..., Stream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for write, what in ((write_document, DOCUMENT), (write_card, {"a": {"b": 1}})):
        text = shown(write, what, stdout(terminal=terminal, columns=100), format="table")
        if write is write_document or not styled:
            assert ("\x1b[" in text) == styled
    for form in ("csv", "json", "ndjson", "markdown"):
        assert "\x1b" not in shown(write_document, DOCUMENT, stdout(terminal=terminal), format=form)


def test_names_from_data_are_neither_markup_nor_terminal_codes(stdout: Callable[..., Stream]) -> None:
    frame = pd.DataFrame({"id": ["[bold]x[/]", "a\x1b[31mb\nc"], "forecast": [1.0, 2.0]})
    for terminal in (True, False):
        text = shown(write_forecast, frame, stdout(terminal=terminal, columns=80), format="table")
        assert "[bold]x[/]" in text
        assert "a\\x1b[31mb\\nc" in text


def test_characters_that_the_output_cannot_show_do_not_crash_it(stdout: Callable[..., Stream]) -> None:
    assert "s?d" in shown(write_document, PER_SERIES, stdout("ascii"))
    stream = stdout("ascii")
    write_document(PER_SERIES, OutputConfig(format="csv"))
    assert "süd" in stream.data.decode("utf-8")


def test_csv_has_a_row_per_model_and_per_series(stdout: Callable[..., Stream]) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(write_document, DOCUMENT, stdout(), format="csv"))))
    assert [row["model"] for row in rows] == ["stacklstm", "seasonal_naive", "naive"]
    assert float(rows[0]["rmse"]) == 0.00123456
    assert rows[1]["coverage_80"] == ""
    rows = list(csv.DictReader(io.StringIO(shown(write_document, PER_SERIES, stdout(), format="csv"))))
    assert [row["series"] for row in rows] == ["", "", "", "north|[bold]", "north|[bold]", "süd", "süd"]


def test_parquet_is_the_frame_of_the_csv(stdout: Callable[..., Stream]) -> None:
    stream = stdout()
    write_document(PER_SERIES, OutputConfig(format="parquet"))
    frame = pd.read_parquet(io.BytesIO(stream.data))
    text = shown(write_document, PER_SERIES, stdout(), format="csv")
    expected = pd.read_csv(io.StringIO(text), keep_default_na=True).fillna({"series": ""})
    pd.testing.assert_frame_equal(frame, expected, check_dtype=False)


PER_STEP = {
    **PER_SERIES,
    "per_step": [
        {"step": 1, "metrics": {"naive": {"mae": 2.0, "mase": 1.0}, "stacklstm": {"mae": 1.0, "mase": 0.5}}},
        {"step": 2, "metrics": {"naive": {"mae": 3.0, "mase": 2.0}, "stacklstm": {"mae": 4.0, "mase": 2.5}}},
    ],
}


def test_each_step_has_a_line_for_people(stdout: Callable[..., Stream]) -> None:
    """One metric, a column per model; by MAE where no model has a MASE."""
    text = shown(write_document, PER_STEP, stdout(), format="table")
    assert text.split("\n\n")[-1].splitlines() == [
        "step  stacklstm  naive",
        "   1     0.5000  1.000",
        "   2      2.500  2.000",
        "mase by step of the horizon; the other metrics with --format csv",
    ]
    unscaled = [
        {"step": one["step"], "metrics": {name: {**found, "mase": None} for name, found in one["metrics"].items()}}
        for one in PER_STEP["per_step"]
    ]
    assert "\nmae by step" in shown(write_document, {**PER_STEP, "per_step": unscaled}, stdout(), format="table")


def test_every_metric_of_each_step_for_programs(stdout: Callable[..., Stream]) -> None:
    """The whole, each series, each step; CSV, Parquet and JSON hold the same."""
    frame = pd.read_csv(io.StringIO(shown(write_document, PER_STEP, stdout(), format="csv")))
    assert list(frame)[:3] == ["series", "step", "model"]
    steps = frame[frame["step"].notna()]
    assert steps[["step", "model", "mae", "mase"]].values.tolist() == [
        [1, "stacklstm", 1, 0.5],
        [1, "naive", 2, 1],
        [2, "stacklstm", 4, 2.5],
        [2, "naive", 3, 2],
    ]
    assert len(frame) == 3 + 4 + 4
    stream = stdout()
    write_document(PER_STEP, OutputConfig(format="parquet"))
    written = pd.read_parquet(io.BytesIO(stream.data))
    pd.testing.assert_frame_equal(written.fillna({"series": ""}), frame.fillna({"series": ""}), check_dtype=False)
    only = {name: part for name, part in PER_STEP.items() if name != "per_series"}
    assert shown(write_document, only, stdout(), format="markdown").splitlines()[2].startswith("| step | model | mae")
    assert json.loads(shown(write_document, PER_STEP, stdout(), format="json"))["per_step"] == PER_STEP["per_step"]


def test_the_caption_says_on_how_much_it_was_measured(stdout: Callable[..., Stream]) -> None:
    facts = {"origins": 1200, "points": 28800, "horizon": 24, "undefined": 3}
    text = shown(write_document, {**DOCUMENT, "backtest": facts}, stdout(), format="table")
    assert text.splitlines()[-1] == (
        "1,200 origins, 28,800 values scored, horizon 24; 3 series without a scale left out of mase, rmsse and msis"
    )


def test_json_is_one_document_without_nan(stdout: Callable[..., Stream]) -> None:
    odd = {
        "metrics": {"stacklstm": {"mae": math.nan, "rmse": np.float32(0.5), "mase": np.inf, "n": np.int64(3)}},
        "flag": np.bool_(True),
        "when": [pd.Timestamp("2020-01-01"), pd.NaT],
        "path": Path("a") / "b",
        "name": "bytes \udcff",
    }
    for form in ("json", "ndjson"):
        text = shown(write_document, odd, stdout(), format=form)
        assert "NaN" not in text
        assert "Infinity" not in text
        found = json.loads(text)
        assert found["metrics"]["stacklstm"] == {"mae": None, "rmse": 0.5, "mase": None, "n": 3}
        assert (found["flag"], found["when"]) == (True, ["2020-01-01T00:00:00", None])
        assert found["name"] == "bytes \udcff"
        assert (text.count("\n") == 1) == (form == "ndjson")


def test_markdown_escapes_what_would_end_a_cell(stdout: Callable[..., Stream]) -> None:
    lines = shown(write_document, PER_SERIES, stdout(), format="markdown").splitlines()
    assert lines[0] == DOCUMENT["verdict"]
    assert lines[2].startswith("| series | model | mae |")
    assert lines[3].startswith("| --- | --- | ---: |")
    assert lines[7].startswith("| north\\|[bold] | stacklstm | 1.000 |")


def test_a_document_without_metrics_is_its_verdict(stdout: Callable[..., Stream]) -> None:
    assert shown(write_document, {"verdict": "Not judged.", "metrics": {}}, stdout()) == "Not judged.\n"
    assert shown(write_document, {"metrics": {}}, stdout(), format="csv") == "model\n"


def test_a_forecast_is_csv_in_a_pipe_and_a_table_on_a_terminal(stdout: Callable[..., Stream]) -> None:
    text = shown(write_forecast, FRAME, stdout())
    assert text == "shop,date,forecast,q10\na,2020-01-01,0.30000000000000004,0.3333333333333333\nb,2020-01-02,1e+22,\n"
    assert "─" in shown(write_forecast, FRAME, stdout(terminal=True, columns=80))


def test_forecast_numbers_round_trip(stdout: Callable[..., Stream]) -> None:
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-500, 500).clip(-300, 300)
    text = shown(write_forecast, pd.DataFrame({"step": range(1000), "forecast": values}), stdout())
    assert [float(row["forecast"]) for row in csv.DictReader(io.StringIO(text))] == values.tolist()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_forecast_is_complete(terminal: bool, stdout: Callable[..., Stream]) -> None:
    for rows in (250, 3000):
        frame = pd.DataFrame({"step": range(100_000, 100_000 + rows), "forecast": 1.0})
        text = shown(write_forecast, frame, stdout(terminal=terminal, columns=40))
        assert all(str(step) in text for step in frame["step"])


def test_a_forecast_as_json_lines_and_parquet(stdout: Callable[..., Stream]) -> None:
    stream = stdout()
    write_forecast(FRAME, OutputConfig(format="json"), {"schema": 1, "command": "predict", "seconds": 2.0})
    found = json.loads(stream.text)
    assert list(found) == ["schema", "command", "seconds", "forecasts"]
    assert found["forecasts"][1] == {"shop": "b", "date": "2020-01-02", "forecast": 1e22, "q10": None}
    lines = shown(write_forecast, FRAME, stdout(), format="ndjson").splitlines()
    assert [json.loads(line) for line in lines] == found["forecasts"]
    stream = stdout()
    write_forecast(FRAME, OutputConfig(format="parquet"))
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(stream.data)), FRAME)


CARD = {
    "format": 1,
    "model": {"layers": 2, "quantiles": [0.1, 0.9], "scaling": {"kind": "window", "unused": {}}},
    "parent": None,
}


def test_a_card_is_a_table_by_sections(stdout: Callable[..., Stream]) -> None:
    lines = shown(write_card, CARD, stdout()).splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["field", "value"],
        ["format", "1"],
        ["parent"],
        [],
        ["model", "value"],
        ["layers", "2"],
        ["quantiles", "0.1, 0.9"],
        ["scaling.kind", "window"],
        ["scaling.unused"],
    ]


def test_a_card_in_the_other_formats(stdout: Callable[..., Stream]) -> None:
    assert json.loads(shown(write_card, CARD, stdout(), format="json")) == CARD
    assert json.loads(shown(write_card, CARD, stdout(), format="ndjson")) == CARD
    assert 'model.quantiles,"0.1, 0.9"' in shown(write_card, CARD, stdout(), format="csv").splitlines()
    assert "| model.layers | 2 |" in shown(write_card, CARD, stdout(), format="markdown")
    with pytest.raises(UsageError, match="parquet") as caught:
        write_card(CARD, OutputConfig(format="parquet"))
    assert "json" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("f.json", "{\n"),
        ("f.csv", "model,"),
        ("f.ndjson", '{"schema":1,'),
        ("f.JSONL", '{"schema":1,'),
        ("f.md", "stacklstm beats"),
        ("f.parquet", "PAR1"),
        ("f.txt", "stacklstm beats"),
        ("f", "stacklstm beats"),
    ],
)
def test_the_name_of_the_output_file_says_its_format(
    name: str, begins: str, tmp_path: Path, stdout: Callable[..., Stream]
) -> None:
    stream = stdout(terminal=True)
    write_document(DOCUMENT, OutputConfig(output=str(tmp_path / name)))
    assert (tmp_path / name).read_bytes().startswith(begins.encode())
    assert b"\x1b" not in (tmp_path / name).read_bytes()
    assert stream.data == b""


def test_a_forecast_in_a_file_is_csv_unless_its_name_says_otherwise(
    tmp_path: Path, stdout: Callable[..., Stream]
) -> None:
    stdout(terminal=True)
    write_forecast(FRAME, OutputConfig(output=str(tmp_path / "f")))
    assert (tmp_path / "f").read_text().startswith("shop,date,")
    write_forecast(FRAME, OutputConfig(output=str(tmp_path / "f.txt"), format="json"))
    assert (tmp_path / "f.txt").read_text().startswith("{")


def test_a_hyphen_is_standard_output(stdout: Callable[..., Stream]) -> None:
    assert shown(write_forecast, FRAME, stdout(), output="-").startswith("shop,date,")


def test_what_cannot_be_written_is_known_before_the_work(
    tmp_path: Path, stdout: Callable[..., Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path, tmp_path / "none" / "f.csv"):
        for refuses in (check_output, lambda output: write_forecast(FRAME, output)):
            with pytest.raises(ModelError) as caught:
                refuses(OutputConfig(output=str(path)))
            assert str(path) in caught.value.message
    stdout(terminal=True)
    with pytest.raises(UsageError, match="terminal"):
        check_output(OutputConfig(format="parquet"))
    check_output(OutputConfig(format="parquet", output=str(tmp_path / "f")))
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ModelError, match="closed"):
        check_output(OutputConfig())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.00012345, "0.0001234"),
        (1.2341e-7, "1.234e-07"),
        (0.99996, "1.000"),
        (9.9996, "10.00"),
        (446.25, "446.2"),
        (-12345.678, "-12346"),
        (1234567890.4, "1234567890"),
        (1.5e15, "1.500e+15"),
        (math.nan, ""),
        (math.inf, "inf"),
    ],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert number(value) == text


def test_plain_refuses_what_json_has_no_form_for() -> None:
    with pytest.raises(AttributeError):
        plain(object())


def test_a_card_needs_neither_pandas_nor_torch() -> None:
    code = (
        "import sys\n"
        "from stacklstm_cli.cli.report import write_card\n"
        "from stacklstm_cli.config import OutputConfig\n"
        "write_card({'a': {'b': 1}}, OutputConfig())\n"
        "sys.exit(bool({'torch', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
