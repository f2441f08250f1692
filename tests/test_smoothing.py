"""Forecasts by smoothing and their weights, against slow loops over the definitions and against statsforecast."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from statsforecast.ets import ets_f

from stacklstm_cli.data.panel import Floats
from stacklstm_cli.model.smoothing import (
    LARGEST_RATIO,
    LEAST_ERROR,
    LEVEL_RATES,
    MEMORY,
    PATTERNS,
    SHARPNESS,
    TRENDS,
    Smoothing,
    heard,
    responses,
    smoothers,
    tables_of,
    tried_origins,
)

SEASON, LENGTH, HORIZON, WIDTH = 4, 22, 6, 5


def context(seed: int = 0, windows: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(size=(windows, LENGTH)).cumsum(1)


@pytest.fixture(autouse=True)
def tables_made_anew() -> None:
    """Some tests change what they follow from."""
    tables_of.cache_clear()


def smoothing(horizon: int = HORIZON, season: int = SEASON) -> Smoothing:
    return Smoothing(LENGTH, horizon, season, WIDTH).double()


def loop(rows: Floats, season: int, horizon: int) -> Floats:
    """[K, H] every smoother, row by row."""
    found = []
    for count in PATTERNS if season > 1 else PATTERNS[:1]:
        seasons = [rows[len(rows) - back * season :][:season] for back in range(1, min(count, len(rows) // season) + 1)]
        pattern = sum((one - one.mean() for one in seasons), np.zeros(season)) / max(1, len(seasons))
        phase = (np.arange(len(rows)) - len(rows)) % season
        freed = rows - pattern[phase]
        for rate in LEVEL_RATES:
            for share, left in TRENDS:
                level, trend = freed[:season].mean(), 0.0
                for value in freed:
                    error = value - (level + left * trend)
                    level, trend = level + left * trend + rate * error, left * trend + rate * share * error
                steps = [sum(left**j for j in range(1, ahead + 1)) for ahead in range(1, horizon + 1)]
                found.append([level + trend * s + pattern[at % season] for at, s in enumerate(steps)])
    return np.array(found)


def each(model: Smoothing, rows: Floats, back: int = 0) -> Floats:
    """[K, H] what each smoother forecasts alone."""
    seen = rows[: len(rows) - back]
    weights = smoothers(len(seen), *responses(len(seen)), PATTERNS[: model.kinds[0]], model.season)
    level, trend, pattern = (one[0].numpy() for one in model.states(torch.as_tensor(seen), weights[None]))
    reached = np.array([np.cumsum(left ** np.arange(1.0, model.phase.numel() + 1)) for _, left in TRENDS])
    season = pattern[:, np.arange(model.phase.numel()) % model.season]
    return np.array(
        [level[kind] + trend[kind] * reached[kind[2]] + season[kind[0]] for kind in product(*map(range, model.kinds))]
    )


@pytest.mark.parametrize(("season", "horizon"), [(4, 6), (4, 3), (1, 6), (7, 16)])
@pytest.mark.parametrize("back", [0, 3])
def test_smoothers_equal_a_loop_over_the_rows(season: int, horizon: int, back: int) -> None:
    """Wrong if a pattern is out of phase, a trend does not fade, or a row after the origin is used."""
    model = smoothing(horizon, season)
    rows = context()
    expected = loop(rows[0, : LENGTH - back], season, horizon)
    np.testing.assert_allclose(each(model, rows[0], back), expected, rtol=1e-5, atol=1e-5)


def test_level_and_trend_are_those_of_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The damped trend with the rates that statsforecast finds, from the level and trend that it begins with."""
    rows = context(3)[0]
    model = ets_f(rows, m=1, model="AAN", damped=True)
    rate, trend_rate, _, left, *begin = model["par"]
    monkeypatch.setattr("stacklstm_cli.model.smoothing.LEVEL_RATES", (rate,))
    monkeypatch.setattr("stacklstm_cli.model.smoothing.TRENDS", ((trend_rate / rate, left),))
    alone = torch.zeros(1, dtype=torch.float64)
    found = smoothing(season=1).smoothed(torch.as_tensor(rows), alone).numpy()
    turn = np.array([[1 - rate, left * (1 - rate)], [-trend_rate, left * (1 - trend_rate)]])
    other = np.linalg.matrix_power(turn, LENGTH) @ (np.array([rows[0], 0.0]) - begin)  # ours begins at the first row
    level, trend = model["states"][-1, :2] + other
    np.testing.assert_allclose(found, level + trend * np.cumsum(left ** np.arange(1, HORIZON + 1)), rtol=1e-4)


@pytest.mark.parametrize(("rows_compared", "every"), [(12, 1), (2, 2)])
def test_weights_fall_with_the_errors_of_the_newest_rows(
    rows_compared: int, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stacklstm_cli.model.smoothing.TRIED_ROWS", rows_compared)
    season = SEASON
    rows = context(1, windows=3)
    observed = np.ones_like(rows)
    observed[0, :9] = 0.0
    observed[1, -5] = 0.0
    rows[0, :9] = 0.0
    model = smoothing()
    found = model.merit(torch.as_tensor(rows), torch.as_tensor(observed)).detach().numpy()
    for window in range(3):
        errors = np.full(math.prod(model.kinds), LEAST_ERROR)
        for back in tried_origins(LENGTH, season):
            begin, ahead = LENGTH - back, min(back, HORIZON, season)
            forecast = loop(rows[window, :begin], season, ahead)
            weight = observed[window, begin - season : begin].mean() * 0.5 ** (back / (MEMORY * season))
            wrong = np.abs(forecast - rows[window, begin : begin + ahead]) * observed[window, begin : begin + ahead]
            errors += weight * wrong[:, ::every].sum(1)
        expected = -SHARPNESS * (np.minimum(errors / errors.min(), LARGEST_RATIO) - 1)
        np.testing.assert_allclose(found[window], expected, rtol=1e-4, atol=1e-4)


def test_untrained_it_forecasts_between_the_line_and_the_weighed_smoothers() -> None:
    rows = torch.as_tensor(context(2, windows=4))
    observed, state, line = torch.ones_like(rows), torch.randn(4, WIDTH).double(), torch.randn(4, HORIZON).double()
    model = smoothing()
    with torch.no_grad():
        torch.testing.assert_close(model(state, rows, observed, line), line)
        weights = model.merit(rows, observed).softmax(-1)
        forecasts = np.array([each(model, one) for one in rows.numpy()])
        found = torch.as_tensor(np.einsum("nk,nkh->nh", weights.numpy(), forecasts))
        model.share.fill_(0.25)
        torch.testing.assert_close(model(state, rows, observed, line), 0.75 * line + 0.25 * found)


def test_a_context_that_ends_in_a_gap_is_left_to_the_line() -> None:
    """As far as its newest rows are missing."""
    rows = torch.as_tensor(context(2, windows=3))
    observed, state, line = torch.ones_like(rows), torch.zeros(3, WIDTH).double(), torch.zeros(3, HORIZON).double()
    observed[1, -2:] = 0.0
    observed[2, -9:] = 0.0
    model = smoothing()
    model.share.fill_(1.0)
    assert heard(observed).flatten().tolist() == [1.0, 0.5, 0.0]
    with torch.no_grad():
        found = model.smoothed(rows, model.merit(rows, observed))
        torch.testing.assert_close(model(state, rows, observed, line), found * torch.tensor([[1.0], [0.5], [0.0]]))


def test_of_a_long_context_the_newest_rows_alone_are_smoothed() -> None:
    """Whatever stands before the newest eight seasons, or 96 rows, changes nothing."""
    model = Smoothing(130, HORIZON, SEASON, WIDTH).double()
    rows = torch.as_tensor(np.random.default_rng(0).normal(size=(2, 130)).cumsum(1))
    rows[1, -96:] = rows[0, -96:]
    found = model.smoothed(rows, model.merit(rows, torch.ones_like(rows)))
    torch.testing.assert_close(found[0], found[1])
    rows[1, -96] += 1
    found = model.smoothed(rows, model.merit(rows, torch.ones_like(rows)))
    assert (found[0] != found[1]).all()


def test_a_form_of_network_forecasts_what_it_always_has() -> None:
    """Its tables are not stored, so that a change of what they follow from would change saved models unseen."""
    rows = torch.tensor([[1.0, 3.0, 2.0, 5.0, 2.0, 4.0, 3.0, 7.0, 3.0, 5.0, 5.0, 8.0]], dtype=torch.float64)
    model = Smoothing(12, 5, 4, WIDTH).double()
    with torch.no_grad():
        found = model.smoothed(rows, model.merit(rows, torch.ones_like(rows)))[0]
    np.testing.assert_allclose(found.numpy(), [3.41775, 5.54692, 5.31792, 8.59970, 3.90511], atol=1e-4)


@given(st.integers(2, 60), st.integers(1, 30))
def test_origins_lie_within_the_context(length: int, season: int) -> None:
    """Wrong if a forecast is tried from before the context, or from its end, where nothing follows."""
    origins = tried_origins(length, season)
    assert all(1 <= back < length for back in origins)
    assert len(set(origins)) == len(origins)


def test_a_higher_context_is_forecast_higher() -> None:
    """A context that is higher by 1 is forecast higher by 1, with the same weights."""
    rows = torch.as_tensor(context(4))
    observed, model = torch.ones_like(rows), smoothing()
    torch.testing.assert_close(model.merit(rows + 1, observed), model.merit(rows, observed))
    np.testing.assert_allclose(each(model, rows[0].numpy() + 1), each(model, rows[0].numpy()) + 1, rtol=1e-5)


def test_a_context_that_never_moves_has_no_favourite() -> None:
    rows = torch.full((1, LENGTH), 3.0, dtype=torch.float64)
    model = smoothing()
    merit = model.merit(rows, torch.ones_like(rows)).detach()
    assert torch.isfinite(merit).all()
    with torch.no_grad():
        torch.testing.assert_close(model.smoothed(rows, merit), torch.full((1, HORIZON), 3.0, dtype=torch.float64))
