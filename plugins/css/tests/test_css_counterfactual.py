"""Contributions, and the batches made of what is critical."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from vqabench_css.counterfactual import contributions, counterfactual_targets, keep_questions, keep_regions

from vqabench.api import Batch
from vqabench.errors import PluginError
from vqabench.testing import make_sample, make_spec


def batch_of(size: int, **fields: Any) -> Batch:
    given = {
        "regions_BRV": torch.rand(size, 3, 2) + 1,
        "region_mask_BR": torch.tensor([[True, True, False]]).expand(size, 3),
    }
    return make_sample(make_spec(regions=3, region_width=2), size).batch.replace(**(given | fields))


def test_contributions_are_gradients_of_the_right_answers_summed_over_the_features() -> None:
    # logits_a = Σ_r Σ_v x_rv² w_ra, so region r adds Σ_v 2 x_rv Σ_a w_ra over the right answers.
    regions_BRV = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]], requires_grad=True)
    weights_RA = torch.tensor([[1.0, 5.0, 0.5], [2.0, 7.0, -4.0]])
    logits_BA = torch.einsum("brv,ra->ba", regions_BRV.square(), weights_RA)
    targets_BA = torch.tensor([[0.3, 0.0, 1.0]])  # how large a target is does not matter
    expected_BR = torch.tensor([[2 * 3 * 1.5, 2 * 2 * -2.0]])
    torch.testing.assert_close(contributions(logits_BA, targets_BA, regions_BRV), expected_BR)
    assert regions_BRV.grad is None
    torch.autograd.backward(logits_BA.sum())  # the graph is still there
    assert regions_BRV.grad is not None


def test_contributions_of_one_question_do_not_depend_on_another() -> None:
    regions_BRV = torch.randn(2, 3, 4, requires_grad=True)
    logits_BA = regions_BRV.square().sum(1)
    targets_BA = torch.tensor([[0, 0, 1.0, 0], [0, 0, 0, 0]])
    found_BR = contributions(logits_BA, targets_BA, regions_BRV)
    torch.testing.assert_close(found_BR[0], 2 * regions_BRV.detach()[0, :, 2])
    assert found_BR[1].equal(torch.zeros(3))


def test_the_gradient_is_as_precise_as_the_forward_pass_under_autocast() -> None:
    regions_BRV = torch.randn(2, 3, 4, requires_grad=True)
    logits_BA = (regions_BRV @ torch.randn(4, 5)).square().sum(1)
    targets_BA = torch.rand(2, 5)
    precise_BR = contributions(logits_BA, targets_BA, regions_BRV)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contributions(logits_BA, targets_BA, regions_BRV).equal(precise_BR)


def test_a_right_answer_that_is_ruled_out_beside_others_spoils_nothing() -> None:
    regions_BRV = torch.ones(1, 2, 2, requires_grad=True)
    logits_BA = torch.cat([regions_BRV.sum(1), torch.tensor([[-torch.inf]])], dim=1)
    found_BR = contributions(logits_BA, torch.tensor([[1.0, 0.0, 0.0]]), regions_BRV)
    assert found_BR.equal(torch.ones(1, 2))


@pytest.mark.parametrize("inputs", [torch.ones(1, 2, 2), torch.ones(1, 2, 2, requires_grad=True)])
def test_inputs_that_the_answers_do_not_depend_on_are_refused(inputs: Tensor) -> None:
    logits_BA = torch.zeros(1, 3, requires_grad=True) * 2
    with pytest.raises(PluginError, match=r"css: the base's logits"):
        contributions(logits_BA, torch.ones(1, 3), inputs)


def test_regions_taken_away_are_masked_out_and_zero() -> None:
    batch = batch_of(2)
    kept_BR = torch.tensor([[True, False, True], [False, True, False]])
    kept = keep_regions(batch, kept_BR)
    expected_BR = torch.tensor([[True, False, False], [False, True, False]])
    assert kept.region_mask_BR.equal(expected_BR)
    assert kept.regions_BRV.equal(batch.regions_BRV * expected_BR[:, :, None])
    assert (batch.regions_BRV > 0).all()  # the batch itself is as it was


def test_questions_are_kept_with_all_that_belongs_to_them() -> None:
    extras = {"pieces": torch.arange(3)[:, None]}
    batch = batch_of(3, extras=extras)
    kept = keep_questions(batch, torch.tensor([0, 2]))
    assert len(kept) == 2
    for field in dataclasses.fields(batch):
        before, after = getattr(batch, field.name), getattr(kept, field.name)
        if field.name == "extras":
            before, after = before["pieces"], after["pieces"]
        assert after.equal(before[[0, 2]]), field.name


def test_a_batch_that_keeps_its_questions_is_not_copied() -> None:
    batch = batch_of(2)
    assert keep_questions(batch, torch.tensor([0, 1])) is batch


def test_fields_that_a_data_set_lacks_stay_away() -> None:
    kept = keep_questions(batch_of(2, targets_BA=None, object_ids_BR=None), torch.tensor([1]))
    assert kept.targets_BA is None
    assert kept.object_ids_BR is None


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [[0.0, 0.3, 0.6, 0.9]]), (2, [[0.0, 0.3, 0.0, 0.9]]), (3, [[0.0, 0.3, 0.0, 0.0]]), (9, [[0.0] * 4])],
)
def test_targets_lose_the_first_answers(count: int, expected: list[list[float]]) -> None:
    targets_BA = torch.tensor([[1.0, 0.3, 0.6, 0.9]])
    logits_BA = torch.tensor([[5.0, -1.0, 4.0, 3.0]])
    assert counterfactual_targets(targets_BA, logits_BA, count).equal(torch.tensor(expected))
    assert targets_BA[0, 0] == 1
