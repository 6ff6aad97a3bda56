from __future__ import annotations

import pytest
import torch

from tests.losses.cases import make_batch, make_spec
from vqabench.api import Backbone, Batch, Output, Recipe
from vqabench.errors import PluginError, TrainingError
from vqabench.losses.equalized_focal import EqualizedFocal
from vqabench.losses.plain import Plain
from vqabench.training.criterion import Criterion

SPEC = make_spec(torch.tensor([[20.0, 30.0]]))
BATCH = make_batch(torch.tensor([0, 0]), torch.tensor([[1.0, 0.0], [0.3, 0.9]]))


class Fixed(Backbone):
    """Returns a fixed output."""

    def forward(self, batch: Batch) -> Output:
        return self.output

    output: Output


def test_the_criterion_adds_auxiliary_losses_and_penalties() -> None:
    logits_BA, other_BA = torch.randn(2, 2), torch.randn(2, 2)
    plain = Plain(SPEC, "bce")
    criterion = Criterion(plain)
    output = Output(
        logits_BA=logits_BA, auxiliary={"question": (other_BA, 0.5)}, penalties={"entropy": torch.tensor(0.25)}
    )
    expected = plain(logits_BA, BATCH) + 0.5 * plain(other_BA, BATCH) + 0.25
    torch.testing.assert_close(criterion(output, BATCH), expected)
    assert criterion.calls[0].keys() == {"answers", "question", "entropy"}


def test_a_loss_that_remembers_its_calls_scores_answers_before_auxiliary_logits() -> None:
    logits_BA, other_BA = torch.tensor([[2.0, -1.0], [0.5, 1.0]]), torch.tensor([[-1.0, 3.0], [0.0, -2.0]])
    remembers = EqualizedFocal(SPEC, "bce")
    expected = remembers(logits_BA, BATCH) + 0.5 * remembers(other_BA, BATCH)
    criterion = Criterion(EqualizedFocal(SPEC, "bce"))
    output = Output(logits_BA=logits_BA, auxiliary={"question": (other_BA, 0.5)})
    torch.testing.assert_close(criterion(output, BATCH), expected)


def test_the_loss_sees_training_logits_and_accuracy_the_scored_ones() -> None:
    right_BA, wrong_BA = torch.tensor([[9.0, 0], [0, 9]]), torch.tensor([[0, 9.0], [9, 0]])
    criterion = Criterion(Plain(SPEC, "ce"))
    loss = criterion(Output(logits_BA=right_BA, training_logits_BA=wrong_BA), BATCH)
    assert loss > 5
    criterion.finish_step(loss)
    means = criterion.read(0, 0.1).result().means()
    assert means["train_accuracy"] == torch.tensor([1.0, 0.9]).mean().item() * 100


def test_what_is_metered_is_what_was_minimised_and_accuracy_is_of_the_first_call() -> None:
    right_BA, wrong_BA = torch.tensor([[9.0, 0], [0, 9]]), torch.tensor([[0, 9.0], [9, 0]])
    criterion = Criterion(Plain(SPEC, "ce"))
    first = criterion(Output(logits_BA=right_BA), BATCH) + 1
    criterion.finish_step(first)
    second = criterion(Output(logits_BA=wrong_BA), BATCH)
    criterion.finish_step(second)
    tally = criterion.read(0, 0.1).result()
    assert tally.steps == 2
    means = {"loss": pytest.approx((first + second).item() / 2), "train_accuracy": pytest.approx(95)}
    assert tally.means() == means


def test_a_loss_that_a_backbone_spoils_by_itself_is_noticed() -> None:
    criterion = Criterion(Plain(SPEC, "ce"))
    criterion.finish_step(criterion(Output(logits_BA=torch.zeros(2, 2)), BATCH) + torch.nan)
    with pytest.raises(TrainingError, match=r"step 8 \(learning rate 0\.1; answers 0\."):
        criterion.read(7, 0.1).result()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            Output(logits_BA=torch.zeros(2, 3)),
            r"its logits_BA must be .*, not float32 \[2, 3\]",
        ),
        (
            Output(logits_BA=torch.zeros(2, 2), penalties={"p": torch.zeros(1)}),
            r"its penalties\['p'\] must be a floating-point tensor, a scalar, not float32 \[1\]",
        ),
        (Output(logits_BA=torch.zeros(2, 2), penalties={"answers": torch.tensor(0.0)}), "have the name 'answers'"),
    ],
)
def test_a_malformed_output_names_its_field(output: Output, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Criterion(Plain(SPEC, "ce"))(output, BATCH)


def test_a_backbone_yields_one_loss_per_batch_by_default() -> None:
    backbone = Fixed(SPEC)
    backbone.output = Output(logits_BA=torch.zeros(2, 2))
    assert len(list(backbone.training_losses(BATCH, Criterion(Plain(SPEC, "ce"))))) == 1
    assert backbone.prepare_questions(["how many?"]) == {}
    assert backbone.recipe == Recipe()
