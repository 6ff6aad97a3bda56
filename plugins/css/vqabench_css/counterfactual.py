"""Batches with fewer objects, with fewer questions, or with other targets."""

from __future__ import annotations

from torch import Tensor

from vqabench.api import Batch


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
