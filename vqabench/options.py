"""Options of a plugin: the keyword-only arguments of its `__init__`, with their types and defaults."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from vqabench.errors import InputError, PluginError, unknown

_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_ACCEPTED: dict[Any, Any] = {bool: bool, int: str | int, float: str | int | float, str: str}
"""Type of an option -> types of values that are converted to it."""


@dataclass(frozen=True)
class Option:
    """One option. Its annotation is bool, int, float, str, a Literal of strings or integers, or one or None."""

    name: str
    annotation: Any
    default: Any


def options_of(kind: type) -> dict[str, Option]:
    """Return the options of a plugin's class, by name.

    Raises PluginError if one has no default, or a type that is not supported.
    """
    hints = _hints(kind.__init__, kind)  # type: ignore[misc]
    found = {}
    for name, parameter in _parameters(kind).items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or _is_backbone(hints.get(name)):
            continue
        found[name] = _make_option(kind.__name__, name, hints.get(name), parameter.default)
    return found


def fields_of(kind: type) -> dict[str, Option]:
    """Return the fields of a dataclass as options. Raises PluginError as `options_of` does."""
    hints = _hints(kind, kind)
    return {
        field.name: _make_option(kind.__name__, field.name, hints[field.name], field.default)
        for field in dataclasses.fields(kind)
    }


def base_parameters(kind: type) -> list[str]:
    """Return the names of the parameters that receive another backbone: those annotated `Backbone`."""
    hints = _hints(kind.__init__, kind)  # type: ignore[misc]
    return [name for name in _parameters(kind) if _is_backbone(hints.get(name))]


def resolve_options(kind: type, given: Mapping[str, object], label: str) -> dict[str, Any]:
    """Return every option's value: the one given, checked and converted, or the default.

    Raises InputError, with what is allowed, if a key is unknown or a value is of the wrong type.
    """
    options = options_of(kind)
    for name in given:
        if name not in options:
            raise InputError(unknown(f"option of {label}", name, options))
    return {
        name: convert(option, given[name], f"{label}.{name}") if name in given else option.default
        for name, option in options.items()
    }


def convert(option: Option, value: object, label: str) -> Any:
    """Convert a value from the command line or a file to the option's type. Raises InputError."""
    kind, optional = _split_optional(option.annotation)
    if optional and (value is None or (isinstance(value, str) and value.lower() == "none")):
        return None
    try:
        return _convert_to(kind, value)
    except (ValueError, OverflowError):  # an integer may be too large for a float
        choices = [str(choice) for choice in get_args(kind)]
        nearest = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise InputError(f"{label}: {value!r} is not {describe(option.annotation)}{hint}") from None


def describe(annotation: Any) -> str:
    """Return a type in words: `float`, `paper | released`, `int or none`."""
    kind, optional = _split_optional(annotation)
    words = " | ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else kind.__name__
    return f"{words} or none" if optional else words


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(kind.__init__).parameters.items())[1:])  # type: ignore[misc]


def _hints(annotated: Any, owner: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(annotated)
    except Exception as error:  # whatever a plugin's annotations may raise
        raise PluginError(
            f"{owner.__name__}: the types of its arguments cannot be resolved: {error}; they must be there when "
            "the module runs, not for type checkers alone"
        ) from error


def _is_backbone(annotation: Any) -> bool:
    from vqabench.api import Backbone  # it loads torch, which the shell's completion must not wait for

    return annotation is Backbone


def _make_option(owner: str, name: str, annotation: Any, default: Any) -> Option:
    if default in (inspect.Parameter.empty, dataclasses.MISSING):
        raise PluginError(f"{owner}: its option {name!r} has no default")
    kind, _ = _split_optional(annotation)
    is_literal = get_origin(kind) is Literal and all(type(choice) in (str, int) for choice in get_args(kind))
    if kind not in _ACCEPTED and not is_literal:
        given = "no type" if annotation is None else f"the type {annotation}"
        raise PluginError(
            f"{owner}: its option {name!r} has {given}; supported: bool, int, float, str, "
            "Literal of strings or integers, each or None"
        )
    return Option(name, annotation, default)


def _split_optional(annotation: Any) -> tuple[Any, bool]:
    """Return the type without `or None`, and whether None is allowed. Any other union stays as it is."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return (kinds[0], True) if len(kinds) == 1 else (annotation, False)


def _convert_to(kind: Any, value: object) -> Any:
    """Convert a value to a type without None. Raises ValueError or OverflowError."""
    if get_origin(kind) is Literal:
        chosen = {str(choice): choice for choice in get_args(kind)}.get(str(value))
        if chosen is None or isinstance(value, bool):
            raise ValueError
        return chosen
    if kind is bool and isinstance(value, str):
        value = _BOOLEANS.get(value.lower())
    if not isinstance(value, _ACCEPTED[kind]) or (isinstance(value, bool) and kind is not bool):
        raise ValueError
    converted = kind(value)
    if kind is float and not math.isfinite(converted):
        raise ValueError
    return converted
