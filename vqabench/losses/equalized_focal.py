"""Equalized focal loss: the less an answer's own examples have pulled, the more its loss is focused and weighed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.losses.answer_sets import answer_sets
from vqabench.losses.focal import focal_bce


class EqualizedFocal(Loss):
    """Equalized focal loss (Li et al. 2022, "Equalized Focal Loss for Dense Long-Tailed Object Detection").

    `bce`: the focal loss of an answer with the exponent γ_i = gamma + scale (1 - g_i), times γ_i / gamma. g_i
    in [0, 1] is how much, so far in training and within the question's type, the answer's positive gradients
    come to beside its negative ones. Rare answers have a small g at first. These sums are kept with a run's
    state, so that a resumed run goes on with them; `scale=0` is `focal`.

    Not defined for `ce`: g compares the two gradients of a classifier that each answer has to itself, and a
    softmax is one classifier of all.

    Soft targets: p_t and α_t as in `focal`; the pull of an answer is a (1 - σ) upwards and (1 - a) σ downwards.
    Answers given fewer than `minimum` times to a type have g = 1: with next to no examples theirs would be 0,
    which all but stops the loss from ruling them out. A type that training never saw has the plain loss.
    """

    objectives = ("bce",)
    declarations: ClassVar[Mapping[str, str]] = {
        "ce": "it compares the two gradients of an answer's own classifier; a softmax is one classifier of all",
    }

    def __init__(
        self,
        spec: DataSpec,
        objective: str,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        scale: float = 8.0,
        minimum: int = 10,
    ) -> None:
        super().__init__(spec, objective)
        if not 0 <= alpha <= 1 or not gamma > 0 or not scale >= 0:
            raise ValueError(
                f"alpha must be in [0, 1], gamma above 0 and scale at least 0, not {alpha}, {gamma} and {scale}"
            )
        self.alpha, self.gamma, self.scale = alpha, gamma, scale
        kept_TA = answer_sets(spec, minimum)
        self.kept_TA: Tensor
        self.seen_T: Tensor
        self.upward_TA: Tensor
        self.downward_TA: Tensor
        self.register_buffer("kept_TA", kept_TA, persistent=False)
        self.register_buffer("seen_T", spec.questions_T > 0, persistent=False)
        self.register_buffer("upward_TA", torch.zeros(kept_TA.shape))
        self.register_buffer("downward_TA", torch.zeros(kept_TA.shape))

    def balance(self) -> Tensor:
        """Give g [T, A] in [0, 1]: 1 where nothing has pulled yet, and for answers outside the type's set."""
        pulled_TA = self.kept_TA & (self.downward_TA > 0)
        ratio_TA = self.upward_TA / torch.where(pulled_TA, self.downward_TA, 1.0)
        return torch.where(pulled_TA, ratio_TA.clamp(max=1.0), 1.0)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Give the mean equalized focal loss; in training, add up the gradients for the batches to come."""
        types_B, targets_BA = batch.question_types_B, batch.targets_BA
        assert targets_BA is not None
        gamma_BA = (self.gamma + self.scale * (1 - self.balance()))[types_B].to(logits_BA.dtype)
        focused_BA = gamma_BA / self.gamma * focal_bce(logits_BA, targets_BA, self.alpha, gamma_BA)
        seen_B1 = self.seen_T[types_B].unsqueeze(1)
        loss_BA = torch.where(seen_B1, focused_BA, plain_loss(self.objective, logits_BA, targets_BA))
        if self.training and torch.is_grad_enabled():
            self._add_pull(logits_BA.detach(), targets_BA, types_B)
        return loss_BA.sum(1).mean()

    def _add_pull(self, logits_BA: Tensor, targets_BA: Tensor, types_B: Tensor) -> None:
        share_BA = torch.sigmoid(logits_BA)
        of_type_TB = (types_B == torch.arange(len(self.seen_T), device=types_B.device).unsqueeze(1)).float()
        # a product adds in the same order each time, on a GPU too, where index_add_ does not
        with torch.autocast(logits_BA.device.type, enabled=False):
            self.upward_TA += of_type_TB @ (targets_BA * (1 - share_BA)).float()
            self.downward_TA += of_type_TB @ ((1 - targets_BA) * share_BA).float()
