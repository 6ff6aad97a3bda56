"""Pre-trained word vectors in GloVe's text form."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from vqabench.data.members import split_member
from vqabench.errors import InputError, first_few


def read_word_vectors(path: Path, words: Mapping[str, int]) -> NDArray[np.float32]:
    """Read the vectors of the given words: [len(words), E]; zero where the file lacks a word.

    The file is text, a word and its numbers a line, plain, `.gz` or inside a `.zip` (`F.zip::MEMBER`). Raises
    InputError, naming the line, where a line's numbers are broken or of another count than before.
    """
    rows = {word.encode(): row for word, row in words.items()}
    found: dict[int, NDArray[np.float32]] = {}
    width = None
    for number, line in enumerate(_lines(path), 1):
        if width is None and line.strip():
            width = len(line.split()) - 1
        word, _, rest = line.rstrip().partition(b" ")
        if word not in rows or width is None:
            continue
        fields = rest.split()
        if len(fields) > width:  # the first word of several, which stand for one
            continue
        if len(fields) < width:
            raise InputError(f"{path}, line {number}: {len(fields)} numbers, but {width} before")
        found[rows[word]] = _parse(fields, path, number)
    if not found or width is None:
        raise InputError(f"{path}: holds a vector for none of the {len(words)} words of the training questions")
    vectors = np.zeros((len(words), width), np.float32)
    for row, vector in found.items():
        vectors[row] = vector
    return vectors


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with _open(path) as lines:
            yield from lines
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:  # the last: encrypted
        raise InputError(f"{path}: cannot be read: {error}") from error


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    name, member = split_member(path)
    with name.open("rb") as stream:
        magic = stream.read(4)
        stream.seek(0)
        if magic.startswith(b"PK"):
            with zipfile.ZipFile(stream) as archive, archive.open(_choose_member(path, archive, member)) as lines:
                yield lines
        elif magic.startswith(b"\x1f\x8b"):
            with gzip.open(stream) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            yield stream


def _choose_member(path: Path, archive: zipfile.ZipFile, member: str) -> str:
    """Choose the member named, or the only one there is: GloVe's archives hold one for each width."""
    members = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
    chosen = [name for name in members if member in ("", name)]
    if len(chosen) != 1:
        name, _ = split_member(path)
        raise InputError(f"{name}: holds {first_few(members)}; name one as {name}::MEMBER")
    return chosen[0]


def _parse(fields: Sequence[bytes], path: Path, number: int) -> NDArray[np.float32]:
    try:
        vector = np.array(fields, np.float32)
    except ValueError:
        raise InputError(f"{path}, line {number}: not a word and its numbers") from None
    if not np.isfinite(vector).all() or len(vector) == 0:
        raise InputError(f"{path}, line {number}: not a word and its finite numbers")
    return vector
