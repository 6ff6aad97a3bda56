"""The losses for long-tailed answers: by hand, at equal counts, and their claims in miniature."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.losses.cases import make_batch, make_spec
from vqabench.api import DataSpec, Loss, plain_loss
from vqabench.errors import InputError
from vqabench.losses.class_balanced import ClassBalanced, effective_weights
from vqabench.losses.equalized_focal import EqualizedFocal
from vqabench.losses.focal import Focal
from vqabench.losses.ldam import Ldam, margins
from vqabench.losses.logit_adjust import BalancedSoftmax, LogitAdjust

UNEVEN = torch.tensor([[80.0, 16.0, 1.0, 0.0], [5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
SEEN = torch.tensor([10, 2, 0])
TYPES = torch.tensor([0, 1, 2, 0])
TARGETS = torch.tensor([[0, 1.0, 0, 0], [0.3, 0, 0.9, 0], [1.0, 0, 0, 0.3], [0, 0, 0.6, 0.6]], dtype=torch.float64)
LOGITS = torch.tensor([[2.0, -1, 0.5, 0], [0.1, 0.2, 0.3, 0.4], [1, 1, -2, 0], [0, 3, -3, 1]], dtype=torch.float64)
EVERYTHING: list[tuple[type[Loss], dict[str, Any]]] = [
    (ClassBalanced, {"minimum": 1}),
    (LogitAdjust, {}),
    (BalancedSoftmax, {}),
    (Ldam, {"minimum": 1}),
    (Ldam, {"minimum": 1, "defer": 0.0, "scale": 3.0}),
    (EqualizedFocal, {"minimum": 1}),
]


def spec_of(counts_TA: Tensor = UNEVEN, questions_T: Tensor = SEEN) -> DataSpec:
    spec = make_spec(counts_TA, questions_T)
    shares_TA = counts_TA / counts_TA.sum(1, keepdim=True).clamp(min=1)
    spec.mean_targets_TA.copy_(torch.where(questions_T[:, None] > 0, shares_TA, 1 / counts_TA.shape[1]))
    return spec


def plain(objective: str, logits_BA: Tensor = LOGITS) -> Tensor:
    return plain_loss(objective, logits_BA, TARGETS).sum(1).mean()


def value(loss: Loss, rows: list[int] | None = None) -> Tensor:
    chosen = [0, 1, 2, 3] if rows is None else rows
    result: Tensor = loss.double()(LOGITS[chosen], make_batch(TYPES[chosen], TARGETS[chosen]))
    return result


def test_effective_numbers_are_those_of_the_paper() -> None:
    weights = effective_weights(spec_of(), beta=0.9, minimum=1)
    raw = torch.tensor([0.1 / (1 - 0.9**80), 0.1 / (1 - 0.9**16), 1.0])
    torch.testing.assert_close(weights[0], torch.cat([raw / raw.mean(), torch.ones(1)]))
    assert weights[1].tolist() == pytest.approx([1, 1, 1, 1])
    assert weights[2].tolist() == [1, 1, 1, 1]


def test_margins_grow_with_the_fourth_root_of_rarity() -> None:
    found = margins(spec_of(), largest=0.5, minimum=1)
    assert found[0].tolist() == pytest.approx([0.5 * 80**-0.25, 0.5 * 16**-0.25, 0.5, 0])
    assert found[1].tolist() == [0.5] * 4
    assert found[2].tolist() == [0] * 4


@pytest.mark.parametrize("objective", ["bce", "ce"])
def test_a_margin_is_taken_off_by_the_share_of_the_target(objective: str) -> None:
    shifted = LOGITS.clone()
    shifted[1, 0] -= 0.5 * 0.3
    shifted[1, 2] -= 0.5 * 0.9
    expected = plain_loss(objective, 2 * shifted[1:2], TARGETS[1:2]).sum(1).mean()
    torch.testing.assert_close(value(Ldam(spec_of(), objective, minimum=1, scale=2.0), [1]), expected)


def test_answers_are_weighted_from_the_deferred_share_of_a_stage_on() -> None:
    loss = Ldam(spec_of(), "ce", minimum=1, largest=0.0, defer=0.5, beta=0.9)
    seen = []
    for epoch in range(4):
        loss.start_epoch(epoch, 4)
        seen.append(value(loss).item())
    weighted = value(ClassBalanced(spec_of(), "ce", beta=0.9, minimum=1)).item()
    assert seen == pytest.approx([plain("ce").item()] * 2 + [weighted] * 2)


def test_the_prior_is_added_as_logarithms_under_ce_and_log_odds_under_bce() -> None:
    spec = spec_of()
    shares = spec.mean_targets_TA.double()
    for objective, term in (("ce", shares[1].log()), ("bce", torch.logit(shares[1]))):
        expected = plain_loss(objective, LOGITS[1:2] + 0.7 * term, TARGETS[1:2]).sum(1).mean()
        torch.testing.assert_close(value(LogitAdjust(spec, objective, tau=0.7), [1]), expected, rtol=1e-6, atol=0)


def test_balanced_softmax_multiplies_the_terms_by_counts() -> None:
    counts = UNEVEN[0].double() + 1
    terms = counts * LOGITS[0].exp()
    expected = -torch.log(terms[1] / terms.sum())
    torch.testing.assert_close(value(BalancedSoftmax(spec_of(), "ce"), [0]), expected, rtol=1e-6, atol=0)


def test_focus_grows_with_rarity_and_a_balanced_type_has_the_focal_loss() -> None:
    loss = EqualizedFocal(spec_of(), "bce", minimum=1)
    assert loss.focus_TA[0].tolist() == pytest.approx([2, 2 + 8 * 0.8, 2 + 8 * 79 / 80, 2])
    focal = Focal(spec_of(), "bce")
    torch.testing.assert_close(value(loss, [1, 2]), value(focal, [1, 2]))
    assert not torch.isclose(value(loss, [0]), value(focal, [0]))


@pytest.mark.parametrize(("kind", "options"), [one for one in EVERYTHING if one[0] is not EqualizedFocal])
def test_a_type_that_training_never_saw_has_the_plain_loss(kind: type[Loss], options: dict[str, Any]) -> None:
    options = options | ({"scale": 1.0} if kind is Ldam else {})
    for objective in kind.objectives:
        loss = kind(spec_of(), objective, **options)
        loss.start_epoch(0, 1)
        expected = plain_loss(objective, LOGITS[2:3], TARGETS[2:3]).sum(1).mean()
        torch.testing.assert_close(value(loss, [2]), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("kind", "options"), [*((one, {"minimum": 1}) for one in (ClassBalanced,)), (LogitAdjust, {})]
)
def test_where_all_answers_are_as_frequent_it_is_the_plain_loss_under_ce(
    kind: type[Loss], options: dict[str, Any]
) -> None:
    expected = plain_loss("ce", LOGITS[1:2], TARGETS[1:2]).sum(1).mean()
    torch.testing.assert_close(value(kind(spec_of(), "ce", **options), [1]), expected, rtol=1e-6, atol=1e-6 * 1.2)


@pytest.mark.parametrize(("kind", "options"), EVERYTHING)
def test_gradients_are_right_in_double_precision(kind: type[Loss], options: dict[str, Any]) -> None:
    for objective in kind.objectives:
        loss = kind(spec_of(), objective, **options).double()
        loss.start_epoch(0, 1)
        batch = make_batch(TYPES, TARGETS)
        assert torch.autograd.gradcheck(
            lambda logits, loss=loss, batch=batch: loss(logits, batch), [LOGITS.clone().requires_grad_()]
        )


@pytest.mark.parametrize(("kind", "options"), EVERYTHING)
def test_sure_models_have_finite_losses_and_gradients(kind: type[Loss], options: dict[str, Any]) -> None:
    for objective in kind.objectives:
        logits = (100 * LOGITS).float().requires_grad_()
        loss = kind(spec_of(), objective, **options)(logits, make_batch(TYPES, TARGETS.float()))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "objective"), [(BalancedSoftmax, "ce"), (LogitAdjust, "ce"), (LogitAdjust, "bce")]
)
def test_trained_on_a_skewed_prior_it_is_right_on_an_even_one(kind: type[Loss], objective: str) -> None:
    # Two answers, 9 : 1 in training; the image says which with 70 %. By Bayes the image decides at an even prior.
    counts = torch.tensor([[90_000.0, 10_000.0]])
    spec = spec_of(counts, torch.tensor([10_000]))
    loss = kind(spec, objective).double()
    joint = torch.tensor([[0.9 * 0.7, 0.1 * 0.3], [0.9 * 0.3, 0.1 * 0.7]], dtype=torch.float64)  # image, answer
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        each = [
            joint[image, answer]
            * loss(
                logits[image : image + 1], make_batch(torch.tensor([0]), torch.eye(2).double()[answer : answer + 1])
            )
            for image in (0, 1)
            for answer in (0, 1)
        ]
        total = torch.stack(each).sum()
        torch.autograd.backward(total)
        return total

    for _ in range(5):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert logits.argmax(1).tolist() == [0, 1]
    odds = torch.log(torch.tensor(0.7 / 0.3)).item()
    differences = (logits[:, 0] - logits[:, 1]).tolist()
    expected = [odds, -odds] if objective == "ce" else [2 * odds, -2 * odds]
    assert differences == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "objective", "options", "told"),
    [
        (ClassBalanced, "ce", {"beta": 1.0}, "beta must be above 0 and below 1, not 1.0"),
        (LogitAdjust, "ce", {"tau": -1.0}, "tau must be at least 0, not -1.0"),
        (Ldam, "ce", {"largest": -1.0}, "largest must be at least 0 and scale above 0"),
        (Ldam, "ce", {"defer": 1.5}, r"defer must be in \[0, 1\]"),
        (EqualizedFocal, "bce", {"gamma": 0.0}, "gamma above 0"),
        (ClassBalanced, "ce", {"minimum": 0}, "minimum must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(
    kind: type[Loss], objective: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        kind(spec_of(), objective, **options)
