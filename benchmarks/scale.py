"""Time and memory of a training as the data grows: in rows of a series, and in series.

    python benchmarks/scale.py [--quick]

Each size is trained in a process of its own, at 1, 2 and 4 times a base size, with one pass over the windows at most
and a time limit on the optimiser steps, which are the same work for any size: what is left is what grows with the
data. Seconds are those of the clock and of the processor, less those of the imports; where other work runs, only the
latter mean something, and the last column has them for each million of values. Memory is the process's peak less that
of the imports alone; the limit is 150 MB and six times the file's rows and columns as float32.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MEGABYTE = 1_000_000
NETWORK = 150 * MEGABYTE
"""What network and batch may take beside the data."""
RUN = """
import re, resource, sys
from pathlib import Path
from stacklstm_cli.cli import app, runs
import stacklstm_cli.training.fitting, stacklstm_cli.training.resume
if len(sys.argv) > 1:
    app.app(sys.argv[1:], standalone_mode=False)
status = Path("/proc/self/status")  # where it is, as the other figure begins with that of the parent process
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) if status.exists() else peak
print(1024 * peak, file=sys.stderr)
"""


@dataclass(frozen=True)
class Size:
    """A file: `series` columns beside the time, or, where `long`, one below the other under a name."""

    rows: int
    series: int
    long: bool

    @property
    def values(self) -> int:
        return self.rows * self.series

    @property
    def cells(self) -> int:
        """Rows times columns of the file."""
        return 3 * self.values if self.long else self.rows * (1 + self.series)


FULL = (Size(500_000, 4, long=False), Size(200, 5_000, long=True))
QUICK = (Size(2_000, 2, long=False), Size(100, 20, long=True))


def write(size: Size, path: Path) -> None:
    """Hourly waves with noise; the same for the same size."""
    generator = np.random.default_rng(0)
    stamps = np.datetime_as_string(
        np.datetime64("1970-01-01T00") + np.arange(size.rows).astype("timedelta64[h]"), unit="m"
    )
    wave = 10 + np.sin(np.arange(size.rows) * 2 * np.pi / 24)
    with path.open("w") as file:
        if size.long:
            file.write("name,time,value\n")
            for number in range(size.series):
                values = wave + 0.3 * generator.normal(size=size.rows)
                file.writelines(f"s{number},{at},{value:.3f}\n" for at, value in zip(stamps, values, strict=True))
            return
        file.write(",".join(["time", *(f"s{number}" for number in range(size.series))]) + "\n")
        values = wave[:, None] + 0.3 * generator.normal(size=(size.rows, size.series))
        for at, row in zip(stamps, values, strict=True):
            file.write(",".join([at, *(f"{value:.3f}" for value in row)]) + "\n")


def measured(words: list[str]) -> tuple[float, float, int]:
    """Of a process that imports the program and runs these words, if any: seconds of the clock and of the processor,
    and peak memory in bytes."""
    begin, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, "-c", RUN, *words], check=True, capture_output=True, text=True)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begin, processor, int(done.stderr.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small files, to see that it runs")
    parser.add_argument("--max-time", default="10s", help="limit on the optimiser steps of each training")
    asked = parser.parse_args()
    start, start_processor, base = measured([])
    print(f"imports: {start:.1f} s, {base / MEGABYTE:.0f} MB")
    print(
        f"{'rows':>9} {'series':>7} {'values':>11} {'seconds':>8} {'processor':>9} {'a million':>9} {'peak MB':>8} "
        f"{'limit MB':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        data, model = Path(folder) / "data.csv", Path(folder) / "model.safetensors"
        words = ["train", str(data), "-m", str(model), "-qq", "--epochs", "1", "--max-time", asked.max_time]
        for one in QUICK if asked.quick else FULL:
            for times in (1, 2, 4):
                size = (
                    Size(one.rows, one.series * times, True) if one.long else Size(one.rows * times, one.series, False)
                )
                write(size, data)
                seconds, processor, peak = measured([*words, "--no-resume"])
                limit = NETWORK + 6 * 4 * size.cells
                print(
                    f"{size.rows:>9,} {size.series:>7,} {size.values:>11,} {seconds - start:>8.1f} "
                    f"{processor - start_processor:>9.1f} {(processor - start_processor) * 1e6 / size.values:>9.1f} "
                    f"{(peak - base) / MEGABYTE:>8.0f} {limit / MEGABYTE:>9.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
