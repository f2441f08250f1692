"""Default options are better than naive forecasts on real series: bounds that only a real fault would pass."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from stacklstm_cli.cli.app import app

SAMPLES = Path(__file__).parent.parent / "sample_data"


def scores(folder: Path, data: Path, rows: int, *words: str) -> dict[str, dict[str, float]]:
    """Train on all but the last `rows` rows of each series, score on those."""
    table = pd.read_csv(data)
    groups = table.groupby("series_id", sort=False) if "series_id" in table else [("", table)]
    train = folder / "train.csv"
    pd.concat([series.iloc[:-rows] for _, series in groups]).to_csv(train, index=False)
    model = str(folder / "m.safetensors")
    trained = CliRunner().invoke(app, ["train", str(train), "-m", model, *words])
    assert trained.exit_code == 0, trained.stderr
    scored = CliRunner().invoke(app, ["evaluate", str(data), "-m", model, "--format", "json"])
    assert scored.exit_code == 0, scored.stderr
    document = json.loads(scored.stdout)
    assert document["backtest"]["rows"] == "new rows"
    metrics: dict[str, dict[str, float]] = document["metrics"]
    return metrics


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1"])
def test_last_year_of_air_passengers(tmp_path: Path, seed: str) -> None:
    """sMAPE under 5 on the twelve months held out; seasonal naive has 10.6."""
    metrics = scores(tmp_path, SAMPLES / "air_passengers.csv", 12, "--seed", seed)
    assert metrics["seasonal_naive"]["smape"] == pytest.approx(10.57, abs=0.01)
    assert metrics["stacklstm"]["smape"] < 5


@pytest.mark.slow
def test_a_wide_file_of_weather(tmp_path: Path) -> None:
    """Two weeks of hourly weather: at least a tenth better than the better naive forecast."""
    metrics = scores(tmp_path, SAMPLES / "beijing_weather.csv", 336)
    assert metrics["stacklstm"]["mase"] < 0.9 * min(metrics["naive"]["mase"], metrics["seasonal_naive"]["mase"])


@pytest.mark.slow
def test_a_long_file_of_retail(tmp_path: Path) -> None:
    """Thirty monthly series of any size: better than seasonal naive on their last year."""
    metrics = scores(tmp_path, SAMPLES / "australian_retail.csv", 12)
    assert metrics["stacklstm"]["mase"] < metrics["seasonal_naive"]["mase"]
