"""Cohen's kappa between predicted and most common answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def kappa(predicted: NDArray[np.int32], expected: NDArray[np.int32]) -> float | None:
    """Give Cohen's unweighted kappa x 100, in [-100, 100], of labels numbered alike from 0: [N] each.

    None where it is undefined: no question, or both sides hold one and the same label only.

    scikit-learn gives the same (the tests compare them), but from a dense matrix of labels: gigabytes at the
    tens of thousands of answers that a test split holds. Counts are enough, and exact up to one division.
    """
    total = len(predicted)
    agreed = total * int((predicted == expected).sum())
    labels = 1 + max(predicted.max(initial=-1), expected.max(initial=-1))
    left, right = (np.bincount(side, minlength=labels) for side in (predicted, expected))
    chance = int(left @ right)
    return None if total**2 == chance else 100 * (agreed - chance) / (total**2 - chance)
