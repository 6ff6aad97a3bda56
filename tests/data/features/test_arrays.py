from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.region_sources import WIDTH, Array, boxes_of, regions_of, write_own, write_published
from vqabench.data.features.conversion import convert_features
from vqabench.data.features.store import FeatureStore, open_features
from vqabench.errors import InputError

EQUAL = {7: 5, 3: 5, 9: 5}
DIFFERING = {7: 2, 3: 5, 9: 1}


def converted(source: Path, wanted: set[int]) -> FeatureStore:
    convert_features([source], source.with_name("features.h5"), wanted)
    return open_features(source.with_name("features.h5"))


@pytest.mark.parametrize("turned", [False, True])
def test_arrays_of_equal_numbers_of_regions_are_read_in_either_order(tmp_path: Path, turned: bool) -> None:
    store = converted(write_published(tmp_path / "train36.hdf5", EQUAL, turned=turned), set(EQUAL))
    check(store, EQUAL)


def test_flat_arrays_are_cut_where_their_positions_say(tmp_path: Path) -> None:
    check(converted(write_published(tmp_path / "train.hdf5", DIFFERING, flat=True), set(DIFFERING)), DIFFERING)


def check(store: FeatureStore, images: dict[int, int]) -> None:
    assert store.image_ids.tolist() == list(images)
    assert store.counts.tolist() == list(images.values())
    for row, (image, count) in enumerate(images.items()):
        np.testing.assert_array_equal(store.regions[row, :count], regions_of(image, count).astype(np.float16))
        shares = boxes_of(image, count) / np.array([200, 100, 200, 100], np.float32)
        np.testing.assert_allclose(store.boxes[row, :count], shares, rtol=1e-6)
        assert not store.regions[row, count:].any()


def test_only_the_wanted_images_of_an_array_are_kept(tmp_path: Path) -> None:
    assert converted(write_published(tmp_path / "f.h5", EQUAL), {3, 4}).image_ids.tolist() == [3]


def test_arrays_with_ids_sizes_and_counts_inside_need_no_map(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = np.stack([regions_of(image, 5).T for image in (7, 8)])
        file["boxes"] = np.stack([boxes_of(image, 5).T for image in (7, 8)])
        file["ids"], file["num_boxes"] = [7, 8], [5, 2]
        file["widths"], file["heights"] = [200, 200], [100, 100]
    store = converted(tmp_path / "f.h5", {7, 8})
    assert store.counts.tolist() == [5, 2]
    np.testing.assert_array_equal(store.regions[1, :2], regions_of(8, 5)[:2].astype(np.float16))


@pytest.mark.parametrize("name", ["f_imgid2idx.pkl", "imgid2idx.pkl"])
def test_a_map_of_ids_may_be_a_pickle_of_numbers(tmp_path: Path, name: str) -> None:
    source = write_published(tmp_path / "f.h5", EQUAL)
    (tmp_path / "f_imgid2idx.json").unlink()
    (tmp_path / name).write_bytes(pickle.dumps({image: row for row, image in enumerate(EQUAL)}, protocol=2))
    check(converted(source, set(EQUAL)), EQUAL)


def test_the_map_of_ids_may_be_named(tmp_path: Path) -> None:
    source = write_published(tmp_path / "f.h5", EQUAL)
    (tmp_path / "f_imgid2idx.json").rename(tmp_path / "ids.json")
    convert_features([Path(f"{source}::ids.json")], tmp_path / "features.h5", set(EQUAL))
    check(open_features(tmp_path / "features.h5"), EQUAL)
    with pytest.raises(InputError, match=r"other\.json: there is no such map of image ids"):
        convert_features([Path(f"{source}::other.json")], tmp_path / "features.h5", set(EQUAL))


class Attack:
    """Runs a program where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("attacked"),)  # type: ignore[return-value]


def test_a_pickle_that_would_run_a_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_published(tmp_path / "f.h5", EQUAL)
    (tmp_path / "f_imgid2idx.json").unlink()
    (tmp_path / "f_imgid2idx.pkl").write_bytes(pickle.dumps({7: Attack()}))
    with pytest.raises(InputError, match=r"imgid2idx\.pkl: not a valid map .* refers to pathlib\..*; only"):
        converted(source, set(EQUAL))
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2]", "must map image ids to rows, not be a list"),
        (b'{"7": -1}', "ids 7 are not mapped to rows from 0 to 2"),
        (b'{"7": 3}', "ids 7 are not mapped to rows from 0 to 2"),
        (b'{"7": "0"}', "ids 7 are not mapped to rows"),
        (b"{}", "is empty; expected a map of images to rows"),
        (b'{"7": 0, "8": 0}', "two images are mapped to one row"),
        (b"{", "not a valid map of image ids"),
    ],
)
def test_a_broken_map_of_ids_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    source = write_published(tmp_path / "f.h5", EQUAL)
    (tmp_path / "f_imgid2idx.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"f_imgid2idx\.json: {message}"):
        converted(source, set(EQUAL))


BROKEN: dict[str, tuple[dict[str, object], str]] = {
    "no boxes": ({"spatial_features": None, "image_bb": None}, "image 7: features without boxes"),
    "boxes in pixels alone": ({"spatial_features": None}, "boxes in pixels need the image.s width"),
    "another number of images": ({"spatial_features": np.ones((2, 5, 6), np.float32)}, "do not belong together"),
    "another number of boxes": (
        {"spatial_features": np.ones((3, 7, 6), np.float32)},
        "image 7: .* not fit",
    ),
    "nan": (
        {"image_features": np.full((3, 5, 3), np.nan, np.float32)},
        "image 7: has features that are not finite",
    ),
    "boxes outside": ({"spatial_features": np.full((3, 5, 6), 2, np.float32)}, r"image 7: box 0 .* \[0, 1\]"),
    "whole numbers": ({"image_features": np.ones((3, 5, 3), np.int32)}, "image 7: features are int32"),
    "spans that end nowhere": ({"pos_boxes": np.full((3, 2), 9)}, "do not belong together"),
    "too few counts": ({"num_boxes": np.array([5])}, "1 num_boxes, but 3 images"),
    "absurd counts": (
        {"num_boxes": np.array([10**15, 1, 1])},
        "image 7: num_boxes: 1000000000000000 is not from 1 to 5",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_arrays_that_do_not_fit_are_told_in_a_line(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    source = write_published(tmp_path / "f.h5", EQUAL)
    with h5py.File(source, "a") as file:
        for name, array in changes.items():
            if name in file:
                del file[name]
            if array is not None:
                file[name] = array
    with pytest.raises(InputError, match=message):
        converted(source, set(EQUAL))


def test_spans_outside_the_flat_arrays_are_told_with_the_image(tmp_path: Path) -> None:
    source = write_published(tmp_path / "f.h5", DIFFERING, flat=True)
    with h5py.File(source, "a") as file:
        file["pos_boxes"][1] = (2, 99)
    with pytest.raises(InputError, match="row 1: image 3: its regions are from 2 to 99 of 8"):
        converted(source, set(DIFFERING))


def test_arrays_without_ids_ask_for_a_map(tmp_path: Path) -> None:
    source = write_published(tmp_path / "f.h5", EQUAL)
    (tmp_path / "f_imgid2idx.json").unlink()
    with pytest.raises(InputError, match=r"f\.h5: holds .* but no image_ids, so .* Put f_imgid2idx\.json"):
        converted(source, set(EQUAL))
    (tmp_path / "imgid2idx.json").write_text(json.dumps({"COCO_train2014_000000000007": 0}))
    assert converted(source, set(EQUAL)).image_ids.tolist() == [7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": np.full((2, 2, WIDTH), np.nan, np.float16)}, "has features that are not finite"),
        ({"boxes": np.full((2, 2, 4), 1.5, np.float32)}, r"box 0 .* is outside \[0, 1\]"),
    ],
)
def test_our_own_format_is_checked_as_a_source(tmp_path: Path, changes: dict[str, Array], message: str) -> None:
    source = write_own(tmp_path / "own.h5", **changes)
    with pytest.raises(InputError, match=rf"own\.h5, row 0: image 7: {message}"):
        convert_features([source], tmp_path / "features.h5", {7, 8})


@pytest.mark.parametrize(
    ("name", "broken", "told"),
    [
        ("features", None, "features is not an array of numbers"),
        ("features", np.array([[["a"]]], "S"), "features is not an array of numbers"),
        ("ids", np.int64(7), "ids is not an array of numbers or text"),
        ("widths", [200.0, np.nan], "widths holds values that are not numbers"),
        ("heights", [100], "1 heights, but 2 images"),
        ("heights", [100, 0], "image 8: its height: 0 is not from 1 to"),
        ("num_boxes", np.int64(5), "num_boxes is not an array of numbers"),
        ("num_boxes", [5, 6], "image 8: num_boxes: 6 is not from 1 to 5"),
        ("pos_boxes", np.int64(5), "pos_boxes is not an array of numbers"),
        ("pos_boxes", [0, 5], r"pos_boxes must be \[images, 2\]|do not belong together"),
    ],
)
def test_arrays_of_another_form_are_told_by_their_name(tmp_path: Path, name: str, broken: Any, told: str) -> None:
    write_inside(tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        if name in file:
            del file[name]
        if broken is None:
            file.create_group(name)
        else:
            file[name] = broken
    with pytest.raises(InputError, match=told):
        converted(tmp_path / "f.h5", {7, 8})


def write_inside(path: Path) -> None:
    """Write an array of two images with all that it needs inside."""
    with h5py.File(path, "w") as file:
        file["features"] = np.stack([regions_of(image, 5) for image in (7, 8)])
        file["boxes"] = np.stack([boxes_of(image, 5) for image in (7, 8)])
        file["ids"] = [7, 8]
        file["widths"], file["heights"] = [200, 200], [100, 100]


def test_numbers_in_the_other_order_of_bytes_ids_as_reals_and_columns_of_sizes_are_read(tmp_path: Path) -> None:
    write_inside(tmp_path / "f.h5")
    expected = converted(tmp_path / "f.h5", {7, 8})
    with h5py.File(tmp_path / "other.h5", "w") as file, h5py.File(tmp_path / "f.h5") as before:
        file["features"], file["boxes"] = before["features"][:].astype(">f4"), before["boxes"][:].astype(">f8")
        file["ids"] = np.array([7.0, 8.0])
        file["widths"], file["heights"] = np.array([[200], [200]]), np.array([[100], [100]])
    other = converted(tmp_path / "other.h5", {7, 8})
    np.testing.assert_array_equal(other.regions, expected.regions)
    np.testing.assert_array_equal(other.boxes, expected.boxes)
    assert other.image_ids.tolist() == [7, 8]


@pytest.mark.parametrize("name", ["regions", "counts", "boxes", "image_ids"])
def test_our_own_file_with_a_group_for_an_array_is_refused(tmp_path: Path, name: str) -> None:
    write_own(tmp_path / "own.h5", regions=np.ones((2, 2, 3), np.float16))
    with h5py.File(tmp_path / "own.h5", "r+") as file:
        del file[name]
        file.create_group(name)
    with pytest.raises(InputError, match=f"{name} is not an array"):
        converted(tmp_path / "own.h5", {7, 8})
