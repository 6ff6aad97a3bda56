"""`vqabench data`."""

from __future__ import annotations

from dataclasses import dataclass

from vqabench.data.catalog import Dataset, data_folder, read_catalog
from vqabench.data.preparation import Summary, prepare_files, summarise
from vqabench.training.progress import Progress, Silence
from vqabench.workflows.places import Places


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
    facts |= {"splits": ", ".join(dataset.splits), "folder": str(dataset.folder)}
    if entry.validation:
        facts |= {"val": f"{entry.validation.share:.1%} of train's images, seed {entry.validation.seed}"}
    facts |= {f"recipe.{name}": value for name, value in entry.recipe.items()}
    summary = summarise(dataset)
    if summary is None:
        return facts | {"prepared": "no"}
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


def prepare_dataset(name: str, places: Places, progress: Progress | None = None) -> tuple[Dataset, Summary]:
    """Prepare a data set. Raises InputError where its files are broken."""
    dataset = places.dataset(name)
    return dataset, prepare_files(dataset, (progress or Silence()).say)
