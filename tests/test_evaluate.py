"""`evaluate` as typed: which rows, what is written where, what is said, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import ok, run, table_of
from layouts import LAYOUTS, QUICK, SMALL, Layout, single, stamps, wide
from panels import wave

LISTED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One series of 200 hours, and a model of its first 180 that was judged on 30 of them."""
    folder = tmp_path_factory.mktemp("built")
    single().frame.to_csv(folder / "data.csv", index=False)
    single().frame.iloc[:180].to_csv(folder / "old.csv", index=False)
    ok("train", folder / "old.csv", "-m", folder / "data.safetensors", *SMALL)
    return folder


@pytest.fixture
def trained(built: Path, folder: Path) -> Layout:
    """The same, in the working directory."""
    for path in built.iterdir():
        shutil.copy(path, folder)
    return single()


def document(*words: str) -> dict:
    return json.loads(ok("evaluate", *words, "--format", "json").stdout)


def read(path: str, layout: Layout) -> pd.DataFrame:
    """A table of forecasts, its keys as text and its numbers to the last bit."""
    words = dict.fromkeys((*layout.keys, "cutoff"), str)
    return pd.read_csv(path, dtype=words, float_precision="round_trip")


@pytest.mark.parametrize("name", LISTED)
def test_a_backtest_forecasts_what_predict_does_on_the_file_cut_there(folder: Path, name: str) -> None:
    """Every column of every forecast, to 1e-5 relative, whatever the layout, the loss, the gaps, the covariates.

    And beside each forecast stands what came, under the keys of the file.
    """
    layout = LAYOUTS[name]()
    layout.frame.to_csv("data.csv", index=False)
    ok("train", "data.csv", *layout.words, *SMALL)
    words = ("evaluate", "data.csv", "--in-sample", "--step", "6", "--origins", "3", "--forecasts", "f.csv")
    scores = json.loads(ok(*words, "--format", "json").stdout)["metrics"]["stacklstm"]
    found = read("f.csv", layout)
    ids = [name for name in layout.keys if name not in layout.times]
    assert list(found)[: len(layout.keys) + 3] == [*ids, "cutoff", *layout.times, "actual", "forecast"]
    joined = found.merge(layout.came(), on=list(layout.keys), how="left", validate="many_to_one")
    np.testing.assert_array_equal(joined["actual"], joined["came"])
    assert (found["forecast"] - found["actual"]).abs().mean() == pytest.approx(scores["mae"], rel=1e-12)
    for place, rows in enumerate((17, 11, 5)):  # the last horizon ends with the last row of each series
        layout.cut(rows).to_csv("cut.csv", index=False)
        ok("predict", "cut.csv", "-m", "data.safetensors", "-q", "-o", "p.csv")
        expected = read("p.csv", layout)
        mine = found.iloc[np.arange(len(found)).reshape(layout.n_series, 3, 5)[:, place].ravel()]
        assert mine[list(layout.keys)].to_numpy().tolist() == expected[list(layout.keys)].to_numpy().tolist()
        numbers = [column for column in expected if column not in layout.keys]
        np.testing.assert_allclose(mine[numbers], expected[numbers], rtol=1e-5)


class TestForecasts:
    @pytest.mark.parametrize("form", ["csv", "parquet", "json", "ndjson"])
    def test_each_form_holds_the_same(self, trained: Layout, form: str) -> None:
        """By the suffix; the same rows and numbers to the last bit."""
        words = ("evaluate", "data.csv", "--step", "3")
        ok(*words, "--forecasts", "f.csv", "-q")
        said = ok(*words, "--forecasts", f"g.{form}")
        assert f"wrote g.{form}" in said.stderr
        expected = read("f.csv", trained)
        if form == "json":
            whole = json.loads(Path("g.json").read_text())
            assert {"schema", "command", "model", "data", "backtest"} <= set(whole)
            found = pd.DataFrame(whole["forecasts"])
        elif form == "parquet":
            found = pd.read_parquet("g.parquet")
        else:
            found = (
                read("g.csv", trained) if form == "csv" else pd.read_json("g.ndjson", lines=True, precise_float=True)
            )
        if form == "ndjson":
            lines = [json.loads(line) for line in Path("g.ndjson").read_text().splitlines()]
            found = pd.DataFrame(lines)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
        assert len(found) == 6 * 5

    def test_parts_make_the_same_file(self, trained: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        """A backtest that is written some origins at a time."""
        words = ("evaluate", "data.csv", "--step", "2", "-q", "--forecasts")
        for form in ("csv", "json", "ndjson", "parquet"):
            ok(*words, f"whole.{form}")
        monkeypatch.setattr("stacklstm_cli.model.frame.ROWS_AT_ONCE", 11)
        for form in ("csv", "json", "ndjson"):
            ok(*words, f"parts.{form}")
            assert Path(f"parts.{form}").read_bytes() == Path(f"whole.{form}").read_bytes()
        ok(*words, "parts.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet("parts.parquet"), pd.read_parquet("whole.parquet"))

    def test_what_is_missing_is_blank(self, trained: Layout) -> None:
        """A row that has no value is forecast all the same, and beside it stands nothing."""
        frame = trained.frame.copy()
        frame.loc[190, "load"] = np.nan
        frame.to_csv("gap.csv", index=False)
        ok("evaluate", "gap.csv", "-m", "data.safetensors", "--forecasts", "f.csv", "-q")
        found = read("f.csv", trained).set_index("time")
        assert found["actual"].isna().sum() == 1
        assert np.isnan(found.loc[stamps(200, "h")[190], "actual"])
        assert found["forecast"].notna().all()

    @pytest.mark.parametrize(
        ("place", "status", "said"),
        [
            ("data.csv", 2, "overwrite"),
            ("data.safetensors", 2, ".csv, .parquet, .json or .ndjson"),
            ("out.csv", 2, "overwrite"),
            ("f.xlsx", 2, "ends in .csv"),
            ("f.csv.gz", 2, "ends in .csv"),
            ("-", 2, "ends in .csv"),
            ("no/folder.csv", 4, "no/folder.csv"),
            ("here.csv", 4, "here.csv"),
        ],
    )
    def test_places_that_cannot_be(self, trained: Layout, place: str, status: int, said: str) -> None:
        """Refused before the work, with nothing written and nothing lost."""
        Path("here.csv").mkdir()
        before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
        done = run("evaluate", "data.csv", "--forecasts", place, "-o", "out.csv")
        assert done.exit_code == status
        assert said in done.stderr
        assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before

    @pytest.mark.parametrize("name", ["cutoff", "actual"])
    def test_columns_of_one_name_are_refused(self, folder: Path, name: str) -> None:
        """Only where such a file is asked for."""
        pd.DataFrame({name: stamps(120, "h"), "load": wave(120)}).to_csv("data.csv", index=False)
        ok("train", "data.csv", *SMALL)
        ok("evaluate", "data.csv")
        done = run("evaluate", "data.csv", "--forecasts", "f.csv")
        assert (done.exit_code, f"'{name}'" in done.stderr) == (3, True)
        assert not Path("f.csv").exists()


class TestRows:
    def test_new_rows_count_back_from_the_last_one(self, trained: Layout) -> None:
        """Twenty new rows in forecasts of five; what is in none is said and counted."""
        found = document("data.csv")["backtest"]
        assert (found["rows"], found["origins"], found["step"]) == ("new rows", 4, 5)
        assert (found["first_cutoff"], found["last_cutoff"]) == (stamps(200, "h")[179], stamps(200, "h")[194])
        counts = ("rows_scored", "rows_missing", "rows_left_out", "series_left_out")
        assert [found[name] for name in counts] == [20, 0, 0, 0]
        assert "could be scored" not in ok("evaluate", "data.csv").stderr

    def test_rows_in_no_forecast_are_said(self, trained: Layout) -> None:
        """What --origins leaves out, what has no value, and series without room."""
        done = ok("evaluate", "data.csv", "--origins", "1", "--format", "json")
        assert "15 of 20 rows that could be scored are in no forecast" in done.stderr
        assert json.loads(done.stdout)["backtest"]["rows_left_out"] == 15
        frame = trained.frame.copy()
        frame.loc[[191, 192], "load"] = np.nan
        frame.to_csv("gap.csv", index=False)
        done = ok("evaluate", "gap.csv", "-m", "data.safetensors", "--format", "json")
        assert "2 rows in forecasts have no value and are not scored" in done.stderr
        counts = json.loads(done.stdout)["backtest"]
        assert (counts["rows_scored"], counts["rows_missing"]) == (18, 2)

    def test_start_counts_forward(self, trained: Layout) -> None:
        """From the first row that is forecast; the rows after the last whole horizon are left out."""
        found = document("data.csv", "--start", stamps(200, "h")[182])["backtest"]
        assert (found["first_cutoff"], found["last_cutoff"]) == (stamps(200, "h")[181], stamps(200, "h")[191])
        assert (found["rows_scored"], found["rows_left_out"]) == (15, 3)

    @pytest.mark.parametrize(
        ("words", "status", "said"),
        [
            (("--start", "2024-01-10 11:00"), 2, "--in-sample"),
            (("--start", "2030-01-01"), 2, "the data runs from 2024-01-03 00:00 to 2024-01-11 07:00"),
            (("--start", "2024-01-11 04:00"), 2, "No forecast of 5 rows fits"),
            (("--end", "2024-01-03 12:00"), 2, "No forecast of 5 rows fits"),
            (("--start", "2024-01-11", "--end", "2024-01-10"), 2, "before --start"),
            (("--interval", "120"), 2, "--interval is 120"),
            (("--interval", "0"), 2, "--interval is 0"),
            (("--interval", "-5"), 2, "--interval is -5"),
            (("--interval", "95"), 2, "outside"),
            (("--step", "0"), 2, "--step is 0"),
            (("--origins", "0"), 2, "--origins is 0"),
            (("--refit-every", "0"), 2, "--refit-every is 0"),
            (("--append", "s.ndjson"), 2, "--against"),
        ],
    )
    def test_mistakes(self, trained: Layout, words: tuple[str, ...], status: int, said: str) -> None:
        """One message, nothing on standard output."""
        done = run("evaluate", "data.csv", *words)
        assert (done.exit_code, done.stdout, done.stderr.count("error:")) == (status, "", 1)
        assert said in done.stderr

    def test_no_origin_left_is_bad_data(self, folder: Path) -> None:
        """A file without new rows, of a model that was never judged."""
        single().frame.to_csv("data.csv", index=False)
        ok("train", "data.csv", "--holdout", "0", *SMALL)
        done = run("evaluate", "data.csv")
        assert (done.exit_code, "at most 0 rows after the last training row" in done.stderr) == (3, True)

    def test_a_model_whose_series_are_not_in_the_file(self, folder: Path) -> None:
        """Other series of the same columns are scored, with a note; other columns are refused."""
        pd.DataFrame({"id": "a", "ds": stamps(120, "h"), "y": wave(120)}).to_csv("a.csv", index=False)
        pd.DataFrame({"id": "b", "ds": stamps(120, "h"), "y": wave(120, 1)}).to_csv("b.csv", index=False)
        ok("train", "a.csv", "--id", "id", *SMALL)
        done = ok("evaluate", "b.csv", "-m", "a.safetensors")
        assert "1 of 1 series are new to the model: b" in done.stderr
        wide().frame.to_csv("w.csv", index=False)
        other = run("evaluate", "w.csv", "-m", "a.safetensors")
        assert (other.exit_code, "'y'" in other.stderr or "'id'" in other.stderr or "'ds'" in other.stderr) == (4, True)

    def test_a_constant_series_has_no_mase(self, folder: Path) -> None:
        """Blank, with a count, and no crash."""
        pd.DataFrame({"ds": stamps(120, "h"), "a": 3.0, "b": wave(120)}).to_csv("data.csv", index=False)
        ok("train", "data.csv", *SMALL)
        found = document("data.csv", "--per-series")
        assert found["backtest"]["undefined"] == 1
        assert found["per_series"][0]["metrics"]["naive"]["mase"] is None
        assert found["metrics"]["naive"]["mase"] is not None

    def test_nothing_is_changed(self, trained: Layout) -> None:
        """Neither the model nor the data, and no file is left behind."""
        before = {path: path.read_bytes() for path in Path().iterdir()}
        ok("evaluate", "data.csv", "--refit-every", "2")
        ok("evaluate", "data.csv", "--in-sample")
        assert {path: path.read_bytes() for path in Path().iterdir()} == before

    def test_the_same_command_gives_the_same_bytes(self, trained: Layout) -> None:
        """Figures and forecasts."""
        words = ("evaluate", "data.csv", "--format", "csv", "--forecasts")
        one, other = (table_of(ok(*words, name)) for name in ("f.csv", "g.csv"))
        pd.testing.assert_frame_equal(one, other, check_exact=True)
        assert Path("f.csv").read_bytes() == Path("g.csv").read_bytes()


def test_more_forecasts_than_memory_holds_are_refused(trained: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they are made, with what to type instead; and that works."""
    monkeypatch.setattr("stacklstm_cli.evaluation.scoring.MOST_NUMBERS", 700)
    done = run("evaluate", "data.csv", "--step", "1")
    assert (done.exit_code, "--step 2 or more, or --origins 8" in done.stderr) == (2, True)
    ok("evaluate", "data.csv", "--step", "2")
