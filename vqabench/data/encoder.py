"""Questions as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotation_table import Labels
from vqabench.data.annotations import Question
from vqabench.data.numbering import Numbering
from vqabench.data.questions import count_type_words, encode, guess_type, split_words

NO_TYPE = "none of the above"
"""What VQA calls the type of a question that begins with no type's words."""


class Encoder:
    """Names to numbers."""

    def __init__(self, length: int, answers: Iterable[str], types: Iterable[str], words: Iterable[str]) -> None:
        self.answers = {name: number for number, name in enumerate(answers)}
        self.types = {name: number for number, name in enumerate(types)}
        self.words = {name: number for number, name in enumerate(words)}
        self.length = length
        self.type_words = {name: split_words(name) for name in self.types}

    def number_types(self, types: Labels) -> NDArray[np.int64]:
        """Give the number of each question's type: [N]."""
        return types.number(self.types)

    def guess_types(self, questions: Sequence[Question]) -> Labels:
        """Guess the types of questions without annotations from their first words, as VQA's types are made."""
        types = {words: name for name, words in self.type_words.items() if words and name != NO_TYPE}
        guessed = [guess_type(split_words(question.question), types) for question in questions]
        numbers = np.array([self.types[name or NO_TYPE] for name in guessed], np.int32)
        return Labels(list(self.types), numbers)

    def encode(self, questions: Sequence[Question], types: Labels) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the questions' tokens, int32 [N, L], and how many words spell their types, int32 [N].

        Questions repeat each other: each text with its type is looked at once.
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
