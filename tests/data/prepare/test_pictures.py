from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tiny import write_tiny
from vqabench.data.catalog.dataset import find_dataset
from vqabench.data.prepare import digits
from vqabench.data.prepare.digits import picture_regions


def test_a_digit_is_drawn_as_its_pixels_tinted(tmp_path: Path) -> None:
    scene = digits.Scene((3, 3), ("red", "white"), ((0.1, 0.1, 0.2, 0.2), (0.5, 0.5, 0.7, 0.7)))
    shape = np.zeros((8, 8), np.float32)
    shape[2:6, 3] = 1.0  # a stroke from the second row on, in the third column
    regions, _ = digits._draw(scene, [shape[None]] * 10, np.random.default_rng(0))
    pictures = picture_regions(find_dataset("digits-cp", None, tmp_path), regions[:2])
    assert pictures is not None
    drawn = [np.frombuffer(picture.rgb, np.uint8).reshape(8, 8, 3) / 255 for picture in pictures]
    stroke = [pixels[2:6, 3].mean(0) for pixels in drawn]
    assert stroke[0] == pytest.approx(digits.COLORS["red"], abs=0.3)
    assert stroke[1] == pytest.approx(digits.COLORS["white"], abs=0.3)
    for pixels in drawn:
        rest = np.delete(pixels.reshape(64, 3), range(2 * 8 + 3, 6 * 8 + 3, 8), axis=0)
        assert rest.mean() < 0.15


def test_pixels_beyond_the_range_become_its_ends(tmp_path: Path) -> None:
    features = np.zeros((1, 8 * 8 * 3 + 4), np.float16)
    features[0, :3] = (-3.0, 8.0, 40.0)
    pictures = picture_regions(find_dataset("digits-cp", None, tmp_path), features)
    assert pictures is not None
    assert list(pictures[0].rgb[:3]) == [0, 128, 255]


def test_images_of_other_data_sets_are_not_known(tmp_path: Path) -> None:
    dataset = find_dataset("tiny", write_tiny(tmp_path / "own"), tmp_path / "data")
    assert picture_regions(dataset, np.zeros((2, 8), np.float32)) is None
