"""Answer distributions of question types, in training, in the test and as predicted (Fig. 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vqabench.data.annotation_table import Labels
from vqabench.data.answers import normalise

OTHERS = "all others"
Counts = dict[str, Counter[str]]
"""Question type -> how many of its questions have each answer."""


@dataclass(frozen=True)
class TypeShift:
    """One question type."""

    question_type: str
    questions: dict[str, int]
    """Split -> questions."""
    distance: float
    """Total variation distance between the answers of the two splits: 0 to 1."""
    answers: tuple[str, ...]
    """Those with the largest shares, and OTHERS where there are more."""
    shares: dict[str, tuple[float, ...]]
    """Split, or who predicted -> share of each answer, 0 to 1."""


def count_by_type(types: Labels, answers: Sequence[str]) -> Counts:
    """Count answers, one a question, by the question's type; they are normalised here."""
    counts: Counts = {}
    for (kind, answer), count in Counter(zip(types.spell(), answers, strict=True)).items():
        counts.setdefault(kind, Counter())[normalise(answer)] += count
    return counts


def largest_shifts(train: Counts, test: Counts, limit: int) -> list[str]:
    """Name the question types in which most questions of the test have shifted.

    By total variation distance times the test's questions: rare types have large distances by chance.
    """
    moved = {kind: distance_between(train[kind], own) * own.total() for kind, own in test.items() if kind in train}
    return sorted(moved, key=lambda kind: (-moved[kind], kind))[:limit]


def distance_between(one: Counter[str], other: Counter[str]) -> float:
    """Give the total variation distance of two distributions, given by counts: 0 to 1."""
    gaps = (one[answer] / one.total() - other[answer] / other.total() for answer in sorted(one | other))
    return sum(map(abs, gaps)) / 2


def compare_answers(
    question_type: str, splits: Mapping[str, Counts], predicted: Mapping[str, Counts], answers: int
) -> TypeShift:
    """Give the shares of a type's most frequent answers: those of two splits first, then those predicted.

    Answers stand in the order of the first split's shares.
    """
    counts = {name: own.get(question_type, Counter()) for name, own in {**splits, **predicted}.items()}
    one, other = (counts[name] for name in splits)
    largest = sorted(one | other, key=lambda answer: (-max(_share(one, answer), _share(other, answer)), answer))
    chosen = sorted(largest[:answers], key=lambda answer: (-one[answer], answer))
    shares = {name: [_share(own, answer) for answer in chosen] for name, own in counts.items()}
    more = set[str]().union(*counts.values()) > set(chosen)
    for own in shares.values() if more else ():
        own.append(max(0.0, 1 - sum(own)))
    return TypeShift(
        question_type,
        {name: counts[name].total() for name in splits},
        distance_between(one, other),
        (*chosen, *([OTHERS] if more else [])),
        {name: tuple(own) for name, own in shares.items()},
    )


def _share(counts: Counter[str], answer: str) -> float:
    return counts[answer] / counts.total() if counts else 0.0
