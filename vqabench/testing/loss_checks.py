"""Checks of a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vqabench.api import DataSpec, Loss
from vqabench.testing.backbone_checks import require_unchanged
from vqabench.testing.checks import (
    FailedCheckError,
    SkippedCheckError,
    Trial,
    list_trials,
    require,
    require_no_waits,
    require_registered,
)
from vqabench.testing.meta import MetaDevice, to_meta
from vqabench.testing.samples import make_sample, make_spec
from vqabench.testing.training_checks import bfloat16
from vqabench.training.checkpoint import own_tensors

BuildLoss = Callable[[DataSpec, str], Loss]
LARGE = 100.0
"""A logit larger than those of any trained model."""


def loss_trials(build: BuildLoss, objectives: Sequence[str]) -> list[Trial]:
    """Return the checks of a loss, each under all of its objectives."""
    under_each = [list_trials(LossChecks(build, objective), LossChecks.ESSENTIAL) for objective in objectives]
    return [
        Trial(
            trials[0].name,
            partial(_check_under_each, {one: trial.run for one, trial in zip(objectives, trials, strict=True)}),
            trials[0].essential,
        )
        for trials in zip(*under_each, strict=True)
    ]


def _check_under_each(checks: Mapping[str, Callable[[], str]]) -> str:
    """Run a check under each objective, and return the last result; skip it if all are skipped."""
    found, skipped = "", None
    for objective, check in checks.items():
        try:
            found = check()
        except SkippedCheckError as reason:
            skipped = reason
        except FailedCheckError as failure:
            raise FailedCheckError(f"{objective}: {failure}") from failure
    if skipped is not None and not found:
        raise skipped
    return found


class LossChecks:
    """The checks of one loss under one objective. ESSENTIAL checks come first."""

    ESSENTIAL = ("values", "seeds", "gradients")

    def __init__(self, build: BuildLoss, objective: str) -> None:
        self.build, self.objective = build, objective
        self.spec = make_spec()
        self.batch = make_sample(self.spec, 12, odd=True).batch
        self.logits_BA = torch.randn(12, len(self.spec.answers), generator=torch.Generator().manual_seed(1))

    def check_values(self) -> str:
        """Check for a finite scalar in both precisions, with unseen types and questions without an answer."""
        before = self.batch.map(torch.clone)
        for dtype in (torch.float32, torch.float64):
            loss = self._loss()(self.logits_BA.to(dtype), self.batch)
            require(isinstance(loss, Tensor), f"it returns a {type(loss).__name__}, not a tensor")
            require(
                loss.ndim == 0 and loss.is_floating_point() and bool(loss.isfinite()),
                f"not a finite scalar for {dtype} logits, but {loss.dtype} {list(loss.shape)}"
                + (f" {float(loss)}" if loss.ndim == 0 else ""),
            )
        require_unchanged(before, self.batch)
        return "a finite scalar"

    def check_seeds(self) -> str:
        """Check that the loss is the same for the same seed."""
        values = []
        for _ in range(2):
            loss = self._loss()
            torch.manual_seed(0)
            values.append(loss(self.logits_BA, self.batch))
        require(
            torch.equal(*values), f"{values[0]} and {values[1]} with the same seed; use only PyTorch's generators"
        )
        return "the same loss for the same seed"

    def check_gradients(self) -> str:
        """Check that gradients reach logits and parameters, and are finite for large logits."""
        loss = self._loss()
        for scale in (1.0, LARGE):
            logits_BA = (scale * self.logits_BA).requires_grad_()
            value = loss(logits_BA, self.batch)
            require(value.requires_grad, "it does not depend on the logits")
            torch.autograd.backward(value)
            found = logits_BA.grad
            require(
                found is not None and bool(found.isfinite().all()) and bool(found.any()),
                f"the gradient at logits of size {scale:g} is missing, 0 or not finite",
            )
        idle = [name for name, one in loss.named_parameters() if one.requires_grad and one.grad is None]
        require(not idle, f"no gradient reaches {', '.join(idle)}")
        return "finite"

    def check_average(self) -> str:
        """Check that it is averaged over the batch: the loss of a batch repeated is that of the batch."""
        logits_BA = self.logits_BA.double()
        values = []
        for seed in range(2):
            loss = self._loss()
            torch.manual_seed(seed)
            values.append(loss(logits_BA, self.batch))
        if not torch.equal(*values):
            raise SkippedCheckError("it draws random numbers, so it differs from batch to batch")
        once = values[0]
        # Another instance: a loss may hold state from the batches before.
        batch = self.batch.map(lambda tensor: torch.cat([tensor, tensor]))
        twice = self._loss()(logits_BA.repeat(2, 1), batch)
        require(
            torch.isclose(once, twice, rtol=1e-5), f"{twice:.6g} for a repeated batch, but {once:.6g} for the batch"
        )
        return "averaged over the batch"

    def check_descent(self) -> str:
        """Check that gradient descent on the logits raises the probability of right answers."""
        loss = self._loss()
        logits_BA = self.logits_BA.clone().requires_grad_()
        optimizer = torch.optim.Adam([logits_BA], lr=0.1)
        first, right = loss(logits_BA, self.batch).detach(), self._right(logits_BA)
        for _ in range(100):
            optimizer.zero_grad()
            torch.autograd.backward(loss(logits_BA, self.batch))
            optimizer.step()
        last = loss(logits_BA, self.batch).detach()
        require(last < first, f"{float(last):.4g} after 100 steps of gradient descent, {float(first):.4g} before")
        now = self._right(logits_BA)
        require(now > right, f"while it falls, the probability of right answers goes from {right:.3f} to {now:.3f}")
        return "falls in gradient descent, while right answers become more probable"

    def _right(self, logits_BA: Tensor) -> float:
        """Return the mean probability of the right answers under a softmax."""
        assert self.batch.targets_BA is not None
        return float(((self.batch.targets_BA > 0) * logits_BA.detach().softmax(1)).sum(1).mean())

    def check_state(self) -> str:
        """Check that its state can be saved to a file and loaded into a new one."""
        loss, other = self._loss(), self._loss(seed=1)
        loss(self.logits_BA, self.batch)
        other.load_state_dict(load_tensors(save_tensors(own_tensors(loss))))
        values = []
        for one in (loss, other):
            torch.manual_seed(0)
            values.append(one(self.logits_BA, self.batch))
        require(
            torch.equal(*values), "a copy loaded from its state dict has a different loss; keep state in buffers"
        )
        return f"{len(loss.state_dict())} tensors through safetensors"

    def check_stages(self) -> str:
        """Check that it is finite in every epoch of a stage, of one epoch and of several."""
        loss = self._loss()
        for epochs in (1, 5):
            for epoch in range(epochs):
                loss.start_epoch(epoch, epochs)
                value = loss(self.logits_BA, self.batch)
                require(bool(value.isfinite()), f"not finite in epoch {epoch} of {epochs}")
        return "finite in every epoch"

    def check_autocast(self) -> str:
        """Check that it is the same under bfloat16 autocast, up to rounding."""
        logits_BA = self.logits_BA.bfloat16().float()
        exact = self._loss()(logits_BA, self.batch)
        with bfloat16():
            rounded = self._loss()(logits_BA, self.batch)
        require(
            torch.isclose(exact, rounded.float(), rtol=0.02),
            f"{float(rounded):.6g} under autocast, {float(exact):.6g} without",
        )
        return "the same under autocast"

    def check_devices(self) -> str:
        """Check that all its tensors move to a GPU, and that the loss is the same there."""
        loss = self._loss()
        require_registered(loss)
        self._run_on_meta()
        if not torch.cuda.is_available():
            return "all tensors are on one device (no GPU here: checked on PyTorch's meta device)"
        expected = self._loss()(self.logits_BA, self.batch)
        found = loss.cuda()(self.logits_BA.cuda(), self.batch.map(lambda tensor: tensor.cuda()))
        require(torch.isclose(expected, found.cpu(), rtol=1e-3), "differs on CUDA and on the CPU")
        return "CUDA and CPU agree"

    def check_synchronisation(self) -> str:
        """Check that a training step does not wait for the GPU."""
        return require_no_waits(self._run_on_meta())

    def _run_on_meta(self) -> str:
        """Compute the loss and its gradient on the meta device; return the lines that would wait for a GPU."""
        loss, device = self._loss().to("meta"), MetaDevice()
        logits_BA, batch = to_meta(self.logits_BA.clone().requires_grad_()), self.batch.map(to_meta)
        with device:
            torch.autograd.backward(loss(logits_BA, batch))
        return device.describe()

    def _loss(self, seed: int = 0) -> Loss:
        torch.manual_seed(seed)
        return self.build(self.spec, self.objective)
