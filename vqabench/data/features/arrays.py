"""Read region features from HDF5: our own `features.h5`, and the forms that published VQA code uses.

Published: features [N, R, V] or [N, V, R] and boxes [N, R, 4 to 7], by any of the names in `regions.py`. If the
number of regions differs, arrays are flat ([total, V]) and `pos_boxes` [N, 2] holds where the regions of each image
begin and end. The images are named in `image_ids`, or in a map next to the file, a pickle or JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vqabench.data.features.boxes import LayoutError, share_boxes
from vqabench.data.features.names import Finder, canonical_name
from vqabench.data.features.regions import (
    IDS,
    LARGEST_IMAGE,
    MOST_REGIONS,
    SPANS,
    RegionRow,
    Regions,
    find_name,
    find_names,
    make_regions,
    whole_numbers,
)
from vqabench.data.features.store import FORMAT, FeatureStore, check_form, read_arrays
from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError, first_few
from vqabench.files.atomic import read_file
from vqabench.files.folders import require_file
from vqabench.files.hdf5 import check_stored, get_array
from vqabench.files.packed import split_member
from vqabench.files.plain_pickle import load_plain

LARGEST_MAP = 1 << 28
"""Bytes; the map of all of COCO takes 3 MB."""
CHUNK_CACHE = 1 << 25
"""Bytes: compressed arrays come in chunks of several images."""


def read_hdf5(source: Path, find: Finder) -> Iterator[RegionRow]:
    """Yield the wanted images of an HDF5 file, in its order; the file stays open while a row of it is referenced.

    Raises InputError if it is damaged or of another form.
    """
    path, member = split_member(source)
    take: Callable[[int, str], Regions]
    rows: Iterable[tuple[int, ImageId]]
    try:
        file = h5py.File(path, rdcc_nbytes=CHUNK_CACHE)
        if file.attrs.get("format") == FORMAT and "regions" in file:
            # Read, not mapped: mapped pages count as memory of this process.
            store = read_arrays(file, lambda dataset: dataset)
            check_form(path, store)
            take, rows = partial(_take_own, store), enumerate(store.image_ids.tolist())
        else:
            arrays = _find_arrays(file, path)
            take, rows = partial(_take_published, arrays), _name_rows(file, path, member, arrays.images)
        for number, name in rows:
            image_id = find(name)
            if image_id is not None:
                where = f"{path}, row {number}"
                yield RegionRow(image_id, where, partial(take, number, f"{where}: image {image_id}"))
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path}: not a features file, or a damaged one: {error}") from error


def _take_own(store: FeatureStore, number: int, what: str) -> Regions:
    count = store.counts[number]
    objects, attributes = (
        None if array is None else array[number, :count] for array in (store.object_ids, store.attribute_ids)
    )
    boxes, _ = share_boxes(store.boxes[number, :count], None, what)
    return Regions(store.regions[number, :count], boxes, objects, attributes)


@dataclass(frozen=True)
class _Published:
    """The arrays of a published file; None for those it lacks."""

    features: h5py.Dataset
    boxes: h5py.Dataset | None
    spans: NDArray[np.int64] | None
    """[N, 2]: where each image's regions begin and end in flat arrays."""
    counts: NDArray[np.int64] | None
    sides: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    """Widths and heights in pixels, [N] each."""

    @property
    def images(self) -> int:
        """Return N."""
        return len(self.features) if self.spans is None else len(self.spans)


def _find_arrays(file: h5py.File, path: Path) -> _Published:
    def read(name: str) -> NDArray[np.int64]:
        return _read_whole(_open(file, name), path)

    names = find_names(list(file), str(path))
    arrays = _Published(
        features=_open(file, names.features),
        boxes=_open(file, names.boxes) if names.boxes else None,
        spans=read(SPANS) if SPANS in file else None,
        counts=read(names.counts).reshape(-1) if names.counts else None,
        sides=(read(names.sides[0]).reshape(-1), read(names.sides[1]).reshape(-1)) if names.sides else None,
    )
    _check_shapes(arrays, path)
    return arrays


def _open(file: h5py.File, name: str, of_text: bool = False) -> h5py.Dataset:
    """Open an array. Raises InputError if it has no numbers, is not in this file, or claims more than is stored."""
    array = get_array(file, name)
    if (
        not isinstance(array, h5py.Dataset)
        or not array.shape
        or array.dtype.kind not in ("iufOS" if of_text else "iuf")
    ):
        raise InputError(f"{file.filename}: {name} is not an array of numbers{' or text' if of_text else ''}")
    check_stored(array)
    return array


def _read_whole(array: h5py.Dataset, path: Path) -> NDArray[np.int64]:
    return whole_numbers(array[:], f"{path}: {array.name.strip('/')}")


def _check_shapes(arrays: _Published, path: Path) -> None:
    dimensions = 3 if arrays.spans is None else 2
    shapes = [array.shape for array in (arrays.features, arrays.boxes) if array is not None]
    if any(len(shape) != dimensions or shape[0] != shapes[0][0] for shape in shapes):
        raise InputError(
            f"{path}: features {list(shapes[0])} and boxes {list(shapes[-1])} do not belong together; expected "
            f"{dimensions} dimensions each"
        )
    if arrays.spans is not None and arrays.spans.shape[1:] != (2,):
        raise InputError(f"{path}: pos_boxes must be [images, 2], not {list(arrays.spans.shape)}")
    if np.prod(shapes[0][1:], dtype=float) * arrays.features.dtype.itemsize > LARGEST_IMAGE:
        raise InputError(f"{path}: features {list(shapes[0])}: too many for one image")
    widths, heights = arrays.sides or (None, None)
    columns = {"num_boxes": arrays.counts, "widths": widths, "heights": heights}
    for name, array in columns.items():
        if array is not None and len(array) != arrays.images:
            raise InputError(f"{path}: {len(array)} {name}, but {arrays.images} images")


def _name_rows(file: h5py.File, path: Path, member: str, images: int) -> Iterator[tuple[int, str]]:
    """Yield each row that is an image, and its name."""
    inside = find_name(list(file), IDS, str(path))
    map_file = find_map(path, member)
    rows = None if map_file is None else read_map(map_file, images)
    if inside is None or member:
        if rows is None:
            raise InputError(
                f"{path}: holds {', '.join(file)}, but no image_ids, so it is unclear which row is which image. "
                f"Put {path.stem}_imgid2idx.json (or pkl) next to it"
            )
        yield from sorted((row, name) for name, row in rows.items())
        return
    names = _read_names(_open(file, inside, of_text=True), path)
    if len(names) != images:
        raise InputError(f"{path}: {len(names)} {inside}, but {images} images")
    if rows is not None and any(canonical_name(names[row]) != canonical_name(name) for name, row in rows.items()):
        raise LayoutError(
            f"{path}: its {inside} and {map_file} differ; choose the right map with {path}::FILE, or remove one"
        )
    yield from enumerate(names)


def _read_names(array: h5py.Dataset, path: Path) -> list[str]:
    if array.dtype.kind not in "OS":
        return [str(number) for number in _read_whole(array, path).reshape(-1).tolist()]
    if h5py.check_string_dtype(array.dtype) is None:
        raise InputError(f"{path}: {array.name.strip('/')} holds {array.dtype}, not numbers or text")
    return [str(name) for name in array.asstr(errors="replace")[:].reshape(-1).tolist()]


def _take_published(arrays: _Published, number: int, what: str) -> Regions:
    part: Any = number
    if arrays.spans is not None:
        begin, end = arrays.spans[number].tolist()
        if not 0 <= begin < end <= min(len(arrays.features), begin + MOST_REGIONS):
            raise InputError(f"{what}: its regions are from {begin} to {end} of {len(arrays.features)}")
        part = slice(begin, end)
    return make_regions(
        arrays.features[part],
        None if arrays.boxes is None else arrays.boxes[part],
        None if arrays.sides is None else (int(arrays.sides[0][number]), int(arrays.sides[1][number])),
        None if arrays.counts is None else int(arrays.counts[number]),
        what,
    )


def find_map(source: Path, member: str) -> Path | None:
    """Return the map of image ids next to a file: `member` if it is given, else a file of one of the usual names.

    Raises InputError if it is missing, or there are several that differ.
    """
    if member:
        require_file(source.parent / member, "map of image ids")
        return source.parent / member
    for stem in (f"{source.stem}_", ""):
        paths = [source.parent / f"{stem}imgid2idx{suffix}" for suffix in (".json", ".pkl")]
        there = [path for path in paths if path.exists()]
        for path in there:
            require_file(path, "map of image ids")
        if len(there) > 1:
            first, second = (  # with text as keys, as in JSON
                {str(key): row for key, row in found.items()} if isinstance(found, dict) else found
                for found in map(_load_map, there)
            )
            if first != second:
                names = f"{there[0].name} and {there[1].name}"
                raise InputError(f"{source}: {names} differ; choose one with {source}::{there[0].name}")
        if there:
            return there[0]
    return None


def read_map(path: Path, rows: int) -> dict[str, int]:
    """Read the row of each image name, below `rows`. Raises InputError if the file is not such a map."""
    found = _load_map(path)
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


def _load_map(path: Path) -> Any:
    try:
        content = read_file(path, LARGEST_MAP)
        return json.loads(content) if path.suffix == ".json" else load_plain(content)
    except InputError:
        raise
    except Exception as error:  # a broken pickle may raise anything
        raise InputError(f"{path}: not a valid map of image ids: {error}") from error
