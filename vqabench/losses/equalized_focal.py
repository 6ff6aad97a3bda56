"""Equalized focal loss: the rarer an answer within the question type, the more its loss is focused on mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.errors import InputError
from vqabench.losses.answer_sets import answer_sets

SMALLEST = 1e-12
"""1 - p_t is kept above this: at 0 a power below 1 has no gradient."""


class EqualizedFocal(Loss):
    """The equalized focal loss (Li et al. 2022, Eqs. 4 to 6), its categories the answers of the question's type.

    An answer's focusing factor is γ_i = `gamma` + `spread` (1 - g_i), and its focal loss is weighted by γ_i /
    `gamma`. The paper tracks g, how balanced a category's gradients have been; here the counts are known
    beforehand: g_i is the answer's count over that of the type's most frequent one. Answers outside the type's
    set, and types that training never saw, have g = 1, the focal loss. Soft targets as in `focal` under `bce`.
    """

    objectives = ("bce",)
    declarations: ClassVar[Mapping[str, str]] = {
        "ce": "each answer has a focusing factor of its own, but a softmax one loss for all of them",
    }

    def __init__(
        self,
        spec: DataSpec,
        objective: str,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        spread: float = 8.0,
        minimum: int = 10,
    ) -> None:
        super().__init__(spec, objective)
        if not 0 <= alpha <= 1 or gamma <= 0 or spread < 0:
            raise InputError(
                "equalized-focal: alpha must be in [0, 1], gamma above 0 and spread at least 0, "
                f"not {alpha}, {gamma} and {spread}"
            )
        self.alpha, self.gamma = alpha, gamma
        kept_TA, counts_TA = answer_sets(spec, minimum), spec.answer_counts_TA
        balance_TA = counts_TA / counts_TA.amax(1, keepdim=True).clamp(min=1)
        self.focus_TA: Tensor
        self.register_buffer(
            "focus_TA", torch.where(kept_TA, gamma + spread * (1 - balance_TA), gamma).float(), persistent=False
        )

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Give the mean loss."""
        targets_BA = batch.targets_BA
        assert targets_BA is not None
        share_BA = torch.sigmoid(logits_BA)
        miss_BA = (targets_BA * (1 - share_BA) + (1 - targets_BA) * share_BA).clamp(min=SMALLEST)
        alpha_BA = self.alpha * targets_BA + (1 - self.alpha) * (1 - targets_BA)
        focus_BA = self.focus_TA[batch.question_types_B].to(logits_BA.dtype)
        loss_BA = plain_loss(self.objective, logits_BA, targets_BA)
        return (focus_BA / self.gamma * alpha_BA * miss_BA**focus_BA * loss_BA).sum(1).mean()
