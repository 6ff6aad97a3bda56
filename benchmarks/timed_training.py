"""Train UpDn on the files of `training_speed.py` in this process, and print one line of JSON about its speed.

`python benchmarks/timed_training.py FOLDER --device cpu --precision float32` runs the code behind `vqabench train`.
The times come from its events.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.step_floor import Step, measure_rates, synchronize
from benchmarks.synthetic_vqa import DATASET, TEST, paths
from vqabench.config import make_config
from vqabench.data.batches.placement import PlacedFeatures, choose_place
from vqabench.data.prepare.prepared import Prepared, prepare
from vqabench.evaluation.predict import evaluation_batch, load_split, predict
from vqabench.events import BatchTrained, EpochFinished, Event, RunStarted, StepsMeasured, ignore
from vqabench.paths import Paths
from vqabench.results import Run, find_runs
from vqabench.training.device import number_type
from vqabench.training.interruption import Interruption, Stopped
from vqabench.training.model import load_model
from vqabench.workflows.training import train

NOT_TIMED = 5
"""Batches that find pages unread and memory not yet taken."""


class Stopwatch:
    """Records when the first step was done, and how long each epoch took, without validating and saving.

    If only some batches are wanted, it ends the run after them, and records how fast all but the first were.
    """

    def __init__(self, device: torch.device, batches: int | None, interruption: Interruption) -> None:
        self.device, self.batches, self.interruption = device, batches, interruption
        self.samples = self.seen = self.done = 0
        self.ready_at = self.begun = self.read_at = 0.0
        self.first_step_at: float | None = None
        self.rates: list[float] = []

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.samples = event.questions
                self.ready_at = self.begun = time.monotonic()
            case BatchTrained():
                self._advance(event.questions)
            case StepsMeasured():  # the last batch of an epoch is followed by one, which waits for the device
                self.read_at = time.monotonic()
            case EpochFinished():
                self.rates.append(self.samples / (self.read_at - self.begun))
                self.begun = time.monotonic()

    def _advance(self, samples: int) -> None:
        self.done += 1
        if self.done in (1, NOT_TIMED, self.batches):
            synchronize(self.device)
        if self.first_step_at is None:
            self.first_step_at = time.monotonic()
        if self.batches is None:
            return
        if self.done == NOT_TIMED:
            self.begun, self.seen = time.monotonic(), 0
        self.seen += samples * (self.done > NOT_TIMED)
        if self.done == self.batches:
            self.rates = [0.0, self.seen / (time.monotonic() - self.begun)]
            self.interruption.received = "SIGTERM"


def describe_step(prepared: Prepared, run: Run) -> Step:
    manifest, train_split = run.read_manifest(), prepared.splits["train"]
    regions = prepared.features.regions
    return Step(
        questions=int(manifest.recipe["batch_size"]),
        words=float((train_split.tokens > 0).sum(1).mean()),
        regions=float(prepared.features.counts.mean()),
        width=regions.shape[2],
        hidden=int(manifest.options["backbone"]["hidden"] or regions.shape[2] // 2),
        embedding=int(manifest.options["backbone"]["embedding"]),
        answers=len(prepared.spec.answers),
        parameters=manifest.parameters,
        bytes_a_feature=regions.dtype.itemsize,
    )


def time_answering(run: Run, where: Paths, prepared: Prepared, device: torch.device, precision: str) -> float:
    """Answer `test`, as a run does at its end, and return the questions per second."""
    model = load_model(run, prepared, ignore).to(device)
    place = choose_place("auto", prepared.features, device)
    features = PlacedFeatures(prepared.features, device, place, number_type(precision))
    data = load_split(model, prepared, where.dataset(DATASET), "test", features)
    manifest = run.read_manifest()
    batch_size = evaluation_batch(int(manifest.recipe["batch_size"]), data)
    start = time.monotonic()
    predict(model, data, batch_size, manifest.objective)
    return TEST / (time.monotonic() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--features", choices=("auto", "device", "host", "disk"), default="auto")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--batches", type=int, help="time so many of the first epoch's, and answer nothing")
    options = parser.parse_args()
    device = torch.device(options.device)
    interruption = Interruption()
    watch = Stopwatch(device, options.batches, interruption)
    asked = {name: getattr(options, name) for name in ("device", "precision", "epochs", "features")}
    settings = {"recipe.batch_size": options.batch_size}
    config = make_config(asked | {"backbone": "updn", "loss": "rescale", "dataset": DATASET, "settings": settings})
    with tempfile.TemporaryDirectory(dir=options.folder) as runs:
        where = paths(options.folder, Path(runs))
        with suppress(Stopped):
            train(config, where, "force", watch, interruption)
        trained_at = time.monotonic()
        (run,) = find_runs([where.runs])
        prepared = prepare(where.dataset(DATASET), watch)
        step = describe_step(prepared, run)
        found: dict[str, Any] = {
            "samples_per_second": watch.rates[1:],
            "ready_at": watch.ready_at,
            "first_step_at": watch.first_step_at,
            "trained_at": trained_at,
            "gpu_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            "threads": torch.get_num_threads(),
            "device": run.read_manifest().device,
        }
        if options.batches is None:
            found["answers_per_second"] = time_answering(run, where, prepared, device, options.precision)
    rates = measure_rates(step, device, options.precision)
    seconds = rates.seconds(step)
    found |= {"step": dataclasses.asdict(step) | {"flops": step.flops(), "memory_bytes": step.memory_bytes()}}
    found |= {"rates": dataclasses.asdict(rates), "floor_seconds": seconds}
    found["floor_samples_per_second"] = step.questions / max(seconds.values())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
