"""Answers from a model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from vqabench.api import Backbone
from vqabench.data.batches import SplitData


def predict(
    model: Backbone,
    data: SplitData,
    batch_size: int,
    autocast: AbstractContextManager[object] | None = None,
) -> Tensor:
    """Answer every question of a split, in its order: int64 [N] indices into the vocabulary, on the CPU.

    The model is asked in evaluation mode, and is left in the mode it was in.
    """
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast or nullcontext():
        chosen = [model(batch).logits_BA.argmax(1) for batch in data.in_order(batch_size)]
    model.train(was_training)
    return torch.cat(chosen).cpu()


def mean_soft_target(data: SplitData, chosen: Tensor, batch_size: int = 4096) -> float:
    """Give the mean soft target of the chosen answers, in percent.

    It follows the official accuracy closely, and needs no annotations: meant for curves, not for results.
    """
    total = 0.0
    for indices in torch.arange(len(data)).to(data.device).split(batch_size):
        targets_BA = data.targets(indices)
        total += float(targets_BA.gather(1, chosen.to(data.device)[indices, None]).sum())
    return 100 * total / len(data)
