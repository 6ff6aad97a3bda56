"""Equalized focal loss: the less an answer's own examples have pulled, the more its loss is focused and weighed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vqabench.api import Batch, DataSpec, Loss, plain_loss, without_autocast
from vqabench.losses.answer_sets import answer_sets
from vqabench.losses.focal import focal_bce


class EqualizedFocal(Loss):
    """Equalized focal loss (Li et al. 2022, "Equalized Focal Loss for Dense Long-Tailed Object Detection").

    `bce`: the focal loss of an answer with the exponent γ_i = gamma + scale (1 - g_i), times γ_i / gamma. g_i
    in [0, 1] is what the sizes of this loss's gradients at the answer's logit sum to where it is right, over
    those where it is wrong, so far in training and within the question's type: rare answers have a small g, and
    α_t is in both. As in the published code, g begins at 1. The sums are kept with a run's state, so that a
    resumed run goes on with them; `scale=0` is `focal`.

    Not defined for `ce`: g compares the two gradients of a classifier that each answer has to itself, and a
    softmax is one classifier of all.

    Every call adds to the sums, of auxiliary logits and of counterfactual batches too.

    Soft targets: p_t and α_t as in `focal`; of a gradient's size, a counts as right and 1 - a as wrong.
    Answers given fewer than `minimum` times to a type have g = 1: with next to no examples theirs would be 0,
    which all but stops the loss from ruling them out. A type that training never saw has the plain loss.
    """

    capturable = True
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
        self.right_TA: Tensor
        self.wrong_TA: Tensor
        self.register_buffer("kept_TA", kept_TA, persistent=False)
        self.register_buffer("seen_T", spec.questions_T > 0, persistent=False)
        sums_TA = torch.zeros(kept_TA.shape, dtype=torch.float64)  # float32 would lose what late batches add
        self.register_buffer("right_TA", sums_TA)
        self.register_buffer("wrong_TA", sums_TA.clone())

    def balance(self) -> Tensor:
        """Return g [T, A] in [0, 1]: 1 where nothing was wrong yet, and for answers outside the type's set."""
        known_TA = self.kept_TA & (self.wrong_TA > 0)
        ratio_TA = self.right_TA / torch.where(known_TA, self.wrong_TA, 1.0)
        return torch.where(known_TA, ratio_TA.clamp(max=1.0), 1.0)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the mean equalized focal loss; in training, add up its gradients for the batches to come."""
        types_B, targets_BA = batch.question_types_B, batch.targets_BA
        assert targets_BA is not None
        gamma_BA = (self.gamma + self.scale * (1 - self.balance()))[types_B].to(logits_BA.dtype)
        focused_BA = self._focus(logits_BA, targets_BA, gamma_BA)
        seen_B1 = self.seen_T[types_B].unsqueeze(1)
        loss_BA = torch.where(seen_B1, focused_BA, plain_loss(self.objective, logits_BA, targets_BA))
        if self.training and torch.is_grad_enabled():
            self._add_gradients(logits_BA.detach(), targets_BA, gamma_BA, types_B)
        return loss_BA.sum(1).mean()

    def _focus(self, logits_BA: Tensor, targets_BA: Tensor, gamma_BA: Tensor) -> Tensor:
        return gamma_BA / self.gamma * focal_bce(logits_BA, targets_BA, self.alpha, gamma_BA)

    def _add_gradients(self, logits_BA: Tensor, targets_BA: Tensor, gamma_BA: Tensor, types_B: Tensor) -> None:
        logits_BA.requires_grad_()
        (gradient_BA,) = torch.autograd.grad(self._focus(logits_BA, targets_BA, gamma_BA).sum(), logits_BA)
        size_BA = gradient_BA.abs()
        of_type_TB = (types_B == torch.arange(len(self.seen_T), device=types_B.device).unsqueeze(1)).float()
        # a product adds in the same order each time, on a GPU too, where index_add_ does not
        with without_autocast(logits_BA.device):
            self.right_TA += of_type_TB @ (size_BA * targets_BA).float()
            self.wrong_TA += of_type_TB @ (size_BA * (1 - targets_BA)).float()
