"""Class-balanced loss: weight an answer's loss by its effective number of samples within the question type."""

from __future__ import annotations

import torch
from torch import Tensor

from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.errors import InputError
from vqabench.losses.answer_sets import answer_sets


def effective_weights(spec: DataSpec, beta: float, minimum: int) -> Tensor:
    """Give weights [T, A]: (1 - β) / (1 - β^n) of an answer given n times to the type, 1 on average over its set.

    All ten human answers are counted (Cui et al. 2019, Eq. 5, and its normalisation). Answers outside the
    type's set weigh 1, as everything does for a type that training never saw.
    """
    kept_TA = answer_sets(spec, minimum)
    counts_TA = spec.answer_counts_TA.double().clamp(min=1)
    raw_TA = torch.where(
        kept_TA, (1 - beta) / -torch.expm1(counts_TA * torch.log(torch.tensor(beta).double())), 0.0
    )
    mean_T1 = raw_TA.sum(1, keepdim=True) / kept_TA.sum(1, keepdim=True).clamp(min=1)
    return torch.where(kept_TA, raw_TA / mean_T1, 1.0).float()


class ClassBalanced(Loss):
    """The class-balanced loss (Cui et al. 2019), its classes the answers of the question's type.

    An answer's whole loss is weighted, for any soft target. β near 1 weighs by 1 / n; at 0 all weigh alike.
    """

    def __init__(self, spec: DataSpec, objective: str, *, beta: float = 0.999, minimum: int = 10) -> None:
        super().__init__(spec, objective)
        if not 0 < beta < 1:
            raise InputError(f"class-balanced: beta must be above 0 and below 1, not {beta}")
        self.weights_TA: Tensor
        self.register_buffer("weights_TA", effective_weights(spec, beta, minimum), persistent=False)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Give the mean weighted loss."""
        assert batch.targets_BA is not None
        weights_BA = self.weights_TA[batch.question_types_B].to(logits_BA.dtype)
        return (weights_BA * plain_loss(self.objective, logits_BA, batch.targets_BA)).sum(1).mean()
