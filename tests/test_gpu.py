"""A CUDA device gives what the CPU gives, within stated tolerances. For whoever has one: pytest -m gpu -n 0

In float32 cuDNN may round the factors of its products to ten bits (TF32, torch's default), so results are compared to
a few thousandths: of the loss, of gradients as vectors, and of forecasts in units of their windows' deviation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clocks import StopsAfter
from panels import make_panel, shaken_network, small_spec, wave

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.model.checkpoint import load, save
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.heads import build_head
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training import placement
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.fitting import Outcome, Trainer
from stacklstm_cli.training.lessons import Lessons, lesson_origins
from stacklstm_cli.training.loop import build_optimiser
from stacklstm_cli.training.placement import Place, Places
from stacklstm_cli.training.precision import Precision
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock
from stacklstm_cli.training.shards import Shards

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TOLERANCE = 5e-3
"""In float32."""
ROUGH = 5e-2
"""In bfloat16."""
PANEL = make_panel(wave(300, 1, 12), 9 * wave(260, 2, 12))
STACKS: list[dict[str, Any]] = [
    {},
    {"layers": 3},
    {"cell": "gru"},
    {"cell": "rnn", "bidirectional": True},
    {"attention": True, "layer_norm": True},
    {"loss": "student-t"},
    {"loss": "negative-binomial"},
]


def plan_for(precision: str, **schedule: Any) -> Plan:
    model = ModelConfig(layers=2, hidden_size=(16,), context_length=24, patch_length=4, horizon=6, dropout=0.0)
    training = TrainingConfig(precision=precision, batch_size=32)
    plan = resolve(PANEL, model, training, MetricConfig(seasonality=12))
    own = {"max_steps": 40, "check_every": 10, "warmup": 2, "learning_rate": 1e-3, "patience": 9} | schedule
    return replace(plan, schedule=replace(plan.schedule, **own))


def train(device: torch.device, precision: str, **named: Any) -> Outcome:
    return Trainer(PANEL, plan_for(precision), device=device, clock=Clock(), **named).run({})


def lessons_on(device: torch.device, spec: NetworkSpec, rows: int = 300) -> Lessons:
    panel = make_panel(np.round(10 * np.abs(wave(rows))))
    origins = lesson_origins(panel, np.array([spec.context_length]), panel.lengths, spec)
    return Lessons(Windows(panel, spec, device), origins, np.array([0.7]))


def gradients(device: torch.device, spec: NetworkSpec, precision: Precision = "float32") -> list[torch.Tensor]:
    """Loss and gradients of one batch, on the CPU."""
    network = shaken_network(spec, seed=1, dtype=torch.float32).to(device).train()
    head = build_head(spec.loss, spec.quantiles, device)
    with Shards(network, lessons_on(device, spec), head, batch_size=128, seed=3, precision=precision) as some:
        loss = some.backward(torch.arange(128, device=device))
    found = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return [one.detach().cpu() for one in (loss, *found)]


def assert_near(found: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm()) <= tolerance * float(other.norm()) + 1e-5


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_losses_and_gradients(options: dict[str, Any]) -> None:
    spec = small_spec(context_length=24, hidden_size=16, dropout=0.0, **options)
    expected = gradients(CPU, spec)
    assert_near(gradients(CUDA, spec), expected, TOLERANCE)
    rough, exact = (
        torch.cat([one.flatten() for one in some]) for some in (gradients(CUDA, spec, "bfloat16"), expected)
    )
    assert_near([rough], [exact], 2 * ROUGH)


@pytest.mark.parametrize("options", STACKS, ids=str)
def test_forecasts(options: dict[str, Any]) -> None:
    spec = small_spec(context_length=24, hidden_size=16, **options)
    panel = make_panel(np.round(10 * np.abs(wave(300))))
    origins = Origins(np.zeros(60, dtype=np.int64), np.arange(200, 260))
    forecasters = [Forecaster(shaken_network(spec, seed=1, dtype=torch.float32), one) for one in (CPU, CUDA)]
    learned, other = (one.learned(panel, origins) for one in forecasters)
    np.testing.assert_allclose(other[1], learned[1], rtol=1e-9, err_msg="the normalisation is in float64")
    slack = 1.0 if spec.loss == "negative-binomial" else 0.0  # counts are whole
    difference = np.abs(other[0] - learned[0]) / learned[1][:, None, None]
    assert (difference <= TOLERANCE + slack / learned[1][:, None, None]).all()


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", TOLERANCE), ("bfloat16", ROUGH)])
def test_trainings(precision: str, tolerance: float) -> None:
    """Validation losses on the way and errors at the end; the model is float32 and opens on the CPU."""
    expected, found = train(CPU, "float32"), train(CUDA, precision)
    for one, other in zip(expected.fits[0].history, found.fits[0].history, strict=False):
        assert other["validation"] == pytest.approx(one["validation"], rel=tolerance)
    one, other = (outcome.checkpoint.metrics["stacklstm"] for outcome in (expected, found))
    assert other["mae"] == pytest.approx(one["mae"], rel=10 * tolerance)
    assert {tensor.dtype for tensor in found.checkpoint.final.values()} == {torch.float32}


def test_a_model_trained_there_opens_on_the_cpu(folder: Path) -> None:
    saved = train(CUDA, "float32").checkpoint
    save(saved, folder / "model.safetensors")
    assert b"cuda" not in (folder / "model.safetensors").read_bytes()
    origins = Origins(np.zeros(5, dtype=np.int64), np.arange(200, 205))
    one, other = (
        load(folder / "model.safetensors").forecaster(device).forecast(PANEL, origins, 6, (0.5,))
        for device in (CPU, CUDA)
    )
    np.testing.assert_allclose(other, one, rtol=TOLERANCE, atol=TOLERANCE * float(np.abs(one).max()))


def test_a_step_waits_for_the_device_once() -> None:
    """Wrong if data goes to the device at each step, or a figure comes back beside loss and norm."""
    spec = small_spec(context_length=24, hidden_size=16, dropout=0.2)
    lessons = lessons_on(CUDA, spec)
    network = StackedRNN(spec).to(CUDA).train()
    optimiser = build_optimiser(network, plan_for("float32").schedule)
    head, chosen = build_head(spec.loss, spec.quantiles, CUDA), torch.arange(64, device=CUDA)
    with Shards(network, lessons, head, batch_size=64, seed=1) as some:
        some.backward(chosen)
        optimiser.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            some.backward(chosen)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert lessons.windows.values.is_cuda


@pytest.fixture
def little_memory() -> Iterator[None]:
    """300 MB beyond what is in use."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 3e8) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("little_memory")
def test_memory_that_does_not_suffice() -> None:
    """The batch is computed in parts, to the same gradients."""
    spec = small_spec(context_length=512, hidden_size=128, dropout=0.0)
    network = shaken_network(spec, seed=1, dtype=torch.float32).to(CUDA).train()
    head, lessons = build_head(spec.loss, spec.quantiles, CUDA), lessons_on(CUDA, spec, 4000)
    found = []
    for size in (1024, 16):
        with Shards(network, lessons, head, batch_size=size, seed=3) as some:
            some.backward(torch.arange(16, device=CUDA).repeat(size // 16))
            found.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
            assert (some.pieces > 1) == (size == 1024)
        network.zero_grad()
    cut, whole = found
    assert_near(cut, whole, TOLERANCE)


def test_the_clock_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three places are tried, and one of them trains."""
    monkeypatch.setattr(placement, "WORTH_A_TRIAL", 0.0)
    places = Places((CPU, CUDA))
    found = Trainer(PANEL, plan_for("auto"), device=places, clock=Clock()).run({})
    assert {*places.speeds} == {Place(CPU), Place(CUDA), Place(CUDA, "bfloat16")}
    assert places.chosen == max(places.speeds, key=places.speeds.__getitem__)
    assert found.fits[0].steps > 0


def test_an_interrupted_training_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the snapshot, generators included."""
    path, plan = folder / "model", plan_for("bfloat16")
    state = Resume(path)
    with monkeypatch.context() as patched:
        Trainer(PANEL, plan, device=CUDA, clock=StopsAfter(25, "signal", patched), resume=state).run({})
    state.close(ended=False)
    notes: list[str] = []
    again = Resume(path, on_note=notes.append)
    found = Trainer(PANEL, plan, device=CUDA, clock=Clock(), resume=again).run({})
    assert "an interrupted training goes on at step" in notes[0]
    assert again.place == {"device": "cuda", "precision": "bfloat16"}
    assert found.fits[0].history[-1]["step"] == 40
