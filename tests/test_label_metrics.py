"""Metrics, baselines and temperature of predicted classes, beside scikit-learn, SciPy and slow loops; their tables."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.cells import cell_len
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn import metrics as sklearn
from sklearn.neighbors import KNeighborsClassifier

from stacklstm_cli.cli import plots
from stacklstm_cli.cli.grids import label_grids, plain
from stacklstm_cli.cli.labels import label_parts, label_picture, label_verdict, unseen_note
from stacklstm_cli.cli.report import write_document
from stacklstm_cli.cli.terminal import text_of
from stacklstm_cli.config import OutputConfig
from stacklstm_cli.data.panel import Floats, Ints
from stacklstm_cli.evaluation import labels
from stacklstm_cli.evaluation.labels import (
    LABEL_METRICS,
    LabelJudgement,
    Paired,
    fit_temperature,
    judge,
    majority,
    nearest_neighbour,
    score,
    softmax,
    worse_labels,
)
from stacklstm_cli.evaluation.verdict import MODEL

SAMPLES = Path(__file__).parent.parent / "sample_data"
NAMES = ("walking", "running", "sitting", "standing")


def guesses(seed: int, rows: int, n_classes: int, strength: float = 1.0) -> tuple[Floats, Ints]:
    """Logits [rows, n_classes] that lean to the truth [rows]."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, n_classes, rows)
    logits = random.normal(size=(rows, n_classes))
    logits[np.arange(rows), truth] += strength
    return logits, truth


def judgement(rows: int = 60, n_classes: int = 4, seed: int = 0, unseen: int = 0) -> LabelJudgement:
    """A model that is good beside one that is not; the last `unseen` rows are of a class it has not seen."""
    logits, truth = guesses(seed, rows, n_classes, 3.0)
    other, _ = guesses(seed + 1, rows, n_classes, 0.0)
    truth[rows - unseen :] = n_classes
    names = (*NAMES, *(f"class {place}" for place in range(4, n_classes)))[:n_classes]
    predictions = {"nearest_neighbour": softmax(other), MODEL: softmax(logits)}
    return judge(predictions, truth, names, {"dancing": unseen} if unseen else {})


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 7), st.floats(0, 4))
def test_metrics_are_those_of_scikit_learn(seed: int, rows: int, n_classes: int, strength: float) -> None:
    """Also where classes are without rows, or never predicted."""
    logits, truth = guesses(seed, rows, n_classes, strength)
    probabilities = softmax(logits)
    found = score(probabilities, truth, tuple(map(str, range(n_classes))))
    predicted, everyone = probabilities.argmax(axis=1), list(range(n_classes))
    assert found.accuracy == pytest.approx(sklearn.accuracy_score(truth, predicted))
    recalls = sklearn.recall_score(truth, predicted, labels=np.unique(truth), average=None, zero_division=0)
    assert found.balanced_accuracy == pytest.approx(recalls.mean())
    assert found.macro_f1 == pytest.approx(sklearn.f1_score(truth, predicted, average="macro"))
    assert found.log_loss == pytest.approx(sklearn.log_loss(truth, probabilities, labels=everyone))
    assert found.confusion.tolist() == sklearn.confusion_matrix(truth, predicted, labels=everyone).tolist()
    table = sklearn.precision_recall_fscore_support(truth, predicted, labels=everyone, zero_division=np.nan)
    own = np.array([(one.precision, one.recall, one.f1, one.support) for one in found.per_class])
    np.testing.assert_allclose(own, np.array(table, dtype=np.float64).T)


def test_balanced_accuracy_is_scikit_learns() -> None:
    """With all classes there, by its own function."""
    logits, truth = guesses(3, 200, 4)
    found = score(softmax(logits), truth, NAMES)
    assert found.balanced_accuracy == pytest.approx(sklearn.balanced_accuracy_score(truth, logits.argmax(axis=1)))


def test_log_loss_of_a_certain_mistake_is_scikit_learns() -> None:
    probabilities, truth = np.array([[1.0, 0.0], [0.2, 0.8]]), np.array([1, 1])
    assert score(probabilities, truth, ("a", "b")).log_loss == pytest.approx(
        sklearn.log_loss(truth, probabilities, labels=[0, 1])
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 80))
def test_calibration_error_is_that_of_a_slow_loop(seed: int, rows: int) -> None:
    """Guo et al. (2017), equations 1 to 3, bin by bin."""
    logits, truth = guesses(seed, rows, 3)
    probabilities = softmax(logits)
    error = 0.0
    for place in range(15):
        members = [
            (max(row), bool(np.argmax(row) == true))
            for row, true in zip(probabilities.tolist(), truth.tolist(), strict=True)
            if place / 15 < max(row) <= (place + 1) / 15
        ]
        if members:
            confidence = sum(one for one, _ in members) / len(members)
            error += len(members) / rows * abs(sum(right for _, right in members) / len(members) - confidence)
    assert score(probabilities, truth, ("a", "b", "c")).calibration_error == pytest.approx(error, abs=1e-11)


def test_rows_without_a_label_change_nothing() -> None:
    logits, truth = guesses(1, 30, 4)
    whole = score(softmax(logits), truth, NAMES)
    more, _ = guesses(2, 7, 4)
    padded = score(softmax(np.concatenate([more, logits])), np.concatenate([np.full(7, -1), truth]), NAMES)
    assert padded.metrics() == whole.metrics()
    assert padded.n_rows == 30


def test_a_class_that_was_not_seen_counts_as_wrong() -> None:
    """As scikit-learn finds it for labels that are never predicted; the log loss leaves its rows out."""
    logits, truth = guesses(5, 40, 4, 3.0)
    truth[30:] = 4
    found = score(softmax(logits), truth, NAMES, {"dancing": 10})
    predicted = logits.argmax(axis=1)
    assert found.accuracy == pytest.approx(sklearn.accuracy_score(truth, predicted))
    assert found.macro_f1 == pytest.approx(sklearn.f1_score(truth, predicted, average="macro"))
    assert found.log_loss == pytest.approx(score(softmax(logits[:30]), truth[:30], NAMES).log_loss)
    assert found.confusion.shape == (5, 4)
    last = found.per_class[-1]
    assert (last.label, last.support, last.recall, last.f1) == ("dancing", 10, 0.0, 0.0)
    assert math.isnan(last.precision)


def test_without_a_labelled_row_nothing_is_defined() -> None:
    found = score(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), ("a", "b"))
    assert all(math.isnan(value) for value in found.metrics().values())
    assert tuple(found.metrics()) == LABEL_METRICS
    assert found.n_rows == 0


def test_majority_is_the_training_shares() -> None:
    """Unlabelled rows do not count."""
    assert majority(np.array([1, 1, 1, 0, -1]), 2, 3).tolist() == [[0.25, 0.75, 0.0]] * 2
    assert majority(np.array([-1]), 1, 2).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("seed", range(4))
def test_nearest_neighbour_is_that_of_scikit_learn(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series of one length, without gaps, standardised by the training rows; in blocks as well as in one go."""
    random = np.random.default_rng(seed)
    train, test = random.normal(size=(40, 9, 2)) * [1, 50] + [3, -7], random.normal(size=(25, 9, 2)) * [1, 50]
    truth = random.integers(0, 3, 40)
    centre, deviation = train.mean(axis=(0, 1)), train.std(axis=(0, 1))
    flat = [((part - centre) / deviation).reshape(len(part), 18) for part in (train, test)]
    expected = KNeighborsClassifier(1).fit(flat[0], truth).predict(flat[1])
    monkeypatch.setattr(labels, "DISTANCES_AT_ONCE", 130)
    found = nearest_neighbour(list(train), truth, list(test), 3)
    assert found.argmax(axis=1).tolist() == expected.tolist()
    others = [KNeighborsClassifier(1).fit(np.delete(flat[0], i, 0), np.delete(truth, i)) for i in range(40)]
    right = sum(one.predict(flat[0][[i]])[0] == truth[i] for i, one in enumerate(others))
    trust = max((right + 1) / 42, 1.01 / 3)
    np.testing.assert_allclose(np.sort(found), np.tile([(1 - trust) / 2, (1 - trust) / 2, trust], (25, 1)))


def test_nearest_neighbour_of_other_lengths_and_gaps() -> None:
    """A slow and a fast rise are one, a fall is not; a missing value is as the mean."""
    rise, fall = np.linspace(-1, 1, 9)[:, None], np.linspace(1, -1, 9)[:, None]
    slow = np.linspace(-1, 1, 33)[:, None]
    gappy = np.linspace(1, -1, 17)[:, None]
    gappy[5:9] = np.nan
    empty, nothing = np.zeros((0, 1)), np.full((4, 1), np.nan)
    found = nearest_neighbour([rise, fall, rise, fall], np.array([0, 1, 0, 1]), [slow, gappy, empty, nothing], 2)
    assert found.argmax(axis=1)[:2].tolist() == [0, 1]
    np.testing.assert_allclose(found[0], [5 / 6, 1 / 6])  # 4 of 4 find their own: (4 + 1) / (4 + 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_nearest_neighbour_of_many_takes_evenly_spaced_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MOST_NEIGHBOURS", 10)
    train = [np.full((3, 1), float(place)) for place in range(100)]
    found = nearest_neighbour(train, np.arange(100) // 50, [np.full((3, 1), 2.0), np.full((3, 1), 97.0)], 2)
    assert found.argmax(axis=1).tolist() == [0, 1]


def test_a_probability_is_never_below_the_others() -> None:
    """Neighbours of no use still predict their own class."""
    train = [np.array([[float(place)]]) for place in range(10)]
    found = nearest_neighbour(train, np.arange(10) % 2, [np.array([[3.0]])], 2)
    assert found.argmax(axis=1).tolist() == [1]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.2, 6), st.integers(2, 5))
def test_temperature_is_the_one_with_the_least_loss(seed: int, factor: float, n_classes: int) -> None:
    """As SciPy finds it, for Platt's targets."""
    rows = 120
    logits, truth = guesses(seed, rows, n_classes, 2.0)
    logits *= factor
    targets = np.full(logits.shape, 1 / (rows + n_classes))
    targets[np.arange(rows), truth] = (rows + 1) / (rows + n_classes)

    def loss(log_temperature: float) -> float:
        return float(-(targets * np.log(softmax(logits / math.exp(log_temperature)))).sum())

    expected = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(logits, truth) == pytest.approx(math.exp(expected.x), rel=1e-3)


def test_temperature_gives_back_what_logits_were_multiplied_by() -> None:
    """Labels drawn from the softmax itself are calibrated at 1."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3)) * 2
    truth = np.array([random.choice(3, p=row) for row in softmax(logits)])
    assert fit_temperature(logits, truth) == pytest.approx(1, abs=0.04)
    assert fit_temperature(5 * logits, truth) == pytest.approx(5, abs=0.2)
    before = score(softmax(5 * logits), truth, ("a", "b", "c"))
    after = score(softmax(5 * logits / fit_temperature(5 * logits, truth)), truth, ("a", "b", "c"))
    assert before.calibration_error > 0.1 > 0.02 > after.calibration_error
    assert after.accuracy == before.accuracy


def test_temperature_that_cannot_be_told_is_one() -> None:
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == 1
    assert fit_temperature(np.ones((5, 3)), np.array([0, 1, 2, 0, 1])) == 1
    assert fit_temperature(np.eye(3), np.full(3, -1)) == 1


def test_temperature_has_bounds_and_few_right_rows_do_not_ask_for_certainty() -> None:
    eye = np.eye(3)
    assert fit_temperature(1e-4 * eye, np.arange(3)) == 0.05
    assert fit_temperature(eye, np.array([1, 2, 0])) == 20.0
    sure = softmax(eye / fit_temperature(eye, np.arange(3)))
    assert sure.max(axis=1) == pytest.approx(4 / 6, abs=1e-6)  # (R + 1) / (R + K) of three rows, three classes


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (3, 0), (5, 2), (2, 5), (7, 7), (400, 350), (3000, 0)])
def test_paired_test_is_binomial(better: int, worse: int) -> None:
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert Paired(better, worse).p_value == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_judge_compares_with_the_best_baseline() -> None:
    truth = np.array([0, 0, 1, 1, -1])
    right = np.eye(2)[[0, 0, 1, 1, 0]]
    half, most = np.eye(2)[[0, 0, 0, 0, 0]], np.eye(2)[[0, 0, 1, 0, 0]]
    found = judge({"majority": half, "nearest_neighbour": most, MODEL: right}, truth, ("a", "b"))
    assert list(found.scores) == [MODEL, "majority", "nearest_neighbour"]
    assert (found.best, found.comparison) == ("nearest_neighbour", Paired(1, 0))
    metrics = found.metrics()
    assert worse_labels(metrics, "majority") == ""
    assert worse_labels({MODEL: metrics["majority"], "majority": metrics[MODEL]}, "majority") == (
        "stacklstm is worse than majority (accuracy 0.500 against 1.000)."
    )


def test_the_sentence_says_who_wins_and_how_sure_that_is() -> None:
    truth = np.arange(40) % 2
    right, wrong = np.eye(2)[truth], np.eye(2)[1 - truth]
    fair = np.where(np.arange(40)[:, None] < 38, right, wrong)  # [40, 2]
    names = ("a", "b")
    won = label_verdict(judge({MODEL: right, "majority": wrong}, truth, names), "series")
    assert won == (
        "stacklstm beats majority, the best baseline, by 100.0 points (accuracy 100 % against 0.0 %; 40 series; "
        "40 better and 0 worse, p < .001)."
    )
    level = label_verdict(judge({MODEL: right, "majority": right}, truth, names), "step")
    assert level == "stacklstm is level with majority, the best baseline (accuracy 100 % against 100 %; 40 time steps)."
    lost = label_verdict(judge({MODEL: fair, "nearest_neighbour": right}, truth, names), "series", "out of fold")
    assert lost == (
        "stacklstm loses to nearest_neighbour by 5.0 points, not beyond chance (accuracy 95.0 % against 100 %; 40 "
        "series, out of fold; 0 better and 2 worse, p = .5): nearest neighbour may do as well here."
    )
    assert "p =" not in label_verdict(judge({MODEL: fair, "majority": right}, truth, names), "step")
    nothing = judge({MODEL: right, "majority": right}, np.full(40, -1), names)
    assert label_verdict(nothing, "step") == "Nothing to score: no time step has a label."


def test_unseen_classes_are_named_and_counted() -> None:
    assert unseen_note({}, "series") == ""
    assert unseen_note({"dancing": 1, "resting": 3}, "step") == (
        "classes that training has not seen: dancing (1 time step), resting (3 time steps). Their rows count as wrong; "
        "the log loss leaves them out."
    )


def test_the_document_holds_every_number() -> None:
    """It is JSON, undefined values are null, and the counts are those of the scores."""
    found = judgement(unseen=5)
    document = json.loads(json.dumps(plain(label_parts(found, "activity", "series")), allow_nan=False))
    assert set(document["metrics"]) == {MODEL, "nearest_neighbour"}
    assert set(document["metrics"][MODEL]) == set(LABEL_METRICS)
    assert document["labels"]["unseen"] == {"dancing": 5}
    assert document["labels"]["classes"] == list(NAMES)
    assert document["per_class"][-1] == {"class": "dancing", "support": 5, "precision": None, "recall": 0.0, "f1": 0.0}
    assert np.array(document["confusion"]["counts"]).sum() == document["labels"]["scored"] == 60
    assert document["confusion"]["true"] == [*NAMES, "dancing"]
    bins = document["reliability"]
    error = sum(one["rows"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / 60
    assert error == pytest.approx(document["metrics"][MODEL]["calibration_error"])
    assert all(one["above"] < one["confidence"] <= one["up_to"] for one in bins)


def test_tables_for_people(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The metrics, the classes, the confusion matrix; CSV has the metrics alone."""
    document = label_parts(judgement(), "activity", "series")
    write_document(document, OutputConfig(format="table"))
    text = capfdbinary.readouterr().out.decode()
    assert text.startswith("stacklstm beats nearest_neighbour")
    assert "model              accuracy  balanced_accuracy  macro_f1  log_loss  calibration_error\n" in text
    assert "class     support  precision  recall      f1\n" in text
    assert "true \\ predicted  walking  running  sitting  standing\n" in text
    write_document(document, OutputConfig(format="markdown"))
    assert "| true \\ predicted | walking |" in capfdbinary.readouterr().out.decode()
    write_document(document, OutputConfig(format="csv"))
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[0] == "model," + ",".join(LABEL_METRICS)
    assert len(lines) == 3


def test_of_many_classes_the_commonest_mistakes_are_listed() -> None:
    found = judgement(rows=600, n_classes=30)
    document = label_parts(found, "word", "series")
    _, (grid, said) = label_grids(document)
    confusion = found.model.confusion
    off = confusion - np.diag(np.diag(confusion))
    assert [row[2] for row in grid.rows] == np.sort(off.ravel())[::-1][: len(grid.rows)].tolist()
    assert said.startswith(f"{sum(row[2] for row in grid.rows)} of {off.sum()} mistakes")
    assert label_grids({"metrics": {}}) == []


@pytest.mark.parametrize("n_classes", [2, 4, pytest.param(30, marks=pytest.mark.slow)])
def test_pictures_show_the_counts_and_are_equal_bytes(n_classes: int) -> None:
    found = judgement(rows=90, n_classes=n_classes, unseen=4)
    picture = label_picture(found, "activity", "series", "the file given", "model m")
    first, second = (plots.picture_bytes(picture, ".svg") for _ in range(2))
    assert first == second
    text = first.decode()
    assert "Confusion matrix" in text
    assert "dancing" in text
    assert f"calibration error {found.model.calibration_error:.3f}" in text
    assert plots.picture_bytes(picture, ".png").startswith(b"\x89PNG")


def test_every_cell_of_the_matrix_holds_its_count() -> None:
    """In the axes' own order: rows down, columns across."""
    picture = label_picture(judgement(unseen=4), "activity", "series", "rows", "model")
    matrix = picture.matrix
    assert matrix is not None
    with plots.drawing():
        figure = cast(Figure, plots.figure_of_matrix(picture, matrix))
    axes = figure.axes[0]
    shown = {(text.get_position()[1] - 0.5, text.get_position()[0] - 0.5): text.get_text() for text in axes.texts}
    counts = {
        (float(row), float(column)): str(count) for (row, column), count in np.ndenumerate(matrix.counts) if count
    }
    assert shown == counts
    assert axes.get_ylim() == (5, 0)


@pytest.mark.parametrize(("n_classes", "width"), [(2, 80), (4, 60), (12, 80), (30, 60)])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_terminal_shows_both_within_its_width(n_classes: int, width: int, encoding: str) -> None:
    found = judgement(rows=200, n_classes=n_classes, unseen=4)
    picture = label_picture(found, "activity", "step", "the file given", "model m")
    text = text_of(picture, width, 24, False, encoding)
    text.encode(encoding)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "true down, predicted across" in text
    assert "Reliability" in text


def test_the_sample_is_what_its_script_makes(tmp_path: Path) -> None:
    script = tmp_path / "make_gestures.py"
    script.write_bytes((SAMPLES / script.name).read_bytes())
    module: dict[str, Any] = runpy.run_path(str(script))
    module["main"]()
    assert (tmp_path / "gestures.csv").read_bytes() == (SAMPLES / "gestures.csv").read_bytes()
