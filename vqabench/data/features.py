"""Region features: `features.h5`, which is memory-mapped, and the TSV files that it is made of.

Two kinds of TSV are read, told apart by their number of columns: the original bottom-up one (image_id,
image_w, image_h, num_boxes, boxes, features) and LXMERT's (img_id, img_h, img_w, objects_id, objects_conf,
attrs_id, attrs_conf, num_boxes, boxes, features). Arrays stand in them in base64.
"""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import pybase64
from numpy.typing import NDArray

from vqabench.data.annotations import ImageId
from vqabench.errors import InputError, first_few
from vqabench.results import write_through

FORMAT = 1


@dataclass(frozen=True)
class FeatureStore:
    """The region features of N images, memory-mapped."""

    regions: NDArray[np.float16]
    """[N, R, V]; zero behind an image's last region."""
    boxes: NDArray[np.float32]
    """[N, R, 4]: left, top, right, bottom in [0, 1], as shares of the image's width and height."""
    counts: NDArray[np.int32]
    """[N]: regions of each image, at least 1."""
    image_ids: NDArray[Any]
    """[N]: int64, or strings."""
    object_ids: NDArray[np.int32] | None = None
    """[N, R]: the class of each region, where the source names it."""

    def rows(self, image_ids: Sequence[ImageId]) -> NDArray[np.int64]:
        """Give the rows of some images. Raises InputError, naming the first, where some have no features."""
        known = {image_id: row for row, image_id in enumerate(self.image_ids.tolist())}
        missing = dict.fromkeys(image_id for image_id in image_ids if image_id not in known)
        if missing:
            raise InputError(
                f"{len(missing)} images have no features (ids {first_few(missing)}); add files of features, or set "
                'images_without_features = "skip" in the catalogue'
            )
        return np.array([known[image_id] for image_id in image_ids], np.int64)


@dataclass(frozen=True)
class _Image:
    """One row of a source."""

    image_id: ImageId
    regions: NDArray[np.float32]
    """[n, V]"""
    boxes: NDArray[np.float32]
    """[n, 4] in [0, 1]"""
    object_ids: NDArray[np.int64] | None
    where: str


def write_features(
    path: Path,
    *,
    regions: NDArray[np.float16],
    boxes: NDArray[np.float32],
    counts: NDArray[np.int32],
    image_ids: NDArray[Any],
) -> None:
    """Write the features of N images; shapes as in FeatureStore."""

    def write(part: Path) -> None:
        with h5py.File(part, "w") as file:
            file.attrs["format"] = FORMAT
            file["regions"], file["boxes"], file["counts"] = regions, boxes, counts
            file["image_ids"] = image_ids

    write_through(path, write)


def open_features(path: Path) -> FeatureStore:
    """Map a features file into memory. Raises InputError where it is missing, damaged or of another form."""
    try:
        with h5py.File(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"{path}: not a features file of format {FORMAT}; prepare the data again")
            ids = file["image_ids"]
            return FeatureStore(
                regions=_map(path, file["regions"]),
                boxes=_map(path, file["boxes"]),
                counts=file["counts"][:],
                image_ids=ids.asstr()[:] if h5py.check_string_dtype(ids.dtype) else ids[:],
                object_ids=file["object_ids"][:] if "object_ids" in file else None,
            )
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such features file") from None
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: not a features file, or a damaged one: {error}") from error


def _map(path: Path, dataset: h5py.Dataset) -> NDArray[Any]:
    """Map a contiguous data set; the file is then shared by all processes, and read page by page."""
    offset = dataset.id.get_offset()
    if offset is None:  # chunked or compressed: it can only be read whole
        array: NDArray[Any] = dataset[:]
        return array
    # Copy on write: PyTorch takes writable arrays only, and nothing ever reaches the file.
    return np.memmap(path, dataset.dtype, "c", offset, dataset.shape)


def convert_features(sources: Sequence[Path], destination: Path, wanted: Collection[ImageId]) -> None:
    """Gather the features of the wanted images from TSV (plain or `.gz`) or our own HDF5 files.

    Raises InputError, naming file and line, where a row is broken, a number is not finite, widths differ or
    an image comes twice.
    """
    wanted = set(wanted)
    sizes = _survey(sources, wanted)
    if not sizes:
        raise InputError(f"{first_few(sources)}: features of none of the {len(wanted)} images asked about")
    write_through(destination, lambda part: _fill(part, sources, wanted, sizes))


def _survey(sources: Sequence[Path], wanted: Collection[ImageId]) -> dict[ImageId, int]:
    """Count the regions of every wanted image, without decoding its features."""
    sizes: dict[ImageId, int] = {}
    for source in sources:
        for image_id, count, where in _list_images(source):
            if image_id not in wanted:
                continue
            if image_id in sizes:
                raise InputError(f"{where}: image {image_id} has come before")
            sizes[image_id] = count
    return sizes


def _list_images(source: Path) -> Iterator[tuple[ImageId, int, str]]:
    if _is_hdf5(source):
        store = open_features(source)
        for row, (image_id, count) in enumerate(zip(store.image_ids.tolist(), store.counts.tolist(), strict=True)):
            yield image_id, count, f"{source}, row {row}"
    else:
        for columns, where in _tsv_rows(source):
            yield _image_id(columns[0]), _whole_number(columns[_count_column(columns)], where), where


def _fill(part: Path, sources: Sequence[Path], wanted: Collection[ImageId], sizes: dict[ImageId, int]) -> None:
    """Write image after image into arrays whose shape the survey gave, mapped into memory."""
    images = (image for source in sources for image in _read_images(source) if image.image_id in wanted)
    first = next(images)
    _allocate(part, sizes, first)
    with h5py.File(part) as file:
        arrays = {name: (file[name].id.get_offset(), file[name].dtype, file[name].shape) for name in file}
    mapped = {
        name: np.memmap(part, dtype, "r+", offset, shape)
        for name, (offset, dtype, shape) in arrays.items()
        if name in ("regions", "boxes", "object_ids")
    }
    width = first.regions.shape[1]
    for row, image in enumerate(itertools.chain([first], images)):
        count = len(image.regions)
        if image.regions.shape[1] != width:
            raise InputError(f"{image.where}: features {image.regions.shape[1]} wide, but {width} before")
        if ("object_ids" in mapped) != (image.object_ids is not None):
            raise InputError(f"{image.where}: only some sources name the objects; use sources of one kind")
        mapped["regions"][row, :count] = _to_half(image)
        mapped["boxes"][row, :count] = image.boxes
        if image.object_ids is not None:
            mapped["object_ids"][row, :count] = image.object_ids


def _allocate(part: Path, sizes: dict[ImageId, int], first: _Image) -> None:
    """Lay a features file out: contiguous, all zero, its space taken at once."""
    shape = (len(sizes), max(sizes.values()))
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    with h5py.File(part, "w") as file:
        file.attrs["format"] = FORMAT
        numeric = all(isinstance(image_id, int) for image_id in sizes)
        file.create_dataset("image_ids", data=list(sizes), dtype=np.int64 if numeric else h5py.string_dtype())
        file["counts"] = np.array(list(sizes.values()), np.int32)
        arrays: dict[str, tuple[tuple[int, ...], Any]] = {
            "regions": ((*shape, first.regions.shape[1]), np.float16),
            "boxes": ((*shape, 4), np.float32),
        }
        if first.object_ids is not None:
            arrays["object_ids"] = (shape, np.int32)
        for name, (size, dtype) in arrays.items():
            space = h5py.h5s.create_simple(size)
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, early)


def _to_half(image: _Image) -> NDArray[np.float16]:
    if not np.isfinite(image.regions).all() or not np.isfinite(image.boxes).all():
        raise InputError(f"{image.where}: image {image.image_id} has features or boxes that are not finite")
    largest = float(np.abs(image.regions).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise InputError(f"{image.where}: image {image.image_id} has a feature of {largest:.3g}, beyond float16")
    return image.regions.astype(np.float16)


def _read_images(source: Path) -> Iterator[_Image]:
    if not _is_hdf5(source):
        for columns, where in _tsv_rows(source):
            yield _parse(columns, where)
        return
    store = open_features(source)
    for row, (image_id, count) in enumerate(zip(store.image_ids.tolist(), store.counts.tolist(), strict=True)):
        yield _Image(
            image_id,
            store.regions[row, :count],  # type: ignore[arg-type]
            store.boxes[row, :count],
            None if store.object_ids is None else store.object_ids[row, :count].astype(np.int64),
            f"{source}, row {row}",
        )


def _is_hdf5(source: Path) -> bool:
    if not source.is_file():
        raise InputError(f"{source}: there is no such features file")
    with source.open("rb") as stream:
        return stream.read(4) == b"\x89HDF"


def _tsv_rows(source: Path) -> Iterator[tuple[list[bytes], str]]:
    """Give each line's columns, and where it stands."""
    where = f"{source}, line 1"
    try:
        with _open(source) as lines:
            for number, line in enumerate(lines, 1):
                where = f"{source}, line {number}"
                columns = line.rstrip(b"\r\n").split(b"\t")
                if len(columns) not in (6, 10):
                    raise InputError(f"{where}: {len(columns)} columns, but 6 (bottom-up) or 10 (LXMERT) expected")
                yield columns, where
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{where}: the file breaks off or is damaged: {error}") from error


def _open(source: Path) -> IO[bytes]:
    with source.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
    return gzip.open(source) if gzipped else source.open("rb")  # type: ignore[return-value]


def _count_column(columns: Sequence[bytes]) -> int:
    return 3 if len(columns) == 6 else 7


def _image_id(text: bytes) -> ImageId:
    """Give the number at the end of COCO's names, or the number, or the name itself."""
    name = text.decode("utf-8", "replace")
    match = re.fullmatch(r"(?:COCO_\w+?_)?0*(\d+)", name)
    return int(match[1]) if match else name


def _whole_number(text: bytes, where: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise InputError(f"{where}: {text[:20].decode('utf-8', 'replace')!r} is no positive whole number")
    return int(text)


def _parse(columns: Sequence[bytes], where: str) -> _Image:
    """Read a row: the size comes as width, height in one kind and as height, width in the other."""
    first, second = (_whole_number(column, where) for column in columns[1:3])
    width, height = (first, second) if len(columns) == 6 else (second, first)
    count = _whole_number(columns[_count_column(columns)], where)
    boxes = _floats(columns[-2], count, where, "boxes")
    if boxes.shape[1] != 4:
        raise InputError(f"{where}: boxes with {boxes.shape[1]} numbers each, not 4")
    shares = np.clip(boxes / np.array([width, height, width, height], np.float32), 0, 1).astype(np.float32)
    objects = None
    if len(columns) == 10:
        objects = np.frombuffer(_base64(columns[3], where, "objects_id"), np.int64)
        if len(objects) != count:
            raise InputError(f"{where}: {len(objects)} objects_id for {count} boxes")
    return _Image(_image_id(columns[0]), _floats(columns[-1], count, where, "features"), shares, objects, where)


def _floats(text: bytes, count: int, where: str, name: str) -> NDArray[np.float32]:
    data = _base64(text, where, name)
    if len(data) == 0 or len(data) % (4 * count) != 0:
        raise InputError(f"{where}: {len(data)} bytes of {name} do not make {count} rows of float32: truncated?")
    return np.frombuffer(data, np.float32).reshape(count, -1)


def _base64(text: bytes, where: str, name: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"{where}: {name}: broken base64 ({error}): truncated?") from error
