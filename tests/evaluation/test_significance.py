import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from vqabench.evaluation.significance import SeedTests, compare_seeds, holm

Floats = NDArray[np.float64]

SIMULATIONS = 10_000
SPREAD_OUT = st.integers(0, 2**32 - 1).map(np.random.default_rng)
"""A generator: normal numbers vary, so every column is defined."""
P_VALUES = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=8).map(lambda values: np.array(values, float))


def arrays(tests: SeedTests) -> dict[str, Floats]:
    return {name: getattr(tests, name) for name in SeedTests.__dataclass_fields__}


def percentages(generator: np.random.Generator, seeds: int, numbers: int = 4, deviation: float = 1.0) -> Floats:
    return 50 + deviation * generator.normal(size=(seeds, numbers))


def share_below_5_percent(p_values: Floats) -> float:
    return float((p_values < 0.05).mean())


@given(SPREAD_OUT, st.integers(2, 8))
def test_paired_seeds_are_tested_as_scipy_does(generator: np.random.Generator, seeds: int) -> None:
    ours, theirs = percentages(generator, seeds), percentages(generator, seeds, deviation=3)
    expected = stats.ttest_rel(ours, theirs, axis=0)
    interval = expected.confidence_interval(0.95)
    tests = compare_seeds(ours, theirs, paired=True)
    assert tests.differences_K == pytest.approx(ours.mean(0) - theirs.mean(0))
    assert tests.p_values_K == pytest.approx(expected.pvalue, rel=1e-6)
    assert tests.lows_K == pytest.approx(interval.low, rel=1e-6, abs=1e-6)
    assert tests.highs_K == pytest.approx(interval.high, rel=1e-6, abs=1e-6)


@given(SPREAD_OUT, st.integers(2, 8), st.integers(2, 8))
def test_other_seeds_are_tested_by_welch_as_scipy_does(generator: np.random.Generator, s: int, t: int) -> None:
    ours, theirs = percentages(generator, s), percentages(generator, t, deviation=3)
    expected = stats.ttest_ind(ours, theirs, axis=0, equal_var=False)
    interval = expected.confidence_interval(0.95)
    tests = compare_seeds(ours, theirs, paired=False)
    assert tests.p_values_K == pytest.approx(expected.pvalue, rel=1e-6)
    assert tests.lows_K == pytest.approx(interval.low, rel=1e-6, abs=1e-6)
    assert tests.highs_K == pytest.approx(interval.high, rel=1e-6, abs=1e-6)


def test_a_difference_by_hand() -> None:
    ours, theirs = np.array([[42.0], [44.0], [46.0]]), np.array([[40.0], [41.0], [42.0]])
    paired = compare_seeds(
        ours, theirs, paired=True
    )  # differences 2, 3, 4: error 1 / sqrt(3), 2 degrees of freedom
    assert paired.differences_K == pytest.approx([3])
    assert paired.highs_K - paired.differences_K == pytest.approx([4.302653 / math.sqrt(3)], rel=1e-6)
    assert paired.p_values_K == pytest.approx([1 - math.sqrt(27 / 29)])  # of t = sqrt(27), in closed form
    correction = math.gamma(2) / (math.sqrt(2) * math.gamma(1.5))  # freedom 4
    for tests in (paired, compare_seeds(ours, theirs, paired=False)):
        assert tests.effects_K == pytest.approx([correction * 3 / math.sqrt((4 + 1) / 2)])


def test_an_effect_of_unequal_sides_has_their_pooled_deviation() -> None:
    ours, theirs = np.array([[1.0], [3.0]]), np.array([[0.0], [0.0], [0.0], [4.0]])
    pooled = math.sqrt((1 * 2 + 3 * 4) / 4)
    correction = math.gamma(2) / (math.sqrt(2) * math.gamma(1.5))
    assert compare_seeds(ours, theirs, paired=False).effects_K == pytest.approx([correction * 1 / pooled])


def test_the_corrected_effect_is_right_on_average() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = percentages(generator, 3, SIMULATIONS) + 1, percentages(generator, 3, SIMULATIONS)
    effects = compare_seeds(ours, theirs, paired=False).effects_K
    assert effects.mean() == pytest.approx(1, abs=0.05)  # 1.25 without the correction


@pytest.mark.parametrize("paired", [True, False])
@given(generator=SPREAD_OUT, seeds=st.integers(2, 6), more=st.integers(0, 3))
def test_sides_swapped_negate_the_difference_and_keep_its_p_value(
    paired: bool, generator: np.random.Generator, seeds: int, more: int
) -> None:
    ours, theirs = percentages(generator, seeds), percentages(generator, seeds if paired else seeds + more)
    tests, swapped = compare_seeds(ours, theirs, paired=paired), compare_seeds(theirs, ours, paired=paired)
    assert swapped.differences_K == pytest.approx(-tests.differences_K)
    assert swapped.lows_K == pytest.approx(-tests.highs_K)
    assert swapped.p_values_K == pytest.approx(tests.p_values_K)
    assert swapped.effects_K == pytest.approx(-tests.effects_K)


@pytest.mark.parametrize("paired", [True, False])
@given(generator=SPREAD_OUT, shift=st.floats(-50, 50), seeds=st.integers(2, 6))
def test_both_sides_shifted_alike_change_nothing(
    paired: bool, generator: np.random.Generator, shift: float, seeds: int
) -> None:
    ours, theirs = percentages(generator, seeds), percentages(generator, seeds)
    before = arrays(compare_seeds(ours, theirs, paired=paired))
    after = arrays(compare_seeds(ours + shift, theirs + shift, paired=paired))
    for name, values in before.items():
        assert after[name] == pytest.approx(values, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("paired", [True, False])
@given(generator=SPREAD_OUT)
def test_numbers_are_compared_each_on_its_own(paired: bool, generator: np.random.Generator) -> None:
    ours, theirs = percentages(generator, 4), percentages(generator, 4)
    together = arrays(compare_seeds(ours, theirs, paired=paired))
    for k in range(4):
        alone = arrays(compare_seeds(ours[:, k : k + 1], theirs[:, k : k + 1], paired=paired))
        for name, values in together.items():
            assert alone[name] == pytest.approx(values[k : k + 1], rel=1e-12), name


@pytest.mark.parametrize(("ours", "theirs", "paired"), [(1, 1, True), (1, 1, False), (1, 5, False), (5, 1, False)])
def test_a_single_seed_shows_a_difference_and_no_certainty(ours: int, theirs: int, paired: bool) -> None:
    tests = arrays(compare_seeds(np.full((ours, 2), 42.0), np.full((theirs, 2), 40.0), paired=paired))
    assert tests.pop("differences_K").tolist() == [2, 2]
    assert all(np.isnan(values).all() for values in tests.values())


@pytest.mark.parametrize(("ours", "theirs", "paired"), [(0, 0, True), (0, 0, False), (0, 5, False), (5, 0, False)])
def test_a_side_without_seeds_shows_nothing(ours: int, theirs: int, paired: bool) -> None:
    tests = arrays(compare_seeds(np.zeros((ours, 2)), np.zeros((theirs, 2)), paired=paired))
    assert all(np.isnan(values).all() for values in tests.values())


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_constant_sides_show_no_certainty(paired: bool, gain: float) -> None:
    theirs = np.full((5, 1), 0.1 + 0.2)
    tests = arrays(compare_seeds(theirs + gain, theirs, paired=paired))
    assert tests.pop("differences_K") == pytest.approx([gain])
    assert all(np.isnan(values).all() for values in tests.values())


def test_a_gain_that_is_the_same_for_every_seed_has_an_effect_but_no_certainty() -> None:
    theirs = np.array([[40.1], [41.2], [43.7]])
    tests = compare_seeds(theirs + 0.3, theirs, paired=True)  # equal up to rounding
    assert tests.effects_K > 0
    assert np.isnan([tests.p_values_K, tests.lows_K, tests.highs_K]).all()
    assert np.isfinite(compare_seeds(theirs + 0.3, theirs, paired=False).p_values_K).all()


def test_one_constant_side_is_compared_by_the_other_ones_spread() -> None:
    theirs = np.array([[40.0], [41.0], [43.0]])
    tests = compare_seeds(np.full((5, 1), 45.0), theirs, paired=False)
    assert tests.p_values_K == pytest.approx([stats.ttest_1samp(theirs[:, 0], 45.0).pvalue])


@pytest.mark.parametrize("paired", [True, False])
def test_a_number_that_a_seed_leaves_undefined_is_compared_no_more_than_its_mean(paired: bool) -> None:
    generator = np.random.default_rng(0)
    ours, theirs = percentages(generator, 3, 2), percentages(generator, 3, 2)
    ours[1, 0] = math.nan
    for name, values in arrays(compare_seeds(ours, theirs, paired=paired)).items():
        assert np.isnan(values).tolist() == [True, False], name


@pytest.mark.parametrize("seeds", [3, 5])
def test_paired_seeds_of_one_and_the_same_configuration_differ_in_5_of_100_cases(seeds: int) -> None:
    generator = np.random.default_rng(1)
    of_the_seed = percentages(generator, seeds, SIMULATIONS, 2)
    ours, theirs = (of_the_seed + percentages(generator, seeds, SIMULATIONS) for _ in range(2))
    assert 0.04 < share_below_5_percent(compare_seeds(ours, theirs, paired=True).p_values_K) < 0.06
    assert share_below_5_percent(compare_seeds(ours, theirs, paired=False).p_values_K) < 0.02


@pytest.mark.parametrize("theirs", [5, 10])
def test_seeds_of_unequal_spread_with_one_mean_differ_in_5_of_100_cases(theirs: int) -> None:
    generator = np.random.default_rng(2)
    ours_SK = percentages(generator, 5, SIMULATIONS, 4)
    theirs_SK = percentages(generator, theirs, SIMULATIONS, 1)
    tests = compare_seeds(ours_SK, theirs_SK, paired=False)
    assert 0.03 < share_below_5_percent(tests.p_values_K) < 0.07
    covered = (tests.lows_K <= 0) & (tests.highs_K >= 0)
    assert (covered == (tests.p_values_K >= 0.05)).all()
    if theirs > 5:  # Student's test, which takes the spread to be equal, goes wrong
        assert share_below_5_percent(stats.ttest_ind(ours_SK, theirs_SK, axis=0).pvalue) > 0.1


@pytest.mark.parametrize("paired", [True, False])
def test_a_planted_gain_is_found_and_lies_in_its_interval(paired: bool) -> None:
    generator = np.random.default_rng(3)
    ours, theirs = percentages(generator, 5, SIMULATIONS) + 4, percentages(generator, 5, SIMULATIONS)
    tests = compare_seeds(ours, theirs, paired=paired)
    assert share_below_5_percent(tests.p_values_K) > 0.95
    assert 0.94 < ((tests.lows_K <= 4) & (tests.highs_K >= 4)).mean() < 0.96


def holm_by_its_definition(p_values: list[float]) -> list[float]:
    """Over what stands at or before each p-value in their order: the greatest, times those that remain there."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    paths = {which: place for place, which in enumerate(order)}
    adjusted = []
    for which in range(len(p_values)):
        before = order[: paths[which] + 1]
        adjusted.append(min(1.0, max(p_values[at] * (len(p_values) - paths[at]) for at in before)))
    return adjusted


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.04, 0.041])) == pytest.approx([0.08, 0.08])
    assert holm(np.array([])).tolist() == []


@given(P_VALUES)
def test_holm_follows_its_definition_and_leaves_nan_out(p_values: Floats) -> None:
    adjusted = holm(p_values)
    defined = ~np.isnan(p_values)
    assert np.isnan(adjusted).tolist() == (~defined).tolist()
    assert adjusted[defined] == pytest.approx(holm_by_its_definition(p_values[defined].tolist()))


@given(P_VALUES)
def test_holm_keeps_the_order_and_makes_nothing_smaller(p_values: Floats) -> None:
    adjusted = holm(p_values)[~np.isnan(p_values)]
    defined = p_values[~np.isnan(p_values)]
    assert (defined <= adjusted).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(defined)]) >= 0).all()


def test_the_order_of_a_family_does_not_matter_to_holm() -> None:
    family = np.array([0.01, 0.02, math.nan, 0.02, 0.9])
    adjusted = holm(family)
    for order in permutations(range(len(family))):
        np.testing.assert_array_equal(holm(family[list(order)]), adjusted[list(order)])


def test_a_family_of_nulls_is_claimed_falsely_in_5_of_100_cases_with_holm_and_far_more_without() -> None:
    families = np.random.default_rng(4).random((2000, 10))
    assert 0.03 < np.mean([holm(family).min() < 0.05 for family in families]) < 0.07
    assert (families.min(1) < 0.05).mean() > 0.3
