"""Files that are plain, gzipped or inside a zip, whatever their names say; `FILE::MEMBER` names a file of a zip."""

from __future__ import annotations

import gzip
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from vqabench.data.folders import is_hidden
from vqabench.errors import InputError, first_few, unknown

UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)
"""What reading raises where a file is damaged; the last: encrypted, or packed in a way that Python cannot read."""
MOST_EXPANSION = 200
"""Annotations pack to a twentieth; a file made to fill the memory, to a thousandth."""
LEAST_LIMIT = 1 << 26
"""Bytes that any file may unpack to."""
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""How zips begin, the second one of nothing."""
GZIP = b"\x1f\x8b"


def split_member(path: Path) -> tuple[Path, str]:
    """Give the file, and the member of the archive that it is; empty where none is named."""
    name, _, member = str(path).partition("::")
    return Path(name), member


def is_packed(path: Path) -> bool:
    """Tell whether a file is a zip or gzipped. Raises OSError where it cannot be read."""
    return _begin(path).startswith((*ZIP, GZIP))


@contextmanager
def open_packed(path: Path, wanted: str = "", unless: str = "/") -> Iterator[IO[bytes]]:
    """Open a file to read what it unpacks to.

    Of a zip that is the member named; else the only one whose name contains `wanted`, or of several the only one
    whose name does not contain `unless`. Raises InputError where none is, and as reading does (UNREADABLE).
    """
    name, member = split_member(path)
    begin = _begin(name)
    if begin.startswith(ZIP):
        with (
            zipfile.ZipFile(name) as archive,
            archive.open(_choose(name, archive, member, wanted, unless)) as inside,
        ):
            yield inside
        return
    if member:
        raise InputError(f"{name}: is no zip, so there is no {member!r} in it; name the file alone")
    with gzip.open(name) if begin.startswith(GZIP) else name.open("rb") as stream:
        yield cast(IO[bytes], stream)


def read_packed(path: Path, wanted: str = "", unless: str = "/") -> bytes:
    """Read what a file unpacks to, as `open_packed` chooses it. Raises InputError where that cannot be."""
    try:
        most = max(LEAST_LIMIT, MOST_EXPANSION * split_member(path)[0].stat().st_size)
        with open_packed(path, wanted, unless) as stream:
            content = stream.read(most + 1)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: there is no such file") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if len(content) > most:
        raise InputError(f"{path}: unpacks to more than {MOST_EXPANSION} times its size: no file of text does")
    return content


def _begin(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(4)


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
    """List an archive's files by name, without hidden ones such as macOS adds."""
    files = [one for one in archive.infolist() if not one.is_dir() and not is_hidden(one.filename)]
    return sorted(files, key=lambda file: file.filename)


@dataclass(frozen=True)
class Member:
    """A file of a zip, not read yet."""

    name: str
    size: int
    """Bytes, unpacked, as the zip has it."""
    crc: int
    """CRC-32 of the content, likewise."""
    read: Callable[[], bytes]
    """Several threads may call it at once."""


def list_members(path: Path, endings: Sequence[str]) -> list[Member]:
    """List a zip's files of some endings, by name. The zip stays open for as long as one of them is kept."""
    archive, turn = zipfile.ZipFile(path), threading.Lock()
    return [
        Member(one.filename, one.file_size, one.CRC, partial(_read, archive, one, turn))
        for one in _list(archive)
        if one.filename.lower().endswith(tuple(endings))
    ]


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, turn: threading.Lock) -> bytes:
    with turn:  # a ZipFile counts its readers, and threads at once make it miscount
        return archive.read(member)
