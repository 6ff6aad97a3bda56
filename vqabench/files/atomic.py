"""Write files atomically, and read small files safely.

Every file is written under a temporary name and renamed, so that neither a reader nor a kill leaves half of one.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from vqabench.errors import InputError, VqabenchError

LARGEST_RECORD = 64 * 2**20
"""Bytes of a file that describes a run; larger ones are refused."""


@contextmanager
def holding(lock_file: Path, when_taken: Callable[[], object], patience: float = 0.0) -> Iterator[None]:
    """Hold a lock. If another process keeps it for `patience` seconds, call `when_taken`, then wait for it.

    `when_taken` may raise an error instead.
    """
    from filelock import FileLock, Timeout  # late, since it loads asyncio and more

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        when_taken()
        lock.acquire()
    try:
        yield
    finally:
        lock_file.unlink(missing_ok=True)  # before the release, so that no new owner loses its file
        lock.release()


Decoded = TypeVar("Decoded")


def read_json(path: Path, kind: type[Decoded], advice: str) -> Decoded:
    """Decode a JSON file. Raises InputError if it is missing, damaged or cannot be read."""
    try:
        content = read_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: missing: {advice}") from None
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}: {advice}") from error
    except RecursionError:
        raise InputError(f"{path}: nested too deeply: {advice}") from None


def read_file(path: Path, largest: int = LARGEST_RECORD) -> bytes:
    """Read a file of at most `largest` bytes.

    Raises FileNotFoundError if it is missing, and InputError if it cannot be read, is larger, or is a pipe or a
    device, which might never end.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            require_regular(path, file.fileno())
            content = file.read(largest + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > largest:
        raise InputError(f"{path}: larger than {largest / 2**20:,.0f} MiB, too large for such a file")
    return content


def require_regular(path: Path, descriptor: int | None = None) -> None:
    """Raise InputError if a path, or the file opened from it, is a folder, a pipe or a device."""
    try:
        mode = (path.stat() if descriptor is None else os.fstat(descriptor)).st_mode
    except OSError:
        return  # reading it will raise the error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise InputError(f"{path}: {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file")


def require_own(path: Path) -> None:
    """Raise InputError if a file or folder that a run writes is a link, which could lead anywhere."""
    if path.is_symlink():
        raise InputError(f"{path}: a link; a run does not write through links; delete it")


def open_own(path: str, flags: int) -> int:
    """Open a file, but not through a link; an `opener` for `open`."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file. Raises InputError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it. Raises as `find_place` does."""
    write_through(path, lambda part: part.write_bytes(content))


def find_place(path: Path) -> Path:
    """Return the file that a path leads to through links.

    In the folder of a run, a link is not followed, and will be replaced: the folder may be from another user, whose
    link could lead to any file.

    Raises InputError if no file can be written there, because there is no such folder, it is not writable, or the
    path is something else, such as a device.
    """
    try:
        place = path.parent.resolve() / path.name if _is_run(path.parent) else path.resolve()
    except RuntimeError:  # Python 3.11 and 3.12; later versions report a missing folder
        raise InputError(f"{path}: a link that leads back to itself") from None
    if not place.parent.is_dir():
        raise InputError(f"{path}: there is no folder {place.parent}")
    if place.exists() and not place.is_file() and not (_is_run(place.parent) and place.is_symlink()):
        if place.is_dir():
            raise InputError(f"{path}: a folder, not a file; name a file in it")
        raise InputError(f"{path}: not a file, so it cannot be written")
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: the folder {place.parent} is not writable")
    return place


def _is_run(folder: Path) -> bool:
    return os.path.lexists(folder / "run.json")


def find_output(path: Path) -> Path:
    """Return the file for a user's output, which must not belong to a run. Raises as `find_place` does."""
    place = find_place(path)
    if os.path.lexists(place) and _is_run(place.parent):
        raise InputError(f"{path}: belongs to a run and is not overwritten; choose another name")
    return place


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file under a temporary name, then rename it. Raises as `find_place` does."""
    path = find_place(path)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        with naming(path):
            part.unlink(missing_ok=True)  # it might be a link
            write(part)
            publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def publish(part: Path, path: Path) -> None:
    """Rename a file that is completely written to its final name."""
    with part.open("rb+") as written:
        os.fsync(written.fileno())  # or the name might stand for nothing after a power failure
    part.replace(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in errors that do not, as on a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise VqabenchError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise
