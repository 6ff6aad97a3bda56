"""Read region features from one file per image, in a folder or a zip: npz, npy, torch.save or pickle.

A file is named after its image, and holds named arrays (`rows.py` lists the names) or the features alone. Next to
`NAME.npy` there may be `NAME_info.npy` with everything else, as mmf writes it.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from vqabench.data.features.names import WantedImages
from vqabench.data.features.regions import Array, RegionRow, Regions, check_count, parse_record
from vqabench.errors import InputError, first_few
from vqabench.files.folders import list_below, require_file
from vqabench.files.packed import UNREADABLE, list_members
from vqabench.files.plain_pickle import NAMES, load_plain, unwrap

LARGEST_IMAGE = 1 << 28
"""Bytes of one image's file."""
ENDINGS = (".npz", ".npy", ".pth", ".pt", ".pkl", ".pickle")
INFO = "_info.npy"
TORCH = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
"""First bytes of files by torch.save, since version 1.6 and before."""
_LOADING = threading.Lock()
"""The names that torch.load allows are a setting of the whole process."""


@dataclass(frozen=True)
class RegionFile:
    """A file with the features of one image, not read yet."""

    path: str
    """Relative to its folder or zip."""
    where: str
    size: int
    read: Callable[[], bytes]


def list_image_files(folder: Path) -> list[Path]:
    """List the files of a folder that may hold region features.

    Raises InputError if there are none, or one is a pipe or missing.
    """
    there = list_below(folder)
    files = [path for path in there if path.suffix.lower() in ENDINGS]
    for path in files:
        require_file(path, "file of region features")
    if not files:
        raise InputError(f"{folder}: {_describe_contents([path.suffix for path in there])}")
    return files


def read_folder(folder: Path, wanted: WantedImages) -> Iterator[RegionRow]:
    """Yield the wanted images of a folder. Raises InputError if it holds no such files."""
    files = list_image_files(folder)
    yield from _rows(
        [
            RegionFile(path.relative_to(folder).as_posix(), str(path), path.stat().st_size, path.read_bytes)
            for path in files
        ],
        wanted,
    )


def _describe_contents(endings: list[str]) -> str:
    counts = {ending: endings.count(ending) for ending in dict.fromkeys(endings)}
    found = first_few(f"{count} {ending or 'without an ending'}" for ending, count in counts.items()) or "nothing"
    advice = "; name that file itself" if len(endings) == 1 else ""
    return f"a folder without files of region features ({', '.join(ENDINGS)}); it holds {found}{advice}"


def holds_images(archive: Path) -> bool:
    """Return whether a zip holds a file per image. Raises InputError if it also holds tables."""
    try:
        images, tables = list_members(archive, ENDINGS), list_members(archive, [".tsv"])
    except UNREADABLE as error:
        raise InputError(f"{archive}: truncated or damaged: {error}") from error
    if images and tables:
        raise InputError(
            f"{archive}: holds both {first_few(member.name for member in tables)} and {len(images)} files such as "
            f"{images[0].name}; name the table as {archive}::{tables[0].name}, or unpack the others"
        )
    return bool(images)


def read_archive(path: Path, wanted: WantedImages) -> Iterator[RegionRow]:
    """Yield the wanted images of a zip, which stays open while a row of it is referenced."""
    members = list_members(path, ENDINGS)
    yield from _rows([RegionFile(one.name, f"{path}::{one.name}", one.size, one.read) for one in members], wanted)


def _rows(files: list[RegionFile], wanted: WantedImages) -> Iterator[RegionRow]:
    there = {file.path: file for file in files}
    for file in files:
        stem, _, ending = file.path.rpartition(".")
        if file.path.endswith(INFO) and file.path.removesuffix(INFO) + ".npy" in there:
            continue
        image_id = wanted.find(stem)
        if image_id is None:
            image_id = wanted.find(stem.rpartition("/")[2])
        if image_id is not None:
            info = there.get(stem + INFO) if ending == "npy" else None
            yield RegionRow(image_id, file.where, partial(_decode, file, info, f"{file.where}: image {image_id}"))


def _decode(file: RegionFile, info: RegionFile | None, what: str) -> Regions:
    try:
        found = _load(file, what)
        if info is not None:
            other = _load(info, f"{what}, {Path(info.path).name}")
            if isinstance(found, Mapping) or not isinstance(other, Mapping):
                raise InputError(f"{what}: {info.where} must hold a dict, and {file.where} an array")
            found = {**other, "features": found}
        return parse_record(found, what)
    except InputError:
        raise
    except Exception as error:  # a broken pickle may raise anything
        raise InputError(f"{what}: no region features, or damaged: {_shorten(error)}") from error


def _shorten(error: Exception) -> str:
    """Return the first line of a message: torch adds advice that would run code of the file."""
    message = str(error) or type(error).__name__
    if "weights_only" in message:
        return "it is broken, or refers to functions; only tensors, arrays, lists and dicts are allowed"
    return message.splitlines()[0]


def _load(file: RegionFile, what: str) -> Any:
    check_count(file.size, LARGEST_IMAGE, f"{what}: bytes")
    content = file.read()
    ending = file.path[file.path.rindex(".") :].lower()
    if ending == ".npz":
        return _load_npz(content)
    if ending == ".npy":
        return unwrap(_read_npy(io.BytesIO(content), len(content)))
    if content.startswith(TORCH):
        return _load_torch(content)
    return load_plain(content)


def _load_npz(content: bytes) -> dict[str, Array]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [one for one in archive.infolist() if one.filename.endswith(".npy")]
        if sum(one.file_size for one in members) > LARGEST_IMAGE:
            raise ValueError(f"unpacks to more than {LARGEST_IMAGE >> 20} MB")
        arrays = {}
        for one in members:
            with archive.open(one) as stream:
                arrays[one.filename.removesuffix(".npy")] = unwrap(_read_npy(stream, one.file_size))
        return arrays


def _read_npy(stream: IO[bytes], size: int) -> Any:
    """Read an array of at most `size` bytes. Raises ValueError if it claims another size."""
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"an array of version {version}")
    shape, by_columns, dtype = read_header[version](stream)
    content = stream.read(size)
    if dtype.kind == "O":
        return load_plain(content)
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {list(shape)} and {dtype} cannot be in {len(content):,} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def _load_torch(content: bytes) -> Any:
    """Load a file of torch.save: tensors and plain objects, and numpy arrays through stand-ins."""
    import torch

    if content.startswith(TORCH[0]):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(one.file_size for one in archive.infolist()) > LARGEST_IMAGE:
                raise ValueError(f"unpacks to more than {LARGEST_IMAGE >> 20} MB")
    with _LOADING, warnings.catch_warnings(), torch.serialization.safe_globals(NAMES):
        warnings.simplefilter("ignore")
        return unwrap(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
