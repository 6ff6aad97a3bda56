"""The official VQA v2.0 accuracy (Eq. 9, averaged over the leave-one-out subsets of annotators)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from vqabench.data.annotations import Answer
from vqabench.data.answers import normalise, strip_space


def question_accuracy(prediction: str, answers: Sequence[Answer]) -> float:
    """Give the accuracy of a predicted answer, in [0, 1], to the bit of the official code (`vqaEval.py`).

    Prediction and answers are normalised only where the answers are not all the same. The other annotators
    of an answer are the records that differ from it as a whole, so equal records are left out together.
    Raises ZeroDivisionError where a question has no answers.
    """
    predicted, given = _comparable(prediction, [answer.answer for answer in answers])
    matches = given.count(predicted)
    if len({answer.answer_id for answer in answers}) == len(given):
        return _mean_over_subsets(tuple([matches - (text == predicted) for text in given]))
    records = [(text, a.answer_id, a.answer_confidence) for text, a in zip(given, answers, strict=True)]
    copies = Counter(records)
    return _mean_over_subsets(tuple([matches - copies[r] * (r[0] == predicted) for r in records]))


def mean_percent(accuracies: Sequence[float]) -> float | None:
    """Give the mean of accuracies in [0, 1] as percent, unrounded; None where there are none.

    Sums in the order given, as the official code does: where a mean ends in exactly half a hundredth, the
    last bit decides how it is rounded. Sixteen questions of a type are enough for that.
    """
    return 100 * sum(accuracies) / len(accuracies) if accuracies else None


def _comparable(prediction: str, texts: list[str]) -> tuple[str, list[str]]:
    """Normalise, or only strip where the stripped answers are all the same."""
    if len(set(texts)) > 1:
        given = [normalise(text) for text in texts]
        # Answers that differ in normal form differ when stripped too, which is then not worth computing.
        if len(set(given)) > 1 or len({strip_space(text) for text in texts}) > 1:
            return normalise(prediction), given
    return strip_space(prediction), [strip_space(text) for text in texts]


@cache
def _mean_over_subsets(matching_others: tuple[int, ...]) -> float:
    """Average min(1, matches / 3) over the subsets, given how many answers match in each.

    One summand a subset, in the order of the file: a shorter formula is off in the last bit.
    """
    return sum([min(1.0, matches / 3) for matches in matching_others]) / len(matching_others)
