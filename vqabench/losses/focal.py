"""Focal loss: less weight for what is already answered well."""

from __future__ import annotations

import torch
from torch import Tensor

from vqabench.api import Batch, DataSpec, Loss, plain_loss

SMALLEST = 1e-12
"""Lower bound of 1 - p_t: at 0, a power with an exponent below 1 has an infinite gradient."""


def modulation(one_minus_p_t: Tensor, gamma: float | Tensor) -> Tensor:
    """Return (1 - p_t)^γ, of Eq. 10."""
    return one_minus_p_t.clamp(min=SMALLEST) ** gamma


def focal_bce(logits_BA: Tensor, targets_BA: Tensor, alpha: float, gamma: float | Tensor) -> Tensor:
    """Return each answer's sigmoid focal loss [B, A]; γ may be one number or one per answer [B, A]."""
    share_BA = torch.sigmoid(logits_BA)
    # 1 - p_t with p_t = a σ + (1 - a)(1 - σ): the usual definition, extended to soft targets a.
    miss_BA = targets_BA * (1 - share_BA) + (1 - targets_BA) * share_BA
    alpha_BA = alpha * targets_BA + (1 - alpha) * (1 - targets_BA)
    return alpha_BA * modulation(miss_BA, gamma) * plain_loss("bce", logits_BA, targets_BA)


class Focal(Loss):
    """Focal loss (Eq. 10; Lin et al. 2017, "Focal Loss for Dense Object Detection"), with soft targets.

    `ce`: α (1 - p_t)^γ l for a question's whole loss l, with p_t = exp(-l). `bce`: the same per answer, with
    p_t = a σ + (1 - a)(1 - σ) and α_t = α a + (1 - α)(1 - a). γ = 0 is the plain loss but for α.

    Raises ValueError if `alpha` is not in [0, 1] or `gamma` is negative.
    """

    capturable = True

    def __init__(self, spec: DataSpec, objective: str, *, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(spec, objective)
        if not 0 <= alpha <= 1 or not gamma >= 0:
            raise ValueError(f"alpha must be in [0, 1] and gamma at least 0, not {alpha} and {gamma}")
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the mean focal loss of logits [B, A]: a scalar."""
        targets_BA = batch.targets_BA
        assert targets_BA is not None
        if self.objective == "ce":
            loss_B = plain_loss("ce", logits_BA, targets_BA).sum(1)
            # -expm1(-l) is 1 - exp(-l) without losing its digits for small losses.
            return (self.alpha * modulation(-torch.expm1(-loss_B), self.gamma) * loss_B).mean()
        return focal_bce(logits_BA, targets_BA, self.alpha, self.gamma).sum(1).mean()
