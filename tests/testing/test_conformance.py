"""All checks together: what is checked, what is declared, what an author's own test says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tests.testing.faults import Idle, Late, Sound, failed
from vqabench.api import Backbone, Batch, DataSpec, Output, Recipe
from vqabench.errors import InputError
from vqabench.losses.mask import AnswerMask
from vqabench.testing import Innermost, assert_conforms, check_class


def test_a_sound_network_and_a_transform_around_it_pass_everything() -> None:
    checks = list(check_class(Sound, {"hidden": 32}))
    found = {check.name: check.status for check in checks}
    messages = {check.name: check.message for check in checks}
    assert messages["declarations"] == "no exceptions declared"
    assert messages["capture"] == "not declared `capturable`"
    assert re.match(r"trains with (all )?\d+ strategies", messages["strategies"])
    assert set(found.values()) <= {"passed", "skipped"}
    assert list(found)[:5] == ["api", "docs", "options", "declarations", "questions"]
    assert list(found)[-1] == "strategies"
    assert_conforms(AnswerMask, dropout=0.3)


def test_one_check_alone_can_be_asked_for_by_its_name() -> None:
    assert [check.name for check in check_class(Sound, only=["padding"])] == ["padding"]
    with pytest.raises(InputError, match="unknown check 'pading': did you mean 'padding'"):
        check_class(Sound, only=["pading"])


class Broken(Sound):
    """Does not answer at all."""

    def forward(self, batch: Batch) -> Output:
        raise IndexError("no such layer")


def test_nothing_else_is_tried_of_a_backbone_that_does_not_answer() -> None:
    checks = list(check_class(Broken))
    assert checks[-1].name == "output"
    assert checks[-1].message.startswith("IndexError: no such layer (test_conformance.py, line ")


class Nameless(Sound):
    __doc__ = None


class Foreign(Sound):
    """Was built for another version."""

    api_version = 99


class Endless(Sound):
    """Wants to be trained as nobody can."""

    recipe = Recipe(epochs=0)


class Spelled(Sound):
    """Spells a number."""

    recipe = Recipe(batch_size="256")  # type: ignore[arg-type]


class Positional(Innermost):
    """Has an option that nobody can set."""

    def __init__(self, spec: DataSpec, hidden: int = 8) -> None:
        super().__init__(spec, hidden=hidden)


class Anything(Innermost):
    """Takes whatever comes."""

    def __init__(self, spec: DataSpec, **options: Any) -> None:
        super().__init__(spec, **options)


class Mistyped(Innermost):
    """Has a default of another type."""

    def __init__(self, spec: DataSpec, *, hidden: int = "8") -> None:  # type: ignore[assignment]
        super().__init__(spec, hidden=int(hidden))


class Misspelled(Sound):
    """Declares what nobody asks."""

    declarations: ClassVar[Mapping[str, str]] = {"gradient": "no reason"}


class Excused(Sound):
    """Declares what every backbone must hold to."""

    declarations: ClassVar[Mapping[str, str]] = {"output": "it has a cold"}


class Unreasonable(Sound):
    """Declares without a reason."""

    declarations: ClassVar[Mapping[str, str]] = {"compile": " "}


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (Nameless, "docs", "no docstring"),
        (Foreign, "api", "version 99 of the plugin API"),
        (Endless, "api", "recipe.epochs must be from 1 to 100000, not 0"),
        (Spelled, "api", "its recipe has values of the wrong type"),
        (Positional, "options", "hidden is not an option, because it is not keyword-only"),
        (Anything, "options", "**options: such options cannot be set or listed"),
        (Mistyped, "options", "hidden: the default '8' is not of the annotated type"),
        (Misspelled, "declarations", "unknown declaration 'gradient': did you mean 'gradients'"),
        (Excused, "declarations", "unknown declaration 'output'"),
        (Unreasonable, "declarations", "'compile' is declared without a reason"),
    ],
)
def test_each_fault_of_a_class_is_found(kind: type[Backbone], name: str, message: str) -> None:
    assert message in failed(kind, name)[name]


class Declared(Idle):
    """Has a layer that nothing goes through, and says so."""

    declarations: ClassVar[Mapping[str, str]] = {"gradients": "the layer is for later"}


class Outdated(Sound):
    """Declares what was true once."""

    declarations: ClassVar[Mapping[str, str]] = {"compile": "its parser runs in Python"}


def test_what_is_declared_is_told_with_its_reason_and_fails_nothing() -> None:
    (check,) = check_class(Declared, only=["gradients"])
    assert (check.status, check.message) == ("declared", "the layer is for later")
    (check,) = check_class(Outdated, only=["compile"])
    assert check.message == "its parser runs in Python (but here it holds)"


def test_a_test_of_the_authors_fails_with_all_that_is_wrong() -> None:
    with pytest.raises(AssertionError, match=r"^stages: bce: not finite in epoch 4 of 5"):
        assert_conforms(Late)
