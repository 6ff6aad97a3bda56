import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from vqabench.evaluation.kappa import kappa

LABELS = st.sampled_from(["yes", "no", "2", "red"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40)


def split(pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [a for a, _ in pairs], [b for _, b in pairs]


@given(PAIRS.filter(lambda pairs: len({label for pair in pairs for label in pair}) > 1))
def test_it_agrees_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predicted, expected = split(pairs)
    reference = 100 * cohen_kappa_score(predicted, expected)
    assert kappa(predicted, expected) == pytest.approx(reference, abs=1e-9)


@given(PAIRS)
def test_kappa_is_a_percentage_or_undefined(pairs: list[tuple[str, str]]) -> None:
    value = kappa(*split(pairs))
    assert value is None or -100 <= value <= 100


def test_full_agreement_is_100_and_a_constant_prediction_0() -> None:
    assert kappa(["yes", "no"], ["yes", "no"]) == pytest.approx(100)
    assert kappa(["yes", "yes"], ["yes", "no"]) == pytest.approx(0)
    assert kappa(["yes", "yes"], ["no", "no"]) == pytest.approx(0)


def test_kappa_is_undefined_without_questions_or_with_a_single_label() -> None:
    assert kappa([], []) is None
    assert kappa(["yes", "yes"], ["yes", "yes"]) is None


def test_many_labels_need_no_dense_matrix() -> None:
    labels = [str(number) for number in range(30_000)]  # dense: 7 GB
    assert kappa(labels, labels) == pytest.approx(100)
