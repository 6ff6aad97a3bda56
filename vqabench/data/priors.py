"""What the training answers of each question type look like: the language prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqabench.data.answers import soft_target


@dataclass(frozen=True)
class Priors:
    """Statistics of the training split over T question types and A answers of the vocabulary."""

    answer_counts: NDArray[np.float32]
    """[T, A]: how often an answer was given to a type, all human answers counted (n_i^j of Eq. 7)."""
    mean_targets: NDArray[np.float32]
    """[T, A]: mean soft target; 1 / A for a type that training never saw."""
    questions: NDArray[np.int64]
    """[T]."""


def count_priors(
    types: Sequence[int], human_answers: Sequence[Mapping[str, int]], answers: Mapping[str, int], n_types: int
) -> Priors:
    """Count the training questions' human answers, given per question as answer -> annotators."""
    counts = np.zeros((n_types, len(answers)), np.float64)
    targets = np.zeros_like(counts)
    for question_type, given in zip(types, human_answers, strict=True):
        for answer, annotators in given.items():
            column = answers.get(answer)
            if column is not None:
                counts[question_type, column] += annotators
                targets[question_type, column] += soft_target(annotators)
    questions = np.bincount(np.asarray(types, np.int64), minlength=n_types)
    mean = np.full_like(targets, 1 / len(answers))
    np.divide(targets, questions[:, None], out=mean, where=questions[:, None] > 0)
    return Priors(counts.astype(np.float32), mean.astype(np.float32), questions)
