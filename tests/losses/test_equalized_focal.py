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


def test_pull_balance_and_loss_by_hand() -> None:
    loss = EqualizedFocal(SPEC, "bce")
    logits_BA = torch.tensor([[0.0] * 3, [0.0, math.log(3), 0.0]])
    batch = make_batch(torch.tensor([0, 0]), torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.3, 0.0]]))
    loss(logits_BA, batch)
    torch.testing.assert_close(loss.upward_TA, torch.tensor([[0.8, 0.075, 0.0], [0.0] * 3]))
    torch.testing.assert_close(loss.downward_TA, torch.tensor([[0.2, 1.025, 1.0], [0.0] * 3]))
    g = 0.075 / 1.025
    torch.testing.assert_close(loss.balance(), torch.tensor([[1.0, g, 1.0], [1.0] * 3]))
    one = make_batch(torch.tensor([0]), torch.tensor([[0.0, 1.0, 0.0]]))
    gamma = 2 + 8 * (1 - g)
    expected = 0.25 * gamma / 2 * 0.5**gamma + 2 * 0.75 * 0.5**2
    assert loss(torch.zeros(1, 3), one).item() == pytest.approx(expected * math.log(2), rel=1e-5)


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scale": 0.0, "alpha": 0.5, "gamma": 1.0}])
def test_a_scale_of_0_is_the_focal_loss(options: dict[str, Any]) -> None:
    batch, logits_BA = make_questions(SKEWED)
    own = {name: value for name, value in options.items() if name != "scale"}
    loss = EqualizedFocal(make_priors(), "bce", **options)
    for _ in range(2):
        assert loss(logits_BA, batch) == Focal(make_priors(), "bce", **own)(logits_BA, batch)


def test_it_begins_as_the_focal_loss() -> None:
    batch, logits_BA = make_questions(SKEWED)
    first, second = (EqualizedFocal(make_priors(), "bce")(logits_BA, batch) for _ in range(2))
    assert first == second == Focal(make_priors(), "bce")(logits_BA, batch)


def test_a_rare_answer_is_focused_more_than_a_frequent_one() -> None:
    torch.manual_seed(0)
    loss = EqualizedFocal(SPEC, "bce")
    shares = torch.tensor([0.7, 0.1, 0.2])
    for _ in range(20):
        batch = make_batch(torch.ones(16, dtype=torch.int64), (torch.rand(16, 3) < shares).float())
        loss(torch.randn(16, 3), batch)
    frequent, rare, other = loss.balance()[1].tolist()
    assert rare < other < frequent == 1
    assert loss.balance()[0].tolist() == [1, 1, 1]  # types do not mix


def test_nothing_adds_up_outside_of_training() -> None:
    batch, logits_BA = make_questions(SKEWED)
    loss = EqualizedFocal(make_priors(), "bce")
    loss.eval()(logits_BA, batch)
    with torch.no_grad():
        loss.train()(logits_BA, batch)
    assert not loss.upward_TA.any()
    loss(logits_BA, batch)
    assert loss.upward_TA.any()


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
