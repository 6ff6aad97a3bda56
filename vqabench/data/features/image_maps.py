"""Which row of an array is which image: the maps that published features come with, as a pickle or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vqabench.errors import InputError, first_few
from vqabench.files.folders import require_file
from vqabench.files.plain_pickle import load_plain

LARGEST_MAP = 1 << 28
"""Bytes; the map of all of COCO takes 3 MB."""


def find_map(source: Path, member: str) -> Path | None:
    """Return the map beside a file of arrays: the one named, which must be there, else one of the usual names.

    Raises InputError where several are there that differ.
    """
    if member:
        require_file(source.parent / member, "map of image ids")
        return source.parent / member
    for stem in (f"{source.stem}_", ""):
        paths = [source.parent / f"{stem}imgid2idx{suffix}" for suffix in (".json", ".pkl")]
        there = [path for path in paths if path.exists()]
        for path in there:
            require_file(path, "map of image ids")
        if len(there) > 1 and _format_keys(_load(there[0])) != _format_keys(_load(there[1])):
            names = f"{there[0].name} and {there[1].name}"
            raise InputError(f"{source}: {names} differ; choose one with {source}::{there[0].name}")
        if there:
            return there[0]
    return None


def _format_keys(found: object) -> object:
    """Return a map as JSON would hold it, whose keys are text."""
    return {str(key): row for key, row in found.items()} if isinstance(found, dict) else found


def read_map(path: Path, rows: int) -> dict[str, int]:
    """Read which of the `rows` each name means. Raises InputError where it is no such map."""
    found = _load(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: must map image ids to rows, not be a {type(found).__name__}")
    if not found:
        raise InputError(f"{path}: is empty; expected a map of images to rows")
    odd = [key for key, row in found.items() if type(key) not in (int, str, bytes) or type(row) is not int]
    odd = odd or [key for key, row in found.items() if not 0 <= row < rows]
    if odd:
        raise InputError(f"{path}: ids {first_few(odd)} are not mapped to rows from 0 to {rows - 1}")
    if len(set(found.values())) < len(found):
        raise InputError(f"{path}: two images are mapped to one row")
    return {
        key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): row for key, row in found.items()
    }


def _load(path: Path) -> Any:
    require_file(path, "map of image ids")
    try:
        if path.stat().st_size > LARGEST_MAP:
            raise InputError(f"{path}: too large for a map of image ids")
        content = path.read_bytes()
        return json.loads(content) if path.suffix == ".json" else load_plain(content)
    except InputError:
        raise
    except Exception as error:  # a broken pickle raises whatever its bytes happen to ask for
        raise InputError(f"{path}: no map of image ids that can be trusted: {error}") from error
