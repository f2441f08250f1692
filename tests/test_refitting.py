"""Networks fitted anew on the way of a backtest: when, on what, and that nothing later reaches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ok
from layouts import SMALL, stamps
from panels import every_covariate, join_series, make_panel, wave

from stacklstm_cli.config import EvaluationConfig, MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.origins import Origins, known_at
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import DataError, NothingLearnedError
from stacklstm_cli.evaluation.scoring import REFITTED, evaluate
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import Checkpoint, load, save
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.training.defaults import resolve
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.refitting import UNTOLD_STRENGTH, Refitting, cutoffs_of, ridge_of
from stacklstm_cli.training.runtime import Clock

CPU = torch.device("cpu")
HORIZON, QUANTILES = 6, (0.1, 0.5, 0.9)


def train(panel: Panel, **training: Any) -> Checkpoint:
    model = ModelConfig(layers=1, hidden_size=(4,), context_length=24, patch_length=4, horizon=HORIZON)
    plan = resolve(panel, model, TrainingConfig(**training), MetricConfig(seasonality=12))
    plan = replace(plan, schedule=replace(plan.schedule, max_steps=6, check_every=2, warmup=2))
    return Trainer(panel, plan, device=CPU, clock=Clock()).run({}).checkpoint


def whole() -> Panel:
    """Two series with gaps and covariates of every kind that end at different rows of the grid, 200 and 190."""
    one, other = wave(200, 0, 12), 10 * wave(150, 1, 12)
    one[[30, 31, 160]] = np.nan
    return every_covariate(make_panel(one, other, starts=[0, 40]), ahead=HORIZON)


@pytest.fixture(autouse=True)
def naive_baselines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are fitted take longer than everything else here."""
    monkeypatch.setattr("stacklstm_cli.evaluation.statistical.installed", lambda: False)


@pytest.fixture(scope="module")
def saved() -> Checkpoint:
    return train(known_at(whole(), 169))


def refitting(saved: Checkpoint, panel: Panel, origins: Origins, every: int = 1, **more: Any) -> Refitting:
    forecaster = Forecaster(saved.network(saved.final), CPU)
    return Refitting(saved, forecaster, panel, origins, every, **({"clock": Clock()} | more))


def origins_of(*pairs: tuple[int, int]) -> Origins:
    series, rows = np.asarray(sorted(pairs)).T
    return Origins(series, rows)


class TestKnown:
    def test_is_what_a_shorter_file_holds(self) -> None:
        """Rows up to the position, series that have begun, and an observed value at the end of each."""
        panel = make_panel([1, 2, np.nan, 4, 5], [7, 8], [9.0], starts=[0, 3, 4])
        found = known_at(panel, 2)
        assert (found.keys, found.values.tolist(), found.offsets.tolist()) == ((("s0",),), [1, 2], [0, 2])
        found = known_at(panel, 3)
        assert found.keys == (("s0",), ("s1",))
        np.testing.assert_array_equal(found.values, [1, 2, np.nan, 4, 7])
        assert (found.offsets.tolist(), found.starts.tolist()) == ([0, 4, 5], [0, 3])
        with pytest.raises(ValueError, match="no series"):
            known_at(panel, -1)

    def test_covariates_go_with_their_series(self) -> None:
        """The second series alone is left with its own rows and its own static ones."""
        panel = every_covariate(make_panel(wave(30), wave(20), starts=[10, 0]), ahead=4)
        found = known_at(panel, 9)
        assert found.keys == (("s1",),)
        np.testing.assert_array_equal(found.static, panel.static[1:])
        assert (found.timed_at.tolist(), found.timed_rows.tolist()) == ([34], [24])


class TestRefitting:
    def test_at_the_end_of_the_training_data_it_is_the_saved_model(self, saved: Checkpoint) -> None:
        """The same rows, steps, strength and seed give the same weights, bit for bit."""
        known = known_at(whole(), 169)
        found = refitting(saved, whole(), origins_of((0, 170))).fit(0)
        assert saved.data["fingerprint"] == known.fingerprint()
        assert found.keys() == saved.final.keys()
        for name, tensor in saved.final.items():
            assert torch.equal(found[name], tensor), name

    @pytest.mark.parametrize("every", [1, 2, 5])
    def test_each_origin_has_the_newest_network_before_it(self, saved: Checkpoint, every: int) -> None:
        """Against a loop that cuts the panel and trains for every group of cutoffs by itself."""
        panel = whole()
        origins = origins_of((0, 172), (0, 178), (0, 184), (1, 132), (1, 141))  # cutoffs 171, 177, 183; 171, 180
        found = refitting(saved, panel, origins, every).forecast(panel, origins, HORIZON, QUANTILES)
        cutoffs = sorted({171, 177, 180, 183})
        for at, (series, rows) in enumerate(zip(origins.series, origins.rows, strict=True)):
            place = cutoffs.index(int(panel.starts[series] + rows - 1)) // every * every
            network = train_as(saved, known_at(panel, cutoffs[place]))
            one = Origins(origins.series[at : at + 1], origins.rows[at : at + 1])
            expected = Forecaster(network, CPU).forecast(panel, one, HORIZON, QUANTILES)
            np.testing.assert_allclose(found[at], expected[0], rtol=1e-6)

    def test_nothing_after_the_cutoff_reaches_a_forecast(self, saved: Checkpoint) -> None:
        """Values and past covariates after it may be anything; before it they matter."""
        panel, origins = whole(), origins_of((0, 176), (1, 136))  # both known up to row 175 of the grid

        def forecast(values: Sequence[float], timed: Any) -> Any:
            other = replace(panel, values=np.asarray(values), timed=timed)
            return refitting(saved, other, origins).forecast(other, origins, HORIZON, QUANTILES)

        expected = forecast(panel.values.tolist(), panel.timed)
        values, timed = panel.values.copy(), panel.timed.copy()
        generator = np.random.default_rng(0)
        for series, rows in ((0, 176), (1, 136)):
            later = slice(panel.offsets[series] + rows, panel.offsets[series + 1])
            values[later] = generator.normal(1e4, 1e4, values[later].size)
            begin = panel.timed_at[series] + rows
            timed[begin : panel.timed_at[series] + panel.timed_rows[series], :2] = 1  # the past ones
            timed[begin + HORIZON : panel.timed_at[series] + panel.timed_rows[series]] = 0
        np.testing.assert_array_equal(forecast(values.tolist(), timed), expected)
        values[100] += 50
        assert not np.array_equal(forecast(values.tolist(), timed), expected)

    def test_series_that_have_not_begun_change_nothing(self, saved: Checkpoint) -> None:
        """Neither are they learned from, nor do they shift the weights of the others in the loss."""
        plain = make_panel(wave(200, 0, 12), wave(150, 1, 12), starts=[0, 40])
        model = train(known_at(plain, 169))
        origins = origins_of((0, 172))
        expected = refitting(model, plain, origins).forecast(plain, origins, HORIZON, QUANTILES)
        pieces = [(plain.keys[i], int(plain.starts[i]), plain.series(i)) for i in range(2)]
        keys, values, offsets, starts = join_series([*pieces, (("new",), 175, 1e6 * wave(20, 3))])
        more = replace(plain, keys=keys, values=values, offsets=offsets, starts=starts)
        found = refitting(model, more, origins).forecast(more, origins, HORIZON, QUANTILES)
        np.testing.assert_array_equal(found, expected)

    def test_parts_of_a_large_panel_share_the_networks(
        self, saved: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each is fitted once, on all series, though the backtest asks for some series at a time."""
        panel = whole()
        config, metrics = EvaluationConfig(step=6), MetricConfig()
        made: list[Refitting] = []

        def factory(forecaster: Forecaster, origins: Origins) -> Refitting:
            made.append(Refitting(saved, forecaster, panel, origins, 1, clock=Clock()))
            return made[-1]

        one = evaluate(saved, panel, config, metrics, CPU, factory)
        monkeypatch.setattr("stacklstm_cli.evaluation.backtest.ROWS_AT_ONCE", 100)
        parts = evaluate(saved, panel, config, metrics, CPU, factory)
        np.testing.assert_array_equal(parts.backtest.forecasts[MODEL], one.backtest.forecasts[MODEL])
        assert made[0].weights.keys() == made[1].weights.keys() == set(range(made[0].fitted_at.size))
        assert one.explanation == REFITTED["new rows"]

    def test_the_saved_weights_stay(self, saved: Checkpoint, tmp_path: Path) -> None:
        """Fitting anew writes into no tensor of the model."""
        save(saved, tmp_path / "before")
        origins = origins_of((0, 172), (0, 178))
        refitting(saved, whole(), origins).forecast(whole(), origins, HORIZON, QUANTILES)
        save(saved, tmp_path / "after")
        assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
        assert load(tmp_path / "after").training["start_strength"] == saved.training["start_strength"]

    def test_a_model_that_does_not_tell_its_strength(self, saved: Checkpoint) -> None:
        """Files of before take the one that training takes where nothing chooses it."""
        old = replace(saved, training={k: v for k, v in saved.training.items() if k != "start_strength"})
        told = replace(saved, training=saved.training | {"start_strength": UNTOLD_STRENGTH})
        origins = origins_of((0, 172))
        one, other = (refitting(one, whole(), origins).fit(0) for one in (old, told))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_too_little_to_learn_from(self, saved: Checkpoint) -> None:
        """Bad data, with the cutoff and the way out."""
        panel = whole()
        origins = origins_of((0, 3))
        with pytest.raises(DataError, match="up to 1970-01-01 02:00 are too few to fit") as caught:
            refitting(saved, panel, origins).forecast(panel, origins, HORIZON, QUANTILES)
        assert "later --start" in caught.value.hint

    def test_a_signal_ends_it(self, saved: Checkpoint) -> None:
        """At the next step, with what was done so far and the exit status of the signal."""
        clock, origins = Clock(), origins_of((0, 172), (0, 178))

        def on_event(event: dict[str, Any]) -> None:
            if event["phase"] == "network 2 of 2":
                clock.signal_number = signal.SIGTERM

        with pytest.raises(NothingLearnedError, match="1 of 2 networks") as caught:
            refitting(saved, whole(), origins, clock=clock, on_event=on_event).forecast(
                whole(), origins, HORIZON, QUANTILES
            )
        assert caught.value.exit_status == 143

    def test_cutoffs(self) -> None:
        assert cutoffs_of(whole(), origins_of((0, 172), (1, 132))).tolist() == [171, 171]


def train_as(saved: Checkpoint, panel: Panel) -> Any:
    """A network of the model's settings on all rows of a panel, by the trainer alone."""
    model = ModelConfig(layers=1, hidden_size=(4,), context_length=24, patch_length=4, horizon=HORIZON)
    plan = resolve(panel, model, TrainingConfig(), MetricConfig(seasonality=12))
    schedule = replace(plan.schedule, warmup=2)
    trainer = Trainer(panel, replace(plan, spec=saved.spec, schedule=schedule), device=CPU, clock=Clock())
    fitted = trainer.refit(saved.training["steps"], ridge_of(saved), saved.training["rate"])
    assert fitted is not None
    return saved.network(fitted.weights)


class TestAsTyped:
    def test_what_is_said(self, folder: Path) -> None:
        """How many networks, of what, and that other weights were scored."""
        pd.DataFrame({"t": stamps(200, "h"), "v": wave(200)}).to_csv("all.csv", index=False)
        pd.DataFrame({"t": stamps(180, "h"), "v": wave(180)}).to_csv("data.csv", index=False)
        ok("train", "data.csv", *SMALL, "--seed", "3")
        done = ok("evaluate", "all.csv", "-m", "data.safetensors", "--refit-every", "2")
        assert "2 networks to fit anew, each on the rows up to its cutoff" in done.stderr
        assert "seed 3" in done.stderr
        assert "by networks fitted anew on the rows before them" in done.stderr
        again = ok("evaluate", "all.csv", "-m", "data.safetensors", "--refit-every", "2")
        assert again.stdout == done.stdout
        assert ok("evaluate", "all.csv", "-m", "data.safetensors").stdout != done.stdout

    @pytest.mark.slow
    @pytest.mark.skipif(os.name == "nt", reason="signals are sent as on POSIX")
    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal(self, folder: Path, number: signal.Signals, status: int) -> None:
        """One message, nothing on standard output, no file."""
        pd.DataFrame({"t": stamps(3000, "h"), "v": wave(3000)}).to_csv("data.csv", index=False)
        ok("train", "data.csv", *SMALL[:-1], "-q")
        words = ["evaluate", "data.csv", "--refit-every", "1", "--step", "1", "--in-sample", "--forecasts", "f.csv"]
        running = subprocess.Popen(
            [sys.executable, "-m", "stacklstm_cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert running.stderr is not None
        while "to fit anew" not in running.stderr.readline():
            assert running.poll() is None
        time.sleep(1)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
        assert (running.returncode, out, err.count("error:")) == (status, "", 1), err
        assert "Stopped by a signal" in err
        assert not Path("f.csv").exists()
