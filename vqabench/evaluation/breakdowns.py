"""The parts of one accuracy and its calibration, computed from stored answers."""

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
    """The questions of one group and their mean accuracy, in percent; None if it is empty."""

    questions: int
    accuracy: float | None


class Breakdown(msgspec.Struct, frozen=True):
    """Numbers on one run's answers to one split. Percent, unrounded; None if a number is undefined."""

    questions: int
    accuracy: float | None
    groups: dict[str, GroupScore]
    """By the names of GROUPS."""
    reliance: Reliance
    calibration: Calibration | None
    """None if the run kept no confidences."""
    upper_bound: float | None
    """The accuracy of the best answers that the vocabulary holds."""


def break_down(
    answered: RunAnswers, table: AnnotationTable, prior: TrainPrior, vocabulary: Sequence[str]
) -> Breakdown:
    """Compute the breakdown of answers; `table` holds their questions in the same order."""
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
    """Return the accuracy of the best answers in a vocabulary, in percent; None without questions."""
    return mean_percent(best_accuracies(vocabulary, table.answers, table.records))


BINS = 15


class Bin(msgspec.Struct, frozen=True):
    """The answers in one interval of confidence; percent, None if there are none."""

    questions: int
    confidence: float | None
    """Mean."""
    accuracy: float | None
    """Mean; equal to the mean confidence if the model is calibrated."""


class Calibration(msgspec.Struct, frozen=True):
    """The expected calibration error and the bars of its reliability diagram."""

    error: float
    """Percentage points, in [0, 100]."""
    overconfidence: float
    """Mean confidence minus mean accuracy: percentage points, in [-100, 100]."""
    bins: tuple[Bin, ...]
    """The k-th of 15, counted from 0, holds confidences above k / 15 and up to (k + 1) / 15; the first holds 0."""


def calibrate(accuracies_N: NDArray[np.float64], confidences_N: NDArray[np.float64]) -> Calibration | None:
    """Compare accuracies with confidences, both in [0, 1]; None if there are no questions.

    The error is the difference between the two means of a bin, averaged over the questions (Guo et al., ICML 2017,
    Eq. 3), with the official soft accuracy instead of right or wrong.

    A model trained with `ce` on soft targets learns each answer's share of them. If annotators disagree, the share
    is below the answer's accuracy, so the model looks underconfident, above all in domain.
    """
    if len(accuracies_N) == 0:
        return None
    edges = np.arange(1, BINS) / BINS  # searchsorted puts an edge into the bin below it
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
