from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.losses.cases import CASES, load_case, make_batch, make_spec, tensor
from vqabench.api import Backbone, Batch, DataSpec, Output
from vqabench.errors import PluginError
from vqabench.losses.mask import AnswerMask, softplus_g


class Given(Backbone):
    """Answers every batch with the logits and question features that it was given."""

    question_width = 2

    def __init__(self, spec: DataSpec, logits_BA: Tensor, **penalties: Tensor) -> None:
        super().__init__(spec)
        self.logits_BA = logits_BA
        self.penalties = penalties

    def forward(self, batch: Batch) -> Output:
        features = torch.ones(len(batch), 2, dtype=self.logits_BA.dtype)
        return Output(logits_BA=self.logits_BA, question_features_BQ=features, penalties=self.penalties)


class Fixed(nn.Module):
    """A head whose pre-activations are given."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, _: Tensor) -> Tensor:
        return self.values


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["shape"]))
@pytest.mark.parametrize("activation", ["softplus-g", "sigmoid"])
def test_mask_its_loss_and_the_masked_logits_are_golden(case: dict[str, Any], activation: Any) -> None:
    spec, batch, logits_BA = load_case(case)
    expected = case["answer_mask"][activation.replace("-", "_")]
    for reduction in ("mean", "sum"):
        mask = AnswerMask(spec, Given(spec, logits_BA), activation=activation, reduction=reduction, minimum=1)
        mask.head = Fixed(tensor(case["answer_mask"]["pre_activation"]))  # type: ignore[assignment]
        output = mask(batch)
        torch.testing.assert_close(output.logits_BA, tensor(expected["masked_logits"]), rtol=1e-5, atol=1e-9)
        value = output.penalties["mask"].item()
        assert value == pytest.approx(expected[f"loss_{reduction}_over_answers"], rel=1e-5)


def test_softplus_g_never_exceeds_one_and_has_no_gradient_where_it_is_one() -> None:
    x = torch.tensor([-50.0, 0.0, 0.54, 0.55, 50.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(softplus_g(x).sum(), x)
    assert softplus_g(x).max() == 1
    assert (gradient[:3] > 0).all()
    assert (gradient[3:] == 0).all()


def test_the_mask_has_no_loss_when_the_model_is_tested() -> None:
    spec = make_spec(torch.tensor([[20.0, 0.0]]))
    mask = AnswerMask(spec, Given(spec, torch.ones(3, 2)))
    assert mask(make_batch(torch.zeros(3, dtype=torch.int64), None)).penalties == {}


def test_a_penalty_of_the_base_is_kept_and_one_of_the_same_name_refused() -> None:
    spec = make_spec(torch.tensor([[20.0, 0.0]]))
    batch = make_batch(torch.zeros(3, dtype=torch.int64), torch.ones(3, 2))
    kept = AnswerMask(spec, Given(spec, torch.ones(3, 2), entropy=torch.tensor(5.0)))(batch).penalties
    assert kept.keys() == {"entropy", "mask"}
    assert kept["entropy"] == 5
    with pytest.raises(PluginError, match="the base has a penalty called 'mask'"):
        AnswerMask(spec, Given(spec, torch.ones(3, 2), mask=torch.tensor(5.0)))(batch)


def test_a_type_that_training_never_saw_teaches_the_mask_nothing() -> None:
    spec = make_spec(torch.tensor([[20.0, 0.0], [0.0, 0.0]]), torch.tensor([5, 0]))
    mask = AnswerMask(spec, Given(spec, torch.ones(2, 2)))
    mask_BA = torch.full((2, 2), 0.3, requires_grad=True)
    (gradient_BA,) = torch.autograd.grad(mask.loss(mask_BA, torch.tensor([0, 1])), mask_BA)
    assert (gradient_BA[0] != 0).all()
    assert (gradient_BA[1] == 0).all()


def test_the_mask_is_the_only_parameter_that_it_adds() -> None:
    spec = make_spec(torch.tensor([[20.0, 30.0]]))
    mask = AnswerMask(spec, Given(spec, torch.ones(1, 2)), dropout=0.5)
    assert set(mask.state_dict()) == {"head.1.weight", "head.1.bias"}


@pytest.mark.parametrize("dropout", [-0.1, 1.1])
def test_an_impossible_dropout_is_refused(dropout: float) -> None:
    spec = make_spec(torch.tensor([[20.0, 30.0]]))
    with pytest.raises(ValueError, match="dropout must be in"):
        AnswerMask(spec, Given(spec, torch.ones(1, 2)), dropout=dropout)


def test_a_base_without_question_features_is_refused() -> None:
    spec = make_spec(torch.tensor([[20.0, 30.0]]))
    with pytest.raises(ValueError, match="builds on question features, which this backbone does not return"):
        AnswerMask(spec, Backbone(spec))


def test_a_minimum_that_leaves_no_answer_is_refused() -> None:
    spec = make_spec(torch.tensor([[3.0, 4.0]]))
    with pytest.raises(ValueError, match="smaller minimum"):
        AnswerMask(spec, Given(spec, torch.ones(1, 2)), minimum=5)
