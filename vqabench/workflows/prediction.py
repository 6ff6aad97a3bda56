"""`vqabench predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vqabench.data.batches.placement import PlacedFeatures, choose_place
from vqabench.data.prepare.prepared import prepare
from vqabench.data.vqa.annotations import Prediction, SurePrediction, write_predictions
from vqabench.errors import InputError, unknown
from vqabench.evaluation.predict import evaluation_batch, load_split, predict, score_split, spell
from vqabench.evaluation.run_answers import count_differences, read_stored
from vqabench.evaluation.scores import Scores, read_scores, write_scores
from vqabench.events import Emit, Warn, ignore
from vqabench.files.atomic import find_output, find_place, hash_file
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.device import choose_device, number_type, tune
from vqabench.training.guard import calling
from vqabench.training.model import load_model
from vqabench.training.provenance import recall_plan


def predict_run(
    folder: Path,
    split: str,
    out: Path | None,
    paths: Paths,
    device_name: str = "auto",
    emit: Emit = ignore,
    shuffle_images: int | None = None,
    *,
    force: bool = False,
) -> tuple[Path, Scores | None]:
    """Answer a split with a run's weights; write the answers to `out`, or into the run with confidences.

    Return the file, and the scores if the split has annotations. With `shuffle_images`, a seed, every question is
    asked about another image. If a finished run has stored other answers, `force` replaces them and their scores.

    Raises InputError if the run is damaged, the data has changed, or stored answers differ and `force` is not set.
    """
    run = Run(folder)
    manifest = run.read_manifest()
    dataset = paths.dataset(manifest.dataset)
    if split not in dataset.splits:
        raise InputError(unknown(f"split of {dataset.name}", split, dataset.splits))
    if manifest.status != "finished":
        emit(Warn(f"{folder}: that run is {manifest.status}, not finished"))
    suffix = "" if shuffle_images is None else f".other-images-{shuffle_images}"
    kept = run.predictions_file(f"{split}{suffix}")
    path = find_output(out) if out else kept
    try:
        find_place(path)  # now, because computing the answers takes long
    except InputError as error:
        raise InputError(f"{error}; choose another file with --out FILE") from error
    device = choose_device(device_name)
    tune(device)
    prepared = prepare(dataset, emit)
    plan = recall_plan(manifest)
    model = load_model(run, prepared, emit, plan)
    dtype = number_type(manifest.precision)
    place = choose_place("auto", prepared.features, device, dtype)
    features = PlacedFeatures(prepared.features, device, place, dtype)
    with calling(plan.parts, "answering"):
        data = load_split(model.to(device), prepared, dataset, split, features)
        if shuffle_images is not None:
            data = data.with_other_images(shuffle_images)
        batch_size = evaluation_batch(manifest.recipe["batch_size"], data)
        chosen = predict(model, data, batch_size, manifest.objective)
    predictions = spell(chosen, prepared, split)
    scores = score_split(predictions, prepared, dataset, split) if split in dataset.scored else None
    finished = manifest.status == "finished"
    changed = _compare(run, kept, predictions, emit, required=not (out or force)) if finished else 0
    if out:
        if changed:
            emit(Warn(f"{changed} of {len(predictions)} answers differ from those in {kept}"))
        write_predictions(path, [Prediction(given.question_id, given.answer) for given in predictions])
    elif changed and not force:
        raise InputError(
            f"{kept}: the model now gives different answers to {changed} of {len(predictions)} questions "
            "(changed code, or another device?); the stored answers are kept; write the new ones to another file "
            "with --out FILE, or replace the stored ones and their scores with --force"
        )
    elif not finished:
        write_predictions(path, predictions)
    elif changed or not kept.exists():
        _store(run, kept, predictions, {} if suffix or scores is None else {split: scores})
    else:
        emit(f"{kept}: already holds these answers; nothing is written")
    return path, scores


def _compare(run: Run, kept: Path, given: Sequence[SurePrediction], emit: Emit, *, required: bool) -> int:
    """Return how many answers differ from those that a run has stored; all, if those are damaged.

    Raises InputError if they are damaged and `required`.
    """
    try:
        stored = read_stored(run, kept)
    except InputError as error:
        if required:
            raise InputError(f"{error}, or replace it with --force") from error
        emit(Warn(str(error)))
        return len(given)
    return 0 if stored is None else count_differences(stored, given)


def _store(run: Run, kept: Path, predictions: Sequence[SurePrediction], scores: Mapping[str, Scores]) -> None:
    """Write answers into a finished run, with their scores and the checksums of both."""
    with run.lock():
        manifest = run.read_manifest()
        checksums, notes = dict(manifest.checksums), list(manifest.notes)
        made = "replaced by `vqabench predict --force`" if kept.exists() else "written again by `vqabench predict`"
        write_predictions(kept, predictions)
        checksums[kept.name] = hash_file(kept)
        if scores:
            write_scores(run, {**read_scores(run), **scores})
            checksums[run.scores_file.name] = hash_file(run.scores_file)
            notes.append(f"{kept.name} and its scores were {made}")
        run.write_manifest(manifest, checksums=checksums, notes=notes)
