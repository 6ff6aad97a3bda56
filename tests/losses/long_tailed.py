"""The losses that know the priors of question types, and priors for them to know."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from tests.losses.cases import make_batch, make_spec
from vqabench.api import Batch, DataSpec, Loss
from vqabench.losses.balanced_softmax import BalancedSoftmax
from vqabench.losses.class_balanced import ClassBalanced
from vqabench.losses.equalized_focal import EqualizedFocal
from vqabench.losses.ldam import Ldam
from vqabench.losses.logit_adjust import LogitAdjust

Case = tuple[type[Loss], str, dict[str, Any]]
CASES: list[Case] = [
    (ClassBalanced, "ce", {"beta": 0.99}),
    (ClassBalanced, "bce", {"beta": 0.99}),
    (BalancedSoftmax, "ce", {}),
    (LogitAdjust, "ce", {"tau": 1.5}),
    (LogitAdjust, "bce", {}),
    (Ldam, "ce", {"scale": 3.0}),
    (Ldam, "ce", {"largest": 15.0, "reweight_from": 0.0}),
    (EqualizedFocal, "bce", {}),
]
SKEWED, EQUAL, UNSEEN = 0, 1, 2


def with_priors(counts_TA: Tensor, mean_targets_TA: Tensor, questions_T: Tensor) -> DataSpec:
    return dataclasses.replace(make_spec(counts_TA, questions_T), mean_targets_TA=mean_targets_TA)


def make_priors() -> DataSpec:
    """A skewed type whose last answer was never given, one with equal counts, one that training never saw."""
    counts = torch.tensor([[600.0, 250, 100, 40, 0], [30.0] * 5, [0.0] * 5])
    means = torch.tensor([[0.8, 0.5, 0.25, 0.1, 0.0], [0.4] * 5, [0.2] * 5])
    return with_priors(counts, means, torch.tensor([100, 15, 0]))


def make_questions(*types: int) -> tuple[Batch, Tensor]:
    """Two questions of each type, with soft targets for every answer, and logits for them."""
    torch.manual_seed(1)
    types_B = torch.tensor(types).repeat(2)
    choices = torch.tensor([0.0, 0.3, 0.6, 0.9, 1.0], dtype=torch.float64)
    targets_BA = torch.stack([choices[torch.randperm(5)] for _ in types_B])
    return make_batch(types_B, targets_BA), torch.randn(len(types_B), 5, dtype=torch.float64, requires_grad=True)


def build(case: Case, spec: DataSpec) -> Loss:
    """A loss in its last epoch, with some training behind it."""
    kind, objective, options = case
    loss = kind(spec, objective, **options)
    loss.start_epoch(9, 10)
    loss(*reversed(make_questions(SKEWED, EQUAL)))
    return loss.eval()
