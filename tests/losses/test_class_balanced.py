from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.losses.cases import make_batch, make_spec
from tests.losses.toy import make_world, minimise, posterior
from vqabench.losses.class_balanced import ClassBalanced, effective_number_weights

SPEC = make_spec(torch.tensor([[1.0, 2.0]]))
BATCH = make_batch(torch.tensor([0]), torch.tensor([[1.0, 0.6]], dtype=torch.float64))
LOGITS_BA = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)


def test_weights_by_hand() -> None:
    """β = 1/2: 1/2 and 3/4 of an answer; inverted 2 and 4/3, scaled to a mean of 1."""
    assert effective_number_weights(SPEC, 1, 0.5)[0].tolist() == pytest.approx([1.2, 0.8])


def test_ce_weighs_each_answers_term() -> None:
    value = ClassBalanced(SPEC, "ce", beta=0.5, minimum=1)(LOGITS_BA, BATCH)
    assert value.item() == pytest.approx(1.2 * math.log(4) + 0.8 * 0.6 * math.log(4 / 3))


def test_bce_weighs_the_whole_question_by_the_mean_weight_of_its_answers() -> None:
    value = ClassBalanced(SPEC, "bce", beta=0.5, minimum=1)(LOGITS_BA, BATCH)
    mean = (1.2 + 0.6 * 0.8) / 1.6
    assert value.item() == pytest.approx(mean * (math.log(2) + 0.6 * math.log(4 / 3) + 0.4 * math.log(4)), rel=1e-6)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=12), st.floats(0, 1, exclude_max=True))
def test_a_rarer_answer_never_weighs_less_and_the_mean_is_1(counts: list[int], beta: float) -> None:
    weights = effective_number_weights(make_spec(torch.tensor([counts], dtype=torch.float32)), 1, beta)[0]
    ranked = [float(weights[answer]) for answer in sorted(range(len(counts)), key=lambda answer: counts[answer])]
    assert ranked == sorted(ranked, reverse=True)
    assert float(weights.double().mean()) == pytest.approx(1, rel=1e-5)


def test_beta_goes_from_no_weights_to_inverse_frequencies() -> None:
    spec = make_spec(torch.tensor([[100.0, 300.0]]))
    assert effective_number_weights(spec, 1, 0.0)[0].tolist() == [1, 1]
    assert effective_number_weights(spec, 1, 1 - 1e-12)[0].tolist() == pytest.approx([1.5, 0.5])


def test_answers_below_the_minimum_weigh_1_and_do_not_count() -> None:
    weights = effective_number_weights(make_spec(torch.tensor([[100.0, 300.0, 9.0, 0.0]])), 10, 1 - 1e-12)[0]
    assert weights.tolist() == pytest.approx([1.5, 0.5, 1, 1])


@pytest.mark.parametrize("objective", ["ce", "bce"])
def test_inverse_frequencies_make_the_posterior_under_equal_priors_the_optimum(objective: str) -> None:
    logits_XA = minimise(ClassBalanced(make_world(), objective, beta=1 - 1e-12))
    found_XA = logits_XA.softmax(1) if objective == "ce" else logits_XA.sigmoid()
    torch.testing.assert_close(found_XA, posterior(torch.ones(3)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("beta", [-0.1, 1.0, math.nan])
def test_an_impossible_beta_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be at least 0 and below 1"):
        ClassBalanced(SPEC, "ce", beta=beta, minimum=1)
