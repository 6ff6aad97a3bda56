"""`vqabench predict`."""

from __future__ import annotations

from pathlib import Path

from vqabench.data.annotations import Prediction, write_predictions
from vqabench.data.placement import PlacedFeatures, Room, choose_place
from vqabench.data.prepared import prepare
from vqabench.errors import InputError, unknown
from vqabench.evaluation.predict import evaluation_batch, load_split, predict, score_split, spell
from vqabench.evaluation.scores import Scores
from vqabench.results import Run, find_output, find_place
from vqabench.training.device import choose_device, number_type, tune
from vqabench.training.progress import Progress, Silence
from vqabench.training.run import load_model
from vqabench.workflows.places import Places


def predict_run(
    folder: Path,
    split: str,
    out: Path | None,
    places: Places,
    device_name: str = "auto",
    progress: Progress | None = None,
    shuffle_images: int | None = None,
) -> tuple[Path, Scores]:
    """Answer a split with a run's weights; write the answers to `out` or into the run, and score them.

    Those in the run have confidences. With `shuffle_images`, a seed, every question is asked about another image.
    Raises InputError where the run is damaged or the data has changed since.
    """
    progress = progress or Silence()
    run = Run(folder)
    manifest = run.read_manifest()
    dataset = places.dataset(manifest.dataset)
    if split not in dataset.splits:
        raise InputError(unknown(f"split of {dataset.name}", split, dataset.splits))
    if manifest.status != "finished":
        progress.warn(f"{folder}: that run is {manifest.status}, not finished")
    suffix = "" if shuffle_images is None else f".other-images-{shuffle_images}"
    path = find_output(out) if out else run.predictions_file(f"{split}{suffix}")
    find_place(path)  # before anything is computed
    device = choose_device(device_name)
    tune(device)
    prepared = prepare(dataset, progress.say)
    model = load_model(run, prepared, progress)
    dtype = number_type(manifest.precision)
    place = choose_place("auto", prepared.features, Room(device, dtype))
    features = PlacedFeatures(prepared.features, device, place, dtype)
    data = load_split(model.to(device), prepared, dataset, split, features)
    if shuffle_images is not None:
        data = data.with_other_images(shuffle_images)
    batch_size = evaluation_batch(manifest.recipe["batch_size"], data)
    predictions = spell(predict(model, data, batch_size, manifest.objective), prepared, split)
    official = [Prediction(given.question_id, given.answer) for given in predictions]
    write_predictions(path, official if out else predictions)
    return path, score_split(predictions, dataset, split)
