"""The official VQA v2.0 accuracy (Eq. 9, averaged over the leave-one-out subsets of annotators)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from vqabench.data.annotations import Answer
from vqabench.data.answers import normalise, strip_space


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


def mean_percent(accuracies: Sequence[float]) -> float | None:
    """Give the mean of accuracies in [0, 1] as percent, unrounded; None where there are none.

    Sums in the order given, as the official code does: where a mean ends in exactly half a hundredth, the
    last bit decides how it is rounded. Sixteen questions of a type are enough for that.
    """
    return 100 * sum(accuracies) / len(accuracies) if accuracies else None


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
    return sum([min(1.0, other / 3) for other in others]) / len(others)
