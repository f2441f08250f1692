"""What a model file says of itself without torch, and what is no model file."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklstm_cli.errors import ExitStatus, ModelError
from stacklstm_cli.model.checkpoint import Checkpoint, load, save
from stacklstm_cli.model.header import card, read_document

FOREIGN = {
    "empty": b"",
    "one byte": b"{",
    "text": b"date,value\n2020-01-01,3\n" * 50,
    "zip": b"PK\x03\x04" + bytes(500),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00" + bytes(100),
    "huge length": b"\xff" * 8,
    "huge length and more": b"\xff" * 8 + bytes(500),
    "longest length": (100_000_000).to_bytes(8, "little") + b"{}",
    "no index": (0).to_bytes(8, "little"),
    "index of blanks": (5).to_bytes(8, "little") + b"     ",
    "index that is a list": (2).to_bytes(8, "little") + b"[]",
    "index that is null": (4).to_bytes(8, "little") + b"null",
    "index that is no UTF-8": (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
    "index without end": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "deep index": (200_006).to_bytes(8, "little") + b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep document": safetensors.numpy.save({}, {"stacklstm": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"}),
    "huge number": (5006).to_bytes(8, "little") + b'{"a":' + b"1" * 5000 + b"}",
    "plain safetensors": safetensors.numpy.save({"a": np.zeros(3)}),
    "foreign metadata": safetensors.numpy.save({"a": np.zeros(3)}, {"format": "pt"}),
    "metadata that is no JSON": safetensors.numpy.save({"a": np.zeros(3)}, {"stacklstm": "{"}),
    "metadata that is a list": safetensors.numpy.save({"a": np.zeros(3)}, {"stacklstm": "[]"}),
    "metadata that is a number": safetensors.numpy.save({}, {"stacklstm": "3"}),
}
DOCUMENTS: dict[str, Any] = {
    "no format": {},
    "no digest": {"format": 1},
    "format that is text": {"format": "1", "digest": "0" * 64},
    "format that is null": {"format": None, "digest": "0" * 64},
    "format 0": {"format": 0, "digest": "0" * 64},
    "format that is a fraction": {"format": 1.5, "digest": "0" * 64},
    "short digest": {"format": 1, "digest": "0" * 63},
    "digest that is a number": {"format": 1, "digest": 0},
    "wrong digest": {"format": 1, "digest": "0" * 64},
    "digest that is no text": {"format": 1, "digest": "\ud800" * 64},
}


def file_of(document: Any) -> bytes:
    return safetensors.numpy.save({"a": np.zeros(3)}, {"stacklstm": json.dumps(document)})


@pytest.mark.parametrize("reader", [read_document, card, load])
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused(name: str, reader: Any, tmp_path: Path) -> None:
    """Every reader, with the path and what to do; the status is that of a model."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(FOREIGN[name])
    with pytest.raises(ModelError) as caught:
        reader(path)
    assert caught.value.exit_status == ExitStatus.MODEL
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", DOCUMENTS)
def test_foreign_documents_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of(DOCUMENTS[name]))
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        load(path)
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        card(path)


@pytest.mark.parametrize("reader", [read_document, card, load])
@pytest.mark.parametrize("rest", [{}, {"digest": 3}, {"digest": "0" * 64, "network": {"cell": "new"}}])
def test_a_newer_format_is_refused_by_name(reader: Any, rest: dict[str, Any], tmp_path: Path) -> None:
    """Whatever else a later version has changed: its number is looked at first."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of({"format": 2, **rest}))
    with pytest.raises(ModelError, match=r"format 2;.* up to 1") as caught:
        reader(path)
    assert caught.value.code == "model_too_new"
    assert "Upgrade" in caught.value.hint


@pytest.mark.parametrize("reader", [read_document, card, load])
def test_no_file_and_no_readable_file(reader: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model file") as caught:
        reader(tmp_path / "none.safetensors")
    assert caught.value.code == "model_missing"
    assert "stacklstm train" in caught.value.hint
    with pytest.raises(ModelError, match="cannot be read") as caught:
        reader(tmp_path)
    assert str(tmp_path) in caught.value.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
parts = st.sampled_from(
    ["format", "digest", "columns", "series", "data", "training", "network", "backtest", "metrics", "options"]
)


@pytest.mark.parametrize("examples", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_no_header_is_a_bug(tmp_path: Path, examples: int) -> None:
    """Any JSON in any place of the index or the document: read, or refused as a model; never another exception."""
    path = tmp_path / "m.safetensors"

    @settings(max_examples=examples, deadline=None)
    @given(
        st.dictionaries(parts, json_values).map(lambda some: {"format": 1, "digest": "0" * 64} | some),
        st.dictionaries(
            st.sampled_from(["a", "b"]), json_values | st.fixed_dictionaries({"data_offsets": json_values})
        ),
    )
    def holds(document: dict[str, Any], entries: dict[str, Any]) -> None:
        index = json.dumps({"__metadata__": {"stacklstm": json.dumps(document)}, **entries}).encode()
        for rest in (b"", bytes(24)):
            path.write_bytes(len(index).to_bytes(8, "little") + index + rest)
            for reader in (read_document, card, load):
                with contextlib.suppress(ModelError):
                    reader(path)

    holds()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_no_bytes_are_a_model(tmp_path_factory: pytest.TempPathFactory, data: bytes, framed: bool) -> None:
    """Random bytes, also behind a length that fits them."""
    path = tmp_path_factory.mktemp("any") / "m.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data if framed else data)
    for reader in (read_document, load):
        with pytest.raises(ModelError):
            reader(path)


def test_the_document_is_measured_against_the_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The header is whole; the tensors are one byte too short or too long."""
    path = tmp_path / "m.safetensors"
    save(checkpoint, path)
    data = path.read_bytes()
    for wrong, size in ((data[:-1], len(data) - 1), (data + b"\0", len(data) + 1)):
        path.write_bytes(wrong)
        with pytest.raises(ModelError, match=f"has {size} bytes where its index says {len(data)}"):
            read_document(path)


def test_the_card(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """What a person asks of a model, without its long lists."""
    path = tmp_path / "m.safetensors"
    checkpoint.keys = tuple((f"series {index}", "north") for index in range(12))
    save(checkpoint, path)
    found = card(path)
    assert found["model"] == {"path": str(path), "id": checkpoint.id, "format": 1}
    assert found["network"]["layers"] == 2
    assert found["series"]["count"] == 12
    assert found["series"]["names"] == [f"series {index}, north" for index in range(10)]
    assert found["data"] == {**checkpoint.data, "seasonality": 24}
    assert found["training"] == {"seed": 0, "note": "größer\n"}
    assert found["metrics"] == checkpoint.metrics
    checkpoint.backtest = {}
    checkpoint.keys = ((),)
    save(checkpoint, path)
    assert card(path)["holdout"] == "nothing was judged"
    assert card(path)["series"] == {"count": 1, "names": ["y"]}


def test_reading_the_header_loads_no_library(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Neither torch nor numpy nor pandas, so that `inspect` answers at once."""
    path = tmp_path / "m.safetensors"
    save(checkpoint, path)
    code = (
        "import sys, pathlib\n"
        "from stacklstm_cli.model.header import card, read_document\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "assert card(path)['model']['id'] == read_document(path)['digest'][:12]\n"
        "loaded = {'torch', 'numpy', 'pandas', 'pyarrow', 'safetensors'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_card_of_senseless_numbers_is_a_damaged_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A flipped bit that makes a length zero is exit 4, as `inspect` does not check the digest."""
    path = tmp_path / "m.safetensors"
    save(checkpoint, path)
    data = path.read_bytes()
    patch = rb"\"patch_length\": %d" % checkpoint.spec.patch_length
    assert patch in data
    path.write_bytes(data.replace(patch, rb"\"patch_length\": 0"))
    with pytest.raises(ModelError, match="no sound"):
        card(path)
