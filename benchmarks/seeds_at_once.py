"""Time several seeds trained one by one, and at the same time, with the whole command each.

`python benchmarks/seeds_at_once.py` trains a small UpDn on `digits-cp`. With `--folder DIR` it trains UpDn at full
size on the files that `training_speed.py` has written there (the folder of a size, which contains `complete`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.synthetic_vqa import DATASET


def seconds_of(arguments: list[str], jobs: int) -> float:
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "vqabench", "train", "updn", *arguments]
        start = time.perf_counter()
        done = subprocess.run([*command, "--jobs", str(jobs), "--runs", runs], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", default="0-3")
    parser.add_argument("--epochs", default="2")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    arguments = ["--seeds", options.seeds, "--epochs", options.epochs, "--device", options.device]
    if options.folder:
        where = ["--catalog", str(options.folder / "catalog.toml"), "--data-dir", str(options.folder)]
        arguments += ["--dataset", DATASET, *where]
    seconds: dict[int, list[float]] = {1: [], options.jobs: []}
    for _ in range(options.rounds):
        for jobs, found in seconds.items():
            found.append(seconds_of(arguments, jobs))
    for jobs, found in seconds.items():
        print(f"seeds {options.seeds}, {jobs} at a time: {median(found):.1f} s ({min(found):.1f}-{max(found):.1f})")
    print(f"at once: {median(seconds[1]) / median(seconds[options.jobs]):.2f} times as fast")


if __name__ == "__main__":
    main()
