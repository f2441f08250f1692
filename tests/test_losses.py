"""Every loss from a panel to forecasts in the user's units, and which of them have quantiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ok, run, table_of
from panels import make_panel, wave

from stacklstm_cli.config import LOSSES, MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.origins import Origins
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import DataError, ExitStatus, UsageError
from stacklstm_cli.evaluation.verdict import MODEL
from stacklstm_cli.model.checkpoint import Checkpoint, load, save
from stacklstm_cli.model.forecaster import Forecaster
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.fitting import Outcome, Trainer
from stacklstm_cli.training.runtime import Clock

CPU = torch.device("cpu")
POINTS = ("mae", "mse", "huber")
DISTRIBUTIONS = ("student-t", "negative-binomial")
ASKED = dict.fromkeys(POINTS, (0.5,)) | dict.fromkeys(DISTRIBUTIONS, (0.01, 0.1, 0.25, 0.5, 0.9, 0.999))
"""Quantiles to ask for: of a distribution any, else within those learned."""
HORIZON, SEASON = 6, 12
SIZES = (1.0, 200.0)
"""Of the two series, as multiples of a wave around 50."""


def panel_of(loss: str) -> Panel:
    """A wave and one two hundred times its size with gaps; counts where the loss counts."""
    series = [size * wave(rows, seed, SEASON) for seed, (size, rows) in enumerate(zip(SIZES, (140, 120), strict=True))]
    series[1][[30, 31, 77]] = np.nan
    return make_panel(*(np.round(one) if loss == "negative-binomial" else one for one in series))


def plan_of(panel: Panel, loss: str, **options: object) -> Plan:
    given = {"layers": 1, "hidden_size": (6,), "context_length": 24, "patch_length": 4, "horizon": HORIZON}
    model = ModelConfig(**given | {"loss": loss} | options)  # type: ignore[arg-type]
    return resolve(panel, model, TrainingConfig(), MetricConfig(seasonality=SEASON))


def train(loss: str) -> tuple[Panel, Outcome]:
    panel = panel_of(loss)
    plan = plan_of(panel, loss)
    plan = replace(plan, schedule=replace(plan.schedule, max_steps=30, check_every=5, warmup=2))
    return panel, Trainer(panel, plan, device=CPU, clock=Clock()).run({})


@pytest.fixture(scope="module", params=LOSSES)
def trained(request: pytest.FixtureRequest) -> tuple[str, Panel, Outcome]:
    """A model of each loss."""
    return request.param, *train(request.param)


def forecast(checkpoint: Checkpoint, panel: Panel, quantiles: tuple[float, ...]) -> np.ndarray:
    """[N, H, Q] from the ends of the series and [N, H, Q] from inside them."""
    origins = Origins(np.array([0, 1, 0, 1]), np.concatenate([panel.lengths, panel.lengths - 31]))
    return Forecaster(checkpoint.network(checkpoint.final), CPU).forecast(panel, origins, HORIZON, quantiles)


class TestTrained:
    def test_forecasts_are_in_the_units_of_each_series(self, trained: tuple[str, Panel, Outcome]) -> None:
        """Finite, in order, and as far from the wave as its noise allows."""
        loss, panel, outcome = trained
        wanted = ASKED.get(loss, (0.1, 0.4, 0.5, 0.9))
        found = forecast(outcome.checkpoint, panel, wanted)
        assert np.isfinite(found).all()
        assert (np.diff(found, axis=2) >= 0).all()
        middle = found[:, :, wanted.index(0.5)]
        for place in range(4):
            rows = (panel.lengths[place % 2] - 31 * (place > 1)) + np.arange(HORIZON)
            expected = SIZES[place % 2] * (50 + 10 * np.sin(rows * 2 * np.pi / SEASON))
            np.testing.assert_allclose(middle[place], expected, rtol=0, atol=6 * SIZES[place % 2])

    def test_quantiles_spread(self, trained: tuple[str, Panel, Outcome]) -> None:
        """About as wide as the noise: its 80 % interval is 2.56 deviations, here of 1 and 200."""
        loss, panel, outcome = trained
        if loss in POINTS:
            return
        low, high = np.moveaxis(forecast(outcome.checkpoint, panel, (0.1, 0.9)), 2, 0)
        width = (high - low).mean(1) / np.tile(SIZES, 2)
        assert ((width > 1) & (width < 25)).all(), width

    def test_it_beats_the_naive_forecast(self, trained: tuple[str, Panel, Outcome]) -> None:
        """On the holdout, which nothing has seen; and its loss fell or stayed where the linear start had it."""
        _, _, outcome = trained
        metrics = outcome.checkpoint.metrics
        assert metrics[MODEL]["mae"] < 0.5 * metrics["naive"]["mae"]
        losses = [entry["validation"] for entry in outcome.fits[0].history]
        assert all(loss is not None and np.isfinite(loss) for loss in losses)

    def test_only_quantiles_have_a_coverage(self, trained: tuple[str, Panel, Outcome]) -> None:
        loss, _, outcome = trained
        for row in outcome.checkpoint.metrics.values():
            assert any(name.startswith(("coverage", "width")) for name in row) == (loss not in POINTS)

    def test_what_was_saved_forecasts_the_same(self, trained: tuple[str, Panel, Outcome], tmp_path: Path) -> None:
        """Bit for bit, through the file."""
        loss, panel, outcome = trained
        save(outcome.checkpoint, tmp_path / "m.safetensors")
        found = load(tmp_path / "m.safetensors")
        assert found.spec.loss == loss
        one, other = (forecast(each, panel, (0.5,)) for each in (outcome.checkpoint, found))
        assert one.tobytes() == other.tobytes()

    def test_counts_are_whole(self, trained: tuple[str, Panel, Outcome]) -> None:
        loss, panel, outcome = trained
        found = forecast(outcome.checkpoint, panel, (0.5,))
        assert (found == np.round(found)).all() == (loss == "negative-binomial")

    def test_a_point_has_no_quantile(self, trained: tuple[str, Panel, Outcome]) -> None:
        loss, panel, outcome = trained
        if loss in POINTS:
            with pytest.raises(UsageError, match=f"Quantile 0.3 .*--loss {loss} "):
                forecast(outcome.checkpoint, panel, (0.3, 0.5))


@pytest.mark.slow
def test_losses_learn_different_things() -> None:
    """The mean of a skewed series lies above its median, Huber's forecast between them."""
    values = np.random.default_rng(0).exponential(1.0, 400) ** 2
    middles = {}
    for loss in POINTS:
        panel = make_panel(values)
        plan = plan_of(panel, loss, calendar=False)
        schedule = replace(plan.schedule, learning_rate=0.02, average=0.9, max_steps=80, check_every=20)
        plan = replace(plan, schedule=schedule)
        checkpoint = Trainer(panel, plan, device=CPU, clock=Clock()).run({}).checkpoint
        network = checkpoint.network(checkpoint.final)
        origins = Origins(np.zeros(40, dtype=np.int64), np.arange(100, 140))
        middles[loss] = Forecaster(network, CPU).forecast(panel, origins, HORIZON, (0.5,)).mean()
    assert middles["mae"] + 0.3 < middles["mse"]
    assert middles["mae"] < middles["huber"] < middles["mse"]


class TestCounts:
    @pytest.mark.parametrize("wrong", [-1.0, 1.5])
    def test_what_is_no_count_is_refused(self, wrong: float) -> None:
        """With its series, its time and how many there are."""
        values = np.round(wave(60))
        values[[3, 7, 50]] = np.nan, wrong, wrong
        with pytest.raises(DataError, match=rf"series 's1', time 1970-01-01 07:00 has {wrong:g} \(2 such") as caught:
            plan_of(make_panel(np.round(wave(80)), values), "negative-binomial")
        assert (caught.value.exit_status, caught.value.code) == (ExitStatus.DATA, "not_counts")
        assert "--loss" in caught.value.hint

    def test_logarithms_are_no_counts(self) -> None:
        with pytest.raises(UsageError, match=r"--loss negative-binomial .*--transform log1p") as caught:
            plan_of(panel_of("negative-binomial"), "negative-binomial", transform="log1p")
        assert caught.value.exit_status == ExitStatus.USAGE

    def test_counts_with_gaps_are_counts(self) -> None:
        assert plan_of(panel_of("negative-binomial"), "negative-binomial").spec.loss == "negative-binomial"


@pytest.mark.parametrize("asked", [["--interval", "80"], ["--quantiles", "0.2,0.8"]], ids=" ".join)
@pytest.mark.parametrize("loss", POINTS)
def test_a_point_loss_learns_no_quantiles(loss: str, asked: list[str], folder: Path) -> None:
    """Before the first step."""
    write("counts.csv")
    done = run("train", "counts.csv", "--loss", loss, *asked)
    assert (done.exit_code, done.stdout) == (ExitStatus.USAGE, "")
    assert f"--loss {loss}" in done.stderr
    assert not Path("counts.safetensors").exists()


def write(name: str) -> None:
    """Counts of 150 hours."""
    counts = np.random.default_rng(0).poisson(4, 150)
    stamps = np.datetime64("2024-01-01T00:00") + np.arange(150).astype("timedelta64[h]")
    rows = [f"{str(stamp).replace('T', ' ')},{count}" for stamp, count in zip(stamps, counts, strict=True)]
    Path(name).write_text("\n".join(["time,sold", *rows]) + "\n")


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_as_typed(loss: str, folder: Path) -> None:
    """Train, predict, evaluate; a quantile of a point loss ends with one message."""
    write("c.csv")
    table = table_of(ok("train", "c.csv", "--loss", loss, "--hidden-size", "4", "--epochs", "1", "--format", "csv"))
    scores = table_of(ok("evaluate", "c.csv", "--format", "csv"))
    assert ("coverage_80" in scores) == ("coverage_80" in table) == (loss not in POINTS)
    assert scores["mae"].notna().all()
    predicted = table_of(ok("predict", "c.csv"))
    assert len(predicted) == 24
    assert np.isfinite(predicted["forecast"]).all()
    if loss not in POINTS:
        assert list(predicted) == ["time", "forecast", "q10", "q50", "q90"]
        assert list(table_of(ok("predict", "c.csv", "--interval", "50"))) == ["time", "forecast", "q25", "q75"]
        return
    assert list(predicted) == ["time", "forecast"]
    for words in (["--quantiles", "0.3"], ["--interval", "80"]):
        for command in ("predict", "evaluate"):
            refused = run(command, "c.csv", *words)
            assert (refused.exit_code, refused.stdout) == (ExitStatus.USAGE, "")
            assert f"--loss {loss}" in refused.stderr
            assert refused.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("cell", "words", "status", "said"),
    [
        ("-1", [], ExitStatus.DATA, "2024-01-01 09:00 has -1"),
        ("1.5", [], ExitStatus.DATA, "2024-01-01 09:00 has 1.5"),
        ("2", ["--transform", "log1p"], ExitStatus.USAGE, "--transform log1p"),
    ],
)
def test_no_counts_as_typed(cell: str, words: list[str], status: int, said: str, folder: Path) -> None:
    write("c.csv")
    lines = Path("c.csv").read_text().splitlines()
    lines[10] = lines[10].split(",")[0] + "," + cell
    Path("c.csv").write_text("\n".join(lines) + "\n")
    done = run("train", "c.csv", "--loss", "negative-binomial", *words)
    assert (done.exit_code, done.stdout) == (status, "")
    assert said in done.stderr
    assert done.stderr.count("error:") == 1
