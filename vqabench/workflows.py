"""One function per command: what the command line and a notebook both call."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn

from vqabench import __version__
from vqabench.api import Backbone
from vqabench.config import TrainConfig, make_config
from vqabench.data.annotations import (
    Annotation,
    Prediction,
    check_answers,
    pair,
    read_annotations,
    read_predictions,
    read_questions,
    write_predictions,
)
from vqabench.data.batches import SplitData
from vqabench.data.catalog import Dataset, find_dataset
from vqabench.data.prepared import Prepared, prepare
from vqabench.errors import InputError, VqabenchError, unknown
from vqabench.evaluation import comparison
from vqabench.evaluation.predict import predict as answer_questions
from vqabench.evaluation.scores import Scores, check_predictions, score
from vqabench.results import Manifest, Run, find_runs, run_folder, write_file
from vqabench.training.assembly import Plan, build_losses, build_model, make_plan, origin_name
from vqabench.training.checkpoint import adopt, restore
from vqabench.training.device import autocast, choose_device, choose_precision
from vqabench.training.loop import fit
from vqabench.training.progress import Progress, Silence

IfExists = Literal["refuse", "resume", "force"]


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    runs: Path = Path("runs")
    data: Path | None = None
    """None: `$VQABENCH_DATA`, or the platform's data folder."""
    catalog: Path | None = None
    """The user's own catalogue."""


def train(
    config: TrainConfig, places: Places, if_exists: IfExists = "refuse", progress: Progress | None = None
) -> list[Run]:
    """Train one configuration with each of its seeds; score the chosen weights on `val` and `test`.

    Raises InputError where something is wrong with names, settings, data or folders, before any training;
    TrainingError where a loss is not finite; KeyboardInterrupt through, with finished epochs saved.
    """
    progress = progress or Silence()
    plan = make_plan(config)
    device = choose_device(config.device)
    dataset = find_dataset(config.dataset, places.catalog, places.data)
    _check_splits(config, dataset)
    folders = {
        seed: run_folder(places.runs, config.dataset, config.backbone, plan.strategy, plan.label, seed)
        for seed in config.seeds
    }
    runs = {seed: Run(folder) for seed, folder in folders.items()}
    for run in runs.values():
        _check_existing(run, if_exists)
    if config.select == "test":
        progress.warn("--select test chooses the epoch on the test split: the run and its tables will say so")
    prepared = prepare(dataset, progress.say)
    for seed, run in runs.items():
        if if_exists == "resume" and run.manifest_file.is_file() and run.read_manifest().status == "finished":
            progress.say(f"{run.folder}: finished already")
            continue
        if if_exists == "force":
            run.clear()
        _train_seed(plan, prepared, dataset, device, seed, run, progress)
    return list(runs.values())


def _check_splits(config: TrainConfig, dataset: Dataset) -> None:
    splits = dataset.entry.splits
    if config.select != "last" and config.select not in splits:
        raise InputError(f"--select {config.select}: {dataset.name} has no such split; it has {', '.join(splits)}")
    if config.track_test and "test" not in splits:
        raise InputError(f"--track-test: {dataset.name} has no test split; it has {', '.join(splits)}")


def _check_existing(run: Run, if_exists: IfExists) -> None:
    if if_exists == "refuse" and run.folder.exists():
        raise InputError(
            f"{run.folder}: this run exists; go on with it or keep it (--resume), or replace it (--force)"
        )
    if if_exists == "resume" and run.folder.exists():
        run.read_manifest()


def _train_seed(
    plan: Plan,
    prepared: Prepared,
    dataset: Dataset,
    device: torch.device,
    seed: int,
    run: Run,
    progress: Progress,
) -> None:
    config = plan.config
    torch.manual_seed(seed)
    model, losses = build_model(plan, prepared.spec), build_losses(plan, prepared.spec)
    precision = choose_precision(config.precision, device)
    manifest = _describe(plan, prepared, device, precision, seed, model)
    if config.start_from is not None:
        _start_from(config.start_from, seed, manifest, model, progress)
    if run.manifest_file.is_file():
        _check_resumable(run, manifest, progress)
    model.to(device), losses.to(device)
    splits = load_splits(model, prepared, dataset, device)
    run.folder.mkdir(parents=True, exist_ok=True)
    run.write_manifest(manifest)
    began = time.perf_counter()
    context = autocast(device, precision)
    try:
        position = fit(plan, model, losses, splits, seed, run, context, progress)
        restore(model, run.weights_file)
        scores = _score_splits(model, splits, dataset, prepared, plan.recipe.batch_size, run, context())
        manifest.status, manifest.epoch = "finished", position.chosen_epoch
    except KeyboardInterrupt:
        manifest.status = "stopped"
        raise
    except BaseException as error:
        manifest.status, manifest.failure = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        progress.stop()
        manifest.seconds += time.perf_counter() - began
        run.write_manifest(manifest)
    run.resume_file.unlink(missing_ok=True)
    for split, form in scores.items():
        accuracy = "undefined" if form.accuracy["all"] is None else f"{form.accuracy['all']:.2f}"
        progress.say(f"{run.folder}: {split} accuracy {accuracy}")


def _describe(
    plan: Plan, prepared: Prepared, device: torch.device, precision: str, seed: int, model: nn.Module
) -> Manifest:
    config = plan.config
    return Manifest(
        dataset=config.dataset,
        backbone=config.backbone,
        objective=plan.objective,
        loss=config.loss,
        label=plan.label,
        seed=seed,
        options=plan.settings(),
        bases={part.label: part.plugin.name for part in plan.chain[1:]},
        recipe=dataclasses.asdict(plan.recipe),
        stages=[dataclasses.asdict(stage) for stage in plan.stages],
        select=config.select,
        track_test=config.track_test,
        start_from=str(config.start_from) if config.start_from else None,
        fingerprint=prepared.fingerprint,
        versions=_versions(plan),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() + " cpu",
        precision=precision,
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _versions(plan: Plan) -> dict[str, str]:
    names = {"vqabench": __version__, "python": platform.python_version(), "torch": torch.__version__}
    return names | {part.plugin.distribution: part.plugin.version for part in plan.parts}


def _start_from(source: Path, seed: int, manifest: Manifest, model: Backbone, progress: Progress) -> None:
    """Start a model from a finished run: the run named, or the one of this seed in the folder named."""
    folder = source if (source / "run.json").is_file() else source / f"seed-{seed}"
    origin = Run(folder)
    before = origin.read_manifest()
    if before.fingerprint != manifest.fingerprint:
        raise InputError(f"{folder}: it was trained on another data set than {manifest.dataset} is now")
    told = adopt(model, origin.weights_file)
    manifest.start_from = str(folder)
    if told:
        progress.say(f"from {folder}: {told}")


def _check_resumable(run: Run, manifest: Manifest, progress: Progress) -> None:
    """See that a run goes on as it began, and take over its threads and its time so far."""
    before = run.read_manifest()
    for name in ("options", "recipe", "stages", "fingerprint", "precision"):
        if getattr(before, name) != getattr(manifest, name):
            raise InputError(
                f"{run.folder}: it began with other {name} ({getattr(before, name)}, now "
                f"{getattr(manifest, name)}); train it again with --force"
            )
    if before.threads != manifest.threads:
        progress.say(f"{run.folder}: goes on with {before.threads} threads, as it began")
        torch.set_num_threads(before.threads)
        manifest.threads = before.threads
    manifest.started, manifest.seconds = before.started, before.seconds


def load_splits(
    model: Backbone, prepared: Prepared, dataset: Dataset, device: torch.device, only: str | None = None
) -> dict[str, SplitData]:
    """Put a data set's splits (or only one of them) on a device, with what the model's own tokeniser makes."""
    splits = [only] if only else list(prepared.splits)
    return {
        split: SplitData(prepared, split, device, _tokenise(model, prepared, dataset, split)) for split in splits
    }


def _tokenise(model: Backbone, prepared: Prepared, dataset: Dataset, split: str) -> Mapping[str, Tensor]:
    if not model.prepare_questions([]):
        return {}
    texts = {question.question_id: question.question for question in dataset.read_split(split)[0]}
    return model.prepare_questions([texts[int(number)] for number in prepared.splits[split].question_ids])
