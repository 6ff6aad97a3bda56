"""Split questions into words, and read pre-trained word vectors."""

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

# The first two words, with the numbers PADDING and UNKNOWN of vqabench.api.
_PADDING, _UNKNOWN = "<padding>", "<unknown>"
SPECIAL_WORDS = 2


@cache
def split_words(question: str) -> tuple[str, ...]:
    """Lower-case a question, remove commas and question marks, separate `'s`, and split it at spaces."""
    return tuple(question.lower().replace(",", "").replace("?", "").replace("'s", " 's").split())


def collect_words(questions: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the padding, the unknown token, and all words in order of first occurrence."""
    seen = dict.fromkeys(word for words in questions for word in words)
    return (_PADDING, _UNKNOWN, *(word for word in seen if word not in (_PADDING, _UNKNOWN)))


def encode(questions: Sequence[Sequence[str]], ids: Mapping[str, int], length: int) -> NDArray[np.int32]:
    """Return the ids of the first `length` words of N questions, padded in front: int32 [N, L]."""
    unknown = ids[_UNKNOWN]
    kept = [words[:length] for words in questions]
    flat = np.array([ids.get(word, unknown) for words in kept for word in words], np.int32)
    counts = np.array([len(words) for words in kept], np.int64)
    tokens = np.full((len(kept), length), ids[_PADDING], np.int32)
    tokens[np.arange(length) >= length - counts[:, None]] = flat
    return tokens


def guess_type(words: Sequence[str], types: Mapping[tuple[str, ...], str]) -> str | None:
    """Return the longest question type that a question begins with; None if there is none."""
    longest = max(map(len, types), default=0)
    prefixes = (tuple(words[:length]) for length in range(min(longest, len(words)), 0, -1))
    return next((types[prefix] for prefix in prefixes if prefix in types), None)


def count_type_words(words: Sequence[str], type_words: Sequence[str]) -> int:
    """Return the number of words at the start that spell the type; 0 if the question does not begin with it."""
    spelled = len(type_words)
    return spelled if words[:spelled] == type_words else 0


LONGEST_LINE = 1 << 20
"""Bytes. A vector of 300 numbers takes 3,000."""
MOST_NUMBERS = 10_000


def read_word_vectors(path: Path, words: Mapping[str, int]) -> NDArray[np.float32]:
    """Read the vectors of the given words: [len(words), E]; zero if the file lacks a word.

    The file is text with a word and its numbers per line, plain, `.gz` or in a `.zip` (`F.zip::MEMBER`). A first
    line with the counts of words and numbers, as in word2vec and fastText, is skipped. Raises InputError, naming
    the line, if its numbers are invalid or their count differs from earlier lines.
    """
    rows = {word.encode(): row for word, row in words.items()}
    found: dict[int, NDArray[np.float32]] = {}
    width = None
    for number, line in _lines(path):
        word = line.split(None, 1)[0]
        # A line of two whole numbers counts words and dimensions.
        if width is None and not (len(line.split()) == 2 and all(map(bytes.isdigit, line.split()))):
            width = len(line.split()) - 1
            if width > MOST_NUMBERS:
                raise InputError(f"{path}, line {number}: {width:,} numbers are too many for a word vector")
        if word not in rows or width is None:
            continue
        fields = line.split()[1:]
        if len(fields) > width:  # a phrase of several words
            continue
        if len(fields) < width:
            raise InputError(f"{path}, line {number}: {len(fields)} numbers, but {width} before")
        found[rows[word]] = _parse(fields, path, number)
    if not found or width is None:
        raise InputError(f"{path}: has no vector for any word of the training questions")
    vectors = np.zeros((len(words), width), np.float32)
    for row, vector in found.items():
        vectors[row] = vector
    return vectors


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the content of lines that are not empty, without a byte order mark."""
    require_file(split_member(path)[0], "file of word vectors")
    try:
        with open_packed(path, unless="") as stream:
            # With a limit, because a file of another kind may have no line ends.
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
        with np.errstate(over="ignore"):  # becomes infinite, and is refused below
            vector = np.array(fields, np.float64).astype(np.float32)
    except ValueError:
        raise InputError(f"{path}, line {number}: not a word and its numbers") from None
    if not np.isfinite(vector).all() or len(vector) == 0:
        raise InputError(f"{path}, line {number}: not a word and its finite numbers")
    return vector
