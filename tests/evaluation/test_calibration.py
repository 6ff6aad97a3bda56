from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqabench.evaluation.run_answers import BINS, calibrate

ANSWERS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]), st.integers(0, 10_000).map(lambda n: n / 10_000)),
    min_size=1,
    max_size=60,
)


@given(ANSWERS)
def test_the_error_is_the_weighted_gap_of_each_bin(answers: list[tuple[float, float]]) -> None:
    error = 0.0
    for number in range(BINS):
        low = number / BINS if number else -1
        own = [(a, c) for a, c in answers if low < c <= (number + 1) / BINS]
        if own:
            accuracy, confidence = np.mean(own, axis=0)
            error += len(own) / len(answers) * abs(accuracy - confidence)
    accuracies, confidences = map(np.array, zip(*answers, strict=True))
    found, overconfidence = calibrate(accuracies, confidences)
    assert found == pytest.approx(100 * error, abs=1e-9)
    assert overconfidence == pytest.approx(100 * (confidences.mean() - accuracies.mean()), abs=1e-9)


@pytest.mark.parametrize(("upper", "together"), [(0.2, True), (0.2001, False), (0.6, True), (0.6001, False)])
def test_a_bin_holds_its_upper_edge(upper: float, together: bool) -> None:
    lower = upper - 0.01
    error, _ = calibrate(np.array([1.0, 0.0]), np.array([upper, lower]))
    apart = (1 - upper + lower) / 2
    assert error == pytest.approx(100 * (abs(upper + lower - 1) / 2 if together else apart))


def test_who_is_right_as_often_as_sure_has_hardly_an_error() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(size=100_000)
    right = (rng.uniform(size=100_000) < sure).astype(float)
    (honest, _), (boasting, _) = calibrate(right, sure), calibrate(right, np.minimum(1, sure + 0.2))
    assert honest is not None
    assert boasting is not None
    assert honest < 1
    assert 15 < boasting < 20


def test_a_model_that_is_too_little_sure_is_less_than_not_overconfident() -> None:
    assert calibrate(np.array([1.0, 1.0]), np.array([0.5, 0.9])) == pytest.approx((30, -30))


def test_without_questions_there_is_no_error() -> None:
    assert calibrate(np.array([]), np.array([])) == (None, None)
