"""What holds for every loss that knows the priors of question types."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from tests.losses.long_tailed import CASES, EQUAL, SKEWED, UNSEEN, Case, build, make_priors, make_questions
from vqabench.losses.equalized_focal import EqualizedFocal
from vqabench.losses.focal import Focal
from vqabench.losses.ldam import Ldam
from vqabench.losses.plain import Plain

of_every_loss = pytest.mark.parametrize("case", CASES, ids=str)


@of_every_loss
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    loss = build(case, make_priors())
    batch, logits_BA = make_questions(SKEWED, EQUAL, UNSEEN)

    def value(logits: Tensor) -> Tensor:
        result: Tensor = loss(logits, batch)
        return result

    assert gradcheck(value, (logits_BA,))


@of_every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_logits_give_finite_losses_and_gradients(case: Case, dtype: torch.dtype, sign: int) -> None:
    batch, _ = make_questions(SKEWED, EQUAL, UNSEEN)
    assert batch.targets_BA is not None
    targets_BA = batch.targets_BA.to(dtype)
    logits_BA = torch.where(targets_BA > 0.5, 100.0 * sign, -100.0 * sign).to(dtype).requires_grad_()
    value = build(case, make_priors())(logits_BA, batch.replace(targets_BA=targets_BA))
    (gradient_BA,) = torch.autograd.grad(value, logits_BA)
    assert value.isfinite()
    assert value.dtype == dtype
    assert gradient_BA.isfinite().all()
    assert (gradient_BA != 0).any()


@of_every_loss
def test_under_bfloat16_autocast_the_loss_is_that_of_single_precision(case: Case) -> None:
    batch, _ = make_questions(SKEWED, EQUAL, UNSEEN)
    assert batch.targets_BA is not None
    batch = batch.replace(targets_BA=batch.targets_BA.float())
    loss, classifier, features = build(case, make_priors()).train(), nn.Linear(4, 5), torch.randn(6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        logits_BA = classifier(features)
        value = loss(logits_BA.float(), batch)
    value.backward()
    assert classifier.weight.grad is not None
    assert classifier.weight.grad.isfinite().all()
    expected = build(case, make_priors())(logits_BA.detach().float(), batch)
    torch.testing.assert_close(value.detach(), expected, rtol=1e-6, atol=0)


@of_every_loss
def test_a_type_that_training_never_saw_has_the_plain_loss(case: Case) -> None:
    batch, logits_BA = make_questions(UNSEEN)
    values = [build(case, make_priors())(logits_BA, batch), Plain(make_priors(), case[1])(logits_BA, batch)]
    gradients = [torch.autograd.grad(value, logits_BA)[0] for value in values]
    torch.testing.assert_close(*values, rtol=1e-14, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] not in (Ldam, EqualizedFocal)], ids=str)
def test_equal_counts_make_the_plain_loss(case: Case) -> None:
    batch, logits_BA = make_questions(EQUAL)
    value = build(case, make_priors())(logits_BA, batch)
    torch.testing.assert_close(value, Plain(make_priors(), case[1])(logits_BA, batch), rtol=1e-6, atol=0)


@of_every_loss
def test_skewed_counts_make_another_loss(case: Case) -> None:
    batch, logits_BA = make_questions(SKEWED)
    value = build(case, make_priors())(logits_BA, batch).item()
    for other in (Plain, Focal):
        assert value != pytest.approx(other(make_priors(), case[1])(logits_BA, batch).item(), rel=1e-3)


@of_every_loss
def test_questions_without_any_answer_of_the_vocabulary_do_no_harm(case: Case) -> None:
    batch, logits_BA = make_questions(SKEWED)
    batch = batch.replace(targets_BA=torch.zeros_like(logits_BA))
    value = build(case, make_priors())(logits_BA, batch)
    (gradient_BA,) = torch.autograd.grad(value, logits_BA)
    assert value.isfinite()
    assert gradient_BA.isfinite().all()
    assert (value > 0) == (case[1] == "bce")


@of_every_loss
def test_no_loss_has_parameters_and_only_what_grows_in_training_is_kept(case: Case) -> None:
    loss = build(case, make_priors())
    assert list(loss.parameters()) == []
    assert set(loss.state_dict()) == ({"right_TA", "wrong_TA"} if case[0] is EqualizedFocal else set())


@of_every_loss
def test_a_minimum_that_is_not_possible_is_refused(case: Case) -> None:
    kind, objective, options = case
    with pytest.raises(ValueError, match="minimum must be at least 1, not 0"):
        build((kind, objective, options | {"minimum": 0}), make_priors())
