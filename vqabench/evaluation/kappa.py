"""Cohen's kappa between predicted and most common answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

_MOST_LABELS = 2000
"""scikit-learn's confusion matrix is dense: above this many labels it would take hundreds of MB."""


def kappa(predicted: Sequence[str], expected: Sequence[str]) -> float | None:
    """Give Cohen's unweighted kappa x 100, in [-100, 100].

    None where it is undefined: no question, or both sides hold one and the same label only.
    """
    labels = {label: number for number, label in enumerate(dict.fromkeys([*predicted, *expected]))}
    if len(labels) < 2:
        return None
    if len(labels) > _MOST_LABELS:
        return _sparse_kappa(predicted, expected)
    from sklearn.metrics import cohen_kappa_score

    encoded = (np.array([labels[label] for label in side]) for side in (predicted, expected))
    return 100 * float(cohen_kappa_score(*encoded))


def _sparse_kappa(predicted: Sequence[str], expected: Sequence[str]) -> float:
    """Compute the same from counts alone: (p_o - p_e) / (1 - p_e), in integers up to the last division."""
    total = len(predicted)
    agreed = total * sum(a == b for a, b in zip(predicted, expected, strict=True))
    left, right = Counter(predicted), Counter(expected)
    chance = sum(count * right[label] for label, count in left.items())
    return 100 * (agreed - chance) / (total**2 - chance)
