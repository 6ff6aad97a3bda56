"""What one run answered to the questions of a split, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqabench.data.accuracy import question_accuracies
from vqabench.data.annotation_table import AnnotationTable
from vqabench.data.annotations import read_sure_predictions
from vqabench.errors import InputError
from vqabench.evaluation.scores import check_predictions
from vqabench.results import Run

ANSWER_AGAIN = "restore it from a copy, or train it again with --resume, which answers again from its weights"


@dataclass(frozen=True)
class Answered:
    """The answers to N questions, in the order of their table."""

    answers: list[str]
    """As the run gave them."""
    accuracies_N: NDArray[np.float64]
    """Official, [0, 1]."""
    confidences_N: NDArray[np.float64] | None
    """[0, 1]; None where the run did not keep them for every question."""

    def __len__(self) -> int:
        return len(self.answers)


def read_answered(run: Run, split: str, table: AnnotationTable) -> tuple[AnnotationTable, Answered]:
    """Read a run's answers to a split, of which the annotations are given, and score each.

    Gives the annotations of the questions that were answered, and the answers in their order: a data set may skip
    questions whose image has no features. Raises InputError, naming the file, where it is missing, broken or empty,
    has changed since the run wrote it, answers a question twice, or answers one that is not annotated.
    """
    file = run.predictions_file(split)
    run.check_file(file, ANSWER_AGAIN)
    predictions = read_sure_predictions(file)
    if not predictions:
        raise InputError(f"{file}: there are no answers in it")
    sure = {prediction.question_id: prediction.confidence for prediction in predictions}
    asked = table.choose(sure)
    ids = asked.question_ids.tolist()
    given = check_predictions(predictions, ids, str(file))
    answers = [given[question_id] for question_id in ids]
    confidences = [sure[question_id] for question_id in ids]
    return asked, Answered(
        answers,
        question_accuracies(answers, asked.answers, asked.records),
        None if None in confidences else np.array(confidences, np.float64),
    )
