"""Detect the unit and order of box coordinates, and the number type of packed features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.errors import InputError

Array = NDArray[Any]
Size = tuple[int, int]
"""Width and height in pixels."""
LARGEST_SHARE = 2.0
"""Boxes in pixels cannot all end within two pixels of the corner, so such numbers are shares."""
SMALLEST_IMAGE = 8
"""Pixels: in a smaller image, pixels and shares look alike."""
PIXELS_OUTSIDE = 1.0
"""Detectors place borders up to a pixel outside the image, or before the opposite border: these are clipped."""
SHARE_OUTSIDE = 0.01
"""The same for shares."""
COLUMNS = range(4, 8)
"""Left, top, right, bottom; optionally the area, width and height, or all three."""
EXTRA_TOLERANCE = 0.02
"""Share of the image's side: columns may have been rounded to float16."""
FEW_BOXES = 8
NARROW = 0.5
"""Share of the image: there is an object in the right or lower half of some image."""


class LayoutError(InputError):
    """The layout of the whole file is wrong: leaving rows out does not help."""


def share_boxes(boxes: Array, size: Size | None, what: str) -> tuple[NDArray[np.float32], bool]:
    """Turn boxes [n, 4 to 7] into shares of the image, float32 [n, 4]; return whether they were in pixels.

    Raises LayoutError if the unit or the order is wrong or ambiguous; InputError if a box is not finite, lies
    outside the image or ends before it begins.
    """
    numbers = np.asarray(boxes, np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"{what}: has boxes that are not finite")
    corners = numbers[:, :4]
    unit = _choose_unit(corners, size, what)
    problem = _find_problem(corners, unit)
    if problem:
        likely = _list_likely_orders(corners, unit)
        raise LayoutError(f"{what}: {problem}; {likely}") if likely else InputError(f"{what}: {problem}")
    _check_extra_columns(numbers, unit, what)
    shares = np.clip(corners / _limits(unit), 0, 1).astype(np.float32)
    shares[:, 2:] = np.maximum(shares[:, 2:], shares[:, :2])
    return shares, unit is not None


def fits(boxes: Array, size: Size | None) -> bool:
    """Return whether boxes [n, 4 to 7] can be corners in an image of that size, or shares if it is unknown."""
    numbers = np.asarray(boxes, np.float64)[:, :4]
    if not np.isfinite(numbers).all():
        return False
    return not _find_problem(numbers, None if size is None or numbers.max(initial=0) <= LARGEST_SHARE else size)


def _choose_unit(corners: Array, size: Size | None, what: str) -> Size | None:
    """Return the image size if boxes are in pixels; None for shares."""
    largest = corners.max(initial=0)
    if largest > LARGEST_SHARE and size is None:
        raise LayoutError(
            f"{what}: {_format_box(corners, corners.max(1))} is outside [0, 1]: boxes in pixels need the "
            "image's width and height in the same file (image_w and image_h)"
        )
    if largest > LARGEST_SHARE:
        return size
    if size is not None and size != (1, 1) and max(size) <= SMALLEST_IMAGE and largest > 0:
        raise LayoutError(
            f"{what}: boxes up to {largest:g} in an image of {size[0]} x {size[1]} may be pixels or fractions; "
            "write fractions of the image, and leave out its size"
        )
    return None


def _limits(unit: Size | None) -> Array:
    return np.array((unit or (1, 1)) * 2, np.float64)


def _find_problem(corners: Array, unit: Size | None) -> str:
    """Return what is wrong with the first box that cannot be corners; empty if all can."""
    slack = SHARE_OUTSIDE if unit is None else PIXELS_OUTSIDE
    outside = np.any((corners < -slack) | (corners > _limits(unit) + slack), axis=1)
    if outside.any():
        place = "[0, 1]" if unit is None else f"the image of {unit[0]} x {unit[1]}"
        return f"{_format_box(corners, outside)} is outside {place}"
    turned = np.any(corners[:, 2:] < corners[:, :2] - slack, axis=1)
    return f"{_format_box(corners, turned)} has a negative size" if turned.any() else ""


ORDERS: dict[str, Callable[[Array], Array]] = {
    "left, top, width, height (right = left + width, bottom = top + height)": lambda boxes: np.hstack(
        [boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]
    ),
    "centre x, centre y, width, height (left = x - width / 2, ...)": lambda boxes: np.hstack(
        [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2]
    ),
    "left, right, top, bottom": lambda boxes: boxes[:, [0, 2, 1, 3]],
}
"""Other orders in use, with the conversion to corners."""


def _list_likely_orders(corners: Array, unit: Size | None) -> str:
    """Return which other orders or sizes would explain boxes that are not corners; empty if none would."""
    positive = bool((corners[:, 2:] >= 0).all())
    likely = [name for name, turn in ORDERS.items() if positive and not _find_problem(turn(corners), unit)]
    message = []
    if likely:
        message.append(f"they look like {' or '.join(likely)}; write left, top, right, bottom")
    if unit is not None and unit[0] != unit[1] and not _find_problem(corners, unit[::-1]):
        message.append(
            f"they fit an image of {unit[1]} x {unit[0]}: width and height are swapped, or boxes are top, left, "
            "bottom, right"
        )
    return "; or ".join(message)


def _check_extra_columns(numbers: Array, unit: Size | None, what: str) -> None:
    """Raise LayoutError if columns 5 and 6, if there are any, are not the width and height of the box."""
    if numbers.shape[1] < 6:
        return
    limits = _limits(unit)
    sides, extra = (numbers[:, 2:4] - numbers[:, :2]) / limits[:2], numbers[:, 4:6]
    if all(np.abs(sides - extra / scale).max(initial=0) > EXTRA_TOLERANCE for scale in (limits[:2], 1)):
        raise LayoutError(
            f"{what}: the last two box columns are not the width and height of the box in columns 1 to 4, read as "
            "left, top, right, bottom; if those four are right, write only them"
        )


def _format_box(boxes: Array, chosen: Array) -> str:
    """Format the first box that is chosen, or the one of the largest number."""
    number = int(np.argmax(chosen))
    return f"box {number} ({', '.join(f'{side:g}' for side in boxes[number].tolist())})"


class Extent:
    """The extent of all boxes in pixels of a source."""

    def __init__(self) -> None:
        self.boxes = 0
        self.reach = np.zeros(2)
        """Share of the width and of the height."""
        self.moved = 0
        """Boxes that do not begin in the corner."""
        self.alike = True
        """Whether all of these could also be left, top, width, height."""

    def add(self, shares: NDArray[np.float32]) -> None:
        """Count the boxes of an image, which came in pixels."""
        self.boxes += len(shares)
        self.reach = np.maximum(self.reach, shares[:, 2:].max(0, initial=0))
        moved = shares[:, :2].any(1)
        self.moved += int(moved.sum())
        if self.alike:
            self.alike = bool((shares[moved, :2] + shares[moved, 2:] <= 1 + SHARE_OUTSIDE).all())

    def check(self, what: str) -> None:
        """Raise LayoutError if the pixels are those of an image of another size."""
        if self.boxes >= FEW_BOXES and (self.reach < NARROW).all():
            across, down = (f"{100 * share:.0f} %" for share in self.reach.tolist())
            raise LayoutError(
                f"{what}: all {self.boxes:,} boxes lie in the upper left {across} x {down} of their images: are "
                "they pixels of a resized image, or per cent? Write fractions from 0 to 1, without image sizes"
            )


SAMPLED = 4096
"""Bytes of a row that are checked at most."""
WIDE = 6.0
"""Standard deviation of the binary exponents. Features have 1.4 to 4; read with another width, 8 and more."""
NARROWER = 0.5
"""Another type is assumed if it reduces the spread of the exponents to this share."""
FEWEST = {"float64": 6, "float16": 12}
"""Nonzero numbers that are needed to assume another type."""


@np.errstate(invalid="ignore")  # bytes read as another type may be NaN
def check_float32(content: bytes, count: int, what: str) -> None:
    """Raise LayoutError if the features of `count` regions look like float16 or float64, not float32."""
    sample = content[: SAMPLED if len(content) > SAMPLED else len(content) // 8 * 8]
    numbers = np.frombuffer(sample[: len(sample) // 4 * 4], "<f4")
    own = _spread(numbers)
    pairs = numbers[: len(numbers) // 2 * 2].reshape(-1, 2)
    halved = np.count_nonzero(pairs) >= 4 and not pairs[:, 0].any()  # doubles of few digits
    for name, dtype in (("float64", "<f8"), ("float16", "<f2")):
        width, rest = divmod(len(content), np.dtype(dtype).itemsize * count)
        if rest or not width:
            continue
        other = np.frombuffer(sample[: len(sample) // 8 * 8], dtype)
        if name == "float16" and other.any() and not other[::2].any():  # 32-bit numbers of few digits
            continue
        if np.count_nonzero(other) < FEWEST[name]:
            continue
        spread = _spread(other)
        better = spread <= WIDE and spread < NARROWER * own
        if better or (name == "float64" and halved and spread <= WIDE):
            raise LayoutError(
                f"{what}: features look like {name}, {width} per region, but a TSV must hold float32; write them "
                'again with array.astype("float32")'
            )


def _spread(numbers: NDArray[np.floating[Any]]) -> float:
    """Return the standard deviation of the binary exponents of the numbers that are not 0.

    It is infinite if a number is no feature; pairs of 32-bit NaNs or infinities are float64 numbers above 1e300.
    """
    sizes = np.abs(numbers[numbers != 0].astype(np.float64))
    if not np.isfinite(sizes).all() or np.any((sizes < 1e-37) | (sizes > 1e37)):
        return float("inf")
    return float(np.frexp(sizes)[1].std()) if sizes.size else 0.0
