"""A wrapper meets bases that give less than others, or read questions in their own way."""

from __future__ import annotations

from torch import nn

from tests.testing.faults import failed
from vqabench.api import Backbone, Batch, DataSpec, Output, Transform, Wrapper
from vqabench.testing import check_class


class Forgetful(Backbone):
    """Is built around a base, and does not prepare questions as it does."""

    def __init__(self, spec: DataSpec, base: Backbone) -> None:
        super().__init__(spec)
        self.base = base

    def forward(self, batch: Batch) -> Output:
        output: Output = self.base(batch)
        return output


class Trusting(Transform):
    """Takes for granted that there are question features."""

    def __init__(self, spec: DataSpec, base: Backbone) -> None:
        super().__init__(spec, base)
        self.layer = nn.Linear(base.question_width or 16, len(spec.answers))

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        return Output(logits_BA=output.logits_BA * self.layer(output.question_features_BQ))


class Asking(Trusting):
    """Asks first."""

    def __init__(self, spec: DataSpec, base: Backbone) -> None:
        if not base.question_width:
            raise ValueError("no question features")
        super().__init__(spec, base)


def test_a_wrapper_that_does_not_prepare_questions_is_found() -> None:
    assert "around a base with its own tokeniser: KeyError: 'own'" in failed(Forgetful, "bases")["bases"]


def test_a_transform_that_does_not_ask_what_its_base_gives_is_found() -> None:
    assert "around a base that returns only logits: TypeError" in failed(Trusting, "bases")["bases"]


def test_a_refusal_in_words_is_nothing_wrong() -> None:
    (check,) = check_class(Asking, only=["bases"])
    assert check.status == "passed"
    assert (
        "returns only logits: refused (no question features); a base with its own tokeniser: trained"
        in check.message
    )
    (check,) = check_class(Wrapper, only=["bases"])
    assert check.status == "passed"
