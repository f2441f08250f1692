"""What a command costs before it does anything, beside what its imports cost.

    python benchmarks/startup.py [--runs 7]

Each command is timed as a whole process, in turn with its reference, after one run that is not counted; the
medians and the median of the pairwise ratios are printed, since the speed of a machine drifts. Seconds of the
processor are beside those of the clock: where other work runs, only they mean something. Modules are compiled once,
into a folder of their own, as they are for who installs the program.
"""

from __future__ import annotations

import argparse
import os
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


def seconds(command: list[str], compiled: str) -> tuple[float, float]:
    """Of the clock, and of the processor."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin, before = time.perf_counter(), os.times()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment | {"PYTHONPYCACHEPREFIX": compiled},
    )
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begin, processor


def paired(name: str, command: list[str], reference: list[str], runs: int, compiled: str) -> None:
    """Print the medians of both and of their ratio over interleaved runs, by the clock and by the processor."""
    seconds(command, compiled), seconds(reference, compiled)
    pairs = [(seconds(command, compiled), seconds(reference, compiled)) for _ in range(runs)]
    shown = []
    for at in (0, 1):
        own, other = (statistics.median(pair[side][at] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(one[at] / max(two[at], 1e-3) for one, two in pairs)
        shown.append(f"{own:6.2f} s  beside {other:6.2f} s  ratio {ratio:5.2f}")
    print(f"{name:32s} clock {shown[0]}   processor {shown[1]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        compiled = str(Path(folder) / "compiled")
        model = str(Path(folder) / "air.safetensors")
        train = [*PROGRAM, "train", str(AIR), "-m", model, "-q", "--layers", "2"]
        paired("train air passengers / imports", train, IMPORTS, runs, compiled)
        paired("predict / imports", [*PROGRAM, "predict", str(AIR), "-m", model], IMPORTS, runs, compiled)
        paired("evaluate / imports", [*PROGRAM, "evaluate", str(AIR), "-m", model], IMPORTS, runs, compiled)
        paired("inspect / python", [*PROGRAM, "inspect", model], BARE, runs, compiled)
        paired("--help / python", [*PROGRAM, "--help"], BARE, runs, compiled)
        paired("train --help / python", [*PROGRAM, "train", "--help"], BARE, runs, compiled)


if __name__ == "__main__":
    main()
