"""What words and answers a data set has, from its questions and annotations alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqabench.data.catalog.dataset import Dataset, Raw
from vqabench.data.features.store import check_texts
from vqabench.data.vqa.answers import vocabulary
from vqabench.data.vqa.encoding import NO_TYPE, Encoder
from vqabench.data.vqa.words import collect_words, read_word_vectors, split_words
from vqabench.errors import InputError


@dataclass(frozen=True)
class Language:
    """What words and answers are, as numbers and vectors."""

    encoder: Encoder
    vectors: NDArray[np.float32] | None
    """[words, E], where the data set has word vectors."""


def read_language(dataset: Dataset, raw: Raw) -> Language:
    """Make the vocabularies, and read the words' vectors: what may be refused before hours of features.

    Raises InputError if no answer is common enough, a text cannot be stored, or the vectors are broken.
    """
    types = tuple(dict.fromkeys(name for _, table in raw.values() for name in table.question_types.counts()))
    if dataset.scored != dataset.splits:
        types = tuple(dict.fromkeys([*types, NO_TYPE]))
    train_questions = dict.fromkeys(question.question for question in raw["train"][0])
    words = collect_words(map(split_words, train_questions))
    encoder = Encoder(dataset.entry.question_length, _vocabulary(raw, dataset), types, words)
    for name, strings in (("answers", encoder.answers), ("words", encoder.words), ("types", encoder.types)):
        check_texts(f"{dataset.name}: one of the {name},", strings)
    path = dataset.word_vectors_file
    return Language(encoder, read_word_vectors(path, encoder.words) if path else None)


def _vocabulary(raw: Raw, dataset: Dataset) -> tuple[str, ...]:
    minimum = dataset.entry.minimum_answer_count
    counts: Counter[str] = Counter()
    for split in dataset.entry.vocabulary.split("+"):
        counts.update(raw[split][1].modal_answers.counts() if split in raw else {})
    answers = vocabulary(counts, minimum)
    if not answers:
        raise InputError(
            f"{dataset.name}: no answer is the most common one of {minimum} training questions; "
            "set a smaller minimum_answer_count in the catalogue"
        )
    return answers
