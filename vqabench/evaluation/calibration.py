"""Whether a model is right as often as it is sure."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

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
