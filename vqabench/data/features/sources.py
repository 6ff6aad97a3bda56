"""Detect the form of a source of region features, and read it. A reader for another form is added here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vqabench.data.features.archives import holds_images, list_image_files, read_files
from vqabench.data.features.arrays import find_map, read_hdf5
from vqabench.data.features.names import Finder
from vqabench.data.features.regions import RegionRow
from vqabench.data.features.tsv import read_table
from vqabench.errors import InputError
from vqabench.files.folders import require_file
from vqabench.files.packed import split_member

HDF5 = b"\x89HDF"
ZIP = b"PK\x03\x04"


def read_rows(sources: Sequence[Path], find: Finder) -> Iterator[RegionRow]:
    """Yield the images of all sources that `find` finds, each in its file's order.

    Raises InputError if a file is missing, truncated or of an unknown form.
    """
    for source in sources:
        yield from _read_source(source, find)


def _read_source(source: Path, find: Finder) -> Iterator[RegionRow]:
    path, member = split_member(source)
    if path.is_dir():
        return read_files(path, find)
    magic = _magic(path)
    if magic == HDF5:
        return read_hdf5(source, find)
    if magic == ZIP and not member and holds_images(path):
        return read_files(path, find)
    return read_table(source, find)


def list_files(source: Path) -> list[Path]:
    """List the files that a source consists of: itself, the files of a folder, the map next to an HDF5 file."""
    path, member = split_member(source)
    if path.is_dir():
        return [Path(file.where) for file in list_image_files(path)]
    map_file = find_map(path, member) if _magic(path) == HDF5 else None
    return [path, map_file] if map_file else [path]


def _magic(path: Path) -> bytes:
    """Return a file's first four bytes."""
    require_file(path, "features file")
    try:
        with path.open("rb") as stream:
            return stream.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
