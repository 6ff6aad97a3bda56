"""Read region features from TSV tables, plain, gzip or inside zip.

The number of columns distinguishes two kinds: the original bottom-up one (image_id, image_w, image_h,
num_boxes, boxes, features) and that with objects and attributes (img_id, img_h, img_w, objects_id, objects_conf,
attrs_id, attrs_conf, num_boxes, boxes, features). Arrays are in base64.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pybase64
from numpy.typing import NDArray

from vqabench.data.features.boxes import COLUMNS, check_float32, share_boxes
from vqabench.data.features.names import Finder
from vqabench.data.features.regions import LONGEST_SIDE, MOST_REGIONS, RegionRow, Regions, check_count, refuse
from vqabench.errors import InputError
from vqabench.files.packed import UNREADABLE, is_packed, open_packed, split_member

LONGEST_LINE = 1 << 26
"""Bytes; 100 regions of width 2048 take a sixtieth of that. A file of another kind may have no line ends at all."""
BLOCK = 1 << 20
"""Bytes, more than Python reads at once by default: a line takes 400 kB."""
PACKED_BLOCK = 1 << 16
"""Bytes, less than a row, so that damage is reported with its line."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SHOWN = 20
"""Characters of a broken column that a message shows."""


def read_table(source: Path, find: Finder) -> Iterator[RegionRow]:
    """Yield the wanted images of a table, and every line that lacks columns, since its image is not known.

    Raises InputError if the file is truncated or not such a table.
    """
    for line, where in _lines(source):
        # The last column is nearly the whole line, so it is not copied, and found from the end.
        last = line.rfind(b"\t") + 1
        columns = line[:last].split(b"\t")
        name = _unquote(columns[0]).decode("utf-8", "replace")
        if len(columns) not in (6, 10):
            message = "columns, but bottom-up has 6, and with objects and attributes 10: truncated?"
            yield RegionRow(name[:SHOWN], where, partial(refuse, f"{where}: {len(columns)} {message}"))
        elif not name or not name.isprintable():
            message = f"{where}: {name[:SHOWN]!r} is not the name of an image"
            yield RegionRow(name[:SHOWN], where, partial(refuse, message))
        elif (image_id := find(name)) is not None:
            end = -2 if line.endswith(b"\r\n") else -1 if line.endswith(b"\n") else None
            features = memoryview(line)[last:end]
            if bytes(features[:1]) == b"b":
                features = memoryview(_unquote(bytes(features)))
            columns = [_unquote(column) for column in columns[:-1]]
            yield RegionRow(image_id, where, partial(_parse, columns, features, f"{where}: image {image_id}"))


def _unquote(column: bytes) -> bytes:
    """Strip the quotes of `b'...'`, which Python 3 writes for bytes."""
    column = column.strip()
    quoted = len(column) > 2 and column[:2] in (b"b'", b'b"') and column[-1:] == column[1:2]
    return column[2:-1] if quoted else column


def _lines(source: Path) -> Iterator[tuple[bytes, str]]:
    """Yield each line that is not empty, and its place for messages."""
    where = f"{source}, line 1"
    try:
        block = PACKED_BLOCK if is_packed(split_member(source)[0]) else BLOCK
        with (
            open_packed(source, ".tsv", unless="") as stream,  # of several tables, none is chosen in silence
            io.BufferedReader(cast(io.RawIOBase, stream), block) as lines,
        ):
            for number, line in enumerate(iter(partial(lines.readline, LONGEST_LINE), b""), 1):
                where = f"{source}, line {number}"
                if len(line) == LONGEST_LINE:
                    raise InputError(
                        f"{where}: longer than {LONGEST_LINE >> 20} MB: not a table of region features"
                    )
                if number == 1:
                    line = _check_encoding(line, source)
                if line not in (b"\n", b"\r\n"):
                    yield line, where
                where = f"{source}, line {number + 1}"
    except UNREADABLE as error:
        raise InputError(f"{where}: truncated or damaged: {error}") from error


def _check_encoding(line: bytes, source: Path) -> bytes:
    """Drop the byte order mark of UTF-8. Raises InputError if the line is in UTF-16, or binary."""
    if line.startswith(UTF_16) or line[1::2].count(0) > len(line) // 4 or line[::2].count(0) > len(line) // 4:
        raise InputError(f"{source}: is in UTF-16, or binary; save it as plain text (ASCII or UTF-8)")
    return line.removeprefix(codecs.BOM_UTF8)


def _parse(columns: Sequence[bytes], features: memoryview, what: str) -> Regions:
    """Read a row: the size comes as width, height in one kind and as height, width in the other."""
    named = len(columns) == 9
    sides = ("img_h", "img_w") if named else ("image_w", "image_h")
    first, second = (
        _whole_number(column, LONGEST_SIDE, f"{what}: {side}")
        for column, side in zip(columns[1:3], sides, strict=True)
    )
    count = _whole_number(columns[-2], MOST_REGIONS, f"{what}: num_boxes")
    boxes = _decode_boxes(columns[-1], count, what)
    ids: list[NDArray[np.int32] | None] = [None, None]
    if named:
        ids = [
            _class_ids(columns[place], count, what, name) for place, name in ((3, "objects_id"), (5, "attrs_id"))
        ]
    content = _decode(features, what, "features")
    regions = _split(content, np.float32, count, what, "features")
    check_float32(content, count, what)
    shares, pixels = share_boxes(boxes, (second, first) if named else (first, second), what)
    return Regions(regions, shares, ids[0], ids[1], pixels=pixels)


def _whole_number(text: bytes, most: int, what: str) -> int:
    if not text.isdigit() or len(text) > len(str(most)):
        shown = text[:SHOWN].decode("utf-8", "replace")
        raise InputError(f"{what}: {shown!r} is not a whole number from 1 to {most:,}")
    return check_count(int(text), most, what)


def _class_ids(text: bytes, count: int, what: str, name: str) -> NDArray[np.int32]:
    ids = _split(_decode(text, what, name), np.int64, count, what, name, widths=range(1, 2))[:, 0]
    if ids.min() < 0 or ids.max() > np.iinfo(np.int32).max:
        raise InputError(f"{what}: has {name} outside the range of class numbers")
    return ids.astype(np.int32)


def _decode_boxes(text: bytes, count: int, what: str) -> NDArray[Any]:
    """Decode boxes. Raises InputError if their size shows that they are float16 or float64."""
    content = _decode(text, what, "boxes")
    for dtype, size in (("float16", 2), ("float64", 8)):
        if len(content) in [columns * size * count for columns in COLUMNS]:
            raise InputError(
                f"{what}: {len(content)} bytes of boxes do not make {count} rows of float32: truncated, or {dtype}?"
            )
    return _split(content, np.float32, count, what, "boxes", widths=COLUMNS)


def _decode(text: bytes | memoryview, what: str, name: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"{what}: {name}: broken base64 ({error}): truncated?") from error


def _split(
    content: bytes, dtype: type, count: int, what: str, name: str, widths: range | None = None
) -> NDArray[Any]:
    """Split bytes into `count` rows of numbers, of one of the widths if these are given."""
    found, rest = divmod(len(content), np.dtype(dtype).itemsize * count)
    if rest or found not in (widths or range(1, len(content) + 1)):
        raise InputError(f"{what}: {len(content)} bytes of {name} do not make {count} rows: truncated?")
    return np.frombuffer(content, dtype).reshape(count, found)
