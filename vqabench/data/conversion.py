"""From the files that region features come in to `features.h5`."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotations import ImageId
from vqabench.data.features import write_ids
from vqabench.data.region_files import Row, read_rows
from vqabench.errors import InputError, VqabenchError, first_few
from vqabench.results import write_through


def convert_features(sources: Sequence[Path], destination: Path, wanted: Collection[ImageId]) -> None:
    """Gather the features of the wanted images from TSV or our own HDF5 files into `features.h5`.

    The objects' classes are kept where every source names them.

    Raises InputError, naming file and line, where a row is broken, a number is not finite, widths differ or
    an image comes twice.
    """
    wanted = set(wanted)
    counts, named = _survey(sources, wanted)
    if not counts:
        raise InputError(f"{first_few(sources)}: features of none of the {len(wanted)} images asked about")
    write_through(destination, lambda part: _fill(part, read_rows(sources, wanted), counts, named))


def _survey(sources: Sequence[Path], wanted: Collection[ImageId]) -> tuple[dict[ImageId, int], bool]:
    """Count the regions of every wanted image, undecoded; and tell whether every source names the objects."""
    counts: dict[ImageId, int] = {}
    named = True
    seen: dict[ImageId, str] = {}
    for row in read_rows(sources, wanted):
        if row.image_id in seen:
            raise InputError(f"{row.where}: image {row.image_id} has come before, in {seen[row.image_id]}")
        counts[row.image_id] = row.count
        named = named and row.names_objects
        seen[row.image_id] = row.where
    return counts, named


def _fill(part: Path, rows: Iterator[Row], counts: dict[ImageId, int], named: bool) -> None:
    """Write image after image into arrays whose shape the survey gave, mapped into memory."""
    mapped: dict[str, NDArray[Any]] = {}
    for number, row in enumerate(rows):
        image = row.decode()
        mapped = mapped or _allocate(part, counts, image.regions.shape[1], named)
        width = mapped["regions"].shape[2]
        if image.regions.shape[1] != width:
            raise InputError(f"{row.where}: features {image.regions.shape[1]} wide, but {width} before")
        mapped["regions"][number, : row.count] = image.regions
        mapped["boxes"][number, : row.count] = image.boxes
        if named:
            mapped["object_ids"][number, : row.count] = image.object_ids


def _allocate(part: Path, counts: dict[ImageId, int], width: int, with_objects: bool) -> dict[str, NDArray[Any]]:
    """Lay a features file out, contiguous and all zero, and map its large arrays."""
    shape = (len(counts), max(counts.values()))
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {
        "regions": ((*shape, width), np.float16),
        "boxes": ((*shape, 4), np.float32),
    }
    if with_objects:
        arrays["object_ids"] = (shape, np.int32)
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_obj_track_times(False)  # the same images make the same bytes
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    with h5py.File(part, "w") as file:
        write_ids(file, list(counts))
        file["counts"] = np.array(list(counts.values()), np.int32)
        for name, (size, dtype) in arrays.items():
            space = h5py.h5s.create_simple(size)
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, early)
        offsets = {name: file[name].id.get_offset() for name in arrays}
    _reserve(part)
    return {
        name: np.memmap(part, dtype, "r+", offsets[name], size).view(np.ndarray)
        for name, (size, dtype) in arrays.items()
    }


def _reserve(part: Path) -> None:
    """Take the file's space on the disk: where it runs out under a map, the process is killed by SIGBUS."""
    size = part.stat().st_size
    try:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise VqabenchError(f"{part.parent}: no room for {size / 1e9:.1f} GB of features: {error}") from error
