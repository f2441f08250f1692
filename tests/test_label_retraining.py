"""retrain for models of labels: what is new, on what ground old and new networks meet, and what becomes of the file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from clocks import StopsAfter
from commands import ok, run
from test_labels import rows, whole_series

from stacklstm_cli.config import DataConfig, RetrainConfig
from stacklstm_cli.data.history import remember
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.training.label_plan import plan_labels
from stacklstm_cli.training.promotion import CHALLENGER, CHAMPION, look
from stacklstm_cli.training.relabelling import (
    among_known,
    compare_tables,
    each_network,
    own_options,
    retrain_labels,
    units_of,
    unseen,
)
from stacklstm_cli.training.runtime import Interrupted

OPTIONS = ("--hidden-size", "4", "--layers", "1", "--epochs", "6", "--batch-size", "8", "--learning-rate", "0.02")
pytestmark = pytest.mark.usefixtures("small_labels")


def more(count: int, name: str = "n", seed: int = 7) -> pd.DataFrame:
    frame = whole_series(count, seed)
    return frame.assign(id=name + frame["id"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data.csv` and a model of it."""
    folder = tmp_path_factory.mktemp("retraining")
    whole_series().to_csv(folder / "data.csv", index=False)
    ok("train", folder / "data.csv", "--label", "label", "-m", folder / "model", *OPTIONS, "-qq")
    return folder


@pytest.fixture
def model(home: Path, tmp_path: Path) -> Path:
    """A copy of the model to retrain."""
    return Path(shutil.copy(home / "model", tmp_path / "m"))


def written(tmp_path: Path, *frames: pd.DataFrame) -> Path:
    pd.concat(frames).to_csv(tmp_path / "new.csv", index=False)
    return tmp_path / "new.csv"


def panel_of(path: Path, saved: checkpoints.Checkpoint) -> Panel:
    return read_panel([str(path)], saved.data_config, stored=saved.stored)


def test_the_same_data_changes_nothing(home: Path, model: Path) -> None:
    before = model.read_bytes()
    done = ok("retrain", home / "data.csv", "-m", model, "--format", "json")
    assert json.loads(done.stdout)["status"] == "unchanged"
    assert run("retrain", home / "data.csv", "-m", model, "--fail-if-unchanged").exit_code == 7
    assert model.read_bytes() == before


def test_series_without_a_label_are_nothing_new(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path, whole_series(), more(12).assign(label=""))
    assert json.loads(ok("retrain", data, "-m", model, "--format", "json").stdout)["status"] == "unchanged"


def test_new_series_are_the_ground_where_there_are_enough(home: Path, model: Path, tmp_path: Path) -> None:
    data = written(tmp_path, whole_series(), more(12))
    done = ok(
        "retrain", data, "-m", model, "--keep", "1", "--log", tmp_path / "log", "--gate", "always", "--format", "json"
    )
    document = json.loads(done.stdout)
    assert document["labels"] | {"column": ""} == {"column": "", "one_per": "series", "scored": 12, "ground": "new"}
    assert document["decision"]["units"] == 12
    assert document["changes"]["new_series"] == [f"ns{at}" for at in range(12)]
    assert set(document["metrics"]) == {CHAMPION, CHALLENGER}
    assert (tmp_path / "m.1").read_bytes() == (home / "model").read_bytes()
    saved = checkpoints.load(model)
    assert len(saved.keys) == 24
    assert saved.lineage[-1]["parent"] == checkpoints.load(home / "model").id
    assert saved.lineage[-1]["challenger"]["log_loss"] == document["metrics"][CHALLENGER]["log_loss"]
    assert json.loads((tmp_path / "log").read_text())["champion"].keys() == {"accuracy", "log_loss"}
    assert "champion_log_loss" in ok("inspect", model, "--history").stdout
    assert not (tmp_path / "m.resume").exists()
    ok("promote", model, "--previous")
    assert model.read_bytes() == (home / "model").read_bytes()


def test_few_new_series_leave_it_to_the_folds(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path, whole_series(), more(3))
    document = json.loads(ok("retrain", data, "-m", model, "--gate", "always", "--format", "json").stdout)
    assert document["labels"]["ground"] == "folds"
    assert document["labels"]["scored"] == 15


@pytest.mark.parametrize("count", [3, 12])
def test_a_model_that_is_clearly_worse_is_refused(model: Path, tmp_path: Path, count: int) -> None:
    before = model.read_bytes()
    data = written(tmp_path, whole_series(), more(count))
    # Labels by the toss of a coin teach nothing that is so.
    frame = pd.read_csv(data)
    if count == 3:
        coin = np.random.default_rng(0).permutation(["up", "down"] * 8)[:15]
        frame["label"] = frame["id"].map(dict(zip(frame["id"].unique(), coin, strict=True)))
    frame.to_csv(data, index=False)
    rate = ("--learning-rate", "1e-7") if count == 12 else ()
    done = run("retrain", data, "-m", model, "--format", "json", *rate)
    assert done.exit_code == 5
    assert json.loads(done.stdout)["decision"]["why"] == "clearly_worse"
    assert model.read_bytes() == before


def test_what_a_refused_model_has_learned_is_not_said(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path, whole_series(), more(12), more(3, "z").assign(label="aside"))
    done = run("retrain", data, "-m", model, "--learning-rate", "1e-7")
    assert done.exit_code == 5
    assert "learned now" not in done.stderr


def test_a_new_class_is_learned_and_one_that_is_gone_is_refused(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path, whole_series(), more(12), more(3, "z").assign(label="aside"))
    done = ok("retrain", data, "-m", model, "--gate", "always")
    assert "learned now: aside" in done.stderr
    saved = checkpoints.load(model)
    assert saved.stored.classes == ("down", "up", "aside")
    frame = pd.concat([whole_series(), more(12, "q")])
    done = run("retrain", written(tmp_path, frame[frame["label"] == "up"]), "-m", model)
    assert done.exit_code == 3
    assert "'down'" in done.stderr


def test_other_features_of_known_series_are_seen(home: Path, model: Path, tmp_path: Path) -> None:
    frame = whole_series()
    frame.loc[3, "a"] += 1
    saved = checkpoints.load(model)
    changed = look(saved, panel_of(written(tmp_path, frame), saved))
    assert changed.revised_series == ("s0",)
    assert look(saved, panel_of(home / "data.csv", saved)).nothing_new


def test_texts_are_remembered_as_they_are_and_not_by_their_numbers(tmp_path: Path) -> None:
    frame = whole_series(6).assign(kind=lambda one: np.where(one.index % 2, "x", "y"))
    frame.to_csv(tmp_path / "d.csv", index=False)
    more(2).assign(kind="a").to_csv(tmp_path / "more.csv", index=False)
    pd.concat([frame, pd.read_csv(tmp_path / "more.csv")]).to_csv(tmp_path / "both.csv", index=False)
    one, both = (read_panel([str(tmp_path / name)], DataConfig(label="label")) for name in ("d.csv", "both.csv"))
    assert one.covariates != both.covariates
    assert remember(both).digests[: one.n_series].tolist() == remember(one).digests.tolist()


def test_options_about_forecasts_are_refused(model: Path, home: Path) -> None:
    assert run("retrain", home / "data.csv", "-m", model, "--horizon", "3").exit_code == 2


def test_equal_runs_give_equal_files_and_a_signal_leaves_the_model(
    model: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = written(tmp_path, whole_series(), more(12))
    again = Path(shutil.copy(home / "model", tmp_path / "again"))
    for one in (model, again):
        ok("retrain", data, "-m", one, "--gate", "always", "-qq")
    assert model.read_bytes() == again.read_bytes()
    saved = checkpoints.load(home / "model")
    panel = panel_of(data, saved)
    device = torch.device("cpu")
    for steps in (2, 20):
        monkeypatch.undo()
        clock = StopsAfter(steps, "signal", monkeypatch)
        with pytest.raises(Interrupted):
            retrain_labels(saved, panel, look(saved, panel), RetrainConfig("always"), {}, device=device, clock=clock)


def test_each_network_of_the_champion_speaks_alone(home: Path, tmp_path: Path) -> None:
    from stacklstm_cli.training.labels import LabelTrainer
    from stacklstm_cli.training.runtime import Clock

    saved = checkpoints.load(home / "model")
    panel = panel_of(written(tmp_path, whole_series(), more(12)), saved)
    plan = plan_labels(panel, *own_options(saved, {}), every_row=False)
    trainer = LabelTrainer(panel, plan, device=torch.device("cpu"), clock=Clock(), on_event=lambda event: None)
    said = list(each_network(saved, trainer, np.arange(24)))
    whole = saved.classifier(torch.device("cpu")).probabilities(panel)
    assert saved.spec.labels is not None
    assert len(said) == saved.spec.labels.members > 1
    np.testing.assert_allclose(np.mean(said, axis=0), whole, rtol=1e-6)
    assert not np.allclose(said[0], whole)


def test_rows_that_came_since_and_what_is_paired(tmp_path: Path) -> None:
    old = rows({"x": ["up", "up", "down", "down"] * 4, "y": ["down", "up"] * 6})
    old.to_csv(tmp_path / "old.csv", index=False)
    ok("train", tmp_path / "old.csv", "--label", "label", "-m", tmp_path / "m", *OPTIONS[:-4], "--epochs", "1", "-qq")
    saved = checkpoints.load(tmp_path / "m")
    added = rows({"x": ["up"] * 20, "y": ["down"] * 12, "z": ["up", "up", "down"] * 4})
    later = added[(added["id"] == "z") | (added["time"] >= added["id"].map({"x": 16, "y": 12, "z": 0}))]
    panel = panel_of(written(tmp_path, old, later), saved)
    new = unseen(saved, panel, every_row=True)
    assert new.tolist() == [False] * 16 + [True] * 4 + [False] * 12 + [True] * 12
    plan = plan_labels(panel, *own_options(saved, {}), every_row=True)
    over, groups = units_of(panel, plan, np.flatnonzero(new))
    assert over == "stretches"
    assert groups.tolist() == [0] * 4 + [1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8]


def test_two_tables_are_compared_as_two_samples(home: Path) -> None:
    from scipy.stats import norm

    saved = checkpoints.load(home / "model")
    losses = np.random.default_rng(0).gamma(1.0, 0.4, 4000)
    saved = replace(saved, training=saved.training | {"spread": 0.5, "units": 3000, "unit_loss": 0.39})
    found = compare_tables(saved, losses, "series")
    assert found is not None
    z = (losses.mean() - 0.39) / np.sqrt(losses.var(ddof=1) / 4000 + 0.25 / 3000)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(z)), rel=1e-2)
    assert found.difference == pytest.approx(losses.mean() - 0.39)


def test_rows_of_few_series_are_compared_by_stretches(tmp_path: Path) -> None:
    """Rows of one stretch tell much the same: 4 of them are no four witnesses."""
    old = rows({name: (["up"] * 4 + ["down"] * 4) * 8 for name in "xyz"})
    words = ("--label", "label", "-m", tmp_path / "m", *OPTIONS[:-4], "--epochs", "1", "-qq")
    ok("train", written(tmp_path, old), *words)
    saved = checkpoints.load(tmp_path / "m")
    assert saved.training["judged"] == 3 * 16
    assert (saved.training["units"], saved.training["paired_over"]) == (3 * 4, "stretches")
    later = rows({name: ["up"] * 68 for name in "xyz"})
    data = written(tmp_path, old, later[later["time"] >= 64])
    document = json.loads(ok("retrain", data, "-m", tmp_path / "m", "--gate", "always", "--format", "json").stdout)
    assert document["labels"]["ground"] == "folds"
    assert document["decision"]["paired_over"] == "stretches"
    assert document["decision"]["units"] == 3 * 5  # the last 17 rows begin with the last one of a stretch


def test_what_a_new_class_is_given_is_not_held_against_the_challenger() -> None:
    found = np.asarray([[0.3, 0.1, 0.6], [0.2, 0.8, 0.0]])
    np.testing.assert_allclose(among_known(found, 2), [[0.75, 0.25], [0.2, 0.8]])
