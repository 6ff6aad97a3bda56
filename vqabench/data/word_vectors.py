"""Pre-trained word vectors in GloVe's text form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqabench.errors import InputError


def read_word_vectors(path: Path, words: Mapping[str, int]) -> NDArray[np.float32]:
    """Read the vectors of the given words: [len(words), E]; zero where the file lacks a word.

    Raises InputError, naming the line, where a line's numbers are broken or of another count than before.
    """
    found: dict[int, NDArray[np.float32]] = {}
    width = None
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            word, _, rest = line.rstrip().partition(" ")
            if word not in words:
                continue
            vector = _parse(rest, path, number)
            width = width or len(vector)
            if len(vector) != width:
                raise InputError(f"{path}, line {number}: {len(vector)} numbers, but {width} before")
            found[words[word]] = vector
    if width is None:
        raise InputError(f"{path}: holds a vector for none of the {len(words)} words of the training questions")
    vectors = np.zeros((len(words), width), np.float32)
    for row, vector in found.items():
        vectors[row] = vector
    return vectors


def _parse(text: str, path: Path, number: int) -> NDArray[np.float32]:
    try:
        vector = np.array(text.split(), np.float32)
    except ValueError:
        raise InputError(f"{path}, line {number}: not a word and its numbers") from None
    if not np.isfinite(vector).all() or len(vector) == 0:
        raise InputError(f"{path}, line {number}: not a word and its finite numbers")
    return vector
