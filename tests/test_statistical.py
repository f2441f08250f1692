"""AutoETS and AutoTheta as baselines: what statsforecast gives, at every origin, and naive where it gives nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import ok, run, table_of
from panels import cut, make_panel, wave

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.errors import UsageError
from stacklstm_cli.evaluation import statistical
from stacklstm_cli.evaluation.baselines import Naive
from stacklstm_cli.evaluation.statistical import Statistical, added, asked_for, column_of

WITH_STATSFORECAST = True
QUANTILES = (0.025, 0.1, 0.5, 0.9)
VALUES = wave(40, period=4)


def one_origin(*rows: int) -> Origins:
    return Origins(np.zeros(len(rows), dtype=np.int64), np.asarray(rows))


@pytest.mark.parametrize("name", ["auto_ets", "auto_theta"])
class TestForecast:
    def test_is_that_of_statsforecast(self, name: str) -> None:
        """The mean and the ends of its intervals, in order, from the rows before the cutoff alone."""
        from statsforecast.models import AutoETS, AutoTheta

        found = Statistical(name, 4).forecast(make_panel(VALUES), one_origin(30), 5, QUANTILES)
        model = {"auto_ets": AutoETS, "auto_theta": AutoTheta}[name](season_length=4)
        expected = model.forecast(VALUES[:30], h=5, level=[80, 95])
        columns = [expected[key] for key in ("lo-95", "lo-80", "mean", "hi-80")]
        np.testing.assert_allclose(found[0], np.stack(columns, axis=1), rtol=1e-12)
        assert (np.diff(found, axis=2) >= 0).all()

    def test_the_file_cut_at_the_cutoff_forecasts_the_same(self, name: str) -> None:
        """And a second run the same again: nothing is random."""
        panel, rows = make_panel(VALUES, wave(25, seed=3, period=4)), np.asarray([28, 20])
        origins = Origins(np.arange(2), rows)
        found = Statistical(name, 4).forecast(panel, origins, 3, QUANTILES)
        again = Statistical(name, 4).forecast(cut(panel, rows), origins, 3, QUANTILES)
        np.testing.assert_array_equal(found, again)

    def test_gaps_are_filled_by_lines_and_rows_before_the_cutoff_count(self, name: str) -> None:
        gappy, filled = VALUES.copy(), VALUES.copy()
        gappy[10:12] = np.nan
        filled[10:12] = np.interp([10, 11], [9, 12], VALUES[[9, 12]])
        gappy[28:30] = np.nan
        baseline = Statistical(name, 4)
        found = baseline.forecast(make_panel(gappy), one_origin(30), 3, QUANTILES)
        whole = Statistical(name, 4).forecast(make_panel(filled), one_origin(28), 5, QUANTILES)
        np.testing.assert_array_equal(found[0], whole[0, 2:])
        assert baseline.filled == 2
        assert "gaps filled by straight lines" in baseline.explained()

    def test_naive_where_it_cannot_be_fitted(self, name: str) -> None:
        """Three rows settle nothing; what fails is counted, and the rest is not touched."""
        baseline, panel, origins = Statistical(name, 4), make_panel(VALUES), one_origin(3, 30)
        found = baseline.forecast(panel, origins, 4, QUANTILES)
        np.testing.assert_array_equal(found[0], Naive().forecast(panel, origins, 4, QUANTILES)[0])
        assert (baseline.fits, baseline.fell_back) == (2, 1)
        assert "fitted at each of 2 origins; naive at 1 of them" in baseline.explained()
        alone = Statistical(name, 4)
        alone.forecast(panel, one_origin(30), 4, QUANTILES)
        assert alone.explained() == f"{name}: fitted at 1 origin"

    def test_whatever_fails_is_naive(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        class Broken:
            def forecast(self, *_: object, **__: object) -> object:
                raise ZeroDivisionError

        monkeypatch.setattr(statistical, "_method", lambda name, season: Broken())
        baseline = Statistical(name, 4)
        found = baseline.forecast(make_panel(VALUES), one_origin(20), 4, QUANTILES)
        np.testing.assert_array_equal(found, Naive().forecast(make_panel(VALUES), one_origin(20), 4, QUANTILES))
        assert baseline.fell_back == 1

    def test_a_constant_series_is_forecast(self, name: str) -> None:
        found = Statistical(name, 4).forecast(make_panel(np.full(30, 7.0)), one_origin(30), 3, (0.5,))
        np.testing.assert_allclose(found, 7)

    def test_the_median_alone(self, name: str) -> None:
        alone = Statistical(name, 4).forecast(make_panel(VALUES), one_origin(30), 3, (0.5,))
        among = Statistical(name, 4).forecast(make_panel(VALUES), one_origin(30), 3, QUANTILES)
        np.testing.assert_allclose(alone[:, :, 0], among[:, :, 2])


def test_columns() -> None:
    assert [column_of(quantile) for quantile in (0.5, 0.1, 0.9, 0.0125)] == ["mean", "lo-80.0", "hi-80.0", "lo-97.5"]


class TestChoice:
    def test_names(self) -> None:
        assert list(asked_for(("auto_theta", "auto_ets"), 7)) == ["auto_theta", "auto_ets"]
        assert asked_for(("none",), 7) == {}
        for wrong in (("arima",), ("none", "auto_ets")):
            with pytest.raises(UsageError, match="expected auto_ets or auto_theta"):
                asked_for(wrong, 7)

    def test_small_work_is_done_unasked(self) -> None:
        """The rows of all fits together count, and long seasons take long."""
        few, many = one_origin(100, 200), one_origin(*range(100, 200))
        assert list(added(few, 12)[0]) == ["auto_ets", "auto_theta"]
        for origins, season in ((many, 12), (few, 48)):
            chosen, note = added(origins, season)
            assert chosen == {}
            assert "--baselines auto_ets,auto_theta" in note

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Asked for, it is an error that says what to type; else nothing is said."""
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert added(one_origin(50), 12) == ({}, "")
        with pytest.raises(UsageError) as caught:
            asked_for(("auto_ets",), 12)
        assert caught.value.hint == "Install it with: pip install 'stacklstm[baselines]'"

    def test_nothing_is_imported_before_a_fit(self) -> None:
        program = (
            "import sys; from stacklstm_cli.evaluation.statistical import asked_for\n"
            "asked_for(('auto_ets',), 12); assert 'statsforecast' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture
def monthly(folder: Path) -> Path:
    """Ten years, and a small model of them."""
    months = pd.date_range("2010-01-01", periods=120, freq="MS").strftime("%Y-%m-%d")
    pd.DataFrame({"month": months, "sold": wave(120, period=12)}).to_csv("data.csv", index=False)
    ok("train", "data.csv", "--hidden-size", "4", "--epochs", "1", "--horizon", "6")
    return folder


def test_as_typed(monthly: Path) -> None:
    """Added to a small backtest, left out by none, alone by name, refused where unknown; and the gate by a baseline."""
    document = json.loads(ok("evaluate", "data.csv", "--format", "json", "--per-step").stdout)
    naive = ["stacklstm", "naive", "seasonal_naive", "drift", "seasonal_average"]
    assert list(document["metrics"]) == [*naive, "auto_ets", "auto_theta"]
    assert [one["step"] for one in document["per_step"]] == [1, 2, 3, 4, 5, 6]
    assert set(document["comparison"]) == {
        *("baseline", "metric", "difference", "relative", "interval", "p_value", "units", "paired_over", "level")
    }
    assert table_of(ok("evaluate", "data.csv", "--format", "csv", "--baselines", "none"))["model"].tolist() == naive
    assert (
        "auto_theta" in ok("train", "data.csv", "--epochs", "1", "--horizon", "6", "--baselines", "auto_theta").stdout
    )
    assert run("evaluate", "data.csv", "--baselines", "arima").exit_code == 2


def test_worse_than_a_baseline_is_status_5_after_the_table(monthly: Path) -> None:
    """Told by the figures of the table, whichever way they fall."""
    words = ("evaluate", "data.csv", "--format", "json", "--baselines", "none", "--in-sample", "--fail-if-worse-than")
    statuses = set()
    for baseline in ("naive", "seasonal_naive", "drift", "seasonal_average"):
        done = run(*words, baseline)
        document = json.loads(done.stdout)
        worse = document["metrics"]["stacklstm"]["mase"] > document["metrics"][baseline]["mase"]
        assert (done.exit_code, document["status"]) == ((5, "refused") if worse else (0, "ok"))
        errors = [line for line in done.stderr.splitlines() if line.startswith('{"error"')]
        assert len(errors) == int(worse)
        assert not worse or json.loads(errors[0])["error"]["code"] == "worse_than_baseline"
        statuses.add(done.exit_code)
    assert statuses
    assert run(*words, "arima").exit_code == 2
