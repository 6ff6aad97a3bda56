"""`vqabench data`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from vqabench.data.answer_shares import TypeShares, read_answer_shares
from vqabench.data.catalog import read_catalog
from vqabench.data.dataset import Dataset
from vqabench.data.file_choice import FileChoice, check_chosen, remember_choice
from vqabench.data.preparation import Summary, prepare_files, summarise
from vqabench.data.raw_files import holds_all
from vqabench.data.verification import Check, verify
from vqabench.errors import InputError
from vqabench.training.progress import Progress, Silence
from vqabench.workflows.places import Places

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


def list_datasets(places: Places) -> list[DatasetLine]:
    """List the catalogue."""
    datasets = map(places.dataset, read_catalog(places.catalog))
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


def describe_dataset(name: str, places: Places) -> dict[str, str | int]:
    """Tell what the catalogue says of a data set, and what its prepared form holds, if there is one."""
    dataset = places.dataset(name)
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


def compare_answers(name: str, places: Places, types: int, answers: int) -> list[TypeShares]:
    """Tell how the answers of the most frequent question types are shared out, in train and in the test.

    Where there is no test split, in val; nothing where the data set is not prepared.
    """
    dataset = places.dataset(name)
    summary = summarise(dataset)
    if summary is None or not summary.current:
        return []
    against = "test" if "test" in dataset.scored else "val"
    return read_answer_shares(dataset, against, types, answers)


def verify_dataset(name: str, places: Places) -> Iterator[Check]:
    """Check all files of a data set, raw and prepared."""
    return verify(places.dataset(name))


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
    places: Places,
    progress: Progress | None = None,
    features: Sequence[Path] = (),
    word_vectors: Path | None = None,
) -> tuple[Dataset, Summary]:
    """Prepare a data set; features and word vectors are remembered, where the catalogue names none.

    Raises InputError where its files are broken, or nobody named features.
    """
    dataset = places.dataset(name)
    before = chosen = _remembered(dataset, features)
    if features:
        _see_free("--features", f"{name}'s features", dataset.entry.features)
        chosen = replace(
            chosen, features=tuple(check_chosen("--features", file, may_be_folder=True) for file in features)
        )
    if word_vectors:
        _see_free("--word-vectors", f"{name}'s word vectors", dataset.entry.word_vectors)
        chosen = replace(chosen, word_vectors=check_chosen("--word-vectors", word_vectors))
    summary = prepare_files(dataclasses.replace(dataset, named=chosen), (progress or Silence()).say)
    if chosen != before:
        remember_choice(dataset.folder, chosen)
    return dataset, summary


def _see_free(option: str, what: str, in_catalog: object) -> None:
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
