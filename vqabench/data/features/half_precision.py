"""Rounding to float16, and what it costs."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float16).max)


class Rounding(Struct, frozen=True, array_like=True):
    """How far rounding took some numbers from what they were; zeros, which it leaves alone, do not count."""

    values: int = 0
    total: float = 0.0
    """Sum of the relative errors."""
    largest: float = 0.0
    """Largest relative error: 1 where a number became 0."""
    at: float = 0.0
    """The number that it befell."""

    @property
    def mean(self) -> float:
        """Give the mean relative error."""
        return self.total / max(1, self.values)

    def add(self, other: Rounding) -> Rounding:
        """Give the account of both."""
        worse = max(self, other, key=lambda one: one.largest)
        return Rounding(self.values + other.values, self.total + other.total, worse.largest, worse.at)


def round_to_half(regions: NDArray[np.float32]) -> tuple[NDArray[np.float16], Rounding]:
    """Round an image's finite features [n, V], at most `LARGEST` in size; what it cost is measured on one region.

    To measure all of them takes as long as everything else that an image needs.
    """
    half = regions.astype(np.float16)
    return half, _measure(regions[0], half[0])


def _measure(numbers: NDArray[np.float32], rounded: NDArray[np.float16]) -> Rounding:
    counted = numbers != 0
    sizes = np.abs(numbers[counted])
    if not sizes.size:
        return Rounding()
    errors = np.abs(np.abs(rounded[counted].astype(np.float32)) - sizes) / sizes
    worst = int(errors.argmax())
    return Rounding(len(errors), float(errors.sum(dtype=np.float64)), float(errors[worst]), float(sizes[worst]))
