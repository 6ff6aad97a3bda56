"""What the objects of an image look like, where a data set is made here and its features tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data import digits
from vqabench.data.dataset import Dataset


@dataclass(frozen=True)
class Picture:
    """A small picture."""

    width: int
    height: int
    rgb: bytes
    """Red, green and blue of each pixel, row by row from the top."""


_PAINTERS: Mapping[str, Callable[[NDArray[np.floating[Any]]], NDArray[np.uint8]]] = {"digits": digits.object_pixels}
"""Generator -> from region features [N, V] to pixels [N, height, width, 3]."""


def picture_regions(dataset: Dataset, regions: NDArray[np.floating[Any]]) -> list[Picture] | None:
    """Draw the regions of an image, given by their features [N, V]; None where it is not known what they show."""
    paint = _PAINTERS.get(dataset.entry.generator or "")
    if paint is None:
        return None
    return [Picture(pixels.shape[1], pixels.shape[0], pixels.tobytes()) for pixels in paint(regions)]
