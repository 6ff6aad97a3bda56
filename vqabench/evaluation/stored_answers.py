"""The answers that a run has stored, beside those that its model gives now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqabench.data.annotations import Prediction, SurePrediction, read_sure_predictions
from vqabench.evaluation.answered import ANSWER_AGAIN
from vqabench.results import Run


def read_stored(run: Run, file: Path) -> list[SurePrediction] | None:
    """Return the answers in a file of a run; None where there is no such file.

    Raises InputError where the file is damaged, or has changed since the run wrote it.
    """
    if not file.exists():
        return None
    run.check_file(file, ANSWER_AGAIN)
    return read_sure_predictions(file)


def count_differences(stored: Sequence[Prediction], given: Sequence[Prediction]) -> int:
    """Count the questions that are answered otherwise, or by one of the two alone."""
    one, other = ({answer.question_id: answer.answer for answer in answers} for answers in (stored, given))
    return sum(one.get(number) != other.get(number) for number in one.keys() | other.keys())
