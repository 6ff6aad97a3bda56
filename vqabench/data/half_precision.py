"""Rounding to float16, and what it costs. NumPy's own cast takes longer than all else that a row needs."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float16).max)
_SMALLEST_NORMAL = np.float32(2**-14)
_DROPPED = 13
"""Bits of float32's fraction that float16 has not."""
_BIAS = (127 - 15) << 10
BLOCK = 1 << 15
"""Numbers worked on at a time: they fit into a processor's cache."""


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


def round_to_half(numbers: NDArray[np.float32]) -> tuple[NDArray[np.float16], Rounding]:
    """Round finite numbers, at most `LARGEST` in size, to the nearest float16, ties to even, as NumPy does."""
    half = np.empty(numbers.size, np.float16)
    account = Rounding()
    for start in range(0, numbers.size, BLOCK):
        block = slice(start, start + BLOCK)
        half[block], cost = _round_block(numbers.reshape(-1)[block])
        account = account.add(cost)
    return half.reshape(numbers.shape), account


def _round_block(numbers: NDArray[np.float32]) -> tuple[NDArray[np.float16], Rounding]:
    signed = numbers.view(np.int32).min(initial=0) < 0  # -0 is not less than 0
    sizes = np.abs(numbers) if signed else numbers
    bits = sizes.view(np.uint32)
    rounded = bits >> _DROPPED
    rounded &= 1
    rounded += bits
    rounded += (1 << (_DROPPED - 1)) - 1
    rounded >>= _DROPPED
    half = (np.maximum(rounded, np.uint32(_BIAS)) - np.uint32(_BIAS)).astype(np.uint16)
    rounded <<= _DROPPED
    values = rounded.view(np.float32)
    tiny = np.flatnonzero((sizes < _SMALLEST_NORMAL) & (sizes > 0))
    if tiny.size:
        # Below the normal numbers float16 goes in steps of 2**-24: those of float32 from 0.5 on.
        steps = (sizes.flat[tiny] + np.float32(0.5)) - np.float32(0.5)
        values.flat[tiny] = steps
        half.flat[tiny] = (steps * np.float32(2**24)).astype(np.uint16)
    if signed:
        signs = numbers.view(np.uint32) >> 16
        signs &= 0x8000
        half |= signs.astype(np.uint16)
    return half.view(np.float16), _measure(sizes, values)


def _measure(sizes: NDArray[np.float32], rounded: NDArray[np.float32]) -> Rounding:
    """Compare sizes with what they were rounded to, which is overwritten."""
    np.subtract(rounded, sizes, out=rounded)
    np.abs(rounded, out=rounded)
    # A zero is not changed: divided by whatever is no zero, its error is 0.
    np.divide(rounded, np.maximum(sizes, np.finfo(np.float32).tiny), out=rounded)
    worst = int(rounded.argmax())
    return Rounding(
        values=int(np.count_nonzero(sizes > 0)),
        total=float(rounded.sum(dtype=np.float64)),
        largest=float(rounded.flat[worst]),
        at=float(sizes.flat[worst]),
    )
