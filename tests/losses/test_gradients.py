"""Every loss's gradient against finite differences, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tests.losses.cases import CASES, load_case
from vqabench.api import Loss
from vqabench.losses.focal import Focal
from vqabench.losses.plain import Plain
from vqabench.losses.rescale import Rescale

LOSSES: list[tuple[type[Loss], dict[str, Any]]] = [
    (Plain, {}),
    (Focal, {}),
    (Focal, {"gamma": 0.0}),
    (Rescale, {"minimum": 1}),
    (Rescale, {"minimum": 1, "variant": "released"}),
]


@pytest.mark.parametrize("objective", ["bce", "ce"])
@pytest.mark.parametrize(("kind", "options"), LOSSES, ids=str)
def test_gradients_are_those_of_finite_differences(
    kind: type[Loss], options: dict[str, Any], objective: str
) -> None:
    spec, batch, logits_BA = load_case(CASES[0])
    loss = kind(spec, objective, **options)

    def value(logits: Tensor) -> Tensor:
        result: Tensor = loss(logits, batch)
        return result

    assert gradcheck(value, (logits_BA,))


@pytest.mark.parametrize("objective", ["bce", "ce"])
@pytest.mark.parametrize(("kind", "options"), LOSSES, ids=str)
def test_extreme_logits_give_finite_losses_and_gradients(
    kind: type[Loss], options: dict[str, Any], objective: str
) -> None:
    spec, batch, _ = load_case(CASES[0])
    assert batch.targets_BA is not None
    logits_BA = torch.where(batch.targets_BA > 0, -90.0, 90.0).float().requires_grad_()
    value = kind(spec, objective, **options)(logits_BA, batch)
    (gradient_BA,) = torch.autograd.grad(value, logits_BA)
    assert value.isfinite()
    assert gradient_BA.isfinite().all()


@pytest.mark.parametrize("options", [{"alpha": 1.1}, {"gamma": -1.0}, {"gamma": math.nan}])
def test_impossible_options_of_the_focal_loss_are_refused(options: dict[str, float]) -> None:
    spec, _, _ = load_case(CASES[0])
    with pytest.raises(ValueError, match=r"^alpha must be in \[0, 1\] and gamma at least 0"):
        Focal(spec, "ce", **options)


def test_focal_without_modulation_is_a_share_of_the_plain_loss() -> None:
    spec, batch, logits_BA = load_case(CASES[0])
    focal = Focal(spec, "ce", alpha=0.5, gamma=0.0)(logits_BA, batch)
    assert focal.item() == pytest.approx(0.5 * Plain(spec, "ce")(logits_BA, batch).item())


@pytest.mark.parametrize("objective", ["bce", "ce"])
def test_a_small_power_has_a_gradient_where_nothing_is_missed(objective: str) -> None:
    spec, batch, _ = load_case(CASES[0])
    assert batch.targets_BA is not None
    targets_BA = torch.zeros_like(batch.targets_BA)  # no human answer is in the vocabulary
    logits_BA = torch.full_like(targets_BA, -200.0, requires_grad=True)
    Focal(spec, objective, gamma=0.5)(logits_BA, batch.replace(targets_BA=targets_BA)).backward()
    assert logits_BA.grad is not None
    assert logits_BA.grad.isfinite().all()
