"""Whether a file is the one that is meant, and whole. Archives are only read, never unpacked."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from vqabench.data.catalog.entries import SourceFile

BLOCK = 1 << 20
CHECKED_WHOLE = (".zip", ".gz", ".json")
"""Endings of files that show by themselves whether they are whole."""


def find_fault(path: Path, name: str, file: SourceFile) -> str | None:
    """Tell what is wrong with a file that is to be `name`; None if it is the right one.

    Where no checksum is known, its size is compared and, of archives and JSON, every byte is decoded.
    """
    size = path.stat().st_size
    if size == 0:
        return "it is empty"
    if file.size is not None and size != file.size:
        return f"it has {size:,} bytes, not {file.size:,}"
    if file.sha256 is not None and (found := hash_content(path)) != file.sha256:
        return f"its SHA-256 is {found}, not {file.sha256}"
    if file.git_blob is not None and (found := hash_blob(path)) != file.git_blob:
        return f"its git blob id is {found}, not {file.git_blob}"
    return None if file.has_checksum else _find_damage(path, Path(name).suffix)


def hash_content(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_blob(path: Path) -> str:
    """Return the id that git has for a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        for block in _blocks(stream.read):
            digest.update(block)
    return digest.hexdigest()


def looks_like_web_page(start: bytes) -> bool:
    """Return whether content begins as HTML does: servers send such pages in place of files that are gone."""
    return start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<head"))


def _find_damage(path: Path, ending: str) -> str | None:
    try:
        if ending == ".zip":
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()  # reads every member and compares its CRC
            return f"its member {broken} is damaged" if broken else None
        if ending == ".gz":
            with gzip.open(path) as stream:
                for _ in _blocks(stream.read):
                    pass
        if ending == ".json":
            msgspec.json.decode(path.read_bytes(), type=msgspec.Raw)
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, msgspec.DecodeError) as error:
        # RuntimeError: encrypted, or packed in a way that Python cannot read.
        return f"it is not whole: {error}"
    return None


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    return iter(lambda: read(BLOCK), b"")
