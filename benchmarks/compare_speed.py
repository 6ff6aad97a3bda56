"""Time `compare` over 1,000 runs of 200 configurations with 65 question types each.

`python benchmarks/compare_speed.py` writes the run folders to a temporary one, then alternately times the whole
command and `--help`, the least that any command takes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from vqabench.evaluation.scores import CATEGORIES, Scores, TypeScore
from vqabench.results import Manifest, Run, run_folder

SEEDS = 5
TYPES = 65
LOSSES = ("plain", "focal", "rescale", "mask", "mask+rescale")


def write_runs(folder: Path, runs: int) -> None:
    """Write finished runs with random scores."""
    draw = random.Random(0)
    for number in range(runs):
        configuration, seed = divmod(number, SEEDS)
        width, loss = divmod(configuration, len(LOSSES))
        label = f"hidden={width}"
        run = Run(run_folder(folder, "some-data", "updn", f"ce-{LOSSES[loss]}", label, seed))
        run.folder.mkdir(parents=True)
        run.write_manifest(
            Manifest(
                dataset="some-data",
                backbone="updn",
                objective="ce",
                loss=LOSSES[loss],
                label=label,
                seed=seed,
                options={"backbone": {"hidden": width}, LOSSES[loss]: {}},
                distributions={LOSSES[loss]: "vqabench"},
                recipe={"epochs": 12, "batch_size": 512, "optimizer": "adamax", "lr": 0.002},
                stages=[{"name": "train", "loss": LOSSES[loss], "epochs": 12}],
                select="last",
                fingerprint="f" * 64,
                versions={"vqabench": "0", "torch": "0"},
                device="cpu",
                precision="float32",
                threads=1,
                parameters=1,
                started="2026-01-01T00:00:00+00:00",
                status="finished",
            )
        )
        scores = {split: draw_scores(draw) for split in ("val", "test")}
        run.scores_file.write_bytes(msgspec.json.format(msgspec.json.encode(scores), indent=2))


def draw_scores(draw: random.Random) -> Scores:
    accuracy, kappa = ({name: draw.gauss(50, 2) for name in CATEGORIES} for _ in range(2))
    types = {f"type {number}": TypeScore(9, draw.gauss(50, 5)) for number in range(TYPES)}
    return Scores(1000, dict(accuracy), dict(kappa), types)


def time_command(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "vqabench", *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder), arguments.runs)
        pairs = [(time_command("compare", folder), time_command("--help")) for _ in range(arguments.rounds)]
    compare, help_ = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"compare over {arguments.runs:,} runs: {compare:.2f} s, {compare / help_:.1f} times --help ({help_:.2f} s)"
    )


if __name__ == "__main__":
    main()
