"""A network and faults in it, and a loss with one, for the conformance checks to find."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

from vqabench.api import Batch, DataSpec, Loss, Output, plain_loss
from vqabench.testing import Innermost, check_class


def failed(kind: type[Any], *only: str) -> dict[str, str]:
    """Return the message of each failed check."""
    return {check.name: check.message for check in check_class(kind, only=only) if check.status == "failed"}


class Sound(Innermost):
    """A network without faults."""


class Changed(Sound):
    """Changes its output."""

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        return dataclasses.replace(output, **self.change(output, batch))

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        raise NotImplementedError


class Idle(Sound):
    """Has a layer that the forward pass does not use."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.unused = nn.Linear(3, 3)


class Late(Loss):
    """Is infinite in the last epoch."""

    weight = 1.0

    def start_epoch(self, epoch: int, epochs: int) -> None:
        self.weight = float("inf") if epoch == epochs - 1 > 0 else 1.0

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return self.weight * plain_loss(self.objective, logits_BA, batch.targets_BA).sum(1).mean()
