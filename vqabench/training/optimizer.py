"""The optimiser that a recipe asks for, and its learning rate step by step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vqabench.api import Recipe

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamax": torch.optim.Adamax,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def make_optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimiser over all parameters that take a gradient."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return _OPTIMIZERS[recipe.optimizer](trained, lr=recipe.lr, weight_decay=recipe.weight_decay)  # type: ignore[call-arg]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Give the rate of step `step` (from 0) of a stage of `steps`."""
    rising = round(recipe.warmup * steps)
    if step < rising:
        return recipe.lr * (step + 1) / rising
    if recipe.schedule == "linear":
        return recipe.lr * (steps - step) / max(1, steps - rising)
    return recipe.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use this rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr
