"""Labels: one for each series or for each row, learned, saved, predicted and scored by the usual verbs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ok, run, table_of

from stacklstm_cli.config import DataConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.labels import label_codes, row_labels, series_labels
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.heads import LabelHead, Scaling
from stacklstm_cli.model.labels import LabelNetwork, LabelWindows, label_windows
from stacklstm_cli.training.label_plan import LabelPlan, plan_labels, split_series

TINY = ("--hidden-size", "4", "--layers", "1", "--epochs", "6", "--batch-size", "8")


def rows(labels: dict[str, list[str]], seed: int = 0) -> pd.DataFrame:
    """A long file: the feature `a` of a row labelled "up" is 2, else -2, plus noise; `b` is noise alone."""
    generator = np.random.default_rng(seed)
    parts = []
    for name, column in labels.items():
        level = np.where(np.asarray(column) == "up", 2.0, -2.0)
        values = level + 0.3 * generator.standard_normal(len(column))
        noise = generator.standard_normal(len(column))
        parts.append(pd.DataFrame({"id": name, "time": range(len(column)), "a": values, "b": noise, "label": column}))
    return pd.concat(parts, ignore_index=True)


def whole_series(count: int = 12, seed: int = 0) -> pd.DataFrame:
    """Series of unequal length, each of one class."""
    return rows({f"s{at}": ["up" if at % 2 else "down"] * (5 + at % 4) for at in range(count)}, seed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data.csv` and a model of it."""
    folder = tmp_path_factory.mktemp("labels")
    whole_series().to_csv(folder / "data.csv", index=False)
    ok(
        "train",
        folder / "data.csv",
        "--label",
        "label",
        "-m",
        folder / "m.safetensors",
        *TINY,
        "-q",
        "--format",
        "json",
    )
    return folder


def test_roles_and_classes_of_a_long_file(tmp_path: Path) -> None:
    frame = whole_series()
    frame.loc[0, "label"] = ""
    frame.to_csv(tmp_path / "d.csv", index=False)
    panel = read_panel([str(tmp_path / "d.csv")], DataConfig(label="label"))
    assert panel.columns.targets == ("label",)
    assert panel.columns.past == ("a", "b")
    assert panel.classes == ("down", "up")
    assert panel.lengths.tolist() == [5 + at % 4 for at in range(12)]  # an empty label takes no row away
    assert row_labels(panel)[:2].tolist() == [-1, 0]
    assert series_labels(panel).tolist() == [at % 2 for at in range(12)]


def test_labels_that_are_numbers_are_in_their_order_and_unknown_ones_stand_behind() -> None:
    words = np.asarray(["10", "2", "", "1", "2"], dtype=object)
    assert label_codes(words, ())[0] == ("1", "2", "10")
    classes, codes = label_codes(words, ("2", "1"))
    assert classes == ("2", "1", "10")
    assert codes.tolist() == [2, 0, -1, 1, 0]


def test_irregular_times_are_steps_in_their_order(tmp_path: Path) -> None:
    stamps = ["2024-01-01 00:00:07", "2024-01-01 00:00:01.25", "2024-01-01 03:10:00", "2024-01-05 00:00:00.5"]
    frame = pd.concat([pd.DataFrame({"id": name, "time": stamps, "a": [2, 1, 3, 4], "label": name}) for name in "xy"])
    frame.to_csv(tmp_path / "d.csv", index=False)
    panel = read_panel([str(tmp_path / "d.csv")], DataConfig(label="label"))
    assert panel.timed[:4, 0].tolist() == [1, 2, 3, 4]
    assert panel.step.unit == "step"
    assert any("no common step" in note for note in panel.notes)


def test_cross_entropy_by_hand() -> None:
    raw = torch.tensor([[[0.0, np.log(3.0)]], [[0.0, 0.0]]])
    one = torch.ones(2, 1)
    loss = LabelHead().loss(raw, torch.tensor([[1], [0]]), one, Scaling(one, one))
    np.testing.assert_allclose(loss.numpy(), [[-np.log(0.75)], [np.log(2)]], rtol=1e-6)


@pytest.mark.parametrize("every_row", [False, True])
def test_no_label_reaches_the_network_and_padding_is_nothing(tmp_path: Path, every_row: bool) -> None:
    frame = rows({f"s{at}": ["up", "down"] * 4 for at in range(4)}) if every_row else whole_series(8)
    frame.to_csv(tmp_path / "d.csv", index=False)
    panel = read_panel([str(tmp_path / "d.csv")], DataConfig(label="label"))
    plan = plan_labels(panel, ModelConfig(hidden_size=(4,)), TrainingConfig())
    network = LabelNetwork(plan.spec).eval()
    origins = label_windows(panel.lengths, plan.spec)
    series, ends = (torch.as_tensor(part) for part in (origins.series, origins.rows))
    found = network(LabelWindows(panel, plan.spec, torch.device("cpu")).inputs(series, ends))
    turned = type(panel)(**vars(panel) | {"values": np.where(panel.values == 0, 1.0, 0.0)})
    assert torch.equal(found, network(LabelWindows(turned, plan.spec, torch.device("cpu")).inputs(series, ends)))
    assert found.shape == (len(origins), plan.spec.context_length if every_row else 1, 2)


def test_windows_hold_every_row() -> None:
    spec = checkpoint_spec()
    lengths = np.asarray([1, 3, 4, 9, 26])
    origins = label_windows(lengths, spec)
    for index, length in enumerate(lengths.tolist()):
        ends = origins.rows[origins.series == index]
        held = {row for end in ends.tolist() for row in range(max(0, end - spec.context_length), end)}
        assert held == set(range(length))
        assert ends.max() == length


def checkpoint_spec():  # type: ignore[no-untyped-def]
    """A network of windows of 4 rows, one label for each."""
    import io

    from stacklstm_cli.data.panel import Panel

    frame = rows({"a": ["up", "down"] * 8, "b": ["down", "up"] * 8})
    path = io.BytesIO(frame.to_csv(index=False).encode())
    panel: Panel = read_panel(["-"], DataConfig(label="label"), stdin=path)
    return plan_labels(panel, ModelConfig(context_length=4), TrainingConfig()).spec


def test_folds_are_stratified() -> None:
    truth = np.asarray([0] * 8 + [1] * 4 + [-1])
    folds = list(split_series(truth, seed=3))
    held = [np.flatnonzero((truth >= 0) & (fold < 0)) for fold in folds]
    assert sorted(np.concatenate(held).tolist()) == list(range(12))
    assert [np.bincount(truth[one]).tolist() for one in held] == [[2, 1]] * 4


def row_plan(frame: pd.DataFrame, tmp_path: Path, seed: int = 0) -> LabelPlan:
    frame.to_csv(tmp_path / "d.csv", index=False)
    panel = read_panel([str(tmp_path / "d.csv")], DataConfig(label="label"))
    return plan_labels(panel, ModelConfig(hidden_size=(4,), layers=1), TrainingConfig(seed=seed), every_row=True)


def test_series_with_labels_are_dealt_into_folds_and_others_into_none(tmp_path: Path) -> None:
    frame = rows({f"s{at:02}": ["up", "down", "down"] for at in range(12)})
    frame.loc[frame["id"].isin(["s03", "s07", "s11"]), "label"] = ""
    held = [np.flatnonzero(one.reshape(12, 3).max(1) < 0) for one in row_plan(frame, tmp_path).folds]
    bare = {3, 7, 11}
    own = [sorted(set(one.tolist()) - bare) for one in held]
    assert all(bare <= set(one.tolist()) for one in held)
    assert sorted(at for one in own for at in one) == [at for at in range(12) if at not in bare]
    assert sorted(map(len, own)) == [2, 2, 2, 3]


def test_folds_of_rows_do_not_follow_the_order_of_the_file(tmp_path: Path) -> None:
    """Every fourth series alone has a class of its own, which a fold by position would hold out as a whole."""
    frame = rows({f"s{at:02}": ["up", "odd" if at % 4 == 0 else "down"] for at in range(16)})
    plan = row_plan(frame, tmp_path)
    assert plan.never_judged() == []
    assert any((one != other).any() for one, other in zip(plan.folds, row_plan(frame, tmp_path, 1).folds, strict=True))


def test_the_last_rows_are_those_before_the_last_label(tmp_path: Path) -> None:
    frame = rows({"x": ["up", "down"] * 4 + [""] * 12, "y": ["down"] * 4 + ["up"] * 4 + [""] * 4})
    plan = row_plan(frame, tmp_path)
    assert np.flatnonzero(plan.held_out(0)).tolist() == [6, 7, 26, 27]  # a quarter of the 8 that have labels


def test_predict_and_evaluate(trained: Path) -> None:
    data, model = trained / "data.csv", trained / "m.safetensors"
    new = whole_series(10, seed=5)
    new.to_csv(trained / "new.csv", index=False)
    new.drop(columns="label").to_csv(trained / "bare.csv", index=False)
    found = table_of(ok("predict", trained / "bare.csv", "-m", model, "--format", "csv"))
    assert list(found.columns) == ["id", "label", "probability", "p_down", "p_up"]
    assert found["id"].tolist() == [f"s{at}" for at in range(10)]
    np.testing.assert_allclose(found["p_down"] + found["p_up"], 1)
    assert (found["probability"] == found[["p_down", "p_up"]].max(axis=1)).all()
    assert found.equals(table_of(ok("predict", trained / "new.csv", "-m", model, "--format", "csv")))
    truth = new.groupby("id", sort=False)["label"].first().to_numpy()
    document = json.loads(ok("evaluate", trained / "new.csv", "-m", model, "--format", "json").stdout)
    assert document["metrics"]["stacklstm"]["accuracy"] == np.mean(found["label"].to_numpy() == truth)
    assert set(document["metrics"]) == {"stacklstm", "majority", "nearest_neighbour"}
    assert "IN SAMPLE" in ok("evaluate", data, "-m", model).stdout


def test_equal_runs_give_equal_files_and_options_are_kept(trained: Path) -> None:
    data, model = trained / "data.csv", trained / "m.safetensors"
    ok("train", data, "--label", "label", "-m", trained / "again.safetensors", *TINY, "-q")
    assert model.read_bytes() == (trained / "again.safetensors").read_bytes()
    saved = checkpoints.load(model)
    assert saved.spec.labels is not None
    assert saved.spec.labels.classes == ("down", "up")
    assert "up" in ok("inspect", model).stdout


def test_classes_that_training_has_not_seen_are_named(trained: Path) -> None:
    new = whole_series(6)
    new.loc[new["id"] == "s1", "label"] = "sideways"
    new.to_csv(trained / "other.csv", index=False)
    done = ok("evaluate", trained / "other.csv", "-m", trained / "m.safetensors", "--format", "json")
    document = json.loads(done.stdout)
    assert document["labels"]["unseen"] == {"sideways": 1}
    assert "sideways" in done.stderr


def test_one_label_for_each_row(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    frame = rows({f"s{at}": generator.choice(["up", "down"], 30).tolist() for at in range(3)})
    frame.to_csv(tmp_path / "d.csv", index=False)
    model = tmp_path / "m.safetensors"
    ok(
        "train",
        tmp_path / "d.csv",
        "--label",
        "label",
        "-m",
        model,
        *TINY,
        "--epochs",
        "25",
        "-q",
        "--learning-rate",
        "0.02",
    )
    found = table_of(ok("predict", tmp_path / "d.csv", "-m", model, "--format", "csv"))
    assert list(found.columns) == ["id", "time", "label", "probability", "p_down", "p_up"]
    assert found[["id", "time"]].equals(frame[["id", "time"]])
    assert np.mean(found["label"] == frame["label"]) > 0.9


def test_balanced_weights_count_each_class_alike(tmp_path: Path) -> None:
    frame = rows({f"s{at}": ["up" if at < 2 else "down"] * 4 for at in range(8)})
    frame.to_csv(tmp_path / "d.csv", index=False)
    panel = read_panel([str(tmp_path / "d.csv")], DataConfig(label="label"))
    plan = plan_labels(panel, ModelConfig(), TrainingConfig(class_weights="balanced"))
    np.testing.assert_allclose(plan.weights, [8 / (2 * 6), 8 / (2 * 2)])


@pytest.mark.parametrize(
    ("change", "options", "status", "code"),
    [
        ({"label": "up"}, (), 3, "one_class"),
        ({"label": ""}, (), 3, "one_class"),
        ({"label": "@id"}, (), 3, "rare_class"),
        ({"label": "@count"}, (), 3, "too_many_classes"),
        ({"p_up": "@id"}, ("--id", "p_up"), 3, "column_clash"),
        ({}, ("--target", "label"), 2, "role_conflict"),
        ({}, ("--time", "label"), 2, "role_conflict"),
        ({}, ("--target", "a"), 2, "label_conflict"),
        ({}, ("--known", "a"), 2, "label_conflict"),
        ({}, ("--horizon", "3"), 2, "label_conflict"),
        ({}, ("--search", "gaps"), 2, "label_conflict"),
        ({}, ("--duplicates", "mean"), 2, "label_conflict"),
    ],
)
@pytest.mark.parametrize("command", ["train", "check"])
def test_refusals(
    tmp_path: Path, command: str, change: dict[str, str], options: tuple[str, ...], status: int, code: str
) -> None:
    frame = whole_series(24)
    for name, value in change.items():
        frame[name] = {"@id": frame["id"], "@count": np.arange(len(frame))}.get(value, value)
    frame.to_csv(tmp_path / "d.csv", index=False)
    own = ("-m", tmp_path / "m.safetensors") if command == "train" else ()
    done = run(command, tmp_path / "d.csv", "--label", "label", *own, *options, "--format", "json")
    assert done.exit_code == status, done.stderr
    last = done.stderr[done.stderr.rindex('{"error"') :]
    assert json.loads(last)["error"]["code"] == code
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "times"), [("t", range(8)), ("day", pd.date_range("2024-01-01", periods=8).strftime("%Y-%m-%d"))]
)
def test_the_time_column_is_no_label(tmp_path: Path, name: str, times: list[str]) -> None:
    pd.DataFrame({name: times, "a": [1.5, 2.5, 1.0, 3.0] * 2}).to_csv(tmp_path / "d.csv", index=False)
    done = run("train", tmp_path / "d.csv", "--label", name, "-m", tmp_path / "m")
    assert done.exit_code == 2
    assert f"--label names '{name}', which is the time column" in " ".join(done.stderr.split())
    assert not (tmp_path / "m").exists()


def test_a_label_that_predict_could_not_write_is_not_learned(tmp_path: Path) -> None:
    whole_series().rename(columns={"label": "probability"}).to_csv(tmp_path / "d.csv", index=False)
    done = run("train", tmp_path / "d.csv", "--label", "probability", "-m", tmp_path / "m")
    assert done.exit_code == 3
    assert "Column 'probability' would stand twice in the result of predict" in " ".join(done.stderr.split())


def test_threads_change_no_model(trained: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    words = ("--label", "label", *TINY, "-q", "--threads", "2")
    ok("train", trained / "data.csv", "-m", tmp_path / "m", *words)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    assert (tmp_path / "m").read_bytes() == (trained / "m.safetensors").read_bytes()


def test_the_majority_tells_the_shares_of_the_classes(tmp_path: Path) -> None:
    """Of three classes of equal size a third is right, though each fold lacks most of what it asks for."""
    frame = whole_series(30)
    frame["label"] = "c" + (frame["id"].str[1:].astype(int) % 3).astype(str)
    frame.to_csv(tmp_path / "d.csv", index=False)
    words = ("--label", "label", "--hidden-size", "4", "--layers", "1", "--epochs", "1", "--format", "json")
    found = json.loads(ok("train", tmp_path / "d.csv", "-m", tmp_path / "m", *words).stdout)["metrics"]["majority"]
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["log_loss"] == pytest.approx(np.log(3))


def test_the_convolutions_look_at_what_the_window_holds(tmp_path: Path) -> None:
    rows({f"s{at}": ["up" if at % 2 else "down"] * 300 for at in range(4)}).to_csv(tmp_path / "d.csv", index=False)
    panel = read_panel([str(tmp_path / "d.csv")], DataConfig(label="label"))
    strides = [plan_labels(panel, ModelConfig(context_length=one), TrainingConfig()).spec.labels for one in (16, None)]
    assert [one.stride for one in strides if one is not None] == [1, 3]


def test_the_card_tells_of_labels_alone(trained: Path) -> None:
    card = json.loads(ok("inspect", trained / "m.safetensors", "--format", "json").stdout)
    assert card["folds"] == "4, which judged 12 labels"
    assert not {"holdout", "intervals"} & set(card)
    assert card["network"]["labels"]["classes"] == ["down", "up"]
    parts = (*card["network"], *card["data"], *card["options"])
    assert not {"horizon", "quantiles", "cycles", "seasonality", "bidirectional"} & set(parts)


def test_class_weights_need_labels(trained: Path) -> None:
    assert run("train", trained / "data.csv", "--target", "a", "--class-weights", "balanced").exit_code == 2


def test_check_says_what_would_be_trained(trained: Path) -> None:
    done = ok("check", trained / "data.csv", "--label", "label", "--format", "json")
    document = json.loads(done.stdout)
    assert document["roles"]["label"] == ["label"]
    assert document["plan"]["labels"]["classes"] == ["down", "up"]
