"""Focal loss: less weight for what is already answered well."""

from __future__ import annotations

import torch
from torch import Tensor

from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.errors import InputError

SMALLEST = 1e-12
"""1 - p_t is kept above this: at 0 a power below 1 has no gradient."""


class Focal(Loss):
    """Focal loss (Eq. 10; Lin et al. 2017), with soft targets.

    Under `ce` a question's whole loss l is modulated, with p_t = exp(-l); under `bce` each answer's, with
    p_t = a σ + (1 - a)(1 - σ) and α_t = α a + (1 - α)(1 - a).
    """

    def __init__(self, spec: DataSpec, objective: str, *, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(spec, objective)
        if not 0 <= alpha <= 1 or gamma < 0:
            raise InputError(f"focal: alpha must be in [0, 1] and gamma at least 0, not {alpha} and {gamma}")
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Give the mean focal loss."""
        targets_BA = batch.targets_BA
        assert targets_BA is not None
        loss_BA = plain_loss(self.objective, logits_BA, targets_BA)
        if self.objective == "ce":
            loss_B = loss_BA.sum(1)
            return (self.alpha * self._miss(-torch.expm1(-loss_B)) * loss_B).mean()
        share_BA = torch.sigmoid(logits_BA)
        miss_BA = targets_BA * (1 - share_BA) + (1 - targets_BA) * share_BA
        alpha_BA = self.alpha * targets_BA + (1 - self.alpha) * (1 - targets_BA)
        return (alpha_BA * self._miss(miss_BA) * loss_BA).sum(1).mean()

    def _miss(self, one_minus_p_t: Tensor) -> Tensor:
        return one_minus_p_t.clamp(min=SMALLEST) ** self.gamma
