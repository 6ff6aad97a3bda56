from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.region_sources import (
    bottom_up,
    leftovers,
    lxmert,
    regions_of,
    write_npz,
    write_own,
    write_published,
    write_table,
)
from vqabench.data.features.conversion import ConversionOptions, convert_features
from vqabench.data.features.names import make_finder
from vqabench.data.features.sources import read_rows
from vqabench.data.features.store import FeatureStore, check_numbers, open_features
from vqabench.errors import InputError

SKIP = ConversionOptions(broken="skip")


def convert(source: Path, destination: Path, *arguments: Any, **options: Any) -> FeatureStore:
    convert_features([source], destination, range(10_000), *arguments, **options)
    return open_features(destination)


def assert_equal(one: FeatureStore, other: FeatureStore) -> None:
    for name, array in vars(other).items():
        if name == "boxes":  # divided by the image's size before or after they were written
            np.testing.assert_allclose(one.boxes, array, rtol=1e-6)
        elif name != "file":
            np.testing.assert_array_equal(getattr(one, name), array, name, strict=True)


COUNTS = st.dictionaries(st.integers(1, 9_999), st.integers(1, 7), min_size=1, max_size=6)


@settings(max_examples=20, deadline=None)
@given(counts=COUNTS, precision=st.sampled_from(["float16", "float32"]))
def test_all_forms_of_the_same_features_give_the_same_arrays(
    tmp_path_factory: pytest.TempPathFactory, counts: dict[int, int], precision: Any
) -> None:
    folder = tmp_path_factory.mktemp("forms")
    options = ConversionOptions(precision)
    table = convert(write_table(folder / "t.tsv", counts), folder / "table.h5", options)
    assert table.regions.dtype == precision
    flat = convert(write_published(folder / "flat.hdf5", counts, flat=True), folder / "flat.h5", options)
    again = convert(folder / "table.h5", folder / "again.h5", options)
    (folder / "npz").mkdir()
    for image, count in counts.items():
        write_npz(folder / "npz" / f"{image:05}.npz", image, count)
    images = convert(folder / "npz", folder / "images.h5", options)
    order = np.argsort(table.image_ids)
    assert_equal(flat, table)
    assert_equal(again, table)
    np.testing.assert_array_equal(images.regions, table.regions[order])


def test_rows_have_space_for_the_most_regions_of_an_image(tmp_path: Path) -> None:
    counts = {1: 4, 2: 2, 3: 3, 4: 9, 5: 1, 6: 20}
    store = convert(write_table(tmp_path / "t.tsv", counts), tmp_path / "f.h5")
    assert store.regions.shape == (6, 20, 3)
    assert store.counts.tolist() == list(counts.values())
    for row, (image, count) in enumerate(counts.items()):
        np.testing.assert_array_equal(store.regions[row, :count], regions_of(image, count).astype(np.float16))
        assert not store.regions[row, count:].any()
    assert leftovers(tmp_path) == []


def test_several_threads_make_the_same_file_as_one(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.tsv", {n: 1 + n % 7 for n in range(1, 400)})
    for workers in (1, 5):
        convert(source, tmp_path / f"{workers}.h5", workers=workers)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "5.h5").read_bytes()


def test_the_cost_of_rounding_is_told_and_float32_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(bottom_up(7, 1, np.array([[1, 1 + 2**-12, 0]], np.float32)))
    said: list[str] = []
    convert(tmp_path / "t.tsv", tmp_path / "half.h5", say=said.append)
    assert said[0].startswith("preparing region features of 10,000 images from ")
    error = "relative error 1.2e-04 on average, at most 2.4e-04 (of 1.0e+00)"
    assert said[1:] == [
        "features of 1 image, 1 region at most, 3 wide",
        f"rounded to float16: {error}, in the first region of each image",
    ]
    said.clear()
    store = convert(tmp_path / "t.tsv", tmp_path / "full.h5", ConversionOptions("float32"), say=said.append)
    assert len(said) == 2
    assert store.regions[0, 0, 1] == np.float32(1 + 2**-12)


def test_a_feature_beyond_float16_can_be_kept_as_float32(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(bottom_up(7, 1, np.array([[1e6, 1, 0]], np.float32)))
    with pytest.raises(InputError, match='beyond float16; to keep it, set feature_precision = "float32"'):
        convert(tmp_path / "t.tsv", tmp_path / "f.h5")
    assert convert(tmp_path / "t.tsv", tmp_path / "f.h5", ConversionOptions("float32")).regions.max() == 1e6


BROKEN = {
    "truncated": bottom_up(8)[:-6] + "\n",
    "too few columns": "8\t200\t100\n",
    "repeated": bottom_up(7, 2, regions_of(2, 2)),
    "nan": bottom_up(8, 2, np.full((2, 3), np.nan, np.float32)),
    "of another width": bottom_up(8, 2, regions_of(1, 2, 4)),
}


@pytest.mark.parametrize("row", BROKEN.values(), ids=BROKEN)
def test_broken_rows_are_refused_or_left_out_as_the_catalogue_says(tmp_path: Path, row: str) -> None:
    (tmp_path / "t.tsv").write_text(bottom_up(7) + row + bottom_up(9))
    with pytest.raises(InputError, match=r"t\.tsv, line 2"):
        convert(tmp_path / "t.tsv", tmp_path / "f.h5")
    said: list[str] = []
    store = convert(tmp_path / "t.tsv", tmp_path / "f.h5", SKIP, say=said.append)
    assert store.image_ids.tolist() == [7, 9]
    assert said[-1].startswith(f"1 broken row left out (images {row.partition(chr(9))[0]}); the first: ")
    assert "t.tsv, line 2" in said[-1]
    assert leftovers(tmp_path) == []


def test_a_whole_row_takes_the_place_of_an_earlier_broken_one(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(BROKEN["truncated"] + bottom_up(8))
    assert convert(tmp_path / "t.tsv", tmp_path / "f.h5", SKIP).image_ids.tolist() == [8]


def test_a_damaged_array_file_is_skipped_row_by_row(tmp_path: Path) -> None:
    spoilt = np.ones((2, 2, 3), np.float16)
    spoilt[0] = np.inf
    store = convert(write_own(tmp_path / "own.h5", regions=spoilt), tmp_path / "f.h5", SKIP)
    assert store.image_ids.tolist() == [8]


def test_where_every_row_is_broken_there_are_no_features(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(BROKEN["nan"])
    with pytest.raises(
        InputError, match=r"no features for any of the 10,000 images .*; 1 broken row, first .*t\.tsv, line 1"
    ):
        convert(tmp_path / "t.tsv", tmp_path / "f.h5", SKIP)
    assert leftovers(tmp_path) == []


def test_what_is_there_already_is_left_as_it_is_until_a_source_or_a_setting_changes(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.tsv", {7: 1})
    convert(source, tmp_path / "f.h5")
    before = (tmp_path / "f.h5").stat().st_ino
    convert(source, tmp_path / "f.h5")
    assert (tmp_path / "f.h5").stat().st_ino == before
    assert convert(source, tmp_path / "f.h5", ConversionOptions("float32")).regions.dtype == np.float32
    assert convert(write_table(source, {7: 2}), tmp_path / "f.h5").counts.tolist() == [2]


def test_the_reader_leaves_no_file_open(tmp_path: Path) -> None:
    source = write_published(tmp_path / "f.hdf5", {7: 2, 8: 2})
    rows = list(read_rows([source], make_finder([7, 8])))
    assert rows[0].decode().regions.shape == (2, 3)
    del rows
    with h5py.File(source, "a"):
        pass


def test_classes_are_kept_only_where_every_row_has_them(tmp_path: Path) -> None:
    for name, text in (("one.tsv", lxmert("7")), ("other.tsv", bottom_up(8))):
        (tmp_path / name).write_text(text)
    named = convert(tmp_path / "one.tsv", tmp_path / "named.h5")
    assert named.object_ids is not None
    assert named.attribute_ids is not None
    again = convert(tmp_path / "named.h5", tmp_path / "again.h5")
    assert_equal(again, named)
    convert_features([tmp_path / "one.tsv", tmp_path / "other.tsv"], tmp_path / "mixed.h5", {7, 8})
    mixed = open_features(tmp_path / "mixed.h5")
    assert mixed.object_ids is None
    assert mixed.attribute_ids is None


def test_a_whole_file_of_our_own_form_is_linked_and_any_other_copied(tmp_path: Path) -> None:
    own = tmp_path / "own.h5"
    convert(write_table(tmp_path / "a.tsv", {1: 2, 2: 3}), own)
    destination = tmp_path / "features.h5"
    before = convert(own, destination)
    assert destination.samefile(own)
    assert before.image_ids.tolist() == [1, 2]
    convert(own, destination)  # again, where it is one file already
    assert destination.samefile(own)
    assert leftovers(tmp_path) == []
    assert convert(own, destination, ConversionOptions("float32")).regions.dtype == np.float32
    assert not destination.samefile(own)
    with h5py.File(own, "r+") as file:
        file["regions"][0, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"own\.h5, row 0: image 1: has features that are not finite"):
        convert(own, destination)
    assert np.isfinite(open_features(destination).regions).all()


def test_a_link_of_the_users_is_never_written_through(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    convert(write_table(tmp_path / "a.tsv", {1: 2}), store / "original.h5")
    (tmp_path / "own.h5").symlink_to(Path("store") / "original.h5")
    before = (store / "original.h5").read_bytes()
    destination = store / "features.h5"
    assert convert(tmp_path / "own.h5", destination).image_ids.tolist() == [1]
    assert convert(write_table(tmp_path / "b.tsv", {1: 3}), destination).counts.tolist() == [3]
    destination.unlink()
    destination.symlink_to(store / "original.h5")
    assert convert(write_table(tmp_path / "c.tsv", {1: 4}), destination).counts.tolist() == [4]
    assert (store / "original.h5").read_bytes() == before


def test_a_compressed_file_is_copied_for_it_cannot_be_mapped(tmp_path: Path) -> None:
    first = convert(write_table(tmp_path / "a.tsv", {1: 2}), tmp_path / "own.h5")
    with h5py.File(tmp_path / "own.h5", "r+") as file:
        regions = file["regions"][:]
        del file["regions"]
        file.create_dataset("regions", data=regions, compression="gzip")
    store = convert(tmp_path / "own.h5", tmp_path / "features.h5")
    assert_equal(store, first)
    with h5py.File(tmp_path / "features.h5") as file:
        assert file["regions"].id.get_offset() is not None


def test_boxes_that_end_a_hair_before_they_begin_are_made_empty(tmp_path: Path) -> None:
    boxes = np.array([[10, 10, 9.5, 20]], np.float32)
    (tmp_path / "t.tsv").write_text(bottom_up(1, 1, boxes=boxes, regions=np.ones((1, 3), np.float32)))
    store = convert(tmp_path / "t.tsv", tmp_path / "features.h5")
    assert store.boxes[0, 0].tolist() == pytest.approx([0.05, 0.1, 0.05, 0.2])
    check_numbers(store)


@pytest.mark.parametrize(("rows", "message"), [(2, "1 row that repeats"), (3, "2 rows that repeat")])
def test_skipped_rows_are_counted_in_a_sentence(tmp_path: Path, rows: int, message: str) -> None:
    (tmp_path / "t.tsv").write_text(bottom_up(1) * rows)
    said: list[str] = []
    convert(tmp_path / "t.tsv", tmp_path / "f.h5", say=said.append)
    assert said[-1] == f"skipped {message} an image with the same features"
