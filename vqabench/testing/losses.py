"""What every loss must hold to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vqabench.api import Batch, DataSpec, Loss
from vqabench.testing.checks import FailedCheckError, Question, SkippedCheckError
from vqabench.testing.samples import make_sample, make_spec

BuildLoss = Callable[[DataSpec, str], Loss]
LARGE = 100.0
"""A logit beyond which no model goes."""


class LossChecks:
    """The checks of one loss, under each objective that it is defined for."""

    def __init__(self, build: BuildLoss, objectives: Sequence[str]) -> None:
        self.build, self.objectives = build, objectives
        self.spec = make_spec()
        self.batch = _with_odd_ones(make_sample(self.spec, 12).batch)

    def questions(self) -> Iterator[Question]:
        """Give all checks."""
        for name in ("values", "average", "gradients", "descent", "state", "stages"):
            yield name, partial(self._under_each, getattr(self, f"check_{name}"))

    def check_values(self, objective: str) -> str:
        """It is a finite scalar in either precision, for types never seen and questions without an answer, too."""
        for dtype in (torch.float32, torch.float64):
            loss = self._loss(objective)(self._logits().to(dtype), self.batch)
            if loss.ndim or not loss.isfinite() or not loss.is_floating_point():
                raise FailedCheckError(f"{objective}: of {dtype} logits it is {loss}, no finite scalar")
        return "a finite scalar"

    def check_average(self, objective: str) -> str:
        """It is averaged over the batch: the same questions twice cost as much as once."""
        logits_BA = self._logits().double()
        once = self._loss(objective)(logits_BA, self.batch)
        # another one: a loss may remember the batches it has seen
        twice = self._loss(objective)(logits_BA.repeat(2, 1), _twice(self.batch))
        if not torch.isclose(once, twice, rtol=1e-5):
            raise FailedCheckError(f"{objective}: {twice:.6g} of a batch given twice, but {once:.6g} of it once")
        return "averaged over the batch"

    def check_gradients(self, objective: str) -> str:
        """They reach logits and parameters, and are finite however sure the model is."""
        loss = self._loss(objective)
        for scale in (1.0, LARGE):
            logits_BA = (scale * self._logits()).requires_grad_()
            loss(logits_BA, self.batch).backward()
            if logits_BA.grad is None or not logits_BA.grad.isfinite().all() or not logits_BA.grad.any():
                told = f"gradients at logits of {scale:g} are missing, 0 or not finite"
                raise FailedCheckError(f"{objective}: {told}")
        idle = [name for name, one in loss.named_parameters() if one.requires_grad and one.grad is None]
        if idle:
            raise FailedCheckError(f"{objective}: no gradient reaches {', '.join(idle)}")
        return "finite"

    def check_descent(self, objective: str) -> str:
        """Logits that follow its gradient make it smaller."""
        loss = self._loss(objective)
        logits_BA = self._logits().requires_grad_()
        optimizer = torch.optim.Adam([logits_BA], lr=0.1)
        first = loss(logits_BA, self.batch).detach()
        for _ in range(100):
            optimizer.zero_grad()
            torch.autograd.backward(loss(logits_BA, self.batch))
            optimizer.step()
        value = loss(logits_BA, self.batch).detach()
        if not value < first:
            raise FailedCheckError(
                f"{objective}: {float(value):.4g} behind 100 steps along its gradient, {float(first):.4g} before"
            )
        return "falls along its gradient"

    def check_state(self, objective: str) -> str:
        """What it keeps goes through a file into a new one."""
        loss, other = self._loss(objective), self._loss(objective)
        if not loss.state_dict():
            raise SkippedCheckError("it keeps nothing")
        loss(self._logits(), self.batch)
        other.load_state_dict(load_tensors(save_tensors({k: v.contiguous() for k, v in loss.state_dict().items()})))
        if not torch.equal(loss(self._logits(), self.batch), other(self._logits(), self.batch)):
            raise FailedCheckError(f"{objective}: a copy by its state dict gives another loss")
        return f"{len(loss.state_dict())} tensors through safetensors"

    def check_stages(self, objective: str) -> str:
        """It goes through the epochs of a stage, of one epoch as of several."""
        loss = self._loss(objective)
        for epochs in (1, 5):
            for epoch in range(epochs):
                loss.start_epoch(epoch, epochs)
                if not loss(self._logits(), self.batch).isfinite():
                    raise FailedCheckError(f"{objective}: not finite in epoch {epoch} of {epochs}")
        return "finite in every epoch"

    def _under_each(self, check: Callable[[str], str]) -> str:
        return next(iter({check(objective): None for objective in self.objectives}))

    def _loss(self, objective: str) -> Loss:
        torch.manual_seed(0)
        return self.build(self.spec, objective)

    def _logits(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(len(self.batch), len(self.spec.answers), generator=generator)


def _with_odd_ones(batch: Batch) -> Batch:
    """Give the batch with a type that training never saw, and a question without an answer in the vocabulary."""
    types_B, targets_BA = batch.question_types_B.clone(), batch.targets_BA
    assert targets_BA is not None
    types_B[0] = 3
    targets_BA = targets_BA.clone()
    targets_BA[1] = 0
    return batch.replace(question_types_B=types_B, targets_BA=targets_BA)


def _twice(batch: Batch) -> Batch:
    fields = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return batch.replace(**{name: torch.cat([value, value]) for name, value in fields.items()})
