"""Rows of region features, as every reader yields them, the checks they all pass, and rounding to float16."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from vqabench.data.features.boxes import COLUMNS, fits, share_boxes
from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError

Array = NDArray[Any]
LARGEST_HALF = float(np.finfo(np.float16).max)
LARGEST_IMAGE = 1 << 28
"""Bytes of the features of one image."""
MOST_REGIONS = 10_000
LONGEST_SIDE = 1_000_000


class Rounding(Struct, frozen=True, array_like=True):
    """The errors of rounding some numbers; zeros, which stay as they are, do not count."""

    values: int = 0
    total: float = 0.0
    """Sum of the relative errors."""
    largest: float = 0.0
    """Largest relative error; 1 if a number became 0."""
    at: float = 0.0
    """The number with the largest error."""

    @property
    def mean(self) -> float:
        """Return the mean relative error."""
        return self.total / max(1, self.values)

    def add(self, other: Rounding) -> Rounding:
        """Return the errors of both."""
        worse = max(self, other, key=lambda one: one.largest)
        return Rounding(self.values + other.values, self.total + other.total, worse.largest, worse.at)


@dataclass(frozen=True)
class Regions:
    """The n regions of one image."""

    regions: NDArray[np.floating[Any]]
    """[n, V], float16 or float32; not checked to be finite"""
    boxes: NDArray[np.float32] | None
    """[n, 4] in [0, 1]: left, top, right, bottom; None if the source has none"""
    object_ids: NDArray[np.int32] | None = None
    """[n]"""
    attribute_ids: NDArray[np.int32] | None = None
    """[n]"""
    pixels: bool = False
    """Whether the boxes were in pixels in the source."""
    rounding: Rounding = field(default_factory=Rounding)
    """Errors of the features, if they were rounded to float16."""


@dataclass(frozen=True)
class RegionRow:
    """One image of a source, not decoded yet. `decode` raises some exception if the row is broken."""

    image_id: ImageId
    where: str
    decode: Callable[[], Regions]


def refuse(message: str) -> NoReturn:
    """Raise an InputError: the `decode` of a row that is known to be broken."""
    raise InputError(message)


def check_count(found: int, most: int, what: str) -> int:
    """Return a count or a size. Raises InputError unless it is from 1 to `most`."""
    if not 1 <= found <= most:
        raise InputError(f"{what}: {found} is not from 1 to {most:,}")
    return found


def make_native(numbers: Array) -> Array:
    """Return numbers contiguous and in native byte order; float64, the default of numpy, as float32."""
    dtype = np.dtype(np.float32) if numbers.dtype.kind == "f" and numbers.dtype.itemsize == 8 else numbers.dtype
    with np.errstate(over="ignore"):  # becomes infinite, which is reported later
        return np.ascontiguousarray(numbers, dtype.newbyteorder("="))


def whole_numbers(numbers: Array, what: str) -> NDArray[np.int64]:
    """Return numbers as int64. Raises InputError if one is not whole, or may have been rounded or cut off."""
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
    """Make the regions of one image from its arrays, which may be transposed.

    Features are [R, V] or [V, R]; boxes [R, 4 to 7] or [4 to 7, R], in pixels of an image of width and height
    `size`, or as shares; the first `count` regions are real. Raises InputError if they do not fit.
    """
    for side, name in zip(size or (), ("width", "height"), strict=False):
        check_count(side, LONGEST_SIDE, f"{what}: its {name}")
    features = features[0] if features.ndim == 3 and len(features) == 1 else features
    boxes = boxes[0] if boxes is not None and boxes.ndim == 3 and len(boxes) == 1 else boxes
    if boxes is not None:
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
        features = features if len(features) == len(boxes) else features.T
    elif features.ndim != 2:
        raise InputError(f"{what}: features {list(features.shape)}, not [regions, width], and without boxes")
    count = len(features) if count is None else check_count(count, len(features), f"{what}: num_boxes")
    check_count(count, MOST_REGIONS, f"{what}: regions")
    shares, pixels = (None, False) if boxes is None else share_boxes(boxes[:count], size, what)
    return Regions(make_native(features[:count]), shares, pixels=pixels)


FEATURES = ("features", "image_features", "image_feature", "feature", "x", "pooled_feat", "feat")
SHARES = ("spatial_features", "spatial_feature", "spatials", "norm_boxes", "norm_bbox", "norm_rois")
BOXES = ("boxes", "bbox", "bboxes", "image_bb", "image_bboxes", "rois")
WIDTHS = ("image_w", "widths", "width", "image_width", "img_w")
HEIGHTS = ("image_h", "heights", "height", "image_height", "img_h")
COUNTS = ("num_boxes", "num_bbox", "nb_regions")
IDS = ("image_ids", "image_id", "ids", "img_ids", "img_id")
SPANS = "pos_boxes"


def find_name(names: Collection[str], choices: tuple[str, ...], where: str) -> str | None:
    """Return the only one of `choices` among the names, or None. Raises InputError if there are several."""
    there = [name for name in choices if name in names]
    if len(there) > 1:
        raise InputError(f"{where}: holds {' and '.join(there)}, which mean the same; remove one of them")
    return there[0] if there else None


class FoundNames(NamedTuple):
    """The names of the arrays of a source; None for those it lacks."""

    features: str
    boxes: str | None
    """Those of shares of the image if there are any, else of any unit."""
    counts: str | None
    sides: tuple[str, str] | None
    """Width and height."""


def find_names(names: Collection[str], where: str) -> FoundNames:
    """Find the arrays. Raises InputError if there are no features, or only one of width and height."""
    features = find_name(names, FEATURES, where)
    if features is None:
        raise InputError(f"{where}: holds {', '.join(names) or 'nothing'}, but no features ({', '.join(FEATURES)})")
    boxes = find_name(names, SHARES, where) or find_name(names, BOXES, where)
    width, height = find_name(names, WIDTHS, where), find_name(names, HEIGHTS, where)
    if (width is None) != (height is None):
        raise InputError(f"{where}: holds {width or height}, but not the other of width and height")
    sides = None if width is None or height is None else (width, height)
    return FoundNames(features, boxes, find_name(names, COUNTS, where), sides)


def parse_record(record: Mapping[str, Any] | Array, what: str) -> Regions:
    """Make regions from the content of a file about one image: named arrays, or features alone."""
    if not isinstance(record, Mapping):
        return make_regions(as_array(record, f"{what}: features"), None, None, None, what)
    names = find_names([name for name in record if isinstance(name, str)], what)
    return make_regions(
        as_array(record[names.features], f"{what}: {names.features}"),
        as_array(record[names.boxes], f"{what}: {names.boxes}") if names.boxes else None,
        (_whole(record, names.sides[0], what), _whole(record, names.sides[1], what)) if names.sides else None,
        _whole(record, names.counts, what) if names.counts else None,
        what,
    )


def _whole(record: Mapping[str, Any], name: str, what: str) -> int:
    array = whole_numbers(as_array(record[name], f"{what}: {name}"), f"{what}: {name}").reshape(-1)
    if len(array) != 1:
        raise InputError(f"{what}: {name} holds {len(array)} numbers, not one")
    return int(array[0])


def as_array(value: Any, what: str) -> Array:
    """Return a tensor, an array, a number or a list of lists of numbers as an array."""
    if hasattr(value, "detach"):  # a tensor, of which several elements may be one number in memory
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"{what}: a tensor of {list(value.shape)} with too few values")
        value = value.detach().float().numpy() if value.is_floating_point() else value.detach().numpy()
    elif isinstance(value, list | tuple):
        rows = [value] if not value or not isinstance(value[0], list | tuple) else value
        if any(len(row) != len(rows[0]) or not all(type(one) in (int, float) for one in row) for row in rows):
            raise InputError(f"{what}: a list that is not a table of numbers")
        value = np.array(value, np.float64)
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{what}: holds {array.dtype}, not numbers")
    return array


def round_to_half(regions: NDArray[np.float32]) -> tuple[NDArray[np.float16], Rounding]:
    """Round the finite features of an image [n, V], at most `LARGEST_HALF` in size.

    The rounding error is measured on the first region: measuring all takes as long as the rest of the conversion.
    """
    half = regions.astype(np.float16)
    counted = regions[0] != 0
    sizes = np.abs(regions[0, counted])
    if not sizes.size:
        return half, Rounding()
    errors = np.abs(np.abs(half[0, counted].astype(np.float32)) - sizes) / sizes
    worst = int(errors.argmax())
    total = float(errors.sum(dtype=np.float64))
    return half, Rounding(len(errors), total, float(errors[worst]), float(sizes[worst]))
