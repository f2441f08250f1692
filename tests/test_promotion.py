"""Champion and challenger: what each may see, who stands for whom, and how the gate decides."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clocks import StopsAfter
from panels import EVERY_INPUT, every_covariate, make_panel, shaken_network, small_spec, wave
from torch import Tensor

from stacklstm_cli.config import EvaluationConfig, MetricConfig, ModelConfig, RetrainConfig, TrainingConfig
from stacklstm_cli.data.covariates import ROLES
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Covariate, Panel
from stacklstm_cli.errors import NothingLearnedError, UsageError
from stacklstm_cli.evaluation.comparison import Comparison
from stacklstm_cli.evaluation.conformal import Residuals
from stacklstm_cli.evaluation.scoring import evaluate
from stacklstm_cli.model.calibration import Calibration
from stacklstm_cli.model.checkpoint import Checkpoint, given_options, load, save
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.training import promotion
from stacklstm_cli.training.continuation import (
    CHANGEABLE,
    FromWeights,
    continued_options,
    fitted_to,
    with_new_categories,
)
from stacklstm_cli.training.defaults import resolve
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.parts import Parts
from stacklstm_cli.training.promotion import (
    CHALLENGER,
    CHAMPION,
    ENOUGH_UNITS,
    Retrained,
    contest_origins,
    decide,
    look,
    moved_behind,
    own_calibration,
    retrain,
)
from stacklstm_cli.training.runtime import Clock, Interrupted

CPU = torch.device("cpu")
HORIZON, SEASON = 6, 12
MODEL = ModelConfig(layers=1, hidden_size=(4,), context_length=24, patch_length=4, horizon=HORIZON)
FEW = TrainingConfig(epochs=2)


def grown(rows: int, short: int = 46, seed: int = 0) -> Panel:
    """Two series of which the first has so many rows, the other 60 fewer; and one too short to judge on."""
    return make_panel(
        wave(400, seed, SEASON)[:rows], 9 * wave(400, 1, SEASON)[: rows - 60], 3 * wave(90, 2, SEASON)[:short]
    )


def trained(panel: Panel, model: ModelConfig = MODEL, training: TrainingConfig = FEW) -> Checkpoint:
    plan = resolve(panel, model, training, MetricConfig(seasonality=SEASON))
    return Trainer(panel, plan, device=CPU, clock=Clock()).run(given_options(model, training)).checkpoint


def night(
    champion: Checkpoint, panel: Panel, clock: Clock | None = None, typed: dict[str, Any] | None = None, **config: Any
) -> Retrained:
    changed = look(champion, panel)
    return retrain(champion, panel, changed, RetrainConfig(**config), typed or {}, device=CPU, clock=clock or Clock())


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model of 200 rows, from its file."""
    path = tmp_path_factory.mktemp("champion") / "m"
    save(trained(grown(200)), path)
    return load(path)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class TestFairness:
    @pytest.mark.parametrize(
        ("rows", "side"), [(201, "judged"), (206, "judged"), (224, "judged"), (260, "judged"), (330, "final")]
    )
    @pytest.mark.parametrize("from_scratch", [False, True])
    def test_neither_has_seen_the_rows_that_judge(
        self, rows: int, side: str, from_scratch: bool, champion: Checkpoint
    ) -> None:
        """Changing every value from the first judged row on moves no weight of the challenger, and the champion's
        weights were fitted to rows before it."""
        panel = grown(rows)
        found = night(champion, panel, from_scratch=from_scratch)
        side = "final" if rows == 260 and from_scratch else side
        assert found.trial.side == side
        parts, values = found.plan.parts, panel.values.copy()
        for index, offset in enumerate(panel.offsets[:-1].tolist()):
            judged = slice(offset + int(parts.validation[index]), offset + int(parts.end[index]))
            values[judged] = 1000 * np.random.default_rng(3).normal(size=values[judged].size)
        again = night(champion, replace(panel, values=values), from_scratch=from_scratch, gate="always")
        assert same(found.fits[0].weights, again.fits[0].weights)
        last = champion.trained_to if side == "final" else champion.judged_to
        assert found.contest is not None
        assert (last <= parts.validation)[np.unique(found.contest.origins.series)].all()
        assert (found.contest.origins.rows >= parts.validation[found.contest.origins.series]).all()

    def test_the_newest_rows_judge(self, champion: Checkpoint) -> None:
        found = night(champion, grown(206))
        assert found.contest is not None
        for index in (0, 1):
            own = found.contest.origins.rows[found.contest.origins.series == index]
            assert own.max() == grown(206).lengths[index] - HORIZON

    def test_the_challenger_learns_what_the_night_has_brought(self, champion: Checkpoint) -> None:
        """A row that was new to judge last time is learned now; the refit knows the newest."""
        panel = grown(206)
        found = night(champion, panel)
        assert (found.plan.parts.train[:2] > champion.judged_to[:2] - 42).all()
        assert found.checkpoint is not None
        assert found.checkpoint.trained_to.tolist() == panel.ends.tolist()
        values = panel.values.copy()
        values[panel.offsets[1] - 1] += 30
        other = night(champion, replace(panel, values=values), gate="always")
        assert other.checkpoint is not None
        assert not same(found.checkpoint.final, other.checkpoint.final)

    def test_weights_go_on_from_the_champions(self, champion: Checkpoint) -> None:
        """With a learning rate that moves nothing, challenger and refit are the champion's judged and final weights."""
        found = night(champion, grown(206), typed={"learning_rate": 1e-8, "weight_decay": 0.0})
        assert found.checkpoint is not None
        assert champion.judged is not None
        for weights, before in ((found.fits[0].weights, champion.judged), (found.checkpoint.final, champion.final)):
            for name, tensor in weights.items():
                torch.testing.assert_close(tensor, before[name], atol=1e-5, rtol=1e-5)

    def test_shares_that_grow_never_go_back_behind_what_was_seen(self) -> None:
        parts = Parts(np.array([100, 50]), np.array([110, 60]), np.array([120, 60]))
        moved = moved_behind(parts, np.array([114, 80]))
        assert moved.validation.tolist() == [114, 60]
        assert moved.train.tolist() == [104, 50]
        assert moved_behind(parts, np.array([90, 10])).validation.tolist() == [110, 60]

    def test_a_night_chain_stays_fair(self, champion: Checkpoint, tmp_path: Path) -> None:
        """Each night's judged weights have seen exactly up to where that night's judging began."""
        current = champion
        for rows in range(203, 225, 7):
            found = night(current, grown(rows), gate="always")
            assert found.checkpoint is not None
            seen = current.judged_to[:2]
            assert (found.plan.parts.validation[:2] >= seen).all()
            assert found.checkpoint.judged_to[:2].tolist() == found.plan.parts.validation[:2].tolist()
            save(found.checkpoint, tmp_path / "m")
            current = load(tmp_path / "m")
        assert len(current.lineage) == 4


@pytest.fixture(scope="module")
def blind() -> Checkpoint:
    """A model that was trained on all its rows."""
    return trained(grown(200), training=replace(FEW, holdout=0))


class TestWithoutJudgedWeights:
    def test_new_rows_judge_where_a_horizon_of_them_is_there(self, blind: Checkpoint) -> None:
        found = night(blind, grown(206))
        assert found.contest is not None
        assert found.trial.side == "final"
        assert found.contest.origins.rows.tolist() == [200, 140]
        assert found.checkpoint is not None
        assert found.checkpoint.judged is not None
        assert found.checkpoint.trained_to.tolist() == grown(206).ends.tolist()

    @pytest.mark.parametrize(("gate", "promoted"), [("unless-worse", True), ("always", True), ("strict", False)])
    def test_fewer_new_rows_are_decided_all_the_same(self, gate: str, promoted: bool, blind: Checkpoint) -> None:
        found = night(blind, grown(203), gate=gate)
        assert found.contest is None
        assert found.decision.promoted == promoted
        assert (found.checkpoint is not None) == promoted

    def test_no_refit(self) -> None:
        """The saved weights are those that were chosen; the next challenger is judged on newer rows."""
        kept = trained(grown(200), training=replace(FEW, refit=False))
        found = night(kept, grown(206))
        assert found.contest is not None
        assert found.checkpoint is not None
        assert found.checkpoint.judged is None
        assert (found.checkpoint.trained_to[:2] >= kept.trained_to[:2]).all()
        assert (found.checkpoint.trained_to < found.checkpoint.data_to).any()
        assert night(kept, grown(200), gate="always").changes.nothing_new


def compared(difference: float, p_value: float, relative: float = math.nan) -> Comparison:
    return Comparison("mase", difference, relative, None, p_value, 9, "cutoffs")


@pytest.mark.parametrize(
    ("comparison", "gate", "promoted", "why"),
    [
        (compared(-1, 0.5), "unless-worse", True, "better"),
        (compared(1, 0.5), "unless-worse", True, "not_clearly_worse"),
        (compared(1, 0.09, 0.5), "unless-worse", False, "clearly_worse"),
        (compared(1, 0.09), "unless-worse", False, "clearly_worse"),
        (compared(1, 0.11, 0.5), "unless-worse", True, "not_clearly_worse"),
        (compared(1, 0.001, 0.009), "unless-worse", True, "not_clearly_worse"),
        (compared(-1, 0.09), "strict", True, "clearly_better"),
        (compared(-1, 0.11), "strict", False, "not_clearly_better"),
        (compared(1, 0.001), "strict", False, "not_clearly_better"),
        (compared(1, 0.0), "always", True, "always"),
        (compared(0, math.nan), "unless-worse", True, "too_few_origins"),
        (compared(9, math.nan), "strict", False, "too_few_origins"),
        (None, "unless-worse", True, "too_few_origins"),
        (None, "strict", False, "too_few_origins"),
        (None, "always", True, "always"),
    ],
)
def test_every_gate_decides(comparison: Comparison | None, gate: str, promoted: bool, why: str) -> None:
    """One-sided at 5 %; a difference within 1 % counts as level."""
    decision = decide(gate, comparison, None)
    assert (decision.promoted, decision.why) == (promoted, why)


@pytest.mark.parametrize("gate", ["strict", "unless-worse", "always"])
def test_a_forecast_that_is_no_number_passes_no_gate(gate: str, champion: Checkpoint) -> None:
    contest = night(champion, grown(206)).contest
    assert contest is not None
    contest.forecasts[CHALLENGER][0, 0, 0] = math.nan
    assert decide(gate, compared(-1, 0.0), contest).why == "not_finite"


def test_a_much_worse_challenger_is_refused(champion: Checkpoint) -> None:
    """One that was fitted badly on purpose; the champion is not touched."""
    before = {name: tensor.clone() for name, tensor in champion.final.items()}
    found = night(champion, grown(224), from_scratch=True, typed={"learning_rate": 10.0, "grad_clip": 0.0})
    assert found.decision.why == "clearly_worse"
    assert found.checkpoint is None
    assert same(before, champion.final)


@pytest.mark.parametrize(
    ("rooms", "expected"),
    [((6,), [6]), ((12,), list(range(6, 13))), ((60,), None), ((6,) * 9, [6] * 9), ((3,), [])],
)
def test_origins_lie_closer_where_they_are_few(rooms: tuple[int, ...], expected: list[int] | None) -> None:
    """Rows behind each series' last training row -> its origins, counted from there to the end of the first horizon."""
    first = np.full(len(rooms), 50)
    found = contest_origins(Parts(first, first, first + rooms), HORIZON)
    if expected is None:
        assert np.diff(found.rows).tolist() == [HORIZON] * 9
    else:
        assert (found.rows - first[0] + HORIZON).tolist() == expected
    assert not expected or len(expected) <= max(ENOUGH_UNITS, len(rooms))


def shifted(champion: Checkpoint, scales: float) -> Checkpoint:
    """The champion with each of its quantiles moved so many scales away from the median."""
    assert champion.calibration is not None
    away = np.sign(np.asarray(champion.spec.quantiles) - 0.5)  # [Q]
    moved = replace(champion.calibration, offsets=np.tile(scales * away, (HORIZON, 1)))
    return replace(champion, calibration=moved, judged_calibration=moved)


def levels_after(found: Retrained) -> list[float]:
    assert found.checkpoint is not None
    assert found.checkpoint.calibration is not None
    return found.checkpoint.calibration.effective.tolist()


class TestLevels:
    """Adaptive conformal inference from night to night."""

    @pytest.mark.parametrize("from_scratch", [False, True])
    def test_intervals_that_held_too_little_get_wider(self, from_scratch: bool, champion: Checkpoint) -> None:
        """By hand: one cutoff of each of two series lies beyond every quantile, or within all of them."""
        now = {"from_scratch": from_scratch, "gate": "always"}
        narrow = levels_after(night(shifted(champion, -90), grown(206), **now))
        wide = levels_after(night(shifted(champion, 90), grown(206), **now))
        assert narrow[0] < 0.1
        assert narrow[2] > 0.9
        # A value is above the median or below it; of those on a side, none is held by an interval without width.
        assert narrow[2] - narrow[0] == pytest.approx(0.8 + 2 * 0.02 * (1 - 0.2))
        assert wide == pytest.approx([0.1 + 2 * 0.02 * 0.1, 0.5, 0.9 - 2 * 0.02 * 0.1])

    def test_each_new_row_counts_once(self, champion: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        """Over nights of few rows and of many, also of one that refused; forecast by weights that had not seen it."""
        counted: Counter[int] = Counter()
        adapted = promotion.adapted

        def recorded(calibration: Calibration, residuals: Residuals) -> Calibration:
            rows = residuals.cutoffs[:, None] + 1 + np.arange(HORIZON)
            counted.update(rows[~np.isnan(residuals.actual)].tolist())
            first = np.where(residuals.cutoffs + 1 > 160, current.judged_to[0], current.judged_to[1])
            assert (residuals.cutoffs + 1 >= first).all()
            return adapted(calibration, residuals)

        monkeypatch.setattr(promotion, "adapted", recorded)
        current = champion
        for rows, gate in ((201, "always"), (203, "always"), (204, "strict"), (207, "always"), (225, "always")):
            found = night(current, grown(rows), gate=gate)
            if gate == "strict":
                assert found.checkpoint is None
            current = found.checkpoint or current
        # The third series has no new rows, the first ones begin at the same position.
        assert counted == Counter([*range(200, 225), *range(140, 165)])

    def test_as_many_rows_move_as_far(self, champion: Checkpoint) -> None:
        """Six nights of one row, whose values all miss, move the levels as one night of six rows."""
        one = levels_after(night(shifted(champion, -90), grown(206), gate="always"))
        current = shifted(champion, -90)
        for rows in range(201, 207):
            found = night(current, grown(rows), gate="always")
            assert found.checkpoint is not None
            current = shifted(found.checkpoint, -90)
        several = levels_after(found)
        assert several[2] - several[0] == pytest.approx(one[2] - one[0], abs=0.002)

    def test_new_and_vanished_series_and_missing_values(self, champion: Checkpoint, tmp_path: Path) -> None:
        """A new series has nothing to count; a value that is missing neither."""
        panel = grown(212)
        values = panel.values.copy()
        values[205:208] = np.nan
        changed = replace(panel, keys=(("s0",), ("other",), ("s2",)), values=values)
        found = night(champion, changed, gate="always")
        assert found.changes.vanished_series == 1
        assert found.checkpoint is not None
        save(found.checkpoint, tmp_path / "m")
        assert load(tmp_path / "m").calibration is not None
        assert levels_after(found) != [0.1, 0.5, 0.9]

    def test_rows_that_are_revised_or_gone_count_nothing(self, champion: Checkpoint) -> None:
        assert levels_after(night(champion, grown(198), gate="always")) == [0.1, 0.5, 0.9]
        revised = grown(200)
        revised.values[100] += 5
        assert levels_after(night(champion, revised, gate="always")) == [0.1, 0.5, 0.9]

    def test_nothing_carries_over_to_other_quantiles(self, champion: Checkpoint) -> None:
        typed = {"quantiles": (0.2, 0.8)}
        found = night(shifted(champion, -90), grown(206), typed=typed, from_scratch=True, gate="always")
        assert levels_after(found) == [0.2, 0.5, 0.8]

    def test_models_without_calibration(self, champion: Checkpoint) -> None:
        """Of an earlier version: its successor has one, at the levels that were learned. Point forecasts never do."""
        old = replace(champion, calibration=None, judged_calibration=None)
        assert levels_after(night(old, grown(206), gate="always")) == [0.1, 0.5, 0.9]
        point = night(trained(grown(200), replace(MODEL, loss="mae")), grown(206), gate="always")
        assert point.checkpoint is not None
        assert point.checkpoint.calibration is None

    def test_weights_that_were_chosen_stand_with_a_calibration_that_has_not_seen_the_rest(self) -> None:
        kept = trained(grown(200), training=replace(FEW, refit=False))
        found = night(kept, grown(206), gate="always")
        assert found.trial.side == "final"
        assert own_calibration(kept, found.trial) is kept.judged_calibration is not kept.calibration

    def test_equal_runs_give_equal_files_and_evaluate_changes_nothing(
        self, champion: Checkpoint, tmp_path: Path
    ) -> None:
        for name in ("a", "b"):
            found = night(shifted(champion, -90), grown(206), gate="always")
            assert found.checkpoint is not None
            if name == "b":
                evaluate(found.checkpoint, grown(240), EvaluationConfig(), MetricConfig(), CPU)
            save(found.checkpoint, tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class TestOptions:
    def test_each_option_of_the_network_needs_a_new_one_or_leaves_its_weights(self, champion: Checkpoint) -> None:
        """`CHANGEABLE` alone may be typed without --from-scratch."""
        other = ModelConfig(
            layers=3, hidden_size=(9,), cell="gru", bidirectional=True, attention=True, residual=False, layer_norm=True,
            dilations=(2,), dropout=0.5, recurrent_dropout=0.5, forget_bias=1.0, context_length=30, patch_length=2,
            horizon=3, quantiles=(0.3,), interval=(50.0,), skip=False, loss="mae", supervise="all", calendar=False,
            holidays="US", gaps="ffill", transform="log1p", min=0.0, max=9.0,
        )  # fmt: skip
        for name, value in vars(other).items():
            if name in CHANGEABLE:
                model, _ = continued_options(champion, {name: value}, from_scratch=False)
                assert getattr(model, name) == value
                continue
            with pytest.raises(UsageError, match="--" + name.replace("_", "-")) as caught:
                continued_options(champion, {name: value}, from_scratch=False)
            assert "--from-scratch" in caught.value.hint
            assert getattr(continued_options(champion, {name: value}, from_scratch=True)[0], name) == value

    def test_what_is_typed_as_it_was_is_no_change(self, champion: Checkpoint) -> None:
        """As where one configuration file serves all commands."""
        model, training = continued_options(champion, {"layers": 1, "seed": 4}, from_scratch=False)
        assert (model.layers, training.seed, training.max_time) == (1, 4, None)

    def test_training_options_hold_for_one_run(self, champion: Checkpoint) -> None:
        found = night(champion, grown(206), typed={"learning_rate": 1e-4, "seed": 5})
        assert found.checkpoint is not None
        assert found.plan.schedule.learning_rate == 1e-4
        assert found.checkpoint.options["seed"] == 0
        assert found.checkpoint.options["learning_rate"] is None
        assert found.checkpoint.training["seed"] == 5

    def test_the_rate_is_lower_every_night_but_not_lower_each_night(self, champion: Checkpoint) -> None:
        rates = []
        current = champion
        for rows in (206, 212):
            found = night(current, grown(rows), gate="always")
            assert found.checkpoint is not None
            rates.append(found.plan.schedule.learning_rate)
            current = found.checkpoint
        assert rates[0] == rates[1] < champion.training["learning_rate"]

    def test_a_new_network_has_the_horizon_of_the_old_one_unless_another_is_typed(self, champion: Checkpoint) -> None:
        found = night(champion, grown(260), from_scratch=True, typed={"layers": 2}, gate="always")
        assert found.checkpoint is not None
        assert (found.checkpoint.spec.layers, found.checkpoint.spec.horizon) == (2, HORIZON)
        assert found.checkpoint.options["layers"] == 2
        shorter = night(champion, grown(260), from_scratch=True, typed={"horizon": 3}, gate="always")
        assert shorter.contest is not None
        assert shorter.contest.horizon == 3
        assert shorter.plan.spec.horizon == 3


class TestCovariates:
    def panel(self, rows: int) -> Panel:
        return every_covariate(make_panel(wave(400, 0, SEASON)[:rows]), ahead=HORIZON)

    def test_a_new_category_begins_as_unknown_and_moves_no_other(self) -> None:
        """Known ones forecast the same bytes, wherever the new one is put."""
        spec = small_spec(inputs=EVERY_INPUT)
        network = shaken_network(spec, dtype=torch.float32)
        more = tuple(
            replace(one, categories=("0 new", *one.categories)) if one.categories else one
            for one in EVERY_INPUT.covariates
        )
        wider = replace(spec, inputs=replace(EVERY_INPUT, covariates=more))
        other = shaken_network(wider, dtype=torch.float32)
        other.load_state_dict(fitted_to(network.state_dict(), spec, wider))
        panel, origins = self.panel(60), Origins(np.array([0, 0]), np.array([40, 50]))
        forecasts = [Forecaster(one, CPU).forecast(panel, origins, 4, (0.5,)) for one in (network, other)]
        assert forecasts[0].tobytes() == forecasts[1].tobytes()
        for role in ROLES:
            rows = other.state_dict()[f"{role}.embeddings.0"]
            assert torch.equal(rows[0], rows[1])

    def test_known_categories_stay_and_new_ones_come_behind_them(self) -> None:
        known = (Covariate("n", "past"), Covariate("c", "known", ("b", "a")))
        found = (Covariate("n", "past"), Covariate("c", "known", ("a", "z")))
        assert with_new_categories(known, found)[1].categories == ("b", "a", "z")
        full = (Covariate("c", "known", tuple(map(str, range(255)))),)
        many = (Covariate("c", "known", ("x", "y", "z")),)
        assert len(with_new_categories(full, many)[0].categories or ()) == 256

    def test_statistics_are_the_champions_unless_asked(self) -> None:
        panel = self.panel(200)
        kept = trained(panel)
        later = self.panel(212)
        later.timed[:] += 5 * (np.arange(later.timed.shape[1]) == 0)
        for refit_scaling in (False, True):
            found = night(kept, later, refit_scaling=refit_scaling, gate="always")
            assert found.checkpoint is not None
            moved = not torch.equal(found.checkpoint.final["past.mean"], kept.final["past.mean"])
            assert moved == refit_scaling

    def test_from_weights_without_statistics(self) -> None:
        spec = small_spec(inputs=EVERY_INPUT)
        source, target = shaken_network(spec, 1, torch.float32), shaken_network(spec, 2, torch.float32)
        target.set_statistics(np.full(6, 7.0), np.full(6, 8.0))
        FromWeights(source.state_dict(), keep_statistics=False).apply_to(target)
        assert target.state_dict()["past.mean"].tolist() == [7.0]
        assert torch.equal(target.head.weight, source.head.weight)


class TestEnds:
    def test_equal_runs_give_equal_files(self, champion: Checkpoint, tmp_path: Path) -> None:
        for name in ("a", "b"):
            found = night(champion, grown(206))
            assert found.checkpoint is not None
            save(found.checkpoint, tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_the_lineage_says_what_was_decided(self, champion: Checkpoint) -> None:
        found = night(champion, grown(206))
        assert found.checkpoint is not None
        assert found.contest is not None
        entry = found.checkpoint.lineage[-1]
        assert entry["parent"] == champion.id
        assert entry["rows_added"] == 6 + 6
        assert entry["last"] == grown(206).stamps([205])[0]
        assert entry["challenger"]["mase"] == found.contest.metrics()[CHALLENGER]["mase"]
        assert entry["champion"]["mae"] == found.contest.metrics()[CHAMPION]["mae"]

    def test_stored_metrics_are_those_of_the_challenger_on_the_holdout(self, champion: Checkpoint) -> None:
        """What `evaluate` prints for the new model on the same file."""
        found = night(champion, grown(206))
        assert found.checkpoint is not None
        scored = evaluate(found.checkpoint, grown(206), EvaluationConfig(), MetricConfig(), CPU)
        assert scored.rows == "holdout"
        assert scored.backtest.metrics() == found.checkpoint.metrics

    def test_no_time_for_the_newest_rows_keeps_the_champion(
        self, champion: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(NothingLearnedError) as caught:
            night(champion, grown(206), StopsAfter(3, "time", monkeypatch))
        assert caught.value.code == "no_refit"
        assert "No time was left" in caught.value.message

    def test_a_refit_that_diverges_keeps_the_champion(
        self, champion: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def diverged(*arguments: Any) -> None:
            return None

        monkeypatch.setattr(Trainer, "refit", diverged)
        with pytest.raises(NothingLearnedError, match=r"diverged when .* all rows; the model is as it was") as caught:
            night(champion, grown(206), typed={"learning_rate": 1e-3}, gate="always")
        assert "--learning-rate" in caught.value.hint

    def test_a_new_network_without_time_for_a_whole_refit_is_the_one_that_was_judged(
        self, champion: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = night(champion, grown(260), from_scratch=True, gate="always")
        clock = StopsAfter(whole.fits[0].steps + 500, "time", monkeypatch)
        clock.left = len(whole.fits[0].history) and whole.fits[0].history[-1]["step"] + 3  # type: ignore[assignment]
        found = night(champion, grown(260), clock, from_scratch=True, gate="always")
        assert found.stopped == "time"
        assert found.checkpoint is not None
        assert same(found.checkpoint.final, found.fits[0].weights)
        assert found.checkpoint.trained_to.tolist() == found.plan.parts.validation.tolist()

    def test_a_signal_leaves_the_champion(self, champion: Checkpoint) -> None:
        clock = Clock()
        clock.signal_number = 15
        with pytest.raises(Interrupted):
            night(champion, grown(206), clock)
