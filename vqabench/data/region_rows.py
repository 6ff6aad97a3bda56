"""What every source of region features gives: rows, each about one image, and the checks that all of them pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotations import ImageId
from vqabench.data.region_boxes import COLUMNS, fits, share_boxes
from vqabench.errors import InputError

Array = NDArray[Any]
MOST_REGIONS = 10_000
LONGEST_SIDE = 1_000_000


@dataclass(frozen=True)
class Regions:
    """The n regions of one image."""

    regions: NDArray[np.floating[Any]]
    """[n, V], float16 or float32; not yet known to be finite"""
    boxes: NDArray[np.float32] | None
    """[n, 4] in [0, 1]: left, top, right, bottom; None where the source has none"""
    object_ids: NDArray[np.int32] | None = None
    """[n]"""
    attribute_ids: NDArray[np.int32] | None = None
    """[n]"""
    pixels: bool = False
    """Whether the source gave the boxes in pixels."""


@dataclass(frozen=True)
class Row:
    """One image of a source, not decoded yet: `decode` raises InputError where the row is broken."""

    image_id: ImageId
    where: str
    decode: Callable[[], Regions]


def refuse(message: str) -> NoReturn:
    """Raise the InputError of a row that is known to be broken before it is decoded."""
    raise InputError(message)


def check_count(found: int, most: int, what: str) -> int:
    """Return a count or a size. Raises InputError unless it is from 1 to `most`."""
    if not 1 <= found <= most:
        raise InputError(f"{what}: {found} is not from 1 to {most:,}")
    return found


def make_native(numbers: Array) -> Array:
    """Return numbers in one piece and in this machine's order of bytes; float64, numpy's own choice, as float32."""
    dtype = np.dtype(np.float32) if numbers.dtype.kind == "f" and numbers.dtype.itemsize == 8 else numbers.dtype
    with np.errstate(over="ignore"):  # infinite, which is told
        return np.ascontiguousarray(numbers, dtype.newbyteorder("="))


def whole_numbers(numbers: Array, what: str) -> NDArray[np.int64]:
    """Return numbers as int64. Raises InputError where one is not whole, or may have been rounded or cut off."""
    kind, size = numbers.dtype.kind, numbers.dtype.itemsize
    if kind not in "iuf":
        raise InputError(f"{what} holds {numbers.dtype}, not numbers")
    if kind == "f":
        if not np.isfinite(numbers).all():
            raise InputError(f"{what} holds values that are not numbers")
        exact = {2: 2**11, 4: 2**24}.get(size, 2**53)
        if np.any(np.abs(numbers) >= exact):
            raise InputError(
                f"{what} holds float{8 * size} numbers of {exact:,} or more, which are rounded; write int64"
            )
        if np.any(numbers != np.floor(numbers)):
            raise InputError(f"{what} holds {numbers[numbers != np.floor(numbers)][0]:g}, not whole numbers")
    elif kind == "u" and np.any(numbers > np.uint64(2**63 - 1)):
        raise InputError(f"{what} holds a number beyond int64")
    whole: NDArray[np.int64] = numbers.astype(np.int64)
    return whole


def make_regions(
    features: Array, boxes: Array | None, size: tuple[int, int] | None, count: int | None, what: str
) -> Regions:
    """Make the regions of one image of its arrays, which may stand in either order of rows and columns.

    Features are [R, V] or [V, R]; boxes [R, 4 to 7] or [4 to 7, R], in pixels of an image of width and height
    `size`, or as shares; the first `count` regions are real. Raises InputError where they do not fit.
    """
    features = features[0] if features.ndim == 3 and len(features) == 1 else features
    boxes = boxes[0] if boxes is not None and boxes.ndim == 3 and len(boxes) == 1 else boxes
    if boxes is None:
        return _without_boxes(features, count, what)
    shapes = f"features {list(features.shape)} and boxes {list(boxes.shape)} of {boxes.dtype}"
    if boxes.ndim != 2 or features.ndim != 2 or boxes.dtype.kind not in "iuf":
        raise InputError(f"{what}: {shapes} do not fit")
    orders = [one for one in (boxes, boxes.T) if one.shape[1] in COLUMNS and len(one) in features.shape]
    if len(orders) == 2 and features.shape[0] != features.shape[1]:  # as many regions as a box has columns
        sound = [one for one in orders if fits(one, size)]
        orders = sound if len(sound) == 1 else [boxes if len(features) == len(boxes) else boxes.T]
    if not orders:
        raise InputError(f"{what}: {shapes} do not fit")
    boxes = orders[0]
    if len(features) != len(boxes):
        features = features.T
    count = len(boxes) if count is None else check_count(count, min(MOST_REGIONS, len(boxes)), f"{what}: num_boxes")
    check_count(count, MOST_REGIONS, f"{what}: regions")
    shares, pixels = share_boxes(boxes[:count], size, what)
    return Regions(make_native(features[:count]), shares, pixels=pixels)


def _without_boxes(features: Array, count: int | None, what: str) -> Regions:
    if features.ndim != 2:
        raise InputError(f"{what}: features {list(features.shape)}, not [regions, width], and without boxes")
    count = len(features) if count is None else check_count(count, len(features), f"{what}: num_boxes")
    check_count(count, MOST_REGIONS, f"{what}: regions")
    return Regions(make_native(features[:count]), None)
