"""The network of labels: convolutions and their norm against numpy, what a fit costs, and what a fold tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stacklstm_cli.config import DataConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.model.classes import LabelSpec
from stacklstm_cli.model.labels import Classifier, Convolutions, LabelNetwork, SeenNorm
from stacklstm_cli.training.label_plan import MOST_PLACES, MOST_STEPS, WORK, plan_labels
from stacklstm_cli.training.labels import LabelTrainer
from stacklstm_cli.training.optimiser import AdamW, Group
from stacklstm_cli.training.runtime import Clock


def series_panel(folder: Path, count: int, length: int, seed: int = 0) -> Panel:
    """So many series of two classes, whose only feature is noise around the class."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(count), length),
            "time": np.tile(np.arange(length), count),
            "a": generator.standard_normal(count * length) + np.repeat(np.arange(count) % 2, length),
            "label": np.repeat([f"class {at % 2}" for at in range(count)], length),
        }
    )
    frame.to_csv(folder / "d.csv", index=False)
    return read_panel([str(folder / "d.csv")], DataConfig(label="label"))


def test_norm_standardises_what_is_seen_and_remembers_it() -> None:
    generator = np.random.default_rng(0)
    places = generator.normal(3, 2, (4, 5, 9))  # [B, F, T]
    seen = (generator.random((4, 1, 9)) < 0.6).astype(float)
    rows = places.transpose(0, 2, 1)[seen[:, 0] > 0]  # [M, F]
    norm = SeenNorm(5).double()
    found = norm(torch.as_tensor(places), torch.as_tensor(seen)).detach().numpy().transpose(0, 2, 1)
    np.testing.assert_allclose(found[seen[:, 0] > 0], (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5), atol=1e-12)
    assert (found[seen[:, 0] == 0] == 0).all()
    np.testing.assert_allclose(norm.mean, rows.mean(0))
    np.testing.assert_allclose(norm.variance, rows.var(0))
    again = norm(torch.as_tensor(2 * places), torch.as_tensor(seen))
    np.testing.assert_allclose(again.detach().numpy().transpose(0, 2, 1)[0], found[0], atol=1e-5)
    np.testing.assert_allclose(norm.mean, 1.5 * rows.mean(0))
    np.testing.assert_allclose(norm.variance, 2.5 * rows.var(0))
    found = norm.eval()(torch.as_tensor(places), torch.as_tensor(seen)).detach().numpy().transpose(0, 2, 1)
    expected = (rows - norm.mean.numpy()) / np.sqrt(norm.variance.numpy() + 1e-5)
    np.testing.assert_allclose(found[seen[:, 0] > 0], expected, atol=1e-12)


def test_shapes_are_features_without_their_level_and_size_in_the_series(tmp_path: Path) -> None:
    panel = series_panel(tmp_path, 4, 6)
    spec = plan_labels(panel, ModelConfig(hidden_size=(4,)), TrainingConfig()).spec
    generator = np.random.default_rng(0)
    values = generator.normal(5, 3, (2, 6))
    missing = np.asarray([[0, 1, 0, 0, 0, 0], [0] * 6])
    there = np.asarray([[0, 1, 1, 1, 1, 1], [1] * 6])
    values[1] = 7  # flat
    rows = np.stack([values * (1 - missing) * there, missing * there, there], -1)  # [B, L, E]
    found = LabelNetwork(spec).shapes(torch.as_tensor(rows))[..., 0].numpy()
    known = values[0, 2:]
    np.testing.assert_allclose(found[0, 2:], (known - known.mean()) / known.std(), rtol=1e-6)
    assert found[0, :2].tolist() == [0, 0]
    assert found[1].tolist() == [0] * 6


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stride", [1, 3, 10])
def test_rows_in_front_of_a_series_change_nothing(stride: int, training: bool) -> None:
    torch.manual_seed(0)
    layers = Convolutions(3, LabelSpec(("a", "b"), False, (4, 6, 5), stride)).double().train(training)
    rows = torch.randn(4, 30, 3, dtype=torch.float64)
    rows[..., -1] = 1
    longer = torch.nn.functional.pad(rows, (0, 0, 2 * stride, 0))  # two places more
    found, seen = layers(rows)
    other, more = layers(longer)
    assert found.shape == (4, -(-30 // stride), 5)
    assert seen.all()
    assert more[0, :, 0].tolist() == [0, 0] + [1] * found.shape[1]
    torch.testing.assert_close(other[:, 2:], found)
    assert (other[:, :2] == 0).all()


@pytest.mark.parametrize("stride", [1, 3, 10])
def test_every_row_of_a_strided_series_is_seen(stride: int) -> None:
    first = Convolutions(2, LabelSpec(("a", "b"), False, (4, 4, 4), stride)).layers[0]
    rows = torch.ones(1, 2, 30, requires_grad=True)
    first(rows).sum().backward()
    assert rows.grad is not None
    assert (rows.grad != 0).all()


def test_learning_rates_fall_as_half_a_cosine() -> None:
    warmup, end = 4, 20
    own = AdamW([Group([torch.nn.Parameter(torch.ones(1))], 1.0, 0.0)], warmup, end)
    reference = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 1.0)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(reference, end + 1 - warmup)
    for step in range(1, end + 1):
        own.step_count = step
        if step <= warmup:
            assert own.share() == step / warmup
            continue
        reference.step()
        falling.step()
        assert own.share() == pytest.approx(falling.get_last_lr()[0])
    assert 0 < own.share() < 0.01


@pytest.mark.parametrize(("count", "length"), [(12, 5), (12, 300), (8, 3000)])
def test_the_work_of_a_fit_is_bounded_whatever_the_length(tmp_path: Path, count: int, length: int) -> None:
    plan = plan_labels(series_panel(tmp_path, count, length), ModelConfig(), TrainingConfig())
    assert plan.spec.labels is not None
    assert plan.spec.context_length == length
    places = -(-length // plan.spec.labels.stride)
    assert plan.spec.steps <= MOST_STEPS
    assert places <= MOST_PLACES
    assert plan.schedule.max_steps * plan.schedule.batch_size * (places + plan.spec.steps) <= WORK
    longer = plan_labels(series_panel(tmp_path, 8, 40), ModelConfig(), TrainingConfig(batch_size=512))
    assert longer.schedule.max_steps < plan.schedule.max_steps


def test_a_fold_tells_what_its_network_says(tmp_path: Path) -> None:
    panel = series_panel(tmp_path, 12, 6)
    plan = plan_labels(panel, ModelConfig(hidden_size=(4,)), TrainingConfig(batch_size=4))
    plan = replace(plan, schedule=replace(plan.schedule, max_steps=6, check_every=6))
    trainer = LabelTrainer(panel, plan, device=torch.device("cpu"), clock=Clock(), on_event=lambda event: None)
    told = trainer.cross_validate()
    for curve, fitted in zip(told.curves, told.fits, strict=True):
        network = LabelNetwork(plan.spec)
        network.load_state_dict(fitted.weights)
        assert float(fitted.weights["convolutions.norms.0.mean"].abs().sum()) > 0
        expected = Classifier([network], torch.device("cpu")).probabilities(panel)[curve.held]
        np.testing.assert_allclose(curve.found[6], expected, rtol=1e-5)


def test_patches_of_rows_with_labels_of_their_own(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": np.repeat(["x", "y"], 20), "time": [*range(20)] * 2, "a": np.arange(40.0)})
    frame["label"] = np.where(np.arange(40) % 3 == 0, "on", "off")
    frame.to_csv(tmp_path / "d.csv", index=False)
    panel = read_panel([str(tmp_path / "d.csv")], DataConfig(label="label"))
    plan = plan_labels(panel, ModelConfig(hidden_size=(4,), patch_length=3), TrainingConfig())
    found = Classifier([LabelNetwork(plan.spec)], torch.device("cpu")).probabilities(panel)
    assert found.shape == (40, 2)
    np.testing.assert_allclose(found.sum(1), 1)


def test_a_stride_that_passes_rows_with_labels_over_is_refused() -> None:
    stored = LabelSpec(("a", "b"), False, (4, 4, 4), 2).as_dict()
    assert LabelSpec.from_dict(stored).stride == 2
    for change in ({"every_row": True}, {"stride": 0}):
        with pytest.raises(ValueError, match="labels"):
            LabelSpec.from_dict(stored | change)
