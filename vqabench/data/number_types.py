"""Whether bytes are the 32-bit numbers that they are read as, or look like numbers of another width."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.region_boxes import LayoutError

SAMPLED = 4096
"""Bytes at most are looked at."""
WIDE = 6.0
"""Standard deviation of the binary exponents. Features have 1.4 to 4; read with another width, 8 and more."""
NARROWER = 0.5
"""Another width is the right one where it makes the exponents lie so much closer together."""
FEWEST = {"float64": 6, "float16": 12}
"""Numbers other than 0 that another width must be told from."""


@np.errstate(invalid="ignore")  # of bytes that are no numbers
def check_float32(content: bytes, count: int, what: str) -> None:
    """Raise LayoutError where the features of `count` regions look like float16 or float64, not float32."""
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
