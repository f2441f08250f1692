"""tune and `train --layers auto` for labels: what is compared, on what, and what is trained then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ok, run
from sklearn.metrics import log_loss
from test_labels import rows, whole_series

from stacklstm_cli.cli.report import search_caption
from stacklstm_cli.cli.searching import plan_search
from stacklstm_cli.config import DataConfig, MetricConfig, ModelConfig, SearchConfig, TrainingConfig
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.evaluation.labels import fit_temperature
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.training.label_folds import Curve
from stacklstm_cli.training.label_plan import plan_labels
from stacklstm_cli.training.label_search import LabelTask
from stacklstm_cli.training.labels import LabelTrainer
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.search import StoppedError, shortened_schedule

pytestmark = pytest.mark.usefixtures("small_labels")
SMALL = ("--hidden-size", "4", "--epochs", "4", "--batch-size", "8", "--max-layers", "2")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 12 series."""
    place = tmp_path_factory.mktemp("tuning") / "d.csv"
    whole_series().to_csv(place, index=False)
    return place


def task_of(path: Path, **options: str) -> LabelTask:
    panel = read_panel([str(path)], DataConfig(label="label"))
    model, training = ModelConfig(hidden_size=(4,)), TrainingConfig(epochs=4, batch_size=8, **options)
    plan = plan_labels(panel, model, training)
    task = plan_search(panel, plan, model, training, MetricConfig(), SearchConfig(), ("layers", "dropout"), named=True)
    assert isinstance(task, LabelTask)
    return task


def test_depths_are_compared_by_the_log_loss_of_the_folds(path: Path) -> None:
    found = json.loads(ok("tune", path, "--label", "label", *SMALL, "--format", "json").stdout)["search"]
    assert (found["metric"], found["n"], found["folds"], found["paired_over"]) == ("log_loss", 12, 4, "series")
    assert [one["layers"] for one in found["candidates"]] == [1, 2]
    assert all(one["spread"] > 0 for one in found["candidates"])
    assert "--label label" in found["command"]


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_fold_is_scored_by_its_calibrated_log_loss(path: Path, weights: str) -> None:
    task = task_of(path, class_weights=weights)
    plan = task.plan_of({"layers": 1})
    device_and_clock = {"device": CPU, "clock": Clock(), "on_event": lambda event: None}
    losses = task.losses(plan, 1, 5, **device_and_clock)
    one = replace(plan, seed=5, schedule=shortened_schedule(plan.schedule))
    curve = Curve(task.panel, one, 1, CPU)
    LabelTrainer(task.panel, one, **device_and_clock).fit(one.folds[1], 0, curve, "x", 1.0)
    truth = one.truth[curve.held]
    best = np.inf
    for found in curve.found.values():
        logits = np.log(found)
        soft = np.exp(logits / fit_temperature(logits, truth))
        soft /= soft.sum(1, keepdims=True)
        best = min(best, log_loss(truth, soft, labels=[0, 1], sample_weight=one.weights[truth]))
    assert losses.mean() / one.weights[truth].mean() == pytest.approx(best)


def test_rows_are_paired_by_stretches(tmp_path: Path) -> None:
    rows({"x": ["up", "up", "down"] * 12, "y": ["down"] * 30 + ["up"] * 6}).to_csv(tmp_path / "d.csv", index=False)
    task = task_of(tmp_path / "d.csv")
    assert task.rolling.paired_over == "stretches"
    assert task.rolling.units == 6 + 2
    assert "8 stretches in 1 fold" in task.rolling.explained()
    found = json.loads(ok("tune", tmp_path / "d.csv", "--label", "label", *SMALL, "--format", "json").stdout)["search"]
    assert "over 8 stretches" in search_caption(found)
    assert "attention" not in found["candidates"][0]
    done = run("train", tmp_path / "d.csv", "--label", "label", "-m", tmp_path / "m", "--attention")
    assert done.exit_code == 2


def test_what_is_as_anyway_is_not_typed(path: Path) -> None:
    task = task_of(path)
    start = task.starts[0]
    assert set(start) == {"layers", "dropout"}
    assert task.own(start) == {"layers": 1}
    model = ModelConfig(hidden_size=(4,), layers=1)
    plain = plan_labels(task.panel, model, TrainingConfig(epochs=4, batch_size=8))
    assert task.plan_of(start).spec == plain.spec


def test_a_time_limit_ends_a_fit_unscored(path: Path) -> None:
    task = task_of(path)
    clock = Clock(1e-9)
    clock.start()
    with pytest.raises(StoppedError):
        task.losses(task.plan_of({"layers": 1}), 0, 0, device=CPU, clock=clock, on_event=lambda event: None)


def test_what_a_user_must_know_of_the_model_is_said(tmp_path: Path) -> None:
    changing = {f"s{at}": ["up", "down"] * 4 + ["late"] * 2 for at in range(3)}
    rows(changing).to_csv(tmp_path / "d.csv", index=False)
    done = ok("tune", tmp_path / "d.csv", "--label", "label", *SMALL, "-m", tmp_path / "m", "--format", "json")
    codes = [one["code"] for one in json.loads(done.stdout)["warnings"]]
    assert "class_not_judged" in codes


def test_the_choice_is_trained_and_kept(path: Path, tmp_path: Path) -> None:
    words = ("--label", "label", *SMALL, "-m", tmp_path / "m", "--study", tmp_path / "s.log", "--format", "json")
    document = json.loads(ok("tune", path, *words, "--plot", tmp_path / "p.png").stdout)
    saved = checkpoints.load(tmp_path / "m")
    assert saved.search["metric"] == "log_loss"
    assert document["metrics"]["stacklstm"]["log_loss"] == saved.metrics["stacklstm"]["log_loss"]
    assert document["folds_verdict"]
    assert (tmp_path / "p.png").stat().st_size > 1000
    ok("predict", path, "-m", tmp_path / "m")
    again = json.loads(ok("tune", path, *words).stdout)["search"]["candidates"]
    assert [one["score"] for one in again] == [one["score"] for one in document["search"]["candidates"]]


def test_train_with_layers_auto(path: Path, tmp_path: Path) -> None:
    words = ("--label", "label", *SMALL, "-m", tmp_path / "m", "--layers", "auto", "--format", "json")
    document = json.loads(ok("train", path, *words).stdout)
    assert {one["layers"] for one in document["search"]["candidates"]} == {1, 2}
    assert document["model"]["layers"] == checkpoints.load(tmp_path / "m").spec.layers


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        (("--search", "context-length"), 2, "label_conflict"),
        (("--search", "gaps"), 2, "label_conflict"),
        (("--horizon", "2"), 2, "label_conflict"),
        (("--folds", "9"), 3, "too_few_rows_to_search"),
    ],
)
def test_refusals(path: Path, options: tuple[str, ...], status: int, code: str) -> None:
    done = run("tune", path, "--label", "label", *options, "--format", "json")
    assert done.exit_code == status, done.stderr
    assert json.loads(done.stderr[done.stderr.rindex('{"error"') :])["error"]["code"] == code
