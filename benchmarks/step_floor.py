"""Compute the least time of a training step of UpDn from its arithmetic, its memory traffic and device speeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BYTES_COPIED = 2**28
PARAMETER_PASSES = 11
"""Weights are read by both passes; gradients are written, read for their norm, and read by Adamax, which reads and
writes weights and two moments."""


@dataclass(frozen=True)
class Step:
    """The sizes of a step: questions, their mean number of real words and regions, and widths as in UpDn."""

    questions: int
    words: float
    regions: float
    width: int
    hidden: int
    embedding: int
    answers: int
    parameters: int
    bytes_a_feature: int

    def flops(self) -> float:
        """Count two operations per multiplication with addition: forward, and each gradient that is needed."""
        words, regions, width, hidden = self.words, self.regions, self.width, self.hidden
        per_question = {
            # A layer's weights take a gradient, and its input where something before it is trained.
            "gru": 3 * words * 3 * hidden * (self.embedding + hidden),
            "attend_region": 2 * regions * width * hidden,
            "attend_question": 3 * hidden * hidden,
            "attention": 3 * regions * hidden,
            "attended regions": 2 * regions * width,
            "question_layer": 3 * hidden * hidden,
            "region_layer": 3 * width * hidden,
            "classifier": 3 * 2 * hidden * (hidden + self.answers),
        }
        return 2 * self.questions * sum(per_question.values())

    def feature_bytes(self) -> float:
        return self.questions * self.regions * self.width * self.bytes_a_feature

    def memory_bytes(self) -> float:
        """Count features as stored, read by both passes, and everything of the size of the parameters."""
        return 2 * self.feature_bytes() + PARAMETER_PASSES * 4 * self.parameters


@dataclass(frozen=True)
class Rates:
    """The best speed of a device in a few tries, with nothing else running, in units per second."""

    flops: float
    """Of the attention layer's matrix product, forward."""
    copied_bytes: float
    """Read and written."""
    transferred_bytes: float | None
    """From pinned memory to the GPU."""

    def seconds(self, step: Step) -> dict[str, float]:
        """Return how long each resource is busy with a step; they may work at the same time."""
        seconds = {"arithmetic": step.flops() / self.flops, "memory": step.memory_bytes() / self.copied_bytes}
        if self.transferred_bytes is not None:
            seconds["transfer"] = step.feature_bytes() / self.transferred_bytes
        return seconds


def measure_rates(step: Step, device: torch.device, precision: str) -> Rates:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    rows = round(step.questions * step.regions)
    regions = torch.randn(rows, step.width, device=device, dtype=dtype)
    weights = torch.randn(step.width, step.hidden, device=device, dtype=dtype)
    product = torch.empty(rows, step.hidden, device=device, dtype=dtype)
    multiplying = _best(lambda: torch.mm(regions, weights, out=product), device)
    source, copy = (torch.ones(BYTES_COPIED // 4, device=device) for _ in range(2))
    copying = _best(lambda: copy.copy_(source), device)
    transferred = None
    if device.type == "cuda":
        pinned = torch.ones(BYTES_COPIED // 4, pin_memory=True)
        transferred = BYTES_COPIED / _best(lambda: copy.copy_(pinned, non_blocking=True), device)
    return Rates(2 * rows * step.width * step.hidden / multiplying, 2 * BYTES_COPIED / copying, transferred)


def _best(work: Callable[[], Tensor], device: torch.device, tries: int = 4) -> float:
    seconds = []
    for _ in range(tries):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
