"""Read and write `features.h5`, the file of region features, which is mapped into memory."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError, VqabenchError, first_few
from vqabench.files.atomic import read_file
from vqabench.files.folders import require_file
from vqabench.files.hdf5 import check_stored, get_array, write_hdf5

FORMAT = 1
IMAGES_AT_ONCE = 256


class FeatureFile:
    """A file whose rows are read on demand instead of mapped, and which must not change.

    If a mapped file is truncated, access kills the process.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self.path = path
        self._offset = offset
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._state = self._look()

    def check(self) -> None:
        """Raise VqabenchError if the file has changed since it was opened."""
        if self._look() != self._state:
            sizes = f"{self._state[0]:,} bytes before, {self._look()[0]:,} now"
            raise VqabenchError(
                f"{self.path}: changed while it was in use ({sizes}); "
                "put it back, or prepare the data again, and continue with --resume"
            )

    def read(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read rows into `out`. Raises VqabenchError if the file has changed."""
        content = out.reshape(-1).view(np.uint8)
        size = out[0].nbytes if len(out) else 0
        for place, row in enumerate(rows.tolist()):
            wanted = content[place * size : (place + 1) * size].data
            found = 0
            while found < size:  # a network file system may return a part
                read = os.preadv(self._file, [wanted[found:]], self._offset + row * size + found)
                if read == 0:
                    self.check()
                    raise VqabenchError(
                        f"{self.path}: ends in image row {row}; delete it and prepare the data again"
                    )
                found += read
        self.check()

    def _look(self) -> tuple[int, int]:
        stat = os.fstat(self._file)
        return stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class FeatureStore:
    """The region features of N images, memory-mapped."""

    regions: NDArray[np.floating[Any]]
    """[N, R, V], float16 or float32; zero behind the last region of an image."""
    boxes: NDArray[np.float32]
    """[N, R, 4]: left, top, right, bottom in [0, 1], as shares of the image's width and height."""
    counts: NDArray[np.int32]
    """[N]: regions of each image, at least 1."""
    image_ids: NDArray[Any]
    """[N]: int64, or strings."""
    object_ids: NDArray[np.int32] | None = None
    """[N, R]: the class of each region, if the source has it."""
    attribute_ids: NDArray[np.int32] | None = None
    """[N, R]: the attribute of each region, if the source has it."""
    file: FeatureFile | None = None
    """The file that regions are mapped from; None if they were read into memory."""

    def rows(self, image_ids: Sequence[ImageId]) -> NDArray[np.int64]:
        """Return the rows of some images. Raises InputError, naming the first, if some have no features."""
        known = {image_id: row for row, image_id in enumerate(self.image_ids.tolist())}
        try:
            return np.fromiter(map(known.__getitem__, image_ids), np.int64, len(image_ids))
        except KeyError:
            missing = dict.fromkeys(image_id for image_id in image_ids if image_id not in known)
        raise InputError(
            f"{len(missing)} images have no features (ids {first_few(missing)}); add files of features, "
            'or set images_without_features = "skip" in the catalogue'
        )


def write_features(path: Path, *, image_ids: NDArray[Any], **arrays: NDArray[Any]) -> None:
    """Write the features of N images: arrays with names and shapes as in FeatureStore."""

    def fill(file: h5py.File) -> None:
        write_ids(file, image_ids.tolist())
        for name, array in arrays.items():
            file[name] = array

    write_hdf5(path, fill)


def write_ids(file: h5py.File, image_ids: Sequence[ImageId]) -> None:
    """Write the image ids and the format number. Raises InputError if some ids are numbers and some text."""
    numeric = all(isinstance(image_id, int) for image_id in image_ids)
    if not numeric and any(isinstance(image_id, int) for image_id in image_ids):
        raise InputError("image ids must be all whole numbers or all text, not some of each")
    if not numeric:
        check_texts("image id", map(str, image_ids))
    file.attrs["format"] = FORMAT
    file.create_dataset("image_ids", data=list(image_ids), dtype=np.int64 if numeric else h5py.string_dtype())


def check_texts(kind: str, texts: Iterable[str]) -> None:
    """Raise InputError if a text contains a NUL character, which HDF5 cannot store."""
    for text in texts:
        if "\0" in text:
            raise InputError(f"{kind} {text!r} holds a NUL character")


def read_origin(path: Path) -> str | None:
    """Return the hash of everything that a file was made from; None if there is no such file, or no hash."""
    try:
        with h5py.File(path) as file:
            origin = file.attrs.get("origin")
    except OSError:
        return None
    return None if origin is None else str(origin)


def open_features(path: Path) -> FeatureStore:
    """Map a features file into memory. Raises InputError if it is missing, damaged or of another form."""
    try:
        with h5py.File(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"{path}: not a features file of format {FORMAT}; prepare the data again")
            store = read_arrays(file, lambda array: _map(path, array))
            store = replace(store, file=FeatureFile(path, file["regions"].id.get_offset()))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such features file") from None
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path}: not a features file, or a damaged one: {error}") from error
    check_form(path, store)
    return store


def read_arrays(file: h5py.File, open_array: Callable[[h5py.Dataset], Any]) -> FeatureStore:
    """Read ids and counts, and open the large arrays. Raises KeyError if one is missing."""
    ids = _array(file, "image_ids")
    named = {name: open_array(_array(file, name)) for name in ("object_ids", "attribute_ids") if name in file}
    return FeatureStore(
        regions=open_array(_array(file, "regions")),
        boxes=open_array(_array(file, "boxes")),
        counts=_array(file, "counts")[:],
        image_ids=ids.asstr()[:] if h5py.check_string_dtype(ids.dtype) else ids[:],
        **named,
    )


def _array(file: h5py.File, name: str) -> h5py.Dataset:
    array = get_array(file, name)
    if not isinstance(array, h5py.Dataset) or not array.shape:
        raise KeyError(f"{name} is not an array")
    check_stored(array)
    return array


def check_form(path: Path, store: FeatureStore) -> None:
    """Raise InputError unless types and shapes are those of a FeatureStore."""
    if store.regions.dtype not in (np.float16, np.float32) or store.regions.ndim != 3:
        raise InputError(f"{path}: regions must be float16 or float32 [images, R, V], not {_form(store.regions)}")
    images, regions, _ = store.regions.shape
    expected: list[tuple[str, NDArray[Any] | None, type, tuple[int, ...]]] = [
        ("boxes", store.boxes, np.float32, (images, regions, 4)),
        ("counts", store.counts, np.integer, (images,)),
        ("image_ids", store.image_ids, np.generic, (images,)),
        ("object_ids", store.object_ids, np.integer, (images, regions)),
        ("attribute_ids", store.attribute_ids, np.integer, (images, regions)),
    ]
    for name, array, dtype, shape in expected:
        if array is not None and (array.shape != shape or not np.issubdtype(array.dtype, dtype)):
            raise InputError(f"{path}: {name} must be {dtype.__name__} {list(shape)}, not {_form(array)}")
    if images and not 1 <= store.counts.min() <= store.counts.max() <= regions:
        raise InputError(f"{path}: counts must be from 1 to {regions}, the number of regions in the file")


def check_numbers(store: FeatureStore) -> None:
    """Raise InputError unless all features are finite, boxes in [0, 1], and rows zero behind their last region."""
    images, regions, _ = store.regions.shape
    if len(set(store.image_ids.tolist())) < images:
        raise InputError("an image id occurs more than once")
    for start in range(0, images, IMAGES_AT_ONCE):
        few = slice(start, start + IMAGES_AT_ONCE)
        real = np.arange(regions) < store.counts[few, None]
        values, boxes = store.regions[few], store.boxes[few]
        ordered = (boxes[..., :2] <= boxes[..., 2:]).all(2)
        right = np.isfinite(values).all(2) & (boxes >= 0).all(2) & (boxes <= 1).all(2) & ordered
        wrong = ~np.where(real, right, ~(values.any(2) | boxes.any(2))).all(1)
        if wrong.any():
            raise InputError(
                f"image {store.image_ids[few][wrong][0]}: not finite, no boxes in [0, 1], or not zero behind its "
                "last region"
            )


def _form(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _map(path: Path, array: h5py.Dataset) -> NDArray[Any]:
    """Map a contiguous array; the pages are shared by all processes, and read on first access."""
    offset = array.id.get_offset()
    if offset is None:
        name = array.name.strip("/")
        raise ValueError(f"{name} is chunked or compressed, so it cannot be mapped; prepare the data again")
    # Copy on write: PyTorch takes writable arrays only, and nothing is written to the file. A plain view, since the
    # memmap type of numpy costs microseconds at every access.
    return np.memmap(path, array.dtype, "c", offset, array.shape).view(np.ndarray)


BLOCK_ROWS = 4096
LARGEST_LIST = 1 << 24
"""Bytes; 1,600 names take 15,000."""


def read_object_names(path: Path, features: FeatureStore) -> tuple[str, ...]:
    """Read one name per line; of synonyms (`a,b`), the first.

    Raises InputError if the file is missing or has empty lines, or the features have no classes, or more classes.
    """
    require_file(path, "list of names")
    try:
        lines = read_file(path, LARGEST_LIST).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a list of names, one per line: {error}") from error
    names = tuple(line.partition(",")[0].strip() for line in lines)
    if "" in names:
        raise InputError(f"{path}, line {names.index('') + 1}: empty, but line numbers are class numbers")
    if features.object_ids is None:
        raise InputError(f"{path}: names classes, but the region features do not hold the class of each region")
    ids = features.object_ids  # mapped, so they are read a block at a time
    largest = max(int(ids[row : row + BLOCK_ROWS].max()) for row in range(0, len(ids), BLOCK_ROWS))
    if largest >= len(names):
        raise InputError(f"{path}: {len(names)} names, but the region features have a class {largest}")
    return names
