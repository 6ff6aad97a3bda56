"""The language prior as the training questions show it, and which questions of a split go along with it.

By the most common answer of each question, not by all ten: each question has one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotation_table import AnnotationTable

GROUPS = ("head", "tail", "with the prior", "against the prior")
"""Head and tail are one partition of the questions, with and against the prior another."""


@dataclass(frozen=True)
class TrainPrior:
    """Of how many training questions of a type an answer is the most common one: T types, M pairs of the two."""

    types: Mapping[str, int]
    """Number of each type that training has, from 0."""
    answers: Mapping[str, int]
    """Number of each answer, normalised, from 0."""
    types_M: NDArray[np.int64]
    """Pairs rise by type, then by answer."""
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
        wanted_N[(types_N < 0) | (answers_N < 0)] = -1
        pairs_M = self.types_M * len(self.answers) + self.answers_M
        place_N = np.searchsorted(pairs_M, wanted_N)
        found_N = np.append(pairs_M, -2)[place_N] == wanted_N
        return np.where(found_N, np.append(self.counts_M, 0)[place_N], 0)


def count_train_prior(train: AnnotationTable) -> TrainPrior:
    """Count the most common answers of the training questions, without those that validation was given."""
    types, answers = train.question_types.regroup(str), train.modal_answers.regroup(str)
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
    """Tell which questions are in each of the groups, by their most common answer: group -> [N].

    A question is of the tail where training gave its answer to at most 1.2 times as many questions of its type as
    it gave an answer of the type on average; else of the head. That is the definition of GQA-OOD (Kervadec et al.,
    CVPR 2021, section 3), with question types for its groups of questions and the training split for its counts;
    it leaves out groups whose answers are nearly balanced, here all types stay. An answer that training never gave
    to the type is of the tail. Where answers come equally often, all are.

    A question is with the prior where no answer of its type was more frequent in training, against it where one
    was. Of several that are equally frequent, each is with it: to choose one would be arbitrary.

    Questions of a type that training lacks are in no group.
    """
    types_N = table.question_types.number(prior.types)
    counts_N = prior.count(types_N, table.modal_answers.number(prior.answers))
    questions_N, distinct_N, most_N = (
        np.append(values_T, 0)[types_N] for values_T in (prior.questions_T, prior.distinct_T, prior.most_T)
    )
    seen_N = types_N >= 0
    head_N = 5 * counts_N * distinct_N > 6 * questions_N  # count > 1.2 x questions / distinct, without rounding
    with_N = counts_N == most_N
    return dict(zip(GROUPS, (seen_N & head_N, seen_N & ~head_N, seen_N & with_N, seen_N & ~with_N), strict=True))
