"""Normalise and count human answers, and compute soft targets and the answer vocabulary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache

from vqabench.data.vqa.annotations import Annotation
from vqabench.data.vqa.official_tables import (
    ARTICLES,
    COMMA_BETWEEN_DIGITS,
    CONTRACTIONS,
    NUMBER_WORDS,
    PERIOD,
    PUNCTUATION,
)

_MARKS = frozenset(PUNCTUATION)
_PERIOD = re.compile(PERIOD)
_COMMA_BETWEEN_DIGITS = re.compile(COMMA_BETWEEN_DIGITS)
_MOST_PERIODS = int(re.UNICODE)
"""The official code passes this flag as the number of replacements: 32."""

_SOFT_TARGETS = (0.0, 0.3, 0.6, 0.9, 1.0)  # as literals: 0.3 * 3 is 0.8999999999999999


def strip_space(answer: str) -> str:
    """Replace newlines and tabs by spaces and strip the ends, as the official evaluation always does."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@cache
def normalise(answer: str) -> str:
    """Return the official evaluation's full normal form of an answer.

    Space, punctuation, number words, articles and contractions, in this order and with all peculiarities of
    `vqaEval.py` of GT-Vision-Lab/VQA.
    """
    words = _strip_punctuation(strip_space(answer)).lower().split()
    numbers = [NUMBER_WORDS.get(word, word) for word in words]
    return " ".join(CONTRACTIONS.get(word, word) for word in numbers if word not in ARTICLES)


def _strip_punctuation(answer: str) -> str:
    """Delete marks that touch a space, and all marks if there is a comma between digits; others become spaces."""
    marks = _MARKS.intersection(answer)  # most answers have none, and their order does not matter
    has_comma_between_digits = "," in marks and _COMMA_BETWEEN_DIGITS.search(answer) is not None
    stripped = answer
    for mark in marks:
        touches_space = f"{mark} " in answer or f" {mark}" in answer
        stripped = stripped.replace(mark, "" if touches_space or has_comma_between_digits else " ")
    return _PERIOD.sub("", stripped, count=_MOST_PERIODS) if "." in stripped else stripped


def count_answers(annotation: Annotation) -> Counter[str]:
    """Count the normalised human answers of a question."""
    return Counter([normalise(answer.answer) for answer in annotation.answers])


def soft_target(annotators: int) -> float:
    """Return the soft target of an answer given by a number of annotators: min(1, 0.3 x annotators)."""
    return _SOFT_TARGETS[min(annotators, 4)]


def modal_answer(annotation: Annotation) -> str:
    """Return a question's most common answer, normalised: the file's, or else the first of the most common."""
    if annotation.multiple_choice_answer is not None:
        return normalise(annotation.multiple_choice_answer)
    return count_answers(annotation).most_common(1)[0][0]


def vocabulary(counts: Mapping[str, int], minimum: int) -> tuple[str, ...]:
    """Return the answers with a count of at least `minimum`, the most frequent first, then alphabetically.

    `counts` maps normalised answers to the number of questions whose most common answer they are.
    """
    kept = [answer for answer, count in counts.items() if count >= minimum]
    return tuple(sorted(kept, key=lambda answer: (-counts[answer], answer)))
