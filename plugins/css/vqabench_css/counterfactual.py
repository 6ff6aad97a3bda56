"""What objects and words contribute, and batches without some of them."""

from __future__ import annotations

import torch
from torch import Tensor

from vqabench.api import Batch, without_autocast
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


def keep_regions(batch: Batch, kept_BR: Tensor) -> Batch:
    """Return the batch with some regions of each image: the others are masked out and their features are zero."""
    # Zeroed as well as masked, for bases that ignore the mask in part, as a mean over all regions does.
    mask_BR = batch.region_mask_BR & kept_BR
    return batch.replace(
        region_mask_BR=mask_BR, regions_BRV=batch.regions_BRV.masked_fill(~mask_BR[:, :, None], 0.0)
    )


def keep_questions(batch: Batch, rows: Tensor) -> Batch:
    """Return the batch with the questions at `rows` (int64, in their order)."""
    return batch if len(rows) == len(batch) else batch.map(lambda tensor: tensor[rows])


def counterfactual_targets(targets_BA: Tensor, logits_BA: Tensor, count: int) -> Tensor:
    """Return a⁻ [B, A]: the targets, with 0 for the `count` answers of the largest logits (A⁺)."""
    first_BC = logits_BA.topk(min(count, logits_BA.shape[1]), dim=1).indices
    return targets_BA.scatter(1, first_BC, 0.0)
