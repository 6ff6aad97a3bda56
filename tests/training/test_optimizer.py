from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqabench.api import Recipe
from vqabench.training.optimizer import learning_rate, make_optimizer


def test_the_rate_is_constant_unless_asked_otherwise() -> None:
    assert {learning_rate(Recipe(lr=0.5), step, 10) for step in range(10)} == {0.5}


def test_a_linear_schedule_rises_over_the_warm_up_and_falls_to_zero() -> None:
    recipe = Recipe(lr=1.0, schedule="linear", warmup=0.2)
    rates = [learning_rate(recipe, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


@given(st.integers(1, 500), st.floats(0, 0.99), st.sampled_from(["constant", "linear"]))
def test_the_rate_stays_between_zero_and_the_recipes(steps: int, warmup: float, schedule: str) -> None:
    recipe = Recipe(lr=0.3, schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    assert all(0 < learning_rate(recipe, step, steps) <= 0.3 for step in range(steps))


@pytest.mark.parametrize(("name", "kind"), [("adamax", "Adamax"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_each_optimiser_is_the_one_named_and_leaves_frozen_parameters_out(name: str, kind: str) -> None:
    free, frozen = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2), requires_grad=False)
    optimizer = make_optimizer(Recipe(optimizer=name, weight_decay=0.1), [free, frozen])  # type: ignore[arg-type]
    assert type(optimizer).__name__ == kind
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
