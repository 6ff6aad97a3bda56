"""Which regions and words are critical, on numbers that can be checked by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqabench_css.critical import candidate_regions, critical_regions, critical_words, regions_left

INF = torch.inf


def mask(*rows: str) -> torch.Tensor:
    """Spell a mask: `x` is True."""
    return torch.tensor([[letter == "x" for letter in row] for row in rows])


def by_shares(*shares: float) -> torch.Tensor:
    """Return contributions whose softmax, ten times as sharp, has these shares."""
    return torch.tensor([shares]).log() / 10


def test_candidates_are_the_most_similar_real_regions() -> None:
    similarity_BR = torch.tensor([[0.1, 0.9, 0.5, 0.95], [0.4, 0.3, 0.2, 0.1]])
    found_BR = candidate_regions(similarity_BR, mask("xxx.", "xxxx"), 2)
    assert found_BR.equal(mask(".xx.", "xx.."))


def test_more_candidates_than_regions_are_all_real_regions() -> None:
    assert candidate_regions(torch.rand(1, 4), mask("xxx."), 9).equal(mask("xxx."))


def test_all_real_regions_are_candidates_where_nothing_is_known() -> None:
    real_BR = mask("xxxx", "xx..")
    assert candidate_regions(None, real_BR, 1).equal(real_BR)
    assert candidate_regions(torch.full((2, 4), -INF), real_BR, 1).equal(real_BR)


def test_a_region_of_unknown_class_is_no_candidate_beside_a_known_one() -> None:
    assert candidate_regions(torch.tensor([[-INF, -0.5, -INF]]), mask("xxx"), 2).equal(mask(".x."))


@pytest.mark.parametrize(
    ("share", "expected"), [(0.3, "..x."), (0.65, "..x."), (0.75, "x.x."), (0.95, "xxx."), (1.0, "xxxx")]
)
def test_critical_are_those_whose_cumulative_share_is_small_enough(share: float, expected: str) -> None:
    contributions_BR = by_shares(0.3, 0.2, 0.4, 0.1)  # sorted: 0.4, 0.7, 0.9, 1.0
    found_BR = critical_regions(contributions_BR, mask("xxxx"), sharpness=10.0, share=share)
    assert found_BR.equal(mask(expected))


def test_the_first_is_critical_however_large_its_share() -> None:
    contributions_BR = by_shares(0.05, 0.94, 0.01)
    assert critical_regions(contributions_BR, mask("xxx"), sharpness=10.0, share=0.65).equal(mask(".x."))


def test_shares_are_of_the_candidates_alone() -> None:
    contributions_BR = by_shares(0.6, 0.2, 0.1, 0.1)  # without the first: 0.5, 0.75, 1.0
    found_BR = critical_regions(contributions_BR, mask(".xxx"), sharpness=10.0, share=0.8)
    assert found_BR.equal(mask(".xx."))


def test_sharpness_scales_contributions_before_the_softmax() -> None:
    contributions_BR = torch.tensor([[0.3, 0.2, 0.1, 0.0]])
    flat_BR = critical_regions(contributions_BR, mask("xxxx"), sharpness=0.01, share=0.65)  # a quarter each
    sharp_BR = critical_regions(contributions_BR, mask("xxxx"), sharpness=10.0, share=0.65)  # 0.64, 0.88, ...
    assert flat_BR.equal(mask("xx.."))
    assert sharp_BR.equal(mask("x..."))


def test_all_but_critical_regions_are_left() -> None:
    left_BR = regions_left(mask("x.x.."), torch.zeros(1, 5), mask("xxxx."))
    assert left_BR.equal(mask(".x.x."))


def test_of_all_regions_critical_the_one_with_least_contribution_is_left() -> None:
    contributions_BR = torch.tensor([[0.5, -0.2, 0.1, -9.0], [0.5, 0.0, 0.0, 0.0]])
    real_BR = mask("xxx.", "x...")  # the fourth of the first row is padding
    assert regions_left(real_BR, contributions_BR, real_BR).equal(mask(".x..", "x..."))


def test_the_critical_word_has_the_largest_contribution_of_the_free_words() -> None:
    contributions_BL = torch.tensor([[9.0, 8.0, 1.0, 3.0, 2.0], [0.0, 0.0, -3.0, -2.0, -1.0], [1.0] * 5])
    free_BL = mask("..xxx", "..xx.", ".....")
    assert critical_words(contributions_BL, free_BL).equal(mask("...x.", "...x.", "....."))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 1.0), st.floats(0.1, 100.0), st.integers(1, 12))
def test_whatever_contributions_are_the_sets_are_sound(
    seed: int, share: float, sharpness: float, count: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    real_BR = torch.rand(6, 8, generator=generator) < 0.6
    real_BR[torch.arange(6), torch.randint(8, (6,), generator=generator)] = True
    contributions_BR = torch.randn(6, 8, generator=generator)
    candidates_BR = candidate_regions(torch.randn(6, 8, generator=generator), real_BR, count)
    critical_BR = critical_regions(contributions_BR, candidates_BR, sharpness=sharpness, share=share)
    left_BR = regions_left(critical_BR, contributions_BR, real_BR)
    assert candidates_BR.sum(1).equal(real_BR.sum(1).clamp(max=count))
    assert not (critical_BR & ~candidates_BR).any()
    assert not (left_BR & ~real_BR).any()
    assert critical_BR.any(1).all()
    assert left_BR.any(1).all()
    largest_B = contributions_BR.masked_fill(~candidates_BR, -INF).argmax(1, keepdim=True)
    assert critical_BR.gather(1, largest_B).all()
    # No region outside the critical ones contributes more than one inside.
    inside_B = contributions_BR.masked_fill(~critical_BR, INF).amin(1)
    outside_B = contributions_BR.masked_fill(critical_BR | ~candidates_BR, -INF).amax(1)
    assert (inside_B >= outside_B).all()
