"""Questions as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotations import Annotation, Question
from vqabench.data.questions import count_type_words, encode, split_words


class Encoder:
    """Names to numbers."""

    def __init__(self, length: int, answers: Iterable[str], types: Iterable[str], words: Iterable[str]) -> None:
        self.answers = {name: number for number, name in enumerate(answers)}
        self.types = {name: number for number, name in enumerate(types)}
        self.words = {name: number for number, name in enumerate(words)}
        self.length = length
        self.type_words = {name: split_words(name) for name in self.types}

    def number_types(self, annotations: Sequence[Annotation]) -> NDArray[Any]:
        """Give the number of each question's type: int64 [N]."""
        return np.array([self.types[annotation.question_type] for annotation in annotations], np.int64)

    def encode(
        self, questions: Sequence[Question], annotations: Sequence[Annotation]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the questions' tokens, int32 [N, L], and how many words spell their types, int32 [N].

        Questions repeat each other: each text with its type is looked at once.
        """
        pairs = [(q.question, a.question_type) for q, a in zip(questions, annotations, strict=True)]
        rows = {pair: row for row, pair in enumerate(dict.fromkeys(pairs))}
        words = [split_words(question) for question, _ in rows]
        spelled = [count_type_words(w, self.type_words[kind]) for w, (_, kind) in zip(words, rows, strict=True)]
        tokens = np.array([encode(w, self.words, self.length) for w in words], np.int32).reshape(-1, self.length)
        chosen = np.fromiter(map(rows.__getitem__, pairs), np.int64, len(pairs))
        return tokens[chosen], np.minimum(np.array(spelled, np.int32), self.length)[chosen]
