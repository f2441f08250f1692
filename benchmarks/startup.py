"""What a command costs before it does anything, beside what its imports cost.

    python benchmarks/startup.py [--runs 7]

Each command is timed as a whole process, in turn with its reference, after one run that is not counted; the
medians and the median of the pairwise ratios are printed, since the speed of a machine drifts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = [sys.executable, "-m", "stacklstm_cli"]
AIR = Path(__file__).parent.parent / "sample_data" / "air_passengers.csv"
IMPORTS = [sys.executable, "-c", "import torch, pandas"]
BARE = [sys.executable, "-c", "pass"]


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def paired(name: str, command: list[str], reference: list[str], runs: int) -> None:
    """Print the medians of both and of their ratio over interleaved runs."""
    seconds(command), seconds(reference)
    pairs = [(seconds(command), seconds(reference)) for _ in range(runs)]
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / two for one, two in pairs)
    print(f"{name:34s} {own:7.3f} s   reference {other:7.3f} s   ratio {ratio:5.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "air.safetensors")
        train = [*PROGRAM, "train", str(AIR), "-m", model, "-q", "--layers", "2"]
        paired("train air passengers / imports", train, IMPORTS, runs)
        paired("predict / imports", [*PROGRAM, "predict", str(AIR), "-m", model], IMPORTS, runs)
        paired("evaluate / imports", [*PROGRAM, "evaluate", str(AIR), "-m", model], IMPORTS, runs)
        paired("inspect / python", [*PROGRAM, "inspect", model], BARE, runs)
    paired("--help / python", [*PROGRAM, "--help"], BARE, runs)
    paired("train --help / python", [*PROGRAM, "train", "--help"], BARE, runs)


if __name__ == "__main__":
    main()
