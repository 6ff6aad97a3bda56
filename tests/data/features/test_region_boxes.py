from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqabench.data.features.boxes import Extent, LayoutError, share_boxes


def corners(seed: int, count: int) -> np.ndarray:
    """Return boxes as shares, each at least a tenth of the image wide and high."""
    rng = np.random.default_rng(seed)
    begins = rng.uniform(0, 0.9, (count, 2))
    return np.hstack([begins, begins + rng.uniform(0.1, 1 - begins)])


SIDES = st.integers(9, 5000)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 100), SIDES, SIDES, st.sampled_from(["f2", "f4", "f8"]))
def test_pixels_and_shares_of_any_image_make_the_same_boxes(
    seed: int, count: int, width: int, height: int, dtype: str
) -> None:
    shares = corners(seed, count)
    pixels = shares * [width, height, width, height]
    if pixels[:, 2:].max() <= 2.5:
        return
    for boxes, in_pixels in ((pixels, True), (shares, False)):
        found, unit = share_boxes(boxes.astype(dtype), (width, height), "here")
        assert unit is in_pixels
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, shares, atol=2e-3)


@settings(deadline=None)
@given(st.integers(0, 10**6), SIDES, SIDES)
def test_of_36_boxes_other_orders_are_always_found_out(seed: int, width: int, height: int) -> None:
    boxes = corners(seed, 36) * [width, height, width, height]
    sides = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    if boxes[:, 2:].max() < 30 or sides.max() <= 2.5:
        return
    with pytest.raises(LayoutError, match="left, top, width, height"):
        share_boxes(sides, (width, height), "here")


def test_boxes_of_a_whole_source_must_reach_beyond_the_upper_left() -> None:
    extent = Extent()
    for seed in range(4):
        extent.add((corners(seed, 5) / 4).astype(np.float32))
    with pytest.raises(LayoutError, match="all 20 boxes lie in the upper left"):
        extent.check("here")
    extent.add(corners(9, 5).astype(np.float32))
    extent.check("here")
