"""One document, many renderings: metrics, forecasts and model cards as tables, CSV, JSON, Markdown and Parquet.

The result goes to standard output or to `--output`, nothing else does. Formats for programs are never styled,
are always UTF-8 and write numbers so that they read back equal.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import numbers
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stacklstm_cli.cli.grids import (
    Grid,
    caption,
    card_grids,
    field_text,
    flat,
    frame_grid,
    label_grids,
    metrics_grid,
    plain,
    search_grid,
    series_grid,
    step_grid,
    whole_grid,
)
from stacklstm_cli.cli.messages import is_styled, is_terminal, printable, prose_width, wrapped
from stacklstm_cli.config import OUTPUT_FORMATS, OutputConfig
from stacklstm_cli.errors import ModelError, UsageError
from stacklstm_cli.files import check_writable, unwritable, write_atomically

if TYPE_CHECKING:
    import pandas

_SUFFIXES = {
    ".json": "json",
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".md": "markdown",
    ".parquet": "parquet",
    ".txt": "table",
}
_LONGEST_BOXED = 500  # rows; Rich lays out some 2,500 rows a second, and nobody sees the box of a longer table


def check_output(output: OutputConfig, *taken: str | Path) -> None:
    """Find out before the work whether its result can be written, and over none of the files `taken`.

    Raises `UsageError` or `ModelError`.
    """
    if output.output not in (None, "-"):
        check_file("--output", str(output.output), *taken)
    elif sys.stdout is None:
        raise ModelError("Standard output is closed.", hint="Name a file with --output.", code="not_writable")
    elif output.format == "parquet" and is_terminal(sys.stdout):
        raise UsageError("Parquet is binary and standard output is a terminal.", hint="Name a file with --output.")


def check_file(option: str, place: str, *taken: str | Path) -> None:
    """Find out before the work whether the file that an option names can be written, and is none of those `taken`.

    Raises `UsageError` or `ModelError`.
    """
    refuse_overwriting(option, place, taken)
    if Path(place).suffix.lower() in (".gz", ".bz2", ".xz", ".zst"):
        raise UsageError(
            f"{option} {place} ends as a compressed file does, but results are not compressed.",
            hint="Leave the last suffix out, or pipe the result through a compressor.",
            code="output_compressed",
        )
    check_writable(place)


def refuse_overwriting(option: str, place: str | Path, taken: Iterable[str | Path]) -> None:
    """Raise `UsageError` where `place` is one of the files that the command reads or writes already."""
    if Path(place).resolve() in {Path(other).resolve() for other in taken if other != "-"}:
        raise UsageError(
            f"{option} {place} would overwrite a file that this command reads or writes already.",
            hint="Name another file.",
            code="would_overwrite",
        )


def write_document(document: Mapping[str, Any], output: OutputConfig, *, brief: bool = False) -> None:
    """Write what `train` or `evaluate` found: the verdict and the metrics beside the baselines, or all as JSON.

    With `brief` a person gets the verdict alone.
    Raises `ModelError` if the target cannot be written and `UsageError` for Parquet on a terminal.
    """
    form = _form(output, automatic="table")
    if form == "json":
        _write_text(json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n", output)
    elif form == "ndjson":
        _write_text(_json_line(plain(document)), output)
    elif form == "table":
        _write_human(_document_text({"verdict": document["verdict"]} if brief else document, output), output)
    elif form == "markdown":
        verdict = document.get("verdict")
        tables = [whole_grid(document), *(grid for grid, _ in label_grids(document))]
        _write_text((f"{verdict}\n\n" if verdict else "") + "\n".join(map(_markdown, tables)), output)
    elif form == "csv":
        _write_text(_csv(whole_grid(document)), output)
    else:
        _write_bytes(_parquet(whole_grid(document)), output)


def write_forecast(frame: pandas.DataFrame, output: OutputConfig, envelope: Mapping[str, Any] | None = None) -> None:
    """Write a forecast: a table on a terminal, else CSV, unless a format is asked for.

    `envelope` is what the JSON document says beside its "forecasts". Raises as `write_document` does.
    """
    form = _form(output, automatic="table" if to_terminal(output) else "csv")
    if form == "table":
        _write_human(_table(frame_grid(frame), output), output)
    elif form == "markdown":
        _write_text(_markdown(frame_grid(frame)), output)
    else:
        _write_bytes(b"".join(_FORECAST_FORMS[form]([frame], {"command": "predict", **(envelope or {})})), output)


def check_forecasts(place: str, *taken: str | Path) -> None:
    """Find out before the work whether `write_forecasts` can write there. Raises `UsageError` or `ModelError`."""
    suffix = Path(place).suffix.lower()
    if place == "-" or (suffix and _SUFFIXES.get(suffix) not in _FORECAST_FORMS):
        raise UsageError(
            f"--forecasts is {place!r}; expected a file that ends in .csv, .parquet, .json or .ndjson.",
            hint="For example: --forecasts forecasts.csv",
            code="unknown_suffix",
        )
    check_file("--forecasts", place, *taken)


def write_forecasts(frames: Iterable[pandas.DataFrame], place: str, envelope: Mapping[str, Any]) -> None:
    """Write the parts of a long table of forecasts to a file, in the form that its suffix names, else as CSV.

    `envelope` as in `write_forecast`. Raises `ModelError` if the file cannot be written.
    """
    form = _SUFFIXES.get(Path(place).suffix.lower(), "csv")
    write_atomically(place, _FORECAST_FORMS[form](frames, envelope))


def write_card(card: Mapping[str, Any], output: OutputConfig) -> None:
    """Write a model card: each section a table of two columns, or all as JSON.

    Raises `UsageError` for Parquet, which has no place for nested sections; else as `write_document` does.
    """
    form = _form(output, automatic="table")
    if form == "json":
        _write_text(json.dumps(plain(card), indent=2, ensure_ascii=False, allow_nan=False) + "\n", output)
    elif form == "ndjson":
        _write_text(_json_line(plain(card)), output)
    elif form == "table":
        _write_human("\n".join(_table(grid, output) for grid in card_grids(card)), output)
    elif form == "parquet":
        works = ", ".join(name for name in OUTPUT_FORMATS if name != "parquet")
        raise UsageError("A model card cannot be written as parquet.", hint=f"--format takes {works} here.")
    else:
        fields = Grid(("field", "value"), [(key, field_text(value)) for key, value in flat(card)])
        _write_text(_csv(fields) if form == "csv" else _markdown(fields), output)


def write_check(
    document: Mapping[str, Any], sections: Sequence[Sequence[tuple[str, str]]], output: OutputConfig
) -> None:
    """Write what `check` found: `sections` of items and words for people, the document for programs.

    Raises as `write_document` does.
    """
    form = _form(output, automatic="table")
    if form == "json":
        _write_text(json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n", output)
        return
    if form in ("table", "markdown"):
        rows = [row for section in sections for row in section]
        begins = itertools.accumulate(len(section) for section in sections[:-1])
        grid = Grid(rows[0], rows[1:], breaks=frozenset(begin - 1 for begin in begins))
        if form == "table":
            _write_human(_table(grid, output), output)
        else:
            _write_text(_markdown(grid), output)
        return
    fields = Grid(("item", "value"), [(item, field_text(value)) for item, value in flat(document)], keys=2)
    if form == "csv":
        _write_text(_csv(fields), output)
    elif form == "ndjson":
        _write_text("".join(map(_json_line, fields.records())), output)
    else:
        _write_bytes(_parquet(fields), output)


def write_search(document: Mapping[str, Any], output: OutputConfig) -> None:
    """Write what `tune` found: the answer, the candidates, the choice on the holdout and how to train it.

    Formats for programs other than JSON have the candidates alone. Raises as `write_document` does.
    """
    form = _form(output, automatic="table")
    if form in ("json", "ndjson"):
        write_document(document, output)
        return
    grid = search_grid(document["search"], people=form in ("table", "markdown"))
    if form == "table":
        _write_human(_search_text(document, grid, output), output)
    elif form == "markdown":
        _write_text(f"{document['verdict']}\n\n" + _markdown(grid), output)
    elif form == "csv":
        _write_text(_csv(grid), output)
    else:
        _write_bytes(_parquet(grid), output)


def number(value: float) -> str:
    """Four significant digits, whole thousands in full, an exponent only for what would be mostly zeros."""
    if not math.isfinite(value):
        return "" if math.isnan(value) else str(value)
    if value == 0:
        return "0"
    power = int(f"{value:.3e}".partition("e")[2])
    return f"{value:.3e}" if power < -5 or power >= 12 else f"{value:.{max(0, 3 - power)}f}"


def _form(output: OutputConfig, automatic: str) -> str:
    if output.format != "auto":
        return output.format
    suffix = Path(output.output or "").suffix.lower()
    return _SUFFIXES.get(suffix, automatic)


def to_terminal(output: OutputConfig) -> bool:
    """Whether the result is read on a terminal."""
    return output.output in (None, "-") and is_terminal(sys.stdout)


def _document_text(document: Mapping[str, Any], output: OutputConfig) -> str:
    width = prose_width(sys.stdout) if to_terminal(output) else None
    parts = [wrapped(printable(document["verdict"]), width) + "\n"] if document.get("verdict") else []
    if document.get("metrics"):
        table = _table(metrics_grid([((), document["metrics"])], keys=("model",)), output)
        below = caption(document.get("backtest") or {})
        parts.append(table + (wrapped(below, width) + "\n" if below else ""))
    parts += [_table(grid, output) + (f"{said}\n" if said else "") for grid, said in label_grids(document)]
    if document.get("search"):
        parts.append(_searched_text(document["search"], output))
    if document.get("per_series"):
        parts.append(_table(series_grid(document), output))
    if document.get("per_step"):
        metric, grid = step_grid(document)
        parts.append(_table(grid, output) + f"{metric} by step of the horizon; the other metrics with --format csv\n")
    return "\n".join(parts)


def search_caption(search: Mapping[str, Any]) -> str:
    """What the scores of the candidates are."""
    over = {"cutoffs": "origins"}.get(search["paired_over"], search["paired_over"])
    fits = search["folds"] * search["fits"]
    rule = "the shallowest within one standard error of the best" if search["pick"] == "one-se" else "the best"
    metric = search["metric"].upper().replace("_", " ")
    return (
        f"score: {metric} over {search['n']} {over} (fitted {fits} time{'s' * (fits != 1)}); "
        f"spread: its deviation over them; standard error: of the difference to the best, paired. Chosen: {rule}, "
        f"at {number(search['score'])}."
    )


def _searched_text(search: Mapping[str, Any], output: OutputConfig) -> str:
    """The search behind a training."""
    width = prose_width(sys.stdout) if to_terminal(output) else None
    answer = wrapped(printable(search["answer"]), width) + "\n\n" if search["answer"] else ""
    caption = wrapped(search_caption(search), width) + "\n"
    return answer + _table(search_grid(search, people=True), output) + caption


def _search_text(document: Mapping[str, Any], grid: Grid, output: OutputConfig) -> str:
    """The answer, the candidates, and what became of the choice, for a person."""
    width = prose_width(sys.stdout) if to_terminal(output) else None
    search = document["search"]
    said = [search_caption(search)]
    if search["holdout"] is not None:
        said.append(f"On the holdout, which had no part in the choice, it scores {number(search['holdout'])}.")
    said += [document[name] for name in ("holdout_verdict", "folds_verdict") if document.get(name)]
    parts = [wrapped(printable(document["verdict"]), width) + "\n"] if document.get("verdict") else []
    parts += [_table(grid, output) + "".join(wrapped(printable(line), width) + "\n" for line in said)]
    if search.get("command"):
        saved = (document.get("model") or {}).get("path")
        parts.append(f"Saved {printable(saved)}.\n" if saved else f"To train it: {printable(search['command'])}\n")
    return "\n".join(parts)


def _cell(value: Any) -> str:
    """A value as a person reads it in a table, on one line."""
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return number(float(value))
    return "" if value is None else printable(str(value)).replace("\n", "\\n")


def _table(grid: Grid, output: OutputConfig) -> str:
    """For people: on a terminal in blocks of columns that fit its width, elsewhere plain at its natural width."""
    cells = [[_cell(value) for value in row] for row in grid.rows]
    shown = dataclasses.replace(grid, columns=[_cell(name) for name in grid.columns], rows=cells)
    styled = output.output in (None, "-") and is_styled(sys.stdout)
    right = [any(isinstance(row[i], numbers.Real) for row in grid.rows) for i in range(len(grid.columns))]
    if not to_terminal(output):
        return _lines(shown, right, range(len(grid.columns)), styled)
    width = prose_width(sys.stdout) or 80
    blocks = _blocks(shown, width)
    if len(cells) > _LONGEST_BOXED:
        return "\n".join(_lines(shown, right, block, styled) for block in blocks)
    return "\n".join(_boxed(shown, right, block, styled, width) for block in blocks)


def _widths(grid: Grid) -> list[int]:
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(grid.columns, *grid.rows, strict=True)]


def _blocks(grid: Grid, width: int) -> list[list[int]]:
    """The columns in as many blocks as are needed to fit the width, each beginning with the keys."""
    widths = [size + 3 for size in _widths(grid)]  # two of padding and a border
    keys = list(range(grid.keys))
    blocks, room = [list(keys)], width - 1 - sum(widths[i] for i in keys)
    left = room
    for column in range(grid.keys, len(grid.columns)):
        if widths[column] > left and len(blocks[-1]) > len(keys):
            blocks.append(list(keys))
            left = room
        blocks[-1].append(column)
        left -= widths[column]
    return blocks


def _lines(grid: Grid, right: Sequence[bool], block: Iterable[int], styled: bool) -> str:
    """Plain text: columns two spaces apart under a header, one row a line."""
    from rich.cells import cell_len

    widths, block = _widths(grid), list(block)
    lines = []
    for index, row in enumerate([grid.columns, *grid.rows], -1):
        padded = []
        for column in block:
            space = " " * (widths[column] - cell_len(row[column]))
            text = f"\x1b[1m{row[column]}\x1b[0m" if styled and (index, column) in grid.best else row[column]
            padded.append(space + text if right[column] else text + space)
        lines.append("\n" * (index in grid.breaks) + "  ".join(padded).rstrip() + "\n")
    return "".join(lines)


def _boxed(grid: Grid, right: Sequence[bool], block: Sequence[int], styled: bool, width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = box.ROUNDED if _can_show("╭─│", sys.stdout.encoding) else box.ASCII2
    table = Table(box=lines, header_style="bold", safe_box=False)
    for column in block:
        justify = "right" if right[column] else "left"
        table.add_column(Text(grid.columns[column]), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for index, row in enumerate(grid.rows):
        if index in grid.breaks:
            table.add_section()
        table.add_row(*(Text(row[c], style="bold" if (index, c) in grid.best else "") for c in block))
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=styled, color_system="standard" if styled else None)
    console.print(table)
    return text.getvalue()


def _can_show(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _csv(grid: Grid) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(grid.columns)
    writer.writerows(["" if value is None else value for value in row] for row in grid.rows)
    return text.getvalue()


def _csv_pieces(frames: Iterable[pandas.DataFrame], envelope: Mapping[str, Any]) -> Iterator[bytes]:
    header = ""
    for frame in frames:
        grid = frame_grid(frame)
        yield _encoded(_csv(grid).removeprefix(header))
        header = _csv(dataclasses.replace(grid, rows=[]))


def _json_pieces(frames: Iterable[pandas.DataFrame], envelope: Mapping[str, Any]) -> Iterator[bytes]:
    """One document, its records each on a line of its own."""
    document = {"schema": 1, **plain(envelope), "forecasts": []}
    head, _, tail = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).rpartition("[]")
    between = "["
    for frame in frames:
        lines = [_json_line(record).rstrip() for record in frame_grid(frame).records()]
        yield _encoded(head + between + "\n    " + ",\n    ".join(lines))
        head, between = "", ","
    yield _encoded(("" if between == "," else head + between) + "\n  ]" + tail + "\n")


def _ndjson_pieces(frames: Iterable[pandas.DataFrame], envelope: Mapping[str, Any]) -> Iterator[bytes]:
    for frame in frames:
        yield _encoded("".join(map(_json_line, frame_grid(frame).records())))


def _parquet_pieces(frames: Iterable[pandas.DataFrame], envelope: Mapping[str, Any]) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    writer = None
    for frame in frames:
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pyarrow.parquet.ParquetWriter(buffer, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    yield buffer.getvalue()


_FORECAST_FORMS: dict[str, Callable[[Iterable[pandas.DataFrame], Mapping[str, Any]], Iterator[bytes]]] = {
    "csv": _csv_pieces,
    "json": _json_pieces,
    "ndjson": _ndjson_pieces,
    "parquet": _parquet_pieces,
}
"""How a table of forecasts becomes a file, part by part."""


def _json_line(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def _markdown(grid: Grid) -> str:
    """A table as GitHub renders it, numbers to the right."""
    right = [any(isinstance(row[i], numbers.Real) for row in grid.rows) for i in range(len(grid.columns))]
    lines = [grid.columns, ["---:" if to_right else "---" for to_right in right], *grid.rows]
    return "".join("| " + " | ".join(_cell(value).replace("|", "\\|") for value in line) + " |\n" for line in lines)


def _parquet(grid: Grid) -> bytes:
    import pyarrow
    import pyarrow.parquet

    columns = list(zip(*grid.rows, strict=True)) or [()] * len(grid.columns)
    named = [pyarrow.string() if name != "step" else pyarrow.int64() for name in grid.columns[: grid.keys]]
    kinds = [*named, *[pyarrow.float64()] * (len(grid.columns) - grid.keys)]
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(grid.columns)), buffer)
    return buffer.getvalue()


def _write_human(text: str, output: OutputConfig) -> None:
    """Write a table: in the terminal's or pipe's encoding, what that cannot show as `?`."""
    encoding = "utf-8" if output.output not in (None, "-") else getattr(sys.stdout, "encoding", None) or "utf-8"
    _write_bytes(text.encode(encoding, "replace"), output)


def _write_text(text: str, output: OutputConfig) -> None:
    """Write text for a program: UTF-8; bytes of a name that were no UTF-8 in their escaped form."""
    _write_bytes(_encoded(text), output)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _write_bytes(data: bytes, output: OutputConfig) -> None:
    if output.output not in (None, "-"):
        write_atomically(str(output.output), data)
        return
    check_output(output)
    try:
        sys.stdout.flush()
        rest = memoryview(data)
        while rest:  # an unbuffered pipe may take less than all
            rest = rest[sys.stdout.buffer.write(rest) :]
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable("standard output", error) from error
