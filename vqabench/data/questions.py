"""From a question's text to words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

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
    """Give the ids of the first `length` words of N questions, padded in front to `length`: [N, L]."""
    unknown = ids[_UNKNOWN]
    kept = [words[:length] for words in questions]
    flat = np.array([ids.get(word, unknown) for words in kept for word in words], np.int32)
    counts = np.array([len(words) for words in kept], np.int64)
    tokens = np.full((len(kept), length), ids[_PADDING], np.int32)
    tokens[np.arange(length) >= length - counts[:, None]] = flat
    return tokens


def guess_type(words: Sequence[str], types: Mapping[tuple[str, ...], str]) -> str | None:
    """Return the longest question type that the question begins with, by its words; None where there is none."""
    longest = max(map(len, types), default=0)
    prefixes = (tuple(words[:length]) for length in range(min(longest, len(words)), 0, -1))
    return next((types[prefix] for prefix in prefixes if prefix in types), None)


def count_type_words(words: Sequence[str], type_words: Sequence[str]) -> int:
    """Count the words at the question's start that spell its type; 0 if it does not start with its type."""
    spelled = len(type_words)
    return spelled if words[:spelled] == type_words else 0
