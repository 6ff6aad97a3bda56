"""Encode questions and answers as numbers: tokens, soft targets, and the prior of each question type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.annotation_table import Categorical, Numbering
from vqabench.data.vqa.annotations import ANNOTATORS, Question
from vqabench.data.vqa.answers import normalise, soft_target
from vqabench.data.vqa.words import count_type_words, encode, guess_type, split_words

SOFT_TARGETS = np.array([soft_target(annotators) for annotators in range(ANNOTATORS + 1)], np.float32)


@dataclass(frozen=True)
class HumanAnswers:
    """How often each answer of the vocabulary was given to each question: M sparse records of N questions."""

    size: int
    """N."""
    questions: NDArray[np.int64]
    """[M], ascending: row of the question."""
    answers: NDArray[np.int32]
    """[M]: index into the vocabulary."""
    annotators: NDArray[np.int64]
    """[M]: number of annotators who gave it, 1 to 10."""

    @property
    def targets(self) -> NDArray[np.float32]:
        """Return the soft targets: [M] in (0, 1]."""
        targets: NDArray[np.float32] = SOFT_TARGETS[self.annotators]
        return targets

    @property
    def unanswerable(self) -> float:
        """Return the share of questions without an answer in the vocabulary."""
        return 1 - len(np.unique(self.questions)) / self.size

    def take(self, kept: NDArray[np.int64]) -> HumanAnswers:
        """Return the records of the questions at some ascending rows, renumbered from 0."""
        row = np.full(self.size, -1, np.int64)
        row[kept] = np.arange(len(kept))
        inside = row[self.questions] >= 0
        return HumanAnswers(len(kept), row[self.questions[inside]], self.answers[inside], self.annotators[inside])


def no_answers(size: int) -> HumanAnswers:
    """Return no records, of N questions."""
    return HumanAnswers(size, np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))


def count_human_answers(given: Categorical, vocabulary: Mapping[str, int]) -> HumanAnswers:
    """Count the annotators who gave each answer of the vocabulary: `given` is [N, 10], not normalised."""
    column = np.array([vocabulary.get(normalise(text), -1) for text in given.names], np.int32)
    sorted_NK = np.sort(column[given.codes], axis=1)
    is_first_NK = np.ones_like(sorted_NK, bool)
    is_first_NK[:, 1:] = sorted_NK[:, 1:] != sorted_NK[:, :-1]
    starts = np.flatnonzero(is_first_NK)
    annotators = np.diff(starts, append=sorted_NK.size)
    answers = sorted_NK.ravel()[starts]
    known = answers >= 0
    return HumanAnswers(len(given), starts[known] // ANNOTATORS, answers[known], annotators[known])


@dataclass(frozen=True)
class Priors:
    """Statistics of the training split over T question types and A answers of the vocabulary."""

    answer_counts: NDArray[np.float32]
    """[T, A]: how often each answer was given to a type, by all annotators (n_i^j of Eq. 7)."""
    mean_targets: NDArray[np.float32]
    """[T, A]: mean soft target of each type; 1 / A for a type without training questions."""
    questions: NDArray[np.int64]
    """[T]."""


def count_priors(types: NDArray[np.int64], given: HumanAnswers, answers: int, n_types: int) -> Priors:
    """Compute the priors from the training questions' answers and types ([N])."""
    cells = types[given.questions] * answers + given.answers

    def add(weights: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.bincount(cells, weights, n_types * answers).astype(np.float64)
        return sums.reshape(n_types, answers)

    questions = np.bincount(types, minlength=n_types)
    mean = np.full((n_types, answers), 1 / answers)
    np.divide(add(given.targets), questions[:, None], out=mean, where=questions[:, None] > 0)
    return Priors(add(given.annotators).astype(np.float32), mean.astype(np.float32), questions)


NO_TYPE = "none of the above"
"""VQA's type of questions that do not begin with the words of any other type."""


class Encoder:
    """Map answers, question types and words to numbers. `length` is that of an encoded question, in words."""

    def __init__(self, length: int, answers: Iterable[str], types: Iterable[str], words: Iterable[str]) -> None:
        self.answers = {name: number for number, name in enumerate(answers)}
        self.types = {name: number for number, name in enumerate(types)}
        self.words = {name: number for number, name in enumerate(words)}
        self.length = length
        self.vectors: NDArray[np.float32] | None = None
        """[words, E]: pre-trained vectors of the words."""
        self.type_words = {name: split_words(name) for name in self.types}

    def guess_types(self, questions: Sequence[Question]) -> Categorical:
        """Return types of questions without annotations, guessed from the first words, which define types."""
        types = {words: name for name, words in self.type_words.items() if words and name != NO_TYPE}
        guessed = [guess_type(split_words(question.question), types) for question in questions]
        numbers = np.array([self.types[name or NO_TYPE] for name in guessed], np.int32)
        return Categorical(list(self.types), numbers)

    def encode(self, questions: Sequence[Question], types: Categorical) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the questions' tokens, int32 [N, L], and the number of words that spell their types, int32 [N].

        Many questions have the same text: each text is encoded once per type.
        """
        texts = Numbering()
        numbers = texts.number([q.question for q in questions]).astype(np.int64)
        pairs = numbers * len(types.names) + types.codes
        distinct, chosen = np.unique(pairs, return_inverse=True)
        words = list(map(split_words, texts))
        tokens = encode(words, self.words, self.length)
        text_of, type_of = np.divmod(distinct, len(types.names))
        spelled = [
            count_type_words(words[text], self.type_words[types.names[kind]])
            for text, kind in zip(text_of.tolist(), type_of.tolist(), strict=True)
        ]
        return tokens[text_of[chosen]], np.minimum(np.array(spelled, np.int32), self.length)[chosen]
