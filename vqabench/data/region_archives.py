"""Region features in one npz file an image, in a folder or a zip.

An npz holds `x` (or `features`) [R, V] or [V, R], `bbox` (or `boxes`) [R, 4] in pixels of an image of `image_w` by
`image_h` (without these: as shares of it), and perhaps `num_bbox`. Its name is that of its image.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotations import ImageId
from vqabench.data.folders import list_files_below
from vqabench.data.packed_files import UNREADABLE, list_members
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

LARGEST_IMAGE = 1 << 28
"""Bytes of one image's npz."""


def list_npz_files(folder: Path) -> list[Path]:
    """List the npz files of a folder, in the order of their names."""
    return [path for path in list_files_below(folder) if path.suffix == ".npz"]


def read_folder(folder: Path, wanted: Collection[ImageId]) -> Iterator[Row]:
    """Give the wanted images of a folder. Raises InputError where it holds no npz at all."""
    files = list_npz_files(folder)
    if not files:
        raise InputError(f"{folder}: a folder without .npz files, so it holds no region features")
    for path in files:
        yield from _row(path.name, str(path), wanted, path.stat().st_size, path.read_bytes)


def holds_images(archive: Path) -> bool:
    """Tell whether a zip holds npz files."""
    try:
        return bool(list_members(archive, [".npz"]))
    except UNREADABLE as error:
        raise InputError(f"{archive}: the file breaks off or is damaged: {error}") from error


def read_archive(path: Path, wanted: Collection[ImageId]) -> Iterator[Row]:
    """Give the wanted images of a zip, which stays open for as long as a row is kept."""
    for member in list_members(path, [".npz"]):
        yield from _row(PurePath(member.name).name, f"{path}::{member.name}", wanted, member.size, member.read)


def _row(name: str, where: str, wanted: Collection[ImageId], size: int, read: Callable[[], bytes]) -> Iterator[Row]:
    image_id = name_image(re.sub(r"(\.jpe?g|\.png)?\.npz$", "", name), wanted)
    if image_id not in wanted and name.removesuffix(".npz") in wanted:
        image_id = name.removesuffix(".npz")
    if image_id in wanted:
        yield Row(image_id, where, partial(_decode, size, read, f"{where}: image {image_id}"))


def _decode(size: int, read: Callable[[], bytes], what: str) -> Regions:
    check_count(size, LARGEST_IMAGE, f"{what}: bytes")
    try:
        # allow_pickle: an array of objects could run any program.
        with np.load(io.BytesIO(read()), allow_pickle=False) as arrays:  # an array alone is no context: a TypeError
            return _parse(arrays, what)
    except InputError:
        raise
    except (*UNREADABLE, ValueError, TypeError, LookupError, ArithmeticError) as error:
        told = "it holds Python objects, or is none at all" if "pickle" in str(error) else error
        raise InputError(f"{what}: no npz of region features, or a damaged one: {told}") from error


def _parse(arrays: Any, what: str) -> Regions:
    features, boxes = _first(arrays, "x", "features"), _first(arrays, "bbox", "boxes")
    if features is None or boxes is None:
        raise InputError(f"{what}: holds {', '.join(arrays) or 'nothing'}, but no x and bbox")
    if boxes.ndim != 2 or boxes.shape[1] != 4 or features.ndim != 2 or boxes.dtype.kind not in "iuf":
        shapes = f"features {list(features.shape)} and boxes {list(boxes.shape)}"
        raise InputError(f"{what}: {shapes} of {boxes.dtype} do not fit")
    if len(features) != len(boxes) and features.shape[1] == len(boxes):
        features = features.T
    count = _number(arrays, "num_bbox", len(boxes))
    check_count(count, min(MOST_REGIONS, len(features), len(boxes)), f"{what}: num_bbox")
    sides = [_number(arrays, name, 0) for name in ("image_w", "image_h")]
    size = None
    if any(sides):
        width = check_count(sides[0], LONGEST_SIDE, f"{what}: image_w")
        size = width, check_count(sides[1], LONGEST_SIDE, f"{what}: image_h")
    return Regions(make_native(features[:count]), share_boxes(boxes[:count].astype(np.float32), size, what))


def _first(arrays: Any, *names: str) -> NDArray[Any] | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _number(arrays: Any, name: str, otherwise: int) -> int:
    return int(arrays[name].reshape(-1)[0]) if name in arrays else otherwise
