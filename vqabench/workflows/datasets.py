"""`vqabench data`."""

from __future__ import annotations

from dataclasses import dataclass

from vqabench.api import Recipe
from vqabench.data.catalog import Dataset, data_folder, read_catalog
from vqabench.data.prepared import Prepared, open_prepared, prepare
from vqabench.training.assembly import change_recipe
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
    facts |= {"splits": ", ".join(entry.splits), "folder": str(dataset.folder)}
    facts |= {f"recipe.{name}": value for name, value in entry.recipe.items()}
    prepared = open_prepared(dataset)
    if prepared is None:
        return facts | {"prepared": "no"}
    facts |= {f"{split} questions": len(arrays.types) for split, arrays in prepared.splits.items()}
    spec = prepared.spec
    return facts | {
        "answers": len(spec.answers),
        "words": len(spec.words) - 2,  # without the padding and the unknown token
        "question types": len(spec.question_types),
        "images": len(prepared.features.image_ids),
        "regions per image, at most": spec.regions,
        "width of a region's feature": spec.region_width,
        "fingerprint": prepared.fingerprint,
    }


def prepare_dataset(name: str, places: Places, progress: Progress | None = None) -> tuple[Dataset, Prepared]:
    """Prepare a data set. Raises InputError where its files or its recipe are broken."""
    dataset = places.dataset(name)
    change_recipe(Recipe(), dataset.entry.recipe, f"{name}: recipe")
    return dataset, prepare(dataset, (progress or Silence()).say)
