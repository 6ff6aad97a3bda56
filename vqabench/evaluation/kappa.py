"""Cohen's kappa between predicted and most common answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def kappa(predicted: Sequence[str], expected: Sequence[str]) -> float | None:
    """Give Cohen's unweighted kappa x 100, in [-100, 100].

    None where it is undefined: no question, or both sides hold one and the same label only.

    scikit-learn gives the same (the tests compare them), but from a dense matrix of labels: gigabytes at the
    tens of thousands of answers that a test split holds. Counts are enough, and exact up to one division.
    """
    total = len(predicted)
    agreed = total * sum(a == b for a, b in zip(predicted, expected, strict=True))
    left, right = Counter(predicted), Counter(expected)
    chance = sum(count * right[label] for label, count in left.items())
    return None if total**2 == chance else 100 * (agreed - chance) / (total**2 - chance)
