"""The optimiser steps that a batch leads to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch
from vqabench.errors import OutputError, TrainingError
from vqabench.evaluation.predict import require_tensor
from vqabench.events import Warn
from vqabench.files.resources import is_out_of_memory
from vqabench.training.capture import WARM_UP, CapturedPass, can_capture
from vqabench.training.criterion import Criterion
from vqabench.training.device import Autocast
from vqabench.training.session import Session
from vqabench.training.state import State


class NoRoomError(Exception):
    """The device had no memory left, in the forward or the backward pass."""


class Descent:
    """Takes steps on a model's losses, in as many processes as a run has, with as much memory as there is."""

    def __init__(self, state: State, session: Session, autocast: Autocast, clip: float | None) -> None:
        self.state, self.session, self.autocast, self.clip = state, session, autocast, clip
        self.several_steps = type(state.model).training_losses is not Backbone.training_losses
        """A batch leads to steps by a procedure of the backbone's own, so that it cannot be cut."""
        self.captured: CapturedPass | None = None
        self.cannot_capture = False
        self.batches = 0
        """Batches trained on so far."""

    def train_on(self, batch: Batch, criterion: Criterion) -> None:
        """Take the steps of one batch. Where memory is not enough for it, cut it, and say so.

        Raises TrainingError where it cannot be cut.
        """
        known = len(criterion.steps), len(criterion.accuracies)
        while True:
            try:
                return self._take_steps(batch, criterion)
            except NoRoomError:  # its traceback holds what was computed, so go on behind this block
                pass
            criterion.forget_batch(*known)
            if self.captured is None:
                self._cut(batch)
            else:
                self._give_up_graph()

    def _take_steps(self, batch: Batch, criterion: Criterion) -> None:
        """Take a step for each loss of any process; one that has none left takes the others' part in it.

        Memory may only run out before the processes speak to each other.
        """
        losses = self._with_gradients(batch, criterion)
        processes = self.session.processes
        while True:
            with _noticing_no_room():
                value = next(losses, None)
            questions = 0 if value is None else criterion.questions or len(batch)
            criterion.questions = None
            everyones = processes.sum_over(questions)
            if not everyones:
                break
            if value is None:
                self.state.optimizer.zero_grad(set_to_none=True)
            share = questions / everyones
            processes.sum_gradients(self.state.parameters, share)
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.state.parameters, self.clip)
            self.state.optimizer.step()
            # So that the mean over all processes is the loss of the whole batch.
            criterion.finish_step(
                torch.zeros((), device=self.session.device) if value is None else value * (share * processes.count)
            )
        criterion.finish_batch()

    def _with_gradients(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        """Give each loss of a batch, its gradients computed."""
        if len(batch) == 0:
            return
        if self.state.position.pieces > 1:
            yield self._accumulate(batch, criterion)
            return
        captured = self._capture(batch, criterion)
        if captured is not None:
            yield captured.compute(batch, criterion)
            return
        for value in under(self.autocast, self._losses(batch, criterion)):
            self.state.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(value)
            yield value

    def _capture(self, batch: Batch, criterion: Criterion) -> CapturedPass | None:
        """Return what computes the batch as a CUDA graph; None where it cannot be, or not yet."""
        self.batches += 1
        model, device = self.state.model, self.session.device
        if self.batches <= WARM_UP or self.cannot_capture or not can_capture(model, criterion.loss, device):
            return None
        if self.captured is None:
            known = len(criterion.steps), len(criterion.accuracies)
            try:
                self.captured = CapturedPass(model, self.state.parameters, batch, criterion, self.autocast)
            except RuntimeError as error:
                criterion.forget_batch(*known)
                if not is_out_of_memory(error):
                    reason = str(error).strip().partition("\n")[0]
                    message = (
                        f"its step cannot be recorded as a CUDA graph, so it must not be `capturable`: {reason}"
                    )
                    raise OutputError(message, model) from error
            if self.captured is None:  # behind the block, whose error holds what was computed
                self._give_up_graph()
                return None
        return self.captured if self.captured.fits(batch) else None

    def _give_up_graph(self) -> None:
        """Compute the rest of the epoch kernel by kernel: a graph keeps memory of its own."""
        self.captured, self.cannot_capture = None, True
        self.state.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        self.session.emit(Warn(f"{self.session.device} has no memory for a CUDA graph, so training is slower"))

    def _losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        """Yield the backbone's losses of a batch. Raises OutputError where one is not a scalar with a gradient."""
        model = self.state.model
        losses = model.training_losses(batch, criterion)
        if not isinstance(losses, Iterator):
            message = f"its training_losses must yield losses, but returned a {type(losses).__name__}"
            raise OutputError(message, model)
        for value in losses:
            require_tensor(value, (), "a loss that its training_losses yields", model)
            if not value.requires_grad:
                raise OutputError("a loss that its training_losses yields depends on no parameter", model)
            yield value

    def _accumulate(self, batch: Batch, criterion: Criterion) -> Tensor:
        """Compute a batch's one loss and its gradients piece by piece."""
        self.state.optimizer.zero_grad(set_to_none=True)
        values = []
        for piece in cut(batch, self.state.position.pieces):
            (value,) = under(self.autocast, self._losses(piece, criterion))
            value = value * (len(piece) / len(batch))
            torch.autograd.backward(value)
            values.append(value.detach())
            criterion.finish_batch()
        criterion.questions = len(batch)
        return torch.stack(values).sum()

    def _cut(self, batch: Batch) -> None:
        """Cut batches into twice as many pieces from now on."""
        self.state.optimizer.zero_grad(set_to_none=True)
        self.captured = None
        if self.session.device.type == "cuda":
            torch.cuda.empty_cache()
        position, size = self.state.position, len(batch)
        if self.several_steps:
            raise TrainingError(
                f"{self.session.device} has no memory for a batch of {size} questions, and batches of this "
                f"backbone, which takes steps of its own, cannot be split; "
                f"try --set recipe.batch_size={max(1, size // 2)}"
            )
        if position.pieces >= size:
            raise TrainingError(f"{self.session.device} has no memory for a single question of this model")
        position.pieces *= 2
        self.session.emit(
            Warn(
                f"{self.session.device} has no memory for {size} questions at once: from now on each batch is "
                f"split into {position.pieces} pieces, and their gradients are summed"
            )
        )


def under(autocast: Autocast, losses: Iterator[Tensor]) -> Iterator[Tensor]:
    """Compute each loss under autocast, and hand it out outside of it, for the backward pass."""
    while True:
        with autocast():
            value = next(losses, None)
        if value is None:
            return
        yield value


def cut(batch: Batch, pieces: int) -> list[Batch]:
    """Cut a batch into pieces of about one size, none of them empty."""
    bounds = [len(batch) * piece // pieces for piece in range(pieces + 1)]
    return [
        batch.map(lambda tensor, few=slice(start, stop): tensor[few])  # type: ignore[misc]
        for start, stop in pairwise(bounds)
        if stop > start
    ]


@contextmanager
def telling_of_no_room(device: torch.device) -> Iterator[None]:
    """Tell what may help where memory runs out elsewhere than in a batch's forward and backward pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            message = "try a smaller --set recipe.batch_size, or --features disk"
            raise TrainingError(f"{device} has no memory left: {message}") from error
        raise


@contextmanager
def _noticing_no_room() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise NoRoomError from error
        raise
