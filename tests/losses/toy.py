"""A world of three answers and four images, where the best logits can be computed."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.losses.cases import make_batch
from tests.losses.long_tailed import with_priors
from vqabench.api import DataSpec, Loss

LIKELIHOOD_XA = torch.tensor(
    [[0.4, 0.2, 0.1], [0.3, 0.5, 0.2], [0.2, 0.2, 0.6], [0.1, 0.1, 0.1]], dtype=torch.float64
)
"""p(image | answer): columns sum to 1."""
QUESTIONS_A = torch.tensor([200, 30, 10])
COUNTS_XA = (LIKELIHOOD_XA * QUESTIONS_A).round().long()
SHARES_A = QUESTIONS_A.double() / QUESTIONS_A.sum()


def make_world() -> DataSpec:
    """All ten annotators give the one answer of each question."""
    questions = QUESTIONS_A.sum().reshape(1)
    return with_priors(10.0 * QUESTIONS_A.float().reshape(1, 3), SHARES_A.float().reshape(1, 3), questions)


def minimise(loss: Loss) -> Tensor:
    """Return the logits [X, A] of each image that minimise a loss over all questions: a convex problem."""
    images_B = torch.arange(4).repeat_interleave(COUNTS_XA.sum(1))
    answers_B = torch.cat([torch.arange(3).repeat_interleave(row) for row in COUNTS_XA])
    batch = make_batch(torch.zeros_like(images_B), torch.nn.functional.one_hot(answers_B, 3).double())
    logits_XA = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits_XA], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(logits_XA[images_B], batch)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(step)  # type: ignore[no-untyped-call]
    return logits_XA.detach()


def posterior(prior_A: Tensor) -> Tensor:
    """Return p(answer | image) [X, A] by Bayes' rule."""
    joint_XA = LIKELIHOOD_XA * prior_A
    return joint_XA / joint_XA.sum(1, keepdim=True)


def accuracy(logits_XA: Tensor, prior_A: Tensor) -> float:
    """Return the share of questions answered rightly where the answers have another prior."""
    joint_XA = LIKELIHOOD_XA * prior_A / prior_A.sum()
    return float(joint_XA.gather(1, logits_XA.argmax(1, keepdim=True)).sum())
