"""The conformance kit finds what it is there to find: one fault each, planted in a network that is sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.testing.faults import Changed, Sound, failed
from vqabench.api import Backbone, Batch, Criterion, DataSpec, Output


class Infinite(Changed):
    """Is not finite for one question."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA / (batch.question_ids_B != 3)[:, None]}


class Narrow(Changed):
    """Promises other features than it gives."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        assert output.joint_features_BH is not None
        return {"joint_features_BH": output.joint_features_BH[:, 1:]}


class Undefined(Changed):
    """Its question features are not finite."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        assert output.question_features_BQ is not None
        return {"question_features_BQ": output.question_features_BQ / 0}


class Tuple(Sound):
    """Return logits and nothing around them."""

    def forward(self, batch: Batch) -> Output:
        return (super().forward(batch).logits_BA,)  # type: ignore[return-value]


class Penalised(Changed):
    """Has a penalty where there are no targets."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"penalties": {"mine": output.logits_BA.mean()}}


class Learned(Sound):
    """Divides by how many questions of a type training had."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.weights_T: Tensor
        self.register_buffer("weights_T", 1 / spec.questions_T)

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        return Output(logits_BA=output.logits_BA * self.weights_T[batch.question_types_B, None])


class Demanding(Sound):
    """Cannot do without word vectors."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        assert spec.word_vectors is not None, "no word vectors"


class Inattentive(Changed):
    """Attends to regions that are not there."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"attention_BR": torch.full(batch.region_mask_BR.shape, 1 / batch.region_mask_BR.shape[1])}


class Unsure(Changed):
    """Its attention does not sum to 1."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        assert output.attention_BR is not None
        return {"attention_BR": output.attention_BR * 0.9}


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


class Long(Changed):
    """Counts the room for words that its own tokeniser leaves."""

    def prepare_questions(self, questions: Sequence[str]) -> Mapping[str, Tensor]:
        longest = max(map(len, questions))
        return {"letters": torch.tensor([[ord(c) for c in question.ljust(longest)] for question in questions])}

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA * batch.extras["letters"].shape[1], "word_embeddings_BLE": None}


class Mute(Long):
    """Shows words of its own tokeniser, which nobody can tell from padding."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"word_embeddings_BLE": torch.ones(*batch.extras["letters"].shape, 3)}


class Returning(Sound):
    """Return its loss where it should yield it."""

    def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        return criterion(self(batch), batch)  # type: ignore[return-value]


class Silent(Sound):
    """Yields no loss."""

    def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        yield from ()


class Rescaling(Sound):
    """Changes the batch's targets in training."""

    def training_losses(self, batch: Batch, criterion: Criterion) -> Iterator[Tensor]:
        assert batch.targets_BA is not None
        batch.targets_BA.mul_(0.5)
        yield from super().training_losses(batch, criterion)


class Counting(Changed):
    """Remembers outside of its state how long it was trained."""

    steps = 1

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        self.steps += self.training
        return {"logits_BA": output.logits_BA * self.steps}


class Annealed(Counting):
    """Does so for training alone."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        self.steps += self.training
        return {"training_logits_BA": output.logits_BA * 0.999**self.steps}


class Random(Changed):
    """Draws in testing."""

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA + torch.rand_like(output.logits_BA)}


class Careless(Sound):
    """Changes the batch that it is given."""

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        batch.regions_BRV.zero_()
        return output


class Hidden(Changed):
    """Keeps what it answers with out of its state."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.offset = torch.rand(len(spec.answers))

    def change(self, output: Output, batch: Batch) -> dict[str, Any]:
        return {"logits_BA": output.logits_BA + self.offset}


class Forgetful(Sound):
    """Leaves questions out."""

    def prepare_questions(self, questions: Sequence[str]) -> Mapping[str, Tensor]:
        return {"lengths": torch.tensor([len(question) for question in questions if question])}


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (Infinite, "output", "logits_BA is not finite"),
        (Narrow, "output", "joint_features_BH is 15 wide, but the class says 16"),
        (Undefined, "output", "question_features_BQ is not finite"),
        (Tuple, "output", "returns an Output, not a tuple"),
        (Penalised, "output", "penalties['mine'] is returned without targets"),
        (Learned, "output", "logits_BA is not finite"),
        (Demanding, "data", "AssertionError: no word vectors (test_backbone_checks.py, line"),
        (Inattentive, "attention", "not exactly 0 where there is no region"),
        (Unsure, "attention", "does not sum to 1"),
        (Mute, "words", "words are embedded, but word_masks has 8 positions"),
        (Cheating, "targets", "with targets and without"),
        (Sociable, "padding", "alone and in a padded batch"),
        (Padded, "padding", "alone and in a padded batch"),
        (Long, "padding", "alone and in a padded batch"),
        (Random, "repetition", "different logits the second time"),
        (Careless, "output", "it changes its batch: regions_BRV"),
        (Returning, "output", "training_losses must yield losses; it returns a Tensor"),
        (Silent, "output", "training_losses yields no loss"),
        (Rescaling, "output", "it changes its batch: targets_BA"),
        (Hidden, "state", "a copy loaded from its state dict has different logits"),
        (Counting, "state", "a copy loaded from its state dict has different logits"),
        (Annealed, "state", "a copy loaded from its state dict trains differently"),
        (Forgetful, "questions", "lengths has 8 rows for 9 questions"),
    ],
)
def test_each_fault_is_found(kind: type[Backbone], name: str, message: str) -> None:
    assert message in failed(kind, name)[name]


class Tied(Sound):
    """Shares one matrix between words and answers, as language models do."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.again = nn.Linear(self.regions.in_features, self.regions.out_features)
        self.again.weight = self.regions.weight
        self.again.bias = self.regions.bias


def test_tied_weights_are_nothing_wrong() -> None:
    assert failed(Tied, "state", "gradients") == {}
