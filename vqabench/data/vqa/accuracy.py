"""The official VQA v2.0 accuracy (Eq. 9, averaged over the leave-one-out subsets of annotators)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.annotation_table import Categorical, Numbering
from vqabench.data.vqa.annotations import ANNOTATORS
from vqabench.data.vqa.answers import normalise, strip_space

_DISTINCT = np.arange(ANNOTATORS)
_BITS = 1 << _DISTINCT


def question_accuracies(
    predictions: Sequence[str | None], answers: Categorical, records: NDArray[np.int8]
) -> NDArray[np.float64]:
    """Return the accuracy of each question's predicted answer, [N] in [0, 1], bit for bit as `vqaEval.py`.

    `answers` and `records` are [N, 10], as in an AnnotationTable. Predictions and answers are normalised only if a
    question's ten answers are not all the same. The other annotators of an answer are the records that differ from
    it in any field, so equal records are left out together. A missing prediction (None) is wrong.
    """
    forms = _form(answers)
    normalised_N, stripped_N = forms.find(["" if text is None else text for text in predictions])
    predicted_N = np.where(forms.same_N, stripped_N, normalised_N)
    predicted_N[[row for row, text in enumerate(predictions) if text is None]] = -1
    return _accuracies(forms.codes_NK == predicted_N[:, None], forms.codes_NK, records)


def best_accuracies(
    vocabulary: Sequence[str], answers: Categorical, records: NDArray[np.int8]
) -> NDArray[np.float64]:
    """Return the highest accuracy of any answer of the vocabulary for each question, [N] in [0, 1].

    `answers` and `records` are as in `question_accuracies`. It is 0 if no annotator's answer is in the vocabulary.
    """
    forms = _form(answers)
    codes_NK = forms.codes_NK
    known_NK = np.isin(codes_NK, np.concatenate(forms.find(vocabulary)))
    for place in range(1, ANNOTATORS):  # equal answers of a question need to be tried only once
        known_NK[:, place] &= (codes_NK[:, :place] != codes_NK[:, place, None]).all(1)
    rows, places = np.nonzero(known_NK)
    hits_CK = codes_NK[rows] == codes_NK[rows, places][:, None]
    best_N = np.zeros(len(codes_NK))
    np.maximum.at(best_N, rows, _accuracies(hits_CK, codes_NK[rows], records[rows]))
    return best_N


@dataclass(frozen=True)
class Oddities:
    """Counts of questions whose official score is surprising."""

    questions: int
    repeated: int
    """Questions with equal records, which the official evaluation leaves out together."""
    as_written: int
    """Questions whose ten answers are the same, and compared as written though normalising would change them."""
    example: str
    """One of these answers; empty if there are none."""


def explain_oddities(found: Mapping[str, Oddities]) -> list[str]:
    """Return a line for each kind that occurs; `found` maps names of splits to their counts."""
    repeated = _count({where: (one.repeated, one.questions) for where, one in found.items()})
    as_written = _count({where: (one.as_written, one.questions) for where, one in found.items()})
    lines = []
    if repeated:
        lines.append(
            f"identical annotator records (no distinct answer_id): {repeated}. The official "
            "evaluation removes identical records together, so an answer that all ten gave scores 0. To count ten "
            "annotators, give the records of each question an answer_id from 1 to 10."
        )
    if as_written:
        example = next(one.example for one in found.values() if one.example)
        lines.append(
            "ten identical answers that normalisation would change "
            f"({example!r} becomes {normalise(example)!r}): {as_written}. The official evaluation compares them as "
            "written, so normalised answers, such as those of every model trained here, score 0 on these questions."
        )
    return lines


def _count(counts: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{where} {count:,} of {of:,} questions" for where, (count, of) in counts.items() if count)


def find_oddities(answers: Categorical, records: NDArray[np.int8]) -> Oddities:
    """Count the questions whose official score is surprising."""
    forms = _form(answers)
    equal_N = np.zeros(len(answers), bool)
    (repeating,) = np.nonzero((records != _DISTINCT).any(1))
    for row in repeating.tolist():
        pairs = set(zip(records[row].tolist(), forms.codes_NK[row].tolist(), strict=True))
        equal_N[row] = len(pairs) < ANNOTATORS
    spellings = answers[np.flatnonzero(forms.same_N)].regroup(strip_space)
    changed = {text: count // ANNOTATORS for text, count in spellings.counts().items() if normalise(text) != text}
    example = max(changed, key=lambda text: changed[text], default="")
    return Oddities(len(answers), int(equal_N.sum()), sum(changed.values()), example)


@dataclass(frozen=True)
class _Forms:
    """Human answers as numbers, in the form that predictions are compared in."""

    codes_NK: NDArray[np.int32]
    same_N: NDArray[np.bool_]
    """[N]: whether a question's ten answers are the same after stripping. Then nothing is normalised."""
    normalised: Mapping[str, int]
    """Normalised answer -> number."""
    stripped: Mapping[str, int]
    """Answer that is only stripped -> number, different from those above."""

    def find(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the numbers of texts normalised and stripped, [X] each; -1 for texts that are not answers."""
        distinct = Numbering()
        texts_X = distinct.number(texts)
        normalised = np.array([self.normalised.get(normalise(text), -1) for text in distinct], np.int32)
        stripped = np.array([self.stripped.get(strip_space(text), -1) for text in distinct], np.int32)
        return normalised[texts_X], stripped[texts_X]


def _form(answers: Categorical) -> _Forms:
    normalised = answers.regroup(normalise)
    codes_NK = normalised.codes.copy()
    (alike,) = np.nonzero((codes_NK == codes_NK[:, :1]).all(1))  # equal stripped answers are equal normalised ones
    stripped = answers[alike].regroup(strip_space)
    same_M = (stripped.codes == stripped.codes[:, :1]).all(1)
    same_N = np.zeros(len(answers), bool)
    same_N[alike[same_M]] = True
    codes_NK[same_N] = len(normalised.names) + stripped.codes[same_M]
    return _Forms(
        codes_NK,
        same_N,
        {name: code for code, name in enumerate(normalised.names)},
        {name: code for code, name in enumerate(stripped.names, len(normalised.names))},
    )


def _accuracies(
    hits_NK: NDArray[np.bool_], forms_NK: NDArray[np.int32], records: NDArray[np.int8]
) -> NDArray[np.float64]:
    """Return the accuracy [N] of questions from whether each of the ten answers matches."""
    accuracies_N: NDArray[np.float64] = _accuracies_of_patterns()[hits_NK @ _BITS]
    (repeating,) = np.nonzero((records != _DISTINCT).any(1))  # none in VQA's own files
    for row in repeating.tolist():
        equal = list(zip(records[row].tolist(), forms_NK[row].tolist(), strict=True))
        accuracies_N[row] = _mean_over_subsets(hits_NK[row].tolist(), equal)
    return accuracies_N


@cache
def _accuracies_of_patterns() -> NDArray[np.float64]:
    """Return the accuracy [1024] of each pattern of matches, bit k for record k, if no two records are equal."""
    patterns = np.arange(1 << ANNOTATORS)[:, None] & _BITS != 0
    return np.array([_mean_over_subsets(hits, range(ANNOTATORS)) for hits in patterns.tolist()])


def _mean_over_subsets(hits: Sequence[bool], records: Sequence[object]) -> float:
    """Return the mean of min(1, matches / 3) over the subsets without one record and those equal to it (Eq. 9).

    `hits` says which records match the prediction. The summands are added in the order of the file: a formula in
    the number of matches differs in the last bit.
    """
    matches = Counter(compress(records, hits))
    others = [matches.total() - matches[record] for record in records]
    return float(add_up(np.minimum(1.0, np.array(others) / 3))) / len(others)


def mean_percent(accuracies: NDArray[np.float64]) -> float | None:
    """Return the mean of accuracies, [N] in [0, 1], as percent, unrounded; None if there are none.

    Adds one by one in the given order, as the official code does: if a mean ends in exactly half a hundredth, the
    last bit decides how it is rounded. This happens with as few as sixteen questions.
    """
    return 100 * float(add_up(accuracies)) / len(accuracies) if len(accuracies) else None


def add_up(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum along the last axis, added one by one: `sum` of NumPy, and Python's from 3.12 on, differ."""
    total: NDArray[np.float64] = np.add.accumulate(values, axis=-1)[..., -1]
    return total
