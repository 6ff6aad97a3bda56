"""How much of what a model answers the training prior explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotation_table import AnnotationTable
from vqabench.data.answers import normalise
from vqabench.data.numbering import Numbering
from vqabench.evaluation.train_prior import TrainPrior

LEAST_DISTANCE = 0.1
"""Between the answers of training and of a split, for a score to stand."""
TIMES_CHANCE = 2
"""So many times the distance that chance explains it must be, too.

Splits of one distribution were seen at 0.1 to 1.1 times: `digits-cp`'s val, parts of VQA v2's training questions
drawn by image, 600 of its validation questions. Splits of changed priors were at 8 to 12 times. The total variation
distance would not tell them apart: VQA's many rare answers alone bring it to 0.2 to 0.5 within one distribution.
"""


class Reliance(msgspec.Struct, frozen=True):
    """The share of the training prior in the answers, and what there is to tell it by."""

    score: float | None
    """0: answers are distributed as the split's true ones; 1: as in training; None where the two hardly differ."""
    distance: float | None
    """Between the answers of training and the split's true ones, in [0, sqrt 2]; None without a type in both."""
    by_chance: float | None
    """What the distance is expected to be where both are draws from one distribution."""


def prior_reliance(answers: Sequence[str], table: AnnotationTable, prior: TrainPrior) -> Reliance:
    """Measure how far the answers given are distributed as in training rather than as in the split.

    Of each question type, let P be the distribution of the most common answers of training, Q that of the split,
    and G that of the answers given, normalised. The score is the share s that fits G = s P + (1 - s) Q best, by
    least squares over all types, weighted by their questions n:

        s = sum n <G - Q, P - Q> / sum n |P - Q|^2

    Above 1 the prior is exaggerated, as by who always gives the most frequent answer; below 0 it is turned over.
    Answers that neither P nor Q holds count as halfway, where P and Q are equally concentrated. The score says
    nothing of which question is given which answer: a model may get all of them wrong at 0.

    The distance is the root of the mean of |P - Q|^2. Questions of types that training lacks are left out.
    """
    counts = _count(answers, table, prior)
    asked_T = np.bincount(counts.types_K, counts.true_K, len(prior.types)).astype(np.float64)
    questions = float(asked_T.sum())
    if questions == 0:
        return Reliance(None, None, None)
    trained_K, asked_K = prior.questions_T[counts.types_K], asked_T[counts.types_K]
    gap_K = counts.train_K / trained_K - counts.true_K / np.maximum(asked_K, 1)
    shared = float(((counts.given_K - counts.true_K) * gap_K).sum())
    squared = float((asked_K * gap_K**2).sum())
    distance = math.sqrt(squared / questions)
    by_chance = math.sqrt(_expect_by_chance(counts, prior.questions_T, asked_T) / questions)
    differ = distance >= max(LEAST_DISTANCE, TIMES_CHANCE * by_chance)
    return Reliance(shared / squared if differ else None, distance, by_chance)


@dataclass(frozen=True)
class _Counts:
    """How many questions have an answer, for each of K pairs of a type and an answer."""

    types_K: NDArray[np.int64]
    train_K: NDArray[np.float64]
    """As the most common answer, in training."""
    true_K: NDArray[np.float64]
    """As the most common answer, in the split."""
    given_K: NDArray[np.float64]
    """As the answer given, in the split."""


def _count(answers: Sequence[str], table: AnnotationTable, prior: TrainPrior) -> _Counts:
    """Count answers within the types of training."""
    types_N = table.question_types.number(prior.types)
    seen_N = types_N >= 0
    numbers = Numbering(prior.answers)
    true_N = numbers.number(table.modal_answers.names)[table.modal_answers.codes]
    given_N = numbers.number([normalise(answer) for answer in answers])
    pairs = [prior.types_M * len(numbers) + prior.answers_M]
    pairs += [(types_N * len(numbers) + answers_N)[seen_N] for answers_N in (true_N, given_N)]
    pairs_K, places = np.unique(np.concatenate(pairs), return_inverse=True)
    train, true, given = np.split(places, np.cumsum([len(pairs[0]), len(pairs[1])]))
    return _Counts(
        pairs_K // max(1, len(numbers)),
        np.bincount(train, prior.counts_M, len(pairs_K)).astype(np.float64),
        np.bincount(true, minlength=len(pairs_K)).astype(np.float64),
        np.bincount(given, minlength=len(pairs_K)).astype(np.float64),
    )


def _expect_by_chance(counts: _Counts, trained_T: NDArray[np.int64], asked_T: NDArray[np.float64]) -> float:
    """Give the mean of sum n |P - Q|^2 over draws of P and Q from one distribution, that of both together."""
    pooled_K = (counts.train_K + counts.true_K) / (trained_T + asked_T)[counts.types_K]
    spread_T = 1 - np.bincount(counts.types_K, pooled_K**2, len(asked_T))
    variances_T = spread_T / np.maximum(asked_T, 1) + spread_T / trained_T
    return max(0.0, float((asked_T * variances_T).sum()))
