"""One run: one configuration with one seed, from its first step to its scores on disk."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import torch
from torch import nn

from vqabench import __version__
from vqabench.api import Backbone
from vqabench.config import TrainConfig, make_config
from vqabench.data.annotations import write_predictions
from vqabench.data.batches import SplitData
from vqabench.data.catalog import Dataset
from vqabench.data.prepared import Prepared
from vqabench.errors import InputError
from vqabench.evaluation.predict import load_split, predict, score_split, spell
from vqabench.evaluation.scores import Scores
from vqabench.results import Manifest, Run, write_file
from vqabench.training.assembly import Plan, build_losses, build_model
from vqabench.training.checkpoint import adopt, restore
from vqabench.training.device import autocast, choose_precision
from vqabench.training.loop import fit
from vqabench.training.progress import Progress


def train_run(
    plan: Plan,
    prepared: Prepared,
    dataset: Dataset,
    device: torch.device,
    seed: int,
    run: Run,
    progress: Progress,
) -> dict[str, Scores]:
    """Train with one seed, or the rest of it where the run has begun before; score the chosen weights.

    A run that was trained to its end is only scored again.

    Raises InputError where the folder's run began otherwise, TrainingError where a loss is not finite.
    Whatever ends it, the manifest says how.
    """
    torch.manual_seed(seed)
    model, losses = build_model(plan, prepared.spec), build_losses(plan, prepared.spec)
    precision = choose_precision(plan.config.precision, device)
    manifest = _describe(plan, prepared, device, precision, seed, model)
    if run.manifest_file.is_file():
        _take_over(run, manifest, progress)
    elif plan.config.start_from is not None:
        _start_from(find_origin(plan.config.start_from, seed), manifest, model, progress)
    model.to(device)
    losses.to(device)
    splits = {split: load_split(model, prepared, dataset, split, device) for split in prepared.splits}
    run.folder.mkdir(parents=True, exist_ok=True)
    run.write_manifest(manifest)
    context = autocast(device, precision)
    began = time.perf_counter()
    try:
        if manifest.epoch is None:
            manifest.epoch = fit(plan, model, losses, splits, seed, run, context, progress).chosen_epoch
        restore(model, run.weights_file)
        scores: dict[str, Scores] = {}
        for split in ("val", "test"):
            if split in splits:
                scores[split] = _answer(plan, model, splits[split], split, prepared, dataset, run, context)
        write_file(run.scores_file, msgspec.json.format(msgspec.json.encode(scores), indent=2))
        manifest.status = "finished"
    except KeyboardInterrupt:
        manifest.status = "stopped"
        raise
    except BaseException as error:
        manifest.status, manifest.failure = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        progress.stop()
        manifest.seconds = round(manifest.seconds + time.perf_counter() - began, 3)
        run.write_manifest(manifest)
    run.resume_file.unlink(missing_ok=True)
    return scores


def _answer(
    plan: Plan,
    model: Backbone,
    data: SplitData,
    split: str,
    prepared: Prepared,
    dataset: Dataset,
    run: Run,
    context: Callable[[], AbstractContextManager[object]],
) -> Scores:
    """Answer a split's questions, keep the answers, score them."""
    predictions = spell(predict(model, data, plan.recipe.batch_size, context()), prepared, split)
    write_predictions(run.predictions_file(split), predictions)
    return score_split(predictions, dataset, split)


def _describe(
    plan: Plan, prepared: Prepared, device: torch.device, precision: str, seed: int, model: nn.Module
) -> Manifest:
    config = plan.config
    versions = {"vqabench": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    return Manifest(
        dataset=config.dataset,
        backbone=plan.backbone,
        objective=plan.objective,
        loss=plan.loss,
        label=plan.label,
        seed=seed,
        options=plan.settings(),
        bases={part.label: part.plugin.name for part in plan.chain[1:]},
        distributions={part.label or "backbone": part.plugin.distribution for part in plan.parts},
        recipe=dataclasses.asdict(plan.recipe),
        stages=[dataclasses.asdict(stage) for stage in plan.stages],
        select=config.select,
        track_test=config.track_test,
        fingerprint=prepared.fingerprint,
        versions=versions | {part.plugin.distribution: part.plugin.version for part in plan.parts},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} cpu",
        precision=precision,
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def find_origin(source: Path, seed: int) -> Run:
    """Find the finished run to start from: the one named, or the one of this seed in the folder named.

    Raises InputError where there is none.
    """
    folder = source if (source / "run.json").is_file() else source / f"seed-{seed}"
    if not (folder / "run.json").is_file():
        raise InputError(f"--from {source}: no run there, and no seed-{seed} in it")
    origin = Run(folder)
    status = origin.read_manifest().status
    if status != "finished":
        raise InputError(f"--from {folder}: that run is {status}, not finished")
    return origin


def _start_from(origin: Run, manifest: Manifest, model: Backbone, progress: Progress) -> None:
    if origin.read_manifest().fingerprint != manifest.fingerprint:
        raise InputError(f"{origin.folder}: it was trained on other data than {manifest.dataset} holds now")
    told = adopt(model, origin.weights_file)
    manifest.start_from = str(origin.folder)
    if told:
        progress.say(f"from {origin.folder}: {told}")


def _take_over(run: Run, manifest: Manifest, progress: Progress) -> None:
    """See that a run goes on as it began; take over its threads, its time so far, and its epoch if it has one."""
    before = run.read_manifest()
    for name in ("options", "bases", "distributions", "recipe", "stages", "select", "fingerprint", "precision"):
        was, now = getattr(before, name), getattr(manifest, name)
        if was != now:
            raise InputError(f"{run.folder}: began with {name} {was}, now {now}; train it again with --force")
    if before.threads != manifest.threads:
        progress.say(f"{run.folder}: goes on with {before.threads} threads, as it began")
        torch.set_num_threads(before.threads)
    manifest.threads, manifest.start_from = before.threads, before.start_from
    manifest.started, manifest.seconds, manifest.epoch = before.started, before.seconds, before.epoch
    if before.epoch is not None:
        progress.say(f"{run.folder}: trained already; scoring it again")
    elif run.epochs_file.is_file() and not run.resume_file.is_file():
        progress.warn(f"{run.folder}: {run.resume_file.name} is missing, so it begins with its first epoch again")


def recall_config(manifest: Manifest) -> TrainConfig:
    """Give the configuration that a run was trained with, every option spelled out."""
    where = manifest.distributions
    settings: dict[str, object] = {label: f"{where[label]}:{name}" for label, name in manifest.bases.items()}
    for label, options in manifest.options.items():
        prefix = "" if label == "backbone" else f"{label}."
        settings |= {f"{prefix}{name}": value for name, value in options.items()}
    given = {
        "backbone": f"{where['backbone']}:{manifest.backbone}",
        "loss": "+".join(f"{where[part]}:{part}" for part in manifest.loss.split("+")),
        "objective": manifest.objective,
        "dataset": manifest.dataset,
        "settings": settings,
    }
    return make_config(given)
