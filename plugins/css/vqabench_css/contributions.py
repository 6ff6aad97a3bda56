"""The contribution of each object or word to the right answers."""

from __future__ import annotations

import torch
from torch import Tensor

from vqabench.api import without_autocast
from vqabench.errors import PluginError


def contributions(logits_BA: Tensor, targets_BA: Tensor, inputs: Tensor) -> Tensor:
    """Return each input's contribution to the ground truth (Chen et al. 2020): [B, R] of regions, [B, L] of words.

    It is the gradient of the sum of the logits of all answers with a target above 0, summed over the feature axis
    of `inputs` [B, R, V] or [B, L, E]. The graph is kept, and no parameter receives a gradient.

    Raises PluginError if the logits do not depend on the inputs.
    """
    # One sum over the batch: a question's logits depend on its own inputs alone, so their gradients do not mix.
    truth = torch.where(targets_BA > 0, logits_BA, 0.0).sum()
    if not (truth.requires_grad and inputs.requires_grad):
        raise PluginError("css: the base's logits, or the inputs it returns, are not part of the autograd graph")
    # The backward pass runs in the types of the forward pass; PyTorch advises against autocast around it.
    with without_autocast(logits_BA.device):
        (gradient,) = torch.autograd.grad(truth, inputs, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise PluginError(
            "css: the base's logits do not depend on what counterfactuals change: the image with branch=visual, "
            "the question with branch=question, and both by default"
        )
    return gradient.float().sum(2)
