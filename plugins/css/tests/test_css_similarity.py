"""Cosines between the classes of objects and words, in two dimensions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from vqabench_css.similarity import ObjectSimilarity, class_similarities, number_words, object_similarity

from vqabench.api import Batch, DataSpec
from vqabench.testing import make_sample, make_spec

INF = torch.inf
WORDS = ("<padding>", "<unknown>", "dog", "cat", "fire", "hydrant", "red", "unheard")
VECTORS = torch.tensor([[9, 9], [9, 9], [2, 0], [3, 4], [0, 1], [1, 0], [0, -2], [0, 0]], dtype=torch.float32)
"""<padding> and <unknown> have a vector here, which must not count; `unheard` has none."""
IDS = {word: number for number, word in enumerate(WORDS) if number > 1}
NAMES = ("dog", "Fire Hydrant", "zebra", "unheard", "red zebra")
ANSWERS = ("yes", "red", "fire hydrant", "cat")


def spec(**changes: object) -> DataSpec:
    given = {"words": WORDS, "answers": ANSWERS, "word_vectors": VECTORS, "object_names": NAMES}
    return dataclasses.replace(make_spec(), **(given | changes))  # type: ignore[arg-type]


def batch(tokens: list[int], objects: list[int], targets: list[float], mask: list[bool] | None = None) -> Batch:
    return make_sample(make_spec(), 1).batch.replace(
        tokens_BL=torch.tensor([tokens]),
        object_ids_BR=torch.tensor([objects]),
        region_mask_BR=torch.tensor([mask or [True] * len(objects)]),
        targets_BA=torch.tensor([targets]),
    )


def similarity() -> ObjectSimilarity:
    found = object_similarity(spec())
    assert found is not None
    return found


def test_names_have_cosines_with_words_and_several_words_their_mean() -> None:
    half = 0.5**0.5
    expected_NW = torch.tensor(
        [
            [-INF, -INF, 1.0, 0.6, 0.0, 1.0, 0.0, -INF],
            [-INF, -INF, half, 1.4 * half, half, half, -half, -INF],  # the mean of (0, 1) and (1, 0)
            [-INF] * 8,
            [-INF] * 8,
            [-INF, -INF, 0.0, -0.8, -1.0, 0.0, 1.0, -INF],  # of the words that have a vector
        ]
    )
    torch.testing.assert_close(class_similarities(NAMES, IDS, VECTORS), expected_NW)


def test_answers_are_numbered_word_by_word() -> None:
    assert number_words(ANSWERS, IDS).tolist() == [[0, 0], [6, 0], [4, 5], [3, 0]]
    assert number_words(("yes", "no"), IDS).shape == (2, 0)


@pytest.mark.parametrize(
    ("tokens", "targets", "expected"),
    [
        ([0, 1, 2], [0.0, 0.0, 0.0, 0.0], [1.0, 0.5**0.5]),  # "dog"
        ([0, 0, 6], [0.0, 0.0, 0.0, 0.0], [0.0, -(0.5**0.5)]),  # "red"
        ([0, 0, 6], [1.0, 0.0, 0.0, 0.3], [0.6, 1.4 * 0.5**0.5]),  # "red", answered by yes and cat
        ([0, 0, 1], [1.0, 0.0, 0.0, 0.0], [-INF, -INF]),  # no word is known
    ],
)
def test_a_region_has_the_largest_cosine_with_a_word_of_question_or_answers(
    tokens: list[int], targets: list[float], expected: list[float]
) -> None:
    found_BR: Tensor = similarity()(batch(tokens, [0, 1], targets))
    torch.testing.assert_close(found_BR, torch.tensor([expected]))


def test_a_class_without_vector_is_unknown_and_padding_may_have_any_class() -> None:
    asked = batch([0, 0, 2], [2, 3, 99], [0.0] * 4, [True, True, False])
    found_BR: Tensor = similarity()(asked)
    assert found_BR[0, :2].tolist() == [-INF, -INF]


@pytest.mark.parametrize("without", ["word_vectors", "object_names"])
def test_a_data_set_without_names_or_vectors_has_no_similarity(without: str) -> None:
    assert object_similarity(spec(**{without: None})) is None


def test_what_is_computed_of_the_data_set_is_not_stored_with_the_weights() -> None:
    assert similarity().state_dict() == {}
