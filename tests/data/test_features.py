from __future__ import annotations

import base64
import csv
import gzip
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vqabench.data import conversion
from vqabench.data.conversion import convert_features
from vqabench.data.features import FeatureStore, open_features, write_features
from vqabench.errors import InputError

WIDTH = 3
BOTTOM_UP = "trainval_resnet101_faster_rcnn_genome_36.10.tsv.gz"
LXMERT = "lxmert_train2014_obj36.10.tsv.gz"
Array = NDArray[Any]


def pack(array: Array) -> str:
    return base64.b64encode(array.tobytes()).decode()


def regions_of(image: int, count: int, width: int = WIDTH) -> Array:
    return np.random.default_rng(image).normal(size=(count, width)).astype(np.float32)


def bottom_up(image: int | str, count: int = 2, regions: Array | None = None, boxes: Array | None = None) -> str:
    """A row about an image 200 wide and 100 high."""
    boxes = np.tile(np.array([20, 20, 100, 100], np.float32), (count, 1)) if boxes is None else boxes
    regions = regions_of(1, count) if regions is None else regions
    return f"{image}\t200\t100\t{count}\t{pack(boxes)}\t{pack(regions)}\n"


def lxmert(image: str, count: int = 2) -> str:
    boxes = np.tile(np.array([20, 20, 100, 100], np.float32), (count, 1))
    ids, shares = pack(np.arange(5, 5 + count)), pack(np.ones(count, np.float32))
    regions = pack(regions_of(1, count))
    return f"{image}\t100\t200\t{ids}\t{shares}\t{ids}\t{shares}\t{count}\t{pack(boxes)}\t{regions}\n"


def convert(folder: Path, *rows: str, wanted: set[int | str] | None = None) -> FeatureStore:
    (folder / "source.tsv").write_text("".join(rows))
    convert_features([folder / "source.tsv"], folder / "features.h5", wanted or set(range(100)))
    return open_features(folder / "features.h5")


def write_own(path: Path, **changes: Array) -> Path:
    """Two images of at most two regions, in our own format."""
    fields: dict[str, Array] = {
        "regions": np.ones((2, 2, WIDTH), np.float16),
        "boxes": np.full((2, 2, 4), 0.5, np.float32),
        "counts": np.array([2, 1], np.int32),
        "image_ids": np.array([7, 8]),
    }
    write_features(path, **(fields | changes))
    return path


def test_rows_become_padded_arrays_and_boxes_become_shares(tmp_path: Path) -> None:
    store = convert(tmp_path, bottom_up(7, 1), bottom_up(8, 3, regions_of(8, 3)))
    assert store.regions.shape == (2, 3, WIDTH)
    assert store.counts.tolist() == [1, 3]
    assert not store.regions[0, 1:].any()
    np.testing.assert_array_equal(store.regions[1], regions_of(8, 3).astype(np.float16))
    np.testing.assert_allclose(store.boxes[0], [[0.1, 0.2, 0.5, 1.0], [0.0] * 4, [0.0] * 4])
    assert store.object_ids is None


def test_the_lxmert_form_has_the_height_first_and_names_the_objects(tmp_path: Path) -> None:
    store = convert(tmp_path, lxmert("COCO_train2014_000000000042"), lxmert("COCO_val2014_000000000043", 1))
    assert store.image_ids.tolist() == [42, 43]
    np.testing.assert_allclose(store.boxes[0, 0], [0.1, 0.2, 0.5, 1.0])
    assert store.object_ids is not None
    assert store.object_ids.tolist() == [[5, 6], [5, 0]]


def test_only_the_wanted_images_are_kept_and_the_others_need_not_be_sound(tmp_path: Path) -> None:
    store = convert(tmp_path, bottom_up(7), "8\t200\t100\t2\t?\t?\n", bottom_up(9), wanted={7, 9})
    assert store.image_ids.tolist() == [7, 9]
    with pytest.raises(InputError, match="features of none of the 1 images asked about"):
        convert(tmp_path, bottom_up(7), wanted={1})


def test_images_may_be_named_by_text_even_where_it_looks_like_a_number(tmp_path: Path) -> None:
    store = convert(tmp_path, bottom_up("n161"), bottom_up("0024"), wanted={"n161", "0024"})
    assert store.image_ids.tolist() == ["n161", "0024"]
    assert store.rows(["0024", "n161"]).tolist() == [1, 0]
    with pytest.raises(InputError, match="all whole numbers or all text"):
        convert(tmp_path, bottom_up("n161"), bottom_up(24), wanted={"n161", 24})


def test_plain_gzip_zip_and_our_own_files_give_the_same_features(tmp_path: Path) -> None:
    text = (bottom_up(7, 1) + bottom_up(8)).encode()
    sources = [tmp_path / name for name in ("plain", "gzip", "zip", "own")]
    sources[0].write_bytes(text)
    sources[1].write_bytes(gzip.compress(text))
    with zipfile.ZipFile(sources[2], "w") as archive:
        archive.writestr("trainval/features.tsv", text)
    convert_features(sources[:1], sources[3], {7, 8})
    for source in sources:
        convert_features([source], tmp_path / "features.h5", {7, 8})
        assert (tmp_path / "features.h5").read_bytes() == sources[3].read_bytes()


def test_a_zip_with_several_tables_asks_for_a_choice_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.tsv", bottom_up(7))
        archive.writestr("b.tsv.0", bottom_up(8))
    with pytest.raises(InputError, match=r"two\.zip: holds a\.tsv, b\.tsv\.0; name one as"):
        convert_features([tmp_path / "two.zip"], tmp_path / "features.h5", {7, 8})
    convert_features([Path(f"{tmp_path}/two.zip::b.tsv.0")], tmp_path / "features.h5", {7, 8})
    assert open_features(tmp_path / "features.h5").image_ids.tolist() == [8]


def test_an_image_that_comes_twice_is_told_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tsv, line 3: image 7 has come before, in .*tsv, line 1"):
        convert(tmp_path, bottom_up(7), bottom_up(8), bottom_up(7))


def spoilt(value: float) -> Array:
    return np.array([[0, 0, 0], [0, value, 0]], np.float32)


BROKEN = {
    "a missing column": ("8\t200\t100\t2\tAAAA\n", "5 columns, but bottom-up has 6 and LXMERT 10"),
    "a row cut short": (
        bottom_up(8)[:-4],
        "image 8: (features: broken base64|21 bytes of features do not make 2 rows)",
    ),
    "no base64": ("8\t200\t100\t2\t!!!\t!!!\n", "image 8: boxes: broken base64"),
    "no features": (
        "8\t200\t100\t1\t" + pack(np.zeros(4, np.float32)) + "\t\n",
        "image 8: 0 bytes of features",
    ),
    "too few boxes": (bottom_up(8, 2, boxes=np.zeros((1, 4), np.float32)), "image 8: 16 bytes of boxes"),
    "another width": (bottom_up(8, 2, regions_of(1, 2, 4)), "features 4 wide, but 3 before"),
    "nan": (bottom_up(8, 2, spoilt(np.nan)), "image 8: has features that are not finite"),
    "infinity": (bottom_up(8, 2, spoilt(-np.inf)), "image 8: has features that are not finite"),
    "too large": (bottom_up(8, 2, spoilt(-7e4)), r"image 8: has a feature of 7e\+04, beyond float16"),
    "a box of nan": (
        bottom_up(8, 1, boxes=np.full((1, 4), np.nan, np.float32)),
        "image 8: has boxes that are not",
    ),
    "a box of inf": (
        bottom_up(8, 1, boxes=np.full((1, 4), np.inf, np.float32)),
        "image 8: has boxes that are not",
    ),
    "no regions": ("8\t200\t100\t0\t\t\n", "'0' is no positive whole number"),
    "a flat image": (bottom_up(8).replace("\t100\t", "\t0\t"), "image 8: '0' is no positive whole number"),
}


@pytest.mark.parametrize(("row", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named_and_nothing_is_left_behind(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"source\.tsv, line 2: {message}"):
        convert(tmp_path, bottom_up(7), row)
    assert [file.name for file in tmp_path.iterdir()] == ["source.tsv"]


def test_a_gzip_that_breaks_off_is_told_with_the_line(tmp_path: Path) -> None:
    source = tmp_path / "half.tsv.gz"
    whole = gzip.compress("".join(bottom_up(n, 9, regions_of(n, 9, 500)) for n in range(1, 5)).encode())
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"half\.tsv\.gz, line [23]: the file breaks off or is damaged"):
        convert_features([source], tmp_path / "features.h5", set(range(9)))


def test_a_source_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for source, message in [(tmp_path / "none.tsv", "there is no such"), (tmp_path, "cannot be read")]:
        with pytest.raises(InputError, match=message):
            convert_features([source], tmp_path / "features.h5", {7})


@given(arrays(np.float16, (2, 2, WIDTH), elements=st.floats(allow_nan=False, allow_infinity=False, width=16)))
def test_features_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, regions: NDArray[np.float16]
) -> None:
    path = write_own(tmp_path_factory.mktemp("own") / "features.h5", regions=regions)
    np.testing.assert_array_equal(open_features(path).regions, regions)


def test_text_ids_and_object_ids_come_back_too(tmp_path: Path) -> None:
    objects = np.arange(4, dtype=np.int32).reshape(2, 2)
    store = open_features(write_own(tmp_path / "f.h5", image_ids=np.array(["ä.jpg", "b"]), object_ids=objects))
    assert store.image_ids.tolist() == ["ä.jpg", "b"]
    assert store.object_ids is not None
    np.testing.assert_array_equal(store.object_ids, objects)


def test_the_large_arrays_are_mapped_and_writing_to_them_leaves_the_file_alone(tmp_path: Path) -> None:
    path = write_own(tmp_path / "features.h5")
    before = path.read_bytes()
    store = open_features(path)
    assert isinstance(store.regions.base, np.memmap)
    store.regions[:] = 0
    assert path.read_bytes() == before
    path.rename(tmp_path / "moved.h5")  # no handle stands in the way of the next writer
    with h5py.File(tmp_path / "moved.h5", "a"):
        pass


def test_rows_tells_how_many_images_are_missing(tmp_path: Path) -> None:
    store = open_features(write_own(tmp_path / "features.h5"))
    assert store.rows([8, 7, 8]).tolist() == [1, 0, 1]
    with pytest.raises(InputError, match=r"2 images have no features \(ids 1, 2\)"):
        store.rows([7, 1, 2, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"regions": np.ones((2, 2, WIDTH), np.float32)},
            r"regions must be float16 .*not float32 \[2, 2, 3\]",
        ),
        (
            {"boxes": np.ones((2, 1, 4), np.float32)},
            r"boxes must be float32 \[2, 2, 4\], not float32 \[2, 1, 4\]",
        ),
        ({"counts": np.array([3, 1], np.int32)}, "counts must be from 1 to 2"),
        ({"counts": np.array([2, 0], np.int32)}, "counts must be from 1 to 2"),
        ({"image_ids": np.array([7])}, r"image_ids must be generic \[2\]"),
        ({"object_ids": np.ones((2, 2), np.float32)}, "object_ids must be integer"),
    ],
)
def test_a_features_file_of_another_form_is_refused(
    tmp_path: Path, changes: dict[str, Array], message: str
) -> None:
    with pytest.raises(InputError, match=rf"features\.h5: {message}"):
        open_features(write_own(tmp_path / "features.h5", **changes))


@pytest.mark.parametrize(
    "changes",
    [{"regions": np.full((2, 2, WIDTH), np.nan, np.float16)}, {"boxes": np.full((2, 2, 4), 1.5, np.float32)}],
)
def test_our_own_format_is_checked_as_a_source(tmp_path: Path, changes: dict[str, Array]) -> None:
    source = write_own(tmp_path / "own.h5", **changes)
    with pytest.raises(InputError, match=r"own\.h5, row 0: image 7: has features that are not finite, or boxes"):
        convert_features([source], tmp_path / "features.h5", {7, 8})


def test_objects_are_kept_only_where_every_source_names_them(tmp_path: Path) -> None:
    for name, text in (("one.tsv", lxmert("7")), ("other.tsv", bottom_up(8))):
        (tmp_path / name).write_text(text)
    convert_features([tmp_path / "one.tsv"], tmp_path / "named.h5", {7})
    assert open_features(tmp_path / "named.h5").object_ids is not None
    convert_features([tmp_path / "one.tsv", tmp_path / "other.tsv"], tmp_path / "mixed.h5", {7, 8})
    assert open_features(tmp_path / "mixed.h5").object_ids is None


def test_files_that_hold_no_features_are_refused(tmp_path: Path) -> None:
    whole = write_own(tmp_path / "whole.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("features")
    h5py.File(tmp_path / "other.h5", "w").close()
    for name in ("half.h5", "text.h5", "other.h5", "none.h5"):
        with pytest.raises(InputError, match=rf"{name}: (not a|there is no such) features file"):
            open_features(tmp_path / name)


def test_the_disk_space_is_taken_before_the_arrays_are_mapped(tmp_path: Path) -> None:
    conversion._allocate(tmp_path / "features.h5", dict.fromkeys(range(500), 10), 2048, with_objects=False)
    taken = (tmp_path / "features.h5").stat()
    assert taken.st_blocks * 512 >= taken.st_size


def decode(path: Path, names: list[str]) -> dict[str, dict[str, str]]:
    csv.field_size_limit(2**30)
    with gzip.open(path, "rt") as lines:
        return {row[names[0]]: row for row in csv.DictReader(lines, names, delimiter="\t")}


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        (BOTTOM_UP, "image_id w h n boxes features"),
        (LXMERT, "image_id h w objects objects_conf attrs attrs_conf n boxes features"),
    ],
)
def test_the_real_images_agree_with_an_independent_reading(
    samples: Path, tmp_path: Path, name: str, columns: str
) -> None:
    rows = decode(samples / "features" / name, columns.split())
    images = {int(image.rsplit("_", 1)[-1]): row for image, row in rows.items()}
    convert_features([samples / "features" / name], tmp_path / "features.h5", images.keys())
    store = open_features(tmp_path / "features.h5")
    assert store.regions.shape == (10, 36, 2048)
    assert store.counts.tolist() == [36] * 10
    assert (store.object_ids is None) == (name == BOTTOM_UP)
    assert store.boxes.min() >= 0
    assert store.boxes.max() <= 1
    assert (store.boxes[..., 2:] > store.boxes[..., :2]).all()
    for number, image_id in enumerate(store.image_ids.tolist()):
        row = images[image_id]
        regions = np.frombuffer(base64.b64decode(row["features"]), np.float32).reshape(36, 2048)
        boxes = np.frombuffer(base64.b64decode(row["boxes"]), np.float32).reshape(36, 4)
        np.testing.assert_allclose(store.regions[number], regions, rtol=2**-11, atol=2**-24)
        pixels = store.boxes[number] * np.array([float(row[side]) for side in "whwh"])
        np.testing.assert_allclose(pixels, boxes, atol=0.01)
        if store.object_ids is not None:
            assert (
                store.object_ids[number].tolist() == np.frombuffer(base64.b64decode(row["objects"]), "<i8").tolist()
            )
