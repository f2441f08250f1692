"""The network against its equations in numpy, and what flows through it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from panels import EVERY_INPUT, architectures, named, plain_inputs, shaken_network, small_spec
from test_stack import by_equations as stack_by_equations
from torch import Tensor

from stacklstm_cli.config import LOSSES
from stacklstm_cli.data.panel import Covariate
from stacklstm_cli.model.heads import pinball
from stacklstm_cli.model.inputs import InputSpec
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.model.windows import Inputs

Floats = npt.NDArray[np.float64]
CODES = {"time_of_day": 288, "weekday": 7, "monthday": 31, "month": 12, "year": 366}
"""Codes of each cycle."""
HARMONICS = {"time_of_day": 4, "monthday": 2, "year": 3}
PLAIN = InputSpec()
LOCATED = {"mae": (1,), "mse": (1,), "huber": (1,), "student-t": (1, 0, 0), "negative-binomial": (1, 0)}
"""Which raw numbers of a loss lie on the axis of values; those of the quantile loss all do."""


def inputs(spec: NetworkSpec, batch: int = 5, seed: int = 1) -> Inputs:
    """Normalised contexts with some places missing; covariates likewise, with unknown categories and wild numbers."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(batch, spec.context_length, generator=generator, dtype=torch.float64)
    observed = (torch.rand(batch, spec.context_length, generator=generator) < 0.8).double()

    def covariates(rows: int, *roles: str) -> Tensor:
        columns = []
        for one in spec.inputs.of(*roles):
            if one.categories is None:
                column = 4 * torch.randn(batch, rows, generator=generator, dtype=torch.float64) + 3
                column[torch.rand(batch, rows, generator=generator) < 0.2] = torch.nan
            else:
                column = torch.randint(0, len(one.categories) + 1, (batch, rows), generator=generator).double()
            columns.append(column)
        return torch.stack(columns, -1) if columns else torch.empty(batch, rows, 0, dtype=torch.float64)

    codes = [CODES[cycle] for cycle in spec.inputs.cycles] + [4] * bool(spec.inputs.holidays)
    drawn = [torch.randint(0, count, (batch, spec.horizon), generator=generator) for count in codes]
    calendar = torch.stack(drawn, -1) if drawn else torch.empty(batch, spec.horizon, 0, dtype=torch.int64)
    past, future = covariates(spec.context_length, "past", "known"), covariates(spec.horizon, "known")
    return Inputs(context * observed, observed, past, future, covariates(1, "static")[:, 0], calendar)


def features(values: Floats, covariates: tuple[Covariate, ...], weights: dict[str, Floats], role: str) -> list[float]:
    """One row of covariates as the network sees it: standardised numbers, their flags, embeddings."""
    numbers: list[float] = []
    flags: list[float] = []
    embeddings: list[list[float]] = []
    for value, one in zip(values, covariates, strict=True):
        if one.categories is None:
            place = len(numbers)
            mean, deviation = weights[f"{role}.mean"][place], weights[f"{role}.deviation"][place]
            missing = bool(np.isnan(value))
            numbers.append(0.0 if missing else min(max((value - mean) / deviation, -5.0), 5.0))
            flags.append(float(missing))
        else:
            table = weights[f"{role}.embeddings.{len(embeddings)}"]
            assert table.shape == (len(one.categories) + 1, 4)
            embeddings.append(table[int(value)].tolist())
    return [*numbers, *flags, *(number for embedding in embeddings for number in embedding)]


def cycle_features(cycle: str, code: int) -> list[float]:
    """Weekdays and months stand for themselves; other cycles are told by sines and cosines."""
    if cycle not in HARMONICS:
        return [float(code == other) for other in range(CODES[cycle])]
    angles = [2 * np.pi * code / CODES[cycle] * k for k in range(1, HARMONICS[cycle] + 1)]
    return [float(np.float32(turn(angle))) for turn in (np.sin, np.cos) for angle in angles]


def decoded_state(network: StackedRNN, outputs: Floats, step: int | None) -> Floats:
    """What decodes the horizon, from the outputs [S, W] of the stack.

    Of one step its own output. Of all the newest state: of a second direction, that after the oldest step; with
    attention, also the mean of the outputs, weighted by softmax(v · tanh(K h + Q newest + b)).
    """
    if step is not None:
        own: Floats = outputs[step]
        return own
    spec = network.spec.stack
    width = spec.hidden_sizes[-1]
    newest: Floats = np.concatenate([outputs[-1, :width], outputs[0, width:]])
    if not spec.attention:
        return newest
    part = {name: tensor.numpy() for name, tensor in network.stack.state_dict().items()}
    key, query, score = (part[f"attention.{name}.weight"] for name in ("key", "query", "score"))
    scores = [score[0] @ np.tanh(key @ h + query @ newest + part["attention.query.bias"]) for h in outputs]
    shares = np.exp(scores) / np.exp(scores).sum()
    both: Floats = np.concatenate([newest, shares @ outputs])
    return both


def by_equations(network: StackedRNN, batch: Inputs, place: int, step: int | None = None) -> Floats:
    """One window of a batch -> [H, K], number by number; with `step`, what that step of the stack forecasts."""
    spec = network.spec
    located = LOCATED.get(spec.loss, (1,) * len(spec.quantiles))
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    past, known, static = (spec.inputs.of(role) for role in ("past", "known", "static"))
    context, observed = batch.context[place].numpy(), batch.observed[place].numpy()
    future, calendar = (one[place] if step is None else one[place, step] for one in (batch.future, batch.calendar))
    rows = []
    for row in range(spec.context_length):
        covariates = features(batch.past[place, row, : len(past)].numpy(), past, weights, "past")
        covariates += features(batch.past[place, row, len(past) :].numpy(), known, weights, "known")
        few = weights["covariates.weight"] @ covariates if covariates else []
        assert len(few) == min(4, len(covariates))
        rows.append([context[row], observed[row], *few])
    rest = -spec.context_length % spec.patch_length
    padded = np.concatenate([np.zeros((rest, len(rows[0]))), np.array(rows)])
    steps = [padded[begin : begin + spec.patch_length].T.ravel() for begin in range(0, len(padded), spec.patch_length)]
    state = decoded_state(network, stack_by_equations(network.stack, np.array(steps)), step)
    seen = spec.context_length if step is None else (step + 1) * spec.patch_length - rest
    always = features(batch.static[place].numpy(), static, weights, "static")
    result = np.zeros((spec.horizon, len(located)))
    for ahead in range(spec.horizon):
        line = 0.0
        for back in range(1, seen + 1) if spec.skip else ():
            line += context[seen - back] * (weights["skip_start"][-back, ahead] + weights["skip"][-back, ahead])
        codes = calendar[ahead].tolist()
        there = [
            number
            for cycle, code in zip(spec.inputs.cycles, codes, strict=False)
            for number in cycle_features(cycle, code)
        ]
        there += [float(code) for code in codes[len(spec.inputs.cycles) :]]
        there += [*features(future[ahead].numpy(), known, weights, "known"), *always]
        hidden = None
        if there:
            hidden = weights["decoder.state.weight"] @ state + weights["decoder.state.bias"]
            hidden = hidden + weights["decoder.features.weight"] @ np.array(there) + weights["decoder.step"][ahead]
            hidden = np.maximum(hidden, 0)
            hidden = np.maximum(weights["decoder.hidden.weight"] @ hidden + weights["decoder.hidden.bias"], 0)
        for number, is_place in enumerate(located):
            unit = ahead * len(located) + number
            learned = weights["head.weight"][unit] @ state + weights["head.bias"][unit]
            if hidden is not None:
                learned += weights["decoder.out.weight"][number] @ hidden + weights["decoder.out.bias"][number]
            result[ahead, number] = line * is_place + weights["bias"][ahead, number] + learned
    return result


def with_statistics(network: StackedRNN) -> StackedRNN:
    """Means and deviations of the covariates that are not 0 and 1."""
    count = len(network.spec.inputs.covariates)
    network.set_statistics(np.linspace(1.5, 4.5, count), np.linspace(0.5, 2.5, count))
    return network


def check(network: StackedRNN, windows: int) -> None:
    """The network says what its equations say."""
    batch = inputs(network.spec, windows)
    with torch.no_grad():
        found = network(batch).numpy()
    located = LOCATED.get(network.spec.loss, (1,) * len(network.spec.quantiles))
    assert found.shape == (windows, network.spec.horizon, len(located))
    for place in range(windows):
        np.testing.assert_allclose(found[place], by_equations(network, batch, place), rtol=0, atol=1e-10)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("patch", [1, 2, 3, 4, 6])
def test_equals_its_equations(layers: int, patch: int) -> None:
    """Stacks of every depth, patches that divide the context of 6 and one that does not."""
    check(shaken_network(small_spec(layers=layers, patch_length=patch)), 5)


@pytest.mark.parametrize("given", [PLAIN, EVERY_INPUT], ids=["plain", "every"])
@pytest.mark.parametrize("architecture", architectures(), ids=named)
def test_equals_its_equations_in_every_architecture(architecture: dict[str, Any], given: InputSpec) -> None:
    """Whatever the stack is made of, in patches of one row, in patches of two beside covariates and calendar."""
    spec = small_spec(**architecture, patch_length=1 if given is PLAIN else 2, inputs=given)
    check(with_statistics(shaken_network(spec)), 3)


@pytest.mark.parametrize("given", [PLAIN, EVERY_INPUT], ids=["plain", "every"])
@pytest.mark.parametrize("loss", LOSSES)
def test_equals_its_equations_with_every_loss(loss: str, given: InputSpec) -> None:
    """The linear skip is added to what lies on the axis of values, and to no scale or number of degrees."""
    check(with_statistics(shaken_network(small_spec(loss=loss, inputs=given))), 3)


@pytest.mark.parametrize("given", [PLAIN, EVERY_INPUT], ids=["plain", "every"])
def test_equals_its_equations_without_the_line(given: InputSpec) -> None:
    """The stack and the bias alone; there is nothing of a skip to train or to save."""
    network = with_statistics(shaken_network(small_spec(skip=False, inputs=given)))
    check(network, 3)
    assert not any("skip" in name for name in network.state_dict())


@pytest.mark.parametrize("changes", [{"patch_length": 1}, {}, {"patch_length": 4}, {"skip": False}], ids=str)
@pytest.mark.parametrize("given", [PLAIN, EVERY_INPUT], ids=["plain", "every"])
def test_equals_its_equations_at_every_step(given: InputSpec, changes: dict[str, Any]) -> None:
    """Each step forecasts from what it has seen, and the last one as the newest state does."""
    network = with_statistics(shaken_network(small_spec(**changes, inputs=given)))
    steps, one = network.spec.steps, inputs(network.spec)
    drawn = [inputs(network.spec, seed=seed) for seed in range(2, 1 + steps)]
    ahead = {name: torch.stack([getattr(x, name) for x in (*drawn, one)], 1) for name in ("future", "calendar")}
    every = dataclasses.replace(one, **ahead)
    with torch.no_grad():
        found = network(every)
        torch.testing.assert_close(found[:, -1], network(one), rtol=0, atol=1e-12)
    assert found.shape == (5, steps, 4, 3)
    for place in range(5):
        for step in range(steps):
            expected = by_equations(network, every, place, step)
            np.testing.assert_allclose(found[place, step].numpy(), expected, rtol=0, atol=1e-10)


def test_smoothing_at_every_step_sees_what_came_before() -> None:
    """The last step forecasts as the newest state does, and no step moves with a row behind it."""
    network = shaken_network(small_spec(context_length=8, smoothing_season=2))
    steps, one = network.spec.steps, inputs(network.spec)
    drawn = [inputs(network.spec, seed=seed) for seed in range(2, 1 + steps)]
    ahead = {name: torch.stack([getattr(x, name) for x in (*drawn, one)], 1) for name in ("future", "calendar")}
    every = dataclasses.replace(one, observed=torch.ones_like(one.observed), **ahead)
    with torch.no_grad():
        found = network(every)
        newest = network(dataclasses.replace(one, observed=every.observed))
        torch.testing.assert_close(found[:, -1], newest, rtol=0, atol=1e-12)
        for row in range(8):
            context = every.context.clone()
            context[:, row] += 0.5
            moved = (network(dataclasses.replace(every, context=context)) != found).any(-1).any(-1).any(0)
            first = row // network.spec.patch_length
            assert moved.tolist() == [step >= first for step in range(steps)]


@pytest.mark.parametrize(
    "given",
    [
        EVERY_INPUT,
        InputSpec(EVERY_INPUT.of("past")),
        InputSpec(EVERY_INPUT.of("known")),
        InputSpec(EVERY_INPUT.of("static")),
        InputSpec(cycles=("month",)),
        InputSpec(cycles=tuple(CODES), holidays="DE-BY"),
        InputSpec(holidays="US"),
        InputSpec((Covariate("only", "known", ()),)),
    ],
    ids=lambda given: given.explained(),
)
def test_equals_its_equations_with_every_input(given: InputSpec) -> None:
    """Roles alone and together, in patches of 4 rows in a context of 6."""
    check(with_statistics(shaken_network(small_spec(patch_length=4, inputs=given))), 6)


@pytest.mark.parametrize("given", [PLAIN, EVERY_INPUT], ids=["plain", "every"])
def test_gradients_are_those_of_finite_differences(given: InputSpec) -> None:
    """Of every parameter, by torch's own check in double precision."""
    spec = small_spec(layers=2, hidden_size=2, context_length=3, horizon=2, quantiles=(0.5,), inputs=given)
    network = with_statistics(shaken_network(spec))
    batch = inputs(network.spec, batch=2)
    names = [name for name, _ in network.named_parameters()]

    def forward(*parameters: Tensor) -> Any:
        return torch.func.functional_call(network, dict(zip(names, parameters, strict=True)), (batch,))

    parameters = tuple(parameter.detach().clone().requires_grad_() for parameter in network.parameters())
    assert torch.autograd.gradcheck(forward, parameters, fast_mode=given is not PLAIN)


@pytest.mark.parametrize("given", [PLAIN, EVERY_INPUT], ids=["plain", "every"])
@pytest.mark.parametrize(
    "changes",
    [{"layers": 3, "patch_length": 4}, *({**one, "patch_length": 1} for one in architectures())],
    ids=lambda changes: named(changes) if "cell" in changes else "three layers",
)
def test_a_gradient_reaches_every_parameter(changes: dict[str, Any], given: InputSpec) -> None:
    """No layer, gate, quantile, category or feature is cut off."""
    network = with_statistics(shaken_network(small_spec(**changes, inputs=given)))
    if network.decoder is not None:
        with torch.no_grad():  # no unit may be asleep for all windows
            network.decoder.state.bias.add_(4)
            network.decoder.hidden.bias.add_(4)
    batch = inputs(network.spec, batch=63)  # odd, or as many targets may lie above a median as below
    target = torch.randn(63, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pinball(network(batch), target, torch.tensor([0.1, 0.5, 0.9])).mean().backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).all(), name


@pytest.mark.parametrize("given", [PLAIN, EVERY_INPUT], ids=["plain", "every"])
def test_a_new_head_says_nothing(given: InputSpec) -> None:
    """Training starts from the linear forecast alone, whatever else there is to see."""
    torch.manual_seed(0)
    network = StackedRNN(small_spec(inputs=given)).double().eval()
    batch = inputs(network.spec)
    assert not network(batch).any()
    with torch.no_grad():
        network.skip_start.normal_()
        network.bias.normal_()
        found = network(batch)
    expected = (batch.context @ network.skip_start).unsqueeze(-1) + network.bias
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("given", [PLAIN, EVERY_INPUT], ids=["plain", "every"])
@pytest.mark.parametrize("architecture", architectures(), ids=named)
def test_the_newest_value_moves_every_step_and_quantile(architecture: dict[str, Any], given: InputSpec) -> None:
    """Through the stack alone, without the linear skip and the normalisation."""
    for patch in (1, 2):
        network = shaken_network(small_spec(**architecture, patch_length=patch, skip=False, inputs=given))
        with torch.no_grad():
            batch = inputs(network.spec)
            batch.observed[:, -1] = 1
            before = network(batch)
            batch.context[:, -1] += 0.5
            moved = (network(batch) - before).abs()
        assert (moved > 1e-6).all()


def test_a_known_covariate_changes_its_own_step_alone() -> None:
    """What is known of one row to forecast says nothing of the others; what is known of the series, of all."""
    network = with_statistics(shaken_network(small_spec(inputs=EVERY_INPUT)))
    batch = inputs(network.spec)
    with torch.no_grad():
        before = network(batch)
        for step in range(4):
            for changed in ("future", "calendar"):
                tensor = getattr(batch, changed).clone()
                tensor[:, step] = 1 - tensor[:, step].nan_to_num().clamp(max=1)
                after = network(dataclasses.replace(batch, **{changed: tensor}))
                moved = (after != before).any(2).any(0)
                assert moved.tolist() == [other == step for other in range(4)], changed
        static = network(dataclasses.replace(batch, static=1 - batch.static.nan_to_num().clamp(max=1)))
        assert (static != before).any(2).any(0).all()


def test_rows_that_share_what_the_calendar_says() -> None:
    """What the decoder adds to each row is what it adds to the first of its group, of which the last may be short."""
    spec = small_spec(inputs=InputSpec(cycles=("weekday",)), horizon=5, calendar_rows=2)
    network = shaken_network(spec)
    decoder, generator = network.decoder, torch.Generator().manual_seed(0)
    assert decoder is not None
    assert decoder.step.shape[0] == 3
    state = torch.randn(4, spec.stack.pooled_size, generator=generator, dtype=decoder.step.dtype)
    features = torch.randn(4, 5, network.ahead_width, generator=generator, dtype=decoder.step.dtype)
    found = decoder(state, features)  # [4, 5, K]
    decoder.rows, decoder.horizon = 1, 3
    torch.testing.assert_close(found, decoder(state, features[:, ::2])[:, [0, 0, 1, 1, 2]])


def test_a_missing_value_is_not_a_zero() -> None:
    """The observed flag reaches the output: zero and missing differ."""
    network = shaken_network(small_spec())
    batch = inputs(network.spec)
    batch.context[:, 3], batch.observed[:, 3] = 0, 1
    flags = batch.observed.clone()
    flags[:, 3] = 0
    with torch.no_grad():
        assert (network(batch) != network(dataclasses.replace(batch, observed=flags))).all()


@pytest.mark.parametrize("field", ["past", "future", "static"])
def test_a_missing_covariate_is_not_its_mean(field: str) -> None:
    """A flag tells them apart, and without the flag they would be the same."""
    network = with_statistics(shaken_network(small_spec(inputs=EVERY_INPUT)))
    batch = inputs(network.spec)
    role = {"past": "past", "future": "known", "static": "static"}[field]
    covariates = network.spec.inputs.of(role)
    place = next(at for at, one in enumerate(covariates) if one.categories is None)
    missing, average = getattr(batch, field).clone(), getattr(batch, field).clone()
    missing[..., place] = torch.nan
    average[..., place] = getattr(network, role).mean[0]
    one, other = (dataclasses.replace(batch, **{field: values}) for values in (missing, average))
    with torch.no_grad():
        assert (network(one) != network(other)).any()
        seen = [getattr(network, role)(values[..., : len(covariates)]) for values in (missing, average)]
    differ = (seen[0] != seen[1]).flatten(0, -2).any(0)
    assert differ.sum() == 1
    assert network(one).isfinite().all()


def test_a_number_beyond_five_deviations_counts_as_five() -> None:
    """One false reading of a sensor must not decide a forecast."""
    network = StackedRNN(small_spec(inputs=InputSpec((Covariate("x", "known"),))))
    network.set_statistics(np.array([10.0]), np.array([2.0]))
    seen = network.known(torch.tensor([[0.0], [1.0], [20.0], [20.5], [1e30], [-1e30], [10.0], [14.0], [torch.nan]]))
    assert seen.tolist() == [[-5, 0], [-4.5, 0], [5, 0], [5, 0], [5, 0], [-5, 0], [0, 0], [2, 0], [0, 1]]


def test_an_unmet_category_is_as_good_as_unknown() -> None:
    """Until training moves them, all categories are alike."""
    torch.manual_seed(0)
    network = StackedRNN(small_spec(inputs=InputSpec((Covariate("x", "known", ("a", "b", "c")),))))
    codes = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert not network.known(codes).any()
    with torch.no_grad():
        dict(network.known.named_parameters())["embeddings.0"][2].add_(1)
    assert network.known(codes).any(1).tolist() == [False, False, True, False]


def test_statistics_reach_the_numbers_of_their_roles() -> None:
    """In the order of the spec; those of categories are passed over."""
    covariates = (
        *(Covariate("p0", "past"), Covariate("p1", "past", ("a",)), Covariate("p2", "past")),
        *(Covariate("k0", "known", ("a",)), Covariate("k1", "known")),
        *(Covariate("s0", "static"), Covariate("s1", "static", ("a",))),
    )
    network = StackedRNN(small_spec(inputs=InputSpec(covariates)))
    network.set_statistics(np.arange(7.0), np.arange(7.0) + 10)
    found = [(one.mean.tolist(), one.deviation.tolist()) for one in (network.past, network.known, network.static)]
    assert found == [([0, 2], [10, 12]), ([4], [14]), ([5], [15])]


def test_patches_by_hand() -> None:
    """Values, then flags, oldest first; the oldest patch is filled up in front."""
    network = StackedRNN(small_spec(context_length=5, patch_length=2))
    assert network.spec.steps == 3
    context = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    observed = torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0]])
    batch = plain_inputs(context, observed)
    assert network.patches(batch).tolist() == [[[0, 1, 0, 1], [2, 3, 0, 1], [4, 5, 1, 1]]]


def test_dropout_acts_in_training_only() -> None:
    """Two passes in training differ, two in forecasting are equal; one layer has no dropout inside."""
    for layers in (1, 2):
        network = shaken_network(small_spec(layers=layers, dropout=0.5, hidden_size=16, inputs=EVERY_INPUT))
        batch = inputs(network.spec)
        torch.manual_seed(0)
        assert torch.equal(network(batch), network(batch))
        network.train()
        assert not torch.equal(network(batch), network(batch))


def test_the_spec_survives_json() -> None:
    spec = small_spec(quantiles=(0.025, 0.5, 0.975), inputs=EVERY_INPUT, gaps="ffill", minimum=0.5, maximum=2.0)
    assert NetworkSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec
    assert [small_spec(context_length=length, patch_length=4).steps for length in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]
