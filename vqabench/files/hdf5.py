"""Read and write HDF5 files; they are built in memory first, since HDF5 may crash if the disk is full."""

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
    """Write a file that fits into memory, with the contents that `fill` creates. Raises as `write_file` does."""
    with in_memory(fill) as file:
        write_file(path, _image_of(file))


def change_hdf5(path: Path, change: Fill) -> None:
    """Change a file of ours that fits into memory: a reader finds either the old or the new one.

    Raises OSError if it cannot be read, else as `write_file` does.
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
    """Yield a file that `fill` has filled, and that is never written."""
    with h5py.File("in memory", "w", driver="core", backing_store=False, libver=CHECKED) as file:
        fill(file)
        yield file


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open a file of ours. Raises InputError if it is missing, or anything that is read is damaged."""
    try:
        with h5py.File(path) as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, MemoryError) as error:  # HDF5 has all kinds
        raise InputError(f"{path}: missing or damaged: {error}; delete it and prepare again") from error


def get_array(file: h5py.Group, name: str) -> h5py.Dataset | None:
    """Return an array that is stored in the file itself, or None.

    Raises InputError if the name is a link, or the array is stored in other files, which the user may not mean to
    share.
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
    """Raise InputError if an array claims to be far larger than its stored bytes, or was never written."""
    name, stored = array.name.strip("/"), array.id.get_storage_size()
    if array.size and array.size * array.dtype.itemsize > MOST_EXPANSION * stored:
        claim = f"claims {array.size:,} numbers, but the file holds {stored:,} bytes of them"
        raise InputError(f"{array.file.filename}: {name} {claim}: was it written completely?")


def store(group: h5py.Group, name: str, array: NDArray[Any]) -> None:
    """Write an array with checksums, which are verified on reading."""
    group.create_dataset(name, data=array, fletcher32=array.size > 0)


def differing(first: h5py.Group, second: h5py.Group) -> list[str]:
    """Return the names of the arrays, in any group, that differ between two files or are missing from one."""
    mine, other = _list_arrays(first), _list_arrays(second)
    return [
        name
        for name in sorted(mine.keys() | other.keys())
        if name not in mine or name not in other or not np.array_equal(mine[name][()], other[name][()])
    ]


def _list_arrays(group: h5py.Group) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    group.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
    return found
