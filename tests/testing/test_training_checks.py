"""Faults that show in training, or where a network is computed elsewhere, are found."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from tests.testing.faults import Changed, Idle, Sound, failed
from vqabench.api import Backbone, Batch, Criterion, DataSpec, Output
from vqabench.testing import check_class


class Shifted(Changed):
    """Has a parameter that a softmax takes no notice of: rounding alone gives it a gradient."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.shift = nn.Parameter(torch.zeros(1))

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        scores_BR = (batch.regions_BRV.sum(2) + self.shift).masked_fill(~batch.region_mask_BR, -torch.inf)
        return {"logits_BA": output.logits_BA * scores_BR.softmax(1).square().sum(1, keepdim=True)}


class Half(Sound):
    """Is not trained under one of its objectives."""

    def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        for value in super().training_losses(batch, criterion):
            objective = getattr(criterion, "loss").objective  # noqa: B009
            yield value.detach().requires_grad_() if objective == "ce" else value


class Noisy(Changed):
    """Draws noise from Python's generator, in training."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA + random.random() * self.training * batch.regions_BRV[:, :1, 0]}


class Seeding(Sound):
    """Starts with the same weights whatever the seed."""

    def __init__(self, spec: DataSpec) -> None:
        torch.manual_seed(7)
        super().__init__(spec)


class Dull(Changed):
    """Cannot learn."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": 1e-6 * output.logits_BA + torch.arange(output.logits_BA.shape[1])}


class Averaging(Changed):
    """Return every question of a batch the same answer in bfloat16."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        lost = torch.is_autocast_enabled("cpu")
        return {"logits_BA": output.logits_BA.mean(0).expand_as(output.logits_BA)} if lost else {}


class Rooted(Changed):
    """Has no gradient at 0, where bfloat16 is used."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        nothing_BA = (output.logits_BA * 0).sqrt() if torch.is_autocast_enabled("cpu") else 0
        return {"logits_BA": output.logits_BA + nothing_BA}


class Eager(Changed):
    """Asks Python what a tensor holds, in training."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA * (2 if self.training and output.logits_BA.sum().item() > 0 else 1)}


class Stray(Changed):
    """Keeps a tensor that is neither parameter nor buffer."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.twice = torch.full((len(spec.answers),), 2.0)

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA * self.twice}


class Fussy(Sound):
    """Refuses to be trained with some strategy, when it is too late."""

    def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        if type(getattr(criterion, "loss")).__name__ == "Focal":  # noqa: B009
            raise RuntimeError("not with this one")
        yield from super().training_losses(batch, criterion)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (Noisy, "seeds", "trained twice with the same seed, words.weight, regions.weight, regions.bias differ"),
        (Seeding, "seeds", "it seeds PyTorch's generator"),
        (Idle, "gradients", "no gradient reaches unused.weight, unused.bias"),
        (Shifted, "gradients", "no gradient reaches shift"),
        (Half, "gradients", "ce: no gradient reaches"),
        (Dull, "learning", "not memorised in 400 steps"),
        (Averaging, "autocast", "in bfloat16"),
        (Rooted, "autocast", "the gradient of"),
        (Eager, "compile", "data-dependent"),
        (Stray, "devices", "neither parameters nor buffers, so they are not moved to a GPU and not saved: twice"),
        (Fussy, "strategies", "bce-focal: RuntimeError: not with this one (test_training_checks.py, line"),
    ],
)
def test_each_fault_is_found(kind: type[Backbone], name: str, message: str) -> None:
    assert message in failed(kind, name)[name]


class Spared(Idle):
    """Declares some of its idle parameters, but not all of them."""

    declarations: ClassVar[Mapping[str, str]] = {"gradients:unused.w*": "for later"}


class SparedWholly(Idle):
    """Declares its idle parameters."""

    declarations: ClassVar[Mapping[str, str]] = {"gradients:unused.*": "for later"}


def test_parameters_that_idle_can_be_declared_by_name_and_others_are_found_still() -> None:
    assert failed(Spared, "gradients") == {"gradients": "bce: no gradient reaches unused.bias"}
    (check,) = check_class(SparedWholly, only=["gradients"])
    assert (check.status, check.message) == ("passed", "reach all 7 parameters; except unused.*: for later")


class Outdated(Sound):
    """Names a parameter that it had once."""

    declarations: ClassVar[Mapping[str, str]] = {"gradients:gate.bias": "it is left open"}


def test_a_declaration_about_no_parameter_is_found() -> None:
    assert failed(Outdated, "gradients") == {"gradients": "no parameter is named *gate.bias"}


class Featureless(Changed):
    """Return no question features, and says so."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.question_width = 0

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"question_features_BQ": None}


def test_a_strategy_that_it_cannot_be_built_with_is_told_with_the_reason() -> None:
    (check,) = check_class(Featureless, only=["strategies"])
    assert check.status == "passed"
    assert "not with mask, mask+rescale: it builds on question features" in check.message
