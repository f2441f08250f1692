"""The one sentence to read first: is the model better than the best baseline?"""

from __future__ import annotations

from collections.abc import Mapping

MODEL = "stacklstm"
"""The name of the network in every table."""
LEVEL = 0.01
"""Largest relative difference that is called level."""


def verdict(metrics: Mapping[str, Mapping[str, float | None]], n_origins: int, n_series: int, seasonality: int) -> str:
    """By how much the model beats or loses to the best baseline, and on how many origins.

    `metrics` is predictor -> metric -> value, the model's under `MODEL`. Judged by MASE, or by MAE
    where the model or every baseline has no MASE.
    """
    scored = f"{_count(n_origins, 'origin')} of {_count(n_series, 'series')}"
    for metric, label, unit in (("mase", "MASE", f" with m = {seasonality}"), ("mae", "MAE", "")):
        model = metrics[MODEL].get(metric)
        figures = {name: values.get(metric) for name, values in metrics.items() if name != MODEL}
        baselines = {name: figure for name, figure in figures.items() if figure is not None}
        if model is None or not baselines:
            continue
        best = min(baselines, key=lambda name: baselines[name])
        figure = baselines[best]
        facts = f"({label} {_figure(model)} against {_figure(figure)}{unit}; {scored})"
        if abs(model - figure) <= LEVEL * figure:
            return f"{MODEL} is level with {best}, the best baseline {facts}."
        if model < figure:
            return f"{MODEL} beats {best}, the best baseline, by {_percent(1 - model / figure)} {facts}."
        share = f" by {_percent(model / figure - 1)}" if figure > 0 else ", which makes no error,"
        return f"{MODEL} loses to {best}{share} {facts}: a {best.replace('_', ' ')} forecast would do better here."
    return f"{MODEL} could not be compared with a baseline: no common figure on {scored}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 and noun != "series" else "")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _figure(value: float) -> str:
    """Three significant digits, never an exponent for what is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
