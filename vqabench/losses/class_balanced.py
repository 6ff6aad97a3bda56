"""Class-balanced loss: weight an answer by the inverse of its effective number within its question type."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.losses.answer_sets import answer_sets


def effective_number_weights(spec: DataSpec, minimum: int, beta: float) -> Tensor:
    """Return w [T, A], float32: (1 - β) / (1 - β^n_i^j), scaled to a mean of 1 over each type's answer set.

    n_i^j counts human answers. The weight is 1 for answers given to a type fewer than `minimum` times, and for all
    answers of a type without training questions. β = 0 weights all answers equally; as β approaches 1, the weights
    approach 1 / n.

    Source: Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", Proposition 1 and
    Section 4 (weights that sum to the number of classes). Raises ValueError if β is not in [0, 1).
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be at least 0 and below 1, not {beta}")
    kept_TA = answer_sets(spec, minimum)
    # Any count above 0 serves for the answers outside: at 0 the weight would be infinite.
    counts_TA = torch.where(kept_TA, spec.answer_counts_TA.double(), 1.0)
    # The numerator 1 - β is the same for all answers and cancels in the scaling below.
    # expm1 keeps the digits of 1 - β^n, which is close to 0 if β is close to 1.
    raw_TA = -1 / torch.expm1(counts_TA * torch.tensor(beta, dtype=torch.float64).log())
    sums_T1 = torch.where(kept_TA, raw_TA, 0.0).sum(1, keepdim=True)
    return torch.where(kept_TA, raw_TA * kept_TA.sum(1, keepdim=True) / sums_T1, 1.0).float()


class ClassBalanced(Loss):
    """Class-balanced loss (Cui et al. 2019), with counts per question type.

    The weight of an answer given n times to the type is (1 - β) / (1 - β^n), scaled to a mean of 1 over the type's
    answers, so that equal counts give the plain loss. With β = 1 - 1 / N, counts far above N are treated alike. The
    ten answers to one question are nearly the same, so the default 0.9999 for answers corresponds to the published
    0.999 for questions.

    Soft targets: under `ce` each answer's term has its own weight, as if every annotator were a sample. Under `bce`
    the source weights the whole loss of a sample by its label; here a question's weight is the mean weight of its
    answers, weighted by their soft targets (1 if no answer is in the vocabulary). Answers given fewer than
    `minimum` times to a type have the weight 1.
    """

    capturable = True

    def __init__(self, spec: DataSpec, objective: str, *, beta: float = 0.9999, minimum: int = 10) -> None:
        super().__init__(spec, objective)
        # Not persistent: the weights follow from the data set and the options, which the run records.
        self.weights_TA = nn.Buffer(effective_number_weights(spec, minimum, beta), persistent=False)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the mean class-balanced loss of logits [B, A]: a scalar."""
        targets_BA = batch.targets_BA
        assert targets_BA is not None
        weights_BA = self.weights_TA[batch.question_types_B].to(logits_BA.dtype)
        loss_BA = plain_loss(self.objective, logits_BA, targets_BA)
        if self.objective == "ce":
            return (weights_BA * loss_BA).sum(1).mean()
        # Under bce most terms are those of wrong answers, whose own weights say nothing about the question.
        totals_B = targets_BA.sum(1)
        answered_B = totals_B > 0
        # A question without an answer in the vocabulary has a total of 0, and 0 / 0 would be NaN.
        means_B = (weights_BA * targets_BA).sum(1) / torch.where(answered_B, totals_B, 1.0)
        return (torch.where(answered_B, means_B, 1.0) * loss_BA.sum(1)).mean()
