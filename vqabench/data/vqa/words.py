"""The words of questions, and pre-trained vectors for them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqabench.errors import InputError
from vqabench.files.folders import require_file
from vqabench.files.packed import UNREADABLE, open_packed, split_member

# These stand first, as vqabench.api promises: PADDING, UNKNOWN.
_PADDING, _UNKNOWN = "<padding>", "<unknown>"
SPECIAL_WORDS = 2


@cache
def split_words(question: str) -> tuple[str, ...]:
    """Lower-case a question, drop commas and question marks, split `'s` off, and cut it at spaces."""
    return tuple(question.lower().replace(",", "").replace("?", "").replace("'s", " 's").split())


def collect_words(questions: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """List the padding, the unknown token, and all words in order of first appearance."""
    seen = dict.fromkeys(word for words in questions for word in words)
    return (_PADDING, _UNKNOWN, *(word for word in seen if word not in (_PADDING, _UNKNOWN)))


def encode(questions: Sequence[Sequence[str]], ids: Mapping[str, int], length: int) -> NDArray[np.int32]:
    """Return the ids of the first `length` words of N questions, padded in front to `length`: [N, L]."""
    unknown = ids[_UNKNOWN]
    kept = [words[:length] for words in questions]
    flat = np.array([ids.get(word, unknown) for words in kept for word in words], np.int32)
    counts = np.array([len(words) for words in kept], np.int64)
    tokens = np.full((len(kept), length), ids[_PADDING], np.int32)
    tokens[np.arange(length) >= length - counts[:, None]] = flat
    return tokens


def guess_type(words: Sequence[str], types: Mapping[tuple[str, ...], str]) -> str | None:
    """Return the longest question type that the question begins with, by its words; None if there is none."""
    longest = max(map(len, types), default=0)
    prefixes = (tuple(words[:length]) for length in range(min(longest, len(words)), 0, -1))
    return next((types[prefix] for prefix in prefixes if prefix in types), None)


def count_type_words(words: Sequence[str], type_words: Sequence[str]) -> int:
    """Count the words at the question's start that spell its type; 0 if it does not start with its type."""
    spelled = len(type_words)
    return spelled if words[:spelled] == type_words else 0


LONGEST_LINE = 1 << 20
"""Bytes: 300 numbers take 3,000."""
MOST_NUMBERS = 10_000


def read_word_vectors(path: Path, words: Mapping[str, int]) -> NDArray[np.float32]:
    """Read the vectors of the given words: [len(words), E]; zero where the file lacks a word.

    The file is text, a word and its numbers a line, plain, `.gz` or inside a `.zip` (`F.zip::MEMBER`); a first line
    that counts words and numbers, as word2vec's and fastText's, is passed over. Raises InputError, naming the line,
    where a line's numbers are broken or of another count than before.
    """
    rows = {word.encode(): row for word, row in words.items()}
    found: dict[int, NDArray[np.float32]] = {}
    width = None
    for number, line in _lines(path):
        word = line.split(None, 1)[0]
        if width is None and not _counts(line):
            width = len(line.split()) - 1
            if width > MOST_NUMBERS:
                raise InputError(
                    f"{path}, line {number}: a vector of {width:,} numbers: too many for a word vector"
                )
        if word not in rows or width is None:
            continue
        fields = line.split()[1:]
        if len(fields) > width:  # the first word of several, which stand for one
            continue
        if len(fields) < width:
            raise InputError(f"{path}, line {number}: {len(fields)} numbers, but {width} before")
        found[rows[word]] = _parse(fields, path, number)
    if not found or width is None:
        raise InputError(f"{path}: holds a vector for none of the words of the training questions")
    vectors = np.zeros((len(words), width), np.float32)
    for row, vector in found.items():
        vectors[row] = vector
    return vectors


def _counts(line: bytes) -> bool:
    """Return whether a line counts words and numbers."""
    return len(line.split()) == 2 and all(map(bytes.isdigit, line.split()))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, without UTF-8's mark, and their numbers from 1."""
    require_file(split_member(path)[0], "file of word vectors")
    try:
        with open_packed(path, unless="") as stream:
            # Read in pieces: a file of another kind may have no line ends at all.
            lines = iter(partial(stream.readline, LONGEST_LINE), b"")
            for number, line in enumerate(lines, 1):
                if len(line) == LONGEST_LINE:
                    limit = f"longer than {LONGEST_LINE >> 20} MB"
                    raise InputError(f"{path}, line {number}: {limit}: expected a word and its numbers per line")
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if text.strip():
                    yield number, text
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _parse(fields: Sequence[bytes], path: Path, number: int) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # infinite, then
            vector = np.array(fields, np.float64).astype(np.float32)
    except ValueError:
        raise InputError(f"{path}, line {number}: not a word and its numbers") from None
    if not np.isfinite(vector).all() or len(vector) == 0:
        raise InputError(f"{path}, line {number}: not a word and its finite numbers")
    return vector
