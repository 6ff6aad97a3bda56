"""Write `features.h5` image by image, through shards that survive an interruption.

A shard is two files in the hidden folder `.features.h5.shards-HASH` next to the destination: `N.rows` holds the
regions of a few hundred images one after another, `N.entries` everything else about them. A shard counts once its
entries are there, and these are written when its rows are on the disk. HASH stands for what the rows are made from,
so shards of other sources or settings are never used.

When the last image is written, the shards are joined into an HDF5 file whose arrays can be mapped into memory. Each
shard's rows are deleted once they are copied: joining needs disk space for one shard more than the features take.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, Self

import h5py
import numpy as np
from msgspec import DecodeError, Struct, msgpack

from vqabench.data.features.regions import Array, Regions, Rounding
from vqabench.data.features.store import read_origin, write_ids
from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError, VqabenchError
from vqabench.files.atomic import find_place, holding, publish

SHARD_IMAGES = 256
"""Images of a shard, which is the most that a kill can cost."""
BLOCK = 4096
"""Bytes of a disk block: the first one is allocated for the header of the HDF5 file."""
SPARE = 1 << 20
"""Bytes for what HDF5 adds to the arrays."""


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One image of a source: written as the next row, or dropped because it is broken or repeated."""

    image_id: ImageId
    where: str
    count: int = 0
    """Regions."""
    width: int = 0
    boxes: bytes = b""
    """float32 [count, 4]"""
    object_ids: bytes | None = None
    """int32 [count]"""
    attribute_ids: bytes | None = None
    """int32 [count]"""
    rounding: Rounding = Rounding()
    only_zeros: bool = False
    checksum: int = 0
    """CRC-32 of all arrays, before they were packed."""
    problem: str = ""
    """Why the image was dropped; empty if it was written."""
    version: int = 0
    """Version of the file that it was read from, if it has one of its own."""
    repeats: bool = False
    """Whether it was dropped because it equals an earlier row of the same image."""


_DECODER = msgpack.Decoder(list[Entry])


class FeatureWriter:
    """Writer of one image after another. Use it in a `with` statement, inside `only_writer`.

    `source` stands for everything that rows are made from. A writer with the same `source` continues after the
    shards that an interrupted one has left, up to the first one with an entry that `keeps`, given its number and
    the entry, rejects. `origin` and `about` become attributes of the file.

    Every method raises VqabenchError if the disk is full.
    """

    def __init__(
        self,
        destination: Path,
        source: str,
        origin: str,
        dtype: type[np.floating[Any]],
        about: str | None = None,
        keeps: Callable[[int, Entry], bool] = lambda number, entry: True,
    ) -> None:
        self.destination = find_place(destination)
        self.attributes = {"origin": origin} | ({} if about is None else {"about": about})
        self.dtype = np.dtype(dtype)
        self.folder = _hidden(self.destination, f"shards-{hashlib.sha256(source.encode()).hexdigest()[:16]}")
        self._joined = self.folder / "features.h5"
        self.paths: dict[ImageId, str] = {}
        """Image -> its place in the sources, in the order of the rows."""
        self._checksums: dict[ImageId, int] = {}
        self.counts: list[int] = []
        """Regions of each image."""
        self.width = 0
        self.only_zeros = 0
        """Images whose features are all 0."""
        self.dropped: list[Entry] = []
        self.rounding = Rounding()
        self._named = {"object_ids": True, "attribute_ids": True}
        """Whether every row so far has these ids."""
        self._shards = 0
        """Complete shards."""
        self._pending: list[Entry] = []
        self._rows: IO[bytes] | None = None
        with self._explain_errors():
            self._resume(keeps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._explain_errors():
            self._end_shard()  # a shorter one, if the work was interrupted

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return images, most regions of an image, width."""
        return len(self.counts), max(self.counts, default=0), self.width

    @property
    def seen(self) -> int:
        """Return how many images of the sources are done."""
        return len(self.counts) + len(self.dropped)

    @property
    def complete(self) -> bool:
        """Return whether an earlier writer had all images and was interrupted while it joined them."""
        return self._joined.exists()

    def append(self, image_id: ImageId, where: str, image: Regions, version: int = 0) -> None:
        """Write the next row. Raises InputError if it is not as wide as those before."""
        count, width = image.regions.shape
        if self.width not in (0, width):
            raise InputError(f"{where}: features {width} wide, but {self.width} before")
        assert image.boxes is not None
        entry = Entry(
            image_id,
            where,
            count,
            width,
            boxes=image.boxes.astype("<f4").tobytes(),
            object_ids=_pack(image.object_ids),
            attribute_ids=_pack(image.attribute_ids),
            rounding=image.rounding,
            only_zeros=not image.regions.any(),
            checksum=self._checksum(image),
            version=version,
        )
        with self._explain_errors():
            if self._rows is None:
                self._rows = self._path(self._shards, "rows").open("wb", buffering=0)
            _write_all(self._rows, np.ascontiguousarray(image.regions, self.dtype).data)
            self._add(entry)

    def drop(self, image_id: ImageId, where: str, problem: str, version: int = 0, *, repeats: bool = False) -> None:
        """Record that an image is left out."""
        with self._explain_errors():
            self._add(Entry(image_id, where, problem=problem, version=version, repeats=repeats))

    def equals(self, image_id: ImageId, image: Regions) -> bool:
        """Return whether an image that was written has the same regions, boxes and ids."""
        return self._checksums[image_id] == self._checksum(image)

    def finish(self) -> None:
        """Join the shards into the file."""
        with self._explain_errors():
            self._end_shard()
            if not self.complete:
                part = self._joined.with_suffix(".part")
                self._write_frame(part)
                publish(part, self._joined)
            self._copy_rows()
            self._joined.replace(self.destination)
            remove_unfinished(self.destination)

    def discard(self) -> None:
        """Delete all shards."""
        if self._rows is not None:
            self._rows.close()
        self._rows, self._pending = None, []
        remove_unfinished(self.destination)

    def _checksum(self, image: Regions) -> int:
        regions = image.regions.astype(self.dtype, copy=False)
        checksum = zlib.crc32(repr(regions.shape).encode())
        for array in (regions, image.boxes, image.object_ids, image.attribute_ids):
            content = b"" if array is None else np.ascontiguousarray(array).data.cast("B")
            checksum = zlib.crc32(content, checksum)
        return checksum

    def _path(self, shard: int, ending: str) -> Path:
        return self.folder / f"{shard:06}.{ending}"

    def _resume(self, keeps: Callable[[int, Entry], bool]) -> None:
        """Take over the complete shards of an interrupted writer, and delete everything else that it left."""
        taken: list[Entry] = []
        while (entries := self._read_shard(self._shards)) is not None:
            if not all(keeps(number, entry) for number, entry in enumerate(entries, len(taken))):
                break
            taken += entries
            self._shards += 1
        # Some rows may be in the joined file only, so it is continued as it is or not at all.
        if self.complete and (entries is not None or read_origin(self._joined) != self.attributes["origin"]):
            shutil.rmtree(self.folder)
            taken, self._shards = [], 0
        for entry in taken:
            self._count(entry)
        remove_unfinished(self.destination, but=self.folder)
        kept = {self._path(shard, ending) for shard in range(self._shards) for ending in ("rows", "entries")}
        self.folder.mkdir(exist_ok=True)
        for path in set(self.folder.iterdir()) - kept - {self._joined}:
            path.unlink()

    def _read_shard(self, shard: int) -> list[Entry] | None:
        """Read the entries of a shard; None if it is not complete."""
        try:
            entries = _DECODER.decode(self._path(shard, "entries").read_bytes())
            size = sum(entry.count * entry.width for entry in entries) * self.dtype.itemsize
            # While shards are joined, rows that are copied are deleted.
            complete = self.complete or not size or self._path(shard, "rows").stat().st_size >= size
        except (FileNotFoundError, DecodeError):
            return None
        return entries if complete else None

    def _count(self, entry: Entry) -> None:
        if entry.problem:
            self.dropped.append(entry)
            return
        self.paths[entry.image_id] = entry.where
        self._checksums[entry.image_id] = entry.checksum
        self.counts.append(entry.count)
        self.width = entry.width
        self.only_zeros += entry.only_zeros
        self.rounding = self.rounding.add(entry.rounding)
        for name in self._named:
            self._named[name] &= getattr(entry, name) is not None

    def _add(self, entry: Entry) -> None:
        self._count(entry)
        self._pending.append(entry)
        if len(self._pending) >= SHARD_IMAGES:
            self._end_shard()

    def _end_shard(self) -> None:
        """Complete a shard: first its rows, then its entries, without which it does not count."""
        if not self._pending:
            return
        entries, self._pending = self._pending, []
        if self._rows is not None:
            with self._rows:
                os.fsync(self._rows.fileno())
            self._rows = None
        part = self._path(self._shards, "part")
        part.write_bytes(msgpack.encode(entries))
        publish(part, self._path(self._shards, "entries"))
        self._shards += 1

    def _written_entries(self) -> Iterator[tuple[int, list[Entry]]]:
        """Yield the number of each shard, and its entries that are rows."""
        for shard in range(self._shards):
            entries = _DECODER.decode(self._path(shard, "entries").read_bytes())
            yield shard, [entry for entry in entries if not entry.problem]

    def _write_frame(self, path: Path) -> None:
        """Write the file with everything but the regions, for which it has a hole."""
        images, regions, _ = self.shape
        columns: dict[str, tuple[tuple[int, ...], str]] = {"boxes": ((images, regions, 4), "<f4")}
        columns |= {name: ((images, regions), "<i4") for name, named in self._named.items() if named}
        ids = sum(64 + len(str(image_id).encode()) for image_id in self.paths)
        reserved = SPARE + ids + sum(4 * math.prod(shape) for shape, _ in columns.values())
        empty = io.BytesIO()
        h5py.File(empty, "w").close()
        with path.open("wb") as file:
            # HDF5 crashes on a full disk, so its space is taken first, which raises an OSError instead.
            file.write(empty.getvalue().ljust(BLOCK, b"\0"))
            file.seek(math.prod(self.shape) * self.dtype.itemsize, os.SEEK_CUR)
            file.write(bytes(reserved))
        with h5py.File(path, "r+") as file:
            _create_contiguous(file, "regions", self.shape, self.dtype)
            for name, (shape, dtype) in columns.items():
                _create_contiguous(file, name, shape, dtype)
            write_ids(file, list(self.paths))
            file["counts"] = np.array(self.counts, np.int32)
            file.attrs.update(self.attributes)
            first = 0
            for _, entries in self._written_entries():
                for name, (shape, dtype) in columns.items():
                    rows = np.zeros((len(entries), *shape[1:]), dtype)
                    for row, entry in zip(rows, entries, strict=True):
                        row[: entry.count] = np.frombuffer(getattr(entry, name), dtype).reshape(-1, *shape[2:])
                    file[name][first : first + len(rows)] = rows
                first += len(entries)

    def _copy_rows(self) -> None:
        """Copy the regions to their place, and delete those of each shard once the copies are on the disk."""
        with h5py.File(self._joined) as joined:
            place = joined["regions"].id.get_offset()
        _, regions, width = self.shape
        row_size = regions * width * self.dtype.itemsize
        first = 0
        # Written, not mapped: pages of a map count as memory of this process, and a full disk under one kills it.
        with self._joined.open("r+b", buffering=0) as file:
            for shard, entries in self._written_entries():
                path = self._path(shard, "rows")
                if path.exists():
                    with path.open("rb") as rows:
                        for row, entry in enumerate(entries, first):
                            file.seek(place + row * row_size)
                            _write_all(file, rows.read(entry.count * width * self.dtype.itemsize))
                    os.fsync(file.fileno())
                    path.unlink()
                first += len(entries)

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # HDF5 has errors of either kind
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "no space left for the features; free some and rerun: it continues where it stopped"
            problem = advice if full else "the features cannot be written"
            raise VqabenchError(f"{self.destination.parent}: {problem}: {error}") from error


def only_writer(destination: Path) -> AbstractContextManager[None]:
    """Exclude other processes. Raises VqabenchError if one is writing the features, InputError if none can."""
    destination = find_place(destination)  # through links, so that one file has one lock

    def refuse() -> NoReturn:
        message = "another process is making these features; rerun when it has ended"
        raise VqabenchError(f"{destination.parent}: {message}")

    return holding(_hidden(destination, "lock"), refuse)


def remove_unfinished(destination: Path, but: Path | None = None) -> None:
    """Delete what interrupted writers have left of a file, except for the shards in one folder."""
    for ending in ("shards-*", "json.part-*", "journal*", "part-*"):  # the last two are of version 0.1
        for path in destination.parent.glob(f".{glob.escape(destination.name)}.{ending}"):
            if path.is_dir() and path != but:
                shutil.rmtree(path)
            elif path != but:
                path.unlink()


def _hidden(destination: Path, ending: str) -> Path:
    return destination.with_name(f".{destination.name}.{ending}")


def _pack(ids: Array | None) -> bytes | None:
    return None if ids is None else ids.astype("<i4").tobytes()


def _write_all(file: IO[bytes], content: bytes | memoryview) -> None:
    """Write to an unbuffered file, which may take only a part at a time."""
    left = memoryview(content).cast("B")
    while left:
        left = left[file.write(left) :]


def _create_contiguous(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Create an array that has its place in the file, but no numbers yet."""
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_obj_track_times(False)  # the same images make the same bytes
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, early)
