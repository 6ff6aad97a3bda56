"""Verify that a file is the expected one and complete. Archives are read, never unpacked."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from pathlib import Path

import msgspec

from vqabench.data.catalog.entries import SourceFile
from vqabench.files.atomic import hash_file

BLOCK = 1 << 20
CHECKED_WHOLE = (".zip", ".gz", ".json")
"""Endings of files whose format shows whether they are complete."""


def find_fault(path: Path, name: str, file: SourceFile) -> str | None:
    """Return what is wrong with a file that should be `name`; None if nothing is.

    Without a checksum, its size is compared, and archives and JSON are decoded completely.
    """
    size = path.stat().st_size
    if size == 0:
        return "it is empty"
    if file.size is not None and size != file.size:
        return f"it has {size:,} bytes, not {file.size:,}"
    if file.sha256 is not None and (found := hash_file(path)) != file.sha256:
        return f"its SHA-256 is {found}, not {file.sha256}"
    if file.git_blob is not None and (found := hash_blob(path)) != file.git_blob:
        return f"its git blob id is {found}, not {file.git_blob}"
    return None if file.has_checksum else _find_damage(path, Path(name).suffix)


def hash_blob(path: Path) -> str:
    """Return git's blob id of a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: digest).hexdigest()


def looks_like_web_page(start: bytes) -> bool:
    """Return whether content starts like HTML: some servers send an error page with status 200."""
    return start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<head"))


def _find_damage(path: Path, ending: str) -> str | None:
    try:
        if ending == ".zip":
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()  # reads every member and compares its CRC
            return f"its member {broken} is damaged" if broken else None
        if ending == ".gz":
            with gzip.open(path) as stream:
                while stream.read(BLOCK):
                    pass
        if ending == ".json":
            msgspec.json.decode(path.read_bytes(), type=msgspec.Raw)
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, msgspec.DecodeError) as error:
        # RuntimeError: encrypted, or compressed with a method that Python does not support.
        return f"it is not complete: {error}"
    return None
