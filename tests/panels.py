"""Small panels and networks to test with."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Columns, Covariate, Floats, Ints, Panel
from stacklstm_cli.model.inputs import InputSpec
from stacklstm_cli.model.layers import StackSpec
from stacklstm_cli.model.network import NetworkSpec, StackedRNN
from stacklstm_cli.model.windows import Inputs

EVERY_INPUT = InputSpec(
    (
        *(Covariate("load", "past"), Covariate("state", "past", ("off", "on"))),
        *(Covariate("price", "known"), Covariate("event", "known", ("fair", "rain", "strike"))),
        *(Covariate("size", "static"), Covariate("kind", "static", ("a", "b"))),
    ),
    ("time_of_day", "weekday", "year"),
    "DE-BY",
)
"""Inputs of every kind: numbers and categories of each role, cycles, holidays."""


def join_series(
    series: Sequence[tuple[tuple[str, ...], int, Floats]],
) -> tuple[tuple[tuple[str, ...], ...], Floats, Ints, Ints]:
    """(key, start, values) of each series as the `keys, values, offsets, starts` of a Panel."""
    lengths = [values.size for _, _, values in series]
    return (
        tuple(key for key, _, _ in series),
        np.concatenate([values for _, _, values in series]) if series else np.empty(0),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.asarray([start for _, start, _ in series], dtype=np.int64),
    )


def make_panel(*series: npt.ArrayLike, starts: Sequence[int] | None = None) -> Panel:
    """An hourly panel of these series, named s0, s1 …; one alone has no name, as in a file of one series."""
    several = len(series) > 1
    keys, values, offsets, begins = join_series(
        [
            ((f"s{index}",) if several else (), starts[index] if starts else 0, np.asarray(values, dtype=np.float64))
            for index, values in enumerate(series)
        ]
    )
    columns = Columns("long", ("ds",), ("id",), ("y",)) if several else Columns("single", ("ds",), (), ("y",))
    form = TimeForm("datetime", "%Y-%m-%d %H:%M")
    return Panel(columns, Step("second", 3600), form, keys, values, offsets, begins)


def with_covariates(
    panel: Panel,
    covariates: Sequence[Covariate],
    blocks: Sequence[npt.ArrayLike] = (),
    static: npt.ArrayLike | None = None,
) -> Panel:
    """The panel with covariates, `static` [N, S] and in time: `blocks[i]` [rows, C] begins with series i.

    One block for several series begins with the earliest and is shared, as in a wide file.
    """
    past, known, static_names = (
        tuple(one.name for one in covariates if one.role == role) for role in ("past", "known", "static")
    )
    arrays = [np.asarray(block, dtype=np.float32) for block in blocks]
    rows = np.asarray([len(block) for block in arrays], dtype=np.int64)
    at = np.cumsum(rows) - rows
    if len(arrays) == 1:
        at = panel.starts - panel.starts.min()
        rows = rows - at
    return replace(
        panel,
        columns=replace(panel.columns, past=past, known=known, static=static_names),
        covariates=tuple(covariates),
        timed=np.concatenate(arrays) if arrays else panel.timed,
        timed_at=at,
        timed_rows=rows,
        static=panel.static if static is None else np.asarray(static, dtype=np.float32),
    )


def random_covariates(
    covariates: Sequence[Covariate], rows: int, seed: int = 0, missing: float = 0.15
) -> npt.NDArray[np.float32]:
    """[rows, C] cells of any kind, some of them missing."""
    generator = np.random.default_rng(seed)
    columns = [
        generator.normal(3, 2, rows) if one.categories is None else generator.integers(0, len(one.categories), rows)
        for one in covariates
    ]
    cells = np.stack(columns, axis=1).astype(np.float32) if columns else np.empty((rows, 0), dtype=np.float32)
    cells[generator.random(cells.shape) < missing] = np.nan
    return cells


def every_covariate(panel: Panel, ahead: int = 4, seed: int = 0) -> Panel:
    """The panel with the covariates of `EVERY_INPUT`; those known ahead have so many future rows."""
    timed, static = EVERY_INPUT.of("past", "known"), EVERY_INPUT.of("static")
    blocks = []
    for index, length in enumerate(panel.lengths.tolist()):
        block = random_covariates(timed, length + ahead, seed + index)
        block[length:, : len(EVERY_INPUT.of("past"))] = np.nan
        blocks.append(block)
    return with_covariates(
        panel, EVERY_INPUT.covariates, blocks, random_covariates(static, panel.n_series, seed + 99, missing=0)
    )


def wave(rows: int, seed: int = 0, period: int = 24) -> npt.NDArray[np.float64]:
    """A seasonal wave with noise around 50."""
    noise = np.random.default_rng(seed).normal(size=rows)
    return 50 + 10 * np.sin(np.arange(rows) * 2 * np.pi / period) + noise


def small_spec(layers: int = 2, hidden_size: int = 3, **changes: Any) -> NetworkSpec:
    """A network of a few hundred weights, residual as by default; `changes` of the network or of its stack."""
    given: dict[str, Any] = {"patch_length": 2, "inputs": InputSpec()} | changes
    parts = {field.name for field in dataclasses.fields(StackSpec)} - {"dropout"}
    stack = StackSpec(
        input_size=given["patch_length"] * given["inputs"].row_width,
        hidden_sizes=(hidden_size,) * layers,
        residual=True,
        dropout=given.get("dropout", 0.0),
    )
    small = NetworkSpec(
        stack=dataclasses.replace(stack, **{name: given.pop(name) for name in parts & given.keys()}),
        dropout=0.0,
        patch_length=2,
        context_length=6,
        horizon=4,
        quantiles=(0.1, 0.5, 0.9),
        location_length=6,
        scale_length=6,
    )
    return dataclasses.replace(small, **given)


OPTIONS: dict[str, tuple[Any, Any]] = {
    "bidirectional": (False, True),
    "attention": (False, True),
    "residual": (True, False),
    "layer_norm": (False, True),
    "dilations": ((), (1, 2)),
    "recurrent_dropout": (0.0, 0.4),
    "hidden_sizes": ((3, 3), (5, 2)),
}
"""What a stack of two layers may be, the default first; beside its cell."""


def architectures() -> list[dict[str, Any]]:
    """Stacks among which there is every pair of two options' values, in each cell; the default stack first."""
    values: dict[str, tuple[Any, ...]] = {"cell": ("lstm", "gru", "rnn")} | OPTIONS
    everything = [dict(zip(values, drawn, strict=True)) for drawn in itertools.product(*values.values())]

    def pairs(one: dict[str, Any]) -> set[tuple[Any, ...]]:
        return set(itertools.combinations(one.items(), 2))

    missing = set().union(*map(pairs, everything))
    found: list[dict[str, Any]] = []
    while missing:
        found.append(max(everything, key=lambda one: len(pairs(one) & missing)))
        missing -= pairs(found[-1])
    return found


def named(architecture: dict[str, Any]) -> str:
    """The name of a test: what is not the default."""
    changed = [name for name, (usual, _) in OPTIONS.items() if architecture[name] != usual]
    return " ".join([architecture["cell"], *changed]).replace("residual", "no_residual")


def plain_inputs(context: torch.Tensor, observed: torch.Tensor, horizon: int = 4) -> Inputs:
    """A batch without covariates and calendar, from contexts and flags [B, L]."""
    batch, length = context.shape
    empty = context.new_empty
    calendar = torch.empty(batch, horizon, 0, dtype=torch.int64)
    return Inputs(context, observed, empty(batch, length, 0), empty(batch, horizon, 0), empty(batch, 0), calendar)


def shaken_network(spec: NetworkSpec, seed: int = 0, dtype: torch.dtype = torch.float64) -> StackedRNN:
    """A network whose every weight is random: nothing hides behind a zero."""
    network = StackedRNN(spec).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        fixed = [network.skip_start] if spec.skip else []
        fixed += [network.smoothing.share] if network.smoothing is not None else []
        for tensor in (*network.parameters(), *fixed):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.5)
    return network


def last_row_shown(values: list[float], rows: int, spec: NetworkSpec) -> int:
    """One after the last row of the context of an origin with so many known rows."""
    if all(math.isnan(v) for v in values[max(rows - spec.context_length, 0) : rows]):
        # In a gap longer than the context: seasons back, until the last value is in the newest season.
        while all(math.isnan(v) for v in values[max(rows - spec.location_length, 0) : rows]):
            rows -= spec.location_length
    return rows


def every_origin(panel: Panel) -> Origins:
    """Each row of each series as the last known one."""
    lengths = panel.lengths
    series = np.repeat(np.arange(panel.n_series), lengths)
    return Origins(series, np.concatenate([np.arange(1, length + 1) for length in lengths]))


def cut(panel: Panel, lengths: npt.NDArray[np.int64]) -> Panel:
    """What a file that ends earlier holds: the first `lengths[i]` rows of each series, up to an observed one."""
    pieces = []
    for index, length in enumerate(lengths.tolist()):
        piece = panel.series(index)[:length]
        observed = np.flatnonzero(~np.isnan(piece))
        if observed.size:
            pieces.append((panel.keys[index], int(panel.starts[index]), piece[: observed[-1] + 1]))
    keys, values, offsets, starts = join_series(pieces)
    return replace(panel, keys=keys, values=values, offsets=offsets, starts=starts)
