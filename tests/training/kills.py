"""Processes that train one run and are killed: start them, kill them, find the phase, check the files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py

from tests.processes import FORKSERVER
from vqabench.config import make_config
from vqabench.data.features.seal import check_unbroken
from vqabench.data.features.store import check_numbers, open_features
from vqabench.data.vqa.annotations import read_predictions
from vqabench.evaluation.scores import Scores
from vqabench.files.atomic import read_json
from vqabench.files.hdf5 import differing
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.checkpoint import load_state, load_weights
from vqabench.workflows.training import train

EPOCHS = 2
SETTINGS = {"hidden": 240, "embedding": 32, "recipe.batch_size": 40}
"""A model whose checkpoints take about as long as its steps."""
EVERY_BATCH = 1e-9  # minutes between checkpoints


@dataclass(frozen=True)
class Doomed:
    """A run, and the folders that its processes may be killed over."""

    paths: Paths
    seed: int
    select: str
    checkpoint_minutes: float = EVERY_BATCH

    @property
    def run(self) -> Run:
        """Return the run, which may not have begun."""
        found = list(self.paths.runs.glob(f"*/*/*/seed-{self.seed}"))
        return Run(found[0] if found else self.paths.runs / "none")

    @property
    def data(self) -> Path:
        """Return the folder of prepared data."""
        return self.paths.dataset("tiny").folder

    def position(self) -> tuple[int, int]:
        """Return the epochs that the run will not train again, and the batches of the next one."""
        if self.run.manifest_file.is_file() and self.run.read_manifest().status == "finished":
            return EPOCHS, 0
        if not self.run.resume_file.is_file():
            return 0, 0
        position = load_state(self.run.resume_file)["position"]
        return position["epochs"], position["batches"]

    def has_trained(self) -> bool:
        """Return whether the last epoch is recorded."""
        return self.run.epochs_file.is_file() and self.run.epochs_file.read_bytes().count(b"\n") == EPOCHS


class Process(Protocol):
    """A process, forked or started."""

    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def wait(self) -> int | None: ...


class ForkedRun:
    """A forked process that trains as the command line would with `--resume`."""

    def __init__(self, doomed: Doomed) -> None:
        self.process = FORKSERVER.Process(target=go_on, args=(doomed,))
        self.process.start()
        self.kill = self.process.kill

    def poll(self) -> int | None:
        """Return the exit code, if it has ended."""
        return self.process.exitcode

    def wait(self) -> int | None:
        """Wait for its end."""
        self.process.join()
        return self.process.exitcode


def go_on(doomed: Doomed) -> None:
    """Begin or resume the run."""
    fields: dict[str, Any] = {"backbone": "updn", "dataset": "tiny", "epochs": EPOCHS, "settings": SETTINGS}
    fields |= {"seeds": (doomed.seed,), "select": doomed.select, "checkpoint_minutes": doomed.checkpoint_minutes}
    train(make_config(fields), doomed.paths, "resume")


def commanded(doomed: Doomed) -> subprocess.Popen[bytes]:
    """Start the real command line."""
    options: dict[str, object] = {"dataset": "tiny", "epochs": EPOCHS, "seeds": doomed.seed}
    options |= {"select": doomed.select, "checkpoint-minutes": doomed.checkpoint_minutes}
    options |= {"runs": doomed.paths.runs}
    options |= {"data-dir": doomed.paths.data, "catalog": doomed.paths.catalog}
    line = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    line += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    return subprocess.Popen(
        [sys.executable, "-m", "vqabench", "train", "updn", *line, "--resume"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill(process: Process, sign: Callable[[], bool], delay: float) -> bool:
    """Kill a process `delay` seconds after a sign appears; return whether it was still running."""
    while process.poll() is None and not sign():
        time.sleep(0.0002)
    time.sleep(delay if process.poll() is None else 0)
    process.kill()
    code = process.wait()
    assert code in (0, -signal.SIGKILL), f"ended with {code} instead"
    return code != 0


def has(folder: Path, pattern: str, since: float) -> bool:
    """Return whether a folder has a file of that pattern that was written since."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # gone since it was found
            if path.stat().st_mtime >= since:
                return True
    return False


def where_it_fell(doomed: Doomed, began: float) -> str:
    """Return the phase in which a process was killed that began at that time, by the files in its folders."""
    folder = doomed.run.folder
    if has(doomed.data, ".*", began) and not doomed.run.has_begun():
        return "preparation"
    if not has(folder, "run.json", began):
        return "beginning"
    if has(folder, ".resume.pt.part-*", began) or has(folder, ".model.safetensors.part-*", began):
        return "checkpointing"
    if not doomed.has_trained():
        return "training"
    return "scoring" if has(folder, "predictions.val.json", began) else "evaluation"


def check_whole(doomed: Doomed) -> None:
    """Check that no file of the run or the data is half-written."""
    run = doomed.run
    if run.manifest_file.is_file():
        run.read_manifest()
    if run.weights_file.is_file():
        load_weights(run.weights_file)
    if run.resume_file.is_file():
        load_state(run.resume_file)
    if run.scores_file.is_file():
        read_json(run.scores_file, dict[str, Scores], "")
    for split in ("val", "test"):
        if run.predictions_file(split).is_file():
            read_predictions(run.predictions_file(split))
    if run.epochs_file.is_file():
        lines = run.epochs_file.read_bytes().split(b"\n")
        assert all(json.loads(line) for line in lines[:-1])  # the last, unended, may be broken
    if (doomed.data / "features.h5").is_file():
        check_numbers(open_features(doomed.data / "features.h5"))
        check_unbroken(doomed.data / "features.h5")
    if (doomed.data / "prepared.h5").is_file():
        with h5py.File(doomed.data / "prepared.h5") as file:
            differing(file, file)  # reads everything, and compares the checksums


def contents(doomed: Doomed) -> dict[str, bytes]:
    """Return the content of all files in the folders, without times."""
    found = [*doomed.run.folder.parent.glob("**/*"), *doomed.data.glob("**/*")]
    files = {path.name: path.read_bytes() for path in found if path.is_file() and path.name != "run.json"}
    records = [json.loads(line) for line in files["epochs.jsonl"].splitlines()]
    timeless = [{name: value for name, value in record.items() if name != "seconds"} for record in records]
    seal = {name: value for name, value in json.loads(files["features.h5.json"]).items() if name != "mtime_ns"}
    timed = {"epochs.jsonl": timeless, "features.h5.json": seal}
    return files | {name: json.dumps(content).encode() for name, content in timed.items()}
