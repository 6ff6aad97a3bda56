"""How much each object or word speaks for the right answers."""

from __future__ import annotations

import torch
from torch import Tensor

from vqabench.api import without_autocast
from vqabench.errors import PluginError


def contributions(logits_BA: Tensor, targets_BA: Tensor, inputs: Tensor) -> Tensor:
    """Return each input's contribution to the ground truth (Chen et al. 2020): [B, R] of regions, [B, L] of words.

    It is the gradient of the sum of the logits of all answers with a target above 0, summed over the feature axis
    of `inputs` [B, R, V] or [B, L, E]. The graph stays, and no parameter receives a gradient.

    Raises PluginError if the logits do not depend on the inputs.
    """
    truth = torch.where(targets_BA > 0, logits_BA, 0.0).sum()
    if not (truth.requires_grad and inputs.requires_grad):
        raise PluginError("css: the base's answers, or the inputs it shows, are not part of the autograd graph")
    with without_autocast(logits_BA.device):  # a backward pass casts nothing anew
        (gradient,) = torch.autograd.grad(truth, inputs, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise PluginError(
            "css: the base's answers do not depend on what counterfactuals would change: on the image under "
            "branch=visual, on the question under branch=question, and by default on both"
        )
    return gradient.float().sum(2)
