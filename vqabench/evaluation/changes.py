"""Questions that two answerers answer with another accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Changes:
    """How the accuracies of N questions differ between two answerers, and examples of it."""

    questions: int
    gained: int
    """Questions that the second one answers better."""
    lost: int
    best: tuple[int, ...]
    """Rows of some that gained the most."""
    worst: tuple[int, ...]


def find_changes(
    before_N: NDArray[np.float64], after_N: NDArray[np.float64], types: Sequence[str], examples: int
) -> Changes:
    """Compare official accuracies, or means of them, [N] in [0, 1]; give so many examples of gain, and of loss.

    Of questions with equal changes, the first of each question type come first, so that examples are of several.
    """
    change_N = np.round(after_N - before_N, 6)  # what differs in the last bit is equal
    return Changes(
        len(change_N),
        int((change_N > 0).sum()),
        int((change_N < 0).sum()),
        _largest(change_N, types, examples),
        _largest(-change_N, types, examples),
    )


def _largest(change_N: NDArray[np.float64], types: Sequence[str], examples: int) -> tuple[int, ...]:
    seen: Counter[tuple[str, float]] = Counter()
    ranked = []
    for row in np.flatnonzero(change_N > 0).tolist():
        kind = types[row], float(change_N[row])
        ranked.append((-kind[1], seen[kind], row))
        seen[kind] += 1
    return tuple(row for _, _, row in sorted(ranked)[:examples])
