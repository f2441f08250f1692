"""What README.md says of cron: its crontab, its scripts and its units, in a real shell."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stacklstm_cli.errors import ExitStatus

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## From cron\n")[2].partition("\n## ")[0]
PLACE = "/srv/forecasts"
NO_SHELL = shutil.which("sh") is None


def blocks(language: str) -> list[str]:
    """The fenced blocks of the section in one language; "" is none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def rows(count: int) -> pd.DataFrame:
    hours = np.arange(count)
    load = 50 + 10 * np.sin(hours * 2 * np.pi / 24) + np.random.default_rng(0).normal(size=500)[:count]
    return pd.DataFrame(
        {"time": pd.date_range("2024-01-01", periods=count, freq="h").strftime("%Y-%m-%d %H:%M"), "load": load}
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of the README with a file, its model, and `stacklstm` where the crontab finds it."""
    program = tmp_path / "bin" / "stacklstm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stacklstm_cli "$@"\n')
    program.chmod(0o755)
    folder = tmp_path / "forecasts"
    folder.mkdir()
    rows(300).to_csv(folder / "load.csv", index=False)
    done = shell("stacklstm train load.csv -q --hidden-size 4 --layers 1 --epochs 1", folder)
    assert done.returncode == 0, done.stderr
    rows(312).to_csv(folder / "load.csv", index=False)
    return folder


def shell(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it as cron does: with sh, outside any terminal, with the folder in the README's place."""
    environment = {**os.environ, "PATH": f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    command = ["sh", "-c", text.replace(PLACE, str(folder)).replace("/usr/local/bin/", "")]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL
    )


def crontab_commands() -> list[str]:
    """The commands of the crontab, as cron reads them: an unescaped % would end them."""
    (table,) = blocks("crontab")
    jobs = [line for line in table.splitlines() if not re.match(r"#|\w+=|$", line)]
    fields = [re.fullmatch(r"((?:[\d*/,-]+ ){5})(.*)", job) for job in jobs]
    assert all(fields)
    commands = [found[2] for found in fields if found]
    assert not any("%" in command for command in commands)
    return commands


def test_the_table_has_every_exit_status() -> None:
    lines = [line.split("|")[1] for line in SECTION.splitlines() if line.startswith("| ")][1:]
    assert sorted(int(code) for line in lines for code in line.split(",")) == sorted(int(one) for one in ExitStatus)


def test_the_units_say_what_the_crontab_says() -> None:
    """They are sound, and their command is the crontab's."""
    service, timer = (configparser.ConfigParser(interpolation=None) for _ in range(2))
    for parser, text in zip((service, timer), blocks("ini"), strict=True):
        parser.optionxform = str  # type: ignore[assignment]  # names of systemd have capitals
        parser.read_string(text)
    assert service["Service"]["WorkingDirectory"] == PLACE
    command = service["Service"]["ExecStart"].removeprefix("/usr/local/bin/")
    assert crontab_commands()[0] == f"cd {PLACE} && {command}"
    assert int(service["Service"]["SuccessExitStatus"]) == ExitStatus.JUDGEMENT
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d", timer["Timer"]["OnCalendar"])


@pytest.mark.slow
@pytest.mark.skipif(NO_SHELL, reason="there is no sh here")
def test_the_crontab_runs_without_a_word(place: Path) -> None:
    """Retrained, forecast written by rename, nothing printed; a night without rows as well."""
    retrain, predict = crontab_commands()
    for status in ("ok", "unchanged"):
        for command in (retrain, predict):
            done = shell(command, place)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert json.loads((place / "retrain.ndjson").read_text().splitlines()[-1])["status"] == status
    forecast = pd.read_csv(place / "forecast.csv")
    assert forecast["time"].tolist() == rows(336)["time"].tolist()[312:]
    names = ["forecast.csv", "load.csv", "load.safetensors", "load.safetensors.1", "retrain.ndjson"]
    assert sorted(path.name for path in place.iterdir()) == names


@pytest.mark.slow
@pytest.mark.skipif(NO_SHELL, reason="there is no sh here")
def test_the_scripts_run(place: Path) -> None:
    """The night's script, then what is typed the day after."""
    night, day = blocks("sh")
    done = shell(night, place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(pd.read_csv(place / "forecast.csv")) == 24
    before = (place / "load.safetensors").read_bytes(), (place / "load.safetensors.1").read_bytes()
    for line in day.splitlines():
        done = shell(line, place)
        assert done.returncode == 0, done.stderr
    assert ((place / "load.safetensors.1").read_bytes(), (place / "load.safetensors").read_bytes()) == before


@pytest.mark.slow
@pytest.mark.skipif(NO_SHELL, reason="there is no sh here")
def test_the_mail_of_a_failure_is_what_is_shown(place: Path) -> None:
    """Word for word; the model is as it was, the script says so and forecasts nothing."""
    before = (place / "load.safetensors").read_bytes()
    rows(312).rename(columns={"load": "power"}).to_csv(place / "load.csv", index=False)
    done = shell(crontab_commands()[0], place)
    (mail,) = blocks("")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == mail
    done = shell(blocks("sh")[0], place)
    assert "status 4" in done.stderr
    assert not (place / "forecast.csv").exists()
    assert (place / "load.safetensors").read_bytes() == before
    codes = [json.loads(line)["code"] for line in (place / "retrain.ndjson").read_text().splitlines()]
    assert codes == ["columns_differ"] * 2
