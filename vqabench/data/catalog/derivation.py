"""Write a data set made from another one's questions: its raw files and its catalogue."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from glob import escape
from pathlib import Path
from typing import Any, Literal

import msgspec

from vqabench.data.catalog.dataset import Dataset, check_questions
from vqabench.data.catalog.entries import DatasetEntry
from vqabench.data.vqa.annotations import hash_ids, read_raw_entries, write_raw_entries
from vqabench.errors import InputError
from vqabench.files.atomic import holding, write_file

KEPT = (
    *("licence", "citation", "features_from", "images_without_features", "broken_features", "feature_precision"),
    *("minimum_answer_count", "vocabulary", "question_length", "recipe"),
)
"""Keys that a derived entry copies unchanged."""


def write_split(
    source: Dataset,
    folder: Path,
    name: str,
    title: str,
    test_ids: Collection[int],
    record: Mapping[str, Any],
    hashes: Mapping[Path, str],
) -> Path:
    """Write both splits, a catalogue of the new data set, and `split.json` with its origin; return the catalogue.

    Entries are copied unchanged. Raises InputError if the folder is not empty, VqabenchError if the source's files
    do not have the given hashes any more.
    """
    _require_free(folder)
    place = folder.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = f".{place.name}.part-"
    # Written to a folder with another name and renamed, so that a killed process leaves no incomplete data set.
    with ExitStack() as stack:
        stack.enter_context(holding(place.with_name(f".{place.name}.lock"), lambda: None))
        _require_free(folder)  # another process may have written it while this one waited
        for stray in place.parent.glob(f"{escape(partial)}????????"):  # left by a killed process
            shutil.rmtree(stray, ignore_errors=True)
        made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=partial, dir=place.parent))) / "made"
        made.mkdir()
        _copy_entries(source, made, "annotations", test_ids)
        ids = _copy_entries(source, made, "questions", test_ids)
        check_questions(hashes, "nothing was written; repeat the command")
        sizes = {split: {"questions": len(own), "ids_sha256": hash_ids(own)} for split, own in ids.items()}
        described = msgspec.json.encode({**record, "splits": sizes})
        write_file(made / "split.json", msgspec.json.format(described, indent=2))
        write_file(made / "catalog.toml", _format_entry(source, name, title).encode())
        if place.exists():
            place.rmdir()
        made.rename(place)
    return folder / "catalog.toml"


def _require_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty; choose another --out")


def _copy_entries(
    source: Dataset, folder: Path, kind: Literal["questions", "annotations"], test_ids: Collection[int]
) -> dict[str, list[int]]:
    """Copy all entries of one kind to their split's file; return the ids of each split."""
    ids: dict[str, list[int]] = {"train": [], "test": []}
    entries: dict[str, list[msgspec.Raw]] = {"train": [], "test": []}
    names = [name for files in source.entry.splits.values() if files.annotations for name in getattr(files, kind)]
    repeats = source.entry.repeated_questions == "drop"
    seen: set[int] = set()
    for name in names:
        for question_id, entry in read_raw_entries(source.source / name, kind):
            if repeats and question_id in seen:
                continue
            seen.add(question_id)
            split = "test" if question_id in test_ids else "train"
            ids[split].append(question_id)
            entries[split].append(entry)
    for split, own in entries.items():
        write_raw_entries(folder / f"{split}_{kind}.json", kind, own)
    return ids


def _format_entry(source: Dataset, name: str, title: str) -> str:
    """Return a catalogue of one data set, with absolute paths of features, word vectors and names."""
    entry = source.entry
    fields: dict[str, Any] = {"title": title}
    if source.has_features():
        fields["features"] = [str(path.absolute()) for path in source.feature_files()]
    if source.word_vectors_file:
        fields["word_vectors"] = str(source.word_vectors_file.absolute())
    if entry.object_names:
        fields["object_names"] = str((source.source / entry.object_names).absolute())
    defaults = DatasetEntry(title="")
    fields |= {key: getattr(entry, key) for key in KEPT if getattr(entry, key) != getattr(defaults, key)}
    fields["validation"] = {"share": 0.05, "seed": 0}
    table = json.dumps(name, ensure_ascii=False)
    lines = [f"[{table}]", *(f"{key} = {_format_value(value)}" for key, value in fields.items())]
    for split in ("train", "test"):
        lines += ["", f"[{table}.splits.{split}]"]
        lines += [f'{kind} = "{split}_{kind}.json"' for kind in ("questions", "annotations")]
    return "\n".join([*lines, ""])


def _format_value(value: object) -> str:
    """Return a value in TOML. Strings, numbers, booleans and lists are written as in JSON."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_format_value(one)}' for key, one in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)
