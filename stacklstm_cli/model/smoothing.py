"""Forecasts by exponential smoothing, weighed by how well each would have forecast the newest rows.

One line through the context suits all series on average. How fast a level follows, how far a trend goes on and how
much a season repeats differ between series, and each window says so itself: smoothers of many rates forecast it from
several of its rows, and count the more the better they did (forecasts weighed by past errors: Bates & Granger 1969,
"The Combination of Forecasts"; weights learned over many series: Montero-Manso et al. 2020, "FFORMA"). The smoothers
are those of Gardner & McKenzie 1985, "Forecasting Trends in Time Series": a level, and a trend that fades.

Everything but the weights is linear in the context, so the smoothers are computed once, as matrices.

Shape letters: L context, H horizon, P patterns, R rates of the level, T kinds of trend, K = P * R * T smoothers,
M season, O origins in the context, A rows that a tried forecast is compared in, G levels and trends of the smoothers
(2 K), U width of the state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

SEASONS, LEAST_LENGTH = 8, 96
"""Seasons of the context, or rows where these are more, that are smoothed: what came before them weighs nothing."""
LEVEL_RATES = (0.1, 0.2, 0.4, 0.7, 1.0)
TRENDS = ((0.0, 1.0), (0.1, 0.9), (0.3, 0.9), (0.1, 0.98))
"""Rate of the trend as a share of that of the level, and what is left of a trend after each row."""
PATTERNS = (0, 1, 3)
"""Newest seasons averaged into the pattern that is taken off before smoothing and added to the forecast."""
ORIGINS, A_SEASON = 12, 6
"""Rows of the context that forecasts are tried from, at most, and how many of them lie in one season."""
TRIED_ROWS = 12
"""Rows of a season, at most, that a tried forecast is compared in."""
MEMORY = 2
"""Seasons after which an error counts half."""
SHARPNESS = 8.0
"""How fast a smoother's weight falls with its error: one that is a tenth worse than the best counts .45 of it."""
LARGEST_RATIO = 10.0
"""Of errors; beyond it a smoother has no weight anyway."""
LEAST_ERROR = 1e-6
"""In deviations of the window."""
LEAST_SEASON = 4
"""Rows that a tried forecast reaches ahead where the season is shorter."""


@dataclass(frozen=True)
class Smoothers:
    """All smoothers as they stand at one row of the context, as weights on the context up to it."""

    states: Tensor
    """[L, G] of their levels, then of their trends."""
    patterns: Tensor
    """[L, P * M] of the patterns, the first row being the one that follows."""


class Smoothing(nn.Module):
    """Moves the linear forecast towards the forecast by smoothing, as far as the start and the state say.

    What is learned starts at zero: the state may weigh the smoothers otherwise than their errors do, and may trust
    all of them more or less.
    """

    now: Tensor
    earlier: Tensor
    before: Tensor
    weight: Tensor
    reached: Tensor
    rows: Tensor
    phase: Tensor
    tried_phase: Tensor
    share: Tensor

    def __init__(self, context_length: int, horizon: int, season: int, width: int) -> None:
        """`width` U of the state; a `season` of 1 has no pattern."""
        super().__init__()
        self.season = season
        context_length = self.length = min(context_length, max(LEAST_LENGTH, SEASONS * season))
        patterns = PATTERNS if season > 1 else PATTERNS[:1]
        self.kinds = (len(patterns), len(LEVEL_RATES), len(TRENDS))
        reach = min(horizon, max(LEAST_SEASON, season))
        self.tried = tuple(range(0, reach, -(-reach // TRIED_ROWS)))  # A rows ahead
        with torch.device("cpu"):  # what follows from the spec has values also where the weights are only described
            origins = tried_origins(context_length, season)
            back = torch.tensor(origins).unsqueeze(1)  # [O, 1]
            tried = torch.tensor(self.tried)  # [A]
            rows = context_length - back + tried  # [O, A]
            before = torch.stack([share_of(context_length, one, season) for one in origins], 1)  # [L, O]
            weight = 0.5 ** (back / (MEMORY * max(LEAST_SEASON, season))) * (tried < back)  # [O, A]
            left = torch.tensor([left for _, left in TRENDS], dtype=torch.float64)  # [T]
            reached = (left.unsqueeze(1) ** torch.arange(1, horizon + 1)).cumsum(1)  # [T, H]
            now, *earlier = (weights_on(context_length, one, patterns, season) for one in (0, *origins))
            tables = {
                "now": now.float(),  # [L, G + P * M]
                "earlier": torch.cat(earlier, 1).float(),  # [L, O * (G + P * M)]
                "before": before.float(),
                "weight": weight.float(),
                "reached": reached.float(),
                "rows": rows.clamp(max=context_length - 1),
                "phase": torch.arange(horizon) % season,  # [H]
                "tried_phase": tried % season,  # [A]
            }
        for name, values in tables.items():
            self.register_buffer(name, values, persistent=False)
        self.register_buffer("share", torch.zeros(()))
        self.sharpness = nn.Parameter(torch.zeros(()))
        self.weights = nn.Linear(width, math.prod(self.kinds))
        self.trust = nn.Linear(width, 1)
        for learned in (self.weights, self.trust):
            nn.init.zeros_(learned.weight)
            nn.init.zeros_(learned.bias)

    def forward(self, state: Tensor, seen: Tensor, observed: Tensor, line: Tensor) -> Tensor:
        """state [..., U], context seen [..., L] and where it has values, linear forecast [..., H] -> [..., H]"""
        found = self.smoothed(seen, self.merit(seen, observed) + self.weights(state))  # [..., H]
        moved: Tensor = line + (self.share + self.trust(state)) * (found - line)
        return moved

    def merit(self, seen: Tensor, observed: Tensor) -> Tensor:
        """[..., L] twice -> [..., K] logarithms of the smoothers' weights, up to a constant, as their errors say."""
        with torch.no_grad():
            errors = self.errors(seen[..., -self.length :], observed[..., -self.length :]) + LEAST_ERROR  # [..., K]
            ratio = (errors / errors.amin(-1, keepdim=True)).clamp(max=LARGEST_RATIO)
        return -SHARPNESS * self.sharpness.exp() * (ratio - 1)

    def errors(self, seen: Tensor, observed: Tensor) -> Tensor:
        """[..., L] twice -> [..., K] absolute errors of forecasts tried from earlier rows, newer ones weighing more.

        Of a long season not every row is asked.
        """
        level, trend, pattern = self.states(seen, self.earlier)  # [..., O, P, R, T], the same, [..., O, P, M]
        known = observed[..., self.rows] * self.weight * (observed @ self.before).unsqueeze(-1)  # [..., O, A]
        freed = seen[..., self.rows].unsqueeze(-2) - pattern[..., self.tried_phase]  # [..., O, P, A]
        errors = seen.new_zeros(*seen.shape[:-1], *self.kinds)  # [..., P, R, T]
        for at, ahead in enumerate(self.tried):
            error = (level + trend * self.reached[:, ahead] - freed[..., at, None, None]).abs()  # [..., O, P, R, T]
            errors = errors + (error * known[..., at, None, None, None]).sum(-4)  # [..., P, R, T]
        return errors.flatten(-3)  # [..., K]

    def smoothed(self, seen: Tensor, merit: Tensor) -> Tensor:
        """[..., L], [..., K] -> [..., H] the forecasts of all smoothers, weighed."""
        level, trend, pattern = (
            one.squeeze(seen.dim() - 1) for one in self.states(seen[..., -self.length :], self.now)
        )
        weight = merit.softmax(-1).view(*merit.shape[:-1], *self.kinds)  # [..., P, R, T]
        found = (weight * level).sum((-3, -2, -1)).unsqueeze(-1)  # [..., 1]
        found = found + (weight * trend).sum((-3, -2)) @ self.reached  # [..., H]
        season = (weight.sum((-2, -1)).unsqueeze(-1) * pattern).sum(-2)  # [..., M]
        return found + season[..., self.phase]  # [..., H]

    def states(self, seen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[..., L], weights [L, O * (G + P * M)] -> levels and trends [..., O, P, R, T] and patterns [..., O, P, M]."""
        count, patterns = math.prod(self.kinds), self.kinds[0]
        each = 2 * count + patterns * self.season
        found = (seen @ weights).view(*seen.shape[:-1], -1, each)  # [..., O, G + P * M]
        level, trend = found[..., :count], found[..., count : 2 * count]  # [..., O, K] each
        shape = found.shape[:-1]
        pattern = found[..., 2 * count :].view(*shape, patterns, self.season)  # [..., O, P, M]
        return level.view(*shape, *self.kinds), trend.view(*shape, *self.kinds), pattern


def smoothing_numbers(context_length: int, season: int) -> tuple[int, int]:
    """How many numbers the matrices hold, and how many each window takes: of states, errors and their products."""
    length = min(context_length, max(LEAST_LENGTH, SEASONS * season))
    kinds = len(PATTERNS) * len(LEVEL_RATES) * len(TRENDS)
    states, origins = 2 * kinds + len(PATTERNS) * season, len(tried_origins(length, season))
    return (1 + origins) * length * states, (1 + origins) * states + 3 * origins * kinds


def tried_origins(context_length: int, season: int) -> tuple[int, ...]:
    """How many rows before the end of a context forecasts are tried from, behind a season and a half at least."""
    most = context_length - max(3 * season // 2, LEAST_SEASON)
    step = max(1, season // A_SEASON)
    return tuple(range(step, most + 1, step))[:ORIGINS] or (max(1, min(season, context_length - 1)),)


def share_of(context_length: int, back: int, season: int) -> Tensor:
    """[L] weights whose product with flags is the share of them that is set in the season before an origin."""
    weights = torch.zeros(context_length, dtype=torch.float64)
    before = weights[max(0, context_length - back - season) : context_length - back]
    before.fill_(1 / len(before))
    return weights


def weights_on(context_length: int, back: int, patterns: tuple[int, ...], season: int) -> Tensor:
    """[L, G + P * M] the smoothers as they stood `back` rows before the end of the context."""
    found = smoothers(context_length - back, patterns, season)
    weights = torch.cat([found.states, found.patterns], 1)  # [L - back, G + P * M]
    return torch.cat([weights, torch.zeros(back, weights.shape[1], dtype=torch.float64)])  # [L, G + P * M]


def smoothers(rows: int, patterns: tuple[int, ...], season: int) -> Smoothers:
    """The smoothers at the end of `rows` rows, as weights on these.

    A pattern is the mean of so many seasons, as far as there are, each less its own mean. A level follows the rows
    freed from their pattern: level += rate · error, trend = left · trend + rate · share · error, where
    error = row - (level + left · trend), from the mean of the first season and no trend.
    """
    eye = torch.eye(rows, dtype=torch.float64)  # [rows, rows] the weights of each row: its own value
    answers, begin = responses(rows)  # [R * T, 2, rows], [R * T, 2]
    states, shapes = [], []
    for count in patterns:
        pattern = torch.zeros(season, rows, dtype=torch.float64)  # [M, rows]
        seasons = min(count, rows // season)
        if seasons:
            newest = eye[-seasons * season :].view(seasons, season, rows)  # [seasons, M, rows]
            pattern = (newest - newest.mean(1, keepdim=True)).mean(0)  # [M, rows]
        phase = (torch.arange(rows) - rows) % season  # [rows]
        freed = eye - pattern[phase]  # [rows, rows]
        states.append(answers @ freed + begin.unsqueeze(-1) * freed[:season].mean(0))  # [R * T, 2, rows]
        shapes.append(pattern)
    state = torch.cat(states)  # [K, 2, rows]
    return Smoothers(state.transpose(0, 1).flatten(0, 1).T, torch.cat(shapes).T)  # [rows, G], [rows, P * M]


def responses(rows: int) -> tuple[Tensor, Tensor]:
    """How level and trend at the end answer each row, oldest first, and the level that they began from.

    [R * T, 2, rows] and [R * T, 2].
    """
    rate, share, left = torch.tensor(
        [(rate, *trend) for rate, trend in product(LEVEL_RATES, TRENDS)], dtype=torch.float64
    ).T  # [R * T] each
    trend = rate * share
    turn = torch.stack([1 - rate, left * (1 - rate), -trend, left * (1 - trend)], -1).view(-1, 2, 2)  # [R * T, 2, 2]
    answer = torch.stack([rate, trend], -1).unsqueeze(-1)  # [R * T, 2, 1] to the newest row
    begin = torch.tensor([[1.0], [0.0]], dtype=torch.float64)  # [2, 1]
    found = []
    for _ in range(rows):
        found.append(answer)
        answer, begin = turn @ answer, turn @ begin  # [R * T, 2, 1] each
    return torch.cat(found[::-1], -1), begin.squeeze(-1)  # [R * T, 2, rows], [R * T, 2]
