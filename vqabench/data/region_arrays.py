"""Region features in HDF5: our own `features.h5`, and the forms that published VQA code uses.

Published: `image_features` (or `features`) [N, R, V] or [N, V, R]; boxes as `spatial_features` [N, R, 6] (left,
top, right, bottom, width, height as shares of the image) or `image_bb` (or `boxes`) in pixels beside `widths` and
`heights`. Where the number of regions differs, arrays are flat ([total, V]) and `pos_boxes` [N, 2] says where an
image's regions begin and end. Which row is which image stands in `image_ids` or in a map beside the file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotations import ImageId
from vqabench.data.features import FORMAT, check_form, read_arrays
from vqabench.data.image_rows import find_map, read_map
from vqabench.data.packed_files import split_member
from vqabench.data.region_rows import (
    LONGEST_SIDE,
    MOST_REGIONS,
    Regions,
    Row,
    check_count,
    make_native,
    name_image,
    share_boxes,
)
from vqabench.errors import InputError

CHUNK_CACHE = 1 << 25
"""Bytes: compressed arrays come in chunks of several images."""


def read_hdf5(source: Path, wanted: Collection[ImageId]) -> Iterator[Row]:
    """Give the wanted images of an HDF5 file, in its order; the file stays open for as long as a row is kept.

    Raises InputError where it is damaged or of another form.
    """
    name, member = split_member(source)
    try:
        file = h5py.File(name, rdcc_nbytes=CHUNK_CACHE)
        own = file.attrs.get("format") == FORMAT and "regions" in file
        yield from _own_rows(file, source, wanted) if own else _published_rows(file, name, member, wanted)
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{name}: not a features file, or a damaged one: {error}") from error


def _own_rows(file: h5py.File, source: Path, wanted: Collection[ImageId]) -> Iterator[Row]:
    # Read, not mapped: pages of a map count as this process's memory.
    store = read_arrays(file, lambda dataset: dataset)
    check_form(source, store)
    for number, image_id in enumerate(store.image_ids.tolist()):
        if image_id in wanted:
            where = f"{source}, row {number}"
            yield Row(image_id, where, partial(_guard, _take_own, store, number, f"{where}: image {image_id}"))


def _guard(take: Callable[[Any, int, str], Regions], arrays: Any, number: int, what: str) -> Regions:
    try:
        return take(arrays, number, what)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{what}: cannot be read, the file is damaged: {error}") from error


def _take_own(store: Any, number: int, what: str) -> Regions:
    count = store.counts[number]
    ids = [None if array is None else array[number, :count] for array in (store.object_ids, store.attribute_ids)]
    boxes = share_boxes(store.boxes[number, :count], None, what)
    return Regions(store.regions[number, :count], boxes, *ids)


@dataclass(frozen=True)
class _Published:
    """The arrays of a published file; what it lacks is None."""

    features: h5py.Dataset
    boxes: h5py.Dataset
    shares: bool
    """Whether boxes are shares of the image's size, not pixels."""
    spans: NDArray[np.int64] | None
    """[N, 2]: where each image's regions begin and end in flat arrays."""
    counts: NDArray[np.int64] | None
    widths: NDArray[np.int64] | None
    """[N], in pixels."""
    heights: NDArray[np.int64] | None
    """[N], in pixels."""

    @property
    def images(self) -> int:
        """Give N."""
        return len(self.features) if self.spans is None else len(self.spans)


def _published_rows(file: h5py.File, path: Path, member: str, wanted: Collection[ImageId]) -> Iterator[Row]:
    arrays = _find_arrays(file, path)
    rows = _find_ids(file, path, member, arrays.images, wanted)
    for image_id, number in sorted(rows.items(), key=lambda item: item[1]):
        if image_id in wanted:
            where = f"{path}, row {number}"
            yield Row(image_id, where, partial(_guard, _take, arrays, number, f"{where}: image {image_id}"))


def _find_arrays(file: h5py.File, path: Path) -> _Published:
    features, shares = _first(file, "image_features", "features"), _first(file, "spatial_features")
    boxes = shares or _first(file, "image_bb", "boxes")
    if features is None or boxes is None:
        raise InputError(f"{path}: holds {', '.join(file) or 'nothing'}, but no image_features and their boxes")
    spans = _first(file, "pos_boxes")
    widths, heights = _read_column(file, path, "widths", "image_w"), _read_column(file, path, "heights", "image_h")
    if shares is None and (widths is None or heights is None):
        raise InputError(f"{path}: has boxes in pixels, but neither spatial_features nor the images' sizes")
    arrays = _Published(
        features=features,
        boxes=boxes,
        shares=shares is not None,
        spans=None if spans is None else _read_whole(spans, path),
        counts=_read_column(file, path, "num_boxes"),
        widths=widths,
        heights=heights,
    )
    _check_shapes(arrays, path)
    return arrays


def _first(file: h5py.File, *names: str, of_text: bool = False) -> h5py.Dataset | None:
    """Find an array by its first name that is there. Raises InputError where that is none, or not of numbers."""
    name = next((name for name in names if name in file), None)
    if name is None:
        return None
    array = file[name]
    if (
        not isinstance(array, h5py.Dataset)
        or not array.shape
        or array.dtype.kind not in ("iufOS" if of_text else "iuf")
    ):
        raise InputError(f"{file.filename}: {name} is no array of numbers{' or text' if of_text else ''}")
    return array


def _read_column(file: h5py.File, path: Path, *names: str) -> NDArray[np.int64] | None:
    array = _first(file, *names)
    return None if array is None else _read_whole(array, path).reshape(-1)


def _read_whole(array: h5py.Dataset, path: Path) -> NDArray[np.int64]:
    numbers = array[:]
    if not np.isfinite(numbers).all():
        raise InputError(f"{path}: {array.name.strip('/')} holds what is no number")
    whole: NDArray[np.int64] = numbers.astype(np.int64)
    return whole


def _check_shapes(arrays: _Published, path: Path) -> None:
    dimensions = 3 if arrays.spans is None else 2
    shapes = [arrays.features.shape, arrays.boxes.shape]
    if any(len(shape) != dimensions for shape in shapes) or shapes[0][0] != shapes[1][0]:
        raise InputError(f"{path}: features {list(shapes[0])} and boxes {list(shapes[1])} do not belong together")
    if arrays.spans is not None and arrays.spans.shape[1:] != (2,):
        raise InputError(f"{path}: pos_boxes must be [images, 2], not {list(arrays.spans.shape)}")
    for name, array in (("num_boxes", arrays.counts), ("widths", arrays.widths), ("heights", arrays.heights)):
        if array is not None and len(array) != arrays.images:
            raise InputError(f"{path}: {len(array)} {name}, but {arrays.images} images")


def _find_ids(
    file: h5py.File, path: Path, member: str, images: int, wanted: Collection[ImageId]
) -> dict[ImageId, int]:
    inside = None if member else _first(file, "image_ids", "ids", of_text=True)
    if inside is None:
        beside = find_map(path, member)
        if beside is None:
            raise InputError(f"{path}: which row is which image? Put {path.stem}_imgid2idx.json (or pkl) beside it")
        return read_map(beside, images, wanted)
    names = (inside.asstr()[:] if inside.dtype.kind in "OS" else _read_whole(inside, path)).reshape(-1).tolist()
    if len(names) != images:
        raise InputError(f"{path}: {len(names)} image ids, but {images} images")
    rows = {name_image(str(name), wanted): number for number, name in enumerate(names)}
    if len(rows) < images:
        raise InputError(f"{path}: an image has two rows")
    return rows


def _take(arrays: _Published, number: int, what: str) -> Regions:
    features, boxes = _cut(arrays, number, what)
    # Some files have [V, R]: the boxes, which are 4 or 6 wide, tell.
    if boxes.shape[1] not in (4, 6) and boxes.shape[0] in (4, 6):
        boxes = boxes.T
    if features.shape[0] != len(boxes) and features.shape[1] == len(boxes):
        features = features.T
    if features.shape[0] != len(boxes) or boxes.shape[1] < 4:
        raise InputError(f"{what}: features {list(features.shape)} and boxes {list(boxes.shape)} do not fit")
    count = len(boxes) if arrays.counts is None else int(arrays.counts[number])
    check_count(count, min(MOST_REGIONS, len(boxes)), f"{what}: num_boxes")
    size = None
    if not arrays.shares and arrays.widths is not None and arrays.heights is not None:
        width = check_count(int(arrays.widths[number]), LONGEST_SIDE, f"{what}: its width")
        size = width, check_count(int(arrays.heights[number]), LONGEST_SIDE, f"{what}: its height")
    return Regions(make_native(features[:count]), share_boxes(boxes[:count, :4], size, what))


def _cut(arrays: _Published, number: int, what: str) -> tuple[NDArray[Any], NDArray[Any]]:
    if arrays.spans is None:
        return arrays.features[number], arrays.boxes[number]
    begin, end = arrays.spans[number].tolist()
    if not 0 <= begin < end <= min(len(arrays.features), begin + MOST_REGIONS):
        raise InputError(f"{what}: its regions are from {begin} to {end} of {len(arrays.features)}")
    return arrays.features[begin:end], arrays.boxes[begin:end]
