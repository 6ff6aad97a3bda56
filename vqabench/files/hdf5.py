"""HDF5 files, made in memory first: HDF5 itself may crash where a disk is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vqabench.errors import InputError
from vqabench.files.atomic import write_file

CHECKED = "v110", "v110"
"""Versions of the format whose headers have checksums."""
MOST_EXPANSION = 2000
"""HDF5's strongest compression of equal bytes is about a thousandfold."""
Fill = Callable[[h5py.File], object]


def write_hdf5(path: Path, fill: Fill) -> None:
    """Let `fill` fill a file that memory has room for, then write it. Raises as `write_file` does."""
    with in_memory(fill) as file:
        write_file(path, _image_of(file))


def change_hdf5(path: Path, change: Fill) -> None:
    """Let `change` change a file of ours that memory has room for: it is the old one until it is the new one.

    Raises OSError where it cannot be read, else as `write_file` does.
    """
    with h5py.File(path, "r+", driver="core", backing_store=False, libver=CHECKED) as file:
        change(file)
        write_file(path, _image_of(file))


def _image_of(file: h5py.File) -> bytes:
    file.flush()
    image: bytes = file.id.get_file_image()
    return image


@contextmanager
def in_memory(fill: Fill) -> Iterator[h5py.File]:
    """Let `fill` fill a file that is never written."""
    with h5py.File("in memory", "w", driver="core", backing_store=False, libver=CHECKED) as file:
        fill(file)
        yield file


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open a file of ours to read. Raises InputError where it is missing, or anything that is read is damaged."""
    try:
        with h5py.File(path) as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, MemoryError) as error:  # HDF5 has all kinds
        raise InputError(f"{path}: missing or damaged: {error}; delete it and prepare again") from error


def get_array(file: h5py.Group, name: str) -> h5py.Dataset | None:
    """Return an array that lies in the file itself, or None.

    Raises InputError where the name links elsewhere, or the array is kept in other files: they may be anybody's.
    """
    link = file.get(name, getlink=True)
    if link is None:
        return None
    where = file.file.filename
    if not isinstance(link, h5py.HardLink):
        raise InputError(f"{where}: {name} is a link; copy the linked data into the file")
    array = file[name]
    if isinstance(array, h5py.Dataset) and (array.is_virtual or array.external):
        raise InputError(
            f"{where}: {name} is stored in other files; copy it into this one, for instance with h5repack"
        )
    return array


def check_stored(array: h5py.Dataset) -> None:
    """Raise InputError where an array claims to be far larger than what is stored of it, or was never written."""
    name, stored = array.name.strip("/"), array.id.get_storage_size()
    if array.size and array.size * array.dtype.itemsize > MOST_EXPANSION * stored:
        claim = f"claims {array.size:,} numbers, but the file holds {stored:,} bytes of them"
        raise InputError(f"{array.file.filename}: {name} {claim}: was it written completely?")


def store(group: h5py.Group, name: str, array: NDArray[Any]) -> None:
    """Write an array with checksums, which reading compares."""
    group.create_dataset(name, data=array, fletcher32=array.size > 0)


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
