"""Label-distribution-aware margins: the rarer an answer within its question type, the larger its margin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vqabench.api import Batch, DataSpec, Loss
from vqabench.losses.answer_sets import answer_sets
from vqabench.losses.class_balanced import effective_number_weights


def answer_margins(spec: DataSpec, minimum: int, largest: float) -> Tensor:
    """Return Δ [T, A], float32: C_j n_i^j^(-1/4), with C_j such that the rarest answer of each type has `largest`.

    Answers given to a type fewer than `minimum` times have margin 0.
    """
    kept_TA = answer_sets(spec, minimum)
    # An infinite count has margin 0, so the answers outside cannot be the largest of the type.
    raw_TA = torch.where(kept_TA, spec.answer_counts_TA.double(), math.inf) ** -0.25
    return torch.where(kept_TA, largest * raw_TA / raw_TA.amax(1, keepdim=True), 0.0).float()


def log_sum_of_others(logits_BA: Tensor) -> Tensor:
    """Return log Σ_{k≠i} e^{z_k} for every answer i: [B, A]."""
    top_BA = torch.zeros_like(logits_BA, dtype=torch.bool).scatter_(1, logits_BA.argmax(1, keepdim=True), True)
    # log(Σ_k e^{z_k} - e^{z_i}) loses all digits for the largest logit, so its sum is computed without it.
    others_of_top_B1 = logits_BA.masked_fill(top_BA, torch.finfo(logits_BA.dtype).min).logsumexp(1, keepdim=True)
    share_BA = logits_BA.softmax(1).masked_fill(top_BA, 0.0)
    return torch.where(top_BA, others_of_top_B1, logits_BA.logsumexp(1, keepdim=True) + torch.log1p(-share_BA))


class Ldam(Loss):
    """LDAM (Cao et al. 2019, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss"), per type.

    `ce`: the softmax loss of an answer, with its own logit (and no other) lowered by the margin Δ_i ∝ n_i^(-1/4)
    within the question's type. The rarest answer has the margin `largest`, in units of the logits. All logits are
    multiplied by `scale`. The source uses cosines as logits, a scale of 30 and a largest margin of 0.5; the logits
    of a backbone here are unbounded and learn their own scale, so the default is 1.

    `reweight_from`: from this share of a stage's epochs on, and always in its last epoch, each answer's loss is
    weighted as in `class-balanced`, with `beta` (deferred re-weighting, Algorithm 1). `none` disables it.

    Not defined for `bce`: the margin is between an answer's logit and those of the others, which a sigmoid does not
    compare.

    Soft targets: each answer with a_i > 0 has its own term with its own margin, weighted by a_i. Answers given
    fewer than `minimum` times to a type have no margin. With all margins 0 and a scale of 1 this is the plain loss,
    as for a type without training questions. With equal counts, all margins are `largest`.

    Raises ValueError if an option is out of range.
    """

    capturable = True
    objectives = ("ce",)
    declarations: ClassVar[Mapping[str, str]] = {
        "bce": "its margin is between an answer's logit and those of the others, which a sigmoid does not compare",
    }

    def __init__(
        self,
        spec: DataSpec,
        objective: str,
        *,
        largest: float = 0.5,
        scale: float = 1.0,
        reweight_from: float | None = 0.8,
        beta: float = 0.9999,
        minimum: int = 10,
    ) -> None:
        super().__init__(spec, objective)
        if not largest >= 0 or not scale > 0:
            raise ValueError(f"largest must be at least 0 and scale above 0, not {largest} and {scale}")
        if reweight_from is not None and not 0 <= reweight_from < 1:
            raise ValueError(f"reweight_from must be at least 0 and below 1, or none, not {reweight_from}")
        self.reweight_from = reweight_from
        self.reweighted = False
        self.margins_TA = nn.Buffer(answer_margins(spec, minimum, largest), persistent=False)
        self.weights_TA = nn.Buffer(effective_number_weights(spec, minimum, beta), persistent=False)
        self.scale_T = nn.Buffer(torch.where(spec.questions_T > 0, scale, 1.0), persistent=False)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Enable the weights from the share `reweight_from` of the epochs on, and in the last epoch."""
        self.reweighted = self.reweight_from is not None and (
            epoch / epochs >= self.reweight_from or epoch + 1 == epochs
        )

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of logits [B, A] with margins: a scalar."""
        types_B, targets_BA = batch.question_types_B, batch.targets_BA
        assert targets_BA is not None
        scale_B1 = self.scale_T[types_B].to(logits_BA.dtype).unsqueeze(1)
        scaled_BA = scale_B1 * logits_BA
        margins_BA = scale_B1 * self.margins_TA[types_B].to(logits_BA.dtype)
        # How far the answer, with its margin, is behind the sum of the others: softplus of it is its softmax loss.
        behind_BA = log_sum_of_others(scaled_BA) - (scaled_BA - margins_BA)
        loss_BA = targets_BA * torch.logaddexp(behind_BA, torch.zeros_like(behind_BA))
        if self.reweighted:
            loss_BA = self.weights_TA[types_B].to(logits_BA.dtype) * loss_BA
        return loss_BA.sum(1).mean()
