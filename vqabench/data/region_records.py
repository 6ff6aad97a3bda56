"""The names that published region features use for their arrays, and one image as a record of such names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from vqabench.data.region_rows import LONGEST_SIDE, Array, Regions, check_count, make_regions, whole_numbers
from vqabench.errors import InputError

FEATURES = ("features", "image_features", "image_feature", "feature", "x", "pooled_feat", "feat")
SHARES = ("spatial_features", "spatial_feature", "spatials", "norm_boxes", "norm_bbox", "norm_rois")
BOXES = ("boxes", "bbox", "bboxes", "image_bb", "image_bboxes", "rois")
WIDTHS = ("image_w", "widths", "width", "image_width", "img_w")
HEIGHTS = ("image_h", "heights", "height", "image_height", "img_h")
COUNTS = ("num_boxes", "num_bbox", "nb_regions")
IDS = ("image_ids", "image_id", "ids", "img_ids", "img_id")
SPANS = ("pos_boxes",)


def find_name(names: Collection[str], choices: tuple[str, ...], where: str) -> str | None:
    """Return the only one of some names that is there, or None. Raises InputError where several are."""
    there = [name for name in choices if name in names]
    if len(there) > 1:
        raise InputError(f"{where}: holds {' and '.join(there)}, which mean the same; remove one of them")
    return there[0] if there else None


def find_boxes(names: Collection[str], where: str) -> str | None:
    """Return the name of the boxes: as shares where they are there, else of whatever unit."""
    return find_name(names, SHARES, where) or find_name(names, BOXES, where)


def find_sides(names: Collection[str], where: str) -> tuple[str, str] | None:
    """Return the names of width and height. Raises InputError where one of them is missing."""
    width, height = find_name(names, WIDTHS, where), find_name(names, HEIGHTS, where)
    if (width is None) != (height is None):
        raise InputError(f"{where}: holds {width or height}, but not the other of width and height")
    return None if width is None or height is None else (width, height)


def parse_record(record: Mapping[str, Any] | Array, what: str) -> Regions:
    """Make regions of what a file holds of one image: named arrays, or its features alone."""
    if not isinstance(record, Mapping):
        return make_regions(as_array(record, f"{what}: features"), None, None, None, what)
    names = [name for name in record if isinstance(name, str)]
    features, boxes, sides = find_name(names, FEATURES, what), find_boxes(names, what), find_sides(names, what)
    if features is None:
        raise InputError(f"{what}: holds {', '.join(names) or 'nothing'}, but no features ({', '.join(FEATURES)})")
    counts = find_name(names, COUNTS, what)
    size = None
    if sides is not None:
        width, height = (check_count(_whole(record, side, what), LONGEST_SIDE, f"{what}: {side}") for side in sides)
        size = width, height
    return make_regions(
        as_array(record[features], f"{what}: {features}"),
        None if boxes is None else as_array(record[boxes], f"{what}: {boxes}"),
        size,
        None if counts is None else _whole(record, counts, what),
        what,
    )


def _whole(record: Mapping[str, Any], name: str, what: str) -> int:
    array = whole_numbers(as_array(record[name], f"{what}: {name}"), f"{what}: {name}").reshape(-1)
    if len(array) != 1:
        raise InputError(f"{what}: {name} holds {len(array)} numbers, not one")
    return int(array[0])


def as_array(value: Any, what: str) -> Array:
    """Return an array of numbers of a tensor, an array, a number, or a list of lists of them."""
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
