"""Read the stored answers of runs; compare those of two runs, and break one accuracy down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.accuracy import best_accuracies, mean_percent, question_accuracies
from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.data.vqa.annotations import Prediction, SurePrediction, read_predictions
from vqabench.errors import InputError
from vqabench.evaluation.prior import TrainPrior, group_questions, prior_reliance
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


Breakdown = dict[tuple[str, str, str], float | None]
"""Metric, kind of groups (`prior` or `subset`) and group -> its number: percent, unrounded; None if undefined."""


def break_down(
    answered: RunAnswers, table: AnnotationTable, prior: TrainPrior, vocabulary: Sequence[str]
) -> Breakdown:
    """Measure how answers follow the training prior; `table` holds their questions in the same order."""
    sure = answered.confidences_N
    error, overconfidence = (None, None) if sure is None else calibrate(answered.accuracies_N, sure)
    groups = group_questions(table, prior)
    return {
        **{
            ("accuracy", "prior", name): mean_percent(answered.accuracies_N[own_N])
            for name, own_N in groups.items()
        },
        ("reliance", "prior", "all"): prior_reliance(answered.answers, table, prior).score,
        ("calibration error", "prior", "all"): error,
        ("overconfidence", "prior", "all"): overconfidence,
        ("upper bound", "prior", "all"): upper_bound(table, vocabulary),
    }


def break_down_by_subset(
    answered: RunAnswers, table: AnnotationTable, subsets: Mapping[str, Collection[int]]
) -> Breakdown:
    """Measure the accuracy on subsets, given by their question ids; `table` holds the answers' questions in order.

    Questions that a subset names and the answers lack are left out: the data set may skip images without features.
    """
    return {
        ("accuracy", "subset", name): mean_percent(answered.accuracies_N[np.isin(table.question_ids, list(ids))])
        for name, ids in subsets.items()
    }


def upper_bound(table: AnnotationTable, vocabulary: Sequence[str]) -> float | None:
    """Return the accuracy of the best answers in a vocabulary, in percent; None without questions."""
    return mean_percent(best_accuracies(vocabulary, table.answers, table.records))


BINS = 15


def calibrate(
    accuracies_N: NDArray[np.float64], confidences_N: NDArray[np.float64]
) -> tuple[float | None, float | None]:
    """Return the expected calibration error and the overconfidence, in points; None if there are no questions.

    Accuracies and confidences are in [0, 1]. The error is the difference between the mean accuracy and the mean
    confidence of a bin of confidences, averaged over the questions (Guo et al., ICML 2017, Eq. 3), with the
    official soft accuracy instead of right or wrong. The k-th of 15 bins, counted from 0, holds confidences above
    k / 15 and up to (k + 1) / 15; the first holds 0. Overconfidence is mean confidence minus mean accuracy.

    A model trained with `ce` on soft targets learns each answer's share of them. If annotators disagree, the share
    is below the answer's accuracy, so the model looks underconfident, above all in domain.
    """
    if len(accuracies_N) == 0:
        return None, None
    edges = np.arange(1, BINS) / BINS  # searchsorted puts an edge into the bin below it
    bins_N = np.searchsorted(edges, confidences_N)
    # Sums, not means: each bin then has the weight of its questions.
    gaps = np.bincount(bins_N, 100 * confidences_N, BINS) - np.bincount(bins_N, 100 * accuracies_N, BINS)
    return float(np.abs(gaps).sum()) / len(bins_N), float(gaps.sum()) / len(bins_N)
