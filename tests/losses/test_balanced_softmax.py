from __future__ import annotations

import pytest
import torch

from tests.losses.cases import make_batch
from tests.losses.long_tailed import SKEWED, make_priors, make_questions
from tests.losses.toy import SHARES_A, accuracy, make_world, minimise, posterior
from vqabench.losses.balanced_softmax import BalancedSoftmax
from vqabench.losses.logit_adjust import LogitAdjust
from vqabench.losses.plain import Plain


def test_balanced_softmax_is_logit_adjustment_with_a_temperature_of_1() -> None:
    batch, logits_BA = make_questions(SKEWED)
    losses = BalancedSoftmax(make_priors(), "ce"), LogitAdjust(make_priors(), "ce", tau=1.0)
    first, second = (loss(logits_BA, batch) for loss in losses)
    assert first == second
    assert first != LogitAdjust(make_priors(), "ce", tau=0.9)(logits_BA, batch)
    assert BalancedSoftmax.objectives == ("ce",)


def test_balanced_softmax_is_right_where_the_priors_are_equal_and_the_plain_loss_is_not() -> None:
    equal_A = torch.ones(3)
    balanced_XA, plain_XA = minimise(BalancedSoftmax(make_world(), "ce")), minimise(Plain(make_world(), "ce"))
    best = accuracy(posterior(equal_A), equal_A)
    assert accuracy(balanced_XA, equal_A) == pytest.approx(best) == pytest.approx((0.4 + 0.5 + 0.6 + 0.1) / 3)
    assert accuracy(plain_XA, equal_A) < best - 0.1
    assert accuracy(plain_XA, SHARES_A) > accuracy(balanced_XA, SHARES_A)  # the price in domain


def test_an_answer_that_was_never_given_is_ruled_out_as_fast_as_one_of_average_frequency() -> None:
    """With its own prior, near 0, it would hardly be pushed down, and could win in testing."""
    batch = make_batch(torch.tensor([SKEWED]), torch.tensor([[1.0, 0, 0, 0, 0]]))
    logits_BA = torch.zeros(1, 5, requires_grad=True)
    (gradient_BA,) = torch.autograd.grad(BalancedSoftmax(make_priors(), "ce")(logits_BA, batch), logits_BA)
    others = gradient_BA[0, 1:4]
    assert others.min() < gradient_BA[0, 4] < others.max()
    assert gradient_BA[0, 4].item() == pytest.approx(1 / 5)
