"""The first line that a person reads."""

from __future__ import annotations

import pytest

from stacklstm_cli.evaluation.verdict import verdict


def said(model: float | None, seasonal: float | None, naive: float | None, metric: str = "mase") -> str:
    figures = {"stacklstm": model, "seasonal_naive": seasonal, "naive": naive}
    return verdict({name: {"mase": None, "mae": None, metric: value} for name, value in figures.items()}, 12, 1, 12)


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        (
            (0.52, 0.88, 1.4),
            (
                "stacklstm beats seasonal_naive, the best baseline, by 41 % "
                "(MASE 0.52 against 0.88 with m = 12; 12 origins of 1 series)."
            ),
        ),
        (
            (1.08, 1.5, 1.0),
            (
                "stacklstm loses to naive by 8 % (MASE 1.08 against 1 with m = 12; 12 origins of 1 series): "
                "a naive forecast would do better here."
            ),
        ),
        (
            (1.2, 0.6, 0.9),
            (
                "stacklstm loses to seasonal_naive by 100 % (MASE 1.2 against 0.6 with m = 12; "
                "12 origins of 1 series): a seasonal naive forecast would do better here."
            ),
        ),
        (
            (0.884, 0.88, 1.4),
            (
                "stacklstm is level with seasonal_naive, the best baseline "
                "(MASE 0.884 against 0.88 with m = 12; 12 origins of 1 series)."
            ),
        ),
        (
            (0.3, None, 0.6),
            (
                "stacklstm beats naive, the best baseline, by 50 % "
                "(MASE 0.3 against 0.6 with m = 12; 12 origins of 1 series)."
            ),
        ),
        (
            (0.3, 0.0, 0.0),
            (
                "stacklstm loses to seasonal_naive, which makes no error, (MASE 0.3 against 0 with m = 12; "
                "12 origins of 1 series): a seasonal naive forecast would do better here."
            ),
        ),
    ],
)
def test_by_mase(figures: tuple[float, float | None, float], sentence: str) -> None:
    assert said(*figures) == sentence


def test_by_mae_where_mase_is_undefined() -> None:
    assert said(1234.5, 2469, 9999, "mae") == (
        "stacklstm beats seasonal_naive, the best baseline, by 50 % (MAE 1,234 against 2,469; 12 origins of 1 series)."
    )
    assert "is level with seasonal_naive" in said(0.0, 0.0, 0.0, "mae")


def test_nothing_in_common() -> None:
    """A model without a figure, or without a baseline to hold it against."""
    expected = "stacklstm could not be compared with a baseline: no common figure on 12 origins of 1 series."
    assert said(None, 1.0, 1.0) == expected
    assert said(1.0, None, None) == expected


def test_counts() -> None:
    metrics = {"stacklstm": {"mase": 1.0}, "naive": {"mase": 2.0}}
    assert "1 origin of 1 series)" in verdict(metrics, 1, 1, 1)
    assert "19,495 origins of 7 series)" in verdict(metrics, 19495, 7, 1)
