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

from vqabench.api import Backbone
from vqabench.config import to_table
from vqabench.data.batches.split_data import SplitData
from vqabench.data.vqa.annotations import SurePrediction, hash_ids, write_predictions
from vqabench.errors import InputError, OutputError, VqabenchError, is_interruption
from vqabench.evaluation.predict import load_split, score_split, spell
from vqabench.evaluation.run_answers import count_differences, read_stored
from vqabench.evaluation.scores import Scores, write_scores
from vqabench.events import Emit, RunEnded, RunScored, Warn
from vqabench.files.atomic import hash_file
from vqabench.results import Manifest, Run
from vqabench.training.checkpoint import MISMATCHES, State, load_state, restore, save_weights
from vqabench.training.device import autocast, choose_precision, choose_threads, computes_bfloat16
from vqabench.training.guard import calling
from vqabench.training.logs import Logs, name_scores
from vqabench.training.loop import Training, answer
from vqabench.training.model import adopt, build_losses, build_model, count_parameters, load_model, start_model
from vqabench.training.provenance import changed_code, check_same, sources, versions
from vqabench.training.resume import Start
from vqabench.training.session import Job


def train_run(job: Job, start: Start) -> dict[str, Scores]:
    """Train a run, or the rest of it, and score the chosen weights; or score a trained run again.

    What the folder holds is replaced only once nothing prevents training. Of several processes the
    first one writes.

    Raises InputError if the folder's run began otherwise, TrainingError if a loss is not finite, Stopped if a
    signal has come. Whatever ends it, the manifest records how.
    """
    plan, run, session, spec = job.plan, job.run, job.session, job.prepared.spec
    torch.manual_seed(job.seed)  # first: the initial weights depend on it
    model, losses = build_model(plan, spec), build_losses(plan, spec)
    choose_threads(count_parameters(model), session.device, session.threads, session.sharers)
    manifest = _describe(job, start)
    saved = load_state(run.resume_file) if start.kind == "resume" else None
    if start.kind == "rescore":
        restore(model, run.weights_file)
    elif saved is not None:
        with _fitting(run.resume_file):  # what it started from may be gone since
            model.load_state_dict(saved["model"])
    else:
        manifest = _start_model(job, start, model, manifest)
    # Counted now, because the state that was restored may have brought more words along.
    manifest = msgspec.structs.replace(manifest, parameters=count_parameters(model))
    for note in manifest.notes:
        session.emit(f"{plan.backbone}: {note}")
    model.to(session.device)
    losses.to(session.device)
    # One seed gives the same initial weights only on machines that compute alike to the last bit.
    session.processes.broadcast(model, losses)
    session.processes.seed_gpu(job.seed, session.device)
    features = session.place(job.prepared.features, manifest.precision)
    with calling(plan.parts, "reading questions"):
        splits = {
            split: load_split(model, job.prepared, job.dataset, split, features) for split in job.dataset.scored
        }
    writes = session.processes.writes
    emit = Logs(plan.config.log if writes else (), run, manifest, session.emit)
    with _recording(job, start, manifest, emit) as changes:
        if start.kind != "rescore" and not any(True for _ in model.parameters()):
            emit(f"{run.folder}: {plan.backbone} has nothing to train")
            if writes:
                save_weights(model, run.weights_file)
            changes["epoch"] = 0
        elif start.kind != "rescore":
            state = _make_state(job, model, losses, saved)
            training = Training(job, state, splits, autocast(session.device, manifest.precision), emit)
            try:
                changes["epoch"] = training.fit().chosen_epoch
            finally:
                changes["pieces"] = state.position.pieces
        if writes:
            restore(model, run.weights_file)  # the chosen weights, which need not be the latest
        session.processes.broadcast(model)
        scores = _score(job, start, model, splits)
        if writes:
            files = (run.weights_file, run.scores_file, *map(run.predictions_file, scores))
            # With the checksums of other answers that `vqabench predict` has stored.
            changes["checksums"] = manifest.checksums | {file.name: hash_file(file) for file in files}
        emit(RunScored(changes.get("epoch", manifest.epoch) or 0, name_scores(scores)))
    return scores


def _describe(job: Job, start: Start) -> Manifest:
    """Return the manifest of a run, before its model has started. Raises InputError if the data has changed."""
    plan, config, session, before = job.plan, job.plan.config, job.session, start.before
    device, splits = session.device, job.prepared.splits
    # A run continues in its own precision, also on a machine that would choose another one.
    began_in = config.precision if before is None or config.precision != "auto" else before.precision
    precision = choose_precision(began_in, device)
    if precision == "bfloat16" and not computes_bfloat16(device):
        session.emit(Warn(f"{device} has no instructions for bfloat16: float32 may be much faster"))
    manifest = Manifest(
        dataset=config.dataset,
        backbone=plan.backbone,
        objective=plan.objective,
        loss=plan.loss,
        label=plan.label,
        seed=job.seed,
        config=to_table(config),
        **plan.identity(),
        track_test=config.track_test,
        test_domain=job.dataset.entry.test_domain,
        vocabulary=job.dataset.entry.vocabulary,
        start_from=None if start.origin is None else str(start.origin.folder.resolve()),
        fingerprint=job.prepared.fingerprint,
        questions={split: len(arrays.types) for split, arrays in splits.items()},
        test_ids=hash_ids(splits["test"].question_ids.tolist()) if "test" in splits else "",
        versions=versions(plan),
        sources=sources(plan),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} cpu",
        precision=precision,
        threads=torch.get_num_threads(),
        processes=session.processes.count,
        parameters=0,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return manifest if before is None else _continue(job, before, manifest)


def _continue(job: Job, before: Manifest, manifest: Manifest) -> Manifest:
    """Return the manifest of a run that was begun before; use as many threads as it did.

    Raises InputError if the data has changed since.
    """
    folder, emit = job.run.folder, job.session.emit
    check_same(job.run, before, {"fingerprint": manifest.fingerprint})
    # Everything else describes this part of the run: versions, device and number of processes may differ.
    changes: dict[str, Any] = {
        name: getattr(before, name)
        for name in ("start_from", "pretraining", "threads", "pieces", "started", "seconds", "epoch")
    }
    notes = list(before.notes)
    for message in changed_code(before, job.plan):
        emit(Warn(f"{folder}: began with {message}"))
        notes.append(f"began with {message}")
    if before.threads != manifest.threads:  # sums in another order would differ in their last bits
        emit(f"{folder}: continues with {before.threads} threads, as before")
        torch.set_num_threads(before.threads)
    if before.epoch is not None:
        emit(f"{folder}: trained already; scoring it again")
        changes |= {"processes": before.processes, "checksums": before.checksums}
    elif before.processes != manifest.processes:
        message = f"{before.processes} processes, continues with {manifest.processes}: not identical bit for bit"
        notes.append(f"began with {message}")
    if before.epoch is None and job.run.epochs_file.is_file() and not job.run.resume_file.is_file():
        missing = f"{job.run.resume_file.name} is missing, so training starts again from the first epoch"
        emit(Warn(f"{folder}: {missing}"))
    return msgspec.structs.replace(manifest, notes=notes, **changes)


def _start_model(job: Job, start: Start, model: Backbone, manifest: Manifest) -> Manifest:
    """Load what a model's training starts from; record its origin, and the test questions that it has seen."""
    pretraining: list[str] = []
    if start.origin is None:
        start_model(job.plan, model)
    else:
        message = adopt(model, load_model(start.origin, job.prepared, job.session.emit))
        if message:
            job.session.emit(f"from {start.origin.folder}: {message}")
        pretraining = [f"the run it started from: {brand}" for brand in start.origin.read_manifest().brands()]
    parts = [part for part in model.modules() if isinstance(part, Backbone)]
    with calling(job.plan.parts, "starting"):  # so that the error names the plugin
        for part in parts:
            for name, texts in (("notes", part.notes), ("brands", part.brands)):
                if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
                    raise OutputError(f"its {name} must be a tuple of texts, not {texts!r}", part)
    pretraining += [brand for part in parts for brand in part.brands]
    notes = dict.fromkeys([*manifest.notes, *(note for part in parts for note in part.notes)])
    return msgspec.structs.replace(manifest, pretraining=pretraining, notes=list(notes))


@contextmanager
def _recording(job: Job, start: Start, manifest: Manifest, emit: Emit) -> Iterator[dict[str, Any]]:
    """Write the manifest when training begins, and again, with status and time, when it ends in any way.

    Yield the fields to change at the end.
    """
    run, session, writes = job.run, job.session, job.session.processes.writes
    session.processes.wait()  # until all have read what was there before
    if writes:
        run.folder.mkdir(parents=True, exist_ok=True)
        if start.before is None:
            run.begin_anew(manifest)
        else:
            run.sweep()
            run.write_manifest(manifest)
    began = time.perf_counter()
    changes: dict[str, Any] = {}
    try:
        yield changes
        changes["status"] = "finished"
    except BaseException as error:
        if is_interruption(error):
            changes["status"] = "stopped"
            raise
        changes |= {"status": "failed", "failure": f"{type(error).__name__}: {error}"}
        begun = run.weights_file.is_file() or run.resume_file.is_file()
        if isinstance(error, InputError) and writes and not begun:
            run.clear()  # parts that cannot go together: no epoch was finished, so there is nothing to continue
        raise
    finally:
        try:
            with session.interruption.put_off():
                changes["seconds"] = round(manifest.seconds + time.perf_counter() - began, 3)
                if run.folder.exists() and writes:
                    # On a full disk this fails too, and must not hide the error that ended the run.
                    with suppress(VqabenchError, OSError) if changes["status"] == "failed" else nullcontext():
                        run.write_manifest(manifest, **changes)
                    if changes["status"] == "finished":
                        run.resume_file.unlink(missing_ok=True)
        finally:
            emit(RunEnded(changes["status"]))  # logs may take their time to close: Ctrl-C ends that


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Raise InputError if what a run has saved at `path` does not fit its model."""
    try:
        yield
    except MISMATCHES as error:
        raise InputError(f"{path}: does not fit this run; train it again with --force") from error


def _make_state(job: Job, model: Backbone, losses: torch.nn.ModuleList, saved: Mapping[str, Any] | None) -> State:
    """Return a new state, or the saved one. Raises InputError if the saved one does not fit."""
    run, session = job.run, job.session
    state = State(model, losses, job.plan.recipe, job.seed)
    if saved is not None:
        with _fitting(run.resume_file):
            state.restore(saved, session.processes)
    # A kill may have come between an epoch's record and its checkpoint: the epoch is trained, and recorded, again.
    done = state.position.epochs
    if session.processes.writes and run.keep_epochs(done) < done:
        session.emit(Warn(f"{run.epochs_file}: lacks finished epochs; training continues without their records"))
    session.record_save()
    return state


def _score(job: Job, start: Start, model: Backbone, splits: Mapping[str, SplitData]) -> dict[str, Scores]:
    """Answer `val` and `test`, and write the answers and their scores.

    A run that is scored again keeps the answers that it has stored; if the model gives others now, warn.
    """
    run, session = job.run, job.session
    scores: dict[str, Scores] = {}
    for split in ("val", "test"):
        if split not in splits:
            continue
        chosen = answer(job, model, splits[split])
        if session.processes.writes:
            predictions = spell(chosen, job.prepared, split)
            # Tables may have been made from the stored answers. Changed code must not change them silently.
            if start.kind == "rescore":
                predictions = _prefer_stored(run, split, predictions, session.emit)
            write_predictions(run.predictions_file(split), predictions)
            scores[split] = score_split(predictions, job.prepared, job.dataset, split)
    if session.processes.writes:
        write_scores(run, scores)
    return scores


def _prefer_stored(run: Run, split: str, given: list[SurePrediction], emit: Emit) -> list[SurePrediction]:
    """Return a run's stored answers if there are any, else those given; warn of differences and of damage."""
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
        message = f"the model now gives different answers to {changed} of {len(given)} questions"
        emit(Warn(f"{file}: {message}; the stored answers are kept and scored"))
    return stored
