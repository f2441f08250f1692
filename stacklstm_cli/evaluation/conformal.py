"""Conformal calibration: from forecasts of held-out rows and what came, how far each quantile has to be moved.

Split conformal prediction for quantiles (Romano, Patterson & Candès 2019, "Conformalized quantile regression",
NeurIPS 32): what a value exceeds the forecast quantile q by is its score; the quantile is moved by the
⌈(n + 1) q⌉-th smallest of n scores. Scores are in units of the scale of their window, so that all series count
together. The paper has a form with one offset for both ends of an interval and one with an offset for each; here it
is the mean of the two: how far forecasts lie to one side changes sooner than how far they scatter.

Forecasts of one series that overlap, or are made of the same days, err alike. So n is not the number of scores but
between that of forecasts a horizon apart and that of their rows (`independent`), and where it is small the offsets
are drawn towards none (`PRIOR_FORECASTS`).

Letters: O origins, H horizon, Q learned quantiles, N series, T cutoffs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from stacklstm_cli.config import MEDIAN
from stacklstm_cli.data.origins import Origins, actuals, plan_origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.model.calibration import EFFECTIVE, MOST_OFFSET, Calibration
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.model.windows import learned_units

MOST_ORIGINS = 1500
MOST_POINTS = 2**19
"""Forecasts and forecast rows that a calibration looks at, which bounds its time and memory."""
PRIOR_FORECASTS = 20.0
NARROWING_FORECASTS = 100.0
"""Forecasts a horizon apart that offsets must come from to count as much as no offset does; those that narrow an
interval from more, as it may have been wide enough in calm times only."""
POOLED = 2.0
"""Rows of the horizon on either side that lend a row their scores: this share of the horizon, over the root of the
number of forecasts a horizon apart. Few forecasts pool all rows, many tell the rows apart."""
ANCHORS = 9
"""Rows of the horizon that offsets are computed for; between them they are interpolated."""
ADAPTATION_RATE = 0.02
"""How far a cutoff at which every value misses its quantile moves the level that stands for it, at most. A larger one
follows faster and leaves the levels where the last few values have put them; errors that double take it some fifty
cutoffs of six values."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """What a network forecast from held-out origins before any calibration, and what came; in learned units."""

    levels: tuple[float, ...]
    """[Q] learned quantiles, ascending, the median among them."""
    forecasts: Floats
    """[O, H, Q]"""
    scale: Floats
    """[O] of the windows; NaN for one that is not to be counted."""
    actual: Floats
    """[O, H] NaN where missing."""
    cutoffs: Ints
    """[O] position on the grid of the last known row."""
    apart: int
    """Forecasts a horizon apart that the rows have room for."""

    def __len__(self) -> int:
        return len(self.cutoffs)

    def scores(self) -> Floats:
        """[O, H, Q] what each value exceeds each quantile by, away from the median, in scales of the window."""
        beyond = (self.actual[..., None] - self.forecasts) / self.scale[:, None, None]  # [O, H, Q]
        return outwards(self.levels) * beyond


@dataclass(frozen=True)
class Calibrations:
    """The two calibrations of a training, and how many held-out origins each was made of."""

    judged: Calibration | None = None
    """From validation origins: no row of the holdout has a part in it."""
    final: Calibration | None = None
    """From validation and holdout origins, all forecast by the judged weights."""
    origins: tuple[int, int] = (0, 0)


def calibrations(forecaster: Forecaster, panel: Panel, train: Ints, validation: Ints, end: Ints) -> Calibrations:
    """Those of judged weights, fitted to the first `train` [N] rows; parts as in training/parts.py."""
    chosen = held_out(forecaster, panel, train, validation)
    judged = held_out(forecaster, panel, validation, end)
    counts = [0 if part is None else len(part) for part in (chosen, judged)]
    return Calibrations(conformalised(chosen), conformalised(chosen, judged), (counts[0], sum(counts)))


def held_out(forecaster: Forecaster, panel: Panel, first: Ints, last: Ints) -> Residuals | None:
    """Forecasts whose whole horizon lies in the rows `first[i]` to `last[i] - 1` [N]; None without any or intervals.

    As many origins as `MOST_ORIGINS` and `MOST_POINTS` allow, one row apart at best, evenly spread.
    """
    horizon = forecaster.spec.horizon
    origins = dense_origins(first, last, horizon)
    return residuals_at(forecaster, panel, origins, len(plan_origins(first, last, horizon, horizon)))


def residuals_at(forecaster: Forecaster, panel: Panel, origins: Origins, apart: int) -> Residuals | None:
    """The residuals of these origins; None where nothing was observed, or without intervals."""
    horizon, levels = forecaster.spec.horizon, forecaster.spec.quantiles
    actual = actuals(learned_units(panel, forecaster.spec), origins, horizon)  # [O, H]
    if np.isnan(actual).all() or len(levels) == 1:
        return None
    forecasts, scale = forecaster.learned(panel, origins)  # [O, H, Q], [O]
    cutoffs = panel.starts[origins.series] + origins.rows - 1
    return Residuals(levels=levels, forecasts=forecasts, scale=scale, actual=actual, cutoffs=cutoffs, apart=apart)


def dense_origins(first: Ints, last: Ints, horizon: int) -> Origins:
    """As many origins as are useful between these rows [N], evenly spread over all of them."""
    most = max(1, min(MOST_ORIGINS, MOST_POINTS // horizon))
    every = plan_origins(first, last, horizon, 1)
    kept = np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(np.int64))
    return Origins(every.series[kept], every.rows[kept])


def conformalised(*parts: Residuals | None) -> Calibration | None:
    """The calibration found from the residuals of some parts of the data; None where there are none."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    levels, horizon = found[0].levels, found[0].actual.shape[1]
    scores = np.concatenate([part.scores() for part in found])  # [O, H, Q]
    apart = sum(part.apart for part in found)
    reach = math.ceil(horizon * min(1.0, POOLED / math.sqrt(apart)))
    anchors = np.unique(np.linspace(0, horizon - 1, ANCHORS).round().astype(np.int64))  # [A]
    offsets = np.zeros((anchors.size, len(levels)))  # [A, Q]
    for place, anchor in enumerate(anchors.tolist()):
        pooled = slice(max(0, anchor - reach), anchor + reach + 1)
        offsets[place] = outward_offsets(scores[:, pooled], levels, apart * math.sqrt(len(range(horizon)[pooled])))
    offsets *= apart / (apart + np.where(offsets < 0, NARROWING_FORECASTS, PRIOR_FORECASTS))
    offsets = np.clip(offsets * outwards(levels), -MOST_OFFSET, MOST_OFFSET)
    every = [np.interp(np.arange(horizon), anchors, column) for column in offsets.T]
    return Calibration(levels, np.stack(every, axis=1), np.asarray(levels))


def outward_offsets(scores: Floats, levels: tuple[float, ...], independent: float) -> Floats:
    """[Q] how far each quantile is to move away from the median by scores [O, W, Q] of some rows of the horizon.

    The mean of an offset of its own and, where the mirrored quantile was learned too, of one for both.
    """
    offsets = np.zeros(len(levels))
    for column, level in enumerate(levels):
        if level == MEDIAN:
            continue
        outer = max(level, 1 - level)
        found = [conformal_quantile(scores[..., column], outer, independent)]
        for mirrored, other in enumerate(levels):
            if math.isclose(other, 1 - level, abs_tol=1e-9):
                both = np.maximum(scores[..., column], scores[..., mirrored])  # [O, W]
                found.append(conformal_quantile(both, 2 * outer - 1, independent))
        offsets[column] = np.mean(found)
    return offsets


def outwards(levels: tuple[float, ...]) -> Floats:
    """[Q] the direction away from the median."""
    return np.where(np.asarray(levels) < MEDIAN, -1.0, 1.0)


def conformal_quantile(scores: Floats, level: float, independent: float) -> float:
    """The score that a new one stays within with probability `level`, of those that are not NaN; 0 of none.

    With as many `independent` scores as there are, the ⌈(n + 1) level⌉-th smallest of n: exact for exchangeable
    scores (Vovk, Gammerman & Shafer 2005). With fewer, as far out as that many would ask for. Where no score is far
    enough out, the largest.
    """
    known = scores[~np.isnan(scores)]
    if not known.size:
        return 0.0
    rank = math.ceil(level * (1 + 1 / min(independent, known.size)) * known.size - 1e-9)
    return float(np.partition(known, min(rank, known.size) - 1)[min(rank, known.size) - 1])


def adapted(calibration: Calibration, residuals: Residuals, rate: float = ADAPTATION_RATE) -> Calibration:
    """A calibration whose levels have moved with the share of new values that their quantiles held.

    Adaptive conformal inference (Gibbs & Candès 2021, "Adaptive conformal inference under distribution shift",
    NeurIPS 34): after each cutoff, in the order of time, the level that stands for a learned one moves by `rate`
    times what the share of values beyond its quantile exceeds its nominal one; where only a part of the horizon's
    values is known, by that part of it. `residuals` are of new rows, a horizon apart, so that each cutoff knows what
    came after the one before. Nothing given is changed.
    """
    levels = np.asarray(calibration.levels)
    outward = outwards(calibration.levels)  # [Q]
    middle = calibration.middle
    for cutoff in np.unique(residuals.cutoffs).tolist():
        now = (residuals.cutoffs == cutoff) & ~np.isnan(residuals.scale)  # [O]
        actual = residuals.actual[now][..., None]  # [O', H, 1]
        known = ~np.isnan(actual[..., 0])  # [O', H]
        if not known.any():
            continue
        learned, scale = torch.as_tensor(residuals.forecasts[now]), torch.as_tensor(residuals.scale[now])
        forecasts = calibration.calibrated(learned, scale.unsqueeze(1)).numpy()  # [O', H, Q]
        beyond = (outward * (actual - forecasts) > 0)[known].mean(0)  # [Q]
        moved = calibration.effective + rate * known.mean() * outward * (beyond - np.minimum(levels, 1 - levels))
        moved[middle:] = np.maximum.accumulate(np.clip(moved[middle:], MEDIAN, EFFECTIVE[1]))
        moved[: middle + 1] = np.minimum.accumulate(np.clip(moved[: middle + 1], EFFECTIVE[0], MEDIAN)[::-1])[::-1]
        moved[middle] = levels[middle]
        calibration = replace(calibration, effective=moved)
    return calibration
