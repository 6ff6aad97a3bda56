"""Answers from the counts of the training split alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vqabench.api import Backbone, Batch, DataSpec, Output

NEVER = -100.0
"""Logit of an answer that is not drawn; those that are have logits above -35."""
UNTRAINED: Mapping[str, str] = {
    "gradients": "it has no parameters",
    "learning": "it has no parameters, and answers from counts alone",
}


class Prior(Backbone):
    """Gives every question the most frequent answer of its type in training, the lower bound of every comparison.

    Logits are the logarithm of (n + 1) / (N + A), of an answer given n times to the type and N answers in all. A
    type that training never saw gets the most frequent answer of all.
    """

    declarations: ClassVar[Mapping[str, str]] = UNTRAINED

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        counts_TA = spec.answer_counts_TA
        self.logits_TA: Tensor
        self.register_buffer("logits_TA", torch.log_softmax(torch.log(counts_TA + 1), dim=1), persistent=False)

    def forward(self, batch: Batch) -> Output:
        """Answer the questions of a batch by their types."""
        return Output(logits_BA=self.logits_TA[batch.question_types_B])


class InvertedPrior(Backbone):
    """Draws each question's answer with a probability proportional to 1 / count, among the answers of its type.

    After Teney et al. 2020 (On the Value of Out-of-Distribution Testing), who show that where the priors of the
    test are those of training turned over, this beats models that look. Logits are -log n plus Gumbel noise, so
    that the largest is such a draw; the noise depends on the question's id and on the run's seed alone.

    A type's answers are those that training gave to it at least `minimum` times and in at least `share` of all
    answers to it; where there are none, all that it was given, or all of the vocabulary. Without these bounds
    (minimum=1, share=0) nearly every draw is an answer that hardly anyone ever gave.
    """

    declarations: ClassVar[Mapping[str, str]] = UNTRAINED

    def __init__(self, spec: DataSpec, *, minimum: int = 10, share: float = 0.01) -> None:
        super().__init__(spec)
        if minimum < 1:
            raise ValueError(f"minimum must be at least 1, not {minimum}")
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], not {share}")
        counts_TA = spec.answer_counts_TA
        self.logits_TA: Tensor
        self.seed: Tensor
        drawn_TA = answers_to_draw(counts_TA, minimum, share)
        inverted_TA = torch.where(drawn_TA, -torch.log(counts_TA.clamp(min=1)), NEVER)
        self.register_buffer("logits_TA", inverted_TA, persistent=False)
        self.register_buffer("seed", torch.randint(2**62, (1,)))

    def forward(self, batch: Batch) -> Output:
        """Draw the answers of a batch."""
        answers_A = torch.arange(self.logits_TA.shape[1], device=self.seed.device)
        uniform_BA = hash_uniform(self.seed, batch.question_ids_B[:, None], answers_A[None])
        gumbel_BA = -torch.log(-torch.log(uniform_BA)).to(self.logits_TA.dtype)
        return Output(logits_BA=self.logits_TA[batch.question_types_B] + gumbel_BA)


def answers_to_draw(counts_TA: Tensor, minimum: int, share: float) -> Tensor:
    """Give bool [T, A]: the answers given to a type often enough, else all it was given, else all there are."""
    given_TA = counts_TA > 0
    enough_TA = (counts_TA >= minimum) & (counts_TA >= share * counts_TA.sum(1, keepdim=True))
    drawn_TA = torch.where(enough_TA.any(1, keepdim=True), enough_TA, given_TA)
    return torch.where(drawn_TA.any(1, keepdim=True), drawn_TA, True)


def hash_uniform(*keys: Tensor) -> Tensor:
    """Give numbers that look drawn evenly from (0, 1), float64, of the keys' common shape: equal for equal keys."""
    mixed = torch.zeros((), dtype=torch.int64, device=keys[0].device)
    for key in keys:
        mixed = _mix(mixed + key)
    return ((mixed >> 11) & ((1 << 53) - 1)).double().add(0.5) / 2**53


def _mix(number: Tensor) -> Tensor:
    """Scramble the 64 bits (SplitMix64, Steele et al. 2014)."""
    number = number + _signed(0x9E3779B97F4A7C15)
    number = (number ^ _shift(number, 30)) * _signed(0xBF58476D1CE4E5B9)
    number = (number ^ _shift(number, 27)) * _signed(0x94D049BB133111EB)
    return number ^ _shift(number, 31)


def _shift(number: Tensor, bits: int) -> Tensor:
    return (number >> bits) & ((1 << (64 - bits)) - 1)  # torch keeps the sign


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant
