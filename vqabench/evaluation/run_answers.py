"""The stored answers of runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.accuracy import question_accuracies
from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.data.vqa.annotations import Prediction, SurePrediction, read_sure_predictions
from vqabench.errors import InputError
from vqabench.evaluation.scores import check_predictions
from vqabench.files.atomic import require_regular
from vqabench.results import Run

ANSWER_AGAIN = "restore it from a copy, or train it again with --resume, which answers again from its weights"


@dataclass(frozen=True)
class RunAnswers:
    """The answers to N questions, in the order of their table."""

    answers: list[str]
    """As the run gave them."""
    accuracies_N: NDArray[np.float64]
    """Official, [0, 1]."""
    confidences_N: NDArray[np.float64] | None
    """[0, 1]; None if they are not stored for every question."""

    def __len__(self) -> int:
        return len(self.answers)


def read_answered(run: Run, split: str, table: AnnotationTable) -> tuple[AnnotationTable, RunAnswers]:
    """Read a run's answers to a split with the annotations `table`, and score each.

    Return the annotations of the answered questions, and the answers in their order: a data set may skip questions
    whose image has no features. Raises InputError, naming the file, if it is missing, broken or empty,
    has changed since the run wrote it, answers a question twice, or answers one that is not annotated.
    """
    file = run.predictions_file(split)
    run.check_file(file, ANSWER_AGAIN)
    require_regular(file)
    predictions = read_sure_predictions(file)
    if not predictions:
        raise InputError(f"{file}: there are no answers in it")
    sure = {prediction.question_id: prediction.confidence for prediction in predictions}
    asked = table.choose(sure)
    ids = asked.question_ids.tolist()
    given = check_predictions(predictions, ids, str(file))
    answers = [given[question_id] for question_id in ids]
    confidences = [sure[question_id] for question_id in ids]
    return asked, RunAnswers(
        answers,
        question_accuracies(answers, asked.answers, asked.records),
        None if None in confidences else np.array(confidences, np.float64),
    )


def read_stored(run: Run, file: Path) -> list[SurePrediction] | None:
    """Return the answers in a file of a run; None if there is no such file.

    Raises InputError if the file is damaged, or has changed since the run wrote it.
    """
    if not file.exists():
        return None
    run.check_file(file, ANSWER_AGAIN)
    return read_sure_predictions(file)


def count_differences(stored: Sequence[Prediction], given: Sequence[Prediction]) -> int:
    """Count the questions with different answers, or with an answer in only one of the two."""
    one, other = ({answer.question_id: answer.answer for answer in answers} for answers in (stored, given))
    return sum(one.get(number) != other.get(number) for number in one.keys() | other.keys())


@dataclass(frozen=True)
class Changes:
    """How the accuracies of N questions differ between two sets of answers, with examples."""

    questions: int
    gained: int
    """Questions that the second set answers better."""
    lost: int
    best: tuple[int, ...]
    """Rows of examples with the largest gains."""
    worst: tuple[int, ...]


def find_changes(
    before_N: NDArray[np.float64], after_N: NDArray[np.float64], types: Sequence[str], examples: int
) -> Changes:
    """Compare official accuracies, or means of them, [N] in [0, 1], and choose examples of gain and of loss.

    Of questions with equal changes, the first of each question type come first, so that examples cover several
    types.
    """
    change_N = np.round(after_N - before_N, 6)  # differences in the last bits are rounding errors
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
