"""Whether what lies on disk is what it should be: raw files, prepared arrays, region features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h5py

from vqabench.data.dataset import Dataset
from vqabench.data.features import FeatureStore, check_numbers, open_features
from vqabench.data.fingerprint import fingerprint_of, total_size
from vqabench.data.hdf5 import differing, in_memory
from vqabench.data.members import split_member
from vqabench.data.preparation import Raw, fill_prepared, read_raw, summarise
from vqabench.errors import InputError, first_few


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    fine: bool
    found: str


def verify(dataset: Dataset) -> Iterator[Check]:
    """Look at everything, from the raw files to the prepared ones; what builds on a broken part is left out."""
    files = _check("files", lambda: _find_files(dataset))
    yield files
    raw: dict[str, Raw] = {}
    if files.fine:
        questions = _check("questions and annotations", lambda: _read(dataset, raw))
        yield questions
    if summarise(dataset) is None:
        yield Check("prepared files", not dataset.prepared_file.exists(), "not there, or damaged: prepare the data")
        return
    features = open_features(dataset.features_file)
    yield _check("region features", lambda: _look_at_features(features))
    if raw:
        yield _check("prepared arrays", lambda: _derive_again(dataset, raw["all"], features))


def _check(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, True, look())
    except InputError as error:
        return Check(what, False, str(error))


def _find_files(dataset: Dataset) -> str:
    files = dataset.files()
    missing = [str(path) for path in files if not split_member(path)[0].exists()]
    if missing:
        raise InputError(f"{len(missing)} of {len(files)} are missing: {first_few(missing)}")
    return f"{len(files)}, {total_size(dataset) / 1e6:,.1f} MB"


def _read(dataset: Dataset, raw: dict[str, Raw]) -> str:
    """Read all splits into `raw`: every question has its annotation, ten answers, and a place in one split."""
    raw["all"] = read_raw(dataset)
    return ", ".join(f"{split} {len(questions):,}" for split, (questions, _) in raw["all"].items())


def _look_at_features(features: FeatureStore) -> str:
    check_numbers(features)
    images, regions, width = features.regions.shape
    return f"{images:,} images, {regions} regions at most, {width} wide"


def _derive_again(dataset: Dataset, raw: Raw, features: FeatureStore) -> str:
    """Compute all arrays anew from the raw files, and compare."""
    with (
        in_memory(lambda file: fill_prepared(file, dataset, raw, features, _hear)) as again,
        h5py.File(dataset.prepared_file) as file,
    ):
        other = differing(file, again)
        if other:
            raise InputError(f"{dataset.prepared_file}: not what the files give: {first_few(other)}; prepare again")
        if file.attrs["fingerprint"] != fingerprint_of(dataset):
            raise InputError(f"{dataset.prepared_file}: was made of other files or settings; prepare again")
    return "equal what the files give"


def _hear(_: str) -> None:
    """Hear what preparation says; it was said when the data was prepared."""
