"""Each fault that a loss may have is found."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from tests.testing.faults import Late, failed
from vqabench.api import Batch, DataSpec, Loss, plain_loss
from vqabench.testing import check_class


class Biased(Loss):
    """Is summed over the batch."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return plain_loss(self.objective, logits_BA, batch.targets_BA).sum()


class Overflowing(Loss):
    """Is infinite where the model is sure."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return -(batch.targets_BA * torch.sigmoid(logits_BA).log()).sum(1).mean()


class Unprepared(Loss):
    """Divides by the count of a type that training may never have seen."""

    def __init__(self, spec: DataSpec, objective: str) -> None:
        super().__init__(spec, objective)
        shares_TA = spec.answer_counts_TA / spec.answer_counts_TA.sum(1, keepdim=True)
        self.shares_TA: Tensor
        self.register_buffer("shares_TA", shares_TA, persistent=False)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        loss_BA = plain_loss(self.objective, logits_BA, batch.targets_BA)
        return (self.shares_TA[batch.question_types_B] * loss_BA).sum(1).mean()


class Rising(Loss):
    """Has its sign turned over."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return plain_loss(self.objective, logits_BA.detach() * 2 - logits_BA, batch.targets_BA).sum(1).mean()


class Forgotten(Loss):
    """Keeps what it draws once out of its state."""

    def __init__(self, spec: DataSpec, objective: str) -> None:
        super().__init__(spec, objective)
        self.weights_A = 1 + torch.rand(len(spec.answers))

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return (self.weights_A * plain_loss(self.objective, logits_BA, batch.targets_BA)).sum(1).mean()


class Backwards(Loss):
    """Falls as right answers do."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return -plain_loss(self.objective, logits_BA, batch.targets_BA).sum(1).clamp(max=50).mean()


class Coarse(Loss):
    """Computes in bfloat16 what needs more digits."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        loss = plain_loss(self.objective, logits_BA, batch.targets_BA).sum(1).mean()
        return loss * 1.5 if torch.is_autocast_enabled("cpu") else loss


class Drawn(Loss):
    """Draws from Python's generator."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return random.random() * plain_loss(self.objective, logits_BA, batch.targets_BA).sum(1).mean()


class Noisy(Loss):
    """Draws from PyTorch's generator, in a way that leaves right answers to gain."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        noise_BA = 0.01 * torch.randn_like(logits_BA)
        return plain_loss(self.objective, logits_BA + noise_BA, batch.targets_BA).sum(1).mean()


class Detached(Loss):
    """Takes no gradient."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return plain_loss(self.objective, logits_BA.detach(), batch.targets_BA).sum(1).mean()


class Plural(Loss):
    """Return a loss for every question."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return plain_loss(self.objective, logits_BA, batch.targets_BA).sum(1)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (Biased, "average", "for a repeated batch"),
        (Overflowing, "gradients", "at logits of size 100 is missing, 0 or not finite"),
        (Unprepared, "values", "not a finite scalar"),
        (Rising, "descent", "after 100 steps of gradient descent"),
        (Backwards, "descent", "while it falls, the probability of right answers goes from"),
        (Forgotten, "state", "a copy loaded from its state dict has a different loss"),
        (
            Forgotten,
            "devices",
            "neither parameters nor buffers, so they are not moved to a GPU and not saved: weights_A",
        ),
        (Coarse, "autocast", "under autocast"),
        (Plural, "values", "not a finite scalar for torch.float32 logits, but torch.float32 [12]"),
        (Drawn, "seeds", "with the same seed; use only PyTorch's generators"),
        (Detached, "gradients", "it does not depend on the logits"),
        (Late, "stages", "not finite in epoch 4 of 5"),
    ],
)
def test_each_fault_of_a_loss_is_found(kind: type[Loss], name: str, message: str) -> None:
    assert message in failed(kind, name)[name]


def test_a_loss_that_draws_from_the_run_s_generator_is_nothing_wrong() -> None:
    assert failed(Noisy) == {}
    (check,) = check_class(Noisy, only=["average"])
    assert (check.status, check.message) == (
        "skipped",
        "it draws random numbers, so it differs from batch to batch",
    )
