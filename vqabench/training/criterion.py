"""The whole loss of a batch, part by part, and a watch over it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vqabench.api import Batch, Loss, Output
from vqabench.errors import TrainingError


@dataclass
class Criterion:
    """Loss of the training logits + weighted auxiliary losses + penalties.

    Everything is kept on the device as it comes, and read in one go by `read`: a training step waits for
    no number.
    """

    loss: Loss
    parts: list[dict[str, Tensor]] = field(default_factory=list)
    accuracies: list[Tensor] = field(default_factory=list)

    def __call__(self, output: Output, batch: Batch) -> Tensor:
        """Give the scalar that the optimiser minimises."""
        logits_BA = output.logits_BA if output.training_logits_BA is None else output.training_logits_BA
        parts = {"answers": self.loss(logits_BA.float(), batch)}
        for name, (auxiliary_BA, weight) in output.auxiliary.items():
            parts[name] = weight * self.loss(auxiliary_BA.float(), batch)
        parts.update(output.penalties)
        self.parts.append({name: part.detach() for name, part in parts.items()})
        assert batch.targets_BA is not None
        self.accuracies.append(soft_accuracy(output.logits_BA.detach(), batch.targets_BA))
        return torch.stack(list(parts.values())).sum()

    def read(self, first_step: int, lr: float) -> tuple[float, float]:
        """Give mean loss and soft accuracy (percent) since the last call.

        `first_step` is the number of the first loss since then. Raises TrainingError, with step, learning
        rate and parts, where a loss is not finite.
        """
        numbers = iter(torch.stack([part.float() for step in self.parts for part in step.values()]).tolist())
        steps = [{name: next(numbers) for name in step} for step in self.parts]
        accuracy = 100 * torch.stack(self.accuracies).mean().item()
        self.parts.clear()
        self.accuracies.clear()
        totals = [sum(step.values()) for step in steps]
        for number, (total, step) in enumerate(zip(totals, steps, strict=True)):
            if not math.isfinite(total):
                spelled = ", ".join(f"{name} {value:.4g}" for name, value in step.items())
                raise TrainingError(
                    f"the loss is no longer finite at step {first_step + number} "
                    f"(learning rate {lr:.3g}; {spelled})"
                )
        return sum(totals) / len(totals), accuracy


def soft_accuracy(logits_BA: Tensor, targets_BA: Tensor) -> Tensor:
    """Give the mean soft target of the answers that the logits choose: a scalar in [0, 1]."""
    return targets_BA.gather(1, logits_BA.argmax(1, keepdim=True)).mean()
