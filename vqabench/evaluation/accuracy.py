"""The official VQA v2.0 accuracy (Eq. 9, averaged over the leave-one-out subsets of annotators)."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache, reduce

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotations import Answer
from vqabench.data.answers import normalise, strip_space
from vqabench.data.numbering import Numbering


def question_accuracy(prediction: str, answers: Sequence[Answer]) -> float:
    """Give the accuracy of a predicted answer, in [0, 1], to the bit of the official code (`vqaEval.py`).

    Prediction and answers are normalised only where the answers are not all the same. The other annotators
    of an answer are the records that differ from it as a whole, so equal records are left out together.
    Raises ZeroDivisionError where a question has no answers.
    """
    texts = [answer.answer for answer in answers]
    distinct = set(texts)  # the ten repeat each other: fewer to normalise
    form = _choose_form(distinct)
    predicted = form(prediction)
    matching = [text for text in distinct if form(text) == predicted]
    if distinct and not matching:
        return 0.0
    hits = tuple(map(matching.__contains__, texts))
    if len({answer.answer_id for answer in answers}) == len(hits):
        return _mean_over_subsets(hits, (1,) * len(hits))
    return _mean_over_subsets(hits, _count_copies(answers, form))


def question_accuracies(predictions: Sequence[str], answers: Sequence[Sequence[Answer]]) -> list[float]:
    """Give `question_accuracy` of N questions, to the bit.

    Where all answers are numbered from 1 to 10, as VQA's are, no record equals another, and arrays do it.
    """
    if [a.answer_id for given in answers for a in given] != [*range(1, 11)] * len(answers):
        return [question_accuracy(*pair) for pair in zip(predictions, answers, strict=True)]
    texts = Numbering()
    texts_NK = texts.number([a.answer for given in answers for a in given]).reshape(-1, 10)
    stripped_NK, stripped_N1 = _in_form(strip_space, texts, texts_NK, predictions)
    normal_NK, normal_N1 = _in_form(normalise, texts, texts_NK, predictions)
    unanimous_N1 = (stripped_NK == stripped_NK[:, :1]).all(1, keepdims=True)
    hits_NK = np.where(unanimous_N1, stripped_NK == stripped_N1, normal_NK == normal_N1)
    summands_NK = np.minimum(1.0, (hits_NK.sum(1, keepdims=True) - hits_NK) / 3)
    totals_N = np.add.accumulate(summands_NK, axis=1)[:, -1]  # one by one, as `_mean_over_subsets` adds
    means: list[float] = (totals_N / 10).tolist()
    return means


def _in_form(
    form: Callable[[str], str], texts: Numbering, texts_NK: NDArray[np.int32], predictions: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the forms of answers [N, K] and predictions [N, 1] alike; -1 for what no answer is."""
    forms, form_of = texts.regroup(form)
    distinct = Numbering()
    predictions_N = distinct.number(predictions)
    return form_of[texts_NK], forms.find([form(text) for text in distinct])[predictions_N][:, None]


def mean_percent(accuracies: Sequence[float]) -> float | None:
    """Give the mean of accuracies in [0, 1] as percent, unrounded; None where there are none.

    Adds one by one in the order given, as the official code does: where a mean ends in exactly half a
    hundredth, the last bit decides how it is rounded. Sixteen questions of a type are enough for that.
    """
    return 100 * add(accuracies) / len(accuracies) if accuracies else None


def add(values: Iterable[float]) -> float:
    """Add one by one, rounding each time: from Python 3.12 on, `sum` does not."""
    return reduce(operator.add, values, 0.0)


def _choose_form(distinct: set[str]) -> Callable[[str], str]:
    """Normalise where the stripped answers differ; otherwise only strip."""
    if len(distinct) < 2:
        return strip_space
    # What differs in normal form differs when stripped too; normal forms are remembered, so they come first.
    differ = len(set(map(normalise, distinct))) > 1 or len(set(map(strip_space, distinct))) > 1
    return normalise if differ else strip_space


def _count_copies(answers: Sequence[Answer], form: Callable[[str], str]) -> tuple[int, ...]:
    """Say of each record how many, itself included, equal it once their texts are in this form."""
    records = [(form(a.answer), a.answer_id, a.answer_confidence) for a in answers]
    counts = Counter(records)
    return tuple(counts[record] for record in records)


@cache
def _mean_over_subsets(hits: tuple[bool, ...], copies: tuple[int, ...]) -> float:
    """Average min(1, matches / 3) over the subsets that leave out one record with all its copies.

    `hits` says which records match the prediction. There is one summand a record, in the order of the file:
    a formula in the number of matches alone is off in the last bit.
    """
    matches = sum(hits)
    others = [matches - hit * left_out for hit, left_out in zip(hits, copies, strict=True)]
    return add(min(1.0, other / 3) for other in others) / len(others)
