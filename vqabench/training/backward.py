"""Compute the losses and gradients of a batch as memory allows: whole, in pieces, or as a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, Loss
from vqabench.errors import OutputError, TrainingError
from vqabench.evaluation.predict import require_tensor
from vqabench.events import Warn
from vqabench.files.resources import is_out_of_memory
from vqabench.training.checkpoint import State
from vqabench.training.criterion import Criterion, Parts
from vqabench.training.device import Autocast
from vqabench.training.session import Session

WARM_UP = 10
"""Batches of an epoch before the CUDA graph is recorded, while libraries choose kernels and allocate memory."""


class BackwardPass:
    """Computes the losses of batches, and their gradients. Start a new one each epoch."""

    def __init__(self, state: State, session: Session, autocast: Autocast) -> None:
        self.state, self.session, self.autocast = state, session, autocast
        self.graph: CapturedPass | None = None
        self.cannot_capture = False
        self.batches = 0
        """Batches computed so far."""

    def losses(self, batch: Batch, criterion: Criterion) -> Iterator[tuple[Tensor, int]]:
        """Yield each loss of a batch, with its number of questions, once its gradients are in the parameters.

        If memory runs out, give up the CUDA graph or split the batch, and try again. Raises TrainingError if the
        batch cannot be split.
        """
        counts = len(criterion.steps), len(criterion.accuracies)
        while True:
            try:
                yield from self._try(batch, criterion)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the block: the error's traceback keeps alive all tensors of the failed pass.
            criterion.forget_batch(*counts)
            if self.graph is not None:
                self._give_up_graph()
            else:
                self._split(batch)

    def _try(self, batch: Batch, criterion: Criterion) -> Iterator[tuple[Tensor, int]]:
        if len(batch) == 0:  # with fewer questions than processes, some have none
            return
        if self.state.position.pieces > 1:
            yield self._accumulate(batch, criterion), len(batch)
            return
        graph = self._capture(batch, criterion)
        if graph is not None:
            yield graph.compute(batch, criterion), len(batch)
            return
        for loss in under(self.autocast, self._forward(batch, criterion)):
            # Only now, because the backbone may have used autograd to make this loss.
            self.state.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            # A step of the backbone's own may be taken on a part of the batch.
            questions, criterion.questions = criterion.questions or len(batch), None
            yield loss, questions

    def _forward(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        """Yield the backbone's losses of a batch. Raises OutputError unless each is a scalar with a gradient."""
        model = self.state.model
        losses = model.training_losses(batch, criterion)
        if not isinstance(losses, Iterator):
            message = f"its training_losses must yield losses, but returned a {type(losses).__name__}"
            raise OutputError(message, model)
        for loss in losses:
            require_tensor(loss, (), "a loss that its training_losses yields", model)
            if not loss.requires_grad:
                raise OutputError("a loss that its training_losses yields depends on no parameter", model)
            yield loss

    def _accumulate(self, batch: Batch, criterion: Criterion) -> Tensor:
        """Compute the loss and the gradients of a batch piece by piece."""
        self.state.optimizer.zero_grad(set_to_none=True)
        losses = []
        for piece in split(batch, self.state.position.pieces):
            (loss,) = under(self.autocast, self._forward(piece, criterion))
            # The loss is a mean over questions, so that of the batch weighs each piece by its size.
            loss = loss * (len(piece) / len(batch))
            torch.autograd.backward(loss)
            losses.append(loss.detach())
            criterion.first = True
        criterion.questions = None
        return torch.stack(losses).sum()

    def _split(self, batch: Batch) -> None:
        """Split batches into twice as many pieces from now on."""
        self.state.optimizer.zero_grad(set_to_none=True)
        device, position, size = self.session.device, self.state.position, len(batch)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        # Several steps on each piece would be other steps than those on the whole batch.
        if _has_own_steps(self.state.model):
            raise TrainingError(
                f"{device} has no memory for a batch of {size} questions, and batches of this backbone, which "
                f"takes steps of its own, cannot be split; try --set recipe.batch_size={max(1, size // 2)}"
            )
        if position.pieces >= size:
            raise TrainingError(f"{device} has no memory for a single question of this model")
        position.pieces *= 2
        message = (
            f"{device} has no memory for {size} questions at once: from now on each batch is split into "
            f"{position.pieces} pieces, and their gradients are summed"
        )
        self.session.emit(Warn(message))

    def _capture(self, batch: Batch, criterion: Criterion) -> CapturedPass | None:
        """Return the CUDA graph that computes the batch; None if there is none, or not yet."""
        self.batches += 1
        model, device = self.state.model, self.session.device
        if self.batches <= WARM_UP or self.cannot_capture or not can_capture(model, criterion.loss, device):
            return None
        if self.graph is None:
            counts = len(criterion.steps), len(criterion.accuracies)
            try:
                self.graph = CapturedPass(model, self.state.parameters, batch, criterion, self.autocast)
            except RuntimeError as error:
                criterion.forget_batch(*counts)
                if not is_out_of_memory(error):
                    reason = str(error).strip().partition("\n")[0]
                    message = (
                        f"its step cannot be recorded as a CUDA graph, so it must not be `capturable`: {reason}"
                    )
                    raise OutputError(message, model) from error
            if self.graph is None:  # outside the block, because the error's traceback holds memory
                self._give_up_graph()
                return None
        # The last batch of an epoch is smaller, and computed kernel by kernel.
        return self.graph if self.graph.fits(batch) else None

    def _give_up_graph(self) -> None:
        """Compute the rest of the epoch kernel by kernel: a graph keeps memory of its own."""
        self.graph, self.cannot_capture = None, True
        self.state.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        self.session.emit(Warn(f"{self.session.device} has no memory for a CUDA graph, so training is slower"))


class CapturedPass:
    """The loss of batches of one size and its gradients, recorded on one of them as a CUDA graph.

    A step of a small backbone is some 400 kernels, each of which a GPU finishes before PyTorch has issued the next
    one. A graph issues them all at once. The tensors that it reads and writes stay where they are: a batch is
    copied in, and the gradients of the parameters are the same tensors each time.
    """

    def __init__(
        self,
        model: Backbone,
        parameters: list[nn.Parameter],
        batch: Batch,
        criterion: Criterion,
        autocast: Autocast,
    ) -> None:
        self.batch = batch.map(torch.clone)
        self.graph = torch.cuda.CUDAGraph()
        for parameter in parameters:
            parameter.grad = None  # so that the graph writes gradients, and does not add to them
        # Other threads may copy features to the device meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            with autocast():
                (self.loss,) = model.training_losses(self.batch, criterion)
            torch.autograd.backward(self.loss)
        # Recording has computed nothing: the criterion now holds the tensors that a replay writes to.
        self.calls: list[Parts] = criterion.calls
        self.accuracies: list[tuple[Tensor, int]] = criterion.accuracies[-1:] if not criterion.first else []
        criterion.forget_batch(len(criterion.steps), len(criterion.accuracies) - len(self.accuracies))
        self.loss = self.loss.detach()
        self.gradients = [(one, one.grad) for one in parameters]

    def fits(self, batch: Batch) -> bool:
        """Return whether the batch is of the size and the kinds of tensors that were recorded."""
        return _shapes(batch) == _shapes(self.batch)

    def compute(self, batch: Batch, criterion: Criterion) -> Tensor:
        """Compute the loss of a batch, and the gradients of the parameters; record it in the criterion."""
        for own, given in zip(_tensors(self.batch), _tensors(batch), strict=True):
            own.copy_(given)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        # Clones, because the next replay overwrites the tensors.
        criterion.calls += [{name: part.clone() for name, part in parts.items()} for parts in self.calls]
        criterion.accuracies += [(accuracy.clone(), questions) for accuracy, questions in self.accuracies]
        criterion.first = False
        return self.loss.clone()


def can_capture(model: Backbone, loss: nn.Module, device: torch.device) -> bool:
    """Return whether all parts of a model, and its loss, declare that a graph of their step can be replayed."""
    if device.type != "cuda" or _has_own_steps(model):
        return False
    return all(is_capturable(part) for part in (*model.modules(), loss) if isinstance(part, Backbone | Loss))


def is_capturable(part: Backbone | Loss) -> bool:
    """Return whether a part's own class declares `capturable`; a declaration of its base does not count."""
    return bool(vars(type(part)).get("capturable"))


def _has_own_steps(model: Backbone) -> bool:
    """Return whether a model has a training procedure of its own, which may take several steps a batch."""
    return type(model).training_losses is not Backbone.training_losses


def _tensors(batch: Batch) -> list[Tensor]:
    own = [value for value in vars(batch).values() if isinstance(value, Tensor)]
    return [*own, *(batch.extras[name] for name in sorted(batch.extras))]


def _shapes(batch: Batch) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in _tensors(batch)]


def under(autocast: Autocast, losses: Iterator[Tensor]) -> Iterator[Tensor]:
    """Compute each loss under autocast, and yield it outside, because the backward pass must not run under it."""
    while True:
        with autocast():
            loss = next(losses, None)
        if loss is None:
            return
        yield loss


def split(batch: Batch, pieces: int) -> list[Batch]:
    """Split a batch into pieces of about one size, none of them empty."""
    bounds = [len(batch) * piece // pieces for piece in range(pieces + 1)]
    return [
        batch.map(lambda tensor, few=slice(start, stop): tensor[few])  # type: ignore[misc]
        for start, stop in pairwise(bounds)
        if stop > start
    ]


@contextmanager
def explaining_out_of_memory(device: torch.device) -> Iterator[None]:
    """Raise TrainingError, with advice, if memory runs out elsewhere than in a batch's forward or backward pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            message = "try a smaller --set recipe.batch_size, or --features disk"
            raise TrainingError(f"{device} has no memory left: {message}") from error
        raise
