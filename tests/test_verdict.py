"""The first line that a person reads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_comparison import one_series

from stacklstm_cli.evaluation.comparison import Comparison, Metric
from stacklstm_cli.evaluation.verdict import best_baseline, scored_on, sentence, verdict

Figures = tuple[float | None, float | None, float | None]


def table(figures: Figures, metric: str = "mase") -> dict[str, dict[str, float | None]]:
    """The figures of the model, seasonal naive and naive."""
    names = ("stacklstm", "seasonal_naive", "naive")
    return {name: {"mase": None, "mae": None, metric: value} for name, value in zip(names, figures, strict=True)}


def said(figures: Figures, metric: Metric = "mase", p_value: float = 0.0123, units: int = 12) -> str:
    """The sentence where the interval reaches ten points to each side."""
    metrics = table(figures, metric)
    best = best_baseline(metrics)
    assert best is not None
    model, other = metrics["stacklstm"][metric] or 0.0, metrics[best[0]][metric] or 0.0
    share = model / other - 1 if other else math.nan
    interval = None if math.isnan(p_value) or not other else (share - 0.1, share + 0.1)
    found = Comparison(best[1], model - other, share, interval, p_value, units, "cutoffs")
    return sentence(metrics, *best, found, f"{units} origins of 1 series", 12)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (
            (0.52, 0.88, 1.4),
            "stacklstm beats seasonal_naive, the best baseline, by 41 % (MASE 0.52 against 0.88 with m = 12; "
            "12 origins of 1 series; 95 % interval 31 to 51 %, p = .012).",
        ),
        (
            (1.08, 1.5, 1.0),
            "stacklstm loses to naive by 8 % (MASE 1.08 against 1 with m = 12; 12 origins of 1 series; "
            "95 % interval -2 to 18 %, p = .012): a naive forecast would do better here.",
        ),
        (
            (1.2, 0.6, 0.9),
            "stacklstm loses to seasonal_naive by 100 % (MASE 1.2 against 0.6 with m = 12; 12 origins of 1 series; "
            "95 % interval 90 to 110 %, p = .012): a seasonal naive forecast would do better here.",
        ),
        (
            (0.884, 0.88, 1.4),
            "stacklstm is level with seasonal_naive, the best baseline (MASE 0.884 against 0.88 with m = 12; "
            "12 origins of 1 series; 95 % interval -10 to 10 %, p = .012).",
        ),
        (
            (0.3, 0.0, 0.0),
            "stacklstm loses to seasonal_naive, which makes no error, (MASE 0.3 against 0 with m = 12; "
            "12 origins of 1 series; p = .012): a seasonal naive forecast would do better here.",
        ),
    ],
)
def test_by_mase(figures: Figures, expected: str) -> None:
    assert said(figures) == expected


def test_what_may_be_chance_is_said_plainly() -> None:
    assert said((0.8, 0.88, 1.4), p_value=0.24) == (
        "stacklstm beats seasonal_naive, the best baseline, by 9 %, not beyond chance (MASE 0.8 against 0.88 with "
        "m = 12; 12 origins of 1 series; 95 % interval -1 to 19 %, p = .24)."
    )
    assert said((1.08, 1.5, 1.0), p_value=0.24).endswith(": a naive forecast may do as well here.")


def test_too_few_to_tell() -> None:
    text = said((0.3, 0.6, 0.9), p_value=math.nan, units=2)
    assert text.endswith("2 origins of 1 series; these rows are too few to tell it from chance).")
    assert "not beyond chance" not in text


@pytest.mark.parametrize(
    ("p_value", "text"), [(0.0004, "p < .001"), (0.001, "p = .001"), (0.04, "p = .04"), (0.2, "p = .2"), (1, "p = 1.0")]
)
def test_probabilities(p_value: float, text: str) -> None:
    assert f"{text})." in said((0.3, 0.6, 0.9), p_value=p_value)


def test_by_mae_where_mase_is_undefined() -> None:
    assert said((1234.5, 2469, 9999), "mae").startswith(
        "stacklstm beats seasonal_naive, the best baseline, by 50 % (MAE 1,234 against 2,469; 12 origins of 1 series;"
    )
    assert "is level with seasonal_naive" in said((0.0, 0.0, 0.0), "mae")


def test_the_best_baseline_has_a_figure() -> None:
    assert best_baseline(table((0.3, None, 0.6))) == ("naive", "mase")
    assert best_baseline(table((None, 1.0, 1.0))) is None
    assert best_baseline(table((1.0, None, None))) is None


def test_of_a_backtest() -> None:
    """The sentence, the baseline and the comparison are of the same figures."""
    random = np.random.default_rng(0)
    backtest = one_series([random.random(9), 3 + random.random(9)])
    backtest.forecasts["stacklstm"], backtest.forecasts["naive"] = backtest.forecasts["a"], backtest.forecasts["b"]
    text, name, found = verdict(backtest, backtest.metrics() | {"a": {}, "b": {}})
    assert found is not None
    assert name == "naive"
    assert f"by {-100 * found.relative:.0f} % (MASE" in text
    assert "9 origins of 1 series; 95 % interval" in text


def test_nothing_in_common() -> None:
    """A model without a figure, or without a baseline to hold it against."""
    backtest = one_series([np.ones(3), np.ones(3)])
    assert scored_on(backtest) == "3 origins of 1 series"
    expected = "stacklstm could not be compared with a baseline: no common figure on 3 origins of 1 series."
    assert verdict(backtest, table((None, 1.0, 1.0))) == (expected, None, None)


def test_counts() -> None:
    assert scored_on(one_series([np.ones(1), np.ones(1)])) == "1 origin of 1 series"
    assert scored_on(one_series([np.ones(1500), np.ones(1500)])) == "1,500 origins of 1 series"
