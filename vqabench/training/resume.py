"""Decide how a run starts, from the contents of its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vqabench.data.vqa.annotations import read_predictions
from vqabench.errors import InputError
from vqabench.evaluation.run_answers import ANSWER_AGAIN
from vqabench.evaluation.scores import read_scores
from vqabench.results import Manifest, Run
from vqabench.training.checkpoint import RESTORE, load_weights
from vqabench.training.plan import Plan
from vqabench.training.provenance import check_same, complete

IfExists = Literal["refuse", "resume", "force"]


@dataclass(frozen=True)
class Start:
    """How a run starts."""

    kind: Literal["fresh", "resume", "rescore", "finished"]
    """From the first epoch; from `resume.pt`; trained to its end, so only scored again; nothing is left to do."""
    before: Manifest | None = None
    """The manifest of the run that is continued, with the settings added since. Without it, a run that exists is
    replaced."""
    origin: Run | None = None
    """The finished run whose weights a fresh one starts from (`--from`)."""


def begin(plan: Plan, seed: int, run: Run, if_exists: IfExists) -> Start:
    """Decide how a run starts.

    Raises InputError if it exists and must not be continued, began with other settings, or lacks files; or if the
    run that it starts from is needed and missing.
    """
    exists, source = run.has_begun(), plan.config.start_from
    if exists and if_exists == "refuse":
        raise InputError(f"{run.folder} exists: continue it with --resume, or replace it with --force")
    # With --force nothing of the old run is read: it may be damaged.
    if not exists or if_exists == "force":
        return Start("fresh", origin=None if source is None else find_origin(source, seed))
    before = complete(run.read_manifest(), plan)
    identity = {"dataset": plan.config.dataset, "backbone": plan.backbone, "loss": plan.loss, "seed": seed}
    identity |= plan.identity()
    if plan.config.precision != "auto":  # otherwise it continues in the precision that it began with
        identity["precision"] = plan.config.precision
    if source is None:
        identity["start_from"] = None
    elif source.exists():  # it may have been deleted or moved since
        identity["start_from"] = str(find_origin(source, seed).folder.resolve())
    check_same(run, before, identity)
    if before.status == "finished" or before.epoch is not None:
        return Start("finished" if _is_whole(run, before) else "rescore", before)
    if run.resume_file.is_file():  # needs no origin: its weights are in the file
        return Start("resume", before)
    # Stopped before its first checkpoint, or its checkpoint is gone: its settings still hold.
    return Start("fresh", before, None if source is None else find_origin(source, seed))


def _is_whole(run: Run, before: Manifest) -> bool:
    """Return whether a trained run has all its results. Raises InputError if it cannot be scored again either."""
    has_weights = run.weights_file.is_file()
    if has_weights:
        run.check_file(run.weights_file, RESTORE)
        load_weights(run.weights_file)
    if before.status == "finished" and has_scored_answers(run):
        return True  # even without its weights, which a user short of disk space may have deleted
    if not has_weights:
        message = f"was trained, but {run.weights_file.name} is missing; restore it, or train it again with --force"
        raise InputError(f"{run.folder}: {message}")
    return False


def has_scored_answers(run: Run) -> bool:
    """Return whether a run's answers and scores are those that it wrote, and can be read."""
    try:
        for split in read_scores(run):
            run.check_file(run.predictions_file(split), ANSWER_AGAIN)
            read_predictions(run.predictions_file(split))
    except InputError:
        return False
    return True


def find_origin(source: Path, seed: int) -> Run:
    """Return the finished run to start from: the one named, or the one of this seed in the folder named.

    Raises InputError if there is none.
    """
    folder = source if (source / "run.json").is_file() else source / f"seed-{seed}"
    if not (folder / "run.json").is_file():
        others = any(source.glob("seed-*/run.json"))
        raise InputError(f"--from {source}: there is no {f'seed-{seed}' if others else 'run'} in that folder")
    origin = Run(folder)
    status = origin.read_manifest().status
    if status != "finished":
        raise InputError(f"--from {folder}: that run is {status}, not finished")
    return origin
