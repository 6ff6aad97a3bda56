"""What makes an HDF5 file of regions that were written where HDF5 puts its first array, contiguous.

Around them come boxes, counts, ids and classes. Space is taken first: HDF5 does not survive a full disk.
"""

from __future__ import annotations

import errno
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from vqabench.data.features.journal import Entry, write_all
from vqabench.data.features.store import describe_array, write_ids
from vqabench.data.vqa.annotations import ImageId

BLOCK_ROWS = 1024
SPARE = 1 << 20
"""Bytes for what HDF5 adds by itself."""

Columns = dict[str, tuple[tuple[int, ...], str]]
"""Array -> its shape and type."""


@dataclass(frozen=True)
class RegionsHeld:
    """What a file of written regions holds."""

    shape: tuple[int, int, int]
    """Images, rows of regions that each has room for, width."""
    dtype: np.dtype[Any]
    image_ids: Sequence[ImageId]
    counts: Sequence[int]
    """Of regions, an image."""
    named: Sequence[bool]
    """Whether every image has the ids of its objects, and of their attributes."""
    attributes: Mapping[str, str]

    @property
    def columns(self) -> Columns:
        """Give the arrays that stand behind the regions."""
        images, regions, _ = self.shape
        ids = zip(("object_ids", "attribute_ids"), self.named, strict=True)
        return {"boxes": ((images, regions, 4), "<f4")} | {
            name: ((images, regions), "<i4") for name, named in ids if named
        }


def place_first_array() -> int:
    """Tell where HDF5 puts the first array of a file, which depends neither on its type nor on its size."""
    with h5py.File(h5py.h5f.open_file_image(_empty_hdf5(), flags=h5py.h5f.ACC_RDWR)) as file:
        return describe_array(file, "regions", (1, 1, 1), np.float16)


def write_frame(part: Path, held: RegionsHeld, first: int, entries: Iterator[Entry]) -> None:
    """Write around the regions, which begin at byte `first`, all else; `entries` has a row for each image.

    Raises OSError where the disk is full.
    """
    end = first + math.prod(held.shape) * held.dtype.itemsize
    with part.open("r+b") as file:
        file.write(_empty_hdf5())
        file.truncate(end)
        _reserve(file, end + sum(_size(*one) for one in held.columns.values()) + _size_of_ids(held.image_ids))
    with h5py.File(part, "r+") as file:
        place = describe_array(file, "regions", held.shape, held.dtype)
        assert place == first, "HDF5 has put the regions elsewhere"
        paths = {name: describe_array(file, name, *one) for name, one in held.columns.items()}
        write_ids(file, list(held.image_ids))
        file["counts"] = np.array(held.counts, np.int32)
        file.attrs.update(held.attributes)
    _write_columns(part, held.columns, paths, entries)


def _empty_hdf5() -> bytes:
    content = io.BytesIO()
    h5py.File(content, "w").close()
    return content.getvalue()


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * int(np.dtype(dtype).itemsize)


def _size_of_ids(image_ids: Sequence[ImageId]) -> int:
    return SPARE + sum(64 + len(str(image_id).encode()) for image_id in image_ids)


def _reserve(file: IO[bytes], size: int) -> None:
    """Take space on the disk."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        file.flush()
        end = file.seek(0, os.SEEK_END)
        try:
            os.posix_fallocate(file.fileno(), end, size - end)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # some file systems know no such thing
                raise


def _write_columns(part: Path, columns: Columns, paths: dict[str, int], entries: Iterator[Entry]) -> None:
    """Write what the entries have of every row, a block of rows at a time."""
    with part.open("r+b", buffering=0) as file:
        while block := list(islice(entries, BLOCK_ROWS)):
            for name, (shape, dtype) in columns.items():
                rows = np.zeros((len(block), *shape[1:]), dtype)
                for row, entry in zip(rows, block, strict=True):
                    row[: entry.count] = np.frombuffer(getattr(entry, name), dtype).reshape(-1, *shape[2:])
                file.seek(paths[name])
                write_all(file, rows.data)
                paths[name] += rows.nbytes
