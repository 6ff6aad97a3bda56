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
"""In points: what varies by less varies by rounding."""


@dataclass(frozen=True)
class SeedTests:
    """How K numbers differ between two configurations; NaN where the seeds do not tell.

    That is so where a side has fewer than two seeds, where a seed leaves the number undefined (NaN), and where
    nothing varies: neither side or, paired, not the difference. A p-value of 0 would pretend a certainty that a
    few seeds do not give.
    """

    differences_K: Floats
    """Mean of ours - mean of theirs, in points; one seed a side is enough for it."""
    lows_K: Floats
    highs_K: Floats
    """The 95 % confidence interval of the difference, in points."""
    p_values_K: Floats
    """Two-sided, each on its own: see `holm`."""
    effects_K: Floats
    """Hedges' g: the difference in standard deviations of a seed, the same for paired seeds and others."""


def compare_seeds(ours_SK: Floats, theirs_SK: Floats, *, paired: bool) -> SeedTests:
    """Compare percentages over seeds: a paired t-test, or Welch's (1947), whose sides may have unequal S.

    Paired, row s of both sides comes of the same seed, that is of the same order of the data: where this makes
    the sides rise and fall together, their difference varies less than they do.
    """
    assert not paired or len(ours_SK) == len(theirs_SK), "paired seeds come in pairs"
    from scipy import stats  # half a second to import, and one seed needs no test

    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no seeds, or no spread: both give NaN
        differences_K = ours_SK.mean(0) - theirs_SK.mean(0)
        undefined_K = np.full_like(differences_K, nan)
        if min(len(ours_SK), len(theirs_SK)) < 2:
            return SeedTests(differences_K, undefined_K, undefined_K, undefined_K, undefined_K)
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

    All that stay below 0.05 may be claimed together: that any of the claims is false has a chance of at most
    0.05, whatever the tests have to do with one another. NaN is no test: it does not count
    in the family, and stays.
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
"""In an accuracy of 1. An image's sum is rounded to whole units, so that rounding errors make no kinds of their
own, and sums of sums are exact in any order."""
_TIE = 1000
"""In units: sums that differ by no more are equal. Accuracies are tenths or thirds, or means of these."""
_AT_ONCE = 2**22
"""Counts that are held at once."""


@dataclass(frozen=True)
class QuestionTest:
    """How two answerers of the same questions differ."""

    difference: float
    """Mean accuracy of ours - that of theirs, in points; NaN without questions."""
    low: float
    high: float
    """The 95 % interval of the difference, in points, over images drawn anew; NaN for fewer than two images."""
    bootstrap_p: float
    """Two-sided: how often images drawn anew move the difference as far as it is from 0. NaN for fewer than two
    images, and too small for fewer than about fifty."""
    permutation_p: float
    """Two-sided: how often the difference is as large where the answerers are swapped on some of the images, by a
    coin each. It holds for any number of images, for two answerers that are alike; NaN without questions."""
    questions: int
    images: int
    resamples: int
    """Of either test. No p-value is below 1 / (1 + resamples)."""


def compare_questions(
    ours_N: Floats, theirs_N: Floats, images_N: NDArray[np.integer], *, resamples: int = 10_000, seed: int = 0
) -> QuestionTest:
    """Compare the accuracies, [N] in [0, 1], of two answerers; `images_N` numbers the images asked about.

    Means over the seeds of a configuration are an answerer too: these very seeds, on other images, are compared.

    The same questions give the same numbers for a seed, in whatever order they come and however the images are
    numbered. Ours and theirs swapped give the same with the signs turned, but where the difference is exactly 0,
    whose interval is drawn anew.
    """
    assert len(ours_N) == len(theirs_N) == len(images_N), "both answer the same questions"
    assert resamples > 0
    questions = len(ours_N)
    if not questions:
        return QuestionTest(nan, nan, nan, nan, nan, 0, 0, resamples)
    sums_I, sizes_I = _sum_by_image(ours_N - theirs_N, images_N)
    total = int(sums_I.sum())
    side = -1 if total < 0 else 1
    generator = np.random.default_rng(seed)
    bounds, bootstrap_p = _bootstrap(side * sums_I, sizes_I, resamples, generator)
    permutation_p = _permute(sums_I, resamples, generator)
    low, high = sorted(side * bound for bound in bounds)
    difference = 100 * total / _UNITS / questions
    return QuestionTest(difference, low, high, bootstrap_p, permutation_p, questions, len(sizes_I), resamples)


def _sum_by_image(differences_N: Floats, images_N: NDArray[np.integer]) -> tuple[Integers, Integers]:
    """Add up the differences of each image, in units, and count its questions: [I] each."""
    _, rows_N = np.unique(images_N, return_inverse=True)
    sums_I = np.rint(_UNITS * np.bincount(rows_N, differences_N)).astype(np.int64)
    return sums_I, np.bincount(rows_N).astype(np.int64)


def _bootstrap(
    sums_I: Integers, sizes_I: Integers, resamples: int, generator: np.random.Generator
) -> tuple[list[float], float]:
    """Draw I images with replacement, R times: the interval of the difference, in points, and its p-value.

    The interval is of percentiles, the test shifts the data (Efron and Tibshirani 1993, chapters 13 and 16): every
    question gives up the observed difference, so that none is left. A resample's difference is its sum over its
    number of questions, which varies as well.
    """
    if len(sums_I) < 2:
        return [nan, nan], nan
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
    """Swap the answerers on each image by a coin, R times: the share of sums that are as far from 0 as observed.

    The data as they are count as one more, so that the p-value is never 0 (Phipson and Smyth 2010).
    """
    sizes_K, images_K = np.unique(abs(sums_I[sums_I != 0]), return_counts=True)
    least, hits = abs(sums_I.sum()) - _TIE, 0
    for rows in _chunks(resamples, len(sizes_K)):
        swapped_RK = generator.binomial(images_K, 0.5, (rows, len(sizes_K)))
        hits += int((abs((images_K - 2 * swapped_RK) @ sizes_K) >= least).sum())
    return (1 + hits) / (1 + resamples)


def _chunks(resamples: int, kinds: int) -> Iterator[int]:
    """Give how many resamples to draw at once, so that memory is bounded; the draws are the same for any split."""
    rows = max(1, _AT_ONCE // max(1, kinds))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)
