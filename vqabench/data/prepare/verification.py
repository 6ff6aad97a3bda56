"""Verify the files of a data set on disk: raw files, prepared arrays, region features."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from vqabench.data.catalog.dataset import Dataset, Raw
from vqabench.data.catalog.entries import SplitCounts
from vqabench.data.catalog.integrity import find_fault
from vqabench.data.catalog.raw_files import check_unchanged, read_record
from vqabench.data.features.seal import check_unbroken
from vqabench.data.features.store import FeatureStore, check_numbers, open_features
from vqabench.data.prepare.fingerprint import fingerprint_of, total_size
from vqabench.data.prepare.preparation import build_encoder, fill_prepared, read_raw, summarise
from vqabench.data.vqa.annotations import ANNOTATORS
from vqabench.errors import InputError, first_few
from vqabench.files.hdf5 import differing, in_memory, reading
from vqabench.files.packed import split_member


@dataclass(frozen=True)
class FileCheck:
    """The result of one check of a data set's files."""

    what: str
    fine: bool
    found: str


def verify(dataset: Dataset) -> Iterator[FileCheck]:
    """Check everything, from raw files to prepared ones; checks that need a broken part are left out."""
    files = _check("files", lambda: _find_files(dataset))
    yield files
    if dataset.entry.files:
        # Missing files are in the first line already; the others are still compared.
        checked = _fetched_names(dataset, with_missing=files.fine)
        if checked:
            yield _check("fetched files", lambda: _compare_fetched(dataset, checked))
    raw: Raw = {}

    def read() -> str:
        raw.update(read_raw(dataset))
        return ", ".join(f"{split} {len(questions):,}" for split, (questions, _) in raw.items())

    if files.fine:
        yield _check("questions and annotations", read)
    if raw and dataset.entry.counts:
        yield _check("expected counts", lambda: _compare_counts(dataset, raw))
    if summarise(dataset) is None:
        exists = dataset.prepared_file.exists()
        yield FileCheck("prepared files", not exists, "damaged: prepare the data again" if exists else "none yet")
        return
    features = open_features(dataset.features_file)
    yield _check("region features", lambda: _check_features(dataset.features_file, features))
    if raw:
        yield _check("prepared arrays", lambda: _compare_arrays(dataset, raw, features))


def _check(what: str, check: Callable[[], str]) -> FileCheck:
    try:
        return FileCheck(what, True, check())
    except InputError as error:
        return FileCheck(what, False, str(error))


def _find_files(dataset: Dataset) -> str:
    dataset.check_questions_readable()
    if not dataset.has_features():
        return f"{len(dataset.archives())} of questions and annotations; features are not named yet"
    files = dataset.files()
    missing = [str(path) for path in files if not split_member(path)[0].exists()]
    if missing:
        raise InputError(f"{len(missing)} of {len(files)} are missing: {first_few(missing)}")
    return f"{len(files)}, {total_size(dataset) / 1e6:,.1f} MB"


def _fetched_names(dataset: Dataset, *, with_missing: bool) -> list[str]:
    return [name for name in dataset.entry.files if with_missing or (dataset.source / name).is_file()]


def _compare_fetched(dataset: Dataset, names: Collection[str]) -> str:
    """Compare fetched files, and splits made from them, with the catalogue's checksums and the record."""
    record = read_record(dataset.source)
    for name in names:
        file = dataset.entry.files[name]
        path = dataset.source / name
        if not path.is_file():
            raise InputError(f"{path}: missing; download it with: vqabench data fetch {dataset.name}")
        fault = find_fault(path, name, file)
        if fault:
            raise InputError(f"{path}: not the expected file: {fault}; fetch it again with --force")
    for name, known in record.files.items():
        if name in names or name not in dataset.entry.files:
            check_unchanged(dataset.source / name, known)
    return f"{len(record.files)}, unchanged since they were fetched"


def _compare_counts(dataset: Dataset, raw: Raw) -> str:
    """Compare the counts of a split's files, before `val` is carved from them, with the catalogue's."""
    for split, expected in dataset.entry.counts.items():
        if split not in raw or dataset.entry.repeated_questions == "drop":
            if difference := expected.find_difference(dataset.count(split)):
                raise InputError(f"{split} {difference}")
            continue
        carved = ["val"] if split == "train" and dataset.entry.validation else []
        asked = [question for part in (split, *carved) for question in raw[part][0]]
        images = len({question.image_id for question in asked})
        found = SplitCounts(questions=len(asked), images=images, answers=ANNOTATORS * len(asked))
        if difference := expected.find_difference(found):
            raise InputError(f"{split} {difference}")
    return ", ".join(dataset.entry.counts)


def _check_features(path: Path, features: FeatureStore) -> str:
    try:
        check_numbers(features)
        check_unbroken(path)
    except InputError as error:
        raise InputError(f"{path}: {error}; delete it and prepare again") from error
    images, regions, width = features.regions.shape
    return f"{images:,} images, {regions} regions at most, {width} wide"


def _compare_arrays(dataset: Dataset, raw: Raw, features: FeatureStore) -> str:
    """Compute all arrays again from the raw files, and compare."""
    encoder = build_encoder(dataset, raw)
    with (
        in_memory(lambda file: fill_prepared(file, dataset, raw, encoder, features, lambda _: None)) as again,
        reading(dataset.prepared_file) as file,
    ):
        if file.attrs["fingerprint"] != fingerprint_of(dataset):
            raise InputError(f"{dataset.prepared_file}: comes from other files or settings; prepare it again")
        other = differing(file, again)
        if other:
            what = f"differs from the raw files: {first_few(other)}"
            raise InputError(f"{dataset.prepared_file}: {what}; delete it and prepare again")
    return "agree with the raw files"
