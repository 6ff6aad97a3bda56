from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.losses.cases import make_batch, make_spec
from vqabench.losses.plain import Plain
from vqabench.losses.rescale import Rescale, imbalance_weights

COUNTS = st.lists(st.integers(1, 10_000), min_size=2, max_size=12)


def test_table_1_of_the_paper() -> None:
    """Shares of 80 % and 4 % weigh 0.25 and 24 before smoothing."""
    spec = make_spec(torch.tensor([[80.0, 4.0, 16.0]]))
    weights = imbalance_weights(spec, 1, 1.0)[0]
    expected = [math.log(1 + math.exp(0.25)), math.log(1 + math.exp(24))]
    assert weights[:2].tolist() == pytest.approx(expected, rel=1e-6)


@given(COUNTS)
def test_a_rarer_answer_never_weighs_less(counts: list[int]) -> None:
    weights = imbalance_weights(make_spec(torch.tensor([counts], dtype=torch.float32)), 1, 1.0)[0]
    order = sorted(range(len(counts)), key=lambda answer: counts[answer])
    ranked = [float(weights[answer]) for answer in order]
    assert ranked == sorted(ranked, reverse=True)
    assert all(math.log(2) - 1e-6 <= weight <= 100 for weight in ranked)


@given(COUNTS, st.integers(2, 50))
def test_weights_depend_on_shares_alone(counts: list[int], factor: int) -> None:
    once = make_spec(torch.tensor([counts], dtype=torch.float32))
    often = make_spec(torch.tensor([counts], dtype=torch.float32) * factor)
    torch.testing.assert_close(imbalance_weights(once, 1, 1.0), imbalance_weights(often, 1, 1.0))


def test_answers_below_the_minimum_are_outside_and_do_not_count() -> None:
    spec = make_spec(torch.tensor([[50.0, 50.0, 9.0]]))
    weights = imbalance_weights(spec, 10, 1.0)[0]
    assert weights.tolist() == pytest.approx([math.log(1 + math.e)] * 2 + [1.0])


@pytest.mark.parametrize("variant", ["paper", "released", "released-both"])
def test_a_type_that_training_never_saw_is_not_rescaled(variant: str) -> None:
    spec = make_spec(torch.tensor([[50.0, 20.0], [0.0, 0.0]]), torch.tensor([7, 0]))
    batch = make_batch(torch.tensor([1]), torch.tensor([[0.3, 0.9]]))
    logits_BA = torch.tensor([[1.0, -2.0]])
    for objective in ("bce", "ce"):
        rescaled = Rescale(spec, objective, variant=variant)(logits_BA, batch)  # type: ignore[arg-type]
        assert rescaled == Plain(spec, objective)(logits_BA, batch)


def test_weighting_both_terms_leaves_the_optimum_where_it_was() -> None:
    """Under bce the gradient is zero exactly where σ(p) equals the target (Eq. 12)."""
    spec = make_spec(torch.tensor([[80.0, 20.0]]))
    targets_BA = torch.tensor([[0.3, 0.9]], dtype=torch.float64)
    logits_BA = torch.logit(targets_BA).requires_grad_()
    value = Rescale(spec, "bce")(logits_BA, make_batch(torch.tensor([0]), targets_BA))
    (gradient_BA,) = torch.autograd.grad(value, logits_BA)
    torch.testing.assert_close(gradient_BA, torch.zeros_like(gradient_BA), atol=1e-12, rtol=0)


def test_rescale_adds_no_parameter_and_nothing_to_the_state() -> None:
    rescale = Rescale(make_spec(torch.tensor([[80.0, 20.0]])), "ce")
    assert list(rescale.parameters()) == []
    assert rescale.state_dict() == {}


def released_weight(counts: list[float], answer: int, *, answered: bool) -> float:
    """Return an answer's weight as the published code computes it: (miu, mask) of a question, then smoothed.

    A question without an answer in the vocabulary has miu 1 and mask 0 for every answer.
    """
    kept = [count for count in counts if count >= 10]
    inside = answered and counts[answer] >= 10
    miu = (sum(kept) - counts[answer]) / counts[answer] if inside else 1.0
    mask = 1.0 if inside else 0.0
    return miu * (1 - mask) + min(100.0, math.log1p(math.exp(min(50.0, miu * mask))))


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("variant", ["released", "released-both"])
@pytest.mark.parametrize("objective", ["bce", "ce"])
def test_questions_without_an_answer_in_the_vocabulary_weigh_as_in_the_published_code(
    objective: str, variant: str, by_hand: bool
) -> None:
    counts = [[80.0, 20.0, 0.0], [30.0, 30.0, 40.0]]
    spec = make_spec(torch.tensor(counts))
    targets = [[0.9, 0.3, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    # the last question's targets are those of a counterfactual: it had an answer in the vocabulary
    answered, types = [True, False, True, not by_hand], [0, 0, 1, 1]
    logits_BA = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for row in range(4):
        softmax = logits_BA[row].softmax(0)
        for answer in range(3):
            weight = released_weight(counts[types[row]], answer, answered=answered[row])
            target, sigmoid = targets[row][answer], float(torch.sigmoid(logits_BA[row, answer]))
            if objective == "ce":
                total -= weight * target * math.log(softmax[answer])
            else:
                other = weight if variant == "released-both" else 1.0
                total -= weight * target * math.log(sigmoid) + other * (1 - target) * math.log(1 - sigmoid)
    batch = make_batch(torch.tensor(types), torch.tensor(targets, dtype=torch.float64))
    if not by_hand:
        batch = batch.replace(answered_B=torch.tensor(answered))
    value = Rescale(spec, objective, variant=variant)(logits_BA, batch)  # type: ignore[arg-type]
    assert float(value) == pytest.approx(total / 4, rel=1e-6)
