"""`vqabench data fetch`."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from vqabench.data.changing_priors import Shift
from vqabench.data.dataset import Dataset
from vqabench.data.download import Watcher
from vqabench.data.integrity import hash_content
from vqabench.data.raw_files import (
    AGAIN,
    Record,
    Way,
    describe_file,
    get_files,
    one_at_a_time,
    see_unchanged,
    write_record,
)
from vqabench.data.sources import Counts
from vqabench.errors import InputError, VqabenchError
from vqabench.workflows.places import Places
from vqabench.workflows.splits import rebuild_cp


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


def fetch_dataset(name: str, places: Places, way: Way, watcher: Watcher) -> Outcome:
    """Get a data set's raw files and, where it is derived, its parent's, and make its splits of them.

    Raises InputError where a file is not what it was, or is missing offline; VqabenchError where one cannot be
    fetched, or the splits hold other than the catalogue says. What was fetched until then stays.
    """
    if way.force and way.offline:
        raise InputError("--force fetches again, --offline fetches nothing: choose one")
    dataset = places.dataset(name)
    if not dataset.entry.files:
        return Outcome(dataset, {}, news=False)
    parent = _fetch_parent(dataset, places, way, watcher)
    with one_at_a_time(dataset.source, watcher):
        record = get_files(dataset.source, dataset.entry.files, way, watcher)
        if parent is None:
            news = _count_new(dataset, record, watcher)
            return Outcome(dataset, record.counts, news)
        shift = _derive(dataset, parent.dataset, record, places, watcher)
        return Outcome(dataset, record.counts, parent.news or shift is not None, shift)


def _fetch_parent(dataset: Dataset, places: Places, way: Way, watcher: Watcher) -> Outcome | None:
    if dataset.entry.derived is None:
        return None
    parent = places.dataset(dataset.entry.derived.parent)
    if parent.entry.derived:
        raise InputError(f"{dataset.name}: derived from {parent.name}, which is derived itself; name its parent")
    return fetch_dataset(parent.name, places, way, watcher)


def _derive(dataset: Dataset, parent: Dataset, record: Record, places: Places, watcher: Watcher) -> Shift | None:
    """Make the splits, unless they were made of the same files. Raises InputError where they changed since."""
    assert dataset.entry.derived is not None
    test_ids = dataset.source / dataset.entry.derived.test_ids
    inputs = {path.name: hash_content(path) for path in (*parent.archives(), test_ids)}
    made = dataset.question_files()
    if record.made_of == inputs and record.counts and all(path.is_file() for path in made):
        for path in made:
            see_unchanged(path, record.files[path.name], "delete it, and fetching makes it again")
        return None
    for stray in dataset.folder.glob("splitting-*"):  # of a call that was killed
        shutil.rmtree(stray, ignore_errors=True)
    watcher.say(f"{dataset.name}: splitting the questions of {parent.name} by {test_ids.name}")
    with tempfile.TemporaryDirectory(dir=dataset.folder, prefix="splitting-") as folder:
        derived = rebuild_cp(parent.name, test_ids, Path(folder) / "splits", places, watcher.say)
        _count(replace(dataset, source=derived.catalog.parent), record)
        for path in (*made, dataset.source / "split.json"):
            shutil.move(derived.catalog.parent / path.name, path)
            record.files[path.name] = describe_file(path, f"made of {parent.name} and {test_ids.name}")
    record.made_of = inputs
    write_record(dataset.source, record)
    return derived.shift


def _count_new(dataset: Dataset, record: Record, watcher: Watcher) -> bool:
    """Count what new files hold; tells whether there are any."""
    if record.counts:
        return False
    watcher.say(f"{dataset.name}: counting questions, images and answers")
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
