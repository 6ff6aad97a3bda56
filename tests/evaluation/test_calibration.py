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
    sizes = []
    for number in range(BINS):
        low = number / BINS if number else -1
        own = [(a, c) for a, c in answers if low < c <= (number + 1) / BINS]
        sizes.append(len(own))
        if own:
            accuracy, confidence = np.mean(own, axis=0)
            error += len(own) / len(answers) * abs(accuracy - confidence)
    accuracies, confidences = map(np.array, zip(*answers, strict=True))
    found = calibrate(accuracies, confidences)
    assert found is not None
    assert found.error == pytest.approx(100 * error, abs=1e-9)
    assert [one.questions for one in found.bins] == sizes
    assert sum(sizes) == len(answers)


def test_a_bin_tells_its_means_in_percent_and_an_empty_one_none() -> None:
    found = calibrate(np.array([1.0, 0.3, 0.0]), np.array([0.95, 0.97, 0.5]))
    assert found is not None
    last, middle, first = found.bins[14], found.bins[7], found.bins[0]
    assert last.questions == 2
    assert [last.confidence, last.accuracy] == pytest.approx([96, 65])
    assert (middle.questions, middle.confidence, middle.accuracy) == (1, 50, 0)
    assert (first.questions, first.confidence, first.accuracy) == (0, None, None)
    assert found.error == pytest.approx((2 * 31 + 50) / 3)
    assert found.overconfidence == pytest.approx((2 * 31 + 50) / 3)


@pytest.mark.parametrize(("confidence", "number"), [(0, 0), (0.2, 2), (0.2001, 3), (0.6, 8), (1, 14)])
def test_a_bin_holds_its_upper_edge(confidence: float, number: int) -> None:
    found = calibrate(np.array([1.0]), np.array([confidence]))
    assert found is not None
    assert [one.questions for one in found.bins].index(1) == number


def test_who_is_right_as_often_as_sure_has_hardly_an_error() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(size=100_000)
    right = (rng.uniform(size=100_000) < sure).astype(float)
    honest, boasting = calibrate(right, sure), calibrate(right, np.minimum(1, sure + 0.2))
    assert honest is not None
    assert boasting is not None
    assert honest.error < 1
    assert 15 < boasting.error < 20


def test_a_model_that_is_too_little_sure_is_less_than_not_overconfident() -> None:
    found = calibrate(np.array([1.0, 1.0]), np.array([0.5, 0.9]))
    assert found is not None
    assert [found.error, found.overconfidence] == pytest.approx([30, -30])


def test_without_questions_there_is_no_error() -> None:
    assert calibrate(np.array([]), np.array([])) is None
