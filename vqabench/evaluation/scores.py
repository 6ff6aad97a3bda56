"""Scores of one results file: official accuracy and Cohen's kappa, by answer type and question type."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.accuracy import mean_percent, question_accuracies
from vqabench.data.vqa.annotation_table import AnnotationTable, Categorical, Numbering
from vqabench.data.vqa.annotations import ANSWER_TYPES, Prediction
from vqabench.data.vqa.answers import normalise
from vqabench.errors import InputError, first_few, unknown
from vqabench.files.atomic import read_json, write_file
from vqabench.results import Count, Run


def kappa(predicted: NDArray[np.int32], expected: NDArray[np.int32]) -> float | None:
    """Return Cohen's unweighted kappa x 100, in [-100, 100], of label indices: [N] each.

    None if it is undefined: there are no questions, or both sides have only one, equal label.

    scikit-learn returns the same (the tests compare them), but builds a dense matrix of labels: gigabytes for the
    tens of thousands of answers in a test split. Counts are enough, and exact up to one division.
    """
    total = len(predicted)
    agreed = total * int((predicted == expected).sum())
    # `initial`: there may be no questions.
    labels = 1 + max(predicted.max(initial=-1), expected.max(initial=-1))
    left, right = (np.bincount(side, minlength=labels) for side in (predicted, expected))
    # Both shares are multiplied by total ** 2: integers stay exact up to the one division.
    chance = int(left @ right)
    return None if total**2 == chance else 100 * (agreed - chance) / (total**2 - chance)


CATEGORIES = (*ANSWER_TYPES, "all")

Codes = NDArray[np.int32]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100.001)]
"""Above 100 only by rounding."""
SPLITS = ("val", "test")
"""The splits that runs are scored on."""


class TypeScore(msgspec.Struct, frozen=True):
    """The questions of one type and their mean accuracy, in percent."""

    questions: Count
    accuracy: Percent


class Scores(msgspec.Struct, frozen=True, omit_defaults=True):
    """Percent, unrounded; None if a number is undefined. The form of `evaluate --json`."""

    questions: Count
    accuracy: dict[str, Percent | None]
    kappa: dict[str, Annotated[float, msgspec.Meta(ge=-100.001, le=100.001)] | None]
    per_question_type: dict[str, TypeScore]
    other_answer_types: dict[str, TypeScore] = {}
    """Answer types other than the official three; their questions count only in `all`."""
    unanswered: int = 0
    """Questions without an answer, counted as wrong."""

    def __post_init__(self) -> None:
        for metric in ("accuracy", "kappa"):
            # Checked on reading: a missing category would surface much later, in a table.
            if getattr(self, metric).keys() != set(CATEGORIES):
                raise ValueError(f"{metric} must have the keys {', '.join(CATEGORIES)}")


def read_scores(run: Run) -> dict[str, Scores]:
    """Read the scores of a run, by split. Raises InputError if they are missing or damaged."""
    advice = "train it again with --resume, which scores it from its weights"
    run.check_file(run.scores_file, advice)
    scores = read_json(run.scores_file, dict[str, Scores], f"damaged; {advice}")
    for split in scores.keys() - set(SPLITS):
        raise InputError(f"{run.scores_file}: {unknown('split', split, SPLITS)}: damaged; {advice}")
    return scores


def write_scores(run: Run, scores: Mapping[str, Scores]) -> None:
    """Write the scores of a run, by split."""
    write_file(run.scores_file, msgspec.json.format(msgspec.json.encode(scores), indent=2))


def check_predictions(
    predictions: Sequence[Prediction],
    question_ids: Sequence[int],
    source: str,
    *,
    may_lack: bool = False,
    advice: str = "",
) -> dict[int, str]:
    """Return the answers by question id; with `may_lack`, some questions may have none.

    `advice` is added to the error about questions without an answer.

    Equal answers to one question count once: the samplers of several processes pad their last batch with repeats.
    Raises InputError if a question has two different answers or none, or if an answer belongs to no question.
    """
    answers: dict[int, str] = {}
    differing: set[int] = set()
    for prediction in predictions:
        # The first answer stands; a later one counts only if it differs.
        if answers.setdefault(prediction.question_id, prediction.answer) != prediction.answer:
            differing.add(prediction.question_id)
    asked = set(question_ids)
    problems: dict[str, Collection[int]] = {
        "answered more than once, with different answers": differing,
        "that do not exist": [number for number in answers if number not in asked],
        "not answered": [] if may_lack else [number for number in question_ids if number not in answers],
    }
    message = [f"questions {what}: {len(ids):,} (ids {first_few(ids)})" for what, ids in problems.items() if ids]
    if problems["not answered"] and advice:
        message.append(advice)
    if message:
        raise InputError(f"{source}: {'; '.join(message)}")
    return answers


def score(answers: Mapping[int, str], annotations: AnnotationTable) -> Scores:
    """Score at most one answer per annotated question; a question without one is wrong.

    Other answer types than the official three count in "all" only. `check_predictions` comes first.
    """
    given = [answers.get(question_id) for question_id in annotations.question_ids.tolist()]
    accuracies = question_accuracies(given, annotations.answers, annotations.records)
    predicted, expected = _number_alike(given, annotations.modal_answers)
    # "all" is every question, also those of other answer types.
    by_answer_type = _group(annotations.answer_types)
    rows = by_answer_type | {"all": np.arange(len(annotations))}
    chosen = {name: rows.get(name, np.arange(0)) for name in CATEGORIES}
    other = {name: own for name, own in by_answer_type.items() if name not in ANSWER_TYPES}
    return Scores(
        len(annotations),
        {name: mean_percent(accuracies[own]) for name, own in chosen.items()},
        {name: kappa(predicted[own], expected[own]) for name, own in chosen.items()},
        _score_types(accuracies, _group(annotations.question_types)),
        _score_types(accuracies, other),
        given.count(None),
    )


def _number_alike(given: Sequence[str | None], modal: Categorical) -> tuple[Codes, Codes]:
    """Return indices of the predicted and the most common answers, normalised: [N] each.

    A missing answer has an index of its own.
    """
    numbers = Numbering()
    expected = numbers.number(modal.names)[modal.codes] if len(modal) else modal.codes
    predicted = numbers.number(["" if answer is None else normalise(answer) for answer in given])
    # An index that no expected answer has, so that kappa never counts a missing answer as agreement.
    predicted[[row for row, answer in enumerate(given) if answer is None]] = len(numbers)
    return predicted, expected


def _score_types(accuracies: NDArray[np.float64], rows: Mapping[str, NDArray[np.int64]]) -> dict[str, TypeScore]:
    means = {name: mean_percent(accuracies[rows[name]]) for name in sorted(rows)}
    return {name: TypeScore(len(rows[name]), mean) for name, mean in means.items() if mean is not None}


def _group(labels: Categorical) -> dict[str, NDArray[np.int64]]:
    """Return the rows of each name that occurs."""
    # One sort instead of a mask per name: a data set may have a thousand question types.
    order = np.argsort(labels.codes, kind="stable")
    counts = np.bincount(labels.codes, minlength=len(labels.names))
    rows = np.split(order, np.cumsum(counts)[:-1]) if len(counts) else []
    return {name: own for name, own in zip(labels.names, rows, strict=True) if len(own)}
