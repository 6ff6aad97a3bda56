from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.losses.cases import make_batch, make_spec
from tests.losses.long_tailed import EQUAL, SKEWED, make_priors, make_questions
from vqabench.losses.class_balanced import effective_number_weights
from vqabench.losses.ldam import Ldam, answer_margins, log_sum_of_others
from vqabench.losses.plain import Plain

SPEC = make_spec(torch.tensor([[160.0, 10.0]]))


def test_margins_fall_with_the_fourth_root_of_the_count() -> None:
    spec = make_spec(torch.tensor([[160.0, 10.0, 9.0], [810.0, 160.0, 10.0], [0.0, 0.0, 0.0]]))
    expected = torch.tensor([[0.25, 0.5, 0], [0.5 / 3, 0.25, 0.5], [0, 0, 0]])
    torch.testing.assert_close(answer_margins(spec, 10, 0.5), expected)


def test_each_answer_has_a_term_of_its_own_with_its_own_margin() -> None:
    batch = make_batch(torch.tensor([0]), torch.tensor([[1.0, 0.6]], dtype=torch.float64))
    value = Ldam(SPEC, "ce", scale=2.0)(torch.tensor([[1.0, 0.0]], dtype=torch.float64), batch)
    expected = math.log1p(math.exp(2 * (0 - 1 + 0.25))) + 0.6 * math.log1p(math.exp(2 * (1 - 0 + 0.5)))
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_without_margin_it_is_the_plain_loss_of_scaled_logits() -> None:
    batch, logits_BA = make_questions(SKEWED)
    value = Ldam(make_priors(), "ce", largest=0.0, scale=3.0)(logits_BA, batch)
    torch.testing.assert_close(value, Plain(make_priors(), "ce")(3 * logits_BA, batch))


def test_equal_counts_give_every_answer_the_largest_margin() -> None:
    batch, logits_BA = make_questions(EQUAL)
    assert batch.targets_BA is not None
    one_hot_BA = torch.eye(5, dtype=torch.float64)[:2]
    value = Ldam(make_priors(), "ce")(logits_BA, batch.replace(targets_BA=one_hot_BA))
    lowered = Plain(make_priors(), "ce")(logits_BA - 0.5 * one_hot_BA, batch.replace(targets_BA=one_hot_BA))
    torch.testing.assert_close(value, lowered)


def test_the_optimum_gives_each_answer_its_margin() -> None:
    """Two images, one per answer, whose margins must share 3: the best boundary is nearer the frequent one."""
    batch = make_batch(torch.tensor([0, 0]), torch.eye(2, dtype=torch.float64))
    spec, largest = SPEC, 2.0
    shift = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)  # the frequent answer leads by 1.5 - 0.5
    lead_B = torch.stack([1.5 - shift, -1.5 - shift])
    value = Ldam(spec, "ce", largest=largest)(torch.stack([lead_B, torch.zeros_like(lead_B)], 1), batch)
    assert torch.autograd.grad(value, shift)[0].item() == pytest.approx(0, abs=1e-7)
    margins = answer_margins(spec, 10, largest)[0]
    assert ((1.5 + shift) - (1.5 - shift)).item() == pytest.approx((margins[1] - margins[0]).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sum_of_the_others_keeps_its_digits_beside_any_leader(dtype: torch.dtype) -> None:
    logits_BA = torch.tensor([[90.0, 1.0, 2.0], [0.0, 0.0, -90.0]], dtype=dtype)
    pairs = [[(1.0, 2.0), (90.0, 2.0), (90.0, 1.0)], [(0.0, -90.0), (0.0, -90.0), (0.0, 0.0)]]
    expected = torch.tensor([[math.log(sum(map(math.exp, pair))) for pair in row] for row in pairs], dtype=dtype)
    torch.testing.assert_close(log_sum_of_others(logits_BA), expected)


def test_a_leader_with_all_of_the_softmax_has_the_gradient_of_its_margin() -> None:
    """Leading by 30 with a margin of 30, an answer has a loss of log 2 and half a gradient."""
    logits_BA = torch.tensor([[30.0, 0.0], [300.0, 0.0]], requires_grad=True)
    spec = make_spec(torch.tensor([[20.0, 20.0]]))
    batch = make_batch(torch.tensor([0, 0]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    value = Ldam(spec, "ce", largest=30.0)(logits_BA, batch)
    (gradient_BA,) = torch.autograd.grad(value, logits_BA)
    assert value.item() == pytest.approx(math.log(2) / 2)
    torch.testing.assert_close(2 * gradient_BA, torch.tensor([[-0.5, 0.5], [0.0, 0.0]]))


@pytest.mark.parametrize(("reweight_from", "first"), [(0.8, 8), (0.75, 8), (0.0, 0), (None, 10)])
def test_reweighting_starts_at_its_share_of_the_epochs(reweight_from: float | None, first: int) -> None:
    batch, logits_BA = make_questions(SKEWED)
    loss = Ldam(make_priors(), "ce", reweight_from=reweight_from, beta=0.99)
    never = Ldam(make_priors(), "ce", reweight_from=None)(logits_BA, batch)
    reweighted = []
    for epoch in range(10):
        loss.start_epoch(epoch, 10)
        reweighted.append(bool(loss(logits_BA, batch) != never))
    assert reweighted == [epoch >= first for epoch in range(10)]


def test_the_last_epoch_of_a_short_stage_is_reweighted() -> None:
    for epochs in (1, 2, 4):
        loss = Ldam(make_priors(), "ce")
        reweighted = []
        for epoch in range(epochs):
            loss.start_epoch(epoch, epochs)
            reweighted.append(loss.reweighted)
        assert reweighted == [epoch == epochs - 1 for epoch in range(epochs)]


def test_reweighted_terms_have_the_class_balanced_weights() -> None:
    targets_BA = torch.tensor([[0.0, 0.6]], dtype=torch.float64)
    batch, logits_BA = make_batch(torch.tensor([0]), targets_BA), torch.zeros(1, 2, dtype=torch.float64)
    loss = Ldam(SPEC, "ce", beta=0.99)
    before = loss(logits_BA, batch)
    loss.start_epoch(9, 10)
    weight = effective_number_weights(SPEC, 10, 0.99)[0, 1].item()
    assert loss(logits_BA, batch).item() == pytest.approx(weight * before.item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"largest": -1.0}, "largest must be at least 0"),
        ({"scale": 0.0}, "scale above 0"),
        ({"reweight_from": 1.0}, "at least 0 and below 1, or none"),
        ({"reweight_from": -0.1}, "at least 0 and below 1, or none"),
        ({"beta": 1.0}, "beta must be at least 0 and below 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ldam(SPEC, "ce", **options)
