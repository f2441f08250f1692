"""What was found of predicted classes: the sentence to read first, the parts of a document and the picture.

The tables of them are in `grids`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from stacklstm_cli.cli.axes import NumberAxis
from stacklstm_cli.cli.charts import Band, Chart, Line, Matrix, Picture
from stacklstm_cli.cli.messages import printable
from stacklstm_cli.evaluation.labels import BINS, LabelJudgement, LabelScores, Reliability
from stacklstm_cli.evaluation.verdict import BEYOND_CHANCE, MODEL

Each = Literal["series", "step"]
"""What has one label: a whole series, or each of its time steps."""


def label_parts(judgement: LabelJudgement, column: str, each: Each, how: str = "") -> dict[str, Any]:
    """What a document says of a judgement of the labels in `column`, as `train` and `evaluate` have it.

    `how` is what the sentence adds on the rows that were scored, such as "each by networks that had not seen it".
    """
    model, compared = judgement.model, judgement.comparison
    names = [one.label for one in model.per_class]
    independent = compared is not None and each == "series"
    return {
        "verdict": label_verdict(judgement, each, how),
        "comparison": None
        if compared is None
        else {
            "baseline": judgement.best,
            "better": compared.better,
            "worse": compared.worse,
            "p_value": compared.p_value if independent else None,
        },
        "metrics": judgement.metrics(),
        "labels": {
            "column": column,
            "one_per": each,
            "classes": names[: model.confusion.shape[1]],
            "scored": model.n_rows,
            "unseen": dict(model.unseen),
        },
        "per_class": [
            {"class": one.label, **dict(zip(one._fields[1:], one[1:], strict=True))} for one in model.per_class
        ],
        "confusion": {
            "true": names,
            "predicted": names[: model.confusion.shape[1]],
            "counts": model.confusion.tolist(),
        },
        "reliability": list(bins_of(model.reliability)),
    }


def bins_of(curve: Reliability) -> Iterator[dict[str, Any]]:
    """The filled bins of a reliability curve."""
    for place in np.flatnonzero(curve.count).tolist():
        yield {
            "above": place / BINS,
            "up_to": (place + 1) / BINS,
            "rows": int(curve.count[place]),
            "confidence": float(curve.confidence[place]),
            "accuracy": float(curve.accuracy[place]),
        }


def label_verdict(judgement: LabelJudgement, each: Each, how: str = "") -> str:
    """By how much the model beats or loses to the best baseline, how sure that is, and on how many series or steps."""
    model = judgement.model
    if not model.n_rows:
        return f"Nothing to score: no {'series' if each == 'series' else 'time step'} has a label."
    scored = things(model.n_rows, each) + (f", {how}" if how else "")
    if judgement.best is None or judgement.comparison is None:
        return f"{MODEL} is right for {percent(model.accuracy)} of {scored}."
    best, paired = judgement.best, judgement.comparison
    share = judgement.scores[best].accuracy
    figures = f"accuracy {percent(model.accuracy)} against {percent(share)}"
    sure = paired.p_value < 2 * BEYOND_CHANCE
    facts = [figures, scored]
    if each == "series" and paired.better + paired.worse:
        facts.append(f"{paired.better:,} better and {paired.worse:,} worse, {probability(paired.p_value)}")
    shown = f"({'; '.join(facts)})"
    if paired.better == paired.worse:
        return f"{MODEL} is level with {best}, the best baseline {shown}."
    chance = "" if sure or each == "step" else ", not beyond chance"
    points = f"{100 * abs(model.accuracy - share):.1f} points"
    if paired.better > paired.worse:
        return f"{MODEL} beats {best}, the best baseline, by {points}{chance} {shown}."
    advice = "may do as well here" if chance else "would do better here"
    return f"{MODEL} loses to {best} by {points}{chance} {shown}: {best.replace('_', ' ')} {advice}."


def things(count: int, each: Each) -> str:
    """`370 series`, `1 time step`."""
    return f"{count:,} series" if each == "series" else f"{count:,} time step{'s' * (count != 1)}"


def percent(share: float) -> str:
    """With one digit behind the point, but 100 % only for all of them."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.9):.1f} %"


def probability(p_value: float) -> str:
    return "p < .001" if p_value < 0.001 else "p = " + f"{p_value:.2g}".removeprefix("0")


def unseen_note(unseen: Mapping[str, int], each: Each) -> str:
    """Which classes of the file were not in the training data; "" where there is none."""
    named = [f"{label} ({things(rows, each)})" for label, rows in unseen.items() if rows]
    if not named:
        return ""
    shown = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
    one = len(named) == 1
    return (
        f"{'a class' if one else 'classes'} that training has not seen: {shown}. {'Its' if one else 'Their'} rows "
        "count as wrong; the log loss leaves them out."
    )


def label_picture(judgement: LabelJudgement, column: str, each: Each, rows: str, label: str) -> Picture:
    """The confusion matrix of the model beside its reliability.

    `rows` says what was scored, `label` what predicted it.
    """
    model = judgement.model
    names = tuple(printable(one.label) for one in model.per_class)
    matrix = Matrix(
        title="Confusion matrix",
        rows=names,
        columns=names[: model.confusion.shape[1]],
        counts=model.confusion,
    )
    return Picture(
        title=printable(f"Labels of {column}: {rows}"),
        subtitle=printable(f"accuracy {percent(model.accuracy)} of {things(model.n_rows, each)} · {label}"),
        charts=(),
        beside=(reliability_chart(model),),
        matrix=matrix,
    )


def reliability_chart(scores: LabelScores) -> Chart:
    """How often predictions of about one probability are right, and how many there are of each."""
    curve = scores.reliability
    filled = curve.count > 0
    edges = np.repeat(100 * np.arange(BINS + 1) / BINS, 2)[1:-1]  # [2 BINS] both ends of each bin
    shares = np.repeat(100 * curve.count / max(int(curve.count.sum()), 1), 2)  # [2 BINS]
    whole = np.asarray([0.0, 100.0])
    return Chart(
        title=f"Reliability: calibration error {scores.calibration_error:.3f}",
        axis=NumberAxis(),
        lines=(
            Line(MODEL, np.round(100 * curve.confidence[filled], 1), 100 * curve.accuracy[filled], MODEL, points=True),
            Line("as it should be", whole, whole, "ideal"),
        ),
        bands=(Band("share of the rows", edges, np.zeros(edges.size), shares, 0),),
        x_label="probability of the predicted class, %",
        y_label="right, %",
        top=100.0,
        from_zero=True,
        square=True,
        says="the share of predictions of about this probability that are right",
    )
