"""`vqabench data`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vqabench.data.answer_shares import TypeShares, read_answer_shares
from vqabench.data.catalog import Dataset, read_catalog
from vqabench.data.preparation import Summary, prepare_files, summarise
from vqabench.data.verification import Check, verify
from vqabench.training.progress import Progress, Silence
from vqabench.workflows.places import Places

State = Literal["yes", "no", "outdated"]
"""Whether a data set is prepared; outdated: from other files or settings than those of now."""


@dataclass(frozen=True)
class DatasetLine:
    """One line of `data list`."""

    name: str
    title: str
    prepared: State


def list_datasets(places: Places) -> list[DatasetLine]:
    """List the catalogue."""
    datasets = map(places.dataset, read_catalog(places.catalog))
    return [DatasetLine(one.name, one.entry.title, _state(summarise(one))) for one in datasets]


def _state(summary: Summary | None) -> State:
    if summary is None:
        return "no"
    return "yes" if summary.current else "outdated"


def describe_dataset(name: str, places: Places) -> dict[str, str | int]:
    """Tell what the catalogue says of a data set, and what its prepared form holds, if there is one."""
    dataset = places.dataset(name)
    entry = dataset.entry
    facts: dict[str, str | int] = {"name": name, "title": entry.title, "licence": entry.licence}
    facts |= {"citation": entry.citation} if entry.citation else {}
    facts |= {"splits": ", ".join(dataset.splits), "folder": str(dataset.folder)}
    if entry.validation:
        facts |= {"val": f"{entry.validation.share:.1%} of train's images, seed {entry.validation.seed}"}
    facts |= {f"recipe.{name}": value for name, value in entry.recipe.items()}
    summary = summarise(dataset)
    if summary is None:
        return facts | {"prepared": "no"}
    if not summary.current:
        return facts | {"prepared": "outdated: made of other files or settings; preparing makes it anew"}
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
    against = "test" if "test" in summary.questions else "val"
    return read_answer_shares(dataset, against, types, answers)


def verify_dataset(name: str, places: Places) -> Iterator[Check]:
    """Check all files of a data set, raw and prepared."""
    return verify(places.dataset(name))


def prepare_dataset(name: str, places: Places, progress: Progress | None = None) -> tuple[Dataset, Summary]:
    """Prepare a data set. Raises InputError where its files are broken."""
    dataset = places.dataset(name)
    return dataset, prepare_files(dataset, (progress or Silence()).say)
