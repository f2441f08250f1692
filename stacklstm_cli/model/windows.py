"""Windows: origins as indices into one flat tensor, gathered and normalised batch by batch.

Nothing is materialised: a batch is index arithmetic on the flat values of all series. Each window is
normalised by its own context alone, so the network needs no statistics of any series, works for series
it has never seen, and nothing after a cutoff can reach a forecast made at it.

Shape letters: B batch, L context, H horizon, R rows of all series, R' rows of the covariates, C past and known
covariates, C' known ones, S static ones, K cycles of the calendar.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import DataError
from stacklstm_cli.model.heads import Scaling
from stacklstm_cli.model.inputs import calendar_codes
from stacklstm_cli.model.network import NetworkSpec

DEVIATION_FLOOR = 0.1
LEVEL_FLOOR = 1e-6
"""Smallest scale of a window, as shares of its whole context's deviation and of its level: a window whose
newest rows hardly move must not blow up what comes before and after them."""
LARGEST_LOGARITHM = 230.0
"""That of the largest number that is read from a file."""


@dataclass(frozen=True)
class Inputs:
    """What the network sees of a batch."""

    context: Tensor
    """[B, L] normalised; 0 where missing."""
    observed: Tensor
    """[B, L] 1 where the context has a value, 0 where it is missing or before the series."""
    past: Tensor
    """[B, L, C] covariates of the context's rows; NaN is missing. A category is its number in the model, from 1."""
    future: Tensor
    """[B, H, C'] known covariates of the rows to forecast, or [B, S, H, C'] of those behind every step."""
    static: Tensor
    """[B, C"]"""
    calendar: Tensor
    """[B, H, K] int64, codes of the rows to forecast, or [B, S, H, K] of those behind every step."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Inputs:
        """The same elsewhere, numbers in another precision; the type first, as not every device has float64."""

        def moved(numbers: Tensor) -> Tensor:
            return numbers.to(dtype).to(device)

        series = moved(self.context), moved(self.observed)
        return Inputs(*series, moved(self.past), moved(self.future), moved(self.static), self.calendar.to(device))


@dataclass(frozen=True)
class Batch:
    """Inputs for the network, and what leads back to the user's units."""

    inputs: Inputs
    """Where the windows lie; numbers of the series in float64."""
    scaling: Scaling
    origins: Tensor
    """[B] rows known before the forecast, or [B, S] before that of every step."""


class Windows:
    """All series of a panel as one flat tensor on a device."""

    def __init__(self, panel: Panel, spec: NetworkSpec, device: torch.device) -> None:
        # MPS has no float64, which the normalisation needs: there the gathering stays on the CPU.
        self.device = device
        self.spec = spec
        self.home = torch.device("cpu") if device.type == "mps" else device
        self.values = torch.as_tensor(panel.values, device=self.home)  # [R] NaN is missing; no copy on the CPU
        missing = np.isnan(panel.values)
        self.gaps = torch.as_tensor(observed_around(missing), device=self.home) if missing.any() else None  # [2, R]
        self.offsets = torch.as_tensor(panel.offsets, device=self.home)  # [N + 1]
        self.steps_back = torch.arange(-spec.context_length, 0, device=self.home)  # [L]
        self.steps_ahead = torch.arange(spec.horizon, device=self.home)  # [H]
        self.rows_after_steps = spec.rows_after_steps.to(self.home)  # [S]
        self.covariates = CovariateRows(panel, spec, self.home)

    def batch(self, series: Tensor, rows: Tensor, *, every_step: bool = False) -> Batch:
        """The L rows before each origin, normalised, and what is known of the H rows after it.

        With `every_step`, of the H rows after each of the S steps, of which the origin is the last.

        `series` [B], `rows` [B]: index of the series, and how many of its rows are known, at least one. Rows
        before the series begins are missing. In a gap longer than the context the newest context of the same
        season that reaches the last known value stands in, or there would be nothing to forecast from.
        """
        begin = self.offsets[series].unsqueeze(1)  # [B, 1]
        season, length = self.spec.location_length, self.spec.context_length
        end = self.offsets[series] + rows  # [B]
        behind = end - 1 - self.latest(end - 1)  # [B] rows since the last known value
        back = torch.where(behind >= length, (behind + 1 - season).clamp(min=0), 0)
        end = end - (back + season - 1) // season * season
        index = end.unsqueeze(1) + self.steps_back  # [B, L]
        inside = index >= begin  # [B, L]
        origins = rows
        if every_step:
            earlier = (end - self.offsets[series]).unsqueeze(1) - self.rows_after_steps[:-1]  # [B, S - 1]
            origins = torch.cat([earlier, rows.unsqueeze(1)], 1)  # [B, S]
        ahead = origins.unsqueeze(-1) + self.steps_ahead  # [B, H] or [B, S, H]
        past, future, static, calendar = self.covariates.gather(series, index - begin, inside, ahead)
        index = index.clamp(min=0)
        values = self.values[index]  # [B, L]
        observed = ~values.isnan() & inside
        values = values.where(observed, 0.0)
        location, scale = location_and_scale(values, observed, self.spec)  # [B], [B]
        shown = observed
        if self.spec.gaps != "mask":
            values, shown = self.filled(index, end.unsqueeze(1)), inside
        scaling = Scaling(location.unsqueeze(1), scale.unsqueeze(1))
        normalised = ((values - scaling.location) / scaling.scale).where(shown, 0.0)  # [B, L]
        return Batch(Inputs(normalised, observed.to(values), past, future, static, calendar), scaling, origins)

    def filled(self, index: Tensor, end: Tensor) -> Tensor:
        """[B, L] values of the rows `index` [B, L], missing ones filled from rows before `end` [B, 1] alone.

        Every series begins with a value, so there is always one before a gap.
        """
        before = self.latest(index)  # [B, L]
        values = self.values[before]
        if self.spec.gaps == "interpolate" and self.gaps is not None:
            after = self.gaps[1][index].long()  # [B, L]
            known = (after < end) & (after > before)
            after = after.clamp(max=len(self.values) - 1)
            share = (index - before) / (after - before).clamp(min=1)
            values = torch.where(known, values + share * (self.values[after] - values), values)
        return values

    def latest(self, index: Tensor) -> Tensor:
        """The last observed row up to each row; the same shape as `index`."""
        return index if self.gaps is None else self.gaps[0][index].long()

    def targets(self, series: Tensor, origins: Tensor) -> tuple[Tensor, Tensor]:
        """The H rows after each origin: values [B, H] float64 in user units, and where they are observed.

        `origins` [B], or [B, S] of every step; then [B, S, H] each, and an origin before the first row has none.
        """
        rows = origins.unsqueeze(-1) + self.steps_ahead  # [B, H] or [B, S, H]
        begin, end = (per_window(offsets, rows) for offsets in (self.offsets[series], self.offsets[series + 1]))
        index = begin + rows
        inside = (index < end) & (origins > 0).unsqueeze(-1)
        index = index.clamp(min=0, max=self.values.numel() - 1)
        values = self.values[index]
        known = ~values.isnan() & inside
        return values.where(known, 0.0), known


def observed_around(missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """[2, R] the last row up to each row that is not `missing` [R], and the first from it on; R where there is none."""
    rows = np.arange(missing.size, dtype=np.int32)
    before = np.maximum.accumulate(np.where(missing, 0, rows))
    after = np.minimum.accumulate(np.where(missing, missing.size, rows)[::-1])[::-1]
    return np.stack([before, after]).astype(np.int32)


def per_window(values: Tensor, like: Tensor) -> Tensor:
    """[B] with as many places of size one behind it as `like` [B, ...] has others."""
    return values.view(-1, *(1,) * (like.dim() - 1))


def learned_units(panel: Panel, spec: NetworkSpec) -> Panel:
    """The panel in the units that the network learns. Raises `DataError` for values that have no logarithm."""
    if spec.transform == "none":
        return panel
    lowest = int(np.nanargmin(panel.values))
    if spec.transform == "log1p" and panel.values[lowest] < 0:
        raise DataError(
            f"--transform log1p needs values of at least 0; {panel.place(lowest)} has {panel.values[lowest]:g}.",
            hint="Train with --transform symlog, which has negative logarithms, or mend the value.",
            code="no_logarithm",
        )
    return replace(panel, values=np.sign(panel.values) * np.log1p(np.abs(panel.values)))


def from_learned_units(values: Tensor, spec: NetworkSpec) -> Tensor:
    """Values of any shape, back from the units of the network."""
    if spec.transform == "none":
        return values
    if spec.transform == "log1p":
        return values.clamp(max=LARGEST_LOGARITHM).exp() - 1  # ONNX has no expm1
    return values.sign() * (values.abs().clamp(max=LARGEST_LOGARITHM).exp() - 1)


def user_units(forecast: Tensor, spec: NetworkSpec) -> Tensor:
    """Forecasts of any shape, back from the units of the network, and within the bounds."""
    forecast = from_learned_units(forecast, spec)
    if spec.minimum is None and spec.maximum is None:
        return forecast
    return forecast.clamp(spec.minimum, spec.maximum)


class CovariateRows:
    """Covariates and calendar of all series, ready to be gathered."""

    def __init__(self, panel: Panel, spec: NetworkSpec, home: torch.device) -> None:
        timed = spec.inputs.of("past", "known")
        self.past_only = len(spec.inputs.of("past"))
        self.has_rows = bool(timed)
        self.timed = torch.as_tensor(panel.timed, device=home)  # [R', C]
        self.timed_at = torch.as_tensor(panel.timed_at, device=home)  # [N]
        self.timed_rows = torch.as_tensor(panel.timed_rows, device=home)  # [N]
        static = panel.static.reshape(panel.n_series, -1)  # [N, S]; a panel without any has no rows
        self.static = torch.as_tensor(static, device=home)
        self.numbers = [
            torch.as_tensor(model_numbers(mine.categories, theirs.categories), device=home)
            if mine.categories is not None and theirs.categories is not None
            else None
            for mine, theirs in zip(panel.covariates, spec.inputs.covariates, strict=True)
        ]
        starts = panel.starts
        first = int(starts.min()) if starts.size else 0
        rows = int(panel.ends.max()) - first + spec.horizon if starts.size else 0
        codes = calendar_codes(spec.inputs, panel.step, panel.time_form, first, rows)
        self.calendar = torch.as_tensor(codes, device=home)  # [T, K]
        self.calendar_at = torch.as_tensor(starts - first, device=home)  # [N]

    def gather(
        self, series: Tensor, rows: Tensor, inside: Tensor, ahead: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Past [B, L, C], future [B, H, C'], static [B, S] and calendar [B, H, K] of a batch.

        `rows` [B, L] and `ahead` [B, H] count from the first row of each series; only rows `inside` [B, L] it have
        covariates. With `ahead` [B, S, H] future and calendar are those of every step.
        """
        if self.has_rows:
            past = self._timed(series, rows, inside)  # [B, L, C]
            there = (ahead >= 0) & (ahead < per_window(self.timed_rows[series], ahead))
            future = self._timed(series, ahead, there)[..., self.past_only :]  # [B, H, C']
        else:
            past, future = self.timed.new_empty(*rows.shape, 0), self.timed.new_empty(*ahead.shape, 0)
        static = self._numbered(self.static[series], self.numbers[self.timed.shape[1] :])  # [B, S]
        calendar = self.calendar[(per_window(self.calendar_at[series], ahead) + ahead).clamp(min=0)].long()  # [B, H, K]
        return past, future, static, calendar

    def _timed(self, series: Tensor, rows: Tensor, there: Tensor) -> Tensor:
        """[B, ..., C] rows [B, ...] of the covariates; NaN where they are not `there` [B, ...]."""
        index = torch.where(there, per_window(self.timed_at[series], rows) + rows, 0)
        found = self.timed[index].masked_fill(~there.unsqueeze(-1), torch.nan)  # [B, ..., C]
        return self._numbered(found, self.numbers[: self.timed.shape[1]])

    @staticmethod
    def _numbered(found: Tensor, numbers: list[Tensor | None]) -> Tensor:
        """The same with the panel's categories as the model numbers them; missing ones are 0, unknown."""
        for at, number in enumerate(numbers):
            if number is not None:
                code = found[..., at].nan_to_num(-1).long() + 1
                found[..., at] = number[code].to(found)
        return found


def model_numbers(mine: tuple[str, ...], theirs: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """[1 + categories] the number in the model, from 1, of no category and of each of the panel's; 0 is unknown."""
    known = {name: number for number, name in enumerate(theirs, start=1)}
    return np.asarray([0, *(known.get(name, 0) for name in mine)], dtype=np.int64)


def location_and_scale(values: Tensor, observed: Tensor, spec: NetworkSpec) -> tuple[Tensor, Tensor]:
    """What to subtract from and divide by each context [B, L], 0 where missing -> [B], [B].

    The mean of the newest `location_length` rows and the deviation of the newest `scale_length`; where none
    of these is observed, the whole context counts. The scale is never zero: at least `DEVIATION_FLOOR` of
    the whole context's deviation and `LEVEL_FLOOR` of the level, else 1.
    """
    location, _ = mean_and_deviation(values, newest(observed, spec.location_length))  # [B]
    _, recent = mean_and_deviation(values, newest(observed, spec.scale_length))  # [B]
    _, whole = mean_and_deviation(values, observed)  # [B]
    scale = torch.maximum(recent, torch.maximum(DEVIATION_FLOOR * whole, LEVEL_FLOOR * location.abs()))
    return location, torch.where(scale > 0, scale, 1.0)


def newest(observed: Tensor, rows: int) -> Tensor:
    """The observed places among the newest `rows` of each context [B, L]; all where there is none."""
    recent = observed.clone()
    recent[:, :-rows] = False
    return recent | (observed & ~recent.any(1, keepdim=True))  # [B, L]; ONNX Runtime has no `where` of flags


def mean_and_deviation(values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation [B] over the counted places of [B, L]; 0 where none is."""
    count = counted.sum(1).clamp(min=1)  # [B]
    mean = (values * counted).sum(1) / count  # [B]
    squares = ((values - mean.unsqueeze(1)) * counted).square().sum(1)  # [B]
    return mean, (squares / count).sqrt()
