"""Forecasts as a table that looks like the input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from panels import make_panel, shaken_network, small_spec, wave

from stacklstm_cli.config import ForecastConfig
from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Columns, Panel
from stacklstm_cli.errors import DataError, UsageError
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.frame import (
    attention_frame,
    backtest_frames,
    forecast_frame,
    quantile_name,
    refuse_backtest_clash,
)
from stacklstm_cli.model.windows import Windows

FORECASTER = Forecaster(shaken_network(small_spec(), dtype=torch.float32), torch.device("cpu"))
QUANTILES = ["q10", "q50", "q90"]


def single() -> Panel:
    return make_panel(wave(30), starts=[24])


def long() -> Panel:
    """Three series in an order that no sorting gives, ending at different times, named by two columns."""
    panel = make_panel(wave(30), wave(20, seed=1), wave(9, seed=2), starts=[0, 12, 0])
    columns = Columns("long", ("when",), ("shop", "item"), ("sales",))
    return dataclasses.replace(panel, columns=columns, keys=(("c", "1"), ("a", "2"), ("b", "1")))


def wide(starts: list[int]) -> Panel:
    panel = make_panel(wave(20), wave(20, seed=1), starts=starts)
    return dataclasses.replace(panel, columns=Columns("wide", ("ds",), (), ("y", "x")), keys=(("y",), ("x",)))


def expected(panel: Panel, horizon: int, quantiles: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return FORECASTER.forecast(panel, Origins(np.arange(panel.n_series), panel.lengths), horizon, quantiles)


class TestLong:
    def test_one_series(self) -> None:
        """No key column; the clock goes on: the 30 hours from 2 January on end at 05:00 on the 3rd."""
        frame = forecast_frame(FORECASTER, single(), ForecastConfig())
        assert list(frame) == ["ds", "forecast", *QUANTILES]
        assert frame["ds"].tolist() == [f"1970-01-03 {hour:02d}:00" for hour in (6, 7, 8, 9)]
        np.testing.assert_array_equal(frame[QUANTILES], expected(single(), 4, [0.1, 0.5, 0.9])[0])
        np.testing.assert_array_equal(frame["forecast"], frame["q50"])

    def test_several_series(self) -> None:
        """The order of the input, each series from its own end on, under the input's own column names."""
        panel = long()
        frame = forecast_frame(FORECASTER, panel, ForecastConfig(horizon=2))
        assert list(frame) == ["shop", "item", "when", "forecast", *QUANTILES]
        assert frame["shop"].tolist() == ["c", "c", "a", "a", "b", "b"]
        assert frame["item"].tolist() == ["1", "1", "2", "2", "1", "1"]
        hours = ["02 06:00", "02 07:00", "02 08:00", "02 09:00", "01 09:00", "01 10:00"]
        assert frame["when"].tolist() == [f"1970-01-{hour}" for hour in hours]
        np.testing.assert_array_equal(frame[QUANTILES], expected(panel, 2, [0.1, 0.5, 0.9]).reshape(6, 3))

    def test_wide_input(self) -> None:
        """A column `series` holds the names of the input's columns."""
        frame = forecast_frame(FORECASTER, wide([0, 0]), ForecastConfig())
        assert list(frame) == ["series", "ds", "forecast", *QUANTILES]
        assert frame["series"].tolist() == ["y"] * 4 + ["x"] * 4

    def test_without_a_time_column(self) -> None:
        """Rows are steps 0, 1, 2 …"""
        columns = Columns("single", (), (), ("y",))
        panel = dataclasses.replace(single(), columns=columns, step=Step("step"), time_form=TimeForm("row"))
        frame = forecast_frame(FORECASTER, panel, ForecastConfig(horizon=3))
        assert list(frame) == ["step", "forecast", *QUANTILES]
        assert frame["step"].tolist() == ["54", "55", "56"]

    def test_months_end_where_months_end(self) -> None:
        panel = dataclasses.replace(
            single(), step=Step("month", 1, "end"), time_form=TimeForm("datetime", "%Y-%m-%d"), starts=np.array([0])
        )
        frame = forecast_frame(FORECASTER, panel, ForecastConfig())
        assert frame["ds"].tolist() == ["1972-07-31", "1972-08-31", "1972-09-30", "1972-10-31"]


class TestQuantiles:
    @pytest.mark.parametrize(
        ("config", "names", "levels"),
        [
            (ForecastConfig(quantiles=(0.9, 0.125)), ["q12.5", "q90"], [0.125, 0.9]),
            (ForecastConfig(interval=(80,)), ["q10", "q90"], [0.1, 0.9]),
            (ForecastConfig(interval=(50, 80)), ["q10", "q25", "q75", "q90"], [0.1, 0.25, 0.75, 0.9]),
            (ForecastConfig(quantiles=(0.5, 0.1), interval=(80,)), QUANTILES, [0.1, 0.5, 0.9]),
        ],
    )
    def test_asked_for(self, config: ForecastConfig, names: list[str], levels: list[float]) -> None:
        """Ascending, each once; the point forecast stays the median."""
        frame = forecast_frame(FORECASTER, single(), config)
        assert list(frame) == ["ds", "forecast", *names]
        np.testing.assert_allclose(frame[names], expected(single(), 4, levels)[0], rtol=1e-12)
        np.testing.assert_allclose(frame["forecast"], expected(single(), 4, [0.5])[0, :, 0], rtol=1e-12)

    @pytest.mark.parametrize(
        ("quantile", "name"),
        [
            (0.1, "q10"),
            (0.025, "q2.5"),
            (0.5, "q50"),
            (0.975, "q97.5"),
            (0.001, "q0.1"),
            (0.29, "q29"),
            (0.999, "q99.9"),
        ],
    )
    def test_names(self, quantile: float, name: str) -> None:
        assert quantile_name(quantile) == name

    def test_not_learned(self) -> None:
        for config in (ForecastConfig(interval=(95,)), ForecastConfig(quantiles=(0.95,)), ForecastConfig(horizon=5)):
            with pytest.raises(UsageError, match=r"95|horizon is 5|0\.025"):
                forecast_frame(FORECASTER, single(), config)


class TestWide:
    def test_mirrors_the_input(self) -> None:
        """The input's columns in the input's order, one row per time."""
        panel = wide([0, 0])
        frame = forecast_frame(FORECASTER, panel, ForecastConfig(wide=True))
        assert list(frame) == ["ds", "y", "x"]
        assert frame["ds"].tolist() == [f"1970-01-01 {hour}:00" for hour in (20, 21, 22, 23)]
        np.testing.assert_array_equal(frame[["y", "x"]], expected(panel, 4, [0.5])[:, :, 0].T)

    def test_series_that_end_elsewhere_leave_blanks(self) -> None:
        panel = wide([0, 6])
        frame = forecast_frame(FORECASTER, panel, ForecastConfig(wide=True, horizon=2))
        assert frame["ds"].tolist() == ["1970-01-01 20:00", "1970-01-01 21:00", "1970-01-02 02:00", "1970-01-02 03:00"]
        (first, second) = expected(panel, 2, [0.5])[:, :, 0].tolist()
        blank = [np.nan, np.nan]
        np.testing.assert_array_equal(frame[["y", "x"]], np.array([first + blank, blank + second]).T)

    def test_of_other_layouts(self) -> None:
        """A long file's series become columns; one series is the column `forecast`."""
        assert list(forecast_frame(FORECASTER, long(), ForecastConfig(wide=True))) == ["when", "c, 1", "a, 2", "b, 1"]
        assert list(forecast_frame(FORECASTER, single(), ForecastConfig(wide=True))) == ["ds", "forecast"]

    @pytest.mark.parametrize(
        "more", [ForecastConfig(wide=True, quantiles=(0.1,)), ForecastConfig(wide=True, interval=(80,))]
    )
    def test_has_no_room_for_quantiles(self, more: ForecastConfig) -> None:
        with pytest.raises(UsageError, match="--wide"):
            forecast_frame(FORECASTER, wide([0, 0]), more)


class TestBacktest:
    def frames(self, panel: Panel) -> list[pd.DataFrame]:
        """Two origins of the second series and one of the first, two rows each; every number its own."""
        origins = Origins(np.array([0, 1, 1]), np.array([5, 3, 7]))
        actual = np.array([[1.0, np.nan], [3, 4], [5, 6]])
        values = np.arange(12.0).reshape(3, 2, 2)
        return list(backtest_frames(panel, origins, actual, 10 * actual, values, [0.1, 0.9]))

    def test_columns_and_rows(self) -> None:
        """Keys, cutoff, time, actual, forecast, quantiles; in the order of the origins."""
        (frame,) = self.frames(long())
        assert list(frame) == ["shop", "item", "cutoff", "when", "actual", "forecast", "q10", "q90"]
        assert frame["shop"].tolist() == ["c", "c", "a", "a", "a", "a"]
        assert frame["cutoff"].tolist() == [f"1970-01-01 {hour}:00" for hour in ("04", "04", 14, 14, 18, 18)]
        assert frame["when"].tolist() == [f"1970-01-01 {hour}:00" for hour in ("05", "06", 15, 16, 19, 20)]
        np.testing.assert_array_equal(frame["actual"], [1, np.nan, 3, 4, 5, 6])
        np.testing.assert_array_equal(frame["forecast"], [10, np.nan, 30, 40, 50, 60])
        np.testing.assert_array_equal(frame[["q10", "q90"]].to_numpy().ravel(), np.arange(12))

    def test_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whole origins at a time, together the same table."""
        (frame,) = self.frames(long())
        monkeypatch.setattr("stacklstm_cli.model.frame.ROWS_AT_ONCE", 5)
        parts = self.frames(long())
        assert [len(part) for part in parts] == [4, 2]
        pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), frame)

    @pytest.mark.parametrize(
        "columns", [Columns("long", ("ds",), ("actual",), ("y",)), Columns("single", ("cutoff",), (), ("y",))]
    )
    def test_two_columns_of_one_name(self, columns: Columns) -> None:
        """An id or a time of such a name is refused; a target of it is in no column."""
        with pytest.raises(DataError, match="has the name of another column"):
            refuse_backtest_clash(dataclasses.replace(single(), columns=columns))
        refuse_backtest_clash(dataclasses.replace(single(), columns=Columns("single", ("ds",), (), ("actual",))))


def test_attention_weights_stand_beside_the_last_row_of_each_step() -> None:
    """Three steps of two rows, the newest last; what the network says, 1 in total for each series."""
    forecaster = Forecaster(shaken_network(small_spec(attention=True), dtype=torch.float32), torch.device("cpu"))
    panel = make_panel(wave(30), wave(20), starts=[0, 5])
    frame = attention_frame(forecaster, panel)
    assert list(frame.columns) == ["id", "ds", "weight"]
    assert frame["ds"].tolist() == panel.stamps([25, 27, 29, 20, 22, 24])
    origins = Origins(np.arange(2), panel.lengths)
    batch = Windows(panel, forecaster.spec, torch.device("cpu")).batch(
        torch.tensor([0, 1]), torch.tensor(panel.lengths)
    )
    inputs = batch.inputs.to(torch.device("cpu"), torch.float32)
    outputs = forecaster.network.stack(forecaster.network.patches(inputs))
    expected = forecaster.network.stack.attention_weights(outputs).detach().numpy()
    np.testing.assert_allclose(frame["weight"].to_numpy().reshape(2, 3), expected, rtol=1e-6)
    np.testing.assert_allclose(forecaster.attention_weights(panel, origins).sum(1), 1, rtol=1e-6)
    with pytest.raises(UsageError, match="no attention"):
        attention_frame(FORECASTER, panel)
