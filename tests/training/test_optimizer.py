from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
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


@pytest.mark.parametrize(
    ("name", "kind"), [("adamax", "Adamax"), ("adam", "Adam"), ("adamw", "AdamW"), ("bert-adam", "BertAdam")]
)
def test_each_optimiser_is_the_one_named_and_leaves_frozen_parameters_out(name: str, kind: str) -> None:
    free, frozen = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2), requires_grad=False)
    optimizer = make_optimizer(Recipe(optimizer=name, weight_decay=0.1), [free, frozen])  # type: ignore[arg-type]
    assert type(optimizer).__name__ == kind
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


def bert_adam_by_hand(start: float, gradients: list[float], lr: float, decay: float) -> list[float]:
    """Return a weight after each step as the published BertAdam moves it: one number at a time."""
    weight, mean, square, path = start, 0.0, 0.0, []
    for gradient in gradients:
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        weight -= lr * (mean / (square**0.5 + 1e-6) + decay * weight)
        path.append(weight)
    return path


@given(
    st.lists(st.floats(-2, 2) | st.floats(-1e-6, 1e-6), min_size=1, max_size=8),
    st.floats(-3, 3),
    st.sampled_from([0.0, 0.01]),
)
@settings(deadline=None)
def test_bert_adam_moves_weights_as_published(gradients: list[float], start: float, decay: float) -> None:
    weight = torch.nn.Parameter(torch.tensor([start, -1.0], dtype=torch.float64))
    idle = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    recipe = Recipe(optimizer="bert-adam", lr=0.01, weight_decay=decay)
    optimizer = make_optimizer(recipe, [weight, idle])
    path = []
    for gradient in gradients:
        weight.grad = torch.tensor([gradient, 0.0], dtype=torch.float64)
        optimizer.step()
        path.append(weight[0].item())
    assert path == pytest.approx(bert_adam_by_hand(start, gradients, 0.01, decay), rel=1e-9, abs=1e-12)
    assert idle.item() == 1.0


def test_bert_adam_goes_on_from_its_state() -> None:
    recipe = Recipe(optimizer="bert-adam", lr=0.01)
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizers = [make_optimizer(recipe, [weight]) for weight in weights]
    for _ in range(3):
        weights[0].grad = weights[0].detach() ** 2
        optimizers[0].step()
    weights[1].data.copy_(weights[0].data)
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for weight, optimizer in zip(weights, optimizers, strict=True):
        weight.grad = torch.full((3,), 0.5)
        optimizer.step()
    assert torch.equal(*weights)
