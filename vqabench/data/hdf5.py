"""HDF5 files, made in memory first: HDF5 itself may crash where a disk is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from vqabench.results import write_file

Fill = Callable[[h5py.File], object]


def write_hdf5(path: Path, fill: Fill) -> None:
    """Let `fill` fill a file that memory has room for, then write it. Raises as `write_file` does."""
    with in_memory(fill) as file:
        file.flush()
        image: bytes = file.id.get_file_image()
    write_file(path, image)


@contextmanager
def in_memory(fill: Fill) -> Iterator[h5py.File]:
    """Let `fill` fill a file that is never written."""
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        fill(file)
        yield file


def differing(first: h5py.Group, second: h5py.Group) -> list[str]:
    """Name the data sets, in whatever groups, that only one of two files has, or that differ between them."""
    arrays: list[dict[str, h5py.Dataset]] = [{}, {}]
    for file, found in zip((first, second), arrays, strict=True):
        file.visititems(lambda name, item, found=found: found.update({name: item}) if _is_array(item) else None)
    mine, other = arrays
    return [
        name
        for name in sorted(mine.keys() | other.keys())
        if name not in mine or name not in other or not np.array_equal(mine[name][()], other[name][()])
    ]


def _is_array(item: object) -> bool:
    return isinstance(item, h5py.Dataset)
