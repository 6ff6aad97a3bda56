"""One function per command: what the command line and a notebook both call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vqabench import options, plugins
from vqabench.config import TrainConfig
from vqabench.data.annotations import (
    check_answers,
    pair,
    read_annotations,
    read_predictions,
    read_questions,
    write_predictions,
)
from vqabench.data.catalog import Dataset, data_folder, find_dataset, read_catalog
from vqabench.data.prepared import Prepared, open_prepared, prepare
from vqabench.errors import InputError, unknown
from vqabench.evaluation import comparison
from vqabench.evaluation.predict import load_split, predict, score_split, spell
from vqabench.evaluation.scores import Scores, check_predictions, score
from vqabench.results import Run, find_runs, run_folder
from vqabench.training.assembly import build_model, make_plan
from vqabench.training.checkpoint import restore
from vqabench.training.device import autocast, choose_device
from vqabench.training.progress import Progress, Silence
from vqabench.training.run import recall_config, train_run

IfExists = Literal["refuse", "resume", "force"]


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    runs: Path = Path("runs")
    data: Path | None = None
    """None: `$VQABENCH_DATA`, or the platform's data folder."""
    catalog: Path | None = None
    """The user's own catalogue; None: `$VQABENCH_CATALOG`, if set."""

    def dataset(self, name: str) -> Dataset:
        """Find a data set."""
        return find_dataset(name, self.catalog, self.data)


def train(
    config: TrainConfig, places: Places, if_exists: IfExists = "refuse", progress: Progress | None = None
) -> list[Run]:
    """Train one configuration with each of its seeds; score the chosen weights on `val` and `test`.

    Raises InputError where something is wrong with names, settings, data or folders, before any training;
    TrainingError where a loss is not finite. KeyboardInterrupt passes, with finished epochs saved.
    """
    progress = progress or Silence()
    dataset = places.dataset(config.dataset)
    plan = make_plan(config, dataset.entry.recipe)
    device = choose_device(config.device)
    _check_splits(config, dataset)
    runs = {
        seed: Run(run_folder(places.runs, config.dataset, config.backbone, plan.strategy, plan.label, seed))
        for seed in config.seeds
    }
    done = {seed for seed, run in runs.items() if _is_done(run, if_exists)}
    if config.select == "test":
        progress.warn("--select test chooses the epoch on the test split; the run and every table will say so")
    prepared = prepare(dataset, progress.say)
    for seed, run in runs.items():
        if seed in done:
            progress.say(f"{run.folder}: finished already")
            continue
        if if_exists == "force":
            run.clear()
        scores = train_run(plan, prepared, dataset, device, seed, run, progress)
        progress.say(f"{run.folder}: {_spell_scores(scores)}")
    return list(runs.values())


def _check_splits(config: TrainConfig, dataset: Dataset) -> None:
    has = f"{dataset.name} has no such split; it has {', '.join(dataset.entry.splits)}"
    if config.select != "last" and config.select not in dataset.entry.splits:
        raise InputError(f"--select {config.select}: {has}")
    if config.track_test and "test" not in dataset.entry.splits:
        raise InputError(f"--track-test: {has}")


def _is_done(run: Run, if_exists: IfExists) -> bool:
    """Tell whether a run is finished and is to stay."""
    if not run.folder.exists() or if_exists == "force":
        return False
    if if_exists == "refuse":
        raise InputError(f"{run.folder} exists: go on with it (--resume), or train it again (--force)")
    return run.read_manifest().status == "finished"


def _spell_scores(scores: Mapping[str, Scores]) -> str:
    spelled = [
        f"{split} accuracy {form.accuracy['all']:.2f}"
        for split, form in scores.items()
        if form.accuracy["all"] is not None
    ]
    return ", ".join(spelled) or "done"


def predict_run(
    folder: Path,
    split: str,
    out: Path | None,
    places: Places,
    device_name: str = "auto",
    progress: Progress | None = None,
) -> tuple[Path, Scores]:
    """Answer a split with a run's weights; write the answers to `out` (or into the run), and score them.

    Raises InputError where the run is damaged or the data has changed since.
    """
    progress = progress or Silence()
    run = Run(folder)
    manifest = run.read_manifest()
    dataset = places.dataset(manifest.dataset)
    if split not in dataset.entry.splits:
        raise InputError(unknown(f"split of {dataset.name}", split, dataset.entry.splits))
    prepared = prepare(dataset, progress.say)
    if prepared.fingerprint != manifest.fingerprint:
        raise InputError(f"{folder}: it was trained on other data than {dataset.name} holds now")
    device = choose_device(device_name)
    model = build_model(make_plan(recall_config(manifest)), prepared.spec)
    restore(model, run.weights_file)
    data = load_split(model.to(device), prepared, dataset, split, device)
    context = autocast(device, manifest.precision)()
    predictions = spell(predict(model, data, manifest.recipe["batch_size"], context), prepared, split)
    path = out or run.predictions_file(split)
    write_predictions(path, predictions)
    return path, score_split(predictions, dataset, split)


def evaluate(predictions: Path, questions: Path, annotations: Path) -> Scores:
    """Score any model's results file against a question and an annotation file.

    Raises InputError where a file is broken, or the question ids of the three do not agree.
    """
    where = f"{questions} and {annotations}"
    paired = pair(read_questions(questions), read_annotations(annotations), where)
    check_answers(paired, where)
    return score(check_predictions(read_predictions(predictions), paired, str(predictions)), paired)


def evaluate_on_dataset(predictions: Path, name: str, split: str, places: Places) -> Scores:
    """Score a results file against a split of a data set of the catalogue.

    Raises InputError as `evaluate` does.
    """
    dataset = places.dataset(name)
    if split not in dataset.entry.splits:
        raise InputError(unknown(f"split of {name}", split, dataset.entry.splits))
    prepared = prepare(dataset, Silence().say)
    asked = set(prepared.splits[split].question_ids.tolist())
    annotations = [a for a in dataset.read_split(split)[1] if a.question_id in asked]
    return score(check_predictions(read_predictions(predictions), annotations, str(predictions)), annotations)


def compare(folders: Sequence[Path], dataset: str | None, places: Places) -> comparison.Comparison:
    """Compare the runs in the given folders, or all runs. Raises InputError where there are none."""
    if not folders and not places.runs.is_dir():
        raise InputError(f"{places.runs}: no runs yet; begin with: vqabench train updn")
    return comparison.compare(find_runs(list(folders) or [places.runs]), dataset)


@dataclass(frozen=True)
class OptionDetails:
    """One option of a plugin."""

    name: str
    allowed: str
    default: Any


@dataclass(frozen=True)
class PluginDetails:
    """What loading a plugin tells beyond its metadata."""

    plugin: plugins.Plugin
    description: str
    objectives: tuple[str, ...]
    options: tuple[OptionDetails, ...]
    recipe: Mapping[str, Any]
    """Empty for a loss."""


def show_plugin(name: str) -> PluginDetails:
    """Load a backbone or a loss, and describe it. Raises PluginError where that is not possible."""
    group = plugins.LOSSES if name in plugins.names(plugins.LOSSES) else plugins.BACKBONES
    plugin = plugins.find(group, name)
    kind = plugins.load(plugin)
    return PluginDetails(
        plugin,
        inspect.getdoc(kind) or "",
        tuple(kind.objectives),
        tuple(
            OptionDetails(option.name, options.describe(option.annotation), option.default)
            for option in options.options_of(kind).values()
        ),
        dict(vars(kind.recipe)) if group == plugins.BACKBONES else {},
    )


@dataclass(frozen=True)
class DatasetLine:
    """One line of `data list`."""

    name: str
    title: str
    prepared: bool


def list_datasets(places: Places) -> list[DatasetLine]:
    """List the catalogue."""
    folder = data_folder(places.data)
    return [
        DatasetLine(name, entry.title, (folder / name / "prepared.h5").is_file())
        for name, (entry, _) in read_catalog(places.catalog).items()
    ]


def describe_dataset(name: str, places: Places) -> dict[str, str | int]:
    """Tell what the catalogue says of a data set, and what its prepared form holds, if there is one."""
    dataset = places.dataset(name)
    entry = dataset.entry
    facts: dict[str, str | int] = {"name": name, "title": entry.title, "licence": entry.licence}
    facts |= {"citation": entry.citation} if entry.citation else {}
    facts |= {"splits": ", ".join(entry.splits), "folder": str(dataset.folder)}
    facts |= {f"recipe.{name}": value for name, value in entry.recipe.items()}
    prepared = open_prepared(dataset)
    if prepared is None:
        return facts | {"prepared": "no"}
    facts |= {f"{split} questions": len(arrays.types) for split, arrays in prepared.splits.items()}
    spec = prepared.spec
    return facts | {
        "answers": len(spec.answers),
        "words": len(spec.words),
        "question types": len(spec.question_types),
        "images": len(prepared.features.image_ids),
        "regions per image, at most": spec.regions,
        "width of a region's feature": spec.region_width,
        "fingerprint": prepared.fingerprint,
    }


def prepare_dataset(name: str, places: Places, progress: Progress | None = None) -> tuple[Dataset, Prepared]:
    """Prepare a data set. Raises InputError where its files are broken."""
    dataset = places.dataset(name)
    return dataset, prepare(dataset, (progress or Silence()).say)
