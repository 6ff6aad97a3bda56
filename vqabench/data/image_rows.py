"""Which row of an array is which image: the maps that published features come with, as a pickle or as JSON."""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from vqabench.data.annotations import ImageId
from vqabench.data.region_rows import name_image
from vqabench.errors import InputError, first_few

LARGEST_MAP = 1 << 28
"""Bytes; the map of all of COCO takes 3 MB."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads dicts, numbers and text alone: a pickle that names any class or function could run any program."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}, but only numbers and text may be in it")


def find_map(source: Path, member: str) -> Path | None:
    """Find the map beside a file of arrays: the one named, which must be there, else one of the usual names."""
    if member:
        if not (source.parent / member).is_file():
            raise InputError(f"{source.parent / member}: there is no such map of image ids")
        return source.parent / member
    names = [f"{stem}imgid2idx{suffix}" for stem in (f"{source.stem}_", "") for suffix in (".json", ".pkl")]
    return next((source.parent / name for name in names if (source.parent / name).is_file()), None)


def read_map(path: Path, rows: int, wanted: Collection[ImageId]) -> dict[ImageId, int]:
    """Read which of the `rows` each image is. Raises InputError where it is no such map."""
    found = _load(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: must map image ids to rows, not be a {type(found).__name__}")
    odd = [key for key, row in found.items() if type(key) not in (int, str) or type(row) is not int]
    odd = odd or [key for key, row in found.items() if not 0 <= row < rows]
    if odd:
        raise InputError(f"{path}: ids {first_few(odd)} are not mapped to rows from 0 to {rows - 1}")
    named = {name_image(str(key), wanted): row for key, row in found.items()}
    if len(named) < len(found) or len(set(named.values())) < len(named):
        raise InputError(f"{path}: an image is mapped to two rows, or two images to one")
    return named


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_MAP:
            raise InputError(f"{path}: too large for a map of image ids")
        if path.suffix == ".json":
            return json.loads(path.read_bytes())
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except InputError:
        raise
    except Exception as error:  # a broken pickle raises whatever its bytes happen to ask for
        raise InputError(f"{path}: no map of image ids that can be trusted: {error}") from error
