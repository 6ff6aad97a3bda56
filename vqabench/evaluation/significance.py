"""Two configurations over their seeds: how much they differ, and whether seeds alone would differ as much.

Shapes: S seeds of one side, K numbers (splits, metrics, categories) that are compared at once.
"""

from __future__ import annotations

from dataclasses import dataclass

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
