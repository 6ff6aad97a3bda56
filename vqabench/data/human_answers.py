"""The human answers of many questions as arrays: what is repeated is normalised and looked up once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotation_table import Labels
from vqabench.data.annotations import ANNOTATORS
from vqabench.data.answers import normalise, soft_target

SOFT_TARGETS = np.array([soft_target(annotators) for annotators in range(ANNOTATORS + 1)], np.float32)


@dataclass(frozen=True)
class HumanAnswers:
    """One record per question and answer of the vocabulary that somebody gave it: M records of N questions."""

    size: int
    """N."""
    questions: NDArray[np.int64]
    """[M], rising: row of the question."""
    answers: NDArray[np.int32]
    """[M]: index into the vocabulary."""
    annotators: NDArray[np.int64]
    """[M]: how many of the ten gave it, from 1."""

    @property
    def targets(self) -> NDArray[np.float32]:
        """Give the soft targets: [M] in (0, 1]."""
        targets: NDArray[np.float32] = SOFT_TARGETS[self.annotators]
        return targets

    @property
    def unanswerable(self) -> float:
        """Give the share of questions none of whose answers the vocabulary holds."""
        return 1 - len(self._starts) / self.size

    @property
    def _starts(self) -> NDArray[np.int64]:
        """Give the first record of each question that has any."""
        return np.flatnonzero(np.diff(self.questions, prepend=-1))

    def take(self, kept: NDArray[np.int64]) -> HumanAnswers:
        """Give the records of some questions, whose rows are rising, with the rows counted anew."""
        row = np.full(self.size, -1, np.int64)
        row[kept] = np.arange(len(kept))
        inside = row[self.questions] >= 0
        chosen: list[NDArray[Any]] = [array[inside] for array in (self.questions, self.answers, self.annotators)]
        return HumanAnswers(len(kept), row[chosen[0]], chosen[1], chosen[2])


def count_human_answers(given: Labels, vocabulary: Mapping[str, int]) -> HumanAnswers:
    """Count who gave which answer of the vocabulary, normalised: `given` is [N, 10], as written."""
    column = np.array([vocabulary.get(normalise(text), -1) for text in given.names], np.int32)
    sorted_NK = np.sort(column[given.codes], axis=1)
    is_first_NK = np.ones_like(sorted_NK, bool)
    is_first_NK[:, 1:] = sorted_NK[:, 1:] != sorted_NK[:, :-1]
    starts = np.flatnonzero(is_first_NK)
    annotators = np.diff(starts, append=sorted_NK.size)
    answers = sorted_NK.ravel()[starts]
    known = answers >= 0
    return HumanAnswers(len(given), starts[known] // ANNOTATORS, answers[known], annotators[known])
