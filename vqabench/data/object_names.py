"""Names of the classes that region features number, such as the 1,600 of bottom-up attention."""

from __future__ import annotations

from pathlib import Path

from vqabench.data.features import FeatureStore
from vqabench.data.folders import require_file
from vqabench.errors import InputError

BLOCK_ROWS = 4096
LARGEST_LIST = 1 << 24
"""Bytes; 1,600 names take 15,000."""


def read_object_names(path: Path, features: FeatureStore) -> tuple[str, ...]:
    """Read a name a line, of synonyms (`a,b`) the first.

    Raises InputError where the file is missing or has empty lines, or the features number no objects or more.
    """
    require_file(path, "list of names")
    if path.stat().st_size > LARGEST_LIST:
        raise InputError(f"{path}: larger than {LARGEST_LIST >> 20} MB: not a list of names, one per line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a list of names, one per line: {error}") from error
    names = tuple(line.partition(",")[0].strip() for line in lines)
    if "" in names:
        raise InputError(f"{path}, line {names.index('') + 1}: empty, but line numbers are class numbers")
    if features.object_ids is None:
        raise InputError(f"{path}: names classes, but the region features do not hold the class of each region")
    largest = _find_largest(features)
    if largest >= len(names):
        raise InputError(f"{path}: {len(names)} names, but the region features have a class {largest}")
    return names


def _find_largest(features: FeatureStore) -> int:
    """Find the largest class, a block at a time: the ids are mapped."""
    assert features.object_ids is not None
    ids = features.object_ids
    return max(int(ids[row : row + BLOCK_ROWS].max()) for row in range(0, len(ids), BLOCK_ROWS))
