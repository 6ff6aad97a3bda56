"""Options come from annotated arguments, and every value is checked before anything is built."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin_installation import run_python
from vqabench.api import Backbone, DataSpec, Loss, Recipe, Transform
from vqabench.errors import InputError, PluginError
from vqabench.options import Option, base_parameters, convert, describe, fields_of, options_of, resolve_options

if TYPE_CHECKING:
    from fractions import Fraction

finite = st.floats(allow_nan=False, allow_infinity=False)


class Wrapper(Backbone):
    """One option of every type, over a base."""

    def __init__(
        self,
        spec: DataSpec,
        base: Backbone,
        *,
        width: int = 8,
        rate: float = 0.5,
        deep: bool = False,
        word: str = "a",
        variant: Literal["paper", "released"] = "paper",
        steps: Literal[1, 2] | None = None,
        clip: float | None = None,
    ) -> None:
        super().__init__(spec)


class KeywordBase(Backbone):
    def __init__(self, spec: DataSpec, *, inner: Backbone, width: int = 8) -> None:
        super().__init__(spec)


def option(annotation: Any) -> Option:
    return Option("x", annotation, None)


def test_options_are_the_keyword_only_arguments_alone() -> None:
    assert list(options_of(Wrapper)) == ["width", "rate", "deep", "word", "variant", "steps", "clip"]
    assert options_of(Wrapper)["width"] == Option("width", int, 8)
    assert options_of(Loss) == options_of(Backbone) == options_of(Transform) == {}


def test_a_base_is_no_option_however_it_is_passed() -> None:
    assert base_parameters(Wrapper) == ["base"]
    assert base_parameters(Transform) == ["base"]
    assert base_parameters(KeywordBase) == ["inner"]
    assert list(options_of(KeywordBase)) == ["width"]
    assert base_parameters(Backbone) == base_parameters(Loss) == []


def test_a_recipe_has_options_too() -> None:
    fields = fields_of(Recipe)
    assert fields["lr"] == Option("lr", float, Recipe().lr)
    assert {name: one.default for name, one in fields.items()} == vars(Recipe())
    assert convert(fields["clip"], "none", "recipe.clip") is None


@dataclass
class Unfinished:
    made: int = field(default_factory=int)


def test_a_field_without_a_plain_default_is_refused() -> None:
    with pytest.raises(PluginError, match="Unfinished: its option 'made' has no default"):
        fields_of(Unfinished)


class NoDefault(Loss):
    def __init__(self, spec: DataSpec, objective: str, *, gamma: float) -> None:
        super().__init__(spec, objective)


class NoType(Loss):
    def __init__(self, spec: DataSpec, objective: str, *, gamma=2.0) -> None:  # type: ignore[no-untyped-def]
        super().__init__(spec, objective)


class Unresolvable(Loss):
    def __init__(self, spec: DataSpec, objective: str, *, gamma: Fraction | None = None) -> None:
        super().__init__(spec, objective)


class Unsupported(Loss):
    def __init__(self, spec: DataSpec, objective: str, *, gamma: list[int] | None = None) -> None:
        super().__init__(spec, objective)


class TwoTypes(Loss):
    def __init__(self, spec: DataSpec, objective: str, *, gamma: int | str = 2) -> None:
        super().__init__(spec, objective)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoDefault, "NoDefault: its option 'gamma' has no default"),
        (NoType, "NoType: its option 'gamma' has no type"),
        (Unresolvable, "Unresolvable: the types of its arguments cannot be resolved: name 'Fraction'"),
        (Unsupported, "Unsupported: its option 'gamma' has the type list"),
        (TwoTypes, "TwoTypes: its option 'gamma' has the type int | str; supported: bool, int, float, str"),
    ],
)
def test_a_plugin_with_an_option_that_cannot_be_set_is_refused(kind: type, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        options_of(kind)
    assert message in str(caught.value)


def test_defaults_fill_what_is_not_given() -> None:
    values = resolve_options(Wrapper, {"width": "16", "clip": 1, "variant": "released"}, "wrapper")
    rest = {"rate": 0.5, "deep": False, "word": "a", "steps": None}
    assert values == {"width": 16, "clip": 1.0, "variant": "released", **rest}
    assert type(values["clip"]) is float


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown option of wrapper 'widht': did you mean 'width'\\? valid: clip"):
        resolve_options(Wrapper, {"widht": 1}, "wrapper")


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (float, "abc", "part.x: 'abc' is not float"),
        (float, "nan", "'nan' is not float"),
        (float, math.inf, "inf is not float"),
        (float, 10**400, "is not float"),
        (float, True, "True is not float"),
        (int, "1.5", "'1.5' is not int"),
        (int, 2.0, "2.0 is not int"),
        (int, False, "False is not int"),
        (int, None, "None is not int"),
        (int | None, "nothing", "'nothing' is not int or none"),
        (bool, "maybe", "'maybe' is not bool"),
        (bool, 1, "1 is not bool"),
        (str, 3, "3 is not str"),
        (str, ["a"], "['a'] is not str"),
        (Literal["paper", "released"], "realeased", "is not paper | released; did you mean 'released'?"),
        (Literal[1, 2], 3, "3 is not 1 | 2"),
        (Literal[1, 2], True, "True is not 1 | 2"),
    ],
)
def test_a_wrong_value_is_reported_with_what_is_allowed(annotation: Any, value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(option(annotation), value, "part.x")
    assert message in str(caught.value)
    assert str(caught.value).startswith("part.x: ")


@given(st.integers())
def test_integers_are_read_back(value: int) -> None:
    for annotation in (int, int | None):
        assert convert(option(annotation), str(value), "x") == convert(option(annotation), value, "x") == value


@given(finite)
def test_floats_are_read_back(value: float) -> None:
    for annotation in (float, float | None):
        assert convert(option(annotation), repr(value), "x") == convert(option(annotation), value, "x") == value


@given(st.integers(-(2**53), 2**53))
def test_floats_accept_integers(value: int) -> None:
    converted = convert(option(float), value, "x")
    assert (type(converted), converted) == (float, value)


@given(st.booleans())
def test_booleans_are_read_back_as_toml_and_python_write_them(value: bool) -> None:
    for words in (value, str(value), str(value).lower()):
        assert convert(option(bool), words, "x") is value


@given(st.text())
def test_text_is_taken_as_it_is(value: str) -> None:
    assert convert(option(str), value, "x") == value


@given(st.sampled_from([1, "paper", "a b"]))
def test_choices_keep_their_type(value: int | str) -> None:
    annotation = Literal[1, "paper", "a b"]
    for words in (value, str(value)):
        converted = convert(option(annotation), words, "x")
        assert (type(converted), converted) == (type(value), value)


@pytest.mark.parametrize("annotation", [int | None, float | None, str | None, Literal["a"] | None])
def test_none_is_written_none(annotation: Any) -> None:
    assert convert(option(annotation), "none", "x") is None
    assert convert(option(annotation), None, "x") is None


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_any_value_is_converted_or_refused_in_words(value: object) -> None:
    for annotation in (bool, int, float, str, Literal["a", 1], int | None):
        try:
            convert(option(annotation), value, "part.x")
        except InputError as error:
            assert str(error).startswith("part.x: ")  # noqa: PT017 - either way is right


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (float, "float"),
        (int | None, "int or none"),
        (Literal["paper", "released"], "paper | released"),
        (Literal[1, 2] | None, "1 | 2 or none"),
    ],
)
def test_types_are_described_for_people(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


def test_importing_options_loads_nothing_heavy() -> None:
    done = run_python("import json, sys, vqabench.options; print(json.dumps(list(sys.modules)))")
    assert not {"torch", "numpy", "h5py", "sklearn"} & set(json.loads(done.stdout)), done.stderr
