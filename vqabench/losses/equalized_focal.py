"""Equalized focal loss: give an answer's loss more weight, the smaller the gradients of its examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vqabench.api import Batch, DataSpec, Loss, plain_loss, without_autocast
from vqabench.losses.answer_sets import answer_sets
from vqabench.losses.focal import focal_bce


class EqualizedFocal(Loss):
    """Equalized focal loss (Li et al. 2022, "Equalized Focal Loss for Dense Long-Tailed Object Detection").

    `bce`: the focal loss of an answer with the exponent γ_i = gamma + scale (1 - g_i), times γ_i / gamma. g_i in
    [0, 1] is the sum of the absolute gradients of this loss at the answer's logit over the examples for which the
    answer is right, divided by the sum over those for which it is wrong. Both sums run over training so far and
    over the questions of one type. Rare answers have a small g. As in the published code, g begins at 1. The sums
    are part of the state dict, so a resumed run continues with them. `scale=0` is `focal`.

    Not defined for `ce`: g compares the two gradients of one answer's own classifier, and a softmax is a single
    classifier of all answers.

    Every call in training adds to the sums, including calls for auxiliary logits and counterfactual batches.

    Soft targets: p_t and α_t as in `focal`; of a gradient's size, the share a counts as right and 1 - a as wrong.
    Answers given fewer than `minimum` times to a type have g = 1: with almost no examples their g would be near 0,
    which nearly removes the gradient that lowers their logits. A type without training questions has the plain
    loss.

    Raises ValueError if `alpha` is not in [0, 1], `gamma` not above 0 or `scale` negative.
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
        self.kept_TA = nn.Buffer(answer_sets(spec, minimum), persistent=False)
        self.seen_T = nn.Buffer(spec.questions_T > 0, persistent=False)
        # float64, because float32 sums stop growing late in training. Persistent: they cannot be computed again.
        self.right_TA = nn.Buffer(torch.zeros(self.kept_TA.shape, dtype=torch.float64))
        self.wrong_TA = nn.Buffer(torch.zeros_like(self.right_TA))

    def balance(self) -> Tensor:
        """Return g [T, A] in [0, 1]: 1 if no example was wrong yet, and for answers outside the type's set."""
        known_TA = self.kept_TA & (self.wrong_TA > 0)
        ratio_TA = self.right_TA / torch.where(known_TA, self.wrong_TA, 1.0)
        return torch.where(known_TA, ratio_TA.clamp(max=1.0), 1.0)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of logits [B, A], a scalar; in training, add its gradients to the sums."""
        types_B, targets_BA = batch.question_types_B, batch.targets_BA
        assert targets_BA is not None
        gamma_BA = (self.gamma + self.scale * (1 - self.balance()))[types_B].to(logits_BA.dtype)
        focused_BA = self._focus(logits_BA, targets_BA, gamma_BA)
        seen_B1 = self.seen_T[types_B].unsqueeze(1)
        loss_BA = torch.where(seen_B1, focused_BA, plain_loss(self.objective, logits_BA, targets_BA))
        # After the loss: g of this batch comes from the batches before it, as in the published code.
        if self.training and torch.is_grad_enabled():
            self._add_gradients(logits_BA, targets_BA, gamma_BA, types_B)
        return loss_BA.sum(1).mean()

    def _focus(self, logits_BA: Tensor, targets_BA: Tensor, gamma_BA: Tensor) -> Tensor:
        return gamma_BA / self.gamma * focal_bce(logits_BA, targets_BA, self.alpha, gamma_BA)

    def _add_gradients(self, logits_BA: Tensor, targets_BA: Tensor, gamma_BA: Tensor, types_B: Tensor) -> None:
        # A graph of its own: the sums must not depend on what the training loop does with the loss.
        logits_BA = logits_BA.detach().requires_grad_()
        (gradient_BA,) = torch.autograd.grad(self._focus(logits_BA, targets_BA, gamma_BA).sum(), logits_BA)
        size_BA = gradient_BA.abs()
        of_type_TB = (types_B == torch.arange(len(self.seen_T), device=types_B.device).unsqueeze(1)).float()
        # A matrix product adds in the same order every time; index_add_ on a GPU does not.
        with without_autocast(logits_BA.device):
            self.right_TA.add_(of_type_TB @ (size_BA * targets_BA).float())
            self.wrong_TA.add_(of_type_TB @ (size_BA * (1 - targets_BA)).float())
