"""The one sentence to read first: is the model better than the best baseline, and is that more than chance?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from stacklstm_cli.evaluation.backtest import Backtest
from stacklstm_cli.evaluation.comparison import LEVEL, Comparison, Metric, compare

MODEL = "stacklstm"
"""The name of the network in every table."""
ALIKE = 0.01
"""Largest relative difference that is called level."""
BEYOND_CHANCE = (1 - LEVEL) / 2
"""Largest error probability, from one side, of a difference that is called one: 0 is then outside the interval."""
METRICS: tuple[Metric, ...] = ("mase", "mae")
"""What is judged by: the first that the model and a baseline have."""
Table = Mapping[str, Mapping[str, float | None]]
"""Predictor -> metric -> value, the model's under `MODEL`."""


def best_baseline(metrics: Table) -> tuple[str, Metric] | None:
    """The baseline to beat and the metric to judge by; None where there is no figure in common."""
    for metric in METRICS:
        figures = {name: values.get(metric) for name, values in metrics.items() if name != MODEL}
        baselines = {name: figure for name, figure in figures.items() if figure is not None}
        if metrics[MODEL].get(metric) is not None and baselines:
            return min(baselines, key=lambda name: baselines[name]), metric
    return None


def verdict(backtest: Backtest, metrics: Table) -> tuple[str, str | None, Comparison | None]:
    """The sentence, the baseline that it names, and the comparison behind it. `metrics` are those of the backtest."""
    best = best_baseline(metrics)
    scored = scored_on(backtest)
    if best is None:
        return f"{MODEL} could not be compared with a baseline: no common figure on {scored}.", None, None
    name, metric = best
    found = compare(backtest, MODEL, name, metric)
    return sentence(metrics, name, metric, found, scored, backtest.seasonality), name, found


def worse_than(metrics: Table, baseline: str) -> str:
    """Why the model is worse than this baseline, "" where it is not; by MASE, or MAE where one of them has none.

    Forecasts without a figure, where the baseline has one, are worse.
    """
    for metric in METRICS:
        model, figure = metrics.get(MODEL, {}).get(metric), metrics.get(baseline, {}).get(metric)
        if model is not None and figure is not None:
            figures = f"{metric.upper()} {_figure(model)} against {_figure(figure)}"
            return f"{MODEL} is worse than {baseline} ({figures})." if model > figure else ""
    known = metrics.get(baseline, {}).get("mae") is not None
    return f"{MODEL} has no error to compare with that of {baseline}." if known else ""


def sentence(metrics: Table, best: str, metric: Metric, found: Comparison | None, scored: str, seasonality: int) -> str:
    """By how much the model beats or loses to the best baseline, how sure that is, and on how many origins."""
    model, figure = metrics[MODEL][metric] or 0.0, metrics[best][metric] or 0.0
    season = f" with m = {seasonality}" if metric == "mase" else ""
    figures = f"{metric.upper()} {_figure(model)} against {_figure(figure)}{season}"
    facts = f"({'; '.join([figures, scored, *uncertainty(found)])})"
    if abs(model - figure) <= ALIKE * figure:
        return f"{MODEL} is level with {best}, the best baseline {facts}."
    chance = "" if found is None or clear(found) or math.isnan(found.p_value) else ", not beyond chance"
    if model < figure:
        return f"{MODEL} beats {best}, the best baseline, by {_percent(1 - model / figure)}{chance} {facts}."
    share = f" by {_percent(model / figure - 1)}{chance}" if figure > 0 else ", which makes no error,"
    advice = "may do as well here" if chance else "would do better here"
    return f"{MODEL} loses to {best}{share} {facts}: a {best.replace('_', ' ')} forecast {advice}."


def clear(found: Comparison) -> bool:
    """Whether there is a difference beyond chance."""
    return found.clearly_better(BEYOND_CHANCE) or found.clearly_worse(BEYOND_CHANCE)


def uncertainty(found: Comparison | None) -> list[str]:
    """What tells how sure the difference is."""
    if found is None:
        return []
    if math.isnan(found.p_value):
        return ["these rows are too few to tell it from chance"]
    # The sentence says by how much the model is better or worse; so does the interval.
    sign = 1 if found.difference > 0 else -1
    ends = sorted(sign * end for end in found.interval) if found.interval is not None else None
    interval = [f"{100 * LEVEL:.0f} % interval {round(100 * ends[0])} to {round(100 * ends[1])} %"] if ends else []
    over = "" if found.paired_over == "cutoffs" else " over series"
    return [", ".join([*interval, _probability(found.p_value) + over])]


def scored_on(backtest: Backtest) -> str:
    """`12 origins of 3 series`."""
    origins = np.bincount(backtest.origins.series)
    return f"{_count(int(origins.max()), 'origin')} of {_count(int((origins > 0).sum()), 'series')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 and noun != "series" else "")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _probability(p_value: float) -> str:
    """`p = .04`, as it is written in papers; `p < .001` for what is smaller."""
    if p_value < 0.001:
        return "p < .001"
    digits = f"{p_value:.{2 if p_value >= 0.1 else 3}f}".rstrip("0").removeprefix("0")
    return f"p = {digits}" + ("0" if digits.endswith(".") else "")


def _figure(value: float) -> str:
    """Three significant digits, never an exponent for what is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
