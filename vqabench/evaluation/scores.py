"""All numbers of one results file: official accuracy and kappa, by answer type and by question type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from vqabench.data.annotations import Annotation, Prediction
from vqabench.data.answers import modal_answer, normalise
from vqabench.errors import InputError, first_few
from vqabench.evaluation.accuracy import question_accuracy
from vqabench.evaluation.kappa import kappa

CATEGORIES = ("yes/no", "number", "other", "all")


class TypeScore(msgspec.Struct, frozen=True):
    """The questions of one type and their mean accuracy, in percent."""

    questions: int
    accuracy: float


class Scores(msgspec.Struct, frozen=True):
    """Percent, unrounded; None where a number is undefined. The form of `evaluate --json`."""

    questions: int
    accuracy: dict[str, float | None]
    kappa: dict[str, float | None]
    per_question_type: dict[str, TypeScore]


def check_predictions(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation], source: str
) -> dict[int, str]:
    """Give the answers by question id.

    Raises InputError where a question is answered twice, not at all, or was never asked.
    """
    answers = {prediction.question_id: prediction.answer for prediction in predictions}
    asked = {annotation.question_id for annotation in annotations}
    counts = Counter(prediction.question_id for prediction in predictions)
    problems = {
        "answered twice": [number for number, count in counts.items() if count > 1],
        "never asked": [number for number in answers if number not in asked],
        "not answered": [a.question_id for a in annotations if a.question_id not in answers],
    }
    told = [f"{len(ids)} questions {what} (ids {first_few(ids)})" for what, ids in problems.items() if ids]
    if told:
        raise InputError(f"{source}: {'; '.join(told)}")
    return answers


def score(answers: Mapping[int, str], annotations: Sequence[Annotation]) -> Scores:
    """Score one answer per annotated question."""
    accuracies = [100 * question_accuracy(answers[a.question_id], a.answers) for a in annotations]
    groups = _group(annotation.answer_type for annotation in annotations)
    groups["all"] = list(range(len(annotations)))
    predicted = [normalise(answers[annotation.question_id]) for annotation in annotations]
    expected = [modal_answer(annotation) for annotation in annotations]
    types = _group(annotation.question_type for annotation in annotations)
    return Scores(
        len(annotations),
        {name: _mean(accuracies, groups.get(name, [])) for name in CATEGORIES},
        {name: _kappa(predicted, expected, groups.get(name, [])) for name in CATEGORIES},
        {name: TypeScore(len(rows), _mean(accuracies, rows) or 0.0) for name, rows in sorted(types.items())},
    )


def _group(names: Iterable[str]) -> dict[str, list[int]]:
    """Give the rows of each name."""
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name, []).append(row)
    return groups


def _mean(values: Sequence[float], rows: Sequence[int]) -> float | None:
    return sum(values[row] for row in rows) / len(rows) if rows else None


def _kappa(predicted: Sequence[str], expected: Sequence[str], rows: Sequence[int]) -> float | None:
    return kappa([predicted[row] for row in rows], [expected[row] for row in rows])
