"""Measure the language prior in training, in the test split, and in models' answers (Fig. 1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.annotation_table import AnnotationTable, Categorical, Numbering
from vqabench.data.vqa.answers import normalise

GROUPS = ("head", "tail", "with the prior", "against the prior")
"""Head and tail are one partition of the questions, with and against the prior another."""


@dataclass(frozen=True)
class TrainPrior:
    """Counts of training questions by type and most common answer: T types, M pairs of type and answer."""

    types: Mapping[str, int]
    """Index of each type in training."""
    answers: Mapping[str, int]
    """Index of each normalised answer."""
    types_M: NDArray[np.int64]
    """Pairs are sorted by type, then by answer."""
    answers_M: NDArray[np.int64]
    counts_M: NDArray[np.int64]
    """Questions, from 1."""
    questions_T: NDArray[np.int64]
    """Training questions of each type."""
    distinct_T: NDArray[np.int64]
    """Answers of each type."""
    most_T: NDArray[np.int64]
    """Questions that have the most frequent answer of their type."""

    def count(self, types_N: NDArray[np.int64], answers_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the questions that have some types and answers, given by number, -1 where there is none: [N]."""
        wanted_N = types_N * len(self.answers) + answers_N
        # No pair has the key -1, so unknown types and answers count 0.
        wanted_N[(types_N < 0) | (answers_N < 0)] = -1
        pairs_M = self.types_M * len(self.answers) + self.answers_M
        place_N = np.searchsorted(pairs_M, wanted_N)
        # searchsorted returns M for keys beyond the last pair: the appended key, -2, matches nothing.
        found_N = np.append(pairs_M, -2)[place_N] == wanted_N
        return np.where(found_N, np.append(self.counts_M, 0)[place_N], 0)


def count_train_prior(train: AnnotationTable) -> TrainPrior:
    """Count the most common answers of the training questions; those of the validation split are not in it."""
    types, answers = train.question_types.regroup(str), train.modal_answers.regroup(str)
    # One integer per pair, so that np.unique counts pairs; 32 bits could overflow.
    pairs = types.codes.astype(np.int64) * len(answers.names) + answers.codes
    pairs_M, counts_M = np.unique(pairs, return_counts=True)
    types_M, answers_M = np.divmod(pairs_M, max(1, len(answers.names)))
    most_T = np.zeros(len(types.names), np.int64)
    np.maximum.at(most_T, types_M, counts_M)
    return TrainPrior(
        {name: number for number, name in enumerate(types.names)},
        {name: number for number, name in enumerate(answers.names)},
        types_M,
        answers_M,
        counts_M,
        np.bincount(types.codes, minlength=len(types.names)),
        np.bincount(types_M, minlength=len(types.names)),
        most_T,
    )


def group_questions(table: AnnotationTable, prior: TrainPrior) -> dict[str, NDArray[np.bool_]]:
    """Return which questions are in each group, by their most common answer: group -> [N].

    A question is in the tail if, in training, its answer has at most 1.2 times as many questions of its type as the
    type's answers have on average; else in the head. That is the definition of GQA-OOD (Kervadec et al., CVPR 2021,
    section 3), with question types as its groups of questions, and counts of the training split. GQA-OOD leaves out
    groups whose answers are nearly balanced; here all types are kept. An answer that its type does not have in
    training is in the tail. If all answers are equally frequent, all are in the tail.

    A question is with the prior if no answer of its type is more frequent in training, else against it. Equally
    frequent answers are all with the prior, because choosing one would be arbitrary.

    Questions of a type that training lacks are in no group.
    """
    types_N = table.question_types.number(prior.types)
    counts_N = prior.count(types_N, table.modal_answers.number(prior.answers))
    questions_N, distinct_N, most_N = (
        # The index -1 of an unknown type takes the appended 0.
        np.append(values_T, 0)[types_N]
        for values_T in (prior.questions_T, prior.distinct_T, prior.most_T)
    )
    seen_N = types_N >= 0
    head_N = 5 * counts_N * distinct_N > 6 * questions_N  # count > 1.2 x questions / distinct, without rounding
    with_N = counts_N == most_N
    return dict(zip(GROUPS, (seen_N & head_N, seen_N & ~head_N, seen_N & with_N, seen_N & ~with_N), strict=True))


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
    """Those with the largest shares, and OTHERS if there are more."""
    shares: dict[str, tuple[float, ...]]
    """Split, or row that predicted -> share of each answer, 0 to 1."""


def count_by_type(types: Categorical, answers: Sequence[str]) -> Counts:
    """Count answers, one per question, by the question's type, after normalising them."""
    counts: Counts = {}
    for (kind, answer), count in Counter(zip(types.strings(), answers, strict=True)).items():
        counts.setdefault(kind, Counter())[normalise(answer)] += count
    return counts


def largest_shifts(train: Counts, test: Counts, limit: int) -> list[str]:
    """Return the question types in which most questions of the test split have shifted.

    By total variation distance times the number of test questions: rare types have large distances by chance.
    """
    moved = {kind: distance_between(train[kind], own) * own.total() for kind, own in test.items() if kind in train}
    return sorted(moved, key=lambda kind: (-moved[kind], kind))[:limit]


def distance_between(one: Counter[str], other: Counter[str]) -> float:
    """Return the total variation distance between two distributions, given by counts: 0 to 1."""
    # Sorted: the last bits of the sum must not depend on the order of a set.
    gaps = (one[answer] / one.total() - other[answer] / other.total() for answer in sorted(one | other))
    return sum(map(abs, gaps)) / 2


def compare_answers(
    question_type: str, splits: Mapping[str, Counts], predicted: Mapping[str, Counts], answers: int
) -> TypeShift:
    """Return the shares of a type's most frequent answers: in two splits first, then as predicted.

    Answers are in the order of the first split's shares.
    """
    counts = {name: own.get(question_type, Counter()) for name, own in {**splits, **predicted}.items()}
    one, other = (counts[name] for name in splits)
    largest = sorted(one | other, key=lambda answer: (-max(_share(one, answer), _share(other, answer)), answer))
    chosen = sorted(largest[:answers], key=lambda answer: (-one[answer], answer))
    shares = {name: [_share(own, answer) for answer in chosen] for name, own in counts.items()}
    more = set[str]().union(*counts.values()) > set(chosen)
    for own in shares.values() if more else ():
        # Rounding may bring the sum slightly above 1.
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


LEAST_DISTANCE = 0.1
"""Between the answers of training and of a split: below it, there is no score."""
TIMES_CHANCE = 2
"""The distance must also be this many times the one that chance explains.

Splits of one distribution were seen at 0.1 to 1.1 times: `digits-cp`'s val, parts of VQA v2's training questions
drawn by image, 600 of its validation questions. Splits of changed priors were at 8 to 12 times. The total variation
distance would not tell them apart: VQA's many rare answers alone bring it to 0.2 to 0.5 within one distribution.
"""


@dataclass(frozen=True)
class Reliance:
    """The share of the training prior in the answers, and the distance that it is measured on."""

    score: float | None
    """0: answers are distributed as the split's true ones; 1: as in training; None if the two hardly differ."""
    distance: float | None
    """Between the answers of training and the split's true ones, in [0, sqrt 2]; None without a type in both."""
    by_chance: float | None
    """The expected distance if both are draws from one distribution."""


def prior_reliance(answers: Sequence[str], table: AnnotationTable, prior: TrainPrior) -> Reliance:
    """Measure how far the given answers are distributed as in training instead of as in the split.

    Of each question type, let P be the distribution of the most common answers of training, Q that of the split,
    and G that of the answers given, normalised. The score is the share s that fits G = s P + (1 - s) Q best, by
    least squares over all types, weighted by their questions n:

        s = sum n <G - Q, P - Q> / sum n |P - Q|^2

    Above 1 the prior is exaggerated, as by always giving the most frequent answer; below 0 it is reversed. Answers
    in neither P nor Q count as halfway, if P and Q are equally concentrated. The score does not depend on which
    question gets which answer: a model with a score of 0 may be wrong on all of them.

    The distance is the root of the mean of |P - Q|^2. Questions of types that training lacks are left out.
    """
    counts = _count(answers, table, prior)
    asked_T = np.bincount(counts.types_K, counts.true_K, len(prior.types)).astype(np.float64)
    questions = float(asked_T.sum())
    if questions == 0:
        return Reliance(None, None, None)
    trained_K, asked_K = prior.questions_T[counts.types_K], asked_T[counts.types_K]
    # P - Q. A type that the split lacks has weight 0 below, so any divisor will do.
    gap_K = counts.train_K / trained_K - counts.true_K / np.maximum(asked_K, 1)
    # n G and n Q are counts, so n <G - Q, P - Q> needs no division.
    shared = float(((counts.given_K - counts.true_K) * gap_K).sum())
    squared = float((asked_K * gap_K**2).sum())  # the formula's denominator; `shared` is its numerator
    distance = math.sqrt(squared / questions)
    by_chance = math.sqrt(_expect_by_chance(counts, prior.questions_T, asked_T) / questions)
    # If P and Q hardly differ, the score would be noise divided by noise.
    differ = distance >= max(LEAST_DISTANCE, TIMES_CHANCE * by_chance)
    return Reliance(shared / squared if differ else None, distance, by_chance)


@dataclass(frozen=True)
class _Counts:
    """How many questions have an answer, for each of K pairs of a type and an answer."""

    types_K: NDArray[np.int64]
    train_K: NDArray[np.float64]
    """As the most common answer, in training."""
    true_K: NDArray[np.float64]
    """As the most common answer, in the split."""
    given_K: NDArray[np.float64]
    """As the answer given, in the split."""


def _count(answers: Sequence[str], table: AnnotationTable, prior: TrainPrior) -> _Counts:
    """Count answers within the types of training."""
    types_N = table.question_types.number(prior.types)
    seen_N = types_N >= 0
    # Continues the indices of training: answers that are new in the split get further ones.
    numbers = Numbering(prior.answers)
    true_N = numbers.number(table.modal_answers.names)[table.modal_answers.codes]
    given_N = numbers.number([normalise(answer) for answer in answers])
    pairs = [prior.types_M * len(numbers) + prior.answers_M]
    pairs += [(types_N * len(numbers) + answers_N)[seen_N] for answers_N in (true_N, given_N)]
    pairs_K, paths = np.unique(np.concatenate(pairs), return_inverse=True)
    train, true, given = np.split(paths, np.cumsum([len(pairs[0]), len(pairs[1])]))
    return _Counts(
        pairs_K // max(1, len(numbers)),
        np.bincount(train, prior.counts_M, len(pairs_K)).astype(np.float64),
        np.bincount(true, minlength=len(pairs_K)).astype(np.float64),
        np.bincount(given, minlength=len(pairs_K)).astype(np.float64),
    )


def _expect_by_chance(counts: _Counts, trained_T: NDArray[np.int64], asked_T: NDArray[np.float64]) -> float:
    """Return the expected sum of n |P - Q|^2 for draws of P and Q from the distribution of both together."""
    pooled_K = (counts.train_K + counts.true_K) / (trained_T + asked_T)[counts.types_K]
    # A share p of n draws has the variance p (1 - p) / n: over all answers, (1 - sum p^2) / n.
    spread_T = 1 - np.bincount(counts.types_K, pooled_K**2, len(asked_T))
    variances_T = spread_T / np.maximum(asked_T, 1) + spread_T / trained_T
    return max(0.0, float((asked_T * variances_T).sum()))
