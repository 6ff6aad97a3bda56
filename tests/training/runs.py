"""Runs on the tiny data set, in this process."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.processes import Forked
from tests.tiny import write_tiny
from vqabench.config import make_config
from vqabench.events import BatchTrained, Emit, Event, Warn, ignore
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.interruption import Interruption
from vqabench.workflows.training import IfExists, train

SIZES = {"hidden": 8, "embedding": 8, "recipe.batch_size": 16}


def places_in(folder: Path) -> Paths:
    """Write the tiny data set; return paths for its runs."""
    return Paths(folder / "runs", folder / "data", write_tiny(folder / "own"))


def elsewhere(paths: Paths, name: str) -> Paths:
    """Return paths with another folder of runs."""
    return dataclasses.replace(paths, runs=paths.runs.with_name(name))


def run(
    paths: Paths,
    if_exists: IfExists = "refuse",
    emit: Emit = ignore,
    interruption: Interruption | None = None,
    **given: Any,
) -> Run:
    """Train with one seed, by default a small UpDn for four epochs."""
    fields = {"backbone": "updn", "dataset": "tiny", "epochs": 4, "settings": SIZES}
    (done,) = train(make_config(fields | given), paths, if_exists, emit, interruption)
    return done


def environment_in(folder: Path) -> dict[str, str]:
    """Return the environment of a command line that runs in a folder with the tiny data set in `own`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VQABENCH_")}
    inherited |= {"VQABENCH_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1"}
    return inherited | {"VQABENCH_CATALOG": str(folder / "own" / "catalog.toml")}


def start(folder: Path, *arguments: str, command: str = "train", **environment: str) -> Forked:
    """Start the command line in a folder that has the tiny data set in `own`."""
    return Forked((command, *arguments), folder, environment_in(folder) | environment)


def start_torchrun(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Let torchrun start two processes of `vqabench train` in a folder that has the tiny data set in `own`."""
    several = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vqabench", "train")
    return subprocess.Popen(
        [sys.executable, "-m", *several, *arguments],
        cwd=folder,
        env=environment_in(folder) | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_in(folder: Path, seed: int = 0) -> Run:
    """Return the only run of a seed in or below a folder."""
    (found,) = folder.glob(f"**/seed-{seed}")
    return Run(found)


def weights(run: Run) -> dict[str, torch.Tensor]:
    """Read a run's weights."""
    return load_file(run.weights_file)


def same_bits(first: Run, second: Run) -> bool:
    """Return whether two runs have the same weights and answers, bit for bit."""
    one, other = weights(first), weights(second)
    equal = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    answers = [run.predictions_file("test").read_bytes() for run in (first, second)]
    return equal and answers[0] == answers[1]


class Counting:
    """Collects messages and counts batches; at one of them, raises KeyboardInterrupt or records a signal."""

    def __init__(self, stop_at: int | None = None, interruption: Interruption | None = None) -> None:
        self.batches, self.stop_at, self.interruption = 0, stop_at, interruption
        self.messages: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, str | Warn):
            self.messages.append(event if isinstance(event, str) else event.text)
        if not isinstance(event, BatchTrained):
            return
        self.batches += 1
        if self.batches == self.stop_at:
            if self.interruption is None:
                raise KeyboardInterrupt
            self.interruption.received = "SIGTERM"
