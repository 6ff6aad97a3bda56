"""Region features: `features.h5`, which is memory-mapped, and the TSV files that it is made of.

Two kinds of TSV are read, told apart by their number of columns: the original bottom-up one (image_id,
image_w, image_h, num_boxes, boxes, features) and LXMERT's (img_id, img_h, img_w, objects_id, objects_conf,
attrs_id, attrs_conf, num_boxes, boxes, features). Arrays stand in them in base64. Files may be plain,
`.gz`, or inside `.zip` (`F.zip::MEMBER` where the archive holds several).
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import pybase64
from numpy.typing import NDArray

from vqabench.data.annotations import ImageId
from vqabench.errors import InputError, VqabenchError, first_few
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
                f"{len(missing)} images have no features (ids {first_few(missing)}); add files of features, "
                'or set images_without_features = "skip" in the catalogue'
            )
        return np.array([known[image_id] for image_id in image_ids], np.int64)


@dataclass(frozen=True)
class _Regions:
    """The n regions of one image."""

    regions: NDArray[np.float16]
    """[n, V], finite"""
    boxes: NDArray[np.float32]
    """[n, 4] in [0, 1]"""
    object_ids: NDArray[np.integer[Any]] | None
    """[n]"""


@dataclass(frozen=True)
class _Row:
    """One image of a source, not decoded yet."""

    image_id: ImageId
    count: int
    where: str
    decode: Callable[[], _Regions]


def write_features(
    path: Path,
    *,
    regions: NDArray[np.float16],
    boxes: NDArray[np.float32],
    counts: NDArray[np.int32],
    image_ids: NDArray[Any],
    object_ids: NDArray[np.int32] | None = None,
) -> None:
    """Write the features of N images; shapes as in FeatureStore."""

    def write(part: Path) -> None:
        with h5py.File(part, "w") as file:
            _write_ids(file, image_ids.tolist())
            file["regions"], file["boxes"], file["counts"] = regions, boxes, counts
            if object_ids is not None:
                file["object_ids"] = object_ids

    write_through(path, write)


def _write_ids(file: h5py.File, image_ids: Sequence[ImageId]) -> None:
    numeric = all(isinstance(image_id, int) for image_id in image_ids)
    if not numeric and any(isinstance(image_id, int) for image_id in image_ids):
        raise InputError("image ids must be all whole numbers or all text, not some of each")
    file.attrs["format"] = FORMAT
    file.create_dataset("image_ids", data=list(image_ids), dtype=np.int64 if numeric else h5py.string_dtype())


def open_features(path: Path) -> FeatureStore:
    """Map a features file into memory. Raises InputError where it is missing, damaged or of another form."""
    try:
        with h5py.File(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"{path}: not a features file of format {FORMAT}; prepare the data again")
            ids = file["image_ids"]
            store = FeatureStore(
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
    _check_form(path, store)
    return store


def _check_form(path: Path, store: FeatureStore) -> None:
    """Raise InputError unless types and shapes are those that FeatureStore promises."""
    if store.regions.dtype != np.float16 or store.regions.ndim != 3:
        raise InputError(f"{path}: regions must be float16 [images, R, V], not {_form(store.regions)}")
    images, regions, _ = store.regions.shape
    expected: list[tuple[str, NDArray[Any] | None, type, tuple[int, ...]]] = [
        ("boxes", store.boxes, np.float32, (images, regions, 4)),
        ("counts", store.counts, np.integer, (images,)),
        ("image_ids", store.image_ids, np.generic, (images,)),
        ("object_ids", store.object_ids, np.integer, (images, regions)),
    ]
    for name, array, dtype, shape in expected:
        if array is not None and (array.shape != shape or not np.issubdtype(array.dtype, dtype)):
            raise InputError(f"{path}: {name} must be {dtype.__name__} {list(shape)}, not {_form(array)}")
    if images and not 1 <= store.counts.min() <= store.counts.max() <= regions:
        raise InputError(f"{path}: counts must be from 1 to {regions}, the regions there is room for")


def _form(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _map(path: Path, dataset: h5py.Dataset) -> NDArray[Any]:
    """Map a contiguous data set; the file is then shared by all processes, and read page by page."""
    offset = dataset.id.get_offset()
    if offset is None:  # chunked or compressed: it can only be read whole
        array: NDArray[Any] = dataset[:]
        return array
    # Copy on write: PyTorch takes writable arrays only, and nothing ever reaches the file.
    return np.memmap(path, dataset.dtype, "c", offset, dataset.shape)


def convert_features(sources: Sequence[Path], destination: Path, wanted: Collection[ImageId]) -> None:
    """Gather the features of the wanted images from TSV or our own HDF5 files.

    Raises InputError, naming file and line, where a row is broken, a number is not finite, widths differ or
    an image comes twice.
    """
    wanted = set(wanted)
    counts = _survey(sources, wanted)
    if not counts:
        raise InputError(f"{first_few(sources)}: features of none of the {len(wanted)} images asked about")
    write_through(destination, lambda part: _fill(part, _rows(sources, wanted), counts))


def _survey(sources: Sequence[Path], wanted: Collection[ImageId]) -> dict[ImageId, int]:
    """Count the regions of every wanted image, without decoding its features."""
    counts: dict[ImageId, int] = {}
    seen: dict[ImageId, str] = {}
    for row in _rows(sources, wanted):
        if row.image_id in seen:
            raise InputError(f"{row.where}: image {row.image_id} has come before, in {seen[row.image_id]}")
        counts[row.image_id] = row.count
        seen[row.image_id] = row.where
    return counts


def _fill(part: Path, rows: Iterator[_Row], counts: dict[ImageId, int]) -> None:
    """Write image after image into arrays whose shape the survey gave, mapped into memory."""
    mapped: dict[str, NDArray[Any]] = {}
    for number, row in enumerate(rows):
        image = row.decode()
        mapped = mapped or _allocate(part, counts, image)
        width = mapped["regions"].shape[2]
        if image.regions.shape[1] != width:
            raise InputError(f"{row.where}: features {image.regions.shape[1]} wide, but {width} before")
        if ("object_ids" in mapped) != (image.object_ids is not None):
            raise InputError(f"{row.where}: only some sources name the objects; use sources of one kind")
        mapped["regions"][number, : row.count] = image.regions
        mapped["boxes"][number, : row.count] = image.boxes
        if image.object_ids is not None:
            mapped["object_ids"][number, : row.count] = image.object_ids


def _allocate(part: Path, counts: dict[ImageId, int], first: _Regions) -> dict[str, NDArray[Any]]:
    """Lay a features file out, contiguous and all zero, and map its large arrays."""
    shape = (len(counts), max(counts.values()))
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {
        "regions": ((*shape, first.regions.shape[1]), np.float16),
        "boxes": ((*shape, 4), np.float32),
    }
    if first.object_ids is not None:
        arrays["object_ids"] = (shape, np.int32)
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_obj_track_times(False)  # the same images make the same bytes
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    with h5py.File(part, "w") as file:
        _write_ids(file, list(counts))
        file["counts"] = np.array(list(counts.values()), np.int32)
        for name, (size, dtype) in arrays.items():
            space = h5py.h5s.create_simple(size)
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, early)
        offsets = {name: file[name].id.get_offset() for name in arrays}
    _reserve(part)
    return {name: np.memmap(part, dtype, "r+", offsets[name], size) for name, (size, dtype) in arrays.items()}


def _reserve(part: Path) -> None:
    """Take the file's space on the disk: where it runs out under a map, the process is killed by SIGBUS."""
    size = part.stat().st_size
    try:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise VqabenchError(f"{part.parent}: no room for {size / 1e9:.1f} GB of features: {error}") from error


def _rows(sources: Sequence[Path], wanted: Collection[ImageId]) -> Iterator[_Row]:
    """Give the wanted images of all sources."""
    for source in sources:
        yield from _hdf5_rows(source, wanted) if _magic(source) == b"\x89HDF" else _tsv_rows(source, wanted)


def _hdf5_rows(source: Path, wanted: Collection[ImageId]) -> Iterator[_Row]:
    store = open_features(source)
    for number, (image_id, count) in enumerate(zip(store.image_ids.tolist(), store.counts.tolist(), strict=True)):
        if image_id in wanted:
            where = f"{source}, row {number}"
            yield _Row(image_id, count, where, partial(_take, store, number, f"{where}: image {image_id}"))


def _take(store: FeatureStore, number: int, what: str) -> _Regions:
    count = store.counts[number]
    regions, boxes = store.regions[number, :count], store.boxes[number, :count]
    if not np.isfinite(regions).all() or not ((boxes >= 0) & (boxes <= 1)).all():
        raise InputError(f"{what}: has features that are not finite, or boxes outside [0, 1]")
    return _Regions(regions, boxes, None if store.object_ids is None else store.object_ids[number, :count])


def _tsv_rows(source: Path, wanted: Collection[ImageId]) -> Iterator[_Row]:
    for columns, where in _lines(source):
        image_id = _image_id(columns[0], wanted)
        if image_id in wanted:
            count = _whole_number(columns[3 if len(columns) == 6 else 7], where)
            yield _Row(image_id, count, where, partial(_parse, columns, count, f"{where}: image {image_id}"))


def _magic(source: Path) -> bytes:
    """Give a file's first four bytes."""
    name = str(source).partition("::")[0]
    try:
        with Path(name).open("rb") as stream:
            return stream.read(4)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such features file") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error}") from error


def _lines(source: Path) -> Iterator[tuple[list[bytes], str]]:
    """Give each line's columns, and where it stands."""
    where = f"{source}, line 1"
    try:
        with _open(source) as lines:
            for number, line in enumerate(lines, 1):
                where = f"{source}, line {number}"
                columns = line.rstrip(b"\r\n").split(b"\t")
                if len(columns) not in (6, 10):
                    raise InputError(f"{where}: {len(columns)} columns, but bottom-up has 6 and LXMERT 10")
                yield columns, where
                where = f"{source}, line {number + 1}"
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{where}: the file breaks off or is damaged: {error}") from error


def _open(source: Path) -> IO[bytes]:
    name, _, member = str(source).partition("::")
    magic = _magic(source)
    if magic == b"PK\x03\x04":
        return _open_member(name, member)
    return gzip.open(name) if magic[:2] == b"\x1f\x8b" else Path(name).open("rb")  # type: ignore[return-value]


def _open_member(name: str, member: str) -> IO[bytes]:
    with zipfile.ZipFile(name) as archive:  # stays open for as long as its member is
        members = [one for one in archive.namelist() if ".tsv" in one and "__MACOSX" not in one]
        chosen = [one for one in members if member in ("", one)]
        if len(chosen) != 1:
            raise InputError(f"{name}: holds {first_few(members) or 'no .tsv'}; name one as {name}::MEMBER")
        return archive.open(chosen[0])


def _image_id(text: bytes, wanted: Collection[ImageId]) -> ImageId:
    """Give the name if it is wanted as it is, else the number that it is, or that ends one of COCO's."""
    name = text.decode("utf-8", "replace")
    match = re.fullmatch(r"(?:COCO_\w+?_)?(\d+)", name)
    return int(match[1]) if match and name not in wanted else name


def _whole_number(text: bytes, where: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise InputError(f"{where}: {text[:20].decode('utf-8', 'replace')!r} is no positive whole number")
    return int(text)


def _parse(columns: Sequence[bytes], count: int, what: str) -> _Regions:
    """Read a row: the size comes as width, height in one kind and as height, width in the other."""
    first, second = (_whole_number(column, what) for column in columns[1:3])
    width, height = (first, second) if len(columns) == 6 else (second, first)
    boxes = _floats(columns[-2], count, what, "boxes", width=4)
    # Detectors put a border a fraction of a pixel outside.
    shares = np.clip(boxes / np.array([width, height, width, height], np.float32), 0, 1).astype(np.float32)
    objects = None
    if len(columns) == 10:
        objects = _numbers(columns[3], np.int64, count, what, "objects_id", width=1)[:, 0]
    return _Regions(_half(_floats(columns[-1], count, what, "features"), what), shares, objects)


def _half(regions: NDArray[np.float32], what: str) -> NDArray[np.float16]:
    largest = float(np.abs(regions).max())
    if largest > float(np.finfo(np.float16).max):
        raise InputError(f"{what}: has a feature of {largest:.3g}, beyond float16")
    return regions.astype(np.float16)


def _floats(text: bytes, count: int, what: str, name: str, width: int | None = None) -> NDArray[np.float32]:
    numbers: NDArray[np.float32] = _numbers(text, np.float32, count, what, name, width)
    if not np.isfinite(numbers).all():
        raise InputError(f"{what}: has {name} that are not finite")
    return numbers


def _numbers(text: bytes, dtype: type, count: int, what: str, name: str, width: int | None = None) -> NDArray[Any]:
    """Decode `count` rows of numbers, of one width or of any."""
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"{what}: {name}: broken base64 ({error}): truncated?") from error
    found, rest = divmod(len(data), np.dtype(dtype).itemsize * count)
    if rest or found != (width or max(1, found)):
        raise InputError(f"{what}: {len(data)} bytes of {name} do not make {count} rows: truncated?")
    return np.frombuffer(data, dtype).reshape(count, found)
