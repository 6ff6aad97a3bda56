"""The answer mask: learn from the question which answers are possible."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, DataSpec, Output, Transform
from vqabench.errors import PluginError
from vqabench.losses.answer_sets import answer_sets

SMALLEST = 1e-6
"""Distance that mask values keep from 0 and 1 inside the logarithms of Eq. 5."""


def softplus_g(x: Tensor) -> Tensor:
    """Return the generalised softplus min(1, log(1 + e^x)): Eq. 6 with α = 1.

    The paper prints max, but values above 1 would leave Eq. 5 undefined, and the published code clamps at 1.
    """
    return nn.functional.softplus(x).clamp(max=1.0)


class AnswerMask(Transform):
    """Multiply the logits by the output of an extra head on the question feature (Eqs. 4 to 6).

    The head m_p = f(W dropout(q) + b) learns the answer set of the question's type by binary cross-entropy (Eq. 5;
    the paper omits its minus sign). Types without training questions add nothing to this loss. It is averaged over
    answers, as in the published code; `reduction=sum` is Eq. 5 as printed.

    Raises ValueError if `dropout` is not in [0, 1] or the base has no question features.
    """

    capturable = True

    def __init__(
        self,
        spec: DataSpec,
        base: Backbone,
        *,
        activation: Literal["softplus-g", "sigmoid"] = "softplus-g",
        dropout: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
        minimum: int = 10,
    ) -> None:
        super().__init__(spec, base)
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be in [0, 1], not {dropout}")
        if base.question_width == 0:
            raise ValueError(
                "it builds on question features, which this backbone does not return (its author must set "
                "question_width, and question_features_BQ in the Output)"
            )
        # The sigmoid is the paper's alternative; softplus-G has no gradient above x = 0.541, where it reaches 1.
        self.activation = softplus_g if activation == "softplus-g" else torch.sigmoid
        self.reduction = reduction
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(base.question_width, len(spec.answers)))
        self.sets_TA = nn.Buffer(answer_sets(spec, minimum).float(), persistent=False)
        self.seen_T = nn.Buffer(spec.questions_T > 0, persistent=False)

    def forward(self, batch: Batch) -> Output:
        """Return the base's output with masked logits [B, A] (Eq. 4), and in training with the penalty `mask`.

        Auxiliary logits come from other heads and are not masked. Raises PluginError if the base has a
        penalty of the same name.
        """
        output: Output = self.base(batch)
        mask_BA = self.activation(self.head(output.question_features_BQ))
        penalties = dict(output.penalties)
        # Without targets the model is being tested, and must not read the question's type.
        if batch.targets_BA is not None:
            if "mask" in penalties:
                raise PluginError(
                    "the base has a penalty called 'mask', a name that the answer mask uses; its author must "
                    "rename it"
                )
            penalties["mask"] = self.loss(mask_BA, batch.question_types_B)
        # If the loss is computed from other logits than the scored ones, both are masked.
        training_BA = None if output.training_logits_BA is None else output.training_logits_BA * mask_BA
        return dataclasses.replace(
            output, logits_BA=output.logits_BA * mask_BA, training_logits_BA=training_BA, penalties=penalties
        )

    def loss(self, mask_BA: Tensor, question_types_B: Tensor) -> Tensor:
        """Return the cross-entropy of the mask against its type's answer set (Eq. 5): a scalar."""
        # In bfloat16, 1 - SMALLEST would round to 1, and the logarithm of 1 - mask would be infinite.
        precise = torch.promote_types(mask_BA.dtype, torch.float32)
        mask_BA = mask_BA.to(precise).clamp(SMALLEST, 1 - SMALLEST)
        target_BA = self.sets_TA[question_types_B]
        loss_BA = -(target_BA * mask_BA.log() + (1 - target_BA) * (1 - mask_BA).log())
        loss_B = loss_BA.mean(1) if self.reduction == "mean" else loss_BA.sum(1)
        return torch.where(self.seen_T[question_types_B], loss_B, 0.0).mean()
