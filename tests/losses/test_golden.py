"""Values and gradients against the paper's equations and the released code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.losses.cases import CASES, load_case, tensor
from vqabench.api import Loss, plain_loss
from vqabench.losses.focal import Focal
from vqabench.losses.mask import SMALLEST
from vqabench.losses.plain import Plain
from vqabench.losses.rescale import Rescale, imbalance_weights

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["shape"]))


def value_and_gradient(case: dict[str, Any], loss: Loss, scale: float = 1.0) -> tuple[float, Tensor]:
    _, batch, logits_BA = load_case(case)
    assert batch.targets_BA is not None
    value = loss(logits_BA, batch.replace(targets_BA=batch.targets_BA * scale))
    (gradient_BA,) = torch.autograd.grad(value, logits_BA)
    return value.item(), gradient_BA


def test_plain_loss_is_equations_2_and_3(case: dict[str, Any]) -> None:
    spec, _, _ = load_case(case)
    for objective, name in (("bce", "bce_plain_eq2"), ("ce", "ce_plain_eq3")):
        value, _ = value_and_gradient(case, Plain(spec, objective))
        assert value == pytest.approx(case["paper"][name], rel=1e-5)
    value, _ = value_and_gradient(case, Plain(spec, "ce"), scale=0.1)
    assert value == pytest.approx(case["released_code"]["ce_plain_targets_over_10"], rel=1e-5)


def test_weights_are_equations_7_and_8(case: dict[str, Any]) -> None:
    spec, _, _ = load_case(case)
    torch.testing.assert_close(
        imbalance_weights(spec, 1, 1.0).double(), tensor(case["weight_eq8_min"]), rtol=1e-5, atol=0
    )
    released = tensor(case["released_code"]["weight_with_1_plus_log2_outside_the_type"])
    torch.testing.assert_close(imbalance_weights(spec, 1, 1 + math.log(2)).double(), released, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("objective", "name"), [("bce", "bce_rescaled_eq11"), ("ce", "ce_rescaled_eq13")])
def test_rescaled_loss_and_its_gradient_are_the_papers(case: dict[str, Any], objective: str, name: str) -> None:
    spec, _, _ = load_case(case)
    value, gradient_BA = value_and_gradient(case, Rescale(spec, objective, minimum=1))
    assert value == pytest.approx(case["paper"][name], rel=1e-5)
    torch.testing.assert_close(gradient_BA, tensor(case["paper"][f"{name}_grad"]), rtol=1e-5, atol=1e-9)


def test_released_variant_is_the_released_code(case: dict[str, Any]) -> None:
    spec, _, _ = load_case(case)
    released = case["released_code"]
    value, _ = value_and_gradient(case, Rescale(spec, "bce", variant="released", minimum=1))
    assert value == pytest.approx(released["bce_rescaled_positive_term_only"], rel=1e-5)
    value, _ = value_and_gradient(case, Rescale(spec, "ce", variant="released", minimum=1), scale=0.1)
    assert value == pytest.approx(released["ce_rescaled_targets_over_10"], rel=1e-5)


def test_released_variant_for_both_terms_weighs_them_by_the_released_weights(case: dict[str, Any]) -> None:
    """So the released LM and LMH do; their values are compared where LM and LMH are."""
    spec, batch, logits_BA = load_case(case)
    assert batch.targets_BA is not None
    weights_TA = tensor(case["released_code"]["weight_with_1_plus_log2_outside_the_type"])
    weighted_BA = weights_TA[batch.question_types_B] * plain_loss("bce", logits_BA, batch.targets_BA)
    value = Rescale(spec, "bce", variant="released-both", minimum=1)(logits_BA, batch)
    torch.testing.assert_close(value, weighted_BA.sum(1).mean(), rtol=1e-5, atol=0)


def test_focal_loss_is_equation_10(case: dict[str, Any]) -> None:
    spec, _, _ = load_case(case)
    value, _ = value_and_gradient(case, Focal(spec, "bce"))
    assert value == pytest.approx(case["paper"]["bce_focal"], rel=1e-5)
    value, _ = value_and_gradient(case, Focal(spec, "ce"))
    assert value == pytest.approx(case["released_code"]["ce_focal_alpha0.25_gamma2"], rel=1e-5)


def test_the_clamp_of_the_mask_is_the_golden_one(case: dict[str, Any]) -> None:
    assert case["answer_mask"]["clamp"] == SMALLEST
