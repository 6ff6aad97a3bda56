from __future__ import annotations

import math

import pytest
import torch

from tests.losses.cases import make_batch
from tests.losses.long_tailed import SKEWED, make_priors, make_questions, with_priors
from tests.losses.toy import SHARES_A, make_world, minimise, posterior
from vqabench.losses.logit_adjust import LogitAdjust, prior_adjustment
from vqabench.losses.plain import Plain

SPEC = with_priors(torch.tensor([[80.0, 20.0, 9.0]]), torch.tensor([[0.8, 0.2, 0.05]]), torch.tensor([10]))


def test_adjustments_by_hand() -> None:
    """The mean over the set is 0.5; the third answer is below the minimum."""
    ce = prior_adjustment(SPEC, "ce", 10, 1.0)[0]
    bce = prior_adjustment(SPEC, "bce", 10, 0.5)[0]
    assert ce.tolist() == pytest.approx([math.log(1.6), math.log(0.4), 0])
    assert bce.tolist() == pytest.approx([0.5 * math.log(4), -0.5 * math.log(4), 0])


def test_losses_by_hand() -> None:
    batch = make_batch(torch.tensor([0]), torch.tensor([[0.0, 1.0, 0.3]], dtype=torch.float64))
    logits_BA = torch.zeros(1, 3, dtype=torch.float64)
    ce, bce = (LogitAdjust(SPEC, objective)(logits_BA, batch).item() for objective in ("ce", "bce"))
    assert ce == pytest.approx(-math.log(0.4 / 3) - 0.3 * math.log(1 / 3), rel=1e-6)  # 1.6 + 0.4 + 1 = 3
    assert bce == pytest.approx(2 * math.log(5) + math.log(2), rel=1e-6)  # log(1 + 4), twice, and log(1 + 1)


@pytest.mark.parametrize("objective", ["ce", "bce"])
def test_a_temperature_of_0_is_the_plain_loss(objective: str) -> None:
    batch, logits_BA = make_questions(SKEWED)
    value = LogitAdjust(make_priors(), objective, tau=0.0)(logits_BA, batch)
    assert value == Plain(make_priors(), objective)(logits_BA, batch)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_optimum_divides_the_prior_out_of_the_posterior(tau: float) -> None:
    logits_XA = minimise(LogitAdjust(make_world(), "ce", tau=tau))
    torch.testing.assert_close(logits_XA.softmax(1), posterior(SHARES_A ** (1 - tau)), rtol=1e-4, atol=0)


def test_under_bce_each_answers_prior_log_odds_are_taken_off() -> None:
    """The mean prior, 1 / 3, stands in the place of each answer's own."""
    logits_XA = minimise(LogitAdjust(make_world(), "bce"))
    expected_XA = torch.logit(posterior(SHARES_A)) - torch.logit(SHARES_A) + math.log(0.5)
    torch.testing.assert_close(logits_XA, expected_XA, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["ce", "bce"])
def test_an_answer_to_every_question_has_a_finite_adjustment(objective: str) -> None:
    means = torch.tensor([[1.0, 0.5]])
    spec = with_priors(torch.tensor([[80.0, 20.0]]), means, torch.tensor([9]))
    adjustment = prior_adjustment(spec, objective, 10, 1.0)
    assert adjustment.isfinite().all()
    if objective == "bce":  # 0.99 is a tenth of one in ten away from 1, and the mean is 0.745
        assert adjustment[0, 0].item() == pytest.approx(math.log(99) - math.log(0.745 / 0.255), rel=1e-5)


@pytest.mark.parametrize("tau", [-0.1, math.nan])
def test_an_impossible_temperature_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be at least 0"):
        LogitAdjust(SPEC, "ce", tau=tau)
