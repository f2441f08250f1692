"""What is wrong with forecasts: found where it is wrong, not where nothing better can be known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from panels import make_panel

from stacklstm_cli.data.origins import Origins, plan_origins
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.evaluation.backtest import Backtest, backtest
from stacklstm_cli.evaluation.baselines import standard_baselines
from stacklstm_cli.evaluation.diagnosis import Finding, changes, diagnose
from stacklstm_cli.evaluation.verdict import MODEL

World = Callable[[np.random.Generator, int], Floats]
Rule = Callable[[Floats, Floats], tuple[Any, Any]]
"""From the known values of a series and the steps ahead to location and scale of what comes."""
QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)
SEASON = 12


class Gaussian:
    """Forecasts by a rule."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        normal = np.asarray([NormalDist().inv_cdf(quantile) for quantile in quantiles])
        forecast = np.empty((len(origins), horizon, len(quantiles)))
        for at, (series, rows) in enumerate(zip(origins.series, origins.rows, strict=True)):
            location, scale = self.rule(panel.series(series)[:rows], np.arange(1.0, horizon + 1))
            forecast[at] = (
                np.broadcast_to(location, horizon)[:, None] + np.broadcast_to(scale, horizon)[:, None] * normal
            )
        return forecast


def white_noise(random: np.random.Generator, rows: int) -> Floats:
    return 50 + random.normal(size=rows)


def random_walk(random: np.random.Generator, rows: int) -> Floats:
    return 500 + np.cumsum(random.normal(size=rows))


def seasonal(random: np.random.Generator, rows: int) -> Floats:
    return 50 + 5 * wave(np.arange(rows)) + random.normal(size=rows)


def autoregression(random: np.random.Generator, rows: int) -> Floats:
    values = random.normal(size=rows + 50)
    for row in range(1, rows + 50):
        values[row] += 0.8 * values[row - 1]
    return 50 + values[50:]


def wave(rows: Floats) -> Floats:
    return np.sin(rows * 2 * np.pi / SEASON)


KNOWN: dict[World, Rule] = {
    white_noise: lambda known, ahead: (50, 1),
    random_walk: lambda known, ahead: (known[-1], np.sqrt(ahead)),
    seasonal: lambda known, ahead: (50 + 5 * wave(known.size - 1 + ahead), 1),
    autoregression: lambda known, ahead: (
        50 + 0.8**ahead * (known[-1] - 50),
        np.sqrt((1 - 0.64**ahead) / 0.36),
    ),
}
"""The best forecast of each world."""
SCORED = [(400, 12, 12, 12, 1), (400, 12, 2, 60, 1), (400, 1, 1, 60, 1), (240, 12, 12, 2, 6)]
"""Rows, horizon, step, origins and series: apart, overlapping, one step ahead, few cutoffs of several series."""


def scored(values: Sequence[Floats], rule: Rule, horizon: int = 12, step: int = 12, origins: int = 12) -> Backtest:
    panel = make_panel(*values)
    chosen = plan_origins(np.ones_like(panel.lengths), panel.lengths, horizon, step, origins)
    predictors = {MODEL: Gaussian(rule), **standard_baselines(SEASON)}
    return backtest(predictors, panel, chosen, horizon, QUANTILES, SEASON)


def codes(findings: Sequence[Finding]) -> set[str]:
    return {finding.code for finding in findings if finding.code}


def alarms(world: World, trials: int) -> tuple[Counter[str], int]:
    """How often each code is found where the forecast is the best there is, and in how many backtests."""
    random, found = np.random.default_rng(7), Counter[str]()
    for _ in range(trials):
        for rows, horizon, step, origins, series in SCORED:
            values = [world(random, rows) for _ in range(series)]
            found.update(codes(diagnose(scored(values, KNOWN[world], horizon, step, origins))))
    return found, trials * len(SCORED)


@pytest.mark.parametrize("world", KNOWN)
def test_no_false_alarms(world: World) -> None:
    """Nothing is found in 19 of 20 backtests and more."""
    found, number = alarms(world, 4)
    assert sum(found.values()) <= 1, (found, number)


@pytest.mark.slow
@pytest.mark.parametrize("world", KNOWN)
def test_rate_of_false_alarms(world: World) -> None:
    """Each code in less than 3 of 100 backtests, all together in less than 5."""
    found, number = alarms(world, 100)
    assert max(found.values(), default=0) < 0.03 * number
    assert sum(found.values()) < 0.05 * number


def often(code: str, world: World, rule: Rule, change: Callable[[Floats], Floats] = lambda values: values) -> float:
    """In what share of ten backtests a code is found."""
    random = np.random.default_rng(3)
    return float(np.mean([code in codes(diagnose(scored([change(world(random, 400))], rule))) for _ in range(10)]))


class TestDetection:
    def test_flat(self) -> None:
        """The mean of a seasonal series, which seasonal naive moves with."""
        assert often("flat_forecast", seasonal, lambda known, ahead: (50, 4)) == 1

    def test_flat_before_a_trend(self) -> None:
        def trend(random: np.random.Generator, rows: int) -> Floats:
            return np.arange(rows) + random.normal(size=rows)

        assert often("flat_forecast", trend, lambda known, ahead: (known[-1] + 6.5, 5)) == 1

    @pytest.mark.parametrize(("world", "least"), [(white_noise, 0.6), (seasonal, 0.9)])
    def test_lagged_copy(self, world: World, least: float) -> None:
        """The last value where the mean, or the season, is known; from twelve cutoffs."""
        assert often("lagged_copy", world, lambda known, ahead: (known[-1], 3)) >= least

    def test_a_copy_one_step_ahead(self) -> None:
        random = np.random.default_rng(0)
        found = diagnose(scored([seasonal(random, 400)], lambda known, ahead: (known[-1], 2), 1, 1, 60))
        assert "lagged_copy" in codes(found)

    def test_of_a_random_walk_naive_is_as_good_which_is_no_warning(self) -> None:
        found = diagnose(scored([random_walk(np.random.default_rng(0), 400)], KNOWN[random_walk]))
        assert [finding.code for finding in found] == [""]
        assert "no baseline knows better" in found[0].text

    @pytest.mark.parametrize(("factor", "word"), [(0.4, "narrow"), (3.0, "wide")])
    def test_intervals(self, factor: float, word: str) -> None:
        random = np.random.default_rng(0)
        found = diagnose(scored([white_noise(random, 400)], lambda known, ahead: (50, factor)))
        (text,) = [finding.text for finding in found if finding.code == "intervals_not_calibrated"]
        assert "Of 144 values at 12 cutoffs" in text
        assert f"(too {word})" in text

    def test_one_wrong_interval_of_two_is_named(self) -> None:
        """Quantiles of a normal distribution where what comes is even: the widest holds all, the other 4 of 5."""

        def even(random: np.random.Generator, rows: int) -> Floats:
            return random.uniform(-1.6, 1.6, size=rows)

        found = diagnose(scored([even(np.random.default_rng(1), 900)], lambda known, ahead: (0, 1), 12, 12, 40))
        texts = [finding.text for finding in found if finding.code == "intervals_not_calibrated"]
        assert texts == ["Of 480 values at 40 cutoffs, the 95 % interval held 100 % (too wide)."]

    def test_worse_than_naive(self) -> None:
        assert often("worse_than_naive", random_walk, lambda known, ahead: (known[-1] + 15, 3)) == 1

    def test_a_level_that_moved(self) -> None:
        def shifted(values: Floats) -> Floats:
            return values + 6 * (np.arange(values.size) >= 300)

        for world in (white_noise, seasonal):
            assert often("data_drift", world, KNOWN[world], shifted) >= 0.9

    def test_a_spread_that_grew(self) -> None:
        def wider(values: Floats) -> Floats:
            return 50 + (values - 50) * np.where(np.arange(values.size) >= 270, 5, 1)

        assert often("data_drift", white_noise, KNOWN[white_noise], wider) >= 0.7

    def test_the_series_are_named(self) -> None:
        random = np.random.default_rng(0)
        values = [white_noise(random, 400) for _ in range(5)]
        values[3][300:] += 12
        found = [one.text for one in diagnose(scored(values, KNOWN[white_noise])) if one.code == "data_drift"]
        assert len(found) == 1
        assert "the level changed in 1 of 5 series (s3)" in found[0]


class TestEdges:
    def test_few_origins_are_not_diagnosed_by_chance(self) -> None:
        """Two origins of one series: no test has anything to stand on."""
        values = [seasonal(np.random.default_rng(0), 240)]
        assert codes(diagnose(scored(values, lambda known, ahead: (50, 0.01), origins=2))) <= {"data_drift"}

    def test_too_few_origins_to_tell_say_nothing_of_naive(self) -> None:
        """Of one value naive is often twice as near by chance."""
        random = np.random.default_rng(0)
        ratios = []
        for _ in range(40):
            some = scored([white_noise(random, 100)], KNOWN[white_noise], 1, 1, 1)
            table = some.metrics()
            ratios.append((table["stacklstm"]["mae"] or 0) / (table["naive"]["mae"] or 1))
            assert "worse_than_naive" not in codes(diagnose(some))
        assert max(ratios) > 2

    def test_a_constant_series_and_a_forecast_off_by_rounding(self) -> None:
        """No error to speak of is not twice that of naive."""
        found = diagnose(scored([np.full(400, 7.0)], lambda known, ahead: (7.000001, 0.0)))
        assert "worse_than_naive" not in codes(found)

    def test_nothing_observed(self) -> None:
        values = np.full(400, np.nan)
        values[[0, -1]] = 5, 5
        some = scored([values], lambda known, ahead: (5, 1))
        some.actual[:] = np.nan
        assert diagnose(some) == []

    def test_gaps_are_passed_over(self) -> None:
        random = np.random.default_rng(0)
        values = seasonal(random, 400)
        values[10:390][random.random(380) < 0.3] = np.nan
        assert codes(diagnose(scored([values], KNOWN[seasonal]))) == set()

    def test_a_forecast_that_is_not_finite(self) -> None:
        assert codes(
            diagnose(scored([white_noise(np.random.default_rng(0), 400)], lambda known, ahead: (math.nan, 1)))
        ) <= {"intervals_not_calibrated"}

    def test_units_do_not_matter(self) -> None:
        """The same findings in other units."""
        values = seasonal(np.random.default_rng(0), 400)
        values[330:] += 9
        plain = diagnose(scored([values], lambda known, ahead: (50, 0.2)))
        scaled = diagnose(scored([values * 1e6], lambda known, ahead: (50e6, 0.2e6)))
        assert plain == scaled
        assert codes(plain) >= {"data_drift", "intervals_not_calibrated"}

    def test_short_histories_have_no_changes(self) -> None:
        some = scored([white_noise(np.random.default_rng(0), 100)], KNOWN[white_noise], origins=3)
        assert changes(some, 0) == {}
