from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vqabench.data.half_precision import LARGEST, Rounding, round_to_half

NUMBERS = st.floats(-LARGEST, LARGEST, width=32)


@given(arrays(np.float32, st.integers(0, 9), elements=NUMBERS))
def test_numbers_are_rounded_as_numpy_rounds_them(numbers: NDArray[np.float32]) -> None:
    half, _ = round_to_half(numbers) if numbers.size else (numbers.astype(np.float16), None)
    np.testing.assert_array_equal(half.view(np.uint16), numbers.astype(np.float16).view(np.uint16))


def test_every_float16_its_neighbours_and_what_lies_between_are_rounded_as_numpy_rounds_them() -> None:
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (every[1:] + every[:-1]) / 2
    below, above = (np.nextafter(between, np.float32(side)) for side in (0, LARGEST))
    numbers = np.concatenate([every, between, below, above])
    numbers = np.concatenate([numbers, -numbers])
    half, _ = round_to_half(numbers)
    np.testing.assert_array_equal(half.view(np.uint16), numbers.astype(np.float16).view(np.uint16))


def test_the_error_is_relative_and_zeros_do_not_count() -> None:
    numbers = np.array([[0, 1, 1 + 2**-12], [-3, 2**-30, -0.0]], np.float32)
    _, rounding = round_to_half(numbers)
    assert rounding.values == 4
    assert (rounding.largest, rounding.at) == (1, 2**-30)
    assert rounding.mean == pytest.approx((1 + 2**-12 / (1 + 2**-12)) / 4)


def test_two_accounts_make_one() -> None:
    both = Rounding(2, 0.5, 0.25, 3.0).add(Rounding(1, 0.5, 0.5, 4.0))
    assert both == Rounding(3, 1.0, 0.5, 4.0)
    assert Rounding().mean == 0
