from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vqabench.data.features.boxes import LayoutError, check_float32

KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[Any]]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "positive": lambda rng, shape: np.maximum(rng.normal(size=shape), 0),
    "uniform": lambda rng, shape: rng.random(shape),
    "wide": lambda rng, shape: np.exp(2 * rng.normal(size=shape)),
    "one-hot": lambda rng, shape: (rng.random(shape) < 0.3) * 1.0,
    "whole": lambda rng, shape: rng.integers(0, 17, shape) * 1.0,
    "of bfloat16": lambda rng, shape: (rng.normal(size=shape).astype("f4").view("u4") & 0xFFFF0000).view("f4"),
    "sparse": lambda rng, shape: np.where(rng.random(shape) < 0.1, rng.random(shape), 0),
}


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10**6), st.sampled_from(sorted(KINDS)), st.integers(1, 40), st.sampled_from([16, 128, 2048]))
def test_float32_is_never_taken_for_another_type(seed: int, kind: str, count: int, width: int) -> None:
    numbers = KINDS[kind](np.random.default_rng(seed), (count, width)).astype("<f4")
    check_float32(numbers.tobytes(), count, "here")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types_are_found_out(kind: str, dtype: str) -> None:
    for seed in range(50):
        numbers = KINDS[kind](np.random.default_rng(seed), (36, 512)).astype(dtype)
        with pytest.raises(LayoutError, match=f"features look like {dtype}"):
            check_float32(numbers.tobytes(), 36, "here")
