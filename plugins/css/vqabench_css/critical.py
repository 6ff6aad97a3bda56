"""Which objects and words are critical."""

from __future__ import annotations

import torch
from torch import Tensor


def candidate_regions(similarity_BR: Tensor | None, region_mask_BR: Tensor, count: int) -> Tensor:
    """Return bool [B, R]: the `count` real regions whose classes are most similar to the question and its answer.

    If no region of an image has a similarity (None, or -inf for all), all its real regions are candidates.
    Otherwise regions without one (-inf) are not.
    """
    if similarity_BR is None:
        return region_mask_BR
    known_BR = region_mask_BR & (similarity_BR > -torch.inf)
    order_BR = similarity_BR.masked_fill(~known_BR, -torch.inf).argsort(dim=1, descending=True, stable=True)
    nearest_BR = torch.zeros_like(known_BR).scatter(1, order_BR[:, :count], True) & known_BR
    return torch.where(known_BR.any(1, keepdim=True), nearest_BR, region_mask_BR)


def critical_regions(contributions_BR: Tensor, candidates_BR: Tensor, *, sharpness: float, share: float) -> Tensor:
    """Return bool [B, R]: the candidates that explain the answer, at least one per row.

    From the largest contribution on, those whose cumulative softmax(sharpness x contribution) over the candidates
    is at most `share`, and always the first. Every row must have a candidate.
    """
    scores_BR = (sharpness * contributions_BR).masked_fill(~candidates_BR, -torch.inf)
    sorted_BR, order_BR = scores_BR.sort(dim=1, descending=True, stable=True)
    # Rounding can lift the sum above 1, which would exclude the last region if `share` is 1.
    chosen_BR = sorted_BR.softmax(1).cumsum(1).clamp(max=1.0) <= share
    chosen_BR[:, 0] = True
    return torch.zeros_like(candidates_BR).scatter(1, order_BR, chosen_BR) & candidates_BR


def regions_left(critical_BR: Tensor, contributions_BR: Tensor, region_mask_BR: Tensor) -> Tensor:
    """Return bool [B, R]: the real regions that are not critical; of all, the one with the least contribution."""
    left_BR = region_mask_BR & ~critical_BR
    # Without any region, attention would be a softmax over nothing.
    least_B = contributions_BR.masked_fill(~region_mask_BR, torch.inf).argmin(1, keepdim=True)
    last_BR = torch.zeros_like(left_BR).scatter(1, least_B, True)
    return torch.where(left_BR.any(1, keepdim=True), left_BR, last_BR)


def critical_words(contributions_BL: Tensor, free_BL: Tensor) -> Tensor:
    """Return bool [B, L]: the word with the largest contribution among the free ones; none if none is free."""
    # argmax returns some position even if all are -inf; the mask below removes it.
    largest_B = contributions_BL.masked_fill(~free_BL, -torch.inf).argmax(1, keepdim=True)
    return torch.zeros_like(free_BL).scatter(1, largest_B, True) & free_BL
