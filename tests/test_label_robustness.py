"""Labels of data as it comes: gaps, texts, features of whole series, rare and unknown classes, other file formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ok, run, table_of
from test_labels import TINY, rows, whole_series

from stacklstm_cli.config import DataConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.labels import LabelNetwork
from stacklstm_cli.training.label_plan import LabelPlan, plan_labels
from stacklstm_cli.training.labels import LabelLessons, LabelTrainer, set_statistics
from stacklstm_cli.training.runtime import Clock

LEARNS = ("--hidden-size", "8", "--layers", "1", "--epochs", "5", "--batch-size", "8", "--learning-rate", "0.05")
pytestmark = pytest.mark.usefixtures("small_labels")


def panel_of(frame: pd.DataFrame, tmp_path: Path) -> Panel:
    frame.to_csv(tmp_path / "panel.csv", index=False)
    return read_panel([str(tmp_path / "panel.csv")], DataConfig(label="label"))


def plan_of(panel: Panel, **training: Any) -> LabelPlan:
    return plan_labels(panel, ModelConfig(hidden_size=(4,), layers=1), TrainingConfig(**training))


def statistics(panel: Panel, plan: LabelPlan, truth: np.ndarray) -> LabelNetwork:
    network = LabelNetwork(plan.spec)
    set_statistics(network, panel, truth, plan.every_row)
    return network


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of `d.csv`, and `turned.csv`, whose labels are the other way round."""
    folder = tmp_path_factory.mktemp("judging")
    frame = whole_series(16)
    frame.to_csv(folder / "d.csv", index=False)
    frame.assign(label=frame["label"].map({"up": "down", "down": "up"})).to_csv(folder / "turned.csv", index=False)
    ok("train", folder / "d.csv", "--label", "label", "-m", folder / "m", *LEARNS, "-q")
    return folder


# --- features ---


def missing(frame: pd.DataFrame) -> pd.DataFrame:
    """No value at the start of one series, within another, in all of a third, and a column that begins empty."""
    frame = frame.copy()
    of = frame.groupby("id").cumcount()
    frame.loc[(frame["id"] == "s0") & (of < 2), "a"] = np.nan
    frame.loc[(frame["id"] == "s1") & (of == 2), "a"] = np.nan
    frame.loc[frame["id"] == "s2", ["a", "b"]] = np.nan
    frame.loc[frame["id"] < "s3", "b"] = np.nan
    return frame


def test_missing_values_anywhere(tmp_path: Path) -> None:
    missing(whole_series(16)).to_csv(tmp_path / "d.csv", index=False)
    ok("train", tmp_path / "d.csv", "--label", "label", "-m", tmp_path / "m", *LEARNS, "-q")
    found = table_of(ok("predict", tmp_path / "d.csv", "-m", tmp_path / "m", "--format", "csv"))
    assert np.isfinite(found[["p_down", "p_up"]].to_numpy()).all()
    truth = whole_series(16).groupby("id", sort=False)["label"].first().to_numpy()
    told = found["id"] != "s2"
    assert (found["label"].to_numpy() == truth)[told].all()
    document = json.loads(ok("evaluate", tmp_path / "d.csv", "-m", tmp_path / "m", "--format", "json").stdout)
    assert np.isfinite(list(document["metrics"]["nearest_neighbour"].values())).all()


def test_a_longer_and_a_shorter_series_than_any_of_the_training(learned: Path, tmp_path: Path) -> None:
    rows({"long": ["up"] * 41, "two": ["down"] * 2, "one": ["down"]}, 3).to_csv(tmp_path / "new.csv", index=False)
    found = table_of(ok("predict", tmp_path / "new.csv", "-m", learned / "m", "--format", "csv"))
    assert found["label"].tolist()[:2] == ["up", "down"]
    assert found["probability"][2] < found["probability"][1]  # a single row has no shape


def test_texts_tell_labels_and_unknown_ones_are_said(tmp_path: Path) -> None:
    frame = whole_series(16)
    frame["a"] = np.where(frame["label"] == "up", "yes", "no")
    frame.loc[frame.index % 3 == 0, "a"] = "other"
    frame.to_csv(tmp_path / "d.csv", index=False)
    ok("train", tmp_path / "d.csv", "--label", "label", "-m", tmp_path / "m", *LEARNS, "-q")
    found = table_of(ok("predict", tmp_path / "d.csv", "-m", tmp_path / "m", "--format", "csv"))
    truth = frame.groupby("id", sort=False)["label"].first().to_numpy()
    assert (found["label"].to_numpy() == truth).all()
    frame["a"] = "never seen"
    frame.to_csv(tmp_path / "new.csv", index=False)
    assert "never seen" in ok("predict", tmp_path / "new.csv", "-m", tmp_path / "m").stderr


def test_what_never_changes_within_a_series_belongs_to_the_whole_of_it(tmp_path: Path) -> None:
    frame = whole_series(8)
    number = frame["id"].str[1:].astype(int)
    frame["hand"] = np.where(number % 3, "left", "right")
    frame["age"] = 20 + number
    frame["same"] = 7
    frame["moves"] = np.where(frame.index % 5, "x", "y")
    frame.loc[1, "hand"] = ""  # no other value
    panel = panel_of(frame, tmp_path)
    assert panel.columns.static == ("hand", "age")
    assert panel.columns.past == ("a", "b", "same", "moves")
    one = panel_of(frame.drop(columns=["a", "b", "same", "moves"]), tmp_path)
    assert one.columns.past == ("hand", "age")  # or nothing would change in time
    typed = read_panel([str(tmp_path / "panel.csv")], DataConfig(label="label", past=("hand",), static=("age",)))
    assert (typed.columns.past, typed.columns.static) == (("hand",), ("age",))


def test_a_column_that_changes_behind_the_first_rows_is_no_feature_of_the_series(tmp_path: Path) -> None:
    frame = rows({f"s{at}": ["up" if at % 2 else "down"] * 500 for at in range(6)})
    frame["c"] = frame["id"].str[1:].astype(int)
    frame.loc[len(frame) - 1, "c"] = 9
    assert panel_of(frame, tmp_path).columns.past == ("a", "b", "c")


def test_series_of_one_row_have_features_of_rows(tmp_path: Path) -> None:
    frame = rows({f"s{at}": ["up" if at % 2 else "down"] for at in range(8)})
    frame["time"] = np.arange(8)
    assert panel_of(frame, tmp_path).columns.past == ("a", "b")


def test_a_feature_that_is_the_same_everywhere_does_no_harm(tmp_path: Path) -> None:
    whole_series(16).assign(c=0.1, d="x").to_csv(tmp_path / "d.csv", index=False)
    ok("train", tmp_path / "d.csv", "--label", "label", "-m", tmp_path / "m", *LEARNS, "-q")
    document = json.loads(ok("evaluate", tmp_path / "d.csv", "-m", tmp_path / "m", "--format", "json").stdout)
    assert document["metrics"]["stacklstm"]["accuracy"] == 1.0


# --- nothing of what is held out ---


def test_statistics_of_a_fold_are_those_of_what_it_learns(tmp_path: Path) -> None:
    frame = whole_series(8)
    frame["age"] = 20.0 + frame["id"].str[1:].astype(int) ** 2
    panel = panel_of(frame, tmp_path)
    plan = plan_of(panel)
    for fold in plan.folds:
        network = statistics(panel, plan, fold)
        kept = [panel.keys[at][0] for at in np.flatnonzero(fold >= 0)]
        own = frame[frame["id"].isin(kept)]
        ages = own.groupby("id")["age"].first()
        np.testing.assert_allclose(network.static.mean.numpy(), [ages.mean()], rtol=1e-5)
        np.testing.assert_allclose(network.static.deviation.numpy(), [ages.std(ddof=0)], rtol=1e-5)
        np.testing.assert_allclose(network.past.mean.numpy(), own[["a", "b"]].mean(), rtol=1e-4, atol=1e-6)


def test_statistics_end_where_the_held_out_rows_begin(tmp_path: Path) -> None:
    frame = rows({"x": ["up", "down"] * 10, "y": ["down", "up"] * 6})
    panel = panel_of(frame, tmp_path)
    plan = plan_of(panel)
    first = pd.concat([frame[frame["id"] == "x"][:15], frame[frame["id"] == "y"][:9]])
    np.testing.assert_allclose(
        statistics(panel, plan, plan.folds[0]).past.mean.numpy(), first[["a", "b"]].mean(), rtol=1e-4, atol=1e-6
    )
    whole = statistics(panel, plan, plan.truth).past.mean.numpy()
    np.testing.assert_allclose(whole, frame[["a", "b"]].mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("every_row", [False, True])
def test_a_fold_is_told_nothing_of_what_it_holds_out(tmp_path: Path, every_row: bool) -> None:
    """Its network is the same, whatever the features and labels of the series that it has not seen."""
    changing, whole = ["up", "down", "down"] * 2, (["down"] * 6, ["up"] * 6)
    frame = rows({f"s{at}": changing if every_row else whole[at % 2] for at in range(8)})
    frame["age"] = frame["id"].str[1:].astype(int) * 3.0
    panel = panel_of(frame, tmp_path)
    plan = plan_of(panel, epochs=1)
    held = {panel.keys[at // (6 if every_row else 1)][0] for at in np.flatnonzero(plan.held_out(0))}
    assert len(held) in (2, 4)
    other = frame.copy()
    mine = other["id"].isin(held)
    other.loc[mine, ["a", "b", "age"]] = other.loc[mine, ["a", "b", "age"]] * 3 - 50
    changed = panel_of(other, tmp_path)
    weights = []
    for one in (panel, changed):
        trainer = LabelTrainer(one, plan, device=torch.device("cpu"), clock=Clock(), on_event=lambda event: None)
        weights.append(trainer.fit(plan.folds[0], 0, None, "fold", 1.0, 3).weights)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# --- classes ---


@pytest.mark.slow
def test_balanced_weights_find_the_rare_class_more_often(tmp_path: Path) -> None:
    """Of overlapping classes, one of them rare, weights move the line between them."""
    generator = np.random.default_rng(0)
    parts = []
    for at in range(48):
        rare = at % 8 == 0
        values = (0.8 if rare else 0.0) + generator.standard_normal(4)
        label = "rare" if rare else "usual"
        parts.append(pd.DataFrame({"id": f"s{at}", "time": range(4), "a": values, "label": label}))
    pd.concat(parts).to_csv(tmp_path / "d.csv", index=False)
    found = {}
    for weights in ("none", "balanced"):
        words = ("--label", "label", "-m", tmp_path / weights, *LEARNS, "--class-weights", weights, "-q")
        ok("train", tmp_path / "d.csv", *words)
        found[weights] = table_of(ok("predict", tmp_path / "d.csv", "-m", tmp_path / weights, "--format", "csv"))
    assert found["balanced"]["p_rare"].mean() > found["none"]["p_rare"].mean() + 0.1


def test_weights_of_a_batch_are_those_of_its_classes(tmp_path: Path) -> None:
    frame = rows({f"s{at}": ["up" if at < 2 else "down"] * 4 for at in range(8)})
    panel = panel_of(frame, tmp_path)
    plan = plan_of(panel, class_weights="balanced")
    trainer = LabelTrainer(panel, plan, device=torch.device("cpu"), clock=Clock(), on_event=lambda event: None)
    truth = torch.as_tensor(plan.truth)
    lessons = LabelLessons(trainer.windows, trainer.origins, truth, torch.as_tensor(plan.weights))
    known = lessons.batch(torch.arange(8)).known.squeeze(1)
    np.testing.assert_allclose(known.numpy(), np.where(np.arange(8) < 2, 2.0, 2 / 3))


def last_only(*, all_of_them: bool = False) -> pd.DataFrame:
    """Three series of rows; `late` stands in the last quarter alone."""
    late = ["late"] * 5 if all_of_them else ["late", "late", "up", "down", "up"]
    return rows({f"s{at}": ["up", "down", "down"] * 5 + late for at in range(3)})


def test_a_class_that_comes_last_only_is_learned_and_not_judged(tmp_path: Path) -> None:
    last_only().to_csv(tmp_path / "d.csv", index=False)
    done = ok("train", tmp_path / "d.csv", "--label", "label", "-m", tmp_path / "m", *TINY, "--format", "json")
    document = json.loads(done.stdout)
    assert [one["code"] for one in document["warnings"]] == ["class_not_judged"]
    assert "late" in document["warnings"][0]["message"]
    assert document["labels"]["scored"] == 9
    assert checkpoints.load(tmp_path / "m").stored.classes == ("down", "late", "up")
    assert "late" in ok("check", tmp_path / "d.csv", "--label", "label").stdout


@pytest.mark.parametrize("command", ["train", "check"])
def test_rows_of_which_nothing_can_be_judged_are_refused(tmp_path: Path, command: str) -> None:
    last_only(all_of_them=True).to_csv(tmp_path / "d.csv", index=False)
    own = ("-m", tmp_path / "m") if command == "train" else ()
    done = run(command, tmp_path / "d.csv", "--label", "label", *own)
    assert done.exit_code == 3
    assert "nothing could be judged" in " ".join(done.stderr.split())


def test_thousands_of_numbers_ask_for_a_forecast(tmp_path: Path) -> None:
    frame = rows({"s0": ["up"] * 3000})
    frame["label"] = np.round(np.random.default_rng(0).normal(size=3000), 3)
    frame.to_csv(tmp_path / "d.csv", index=False)
    done = run("train", tmp_path / "d.csv", "--label", "label", "-m", tmp_path / "m")
    assert done.exit_code == 3
    assert "--target label" in done.stderr


# --- judging ---


@pytest.mark.parametrize("baseline", ["majority", "nearest_neighbour"])
def test_a_model_that_is_worse_than_a_baseline_ends_with_5(learned: Path, baseline: str) -> None:
    words = ("-m", learned / "m", "--fail-if-worse-than", baseline, "--format", "json")
    assert run("evaluate", learned / "d.csv", *words).exit_code == 0
    done = run("evaluate", learned / "turned.csv", *words)
    assert done.exit_code == 5
    assert json.loads(done.stdout)["status"] == "refused"
    assert baseline in done.stderr


def test_baselines_of_forecasts_are_none_of_labels(learned: Path) -> None:
    assert run("evaluate", learned / "d.csv", "-m", learned / "m", "--fail-if-worse-than", "naive").exit_code == 2


def test_where_the_neighbours_are_is_said(learned: Path) -> None:
    done = ok("evaluate", learned / "d.csv", "-m", learned / "m")
    assert "looks among the labels of this file" in done.stderr
    assert run("evaluate", learned / "d.csv", "-m", learned / "m", "-q").stderr == ""


def test_parquet_in_and_out(learned: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(learned / "d.csv")
    frame.to_parquet(tmp_path / "d.parquet", index=False)
    ok("train", tmp_path / "d.parquet", "--label", "label", "-m", tmp_path / "m", *LEARNS, "-q")
    assert (tmp_path / "m").read_bytes() == (learned / "m").read_bytes()
    ok("predict", tmp_path / "d.parquet", "-m", tmp_path / "m", "-o", tmp_path / "p.parquet", "--format", "parquet")
    expected = table_of(ok("predict", learned / "d.csv", "-m", learned / "m", "--format", "csv"))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "p.parquet"), expected)
