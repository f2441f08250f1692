"""`export`: a model as an ONNX file, compared with torch before it is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from stacklstm_cli.cli.labelling import read_for
from stacklstm_cli.cli.messages import Messages
from stacklstm_cli.cli.report import check_output, number, write_check
from stacklstm_cli.cli.runs import finished, read
from stacklstm_cli.config import ExportConfig, OutputConfig, ReadingConfig, RuntimeConfig
from stacklstm_cli.data.opening import require_files
from stacklstm_cli.errors import UsageError
from stacklstm_cli.files import write_atomically
from stacklstm_cli.model import checkpoint as checkpoints
from stacklstm_cli.model.agreement import TOLERANCE, Agreement, compare, random_panel
from stacklstm_cli.model.export import OPSET, inputs_of, output_of, require_packages, to_onnx
from stacklstm_cli.training import runtime as machine


def export(path: Path, comparison: ExportConfig, output: OutputConfig, messages: Messages) -> None:
    """Export, compare, write the file, and say on standard output what it holds."""
    target = output_path(path, output)
    require_packages()
    sources = [] if comparison.data is None else [comparison.data]
    check_output(output, path, *sources)
    check_output(replace(output, output=None))
    require_files(sources)
    machine.prepare(RuntimeConfig(device="cpu"))
    saved = checkpoints.load(path)
    panels = {"random windows": random_panel(saved)}
    if sources:
        if saved.spec.labels is not None:
            panels[sources[0]] = read_for(saved, sources, ReadingConfig(), messages)
        else:
            panels[sources[0]] = read(sources, saved.data_config, ReadingConfig(), messages, saved, path)
    data = to_onnx(saved)
    agreements = {name: compare(data, saved, panel) for name, panel in panels.items()}
    write_atomically(target, data)
    messages.note(f"saved {target}")
    document = export_document(path, saved, target, data, agreements)
    write_check(finished(document, messages), sections(document), replace(output, output=None))


def output_path(path: Path, output: OutputConfig) -> str:
    """Where the ONNX file goes. Raises `UsageError` where no file is named."""
    if output.output in (None, "-"):
        raise UsageError(
            "export writes an ONNX file, and only to a place that is named.",
            hint=f"Name it with --output, such as: stacklstm export {path} --output {path.stem}.onnx",
            code="output_not_named",
        )
    return str(output.output)


def export_document(
    path: Path, saved: checkpoints.Checkpoint, target: str, data: bytes, agreements: dict[str, Agreement]
) -> dict[str, Any]:
    """What `export` did."""
    spec = saved.spec
    return {
        "schema": 1,
        "command": "export",
        "status": "ok",
        "model": {"path": str(path), "id": saved.id},
        "onnx": {
            "path": target,
            "bytes": len(data),
            "opset": OPSET,
            "inputs": [slot.as_dict() for slot in inputs_of(spec)],
            "outputs": [output_of(spec).as_dict()],
        },
        "comparison": {
            "tolerance": TOLERANCE,
            "unit": "of a probability" if spec.labels is not None else "deviations of the window",
            "windows": {name: one.windows for name, one in agreements.items()},
            "largest_difference": {name: one.largest_difference for name, one in agreements.items()},
        },
    }


def sections(document: dict[str, Any]) -> list[list[tuple[str, str]]]:
    """The same for a person: items and words."""
    onnx, comparison = document["onnx"], document["comparison"]
    file = [("file", onnx["path"]), ("model", f"{document['model']['path']}, {document['model']['id']}")]
    slots = [(slot["name"], explained(slot)) for slot in (*onnx["inputs"], *onnx["outputs"])]
    compared = [
        (
            "compared",
            f"{windows} {name if name == 'random windows' else f'windows of {name}'}: differs from torch by at most "
            f"{number(comparison['largest_difference'][name])} {comparison['unit']}, "
            f"{comparison['tolerance']:g} are allowed",
        )
        for name, windows in comparison["windows"].items()
    ]
    return [file, slots, compared]


def explained(slot: dict[str, Any]) -> str:
    """An input or output in words."""
    columns = f" of {', '.join(slot['columns'])}" if "columns" in slot else ""
    return f"{slot['type']} [{', '.join(map(str, slot['shape']))}]{columns}. {slot['meaning']}"
