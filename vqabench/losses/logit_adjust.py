"""Losses that put the prior of the question's type beside the logits in training: these need not hold it then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.errors import InputError

RAREST = 1e-6
"""Shares of answers are kept this far from 0 and 1: their logarithms must be finite."""


class PriorAdjusted(Loss):
    """The objective of logits to which a term of the type's prior is added; what is scored is without it.

    Under `ce` the term is log π: the softmax then holds p(a | question, image), and the logits p(image | a) up
    to what is the same for all answers. Under `bce` it is log(b / (1 - b)), by the same argument for each
    answer alone.
    """

    def __init__(self, spec: DataSpec, objective: str, shares_TA: Tensor, strength: float = 1.0) -> None:
        super().__init__(spec, objective)
        shares_TA = shares_TA.double().clamp(RAREST, 1 - RAREST)
        term_TA = torch.log(shares_TA) if objective == "ce" else torch.logit(shares_TA)
        term_TA[spec.questions_T == 0] = 0  # nothing is known of the type: the plain loss
        self.term_TA: Tensor
        self.register_buffer("term_TA", (strength * term_TA).float(), persistent=False)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Give the mean loss of the adjusted logits."""
        assert batch.targets_BA is not None
        adjusted_BA = logits_BA + self.term_TA[batch.question_types_B].to(logits_BA.dtype)
        return plain_loss(self.objective, adjusted_BA, batch.targets_BA).sum(1).mean()


class LogitAdjust(PriorAdjusted):
    """The logit-adjusted loss (Menon et al. 2021, Eq. 10): τ times the logarithm of the type's prior is added.

    The prior is the share of the type's soft targets (`ce`), or the mean soft target (`bce`). τ = 0 is the
    plain loss.
    """

    def __init__(self, spec: DataSpec, objective: str, *, tau: float = 1.0) -> None:
        if not tau >= 0:
            raise InputError(f"logit-adjust: tau must be at least 0, not {tau}")
        means_TA = spec.mean_targets_TA
        shares_TA = means_TA / means_TA.sum(1, keepdim=True).clamp(min=RAREST) if objective == "ce" else means_TA
        super().__init__(spec, objective, shares_TA, tau)


class BalancedSoftmax(PriorAdjusted):
    """Balanced softmax (Ren et al. 2020, Eq. 3): the softmax's terms are multiplied by the answers' counts.

    Counts are those of all ten human answers, plus one. Beside `logit-adjust` at τ = 1 it differs in that
    alone: soft targets saturate where four annotators agree, counts do not. `ce` only.
    """

    objectives = ("ce",)
    declarations: ClassVar[Mapping[str, str]] = {
        "bce": "its sum over answers is a softmax's; logit-adjust has a form for sigmoids",
    }

    def __init__(self, spec: DataSpec, objective: str) -> None:
        counts_TA = spec.answer_counts_TA + 1
        super().__init__(spec, objective, counts_TA / counts_TA.sum(1, keepdim=True))
