"""A data set made of another one's questions: its raw files, and the catalogue that names them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import msgspec

from vqabench.data.annotations import Annotation, Question, hash_ids, write_annotations, write_questions
from vqabench.data.catalog import Entry
from vqabench.data.dataset import Dataset
from vqabench.errors import InputError
from vqabench.results import write_file

KEPT = (
    *("licence", "citation", "features_from", "images_without_features", "broken_features", "feature_precision"),
    *("minimum_answer_count", "vocabulary", "question_length", "recipe"),
)
"""What a derived entry takes over as it is."""


def write_split(
    source: Dataset,
    folder: Path,
    name: str,
    title: str,
    questions: Sequence[Question],
    annotations: Sequence[Annotation],
    in_test: Sequence[bool],
    record: Mapping[str, Any],
) -> Path:
    """Write both splits, a catalogue of the new data set, and `split.json` on how it came about.

    Gives the catalogue. Raises InputError where the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for split, wanted in (("train", [not test for test in in_test]), ("test", list(in_test))):
        chosen = list(compress(questions, wanted))
        write_questions(folder / f"{split}_questions.json", chosen)
        write_annotations(folder / f"{split}_annotations.json", list(compress(annotations, wanted)))
        sizes[split] = {"questions": len(chosen), "ids_sha256": hash_ids(q.question_id for q in chosen)}
    write_file(
        folder / "split.json", msgspec.json.format(msgspec.json.encode({**record, "splits": sizes}), indent=2)
    )
    catalog = folder / "catalog.toml"
    write_file(catalog, _spell_entry(source, name, title).encode())
    return catalog


def _spell_entry(source: Dataset, name: str, title: str) -> str:
    """Spell a catalogue of one data set; features, word vectors and names stay where they are."""
    entry = source.entry
    fields: dict[str, Any] = {"title": title}
    if source.has_features():
        fields["features"] = [str(path.absolute()) for path in source.feature_files()]
    for key in ("word_vectors", "object_names"):
        if name_of_file := getattr(entry, key):
            fields[key] = str((source.source / name_of_file).absolute())
    defaults = Entry(title="")
    fields |= {key: getattr(entry, key) for key in KEPT if getattr(entry, key) != getattr(defaults, key)}
    fields["validation"] = {"share": 0.05, "seed": 0}
    lines = [f"[{name}]", *(f"{key} = {_spell(value)}" for key, value in fields.items())]
    for split in ("train", "test"):
        lines += ["", f"[{name}.splits.{split}]"]
        lines += [f'{kind} = "{split}_{kind}.json"' for kind in ("questions", "annotations")]
    return "\n".join([*lines, ""])


def _spell(value: object) -> str:
    """Spell a value in TOML: JSON's strings, numbers, booleans and lists are TOML's, too."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_spell(one)}' for key, one in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)
