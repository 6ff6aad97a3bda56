import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from vqabench.evaluation import significance
from vqabench.evaluation.significance import QuestionTest, compare_questions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
RunAnswers = tuple[Floats, Floats, Integers]
"""Accuracies of both sides and the images: [N] each."""

ACCURACIES = (0.0, 0.3, 0.6, 0.9, 1.0)
SIMULATIONS = 1000
ACCURACY = st.sampled_from(ACCURACIES)
QUESTIONS = st.lists(st.tuples(ACCURACY, ACCURACY, st.integers(0, 4)), min_size=1, max_size=12)
FEW = 99


def columns(questions: list[tuple[float, float, int]]) -> RunAnswers:
    ours, theirs, images = zip(*questions, strict=True)
    return np.array(ours), np.array(theirs), np.array(images)


def sums_of(ours: Floats, theirs: Floats, images: Integers) -> tuple[Floats, Floats]:
    """Sum of differences and number of questions of each image."""
    members = [images == image for image in sorted(set(images.tolist()))]
    sums = [(ours - theirs)[member].sum() for member in members]
    return np.array(sums), np.array([float(member.sum()) for member in members])


def draw(generator: np.random.Generator, images: int, gain: float = 0.0, *, alone: bool = False) -> RunAnswers:
    """Two answerers, alike but for a gain, of 1 to 8 questions an image: each knows an image well or badly.

    Alone, a question has nothing to do with the others of its image.
    """
    images_N = np.repeat(np.arange(images), generator.integers(1, 9, images))
    sides = []
    for more in (gain, 0.0):
        knows_N = generator.beta(0.5, 0.5, len(images_N))[slice(None) if alone else images_N] + more
        right_N = generator.random(len(images_N)) < knows_N
        sides.append(np.where(right_N, generator.choice(ACCURACIES[1:], len(images_N)), 0.0))
    return sides[0], sides[1], images_N


def simulate(gain: float = 0.0, *, alone: bool = False, apart: bool = False) -> list[QuestionTest]:
    """Compare many pairs over 150 images; apart, as if every question had an image of its own."""
    generator = np.random.default_rng(0)
    tests = []
    for number in range(SIMULATIONS):
        ours, theirs, images_N = draw(generator, 150, gain, alone=alone)
        codes = np.arange(len(ours)) if apart else images_N
        tests.append(compare_questions(ours, theirs, codes, resamples=399, seed=number))
    return tests


def share_below_5_percent(p_values: list[float]) -> float:
    return float((np.array(p_values) <= 0.05).mean())


@given(QUESTIONS)
@settings(max_examples=30, deadline=None)
def test_a_permutation_test_agrees_with_all_permutations(questions: list[tuple[float, float, int]]) -> None:
    answered = columns(questions)
    sums, _ = sums_of(*answered)
    swapped = np.array([abs(np.dot(signs, sums)) for signs in product([1, -1], repeat=len(sums))])
    exact = (swapped >= abs(sums.sum()) - 1e-9).mean()
    found = compare_questions(*answered, resamples=4000).permutation_p
    assert found == pytest.approx(exact, abs=5 * math.sqrt(0.25 / 4000))


def test_a_permutation_test_agrees_with_scipys_over_all_permutations() -> None:
    ours, theirs, images = draw(np.random.default_rng(5), 12)
    sides = [np.bincount(images, side) for side in (ours, theirs)]
    exact = stats.permutation_test(
        sides, lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert 0.01 < exact < 0.95
    found = compare_questions(ours, theirs, images, resamples=100_000).permutation_p
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 100_000))


@given(QUESTIONS.filter(lambda questions: len({image for _, _, image in questions}) > 1))
@settings(max_examples=20, deadline=None)
def test_a_bootstrap_agrees_with_all_resamples(questions: list[tuple[float, float, int]]) -> None:
    answered = columns(questions)
    sums, sizes = sums_of(*answered)
    drawn = np.array(list(product(range(len(sums)), repeat=len(sums))))
    differences = 100 * sums[drawn].sum(1) / sizes[drawn].sum(1)
    observed = 100 * sums.sum() / sizes.sum()
    exact = (abs(differences - observed) >= abs(observed) - 1e-6).mean()
    found = compare_questions(*answered, resamples=4000)
    assert found.difference == pytest.approx(observed)
    assert found.bootstrap_p == pytest.approx(exact, abs=5 * math.sqrt(0.25 / 4000))
    for bound, below in ((found.low, 0.025), (found.high, 0.975)):  # a percentile, up to 5 deviations of its rank
        assert (differences < bound - 1e-6).mean() <= below + 0.0125
        assert (differences <= bound + 1e-6).mean() >= below - 0.0125


def test_a_bootstrap_interval_agrees_with_scipys() -> None:
    ours, theirs, images = draw(np.random.default_rng(6), 200, 0.1)
    result = stats.bootstrap(
        sums_of(ours, theirs, images),
        lambda sums, sizes, axis: 100 * sums.sum(axis) / sizes.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(7),
    )
    found = compare_questions(ours, theirs, images, resamples=20_000)
    tolerance = 0.12 * result.standard_error  # 4 deviations of the difference of two such percentiles
    assert found.low == pytest.approx(result.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(result.confidence_interval.high, abs=tolerance)


def test_both_tests_agree_with_loops_over_questions() -> None:
    ours, theirs, images = draw(np.random.default_rng(8), 60, 0.1)
    generator = np.random.default_rng(9)
    members = [np.flatnonzero(images == image) for image in range(60)]
    observed = 100 * (ours - theirs).mean()
    drawn, swapped = [], []
    for _ in range(4000):
        rows = np.concatenate([members[image] for image in generator.integers(60, size=60)])
        drawn.append(100 * (ours[rows] - theirs[rows]).mean())
        swap = (generator.random(60) < 0.5)[images]
        swapped.append(100 * (np.where(swap, theirs, ours) - np.where(swap, ours, theirs)).mean())
    found = compare_questions(ours, theirs, images)
    assert (found.questions, found.images, found.resamples) == (len(ours), 60, 10_000)
    assert found.difference == pytest.approx(observed)
    tolerance = 5 * math.sqrt(0.25 * (1 / 4000 + 1 / 10_000))
    shifted = abs(np.array(drawn) - observed)
    assert found.bootstrap_p == pytest.approx((shifted >= abs(observed)).mean(), abs=tolerance)
    assert found.permutation_p == pytest.approx((abs(np.array(swapped)) >= abs(observed)).mean(), abs=tolerance)
    spread = 0.25 * np.std(drawn)  # 5 deviations of the difference of two such percentiles
    assert [found.low, found.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), abs=spread)


@given(QUESTIONS)
@settings(deadline=None)
def test_sides_swapped_turn_the_signs_and_keep_the_p_values(questions: list[tuple[float, float, int]]) -> None:
    ours, theirs, images = columns(questions)
    found, swapped = (
        compare_questions(ours, theirs, images, resamples=FEW),
        compare_questions(theirs, ours, images, resamples=FEW),
    )
    p_values = [found.bootstrap_p, found.permutation_p]
    assert swapped.difference == -found.difference
    assert [swapped.bootstrap_p, swapped.permutation_p] == pytest.approx(p_values, abs=0, nan_ok=True)
    if found.difference:
        assert [swapped.low, swapped.high] == pytest.approx([-found.high, -found.low], abs=0, nan_ok=True)


@given(st.data(), QUESTIONS)
@settings(deadline=None)
def test_the_order_of_questions_and_the_names_of_images_do_not_matter(
    data: st.DataObject, questions: list[tuple[float, float, int]]
) -> None:
    names = data.draw(st.permutations([7, -3, 2**40, 12, 0]))
    shuffled = [(ours, theirs, names[image]) for ours, theirs, image in data.draw(st.permutations(questions))]
    found, other = (
        compare_questions(*columns(questions), resamples=FEW),
        compare_questions(*columns(shuffled), resamples=FEW),
    )
    np.testing.assert_equal(vars(other), vars(found))  # NaN equals NaN there


@given(QUESTIONS)
@settings(deadline=None)
def test_what_both_gain_alike_changes_nothing(questions: list[tuple[float, float, int]]) -> None:
    ours, theirs, images = columns(questions)
    gained_N = np.linspace(-0.3, 0.4, len(ours))
    found = compare_questions(ours, theirs, images, resamples=FEW)
    other = compare_questions(ours + gained_N, theirs + gained_N, images, resamples=FEW)
    np.testing.assert_equal(vars(other), vars(found))


@given(QUESTIONS)
@settings(deadline=None)
def test_numbers_lie_where_they_belong(questions: list[tuple[float, float, int]]) -> None:
    found = compare_questions(*columns(questions), resamples=FEW)
    assert 0.01 <= found.permutation_p <= 1
    assert -100 <= found.difference <= 100
    if found.images > 1:
        assert 0.01 <= found.bootstrap_p <= 1
        assert -100 <= found.low <= found.high <= 100


def test_a_seed_decides_and_memory_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = draw(np.random.default_rng(10), 50)
    found = compare_questions(*answered, resamples=1000)
    assert compare_questions(*answered, resamples=1000) == found
    assert compare_questions(*answered, resamples=1000, seed=1) != found
    monkeypatch.setattr(significance, "_AT_ONCE", 700)  # a few resamples at once
    assert compare_questions(*answered, resamples=1000) == found


def test_rounding_errors_make_no_difference_between_equal_sums() -> None:
    images = np.repeat(np.arange(40), 3)
    ours = np.tile([0.3, 0.3, 0.3], 40)
    theirs = np.tile([0.9, 0.0, 0.0], 40)  # sums that are equal, though not as floats
    assert (ours[:3].sum() - theirs[:3].sum()) != 0
    found = compare_questions(ours, theirs, images, resamples=FEW)
    assert found == QuestionTest(0, 0, 0, 1, 1, 120, 40, 99)


def test_resamples_that_are_exactly_as_far_count() -> None:
    ours = np.array([1.0] + [0.0] * 44)  # 1 / 45, which no float is
    found = compare_questions(ours, np.zeros(45), np.arange(45))
    exact = 1 - stats.binom.pmf(1, 45, 1 / 45)  # unless the one image is drawn once, it is as far as twice or never
    assert found.bootstrap_p == pytest.approx(exact, abs=5 * math.sqrt(0.25 / 10_000))


def test_one_image_or_no_question_tells_nothing() -> None:
    one = compare_questions(np.array([1.0, 0.3]), np.array([0.0, 0.0]), np.array([7, 7]), resamples=FEW)
    assert one.difference == pytest.approx(65)
    assert np.isnan([one.low, one.high, one.bootstrap_p]).all()
    assert one.permutation_p == 1
    none = compare_questions(np.array([]), np.array([]), np.array([], int), resamples=FEW)
    assert np.isnan([none.difference, none.low, none.high, none.bootstrap_p, none.permutation_p]).all()
    assert (none.questions, none.images) == (0, 0)


def test_means_over_seeds_are_compared_like_any_answers() -> None:
    generator = np.random.default_rng(11)
    images = generator.integers(300, size=1000)
    ours, theirs = (generator.choice(ACCURACIES, (seeds, 1000)).mean(0) for seeds in (5, 3))
    found = compare_questions(ours + 0.1, theirs, images)
    assert found.difference == pytest.approx(100 * (ours + 0.1 - theirs).mean())
    assert found.low < found.difference < found.high
    expected = stats.ttest_1samp(sums_of(ours + 0.1, theirs, images)[0], 0).pvalue
    assert max(found.permutation_p, found.bootstrap_p) < 0.001 > expected


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True])
def test_answerers_that_are_alike_differ_in_5_of_100_cases(alone: bool) -> None:
    tests = simulate(alone=alone)
    assert 0.03 < share_below_5_percent([test.bootstrap_p for test in tests]) < 0.07
    assert 0.03 < share_below_5_percent([test.permutation_p for test in tests]) < 0.07
    assert 0.93 < np.mean([test.low <= 0 <= test.high for test in tests]) < 0.97


@pytest.mark.slow
def test_questions_taken_one_by_one_would_pretend_far_more() -> None:
    tests = simulate(apart=True)
    assert share_below_5_percent([test.bootstrap_p for test in tests]) > 0.15
    assert share_below_5_percent([test.permutation_p for test in tests]) > 0.15
    assert np.mean([test.low <= 0 <= test.high for test in tests]) < 0.85


@pytest.mark.slow
def test_a_planted_gain_is_found() -> None:
    tests = simulate(gain=0.2)
    assert share_below_5_percent([test.bootstrap_p for test in tests]) > 0.8
    assert share_below_5_percent([test.permutation_p for test in tests]) > 0.8


def test_few_resamples_never_say_more_than_they_can() -> None:
    certain = np.ones(200), np.zeros(200), np.arange(200)
    found = compare_questions(*certain, resamples=FEW)
    assert found == QuestionTest(100, 100, 100, 0.01, 0.01, 200, 200, 99)
    more = compare_questions(*certain, resamples=999)
    assert more == replace(found, bootstrap_p=0.001, permutation_p=0.001, resamples=999)
