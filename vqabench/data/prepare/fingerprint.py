"""Identify the files and settings that a data set is prepared from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np

from vqabench.data.catalog.dataset import Dataset
from vqabench.data.catalog.entries import DatasetEntry
from vqabench.data.features.sources import list_files
from vqabench.errors import InputError
from vqabench.files.folders import require_file
from vqabench.files.packed import split_member

FORMAT = 2
"""Incremented whenever data sets must be prepared again."""

ADDED = ("repeated_questions", "features_without_boxes")
"""Keys added later. With their defaults they are left out, so that data prepared before stays up to date."""

SAMPLED = 64
"""Files hashed of a folder, and MiB hashed of a file above 256 MiB: features take tens of GB."""


def fingerprint_of(dataset: Dataset) -> str:
    """Hash every input file, and the settings that affect what is prepared from them.

    Raises InputError if a file is missing.
    """
    digest = hashlib.sha256(_format_settings(dataset).encode())
    for path in dataset.files():
        files = _list(dataset, path)
        digest.update(split_member(path)[1].encode())
        if len(files) > 1:
            digest.update(json.dumps([(file.name, file.stat().st_size) for file in files]).encode())
        for file in files[:: -(-len(files) // SAMPLED)]:
            digest.update(_hash_file(file))
    return digest.hexdigest()


def stamp_of(dataset: Dataset) -> str:
    """Hash the settings and the sizes and times of files: fast, but a file may change without changing these."""
    lines = [_format_settings(dataset), str(dataset.source.absolute())]
    for path in dataset.files():
        real, _ = split_member(path)
        stat = real.stat() if real.exists() else None
        lines.append(f"{path} {stat.st_size} {stat.st_mtime_ns}" if stat else f"{path} missing")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def total_size(dataset: Dataset) -> int:
    """Add up the bytes of all files. Raises InputError if one is missing."""
    return sum(file.stat().st_size for path in dataset.files() for file in _list(dataset, path))


def _format_settings(dataset: Dataset) -> str:
    others = {
        "title",
        "licence",
        "citation",
        "recipe",
        "test_domain",
        "files",
        "derived",
        "counts",
        "features_from",
        "subsets",
    }
    settings = {key: value for key, value in msgspec.to_builtins(dataset.entry).items() if key not in others}
    for key in ADDED:
        if settings[key] == getattr(DatasetEntry(title=""), key):
            del settings[key]
    return json.dumps([FORMAT, settings], sort_keys=True)


def _list(dataset: Dataset, path: Path) -> list[Path]:
    """List the files of one path of the catalogue: features may be a folder."""
    real, _ = split_member(path)
    if not real.exists():
        raise InputError(f"{real}: missing; the catalogue names it for {dataset.name}")
    if path in dataset.feature_files():
        return list_files(path)
    require_file(real, f"file, and the catalogue or an option names it for {dataset.name}")
    return [real]


def _hash_file(path: Path) -> bytes:
    size, chunk = path.stat().st_size, 1 << 20
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        if size <= 256 * chunk:
            digest.update(stream.read())
        else:
            for position in np.linspace(0, size - chunk, SAMPLED, dtype=np.int64):
                stream.seek(int(position))
                digest.update(stream.read(chunk))
    return digest.digest()
