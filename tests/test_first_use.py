"""A first use, as typed: from a stranger's file over a trained model to forecasts in the file's own form."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import ok as done
from commands import run, trained
from forked import Server

SMALL = ["--hidden-size", "4", "--layers", "1", "--epochs", "1"]


def forecasts(*words: str | Path) -> pd.DataFrame:
    """What `predict` writes, time stamps as text."""
    return pd.read_csv(io.StringIO(done("predict", *words, "-q").stdout), dtype={"time": str, "day": str, "ds": str})


pytestmark = pytest.mark.usefixtures("folder")


def days(rows: int, written: str = "%Y-%m-%d") -> list[str]:
    return pd.date_range("2023-01-01", periods=rows).strftime(written).tolist()


def sold(rows: int = 120) -> pd.DataFrame:
    """Few pieces a day, none on most."""
    counts = np.random.default_rng(0).poisson(0.6, rows)
    return pd.DataFrame({"day": days(rows, "%d/%m/%Y"), "sold": counts})


# --- what was typed once ---


def damaged() -> str:
    """Rows with -999 for missing, one day twice."""
    frame = sold().astype({"sold": object})
    frame.loc[[20, 21, 70], "sold"] = -999
    return frame.to_csv(index=False) + f"{frame['day'][30]},9\n"


def test_a_model_reads_later_files_as_that_of_its_training() -> None:
    """No option is typed again, and what is typed wins."""
    Path("d.csv").write_text(damaged())
    assert run("train", "d.csv", *SMALL).exit_code == 3
    trained("d.csv", "--duplicates", "mean", "--missing-value", "-999", *SMALL)
    plain = done("predict", "d.csv").stdout
    assert plain == done("predict", "d.csv", "--duplicates", "mean", "--missing-value", "-999").stdout
    assert plain != done("predict", "d.csv", "--missing-value", "0").stdout
    assert done("evaluate", "d.csv").exit_code == 0


def test_equal_options_in_a_file_give_an_equal_model() -> None:
    """One of what may be several needs no brackets."""
    Path("d.csv").write_text(damaged())
    Path("o.toml").write_text('duplicates = "mean"\nmissing-value = -999\nhidden_size = 4\nlayers = 1\nepochs = 1\n')
    done("train", "d.csv", "--duplicates", "mean", "--missing-value", "-999", *SMALL, "-m", "typed.safetensors")
    done("train", "d.csv", "--config", "o.toml", "-m", "written.safetensors")
    assert Path("typed.safetensors").read_bytes() == Path("written.safetensors").read_bytes()


# --- the future of covariates ---


@pytest.fixture
def shops() -> Path:
    """Four series named by two columns, with known covariates and their model."""
    frames = [
        pd.DataFrame({"store": store, "sku": sku, "day": days(80), "sold": np.arange(80) % 7 + store})
        for store in (1, 2)
        for sku in ("x", "y")
    ]
    frame = pd.concat(frames).assign(price=lambda own: 3 + own["sold"] / 10, promo="no")
    frame.loc[frame["sold"] > 6, "promo"] = "yes"
    frame.to_csv("shops.csv", index=False)
    roles = ["--id", "store,sku", "--target", "sold", "--known", "price,promo"]
    trained("shops.csv", *roles, "--horizon", "3", *SMALL)
    return Path("shops.csv")


def test_the_template_is_what_the_next_command_needs(shops: Path) -> None:
    """Predicting without the future says so; the template filled in predicts."""
    refused = run("predict", shops)
    assert refused.exit_code == 3
    assert "2023-03-22" in refused.stderr
    assert "'price'" in refused.stderr
    assert "--future-template" in refused.stderr
    text = done("predict", shops, "--future-template", "-q").stdout
    template = pd.read_csv(io.StringIO(text), dtype=str)
    assert template.columns.tolist() == ["store", "sku", "day", "price", "promo"]
    assert template["day"].tolist() == ["2023-03-22", "2023-03-23", "2023-03-24"] * 4
    template.assign(price="3.5", promo="yes").to_csv("f.csv", index=False)
    found = forecasts(shops, "--future", "f.csv")
    assert found[["store", "sku", "day"]].astype(str).equals(template[["store", "sku", "day"]])
    assert found["forecast"].notna().all()


def test_a_future_that_lacks_rows_or_cells_is_refused_by_the_first(shops: Path) -> None:
    template = pd.read_csv(io.StringIO(done("predict", shops, "--future-template", "-q").stdout), dtype=str)
    filled = template.assign(price="3.5", promo="yes")
    filled.drop(index=7).to_csv("f.csv", index=False)
    refused = run("predict", shops, "--future", "f.csv")
    assert refused.exit_code == 3
    assert "2023-03-23" in refused.stderr
    assert re.search(r"2.*x", refused.stderr)
    filled.drop(columns="promo").to_csv("f.csv", index=False)
    refused = run("predict", shops, "--future", "f.csv")
    assert refused.exit_code in (3, 4)
    assert "'promo'" in refused.stderr


# --- the clocks ---


@pytest.mark.parametrize(("last", "twice", "skipped"), [("2024-10-26 20:00", 1, 0), ("2024-03-30 20:00", 0, 1)])
def test_a_forecast_over_a_switch_of_the_clocks(last: str, twice: int, skipped: int) -> None:
    """Local hours as the clocks show them."""
    hours = pd.date_range(end=pd.Timestamp(last, tz="Europe/Berlin"), periods=24 * 20, freq="h")
    load = 50 + 10 * np.sin(np.arange(hours.size) * np.pi / 12)
    pd.DataFrame({"time": hours.strftime("%Y-%m-%d %H:%M"), "load": load}).to_csv("load.csv", index=False)
    done("train", "load.csv", "--tz", "Europe/Berlin", *SMALL)
    found = forecasts("load.csv")["time"].tolist()
    behind = pd.date_range(hours[-1], periods=25, freq="h")[1:]
    assert found == behind.strftime("%Y-%m-%d %H:%M").tolist()
    assert len(found) - len(set(found)) == twice
    assert sum(stamp.endswith("02:00") for stamp in found) == 1 + twice - skipped


# --- counts, gaps, short files ---


@pytest.mark.parametrize(("words", "least"), [(("--min", "0"), 0.0), (("--transform", "log1p", "--min", "0"), 0.0)])
def test_counts_are_never_forecast_below_zero(words: tuple[str, ...], least: float) -> None:
    sold().to_csv("sold.csv", index=False)
    done("train", "sold.csv", *words, *SMALL)
    found = forecasts("sold.csv", "--quantiles", "0.1,0.5,0.9").drop(columns="day")
    assert found.to_numpy().min() >= least


@pytest.mark.parametrize("gaps", ["mask", "ffill", "interpolate"])
def test_gaps_never_make_a_forecast_that_is_no_number(gaps: str) -> None:
    """Cells without a value, days that are not there, and a gap at the end."""
    frame = sold().astype({"sold": float})
    frame.loc[[5, 6, 40, 41, 42, 43, 90, 117, 118], "sold"] = np.nan
    frame.drop(index=range(60, 70)).to_csv("gaps.csv", index=False)
    done("train", "gaps.csv", "--gaps", gaps, *SMALL)
    found = forecasts("gaps.csv")
    assert np.isfinite(found.drop(columns="day").to_numpy()).all()
    assert found["day"].tolist()[0] == "01/05/2023"
    refused = run("train", "gaps.csv", "--gaps", "error", *SMALL)
    assert refused.exit_code == 3
    assert "06/01/2023" in refused.stderr


def test_too_few_rows_are_refused_with_a_sum_that_is_right() -> None:
    """The rows that the message asks for are enough, and one less is not."""
    days_first = sold(40).iloc[10:]  # behind the tenth, day and month are told apart
    days_first[:8].to_csv("short.csv", index=False)
    refused = run("train", "short.csv", *SMALL)
    assert refused.exit_code == 3
    found = re.search(r"has 8 rows; training needs at least (\d+): (.*)\.", refused.stderr)
    assert found is not None, refused.stderr
    needed = int(found[1])
    assert sum(map(int, re.findall(r"\d+", found[2]))) == needed
    days_first[: needed - 1].to_csv("short.csv", index=False)
    assert run("train", "short.csv", *SMALL).exit_code == 3
    days_first[:needed].to_csv("short.csv", index=False)
    done("train", "short.csv", *SMALL)


# --- names, holidays, pipes ---


@pytest.mark.parametrize("names", [("unique_id", "ds", "y"), ("item_id", "timestamp", "target")])
def test_files_of_other_forecasters_work_unchanged(names: tuple[str, str, str]) -> None:
    """Names of series that are numbers keep their zeros."""
    frames = [pd.DataFrame({"id": name, "at": days(60), "v": np.arange(60) % 7}) for name in ("007", "010")]
    pd.concat(frames).set_axis(names, axis=1).to_csv("theirs.csv", index=False)
    done("train", "theirs.csv", *SMALL)
    lines = done("predict", "theirs.csv", "-q").stdout.splitlines()
    assert lines[0] == f"{names[0]},{names[1]},forecast,q10,q50,q90"
    assert lines[1].startswith("007,2023-03-02,")
    assert sum(line.startswith("010,") for line in lines) == 7


def test_holidays_of_a_place_that_is_not_there() -> None:
    sold().to_csv("sold.csv", index=False)
    for command in ("check", "train"):
        refused = run(command, "sold.csv", "--holidays", "XX")
        assert refused.exit_code == 2
        assert "--holidays XX" in refused.stderr
    assert "public holidays of DE-BY" in done("train", "sold.csv", "--holidays", "DE-BY", *SMALL).stderr


@pytest.mark.skipif(os.name == "nt", reason="has no named pipes")
def test_a_closed_pipe_ends_quietly(server: Server) -> None:
    """As `| head -1` closes it."""
    sold().to_csv("sold.csv", index=False)
    trained("sold.csv", *SMALL)
    os.mkfifo("pipe")
    server.start("predict", "sold.csv", stdout=Path("pipe").absolute())
    with Path("pipe").open() as pipe:
        first = pipe.readline()
    said = server.end().stderr
    assert first == "day,forecast,q10,q50,q90\n", said
    assert "error" not in said
    assert "Traceback" not in said


# --- options of predict that exclude each other ---


def test_a_horizon_that_was_not_trained_is_refused_before_future_rows_are_asked_for() -> None:
    """Exit 2 with the trained limit, with and without the template."""
    frame = sold().assign(price=1.5)
    frame.to_csv("d.csv", index=False)
    done("train", "d.csv", "--target", "sold", "--known", "price", "--horizon", "7", *SMALL)
    for words in ([], ["--future-template"]):
        refused = run("predict", "d.csv", "--horizon", "99", *words)
        assert refused.exit_code == 2
        assert "trained to forecast 7 rows" in refused.stderr
    assert len(forecasts("d.csv", "--future-template", "--horizon", "3")) == 3


@pytest.mark.parametrize(
    "words",
    [
        ["--future-template", "--wide"],
        ["--future-template", "--quantiles", "0.2"],
        ["--attention-weights", "--horizon", "2"],
        ["--attention-weights", "--future-template"],
    ],
)
def test_options_that_would_do_nothing_are_refused(words: list[str]) -> None:
    sold().to_csv("d.csv", index=False)
    trained("d.csv", *SMALL)
    refused = run("predict", "d.csv", *words)
    assert refused.exit_code == 2
    assert "would do nothing" in refused.stderr
