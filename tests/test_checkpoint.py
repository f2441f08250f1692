"""The model file: what comes back, what is refused, and that nothing else is in it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from panels import EVERY_INPUT, every_covariate, make_panel, shaken_network, small_spec, wave

from stacklstm_cli.config import DataConfig, ModelConfig
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.errors import ExitStatus, ModelError
from stacklstm_cli.model.calibration import Calibration
from stacklstm_cli.model.checkpoint import Checkpoint, Weights, given_options, load, save
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.header import card, read_document, seal, verify


@pytest.fixture
def path(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A sound model file."""
    save(checkpoint, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def forecast(checkpoint: Checkpoint, weights: Weights) -> bytes:
    panel = make_panel(wave(50, seed=7), wave(5, seed=8))
    forecaster = Forecaster(checkpoint.network(weights), torch.device("cpu"))
    return forecaster.forecast(panel, Origins(np.array([0, 0, 1]), np.array([50, 20, 5])), 4, (0.1, 0.4, 0.9)).tobytes()


def resealed(path: Path, document: dict[str, Any], tensors: Weights) -> None:
    """A file with a sound digest, whatever else it holds, so that the digest is not why it is refused."""
    document = {"digest": "0" * 64} | {name: value for name, value in document.items() if name != "digest"}
    data = safetensors.torch.save(tensors, {"stacklstm": json.dumps(document)})
    path.write_bytes(data.replace(b"0" * 64, seal(data).encode(), 1))
    if "format" in document:
        verify(path, path.read_bytes())


def parts_of(path: Path) -> tuple[dict[str, Any], Weights]:
    data = path.read_bytes()
    index = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(index["__metadata__"]["stacklstm"]), safetensors.torch.load(data)


class TestRoundTrip:
    def test_everything_comes_back(self, checkpoint: Checkpoint, path: Path) -> None:
        """Every field, every bit of every weight."""
        found = load(path)
        for field in dataclasses.fields(Checkpoint):
            before, after = getattr(checkpoint, field.name), getattr(found, field.name)
            if field.name in ("final", "judged"):
                assert {name: tensor.dtype for name, tensor in after.items()} == {
                    name: tensor.dtype for name, tensor in before.items()
                }
                assert all(torch.equal(after[name], before[name]) for name in before)
            elif isinstance(before, Calibration):
                for part in dataclasses.fields(Calibration):
                    np.testing.assert_array_equal(getattr(after, part.name), getattr(before, part.name))
            elif isinstance(before, np.ndarray):
                assert after.dtype == np.int64
                assert after.tolist() == before.tolist()
            else:
                assert after == before, field.name
        assert found.step.phase == checkpoint.step.phase

    def test_forecasts_are_the_same_bytes(self, checkpoint: Checkpoint, path: Path) -> None:
        found = load(path)
        assert checkpoint.judged is not None
        assert found.judged is not None
        assert forecast(found, found.final) == forecast(checkpoint, checkpoint.final)
        assert forecast(found, found.judged) == forecast(checkpoint, checkpoint.judged)
        assert forecast(found, found.final) != forecast(found, found.judged)

    def test_without_judged_weights(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        checkpoint.judged = None
        save(checkpoint, tmp_path / "m.safetensors")
        assert load(tmp_path / "m.safetensors").judged is None

    def test_text_that_looks_like_the_digest_is_kept(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        """A column whose name is 64 zeros, as the digest is while it is taken."""
        checkpoint.columns = dataclasses.replace(checkpoint.columns, time=("0" * 64,))
        save(checkpoint, tmp_path / "m.safetensors")
        assert load(tmp_path / "m.safetensors").columns.time == ("0" * 64,)

    def test_names_in_any_script(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        """Also control characters, quotes and backslashes."""
        checkpoint.keys = (("größe\x00\n",), ('"\\日本',))
        save(checkpoint, tmp_path / "m.safetensors")
        assert load(tmp_path / "m.safetensors").keys == checkpoint.keys


class TestFile:
    def test_saving_twice_gives_the_same_bytes(self, checkpoint: Checkpoint, path: Path, tmp_path: Path) -> None:
        """In other places, from other orders, over an older model, and what was loaded again."""
        first = path.read_bytes()
        checkpoint.final = dict(reversed(checkpoint.final.items()))
        other = tmp_path / "folder with another name"
        other.mkdir()
        (other / "x").write_bytes(b"old")
        save(checkpoint, other / "x")
        assert (other / "x").read_bytes() == first
        save(load(path), path)
        assert path.read_bytes() == first

    def test_other_processes_write_the_same_bytes(self, path: Path) -> None:
        """Whatever seed Python hashes with."""
        first = path.read_bytes()
        code = (
            "import sys, pathlib\n"
            "from stacklstm_cli.model.checkpoint import load, save\n"
            "path = pathlib.Path(sys.argv[1])\n"
            "save(load(path), path)"
        )
        subprocess.run(
            [sys.executable, "-c", code, str(path)], check=True, env={**os.environ, "PYTHONHASHSEED": "12345"}
        )
        assert path.read_bytes() == first

    def test_any_change_is_another_model(self, checkpoint: Checkpoint, path: Path) -> None:
        """One weight, one option: the id tells them apart."""
        ids = {checkpoint.id}
        checkpoint.options["horizon"] = 5
        save(checkpoint, path)
        ids.add(checkpoint.id)
        checkpoint.final["bias"][0, 0] += 1e-6
        save(checkpoint, path)
        ids.add(checkpoint.id)
        assert len(ids) == 3

    def test_neither_a_path_nor_a_clock_nor_a_row_is_in_it(self, checkpoint: Checkpoint, path: Path) -> None:
        """Nothing of where and when it was made, and no training value."""
        data = path.read_bytes()
        for text in (str(path), str(path.parent), str(Path.cwd()), str(Path.home()), sys.prefix, "/home/", "C:\\"):
            if len(text) > 1:
                assert text.encode() not in data, text
        document, _ = parts_of(path)
        words = json.dumps(document).lower()
        for word in ("created", "timestamp", "date", "hostname", "user"):
            assert word not in words.replace("datetime", ""), word
        for value in wave(40):
            assert repr(float(value)).encode() not in data
            assert np.float64(value).tobytes() not in data
            assert np.float32(value).tobytes() not in data

    def test_a_number_that_json_lacks_is_refused(self, checkpoint: Checkpoint, path: Path) -> None:
        """Better no file than one that other programs cannot read; the old one stays."""
        first = path.read_bytes()
        checkpoint.metrics = {"stacklstm": {"mae": float("nan")}}
        with pytest.raises(ValueError, match="not JSON compliant"):
            save(checkpoint, path)
        assert path.read_bytes() == first

    def test_other_tools_can_read_the_tensors(self, path: Path) -> None:
        """It is a plain safetensors file, sorted by part."""
        names = set(safetensors.torch.load_file(path))
        assert {"final.skip", "judged.skip", "final.stack.layers.0.ahead.weight_ih_l0", "rows.trained_to"} <= names


class TestDamage:
    def test_cut_off_anywhere(self, path: Path) -> None:
        """At every 50th byte, and one before the end."""
        data = path.read_bytes()
        for length in (*range(0, len(data), 50), len(data) - 1):
            path.write_bytes(data[:length])
            for reader in (load, read_document):
                with pytest.raises(ModelError, match=r"m\.safetensors"):
                    reader(path)

    def test_bytes_too_many(self, path: Path) -> None:
        data = path.read_bytes()
        for more in (b"\0", b"\n", data):
            path.write_bytes(data + more)
            with pytest.raises(ModelError, match=r"m\.safetensors"):
                load(path)

    def test_one_flipped_bit(self, path: Path) -> None:
        """300 places in the length, the index, the document, the digest and the tensors: none goes unseen.

        The header alone cannot see all of them, but whatever it sees it refuses as a model.
        """
        data = path.read_bytes()
        draw = random.Random(0)  # noqa: S311 - places, not secrets
        begin = 8 + int.from_bytes(data[:8], "little")
        digest = data.index(b"digest")
        places = [draw.randrange(8 * 8) for _ in range(20)]
        places += [draw.randrange(8 * digest, 8 * (digest + 80)) for _ in range(40)]
        places += [draw.randrange(8 * 8, 8 * begin) for _ in range(120)]
        places += [draw.randrange(8 * begin, 8 * len(data)) for _ in range(120)]
        for place in places:
            wrong = bytearray(data)
            wrong[place // 8] ^= 1 << place % 8
            path.write_bytes(wrong)
            with pytest.raises(ModelError):
                load(path)
            with contextlib.suppress(ModelError):
                read_document(path)

    def test_parts_of_two_models(self, checkpoint: Checkpoint, path: Path) -> None:
        """The header of one over the tensors of another."""
        one = path.read_bytes()
        begin = 8 + int.from_bytes(one[:8], "little")
        checkpoint.final, checkpoint.judged = checkpoint.judged or {}, checkpoint.final
        save(checkpoint, path)
        path.write_bytes(one[:begin] + path.read_bytes()[begin:])
        with pytest.raises(ModelError, match="digest"):
            load(path)

    def test_a_file_of_before_the_first_release(self, path: Path) -> None:
        """It mixes forecasts in by weights that are not known any more: named, and what to do."""
        document, tensors = parts_of(path)
        resealed(path, document, tensors | {"final.mixture.shares.bias": torch.zeros(8)})
        with pytest.raises(ModelError, match="before its first release") as caught:
            load(path)
        assert (caught.value.code, caught.value.hint) == ("model_outdated", "Train the model again.")

    def test_a_season_that_does_not_fit_makes_no_tables(self, path: Path) -> None:
        """They would be of any size that a file claims."""
        document, tensors = parts_of(path)
        claimed = {"context_length": 60_000, "smoothing_season": 30_000}
        resealed(path, document | {"network": document["network"] | claimed}, tensors)
        with pytest.raises(ModelError, match="smoothing_season"):
            load(path)

    def test_a_sealed_file_without_a_part(self, path: Path) -> None:
        """The digest is right, and yet something is missing: no other exception, whatever it is."""
        document, tensors = parts_of(path)
        resealed(path, document, tensors)
        load(path)
        for key in sorted(set(document) - {"digest", "versions", "lineage"}):
            resealed(path, {name: value for name, value in document.items() if name != key}, tensors)
            with pytest.raises(ModelError, match=r"m\.safetensors"):
                load(path)
        for key in sorted(name for name in tensors if not name.startswith("judged.")):
            resealed(path, document, {name: value for name, value in tensors.items() if name != key})
            with pytest.raises(ModelError, match=r"m\.safetensors"):
                load(path)

    @pytest.mark.parametrize(
        ("part", "name", "value"),
        [
            ("network", "context_length", 7),
            ("network", "context_length", -1),
            ("network", "patch_length", 0),
            ("network", "patch_length", 3),
            ("network", "quantiles", [0.5]),
            ("network", "quantiles", None),
            ("network", "loss", "mae"),
            ("network", "loss", "guess"),
            ("network", "loss", None),
            ("network", "dropout", 2.0),
            ("network", "layers", 2),
            ("network", "stack", None),
            ("network", "stack", {}),
            ("columns", "targets", None),
            ("step", "unit", None),
        ],
    )
    def test_a_sealed_file_that_contradicts_itself(self, path: Path, part: str, name: str, value: Any) -> None:
        """A network that the tensors do not fit, or none at all."""
        document, tensors = parts_of(path)
        if part == "step":
            del document[part][name]
        else:
            document[part][name] = value
        resealed(path, document, tensors)
        with pytest.raises(ModelError, match=r"m\.safetensors"):
            load(path)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("hidden_sizes", [3, 3, 3]),
            ("hidden_sizes", [3, 4]),
            ("hidden_sizes", []),
            ("hidden_sizes", [3, 10**30]),
            ("hidden_sizes", [3, 0]),
            ("hidden_sizes", [3.0, 3.0]),
            ("hidden_sizes", ["3", "3"]),
            ("hidden_sizes", None),
            ("input_size", 5),
            ("input_size", "four"),
            ("cell", "gru"),
            ("cell", "other"),
            ("cell", None),
            ("bidirectional", True),
            ("bidirectional", "yes"),
            ("attention", True),
            ("attention", 0),
            ("residual", False),
            ("residual", "sum"),
            ("layer_norm", True),
            ("layer_norm", None),
            ("dilations", [1]),
            ("dilations", [1, 0]),
            ("dilations", [1, 3]),  # the context has 3 steps
            ("dilations", [2, 2]),  # never a step before the newest
            ("dilations", None),
            ("dropout", -0.5),
            ("dropout", "half"),
            ("recurrent_dropout", 1.0),
            ("recurrent_dropout", None),
            ("depth", 2),
        ],
    )
    def test_a_sealed_stack_that_contradicts_itself(self, path: Path, name: str, value: Any) -> None:
        """Sizes that no tensor has, flags that are none, dilations that no context has room for."""
        document, tensors = parts_of(path)
        document["network"]["stack"][name] = value
        resealed(path, document, tensors)
        with pytest.raises(ModelError, match=r"m\.safetensors"):
            load(path)

    def test_a_file_from_before_there_were_calibrations(self, checkpoint: Checkpoint, path: Path) -> None:
        """It loads, forecasts what the network has learned, and is written again as it was but for its document."""
        document, tensors = parts_of(path)
        del document["calibration"]
        bare = {name: tensor for name, tensor in tensors.items() if not name.startswith("calibration.")}
        resealed(path, document, bare)
        found = load(path)
        assert (found.calibration, found.judged_calibration, found.intervals) == (None, None, {})
        panel, origins = make_panel(wave(50, seed=7)), Origins(np.array([0]), np.array([50]))
        cpu, levels = torch.device("cpu"), (0.1, 0.5, 0.9)
        raw = Forecaster(checkpoint.network(checkpoint.final), cpu).forecast(panel, origins, 4, levels)
        assert found.forecaster(cpu).forecast(panel, origins, 4, levels).tobytes() == raw.tobytes()
        assert checkpoint.forecaster(cpu).forecast(panel, origins, 4, levels).tobytes() != raw.tobytes()
        assert card(path)["intervals"] == "not calibrated"
        save(found, path)
        assert load(path).calibration is None

    @pytest.mark.parametrize(
        ("name", "place", "value"),
        [
            ("offsets", (0, 0), float("nan")),
            ("offsets", (1, 2), 1e9),
            ("offsets", (1, 2), float("-inf")),
            ("offsets", (3, 1), 0.01),  # the median, which stays
            ("effective", (0,), -0.6),
            ("effective", (0,), 0.6),  # beyond the median
            ("effective", (1,), 0.51),
            ("effective", (2,), 1.6),
            ("effective", (2,), 0.4),
            ("effective", (2,), float("nan")),
        ],
    )
    @pytest.mark.parametrize("which", ["final", "judged"])
    def test_a_sealed_calibration_that_is_absurd(
        self, path: Path, which: str, name: str, place: tuple[int, ...], value: float
    ) -> None:
        """Intervals of no use, or a median that is none."""
        document, tensors = parts_of(path)
        tensors[f"calibration.{which}.{name}"][place] = value
        resealed(path, document, tensors)
        with pytest.raises(ModelError, match=f"calibration of the {which} weights") as caught:
            load(path)
        assert caught.value.exit_status == ExitStatus.MODEL

    def test_a_sealed_calibration_of_another_network(self, path: Path) -> None:
        """Another horizon, other quantiles, other numbers, or none where the document speaks of some."""
        document, tensors = parts_of(path)
        name = "calibration.final.offsets"
        for wrong in (tensors[name][:2], tensors[name][:, :2], tensors[name].float(), tensors[name].long()):
            resealed(path, document, tensors | {name: wrong.contiguous()})
            with pytest.raises(ModelError, match="calibration of the final weights"):
                load(path)
        resealed(path, document, {key: tensor for key, tensor in tensors.items() if "calibration" not in key})
        with pytest.raises(ModelError, match="calibration"):
            load(path)

    @pytest.mark.parametrize("value", [3, "text", [1]])
    @pytest.mark.parametrize("part", ["data", "metrics", "backtest", "training", "options", "calibration"])
    def test_a_sealed_section_that_is_no_object(self, path: Path, part: str, value: Any) -> None:
        """Found at loading, not as a bug in the command that looks into it."""
        document, tensors = parts_of(path)
        resealed(path, document | {part: value}, tensors)
        with pytest.raises(ModelError, match=r"m\.safetensors"):
            load(path)

    @pytest.mark.parametrize(
        ("part", "name", "value"),
        [
            ("network", "location_length", "two"),
            ("network", "scale_length", -1),
            ("columns", "layout", "round"),
            ("columns", "targets", "y"),
            ("step", "unit", "fortnight"),
            ("step", "count", "two"),
            ("step", "count", 0),
            ("time_form", "kind", None),
        ],
    )
    def test_a_sealed_value_of_no_sense(self, path: Path, part: str, name: str, value: Any) -> None:
        """Values that no tensor contradicts, but that no forecast can be made or written with."""
        document, tensors = parts_of(path)
        document[part][name] = value
        resealed(path, document, tensors)
        with pytest.raises(ModelError, match=r"m\.safetensors"):
            load(path)

    @pytest.mark.parametrize("series", ["ab", {"a": 1, "b": 2}, [["s0"]], [[1], [2]], [["s0"], ["s0"]]])
    def test_sealed_names_that_are_not_the_series(self, path: Path, series: Any) -> None:
        """Text for a list, a name too few, numbers for names, one name twice."""
        document, tensors = parts_of(path)
        resealed(path, document | {"series": series}, tensors)
        with pytest.raises(ModelError, match=r"m\.safetensors"):
            load(path)

    @pytest.mark.parametrize("rows", [torch.zeros(3, dtype=torch.int64), torch.zeros(2), torch.zeros(2, 1).long()])
    @pytest.mark.parametrize("name", ["trained_to", "judged_to", "data_to"])
    def test_sealed_row_counts_that_are_not_one_a_series(self, path: Path, name: str, rows: torch.Tensor) -> None:
        """One too many, fractions, a table."""
        document, tensors = parts_of(path)
        resealed(path, document, tensors | {f"rows.{name}": rows})
        with pytest.raises(ModelError, match=r"m\.safetensors"):
            load(path)

    def test_judged_weights_that_fit_no_network(self, path: Path) -> None:
        """Found at loading, not when `evaluate` asks for them."""
        document, tensors = parts_of(path)
        resealed(path, document, tensors | {"judged.skip": torch.zeros(2, 2)})
        with pytest.raises(ModelError, match=r"m\.safetensors"):
            load(path)


COVARIATE = 1
"""Place of a covariate with two categories: state, off or on."""


class TestInputs:
    """A model that sees covariates, calendar and holidays, with bounds and a transform."""

    @pytest.fixture
    def rich(self, checkpoint: Checkpoint) -> Checkpoint:
        """The small model with every kind of input, and statistics of them that are not 0 and 1."""
        spec = small_spec(inputs=EVERY_INPUT, gaps="interpolate", transform="log1p", minimum=1.5, maximum=1e6)
        weights = []
        for seed in (1, 2):
            network = shaken_network(spec, seed, torch.float32)
            network.set_statistics(np.linspace(0.1, 0.7, 6), np.linspace(1, 3, 6))
            weights.append(network.state_dict())
        columns = every_covariate(make_panel(wave(40), wave(30))).columns
        return dataclasses.replace(checkpoint, columns=columns, spec=spec, final=weights[0], judged=weights[1])

    @pytest.fixture
    def path(self, rich: Checkpoint, tmp_path: Path) -> Path:
        save(rich, tmp_path / "m.safetensors")
        return tmp_path / "m.safetensors"

    def test_everything_comes_back(self, rich: Checkpoint, path: Path) -> None:
        """The spec with its covariates, and every bit of every weight, mean and deviation."""
        found = load(path)
        assert found.spec == rich.spec
        assert found.columns == rich.columns
        assert found.stored.covariates == EVERY_INPUT.covariates
        for before, after in ((rich.final, found.final), (rich.judged, found.judged)):
            assert before is not None
            assert after is not None
            assert before.keys() == after.keys()
            assert all(torch.equal(before[name], after[name]) for name in before)
            assert {"past.mean", "known.deviation", "static.embeddings.0"} <= before.keys()

    def test_forecasts_are_the_same_bytes(self, rich: Checkpoint, path: Path) -> None:
        panel = every_covariate(make_panel(wave(50, seed=7), wave(5, seed=8)))
        origins = Origins(np.array([0, 0, 1]), np.array([50, 20, 5]))
        found = [
            Forecaster(one.network(one.final), torch.device("cpu")).forecast(panel, origins, 4, (0.1, 0.4, 0.9))
            for one in (rich, load(path))
        ]
        assert found[0].tobytes() == found[1].tobytes()
        assert found[0].min() >= 1.5

    def test_saving_twice_gives_the_same_bytes(self, path: Path) -> None:
        first = path.read_bytes()
        save(load(path), path)
        assert path.read_bytes() == first

    def test_the_sealed_file_of_these_tests_is_sound(self, path: Path) -> None:
        """Wrong if what follows is refused for another reason."""
        resealed(path, *parts_of(path))
        load(path)

    @pytest.mark.parametrize(
        ("where", "value"),
        [
            (("inputs",), None),
            (("inputs",), []),
            (("inputs", "covariates"), None),
            (("inputs", "covariates"), []),
            (("inputs", "covariates"), "load"),
            (("inputs", "covariates", COVARIATE), "state"),
            (("inputs", "covariates", COVARIATE, "role"), "future"),
            (("inputs", "covariates", COVARIATE, "role"), None),
            (("inputs", "covariates", COVARIATE, "role"), "static"),  # out of order
            (("inputs", "covariates", COVARIATE, "name"), 3),
            (("inputs", "covariates", COVARIATE, "name"), "other"),  # no such column
            (("inputs", "covariates", COVARIATE, "name"), "load"),  # twice
            (("inputs", "covariates", COVARIATE, "categories"), "ab"),
            (("inputs", "covariates", COVARIATE, "categories"), [1, 2]),
            (("inputs", "covariates", COVARIATE, "categories"), ["off", "off"]),
            (("inputs", "covariates", COVARIATE, "categories"), ["off", "on", "sideways", "up"]),
            (("inputs", "covariates", COVARIATE, "categories"), None),
            (("inputs", "covariates", COVARIATE, "categories"), {"off": 1, "on": 2}),
            (("inputs", "cycles"), None),
            (("inputs", "cycles"), "weekday"),
            (("inputs", "cycles"), ["time_of_day", "weekday", "fortnight"]),
            (("inputs", "cycles"), ["time_of_day", "weekday", "weekday"]),
            (("inputs", "cycles"), ["time_of_day", "weekday"]),
            (("inputs", "cycles"), [1, 2, 3]),
            (("inputs", "holidays"), None),
            (("inputs", "holidays"), 3),
            (("inputs", "holidays"), ""),
            (("gaps",), "guess"),
            (("gaps",), "error"),
            (("gaps",), None),
            (("transform",), "sqrt"),
            (("transform",), None),
            (("minimum",), "low"),
            (("minimum",), True),
            (("minimum",), float("nan")),
            (("minimum",), float("inf")),
            (("minimum",), [1.0]),
            (("minimum",), 2e6),  # above the maximum
            (("maximum",), "high"),
            (("maximum",), 1.5),
        ],
        ids=str,
    )
    def test_inputs_of_no_sense(self, path: Path, where: tuple[str | int, ...], value: Any) -> None:
        """Found at loading, with a sound digest, never as a bug or a silently wrong forecast."""
        document, tensors = parts_of(path)
        part = document["network"]
        for key in where[:-1]:
            part = part[key]
        part[where[-1]] = value
        resealed(path, document, tensors)
        with pytest.raises(ModelError, match=r"m\.safetensors") as caught:
            load(path)
        assert (caught.value.exit_status, caught.value.code) == (ExitStatus.MODEL, "model_damaged")

    @pytest.mark.parametrize("key", ["inputs", "gaps", "transform", "minimum", "maximum"])
    def test_a_part_that_is_missing(self, path: Path, key: str) -> None:
        document, tensors = parts_of(path)
        del document["network"][key]
        resealed(path, document, tensors)
        with pytest.raises(ModelError, match=r"m\.safetensors"):
            load(path)


class TestPanel:
    def test_rows_of_another_panel(self, checkpoint: Checkpoint) -> None:
        """Positions on the grid become rows of the panel at hand: one that begins later, in another order."""
        panel = make_panel(wave(30), wave(25), wave(10), starts=[20, 7, 3])
        panel = dataclasses.replace(panel, keys=(("s1",), ("new",), ("s0",)))
        # s0 was trained to 5 + 40, s1 to 9 + 30.
        assert checkpoint.rows_of(panel, checkpoint.trained_to, np.array([1, 2, 3])).tolist() == [19, 2, 42]


def test_options_as_given() -> None:
    found = given_options(DataConfig(target=("a", "b")), ModelConfig(layers=3))
    assert (found["target"], found["layers"], found["horizon"]) == (("a", "b"), 3, None)
