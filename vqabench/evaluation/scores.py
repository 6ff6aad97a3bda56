"""All numbers of one results file: official accuracy and kappa, by answer type and by question type."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from vqabench.data.annotations import ANSWER_TYPES, Annotation, Prediction
from vqabench.data.answers import modal_answer, normalise
from vqabench.errors import InputError, first_few
from vqabench.evaluation.accuracy import mean_percent, question_accuracies
from vqabench.evaluation.kappa import kappa

CATEGORIES = (*ANSWER_TYPES, "all")

Value = TypeVar("Value")


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

    def __post_init__(self) -> None:
        for metric in ("accuracy", "kappa"):
            if getattr(self, metric).keys() != set(CATEGORIES):
                raise ValueError(f"{metric} must have the keys {', '.join(CATEGORIES)}")


def check_predictions(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation], source: str
) -> dict[int, str]:
    """Give the answers by question id.

    Raises InputError where a question is answered twice, not at all, or was never asked.
    """
    answers = {prediction.question_id: prediction.answer for prediction in predictions}
    asked = {annotation.question_id for annotation in annotations}
    problems = {
        "answered more than once": _repeated(predictions) if len(answers) < len(predictions) else [],
        "never asked": [number for number in answers if number not in asked],
        "not answered": [a.question_id for a in annotations if a.question_id not in answers],
    }
    told = [f"questions {what}: {len(ids)} (ids {first_few(ids)})" for what, ids in problems.items() if ids]
    if told:
        raise InputError(f"{source}: {'; '.join(told)}")
    return answers


def score(answers: Mapping[int, str], annotations: Sequence[Annotation]) -> Scores:
    """Score one answer per annotated question.

    Other answer types than the three count in "all" only. Raises KeyError where a question has no answer:
    `check_predictions` comes first.
    """
    given = [answers[annotation.question_id] for annotation in annotations]
    accuracies = question_accuracies(given, [annotation.answers for annotation in annotations])
    predicted = [normalise(answer) for answer in given]
    expected = [modal_answer(annotation) for annotation in annotations]
    groups = _group(annotation.answer_type for annotation in annotations)
    groups["all"] = list(range(len(annotations)))
    rows = {name: groups.get(name, []) for name in CATEGORIES}
    return Scores(
        len(annotations),
        {name: mean_percent(_take(accuracies, rows[name])) for name in CATEGORIES},
        {name: kappa(_take(predicted, rows[name]), _take(expected, rows[name])) for name in CATEGORIES},
        _score_types(accuracies, _group(annotation.question_type for annotation in annotations)),
    )


def _score_types(accuracies: Sequence[float], rows: Mapping[str, list[int]]) -> dict[str, TypeScore]:
    means = {name: mean_percent(_take(accuracies, rows[name])) for name in sorted(rows)}
    return {name: TypeScore(len(rows[name]), mean) for name, mean in means.items() if mean is not None}


def _group(names: Iterable[str]) -> dict[str, list[int]]:
    """Give the rows of each name."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        groups[name].append(row)
    return groups


def _take(values: Sequence[Value], rows: Sequence[int]) -> list[Value]:
    return [values[row] for row in rows]


def _repeated(predictions: Sequence[Prediction]) -> list[int]:
    counts = Counter(prediction.question_id for prediction in predictions)
    return [number for number, count in counts.items() if count > 1]
