from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.region_sources import Array, boxes_of, regions_of, write_npz
from vqabench.data.features.archives import list_image_files
from vqabench.data.features.conversion import convert_features
from vqabench.data.features.store import FeatureStore, open_features
from vqabench.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the features of images 7 (3 regions) and 42 (1)."""
    folder = tmp_path / "npz"
    (folder / "deeper").mkdir(parents=True)
    write_npz(folder / "7.npz", 7, 3)
    write_npz(folder / "deeper" / "COCO_train2014_000000000042.jpg.npz", 42, 1)
    return folder


def converted(source: Path) -> FeatureStore:
    convert_features([source], source.parent / "features.h5", {7, 42})
    return open_features(source.parent / "features.h5")


def check(store: FeatureStore) -> None:
    assert dict(zip(store.image_ids.tolist(), store.counts.tolist(), strict=True)) == {7: 3, 42: 1}
    for image, count in ((7, 3), (42, 1)):
        (row,) = store.rows([image])
        np.testing.assert_array_equal(store.regions[row, :count], regions_of(image, count).astype(np.float16))
        shares = boxes_of(image, count) / np.array([200, 100, 200, 100], np.float32)
        np.testing.assert_allclose(store.boxes[row, :count], shares, rtol=1e-6)


def test_a_folder_gives_the_images_that_its_files_are_named_after(folder: Path) -> None:
    check(converted(folder))


def test_a_zip_gives_the_same(folder: Path) -> None:
    with zipfile.ZipFile(folder.parent / "all.zip", "w") as archive:
        for path in folder.rglob("*.npz"):
            archive.write(path, path.relative_to(folder))
    check(converted(folder.parent / "all.zip"))


def test_features_may_lie_across_and_have_more_rows_than_boxes_count(folder: Path) -> None:
    boxes = np.vstack([boxes_of(7, 3), np.zeros((2, 4), np.float32)])
    features = np.vstack([regions_of(7, 3), np.zeros((2, 3), np.float32)])
    write_npz(folder / "7.npz", 7, 3, x=None, features=features.T, bbox=None, boxes=boxes)
    check(converted(folder))


def test_boxes_without_an_image_size_are_shares(folder: Path) -> None:
    shares = boxes_of(7, 3) / np.array([200, 100, 200, 100], np.float32)
    write_npz(folder / "7.npz", 7, 3, bbox=shares, image_w=None, image_h=None)
    check(converted(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, "holds bbox, num_bbox, image_w, image_h, but no features"),
        ({"x": np.array([{}], object)}, "x: holds object, not numbers"),
        ({"x": np.zeros(3, np.float32)}, r"features \[3\] and boxes \[3, 4\] of float32 do not fit"),
        ({"bbox": np.zeros((3, 4), np.complex64)}, "bbox: holds complex64, not numbers"),
        ({"image_w": np.zeros(0)}, "image_w holds 0 numbers, not one"),
        (
            {"image_w": np.array(np.inf)},
            "image_w holds values that are not numbers",
        ),
        ({"num_bbox": np.array(np.nan)}, "num_bbox holds values that are not numbers"),
        ({"num_bbox": np.array(10**15)}, "num_boxes: 1000000000000000 is not from 1 to 3"),
        ({"num_bbox": np.array(0)}, "0 is not from 1 to 3"),
        ({"image_w": np.array(-5)}, "its width: -5 is not from 1 to"),
        ({"bbox": np.full((3, 4), 150, np.float32)}, "box 0 .* is outside the image of 200 x 100"),
    ],
)
def test_a_broken_npz_is_named_with_its_image(folder: Path, changes: dict[str, Array | None], message: str) -> None:
    write_npz(folder / "7.npz", 7, 3, **changes)
    with pytest.raises(InputError, match=rf"7\.npz: image 7: .*{message}"):
        converted(folder)


def test_a_truncated_npz_is_named_with_its_image(folder: Path) -> None:
    content = (folder / "7.npz").read_bytes()
    (folder / "7.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"7\.npz: image 7: no region features, or damaged"):
        converted(folder)


def test_an_array_alone_is_no_npz(folder: Path) -> None:
    with (folder / "7.npz").open("wb") as file:
        np.save(file, regions_of(7, 3))
    with pytest.raises(InputError, match=r"7\.npz: image 7: no region features, or damaged"):
        converted(folder)


def test_a_folder_without_features_advises_to_name_a_file_only_if_it_holds_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"it holds nothing$"):
        list_image_files(tmp_path / "empty")
    (tmp_path / "all.tsv").write_text("")
    with pytest.raises(InputError, match=r"it holds 1 \.tsv; if one of them holds all features, name that file"):
        list_image_files(tmp_path)
