"""The files that region features come in: TSV of two kinds, and our own HDF5.

The two kinds of TSV are told apart by their number of columns: the original bottom-up one (image_id, image_w,
image_h, num_boxes, boxes, features) and LXMERT's (img_id, img_h, img_w, objects_id, objects_conf, attrs_id,
attrs_conf, num_boxes, boxes, features). Arrays stand in them in base64.
"""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pybase64
from numpy.typing import NDArray

from vqabench.data.annotations import ImageId
from vqabench.data.features import FeatureStore, open_features
from vqabench.errors import InputError, first_few


@dataclass(frozen=True)
class Regions:
    """The n regions of one image."""

    regions: NDArray[np.float16]
    """[n, V], finite"""
    boxes: NDArray[np.float32]
    """[n, 4] in [0, 1]"""
    object_ids: NDArray[np.integer[Any]] | None
    """[n]"""


@dataclass(frozen=True)
class Row:
    """One image of a source, not decoded yet."""

    image_id: ImageId
    count: int
    where: str
    names_objects: bool
    decode: Callable[[], Regions]


def read_rows(sources: Sequence[Path], wanted: Collection[ImageId]) -> Iterator[Row]:
    """Give the wanted images of all sources."""
    for source in sources:
        yield from _hdf5_rows(source, wanted) if _magic(source) == b"\x89HDF" else _tsv_rows(source, wanted)


def _hdf5_rows(source: Path, wanted: Collection[ImageId]) -> Iterator[Row]:
    store = open_features(source)
    named = store.object_ids is not None
    for number, (image_id, count) in enumerate(zip(store.image_ids.tolist(), store.counts.tolist(), strict=True)):
        if image_id in wanted:
            where = f"{source}, row {number}"
            yield Row(image_id, count, where, named, partial(_take, store, number, f"{where}: image {image_id}"))


def _take(store: FeatureStore, number: int, what: str) -> Regions:
    count = store.counts[number]
    regions, boxes = store.regions[number, :count], store.boxes[number, :count]
    if not np.isfinite(regions).all() or not ((boxes >= 0) & (boxes <= 1)).all():
        raise InputError(f"{what}: has features that are not finite, or boxes outside [0, 1]")
    return Regions(regions, boxes, None if store.object_ids is None else store.object_ids[number, :count])


def _tsv_rows(source: Path, wanted: Collection[ImageId]) -> Iterator[Row]:
    for columns, where in _lines(source):
        image_id = _image_id(columns[0], wanted)
        if image_id in wanted:
            count = _whole_number(columns[3 if len(columns) == 6 else 7], where)
            what = f"{where}: image {image_id}"
            yield Row(image_id, count, where, len(columns) == 10, partial(_parse, columns, count, what))


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
                if columns == [b""]:
                    continue
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


def _parse(columns: Sequence[bytes], count: int, what: str) -> Regions:
    """Read a row: the size comes as width, height in one kind and as height, width in the other."""
    first, second = (_whole_number(column, what) for column in columns[1:3])
    width, height = (first, second) if len(columns) == 6 else (second, first)
    boxes = _floats(columns[-2], count, what, "boxes", width=4)
    # Detectors put a border a fraction of a pixel outside.
    shares = np.clip(boxes / np.array([width, height, width, height], np.float32), 0, 1).astype(np.float32)
    objects = None
    if len(columns) == 10:
        objects = _numbers(columns[3], np.int64, count, what, "objects_id", width=1)[:, 0]
    return Regions(_half(_floats(columns[-1], count, what, "features"), what), shares, objects)


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
