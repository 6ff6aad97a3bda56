"""What lies under one accuracy: its parts and its calibration, computed from stored answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.accuracy import best_accuracies, mean_percent
from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.evaluation.prior import Reliance, TrainPrior, group_questions, prior_reliance
from vqabench.evaluation.run_answers import RunAnswers


class GroupScore(msgspec.Struct, frozen=True):
    """The questions of one group and their mean accuracy, in percent; None where it is empty."""

    questions: int
    accuracy: float | None


class Breakdown(msgspec.Struct, frozen=True):
    """One run's answers to one split, taken apart. Percent, unrounded; None where a number is undefined."""

    questions: int
    accuracy: float | None
    groups: dict[str, GroupScore]
    """By the names of GROUPS."""
    reliance: Reliance
    calibration: Calibration | None
    """None where the run kept no confidences."""
    upper_bound: float | None
    """The accuracy of the best answers that the vocabulary holds."""


def break_down(
    answered: RunAnswers, table: AnnotationTable, prior: TrainPrior, vocabulary: Sequence[str]
) -> Breakdown:
    """Take answers apart: `table` holds their questions, in the same order; `vocabulary` is the run's."""
    groups = group_questions(table, prior)
    sure = answered.confidences_N
    return Breakdown(
        len(answered),
        mean_percent(answered.accuracies_N),
        {
            name: GroupScore(int(own_N.sum()), mean_percent(answered.accuracies_N[own_N]))
            for name, own_N in groups.items()
        },
        prior_reliance(answered.answers, table, prior),
        None if sure is None else calibrate(answered.accuracies_N, sure),
        upper_bound(table, vocabulary),
    )


def upper_bound(table: AnnotationTable, vocabulary: Sequence[str]) -> float | None:
    """Give the accuracy of the best answers that a vocabulary holds, in percent; None without questions."""
    return mean_percent(best_accuracies(vocabulary, table.answers, table.records))


BINS = 15


class Bin(msgspec.Struct, frozen=True):
    """The answers of a bin of confidence; percent, None where there are none."""

    questions: int
    confidence: float | None
    """Mean."""
    accuracy: float | None
    """Mean; both are alike where the model is calibrated."""


class Calibration(msgspec.Struct, frozen=True):
    """The expected calibration error, and what it is made of: the bars of a reliability diagram."""

    error: float
    """Percentage points, in [0, 100]."""
    overconfidence: float
    """Mean confidence less mean accuracy: percentage points, in [-100, 100]."""
    bins: tuple[Bin, ...]
    """The k-th of 15, counted from 0, holds confidences above k / 15 and up to (k + 1) / 15; the first holds 0."""


def calibrate(accuracies_N: NDArray[np.float64], confidences_N: NDArray[np.float64]) -> Calibration | None:
    """Compare accuracies with confidences, both in [0, 1]; None where there are no questions.

    The error is the difference between the two means of a bin, averaged over the questions (Guo et al., ICML 2017,
    Eq. 3), with the official soft accuracy in the place of right or wrong.

    A model that is trained with `ce` on soft targets learns each answer's share of them. Where annotators differ
    that is below the accuracy that the answer would have: the model looks too little sure, in domain most of all.
    """
    if len(accuracies_N) == 0:
        return None
    edges = np.arange(1, BINS) / BINS
    bins_N = np.searchsorted(edges, confidences_N)
    counts, sure, right = (
        np.bincount(bins_N, weights, BINS) for weights in (None, 100 * confidences_N, 100 * accuracies_N)
    )
    error, overconfidence = np.abs(sure - right).sum(), (sure - right).sum()
    bins = [
        Bin(int(n), s / n if n else None, r / n if n else None)
        for n, s, r in zip(counts.tolist(), sure.tolist(), right.tolist(), strict=True)
    ]
    return Calibration(float(error) / len(bins_N), float(overconfidence) / len(bins_N), tuple(bins))
