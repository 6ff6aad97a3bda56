"""How similar the classes of objects are to the words of a question and its answer.

N object classes, W words of the vocabulary, K words of a question and its answers, M words of the longest answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vqabench.api import PADDING, UNKNOWN, Batch, DataSpec

MOST_ANSWERS = 10
"""Human answers per question: at most this many answers have a target above 0."""


class ObjectSimilarity(nn.Module):
    """Compute the similarity of regions to questions and answers, from class names and word vectors."""

    def __init__(
        self, names: Sequence[str], words: Sequence[str], answers: Sequence[str], vectors_WE: Tensor
    ) -> None:
        super().__init__()
        ids = {word: number for number, word in enumerate(words) if number not in (PADDING, UNKNOWN)}
        self.similarity_NW = nn.Buffer(class_similarities(names, ids, vectors_WE), persistent=False)
        self.answer_words_AM = nn.Buffer(number_words(answers, ids), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Return float [B, R]: a region's largest cosine with any of the words, -inf if none is known."""
        assert batch.object_ids_BR is not None
        # Masked regions may have any class number; 0 is one that exists.
        ids_BR = batch.object_ids_BR.masked_fill(~batch.region_mask_BR, 0)
        words_BK = self.words(batch)
        return self.similarity_NW[ids_BR[:, :, None], words_BK[:, None, :]].amax(2)

    def words(self, batch: Batch) -> Tensor:
        """Return int64 [B, K]: the question's words and those of every answer with a target above 0, padded."""
        assert batch.targets_BA is not None
        shares_BM, answers_BM = batch.targets_BA.topk(min(MOST_ANSWERS, batch.targets_BA.shape[1]), dim=1)
        answer_words = self.answer_words_AM[answers_BM].masked_fill(shares_BM[:, :, None] <= 0, PADDING)
        return torch.cat([batch.tokens_BL, answer_words.flatten(1)], dim=1)


def object_similarity(spec: DataSpec) -> ObjectSimilarity | None:
    """Return the module for a data set; None if it has no names of classes or no word vectors."""
    if spec.object_names is None or spec.word_vectors is None:
        return None
    return ObjectSimilarity(spec.object_names, spec.words, spec.answers, spec.word_vectors)


def class_similarities(names: Sequence[str], ids: Mapping[str, int], vectors_WE: Tensor) -> Tensor:
    """Return float32 [N, W]: the cosine of every class name with every word, -inf if either has no vector.

    A name of several words has the mean of their vectors. `ids` maps words to rows of `vectors_WE` and leaves out
    padding and the unknown word.
    """
    usable_W = torch.zeros(len(vectors_WE), dtype=torch.bool)
    usable_W[list(ids.values())] = True
    # Words that the file lacks have vectors of zeros, with which every cosine is 0: not similar, but unknown.
    usable_W &= vectors_WE.any(1)
    means_NE = vectors_WE.new_zeros(len(names), vectors_WE.shape[1])  # zero if no word of a name has a vector
    for mean_E, name in zip(means_NE, names, strict=True):
        rows = [ids[word] for word in name.lower().split() if word in ids and usable_W[ids[word]]]
        if rows:
            mean_E.copy_(vectors_WE[rows].mean(0))
    cosines_NW = nn.functional.normalize(means_NE) @ nn.functional.normalize(vectors_WE).T
    return cosines_NW.masked_fill(~(means_NE.any(1)[:, None] & usable_W), -torch.inf)


def number_words(texts: Sequence[str], ids: Mapping[str, int]) -> Tensor:
    """Return int64 [A, M]: the numbers of each text's known words, padded behind."""
    rows = [torch.tensor([ids[word] for word in text.split() if word in ids], dtype=torch.int64) for text in texts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING)
