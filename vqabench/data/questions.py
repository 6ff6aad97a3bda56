"""From a question's text to words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# These stand first, as vqabench.api promises: PADDING, UNKNOWN.
_PADDING, _UNKNOWN = "<padding>", "<unknown>"
SPECIAL_WORDS = 2


def split_words(question: str) -> list[str]:
    """Lower-case a question, drop commas and question marks, split `'s` off, and cut it at spaces."""
    return question.lower().replace(",", "").replace("?", "").replace("'s", " 's").split()


def collect_words(questions: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """List the padding, the unknown token, and all words in order of first appearance."""
    seen = dict.fromkeys(word for words in questions for word in words)
    return (_PADDING, _UNKNOWN, *(word for word in seen if word not in (_PADDING, _UNKNOWN)))


def encode(words: Sequence[str], ids: dict[str, int], length: int) -> list[int]:
    """Give the ids of the first `length` words, padded in front to `length`."""
    unknown = ids[_UNKNOWN]
    tokens = [ids.get(word, unknown) for word in words[:length]]
    return [ids[_PADDING]] * (length - len(tokens)) + tokens


def count_type_words(words: Sequence[str], type_words: Sequence[str]) -> int:
    """Count the words at the question's start that spell its type; 0 if it does not start with its type."""
    spelled = len(type_words)
    return spelled if list(words[:spelled]) == list(type_words) else 0
