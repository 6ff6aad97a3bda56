"""The whole loss of a batch, part by part, and a watch over the steps taken on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from vqabench.api import Batch, Loss, Output
from vqabench.errors import PluginError, TrainingError

Parts = dict[str, Tensor]


class Reading(NamedTuple):
    """Means over the steps since the last reading."""

    steps: int
    loss: float
    accuracy: float | None
    """Soft, in percent, of each batch's first call; None where a backbone never calls the criterion."""


@dataclass
class Criterion:
    """Loss of the training logits + weighted auxiliary losses + penalties.

    Everything is kept on the device as it comes, and read in one go by `read`: a training step waits for
    no number.
    """

    loss: Loss
    steps: list[tuple[Tensor, list[Parts]]] = field(default_factory=list)
    """What was minimised, and the parts of each call that led to it."""
    calls: list[Parts] = field(default_factory=list)
    accuracies: list[Tensor] = field(default_factory=list)
    first: bool = True
    """The next call is its batch's first one: what follows may be a counterfactual."""

    def __call__(self, output: Output, batch: Batch) -> Tensor:
        """Give the scalar that the optimiser minimises. Raises PluginError where the output is malformed."""
        _check(output, batch)
        logits_BA = output.logits_BA if output.training_logits_BA is None else output.training_logits_BA
        parts = {"answers": self.loss(logits_BA.float(), batch)}
        for name, (auxiliary_BA, weight) in output.auxiliary.items():
            _add(parts, name, weight * self.loss(auxiliary_BA.float(), batch))
        for name, penalty in output.penalties.items():
            _add(parts, name, penalty)
        self.calls.append({name: part.detach() for name, part in parts.items()})
        if self.first:
            assert batch.targets_BA is not None
            self.accuracies.append(soft_accuracy(output.logits_BA.detach(), batch.targets_BA))
            self.first = False
        return torch.stack(list(parts.values())).sum()

    def finish_step(self, value: Tensor) -> None:
        """Take note of what a step minimises: any calls of this criterion, and whatever a backbone adds."""
        self.steps.append((value.detach(), self.calls))
        self.calls = []

    def finish_batch(self) -> None:
        """Take note that a batch is done."""
        self.first = True

    def read(self, steps_before: int, lr: float) -> Reading | None:
        """Give means over the steps since the last call; None where there were none.

        `steps_before` is the number of steps before those. Raises TrainingError, with step, learning rate and
        parts, where a loss is not finite.
        """
        if not self.steps:  # a backbone may skip a batch
            return None
        values = torch.stack([value.float() for value, _ in self.steps]).tolist()
        for number, (value, (_, calls)) in enumerate(zip(values, self.steps, strict=True)):
            if not math.isfinite(value):
                spelled = [f"{name} {part.item():.4g}" for parts in calls for name, part in parts.items()]
                raise TrainingError(
                    f"the loss is no longer finite at step {steps_before + number + 1} "
                    f"(learning rate {lr:.3g}; {', '.join(spelled) or 'of the backbone alone'})"
                )
        accuracy = 100 * torch.stack(self.accuracies).mean().item() if self.accuracies else None
        self.steps, self.accuracies = [], []
        return Reading(len(values), sum(values) / len(values), accuracy)


def _check(output: Output, batch: Batch) -> None:
    """Raise PluginError unless an output has the shapes that the API promises."""
    if not isinstance(output, Output):
        raise PluginError(f"a backbone gives an Output, not a {type(output).__name__}")
    assert batch.targets_BA is not None
    wanted = tuple(batch.targets_BA.shape)
    logits = {"logits_BA": output.logits_BA, "training_logits_BA": output.training_logits_BA}
    logits |= {f"auxiliary[{name!r}]": auxiliary_BA for name, (auxiliary_BA, _) in output.auxiliary.items()}
    for name, given in logits.items():
        if given is not None and tuple(given.shape) != wanted:
            raise PluginError(f"the backbone's {name} are {list(given.shape)}, but the answers {list(wanted)}")
    for name, penalty in output.penalties.items():
        if not isinstance(penalty, Tensor) or penalty.ndim:
            what = list(penalty.shape) if isinstance(penalty, Tensor) else type(penalty).__name__
            raise PluginError(f"the backbone's penalties[{name!r}] must be a tensor of no dimensions, not {what}")


def _add(parts: Parts, name: str, part: Tensor) -> None:
    if name in parts:
        raise PluginError(f"two parts of the backbone's loss are called {name!r}")
    parts[name] = part


def soft_accuracy(logits_BA: Tensor, targets_BA: Tensor) -> Tensor:
    """Give the mean soft target of the answers that the logits choose: a scalar in [0, 1]."""
    return targets_BA.gather(1, logits_BA.argmax(1, keepdim=True)).mean()
