"""The recurrent stack against the published equations, and each of its options against a slow loop."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stacklstm_cli.errors import ExitStatus, UsageError
from stacklstm_cli.model.layers import GATES, Cell, StackSpec, check_stack, describe, layer_widths
from stacklstm_cli.model.stack import Layer, Stack

Floats = npt.NDArray[np.float64]
CELLS: tuple[Cell, ...] = ("lstm", "gru", "rnn")


def spec_of(**changes: Any) -> StackSpec:
    """Two layers of three units over four numbers a step."""
    return dataclasses.replace(StackSpec(input_size=4, hidden_sizes=(3, 3)), **changes)


def stack_of(seed: int = 0, **changes: Any) -> Stack:
    """A stack in double precision whose biases are not zero, ready to forecast."""
    torch.manual_seed(seed)
    stack = Stack(spec_of(**changes)).double().eval()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return stack


def steps_of(batch: int = 2, length: int = 7, width: int = 4, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)


# The equations, number by number.


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def cell_step(cell: Cell, x: Floats, h: Floats, c: Floats, weights: dict[str, Floats]) -> tuple[Floats, Floats]:
    """One step of a cell -> its state h and memory c.

    LSTM (Hochreiter & Schmidhuber 1997; Gers et al. 2000), gates i, f, g, o:
        c ← σ(f) c + σ(i) tanh(g)    h = σ(o) tanh(c)
    GRU (Cho et al. 2014, with the reset gate behind the product as in its revision), gates r, z, n:
        n = tanh(W_n x + b_n + σ(r) (U_n h + c_n))    h ← (1 - σ(z)) n + σ(z) h
    RNN (Elman 1990): h ← tanh(W x + b + U h + c)
    """
    on_input = np.split(weights["weight_ih"] @ x + weights["bias_ih"], GATES[cell])
    on_state = np.split(weights["weight_hh"] @ h + weights["bias_hh"], GATES[cell])
    if cell == "lstm":
        i, f, g, o = (a + b for a, b in zip(on_input, on_state, strict=True))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    if cell == "gru":
        r, z = (sigmoid(a + b) for a, b in zip(on_input[:2], on_state[:2], strict=True))
        n = np.tanh(on_input[2] + r * on_state[2])
        return (1 - z) * n + z * h, c
    return np.tanh(on_input[0] + on_state[0]), c


def direction(cell: Cell, steps: Floats, weights: dict[str, Floats], dilation: int) -> Floats:
    """[S, F] -> [S, U] by h_t = cell(x_t, h_{t - dilation}), zero before the first step."""
    width = weights["weight_hh"].shape[1]
    states: list[tuple[Floats, Floats]] = []
    for place, x in enumerate(steps):
        before = states[place - dilation] if place >= dilation else (np.zeros(width), np.zeros(width))
        states.append(cell_step(cell, x, *before, weights))
    return np.stack([h for h, _ in states])


def weights_of(rnn: nn.Module, suffix: str) -> dict[str, Floats]:
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return {kind: rnn.get_parameter(kind + suffix).detach().numpy() for kind in kinds}


def by_equations(stack: Stack, steps: Floats) -> Floats:
    """One sequence [S, F] through the whole stack -> [S, W]."""
    spec = stack.spec
    for place, _ in enumerate(spec.hidden_sizes):
        dilation = spec.dilations[place] if spec.dilations else 1
        inner = steps
        if stack.fused is not None:
            ways = [weights_of(stack.fused, f"_l{place}{way}") for way in ("", "_reverse")[: 1 + spec.bidirectional]]
        else:
            layer = stack.layers[place]
            assert isinstance(layer, Layer)
            ways = [weights_of(rnn, "_l0") for rnn in (layer.ahead, layer.back) if rnn is not None]
            if spec.layer_norm and place > 0:
                assert layer.norm is not None
                deviation = np.sqrt(steps.var(axis=1, keepdims=True) + layer.norm.eps)
                inner = (steps - steps.mean(axis=1, keepdims=True)) / deviation
                inner = inner * layer.norm.weight.detach().numpy() + layer.norm.bias.detach().numpy()
        outputs = [direction(spec.cell, inner, ways[0], dilation)]
        if spec.bidirectional:
            outputs.append(direction(spec.cell, inner[::-1], ways[1], dilation)[::-1])
        top = np.concatenate(outputs, axis=1)
        if spec.residual and place > 0:
            layer = stack.layers[place]
            assert isinstance(layer, Layer)
            kept = steps if layer.projection is None else steps @ layer.projection.weight.detach().numpy().T
            top = top + kept
        steps = top
    return steps


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_sizes": (3,)},
        {"hidden_sizes": (3, 3, 3)},
        {"hidden_sizes": (5, 3, 2)},
        {"residual": True},
        {"hidden_sizes": (3, 5, 5), "residual": True},
        {"layer_norm": True},
        {"hidden_sizes": (2, 3, 3), "residual": True, "layer_norm": True, "dropout": 0.5, "recurrent_dropout": 0.5},
        {"dilations": (1, 2)},
        {"hidden_sizes": (3, 3, 3), "dilations": (1, 3, 6), "residual": True},
        {"hidden_sizes": (3,), "dilations": (4,)},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_equals_its_equations(cell: Cell, bidirectional: bool, changes: dict[str, Any]) -> None:
    """Every option alone and together; seven steps, which no dilation divides."""
    stack = stack_of(cell=cell, bidirectional=bidirectional, **changes)
    steps = steps_of()
    with torch.no_grad():
        found = stack(steps).numpy()
    assert found.shape == (2, 7, stack.output_size)
    for place in range(2):
        np.testing.assert_allclose(found[place], by_equations(stack, steps[place].numpy()), rtol=0, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from(CELLS), st.booleans())
def test_every_dilation_and_length(length: int, dilation: int, cell: Cell, bidirectional: bool) -> None:
    """Also a dilation longer than the sequence, where no step has one before it."""
    stack = stack_of(cell=cell, bidirectional=bidirectional, dilations=(1, dilation))
    steps = steps_of(batch=1, length=length)
    with torch.no_grad():
        found = stack(steps)[0].numpy()
    np.testing.assert_allclose(found, by_equations(stack, steps[0].numpy()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_sizes": (2,)},
        {"hidden_sizes": (2, 1), "bidirectional": True, "attention": True},
        {"hidden_sizes": (2, 2), "dilations": (1, 2), "residual": True, "layer_norm": True},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_gradients_are_those_of_finite_differences(cell: Cell, changes: dict[str, Any]) -> None:
    """Of every parameter and of the input, by torch's own check in double precision."""
    stack = stack_of(cell=cell, input_size=2, **changes)
    steps = steps_of(batch=1, length=3, width=2).requires_grad_()
    names = [name for name, _ in stack.named_parameters()]

    def forward(steps: Tensor, *parameters: Tensor) -> Tensor:
        weights = dict(zip(names, parameters, strict=True))
        outputs: Tensor = torch.func.functional_call(stack, weights, steps)
        keep = {name: tensor for name, tensor in weights.items() if name.startswith("attention")}
        return torch.cat([outputs.flatten(), pooled(stack, keep, outputs).flatten()])

    parameters = tuple(parameter.detach().clone().requires_grad_() for parameter in stack.parameters())
    assert torch.autograd.gradcheck(forward, (steps, *parameters))


class Pooling(nn.Module):
    """The pooling of a stack as a module's forward, which is what torch can call with other weights."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, outputs: Tensor) -> Tensor:
        return self.stack.pooled(outputs)


def pooled(stack: Stack, weights: dict[str, Tensor], outputs: Tensor) -> Tensor:
    renamed = {f"stack.{name}": tensor for name, tensor in weights.items()}
    result: Tensor = torch.func.functional_call(Pooling(stack), renamed, outputs)
    return result


# One module of torch against one layer after the other.


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 4])
def test_fused_equals_layer_by_layer(cell: Cell, bidirectional: bool, layers: int) -> None:
    """Equal weights give equal outputs and gradients; the layers are forced by a dropout that does not act."""
    fused = stack_of(cell=cell, bidirectional=bidirectional, hidden_sizes=(3,) * layers)
    single = stack_of(cell=cell, bidirectional=bidirectional, hidden_sizes=(3,) * layers, recurrent_dropout=0.5)
    assert fused.fused is not None
    assert single.fused is None
    ways = {"ahead": "", "back": "_reverse"}

    def twin(name: str) -> str:
        _, layer, way, parameter = name.split(".")
        return f"fused.{parameter.removesuffix('_l0')}_l{layer}{ways[way]}"

    single.load_state_dict({name: fused.state_dict()[twin(name)] for name in single.state_dict()})
    one, other = steps_of().requires_grad_(), steps_of().requires_grad_()
    weight = steps_of(width=fused.output_size, seed=3)
    (fused(one) * weight).sum().backward()
    (single(other) * weight).sum().backward()
    torch.testing.assert_close(fused(one), single(other), rtol=0, atol=1e-12)
    torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-12)
    gradients = {name: parameter.grad for name, parameter in fused.named_parameters()}
    for name, parameter in single.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[twin(name)], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "fused"),
    [
        ({}, True),
        ({"dilations": (1, 1)}, True),
        ({"attention": True, "bidirectional": True}, True),
        ({"hidden_sizes": (3,), "dropout": 0.5, "residual": True, "layer_norm": True}, True),
        ({"hidden_sizes": (3, 2)}, False),
        ({"dropout": 0.1}, False),
        ({"residual": True}, False),
        ({"layer_norm": True}, False),
        ({"dilations": (1, 2)}, False),
        ({"hidden_sizes": (3,), "dilations": (2,)}, False),
        ({"hidden_sizes": (3,), "recurrent_dropout": 0.1}, False),
    ],
)
def test_what_runs_as_one_module(changes: dict[str, Any], fused: bool) -> None:
    """Only what torch's own module can say."""
    assert (Stack(spec_of(**changes)).fused is not None) == fused


# What decodes the horizon.


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_pooled_is_the_newest_state_of_each_direction(attention: bool, bidirectional: bool) -> None:
    """Forwards the last step, backwards the first; the weighted mean stands behind them."""
    stack = stack_of(attention=attention, bidirectional=bidirectional, hidden_sizes=(3, 5))
    width = 5 * (1 + bidirectional)
    assert stack.output_size == width
    assert stack.pooled_size == width * (1 + attention)
    outputs = steps_of(width=width)
    found = stack.pooled(outputs)
    assert found.shape == (2, stack.pooled_size)
    assert torch.equal(found[:, :5], outputs[:, -1, :5])
    if bidirectional:
        assert torch.equal(found[:, 5:10], outputs[:, 0, 5:])
    if attention:
        weights = stack.attention_weights(outputs)
        mean = sum(weights[:, step, None] * outputs[:, step] for step in range(7))
        torch.testing.assert_close(found[:, width:], mean, rtol=0, atol=1e-12)


def test_pooled_equals_the_final_states_of_torch() -> None:
    """What `nn.LSTM` itself calls the final states of the top layer."""
    stack = stack_of(bidirectional=True)
    assert stack.fused is not None
    outputs, (states, _) = stack.fused(steps_of())
    assert torch.equal(stack.pooled(outputs), torch.cat([states[-2], states[-1]], -1))


def test_attention_by_hand() -> None:
    """Bahdanau's scores with the newest state as the query, one step at a time."""
    stack = stack_of(attention=True)
    outputs = steps_of(width=3)
    weights = stack.attention_weights(outputs)
    assert weights.shape == (2, 7)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, dtype=torch.float64))
    part = {name: tensor.numpy() for name, tensor in stack.state_dict().items() if name.startswith("attention")}
    key, query, score = (part[f"attention.{name}.weight"] for name in ("key", "query", "score"))
    for row in range(2):
        h = outputs[row].numpy()
        scores = [score[0] @ np.tanh(key @ h[s] + query @ h[-1] + part["attention.query.bias"]) for s in range(7)]
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(weights[row].detach().numpy(), expected, rtol=0, atol=1e-12)


def test_no_attention_has_no_weights() -> None:
    with pytest.raises(ValueError, match="no attention"):
        stack_of().attention_weights(steps_of(width=3))


@pytest.mark.parametrize(
    "changes",
    [{}, {"bidirectional": True}, {"attention": True}, {"dilations": (1, 4)}, {"dilations": (2, 3), "attention": True}],
)
def test_every_step_and_the_newest_one_reach_the_forecast(changes: dict[str, Any]) -> None:
    """The gradient of what decodes the horizon is nowhere zero."""
    stack, steps = stack_of(**changes), steps_of().requires_grad_()
    stack.pooled(stack(steps)).square().sum().backward()  # type: ignore[no-untyped-call]
    assert steps.grad is not None
    assert (steps.grad.abs().sum(-1) > 1e-9).all()


def test_without_a_second_direction_no_output_sees_later_steps() -> None:
    """Dilation, norm and residual included."""
    stack = stack_of(hidden_sizes=(3, 3, 3), dilations=(1, 2, 3), residual=True, layer_norm=True)
    steps = steps_of()
    with torch.no_grad():
        before = stack(steps)
        steps[:, 4] += 1
        moved = (stack(steps) - before).abs().sum(-1)  # [B, S]
    assert not moved[:, :4].any()
    assert (moved[:, 4:] > 0).all()


# Dropout.


def test_dropout_drops_the_same_inputs_at_every_step() -> None:
    """Half of them, the rest doubled; other windows of the batch have others; none in forecasting."""
    layer = stack_of(dropout=0.5, hidden_sizes=(40, 40)).layers[1]
    assert isinstance(layer, Layer)
    torch.manual_seed(0)
    mask = layer.kept(torch.full((50, 7, 40), 9.0))
    assert mask.shape == (50, 1, 40)
    assert set(mask.flatten().tolist()) == {0.0, 2.0}
    assert float(mask.mean()) == pytest.approx(1, abs=0.1)
    assert len({tuple(row) for row in mask[:, 0].tolist()}) == 50


def test_dropout_is_applied_to_the_input_of_the_layer_alone() -> None:
    """The residual passes whole, and what is dropped is dropped at all steps: two layers, by hand."""
    stack = stack_of(dropout=0.5, residual=True).train()
    steps = steps_of()
    torch.manual_seed(5)
    found = stack(steps)
    first, second = stack.layers
    assert isinstance(first, Layer)
    assert isinstance(second, Layer)
    below = first(steps)
    torch.manual_seed(5)
    mask = second.kept(below)
    torch.testing.assert_close(found, second.ahead(below * mask)[0] + below, rtol=0, atol=1e-12)


def test_recurrent_dropout_drops_weights_from_state_to_state() -> None:
    """One draw a pass for all windows and steps; the rest is scaled up; gradients reach the kept ones alone."""
    stack = stack_of(recurrent_dropout=0.5, hidden_sizes=(3,)).train()
    layer = stack.layers[0]
    assert isinstance(layer, Layer)
    weight = layer.ahead.get_parameter("weight_hh_l0")
    whole, names = weight.detach().clone(), list(stack.state_dict())
    torch.manual_seed(4)
    found = stack(steps_of())
    found.square().sum().backward()
    torch.manual_seed(4)
    dropped = nn.functional.dropout(whole, 0.5)
    assert 0 < int((dropped == 0).sum()) < dropped.numel()
    twin = stack_of(hidden_sizes=(3,))
    assert twin.fused is not None
    twin.fused.load_state_dict(layer.ahead.state_dict())
    with torch.no_grad():
        twin.fused.get_parameter("weight_hh_l0").copy_(dropped)
    torch.testing.assert_close(found, twin(steps_of()), rtol=0, atol=1e-12)
    assert weight.grad is not None
    assert torch.equal(weight.grad != 0, dropped != 0)
    assert torch.equal(weight, whole)
    assert list(stack.state_dict()) == names
    stack.eval()
    twin.fused.load_state_dict(layer.ahead.state_dict())
    assert torch.equal(stack(steps_of()), twin(steps_of()))


@pytest.mark.parametrize("changes", [{"dropout": 0.5}, {"recurrent_dropout": 0.5}])
def test_dropout_acts_in_training_only(changes: dict[str, Any]) -> None:
    stack = stack_of(**changes, hidden_sizes=(8, 8))
    steps = steps_of()
    assert torch.equal(stack(steps), stack(steps))
    stack.train()
    assert not torch.equal(stack(steps), stack(steps))


# The start.


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("changes", [{}, {"residual": True, "bidirectional": True}])
def test_starting_weights(cell: Cell, changes: dict[str, Any]) -> None:
    """Orthogonal from state to state, Glorot's bounds from the input, biases 0 but the forget gate's, gate by gate."""
    torch.manual_seed(0)
    stack = Stack(spec_of(cell=cell, hidden_sizes=(16, 16), forget_bias=1.5, **changes))
    biases: dict[str, Tensor] = {}
    seen = set()
    for name, parameter in stack.named_parameters():
        prefix, _, kind = name.rpartition(".")
        seen.add(kind[:9])
        if kind.startswith("bias"):
            place = prefix + kind.removeprefix("bias_ih").removeprefix("bias_hh")
            biases[place] = biases.get(place, torch.zeros(())) + parameter.detach()
            continue
        for block in parameter.detach().chunk(GATES[cell]):
            if kind.startswith("weight_hh"):
                torch.testing.assert_close(block @ block.T, torch.eye(16), rtol=0, atol=1e-5)
            else:
                bound = (6 / sum(block.shape)) ** 0.5
                assert bound * 0.8 < float(block.abs().max()) <= bound
    assert {"weight_ih", "weight_hh"} <= seen
    for total in biases.values():
        for gate, block in enumerate(total.chunk(GATES[cell])):
            assert (block == (1.5 if cell == "lstm" and gate == 1 else 0.0)).all()


def test_the_start_depends_on_the_seed_alone() -> None:
    """Equal seeds, equal weights; another seed, others."""
    one, same, other = (stack_of(seed=seed, residual=True, attention=True).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "changes",
    [{}, {"residual": True, "hidden_sizes": (3, 5), "layer_norm": True, "attention": True, "bidirectional": True}],
)
def test_built_without_memory_and_filled_later(changes: dict[str, Any]) -> None:
    """On torch's meta device, as a model file is loaded."""
    whole = Stack(spec_of(**changes)).eval()
    with torch.device("meta"):
        empty = Stack(spec_of(**changes))
    empty.load_state_dict(whole.state_dict(), strict=True, assign=True)
    steps = steps_of().float()
    assert torch.equal(empty.eval()(steps), whole(steps))


# Depth.


@pytest.mark.parametrize("cell", CELLS)
def test_sixteen_layers_have_finite_gradients(cell: Cell) -> None:
    torch.manual_seed(0)
    stack = Stack(StackSpec(8, (32,) * 16, cell=cell))
    stack.pooled(stack(torch.randn(16, 32, 8))).square().sum().backward()  # type: ignore[no-untyped-call]
    for parameter in stack.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


def input_gradients(spec: StackSpec) -> tuple[float, float]:
    """Norms of the gradients of the first and of the last layer's input weights."""
    torch.manual_seed(0)
    stack = Stack(spec)
    decoded = stack.pooled(stack(torch.randn(16, 32, 8)))
    (decoded * torch.randn(decoded.shape)).sum().backward()  # type: ignore[no-untyped-call]
    found = []
    for layer in (0, len(spec.hidden_sizes) - 1):
        names = (f"fused.weight_ih_l{layer}", f"layers.{layer}.ahead.weight_ih_l0")
        (gradient,) = (parameter.grad for name, parameter in stack.named_parameters() if name in names)
        assert gradient is not None
        found.append(float(gradient.norm()))
    return found[0], found[1]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layer_norm", [False, True])
def test_residual_keeps_gradients_alive(cell: Cell, layer_norm: bool) -> None:
    """The first of sixteen layers learns about as much as the last."""
    first, last = input_gradients(StackSpec(8, (32,) * 16, cell=cell, residual=True, layer_norm=layer_norm))
    assert 0.1 < first / last < 30


def test_without_residual_a_deep_lstm_fades() -> None:
    """What the option is for: the first layer's gradient is many times smaller."""
    plain, _ = input_gradients(StackSpec(8, (32,) * 16))
    residual, _ = input_gradients(StackSpec(8, (32,) * 16, residual=True))
    assert residual > 10 * plain


# Errors and the description.


@pytest.mark.parametrize(
    ("changes", "steps", "code", "said"),
    [
        ({"dilations": (1,)}, 8, "dilations_do_not_fit", ("1 numbers (1)", "2 layers")),
        ({"dilations": (1, 2, 4)}, 8, "dilations_do_not_fit", ("3 numbers (1,2,4)", "2 layers")),
        ({"dilations": (1, 0)}, 8, "option_out_of_bounds", ("holds 0",)),
        ({"dilations": (1, 8)}, 8, "dilation_too_long", ("Layer 2", "dilation of 8", "only 8 steps")),
        ({"dilations": (2, 3)}, 8, "dilations_skip_steps", ("--dilations 2,3",)),
        ({"attention": True}, 1, "attention_over_one_step", ("at least 2 steps", "1 step long")),
        ({"hidden_sizes": ()}, 8, "no_layers", ("no layers",)),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], steps: int, code: str, said: tuple[str, ...]) -> None:
    """One message with the numbers in it, and what to type."""
    with pytest.raises(UsageError) as caught:
        check_stack(spec_of(**changes), steps)
    assert caught.value.exit_status == ExitStatus.USAGE
    assert caught.value.code == code
    assert all(part in caught.value.message for part in said)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 1),
        ({"dilations": (1, 7)}, 8),
        ({"dilations": (1, 1)}, 1),
        ({"attention": True}, 2),
        ({"dilations": (2, 3), "attention": True}, 8),
    ],
)
def test_what_fits(changes: dict[str, Any], steps: int) -> None:
    check_stack(spec_of(**changes), steps)


def test_layer_widths() -> None:
    """One for all, or one for each."""
    assert layer_widths((64,), 3) == (64, 64, 64)
    assert layer_widths((64, 32, 16), 3) == (64, 32, 16)
    with pytest.raises(UsageError, match=r"2 widths \(64,32\), but --layers is 3"):
        layer_widths((64, 32), 3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.sampled_from(CELLS),
    *[st.booleans()] * 4,
    st.sampled_from([0.0, 0.3]),
)
def test_described_parameters_are_those_of_the_modules(
    widths: list[int],
    cell: Cell,
    bidirectional: bool,
    residual: bool,
    layer_norm: bool,
    attention: bool,
    recurrent_dropout: float,
) -> None:
    """Layer by layer where the layers are modules, in total for any."""
    spec = StackSpec(
        5, tuple(widths), cell, bidirectional, residual, layer_norm, 0.0, recurrent_dropout, attention=attention
    )
    stack, rows = Stack(spec), describe(spec, 8)
    counts = [sum(p.numel() for p in layer.parameters()) for layer in stack.layers]
    assert [row["parameters"] for row in rows[: len(counts)]] == counts
    assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in stack.parameters())
    assert [row["input"] for row in rows] == [5, *[row["output"] for row in rows[:-1]]]
    assert rows[-1]["output"] == stack.pooled_size
    assert len(rows) == len(widths) + attention


def test_description_by_hand() -> None:
    """Two LSTM layers of 8 and 6 units over 4 numbers, both ways, residual, dilated."""
    spec = StackSpec(4, (8, 6), bidirectional=True, residual=True, dilations=(1, 4))
    first, second = describe(spec, 10)
    assert first["parameters"] == 2 * 4 * 8 * (4 + 8 + 2)
    assert second["parameters"] == 2 * 4 * 6 * (16 + 6 + 2) + 16 * 12
    assert (first["name"], first["sequence"], first["residual"]) == ("layer 1", 10, "none")
    assert (second["name"], second["sequence"], second["residual"]) == ("layer 2", 3, "projection")


def test_the_description_needs_no_torch() -> None:
    """`inspect` shows it at once."""
    code = (
        "import sys; from stacklstm_cli.model.layers import StackSpec, describe; describe(StackSpec(4, (8,)), 5); "
        "print(*[name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
