from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.losses.cases import make_batch, make_spec
from tests.losses.long_tailed import SKEWED, make_priors, make_questions
from vqabench.losses.equalized_focal import EqualizedFocal
from vqabench.losses.focal import Focal

SPEC = make_spec(torch.tensor([[20.0, 20.0, 9.0], [20.0, 20.0, 20.0]]))


def test_gradients_balance_and_loss_by_hand() -> None:
    """At a logit of 0 the focal loss's gradient is α_t (log 2 + 1/2) / 4 for a hard target, with a γ of 2."""
    loss = EqualizedFocal(SPEC, "bce")
    targets_BA = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.0, 0.0]])
    loss(torch.zeros(3, 3), make_batch(torch.tensor([0, 0, 0]), targets_BA))
    hard = (math.log(2) + 0.5) / 4
    soft = 0.45 * (0.05 * math.log(2) + 0.025)  # α_t = 0.45, the slope of 1 - p_t is -0.05, of bce -0.1
    right = torch.tensor([[0.25 * hard + 0.6 * soft, 0.25 * hard, 0.0], [0.0] * 3], dtype=torch.float64)
    wrong = torch.tensor([[0.75 * hard + 0.4 * soft, 1.5 * hard, 2.25 * hard], [0.0] * 3], dtype=torch.float64)
    torch.testing.assert_close(loss.right_TA, right, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(loss.wrong_TA, wrong, rtol=1e-6, atol=1e-7)
    g = 1 / 6
    torch.testing.assert_close(
        loss.balance(),
        torch.tensor([[float(right[0, 0] / wrong[0, 0]), g, 1.0], [1.0] * 3], dtype=torch.float64),
        rtol=1e-6,
        atol=1e-7,
    )
    one = make_batch(torch.tensor([0]), torch.tensor([[0.0, 1.0, 0.0]]))
    gammas = 2 + 8 * (1 - loss.balance()[0])
    expected = (torch.tensor([0.75, 0.25, 0.75]) * gammas / 2 * 0.5**gammas).sum().item() * math.log(2)
    assert loss(torch.zeros(1, 3), one).item() == pytest.approx(expected, rel=1e-5)


def test_what_adds_up_is_the_gradient_of_the_loss_with_its_focus_so_far() -> None:
    batch, logits_BA = make_questions(SKEWED)
    assert batch.targets_BA is not None
    targets_BA = 0.1 * batch.targets_BA
    batch, loss = batch.replace(targets_BA=targets_BA), EqualizedFocal(make_priors(), "bce")
    loss(logits_BA, batch)
    assert (loss.balance()[SKEWED, :4] < 1).all()
    before = loss.right_TA.clone(), loss.wrong_TA.clone()
    (gradient_BA,) = torch.autograd.grad(loss(logits_BA, batch), logits_BA)
    size_BA = len(logits_BA) * gradient_BA.abs()
    added = loss.right_TA - before[0], loss.wrong_TA - before[1]
    torch.testing.assert_close(added[0][SKEWED], (size_BA * targets_BA).sum(0).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close(added[1][SKEWED], (size_BA * (1 - targets_BA)).sum(0).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scale": 0.0, "alpha": 0.5, "gamma": 1.0}])
def test_a_scale_of_0_is_the_focal_loss(options: dict[str, Any]) -> None:
    batch, logits_BA = make_questions(SKEWED)
    own = {name: value for name, value in options.items() if name != "scale"}
    loss = EqualizedFocal(make_priors(), "bce", **options)
    for _ in range(2):
        assert loss(logits_BA, batch) == Focal(make_priors(), "bce", **own)(logits_BA, batch)


def test_it_begins_as_the_focal_loss() -> None:
    batch, logits_BA = make_questions(SKEWED)
    assert EqualizedFocal(make_priors(), "bce")(logits_BA, batch) == Focal(make_priors(), "bce")(logits_BA, batch)


def test_a_rare_answer_is_focused_more_than_a_frequent_one() -> None:
    torch.manual_seed(0)
    loss = EqualizedFocal(SPEC, "bce")
    shares = torch.tensor([0.7, 0.1, 0.2])
    for _ in range(20):
        batch = make_batch(torch.ones(16, dtype=torch.int64), (torch.rand(16, 3) < shares).float())
        loss(torch.randn(16, 3), batch)
    frequent, rare, other = loss.balance()[1].tolist()
    assert rare < other < frequent
    assert loss.balance()[0].tolist() == [1, 1, 1]  # types do not mix


def test_nothing_adds_up_outside_of_training() -> None:
    batch, logits_BA = make_questions(SKEWED)
    loss = EqualizedFocal(make_priors(), "bce")
    loss.eval()(logits_BA, batch)
    with torch.no_grad():
        loss.train()(logits_BA, batch)
    assert not loss.right_TA.any()
    loss(logits_BA, batch)
    assert loss.right_TA.any()


def test_the_state_carries_the_sums() -> None:
    batch, logits_BA = make_questions(SKEWED)
    first, second = (EqualizedFocal(make_priors(), "bce") for _ in range(2))
    first(logits_BA, batch)
    second.load_state_dict(first.state_dict())
    assert first(logits_BA, batch) == second(logits_BA, batch)


@pytest.mark.parametrize("options", [{"alpha": 1.1}, {"gamma": 0.0}, {"scale": -1.0}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], gamma above 0 and scale at least 0"):
        EqualizedFocal(SPEC, "bce", **options)  # type: ignore[arg-type]
