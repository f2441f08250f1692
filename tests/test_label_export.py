"""`export` of models of labels: the ONNX file gives the probabilities that `predict` gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import ok, run, table_of
from test_labels import rows, whole_series

from stacklstm_cli.errors import ModelError
from stacklstm_cli.model import agreement
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.export import to_onnx

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("small_labels")
KINDS = {
    "plain": (),
    "attention": ("--attention", "--cell", "gru"),
    "patches": ("--patch-length", "3", "--layers", "1"),
}


def data(every_row: bool) -> pd.DataFrame:
    """Numbers with gaps, a text that changes, a number and a text of the whole series."""
    labels = {f"s{at}": ["up", "down", "down"] * 3 for at in range(4)}
    frame = rows(labels) if every_row else whole_series()
    frame.loc[::5, "a"] = np.nan
    frame["word"] = np.where(frame.index % 3, "x", "y")
    frame["size"] = frame["id"].str[1:].astype(int) * 1.5
    frame["hand"] = np.where(frame["id"].str[1:].astype(int) % 2, "left", "right")
    return frame


def given(frame: pd.DataFrame, saved: checkpoints.Checkpoint) -> dict[str, list[np.ndarray]]:
    """What a user would feed: the rows of each series at the end of a window, texts by their numbers."""
    length = saved.spec.context_length
    found: dict[str, list[np.ndarray]] = {"observed": [], "past": [], "static": []}
    texts = {one.name: one.categories for one in saved.spec.inputs.covariates}
    for _, own in frame.groupby("id", sort=False):
        cells = own.copy()
        for name, known in texts.items():
            if known is not None:
                cells[name] = [known.index(text) + 1 for text in own[name]]
        past = np.full((length, 3), np.nan)
        past[length - len(own) :] = cells[["a", "b", "word"]]
        found["observed"].append(np.arange(length) >= length - len(own))
        found["past"].append(past)
        found["static"].append(cells[["size", "hand"]].iloc[0].to_numpy(float))
    return found


@pytest.mark.parametrize(
    ("every_row", "kind"), [(False, "plain"), (False, "attention"), (False, "patches"), (True, "plain")]
)
def test_the_file_gives_what_predict_gives(tmp_path: Path, every_row: bool, kind: str) -> None:
    frame = data(every_row)
    frame.to_csv(tmp_path / "d.csv", index=False)
    model, target = tmp_path / "m", tmp_path / "m.onnx"
    options = ("--hidden-size", "4", "--epochs", "1", "--static", "size,hand", *KINDS[kind])
    ok("train", tmp_path / "d.csv", "--label", "label", "-m", model, *options, "-qq")
    done = ok("export", model, "-o", target, "--data", tmp_path / "d.csv", "--format", "json")
    document = json.loads(done.stdout)
    assert max(document["comparison"]["largest_difference"].values()) <= 1e-5
    assert document["onnx"]["outputs"][0]["columns"] == ["down", "up"]
    saved = checkpoints.load(model)
    session = onnxruntime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
    types = {"observed": bool, "past": np.float32, "static": np.float32}
    inputs = {name: np.asarray(parts, types[name]) for name, parts in given(frame, saved).items()}
    found = session.run(None, inputs)[0]
    alone = np.concatenate([session.run(None, {k: v[[at]] for k, v in inputs.items()})[0] for at in range(len(found))])
    np.testing.assert_allclose(alone, found, atol=1e-6)
    expected = table_of(ok("predict", tmp_path / "d.csv", "-m", model, "--format", "csv"))[["p_down", "p_up"]]
    if every_row:  # series as long as the window: one each
        found = found.reshape(-1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if kind == "patches":
        assert to_onnx(saved) == target.read_bytes()


def test_a_file_that_says_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_series(6).to_csv(tmp_path / "d.csv", index=False)
    ok("train", tmp_path / "d.csv", "--label", "label", "-m", tmp_path / "m", "--epochs", "1", "--layers", "1", "-qq")
    run_onnx = agreement.run_onnx
    monkeypatch.setattr(agreement, "run_onnx", lambda *words: run_onnx(*words) + 1e-4)
    done = run("export", tmp_path / "m", "-o", tmp_path / "m.onnx")
    assert done.exit_code == ModelError.exit_status == 4
    assert not (tmp_path / "m.onnx").exists()
