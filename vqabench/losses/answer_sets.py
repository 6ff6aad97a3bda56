"""The answers that belong to a question type."""

from __future__ import annotations

from torch import Tensor

from vqabench.api import DataSpec


def answer_sets(spec: DataSpec, minimum: int) -> Tensor:
    """Return bool [T, A]: the answers that training gave to a type at least `minimum` times.

    All ten human answers are counted. Raises ValueError if `minimum` is below 1, or no type keeps an answer.
    """
    if minimum < 1:
        raise ValueError(f"minimum must be at least 1, not {minimum}")
    kept_TA = spec.answer_counts_TA >= minimum
    # One type without answers is fine (it gets the plain loss); if all are, the strategy would silently be plain.
    if not kept_TA.any():
        most = int(spec.answer_counts_TA.max())
        raise ValueError(
            f"minimum={minimum} leaves no question type an answer (the most frequent one was given {most} times); "
            "set a smaller minimum"
        )
    return kept_TA
