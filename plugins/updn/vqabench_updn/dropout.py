"""Dropout whose masks are drawn 64 bits at a time on a CPU, where PyTorch draws number by number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 1 << 16
"""A number is drawn with 16 bits: the probability is met to within 1/131072."""


def draw_dropped(like: Tensor, probability: float) -> Tensor:
    """Draw which numbers of a tensor on the CPU are dropped: bool, in its shape."""
    count = like.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return bits.view(torch.int16)[:count].view(like.shape) < round(probability * LEVELS) - LEVELS // 2


def drops_fast(layer: nn.Dropout, numbers: Tensor) -> bool:
    """Return whether `draw_dropped` serves a layer: in training, on a CPU, for an honest probability."""
    plain = numbers.device.type == "cpu" and not torch.compiler.is_compiling()
    return layer.training and plain and 0 < layer.p < 1 - 1 / LEVELS


class Dropout(nn.Dropout):
    """PyTorch's, with masks drawn faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Set numbers to zero, and make the others larger."""
        if not drops_fast(self, input):
            return super().forward(input)
        return input.masked_fill(draw_dropped(input, self.p), 0.0) / (1 - self.p)
