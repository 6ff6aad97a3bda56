"""Loss re-scaling: weight an answer's loss by how rare the answer is within its question type."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.losses.answer_sets import answer_sets

LARGEST_WEIGHT = 100.0  # Eq. 8
OUTSIDE_RELEASED = 1 + math.log(2)
"""Weight of answers outside the set in the published code: log(1 + e^0) = log 2, the smoothed 0, plus 1."""


def imbalance_weights(spec: DataSpec, minimum: int, outside: float) -> Tensor:
    """Return μ [T, A] (Eqs. 7 and 8), at most 100.

    μ_i^j = (Σ_k n_k^j - n_i^j) / n_i^j over the answers given to type j at least `minimum` times, then min(100,
    log(1 + e^μ)). The paper prints max, but says that larger values are truncated to 100. All other answers
    have the weight `outside`.
    """
    kept_TA = answer_sets(spec, minimum)
    counts_TA = torch.where(kept_TA, spec.answer_counts_TA.double(), 0.0)
    # Counts outside the set are 0: they are in no sum, and the clamp only avoids 0 / 0 in cells replaced below.
    raw_TA = (counts_TA.sum(1, keepdim=True) - counts_TA) / counts_TA.clamp(min=1)
    smooth_TA = nn.functional.softplus(raw_TA).clamp(max=LARGEST_WEIGHT)
    return torch.where(kept_TA, smooth_TA, outside).float()


class Rescale(Loss):
    """The objective with the weights μ of the question's type (Eqs. 11 and 13).

    `variant=paper` weights an answer's whole loss; answers outside the type's set have the weight 1.

    `variant=released` follows the published code: under `bce` it weights the positive term alone, and answers
    outside the set have the weight 1 + log 2. The published learned mixins weight both terms:
    `variant=released-both`. In both variants, all answers to a question without an answer in the vocabulary have
    the weight 1 + log 2.

    In every variant, all answers of a type without training questions have the weight 1.
    """

    capturable = True
    finetunes = True

    def __init__(
        self,
        spec: DataSpec,
        objective: str,
        *,
        variant: Literal["paper", "released", "released-both"] = "paper",
        minimum: int = 10,
    ) -> None:
        super().__init__(spec, objective)
        self.positive_term_only = variant == "released" and objective == "bce"
        self.released = variant != "paper"
        weights_TA = imbalance_weights(spec, minimum, outside=OUTSIDE_RELEASED if self.released else 1.0)
        # Such a type has no counts, so Eq. 7 is undefined for it.
        weights_TA[spec.questions_T == 0] = 1.0
        self.weights_TA = nn.Buffer(weights_TA, persistent=False)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the mean re-scaled loss of logits [B, A]: a scalar."""
        targets_BA = batch.targets_BA
        assert targets_BA is not None
        weights_BA = self.weights_TA[batch.question_types_B].to(logits_BA.dtype)
        if self.released:
            answered_B = (targets_BA > 0).any(1) if batch.answered_B is None else batch.answered_B
            weights_BA = torch.where(answered_B.unsqueeze(1), weights_BA, OUTSIDE_RELEASED)
        if self.positive_term_only:
            # Weighing this term alone divides the type's prior out of the optimum; weighing both (Eq. 11) does not.
            loss_BA = nn.functional.binary_cross_entropy_with_logits(
                logits_BA, targets_BA, pos_weight=weights_BA, reduction="none"
            )
        else:
            loss_BA = weights_BA * plain_loss(self.objective, logits_BA, targets_BA)
        return loss_BA.sum(1).mean()
