"""`export`: the ONNX file forecasts as the model does, says what it takes, and is written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import commands
import numpy as np
import numpy.typing as npt
import pytest
import torch
from commands import ok, run
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import (
    EVERY_INPUT,
    OPTIONS,
    architectures,
    every_covariate,
    every_origin,
    make_panel,
    named,
    shaken_network,
    small_spec,
    wave,
)
from scipy import stats  # type: ignore[import-untyped]

from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Panel
from stacklstm_cli.errors import ModelError, UsageError
from stacklstm_cli.model import agreement, export
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.checkpoint import Checkpoint
from stacklstm_cli.model.network import NetworkSpec

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NAN = float("nan")


def model_of(checkpoint: Checkpoint, spec: NetworkSpec, seed: int = 1) -> Checkpoint:
    """The model with another network, every weight random."""
    network = shaken_network(spec, seed=seed, dtype=torch.float32)
    generator = np.random.default_rng(seed)
    count = len(spec.inputs.covariates)
    network.set_statistics(generator.normal(3, 1, count), generator.uniform(0.5, 2, count))
    return replace(checkpoint, spec=spec, final=network.state_dict())


def session_of(data: bytes) -> Any:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def forecasts(data: bytes, **inputs: npt.ArrayLike) -> Floats:
    """What ONNX Runtime makes of inputs by name."""
    session = session_of(data)
    kinds = {"tensor(double)": np.float64, "tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": bool}
    types = {one.name: kinds[one.type] for one in session.get_inputs()}
    found: Floats = session.run(None, {name: np.asarray(given, types[name]) for name, given in inputs.items()})[0]
    return found


def torch_forecasts(model: Checkpoint, panel: Panel, origins: Origins, quantiles: tuple[float, ...]) -> Floats:
    forecaster = model.forecaster(torch.device("cpu"))
    if model.spec.loss == "negative-binomial":  # whose parameters come out, before any calibration
        forecaster.calibration = None
    return forecaster.forecast(panel, origins, model.spec.horizon, quantiles)


def contexts(panel: Panel, origins: Origins, length: int) -> Floats:
    """The raw rows before each origin, by a plain loop; NaN before the series begins."""
    rows = []
    for series, known in zip(origins.series.tolist(), origins.rows.tolist(), strict=True):
        values = [NAN] * length + panel.series(series)[:known].tolist()
        rows.append(values[-length:])
    return np.asarray(rows)


GAPPED = make_panel(np.where(np.arange(40) % 7 == 3, np.nan, wave(40)), 1e4 + wave(30), [5.0], [5.0, 9.0])


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(one, marks=[pytest.mark.slow] * (at >= 3), id=named(one)) for at, one in enumerate(architectures())],
)
def test_every_architecture_forecasts_as_torch_does(checkpoint: Checkpoint, architecture: dict[str, Any]) -> None:
    """The contexts cut here by a loop, the truth by the road of `predict`: gaps, short series, single values."""
    model = model_of(checkpoint, small_spec(**architecture))
    origins = every_origin(GAPPED)
    found = forecasts(export.to_onnx(model), context=contexts(GAPPED, origins, 6))
    expected = torch_forecasts(model, GAPPED, origins, (0.1, 0.5, 0.9))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert (np.diff(found, axis=-1) >= 0).all()


@pytest.mark.parametrize(
    ("layers", "changes"),
    [(1, {}), (3, {"bidirectional": True, "patch_length": 4}), (3, {"patch_length": 1, "skip": False, "cell": "gru"})],
)
def test_fused_stacks_and_patches(checkpoint: Checkpoint, layers: int, changes: dict[str, Any]) -> None:
    """Equal layers with nothing between them are one module of torch; patches need not divide the context."""
    model = model_of(checkpoint, small_spec(layers=layers, residual=False, **changes))
    assert model.spec.stack.fused
    found = agreement.compare(export.to_onnx(model), model, agreement.random_panel(model))
    assert found.windows > 100
    assert found.largest_difference < 1e-5


BOUNDS = {"minimum": 0.0, "maximum": 60.0}


@pytest.mark.parametrize(
    ("loss", "changes"),
    [
        *(("quantile", BOUNDS), ("mae", BOUNDS), ("student-t", BOUNDS), ("negative-binomial", BOUNDS)),
        *(
            pytest.param(loss, {}, marks=pytest.mark.slow)
            for loss in ("mse", "huber", "student-t", "negative-binomial")
        ),
    ],
)
def test_every_loss(checkpoint: Checkpoint, loss: str, changes: dict[str, Any]) -> None:
    """Quantiles or points as torch has them; of counts the parameters, from which SciPy makes torch's quantiles."""
    panel = make_panel(np.round(np.abs(wave(40))), np.round(100 * np.abs(wave(30, seed=3))))
    origins = Origins(np.array([0, 0, 1, 1]), np.array([40, 17, 30, 9]))
    model = model_of(checkpoint, small_spec(loss=loss, **changes))
    data = export.to_onnx(model)
    found = forecasts(data, context=contexts(panel, origins, 6))
    if loss in ("quantile", "student-t", "negative-binomial"):
        expected = torch_forecasts(model, panel, origins, (0.1, 0.5, 0.9))
    else:
        expected = torch_forecasts(model, panel, origins, (0.5,))
    if loss == "negative-binomial":
        mean, size = found[..., :1], found[..., 1:]
        found = stats.nbinom.ppf((0.1, 0.5, 0.9), size, size / (size + mean)).clip(*(changes.values() or (None, None)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1)  # a whole count may tip over
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert agreement.compare(data, model, agreement.random_panel(model)).largest_difference < agreement.TOLERANCE


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(2.0, 1e9), min_size=1, max_size=5), st.lists(st.floats(0.001, 0.999), min_size=1, max_size=5))
def test_students_quantiles_as_polynomials_equal_scipy(freedoms: list[float], levels: list[float]) -> None:
    head = export.PolynomialStudentTHead(levels)
    raw = torch.zeros(1, len(freedoms), 3, dtype=torch.float64)
    freedom = torch.tensor(freedoms, dtype=torch.float64).reshape(1, -1, 1)
    head.parameters = lambda _: (torch.zeros(1, 1), torch.ones(1, 1), freedom)  # type: ignore[method-assign]
    one = torch.ones(1, 1, dtype=torch.float64)
    found = head.decode(raw, export.Scaling(0 * one, one), levels)[0]  # [freedoms, levels]
    expected = stats.t.ppf(np.asarray(levels), np.asarray(freedoms)[:, None])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_forecasts_by_smoothing(checkpoint: Checkpoint) -> None:
    """Its file holds what was learned of them alone, and its graph their tables as well."""
    model = model_of(checkpoint, small_spec(smoothing_season=3))
    learned = {"share", "sharpness", "weights.weight", "weights.bias", "trust.weight", "trust.bias"}
    assert {name for name in model.final if name.startswith("smoothing.")} == {f"smoothing.{one}" for one in learned}
    found = agreement.compare(export.to_onnx(model), model, GAPPED)
    assert found.windows > 60
    assert found.largest_difference < 1e-5


@pytest.mark.parametrize(
    ("gaps", "transform"),
    [
        ("interpolate", "log1p"),
        ("mask", "symlog"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (("mask", "log1p"), ("ffill", "none"), ("interpolate", "none"), ("interpolate", "symlog"))
        ),
    ],
)
def test_gaps_and_logarithms(checkpoint: Checkpoint, gaps: str, transform: str) -> None:
    """A model that fills gaps takes the filled context and the flags of what was observed."""
    model = model_of(checkpoint, small_spec(gaps=gaps, transform=transform, minimum=1.0))
    values = np.abs(GAPPED.values)
    panel = replace(GAPPED, values=values)
    data = export.to_onnx(model)
    found = agreement.compare(data, model, panel)
    assert found.windows > 60
    assert found.largest_difference < 1e-5
    names = [one.name for one in session_of(data).get_inputs()]
    assert names == (["context"] if gaps == "mask" else ["context", "observed"])


def test_a_filled_context_as_the_file_describes_it(checkpoint: Checkpoint) -> None:
    """By hand: the value before the gap stands in it, flagged as not observed."""
    model = model_of(checkpoint, small_spec(gaps="ffill"))
    values = [3.0, 4.0, 8.0, NAN, NAN, 5.0, 6.0, 9.0]
    found = forecasts(
        export.to_onnx(model),
        context=[[8.0, 8.0, 8.0, 5.0, 6.0, 9.0]],
        observed=[[True, False, False, True, True, True]],
    )
    expected = torch_forecasts(model, make_panel(values), Origins(np.array([0]), np.array([8])), (0.1, 0.5, 0.9))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_covariates_calendar_and_holidays(checkpoint: Checkpoint) -> None:
    """Numbers and texts of each role, cycles, holidays: on real rows and on random ones."""
    spec = small_spec(inputs=EVERY_INPUT)
    panel = every_covariate(make_panel(wave(40), 1e3 * wave(30), starts=[480_000, 480_500]))
    model = replace(model_of(checkpoint, spec), columns=panel.columns)
    data = export.to_onnx(model)
    for windows in (panel, agreement.random_panel(model)):
        assert agreement.compare(data, model, windows).largest_difference < 1e-5
    names = [one.name for one in session_of(data).get_inputs()]
    assert names == ["context", "past", "future", "static", "calendar"]
    facts = {one.key: one.value for one in onnx.load_model_from_string(data).metadata_props}
    inputs = {one["name"]: one for one in json.loads(facts["inputs"])}
    assert inputs["past"]["columns"] == ["load", "state", "price", "event"]
    assert inputs["past"]["categories"] == {"state": ["off", "on"], "event": ["fair", "rain", "strike"]}
    assert inputs["future"] | {"meaning": ""} == {
        "name": "future",
        "type": "float32",
        "shape": ["batch", 4, 2],
        "meaning": "",
        "columns": ["price", "event"],
        "categories": {"event": ["fair", "rain", "strike"]},
    }
    assert inputs["calendar"]["columns"] == ["time_of_day", "weekday", "year", "holidays"]
    assert "DE-BY" in inputs["calendar"]["meaning"]


def test_the_codes_of_the_calendar_are_as_described(checkpoint: Checkpoint) -> None:
    """Noon of Wednesday, 1 May 2024, a holiday of Germany: told by hand, as the file's words say."""
    spec = small_spec(inputs=replace(EVERY_INPUT, covariates=()), horizon=1)
    start = (19844 * 86400 + 12 * 3600) // 3600  # hours from 1970 to noon of 1 May 2024
    panel = make_panel(wave(8), starts=[start - 8])
    model = model_of(checkpoint, spec)
    calendar = [[[12 * 3600 * 288 // 86400, 2, 31 + 29 + 31 + 30, 1]]]
    found = forecasts(export.to_onnx(model), context=[wave(8)[-6:]], calendar=calendar)
    expected = torch_forecasts(model, panel, Origins(np.array([0]), np.array([8])), (0.1, 0.5, 0.9))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_any_batch_a_single_value_and_none(checkpoint: Checkpoint) -> None:
    """One window or many; a single value is repeated; of nothing nothing is said."""
    data = export.to_onnx(model_of(checkpoint, small_spec()))
    rows = [[NAN] * 5 + [7.0], [NAN] * 6, [NAN, 1.0, NAN, 2.0, NAN, NAN], list(wave(6))]
    together = forecasts(data, context=rows)
    assert (together[0] == 7.0).all()
    assert np.isnan(together[1]).all()
    assert np.isfinite(together[2:]).all()
    for place, row in enumerate(rows):
        np.testing.assert_allclose(forecasts(data, context=[row])[0], together[place], rtol=1e-6)
    assert forecasts(data, context=np.tile(wave(6), (300, 1))).shape == (300, 4, 3)


def test_normalisation_is_exact_where_float32_would_not_be(checkpoint: Checkpoint) -> None:
    """Steps of 1 on a level of 1e9 vanish in float32; the forecast must see them."""
    model = model_of(checkpoint, small_spec())
    panel = make_panel(1e9 + np.arange(8.0) ** 2)
    found = forecasts(export.to_onnx(model), context=[panel.values[-6:]])
    expected = torch_forecasts(model, panel, Origins(np.array([0]), np.array([8])), (0.1, 0.5, 0.9))
    np.testing.assert_allclose(found - 1e9, expected - 1e9, rtol=1e-4, atol=1e-2)


def test_equal_models_give_equal_bytes_and_no_path(checkpoint: Checkpoint) -> None:
    model = model_of(checkpoint, small_spec(attention=True))
    data = export.to_onnx(model)
    assert data == export.to_onnx(model)
    assert str(Path(__file__).parent.parent).encode() not in data


def test_a_file_that_forecasts_otherwise_is_refused(checkpoint: Checkpoint) -> None:
    """The comparison finds the smallest of the differences that matter: one weight, slightly off."""
    model = model_of(checkpoint, small_spec())
    other = {name: tensor.clone() for name, tensor in model.final.items()}
    other["bias"][0, 1] += 0.01
    data = export.to_onnx(replace(model, final=other))
    with pytest.raises(ModelError, match=r"differs by up to .* 1e-05 are allowed") as caught:
        agreement.compare(data, model, agreement.random_panel(model))
    assert caught.value.code == "export_differs"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PACKAGES", ("onnx", "onnx_of_tomorrow"))
    with pytest.raises(UsageError, match="onnx_of_tomorrow, which is not installed") as caught:
        export.require_packages()
    assert "pip install 'stacklstm[export]'" in caught.value.hint


@pytest.fixture
def trained(folder: Path) -> Path:
    """A model of twenty rows a day, beside its data."""
    rows = "\n".join(f"{value:.3f}" for value in wave(90))
    Path("data.csv").write_text(f"v\n{rows}\n")
    commands.trained("data.csv", "--epochs", "1", "--hidden-size", "4", "--horizon", "3", "-q")
    return folder


def test_the_command(trained: Path) -> None:
    """Writes the one file that is named; the document says what was compared; the file gives what `predict` gives."""
    words = ["export", "data.safetensors", "--output", "data.onnx", "--data", "data.csv"]
    found = json.loads(ok(*words, "--format", "json").stdout)
    assert sorted(path.name for path in trained.iterdir()) == ["data.csv", "data.onnx", "data.safetensors"]
    assert found["comparison"]["windows"] == {"random windows": 256, "data.csv": 90}
    assert max(found["comparison"]["largest_difference"].values()) <= found["comparison"]["tolerance"] == 1e-5
    data = Path("data.onnx").read_bytes()
    assert found["onnx"]["bytes"] == len(data)
    saved = checkpoints.load(Path("data.safetensors"))
    length = saved.spec.context_length
    values = np.loadtxt("data.csv", skiprows=1)[-length:]
    expected = json.loads(ok("predict", "data.csv", "--format", "json").stdout)["forecasts"]
    quantiles = [[row["q10"], row["q50"], row["q90"]] for row in expected]
    np.testing.assert_allclose(forecasts(data, context=[values])[0], quantiles, rtol=1e-5)
    table = ok(*words).stdout
    assert "deviations of the window" in table
    assert Path("data.onnx").read_bytes() == data


def test_no_output_no_file(trained: Path) -> None:
    """--output is demanded, with the line to type; other mistakes leave nothing behind either."""
    for words, status, said in (
        (["data.safetensors"], 2, "stacklstm export data.safetensors --output data.onnx"),
        (["data.safetensors", "--output", "-"], 2, "--output data.onnx"),
        (["data.safetensors", "--output", "data.safetensors"], 2, "would overwrite"),
        (["data.safetensors", "--output", "data.csv", "--data", "data.csv"], 2, "would overwrite"),
        (["data.safetensors", "--output", "no/data.onnx"], 4, "no folder"),
        (["none.safetensors", "--output", "data.onnx"], 4, "no model file"),
        (["data.safetensors", "--output", "data.onnx", "--data", "none.csv"], 3, "none.csv"),
    ):
        done = run("export", *words)
        assert done.exit_code == status, done.stderr
        assert said in done.stderr
    assert sorted(path.name for path in trained.iterdir()) == ["data.csv", "data.safetensors"]


def test_a_disagreement_ends_with_status_4_and_the_old_file(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data.onnx").write_text("the one before")
    monkeypatch.setattr(agreement, "TOLERANCE", -1.0)
    done = run("export", "data.safetensors", "--output", "data.onnx")
    assert done.exit_code == 4
    assert "Nothing was written" in done.stderr
    assert Path("data.onnx").read_text() == "the one before"


def test_without_the_extra(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PACKAGES", ("onnx_of_tomorrow",))
    done = run("export", "data.safetensors", "--output", "data.onnx")
    assert done.exit_code == 2
    assert "pip install 'stacklstm[export]'" in done.stderr


def test_all_options_of_a_stack_are_covered() -> None:
    """The parametrised architectures hold every value of every option."""
    for name, values in OPTIONS.items():
        assert {repr(one[name]) for one in architectures()} == set(map(repr, values))
