"""LDAM: margins that are wider for answers that are rarer within the question type."""

from __future__ import annotations

import torch
from torch import Tensor

from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.errors import InputError
from vqabench.losses.answer_sets import answer_sets
from vqabench.losses.class_balanced import effective_weights


def margins(spec: DataSpec, largest: float, minimum: int) -> Tensor:
    """Give margins [T, A]: proportional to n^(-1/4), that of each type's rarest answer being `largest`.

    Answers outside the type's set have none, nor has a type that training never saw.
    """
    kept_TA = answer_sets(spec, minimum)
    raw_TA = torch.where(kept_TA, spec.answer_counts_TA.double().clamp(min=1) ** -0.25, 0.0)
    widest_T1 = raw_TA.amax(1, keepdim=True)
    return torch.where(kept_TA, largest * raw_TA / widest_T1.clamp(min=1e-12), 0.0).float()


class Ldam(Loss):
    """The label-distribution-aware margin loss (Cao et al. 2019, Eqs. 10 to 13), its classes the type's answers.

    From the logit of an answer with soft target a its margin times a is subtracted: for a target of 1 as
    published. Logits here are no cosines, so `scale` is 1 by default. Deferred re-weighting: from the share
    `defer` of a stage's epochs on, answers are weighted as `class-balanced` does, with β = `beta`; at 1 never.
    """

    def __init__(
        self,
        spec: DataSpec,
        objective: str,
        *,
        largest: float = 0.5,
        scale: float = 1.0,
        defer: float = 0.8,
        beta: float = 0.999,
        minimum: int = 10,
    ) -> None:
        super().__init__(spec, objective)
        if largest < 0 or scale <= 0:
            raise InputError(f"ldam: largest must be at least 0 and scale above 0, not {largest} and {scale}")
        if not 0 <= defer <= 1 or not 0 < beta < 1:
            raise InputError(f"ldam: defer must be in [0, 1] and beta above 0 and below 1, not {defer} and {beta}")
        self.scale, self.defer, self.weighted = scale, defer, False
        self.margins_TA: Tensor
        self.weights_TA: Tensor
        self.register_buffer("margins_TA", margins(spec, largest, minimum), persistent=False)
        self.register_buffer("weights_TA", effective_weights(spec, beta, minimum), persistent=False)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Weigh answers from the share `defer` of the epochs on."""
        self.weighted = epoch >= self.defer * epochs

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Give the mean loss of logits less their margins."""
        targets_BA = batch.targets_BA
        assert targets_BA is not None
        margins_BA = self.margins_TA[batch.question_types_B].to(logits_BA.dtype)
        loss_BA = plain_loss(self.objective, self.scale * (logits_BA - targets_BA * margins_BA), targets_BA)
        if self.weighted:
            loss_BA = self.weights_TA[batch.question_types_B].to(logits_BA.dtype) * loss_BA
        return loss_BA.sum(1).mean()
