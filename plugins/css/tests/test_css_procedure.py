"""The procedure around bases that answer by what is known to be informative."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vqabench_css import Css, CssLmh

from vqabench.api import UNKNOWN, Backbone, Batch, Criterion, DataSpec, Output, Wrapper, plain_loss
from vqabench.errors import PluginError
from vqabench.testing import Innermost, make_sample, make_spec

WORDS = ("<padding>", "<unknown>", "how", "many", "dog", "the", "two")
TYPE_WORDS, DOG, THE, TWO = (2, 3), 4, 5, 6
RIGHT = 3
"""The answer to every question of these tests."""
SPEC: DataSpec = dataclasses.replace(make_spec(), words=WORDS, word_vectors=None, object_names=None)
ANSWERS = len(SPEC.answers)


class Product(Backbone):
    """Adds to an answer's logit flag x evidence of every region and word.

    The flag is a feature's first number, the evidence for each answer the others: all but zero is informative.
    """

    def __init__(self, spec: DataSpec, *, dropout: float = 0.0) -> None:
        super().__init__(spec)
        vectors_WE = torch.zeros(len(spec.words), 1 + ANSWERS)
        vectors_WE[DOG, [0, 1 + RIGHT]] = 1.0
        self.embedding = nn.Embedding(len(spec.words), 1 + ANSWERS, _weight=vectors_WE)
        self.dropout = nn.Dropout(dropout)
        self.scale_A = nn.Parameter(torch.linspace(1.0, 1.1, ANSWERS))
        self.asked: list[Batch] = []
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, batch: Batch) -> Output:
        self.asked.append(batch)
        self.modes.append((self.training, torch.is_grad_enabled()))
        words_BLE = self.embedding(batch.tokens_BL)
        seen_BRV = self.dropout(batch.regions_BRV) * batch.region_mask_BR[:, :, None]
        logits_BA = sum((x[:, :, :1] * x[:, :, 1:]).sum(1) for x in (seen_BRV, words_BLE)) * self.scale_A
        return Output(logits_BA=logits_BA, word_embeddings_BLE=words_BLE)


class Changed(Wrapper):
    """Return the base's output with other values in some fields."""

    def __init__(self, spec: DataSpec, base: Backbone, **fields: Any) -> None:
        super().__init__(spec, base)
        self.fields = fields

    def forward(self, batch: Batch) -> Output:
        return dataclasses.replace(super().forward(batch), **self.fields)


def feature(flag: float, answer: int = RIGHT, evidence: float = 1.0) -> Tensor:
    feature_V = torch.zeros(1 + ANSWERS)
    feature_V[[0, 1 + answer]] = torch.tensor([flag, evidence])
    return feature_V


def make(tokens: list[list[int]] | None = None, targets_BA: Tensor | None = None) -> Batch:
    """Ask "how many the dog the" of images whose second region is the only informative one."""
    tokens_BL = torch.tensor(tokens or [[0, 2, 3, THE, DOG, THE]] * 2)
    size = len(tokens_BL)
    regions_BRV = torch.zeros(size, 4, 1 + ANSWERS)
    regions_BRV[:, 1] = feature(1.0)
    if targets_BA is None:
        targets_BA = torch.zeros(size, ANSWERS)
        targets_BA[:, RIGHT] = 0.9
    type_words_BL = torch.isin(tokens_BL, torch.tensor(TYPE_WORDS))
    return make_sample(SPEC, size).batch.replace(
        question_types_B=torch.zeros(size, dtype=torch.int64),
        tokens_BL=tokens_BL,
        word_mask_BL=tokens_BL != 0,
        type_words_BL=type_words_BL,
        regions_BRV=regions_BRV,
        region_mask_BR=torch.tensor([[True, True, True, False]]).expand(size, 4),
        object_ids_BR=None,
        targets_BA=targets_BA,
    )


def bce(output: Output, batch: Batch) -> Tensor:
    assert batch.targets_BA is not None
    logits_BA = output.logits_BA if output.training_logits_BA is None else output.training_logits_BA
    loss = plain_loss("bce", logits_BA.float(), batch.targets_BA).sum(1).mean()
    return torch.stack([loss, *output.penalties.values()]).sum()


def train_on(
    model: Backbone, batch: Batch, autocast: Callable[[], AbstractContextManager[object]] = nullcontext
) -> list[dict[str, Tensor | None]]:
    """Do as the training loop does, without the optimiser; give the gradients of each step."""
    steps: list[dict[str, Tensor | None]] = []
    losses = model.train().training_losses(batch, bce)
    while True:
        with autocast():
            value = next(losses, None)
        if value is None:
            return steps
        assert all(parameter.grad is None for parameter in model.parameters())
        torch.autograd.backward(value)
        steps.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad(set_to_none=True)


def test_the_visual_branch_takes_the_only_informative_object_away() -> None:
    base, batch = Product(SPEC), make()
    assert len(train_on(Css(SPEC, base, branch="visual"), batch)) == 2
    ordinary, alone, counterfactual = base.asked
    assert ordinary.regions_BRV.equal(batch.regions_BRV)
    assert alone.region_mask_BR.tolist() == [[False, True, False, False]] * 2
    assert alone.regions_BRV.equal(batch.regions_BRV)  # the others were zero anyway
    assert counterfactual.region_mask_BR.tolist() == [[True, False, True, False]] * 2
    assert not counterfactual.regions_BRV.any()
    assert all(asked.tokens_BL.equal(batch.tokens_BL) for asked in base.asked)


def test_the_question_branch_takes_the_only_informative_word_away() -> None:
    base, batch = Product(SPEC), make()
    assert len(train_on(Css(SPEC, base, branch="question"), batch)) == 2
    ordinary, alone, counterfactual = base.asked
    assert ordinary.tokens_BL.equal(batch.tokens_BL)
    assert alone.tokens_BL.tolist() == [[0, 2, 3, UNKNOWN, DOG, UNKNOWN]] * 2
    assert counterfactual.tokens_BL.tolist() == [[0, 2, 3, THE, UNKNOWN, THE]] * 2
    assert all(asked.regions_BRV.equal(batch.regions_BRV) for asked in base.asked)


def test_an_object_that_speaks_against_the_answer_is_not_critical() -> None:
    base, batch = Product(SPEC), make()
    batch.regions_BRV[:, 0] = feature(-2.0)
    train_on(Css(SPEC, base, branch="visual"), batch)
    assert base.asked[1].region_mask_BR.tolist() == [[False, True, False, False]] * 2


@pytest.mark.parametrize("branch", ["visual", "question"])
@pytest.mark.parametrize(("top_answers", "left"), [(1, [0.0, 0.6]), (2, [0.0, 0.0]), (50, [0.0, 0.0])])
def test_the_first_answers_to_what_is_critical_alone_lose_their_target(
    branch: Any, top_answers: int, left: list[float]
) -> None:
    targets_BA = torch.zeros(2, ANSWERS)
    targets_BA[:, [RIGHT, 6]] = torch.tensor([0.9, 0.6])
    base, batch = Product(SPEC), make(targets_BA=targets_BA)
    with torch.no_grad():
        base.embedding.weight[DOG, 1 + 6] = 0.5  # the answer that comes second
        batch.regions_BRV[:, 1, 1 + 6] = 0.5
    train_on(Css(SPEC, base, branch=branch, top_answers=top_answers), batch)
    changed_BA = base.asked[2].targets_BA
    assert changed_BA is not None
    assert changed_BA[:, [RIGHT, 6]].equal(torch.tensor([left] * 2))
    assert base.asked[1].targets_BA is None  # asked as in a test: no penalty is computed


def test_share_and_sharpness_decide_which_objects_go() -> None:
    def critical(**options: Any) -> list[bool]:
        base, batch = Product(SPEC), make()
        batch.regions_BRV[:, 0] = feature(0.9)
        train_on(Css(SPEC, base, branch="visual", **options), batch)
        mask: list[bool] = base.asked[1].region_mask_BR[0].tolist()
        return mask

    assert critical() == [False, True, False, False]  # contributions 1.9, 2 and 0: shares 0.25, 0.75
    assert critical(share=1.0) == [True, True, True, False]
    assert critical(sharpness=0.5) == [False, True, False, False]  # shares 0.40, 0.43, 0.16
    assert critical(sharpness=0.5, share=0.85) == [True, True, False, False]


def test_names_and_word_vectors_choose_the_candidates() -> None:
    vectors = torch.zeros(len(WORDS), 2)
    vectors[[DOG, THE]] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    spec = dataclasses.replace(SPEC, word_vectors=vectors, object_names=("two", "dog", "the"))
    base, batch = Product(spec), make([[0, 0, 2, 3, DOG]] * 2)
    batch = batch.replace(object_ids_BR=torch.tensor([[2, 0, 1, 1]] * 2))
    model = Css(spec, base, branch="visual", candidates=1)
    train_on(model, batch)
    # The informative second object is a "two", which has no vector; the third is a dog.
    assert base.asked[1].region_mask_BR.tolist() == [[False, False, True, False]] * 2
    base.asked.clear()
    train_on(model, batch.replace(object_ids_BR=None))
    assert base.asked[1].region_mask_BR.tolist() == [[False, True, False, False]] * 2


def test_images_of_one_object_are_left_out_of_the_second_pass() -> None:
    base, batch = Product(SPEC), make()
    mask_BR = torch.tensor([[False, True, False, False], [True, True, True, False]])
    assert len(train_on(Css(SPEC, base, branch="visual"), batch.replace(region_mask_BR=mask_BR))) == 2
    assert base.asked[2].region_mask_BR.tolist() == [[True, False, True, False]]


def test_a_batch_of_images_of_one_object_is_trained_on_once() -> None:
    base, batch = Product(SPEC), make()
    mask_BR = torch.tensor([[False, True, False, False]]).expand(2, 4)
    assert len(train_on(Css(SPEC, base, branch="visual"), batch.replace(region_mask_BR=mask_BR))) == 1
    assert len(base.asked) == 1


def test_questions_without_a_word_to_lose_are_left_out_of_the_second_pass() -> None:
    base = Product(SPEC)
    batch = make([[0, 2, 3, THE, DOG], [0, 0, 0, 2, 3], [0, 0, 0, 0, 0], [0, 0, 2, 3, DOG]])
    batch = batch.replace(question_ids_B=torch.tensor([10, 11, 12, 13]))
    assert len(train_on(Css(SPEC, base, branch="question"), batch)) == 2
    assert [len(asked) for asked in base.asked] == [4, 2, 2]
    assert base.asked[2].question_ids_B.tolist() == [10, 13]
    assert base.asked[2].tokens_BL.tolist() == [[0, 2, 3, THE, UNKNOWN], [0, 0, 2, 3, UNKNOWN]]


def test_a_batch_without_any_word_to_lose_is_trained_on_once() -> None:
    base = Product(SPEC)
    assert len(train_on(Css(SPEC, base, branch="question"), make([[0, 2, 3], [0, 0, 2]]))) == 1
    assert len(base.asked) == 1


@pytest.mark.parametrize("branch", ["visual", "question"])
def test_the_first_step_is_the_base_s_own(branch: Any) -> None:
    batch = make()
    batch.regions_BRV[:, 2] = feature(0.5, answer=1)
    torch.manual_seed(3)
    own = train_on(Product(SPEC, dropout=0.5), batch)[0]
    torch.manual_seed(3)
    css = train_on(Css(SPEC, Product(SPEC, dropout=0.5), branch=branch), batch)[0]
    for name, gradient in own.items():
        other = css[f"base.{name}"]
        assert gradient is not None
        assert other is not None
        assert other.equal(gradient), name
    assert batch.regions_BRV.grad is None
    assert not batch.regions_BRV.requires_grad


def test_the_second_step_is_the_base_s_loss_on_the_counterfactual() -> None:
    base, batch = Product(SPEC), make()
    steps = train_on(Css(SPEC, base, branch="question"), batch)
    expected = train_on(Product(SPEC), base.asked[2])[0]
    for name, gradient in expected.items():
        torch.testing.assert_close(steps[1][f"base.{name}"], gradient)


def test_no_gradient_of_the_images_outlives_the_first_step() -> None:
    base = Product(SPEC)
    train_on(Css(SPEC, base, branch="visual"), make())
    assert base.asked[0].regions_BRV.requires_grad  # it was watched
    assert base.asked[0].regions_BRV.grad is None


class Layers(Product):
    """A base of layers that autocast computes in bfloat16."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        width = 1 + ANSWERS
        nn.init.normal_(self.embedding.weight)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(0.2), nn.Linear(width, ANSWERS))

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        words_BLE = output.word_embeddings_BLE
        assert words_BLE is not None
        question_BH = self.gru(words_BLE)[0][:, -1]
        return dataclasses.replace(
            output, logits_BA=output.logits_BA + self.layers(question_BH + batch.regions_BRV.sum(1))
        )


@pytest.mark.parametrize("branch", ["visual", "question"])
def test_both_steps_reach_every_parameter_under_autocast(branch: Any) -> None:
    """Weights that were cast for the answers without gradients must not serve the second step."""
    torch.manual_seed(0)
    steps = train_on(
        Css(SPEC, Layers(SPEC), branch=branch), make(), lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    )
    assert len(steps) == 2
    for step in steps:
        for name, gradient in step.items():
            assert gradient is not None, name
            assert gradient.isfinite().all(), name
            assert gradient.any(), name


def test_critical_objects_are_the_same_under_autocast() -> None:
    found = []
    for autocast in (nullcontext, lambda: torch.autocast("cpu", dtype=torch.bfloat16)):
        torch.manual_seed(0)
        base = Layers(SPEC)
        train_on(Css(SPEC, base, branch="visual"), make(), autocast)
        found.append(base.asked[1].region_mask_BR)
    assert found[0].equal(found[1])


def test_what_is_critical_is_asked_about_without_dropout_or_gradients_and_modes_are_restored() -> None:
    base = Product(SPEC, dropout=0.5)
    model = Css(SPEC, base, branch="visual").train()
    base.dropout.eval()  # a part that its author keeps from training
    for value in model.training_losses(make(), bce):
        torch.autograd.backward(value)
    assert base.modes == [(True, True), (False, False), (True, True)]
    assert [model.training, base.training, base.dropout.training] == [True, True, False]


def test_the_branch_is_drawn_for_every_batch_from_the_seeded_generator() -> None:
    def draw(seed: int) -> list[bool]:
        torch.manual_seed(seed)
        base, batch = Product(SPEC), make()
        model = Css(SPEC, base)
        for _ in range(100):
            train_on(model, batch)
        return [asked.region_mask_BR.equal(batch.region_mask_BR) for asked in base.asked[2::3]]

    first = draw(0)
    assert 30 < sum(first) < 70  # 50 ± 4 standard deviations
    assert draw(0) == first
    assert draw(1) != first


def test_a_bias_of_training_is_in_the_loss_and_not_in_what_is_critical() -> None:
    """A stand-in for LMH: a bias of the type, mixed by a learned share, and its penalty."""

    class Biased(Wrapper):
        def __init__(self, spec: DataSpec, base: Backbone) -> None:
            super().__init__(spec, base)
            self.mix = nn.Parameter(torch.ones(()))

        def forward(self, batch: Batch) -> Output:
            output = super().forward(batch)
            bias_BA = torch.zeros(ANSWERS).index_fill(0, torch.tensor([0, 1, 2, 4]), 50.0).expand(len(batch), -1)
            # The bias speaks for an uninformative object, and for all words.
            misled_B = batch.regions_BRV[:, 0].sum(1) * 90
            training_BA = output.logits_BA + self.mix * bias_BA + misled_B[:, None]
            penalties = {} if batch.targets_BA is None else {"entropy": self.mix.square()}
            return dataclasses.replace(output, training_logits_BA=training_BA, penalties=penalties)

    inner = Product(SPEC)
    model = CssLmh(SPEC, Biased(SPEC, inner), branch="visual", top_answers=1)
    steps = train_on(model, make())
    assert inner.asked[1].region_mask_BR.tolist() == [[False, True, False, False]] * 2
    changed_BA = inner.asked[2].targets_BA
    assert changed_BA is not None
    assert not changed_BA.any()  # the first answer is the right one, which the bias does not prefer
    for step in steps:
        mixed = step["base.mix"]
        assert mixed is not None
        assert mixed > 2  # four wrong answers are pushed by the bias, and the penalty's slope is 2


def test_a_base_s_own_procedure_is_gone_through_on_both_batches() -> None:
    class Twofold(Wrapper):
        """Trains on each batch twice, the second time with half the loss."""

        def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
            yield criterion(self(batch), batch)
            yield 0.5 * criterion(self(batch.replace(question_types_B=batch.question_types_B + 1)), batch)

    inner = Product(SPEC)
    assert len(train_on(Css(SPEC, Twofold(SPEC, inner), branch="visual"), make())) == 4
    kinds = [asked.question_types_B[0].item() for asked in inner.asked]
    assert kinds == [0, 1, 0, 0, 1]
    counts = [int(asked.region_mask_BR[0].sum()) for asked in inner.asked]
    assert counts == [3, 3, 1, 2, 2]


def test_a_base_that_skips_a_batch_has_no_counterfactual() -> None:
    class Skipping(Wrapper):
        def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
            return iter(())

    assert train_on(Css(SPEC, Skipping(SPEC, Product(SPEC))), make()) == []


def test_a_base_that_shows_no_words_is_told_so_at_the_first_batch() -> None:
    silent = Changed(SPEC, Product(SPEC), word_embeddings_BLE=None)
    for seed in range(4):  # whichever branch is drawn
        torch.manual_seed(seed)
        with pytest.raises(PluginError, match="only branch=visual works"):
            train_on(Css(SPEC, silent), make())
    assert len(train_on(Css(SPEC, silent, branch="visual"), make())) == 2


def test_a_base_that_does_not_look_is_told_so() -> None:
    class Blind(Wrapper):
        def forward(self, batch: Batch) -> Output:
            return super().forward(batch.replace(regions_BRV=torch.zeros_like(batch.regions_BRV)))

    with pytest.raises(PluginError, match="do not depend on"):
        train_on(Css(SPEC, Blind(SPEC, Product(SPEC)), branch="visual"), make())
    assert len(train_on(Css(SPEC, Blind(SPEC, Product(SPEC)), branch="question"), make())) == 2


class OwnTokens(Product):
    """Reads pieces of its own: one more position than there are words."""

    def forward(self, batch: Batch) -> Output:
        return super().forward(batch.replace(tokens_BL=batch.extras["pieces"]))


class OwnMasks(OwnTokens):
    """Also distinguishes words from other pieces."""

    def word_masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        pieces_BL = batch.extras["pieces"]
        return pieces_BL != 0, torch.isin(pieces_BL, torch.tensor(TYPE_WORDS))


class OwnTokeniser(OwnMasks):
    """Also hides words."""

    def hide_words(self, batch: Batch, hidden_BL: Tensor) -> Batch:
        return batch.replace(extras={"pieces": batch.extras["pieces"].masked_fill(hidden_BL, UNKNOWN)})


def test_a_base_with_its_own_tokeniser_has_words_of_its_own() -> None:
    pieces_BL = torch.tensor([[2, 3, TWO, DOG, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0]])
    base, batch = OwnTokeniser(SPEC), make().replace(extras={"pieces": pieces_BL})
    wrapped = Changed(SPEC, base)  # through a wrapper, too
    assert len(train_on(Css(SPEC, wrapped, branch="question"), batch)) == 2
    assert base.asked[1].tokens_BL.tolist() == [[2, 3, UNKNOWN, DOG, 0, 0, 0]]
    assert base.asked[2].tokens_BL.tolist() == [[2, 3, TWO, UNKNOWN, 0, 0, 0]]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OwnTokens, "embeds 7 words of a question, but has masks for 6"),
        (OwnMasks, "no method to hide words from it"),
    ],
)
def test_a_base_with_its_own_tokeniser_that_keeps_its_words_to_itself_is_refused(
    kind: type[Product], message: str
) -> None:
    batch = make().replace(extras={"pieces": torch.full((2, 7), DOG)})
    with pytest.raises(PluginError, match=message):
        train_on(Css(SPEC, kind(SPEC), branch="question"), batch)
    assert len(train_on(Css(SPEC, kind(SPEC), branch="visual"), batch)) == 2


def test_answers_and_weights_are_the_base_s() -> None:
    base, batch = Product(SPEC).eval(), make(targets_BA=torch.zeros(2, ANSWERS)).replace(targets_BA=None)
    model = Css(SPEC, base).eval()
    assert model(batch).logits_BA.equal(base(batch).logits_BA)
    assert set(model.state_dict()) == {f"base.{name}" for name in base.state_dict()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "candidates must be at least 1, not 0"),
        ({"top_answers": 0}, "top_answers must be at least 1, not 0"),
        ({"share": 0.0}, "share must be above 0 and at most 1, not 0.0"),
        ({"share": 1.1}, "share must be above 0 and at most 1, not 1.1"),
        ({"sharpness": 0.0}, "sharpness must be above 0, not 0.0"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Css(SPEC, Product(SPEC), **options)


def test_counterfactuals_of_counterfactuals_are_refused() -> None:
    spec = make_spec()
    with pytest.raises(ValueError, match="already makes counterfactual samples"):
        Css(spec, Wrapper(spec, Css(spec, Innermost(spec))))
