"""The benchmarks that are quick enough run to their end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
def test_memory_stays_within_its_limit() -> None:
    """Of small files; the full sizes are for a person with some minutes."""
    words = [sys.executable, str(BENCHMARKS / "scale.py"), "--quick", "--max-time", "1s"]
    told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600).stdout.splitlines()
    rows = [line.split() for line in told[2:]]
    assert [int(row[2].replace(",", "")) for row in rows] == [4000, 8000, 16000, 2000, 4000, 8000]
    assert all(float(row[-2]) <= float(row[-1]) for row in rows), told


@pytest.mark.slow
def test_speed_is_compared() -> None:
    words = [sys.executable, str(BENCHMARKS / "speed.py"), "--rounds", "1", "--steps", "2", "--shape", "hidden 32"]
    told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600).stdout.splitlines()
    assert len(told) == 2
    assert all(float(number) > 0 for number in told[1].split()[-7:])
    told = subprocess.run(
        [*words, "--device", "cuda"], check=True, capture_output=True, text=True, timeout=600
    ).stdout.splitlines()
    if not torch.cuda.is_available():
        assert told == ["no CUDA device here: nothing was measured"]
        return
    assert len(told) == 3
    assert all(float(number) > 0 for number in told[2].split()[-7:])
