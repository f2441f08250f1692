"""Small panels and networks to test with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.panel import Columns, Floats, Ints, Panel
from stacklstm_cli.model.network import NetworkSpec, StackedRNN


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


def wave(rows: int, seed: int = 0, period: int = 24) -> npt.NDArray[np.float64]:
    """A seasonal wave with noise around 50."""
    noise = np.random.default_rng(seed).normal(size=rows)
    return 50 + 10 * np.sin(np.arange(rows) * 2 * np.pi / period) + noise


def small_spec(**changes: Any) -> NetworkSpec:
    """A network of a few hundred weights."""
    small = NetworkSpec(
        layers=2,
        hidden_size=3,
        dropout=0.0,
        patch_length=2,
        context_length=6,
        horizon=4,
        quantiles=(0.1, 0.5, 0.9),
        location_length=6,
        scale_length=6,
    )
    return dataclasses.replace(small, **changes)


def shaken_network(spec: NetworkSpec, seed: int = 0, dtype: torch.dtype = torch.float64) -> StackedRNN:
    """A network whose every weight is random: nothing hides behind a zero."""
    network = StackedRNN(spec).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*network.parameters(), network.skip_start):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.5)
    return network


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
