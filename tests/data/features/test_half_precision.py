from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqabench.data.features.regions import LARGEST_HALF, Rounding, round_to_half

NUMBERS = st.lists(st.floats(-LARGEST_HALF, LARGEST_HALF, width=32), min_size=1, max_size=30)


@given(NUMBERS)
def test_the_cost_of_rounding_is_the_relative_error_of_all_but_zeros(numbers: list[float]) -> None:
    exact = np.array([numbers, numbers], np.float32)
    half, rounding = round_to_half(exact)
    errors = [
        abs(float(near) - float(number)) / abs(float(number))
        for number, near in zip(exact[0], half[0], strict=True)
        if number
    ]
    assert rounding.values == len(errors)
    assert rounding.mean == pytest.approx(sum(errors) / max(1, len(errors)), rel=1e-3, abs=1e-7)
    assert rounding.largest == pytest.approx(max(errors, default=0), rel=1e-3, abs=1e-7)


def test_accounts_are_added_and_keep_the_worst() -> None:
    both = Rounding(2, 0.5, 0.4, 7.0).add(Rounding(2, 0.3, 0.1, 9.0))
    assert (both.values, both.mean, both.largest, both.at) == (4, 0.2, 0.4, 7.0)


def test_a_number_too_small_for_float16_becomes_zero_and_is_named() -> None:
    _, rounding = round_to_half(np.array([[1.0, 1e-9, 0.0]], np.float32))
    assert (rounding.values, rounding.largest) == (2, 1.0)
    assert rounding.at == pytest.approx(1e-9)
