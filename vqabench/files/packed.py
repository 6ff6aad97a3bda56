"""Open files that are plain, gzipped or inside a zip, by their content; `FILE::MEMBER` names a member of a zip."""

from __future__ import annotations

import gzip
import io
import os
import select
import stat
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from vqabench.errors import InputError, VqabenchError, first_few, unknown
from vqabench.files.folders import is_hidden, list_below, require_file

UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)
"""Errors of reading a damaged file; RuntimeError if it is encrypted, or its compression is not supported."""
MOST_EXPANSION = 200
"""Annotations are compressed to a twentieth; a decompression bomb, to a thousandth."""
LEAST_LIMIT = 1 << 26
"""Bytes that every file may unpack to."""
MOST_PIPED = 1 << 30
"""Bytes that are read from a pipe at most, since its size is unknown."""
PIECE = 1 << 24
"""Bytes read at once if the total size is unknown, so that memory grows with the data."""
PATIENCE = 5.0
"""Seconds to wait for a writer to open a named pipe."""
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of a zip, and of an empty zip."""
GZIP = b"\x1f\x8b"


def split_member(path: Path) -> tuple[Path, str]:
    """Return the file and the name of its member; empty if none is named."""
    name, _, member = str(path).partition("::")
    return Path(name), member


def is_packed(path: Path) -> bool:
    """Return whether a file is a zip or gzipped.

    Raises InputError if it is a pipe or a device, which could not be read again; OSError if it is unreadable.
    """
    if stat.S_ISFIFO(path.stat().st_mode):
        raise InputError(f"{path}: a pipe, but this must be read more than once; write it to a file")
    with _open(path) as file:
        return file.read(4).startswith((*ZIP, GZIP))


@contextmanager
def open_packed(path: Path, wanted: str = "", unless: str = "/") -> Iterator[IO[bytes]]:
    """Open a file or a pipe, once, to read what it unpacks to.

    In a zip, this is the named member; else the only one whose name contains `wanted`, or of several the only one
    whose name does not contain `unless`. Raises InputError if there is none, and UNREADABLE as reading does.
    """
    name, member = split_member(path)
    with _open(name) as file:
        begin = file.read(4)
        file.seek(0)
        if begin.startswith(ZIP):
            with (
                zipfile.ZipFile(file) as archive,
                archive.open(_choose(name, archive, member, wanted, unless)) as inside,
            ):
                yield inside
            return
        if member:
            raise InputError(f"{name}: is not a zip, so it has no member {member!r}; name only the file")
        if begin.startswith(GZIP):
            with gzip.open(file) as stream:
                yield cast(IO[bytes], stream)
        else:
            yield file


def read_packed(path: Path, wanted: str = "", unless: str = "/") -> bytes:
    """Read the unpacked content of a file or member, as `open_packed` chooses it.

    Raises InputError if it cannot be read or is no text, VqabenchError if memory is too small for it.
    """
    name = split_member(path)[0]
    try:
        with open_packed(path, wanted, unless) as stream:
            most = max(LEAST_LIMIT, MOST_EXPANSION * _size(name))
            content = read_at_most(stream, most, path)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: there is no such file") from None
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}") from error
    except MemoryError:
        raise VqabenchError(f"{path}: not enough memory to read it ({_size(name):,} bytes)") from None
    if content is None:
        raise InputError(f"{path}: unpacks to more than {MOST_EXPANSION} times its size, too much for a text file")
    return content


def read_at_most(stream: IO[bytes], most: int, path: Path) -> bytes | None:
    """Read text to its end; return None if there are more than `most` bytes.

    Raises InputError if there are runs of zeros, as in a file whose space was reserved but never written.
    """
    content = io.BytesIO()
    while piece := stream.read(PIECE):
        if (position := piece.find(b"\0\0\0\0")) >= 0:
            raise InputError(
                f"{path}: holds zeros from byte {content.tell() + position:,} on, not text: get the file again"
            )
        content.write(piece)
        if content.tell() > most:
            return None
    return content.getvalue()


def _size(path: Path) -> int:
    """Return the size of a regular file, 0 of anything else."""
    status = path.stat()
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file, or read a pipe, which cannot be rewound, into memory. Raises InputError for others."""
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        yield io.BytesIO(_read_pipe(path))
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: a device or socket, not a file")
    with path.open("rb") as file:  # raises IsADirectoryError for a folder
        yield file


def _read_pipe(path: Path) -> bytes:
    """Read a pipe to its end. Raises InputError if it has no writer, or returns nothing or too much."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        begin: bytes | None = None
        # Without an event there is either a slow writer or none; reading shows which.
        if not poll.poll(1000 * PATIENCE) and (begin := pipe.read(1)) == b"":
            raise InputError(f"{path}: nothing writes to this pipe")
        os.set_blocking(pipe.fileno(), True)
        rest = read_at_most(pipe, MOST_PIPED, path)
    if rest is None:
        raise InputError(f"{path}: more than {MOST_PIPED >> 30} GiB came through this pipe; write it to a file")
    if not begin and not rest:
        raise InputError(f"{path}: nothing came through this pipe, or it was read before")
    return (begin or b"") + rest


def _choose(name: Path, archive: zipfile.ZipFile, member: str, wanted: str, unless: str) -> str:
    meant = [one.filename for one in _list(archive) if wanted in one.filename]
    if member and member not in meant:
        raise InputError(f"{name}: {unknown('member', member, meant)}")
    chosen = [member] if member else meant
    if len(chosen) > 1:
        chosen = [one for one in meant if unless not in one]
    if not meant:
        raise InputError(f"{name}: holds no {wanted or 'files'}")
    if len(chosen) != 1:
        raise InputError(f"{name}: holds {first_few(meant)}; name one as {name}::MEMBER")
    return chosen[0]


def _list(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """List the files of a zip by name, without hidden ones such as macOS adds."""
    files = [one for one in archive.infolist() if not one.is_dir() and not is_hidden(one.filename)]
    return sorted(files, key=lambda file: file.filename)


@dataclass(frozen=True)
class Member:
    """A file of a folder or a zip, not read yet."""

    name: str
    """Relative to the folder or the zip."""
    where: str
    """Its path, or `ZIP::MEMBER`."""
    size: int
    """Unpacked bytes, according to the zip."""
    version: int
    """Changes with the content: modification time of a file, CRC-32 of a member according to the zip."""
    read: Callable[[], bytes]
    """Several threads may call it at once."""


def list_members(source: Path, endings: tuple[str, ...], what: str = "file") -> tuple[list[Member], str]:
    """List the files of a folder or a zip with some endings, by name; also return a count of the others by ending.

    The zip stays open while one of its members is referenced. Raises InputError if a file of a folder, which is to
    be a `what`, is a pipe or missing, and UNREADABLE if the zip is damaged.
    """
    members: list[Member] = []
    others: Counter[str] = Counter()
    if source.is_dir():
        for path in list_below(source):
            if path.name.lower().endswith(endings):
                require_file(path, what)
                stat, name = path.stat(), path.relative_to(source).as_posix()
                members.append(Member(name, str(path), stat.st_size, stat.st_mtime_ns, path.read_bytes))
            else:
                others[path.suffix] += 1
    else:
        archive, turn = zipfile.ZipFile(source), threading.Lock()
        for one in _list(archive):
            if one.filename.lower().endswith(endings):
                read = partial(_read, archive, one, turn)
                members.append(Member(one.filename, f"{source}::{one.filename}", one.file_size, one.CRC, read))
            else:
                others[PurePosixPath(one.filename).suffix] += 1
    counts = (f"{count} {ending or 'without an ending'}" for ending, count in others.items())
    return members, first_few(counts)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, turn: threading.Lock) -> bytes:
    with turn:  # a ZipFile counts its readers, but not thread-safely
        return archive.read(member)
