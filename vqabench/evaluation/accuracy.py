"""The official VQA v2.0 accuracy (Eq. 9, averaged over the leave-one-out subsets of annotators)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotation_table import Labels
from vqabench.data.annotations import ANNOTATORS
from vqabench.data.answers import normalise, strip_space
from vqabench.data.numbering import Numbering

_DISTINCT = np.arange(ANNOTATORS)
_BITS = 1 << _DISTINCT


def question_accuracies(
    predictions: Sequence[str], answers: Labels, records: NDArray[np.int8]
) -> NDArray[np.float64]:
    """Give the accuracy of each question's predicted answer, [N] in [0, 1], to the bit of `vqaEval.py`.

    `answers` and `records` are [N, 10], as an AnnotationTable has them. Predictions and answers are normalised
    only where a question's answers are not all the same. The other annotators of an answer are the records
    that differ from it as a whole, so equal records are left out together.
    """
    forms_NK, predicted_N = _in_form(normalise, answers, predictions)
    (alike,) = np.nonzero((forms_NK == forms_NK[:, :1]).all(1))  # what is the same stripped is so normalised
    stripped_MK, stripped_M = _in_form(
        strip_space, answers.take(alike), [predictions[row] for row in alike.tolist()]
    )
    same_M = (stripped_MK == stripped_MK[:, :1]).all(1)
    forms_NK[alike[same_M]], predicted_N[alike[same_M]] = stripped_MK[same_M], stripped_M[same_M]
    hits_NK = forms_NK == predicted_N[:, None]
    accuracies_N: NDArray[np.float64] = _accuracies_of_patterns()[hits_NK @ _BITS]
    (repeating,) = np.nonzero((records != _DISTINCT).any(1))  # no question, in VQA's own files
    for row in repeating.tolist():
        equal = list(zip(records[row].tolist(), forms_NK[row].tolist(), strict=True))
        accuracies_N[row] = _mean_over_subsets(hits_NK[row].tolist(), equal)
    return accuracies_N


def _in_form(
    form: Callable[[str], str], answers: Labels, predictions: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the forms of answers [N, 10] and predictions [N] alike; -1 for what no answer is."""
    formed = answers.regroup(form)
    number = {name: code for code, name in enumerate(formed.names)}
    distinct = Numbering()
    predictions_N = distinct.number(predictions)
    codes = np.array([number.get(form(text), -1) for text in distinct], np.int32)
    return formed.codes, codes[predictions_N]


@cache
def _accuracies_of_patterns() -> NDArray[np.float64]:
    """Give the accuracy for each pattern of hits, bit k for record k, where no two records are equal: [1024]."""
    patterns = np.arange(1 << ANNOTATORS)[:, None] & _BITS != 0
    return np.array([_mean_over_subsets(hits, range(ANNOTATORS)) for hits in patterns.tolist()])


def _mean_over_subsets(hits: Sequence[bool], records: Sequence[object]) -> float:
    """Average min(1, matches / 3) over the subsets that leave out one record with all that equal it.

    `hits` says which records match the prediction. There is one summand a record, in the order of the file:
    a formula in the number of matches alone is off in the last bit.
    """
    matches = Counter(compress(records, hits))
    others = [matches.total() - matches[record] for record in records]
    return float(add_up(np.minimum(1.0, np.array(others) / 3))) / len(others)


def mean_percent(accuracies: NDArray[np.float64]) -> float | None:
    """Give the mean of accuracies, [N] in [0, 1], as percent, unrounded; None where there are none.

    Adds one by one in the order given, as the official code does: where a mean ends in exactly half a
    hundredth, the last bit decides how it is rounded. Sixteen questions of a type are enough for that.
    """
    return 100 * float(add_up(accuracies)) / len(accuracies) if len(accuracies) else None


def add_up(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add along the last axis one by one, rounding each time: `sum` of numpy, and Python's from 3.12 on, do not."""
    total: NDArray[np.float64] = np.add.accumulate(values, axis=-1)[..., -1]
    return total
