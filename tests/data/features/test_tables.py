from __future__ import annotations

import base64
import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.region_sources import WIDTH, Array, bottom_up, convert, lxmert, pack, regions_of
from vqabench.data.features import tsv
from vqabench.data.features.conversion import convert_features
from vqabench.data.features.store import FeatureStore, open_features
from vqabench.errors import InputError

BOTTOM_UP = "trainval_resnet101_faster_rcnn_genome_36.10.tsv.gz"
LXMERT = "lxmert_train2014_obj36.10.tsv.gz"


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
    assert store.attribute_ids is not None
    assert store.object_ids.tolist() == [[5, 6], [5, 0]]
    assert store.attribute_ids.tolist() == [[105, 106], [105, 0]]


def test_only_the_wanted_images_are_kept_and_the_others_need_not_be_sound(tmp_path: Path) -> None:
    store = convert(tmp_path, bottom_up(7), "8\t200\t100\t2\t?\t?\n", bottom_up(9), wanted={7, 9})
    assert store.image_ids.tolist() == [7, 9]
    with pytest.raises(InputError, match=r"for any of the 1 images .*, for example 1; the first .* is 7"):
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
        assert_equal(open_features(tmp_path / "features.h5"), open_features(sources[3]))


def test_a_zip_with_several_tables_asks_for_a_choice_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.tsv", bottom_up(7))
        archive.writestr("b.tsv.0", bottom_up(8))
    with pytest.raises(InputError, match=r"two\.zip: holds a\.tsv, b\.tsv\.0; name one as"):
        convert_features([tmp_path / "two.zip"], tmp_path / "features.h5", {7, 8})
    convert_features([Path(f"{tmp_path}/two.zip::b.tsv.0")], tmp_path / "features.h5", {7, 8})
    assert open_features(tmp_path / "features.h5").image_ids.tolist() == [8]


def test_an_image_that_comes_twice_is_told_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tsv, line 3: image 7 is also in .*tsv, line 1, with other"):
        convert(tmp_path, bottom_up(7), bottom_up(8), bottom_up(7, regions=regions_of(3, 2)))


def assert_equal(one: FeatureStore, other: FeatureStore) -> None:
    for name, array in vars(other).items():
        if name == "file":
            continue
        np.testing.assert_array_equal(getattr(one, name), array, name, strict=True)


def spoilt(value: float) -> Array:
    return np.array([[0, 0, 0], [0, value, 0]], np.float32)


BROKEN = {
    "a missing column": (
        "8\t200\t100\t2\tAAAA\n",
        "5 columns, but bottom-up has 6, and with objects and attributes 10",
    ),
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
    "no regions": ("8\t200\t100\t0\t\t\n", "image 8: num_boxes: 0 is not from 1 to 10,000"),
    "a flat image": (bottom_up(8).replace("\t100\t", "\t0\t"), "image 8: image_h: 0 is not from 1 to 1,000,000"),
    "a negative size": (
        bottom_up(8).replace("\t100\t", "\t-100\t"),
        "image 8: image_h: '-100' is not a whole number",
    ),
    "an absurd count": (
        bottom_up(8).replace("\t2\t", "\t1000000000000000\t"),
        "image 8: num_boxes: '1000000000000000' is no",
    ),
    "a long count": (
        bottom_up(8).replace("\t2\t", f"\t{'9' * 5000}\t"),
        "image 8: num_boxes: '99999999999999999999' is no",
    ),
    "a count of 1e15": (
        bottom_up(8).replace("\t2\t", "\t1e15\t"),
        "image 8: num_boxes: '1e15' is not a whole number",
    ),
    "NUL in a count": (
        bottom_up(8).replace("\t2\t", "\t\0\t"),
        r"image 8: num_boxes: '\\x00' is not a whole number",
    ),
    "NUL in an id": (bottom_up("\0\0"), r"'\\x00\\x00' is not the name of an image"),
    "NUL in features": (bottom_up(8)[:-9] + "\0" * 8 + "\n", "image 8: features: broken base64"),
    "a hole of NUL": ("\0" * 500 + "\n", "1 columns, but bottom-up has 6"),
    "a box outside": (
        bottom_up(8, 1, boxes=np.array([[0, 0, 10, 130]], np.float32)),
        r"image 8: box 0 \(0, 0, 10, 130\) is outside the image of 200 x 100",
    ),
    "a box turned": (
        bottom_up(8, 1, boxes=np.array([[50, 0, 10, 30]], np.float32)),
        r"image 8: box 0 \(50, 0, 10, 30\) has a negative size",
    ),
    "a negative class": (lxmert("8", first_class=-1), "image 8: has objects_id outside the range of class numbers"),
}


@pytest.mark.parametrize(("row", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named_and_nothing_is_left_behind(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"source\.tsv, line 2: {message}"):
        convert(tmp_path, bottom_up(7), row)
    assert [file.name for file in tmp_path.iterdir()] == ["source.tsv"]


def test_a_gzip_that_breaks_off_is_told_with_the_line(tmp_path: Path) -> None:
    source = tmp_path / "half.tsv.gz"
    whole = gzip.compress("".join(bottom_up(n, 9, regions_of(n, 9, 5000)) for n in range(1, 5)).encode())
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"half\.tsv\.gz, line [23]: truncated or damaged"):
        convert_features([source], tmp_path / "features.h5", set(range(9)))


def test_a_source_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for source, message in [
        (tmp_path / "none.tsv", "there is no such"),
        (tmp_path, "a folder without files"),
    ]:
        with pytest.raises(InputError, match=message):
            convert_features([source], tmp_path / "features.h5", {7})


def decode(path: Path, names: list[str]) -> dict[str, dict[str, str]]:
    with gzip.open(path, "rt") as lines:
        return {line.split("\t")[0]: dict(zip(names, line.rstrip("\n").split("\t"), strict=True)) for line in lines}


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
            assert store.attribute_ids is not None
            attributes = np.frombuffer(base64.b64decode(row["attrs"]), "<i8")
            assert store.attribute_ids[number].tolist() == attributes.tolist()


def test_a_member_of_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.tsv").write_text(bottom_up(7))
    with pytest.raises(InputError, match=r"f\.tsv: is not a zip, so it has no member 'member'"):
        convert_features([Path(f"{tmp_path}/f.tsv::member")], tmp_path / "features.h5", {7})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_table_in_utf_16_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "f.tsv").write_text(bottom_up(7), encoding)
    with pytest.raises(InputError, match=r"f\.tsv: is in UTF-16, or binary; save it as plain text"):
        convert_features([tmp_path / "f.tsv"], tmp_path / "features.h5", {7})


def test_the_mark_of_utf_8_and_line_ends_of_windows_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "f.tsv").write_bytes(
        b"\xef\xbb\xbf" + (bottom_up(7) + "\n" + bottom_up(8)).replace("\n", "\r\n").encode()
    )
    convert_features([tmp_path / "f.tsv"], tmp_path / "features.h5", {7, 8})
    assert open_features(tmp_path / "features.h5").image_ids.tolist() == [7, 8]


def test_a_file_without_line_ends_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsv, "LONGEST_LINE", 1 << 20)
    (tmp_path / "f.tsv").write_bytes(b"A" * (3 << 20))
    with pytest.raises(InputError, match=r"f\.tsv, line 1: longer than 1 MB: not a table of region features"):
        convert_features([tmp_path / "f.tsv"], tmp_path / "features.h5", {7})


def test_a_border_up_to_a_pixel_outside_is_cut(tmp_path: Path) -> None:
    store = convert(tmp_path, bottom_up(7, 1, boxes=np.array([[-0.9, 0, 200.9, 100]], np.float32)))
    np.testing.assert_array_equal(store.boxes[0, 0], [0, 0, 1, 1])
