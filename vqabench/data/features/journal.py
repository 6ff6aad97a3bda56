"""The journal of a features file in the making: a line of records, of which a kill can spoil the last alone."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Self

from filelock import FileLock, Timeout
from msgspec import DecodeError, Struct, msgpack

from vqabench.data.features.half_precision import Rounding
from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import VqabenchError

_HEAD = struct.Struct("<II")
"""Length and CRC-32 of the record behind it."""
LARGEST_RECORD = 1 << 26


class Origin(Struct, frozen=True, array_like=True, tag=True):
    """The first record: a hash of all that the features are made from."""

    hash: str


class Layout(Struct, frozen=True, array_like=True, tag=True):
    """From here on rows have room for so many regions, in the file whose name says so."""

    regions: int
    width: int


class Entry(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """One image of a source: written as the next row, or dropped because it is broken."""

    image_id: ImageId
    where: str
    count: int = 0
    boxes: bytes = b""
    """float32 [count, 4]"""
    object_ids: bytes | None = None
    """int32 [count]"""
    attribute_ids: bytes | None = None
    """int32 [count]"""
    rounding: Rounding = Rounding()
    problem: str = ""
    """Why it was dropped; empty where it was written."""
    version: int = 0
    """Of what it was made from, where that is a file of its own."""
    check: int = 0
    """CRC-32 of regions and boxes."""
    repeats: bool = False
    """Whether it was dropped because it equals an earlier row of its image."""


Record = Origin | Layout | Entry
_DECODER: msgpack.Decoder[Record] = msgpack.Decoder(Record)


class Journal:
    """A file of records, locked for as long as it is open. Raises VqabenchError where another process has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise VqabenchError(
                f"{path.parent}: another process is making these features; run this again when it has ended"
            ) from None
        self._file: IO[bytes] = path.open("a+b", buffering=0)

    def records(self) -> Iterator[Record]:
        """Give all records up to the first that is not whole, one at a time."""
        with self.path.open("rb") as file:
            while record := _read(file):
                yield record

    def keep(self, count: int) -> None:
        """Cut off what stands behind the first `count` records, so that others can follow."""
        with self.path.open("rb") as file:
            for _ in range(count):
                _read(file)
            end = file.tell()
        self._file.truncate(end)

    def append(self, records: Iterable[Record]) -> None:
        """Add records, and see them on the disk."""
        encoded = [msgpack.encode(record) for record in records]
        write_all(self._file, b"".join(_HEAD.pack(len(one), zlib.crc32(one)) + one for one in encoded))
        os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Drop all records."""
        self._file.truncate(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others have the file."""
        self._file.close()
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)  # while it is held, as nobody else may then have it
            self._lock.release()


def write_all(file: IO[bytes], content: bytes | memoryview) -> None:
    """Write to an unbuffered file, which may take a part at a time. Raises OSError where the disk is full."""
    left = memoryview(content).cast("B")
    while left:
        left = left[file.write(left) :]


def _read(file: IO[bytes]) -> Record | None:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, check = _HEAD.unpack(head)
    if length > LARGEST_RECORD:
        return None
    body = file.read(length)
    if len(body) < length or zlib.crc32(body) != check:
        return None
    try:
        return _DECODER.decode(body)
    except DecodeError:
        return None
