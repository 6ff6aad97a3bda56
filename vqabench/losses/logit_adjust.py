"""Logit adjustment: add the type's prior to the logits, in training only.

The sum of logits and prior has to explain the training answers, so the logits need not learn the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.losses.answer_sets import answer_sets

EDGE = 0.1
"""Priors are kept this many questions away from 0 and 1: one annotator of ten, in one additional question."""


def prior_adjustment(spec: DataSpec, objective: str, minimum: int, tau: float) -> Tensor:
    """Return τ (link(b_i) - link(mean b)) [T, A], float32: 0 is added to an answer of average frequency.

    b_i is answer i's mean soft target over the questions of the type, the mean is over the type's answer set; link
    is the logarithm under `ce` and the log-odds under `bce`.

    Answers given fewer than `minimum` times are not adjusted. Subtracting the link of the mean does not change how
    the answers of the set compare with each other; it makes the others compete as if each had an average prior.
    With their own priors, which are near 0, nothing would lower their logits. A type without training questions has
    0 everywhere.

    Raises ValueError if τ is below 0.
    """
    if not tau >= 0:
        raise ValueError(f"tau must be at least 0, not {tau}")
    kept_TA = answer_sets(spec, minimum)
    # Without the bounds, a prior of exactly 0 or 1 would make the link infinite.
    edge_T1 = EDGE / (spec.questions_T.double() + 1).unsqueeze(1)
    shares_TA = spec.mean_targets_TA.double().clamp(edge_T1, 1 - edge_T1)
    mean_T1 = torch.where(kept_TA, shares_TA, 0.0).sum(1, keepdim=True) / kept_TA.sum(1, keepdim=True)
    # Under bce each answer has its own sigmoid, whose prior enters as log-odds.
    link = torch.log if objective == "ce" else torch.logit
    return torch.where(kept_TA, tau * (link(shares_TA) - link(mean_T1)), 0.0).float()


class LogitAdjust(Loss):
    """Logit-adjusted loss (Menon et al. 2021, "Long-tail learning via logit adjustment", Eq. 10), per type.

    `ce`: the plain loss of z + τ log(b / mean b), where b is an answer's prior within the question's type.
    Its optimum has softmax(z) ∝ p(a | Q, I) / b^τ: with τ = 1 the posterior under equal priors. τ = 0 is the
    plain loss. With τ = 1 it is `balanced-softmax`.

    `bce`: the same with log-odds instead of logarithms, which is not in the source. If the prior of an answer
    changes, and p(Q, I | a) and p(Q, I | not a) do not, the answer's log-odds change by the difference of the
    priors' log-odds. z is what remains after subtracting them: it ranks answers by how much more likely they are
    than their prior.

    Soft targets: b is the mean soft target; with one label per question it is the label's share. Answers given
    fewer than `minimum` times to a type are not adjusted.
    """

    capturable = True

    def __init__(self, spec: DataSpec, objective: str, *, tau: float = 1.0, minimum: int = 10) -> None:
        super().__init__(spec, objective)
        self.adjustment_TA = nn.Buffer(prior_adjustment(spec, objective, minimum, tau), persistent=False)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the mean plain loss of the adjusted logits [B, A]: a scalar."""
        assert batch.targets_BA is not None
        # In the loss only: `Output.logits_BA`, which is scored, stays unadjusted.
        adjustment_BA = self.adjustment_TA[batch.question_types_B].to(logits_BA.dtype)
        return plain_loss(self.objective, logits_BA + adjustment_BA, batch.targets_BA).sum(1).mean()
