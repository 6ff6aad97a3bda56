"""`vqabench data`."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from msgspec import structs

from vqabench.data.catalog.changing_priors import Shift
from vqabench.data.catalog.dataset import Dataset, FileChoice, check_chosen, remember_choice
from vqabench.data.catalog.entries import Counts, read_catalog
from vqabench.data.catalog.integrity import hash_content
from vqabench.data.catalog.raw_files import (
    AGAIN,
    Record,
    Way,
    check_unchanged,
    describe_file,
    get_files,
    holds_all,
    one_at_a_time,
    write_record,
)
from vqabench.data.features import extraction
from vqabench.data.features.extraction import Extraction
from vqabench.data.prepare.answer_shares import TypeShares, read_answer_shares
from vqabench.data.prepare.preparation import Summary, prepare_files, summarise
from vqabench.data.prepare.verification import Check, verify
from vqabench.errors import InputError, VqabenchError
from vqabench.events import Emit, ignore
from vqabench.files.atomic import find_place
from vqabench.paths import Paths
from vqabench.training.device import choose_device
from vqabench.workflows.splits import rebuild_cp

State = Literal["yes", "no", "outdated", "damaged"]
"""Whether a data set is prepared; outdated: from other files or settings than those of now."""


@dataclass(frozen=True)
class DatasetLine:
    """One line of `data list`."""

    name: str
    title: str
    fetched: bool | None
    """None: there is nothing to fetch."""
    prepared: State


def list_datasets(paths: Paths) -> list[DatasetLine]:
    """List the catalogue."""
    datasets = map(paths.dataset, read_catalog(paths.catalog))
    return [DatasetLine(one.name, one.entry.title, is_fetched(one), _state(one)) for one in datasets]


def _state(dataset: Dataset) -> State:
    summary = summarise(dataset)
    if summary is None:
        return "damaged" if dataset.prepared_file.exists() else "no"
    return "yes" if summary.current else "outdated"


def is_fetched(dataset: Dataset) -> bool | None:
    """Tell at a glance whether all files are there that can be fetched; None where none can."""
    if not dataset.entry.files:
        return None
    made = [path.name for path in dataset.question_files()] if dataset.entry.derived else []
    return holds_all(dataset.source, [*dataset.entry.files, *made])


def describe_dataset(name: str, paths: Paths) -> dict[str, str | int]:
    """Tell what the catalogue says of a data set, and what its prepared form holds, if there is one."""
    dataset = paths.dataset(name)
    entry = dataset.entry
    facts: dict[str, str | int] = {"name": name, "title": entry.title, "licence": entry.licence}
    facts |= {"citation": entry.citation} if entry.citation else {}
    splits = [split if split in dataset.scored else f"{split} (no annotations)" for split in dataset.splits]
    facts |= {"splits": ", ".join(splits), "folder": str(dataset.folder)}
    facts |= _describe_sources(dataset)
    if entry.validation:
        facts |= {"val": f"{entry.validation.share:.1%} of train's images, seed {entry.validation.seed}"}
    facts |= {f"recipe.{name}": value for name, value in entry.recipe.items()}
    summary = summarise(dataset)
    if summary is None:
        damaged = dataset.prepared_file.exists()
        return facts | {"prepared": "damaged; preparing makes it anew" if damaged else "no"}
    if not summary.current:
        return facts | {
            "prepared": "outdated: files or settings have changed, or were touched; preparing sees to it"
        }
    facts |= {f"{split} questions": count for split, count in summary.questions.items()}
    return facts | {
        "answers": summary.answers,
        "words": summary.words,
        "question types": summary.question_types,
        "images": summary.images,
        "regions per image, at most": summary.regions,
        "width of a region's feature": summary.region_width,
        "fingerprint": summary.fingerprint,
        **({"sha256 of val's question ids": summary.val_ids_hash} if summary.val_ids_hash else {}),
    }


def compare_answers(name: str, paths: Paths, types: int, answers: int) -> list[TypeShares]:
    """Tell how the answers of the most frequent question types are shared out, in train and in the test.

    Where there is no test split, in val; nothing where the data set is not prepared.
    """
    dataset = paths.dataset(name)
    summary = summarise(dataset)
    if summary is None or not summary.current:
        return []
    against = "test" if "test" in dataset.scored else "val"
    return read_answer_shares(dataset, against, types, answers)


def verify_dataset(name: str, paths: Paths) -> Iterator[Check]:
    """Check all files of a data set, raw and prepared."""
    return verify(paths.dataset(name))


def _describe_sources(dataset: Dataset) -> dict[str, str | int]:
    entry = dataset.entry
    facts: dict[str, str | int] = {}
    if entry.files:
        facts |= {"raw files": str(dataset.source), "fetched": "yes" if is_fetched(dataset) else "no"}
    if entry.derived:
        facts |= {"derived": f"{entry.derived.parent} and the test questions of {entry.derived.test_ids}"}
    if dataset.has_features():
        facts |= {"features": ", ".join(map(str, dataset.feature_files()))}
    if dataset.word_vectors_file:
        facts |= {"word vectors": str(dataset.word_vectors_file)}
    if entry.features_from:
        facts |= {"features from": entry.features_from}
    return facts


def prepare_dataset(
    name: str,
    paths: Paths,
    emit: Emit = ignore,
    features: Sequence[Path] = (),
    word_vectors: Path | None = None,
) -> tuple[Dataset, Summary]:
    """Prepare a data set; features and word vectors are remembered, where the catalogue names none.

    Raises InputError where its files are broken, or nobody named features.
    """
    dataset = paths.dataset(name)
    before = chosen = _remembered(dataset, features)
    if features:
        _check_free("--features", f"{name}'s features", dataset.entry.features)
        chosen = structs.replace(
            chosen, features=tuple(check_chosen("--features", file, may_be_folder=True) for file in features)
        )
    if word_vectors:
        _check_free("--word-vectors", f"{name}'s word vectors", dataset.entry.word_vectors)
        chosen = structs.replace(chosen, word_vectors=check_chosen("--word-vectors", word_vectors))
    summary = prepare_files(dataclasses.replace(dataset, named=chosen), emit)
    if chosen != before:
        remember_choice(dataset.folder, chosen)
    return dataset, summary


def _check_free(option: str, what: str, in_catalog: object) -> None:
    if in_catalog:
        raise InputError(f"{option}: the catalogue names {what}; change them there")


def _remembered(dataset: Dataset, features: Sequence[Path]) -> FileChoice:
    """Give what was named before; a damaged record of it is no matter where it is named anew."""
    try:
        return dataset.chosen
    except InputError:
        if not features:
            raise
        return FileChoice()


@dataclass(frozen=True)
class Outcome:
    """What was fetched, or was there."""

    dataset: Dataset
    counts: dict[str, Counts]
    """Split -> what its files hold; empty where nothing can be fetched."""
    news: bool
    """Whether anything was done."""
    shift: Shift | None = None
    """Of the answer priors, where splits were made now."""


def fetch_dataset(name: str, paths: Paths, way: Way, emit: Emit) -> Outcome:
    """Get a data set's raw files and, where it is derived, its parent's, and make its splits of them.

    Raises InputError where a file is not what it was, or is missing offline; VqabenchError where one cannot be
    fetched, or the splits hold other than the catalogue says. What was fetched until then stays.
    """
    if way.force and way.offline:
        raise InputError("--force fetches again, --offline fetches nothing: choose one")
    dataset = paths.dataset(name)
    if not dataset.entry.files:
        return Outcome(dataset, {}, news=False)
    parent = _fetch_parent(dataset, paths, way, emit)
    with one_at_a_time(dataset.source, emit):
        record = get_files(dataset.source, dataset.entry.files, way, emit)
        if parent is None:
            news = _count_new(dataset, record, emit)
            return Outcome(dataset, record.counts, news)
        shift = _derive(dataset, parent.dataset, record, paths, emit)
        return Outcome(dataset, record.counts, parent.news or shift is not None, shift)


def _fetch_parent(dataset: Dataset, paths: Paths, way: Way, emit: Emit) -> Outcome | None:
    if dataset.entry.derived is None:
        return None
    parent = paths.dataset(dataset.entry.derived.parent)
    if parent.entry.derived:
        raise InputError(f"{dataset.name}: derived from {parent.name}, which is derived itself; name its parent")
    return fetch_dataset(parent.name, paths, way, emit)


def _derive(dataset: Dataset, parent: Dataset, record: Record, paths: Paths, emit: Emit) -> Shift | None:
    """Make the splits, unless they were made of the same files. Raises InputError where they changed since."""
    assert dataset.entry.derived is not None
    test_ids = dataset.source / dataset.entry.derived.test_ids
    inputs = {path.name: hash_content(path) for path in (*parent.archives(), test_ids)}
    made = dataset.question_files()
    if record.made_of == inputs and record.counts and all(path.is_file() for path in made):
        for path in made:
            check_unchanged(path, record.files[path.name], "delete it, and fetching makes it again")
        return None
    for stray in dataset.folder.glob("splitting-*"):  # of a call that was killed
        shutil.rmtree(stray, ignore_errors=True)
    emit(f"{dataset.name}: splitting the questions of {parent.name} by {test_ids.name}")
    with tempfile.TemporaryDirectory(dir=dataset.folder, prefix="splitting-") as folder:
        derived = rebuild_cp(parent.name, test_ids, Path(folder) / "splits", paths, emit)
        _count(replace(dataset, source=derived.catalog.parent), record)
        for path in (*made, dataset.source / "split.json"):
            shutil.move(derived.catalog.parent / path.name, path)
            record.files[path.name] = describe_file(path, f"made of {parent.name} and {test_ids.name}")
    record.made_of = inputs
    write_record(dataset.source, record)
    return derived.shift


def _count_new(dataset: Dataset, record: Record, emit: Emit) -> bool:
    """Count what new files hold; tells whether there are any."""
    if record.counts:
        return False
    emit(f"{dataset.name}: counting questions, images and answers")
    _count(dataset, record)
    write_record(dataset.source, record)
    return True


def _count(dataset: Dataset, record: Record) -> None:
    """Count every split's files into the record. Raises VqabenchError where the catalogue expects other counts."""
    counted: dict[str, Counts] = {}
    for split in dataset.entry.splits:
        try:
            counted[split] = dataset.count(split)
        except InputError as error:
            raise InputError(f"{dataset.source}: the downloaded files cannot be used: {error}; {AGAIN}") from error
        difference = dataset.entry.counts.get(split, Counts()).find_difference(counted[split])
        if difference:
            raise VqabenchError(f"{dataset.name}, {split}: {difference}; {AGAIN}")
    record.counts = counted


def extract(images: Path, out: Path, asked: Extraction, device_name: str = "auto", emit: Emit = ignore) -> int:
    """Compute the region features of a folder or zip of images, and give how many they are.

    Raises InputError where the file is there already, or images or model cannot be used.
    """
    if find_place(out).exists():
        raise InputError(f"{out}: exists; delete it to compute it again")
    device = choose_device(device_name)
    return extraction.extract(images, out, asked, device, emit)
