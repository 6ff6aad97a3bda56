"""One run: one configuration with one seed, from its first step to its scores on disk."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from vqabench import __version__
from vqabench.api import Backbone
from vqabench.config import TrainConfig, make_config
from vqabench.data.annotations import write_predictions
from vqabench.data.batches import SplitData
from vqabench.data.dataset import Dataset
from vqabench.data.prepared import Prepared
from vqabench.errors import InputError, VqabenchError
from vqabench.evaluation.predict import load_split, score_split, spell
from vqabench.evaluation.scores import Scores
from vqabench.plugins import requirements
from vqabench.results import Manifest, Run, write_file
from vqabench.training.assembly import build_losses, build_model, count_parameters, start_model
from vqabench.training.checkpoint import adopt, load_state, restore, restore_begun, save_weights
from vqabench.training.descent import telling_of_no_room
from vqabench.training.device import Autocast, choose_precision, choose_threads, computes_bfloat16
from vqabench.training.loop import Training, answer
from vqabench.training.plan import OWN, Plan, make_plan
from vqabench.training.progress import Progress
from vqabench.training.session import Session
from vqabench.training.state import State


def train_run(
    plan: Plan,
    prepared: Prepared,
    dataset: Dataset,
    seed: int,
    run: Run,
    session: Session,
    *,
    afresh: bool = False,
) -> dict[str, Scores]:
    """Train with one seed, or the rest of it where the run has begun before; score the chosen weights.

    A run that was trained to its end is only scored again; with `afresh`, what the folder holds is deleted
    instead, once nothing stands in the way of training. Of several processes the first one writes.

    Raises InputError where the folder's run began otherwise, TrainingError where a loss is not finite, Stopped
    where a signal has come. Whatever ends it, the manifest says how.
    """
    torch.manual_seed(seed)
    model, losses = build_model(plan, prepared.spec), build_losses(plan, prepared.spec)
    choose_threads(count_parameters(model), session.device, session.threads, session.sharers)
    manifest = _describe(plan, dataset, prepared, session, _precision_of(plan, run, session, afresh), seed, model)
    manifest.start_from = _origin_of(plan, seed, run, afresh)
    kept: dict[str, Any] | None = None
    if run.manifest_file.is_file() and not afresh:
        _take_over(run, manifest, plan, session.progress)
    if manifest.epoch is not None:
        restore(model, run.weights_file)
    elif run.resume_file.is_file() and not afresh:
        kept = load_state(run.resume_file)
        restore_begun(model, kept, run.resume_file)  # what it began with may be gone since
    else:
        _begin(plan, model, manifest, prepared, session.progress)
    manifest.parameters = count_parameters(model)  # a restored state may have brought more words along
    for note in manifest.notes:
        session.progress.say(f"{plan.backbone}: {note}")
    model.to(session.device)
    losses.to(session.device)
    session.processes.share_out(model)
    session.processes.share_out(losses)
    session.processes.seed_gpu(seed, session.device)
    features = session.place(prepared.features, manifest.precision)
    splits = {split: load_split(model, prepared, dataset, split, features) for split in prepared.splits}
    context = session.autocast(manifest.precision)
    with _writing(run, manifest, session, afresh=afresh):
        if manifest.epoch is None:
            manifest.epoch = _train(plan, model, losses, splits, seed, run, session, context, kept, manifest)
        if session.processes.writes:
            restore(model, run.weights_file)
        session.processes.share_out(model)
        scores = _score(plan, model, splits, prepared, dataset, run, session, context)
        manifest.status = "finished"
    if session.processes.writes:
        run.resume_file.unlink(missing_ok=True)
    return scores


@contextmanager
def _writing(run: Run, manifest: Manifest, session: Session, *, afresh: bool) -> Iterator[None]:
    """Keep the manifest on disk as the run goes; whatever ends it, the manifest says how."""
    session.processes.wait()  # all have read what was there before
    writes = session.processes.writes
    if writes:
        run.folder.mkdir(parents=True, exist_ok=True)
    if writes and afresh:
        run.begin_anew(manifest)
    elif writes:
        run.sweep()
        run.write_manifest(manifest)
    began = time.perf_counter()
    try:
        yield
    except KeyboardInterrupt:
        manifest.status = "stopped"
        raise
    except BaseException as error:
        manifest.status, manifest.failure = "failed", f"{type(error).__name__}: {error}"
        begun = run.weights_file.is_file() or run.resume_file.is_file()
        if isinstance(error, InputError) and writes and not begun:
            run.clear()  # parts that cannot go together: no epoch was finished, there is nothing to go on with
        raise
    finally:
        with session.interruption.put_off():
            session.progress.stop()
            manifest.seconds = round(manifest.seconds + time.perf_counter() - began, 3)
            if run.folder.exists() and writes:
                # On a full disk, what ended the run is what the user must hear of.
                with suppress(VqabenchError, OSError) if manifest.status == "failed" else nullcontext():
                    run.write_manifest(manifest)


def _train(
    plan: Plan,
    model: Backbone,
    losses: nn.ModuleList,
    splits: Mapping[str, SplitData],
    seed: int,
    run: Run,
    session: Session,
    context: Autocast,
    kept: dict[str, Any] | None,
    manifest: Manifest,
) -> int | None:
    """Train from the beginning, or from what was kept; give the chosen epoch."""
    if not any(True for _ in model.parameters()):
        session.progress.say(f"{run.folder}: {plan.backbone} has nothing to train")
        if session.processes.writes:
            save_weights(model, run.weights_file)
        return 0
    state = State(model, losses, plan.recipe, seed)
    if kept is not None:
        _take_up(state, kept, run, session)
    finished = run.keep_epochs(state.position.epochs) if session.processes.writes else state.position.epochs
    if finished < state.position.epochs:
        session.progress.warn(f"{run.epochs_file}: lacks finished epochs; training goes on without their record")
    session.saved()
    try:
        with telling_of_no_room(session.device):
            return Training(plan, state, splits, run, session, context).fit().chosen_epoch
    finally:
        manifest.pieces = state.position.pieces


def _take_up(state: State, kept: Mapping[str, Any], run: Run, session: Session) -> None:
    """Go on where a run was. Raises InputError where what was kept does not fit it."""
    try:
        state.take_up(kept, session.processes)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{run.resume_file}: does not fit this run; train it again with --force") from error


def _score(
    plan: Plan,
    model: Backbone,
    splits: Mapping[str, SplitData],
    prepared: Prepared,
    dataset: Dataset,
    run: Run,
    session: Session,
    context: Autocast,
) -> dict[str, Scores]:
    """Answer the questions of `val` and `test`, keep the answers, score them, keep the scores."""
    scores: dict[str, Scores] = {}
    for split in ("val", "test"):
        if split not in splits:
            continue
        chosen = answer(model, splits[split], plan.recipe.batch_size, session, context)
        if session.processes.writes:
            predictions = spell(chosen, prepared, split)
            write_predictions(run.predictions_file(split), predictions)
            scores[split] = score_split(predictions, dataset, split)
    if session.processes.writes:
        write_file(run.scores_file, msgspec.json.format(msgspec.json.encode(scores), indent=2))
    return scores


def _precision_of(plan: Plan, run: Run, session: Session, afresh: bool) -> str:
    """Give the precision asked for, else that which the run began with, else the device's."""
    asked: str = plan.config.precision
    if asked == "auto" and run.manifest_file.is_file() and not afresh:
        asked = run.read_manifest().precision
    precision = choose_precision(asked, session.device)
    if precision == "bfloat16" and not computes_bfloat16(session.device):
        session.progress.warn(f"{session.device} has no instructions for bfloat16: float32 may be much faster")
    return precision


def _describe(
    plan: Plan,
    dataset: Dataset,
    prepared: Prepared,
    session: Session,
    precision: str,
    seed: int,
    model: Backbone,
) -> Manifest:
    config, device = plan.config, session.device
    return Manifest(
        dataset=config.dataset,
        backbone=plan.backbone,
        objective=plan.objective,
        loss=plan.loss,
        label=plan.label,
        seed=seed,
        **plan.identity(),
        track_test=config.track_test,
        test_domain=dataset.entry.test_domain,
        vocabulary=dataset.entry.vocabulary,
        fingerprint=prepared.fingerprint,
        versions=_versions(plan),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} cpu",
        precision=precision,
        threads=torch.get_num_threads(),
        processes=session.processes.count,
        parameters=count_parameters(model),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _origin_of(plan: Plan, seed: int, run: Run, afresh: bool) -> str | None:
    """Name the run to start from, if the plan has one. A run that goes on needs its origin no more."""
    if plan.config.start_from is None:
        return None
    if needs_origin(plan.config.start_from, run, afresh):
        return str(find_origin(plan.config.start_from, seed).folder.resolve())
    return run.read_manifest().start_from


def needs_origin(source: Path, run: Run, afresh: bool) -> bool:
    """Tell whether the run to start from must be there: it may have been moved since an epoch was finished."""
    begun = run.resume_file.is_file() or (run.manifest_file.is_file() and run.read_manifest().epoch is not None)
    return afresh or source.exists() or not begun


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


def _begin(plan: Plan, model: Backbone, manifest: Manifest, prepared: Prepared, progress: Progress) -> None:
    """Give the model what its training begins with, and note what that was, and what it had seen."""
    manifest.pretraining = []
    if manifest.start_from is None:
        start_model(plan, model)
    else:
        origin = Run(Path(manifest.start_from))
        told = adopt(model, load_model(origin, prepared, progress))
        if told:
            progress.say(f"from {origin.folder}: {told}")
        manifest.pretraining = [f"the run it started from: {brand}" for brand in origin.read_manifest().brands()]
    parts = [part for part in model.modules() if isinstance(part, Backbone)]
    manifest.pretraining += [brand for part in parts for brand in part.brands]
    manifest.notes = list(dict.fromkeys([*manifest.notes, *(note for part in parts for note in part.notes)]))


def load_model(run: Run, prepared: Prepared, progress: Progress) -> Backbone:
    """Build a run's model with its weights. Raises InputError where the data has changed or a file is damaged."""
    manifest = run.read_manifest()
    if manifest.fingerprint != prepared.fingerprint:
        raise InputError(f"{run.folder}: it was trained on other data than {manifest.dataset} holds now")
    plan = make_plan(recall_config(manifest))
    for told in _changed_versions(manifest, _versions(plan)):
        progress.warn(f"{run.folder}: was trained with {told}")
    model = build_model(plan, prepared.spec)
    restore(model, run.weights_file)
    return model


def _versions(plan: Plan) -> dict[str, str]:
    own = {"vqabench": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    versions: dict[str, str] = {}
    for plugin in {part.plugin.distribution: part.plugin for part in plan.parts}.values():
        versions[plugin.distribution] = plugin.version
        if plugin.distribution != OWN:  # how a table is drawn changes no run
            versions |= requirements(plugin)
    return versions | own


def _changed_versions(before: Manifest, now: Mapping[str, str]) -> list[str]:
    """Tell which versions have changed since a run began."""
    pairs = {name: (version, now[name]) for name, version in before.versions.items() if name in now}
    return [f"{name} {was}, now {is_}" for name, (was, is_) in sorted(pairs.items()) if was != is_]


def see_same(run: Run, before: Manifest, now: Mapping[str, object]) -> None:
    """Raise InputError unless a run began with these values of its manifest."""
    for name, value in now.items():
        was = getattr(before, name)
        if was != value:
            raise InputError(f"{run.folder}: began with {name} {was}, now {value}; train it again with --force")


def _take_over(run: Run, manifest: Manifest, plan: Plan, progress: Progress) -> None:
    """See that a run goes on as it began; take over its threads, its time so far, and its epoch if it has one."""
    before = run.read_manifest()
    names = ("fingerprint", "precision", "start_from")
    see_same(run, before, plan.identity() | {name: getattr(manifest, name) for name in names})
    manifest.notes, manifest.pretraining = before.notes, before.pretraining
    for told in _changed_versions(before, manifest.versions):
        progress.warn(f"{run.folder}: began with {told}")
        manifest.notes.append(f"began with {told}")
    if before.threads != manifest.threads:
        progress.say(f"{run.folder}: goes on with {before.threads} threads, as it began")
        torch.set_num_threads(before.threads)
    manifest.threads, manifest.pieces = before.threads, before.pieces
    if before.processes != manifest.processes:
        told = f"{before.processes} processes, goes on with {manifest.processes}: not to the same bits"
        if before.epoch is None:
            progress.warn(f"{run.folder}: began with {told}")
            manifest.notes.append(f"began with {told}")
        else:
            manifest.processes = before.processes
    manifest.started, manifest.seconds, manifest.epoch = before.started, before.seconds, before.epoch
    if before.epoch is not None and not run.weights_file.is_file():
        raise InputError(
            f"{run.folder}: was trained, but {run.weights_file.name} is gone; train it again with --force"
        )
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
