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
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor, nn

# What follows is not stored: a change alters the forecasts of saved models.
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
NEWEST = 4
"""Rows that must have values for the smoothers to be followed as far as they are trusted."""
LEAST_WEIGHT = 1e-9
"""Of a row in a level: what is below it is lost in float32 anyway."""
LEAST_SEASON = 4
"""Rows that a tried forecast reaches ahead where the season is shorter."""


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
    share: Tensor

    def __init__(self, context_length: int, horizon: int, season: int, width: int) -> None:
        """`width` U of the state; a `season` of 1 has no pattern."""
        super().__init__()
        self.season, self.length = season, smoothed_rows(context_length, season)
        self.tried = tried_rows(horizon, season)
        self.kinds = (len(patterns_of(season)), len(LEVEL_RATES), len(TRENDS))
        for name, table in tables_of(self.length, horizon, season).items():
            self.register_buffer(name, table, persistent=False)
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
        moved: Tensor = line + (self.share + self.trust(state)) * heard(observed) * (found - line)
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
        level, trend, pattern = self.states(seen, self.earlier)  # [..., O, P, R, T], the same, [..., O, P, A]
        known = observed[..., self.rows] * self.weight * (observed @ self.before).unsqueeze(-1)  # [..., O, A]
        freed = seen[..., self.rows].unsqueeze(-2) - pattern  # [..., O, P, A]
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
        """Levels and trends [..., O, P, R, T] and rows of the patterns [..., O, P, X] at each origin.

        From the context [..., L] by weights [O, L, G + P * X].
        """
        count, (origins, length, each) = math.prod(self.kinds), weights.shape
        found = seen @ weights.transpose(0, 1).reshape(length, origins * each)  # [..., O * (G + P * X)]
        shape = (*seen.shape[:-1], origins)
        found = found.view(*shape, each)  # [..., O, G + P * X]
        level, trend = found[..., :count], found[..., count : 2 * count]  # [..., O, K] each
        pattern = found[..., 2 * count :].reshape(*shape, self.kinds[0], -1)  # [..., O, P, X]
        return level.view(*shape, *self.kinds), trend.view(*shape, *self.kinds), pattern


def heard(observed: Tensor) -> Tensor:
    """[..., L] -> [..., 1] the share of the newest rows that have values: a level needs them, the line less so."""
    return observed[..., -NEWEST:].mean(-1, keepdim=True)


def smoothing_numbers(context_length: int, horizon: int, season: int) -> tuple[int, int]:
    """How many numbers the matrices hold, and how many each window takes: of states, errors and their products."""
    length, patterns = smoothed_rows(context_length, season), len(patterns_of(season))
    kinds, origins = patterns * len(LEVEL_RATES) * len(TRENDS), len(tried_origins(length, season))
    states, compared = 2 * kinds + patterns * season, 2 * kinds + patterns * len(tried_rows(horizon, season))
    return length * (states + origins * compared), states + origins * (compared + 3 * kinds)


def smoothed_rows(context_length: int, season: int) -> int:
    """Newest rows of a context that are smoothed."""
    return min(context_length, max(LEAST_LENGTH, SEASONS * season))


def patterns_of(season: int) -> tuple[int, ...]:
    """The kinds of pattern; without a season there is none."""
    return PATTERNS if season > 1 else PATTERNS[:1]


def tried_rows(horizon: int, season: int) -> tuple[int, ...]:
    """[A] rows ahead in which a tried forecast is compared: of a long season not every one."""
    reach = min(horizon, max(LEAST_SEASON, season))
    return tuple(range(0, reach, -(-reach // TRIED_ROWS)))


@lru_cache(maxsize=2)
def tables_of(length: int, horizon: int, season: int) -> dict[str, Tensor]:
    """What follows from the form of a network, on the CPU also where its weights are only described.

    Kept, as a command builds a network several times: `now` [1, L, G + P * M] and `earlier` [O, L, G + P * A] are the
    smoothers at the end of the context and at the origins; `before` [L, O] the season before each of these; `weight`
    [O, A] of an error; `reached` [T, H] how far a trend of 1 has gone; `rows` [O, A] and `phase` [H] of the forecasts.
    """
    with torch.device("cpu"):
        patterns, kept, ahead = patterns_of(season), tried_rows(horizon, season), torch.arange(horizon)
        origins = tried_origins(length, season)
        answers, begins = responses(length)
        now = smoothers(length, answers, begins, patterns, season)
        columns = [*range(2 * len(patterns) * len(answers))]
        columns += [len(columns) + place * season + row % season for place in range(len(patterns)) for row in kept]
        earlier = torch.zeros(len(origins), length, len(columns))
        for place, one in enumerate(origins):
            found = smoothers(length - one, answers, begins, patterns, season)
            earlier[place, : length - one] = found[:, columns].float()
        back, tried = torch.tensor(origins).unsqueeze(1), torch.tensor(kept)  # [O, 1], [A]
        left = torch.tensor([left for _, left in TRENDS], dtype=torch.float64)  # [T]
        return {
            "now": without_traces(now.unsqueeze(0).float()),
            "earlier": without_traces(earlier),
            "before": torch.stack([share_of(length, one, season) for one in origins], 1).float(),
            "weight": (0.5 ** (back / (MEMORY * max(LEAST_SEASON, season))) * (tried < back)).float(),
            "reached": (left.unsqueeze(1) ** (ahead + 1)).cumsum(1).float(),
            "rows": (length - back + tried).clamp(max=length - 1),
            "phase": ahead % season,
        }


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


def without_traces(weights: Tensor) -> Tensor:
    """The same, 0 where nothing comes of a weight: numbers near the smallest there are take a product fifteen times as
    long."""
    return weights.where(weights.abs() > LEAST_WEIGHT, 0.0)


def smoothers(rows: int, answers: Tensor, begins: Tensor, patterns: tuple[int, ...], season: int) -> Tensor:
    """[rows, G + P * M] levels, trends and patterns at the end of `rows` rows, as weights on these.

    A pattern is the mean of so many seasons, as far as there are, each less its own mean, its first row the one that
    follows. A level follows the rows freed from their pattern: level += rate · error, trend = left · trend +
    rate · share · error, where error = row - (level + left · trend), from the mean of the first season and no trend.
    `answers` and `begins` are the `responses`.
    """
    eye = torch.eye(rows, dtype=torch.float64)  # [rows, rows] the weights of each row: its own value
    states, shapes = [], []
    for count in patterns:
        pattern = torch.zeros(season, rows, dtype=torch.float64)  # [M, rows]
        seasons = min(count, rows // season)
        if seasons:
            newest = eye[-seasons * season :].view(seasons, season, rows)  # [seasons, M, rows]
            pattern = (newest - newest.mean(1, keepdim=True)).mean(0)  # [M, rows]
        phase = (torch.arange(rows) - rows) % season  # [rows]
        freed = eye - pattern[phase]  # [rows, rows]
        states.append(answers[..., -rows:] @ freed + begins[rows].unsqueeze(-1) * freed[:season].mean(0))
        shapes.append(pattern)
    state = torch.cat(states)  # [K, 2, rows]
    return torch.cat([*state.transpose(0, 1), *shapes]).T  # [rows, G + P * M]


def responses(length: int) -> tuple[Tensor, Tensor]:
    """How level and trend at the end answer each row, oldest first, and the level that they began from.

    [R * T, 2, length], and [length + 1, R * T, 2] after so many rows.
    """
    rate, share, left = torch.tensor(
        [(rate, *trend) for rate, trend in product(LEVEL_RATES, TRENDS)], dtype=torch.float64
    ).T  # [R * T] each
    trend = rate * share
    turn = torch.stack([1 - rate, left * (1 - rate), -trend, left * (1 - trend)], -1).view(-1, 2, 2)  # [R * T, 2, 2]
    answer = torch.stack([rate, trend], -1).unsqueeze(-1)  # [R * T, 2, 1] to the newest row
    begin = torch.tensor([[1.0], [0.0]], dtype=torch.float64).expand(len(rate), 2, 1)  # [R * T, 2, 1]
    answers, begins = [], [begin]
    for _ in range(length):
        answers.append(answer)
        answer, begin = turn @ answer, turn @ begin  # [R * T, 2, 1] each
        begins.append(begin)
    return torch.cat(answers[::-1], -1), torch.stack(begins).squeeze(-1)
