"""`stacklstm check`: every figure of hand-made files, and the refusals of `train`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import run
from panels import make_panel, wave

from stacklstm_cli import config
from stacklstm_cli.cli import estimate, survey
from stacklstm_cli.cli.wording import described, duration, size, written
from stacklstm_cli.data.patterns import SEPARATOR
from stacklstm_cli.training.defaults import resolve
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.runtime import Clock, find_device

SMALL = ["--hidden-size", "4", "--epochs", "1"]


def checked(*words: str | Path, stdin: bytes | None = None) -> dict[str, Any]:
    """The JSON document of a check that must end well."""
    done = run("check", *words, "--format", "json", stdin=stdin)
    assert done.exit_code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def days(rows: int, start: str = "2024-01-01") -> list[str]:
    return pd.date_range(start, periods=rows).strftime("%Y-%m-%d").tolist()


def single(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"day": days(rows), "sold": np.arange(rows) % 7 + 10.5})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of a step or two instead of half a second."""
    monkeypatch.setattr(estimate, "TRIAL_SECONDS", 0.001)


@pytest.fixture
def shops(folder: Path) -> Path:
    """Three shops over sixty days: b begins ten days later and lacks four values; c always sells five."""
    parts = []
    for shop, colour, start, rows in (("a", "red", 0, 60), ("b", "blue", 10, 50), ("c", "green", 0, 60)):
        index = np.arange(start, start + rows)
        sold = np.full(rows, 5.0) if shop == "c" else index % 7 + 10.0
        part = pd.DataFrame({"day": days(60)[start:], "shop": shop, "colour": colour, "sold": sold})
        parts.append(part.assign(degrees=index % 11))
    frame = pd.concat(parts)
    b = frame["shop"] == "b"
    frame.loc[b & (frame["day"] == "2024-02-05"), "sold"] = np.nan
    frame = frame[~(b & frame["day"].isin(["2024-01-20", "2024-01-21", "2024-01-22"]))]
    frame.to_csv("shops.csv", index=False)
    return Path("shops.csv")


def test_every_figure_of_a_long_file(shops: Path) -> None:
    """Counted by hand."""
    found = checked(shops, "--target", "sold", *SMALL)
    data = {name: found["data"][name] for name in ("rows", "series", "first", "last", "step", "gaps")}
    first, last = "2024-01-01", "2024-02-29"
    assert data == {"rows": 167, "series": 3, "first": first, "last": last, "step": "1 day", "gaps": 4}
    assert found["data"]["files"] == [{"name": "shops.csv", "bytes": shops.stat().st_size}]
    assert len(found["data"]["sha256"]) == 64
    assert found["layout"] == "long"
    assert found["roles"] == {
        "time": ["day"],
        "id": ["shop"],
        "target": ["sold"],
        "past": [],
        "known": [],
        "static": [],
        "ignored": ["colour", "degrees"],
    }
    kinds = {column["name"]: column for column in found["columns"]}
    assert (kinds["sold"]["least"], kinds["sold"]["greatest"]) == (5, 16)
    assert (kinds["colour"]["kind"], kinds["colour"]["different"]) == ("categories", 3)
    assert kinds["degrees"]["kind"] == "numbers"
    nobody = {"series": 0, "names": []}
    assert found["series"] == {
        "count": 3,
        "shortest": {"rows": 50, "series": 1, "names": ["b"]},
        "median": 60,
        "longest": {"rows": 60, "series": 2, "names": ["a", "c"]},
        "constant": {"series": 1, "names": ["c"]},
        "begin": {"usual": first, "first": first, "last": "2024-01-11", "others": {"series": 1, "names": ["b"]}},
        "end": {"usual": last, "first": last, "last": last, "others": nobody},
    }
    assert found["gaps"] == {
        "missing": 4,
        "series": 1,
        "gaps": 2,
        "longest": {"rows": 3, "series": "b", "first": "2024-01-20", "last": "2024-01-22"},
        "skipped_hours": None,
    }
    assert [one["code"] for one in found["advice"]] == ["no_negative_value", "covariates", "static_covariates"]
    assert "degrees stands" in found["advice"][1]["message"]
    assert "colour never changes" in found["advice"][2]["message"]


def test_every_figure_of_the_plan(folder: Path) -> None:
    """What was typed is planned; windows and rows follow by arithmetic: 200 rows, 7 of horizon, 14 of context."""
    single(200).to_csv("d.csv", index=False)
    words = ["--horizon", "7", "--context-length", "14", "--patch-length", "7", "--holdout", "21"]
    plan = checked("d.csv", *words, "--layers", "3", "--batch-size", "16", *SMALL)["plan"]
    # A share of .15 is 30 rows, in whole horizons 35.
    assert plan["rows"] == {"train": 200 - 35 - 21, "choose": 35, "judge": 21}
    assert plan["windows"] == {"train": 144 - 14 - 7 + 1, "choose": 35 - 7 + 1}
    typed = {name: plan[name] for name in ("layers", "horizon", "context_length", "batch_size")}
    assert typed == {"layers": 3, "horizon": 7, "context_length": 14, "batch_size": 16}
    assert plan["seasonality"] == 7


def test_shape_of_the_document(folder: Path) -> None:
    """The envelope, and no text that is said twice."""
    single(120).to_csv("d.csv", index=False)
    found = checked("d.csv", *SMALL)
    assert (found["schema"], found["command"], found["status"]) == (1, "check", "ok")
    assert (found["problems"], found["warnings"]) == ([], [])
    assert found["seconds"] > 0
    assert {"data", "layout", "roles", "columns", "time", "series", "gaps", "plan", "estimate"} <= set(found)
    memory = found["estimate"]["memory"]
    assert memory["peak"] == memory["imports"] + max(
        memory["reading"], memory["data"] + memory["windows"] + memory["network"]
    )
    assert found["estimate"]["seconds"] > 0
    table = run("check", "d.csv", *SMALL).stdout
    assert "one series:" not in table  # the note on the layout: the table has it at length
    assert table.count("sold") == 1


BROKEN: dict[str, tuple[str, str | bytes, list[str]]] = {
    "no file": ("", "", []),
    "empty": ("d.csv", "", []),
    "no rows": ("d.csv", "day,sold\n", []),
    "no header": ("d.csv", single(40).to_csv(index=False, header=False), []),
    "no number": ("d.csv", single(40).to_csv(index=False).replace("10.5", "ten", 1), []),
    "no value": ("d.csv", "".join(f"{day},\n" for day in ["day,sold", *days(40)]), ["--target", "sold"]),
    "twice": ("d.csv", single(40).to_csv(index=False) + "2024-01-01,99\n", []),
    "no stamp": ("d.csv", single(40).to_csv(index=False).replace("2024-01-09", ""), []),
    "bad stamp": ("d.csv", single(40).to_csv(index=False).replace("2024-01-09", "2024-01-99"), []),
    "long row": ("d.csv", single(40).to_csv(index=False).replace("2024-01-09,", "2024-01-09,1,"), []),
    "both orders": ("d.csv", "day,sold\n01/02/2024,1\n02/03/2024,2\n03/04/2024,3\n", []),
    "far": ("d.csv", single(4000).to_csv(index=False) + "9999-01-01,1\n", []),
    "huge": ("d.csv", single(40).assign(sold=1e200).to_csv(index=False), []),
    "too short": ("d.csv", single(9).to_csv(index=False), []),
    "all gaps": ("d.csv", single(400).assign(sold=[1.0, *[np.nan] * 398, 2.0]).to_csv(index=False), []),
    "damaged": ("d.csv.gz", gzip.compress(b"day,sold\n" * 999)[:40], []),
    "two names": ("d.csv", single(40).assign(other=1).to_csv(index=False).replace("other", "sold"), []),
    "no such column": ("d.csv", single(40).to_csv(index=False), ["--target", "sodl"]),
    "which target": ("d.csv", "id,day,a,b\n" + "".join(f"x,{day},1,2\n" for day in days(40)), []),
    "patch": ("d.csv", single(90).to_csv(index=False), ["--patch-length", "500"]),
    "holdout": ("d.csv", single(120).to_csv(index=False), ["--holdout", "119"]),
    "bad step": ("d.csv", single(120).to_csv(index=False), ["--freq", "fortnight"]),
    "out of bounds": ("d.csv", single(120).to_csv(index=False), ["--dropout", "2"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_check_refuses_what_train_refuses(folder: Path, case: str) -> None:
    """The same exit status, code, message and hint; the document says it too, unless nothing could be begun."""
    name, content, words = BROKEN[case]
    if name:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    words = [name or "nothing.csv", *words, *SMALL[2:], "-q", "--format", "json"]
    trained, done = run("train", *words), run("check", *words)
    assert trained.exit_code in (2, 3)
    assert (done.exit_code, done.stderr) == (trained.exit_code, trained.stderr)
    if case == "out of bounds":
        assert done.stdout == ""
    else:
        document = json.loads(done.stdout)
        assert document["status"] == "refused"
        assert document["problems"] == [json.loads(done.stderr)["error"]]
    assert sorted(path.name for path in folder.iterdir()) == ([name] if name else [])


def test_what_was_understood_before_the_refusal_is_kept(folder: Path) -> None:
    """Too few rows to train on: the file itself was read."""
    single(9).to_csv("d.csv", index=False)
    done = run("check", "d.csv", "--format", "json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["problems"][0]["code"]) == (3, "too_few_rows")
    assert (document["data"]["rows"], document["roles"]["target"], "plan" in document) == (9, ["sold"], False)
    table = run("check", "d.csv").stdout
    assert document["problems"][0]["message"] in table
    assert "sold: numbers from 10.5 to 16.5" in table


def test_a_terminal_shows_an_error_once(folder: Path) -> None:
    """The error that follows on standard error says it; a table of the file's name alone is none."""
    single(9).to_csv("d.csv", index=False)
    document = json.loads(run("check", "d.csv", "--format", "json").stdout)
    items = [item for section in described(document, problems=False) for item, _ in section]
    assert "target" in items
    assert not {"problem", "code", "hint"} & set(items)
    document = json.loads(run("check", "nothing.csv", "--format", "json").stdout)
    assert described(document, problems=False) == [[("file", "nothing.csv")]]


def test_nothing_is_written_but_the_output(folder: Path) -> None:
    """Neither a model nor litter; the result goes where it is sent, and over no file that is read."""
    single(120).to_csv("d.csv", index=False)
    done = run("check", "d.csv", "-o", "found.json", *SMALL)
    assert (done.exit_code, done.stdout) == (0, "")
    assert json.loads(Path("found.json").read_text(encoding="utf-8"))["status"] == "ok"
    assert sorted(path.name for path in folder.iterdir()) == ["d.csv", "found.json"]
    assert run("check", "d.csv", "-o", "d.csv").exit_code == 2


@pytest.mark.parametrize("words", [[], ["-q"], ["-qq"]])
def test_standard_error_is_silent(folder: Path, words: list[str]) -> None:
    """Notes belong to the result."""
    Path("d.csv").write_text(single(120).to_csv(index=False) + "2024-01-05,14.5\n")
    done = run("check", "d.csv", *SMALL, *words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "1 repeated row dropped." in done.stdout


def test_formats_for_programs_hold_items_and_values(folder: Path) -> None:
    """CSV, NDJSON and Parquet hold the same two columns; each item once."""
    single(120).to_csv("d.csv", index=False)
    texts = {form: run("check", "d.csv", *SMALL, "--format", form).stdout for form in ("csv", "ndjson", "markdown")}
    run("check", "d.csv", *SMALL, "-o", "d.parquet")
    table = dict(csv.reader(io.StringIO(texts["csv"])))
    lines = {one["item"]: one["value"] for one in map(json.loads, texts["ndjson"].splitlines())}
    parquet = pd.read_parquet("d.parquet")
    varying = ("estimate.seconds", "seconds")
    for name in varying:
        assert float(table.pop(name)) > 0
        lines.pop(name)
    assert table.pop("item") == "value"
    assert table == lines
    assert dict(zip(parquet["item"], parquet["value"], strict=True)).keys() - set(varying) == set(table)
    assert (table["data.rows"], table["roles.target"], table["columns.2.greatest"]) == ("120", "sold", "16.5")
    assert texts["markdown"].startswith("| file | d.csv")
    assert "| target | sold: numbers from 10.5 to 16.5 |" in texts["markdown"]


def test_standard_input(folder: Path) -> None:
    """Read once, though looked at twice."""
    text = single(120).to_csv(index=False).encode()
    found = checked("-", *SMALL, stdin=text)
    assert found["data"]["files"] == [{"name": "standard input", "bytes": len(text)}]
    assert found["data"]["rows"] == 120


def advised(frame: pd.DataFrame, *words: str) -> dict[str, str]:
    frame.to_csv("d.csv", index=False)
    return {one["code"]: one["message"] for one in checked("d.csv", "--target", "sold", *SMALL, *words)["advice"]}


def test_advice_on_a_lower_bound(folder: Path) -> None:
    """Where no value is below zero, unless a bound is set."""
    near = single(120).assign(sold=np.arange(120) % 7)
    assert "--min 0" in advised(near)["no_negative_value"]
    assert "no_negative_value" not in advised(near, "--min", "0")
    assert "no_negative_value" not in advised(near.assign(sold=near["sold"] - 1))


def test_advice_on_a_long_gap_and_few_seasons(folder: Path) -> None:
    """A gap of twenty days and a context of fourteen; twenty days are fewer than three weeks."""
    frame = single(120)
    gap = frame.drop(index=range(30, 50))
    assert "20 rows" in advised(gap, "--context-length", "14")["long_gap"]
    assert "long_gap" not in advised(gap, "--context-length", "21")
    assert "20 rows" in advised(single(20), "--horizon", "1")["few_seasons"]
    assert "few_seasons" not in advised(single(21), "--horizon", "1")


def test_advice_on_ignored_columns(folder: Path) -> None:
    """Numbers and texts that vary may help; row numbers, constants and columns full of texts do not."""
    frame = single(120).assign(rain=np.arange(120) % 5, sky=["dull", "clear"] * 60, one=1, no=range(120))
    frame = frame.assign(remark=[f"day {row}" for row in range(120)])
    message = advised(frame)["covariates"]
    assert message.startswith("Columns rain, sky stand beside the target")


def test_advice_on_a_value_that_may_mean_missing(folder: Path) -> None:
    """-200 among values from ten to seventeen, often; not once, and not among values as far apart."""
    values = single(120)["sold"].to_numpy()
    often, once = values.copy(), values.copy()
    often[[5, 60, 61]] = once[5] = -200
    assert "--missing-value -200" in advised(single(120).assign(sold=often))["missing_value"]
    assert "missing_value" not in advised(single(120).assign(sold=once))
    assert "missing_value" not in advised(single(120).assign(sold=np.where(often < 0, -200, values * 1000 - 10_000)))
    assert "missing_value" not in advised(single(120).assign(sold=often), "--missing-value", "-200")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on Windows")
def test_a_pipe_is_read_once(folder: Path) -> None:
    """As of `<(zcat data.csv.gz)`: what needs a second look is left out."""
    os.mkfifo("pipe")
    text = single(120).assign(rain=range(120)).to_csv(index=False)
    writer = threading.Thread(target=Path("pipe").write_text, args=(text,))
    writer.start()
    found = checked("pipe", "--target", "sold", *SMALL)
    writer.join()
    assert (found["data"]["rows"], found["roles"]["ignored"]) == (120, [])


def test_warnings_are_those_that_training_ends_with(folder: Path) -> None:
    """A series too short to validate or judge."""
    single(12).to_csv("d.csv", index=False)
    words = ["d.csv", "--horizon", "2", "--context-length", "3", "--hidden-size", "4"]
    found = checked(*words)["warnings"]
    trained = json.loads(run("train", *words, "--format", "json").stdout)["warnings"]
    assert [one["code"] for one in found] == [one["code"] for one in trained] != []


def test_gaps_of_random_panels_against_a_slow_count() -> None:
    """Runs counted value by value."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        series = [np.where(rng.random(rows) < 0.3, np.nan, 1.0) for rows in (40, 3, 25)]
        for values in series:
            values[[0, -1]] = 1.0
        runs: list[tuple[int, int, int]] = []
        for index, values in enumerate(series):
            for place, value in enumerate(values):
                if np.isnan(value) and not np.isnan(values[place - 1]):
                    runs.append((index, place, 0))
                if np.isnan(value):
                    runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        panel = make_panel(*series, starts=[100, 7, 0])
        found = survey.gap_facts(panel)
        assert found["missing"] == sum(rows for _, _, rows in runs)
        assert (found["gaps"], found["series"]) == (len(runs), len({index for index, _, _ in runs}))
        index, place, rows = max(runs, key=lambda one: one[2])
        first = panel.stamps([[100, 7, 0][index] + place])[0]
        longest = {name: found["longest"][name] for name in ("rows", "series", "first")}
        assert longest == {"rows": rows, "series": f"s{index}", "first": first}


def hours_of_2024(*missing: str) -> list[str] | None:
    """What is said of an hourly year that lacks these hours."""
    begin = pd.Timestamp("2024-01-01")
    values = np.ones(366 * 24)
    for hour in missing:
        values[(pd.Timestamp(hour) - begin) // pd.Timedelta("1h")] = np.nan
    start = (begin - pd.Timestamp(0)) // pd.Timedelta("1h")
    return survey.skipped_hours(make_panel(values, starts=[start]))


def test_hours_that_clocks_skip() -> None:
    """The last Sunday of March at two is such an hour; other days, and hours in the dark of chance, are not."""
    assert hours_of_2024("2024-03-31 02:00") == ["2024-03-31 02:00"]
    assert hours_of_2024("2024-03-30 02:00") == []
    assert hours_of_2024("2024-03-31 12:00") == []
    assert hours_of_2024("2024-03-31 02:00", "2024-03-31 03:00") == []
    assert hours_of_2024("2024-03-31 02:00", "2024-05-01 07:00", "2024-06-05 09:00") == []


def trainer_of(rows: int, **training: Any) -> Trainer:
    panel = make_panel(wave(rows))
    plan = resolve(panel, config.ModelConfig(), config.TrainingConfig(**training), config.MetricConfig())
    return Trainer(panel, plan, device=find_device("cpu"), clock=Clock())


def test_time_is_steps_times_what_one_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A millisecond per window, two fits; a time limit is the most there can be."""
    monkeypatch.setattr(estimate, "_trial", lambda trainer, lessons: 1e-3)
    trainer = trainer_of(400)
    windows, lessons = estimate.count_windows(trainer)
    seconds = estimate.most_seconds(trainer, lessons, windows)
    schedule = trainer.plan.schedule
    steps = 2 * schedule.max_steps * min(schedule.batch_size, windows.train) * 1e-3
    checks = schedule.max_steps / schedule.check_every * windows.choose * 1e-3
    assert seconds is not None
    assert steps < seconds < steps + checks
    limited = trainer_of(400, max_time=2.0)
    assert estimate.most_seconds(limited, lessons, windows) == 2
    monkeypatch.undo()
    trial = estimate._trial(trainer, lessons)
    assert trial is not None
    assert 1e-7 < trial < 0.1


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the figures are Linux's")
@pytest.mark.parametrize("rows", [300, 300_000])
def test_memory_is_within_half_of_what_training_takes(folder: Path, rows: int) -> None:
    """The arithmetic beside the peak of a process."""
    stamps = pd.date_range("1950-01-01", periods=rows, freq="h").strftime("%Y-%m-%d %H:%M")
    pd.DataFrame({"time": stamps, "load": wave(rows).round(3)}).to_csv("d.csv", index=False)
    code = (
        "from pathlib import Path\nfrom stacklstm_cli.cli.app import main\n"
        "try:\n    main(['train', 'd.csv', '--max-time', '3s', '-qq'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "(peak,) = [line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM')]\n"
        "print(int(peak.split()[1]) * 1024)"  # ru_maxrss may be that of the process which started this one
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    measured = int(done.stdout.split()[-1])
    told = checked("d.csv")["estimate"]["memory"]["peak"]
    assert measured / 1.5 < told < measured * 1.5


def test_words_for_sizes_times_and_forms() -> None:
    assert [size(count) for count in (0, 999, 2181, 350_000_000, 1.2e10)] == [
        "0 bytes",
        "999 bytes",
        "2.2 kB",
        "350 MB",
        "12 GB",
    ]
    assert [duration(seconds) for seconds in (0.2, 6.51, 90, 600, 36_000)] == [
        "1 s",
        "6.5 s",
        "90 s",
        "10 minutes",
        "10 hours",
    ]
    assert written("%d/%m/%Y %H:%M") == "day/month/year hour:minute"
    assert written(SEPARATOR.join(("%Y", "%m"))) == "year month"


def test_a_table_off_a_terminal_is_never_cropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for each item, whatever COLUMNS says."""
    single(120).rename(columns={"sold": "s" * 150}).to_csv("d.csv", index=False)
    monkeypatch.setenv("COLUMNS", "40")
    done = run("check", "d.csv", *SMALL)
    assert any(line.startswith("target") and "s" * 150 + ": numbers" in line for line in done.stdout.splitlines())
