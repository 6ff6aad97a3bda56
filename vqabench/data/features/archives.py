"""Read region features from one file per image, in a folder or a zip: npz, npy, torch.save or pickle.

A file is named after its image, and holds named arrays (`regions.py` lists the names) or the features alone. Next
to `NAME.npy` there may be `NAME_info.npy` with everything else, as mmf writes it.
"""

from __future__ import annotations

import io
import math
import pickle
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from vqabench.data.features.names import Finder
from vqabench.data.features.regions import LARGEST_IMAGE, Array, RegionRow, Regions, check_count, parse_record
from vqabench.errors import InputError, first_few
from vqabench.files.packed import UNREADABLE, Member, list_members
from vqabench.files.plain_pickle import NAMES, load_plain, unwrap

ENDINGS = (".npz", ".npy", ".pth", ".pt", ".pkl", ".pickle")
INFO = "_info.npy"
TORCH = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
"""First bytes of files by torch.save, since version 1.6 and before."""
_LOADING = threading.Lock()
"""The names that torch.load allows are a setting of the whole process."""


def list_image_files(source: Path) -> list[Member]:
    """List the files of a folder or a zip that may hold region features.

    Raises InputError if there are none, or one is a pipe or missing.
    """
    files, others = list_members(source, ENDINGS, "file of region features")
    if not files:
        advice = "; if one of them holds all features, name that file itself" if others else ""
        raise InputError(
            f"{source}: a folder without files of region features ({', '.join(ENDINGS)}); "
            f"it holds {others or 'nothing'}{advice}"
        )
    return files


def holds_images(archive: Path) -> bool:
    """Return whether a zip holds a file per image. Raises InputError if it also holds tables."""
    try:
        (images, _), (tables, _) = list_members(archive, ENDINGS), list_members(archive, (".tsv",))
    except UNREADABLE as error:
        raise InputError(f"{archive}: truncated or damaged: {error}") from error
    if images and tables:
        raise InputError(
            f"{archive}: holds both {first_few(member.name for member in tables)} and {len(images)} files such as "
            f"{images[0].name}; name the table as {archive}::{tables[0].name}, or unpack the others"
        )
    return bool(images)


def read_files(source: Path, find: Finder) -> Iterator[RegionRow]:
    """Yield the wanted images of a folder, or of a zip, which stays open while a row of it is referenced."""
    files = list_image_files(source)
    there = {file.name: file for file in files}
    for file in files:
        stem, _, ending = file.name.rpartition(".")
        if file.name.endswith(INFO) and file.name.removesuffix(INFO) + ".npy" in there:
            continue
        image_id = find(stem)
        if image_id is None:
            image_id = find(stem.rpartition("/")[2])
        if image_id is not None:
            info = there.get(stem + INFO) if ending == "npy" else None
            yield RegionRow(image_id, file.where, partial(_decode, file, info, f"{file.where}: image {image_id}"))


def _decode(file: Member, info: Member | None, what: str) -> Regions:
    found = _load(file, what)
    if info is not None:
        other = _load(info, f"{what}, {Path(info.name).name}")
        if isinstance(found, Mapping) or not isinstance(other, Mapping):
            raise InputError(f"{what}: {info.where} must hold a dict, and {file.where} an array")
        found = {**other, "features": found}
    return parse_record(found, what)


def _load(file: Member, what: str) -> Any:
    check_count(file.size, LARGEST_IMAGE, f"{what}: bytes")
    content = file.read()
    ending = Path(file.name).suffix.lower()
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
        try:
            return unwrap(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        except pickle.UnpicklingError as error:  # its advice would run code of the file
            message = "it is broken, or refers to functions; only tensors, arrays, lists and dicts are allowed"
            raise ValueError(message) from error
