"""One run: one configuration with one seed, from its first step to its scores on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vqabench.api import Backbone
from vqabench.data.batches.split_data import SplitData
from vqabench.data.catalog.dataset import Dataset
from vqabench.data.prepare.prepared import Prepared
from vqabench.data.vqa.annotations import SurePrediction, write_predictions
from vqabench.errors import InputError, OutputError, VqabenchError, is_interruption
from vqabench.evaluation.predict import load_split, score_split, spell
from vqabench.evaluation.run_answers import count_differences, read_stored
from vqabench.evaluation.scores import Scores, write_scores
from vqabench.events import Emit, RunScored, Warn
from vqabench.files.atomic import hash_file
from vqabench.results import Manifest, Run
from vqabench.training.assembly import build_losses, build_model, count_parameters, start_model
from vqabench.training.checkpoint import RESTORE, adopt, load_state, restore, restore_begun, save_weights
from vqabench.training.descent import telling_of_no_room
from vqabench.training.device import Autocast, choose_precision, choose_threads, computes_bfloat16
from vqabench.training.guard import calling
from vqabench.training.logs import logged, name_scores
from vqabench.training.loop import Training, answer
from vqabench.training.plan import Plan, make_plan
from vqabench.training.record import changed_code, describe, recall_config, take_over
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
    manifest = describe(plan, dataset, prepared, session, _precision_of(plan, run, session, afresh), seed, model)
    manifest.start_from = _origin_of(plan, seed, run, afresh)
    kept: dict[str, Any] | None = None
    if run.manifest_file.is_file() and not afresh:
        take_over(run, manifest, plan, session.emit)
    if manifest.epoch is not None:
        run.check_file(run.weights_file, RESTORE)
        restore(model, run.weights_file)
    elif run.resume_file.is_file() and not afresh:
        kept = load_state(run.resume_file)
        restore_begun(model, kept, run.resume_file)  # what it began with may be gone since
    else:
        _begin(plan, model, manifest, prepared, session.emit)
    manifest.parameters = count_parameters(model)  # a restored state may have brought more words along
    for note in manifest.notes:
        session.emit(f"{plan.backbone}: {note}")
    model.to(session.device)
    losses.to(session.device)
    session.processes.share_out(model)
    session.processes.share_out(losses)
    session.processes.seed_gpu(seed, session.device)
    features = session.place(prepared.features, manifest.precision)
    with calling(plan.parts, "reading questions"):
        splits = {split: load_split(model, prepared, dataset, split, features) for split in dataset.scored}
    context = session.autocast(manifest.precision)
    names = plan.config.log if session.processes.writes else ()
    with logged(names, run, manifest, session.emit) as emit, _writing(run, manifest, session, afresh=afresh):
        rescoring = manifest.epoch is not None
        if not rescoring:
            manifest.epoch = _train(plan, model, losses, splits, seed, run, session, context, kept, manifest, emit)
        if session.processes.writes:
            restore(model, run.weights_file)
        session.processes.share_out(model)
        scores = _score(plan, model, splits, prepared, dataset, run, session, rescoring=rescoring)
        if session.processes.writes:
            written = (run.weights_file, run.scores_file, *map(run.predictions_file, scores))
            manifest.checksums = {file.name: hash_file(file) for file in written}
        emit(RunScored(manifest.epoch or 0, name_scores(scores)))
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
    except BaseException as error:
        if is_interruption(error):
            manifest.status = "stopped"
            raise
        manifest.status, manifest.failure = "failed", f"{type(error).__name__}: {error}"
        begun = run.weights_file.is_file() or run.resume_file.is_file()
        if isinstance(error, InputError) and writes and not begun:
            run.clear()  # parts that cannot go together: no epoch was finished, there is nothing to go on with
        raise
    finally:
        with session.interruption.put_off():
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
    emit: Emit,
) -> int | None:
    """Train from the beginning, or from what was kept; give the chosen epoch."""
    if not any(True for _ in model.parameters()):
        session.emit(f"{run.folder}: {plan.backbone} has nothing to train")
        if session.processes.writes:
            save_weights(model, run.weights_file)
        return 0
    state = State(model, losses, plan.recipe, seed)
    if kept is not None:
        _take_up(state, kept, run, session)
    finished = run.keep_epochs(state.position.epochs) if session.processes.writes else state.position.epochs
    if finished < state.position.epochs:
        session.emit(Warn(f"{run.epochs_file}: lacks finished epochs; training continues without their records"))
    session.saved()
    try:
        with telling_of_no_room(session.device):
            return Training(plan, state, splits, run, session, context, emit).fit().chosen_epoch
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
    *,
    rescoring: bool,
) -> dict[str, Scores]:
    """Answer the questions of `val` and `test`, keep the answers, score them, keep the scores.

    Answers that the run has stored are its own: `rescoring` keeps them, and warns where the model gives others now.
    """
    scores: dict[str, Scores] = {}
    for split in ("val", "test"):
        if split not in splits:
            continue
        chosen = answer(plan, model, splits[split], session)
        if session.processes.writes:
            predictions = spell(chosen, prepared, split)
            if rescoring:
                predictions = _prefer_stored(run, split, predictions, session.emit)
            write_predictions(run.predictions_file(split), predictions)
            scores[split] = score_split(predictions, prepared, dataset, split)
    if session.processes.writes:
        write_scores(run, scores)
    return scores


def _prefer_stored(run: Run, split: str, given: list[SurePrediction], emit: Emit) -> list[SurePrediction]:
    """Return a run's stored answers where there are any, else those given; warn of differences and of damage."""
    file = run.predictions_file(split)
    try:
        stored = read_stored(run, file)
    except InputError as error:
        emit(Warn(f"{error}: answered again"))
        return given
    if stored is None:
        return given
    changed = count_differences(stored, given)
    if changed:
        emit(
            Warn(
                f"{file}: the model now gives different answers to {changed} of {len(given)} questions; the stored "
                "answers are kept and scored"
            )
        )
    return stored


def _precision_of(plan: Plan, run: Run, session: Session, afresh: bool) -> str:
    """Give the precision asked for, else that which the run began with, else the device's."""
    asked: str = plan.config.precision
    if asked == "auto" and run.manifest_file.is_file() and not afresh:
        asked = run.read_manifest().precision
    precision = choose_precision(asked, session.device)
    if precision == "bfloat16" and not computes_bfloat16(session.device):
        session.emit(Warn(f"{session.device} has no instructions for bfloat16: float32 may be much faster"))
    return precision


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


def _begin(plan: Plan, model: Backbone, manifest: Manifest, prepared: Prepared, emit: Emit) -> None:
    """Give the model what its training begins with, and note what that was, and what it had seen."""
    manifest.pretraining = []
    if manifest.start_from is None:
        start_model(plan, model)
    else:
        origin = Run(Path(manifest.start_from))
        message = adopt(model, load_model(origin, prepared, emit))
        if message:
            emit(f"from {origin.folder}: {message}")
        manifest.pretraining = [f"the run it started from: {brand}" for brand in origin.read_manifest().brands()]
    parts = [part for part in model.modules() if isinstance(part, Backbone)]
    with calling(plan.parts, "starting"):
        for part in parts:
            _check_texts(part)
    manifest.pretraining += [brand for part in parts for brand in part.brands]
    manifest.notes = list(dict.fromkeys([*manifest.notes, *(note for part in parts for note in part.notes)]))


def _check_texts(part: Backbone) -> None:
    """Raise OutputError unless what a backbone says about itself is text, as the manifest holds it."""
    for name, texts in (("notes", part.notes), ("brands", part.brands)):
        if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
            raise OutputError(f"its {name} must be a tuple of texts, not {texts!r}", part)


def recall_plan(manifest: Manifest) -> Plan:
    """Return the plan that a run was trained by. Raises PluginError where one of its plugins cannot be loaded."""
    return make_plan(recall_config(manifest))


def load_model(run: Run, prepared: Prepared, emit: Emit, plan: Plan | None = None) -> Backbone:
    """Build a run's model with its weights; warn where the code has changed since.

    Raises InputError where the data has changed or a file is damaged.
    """
    manifest = run.read_manifest()
    if manifest.fingerprint != prepared.fingerprint:
        raise InputError(f"{run.folder}: it was trained on different data than {manifest.dataset} holds now")
    plan = plan or recall_plan(manifest)
    for message in changed_code(manifest, plan):
        emit(Warn(f"{run.folder}: was trained with {message}"))
    model = build_model(plan, prepared.spec)
    run.check_file(run.weights_file, RESTORE)
    restore(model, run.weights_file)
    return model
