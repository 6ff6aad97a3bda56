"""`features.h5.json`: the hash of what a features file was made from, and the SHA-256 of its content."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from vqabench.data.features.store import open_features, read_origin
from vqabench.errors import InputError, VqabenchError
from vqabench.files.atomic import hash_file, write_file


class Seal(msgspec.Struct, frozen=True):
    """The record of one complete features file."""

    origin: str
    """Hash of everything it was made from."""
    sha256: str
    size: int = 0
    mtime_ns: int = 0
    """If neither size nor time has changed since, the content is assumed to be the same."""


def seal(features: Path, origin: str, sha256: str | None = None) -> None:
    """Record the content of a features file: one that was just made or linked, or whose hash is known."""
    stat = features.stat()
    record = Seal(origin, sha256 or hash_file(features), stat.st_size, stat.st_mtime_ns)
    write_file(_beside(features), msgspec.json.encode(record))


def require_unchanged(features: Path) -> None:
    """Raise InputError if the content of a features file has changed.

    It is compared only if size or time differ, and if it is the same, they are recorded anew.
    """
    noted, stat = _read(features), features.stat()
    if noted is None or (noted.size, noted.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return
    try:
        check_unbroken(features)
    except InputError as error:
        raise InputError(f"{features}: {error}; delete it and prepare the data again") from error
    with suppress(VqabenchError, OSError):  # the folder may be read-only
        seal(features, noted.origin, noted.sha256)


def break_seal(features: Path) -> None:
    """Delete the record, before the file is replaced."""
    _beside(features).unlink(missing_ok=True)


def is_sealed(features: Path, origin: str) -> bool:
    """Return whether a features file was made from `origin`, and is complete."""
    noted = _read(features)
    if noted is None or noted.origin != origin:
        return False
    try:
        open_features(features)
    except InputError:
        return False
    return read_origin(features) in (None, origin)  # None: a file of the user's own


def check_unbroken(features: Path) -> None:
    """Raise InputError if the content of a features file differs from its record."""
    noted = _read(features)
    if noted is not None and hash_file(features) != noted.sha256:
        raise InputError("its content has changed since it was made")


def _read(features: Path) -> Seal | None:
    try:
        return msgspec.json.decode(_beside(features).read_bytes(), type=Seal)
    except (OSError, msgspec.MsgspecError):
        return None


def _beside(features: Path) -> Path:
    return features.with_name(f"{features.name}.json")
