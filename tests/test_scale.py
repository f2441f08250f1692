"""What a large file needs: the memory of a reading and of a training, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest


def benchmark(name: str) -> Any:
    """A script of the benchmarks as a module."""
    spec = spec_from_file_location(name, Path(__file__).parent.parent / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for their names
    spec.loader.exec_module(module)
    return module


scale = benchmark("scale")
STATUS = Path("/proc/self/status")
"""Tells the peak memory of a process; `getrusage` gives that of the parent to a process that it starts."""
# With half as many rows, what is allowed besides the data would hide a reader that keeps every cell as an object.
ROWS, COLUMNS = 1_000_000, 5
MEGABYTES_AS_FLOATS = ROWS * COLUMNS * 4 / 1e6
ALLOWED = 6 * MEGABYTES_AS_FLOATS + 150
MARGIN = 10
"""Megabytes by which allocators differ in how soon they give back what was freed."""
READ = """
import re, sys
from pathlib import Path
from stacklstm_cli.config import DataConfig
from stacklstm_cli.data.reading import read_panel

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path(sys.argv[1]).read_text())[1]) * 1024 / 1e6

before = peak()
panel = read_panel([sys.argv[2]], DataConfig(target=tuple(sys.argv[3:])))
print(panel.n_series, panel.values.size, peak() - before)
"""


def read(path: Path, *targets: str) -> tuple[int, int, float]:
    """Number of series, values of all series, and megabytes above the imports at the peak of reading."""
    command = [sys.executable, "-c", READ, str(STATUS), str(path), *targets]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    series, values, megabytes = done.stdout.split()
    return int(series), int(values), float(megabytes)


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="the system does not tell the peak memory of a process")
@pytest.mark.parametrize("series", [1, 500])
def test_reading_needs_no_more_than_six_times_the_data(tmp_path: Path, series: int) -> None:
    """Where all stamps differ (a wide file of one series a column) and where they repeat in each series."""
    stamps = pd.date_range("2000-01-01", periods=ROWS // series, freq="min").strftime("%Y-%m-%d %H:%M:%S")
    frame = pd.DataFrame({"date": np.tile(stamps, series)})
    if series > 1:
        frame.insert(0, "id", np.repeat([f"series {number}" for number in range(series)], ROWS // series))
    generator = np.random.default_rng(0)
    targets = [f"v{number}" for number in range(COLUMNS - len(frame.columns))]
    for name in targets:
        frame[name] = generator.normal(100, 10, ROWS).round(4)
    pacsv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "large.csv")
    wanted = targets[:1] if series > 1 else targets
    found, values, megabytes = read(tmp_path / "large.csv", *wanted)
    assert (found, values) == (series * len(wanted), ROWS * len(wanted))
    assert 8 * values / 1e6 < megabytes < ALLOWED + MARGIN


GIVE_BACK = """
import re, sys
from pathlib import Path
import numpy as np
from stacklstm_cli.data.memory import give_back

def held():
    return int(re.search(r"RssAnon:\\s*(\\d+) kB", Path(sys.argv[1]).read_text())[1]) * 1024 / 1e6

pieces = [np.ones(10_000) for _ in range(1000)]  # 80 kB each: too small for the system to be asked for each
del pieces[:-1]
before = held()
give_back()
print(before - held())
"""


@pytest.mark.skipif(not STATUS.exists(), reason="the system does not tell the memory of a process")
def test_what_was_freed_is_given_back() -> None:
    """Though what was allocated last is still held."""
    command = [sys.executable, "-c", GIVE_BACK, str(STATUS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    if "glibc" not in platform.libc_ver():
        pytest.skip("only glibc is told to")
    assert float(done.stdout) > 60


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="the system does not tell the peak memory of a process")
def test_training_needs_no_more_than_six_times_the_data_and_150_megabytes(tmp_path: Path) -> None:
    """From the file to the model, in the two shards at a time that two cores allow."""
    size = scale.Size(1_000_000, 2, long=False)
    scale.write(size, tmp_path / "data.csv")
    words = ["train", str(tmp_path / "data.csv"), "-m", str(tmp_path / "m.safetensors"), "-qq", "--no-resume"]
    base = scale.measured([])[-1]
    peak = scale.measured([*words, "--epochs", "1", "--max-time", "4s", "--threads", "2"])[-1]
    assert peak - base < scale.NETWORK + 6 * 4 * size.cells + 1e6 * MARGIN
