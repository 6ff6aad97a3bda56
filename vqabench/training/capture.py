"""Forward and backward pass as a CUDA graph: recorded once, then started as a whole.

A step of UpDn is some 400 kernels, each of which a GPU finishes before PyTorch has issued the next one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, Loss
from vqabench.training.criterion import Criterion, Parts
from vqabench.training.device import Autocast

WARM_UP = 10
"""Batches of an epoch computed before one is recorded: libraries choose kernels and take memory in them."""


class CapturedPass:
    """The loss of batches of one size and its gradients, recorded on one of them.

    What the graph reads and writes stays where it is: a batch is copied in, and the gradients of the parameters are
    the same tensors each time.
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
        # Recording has computed nothing: what the criterion has noted are places that a replay writes to.
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
        criterion.calls += [{name: part.clone() for name, part in parts.items()} for parts in self.calls]
        criterion.accuracies += [(accuracy.clone(), questions) for accuracy, questions in self.accuracies]
        criterion.questions = len(batch)
        criterion.first = False
        return self.loss.clone()


def can_capture(model: Backbone, loss: nn.Module, device: torch.device) -> bool:
    """Return whether all parts of a model, and its loss, declare that a graph of their step can be replayed."""
    if device.type != "cuda" or type(model).training_losses is not Backbone.training_losses:
        return False
    return all(is_capturable(part) for part in (*model.modules(), loss) if isinstance(part, Backbone | Loss))


def is_capturable(part: Backbone | Loss) -> bool:
    """Return whether a part's own class says so: what a subclass adds, its base cannot know."""
    return bool(vars(type(part)).get("capturable"))


def _tensors(batch: Batch) -> list[Tensor]:
    own = [value for value in vars(batch).values() if isinstance(value, Tensor)]
    return [*own, *(batch.extras[name] for name in sorted(batch.extras))]


def _shapes(batch: Batch) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in _tensors(batch)]
