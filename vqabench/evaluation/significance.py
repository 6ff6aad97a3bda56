"""Significance tests: over seeds, and over questions clustered by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray
from scipy import special

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

    `scipy.stats` gives the same (the tests compare them), but takes half a second more to import, and warns
    where there is NaN here.
    """
    assert not paired or len(ours_SK) == len(theirs_SK), "paired seeds come in pairs"
    with np.errstate(divide="ignore", invalid="ignore"):  # too few seeds: 0 / 0
        ours, theirs = _summarise(ours_SK), _summarise(theirs_SK)
        differences_K = ours.means_K - theirs.means_K
        errors_K, freedom_K = _pair(_summarise(ours_SK - theirs_SK)) if paired else _welch(ours, theirs)
        errors_K = np.where(errors_K > _NO_SPREAD, errors_K, np.nan)
        margins_K = errors_K * special.stdtrit(freedom_K, (1 + CONFIDENCE) / 2)
        p_values_K = 2 * special.stdtr(freedom_K, -abs(differences_K / errors_K))
        effects_K = _hedges(differences_K, ours, theirs)
    return SeedTests(differences_K, differences_K - margins_K, differences_K + margins_K, p_values_K, effects_K)


@dataclass(frozen=True)
class _Sample:
    seeds: int
    means_K: Floats
    variances_K: Floats
    """Of the sample; NaN for fewer than two seeds."""


def _summarise(values_SK: Floats) -> _Sample:
    seeds = len(values_SK)
    means_K = values_SK.sum(0) / seeds
    return _Sample(seeds, means_K, ((values_SK - means_K) ** 2).sum(0) / max(0, seeds - 1))


def _pair(differences: _Sample) -> tuple[Floats, Floats]:
    """Give the standard error of the mean difference and its degrees of freedom."""
    errors_K = np.sqrt(differences.variances_K / differences.seeds)
    return errors_K, np.full_like(errors_K, differences.seeds - 1)


def _welch(ours: _Sample, theirs: _Sample) -> tuple[Floats, Floats]:
    """Give the standard error of the difference of means and Welch's degrees of freedom."""
    ours_K, theirs_K = ours.variances_K / ours.seeds, theirs.variances_K / theirs.seeds
    both_K = ours_K + theirs_K
    return np.sqrt(both_K), both_K**2 / (ours_K**2 / (ours.seeds - 1) + theirs_K**2 / (theirs.seeds - 1))


def _hedges(differences_K: Floats, ours: _Sample, theirs: _Sample) -> Floats:
    """Standardise by the pooled deviation of seeds, with Hedges' exact correction (1981) for small samples.

    Paired seeds are standardised alike, by the deviation of the seeds and not of their differences, so that an
    effect means the same whether or not both sides have the same seeds.
    """
    freedom = np.float64(ours.seeds + theirs.seeds - 2)
    squares_K = ours.variances_K * (ours.seeds - 1) + theirs.variances_K * (theirs.seeds - 1)
    pooled_K = np.sqrt(squares_K / freedom)
    logarithm = special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2) - np.log(freedom / 2) / 2
    effects_K: Floats = np.exp(logarithm) * differences_K / np.where(pooled_K > _NO_SPREAD, pooled_K, np.nan)
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
