"""Which rows train, choose and judge, by a slow reading of the rules."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from stacklstm_cli.training.parts import cut_parts


def parts_by_rule(length: int, horizon: int, least_train: int, holdout: int | None) -> tuple[int, int]:
    """(validation rows, holdout rows) of one series; 15 % in whole numbers, as the rule is meant."""
    share = horizon
    while share * 100 < 15 * length:
        share += horizon
    wishes = [(share, share), (horizon, horizon), (horizon, 0)]
    if holdout is not None:
        wishes = [(share, holdout), (horizon, holdout), (horizon, 0)]
    for validation, judging in wishes:
        if length - validation - judging >= least_train:
            return validation, judging
    return 0, 0


@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=6),
    horizon=st.integers(1, 60),
    least_train=st.integers(1, 200),
    holdout=st.none() | st.integers(0, 300),
)
@example(lengths=[20, 100, 140, 200, 460, 1000, 2000], horizon=3, least_train=10, holdout=None)
@example(lengths=[100], horizon=24, least_train=52, holdout=None)
@example(lengths=[100], horizon=24, least_train=53, holdout=None)
@example(lengths=[100], horizon=24, least_train=77, holdout=None)
def test_parts_follow_the_rule(lengths: list[int], horizon: int, least_train: int, holdout: int | None) -> None:
    """Wrong if any series gets another share than the rule gives it, or the parts overlap or leave rows out."""
    parts = cut_parts(np.asarray(lengths), horizon, least_train, holdout)
    assert parts.end.tolist() == lengths
    assert (parts.train <= parts.validation).all()
    assert (parts.validation <= parts.end).all()
    assert (parts.train >= 0).all()
    found = list(zip((parts.validation - parts.train).tolist(), (parts.end - parts.validation).tolist(), strict=True))
    assert found == [parts_by_rule(length, horizon, least_train, holdout) for length in lengths]


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=6),
    horizon=st.integers(1, 30),
    least_train=st.integers(1, 100),
)
def test_shares_are_whole_horizons_and_leave_enough_to_train(
    lengths: list[int], horizon: int, least_train: int
) -> None:
    """Wrong if origins one horizon apart would leave rows unused, or a series with parts trains on too little."""
    parts = cut_parts(np.asarray(lengths), horizon, least_train, None)
    validation, holdout = parts.validation - parts.train, parts.end - parts.validation
    assert (validation % horizon == 0).all()
    assert (holdout % horizon == 0).all()
    cut = parts.train < parts.end
    assert (parts.train[cut] >= least_train).all()
    assert not (holdout[validation == 0]).any()  # nothing judges what nothing has chosen


def test_counts_of_series_with_parts() -> None:
    """Wrong if series without a part are counted as having one."""
    parts = cut_parts(np.asarray([200, 44, 40, 12]), horizon=10, least_train=25, holdout=None)
    assert (int((parts.validation > parts.train).sum()), parts.judging) == (3, 1)


def test_a_series_is_cut_the_same_in_any_company() -> None:
    """Wrong if the parts of one series depend on the others."""
    together = cut_parts(np.asarray([500, 90, 30]), horizon=12, least_train=20, holdout=None)
    for index, length in enumerate([500, 90, 30]):
        alone = cut_parts(np.asarray([length]), horizon=12, least_train=20, holdout=None)
        assert alone.train[0] == together.train[index]
        assert alone.validation[0] == together.validation[index]


def test_end_is_a_copy() -> None:
    """Wrong if a later change of the lengths moves the parts."""
    lengths = np.asarray([100])
    parts = cut_parts(lengths, 5, 10, None)
    lengths[0] = 1
    assert parts.end[0] == 100
