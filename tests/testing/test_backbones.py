"""The conformance kit finds what it is there to find: one fault each, planted in a network that is sound."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, DataSpec, Loss, Output, plain_loss
from vqabench.errors import InputError
from vqabench.losses.mask import AnswerMask
from vqabench.testing import Innermost, assert_conforms, check_class


def failed(kind: type[Any], *only: str) -> dict[str, str]:
    return {check.name: check.told for check in check_class(kind, only=only) if check.status == "failed"}


class Sound(Innermost):
    """What nothing is wrong with."""


def test_a_sound_network_and_a_transform_around_it_pass_everything() -> None:
    found = {check.name: check.status for check in check_class(Sound, {"hidden": 32})}
    assert set(found.values()) <= {"passed", "skipped"}
    assert list(found)[:4] == ["api", "options", "declarations", "output"]
    assert_conforms(AnswerMask, dropout=0.3)


def test_one_check_alone_can_be_asked_for_by_its_name() -> None:
    assert [check.name for check in check_class(Sound, only=["padding"])] == ["padding"]
    with pytest.raises(InputError, match="unknown check 'pading': did you mean 'padding'"):
        check_class(Sound, only=["pading"])


class Changed(Sound):
    """Changes its output."""

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        return dataclasses.replace(output, **self.change(output, batch))

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        raise NotImplementedError


class Infinite(Changed):
    """Is not finite for one question."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA / (batch.question_ids_B != 3)[:, None]}


class Narrow(Changed):
    """Promises other features than it gives."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        assert output.joint_features_BH is not None
        return {"joint_features_BH": output.joint_features_BH[:, 1:]}


class Inattentive(Changed):
    """Attends to regions that are not there."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"attention_BR": torch.full(batch.region_mask_BR.shape, 1 / batch.region_mask_BR.shape[1])}


class Cheating(Changed):
    """Looks at the answers."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {} if batch.targets_BA is None else {"logits_BA": output.logits_BA + batch.targets_BA}


class Sociable(Changed):
    """Lets questions of a batch bear on one another."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA - output.logits_BA.mean(0)}


class Padded(Changed):
    """Counts the room for regions."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA * batch.region_mask_BR.shape[1]}


class Random(Changed):
    """Draws in testing."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA + torch.rand_like(output.logits_BA)}


class Hidden(Changed):
    """Keeps what it answers with out of its state."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.offset = torch.rand(len(spec.answers))

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA + self.offset}


class Idle(Sound):
    """Has a layer that nothing goes through."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.unused = nn.Linear(3, 3)


class Dull(Changed):
    """Cannot learn."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": 1e-6 * output.logits_BA + torch.arange(output.logits_BA.shape[1])}


class Eager(Changed):
    """Asks Python what a tensor holds."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA * (2 if output.logits_BA.sum().item() > 0 else 1)}


class Forgetful(Sound):
    """Leaves questions out."""

    def prepare_questions(self, questions: Sequence[str]) -> Mapping[str, Tensor]:
        return {"lengths": torch.tensor([len(question) for question in questions if question])}


class Nameless(Sound):
    __doc__ = None


class Foreign(Sound):
    """Was built for another version."""

    api_version = 99


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        (Infinite, "output", "logits_BA is not finite"),
        (Narrow, "output", "joint_features_BH is 15 wide, but the class says 16"),
        (Inattentive, "attention", "not exactly 0 where there is no region"),
        (Cheating, "targets", "with targets and without"),
        (Sociable, "padding", "alone and in a padded batch"),
        (Padded, "padding", "alone and in a padded batch"),
        (Random, "repetition", "other logits the second time"),
        (Hidden, "state", "a copy by its state dict answers otherwise"),
        (Idle, "gradients", "no gradient reaches unused.weight, unused.bias"),
        (Dull, "learning", "not learnt by heart in 400 steps"),
        (Eager, "compile", "data-dependent"),
        (Forgetful, "questions", "lengths has not a row for each question"),
        (Nameless, "options", "no docstring"),
        (Foreign, "api", "version 99 of the plugin API"),
    ],
)
def test_each_fault_is_found(kind: type[Backbone], name: str, told: str) -> None:
    assert told in failed(kind, name)[name]


class Declared(Idle):
    """Has a layer that nothing goes through, and says so."""

    declarations: ClassVar[Mapping[str, str]] = {"gradients": "the layer is for later"}


class Misspelled(Sound):
    """Declares what nobody asks."""

    declarations: ClassVar[Mapping[str, str]] = {"gradient": "no reason"}


def test_what_is_declared_is_told_with_its_reason_and_fails_nothing() -> None:
    (check,) = check_class(Declared, only=["gradients"])
    assert (check.status, check.told) == ("declared", "the layer is for later")
    assert (
        "'gradient' is declared, but there is no such check" in failed(Misspelled, "declarations")["declarations"]
    )


def test_a_test_of_the_authors_fails_with_all_that_is_wrong() -> None:
    with pytest.raises(AssertionError, match=r"^stages: bce: not finite in epoch 4 of 5"):
        assert_conforms(Late)


class Biased(Loss):
    """Is summed over the batch."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return plain_loss(self.objective, logits_BA, batch.targets_BA).sum()


class Overflowing(Loss):
    """Is infinite where the model is sure."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return -(batch.targets_BA * torch.sigmoid(logits_BA).log()).sum(1).mean()


class Unprepared(Loss):
    """Divides by the count of a type that training may never have seen."""

    def __init__(self, spec: DataSpec, objective: str) -> None:
        super().__init__(spec, objective)
        self.weights_T = 1 / spec.questions_T
        self.shares_TA = spec.answer_counts_TA / spec.answer_counts_TA.sum(1, keepdim=True)

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        loss_BA = plain_loss(self.objective, logits_BA, batch.targets_BA)
        return (self.shares_TA[batch.question_types_B] * loss_BA).sum(1).mean()


class Rising(Loss):
    """Has its sign turned over."""

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return plain_loss(self.objective, logits_BA.detach() * 2 - logits_BA, batch.targets_BA).sum(1).mean()


class Late(Loss):
    """Breaks in the last epoch."""

    weight = 1.0

    def start_epoch(self, epoch: int, epochs: int) -> None:
        self.weight = float("inf") if epoch == epochs - 1 > 0 else 1.0

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        assert batch.targets_BA is not None
        return self.weight * plain_loss(self.objective, logits_BA, batch.targets_BA).sum(1).mean()


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        (Biased, "average", "of a batch given twice"),
        (Overflowing, "gradients", "at logits of 100 are missing, 0 or not finite"),
        (Unprepared, "values", "no finite scalar"),
        (Rising, "descent", "behind 100 steps along its gradient"),
        (Late, "stages", "not finite in epoch 4 of 5"),
    ],
)
def test_each_fault_of_a_loss_is_found(kind: type[Loss], name: str, told: str) -> None:
    assert told in failed(kind, name)[name]
