"""`features.h5.json`: what a features file was made from, and the SHA-256 of what came of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from vqabench.data.catalog.integrity import hash_content
from vqabench.data.features.store import open_features, read_origin
from vqabench.errors import InputError, VqabenchError
from vqabench.files.atomic import write_file


class Seal(msgspec.Struct, frozen=True):
    """Of one features file, as it was when it was whole."""

    origin: str
    """A hash of all that it was made from."""
    sha256: str
    size: int = 0
    mtime_ns: int = 0
    """Both as they were: where neither has changed since, the content is taken to be the same."""


def seal(features: Path, origin: str) -> None:
    """Record what a features file, just made or linked, holds."""
    _write(features, origin, hash_content(features))


def _write(features: Path, origin: str, sha256: str) -> None:
    stat = features.stat()
    write_file(_beside(features), msgspec.json.encode(Seal(origin, sha256, stat.st_size, stat.st_mtime_ns)))


def require_unchanged(features: Path) -> None:
    """Raise InputError where a features file is not the one that was made, as far as size and time show.

    Where they differ, its whole content is compared, and if that is the same they are recorded anew.
    """
    noted, stat = _read(features), features.stat()
    if noted is None or (noted.size, noted.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return
    try:
        check_unbroken(features)
    except InputError as error:
        raise InputError(f"{features}: {error}; delete it and prepare the data again") from error
    with suppress(VqabenchError, OSError):  # it may be somebody else's, to read only
        _write(features, noted.origin, noted.sha256)


def break_seal(features: Path) -> None:
    """Forget what was noted: the file is about to be another."""
    _beside(features).unlink(missing_ok=True)


def is_sealed(features: Path, origin: str) -> bool:
    """Tell whether a features file was made from `origin`, and whole."""
    noted = _read(features)
    if noted is None or noted.origin != origin:
        return False
    try:
        open_features(features)
    except InputError:
        return False
    return read_origin(features) in (None, origin)  # none: a file of the user's own


def check_unbroken(features: Path) -> None:
    """Raise InputError where a features file is not what it was when it was made."""
    noted = _read(features)
    if noted is not None and hash_content(features) != noted.sha256:
        raise InputError("its content has changed since it was made")


def _read(features: Path) -> Seal | None:
    try:
        return msgspec.json.decode(_beside(features).read_bytes(), type=Seal)
    except (OSError, msgspec.MsgspecError):
        return None


def _beside(features: Path) -> Path:
    return features.with_name(f"{features.name}.json")
