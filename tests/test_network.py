"""The network against its equations in numpy, and what flows through it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from panels import shaken_network, small_spec
from torch import Tensor

from stacklstm_cli.model.heads import pinball
from stacklstm_cli.model.network import NetworkSpec, StackedRNN

Floats = npt.NDArray[np.float64]


def inputs(spec: NetworkSpec, batch: int = 5, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Normalised contexts with some places missing."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(batch, spec.context_length, generator=generator, dtype=torch.float64)
    observed = (torch.rand(batch, spec.context_length, generator=generator) < 0.8).double()
    return context * observed, observed


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def lstm_layer(steps: list[Floats], weights: dict[str, Floats], layer: int, hidden_size: int) -> list[Floats]:
    """One LSTM layer over a sequence of vectors -> its states h_t.

    Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000. PyTorch stacks the weights of the
    four gates in the order i (input), f (forget), g (candidate), o (output):

        i = σ(W_i x + b_i + U_i h + c_i)    f = σ(W_f x + …)    g = tanh(W_g x + …)    o = σ(W_o x + …)
        c ← f c + i g                       h = o tanh(c)
    """
    on_input, on_state = weights[f"lstm.weight_ih_l{layer}"], weights[f"lstm.weight_hh_l{layer}"]
    bias = weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"]
    h, c = np.zeros(hidden_size), np.zeros(hidden_size)
    states = []
    for x in steps:
        gates = on_input @ x + on_state @ h + bias
        i, f, g, o = (gates[k * hidden_size : (k + 1) * hidden_size] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return states


def by_equations(network: StackedRNN, context: Floats, observed: Floats) -> Floats:
    """One context [L] -> [H, Q], number by number."""
    spec = network.spec
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    rest = -spec.context_length % spec.patch_length
    padded = np.concatenate([np.zeros(rest), context]), np.concatenate([np.zeros(rest), observed])
    steps = [
        np.concatenate([values[begin : begin + spec.patch_length] for values in padded])
        for begin in range(0, rest + spec.context_length, spec.patch_length)
    ]
    for layer in range(spec.layers):
        steps = lstm_layer(steps, weights, layer, spec.hidden_size)
    result = np.zeros((spec.horizon, len(spec.quantiles)))
    for step in range(spec.horizon):
        line = sum(
            context[row] * (weights["skip_start"][row, step] + weights["skip"][row, step])
            for row in range(spec.context_length)
        )
        for quantile in range(len(spec.quantiles)):
            unit = step * len(spec.quantiles) + quantile
            learned = weights["head.weight"][unit] @ steps[-1] + weights["head.bias"][unit]
            result[step, quantile] = line + weights["bias"][step, quantile] + learned
    return result


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("patch", [1, 2, 3, 4, 6])
def test_equals_its_equations(layers: int, patch: int) -> None:
    """Stacks of every depth, patches that divide the context of 6 and one that does not."""
    network = shaken_network(small_spec(layers=layers, patch_length=patch))
    context, observed = inputs(network.spec)
    with torch.no_grad():
        found = network(context, observed).numpy()
    assert found.shape == (5, 4, 3)
    for place in range(5):
        expected = by_equations(network, context[place].numpy(), observed[place].numpy())
        np.testing.assert_allclose(found[place], expected, rtol=0, atol=1e-10)


def test_gradients_are_those_of_finite_differences() -> None:
    """Of every parameter, by torch's own check in double precision."""
    network = shaken_network(small_spec(layers=2, hidden_size=2, context_length=3, horizon=2, quantiles=(0.5,)))
    context, observed = inputs(network.spec, batch=2)
    names = [name for name, _ in network.named_parameters()]

    def forward(*parameters: Tensor) -> Any:
        return torch.func.functional_call(network, dict(zip(names, parameters, strict=True)), (context, observed))

    parameters = tuple(parameter.detach().clone().requires_grad_() for parameter in network.parameters())
    assert torch.autograd.gradcheck(forward, parameters)


@pytest.mark.parametrize("patch", [1, 4])
def test_a_gradient_reaches_every_parameter(patch: int) -> None:
    """No layer, gate or quantile is cut off."""
    network = shaken_network(small_spec(layers=3, patch_length=patch))
    context, observed = inputs(network.spec, batch=64)
    target = torch.randn(64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pinball(network(context, observed), target, torch.tensor([0.1, 0.5, 0.9])).mean().backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).all(), name


def test_a_new_head_says_nothing() -> None:
    """Training starts from the linear forecast alone."""
    torch.manual_seed(0)
    network = StackedRNN(small_spec()).double().eval()
    context, observed = inputs(network.spec)
    assert not network(context, observed).any()
    with torch.no_grad():
        network.skip_start.normal_()
        network.bias.normal_()
        found = network(context, observed)
    expected = (context @ network.skip_start).unsqueeze(-1) + network.bias
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


def test_the_newest_value_moves_every_step_and_quantile() -> None:
    """Through the LSTM alone, without the linear skip and the normalisation."""
    for patch in (1, 2, 4):
        network = shaken_network(small_spec(patch_length=patch))
        with torch.no_grad():
            network.skip.zero_()
            network.skip_start.zero_()
            context, observed = inputs(network.spec)
            observed[:, -1] = 1
            before = network(context, observed)
            context[:, -1] += 0.5
            moved = (network(context, observed) - before).abs()
        assert (moved > 1e-6).all()


def test_a_missing_value_is_not_a_zero() -> None:
    """The observed flag reaches the output: zero and missing differ."""
    network = shaken_network(small_spec())
    context, observed = inputs(network.spec)
    context[:, 3], observed[:, 3] = 0, 1
    flags = observed.clone()
    flags[:, 3] = 0
    with torch.no_grad():
        assert (network(context, observed) != network(context, flags)).all()


def test_patches_by_hand() -> None:
    """Values, then flags, oldest first; the oldest patch is filled up in front."""
    network = StackedRNN(small_spec(context_length=5, patch_length=2))
    assert network.spec.steps == 3
    context = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    observed = torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0]])
    assert network.patches(context, observed).tolist() == [[[0, 1, 0, 1], [2, 3, 0, 1], [4, 5, 1, 1]]]


def test_dropout_acts_in_training_only() -> None:
    """Two passes in training differ, two in forecasting are equal; one layer has no dropout inside."""
    for layers in (1, 2):
        network = shaken_network(small_spec(layers=layers, dropout=0.5, hidden_size=16))
        context, observed = inputs(network.spec)
        torch.manual_seed(0)
        assert torch.equal(network(context, observed), network(context, observed))
        network.train()
        assert not torch.equal(network(context, observed), network(context, observed))


def test_the_spec_survives_json() -> None:
    spec = small_spec(quantiles=(0.025, 0.5, 0.975))
    assert NetworkSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec
    assert [small_spec(context_length=length, patch_length=4).steps for length in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]
