"""What a model file says of itself, read and sealed with the standard library alone.

A model file is one `.safetensors` file: eight bytes with the length of a JSON index, the index, the
tensors. The index's metadata holds one JSON document under the one key `stacklstm`; the document holds
the digest of the whole file, taken with the digest's own digits as zeros, so that not one bit of the
file can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from stacklstm_cli.errors import ModelError
from stacklstm_cli.model.classes import FORECASTS_ONLY
from stacklstm_cli.model.layers import StackSpec, describe

FORMAT = 1
"""Version of the document. Every later version reads all earlier ones."""

METADATA_KEY = "stacklstm"
DIGEST_DIGITS = 64
NO_DIGEST = "0" * DIGEST_DIGITS
DIGEST_MARK = b'"{\\"digest\\": \\"'
"""How the document begins, as JSON inside JSON."""
LENGTH_BYTES = 8
NOT_CALIBRATED = "not calibrated"
"""In the model card, of a model whose quantiles are as it has learned them."""
NOT_OF_LABELS = (
    *FORECASTS_ONLY,
    *("location_length", "scale_length", "minimum", "maximum", "calendar_rows", "smoothing_season", "cycles"),
    *("bidirectional", "seasonality"),
)
"""Fields of the model card that mean nothing where labels are given; their stack always reads from both ends."""
SERIES_SHOWN = 10
"""Names of series in the model card."""
LONGEST_INDEX = 100_000_000
"""The format's own limit on the index, in bytes."""


def read_document(path: Path) -> dict[str, Any]:
    """The document of a model file, from its index alone; the tensors are only measured.

    Raises `ModelError` for a file that is missing, foreign, cut off, damaged or of a newer format.
    """
    try:
        with path.open("rb") as file:
            head = file.read(LENGTH_BYTES)
            length = int.from_bytes(head, "little")
            index_bytes = file.read(length) if length <= LONGEST_INDEX else b""
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise cannot_read(path, error) from error
    index, document = parse_index(path, head + index_bytes)
    end = max((entry["data_offsets"][1] for entry in index.values()), default=0)
    if size != LENGTH_BYTES + length + end:
        raise damaged(path, f"it has {size} bytes where its index says {LENGTH_BYTES + length + end}")
    return document


def verify(path: Path, data: bytes) -> dict[str, Any]:
    """The document of a whole file's bytes, once every bit has been checked. Raises `ModelError`."""
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    _, document = parse_index(path, data[: LENGTH_BYTES + length] if length <= LONGEST_INDEX else b"")
    if DIGEST_MARK not in data or seal(data) != document["digest"]:
        raise damaged(path, "its contents do not match its digest")
    return document


def parse_index(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of the tensors, and the document, from the first bytes of a file. Raises `ModelError`."""
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    if len(data) < LENGTH_BYTES + 2 or len(data) != LENGTH_BYTES + length:
        raise damaged(path, "it is cut off or no model file at all")
    try:
        index = json.loads(data[LENGTH_BYTES:])
        document = json.loads(index.pop("__metadata__")[METADATA_KEY])
        version = document["format"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, "it has no readable stacklstm header") from error
    if not isinstance(version, int) or version < 1:
        raise damaged(path, f"its format is {version!r}, expected a whole number")
    if version > FORMAT:
        raise ModelError(
            f"{path} has model format {version}; this stacklstm reads formats up to {FORMAT}.",
            hint="Upgrade stacklstm, or train the model again with this version.",
            code="model_too_new",
        )
    entries_sound = all(
        isinstance(entry, dict) and offsets_sound(entry.get("data_offsets")) for entry in index.values()
    )
    digest = document.get("digest")
    if not entries_sound or not isinstance(digest, str) or len(digest) != DIGEST_DIGITS:
        raise damaged(path, "its header is incomplete")
    return index, document


def offsets_sound(offsets: Any) -> bool:
    """Whether an index entry's begin and end are two ascending whole numbers."""
    return (
        isinstance(offsets, list)
        and len(offsets) == 2
        and all(isinstance(offset, int) for offset in offsets)
        and 0 <= offsets[0] <= offsets[1]
    )


def seal(data: bytes) -> str:
    """SHA-256 of a file's bytes, where the digest it carries counts as zeros."""
    begin = digest_at(data)
    return hashlib.sha256(data[:begin] + NO_DIGEST.encode() + data[begin + DIGEST_DIGITS :]).hexdigest()


def sealed(data: bytes) -> tuple[bytes, str]:
    """The same bytes with their digest in place, and the digest."""
    begin, digest = digest_at(data), seal(data)
    return data[:begin] + digest.encode() + data[begin + DIGEST_DIGITS :], digest


def digest_at(data: bytes) -> int:
    """Where the digest's digits begin: the document begins with them, so nothing in it can be taken for them."""
    return data.find(DIGEST_MARK) + len(DIGEST_MARK)


def cannot_read(path: Path, error: OSError) -> ModelError:
    """The error for a model file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return ModelError(
            f"There is no model file {path}.",
            hint="Train one with: stacklstm train DATA, or name it with --model PATH.",
            code="model_missing",
        )
    return ModelError(f"The model file {path} cannot be read: {error.strerror or error}.", code="model_unreadable")


def damaged(path: Path, what: str) -> ModelError:
    """The error for a file that is no sound model file."""
    return ModelError(
        f"{path} is no sound stacklstm model file: {what}.",
        hint="Train the model again, or restore the file from a copy.",
        code="model_damaged",
    )


def card(path: Path) -> dict[str, Any]:
    """What `inspect` shows: the document without its long lists, by sections. Raises `ModelError`."""
    document = read_document(path)
    try:
        columns = document["columns"]
        series = [", ".join(key) for key in document["series"] if key] or columns["targets"]
        training = {key: value for key, value in document["training"].items() if key != "history"}
        network = {key: value for key, value in document["network"].items() if key not in ("stack", "inputs")}
        search = dict(document.get("search", {}))
        tried = {"candidates": search.pop("candidates")} if search else {}
        calendar = dict(document["network"]["inputs"])
        covariates = calendar.pop("covariates")
        stack = StackSpec.from_dict(document["network"]["stack"])
        steps = -(-network["context_length"] // network["patch_length"])
        data, options = document["data"] | {"seasonality": document["seasonality"]}, document["options"]
        network = {"layers": len(stack.hidden_sizes)} | network | calendar
        judged = {
            "holdout": document["backtest"] or "nothing was judged",
            "intervals": document.get("calibration") or NOT_CALIBRATED,
        }
        if "labels" in network:
            network, data, options = (
                {name: value for name, value in part.items() if name not in NOT_OF_LABELS}
                for part in (network, data, options)
            )
            judged = {"folds": f"{training['folds']}, which judged {training['judged']} labels"}
        return {
            "model": {"path": str(path), "id": document["digest"][:12], "format": document["format"]},
            "network": network,
            "stack": describe(stack, steps),
            "covariates": covariates,
            "data": data,
            "columns": columns,
            "series": {"count": len(series), "names": series[:SERIES_SHOWN]},
            "training": training,
            **({"search": search} | tried if tried else {}),
            **judged,
            "metrics": document["metrics"],
            "options": options,
            "versions": document["versions"],
        }
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise damaged(path, f"its document is incomplete ({error})") from error
