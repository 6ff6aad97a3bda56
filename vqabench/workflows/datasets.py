"""List, describe, fetch, prepare, verify and extract data sets: the functions behind `vqabench data`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from vqabench.data.catalog.changing_priors import Shift
from vqabench.data.catalog.dataset import Dataset, FileChoice, check_chosen, remember_choice
from vqabench.data.catalog.entries import SplitCounts, read_catalog
from vqabench.data.catalog.raw_files import (
    AGAIN,
    FetchOptions,
    FetchRecord,
    check_unchanged,
    describe_file,
    fetch_lock,
    get_files,
    holds_all,
    write_record,
)
from vqabench.data.prepare.answer_shares import TypeShares, read_answer_shares
from vqabench.data.prepare.preparation import Summary, prepare_files, summarise
from vqabench.data.prepare.verification import FileCheck, verify
from vqabench.errors import InputError, VqabenchError
from vqabench.events import Emit, ignore
from vqabench.files.atomic import find_place, hash_file
from vqabench.paths import Paths
from vqabench.workflows.splits import rebuild_cp

if TYPE_CHECKING:
    from vqabench.data.features.extraction import Extraction


@dataclass(frozen=True)
class DatasetLine:
    """One line of `data list`."""

    name: str
    title: str
    fetched: bool | None
    """None if there is nothing to fetch."""
    prepared: Literal["yes", "no", "outdated", "damaged"]
    """Outdated: prepared from other files or settings than the current ones."""


def list_datasets(paths: Paths) -> list[DatasetLine]:
    """List the data sets of the catalogue."""
    lines = []
    for name in read_catalog(paths.catalog):
        dataset = paths.dataset(name)
        summary = summarise(dataset)
        prepared: Literal["yes", "no", "outdated", "damaged"]
        if summary is None:
            prepared = "damaged" if dataset.prepared_file.exists() else "no"
        else:
            prepared = "yes" if summary.current else "outdated"
        lines.append(DatasetLine(name, dataset.entry.title, _is_fetched(dataset), prepared))
    return lines


def _is_fetched(dataset: Dataset) -> bool | None:
    """Return whether all files to fetch are present, by name and size; None if there are none to fetch."""
    if not dataset.entry.files:
        return None
    made = [path.name for path in dataset.question_files()] if dataset.entry.derived else []
    return holds_all(dataset.source, [*dataset.entry.files, *made])


def describe_dataset(name: str, paths: Paths) -> dict[str, str | int]:
    """Return the facts in the catalogue about a data set, and its sizes if it is prepared."""
    dataset = paths.dataset(name)
    entry = dataset.entry
    facts: dict[str, str | int] = {"name": name, "title": entry.title, "licence": entry.licence}
    if entry.citation:
        facts["citation"] = entry.citation
    splits = [split if split in dataset.scored else f"{split} (no annotations)" for split in dataset.splits]
    facts |= {"splits": ", ".join(splits), "folder": str(dataset.folder)}
    if entry.files:
        facts |= {"raw files": str(dataset.source), "fetched": "yes" if _is_fetched(dataset) else "no"}
    if entry.derived:
        facts["derived"] = f"{entry.derived.parent} and the test questions of {entry.derived.test_ids}"
    if dataset.has_features():
        facts["features"] = ", ".join(map(str, dataset.feature_files()))
    if dataset.word_vectors_file:
        facts["word vectors"] = str(dataset.word_vectors_file)
    if entry.features_from:
        facts["features from"] = entry.features_from
    if entry.validation:
        facts["val"] = f"{entry.validation.share:.1%} of train's images, seed {entry.validation.seed}"
    facts |= {f"recipe.{key}": value for key, value in entry.recipe.items()}
    summary = summarise(dataset)
    if summary is None:
        return facts | {"prepared": "damaged; prepare it again" if dataset.prepared_file.exists() else "no"}
    if not summary.current:
        outdated = "outdated: files or settings have changed, or files were touched; prepare it again"
        return facts | {"prepared": outdated}
    return facts | {
        **{f"{split} questions": count for split, count in summary.questions.items()},
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
    """Compare the answers of the most frequent question types in train and in test.

    In val if there is no test split. Empty if the data set is not prepared.
    """
    dataset = paths.dataset(name)
    summary = summarise(dataset)
    if summary is None or not summary.current:
        return []
    against = "test" if "test" in dataset.scored else "val"
    return read_answer_shares(dataset, against, types, answers)


@dataclass(frozen=True)
class Outcome:
    """The result of fetching a data set."""

    dataset: Dataset
    counts: dict[str, SplitCounts]
    """Split -> what its files hold; empty if there is nothing to fetch."""
    changed: bool
    """Whether files were fetched or splits made."""
    shift: Shift | None = None
    """Of the answer priors, if splits were made."""


def fetch_dataset(name: str, paths: Paths, options: FetchOptions, emit: Emit) -> Outcome:
    """Get a data set's raw files. For a derived data set, get its parent's files and make its splits from them.

    Raises InputError if a file is not the expected one, or is missing offline; VqabenchError if one cannot be
    fetched, or the splits do not have the counts in the catalogue. Files fetched before an error are kept.
    """
    if options.force and options.offline:
        raise InputError("--force fetches again, --offline fetches nothing: choose one")
    dataset = paths.dataset(name)
    if not dataset.entry.files:
        return Outcome(dataset, {}, changed=False)
    parent = None
    if dataset.entry.derived:
        source = paths.dataset(dataset.entry.derived.parent)
        if source.entry.derived:
            raise InputError(f"{name}: derived from {source.name}, which is derived itself; name its parent")
        parent = fetch_dataset(source.name, paths, options, emit)
    with fetch_lock(dataset.source, emit):
        record = get_files(dataset.source, dataset.entry.files, options, emit)
        if parent is None:
            changed = not record.counts  # `get_files` clears them if a file is new
            if changed:
                emit(f"{name}: counting questions, images and answers")
                record.counts = _count(dataset)
                write_record(dataset.source, record)
            return Outcome(dataset, record.counts, changed)
        shift = _derive(dataset, parent.dataset, record, paths, emit)
        return Outcome(dataset, record.counts, parent.changed or shift is not None, shift)


def _derive(dataset: Dataset, parent: Dataset, record: FetchRecord, paths: Paths, emit: Emit) -> Shift | None:
    """Make the splits; None if they were made from the same files before.

    Raises InputError if they have changed since.
    """
    assert dataset.entry.derived is not None
    test_ids = dataset.source / dataset.entry.derived.test_ids
    inputs = {path.name: hash_file(path) for path in (*parent.archives(), test_ids)}
    made = dataset.question_files()
    if record.made_of == inputs and record.counts and all(path.is_file() for path in made):
        for path in made:
            check_unchanged(path, record.files[path.name], "delete it, and fetch again to make it")
        return None
    for stray in dataset.folder.glob("splitting-*"):  # left by a killed process
        shutil.rmtree(stray, ignore_errors=True)
    emit(f"{dataset.name}: splitting the questions of {parent.name} by {test_ids.name}")
    with tempfile.TemporaryDirectory(dir=dataset.folder, prefix="splitting-") as folder:
        derived = rebuild_cp(parent.name, test_ids, Path(folder) / "splits", paths, emit)
        # Counted before they are moved: files that do not match the catalogue never reach the data set's folder.
        record.counts = _count(replace(dataset, source=derived.catalog.parent))
        for path in (*made, dataset.source / "split.json"):
            shutil.move(derived.catalog.parent / path.name, path)
            record.files[path.name] = describe_file(path, f"made of {parent.name} and {test_ids.name}")
    record.made_of = inputs
    write_record(dataset.source, record)
    return derived.shift


def _count(dataset: Dataset) -> dict[str, SplitCounts]:
    """Count what every split's files hold. Raises VqabenchError if the catalogue expects other counts."""
    counted: dict[str, SplitCounts] = {}
    for split in dataset.entry.splits:
        try:
            counted[split] = dataset.count(split)
        except InputError as error:
            raise InputError(f"{dataset.source}: the downloaded files cannot be used: {error}; {AGAIN}") from error
        difference = dataset.entry.counts.get(split, SplitCounts()).find_difference(counted[split])
        if difference:
            raise VqabenchError(f"{dataset.name}, {split}: {difference}; {AGAIN}")
    return counted


def prepare_dataset(
    name: str,
    paths: Paths,
    emit: Emit = ignore,
    features: Sequence[Path] = (),
    word_vectors: Path | None = None,
) -> tuple[Dataset, Summary]:
    """Prepare a data set. Features and word vectors given here are remembered for later calls.

    Raises InputError if its files are broken, no features are known, or the catalogue names those given here.
    """
    dataset = paths.dataset(name)
    try:
        before = dataset.chosen
    except InputError:  # damaged; it does not matter if the features are given again
        if not features:
            raise
        before = FileChoice()
    for option, given, in_catalog in (
        ("--features", features, dataset.entry.features),
        ("--word-vectors", word_vectors, dataset.entry.word_vectors),
    ):
        if given and in_catalog:
            what = f"{name}'s {option.removeprefix('--').replace('-', ' ')}"
            raise InputError(f"{option}: the catalogue names {what}; change them there")
    chosen = before
    if features:
        files = tuple(check_chosen("--features", file, may_be_folder=True) for file in features)
        chosen = structs.replace(chosen, features=files)
    if word_vectors:
        chosen = structs.replace(chosen, word_vectors=check_chosen("--word-vectors", word_vectors))
    summary = prepare_files(replace(dataset, named=chosen), emit)
    if chosen != before:
        remember_choice(dataset.folder, chosen)
    return dataset, summary


def verify_dataset(name: str, paths: Paths) -> Iterator[FileCheck]:
    """Check all files of a data set, raw and prepared."""
    return verify(paths.dataset(name))


def extract(images: Path, out: Path, asked: Extraction, device_name: str = "auto", emit: Emit = ignore) -> int:
    """Compute the region features of a folder or zip of images; return the number of images.

    Raises InputError if the output exists, or images or model cannot be used.
    """
    if find_place(out).exists():
        raise InputError(f"{out}: exists; delete it to compute it again")
    from vqabench.data.features import extraction  # loads torch, which takes a second
    from vqabench.training.device import choose_device

    return extraction.extract(images, out, asked, choose_device(device_name), emit)
