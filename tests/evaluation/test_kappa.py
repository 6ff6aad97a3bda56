import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from vqabench.evaluation.scores import kappa

LABELS = st.integers(0, 3)
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40)


def numbers(*labels: int) -> NDArray[np.int32]:
    return np.array(labels, np.int32)


def split(pairs: list[tuple[int, int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return numbers(*(a for a, _ in pairs)), numbers(*(b for _, b in pairs))


@given(PAIRS.filter(lambda pairs: len({label for pair in pairs for label in pair}) > 1))
def test_it_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, expected = split(pairs)
    reference = 100 * cohen_kappa_score(predicted, expected)
    assert kappa(predicted, expected) == pytest.approx(reference, abs=1e-9)


@given(PAIRS)
def test_kappa_is_a_percentage_or_undefined(pairs: list[tuple[int, int]]) -> None:
    value = kappa(*split(pairs))
    assert value is None or -100 <= value <= 100


def test_full_agreement_is_100_and_a_constant_prediction_0() -> None:
    assert kappa(numbers(0, 1), numbers(0, 1)) == pytest.approx(100)
    assert kappa(numbers(0, 0), numbers(0, 1)) == pytest.approx(0)
    assert kappa(numbers(0, 0), numbers(1, 1)) == pytest.approx(0)


def test_kappa_is_undefined_without_questions_or_with_a_single_label() -> None:
    assert kappa(numbers(), numbers()) is None
    assert kappa(numbers(0, 0), numbers(0, 0)) is None


def test_many_labels_need_no_dense_matrix() -> None:
    labels = np.arange(30_000, dtype=np.int32)  # dense: 7 GB
    assert kappa(labels, labels) == pytest.approx(100)
