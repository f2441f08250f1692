"""Pictures: what is drawn is what was forecast, scored and learned; files; refusals; the terminal."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from panels import make_panel, wave
from rich.cells import cell_len

from stacklstm_cli.cli import plots
from stacklstm_cli.cli.axes import NumberAxis, TimeAxis, number_ticks, round_numbers, value_range
from stacklstm_cli.cli.charts import (
    Chart,
    Line,
    Picture,
    backtest_picture,
    forecast_picture,
    shortened,
)
from stacklstm_cli.cli.losses import Losses, training_picture
from stacklstm_cli.cli.terminal import text_of
from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.origins import plan_origins
from stacklstm_cli.data.panel import Columns, Panel
from stacklstm_cli.evaluation.backtest import Backtest, backtest
from stacklstm_cli.evaluation.baselines import standard_baselines
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.training.loop import Fit

HOURLY = (Step("second", 3600), TimeForm("datetime", "%Y-%m-%d %H:%M"))
STEPS: dict[str, tuple[Step, TimeForm]] = {
    "hourly": HOURLY,
    "hourly in Berlin": (Step("second", 3600), TimeForm("datetime", "%Y-%m-%d %H:%M", tz="Europe/Berlin")),
    "every tenth of a second": (Step("second", 0.1), TimeForm("datetime", "%Y-%m-%d %H:%M:%S", fraction=1)),
    "daily": (Step("day"), TimeForm("datetime", "%Y-%m-%d", local=True)),
    "business days": (Step("business_day"), TimeForm("datetime", "%d/%m/%Y", local=True)),
    "weekly": (Step("day", 7), TimeForm("datetime", "%Y-%m-%d", local=True)),
    "ends of months": (Step("month", 1, "end"), TimeForm("datetime", "%Y-%m-%d", local=True)),
    "quarterly": (Step("month", 3, "start"), TimeForm("datetime", "%YQ%q", local=True)),
    "yearly": (Step("month", 12, "start"), TimeForm("datetime", "%Y", local=True)),
    "counted": (Step("step"), TimeForm("integer")),
    "counted by sevens": (Step("step", 7, phase=3), TimeForm("integer")),
}


def on(panel: Panel, name: str) -> Panel:
    """The panel on another grid."""
    step, form = STEPS[name]
    return dataclasses.replace(panel, step=step, time_form=form)


def forecasts(panel: Panel, horizon: int, quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)) -> pd.DataFrame:
    """A forecast of every series, each number another."""
    rows = panel.n_series * horizon
    frame = pd.DataFrame({"forecast": 40 + np.arange(rows) % 7 + np.arange(rows) / 100})
    for level in quantiles:
        frame[f"q{100 * level:g}"] = frame["forecast"] + 20 * (level - 0.5)
    return frame


def backtested(panel: Panel, horizon: int = 4, step: int = 4, origins: int = 3) -> Backtest:
    """A backtest in which a seasonal naive forecast of a season of 5 plays the model."""
    chosen = plan_origins(panel.lengths * 0 + 20, panel.lengths, horizon, step, origins)
    predictors = {MODEL: standard_baselines(5)["seasonal_naive"], **standard_baselines(24)}
    return backtest(predictors, panel, chosen, horizon, (0.05, 0.1, 0.5, 0.9, 0.95), 24)


@pytest.fixture
def style() -> Iterator[None]:
    with plots.drawing():
        yield


def lines_of(figure: Figure, place: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Label -> data of the lines of some axes."""
    found = {}
    for line in figure.axes[place].lines:
        found[str(line.get_label())] = (
            np.asarray(line.get_xdata(), dtype=float),
            np.asarray(line.get_ydata(), dtype=float),
        )
    return found


class TestAxes:
    @pytest.mark.parametrize(
        ("name", "first", "last", "labels"),
        [
            ("ends of months", 0, 40, ["1970", "1971", "1972", "1973"]),
            ("ends of months", -14, -3, ["Jan 1969", "Apr", "Jul", "Oct"]),
            ("quarterly", 0, 9, ["Jan 1970", "Jul", "Jan 1971", "Jul", "Jan 1972"]),
            ("yearly", -20, 30, ["1950", "1960", "1970", "1980", "1990", "2000"]),
            ("hourly", 0, 60, ["00:00 1 Jan 1970", "12:00", "00:00 2 Jan 1970", "12:00", "00:00 3 Jan 1970", "12:00"]),
            ("business days", 0, 12, ["29 Dec 1969", "5 Jan 1970", "12 Jan"]),
            ("counted", 7, 60, ["10", "20", "30", "40", "50", "60"]),
            ("counted by sevens", 0, 3, ["3", "10", "17", "24"]),
        ],
    )
    def test_ticks_stand_at_the_first_row_of_each_unit(
        self, name: str, first: int, last: int, labels: list[str]
    ) -> None:
        """The finest unit that there is room for; what labels share is said where it changes."""
        found = TimeAxis(on(make_panel([1.0, 2.0]), name)).ticks(first, last, 6)
        assert [tick.line for tick in found] == labels

    def test_local_midnights_across_a_switch_of_the_clocks(self) -> None:
        """31 March 2024 has 23 hours in Berlin."""
        midnight = 475007  # 2024-03-10 00:00 in Berlin, in hours after 1970 UTC
        panel = on(make_panel([1.0, 2.0]), "hourly in Berlin")
        days = TimeAxis(panel).ticks(midnight + 20 * 24, midnight + 23 * 24, 4)
        assert [tick.label for tick in days] == ["30 Mar", "31 Mar", "1 Apr", "2 Apr"]
        assert np.diff([tick.at for tick in days]).tolist() == [24, 23, 24]

    @settings(max_examples=60, deadline=None)
    @given(
        name=st.sampled_from(sorted(STEPS)),
        first=st.integers(-3000, 3000),
        rows=st.integers(0, 3000),
        most=st.integers(2, 12),
    )
    def test_ticks_are_few_and_in_the_range(self, name: str, first: int, rows: int, most: int) -> None:
        """Whatever the step and the range, and at least one."""
        ticks = TimeAxis(on(make_panel([1.0, 2.0]), name)).ticks(first, first + rows, most)
        places = [tick.at for tick in ticks]
        assert 1 <= len(places) <= most
        assert places == sorted(set(places))
        assert first <= min(places) <= max(places) <= first + rows
        assert all(tick.label for tick in ticks)

    @settings(max_examples=200, deadline=None)
    @given(
        low=st.floats(-1e12, 1e12),
        spread=st.floats(1e-6, 1e12),
        most=st.integers(2, 10),
    )
    def test_numbers_are_round_and_labels_differ(self, low: float, spread: float, most: int) -> None:
        """At most so many, in the range, no two alike, and what a label says is where it stands."""
        low, high = value_range(low, low + spread)
        ticks = number_ticks(low, high, most)
        assert len(ticks) <= most
        assert len({tick.label for tick in ticks}) == len(ticks)
        for tick in ticks:
            assert low - (high - low) * 1e-6 <= tick.at <= high + (high - low) * 1e-6
            assert float(tick.label.replace(",", "")) == pytest.approx(tick.at, abs=(high - low) * 1e-6)

    def test_labels_of_numbers(self) -> None:
        assert [tick.label for tick in number_ticks(0, 3000, 4)] == ["0", "1,000", "2,000", "3,000"]
        assert [tick.label for tick in number_ticks(9.8e8, 1.03e9, 6)] == ["0.98e9", "0.99e9", "1.00e9", "1.01e9", "1.02e9", "1.03e9"]  # fmt: skip  # noqa: E501
        assert [tick.label for tick in number_ticks(0, 3e-7, 4)] == ["0", "1e-7", "2e-7", "3e-7"]
        assert round_numbers(5, 5, 3) == [5]
        assert [tick.label for tick in NumberAxis().ticks(1, 3, 9)] == ["1", "2", "3"]

    def test_a_constant_has_an_axis(self) -> None:
        """Also where an interval about it is wide by a rounding error."""
        assert value_range(5, 5) == value_range(5, 5) == (4.75, 5.25)
        assert value_range(5, 5 + 1e-8) == pytest.approx((4.75, 5.25))
        assert value_range(0, 0) == (-0.05, 0.05)


class TestForecasts:
    @pytest.mark.usefixtures("style")
    def test_what_is_drawn_is_the_history_and_the_frame(self) -> None:
        """The newest rows, gaps as gaps, the forecast behind them, the interval, the last known row."""
        values = wave(200)
        values[150:155] = np.nan
        panel = make_panel(values, starts=[1000])
        frame = forecasts(panel, 24, (0.025, 0.1, 0.5, 0.9, 0.975))
        figure = plots.figure_of(forecast_picture(panel, frame, 24, 24, "m"))
        lines = lines_of(figure)
        assert lines["history"][0].tolist() == list(range(1104, 1200))  # four seasons
        np.testing.assert_array_equal(lines["history"][1], values[104:])
        assert lines["forecast"][0].tolist() == list(range(1200, 1224))
        assert lines["forecast"][1].tolist() == frame["forecast"].tolist()
        assert set(lines["last known row"][0]) == {1199}
        bands = [one for one in figure.axes[0].collections if one.get_paths()]
        edges = [np.unique(np.asarray(one.get_paths()[0].vertices), axis=0) for one in bands]
        for found, (low, high) in zip(edges, [("q2.5", "q97.5"), ("q10", "q90")], strict=True):
            expected = np.concatenate([frame[low], frame[high]])
            assert set(expected.round(9)) == set(found[:, 1].round(9))
        assert entries(figure) == ["history", "forecast", "95 % interval", "80 % interval", "last known row"]
        assert figure.axes[0].get_ylabel() == "y"

    @pytest.mark.usefixtures("style")
    def test_one_panel_for_each_series_up_to_twenty(self) -> None:
        """Titles are the names, the rest is said."""
        panel = make_panel(*[wave(60, seed) for seed in range(23)])
        picture = forecast_picture(panel, forecasts(panel, 4), 4, 24, "m")
        figure = plots.figure_of(picture)
        assert [axes.get_title(loc="left") for axes in figure.axes] == [f"s{index}" for index in range(20)]
        assert picture.left_out == "the first 20 of 23 series are drawn"
        assert any(picture.left_out in text.get_text() for text in figure.texts)
        frame = forecasts(panel, 4)
        assert lines_of(figure, 7)["forecast"][1].tolist() == frame["forecast"][28:32].tolist()

    @pytest.mark.usefixtures("style")
    def test_without_intervals_and_with_lone_quantiles(self) -> None:
        """A point forecast has no band; a quantile without its counterpart is a line."""
        panel = make_panel(wave(60))
        plain = plots.figure_of(forecast_picture(panel, forecasts(panel, 4, ()), 4, 24, "m"))
        assert entries(plain) == ["history", "forecast", "last known row"]
        lone = plots.figure_of(forecast_picture(panel, forecasts(panel, 4, (0.1, 0.5)), 4, 24, "m"))
        assert entries(lone) == ["history", "q10", "forecast", "last known row"]

    @pytest.mark.usefixtures("style")
    def test_values_without_neighbours_and_intervals_of_one_row_are_seen(self) -> None:
        """A line shows neither, so they are drawn as points and as a bar."""
        values = wave(30)
        values[[20, 22]] = np.nan
        panel = make_panel(values)
        figure = plots.figure_of(forecast_picture(panel, forecasts(panel, 1), 1, 1, "m"))
        dots = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
        assert [np.asarray(line.get_xdata()).tolist() for line in dots] == [[21], [30]]
        bar = next(one for one in figure.axes[0].collections if one.get_paths())
        assert np.ptp(np.asarray(bar.get_paths()[0].vertices)[:, 0]) > 0.5

    @pytest.mark.parametrize(
        ("name", "series"),
        [
            *((name, 1) for name in ("hourly in Berlin", "ends of months", "business days", "counted")),
            ("hourly", 3),
            ("hourly", 8),
            *(pytest.param(name, series, marks=pytest.mark.slow) for name in sorted(STEPS) for series in (1, 20)),
        ],
    )
    def test_labels_do_not_overlap(self, name: str, series: int) -> None:
        """Measured in the finished picture, whatever the step and however many panels."""
        names = ["A rather long name, such as of a shop in a street of a town, till 3"] * series
        panel = on(make_panel(*[wave(120, seed) * 1e6 for seed in range(series)]), name)
        panel = dataclasses.replace(panel, keys=tuple((text,) for text in names) if series > 1 else panel.keys)
        picture = forecast_picture(panel, forecasts(panel, 12), 12, 24, "m")
        with plots.drawing(8.0 if series > 8 else 9.0):
            figure = plots.figure_of(picture)
            assert_legible(figure)

    def test_names_are_text(self) -> None:
        """Neither formulas nor markup, in their own characters; control characters are made visible."""
        panel = make_panel(wave(60), wave(60, 1), wave(60, 2))
        keys = (("$x_1$ <b>&amp;",), ("東京",), ("a\x1b[2Jb",))
        panel = dataclasses.replace(panel, keys=keys)
        svg = plots.picture_bytes(forecast_picture(panel, forecasts(panel, 4), 4, 24, "m"), ".svg").decode()
        for shown in ("$x_1$ &lt;b&gt;&amp;amp;", "東京", "a\\x1b[2Jb"):
            assert f">{shown}</text>" in svg
        assert "\x1b" not in svg

    @pytest.mark.parametrize("suffix", plots.SUFFIXES)
    def test_equal_pictures_are_equal_files(self, suffix: str) -> None:
        """No date, no version, no random identifier; and each in its own format."""
        panel = make_panel(wave(60), wave(60, 1))
        made = [plots.picture_bytes(forecast_picture(panel, forecasts(panel, 4), 4, 24, "m"), suffix) for _ in "ab"]
        assert made[0] == made[1]
        assert made[0].startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
        assert not re.search(rb"20[2-9]\d-\d\d-\d\dT|[Mm]atplotlib v?\d|CreationDate", made[0])

    def test_a_panel_of_millions_of_rows_is_drawn_from_its_end(self) -> None:
        """Tails and limited panels: 2,000,000 rows in 20,000 series."""
        rows, series = 100, 20_000
        values = np.tile(wave(rows), series)
        columns = Columns("long", ("ds",), ("id",), ("y",))
        panel = Panel(
            columns, *HOURLY, tuple((f"s{n}",) for n in range(series)), values,
            np.arange(series + 1) * rows, np.zeros(series, dtype=np.int64),
        )  # fmt: skip
        picture = forecast_picture(panel, forecasts(panel.part(0, 20), 24), 24, 24, "m")
        assert len(picture.charts) == 20
        assert sum(line.x.size for chart in picture.charts for line in chart.lines) == 20 * (96 + 24)


def entries(figure: Figure, place: int = 0) -> list[str]:
    """The labels of a legend of the figure."""
    return [text.get_text() for text in figure.legends[place].get_texts()]


def text_boxes(figure: Figure) -> list[tuple[str, Any]]:
    """Every text that is seen, and where."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = list(figure.texts)
    for legend in figure.legends:
        texts += legend.get_texts()
    for axes in figure.axes:
        labels = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        texts += [axes.title, cast("Any", axes)._left_title, axes.xaxis.label, axes.yaxis.label, *labels]
    renderer = canvas.get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]


def assert_legible(figure: Figure) -> None:
    """Every text is inside the picture and over no other."""
    boxes = text_boxes(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for index, (text, box) in enumerate(boxes):
        assert min(box.x0, box.y0) >= -2, text
        assert max(box.x1 - width, box.y1 - height) <= 2, text
        for other, place in boxes[index + 1 :]:
            assert not box.shrunk(0.97, 0.9).overlaps(place.shrunk(0.97, 0.9)), (text, other)


class TestBacktests:
    @pytest.mark.parametrize("series", [1, 3])
    @pytest.mark.usefixtures("style")
    def test_labels_do_not_overlap(self, series: int) -> None:
        """Also with all baselines there are, one of them off the scale."""
        found = backtested(make_panel(*[10 * np.arange(60) + wave(60, seed) / 100 for seed in range(series)]))
        more = dict.fromkeys(("auto_ets", "auto_theta"), found.forecasts["naive"])
        found = dataclasses.replace(found, forecasts=found.forecasts | more)
        picture = backtest_picture(found, 4, "holdout", "m")
        assert_legible(plots.figure_of(picture))
        assert_legible(plots.figure_of_chart(picture.charts[0], 5.2, 3))
        assert_legible(plots.figure_of_chart(picture.beside[0], 5.2, 3))

    @pytest.mark.usefixtures("style")
    def test_forecasts_by_origin_beside_what_came(self) -> None:
        """Each forecast where it belongs, a line of its own; the actual values without the gaps closed."""
        values = wave(60)
        values[50] = np.nan
        found = backtested(make_panel(values, starts=[500]))
        figure = plots.figure_of(backtest_picture(found, 4, "holdout", "model m"))
        lines = lines_of(figure)
        x, y = lines["forecast"]
        assert x[~np.isnan(x)].tolist() == list(range(548, 560))
        np.testing.assert_array_equal(y[~np.isnan(y)], found.forecasts[MODEL][:, :, 2].ravel())
        assert np.isnan(y)[[4, 9, 14]].all()
        begin = round(lines["actual"][0][0])
        np.testing.assert_array_equal(lines["actual"][1], values[begin - 500 :])
        cutoffs = [
            line for line in figure.axes[0].lines if line.get_label() == "cutoff" or line.get_color() == plots.FAINT
        ]
        assert sorted({float(np.asarray(line.get_xdata())[0]) for line in cutoffs}) == [547, 551, 555]
        assert entries(figure) == ["actual", "forecast", "90 % interval", "80 % interval", "cutoff"]

    @pytest.mark.usefixtures("style")
    def test_errors_by_step_are_means_over_origins(self) -> None:
        """Beside a slow loop; of several series in units of MASE."""
        found = backtested(make_panel(wave(60)))
        lines = lines_of(plots.figure_of(backtest_picture(found, 4, "holdout", "m")), 1)
        for name in ("naive", "drift"):
            slow = [
                float(np.mean([abs(found.actual[o, h] - found.forecasts[name][o, h, 2]) for o in range(3)]))
                for h in range(4)
            ]
            drawn = next(values for label, (_, values) in lines.items() if label.split(" (")[0] == name)
            np.testing.assert_allclose(drawn, slow)
        several = backtested(make_panel(wave(60), wave(70, 3) * 1000))
        figure = plots.figure_of(backtest_picture(several, 4, "holdout", "m"))
        scores = np.asarray([step["metrics"][MODEL]["mase"] for step in several.per_step()])
        np.testing.assert_allclose(lines_of(figure, 2)[MODEL][1], scores)
        assert figure.axes[2].get_ylabel() == "MASE"

    @pytest.mark.usefixtures("style")
    def test_coverage_is_nominal_against_achieved(self) -> None:
        """Of the model and of each baseline that has intervals, as the table has it."""
        found = backtested(make_panel(wave(60)))
        figure = plots.figure_of(backtest_picture(found, 4, "holdout", "m"))
        lines, metrics = lines_of(figure, 2), found.metrics()
        for name in found.forecasts:
            assert lines[name][0].tolist() == [80, 90]
            shares = [metrics[name]["coverage_80"], metrics[name]["coverage_90"]]
            np.testing.assert_allclose(lines[name][1] / 100, np.asarray(shares, dtype=float))
        assert entries(figure, 1)[0] == MODEL
        assert {name.split(" (")[0] for name in entries(figure, 1)} == {*found.forecasts, "as it should be"}

    def test_a_baseline_far_off_does_not_flatten_the_rest(self) -> None:
        """Its errors leave the picture, which its label says where nothing of it is seen."""
        found = backtested(make_panel(10 * np.arange(60) + wave(60) / 100))
        chart = backtest_picture(found, 4, "holdout", "m").beside[0]
        assert chart.top is not None
        labels = [line.label for line in chart.lines]
        assert labels[0] == MODEL
        for line in chart.lines:
            assert ("off the scale" in line.label) == (np.nanmin(line.y) > chart.top)
        assert "seasonal_average (off the scale)" in labels

    def test_origins_that_overlap_are_thinned(self) -> None:
        """Forecasts are not drawn over each other: from the newest back, every one that has room."""
        found = backtested(make_panel(wave(100)), horizon=4, step=1, origins=40)
        x = backtest_picture(found, 1, "holdout", "m").charts[0].lines[1].x
        places = x[~np.isnan(x)]
        assert places.size == np.unique(places).size
        assert places.max() == 99

    def test_without_intervals_there_is_no_coverage(self) -> None:
        found = backtested(make_panel(wave(60)))
        point = dataclasses.replace(
            found, quantiles=(0.5,), forecasts={name: values[:, :, 2:3] for name, values in found.forecasts.items()}
        )
        picture = backtest_picture(point, 4, "holdout", "m")
        assert [chart.title for chart in picture.beside] == ["Error by step of the horizon"]
        assert plots.picture_bytes(picture, ".png")

    def test_three_of_many_series(self) -> None:
        found = backtested(make_panel(*[wave(60, seed) for seed in range(5)]))
        picture = backtest_picture(found, 4, "holdout", "m")
        assert [chart.title for chart in picture.charts] == ["s0", "s1", "s2"]
        assert picture.left_out == "the first 3 of 5 series are drawn"


class TestTrainings:
    def test_losses_step_by_step(self) -> None:
        """Training, validation, the best step and the refit, as the loop told them."""
        losses = Losses()
        for step in range(1, 9):
            validation = 1 / step if step % 2 == 0 else None
            losses.update({"phase": "choosing", "step": step, "loss": 2 / step, "validation": validation})
        for step in range(1, 7):
            losses.update({"phase": "refitting", "step": step, "loss": 3 / step, "validation": None})
        outcome = cast("Any", type("Outcome", (), {"fits": (Fit({}, 6, 1 / 6),)}))
        chart = training_picture(losses, outcome, "Losses", "m").charts[0]
        drawn = {line.role: line for line in chart.lines}
        assert drawn["training"].y.tolist() == [2 / step for step in range(1, 9)]
        assert (drawn["validation"].x.tolist(), drawn["validation"].y.tolist()) == ([2, 4, 6, 8], [1 / 2, 1 / 4, 1 / 6, 1 / 8])  # fmt: skip  # noqa: E501
        assert drawn["refit"].x.tolist() == [1, 2, 3, 4, 5, 6]
        assert chart.marks == ((6.0, "step 6: best validation loss"),)

    def test_long_trainings_are_averaged(self) -> None:
        """A hundred thousand steps are at most 400 points; their mean is that of all."""
        losses = Losses()
        for step in range(1, 100_001):
            losses.update({"phase": "training", "step": step, "loss": step % 10, "validation": None})
        outcome = cast("Any", type("Outcome", (), {"fits": (Fit({}, 100_000, None),)}))
        chart = training_picture(losses, outcome, "Losses", "m").charts[0]
        assert chart.lines[0].x.size == 400
        assert chart.lines[0].y.mean() == pytest.approx(4.5)
        assert chart.marks == ()


class TestTerminal:
    def picture(self) -> Picture:
        found = make_panel(wave(200))
        return forecast_picture(found, forecasts(found, 24), 24, 24, "m")

    @pytest.mark.parametrize("width", [40, 80, 132])
    @pytest.mark.parametrize("kind", ["forecast", "several", "backtest"])
    def test_it_fits(self, kind: str, width: int) -> None:
        """No line is wider than the terminal, and one chart is no higher than it."""
        several = make_panel(*[wave(60, seed) for seed in range(6)])
        picture = {
            "forecast": self.picture(),
            "several": forecast_picture(several, forecasts(several, 4), 4, 24, "m"),
            "backtest": backtest_picture(backtested(several), 4, "holdout", "m"),
        }[kind]
        lines = text_of(picture, width, 24, False, "utf-8").splitlines()
        assert max(map(cell_len, lines)) <= width
        if kind == "forecast":
            assert len(lines) <= 23 + (width == 40)

    def test_plain_text_without_colours(self) -> None:
        """No escape sequence; where the stream has no Braille, signs that every stream has."""
        plain = text_of(self.picture(), 80, 24, False, "utf-8")
        assert "\x1b" not in plain
        assert "⠒⠒ history" in plain
        ascii_only = text_of(self.picture(), 80, 24, False, "ascii")
        assert ascii_only.isascii()
        assert "* history" in ascii_only

    def test_colours_end_where_their_lines_end(self) -> None:
        """Every line that begins a colour ends it."""
        for line in text_of(self.picture(), 80, 24, True, "utf-8").splitlines():
            assert line.count("\x1b[") % 2 == 0
            assert "\x1b[" not in line or line.rstrip().rfind("\x1b[0m") >= line.rfind("\x1b[9")

    def test_the_highest_value_is_in_the_highest_row(self) -> None:
        """A ramp rises from the lower left to the upper right."""
        x = np.arange(50, dtype=np.float64)
        chart = Chart("", NumberAxis(), (Line("ramp", x, x, "actual"),))
        rows = text_of(Picture("t", "s", (chart,)), 60, 24, False, "utf-8").splitlines()[1:-3]
        first = [len(row) - len(row.split("│")[-1].split("┤")[-1].lstrip()) for row in rows]
        assert first == sorted(first, reverse=True)
        assert all("│" in row or "┤" in row for row in rows)

    def test_shortened_names_keep_both_ends(self) -> None:
        text = shortened("shop 12345 till 3", 12)
        assert len(text) == 12
        assert text.startswith("shop")
        assert text.endswith("3")
        assert cell_len(shortened("東京都渋谷区の売上", 9)) <= 9
        assert shortened("short", 12) == "short"
