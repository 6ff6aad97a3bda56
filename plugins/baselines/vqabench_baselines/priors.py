"""Backbones that answer from the counts of the training split alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, DataSpec, Output

ROWS = 1_048_573
"""Random numbers of a run. A prime, because question ids are often multiples of 10 or 1000."""
DRAWN = 1.0
"""Logit of a drawn answer. The others are log-probabilities, so at most 0."""
UNTRAINED: Mapping[str, str] = {
    "gradients": "it has no parameters",
    "learning": "it has no parameters, and answers from counts alone",
}


class Prior(Backbone):
    """Answer every question with the most frequent answer of its type in training.

    The lower bound of every comparison. Logits are log((n + 1) / (N + A)) for an answer given n times to the type,
    N answers given to the type in all, and A answers of the vocabulary. A type without training questions has the
    same logit for every answer, and so the first answer of the vocabulary, which is the most frequent one.
    """

    declarations: ClassVar[Mapping[str, str]] = UNTRAINED

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        # One is added to every count, so that an answer never given to a type has a finite logit.
        logits_TA = torch.log_softmax(torch.log(spec.answer_counts_TA + 1), dim=1)
        self.logits_TA = nn.Buffer(logits_TA, persistent=False)

    def forward(self, batch: Batch) -> Output:
        """Return the log-prior of each question's type: logits [B, A]."""
        return Output(logits_BA=self.logits_TA[batch.question_types_B])


class InvertedPrior(Backbone):
    """Draw each question's answer with probability proportional to 1 / count, among the answers of its type.

    Teney et al. 2020 ("On the Value of Out-of-Distribution Testing: An Example of Goodhart's Law") show that this
    beats models that use the image if the test priors are the training priors inverted. A draw depends on the
    question's id and on the run's seed alone.

    A type's answers are those that training gave to it at least `minimum` times and in at least `share` of all
    answers to it; if there are none, all that it was given; if there are none of these, the whole vocabulary.
    Without these bounds (`minimum=1`, `share=0`) nearly every draw is an answer that hardly anyone ever gave.

    Raises ValueError if `minimum` is below 1 or `share` is not in [0, 1].
    """

    declarations: ClassVar[Mapping[str, str]] = UNTRAINED

    def __init__(self, spec: DataSpec, *, minimum: int = 10, share: float = 0.01) -> None:
        super().__init__(spec)
        inverse_TA = invert(spec.answer_counts_TA, minimum, share)
        cumulative_TA = inverse_TA.cumsum(1)
        # Divided by its last number the sum ends in exactly 1, above every random number.
        self.cumulative_TA = nn.Buffer(cumulative_TA / cumulative_TA[:, -1:], persistent=False)
        self.logits_TA = nn.Buffer(log_shares(inverse_TA), persistent=False)
        # Drawn from the run's generator and kept with the run, so that `predict` repeats the draws.
        self.seed = nn.Buffer(torch.randint(2**62, (1,)))
        self.uniform_N = nn.Buffer(draw_uniform(self.seed), persistent=False)
        self.register_load_state_dict_post_hook(_draw_again)  # type: ignore[no-untyped-call]

    def forward(self, batch: Batch) -> Output:
        """Return the logits [B, A] of the drawn answers: 1 for these, log-probabilities for all others."""
        # One number per question, not per batch: the draw must not depend on the questions in the same batch.
        uniform_B = self.uniform_N[batch.question_ids_B % ROWS]
        drawn_B = (self.cumulative_TA[batch.question_types_B] <= uniform_B[:, None]).sum(1)
        logits_BA = self.logits_TA[batch.question_types_B]
        return Output(logits_BA=logits_BA.scatter(1, drawn_B[:, None], DRAWN))


class RarestAnswer(Backbone):
    """Answer every question with the answer of its type that is rarest in training.

    The deterministic form of `inverted-prior`, with the same `minimum` and `share`: the rule that gains most if a
    test set turns the prior over, and a bound for methods that do so. Of equally rare answers, it gives the first
    one of the vocabulary.

    Raises ValueError if `minimum` is below 1 or `share` is not in [0, 1].
    """

    declarations: ClassVar[Mapping[str, str]] = UNTRAINED

    def __init__(self, spec: DataSpec, *, minimum: int = 10, share: float = 0.01) -> None:
        super().__init__(spec)
        logits_TA = log_shares(invert(spec.answer_counts_TA, minimum, share))
        self.logits_TA = nn.Buffer(logits_TA, persistent=False)

    def forward(self, batch: Batch) -> Output:
        """Return the logits [B, A]: the logarithm of each answer's share of 1 / count."""
        return Output(logits_BA=self.logits_TA[batch.question_types_B])


def invert(counts_TA: Tensor, minimum: int, share: float) -> Tensor:
    """Return 1 / count, float64 [T, A], and 0 for answers that a type does not give (see `answers_to_draw`).

    Raises ValueError if `minimum` is below 1 or `share` is not in [0, 1].
    """
    if minimum < 1:
        raise ValueError(f"minimum must be at least 1, not {minimum}")
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], not {share}")
    counts_TA = counts_TA.double()
    return answers_to_draw(counts_TA, minimum, share) / counts_TA.clamp(min=1)


def log_shares(weights_TA: Tensor) -> Tensor:
    """Return the logarithms of weights as shares of their type, float32 [T, A]."""
    return torch.log_softmax(weights_TA.log().clamp(min=-100), dim=1).float()  # -inf would make the loss infinite


def answers_to_draw(counts_TA: Tensor, minimum: int, share: float) -> Tensor:
    """Return bool [T, A]: the answers given to a type often enough, else all it was given, else all there are."""
    given_TA = counts_TA > 0
    enough_TA = (counts_TA >= minimum) & (counts_TA >= share * counts_TA.sum(1, keepdim=True))
    drawn_TA = torch.where(enough_TA.any(1, keepdim=True), enough_TA, given_TA)
    return torch.where(drawn_TA.any(1, keepdim=True), drawn_TA, True)


def draw_uniform(seed: Tensor) -> Tensor:
    """Return random numbers in [0, 1), float64 [ROWS], the same for the same seed (int64 [1]) on every device."""
    generator = torch.Generator().manual_seed(int(seed))  # always the CPU's: a GPU's numbers differ
    return torch.rand(ROWS, generator=generator, dtype=torch.float64).to(seed.device)


def _draw_again(model: nn.Module, _: object) -> None:
    """Draw the numbers of the seed that was loaded."""
    assert isinstance(model, InvertedPrior)
    model.uniform_N.copy_(draw_uniform(model.seed))
