"""The optimiser of a recipe, and its learning rate at each step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vqabench.api import Recipe


class BertAdam(torch.optim.Optimizer):
    """AdamW as BERT was trained: moments without bias correction, and an epsilon of 1e-6.

    A rarely used weight moves up to 50 times as far with the usual epsilon of 1e-8.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": (0.9, 0.999), "eps": 1e-6})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient, several at once."""
        for group in self.param_groups:
            parameters = [one for one in group["params"] if one.grad is not None]
            if not parameters:
                continue
            for one in parameters:
                if not self.state[one]:
                    self.state[one] = {name: torch.zeros_like(one) for name in ("mean", "square")}
            gradients = [one.grad for one in parameters]
            means, squares = ([self.state[one][name] for one in parameters] for name in ("mean", "square"))
            first, second = group["betas"]
            torch._foreach_lerp_(means, gradients, 1 - first)
            torch._foreach_mul_(squares, second)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
            # The update of Adam, without dividing the moments by 1 - beta^t.
            sizes = torch._foreach_sqrt(squares)
            torch._foreach_add_(sizes, group["eps"])
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_addcdiv_(parameters, means, sizes, -group["lr"])


_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamax": torch.optim.Adamax,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "bert-adam": BertAdam,
}


def make_optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimiser over all parameters that take a gradient."""
    # Frozen word vectors and the like would only take memory for moments.
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return _OPTIMIZERS[recipe.optimizer](trained, lr=recipe.lr, weight_decay=recipe.weight_decay)  # type: ignore[call-arg]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of step `step` (from 0) of a stage of `steps`."""
    # Transformers warm up over a share of the steps, then decay linearly to 0; others keep one rate.
    rising = round(recipe.warmup * steps)
    if step < rising:
        return recipe.lr * (step + 1) / rising
    if recipe.schedule == "linear":
        return recipe.lr * (steps - step) / max(1, steps - rising)
    return recipe.lr
