"""What every source of region features gives: rows, each about one image, and the checks that all of them pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotations import ImageId
from vqabench.errors import InputError

Array = NDArray[Any]
MOST_REGIONS = 10_000
LONGEST_SIDE = 1_000_000
PIXELS_OUTSIDE = 1.0
"""Detectors put a border up to a pixel outside the image, or before its opposite: such boxes are cut to it."""
SHARE_OUTSIDE = 0.01
"""The same for boxes that come as shares of an image whose size is not known."""


@dataclass(frozen=True)
class Regions:
    """The n regions of one image."""

    regions: NDArray[np.floating[Any]]
    """[n, V], float16 or float32; not yet known to be finite"""
    boxes: NDArray[np.float32]
    """[n, 4] in [0, 1]: left, top, right, bottom"""
    object_ids: NDArray[np.int32] | None = None
    """[n]"""
    attribute_ids: NDArray[np.int32] | None = None
    """[n]"""


@dataclass(frozen=True)
class Row:
    """One image of a source, not decoded yet: `decode` raises InputError where the row is broken."""

    image_id: ImageId
    where: str
    decode: Callable[[], Regions]


def name_image(name: str, wanted: Collection[ImageId]) -> ImageId:
    """Give the name if it is wanted as it is, else the number that it is, or that ends one of COCO's."""
    match = re.fullmatch(r"(?:COCO_\w+?_)?([0-9]{1,18})", name)
    return int(match[1]) if match and name not in wanted else name


def refuse(message: str) -> NoReturn:
    """Raise the InputError of a row that is known to be broken before it is decoded."""
    raise InputError(message)


def check_count(found: int, most: int, what: str) -> int:
    """Give a count or a size back. Raises InputError unless it is from 1 to `most`."""
    if not 1 <= found <= most:
        raise InputError(f"{what}: {found} is not from 1 to {most:,}")
    return found


def make_native(numbers: Array) -> Array:
    """Give numbers in one piece and in this machine's order of bytes; float64, numpy's own choice, as float32."""
    dtype = np.dtype(np.float32) if numbers.dtype.kind == "f" and numbers.dtype.itemsize == 8 else numbers.dtype
    with np.errstate(over="ignore"):  # infinite, which is told
        return np.ascontiguousarray(numbers, dtype.newbyteorder("="))


def share_boxes(boxes: Array, size: tuple[int, int] | None, what: str) -> NDArray[np.float32]:
    """Turn boxes in pixels [n, 4] of an image of a width and height into shares; without a size they are such.

    Raises InputError where one is not finite, lies outside the image or ends before it begins.
    """
    if not np.isfinite(boxes).all():
        raise InputError(f"{what}: has boxes that are not finite")
    width, height = size or (1, 1)
    slack = PIXELS_OUTSIDE if size else SHARE_OUTSIDE
    limits = np.array([width, height, width, height], np.float32)
    outside = np.any((boxes < -slack) | (boxes > limits + slack), axis=1)
    if outside.any():
        place = f"the image of {width} x {height}" if size else "[0, 1]"
        raise InputError(f"{what}: box {_spell(boxes, outside)} is outside {place}")
    turned = np.any(boxes[:, 2:] < boxes[:, :2] - slack, axis=1)
    if turned.any():
        raise InputError(f"{what}: box {_spell(boxes, turned)} has a negative size")
    shares = np.clip(boxes / limits, 0, 1).astype(np.float32)
    shares[:, 2:] = np.maximum(shares[:, 2:], shares[:, :2])
    return shares


def _spell(boxes: Array, chosen: Array) -> str:
    number = int(np.flatnonzero(chosen)[0])
    return f"{number} ({', '.join(f'{side:g}' for side in boxes[number].tolist())})"
