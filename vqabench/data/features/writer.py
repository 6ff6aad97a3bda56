"""`features.h5` in the making: whatever stops it, what is written is kept, and another call goes on behind it.

Until it is whole there lie beside its name `.features.h5.part-R`, where the regions stand already where HDF5 will
look for them, in rows of R regions, and `.features.h5.journal`, which tells what else each row holds. A row counts
once it is on the disk and in the journal. Everything is written, not mapped: written pages of a map count as this
process's memory, and a full disk under a map kills it.
"""

from __future__ import annotations

import errno
import glob
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from vqabench.data.features.frame import RegionsHeld, place_first_array, write_frame
from vqabench.data.features.half_precision import Rounding
from vqabench.data.features.journal import Entry, Journal, Layout, Origin, Record, write_all
from vqabench.data.features.rows import Array, Regions
from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError, VqabenchError
from vqabench.files.atomic import find_place

SYNC_ROWS = 256
"""Rows between two times that all is seen on the disk: what a kill can cost."""
USUAL_REGIONS = 100
"""Bottom-up features have 36 regions, or up to 100: where the number differs, room for these is made at once."""


class PartialFeatures:
    """The rows written so far. `close` keeps them for the next call, `finish` makes the file of them.

    Only calls with the same `begun_from`, a hash of all that rows are made from, go on behind one another; from the
    first row on of which `keeps`, given its number and entry, does not approve, rows are made anew. Raises
    VqabenchError where another process is at it, or the disk is full.
    """

    def __init__(
        self,
        destination: Path,
        begun_from: str,
        origin: str,
        dtype: type[np.floating[Any]],
        about: str | None = None,
        keeps: Callable[[int, Entry], bool] = lambda number, entry: True,
    ) -> None:
        self.destination = find_place(destination)
        self.about = about
        """What the file shall say of itself."""
        self.begun_from, self.origin, self.dtype = begun_from, origin, np.dtype(dtype)
        self._first = place_first_array()
        self.paths: dict[ImageId, str] = {}
        """Image -> where it stands in the sources, in the order of the rows."""
        self._checks: dict[ImageId, int] = {}
        self.zeros = 0
        """Images written by this call whose features are all 0."""
        self.counts: list[int] = []
        self.dropped: list[Entry] = []
        self.rounding = Rounding()
        self.named = [True, True]
        """Whether every row so far has the ids of objects, and of attributes."""
        self._layout = Layout(0, 0)
        self._pending: list[Record] = []
        self._data: IO[bytes] | None = None
        with self._telling_trouble():
            self._journal = Journal(_beside(self.destination, "journal"))
            self._resume(keeps)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Give images, regions at most, width."""
        return len(self.counts), max(self.counts, default=0), self._layout.width

    @property
    def seen(self) -> int:
        """Count the images that need not be looked at again."""
        return len(self.counts) + len(self.dropped)

    def append(self, image_id: ImageId, where: str, image: Regions, rounding: Rounding, version: int = 0) -> None:
        """Write the next row. Raises InputError where it is not as wide as those before."""
        count, width = image.regions.shape
        self.zeros += not image.regions.any()
        if self._layout.width not in (0, width):
            raise InputError(f"{where}: features {width} wide, but {self._layout.width} before")
        assert image.boxes is not None
        entry = Entry(
            image_id,
            where,
            count,
            check=self._checksum(image),
            boxes=image.boxes.astype("<f4").tobytes(),
            object_ids=_pack(image.object_ids),
            attribute_ids=_pack(image.attribute_ids),
            rounding=rounding,
            version=version,
        )
        with self._telling_trouble():
            if count > self._layout.regions:
                self._make_room(count, width)
            assert self._data is not None
            self._data.seek(self._offset(len(self.counts)))
            write_all(self._data, np.ascontiguousarray(image.regions, self.dtype).data)
            self._note(entry)

    def drop(self, image_id: ImageId, where: str, problem: str, version: int = 0, *, repeats: bool = False) -> None:
        """Record that an image is left out."""
        with self._telling_trouble():
            self._note(Entry(image_id, where, problem=problem, version=version, repeats=repeats))

    def equals(self, image_id: ImageId, image: Regions) -> bool:
        """Return whether an image that was written has the same regions and boxes."""
        return self._checks[image_id] == self._checksum(image)

    def _checksum(self, image: Regions) -> int:
        check = zlib.crc32(repr(image.regions.shape).encode())
        for array in (
            image.regions.astype(self.dtype, copy=False),
            image.boxes,
            image.object_ids,
            image.attribute_ids,
        ):
            check = zlib.crc32(b"" if array is None else np.ascontiguousarray(array).data.cast("B"), check)
        return check

    def finish(self) -> None:
        """Make the file whole and give it its name."""
        with self._telling_trouble():
            if max(self.counts) < self._layout.regions:
                self._lay_out(Layout(max(self.counts), self._layout.width))
            self._sync()
            assert self._data is not None
            self._data.close()
            part = self._part(self._layout.regions)
            write_frame(part, self._regions_held(), self._first, self._entries())
            _sync_file(part)
            part.replace(self.destination)
        self.discard()

    def _regions_held(self) -> RegionsHeld:
        attributes = {"origin": self.origin} | ({"about": self.about} if self.about is not None else {})
        return RegionsHeld(self.shape, self.dtype, list(self.paths), self.counts, self.named, attributes)

    def _entries(self) -> Iterator[Entry]:
        return (one for one in self._journal.records() if isinstance(one, Entry) and not one.problem)

    def discard(self) -> None:
        """Leave nothing behind."""
        self.close()
        for path in (*_parts(self.destination), self._journal.path):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what is written for another call."""
        if self._data is not None and not self._data.closed:
            with self._data, self._journal, self._telling_trouble():
                self._sync()
        self._journal.close()

    def _part(self, regions: int) -> Path:
        return _beside(self.destination, f"part-{regions}")

    def _offset(self, row: int, regions: int | None = None) -> int:
        regions = self._layout.regions if regions is None else regions
        return self._first + row * regions * self._layout.width * self.dtype.itemsize

    def _resume(self, keeps: Callable[[int, Entry], bool]) -> None:
        """Take up the rows of an earlier call, where they were begun from the same and are all there."""
        records = self._journal.records()
        if next(records, None) == Origin(self.begun_from):
            taken = 1
            for record in records:
                if isinstance(record, Entry) and not keeps(self.seen, record):
                    break
                self._take(record)
                taken += 1
            self._journal.keep(taken)
            current = self._part(self._layout.regions)
            if not self.counts or (current.is_file() and current.stat().st_size >= self._end_of_last_row()):
                self._open_part()
                return
        self._begin()

    def _begin(self) -> None:
        self.paths, self._checks, self.counts, self.dropped = {}, {}, [], []
        self.rounding, self.named, self._layout = Rounding(), [True, True], Layout(0, 0)
        for path in _parts(self.destination):
            path.unlink()
        self._journal.clear()
        self._journal.append([Origin(self.begun_from)])

    def _open_part(self) -> None:
        """Open the rows that count; what stands behind them, or is laid out otherwise, a kill has left."""
        current = self._part(self._layout.regions)
        for path in _parts(self.destination):
            if path != current or not self._layout.regions:
                path.unlink()
        if self._layout.regions:
            self._data = current.open("r+b" if current.is_file() else "w+b", buffering=0)
            self._data.truncate(self._end_of_last_row())

    def _end_of_last_row(self) -> int:
        if not self.counts:
            return self._first
        return self._offset(len(self.counts) - 1) + self.counts[-1] * self._layout.width * self.dtype.itemsize

    def _take(self, record: Record) -> None:
        """Bear a record in mind."""
        if isinstance(record, Layout):
            self._layout = record
        elif isinstance(record, Entry) and record.problem:
            self.dropped.append(record)
        elif isinstance(record, Entry):
            self.paths[record.image_id] = record.where
            self._checks[record.image_id] = record.check
            self.counts.append(record.count)
            self.rounding = self.rounding.add(record.rounding)
            ids = record.object_ids, record.attribute_ids
            self.named = [named and one is not None for named, one in zip(self.named, ids, strict=True)]

    def _note(self, entry: Entry) -> None:
        self._take(entry)
        self._pending.append(entry)
        if len(self._pending) >= SYNC_ROWS:
            self._sync()

    def _sync(self) -> None:
        """See the rows on the disk, then the journal that says so."""
        if self._pending:
            if self._data is not None:
                os.fsync(self._data.fileno())
            self._journal.append(self._pending)
            self._pending = []

    def _make_room(self, count: int, width: int) -> None:
        """Lay rows out for more regions: for the first image's, then the usual most, then half as many again."""
        before = self._layout.regions
        usual = USUAL_REGIONS if count <= USUAL_REGIONS else count + count // 2
        self._sync()
        self._lay_out(Layout(usual if before else count, width))

    def _lay_out(self, layout: Layout) -> None:
        """Copy the rows so far into a file with another room for each, and go on there."""
        old, before = self._data, self._layout.regions
        self._layout = layout
        new = self._part(layout.regions).open("w+b", buffering=0)
        for row, count in enumerate(self.counts):
            assert old is not None
            old.seek(self._offset(row, before))
            new.seek(self._offset(row))
            write_all(new, old.read(count * layout.width * self.dtype.itemsize))
        os.fsync(new.fileno())
        self._journal.append([layout])
        self._data = new
        if old is not None:
            old.close()
            self._part(before).unlink()

    @contextmanager
    def _telling_trouble(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # HDF5 has errors of either kind
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "no room for the features; make some and run again: it goes on where it stopped"
            what = advice if full else "the features cannot be written"
            raise VqabenchError(f"{self.destination.parent}: {what}: {error}") from error


def discard_rows(destination: Path) -> None:
    """Delete the rows that led to a whole file, where a kill has left them.

    Raises VqabenchError where another process is at it.
    """
    destination = find_place(destination)
    with Journal(_beside(destination, "journal")) as journal:
        for path in (*_parts(destination), journal.path):
            path.unlink(missing_ok=True)


def _beside(destination: Path, ending: str) -> Path:
    return destination.with_name(f".{destination.name}.{ending}")


def _parts(destination: Path) -> list[Path]:
    return list(destination.parent.glob(f".{glob.escape(destination.name)}.part-*"))


def _pack(ids: Array | None) -> bytes | None:
    return None if ids is None else ids.astype("<i4").tobytes()


def _sync_file(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
