"""AutoETS and AutoTheta of statsforecast, fitted anew at every origin: the baselines of the `baselines` extra.

Hyndman & Khandakar (2008), J. Statistical Software 27(3); Fiorucci et al. (2016), IJF 32(4), 1151-1161. The package is
imported when the first of them is made, which takes two seconds.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from stacklstm_cli.config import NO_BASELINES, STATISTICAL_BASELINES
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Floats, Ints, Panel
from stacklstm_cli.errors import UsageError
from stacklstm_cli.evaluation.baselines import Naive
from stacklstm_cli.ranks import Ranks

MOST_ROWS = 1000
"""Newest rows that a fit sees, or four seasons where these are more: exponential smoothing forgets, and a fit's time
grows with the rows."""
LEAST_ROWS = 4
"""Fewer rows do not settle the parameters of the smallest model."""
SEASONS = 2
"""Whole seasons that a seasonal model needs."""
QUICK_ROWS = 1000
"""Rows of all fits of one method together that are done without being asked for: a second or two."""
QUICK_SEASON = 24
"""Seasonal models of a longer season take far longer for each row."""


class Statistical:
    """A method of statsforecast as a predictor; naive where it cannot be fitted.

    Gaps are filled by straight lines; the rows after the last observed value count to the horizon.
    """

    def __init__(self, name: str, seasonality: int) -> None:
        """Raises `UsageError` where statsforecast is not installed."""
        if not installed():
            raise UsageError(
                f"--baselines {name} needs statsforecast, which is not installed.",
                hint="Install it with: pip install 'stacklstm[baselines]'",
                code="not_installed",
            )
        self.name = name
        self.seasonality = seasonality
        self.fits = 0
        self.fell_back = 0
        """Origins with a naive forecast in place of a fitted one."""
        self.filled = 0
        """Missing rows that lines have filled, counted at each origin."""

    def forecast(self, panel: Panel, origins: Origins, horizon: int, quantiles: Sequence[float]) -> Floats:
        """[O, H, Q] in the user's units."""
        forecast = Naive().forecast(panel, origins, horizon, quantiles)
        for at, (series, rows) in enumerate(zip(origins.series.tolist(), origins.rows.tolist(), strict=True)):
            found = self.fitted(panel.series(series)[:rows], horizon, quantiles)
            self.fits += 1
            if found is None:
                self.fell_back += 1
            else:
                forecast[at] = found
        return forecast

    def pieces(self, panel: Panel, origins: Origins, parts: Ints) -> Ints:
        """[O] each origin is fitted by itself."""
        return np.arange(len(origins))

    def add_up(self, ranks: Ranks) -> None:
        """Count what all processes did that shared the origins."""
        self.fits, self.fell_back, self.filled = ranks.sums([self.fits, self.fell_back, self.filled])

    def fitted(self, history: Floats, horizon: int, quantiles: Sequence[float]) -> Floats | None:
        """[H, Q] after the last row of a history that begins with an observed value; None where nothing fits it."""
        history = history[-max(MOST_ROWS, 4 * self.seasonality) :]
        known = np.flatnonzero(~np.isnan(history))
        if known.size < LEAST_ROWS:
            return None
        ahead = history.size - 1 - int(known[-1])  # rows of the forecast that lie before the cutoff
        rows = np.arange(known[0], known[-1] + 1)
        self.filled += rows.size - known.size
        values = np.interp(rows, known, history[known])
        season = self.seasonality if values.size >= SEASONS * self.seasonality else 1
        levels = sorted({level_of(quantile) for quantile in quantiles} - {0.0})
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                found = _method(self.name, season).forecast(values, h=horizon + ahead, level=levels or None)
        except Exception:  # whatever the package trips over: a constant, too few rows, a fit that diverges
            return None
        columns = [found[column_of(quantile)][ahead:] for quantile in quantiles]
        forecast = np.sort(np.stack(columns, axis=1).astype(np.float64), axis=1)  # [H, Q]
        return forecast if np.isfinite(forecast).all() else None

    def explained(self) -> str:
        """What was done, for a person."""
        text = f"{self.name}: fitted at " + ("1 origin" if self.fits == 1 else f"each of {self.fits:,} origins")
        if self.filled:
            text += ", gaps filled by straight lines"
        if self.fell_back:
            text += f"; naive at {self.fell_back:,} of them, where it could not be fitted"
        return text


def installed() -> bool:
    """Whether statsforecast can be imported."""
    return importlib.util.find_spec("statsforecast") is not None


def level_of(quantile: float) -> float:
    """The central interval in percent of which a quantile is one end; 0 of the median."""
    return round(100 * abs(1 - 2 * quantile), 6)


def column_of(quantile: float) -> str:
    """The name statsforecast gives it."""
    if quantile == 0.5:
        return "mean"
    return f"{'lo' if quantile < 0.5 else 'hi'}-{level_of(quantile)}"


def _method(name: str, season: int) -> Any:
    from statsforecast.models import AutoETS, AutoTheta

    return {"auto_ets": AutoETS, "auto_theta": AutoTheta}[name](season_length=season)


def asked_for(names: Sequence[str], seasonality: int) -> dict[str, Statistical]:
    """The baselines that --baselines names. Raises `UsageError` for another name, and where they are not installed."""
    unknown = [name for name in names if name not in (*STATISTICAL_BASELINES, NO_BASELINES)]
    if unknown or (NO_BASELINES in names and len(names) > 1):
        raise UsageError(
            f"--baselines is {','.join(names)!r}; expected {' or '.join(STATISTICAL_BASELINES)}, both with a comma "
            f"between them, or {NO_BASELINES}.",
            hint="The naive ones are always there.",
            code="unknown_baseline",
        )
    return {name: Statistical(name, seasonality) for name in names if name != NO_BASELINES}


def added(origins: Origins, seasonality: int) -> tuple[dict[str, Statistical], str]:
    """The baselines that are added where none is named, and what to say of them.

    All where statsforecast is installed and the fits take seconds, else none.
    """
    rows = int(np.minimum(origins.rows, MOST_ROWS).sum())
    if not installed():
        return {}, ""
    if rows > QUICK_ROWS or seasonality > QUICK_SEASON:
        names = ",".join(STATISTICAL_BASELINES)
        return {}, f"AutoETS and AutoTheta take long to fit at {len(origins):,} origins; --baselines {names} adds them"
    return asked_for(STATISTICAL_BASELINES, seasonality), ""
