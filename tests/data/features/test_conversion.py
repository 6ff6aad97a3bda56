from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import resize
from tests.region_sources import (
    bottom_up,
    boxes_of,
    lxmert,
    regions_of,
    write_npz,
    write_own,
    write_published,
)
from vqabench.data.features import conversion, writer
from vqabench.data.features.conversion import Treatment, convert_features
from vqabench.data.features.sources import read_rows
from vqabench.data.features.store import FeatureStore, check_numbers, open_features
from vqabench.errors import InputError, VqabenchError

SKIP = Treatment(broken="skip")


def write_table(path: Path, counts: dict[int, int]) -> Path:
    rows = (bottom_up(n, count, regions_of(n, count), boxes_of(n, count)) for n, count in counts.items())
    path.write_text("".join(rows))
    return path


def convert(source: Path, destination: Path, *arguments: Any, **options: Any) -> FeatureStore:
    convert_features([source], destination, range(10_000), *arguments, **options)
    return open_features(destination)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


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
    treatment = Treatment(precision)
    table = convert(write_table(folder / "t.tsv", counts), folder / "table.h5", treatment)
    assert table.regions.dtype == precision
    flat = convert(write_published(folder / "flat.hdf5", counts, flat=True), folder / "flat.h5", treatment)
    again = convert(folder / "table.h5", folder / "again.h5", treatment)
    (folder / "npz").mkdir()
    for image, count in counts.items():
        write_npz(folder / "npz" / f"{image:05}.npz", image, count)
    images = convert(folder / "npz", folder / "images.h5", treatment)
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
        "features of 1 images, 1 regions at most, 3 wide",
        f"rounded to float16: {error}, in the first region of each image",
    ]
    said.clear()
    store = convert(tmp_path / "t.tsv", tmp_path / "full.h5", Treatment("float32"), say=said.append)
    assert len(said) == 2
    assert store.regions[0, 0, 1] == np.float32(1 + 2**-12)


def test_a_feature_beyond_float16_can_be_kept_as_float32(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(bottom_up(7, 1, np.array([[1e6, 1, 0]], np.float32)))
    with pytest.raises(InputError, match='beyond float16; to keep it, set feature_precision = "float32"'):
        convert(tmp_path / "t.tsv", tmp_path / "f.h5")
    assert convert(tmp_path / "t.tsv", tmp_path / "f.h5", Treatment("float32")).regions.max() == 1e6


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
    assert said[-1].startswith(f"1 broken row is left out (images {row.partition(chr(9))[0]}); the first: ")
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
        InputError, match=r"none of the 10,000 images .* of 1 broken rows: .*t\.tsv, line 1: image 8"
    ):
        convert(tmp_path / "t.tsv", tmp_path / "f.h5", SKIP)
    assert leftovers(tmp_path) == []


def test_what_is_there_already_is_left_as_it_is_until_a_source_or_a_setting_changes(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.tsv", {7: 1})
    convert(source, tmp_path / "f.h5")
    before = (tmp_path / "f.h5").stat().st_ino
    convert(source, tmp_path / "f.h5")
    assert (tmp_path / "f.h5").stat().st_ino == before
    assert convert(source, tmp_path / "f.h5", Treatment("float32")).regions.dtype == np.float32
    assert convert(write_table(source, {7: 2}), tmp_path / "f.h5").counts.tolist() == [2]


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from vqabench.data.features import writer
from vqabench.data.features.conversion import convert_features
writer.SHARD_IMAGES = 8
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
def convert(name):
    convert_features([source], folder / name, range(10_000))
def is_joining():
    return any(folder.glob(".f.h5.shards-*/features.h5"))
began = time.perf_counter()
convert("whole.h5")
seconds = time.perf_counter() - began
kills = {False: 0, True: 0}
while sum(kills.values()) < 20 or min(kills.values()) < 5:
    child = os.fork()
    if not child:
        convert("f.h5")
        os._exit(0)
    if kills[True] < kills[False]:
        while not is_joining() and not (folder / "f.h5").exists():
            time.sleep(0.0005)
    time.sleep(random.uniform(0, seconds / 3))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1]:
        kills[is_joining()] += 1
    if (folder / "f.h5").exists():
        assert (folder / "f.h5").read_bytes() == (folder / "whole.h5").read_bytes()
        (folder / "f.h5").unlink()
convert("f.h5")
"""


@pytest.mark.slow
def test_a_conversion_killed_anywhere_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.tsv", {n: 1 + n % 4 for n in range(1, 200)})
    with source.open("a") as file:
        file.write(bottom_up(5, 2, regions_of(5, 2), boxes_of(5, 2)))  # repeats an image of an early shard
    subprocess.run([sys.executable, "-c", KILLS, source, tmp_path], check=True)
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert leftovers(tmp_path) == []


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a table of 20 images whose conversion has stopped at a broken row, after shards of 8, 8 and 1."""
    monkeypatch.setattr(writer, "SHARD_IMAGES", 8)
    monkeypatch.setattr(conversion, "SHARD_IMAGES", 8)
    source = write_table(folder / "t.tsv", {n: 1 + n % 4 for n in range(1, 20)})
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join([*lines[:17], BROKEN["nan"].replace("8", "99", 1), *lines[17:]]))
    with pytest.raises(InputError, match="not finite"):
        convert(source, folder / "f.h5")
    return source


def spoil_rows(folder: Path) -> None:
    (folder / "000001.rows").write_bytes(b"half")


def spoil_entries(folder: Path) -> None:
    (folder / "000001.entries").write_bytes(b"half")


def lose_entries(folder: Path) -> None:
    """Leave what a kill leaves between rows and entries."""
    (folder / "000001.entries").rename(folder / "000001.part")


def lose_rows(folder: Path) -> None:
    """Leave what a kill leaves while shards are deleted."""
    (folder / "000001.rows").unlink()


def leave_more(folder: Path) -> None:
    """Leave half a shard more, and half of the joined file."""
    (folder / "000003.rows").write_bytes(b"half")
    (folder / "features.part").write_bytes(b"half")


@pytest.mark.parametrize(
    ("damage", "images"),
    [(spoil_rows, 8), (spoil_entries, 8), (lose_entries, 8), (lose_rows, 8), (leave_more, 17)],
)
def test_only_whole_shards_are_continued_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, images: int
) -> None:
    source = interrupted(tmp_path, monkeypatch)
    (shards,) = tmp_path.glob(".f.h5.shards-*")
    damage(shards)
    said: list[str] = []
    convert(source, tmp_path / "f.h5", SKIP, say=said.append)
    assert said[1] == f"continuing after the {images} images that are done"
    assert said[-1].startswith("1 broken row is left out (images 99)")
    convert(source, tmp_path / "whole.h5", SKIP)
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert leftovers(tmp_path) == []


def test_shards_of_other_sources_or_settings_are_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = interrupted(tmp_path, monkeypatch)
    said: list[str] = []
    convert(source, tmp_path / "f.h5", Treatment("float32", broken="skip"), say=said.append)
    assert not any("continuing" in line for line in said)
    assert leftovers(tmp_path) == []
    interrupted(tmp_path, monkeypatch)
    assert convert(write_table(source, {9: 3}), tmp_path / "f.h5").image_ids.tolist() == [9]
    assert leftovers(tmp_path) == []


def test_what_a_kill_leaves_beside_features_that_are_whole_is_deleted(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.tsv", {7: 2, 8: 2})
    convert(source, tmp_path / "f.h5")
    (tmp_path / "f.h5.json").unlink()  # it is written last
    (tmp_path / ".f.h5.shards-0").mkdir()
    for left in (".f.h5.shards-0/000000.rows", ".f.h5.lock", ".f.h5.journal", ".f.h5.journal.lock", ".f.h5.part-1"):
        (tmp_path / left).touch()
    assert convert(source, tmp_path / "f.h5").image_ids.tolist() == [7, 8]
    assert leftovers(tmp_path) == []


def test_two_processes_do_not_write_the_same_features(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.tsv", {7: 2})
    with (
        writer.only_writer(tmp_path / "f.h5"),
        pytest.raises(VqabenchError, match="another process is making these features"),
    ):
        convert(source, tmp_path / "f.h5")
    assert convert(source, tmp_path / "f.h5").image_ids.tolist() == [7]


@pytest.mark.parametrize(("images", "done"), [(40, 16), (9, 9)])
def test_a_full_disk_is_one_line_and_space_lets_it_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Path, images: int, done: int
) -> None:
    """Of 40 images the shards do not fit; of 9 their copy does not."""
    monkeypatch.setattr(writer, "SHARD_IMAGES", 4 if images == 40 else 9)
    rows = (bottom_up(n, 4, regions_of(n, 4, 5_000)) for n in range(1, images + 1))
    (tmp_path / "t.tsv").write_text("".join(rows))
    (small_disk / "ballast").write_bytes(bytes(300_000))
    with pytest.raises(VqabenchError, match=r"disk: no space left for the features; .*No space left") as caught:
        convert(tmp_path / "t.tsv", small_disk / "f.h5")
    assert not isinstance(caught.value, InputError)
    assert not (small_disk / "f.h5").exists()
    resize(small_disk, 16_000)
    said: list[str] = []
    store = convert(tmp_path / "t.tsv", small_disk / "f.h5", say=said.append)
    assert said[1] == f"continuing after the {done} images that are done"
    whole = convert(tmp_path / "t.tsv", tmp_path / "whole.h5")
    assert_equal(store, whole)
    assert (small_disk / "f.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert leftovers(small_disk) == []


def test_joining_needs_space_for_one_shard_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Path
) -> None:
    monkeypatch.setattr(writer, "SHARD_IMAGES", 1)
    resize(small_disk, 3_000)
    rows = (bottom_up(n, 4, regions_of(n, 4, 5_000)) for n in range(1, 41))  # 1.6 MB, and 1 MB reserved for HDF5
    (tmp_path / "t.tsv").write_text("".join(rows))
    assert convert(tmp_path / "t.tsv", small_disk / "f.h5").counts.tolist() == [4] * 40


def test_a_limit_on_the_size_of_files_is_told_like_a_full_disk(tmp_path: Path) -> None:
    rows = (bottom_up(n, 4, regions_of(n, 4, 5_000)) for n in range(1, 20))
    (tmp_path / "t.tsv").write_text("".join(rows))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(VqabenchError, match="no space left for the features"):
            convert(tmp_path / "t.tsv", tmp_path / "f.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_reader_leaves_no_file_open(tmp_path: Path) -> None:
    source = write_published(tmp_path / "f.hdf5", {7: 2, 8: 2})
    rows = list(read_rows([source], {7, 8}))
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
    assert convert(own, destination, Treatment("float32")).regions.dtype == np.float32
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
