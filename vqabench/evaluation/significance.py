"""Significance tests: over seeds, and over questions clustered by image."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, lgamma, nan, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
"""Of an interval."""
_NO_SPREAD = 1e-9
"""In points: smaller variation is rounding."""


@dataclass(frozen=True)
class SeedTests:
    """How K numbers differ between two configurations; NaN if they cannot be tested.

    That is the case if a side has fewer than two seeds, if a number is undefined (NaN) for a seed, and if nothing
    varies: neither side or, paired, the difference. A p-value of 0 would claim a certainty that few seeds cannot
    give.
    """

    differences_K: Floats
    """Mean of ours - mean of theirs, in points; defined for a single seed, too."""
    lows_K: Floats
    highs_K: Floats
    """The 95 % confidence interval of the difference, in points."""
    p_values_K: Floats
    """Two-sided, each on its own: see `holm`."""
    effects_K: Floats
    """Hedges' g: the difference in standard deviations of a seed, the same for paired seeds and others."""


def compare_seeds(ours_SK: Floats, theirs_SK: Floats, *, paired: bool) -> SeedTests:
    """Compare percentages over seeds: a paired t-test, or Welch's (1947), whose sides may have unequal S.

    If paired, row s of both sides has the same seed, and so the same order of the data: if this makes both sides
    rise and fall together, their difference varies less than they do.
    """
    assert not paired or len(ours_SK) == len(theirs_SK), "paired seeds come in pairs"
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no seeds, or no spread: both give NaN
        differences_K = ours_SK.mean(0) - theirs_SK.mean(0)
        undefined_K = np.full_like(differences_K, nan)
        if min(len(ours_SK), len(theirs_SK)) < 2:
            return SeedTests(differences_K, undefined_K, undefined_K, undefined_K, undefined_K)
        from scipy import stats  # half a second to import, and one seed needs no test

        if paired:
            found = stats.ttest_rel(ours_SK, theirs_SK)
            errors_K = stats.sem(ours_SK - theirs_SK)
        else:
            found = stats.ttest_ind(ours_SK, theirs_SK, equal_var=False)
            errors_K = np.hypot(stats.sem(ours_SK), stats.sem(theirs_SK))
        interval = found.confidence_interval(CONFIDENCE)
        effects_K = _hedges(differences_K, ours_SK, theirs_SK)
    varies_K = errors_K > _NO_SPREAD
    lows_K, highs_K, p_values_K = (
        np.where(varies_K, found_K, nan) for found_K in (interval.low, interval.high, found.pvalue)
    )
    return SeedTests(differences_K, lows_K, highs_K, p_values_K, effects_K)


def _hedges(differences_K: Floats, ours_SK: Floats, theirs_SK: Floats) -> Floats:
    """Return differences in pooled standard deviations, with Hedges' exact correction for small samples (1981).

    Paired seeds are standardised by the deviation of the seeds, not of their differences, so that an effect means
    the same whether or not both sides have the same seeds.
    """
    freedoms = len(ours_SK) - 1, len(theirs_SK) - 1
    freedom = sum(freedoms)
    squares_K = freedoms[0] * ours_SK.var(0, ddof=1) + freedoms[1] * theirs_SK.var(0, ddof=1)
    pooled_K = np.sqrt(squares_K / freedom)
    correction = exp(lgamma(freedom / 2) - lgamma((freedom - 1) / 2)) / sqrt(freedom / 2)
    effects_K: Floats = correction * differences_K / np.where(pooled_K > _NO_SPREAD, pooled_K, nan)
    return effects_K


def holm(p_values_M: Floats) -> Floats:
    """Adjust a family of M p-values by Holm's step-down procedure (1979), in their order, at most 1.

    All that stay below 0.05 may be claimed together: the probability that any claim is false is at most 0.05,
    however the tests depend on one another. NaN is no test: it does not count in the family, and stays NaN.
    """
    order_M = np.argsort(p_values_M)  # NaN last
    family = len(p_values_M) - np.isnan(p_values_M).sum()
    steps_M = p_values_M[order_M] * (family - np.arange(len(p_values_M)))
    adjusted_M = np.empty(len(p_values_M))
    adjusted_M[order_M] = np.minimum(1.0, np.maximum.accumulate(steps_M))
    return adjusted_M


Integers = NDArray[np.int64]

INTERVAL = (2.5, 97.5)
"""Percentiles of the resampled differences."""
_UNITS = 10**9
"""In an accuracy of 1. An image's sum is rounded to whole units, so that sums which differ by rounding errors are
equal, and sums of sums are exact in any order."""
_TIE = 1000
"""In units: sums that differ by no more are equal. Accuracies are tenths or thirds, or means of these."""
_AT_ONCE = 2**22
"""Counts that are held at once."""


@dataclass(frozen=True)
class QuestionTest:
    """How two sets of answers to the same questions differ."""

    difference: float
    """Mean accuracy of ours - that of theirs, in points; NaN without questions."""
    low: float
    high: float
    """The 95 % interval of the difference, in points, over resampled images; NaN for fewer than two images."""
    bootstrap_p: float
    """Two-sided: how often resampling the images moves the difference as far as it is from 0. NaN for fewer than
    two images, and too small for fewer than about fifty."""
    permutation_p: float
    """Two-sided: how often the difference is as large if both sides are swapped on each image by a coin. Valid for
    any number of images; NaN without questions."""
    questions: int
    images: int
    resamples: int
    """Of either test. No p-value is below 1 / (1 + resamples)."""


def compare_questions(
    ours_N: Floats, theirs_N: Floats, images_N: NDArray[np.integer], *, resamples: int = 10_000, seed: int = 0
) -> QuestionTest:
    """Compare two sets of accuracies, [N] in [0, 1]; `images_N` holds the index of each question's image.

    Accuracies may be means over the seeds of a configuration: then these seeds are compared, on other images.

    The result depends neither on the order of the questions nor on how images are numbered. Swapping both sides
    reverses the signs, unless the difference is exactly 0, whose interval is drawn again.
    """
    assert len(ours_N) == len(theirs_N) == len(images_N), "both answer the same questions"
    assert resamples > 0
    questions = len(ours_N)
    if not questions:
        return QuestionTest(nan, nan, nan, nan, nan, 0, 0, resamples)
    # Questions about one image are not independent, so images are resampled, not questions.
    _, rows_N, sizes_I = np.unique(images_N, return_inverse=True, return_counts=True)
    sums_I = np.rint(_UNITS * np.bincount(rows_N, ours_N - theirs_N)).astype(np.int64)
    total = int(sums_I.sum())
    side = -1 if total < 0 else 1  # the same draws for both orders of the sides, so that swapping reverses signs
    generator = np.random.default_rng(seed)
    bounds, bootstrap_p = _bootstrap(side * sums_I, sizes_I, resamples, generator)
    permutation_p = _permute(sums_I, resamples, generator)
    low, high = sorted(side * bound for bound in bounds)
    difference = 100 * total / _UNITS / questions
    return QuestionTest(difference, low, high, bootstrap_p, permutation_p, questions, len(sizes_I), resamples)


def _bootstrap(
    sums_I: Integers, sizes_I: Integers, resamples: int, generator: np.random.Generator
) -> tuple[list[float], float]:
    """Draw I images with replacement, R times: the interval of the difference, in points, and its p-value.

    The interval is of percentiles, the test shifts the data (Efron and Tibshirani 1993, chapters 13 and 16): the
    observed difference is subtracted from every question. A resample's difference is its sum divided by its number
    of questions, which varies, too.
    """
    if len(sums_I) < 2:
        return [nan, nan], nan
    # Images with the same sum and size are interchangeable: drawing counts of each kind is exact, and faster.
    kinds_K2, images_K = np.unique(np.stack([sums_I, sizes_I], 1), axis=0, return_counts=True)
    observed = sums_I.sum() / sizes_I.sum()
    differences, hits = [], 0
    for rows in _chunks(resamples, len(kinds_K2)):
        counts_RK = generator.multinomial(len(sums_I), images_K / len(sums_I), rows)
        drawn_R, questions_R = (counts_RK @ kinds_K2).T
        differences.append(drawn_R / questions_R)
        shifted_R = drawn_R - observed * questions_R
        hits += int((abs(shifted_R) >= abs(observed) * questions_R - _TIE).sum())
    bounds = 100 / _UNITS * np.percentile(np.concatenate(differences), INTERVAL)
    return bounds.tolist(), (1 + hits) / (1 + resamples)


def _permute(sums_I: Integers, resamples: int, generator: np.random.Generator) -> float:
    """Swap both sides on random images, R times; return the share of sums that are as far from 0 as observed.

    The observed data count as one more, so that the p-value is never 0 (Phipson and Smyth 2010).
    """
    sizes_K, images_K = np.unique(abs(sums_I[sums_I != 0]), return_counts=True)
    least, hits = abs(sums_I.sum()) - _TIE, 0
    for rows in _chunks(resamples, len(sizes_K)):
        swapped_RK = generator.binomial(images_K, 0.5, (rows, len(sizes_K)))
        hits += int((abs((images_K - 2 * swapped_RK) @ sizes_K) >= least).sum())
    return (1 + hits) / (1 + resamples)


def _chunks(resamples: int, kinds: int) -> Iterator[int]:
    """Yield how many resamples to draw at once, to bound memory; the draws do not depend on it."""
    rows = max(1, _AT_ONCE // max(1, kinds))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)
