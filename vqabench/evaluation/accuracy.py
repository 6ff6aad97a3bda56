"""The official VQA v2.0 accuracy (Eq. 9, averaged over the leave-one-out subsets of annotators)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotation_table import Labels
from vqabench.data.answers import normalise, strip_space
from vqabench.data.numbering import Numbering


def question_accuracies(
    predictions: Sequence[str], answers: Labels, records: NDArray[np.int8]
) -> NDArray[np.float64]:
    """Give the accuracy of each question's predicted answer, [N] in [0, 1], to the bit of `vqaEval.py`.

    `answers` and `records` are [N, K], as an AnnotationTable has them. Predictions and answers are normalised
    only where a question's answers are not all the same. The other annotators of an answer are the records
    that differ from it as a whole, so equal records are left out together.
    """
    stripped_NK, stripped_N1 = _in_form(strip_space, answers, predictions)
    normal_NK, normal_N1 = _in_form(normalise, answers, predictions)
    unanimous_N1 = (stripped_NK == stripped_NK[:, :1]).all(1, keepdims=True)
    forms_NK = np.where(unanimous_N1, stripped_NK, normal_NK)
    hits_NK = forms_NK == np.where(unanimous_N1, stripped_N1, normal_N1)
    others_NK = hits_NK.sum(1, keepdims=True) - _count_hits_left_out(hits_NK, forms_NK, records)
    accuracies: NDArray[np.float64] = add_up(np.minimum(1.0, others_NK / 3)) / hits_NK.shape[1]
    return accuracies


def _in_form(
    form: Callable[[str], str], answers: Labels, predictions: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the forms of answers [N, K] and predictions [N, 1] alike; -1 for what no answer is."""
    formed = answers.regroup(form)
    number = {name: code for code, name in enumerate(formed.names)}
    distinct = Numbering()
    predictions_N = distinct.number(predictions)
    codes = np.array([number.get(form(text), -1) for text in distinct], np.int32)
    return formed.codes, codes[predictions_N][:, None]


def _count_hits_left_out(
    hits_NK: NDArray[np.bool_], forms_NK: NDArray[np.int32], records_NK: NDArray[np.int8]
) -> NDArray[np.int64]:
    """Count, for each record, the hits among the records that equal it, which leave a subset together: [N, K]."""
    left_out_NK = hits_NK.astype(np.int64)
    (alike,) = np.nonzero((records_NK != np.arange(records_NK.shape[1])).any(1))  # no question, in VQA's own files
    for row in alike.tolist():
        pairs = list(zip(records_NK[row].tolist(), forms_NK[row].tolist(), strict=True))
        left_out_NK[row] = [sum(hits_NK[row][[pair == own for pair in pairs]]) for own in pairs]
    return left_out_NK


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
