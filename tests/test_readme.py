"""What README.md promises: its commands run, its table of options is that of the program."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stacklstm_cli import config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {
    "train, tune, check, retrain": (config.ModelConfig, config.TrainingConfig),
    "train, retrain": (config.RunConfig,),
    "tune": (config.StudyConfig,),
    "train, tune": (config.RuntimeConfig, config.MetricConfig),
    "train, tune, predict, evaluate": (config.PictureConfig,),
    "retrain": (config.RetrainConfig, config.RuntimeConfig),
    "promote": (config.PromotionConfig,),
    "inspect": (config.InspectionConfig,),
    "train, tune, check": (config.DataConfig, config.SearchConfig),
    "train, tune, check, predict, evaluate, retrain": (config.ReadingConfig,),
    "export": (config.ExportConfig,),
    "predict": (config.ForecastConfig, config.ForecastRuntimeConfig),
    "evaluate": (config.EvaluationConfig, config.MetricConfig, config.ForecastRuntimeConfig),
    "every command": (config.OutputConfig,),
}


def options_table() -> str:
    """The options of each command, from the one place where they are defined."""
    lines = ["| command | option | default | |", "|---|---|---|---|"]
    for command, configs in COMMANDS.items():
        for one in configs:
            for field in dataclasses.fields(one):
                default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
                if default is None or isinstance(default, bool):
                    default = {None: "", True: "on", False: "off"}[default]
                default = default or field.metadata["unset"]
                help_text = field.metadata["help"].replace("|", "\\|")
                lines.append(f"| {command} | `{config.option_name(field)}` | {default} | {help_text} |")
    return "\n".join(lines)


def test_options_table_is_up_to_date() -> None:
    """Rewrites README.md and fails once where an option has changed."""
    shown = re.search(r"<!-- options -->\n(.*?)\n?<!-- /options -->", README, re.DOTALL)
    assert shown is not None
    if shown[1] != options_table():
        new = README[: shown.start(1)] + options_table() + "\n" + README[shown.end(1) :].lstrip("\n")
        (ROOT / "README.md").write_text(new, encoding="utf-8")
        pytest.fail("README.md's table of options was out of date and has been rewritten")


def test_two_one_line_commands_install_train_and_test() -> None:
    """The form that continuous integration looks for."""
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv .venv && ")]
    assert [("stacklstm train" in line, "pytest" in line) for line in lines] == [(True, False), (False, True)]


@pytest.mark.slow
def test_console_examples_run(tmp_path: Path) -> None:
    """Every command after a `$`, in order, in one folder with the sample data; none may fail."""
    for sample in (ROOT / "sample_data").glob("*.csv"):
        shutil.copy(sample, tmp_path)
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    assert len(lines) > 8
    program = tmp_path / "bin" / "stacklstm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stacklstm_cli "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    for line in lines:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "--output" in line or ">" in line or "-q" in line or done.stdout


def test_changelog_knows_the_version() -> None:
    """The newest heading is unreleased or the version of the project."""
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    heading = re.search(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert heading is not None
    assert heading[1].startswith((version[1], "Unreleased"))
