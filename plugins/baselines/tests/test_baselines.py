from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from vqabench_baselines import ImageOnly, InvertedPrior, Prior, QuestionOnly, RarestAnswer
from vqabench_baselines.blind import hide_image, keep_type
from vqabench_baselines.priors import answers_to_draw

from vqabench.api import PADDING, Backbone, Batch, DataSpec, Output
from vqabench.errors import PluginError

COUNTS_TA = torch.tensor([[10.0, 90.0, 0.0, 30.0], [5.0, 0.0, 20.0, 0.0], [0.0, 0.0, 0.0, 0.0]])


def make_spec() -> DataSpec:
    return DataSpec(
        answers=("yes", "2", "red", "no"),
        words=("<padding>", "<unknown>", "how", "many", "cats"),
        question_types=("how many", "what color", "never seen"),
        regions=2,
        region_width=3,
        question_length=5,
        answer_counts_TA=COUNTS_TA,
        mean_targets_TA=COUNTS_TA / COUNTS_TA.sum(1, keepdim=True).clamp(min=1),
        questions_T=torch.tensor([13, 3, 0]),
    )


def make_batch(types_B: Tensor, **changes: Any) -> Batch:
    size = len(types_B)
    tokens_BL = torch.tensor([[PADDING, 2, 3, 4, 1]]).repeat(size, 1)
    fields: dict[str, Any] = {
        "question_ids_B": torch.arange(size),
        "question_types_B": types_B,
        "tokens_BL": tokens_BL,
        "word_mask_BL": tokens_BL != PADDING,
        "type_words_BL": torch.tensor([[False, True, True, False, False]]).repeat(size, 1),
        "regions_BRV": torch.randn(size, 2, 3),
        "boxes_BR4": torch.rand(size, 2, 4),
        "region_mask_BR": torch.ones(size, 2, dtype=torch.bool),
    }
    return Batch(**(fields | changes))


class Seen(Backbone):
    """Keeps the batch that it was given."""

    def forward(self, batch: Batch) -> Output:
        self.batch = batch
        return Output(logits_BA=torch.zeros(len(batch), 4))


def test_the_prior_answers_what_was_most_frequent_in_the_type() -> None:
    output = Prior(make_spec())(make_batch(torch.tensor([0, 1, 2])))
    assert output.logits_BA.argmax(1).tolist() == [1, 2, 0]
    torch.testing.assert_close(output.logits_BA.exp()[0], (COUNTS_TA[0] + 1) / 134)


def test_the_inverted_prior_draws_answers_by_one_over_their_counts() -> None:
    size = 60_000
    drawn = InvertedPrior(make_spec())(make_batch(torch.zeros(size, dtype=torch.int64))).logits_BA.argmax(1)
    expected_A = torch.tensor([1 / 10, 1 / 90, 0, 1 / 30])
    shares_A = torch.bincount(drawn, minlength=4) / size
    torch.testing.assert_close(shares_A, expected_A / expected_A.sum(), rtol=0, atol=0.01)


def test_the_rarest_answer_is_the_one_of_its_type_that_training_gave_least() -> None:
    rarest = RarestAnswer(make_spec(), minimum=1, share=0)(make_batch(torch.tensor([0, 1, 2]))).logits_BA.argmax(1)
    assert rarest.tolist() == [0, 0, 0]  # 10 of 10, 90 and 30; 5 of 5 and 20; nothing given: the first of all


def test_an_answer_below_the_bounds_is_not_the_rarest() -> None:
    rarest = RarestAnswer(make_spec())(make_batch(torch.tensor([0, 1]))).logits_BA.argmax(1)
    assert rarest.tolist() == [0, 2]  # the answer given 5 times does not count


def test_an_answer_that_was_hardly_ever_given_is_not_drawn() -> None:
    """With 1 / count alone, 60 answers given once take 60 of 60.02 draws from "yes" and "no"."""
    counts_TA = torch.tensor([[100.0, 100.0, *[1.0] * 60]])
    weights_TA = torch.where(answers_to_draw(counts_TA, 1, 0), 1 / counts_TA, 0)
    assert weights_TA[0, :2].sum() / weights_TA.sum() < 0.001
    assert answers_to_draw(counts_TA, 10, 0).nonzero()[:, 1].tolist() == [0, 1]
    assert answers_to_draw(counts_TA, 1, 0.01).nonzero()[:, 1].tolist() == [0, 1]


def test_bounds_are_inclusive_and_shares_are_of_the_type() -> None:
    counts_TA = torch.tensor([[10.0, 9.0, 981.0], [10.0, 10.0, 10.0]])
    assert answers_to_draw(counts_TA, 10, 0.01).tolist() == [[True, False, True], [True] * 3]
    assert answers_to_draw(counts_TA, 1, 0.02).tolist() == [[False, False, True], [True] * 3]


def test_a_type_without_an_answer_left_draws_from_all_it_was_given_or_from_all() -> None:
    drawn_TA = answers_to_draw(torch.tensor([[9.0, 5.0, 0.0], [0.0, 0.0, 0.0]]), 10, 0.01)
    assert drawn_TA.tolist() == [[True, True, False], [True, True, True]]
    size = 3_000
    logits_BA = InvertedPrior(make_spec())(make_batch(torch.full((size,), 2))).logits_BA
    shares_A = torch.bincount(logits_BA.argmax(1), minlength=4) / size
    torch.testing.assert_close(shares_A, torch.full((4,), 0.25), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum": 0}, "minimum must be at least 1, not 0"),
        ({"share": 1.5}, r"share must be in \[0, 1\], not 1.5"),
    ],
)
def test_bounds_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InvertedPrior(make_spec(), **options)


def test_a_draw_depends_on_the_question_and_the_seed_alone() -> None:
    spec, types_B = make_spec(), torch.zeros(50, dtype=torch.int64)
    torch.manual_seed(0)
    first, second = InvertedPrior(spec), InvertedPrior(spec)
    batch = make_batch(types_B)
    some = [7, 3]
    assert torch.equal(
        first(batch).logits_BA[some], first(make_batch(types_B[:2], question_ids_B=torch.tensor(some))).logits_BA
    )
    assert not torch.equal(first(batch).logits_BA, second(batch).logits_BA)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(batch).logits_BA, second(batch).logits_BA)


def test_consecutive_questions_have_independent_draws() -> None:
    torch.manual_seed(0)
    size = 20_000
    logits_BA = InvertedPrior(make_spec())(make_batch(torch.full((size,), 2))).logits_BA
    drawn = logits_BA.argmax(1)
    pairs = torch.bincount(4 * drawn[:-1] + drawn[1:], minlength=16)
    expected = (size - 1) / 16
    assert ((pairs - expected).square() / expected).sum() < 45  # chi-square, 15 degrees: p < 0.001 above 37.7


def test_an_answer_outside_the_set_is_never_drawn_and_its_loss_is_finite() -> None:
    logits_BA = InvertedPrior(make_spec())(make_batch(torch.zeros(5_000, dtype=torch.int64))).logits_BA
    assert logits_BA.isfinite().all()
    assert not (logits_BA.argmax(1) == 2).any()


def test_without_the_image_the_base_sees_one_region_of_zeros() -> None:
    base = Seen(make_spec())
    QuestionOnly(make_spec(), base)(make_batch(torch.tensor([0, 1])))
    assert base.batch.regions_BRV.shape == (2, 1, 3)
    assert not base.batch.regions_BRV.any()
    assert base.batch.region_mask_BR.all()
    assert base.batch.boxes_BR4[0, 0].tolist() == [0, 0, 1, 1]
    assert base.batch.tokens_BL[0].tolist() == [PADDING, 2, 3, 4, 1]


def test_two_images_get_one_answer_without_them() -> None:
    first, second = (hide_image(make_batch(torch.tensor([0]))) for _ in range(2))
    assert torch.equal(first.regions_BRV, second.regions_BRV)


def test_without_the_question_the_base_sees_the_words_of_its_type_padded_in_front() -> None:
    base = Seen(make_spec())
    ImageOnly(make_spec(), base)(make_batch(torch.tensor([0])))
    assert base.batch.tokens_BL[0].tolist() == [PADDING, PADDING, PADDING, 2, 3]
    assert base.batch.word_mask_BL[0].tolist() == [False, False, False, True, True]
    assert base.batch.regions_BRV.any()


def test_a_question_that_does_not_begin_with_its_type_has_no_words_left() -> None:
    batch = make_batch(torch.tensor([0]), type_words_BL=torch.zeros(1, 5, dtype=torch.bool))
    assert not keep_type(batch).tokens_BL.any()


class SeenInPieces(Seen):
    """Has pieces of its own: 9 begins and ends, 1 is unknown; the first word spells the type."""

    def word_masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        pieces_BL = batch.extras["pieces"]
        return pieces_BL != 9, torch.arange(pieces_BL.shape[1]).expand_as(pieces_BL) == 1

    def hide_words(self, batch: Batch, hidden_BL: Tensor) -> Batch:
        return batch.replace(extras={"pieces": batch.extras["pieces"].masked_fill(hidden_BL, 1)})


def test_a_base_with_tokens_of_its_own_does_not_know_the_words_behind_the_type() -> None:
    base = SeenInPieces(make_spec())
    batch = make_batch(torch.tensor([0]), extras={"pieces": torch.tensor([[9, 5, 6, 7, 9]])})
    ImageOnly(make_spec(), base)(batch)
    assert base.batch.extras["pieces"].tolist() == [[9, 5, 1, 1, 9]]


def test_a_base_that_cannot_hide_words_cannot_be_asked_without_them() -> None:
    with pytest.raises(PluginError, match="no method to hide words"):
        ImageOnly(make_spec(), Seen(make_spec()))(
            make_batch(torch.tensor([0]), extras={"pieces": torch.zeros(1, 5, dtype=torch.int64)})
        )


def test_the_words_that_image_only_counts_are_those_that_its_base_sees() -> None:
    batch = make_batch(torch.tensor([0]))
    words_BL, type_words_BL = ImageOnly(make_spec(), Seen(make_spec())).word_masks(batch)
    assert torch.equal(words_BL, keep_type(batch).word_mask_BL)
    assert torch.equal(words_BL, type_words_BL)
    base = SeenInPieces(make_spec())
    batch = make_batch(torch.tensor([0]), extras={"pieces": torch.tensor([[9, 5, 6, 7, 9]])})
    words_BL, type_words_BL = ImageOnly(make_spec(), base).word_masks(batch)
    assert words_BL.tolist() == type_words_BL.tolist() == [[False, True, False, False, False]]
