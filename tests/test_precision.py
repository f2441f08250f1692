"""Training in bfloat16: near what float32 finds, equal to itself, on every CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clocks import StopsAfter
from panels import make_panel, small_spec, wave

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import save
from stacklstm_cli.model.heads import build_head
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training import precision as precisions
from stacklstm_cli.training import shards
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.fitting import Outcome, Trainer
from stacklstm_cli.training.lessons import Lesson, Lessons, lesson_origins
from stacklstm_cli.training.precision import Precision, lowered, trains_bfloat16, usable
from stacklstm_cli.training.resume import Resume
from stacklstm_cli.training.runtime import Clock, set_threads
from stacklstm_cli.training.shards import Shards, losses

CPU = torch.device("cpu")
EIGHT_BITS = 2**-8
PANEL = make_panel(wave(300, 1, 12), 9 * wave(260, 2, 12))


def plan_for(precision: str, **model: Any) -> Plan:
    options: dict[str, Any] = {
        "layers": 1,
        "hidden_size": (6,),
        "context_length": 24,
        "patch_length": 4,
        "horizon": 6,
    } | model
    training = TrainingConfig(precision=precision, batch_size=32)
    plan = resolve(PANEL, ModelConfig(**options), training, MetricConfig(seasonality=12))
    schedule = replace(plan.schedule, max_steps=30, check_every=5, warmup=2, learning_rate=3e-3, patience=9)
    return replace(plan, schedule=schedule)


def train(precision: str, **model: Any) -> Outcome:
    return Trainer(PANEL, plan_for(precision, **model), device=CPU, clock=Clock()).run({"precision": precision})


def lessons_of(**options: Any) -> Lessons:
    spec = small_spec(context_length=8, **options)
    panel = make_panel(wave(200))
    origins = lesson_origins(panel, np.array([8]), panel.lengths, spec)
    return Lessons(Windows(panel, spec, CPU), origins, np.array([0.7]))


def gradients(lessons: Lessons, precision: Precision) -> list[torch.Tensor]:
    """Loss and gradients of one batch, of a network whose every weight has one."""
    torch.manual_seed(0)
    spec = lessons.windows.spec
    network = StackedRNN(spec).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    head = build_head(spec.loss, spec.quantiles, CPU)
    with (
        usable(precision, CPU),
        Shards(network, lessons, head, batch_size=96, seed=3, precision=precision) as some,
    ):
        loss = some.backward(torch.arange(96))
    return [loss, *(parameter.grad for parameter in network.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 3, "dropout": 0.3},
        {"cell": "gru"},
        {"cell": "rnn", "bidirectional": True},
        {"attention": True, "layer_norm": True},
        {"recurrent_dropout": 0.3},
        {"loss": "student-t"},
        {"skip": False},
    ],
    ids=str,
)
def test_gradients_are_those_of_float32_but_for_rounding(options: dict[str, Any]) -> None:
    """Of every kind of stack; in float32, and close to each other as vectors."""
    lessons = lessons_of(hidden_size=8, **options)
    exact, rough = gradients(lessons, "float32"), gradients(lessons, "bfloat16")
    assert len(exact) == len(rough)
    assert float(rough[0]) == pytest.approx(float(exact[0]), rel=4 * EIGHT_BITS)
    for one, other in zip(exact, rough, strict=True):
        assert other.dtype == torch.float32
        assert float((one - other).norm()) <= 16 * EIGHT_BITS * float(one.norm()) + 1e-6
    assert not all(map(torch.equal, exact, rough)), "nothing was rounded"


def test_the_linear_forecast_keeps_its_digits() -> None:
    """Wrong if the skip is rounded to eight bits: the loss of a network that is the skip alone is that of float32."""
    lessons = lessons_of(hidden_size=8)
    spec = lessons.windows.spec
    network = StackedRNN(spec)
    with torch.no_grad():
        network.skip_start.normal_(generator=torch.Generator().manual_seed(0))
    head, batch = build_head(spec.loss, spec.quantiles, CPU), lessons.batch(torch.arange(50))
    exact = losses(network, batch, head)
    with usable("bfloat16", CPU):
        assert torch.equal(losses(network, batch, head, "bfloat16"), exact)


@pytest.mark.parametrize("least_work", [1, 10**18], ids=["shards", "one piece"])
def test_threads_change_no_bit_of_it(monkeypatch: pytest.MonkeyPatch, least_work: int) -> None:
    """Each thread casts for itself."""
    monkeypatch.setattr(shards, "LEAST_WORK", least_work)
    lessons, found = lessons_of(hidden_size=8), []
    try:
        for threads in (1, 3):
            set_threads(threads)
            found.append(gradients(lessons, "bfloat16"))
    finally:
        set_threads(None)
    assert all(map(torch.equal, *found))


def test_autocast_ends_with_the_forward_pass() -> None:
    """Wrong if the loss, or whatever the thread does next, is rounded too."""
    with lowered("bfloat16", CPU):
        assert torch.is_autocast_enabled("cpu")
    with lowered("float32", CPU):
        assert not torch.is_autocast_enabled("cpu")

    class Looking:
        def loss(self, raw: torch.Tensor, *others: object) -> torch.Tensor:
            assert raw.dtype == torch.float32
            assert not torch.is_autocast_enabled("cpu")
            return raw.mean(-1)

    lessons = lessons_of()
    lesson: Lesson = lessons.batch(torch.arange(4))
    with usable("bfloat16", CPU):
        losses(StackedRNN(lessons.windows.spec), lesson, Looking(), "bfloat16")


@pytest.fixture(scope="module")
def rough() -> Outcome:
    return train("bfloat16")


class TestTraining:
    def test_the_errors_are_near_those_of_float32(self, rough: Outcome) -> None:
        exact = train("float32")
        one, other = (found.checkpoint.metrics[MODEL] for found in (exact, rough))
        for metric in ("mae", "rmse", "wql"):
            assert other[metric] == pytest.approx(one[metric], rel=0.05)
        validations = [found.fits[0].validation for found in (exact, rough)]
        assert validations[1] == pytest.approx(validations[0], rel=0.02)
        assert any(not torch.equal(exact.checkpoint.final[name], rough.checkpoint.final[name]) for name in ("bias",))

    def test_the_model_is_of_float32_and_says_nothing_of_the_device(self, rough: Outcome, folder: Path) -> None:
        assert {tensor.dtype for tensor in rough.checkpoint.final.values()} == {torch.float32}
        path = folder / "model.safetensors"
        save(rough.checkpoint, path)
        assert b"device" not in path.read_bytes()

    def test_equal_runs_give_equal_bytes(self, rough: Outcome, folder: Path) -> None:
        for name, found in (("one", rough), ("other", train("bfloat16"))):
            save(found.checkpoint, folder / name)
        assert (folder / "one").read_bytes() == (folder / "other").read_bytes()

    def test_an_interrupted_run_ends_as_the_whole_one(
        self, rough: Outcome, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To the bit, and in the precision that it began with."""
        path, plan = folder / "model.safetensors", plan_for("bfloat16")
        state = Resume(path)
        with monkeypatch.context() as patched:
            clock = StopsAfter(12, "signal", patched)
            Trainer(PANEL, plan, device=CPU, clock=clock, resume=state).run({})
        state.close(ended=False)
        assert state.path.exists()
        again = Resume(path)
        found = Trainer(PANEL, plan, device=CPU, clock=Clock(), resume=again).run({"precision": "bfloat16"})
        assert again.place == {"device": "cpu", "precision": "bfloat16"}
        for name, tensor in rough.checkpoint.final.items():
            assert torch.equal(found.checkpoint.final[name], tensor), name

    def test_auto_is_float32_on_a_cpu(self) -> None:
        one, other = train("auto"), train("float32")
        for name, tensor in other.checkpoint.final.items():
            assert torch.equal(one.checkpoint.final[name], tensor)


def test_a_cpu_whose_lstm_knows_no_bfloat16_trains_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those without AVX-512 (ONEDNN_MAX_CPU_ISA=AVX2 makes one of any): torch's own LSTM stands in."""
    lessons, enabled = lessons_of(hidden_size=8), torch.backends.mkldnn.enabled
    exact = gradients(lessons, "float32")
    monkeypatch.setattr(precisions, "trains_bfloat16", lambda device: False)
    with usable("bfloat16", CPU):
        assert not torch.backends.mkldnn.enabled
    with usable("float32", CPU):
        assert torch.backends.mkldnn.enabled == enabled
    for one, other in zip(exact, gradients(lessons, "bfloat16"), strict=True):
        assert float((one - other).norm()) <= 16 * EIGHT_BITS * float(one.norm()) + 1e-6
    assert torch.backends.mkldnn.enabled == enabled


def test_what_a_device_cannot_do_is_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(torch.nn.LSTM):
        def forward(self, *_: Any) -> Any:
            raise RuntimeError("could not create a primitive descriptor")

    trains_bfloat16.cache_clear()
    monkeypatch.setattr(torch.nn, "LSTM", Refusing)
    assert not trains_bfloat16(CPU)
    trains_bfloat16.cache_clear()
