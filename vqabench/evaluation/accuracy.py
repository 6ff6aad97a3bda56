"""The official VQA v2.0 accuracy (Eq. 9, averaged over the ten leave-one-out subsets of annotators)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from vqabench.data.annotations import Answer
from vqabench.data.answers import normalise, strip_space


def question_accuracy(prediction: str, answers: Sequence[Answer]) -> float:
    """Give the accuracy of a predicted answer, in [0, 1].

    Prediction and answers are normalised only where the answers are not all the same, as the official code
    does. Raises ZeroDivisionError where a question has no answers.
    """
    given = [strip_space(answer.answer) for answer in answers]
    predicted = strip_space(prediction)
    if len(set(given)) > 1:
        given, predicted = [normalise(answer) for answer in given], normalise(predicted)
    records = {(text, a.answer_id, a.answer_confidence) for text, a in zip(given, answers, strict=True)}
    if len(records) == len(answers):
        return _distinct(given.count(predicted), len(answers))
    return _repeated(predicted, [(t, a.answer_id, a.answer_confidence) for t, a in zip(given, answers, strict=True)])


@cache
def _distinct(matches: int, annotators: int) -> float:
    """Leave out each of the annotators in turn, who are told apart by their ids.

    In the official order of summation it would differ in the last bits only, which two decimals never show.
    """
    with_a_match_left_out = matches * min(1.0, (matches - 1) / 3)
    others = (annotators - matches) * min(1.0, matches / 3)
    return (with_a_match_left_out + others) / annotators


def _repeated(predicted: str, records: Sequence[tuple[object, ...]]) -> float:
    """Do the same where records repeat: the official code leaves out all that equal the one left out."""
    accuracies = [
        min(1.0, sum(other[0] == predicted for other in records if other != record) / 3) for record in records
    ]
    return sum(accuracies) / len(accuracies)
