"""The whole loss of a batch, part by part, and the sums of losses over an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vqabench.api import Batch, Loss, Output
from vqabench.errors import OutputError, TrainingError
from vqabench.evaluation.predict import check_output, require_tensor

Parts = dict[str, Tensor]


@dataclass
class Tally:
    """Sums over the steps of an epoch. Saved in `resume.pt` under the names of its fields."""

    steps: int = 0
    loss: float = 0.0
    questions: int = 0
    """Questions whose accuracy is known; none if the backbone never calls the criterion."""
    accuracy: float = 0.0
    """Sum of soft accuracies, in percent, in each batch's first call."""

    def add(self, other: Tally) -> None:
        """Add the sums over other steps."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def means(self) -> dict[str, float]:
        """Return mean loss and accuracy, as far as they are known, by their names in `epochs.jsonl`."""
        means = {"loss": self.loss / self.steps} if self.steps else {}
        return means | ({"train_accuracy": self.accuracy / self.questions} if self.questions else {})


@dataclass
class Criterion:
    """Loss of the training logits + weighted auxiliary losses + penalties.

    All numbers stay on the device until they are read, so that a training step never waits for the GPU.
    """

    loss: Loss
    steps: list[tuple[Tensor, list[Parts]]] = field(default_factory=list)
    """The loss of each optimiser step, and the parts of each call that led to it."""
    calls: list[Parts] = field(default_factory=list)
    accuracies: list[tuple[Tensor, int]] = field(default_factory=list)
    """The accuracy of each batch's first call, and its questions."""
    first: bool = True
    """Whether the next call is its batch's first one: later ones may be counterfactuals."""
    questions: int | None = None
    """Questions of the latest call since the latest step."""

    def __call__(self, output: Output, batch: Batch) -> Tensor:
        """Return the scalar to minimise. Raises OutputError if output or loss are malformed."""
        assert batch.targets_BA is not None
        questions, answers = batch.targets_BA.shape
        check_output(output, (questions, answers))
        # What the loss sees differs from what is scored if a backbone adds a bias in training alone.
        logits_BA = output.logits_BA if output.training_logits_BA is None else output.training_logits_BA
        # Eqs. 2, 3, 10, 11 and 13 are the losses of `vqabench.losses`; the total is a sum, as in Eq. 17:
        # L_cls, here "answers", + L_mask (Eq. 5), which comes as a penalty.
        parts = {"answers": self._score(logits_BA, batch)}
        # After the answers: a loss may depend on its earlier calls.
        added = [(name, weight * self._score(one_BA, batch)) for name, (one_BA, weight) in output.auxiliary.items()]
        for name, part in (*added, *output.penalties.items()):
            if name in parts:
                raise OutputError(f"two parts of its loss have the name {name!r}")
            parts[name] = part
        self.calls.append({name: part.detach() for name, part in parts.items()})
        self.questions = len(batch)
        # What is scored, without a bias of training; and of real questions, not of their counterfactuals.
        if self.first:
            self.accuracies.append((soft_accuracy(output.logits_BA.detach(), batch.targets_BA), len(batch)))
            self.first = False
        return torch.stack(list(parts.values())).sum()

    def _score(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the loss of logits. Raises OutputError unless it is a scalar, not one number per question."""
        # bfloat16 has too few digits for logarithms of small probabilities.
        value: Tensor = self.loss(logits_BA.float(), batch)
        require_tensor(value, (), "the value that this loss returns, averaged over the batch,", self.loss)
        return value

    def finish_step(self, value: Tensor) -> None:
        """Record the loss of a step, which may combine calls of this criterion and terms of the backbone."""
        self.steps.append((value.detach(), self.calls))
        self.calls = []

    def forget_batch(self, steps: int, accuracies: int) -> None:
        """Forget a batch that could not be finished: keep only the first `steps` and `accuracies`."""
        del self.steps[steps:], self.accuracies[accuracies:]
        self.calls, self.first, self.questions = [], True, None

    def read(self, steps_before: int, lr: float) -> Reading:
        """Begin to read all steps since the last call. `steps_before` is the number of steps before them."""
        reading = Reading(self.steps, self.accuracies, steps_before, lr)
        self.steps, self.accuracies = [], []
        return reading


class Reading:
    """Losses and accuracies that are being copied from the device."""

    def __init__(
        self,
        steps: list[tuple[Tensor, list[Parts]]],
        accuracies: list[tuple[Tensor, int]],
        steps_before: int,
        lr: float,
    ) -> None:
        self.steps, self.steps_before, self.lr = steps, steps_before, lr
        self.last_step = steps_before + len(steps)
        self.losses = _start_copy([value for value, _ in steps])
        self.accuracies = _start_copy([accuracy for accuracy, _ in accuracies])
        self.questions = [questions for _, questions in accuracies]
        # The copies are asynchronous; the event tells when they have arrived.
        on_gpu = [one for one in (self.losses, self.accuracies) if one.is_pinned()]
        self.event = torch.cuda.current_stream().record_event() if on_gpu else None

    def is_ready(self) -> bool:
        """Return whether `result` can be called without waiting for the device."""
        return self.event is None or bool(self.event.query())

    def result(self) -> Tally:
        """Return the sums. Raises TrainingError, with step, learning rate and parts, if a loss is not finite."""
        if self.event is not None:
            self.event.synchronize()
        losses: list[float] = self.losses.tolist()
        for number, (value, (_, calls)) in enumerate(zip(losses, self.steps, strict=True)):
            if not math.isfinite(value):
                spelled = [f"{name} {part.item():.4g}" for parts in calls for name, part in parts.items()]
                raise TrainingError(
                    f"the loss is no longer finite at step {self.steps_before + number + 1} "
                    f"(learning rate {self.lr:.3g}; {', '.join(spelled) or 'of the backbone alone'})"
                )
        pairs = zip(self.accuracies.tolist(), self.questions, strict=True)
        right = sum(accuracy * questions for accuracy, questions in pairs)
        return Tally(len(losses), sum(losses), sum(self.questions), 100 * right)


def _start_copy(numbers: list[Tensor]) -> Tensor:
    """Begin to copy scalars to the CPU."""
    if not numbers:
        return torch.empty(0)
    return torch.stack([number.float() for number in numbers]).to("cpu", non_blocking=True)


def soft_accuracy(logits_BA: Tensor, targets_BA: Tensor) -> Tensor:
    """Return the mean soft target of the answers that the logits choose: a scalar in [0, 1]."""
    return targets_BA.gather(1, logits_BA.argmax(1, keepdim=True)).mean()
