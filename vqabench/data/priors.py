"""What the training answers of each question type look like: the language prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.human_answers import HumanAnswers


@dataclass(frozen=True)
class Priors:
    """Statistics of the training split over T question types and A answers of the vocabulary."""

    answer_counts: NDArray[np.float32]
    """[T, A]: how often an answer was given to a type, all human answers counted (n_i^j of Eq. 7)."""
    mean_targets: NDArray[np.float32]
    """[T, A]: mean soft target; 1 / A for a type that training never saw."""
    questions: NDArray[np.int64]
    """[T]."""


def count_priors(types: NDArray[np.int64], given: HumanAnswers, answers: int, n_types: int) -> Priors:
    """Count the training questions' human answers, by the type of each question: `types` is [N]."""
    cells = types[given.questions] * answers + given.answers

    def add(weights: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.bincount(cells, weights, n_types * answers).astype(np.float64)
        return sums.reshape(n_types, answers)

    questions = np.bincount(types, minlength=n_types)
    mean = np.full((n_types, answers), 1 / answers)
    np.divide(add(given.targets), questions[:, None], out=mean, where=questions[:, None] > 0)
    return Priors(add(given.annotators).astype(np.float32), mean.astype(np.float32), questions)
