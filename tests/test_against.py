"""A saved forecast against what has come since: `evaluate DATA --against FORECAST`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import ok, run, table_of, trained
from forked import Server
from layouts import LAYOUTS, QUICK, SMALL, Layout, single, stamps, wide
from panels import wave
from typer.testing import Result

LISTED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS]
ROWS = 200


@pytest.fixture(autouse=True)
def naive_baselines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are fitted take longer than everything else here."""
    monkeypatch.setattr("stacklstm_cli.evaluation.statistical.installed", lambda: False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 hours, a model of the first 180, and its forecast of the 5 rows after them in every form."""
    folder = tmp_path_factory.mktemp("built")
    single().frame.to_csv(folder / "data.csv", index=False)
    single().frame.iloc[:180].to_csv(folder / "old.csv", index=False)
    ok("train", folder / "old.csv", *("-m", folder / "m.safetensors"), *SMALL)
    for name in ("f.csv", "f.json", "f.ndjson", "f.parquet"):
        ok("predict", folder / "old.csv", "-m", folder / "m.safetensors", "-q", "-o", folder / name)
    return folder


@pytest.fixture
def saved(built: Path, folder: Path) -> Path:
    """The same in the working directory, without a model of the data's name."""
    for path in built.iterdir():
        shutil.copy(path, folder)
    return folder


def document(*words: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok("evaluate", *words, "--format", "json").stdout)
    return found


def lines_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("name", LISTED)
def test_every_layout_with_the_model_and_without_it(folder: Path, name: str) -> None:
    """The error is that of forecast and data joined by their keys; the rest are the baselines at the same cutoff."""
    layout = LAYOUTS[name]()
    layout.frame.to_csv("data.csv", index=False)
    layout.cut(11).to_csv("old.csv", index=False)
    trained("old.csv", "-m", "m.safetensors", *layout.words, *SMALL)
    ok("predict", "old.csv", "-m", "m.safetensors", "-q", "-o", "f.csv")
    forecast = pd.read_csv("f.csv", dtype=dict.fromkeys(layout.keys, str), float_precision="round_trip")
    joined = forecast.merge(layout.came(), on=list(layout.keys), how="left", validate="one_to_one")
    found = document("data.csv", "--against", "f.csv", "-m", "m.safetensors")
    assert found["forecast"]["rows"] == found["forecast"]["rows_scored"] == len(forecast) == 5 * layout.n_series
    own = found["metrics"]["stacklstm"]
    assert own["mae"] == pytest.approx((joined["forecast"] - joined["came"]).abs().mean(), rel=1e-9)
    if "q10" in forecast:
        held = (joined["q10"] <= joined["came"]) & (joined["came"] <= joined["q90"])
        assert own["coverage_80"] == pytest.approx(held.mean())
    else:
        assert "coverage_80" not in own
    backtest = document("data.csv", "-m", "m.safetensors", "--end", last_stamp(layout, forecast), "--origins", "1")
    if layout.n_series == 1:
        for baseline in ("naive", "seasonal_naive", "drift", "seasonal_average"):
            assert found["metrics"][baseline]["mae"] == pytest.approx(backtest["metrics"][baseline]["mae"], rel=1e-9)
    Path("m.safetensors").unlink()
    if name in ("zoned", "with_covariates"):  # the first needs --tz, the second has several columns of numbers
        return
    assert document("data.csv", "--against", "f.csv")["metrics"]["stacklstm"] == pytest.approx(own, rel=1e-9)


def last_stamp(layout: Layout, forecast: pd.DataFrame) -> str:
    """The last row forecast of the first series, as a user types it."""
    row = forecast.iloc[4]
    if len(layout.times) > 1:
        return "{}-{:0>2}-{:0>2} {:0>2}".format(*(row[name] for name in layout.times))
    return str(row[layout.times[0]])


@pytest.mark.parametrize("name", ["wide", "long", "single"])
def test_forecasts_that_mirror_a_wide_file(folder: Path, name: str) -> None:
    """`predict --wide` writes point forecasts under the names of the series; they score as the long table does."""
    layout = LAYOUTS[name]()
    layout.frame.to_csv("data.csv", index=False)
    layout.cut(11).to_csv("old.csv", index=False)
    trained("old.csv", "-m", "m.safetensors", *layout.words, *SMALL)
    ok("predict", "old.csv", "-m", "m.safetensors", "-q", "-o", "f.csv")
    ok("predict", "old.csv", "-m", "m.safetensors", "-q", "--wide", "-o", "w.csv")
    long = document("data.csv", "--against", "f.csv", "-m", "m.safetensors")
    mirrored = document("data.csv", "--against", "w.csv", "-m", "m.safetensors")
    for metric in ("mae", "rmse", "mase"):
        assert mirrored["metrics"]["stacklstm"][metric] == pytest.approx(long["metrics"]["stacklstm"][metric])
    assert mirrored["forecast"] == long["forecast"] | {"path": "w.csv"}


@pytest.mark.parametrize("form", ["csv", "json", "ndjson", "parquet"])
def test_every_form_of_a_forecast(saved: Path, form: str) -> None:
    """Told by its content; the figures are the same to the last bit."""
    shutil.copy(f"f.{form}", "forecast")
    expected = document("data.csv", "--against", "f.csv")["metrics"]
    assert document("data.csv", "--against", "forecast")["metrics"] == expected


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_a_forecast_in_a_pipe(saved: Path, form: str) -> None:
    """`-` is standard input, whatever comes through it; DATA may be that instead, and not both."""
    expected = ok("evaluate", "data.csv", "--against", "f.csv").stdout
    found = ok("evaluate", "data.csv", "--against", "-", stdin=Path(f"f.{form}").read_bytes())
    assert found.stdout == expected
    data = Path("data.csv").read_bytes()
    assert ok("evaluate", "-", "--against", f"f.{form}", stdin=data).stdout == expected
    assert run("evaluate", "-", "--against", "-", stdin=data).exit_code == 2


def test_figures_by_hand(folder: Path) -> None:
    """Two series, three rows forecast, two of them come: errors 1 and 3, and -2 and 0."""
    Path("data.csv").write_text(
        "id,day,n\n" + "".join(f"{name},2024-01-{day:02d},{value}\n" for name, values in
        (("a", (2, 4, 3, 5, 10, 20)), ("b", (1, 1, 2, 3, 30, 40))) for day, value in enumerate(values, start=1))
    )  # fmt: skip
    Path("f.csv").write_text(
        "id,day,forecast,q10,q90\nb,2024-01-05,28,25,31\nb,2024-01-06,40,41,50\nb,2024-01-07,1,0,2\n"
        "a,2024-01-05,11,9,12\na,2024-01-06,23,21,25\na,2024-01-07,1,0,2\n"
    )
    found = document("data.csv", "--against", "f.csv", "--seasonality", "1", "--per-series", "--append", "s.ndjson")
    own = found["metrics"]["stacklstm"]
    assert (own["mae"], own["bias"], own["rmse"]) == pytest.approx((1.5, 0.5, np.sqrt(14 / 4)))
    assert own["coverage_80"] == 0.5
    assert own["mase"] == pytest.approx((2 / (5 / 3) + 1 / (2 / 3)) / 2)
    assert found["metrics"]["naive"]["mae"] == pytest.approx((5 + 15 + 27 + 37) / 4)
    assert [entry["series"] for entry in found["per_series"]] == ["a", "b"]
    facts = {"first": "2024-01-05", "last": "2024-01-06", "rows": 6, "rows_scored": 4, "rows_awaited": 2}
    assert found["forecast"] == {"path": "f.csv", "series": 2, "rows_missing": 0, **facts}
    (line,) = lines_of("s.ndjson")
    assert line == {
        "schema": 1, "forecast": "f.csv", "series": 2, "rows_missing": 0, **facts, "seasonality": 1,
        "metrics": found["metrics"],
    }  # fmt: skip


class TestRows:
    def write(self, rows: int, gap: int | None = None) -> None:
        frame = single().frame.iloc[:rows].copy()
        if gap is not None:
            frame.loc[gap, "load"] = np.nan
        frame.to_csv("now.csv", index=False)

    def test_rows_that_have_not_come_are_counted(self, saved: Path) -> None:
        """Said, and no error."""
        self.write(183)
        done = ok("evaluate", "now.csv", "--against", "f.csv", "--format", "json")
        assert "2 of the 5 rows forecast have not come yet" in done.stderr
        facts = json.loads(done.stdout)["forecast"]
        assert (facts["rows_scored"], facts["rows_awaited"], facts["last"]) == (3, 2, stamps(ROWS, "h")[182])

    def test_nothing_has_come(self, saved: Path) -> None:
        """A crontab must not fail every morning: status 0, one sentence, and a line that says so."""
        self.write(180)
        done = ok("evaluate", "now.csv", "--against", "f.csv", "--append", "s.ndjson")
        assert done.stdout.startswith("Nothing to score yet: the forecast begins at 2024-01-10 12:00")
        (line,) = lines_of("s.ndjson")
        assert (line["rows_scored"], line["rows_awaited"], line["metrics"], line["first"]) == (0, 5, {}, None)
        for form in ("csv", "json", "ndjson", "markdown", "parquet"):
            ok("evaluate", "now.csv", "--against", "f.csv", "--format", form, "-o", "out")

    def test_rows_without_a_value(self, saved: Path) -> None:
        """They are not scored and not awaited."""
        self.write(ROWS, gap=182)
        done = ok("evaluate", "now.csv", "--against", "f.csv", "--format", "json")
        assert "1 of the 5 rows forecast have no value in DATA" in done.stderr
        assert json.loads(done.stdout)["forecast"]["rows_missing"] == 1

    def test_data_without_a_past_has_no_baselines(self, saved: Path) -> None:
        """New rows alone can be scored all the same."""
        single().frame.iloc[181:].to_csv("new.csv", index=False)
        done = ok("evaluate", "new.csv", "--against", "f.csv", "--format", "json")
        found = json.loads(done.stdout)
        assert list(found["metrics"]) == ["stacklstm"]
        assert (found["forecast"]["rows_scored"], found["forecast"]["rows_missing"]) == (4, 1)
        assert "no baselines" in done.stderr
        assert found["metrics"]["stacklstm"]["mae"] > 0
        # The rows that are scored are no history to scale errors by.
        assert [found["metrics"]["stacklstm"][name] for name in ("mase", "rmsse", "msis")] == [None] * 3

    def test_a_series_that_data_does_not_have_yet(self, folder: Path) -> None:
        """Its rows are awaited; the others are scored."""
        pd.DataFrame({"id": "a", "ds": stamps(100, "D", "%Y-%m-%d"), "y": wave(100)}).to_csv("d.csv", index=False)
        times = stamps(100, "D", "%Y-%m-%d")[95:98]
        frame = pd.DataFrame({"id": ["a"] * 3 + ["b"] * 3, "ds": times * 2, "forecast": 50.0})
        frame.to_csv("f.csv", index=False)
        facts = document("d.csv", "--against", "f.csv")["forecast"]
        assert (facts["rows"], facts["rows_scored"], facts["rows_awaited"]) == (6, 3, 3)

    def test_repeated_hours_in_autumn(self, folder: Path) -> None:
        """Local hours without an offset, in order: the second 02:00 is the later one."""
        moments = pd.date_range("2024-10-20", periods=200, freq="h", tz="Europe/Berlin")
        text = moments.strftime("%Y-%m-%d %H:%M").tolist()
        pd.DataFrame({"t": text, "v": np.arange(200.0)}).to_csv("d.csv", index=False)
        pd.DataFrame({"t": text[165:180], "forecast": np.arange(165.0, 180)}).to_csv("f.csv", index=False)
        found = document("d.csv", "--against", "f.csv", "--tz", "Europe/Berlin")
        assert (found["forecast"]["rows_scored"], found["metrics"]["stacklstm"]["mae"]) == (15, 0)


def refusal(*words: str | Path) -> Result:
    done = run("evaluate", *words)
    assert done.exit_code
    assert (done.stdout, done.stderr.count("error:")) == ("", 1)
    assert "Traceback" not in done.stderr
    return done


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("time,load\n2024-01-10 12:00,5\n", "has the columns time, load"),
            ("when,forecast\n2024-01-10 12:00,5\n", "has the columns when, forecast"),
            ("id,time,forecast\na,2024-01-10 12:00,5\n", "has the columns id, time, forecast"),
            ("time,forecast\n2024-01-10 12:30,5\n2024-01-10 13:30,6\n", "no row of DATA can have this time"),
            ("time,forecast\n2024-01-10,5\n2024-01-11,6\n2024-01-12,6\n", "1 day apart"),
            ("time,forecast\nsoon,5\n", "soon"),
            ("time,forecast\n2024-01-10 12:00,five\n", "five"),
            ("time,forecast\n", "no rows"),
            ("", "empty"),
            ('{"forecast": 3', "no forecast in JSON"),
            ('{"schema": 1}', "columns"),
            ("[]", "no forecast in JSON"),
            ("time,cutoff,actual,forecast\n2024-01-10 12:00,2024-01-10 11:00,5,5\n", "holds a backtest"),
        ],
    )
    @pytest.mark.parametrize("model", [True, False])
    def test_what_is_no_forecast_of_this_data(self, saved: Path, text: str, said: str, model: bool) -> None:
        """Bad data, one message, no line appended."""
        Path("wrong.csv").write_text(text)
        words = ("-m", "m.safetensors") if model else ()
        done = refusal("data.csv", "--against", "wrong.csv", "--append", "s.ndjson", *words)
        assert (done.exit_code, said in done.stderr) == (3, True), done.stderr
        assert "standard input" not in done.stderr
        assert not Path("s.ndjson").exists()

    def test_other_series(self, folder: Path) -> None:
        wide().frame.to_csv("d.csv", index=False)
        pd.DataFrame({"series": "c", "ts": stamps(160, "h")[-2:], "forecast": 1.0}).to_csv("f.csv", index=False)
        done = refusal("d.csv", "--against", "f.csv")
        assert (done.exit_code, "forecasts c, which DATA does not have" in done.stderr) == (3, True)

    def test_files_that_are_not_there(self, saved: Path) -> None:
        assert refusal("data.csv", "--against", "none.csv").exit_code == 3
        assert refusal("none.csv", "--against", "f.csv").exit_code == 3
        assert refusal("data.csv", "--against", "f.csv", "-m", "none.safetensors").exit_code == 4

    def test_a_file_that_only_the_model_can_read(self, saved: Path) -> None:
        """Several columns of numbers: which one is it? The model knows."""
        frame = single().frame.assign(temp=wave(ROWS, 9))
        frame.to_csv("two.csv", index=False)
        done = refusal("two.csv", "--against", "f.csv")
        assert (done.exit_code, "--model" in done.stderr) == (3, True)
        assert ok("evaluate", "two.csv", "--against", "f.csv", "-m", "m.safetensors").exit_code == 0
        shutil.copy("m.safetensors", "two.safetensors")  # found by the data's name, as ever
        done = ok("evaluate", "two.csv", "--against", "f.csv")
        assert "two.safetensors says what the columns of DATA are" in done.stderr

    @pytest.mark.parametrize(
        "words",
        [("--step", "2"), ("--start", "2024"), ("--in-sample",), ("--refit-every", "1"), ("--forecasts", "g.csv")],
    )
    def test_options_of_a_backtest(self, saved: Path, words: tuple[str, ...]) -> None:
        """They would do nothing, so they are refused."""
        done = refusal("data.csv", "--against", "f.csv", *words)
        assert (done.exit_code, words[0] in done.stderr) == (2, True)

    @pytest.mark.parametrize(
        ("place", "status"),
        [("data.csv", 2), ("f.csv", 2), ("out.csv", 2), ("there", 4), ("no/s.ndjson", 4), ("ro", 4)],
    )
    def test_places_for_the_line(self, saved: Path, place: str, status: int) -> None:
        """Refused before the work: inputs, the output, a directory, what is read-only."""
        Path("there").mkdir()
        Path("ro").write_text("")
        Path("ro").chmod(0o444)
        before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
        done = refusal("data.csv", "--against", "f.csv", "--append", place, "-o", "out.csv")
        assert (done.exit_code, place in done.stderr) == (status, True)
        assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


class TestAppend:
    def test_one_line_a_run(self, saved: Path) -> None:
        """Behind what is there, each the same for the same files."""
        words = ("evaluate", "data.csv", "--against", "f.csv", "--append", "s.ndjson")
        table = table_of(ok(*words, "--format", "csv"))
        ok(*words)
        one, other = lines_of("s.ndjson")
        assert one == other
        assert one["metrics"].keys() == set(table["model"])
        assert one["metrics"]["naive"]["mae"] == table.set_index("model").loc["naive", "mae"]

    def test_behind_a_line_that_was_cut_short(self, saved: Path) -> None:
        """What a crash left stays by itself."""
        Path("s.ndjson").write_text('{"forecast": "x"}\n{"fore')
        ok("evaluate", "data.csv", "--against", "f.csv", "--append", "s.ndjson")
        lines = Path("s.ndjson").read_text().splitlines()
        assert lines[:2] == ['{"forecast": "x"}', '{"fore']
        assert json.loads(lines[2])["forecast"] == "f.csv"

    @pytest.mark.slow
    def test_several_at_once(self, saved: Path) -> None:
        """Lines of programs that run side by side do not mix."""
        words = [
            sys.executable,
            "-m",
            "stacklstm_cli",
            "evaluate",
            "data.csv",
            "--against",
            "f.csv",
            "-q",
            "--baselines",
            "none",
        ]
        running = [
            subprocess.Popen([*words, "--append", "s.ndjson"], stdout=subprocess.DEVNULL, env={**os.environ})
            for _ in range(3)
        ]
        assert [one.wait(120) for one in running] == [0] * 3
        assert len(lines_of("s.ndjson")) == 3

    @pytest.mark.skipif(os.name == "nt", reason="has no named pipes")
    def test_a_closed_pipe_loses_no_line(self, saved: Path, server: Server) -> None:
        """The line is written before the table."""
        os.mkfifo("pipe")
        words = ("evaluate", "data.csv", "--against", "f.csv", "-q", "--baselines", "none", "--append", "s.ndjson")
        server.start(*words, stdout=Path("pipe").absolute())
        with Path("pipe").open():
            pass
        assert server.end().status == 0
        assert len(lines_of("s.ndjson")) == 1
