"""LM and LMH: a learned mixin of any base with the prior (Clark et al. 2019, "Don't Take the Easy Way Out")."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, DataSpec, Output, Wrapper

FIRST_SMOOTHING = -1.0
"""Initial value of u: s = sigmoid(u) starts at 0.27."""


class LearnedMixin(Wrapper):
    """Add the log-odds of the question type's prior to the logits in training: the base need not learn them.

    With the joint feature h of the base and the mean soft target b_i of answer i over the training questions of the
    question's type: f = softplus(w · h + c), s = sigmoid(u), z'_i = z_i + f (log(b_i + s) - log(1 - b_i + s)). The
    loss is computed from z'; z is what is scored. w, c and u are trained. An answer mask is applied to z, before
    the prior is added. Auxiliary logits of the base are not changed.

    Raises ValueError if the base has no joint features.
    """

    capturable = True
    objectives = ("bce",)
    declarations: ClassVar[Mapping[str, str]] = {
        "ce": "the prior is added to the log-odds of each answer, which a softmax over all answers does not have",
    }
    default_base = "vqabench-updn:updn"

    def __init__(self, spec: DataSpec, base: Backbone) -> None:
        super().__init__(spec, base)
        if base.joint_width == 0:
            raise ValueError(
                "it computes the prior's weight from joint features, which this base does not return (its author "
                "must set joint_width, and joint_features_BH in the Output)"
            )
        self.scale = nn.Linear(base.joint_width, 1)
        self.smoothing = nn.Parameter(torch.tensor([FIRST_SMOOTHING]))
        self.prior_TA = nn.Buffer(spec.mean_targets_TA.clone(), persistent=False)

    def forward(self, batch: Batch) -> Output:
        """Return the base's output, and in training logits with the prior [B, A] for the loss."""
        output = super().forward(batch)
        # Tested without the prior: the test's priors differ, and the type must not decide the answer.
        if batch.targets_BA is None:
            return output
        # A base that has logits of its own for the loss keeps their share in it.
        logits_BA = output.logits_BA if output.training_logits_BA is None else output.training_logits_BA
        for_BA, against_BA = self.log_prior(output, batch)
        return dataclasses.replace(
            output,
            training_logits_BA=logits_BA + for_BA - against_BA,
            penalties={**output.penalties, **self.penalise(for_BA, against_BA)},
        )

    def penalise(self, for_BA: Tensor, against_BA: Tensor) -> Mapping[str, Tensor]:
        """Return the penalties to add to the loss, by name: none here."""
        return {}

    def log_prior(self, output: Output, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return f log(b + s) and f log(1 - b + s): [B, A] each."""
        assert output.joint_features_BH is not None
        # softplus keeps f above 0: a negative one would invert the prior.
        scale_B1 = nn.functional.softplus(self.scale(output.joint_features_BH))
        prior_BA, smoothing = self.prior_TA[batch.question_types_B], torch.sigmoid(self.smoothing)
        return scale_B1 * torch.log(prior_BA + smoothing), scale_B1 * torch.log(1 - prior_BA + smoothing)


class LearnedMixinEntropy(LearnedMixin):
    """The learned mixin with a penalty on the scaled prior's entropy (LMH), which keeps f from falling to 0.

    f log(b + s) and f log(1 - b + s), renormalised, are the logarithms of a distribution over "right" and "wrong"
    for every answer. Its entropy, averaged over answers and batch, is weighted by `entropy`.

    Raises ValueError if `entropy` is negative or the base has no joint features.
    """

    capturable = True

    def __init__(self, spec: DataSpec, base: Backbone, *, entropy: float = 0.36) -> None:
        super().__init__(spec, base)
        if not entropy >= 0:
            raise ValueError(f"entropy must be at least 0, not {entropy}")
        self.entropy = entropy

    def penalise(self, for_BA: Tensor, against_BA: Tensor) -> Mapping[str, Tensor]:
        """Return the weighted entropy of the scaled prior."""
        return {"entropy": self.entropy * two_way_entropy(for_BA, against_BA)}


def two_way_entropy(first_BA: Tensor, second_BA: Tensor) -> Tensor:
    """Return the mean entropy (nats, a scalar) of distributions over two outcomes with these log-weights [B, A]."""
    # log_softmax renormalises the two and stays finite if one of them underflows.
    logs_BA2 = torch.log_softmax(torch.stack([first_BA, second_BA], dim=-1), dim=-1)
    return -(logs_BA2.exp() * logs_BA2).sum(-1).mean()
