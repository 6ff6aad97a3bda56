"""Region features as they lie about in the field, broken ones and hostile ones, through the command line."""

from __future__ import annotations

import base64
import json
import os
import pickle
import struct
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import CommandLine
from tests.outcomes import assert_done, assert_refused
from tests.tiny import write_tiny
from tests.trials.conftest import Trial

pytestmark = pytest.mark.slow

IMAGES, REGIONS, WIDTH = 6, 5, 8
SIZE = np.array([640, 480], np.float32)
LIMITS = np.tile(SIZE, 2)
RNG = np.random.default_rng(16)
FEATURES = RNG.normal(size=(IMAGES, REGIONS, WIDTH)).astype(np.float32)
CORNERS = np.sort(RNG.uniform(0.05, 0.95, (IMAGES, REGIONS, 2, 2)), axis=2).reshape(IMAGES, REGIONS, 4)
"""Left, top, right, bottom as shares."""


@dataclass
class Given:
    """What a source says of the images."""

    boxes: Any
    """[N, R, 4 or more]"""
    size: tuple[int, int] | None = (640, 480)
    features: Any = None
    names: str = "{}"

    def name(self, image: int) -> str:
        """Return an image's name."""
        return self.names.format(image)

    def of(self, image: int) -> dict[str, Any]:
        """Return one image as published npz files hold it."""
        features = FEATURES if self.features is None else self.features
        record = {"x": features[image], "bbox": np.asarray(self.boxes[image])}
        sides = {} if self.size is None else {"image_w": self.size[0], "image_h": self.size[1]}
        return record | sides


def write_tsv(folder: Path, given: Given) -> str:
    """Write bottom-up's table."""
    assert given.size
    with (folder / "f.tsv").open("w") as file:
        for image in range(IMAGES):
            record = given.of(image)
            boxes = np.asarray(record["bbox"], np.float32)
            packed = [base64.b64encode(np.ascontiguousarray(a).tobytes()).decode() for a in (boxes, record["x"])]
            columns = [given.name(image), *map(str, given.size), str(REGIONS), *packed]
            print(*columns, sep="\t", file=file)
    return "f.tsv"


def write_quoted(folder: Path, given: Given) -> str:
    """Write the same as Python 3's csv writes bytes."""
    lines = (folder / write_tsv(folder, given)).read_text().splitlines()
    with (folder / "quoted.tsv").open("w") as file:
        for line in lines:
            name, *others, boxes, features = line.split("\t")
            print(f"b'{name}'", *others, f"b'{boxes}'", f"b'{features}'", sep="\t", file=file)
    return "quoted.tsv"


def write_hdf5(folder: Path, given: Given, ids: str = "image_ids", **arrays: Any) -> str:
    """Write one array of all images."""
    with h5py.File(folder / "f.h5", "w") as file:
        file["features"] = FEATURES if given.features is None else given.features
        file["boxes"] = given.boxes
        if given.size is not None:
            file["image_w"], file["image_h"] = [given.size[0]] * IMAGES, [given.size[1]] * IMAGES
        if ids:
            file[ids] = [given.name(image) for image in range(IMAGES)]
        for name, array in arrays.items():
            file[name] = array
    return "f.h5"


def write_mapped(folder: Path, given: Given) -> str:
    """Write arrays with a map of names beside them."""
    write_hdf5(folder, given, ids="")
    rows = {given.name(image): image for image in range(IMAGES)}
    (folder / "f_imgid2idx.pkl").write_bytes(pickle.dumps(rows, protocol=2))
    return "f.h5"


def write_files(folder: Path, given: Given, ending: str, save: Callable[[Path, dict[str, Any]], object]) -> str:
    """Write a file an image."""
    (folder / "files").mkdir()
    for image in range(IMAGES):
        save(folder / "files" / f"{given.name(image)}.{ending}", given.of(image))
    return "files"


def write_npz(folder: Path, given: Given) -> str:
    return write_files(folder, given, "npz", lambda path, record: np.savez(path, **record))


def write_zip(folder: Path, given: Given) -> str:
    source = folder / write_npz(folder, given)
    with zipfile.ZipFile(folder / "f.zip", "w") as archive:
        for path in source.iterdir():
            archive.write(path, f"deeper/{path.name}")
            archive.writestr(f"__MACOSX/deeper/._{path.name}", b"\0")
            archive.writestr(f"deeper/._{path.name}", b"\0")
    return "f.zip"


def save_npy(path: Path, record: dict[str, Any]) -> None:
    """Save as mmf does."""
    np.save(path, record.pop("x"))
    info = {"num_boxes": REGIONS} | record
    np.save(path.with_name(f"{path.stem}_info.npy"), np.array(info, object))


def save_pth(path: Path, record: dict[str, Any]) -> None:
    """Save tensors, an array and numbers."""
    record["pooled_feat"] = torch.from_numpy(record.pop("x"))
    record["rois"] = torch.from_numpy(np.asarray(record.pop("bbox")))
    torch.save(record, path)


def save_old_pth(path: Path, record: dict[str, Any]) -> None:
    record["image_feature"] = record.pop("x")
    torch.save(record, path, _use_new_zipfile_serialization=False)


FORMS: dict[str, Callable[[Path, Given], str]] = {
    "tsv": write_tsv,
    "quoted tsv": write_quoted,
    "hdf5": write_hdf5,
    "hdf5 with a map": write_mapped,
    "npz": write_npz,
    "zip": write_zip,
    "npy": lambda folder, given: write_files(folder, given, "npy", save_npy),
    "pth": lambda folder, given: write_files(folder, given, "pth", save_pth),
    "old pth": lambda folder, given: write_files(folder, given, "pt", save_old_pth),
    "pkl": lambda folder, given: write_files(
        folder, given, "pkl", lambda path, record: path.write_bytes(pickle.dumps(record))
    ),
    "pkl of Python 2": lambda folder, given: write_files(
        folder, given, "pkl", lambda path, record: path.write_bytes(pickle.dumps(record, protocol=2))
    ),
}


class Prepare:
    """A tiny data set whose features are replaced."""

    def __init__(self, folder: Path, cli: CommandLine) -> None:
        self.folder, self.cli = folder / "own", cli
        self.catalog = write_tiny(self.folder)
        self.text = self.catalog.read_text()
        self.features = folder / "data" / "tiny" / "features.h5"

    def __call__(self, source: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Prepare with some settings of the catalogue."""
        text = self.text.replace("features.tsv", source)
        lines = "".join(f'{name} = "{value}"\n' for name, value in settings.items())
        self.catalog.write_text(text.replace('title = "a few questions"\n', f'title = "trial"\n{lines}'))
        return self.cli("data", "prepare", "tiny", "--catalog", self.catalog)


@pytest.fixture
def prepare(tmp_path: Path, cli: CommandLine) -> Prepare:
    """Return a function that prepares a data set of six images with other features."""
    return Prepare(tmp_path, cli)


def check(prepare: Prepare) -> None:
    with h5py.File(prepare.features) as file:
        order = np.argsort(file["image_ids"][:])
        assert file["image_ids"][:][order].tolist() == list(range(IMAGES))
        np.testing.assert_allclose(file["boxes"][:][order], CORNERS, atol=1e-3)
        np.testing.assert_array_equal(file["regions"][:][order], FEATURES.astype(np.float16))


PIXELS, SHARES = CORNERS * LIMITS, CORNERS
EXTRA = np.concatenate([SHARES, SHARES[..., 2:] - SHARES[..., :2]], 2)
UNITS: dict[str, Given] = {
    "pixels": Given(PIXELS),
    "shares beside sizes": Given(SHARES),
    "shares without sizes": Given(SHARES, None),
    "shares with width and height": Given(EXTRA),
    "pixels with width and height": Given(EXTRA * np.tile(SIZE, 3)),
    "COCO": Given(PIXELS, names="COCO_val2014_{:012}"),
    "COCO.jpg": Given(PIXELS, names="COCO_train2014_{:012}.jpg"),
    "zeros in front": Given(PIXELS, names="{:06}.png"),
}


PAIRS = [
    *(("npz", unit) for unit in UNITS),
    *((form, unit) for form in ("tsv", "hdf5", "npy") for unit in ("pixels", "shares with width and height")),
    *((form, "COCO.jpg") for form in FORMS),
]
"""All units in one form, two of them in one form of each reader, and all forms."""


@pytest.mark.parametrize(("form", "unit"), dict.fromkeys(PAIRS))
def test_every_form_gives_the_same_features_whatever_unit_and_names(prepare: Prepare, form: str, unit: str) -> None:
    assert_done(prepare(FORMS[form](prepare.folder, UNITS[unit])))
    check(prepare)


SIDES = np.concatenate([PIXELS[..., :2], PIXELS[..., 2:] - PIXELS[..., :2]], 2)
CENTRES = np.concatenate([(PIXELS[..., :2] + PIXELS[..., 2:]) / 2, SIDES[..., 2:]], 2)
FAULTS: dict[str, tuple[Given, str]] = {
    "left, top, width, height": (Given(SIDES), "they look like left, top, width, height"),
    "the same as shares": (Given(SIDES / LIMITS), "they look like left, top, width, height"),
    "centres": (Given(CENTRES), "centre x, centre y, width, height"),
    "left, right, top, bottom": (Given(PIXELS[..., [0, 2, 1, 3]]), "left, right, top, bottom"),
    "swapped sizes": (Given(PIXELS, (480, 640)), "width and height are swapped"),
    "top, left, bottom, right": (Given(PIXELS[..., [1, 0, 3, 2]]), "boxes are top, left, bottom, right"),
    "per cent": (Given(SHARES * 100), "are they pixels of a resized image, or per cent"),
    "a resized image": (Given(SHARES * 200), "are they pixels of a resized image"),
    "thousandths": (Given(SHARES * 1000), "is outside the image of 640 x 480"),
    "no width and height": (
        Given(np.concatenate([PIXELS, PIXELS[..., :2]], 2)),
        "the last two box columns are not",
    ),
    "a tiny image": (Given(SHARES, (2, 2)), "may be pixels or fractions"),
    "nan": (Given(np.where(SHARES > 0.9, np.nan, PIXELS)), "boxes that are not finite"),
}


REFUSED = [
    *(("npz", fault) for fault in FAULTS),
    *((form, fault) for form in ("tsv", "hdf5") for fault in ("left, top, width, height", "per cent", "nan")),
]
"""All faults in one form, and one of each kind (in an order, in a unit, in a row) in one form of each reader."""


@pytest.mark.parametrize(("form", "fault"), REFUSED)
def test_boxes_of_another_layout_are_refused_also_where_broken_rows_are_left_out(
    prepare: Prepare, form: str, fault: str
) -> None:
    given, message = FAULTS[fault]
    source = FORMS[form](prepare.folder, given)
    assert_refused(prepare(source), message)
    assert not prepare.features.exists()
    skipped = prepare(source, broken_features="skip")
    if fault not in ("thousandths", "nan"):  # which may be damage
        assert_refused(skipped, message)
    assert "Traceback" not in skipped.stderr


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("values", ["normal", "positive", "whole", "one-hot", "few digits"])
def test_a_table_of_other_numbers_is_refused_although_its_length_fits(
    prepare: Prepare, dtype: str, values: str
) -> None:
    numbers = {
        "normal": FEATURES,
        "positive": np.abs(FEATURES),
        "whole": np.round(FEATURES * 9),
        "one-hot": (FEATURES > 0.5) * 1.0,
        "few digits": np.round(FEATURES * 8) / 8,
    }[values]
    source = write_tsv(prepare.folder, Given(PIXELS, features=numbers.astype(dtype)))
    assert_refused(prepare(source), f"features look like {dtype}")
    settings = {"broken_features": "skip", "feature_precision": "float32"}
    assert_refused(prepare(source, **settings), f"features look like {dtype}")


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        (form, dtype)
        for form in ("hdf5", "npz", "npy", "pth", "pkl")
        for dtype in ("float16", "float64", ">f4")
        if (form, dtype) != ("pth", ">f4")  # tensors have no order of bytes
    ],
)
def test_a_type_that_a_file_declares_is_read_as_declared(prepare: Prepare, form: str, dtype: str) -> None:
    assert_done(prepare(FORMS[form](prepare.folder, Given(PIXELS, features=FEATURES.astype(dtype)))))
    check(prepare)


def test_features_without_boxes_are_used_only_where_that_is_asked_for(prepare: Prepare) -> None:
    (prepare.folder / "files").mkdir()
    for image in range(IMAGES):
        features = {"image_feature": FEATURES[image].tolist()}
        (prepare.folder / "files" / f"{image}.pkl").write_bytes(pickle.dumps(features, protocol=4))
    assert_refused(prepare("files"), "0.pkl: image 0: features without boxes", "features_without_boxes")
    assert_done(prepare("files", features_without_boxes="whole-image"))
    with h5py.File(prepare.features) as file:
        assert (file["boxes"][:] == [0, 0, 1, 1]).all()
        np.testing.assert_array_equal(file["regions"][:], FEATURES.astype(np.float16))


def npy(header: str, content: bytes = b"") -> bytes:
    spelled = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(spelled)) + spelled + content


CLAIM = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 2048)}", b"few")
NEGATIVE = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 8)}", bytes(128))
PROGRAM = b"cos\nsystem\n(S'touch attacked'\ntR."
BUILT_IN = b"c__builtin__\neval\n(S\"open('attacked', 'w')\"\ntR."
MEMO = b"\x80\x02]r\xff\xff\xff\x7f."
LONG_BYTES = b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"."
NESTED = b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b"."
DOUBLED = b"\x80\x02]q\0(K\1K\1e" + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(60)) + b"."
ARRAY = pickle.dumps(np.ones((4, 8), np.float32), protocol=2)
CHANGED = b"\x80\x02c_codecs\nencode\n}(X\x08\0\0\0__code__K\1u\x86b."
HOSTILE: dict[str, tuple[str, bytes]] = {
    "a header that claims terabytes": ("npy", CLAIM),
    "a negative shape": ("npy", NEGATIVE),
    "a header that is no header": ("npy", npy("{'descr': __import__('os').system('touch attacked')}")),
    "objects that are a program": (
        "npy",
        npy("{'descr': '|O', 'fortran_order': False, 'shape': ()}", PROGRAM),
    ),
    "a program": ("pkl", PROGRAM),
    "a built-in": ("pkl", BUILT_IN),
    "a program under torch's ending": ("pth", PROGRAM),
    "a place of 16 GB among the known things": ("pkl", MEMO),
    "a petabyte of bytes": ("pkl", LONG_BYTES),
    "tuples in tuples": ("pkl", NESTED),
    "lists that double": ("pkl", DOUBLED),
    "an array with another shape": ("pkl", ARRAY.replace(b"K\x04K\x08", b"K\x08K\xff")),
    "a function that is changed": ("pkl", CHANGED),
    "an empty pickle": ("pkl", b""),
    "an empty npz": ("npz", b"PK\x05\x06" + bytes(18)),
    "half a zip": ("pth", b"PK\x03\x04half"),
    "no npz": ("npz", b"no npz"),
    "text": ("pickle", b"x" * 1000),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_file_of_an_image_is_named_and_runs_nothing(
    prepare: Prepare, tmp_path: Path, attack: str
) -> None:
    ending, content = HOSTILE[attack]
    source = prepare.folder / write_npz(prepare.folder, Given(PIXELS))
    (source / "3.npz").unlink()
    (source / f"3.{ending}").write_bytes(content)
    began = time.monotonic()
    assert_refused(prepare("files"), f"3.{ending}: image 3")
    assert time.monotonic() - began < 20
    assert not (tmp_path / "attacked").exists()
    assert not (prepare.folder / "attacked").exists()


def test_a_tensor_that_repeats_one_number_without_end_is_refused(prepare: Prepare) -> None:
    (prepare.folder / "files").mkdir()
    record = {"x": torch.ones(1, 1).expand(10_000, 1_000_000), "bbox": torch.zeros(10_000, 4)}
    torch.save(record, prepare.folder / "files" / "3.pth")
    assert_refused(prepare("files"), "3.pth: image 3: x: a tensor of [10000, 1000000] with too few values")


def external(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(FEATURES.tobytes())
    del file["features"]
    file.create_dataset("features", FEATURES.shape, "f4", external=[(str(folder / "secret"), 0, 10**6)])


def virtual(file: h5py.File, folder: Path) -> None:
    del file["features"]
    layout = h5py.VirtualLayout(FEATURES.shape, "f4")
    layout[:] = h5py.VirtualSource(str(folder / "gone.h5"), "features", FEATURES.shape)
    file.create_virtual_dataset("features", layout)


def linked(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["features"] = FEATURES
    del file["features"]
    file["features"] = h5py.ExternalLink(str(folder / "other.h5"), "features")


def claimed(name: str, *shape: int, dtype: str = "i8") -> Callable[[h5py.File, Path], None]:
    def claim(file: h5py.File, _: Path) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, shape, dtype, chunks=True)

    return claim


def replaced(name: str, array: Any) -> Callable[[h5py.File, Path], None]:
    def replace(file: h5py.File, _: Path) -> None:
        if name in file:
            del file[name]
        file[name] = array

    return replace


ARRAYS: dict[str, tuple[Callable[[h5py.File, Path], None], str]] = {
    "external storage": (external, "features is stored in other files"),
    "a virtual array without its source": (virtual, "features is stored in other files"),
    "a link to another file": (linked, "features is a link"),
    "ids that claim terabytes": (claimed("image_ids", 10**12), "image_ids claims 1,000,000,000,000 numbers"),
    "sizes that claim terabytes": (claimed("image_w", 10**13), "image_w claims 10,000,000,000,000 numbers"),
    "features never written": (claimed("features", 6, 5, 8, dtype="f4"), "features claims 240 numbers"),
    "features that claim terabytes": (claimed("features", 6, 10**6, 10**6, dtype="f4"), "features claims"),
    "two arrays of features": (replaced("image_features", FEATURES), "features and image_features, which mean"),
    "two arrays of ids": (replaced("ids", range(6)), "image_ids and ids, which mean the same"),
    "ids beyond int64": (
        replaced("image_ids", np.array([2**63, 1, 2, 3, 4, 5], np.uint64)),
        "image_ids holds a number beyond int64",
    ),
    "halves of ids": (replaced("image_ids", np.arange(6) / 2), "image_ids holds 0.5, not whole numbers"),
    "rounded ids": (replaced("image_ids", np.full(6, 2.0**24, np.float32)), "which are rounded"),
    "ids of another kind": (replaced("image_ids", np.array([b"\xff"] * 6, "V1")), "image_ids is not an array"),
    "ids that are no text": (replaced("image_ids", np.array([b"\xff\xfe"] * 6)), "no features for any of the 6"),
    "one side alone": (lambda file, _: file.__delitem__("image_h"), "holds image_w, but not the other of"),
    "sizes that are no numbers": (replaced("image_w", np.full(6, np.inf)), "image_w holds values that are not"),
    "one image twice, with others": (replaced("image_ids", [0, 1, 2, 3, 4, 4]), "is also in"),
}


@pytest.mark.parametrize("attack", ARRAYS)
def test_a_hostile_or_odd_array_file_is_named(prepare: Prepare, attack: str) -> None:
    change, message = ARRAYS[attack]
    write_hdf5(prepare.folder, Given(PIXELS))
    with h5py.File(prepare.folder / "f.h5", "r+") as file:
        change(file, prepare.folder)
    assert_refused(prepare("f.h5"), "f.h5", message)


@pytest.mark.parametrize("change", [external, virtual, linked, claimed("features", 6, 5, 8, dtype="f4")])
def test_our_own_form_is_not_trusted_more(prepare: Prepare, change: Callable[[h5py.File, Path], None]) -> None:
    assert_done(prepare(write_hdf5(prepare.folder, Given(PIXELS))))
    with h5py.File(prepare.features) as own, h5py.File(prepare.folder / "own.h5", "w") as file:
        for name in ("boxes", "counts", "image_ids"):
            own.copy(name, file)
        file.attrs["format"], file["features"] = 1, own["regions"][:]
        change(file, prepare.folder)
        file.move("features", "regions")
    assert_refused(prepare("own.h5"), "own.h5", "regions")


def test_a_map_and_ids_that_differ_are_refused_and_a_choice_among_maps_too(prepare: Prepare) -> None:
    write_hdf5(prepare.folder, Given(PIXELS))
    (prepare.folder / "f_imgid2idx.json").write_text(json.dumps({str(n): 5 - n for n in range(IMAGES)}))
    assert_refused(prepare("f.h5"), "its image_ids and", "differ")
    write_hdf5(prepare.folder, Given(PIXELS), ids="")
    (prepare.folder / "f_imgid2idx.pkl").write_bytes(pickle.dumps({n: n for n in range(IMAGES)}))
    assert_refused(prepare("f.h5"), "f_imgid2idx.json and f_imgid2idx.pkl", "differ")
    assert_done(prepare("f.h5::f_imgid2idx.pkl"))
    check(prepare)


def test_several_tables_or_forms_in_a_zip_are_never_chosen_from_in_silence(prepare: Prepare) -> None:
    table = (prepare.folder / write_tsv(prepare.folder, Given(PIXELS))).read_bytes()
    with zipfile.ZipFile(prepare.folder / "two.zip", "w") as archive:
        archive.writestr("f.tsv", table)
        archive.writestr("older/f.tsv", table)
    assert_refused(prepare("two.zip"), "two.zip: holds f.tsv, older/f.tsv; name one as")
    with zipfile.ZipFile(prepare.folder / "both.zip", "w") as archive:
        archive.writestr("f.tsv", table)
        archive.writestr("0.npz", b"")
    assert_refused(prepare("both.zip"), "both.zip: holds both f.tsv and 1 files such as 0.npz")


def test_equal_repeats_are_left_out_and_counted(prepare: Prepare) -> None:
    source = prepare.folder / write_tsv(prepare.folder, Given(PIXELS))
    source.write_text(source.read_text() * 2)
    assert_done(prepare("f.tsv"), "skipped 6 rows that repeat an image with the same features")
    check(prepare)


def test_features_of_zeros_are_told(prepare: Prepare) -> None:
    zeros = FEATURES.copy()
    zeros[4:] = 0
    assert_done(prepare(write_hdf5(prepare.folder, Given(PIXELS, features=zeros))), "2 of 6 images", "all 0")


@pytest.mark.parametrize("kind", ["pipe", "link that leads nowhere", "device"])
@pytest.mark.parametrize("place", ["f.tsv", "files", "f_imgid2idx.json", "vectors.txt", "names.txt"])
def test_what_is_no_file_is_never_opened(prepare: Prepare, kind: str, place: str) -> None:
    make: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "link that leads nowhere": lambda path: path.symlink_to("nowhere"),
        "device": lambda path: path.symlink_to("/dev/zero"),
    }
    source = "features.tsv"
    settings: dict[str, str] = {}
    path = prepare.folder / place
    if place == "f_imgid2idx.json":
        source = write_hdf5(prepare.folder, Given(PIXELS), ids="")
    elif place == "files":
        source, path = write_npz(prepare.folder, Given(PIXELS)), prepare.folder / "files" / "9.npz"
    elif place == "f.tsv":
        source = place
    else:
        settings = {("word_vectors" if place == "vectors.txt" else "object_names"): place}
    make[kind](path)
    if place == "f_imgid2idx.json" and kind.startswith("link"):
        return  # there is no map then
    assert_refused(prepare(source, **settings), str(path))


@pytest.mark.parametrize("ending", ["", "no line end "])
def test_word_vectors_without_line_ends_are_not_read_into_memory(prepare: Prepare, ending: str) -> None:
    with (prepare.folder / "v.txt").open("wb") as file:
        file.write(ending.encode())
        file.truncate(1 << 33)
    assert_refused(prepare("features.tsv", word_vectors="v.txt"), "v.txt, line 1: longer than 1 MB")


def test_a_table_without_line_ends_is_not_read_into_memory(prepare: Prepare) -> None:
    with (prepare.folder / "f.tsv").open("wb") as file:
        file.write(b"9\t640")
        file.truncate(1 << 33)
    assert_refused(prepare("f.tsv"), "f.tsv, line 1: longer than 64 MB: not a table of region features")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with one picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "COCO_val2014_000000000001.jpg")
    return folder


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("9.png", EPS),
        ("9.jpg", b"P6 8 8 255 " + bytes(192)),
        ("9.png", b"\x89PNG\r\n\x1a\n" + bytes(20)),
        ("9.bmp", b"BM" + bytes(60)),
        ("9.tiff", b"II*\0\x08\0\0\0" + b"\xff" * 60),
        ("9.gif", b"GIF89a" + b"\xff" * 20),
        ("9.webp", b"RIFF\x10\0\0\0WEBPVP8 "),
    ],
    ids=["eps", "ppm", "png", "bmp", "tiff", "gif", "webp"],
)
def test_only_images_of_the_kinds_that_are_meant_are_opened(pictures: Path, name: str, content: bytes) -> None:
    from vqabench.data.features.images import decode, list_images
    from vqabench.errors import InputError

    (pictures / name).write_bytes(content)
    found = list_images(pictures)
    assert decode(found[1]).size == (8, 8)
    with pytest.raises(InputError, match=rf"{name}: not an image"):
        decode(found[9])


def test_a_picture_that_unpacks_to_gigabytes_is_refused(pictures: Path) -> None:
    from vqabench.data.features.images import decode, list_images
    from vqabench.errors import InputError

    size = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + size + struct.pack(">I", zlib.crc32(size))
    (pictures / "9.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13))
    found = list_images(pictures)
    with pytest.raises(InputError, match=r"9\.png: not an image, or a damaged one: .*bomb"):
        decode(found[9])


def test_companions_are_passed_over_other_kinds_told_and_pipes_refused(pictures: Path) -> None:
    from vqabench.data.features.images import list_images
    from vqabench.errors import InputError

    (pictures / "._COCO_val2014_000000000001.jpg").write_bytes(b"\0")
    (pictures / "2.heic").write_bytes(b"\0")
    (pictures / ".ipynb_checkpoints").mkdir()
    (pictures / ".ipynb_checkpoints" / "x-checkpoint.jpg").write_bytes(b"\0")
    said: list[str] = []
    assert list(list_images(pictures, said.append)) == [1]
    assert said == [f"{pictures}: files of other kinds are skipped: 1 .heic"]
    os.mkfifo(pictures / "3.png")
    with pytest.raises(InputError, match=r"3\.png: is a pipe, a device"):
        list_images(pictures)


@pytest.mark.parametrize("fault", ["truncated", "overwritten"])
def test_features_that_change_while_a_run_trains_end_it_in_a_line(trial: Trial, fault: str) -> None:
    options = ("--epochs", "100000", "--set", "hidden=8", "--set", "embedding=8", "--features", "disk")
    command = trial.command("train", "updn", *trial.data, *options)
    with (trial.folder / "err").open("w") as err:
        process = subprocess.Popen(command, cwd=trial.folder, env=trial.environment, stdout=err, stderr=err)
        while "epoch 2/" not in (trial.folder / "err").read_text():
            assert process.poll() is None, (trial.folder / "err").read_text()
            time.sleep(0.05)
        features = trial.folder / "data" / "tiny" / "features.h5"
        with features.open("r+b") as file:
            if fault == "truncated":
                file.truncate(100)
            else:
                file.seek(features.stat().st_size // 2)
                file.write(b"other")
        assert process.wait(timeout=120) == 1
    message = (trial.folder / "err").read_text()
    assert "features.h5: changed while it was in use" in message
    assert "Traceback" not in message
    assert '"failed"' in (trial.runs("updn")[0] / "run.json").read_text()
    if fault == "overwritten":  # one that was cut short is prepared again
        again = trial.cli("train", "updn", *trial.data, *options, "--resume")
        assert_refused(again, "features.h5: its content has changed")


def test_features_that_change_between_runs_are_noticed(trial: Trial, cli: CommandLine) -> None:
    def train(seed: int) -> subprocess.CompletedProcess[str]:
        sizes = ("--set", "hidden=8", "--set", "embedding=8")
        return cli("train", "updn", *trial.data, "--epochs", "1", *sizes, "--seeds", str(seed))

    assert_done(train(0))
    features = trial.folder / "data" / "tiny" / "features.h5"
    os.utime(features)  # touched, and the same
    assert_done(train(1))
    with features.open("r+b") as file:
        file.seek(features.stat().st_size // 2)
        file.write(b"other")
    assert_refused(train(2), "features.h5: its content has changed")
    features.unlink()
    assert_done(train(2))
