from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vqabench_two_branch import LearnedMixin, LearnedMixinEntropy, two_way_entropy

from vqabench.api import Backbone, Batch, DataSpec, Output, plain_loss

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "losses.json").read_text())
CASES: list[dict[str, Any]] = GOLDEN["cases"]


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Given(Backbone):
    """Return the logits and joint features of a golden case."""

    def __init__(self, spec: DataSpec, logits_BA: Tensor, joint_BH: Tensor) -> None:
        super().__init__(spec)
        self.logits_BA, self.joint_BH = logits_BA, joint_BH
        self.joint_width = joint_BH.shape[1]

    def forward(self, batch: Batch) -> Output:
        return Output(logits_BA=self.logits_BA, joint_features_BH=self.joint_BH)


def load_case(case: dict[str, Any]) -> tuple[DataSpec, Batch, Given]:
    counts_TA, types_B = tensor(case["answer_counts_per_type"]), torch.tensor(case["question_type"])
    types, answers = counts_TA.shape
    spec = DataSpec(
        answers=tuple(map(str, range(answers))),
        words=("<padding>", "<unknown>"),
        question_types=tuple(map(str, range(types))),
        regions=1,
        region_width=1,
        question_length=1,
        answer_counts_TA=counts_TA,
        mean_targets_TA=tensor(case["bias_per_type"]),
        questions_T=torch.ones(types, dtype=torch.int64),
    )
    size = len(types_B)
    batch = Batch(
        question_ids_B=torch.arange(size),
        question_types_B=types_B,
        tokens_BL=torch.ones(size, 1, dtype=torch.int64),
        word_mask_BL=torch.ones(size, 1, dtype=torch.bool),
        type_words_BL=torch.zeros(size, 1, dtype=torch.bool),
        regions_BRV=torch.zeros(size, 1, 1),
        boxes_BR4=torch.zeros(size, 1, 4),
        region_mask_BR=torch.ones(size, 1, dtype=torch.bool),
        targets_BA=tensor(case["targets"]),
    )
    logits_BA = tensor(case["logits"]).requires_grad_()
    return spec, batch, Given(spec, logits_BA, tensor(case["hidden"]))


def with_weights(model: LearnedMixin, given: dict[str, Any]) -> LearnedMixin:
    model.double()
    names = {"smoothing": "smooth_param", "scale.weight": "bias_lin.weight", "scale.bias": "bias_lin.bias"}
    model.load_state_dict({ours: tensor(given[theirs]) for ours, theirs in names.items()})
    return model


def loss_of(output: Output, batch: Batch, weights_TA: Tensor | None = None) -> Tensor:
    assert output.training_logits_BA is not None
    assert batch.targets_BA is not None
    loss_BA = plain_loss("bce", output.training_logits_BA, batch.targets_BA)
    weights_BA = 1 if weights_TA is None else weights_TA[batch.question_types_B]
    return (weights_BA * loss_BA).sum(1).mean() + sum(output.penalties.values())


@pytest.mark.parametrize("case", CASES, ids=["first", "second"])
@pytest.mark.parametrize(("kind", "name"), [(LearnedMixin, "lm"), (LearnedMixinEntropy, "lmh")])
def test_losses_and_gradients_are_those_of_the_published_formulation(
    case: dict[str, Any], kind: type[LearnedMixin], name: str
) -> None:
    spec, batch, base = load_case(case)
    model = with_weights(kind(spec, base), case[f"{name}_parameters"])
    loss = loss_of(model(batch), batch)
    expected = case["released_code"]
    torch.testing.assert_close(loss, tensor(expected[f"{name}_plain"]), rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(loss, base.logits_BA)
    torch.testing.assert_close(gradient, tensor(expected[f"{name}_plain_grad"]), rtol=1e-5, atol=1e-9)
    rescaled = loss_of(model(batch), batch, tensor(expected["weight_with_1_plus_log2_outside_the_type"]))
    torch.testing.assert_close(rescaled, tensor(expected[f"{name}_rescaled_both_terms"]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", [LearnedMixin, LearnedMixinEntropy])
def test_what_is_scored_is_the_bases_own_logits_with_targets_and_without(kind: type[LearnedMixin]) -> None:
    spec, batch, base = load_case(CASES[0])
    model = kind(spec, base).double()
    tested = model(batch.replace(targets_BA=None))
    assert torch.equal(tested.logits_BA, base.logits_BA)
    assert torch.equal(model(batch).logits_BA, base.logits_BA)
    assert (tested.training_logits_BA, dict(tested.penalties)) == (None, {})


def test_a_strong_prior_leaves_the_base_little_to_learn() -> None:
    spec, batch, base = load_case(CASES[0])
    certain_TA = torch.zeros_like(spec.mean_targets_TA)
    certain_TA[:, 3] = 1
    model = LearnedMixin(spec, base).double()
    model.prior_TA.copy_(certain_TA)
    nn.init.zeros_(model.scale.weight)
    nn.init.constant_(model.scale.bias, 30.0)  # f = 30
    output = model(batch)
    targets_BA = certain_TA[batch.question_types_B]
    (gradient,) = torch.autograd.grad(loss_of(output, batch.replace(targets_BA=targets_BA)), base.logits_BA)
    assert gradient.abs().max() < 1e-6


def test_the_mixin_adds_to_the_training_logits_of_a_base_that_has_some() -> None:
    spec, batch, base = load_case(CASES[0])
    model = LearnedMixin(spec, base).double()
    before = model(batch).training_logits_BA
    given = Output(logits_BA=base.logits_BA, training_logits_BA=base.logits_BA + 1, joint_features_BH=base.joint_BH)
    base.register_forward_hook(lambda *_: given)
    after = model(batch).training_logits_BA
    assert before is not None
    assert after is not None
    torch.testing.assert_close(after, before + 1)


def test_the_entropy_of_two_outcomes_is_known_at_its_ends() -> None:
    even, one_sided = torch.zeros(2, 3), torch.full((2, 3), 200.0)
    assert two_way_entropy(even, even).item() == pytest.approx(0.6931472)
    assert two_way_entropy(one_sided, even).item() == pytest.approx(0, abs=1e-6)
    first = torch.tensor([[0.2]]).log()
    assert two_way_entropy(first, torch.tensor([[0.6]]).log()).item() == pytest.approx(0.5623351)


def test_all_gradients_are_right_in_double_precision() -> None:
    spec, batch, base = load_case(CASES[1])
    model = LearnedMixinEntropy(spec, base).double()

    def loss(logits_BA: Tensor, joint_BH: Tensor, weight: Tensor, bias: Tensor, smoothing: Tensor) -> Tensor:
        base.logits_BA, base.joint_BH = logits_BA, joint_BH
        given = {"scale.weight": weight, "scale.bias": bias, "smoothing": smoothing}
        output: Output = torch.func.functional_call(model, given, (batch,))
        return loss_of(output, batch)

    inputs = [base.logits_BA, base.joint_BH, *(model.scale.weight, model.scale.bias, model.smoothing)]
    assert torch.autograd.gradcheck(loss, [one.detach().clone().requires_grad_() for one in inputs])


def test_a_base_without_joint_features_and_a_negative_weight_are_refused() -> None:
    spec, _, base = load_case(CASES[0])
    with pytest.raises(ValueError, match="entropy must be at least 0, not -1"):
        LearnedMixinEntropy(spec, base, entropy=-1)
    base.joint_width = 0
    with pytest.raises(ValueError, match="joint features, which this base does not return"):
        LearnedMixin(spec, base)


def test_the_command_line_says_why_ce_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vqabench", "train", "lm", "--objective", "ce", "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "lm is not defined for --objective ce: the prior is added to the log-odds" in done.stderr
