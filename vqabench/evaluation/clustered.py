"""Two answerers of the same questions: how much they differ, and whether other images would show it too.

Questions of one image share what is to be seen in it, so an answerer errs on them together: it is images that are
drawn at random. Both tests here take an image with all its questions or not at all.

A resample needs only to know how many images of each kind it holds, a kind being all images with the same sum of
differences and number of questions. Kinds are few, so these counts are drawn, and not 100,000 images one by one:
they have the same distribution.

Shapes: N questions, I images, K kinds of images, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
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
