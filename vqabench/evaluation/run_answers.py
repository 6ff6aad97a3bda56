"""Read the stored answers of runs; compare those of two runs, and break one accuracy down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.accuracy import best_accuracies, mean_percent, question_accuracies
from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.data.vqa.annotations import Prediction, SurePrediction, read_predictions
from vqabench.errors import InputError
from vqabench.evaluation.prior import Reliance, TrainPrior, group_questions, prior_reliance
from vqabench.evaluation.scores import check_predictions
from vqabench.files.atomic import require_regular
from vqabench.results import Run

ANSWER_AGAIN = "restore it from a copy, or train it again with --resume, which answers again from its weights"


@dataclass(frozen=True)
class RunAnswers:
    """The answers to N questions, in the order of their table."""

    answers: list[str]
    """The answers as stored, not normalised."""
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
    # A pipe or a device would block or never end.
    require_regular(file)
    predictions = read_predictions(file)
    if not predictions:
        raise InputError(f"{file}: there are no answers in it")
    sure = {prediction.question_id: prediction.confidence for prediction in predictions}
    # Questions without an answer are left out here: the data set may skip images without features.
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
    return read_predictions(file)


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
        # The second question of a type ranks after the first ones of all types with the same gain.
        ranked.append((-kind[1], seen[kind], row))
        seen[kind] += 1
    return tuple(row for _, _, row in sorted(ranked)[:examples])


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
    # Sums, not means: each bin then has the weight of its questions.
    error, overconfidence = np.abs(sure - right).sum(), (sure - right).sum()
    bins = [
        Bin(int(n), s / n if n else None, r / n if n else None)
        for n, s, r in zip(counts.tolist(), sure.tolist(), right.tolist(), strict=True)
    ]
    return Calibration(float(error) / len(bins_N), float(overconfidence) / len(bins_N), tuple(bins))
