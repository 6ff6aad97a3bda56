"""`vqabench plugins show` and `check`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqabench import options, plugins

if TYPE_CHECKING:
    from vqabench.testing import Check


@dataclass(frozen=True)
class OptionDetails:
    """One option of a plugin."""

    name: str
    allowed: str
    default: Any


@dataclass(frozen=True)
class PluginDetails:
    """What loading a plugin tells beyond its metadata."""

    plugin: plugins.Plugin
    description: str
    objectives: tuple[str, ...]
    options: tuple[OptionDetails, ...]
    recipe: Mapping[str, Any]
    """Empty for a loss, and for a backbone that takes its base's."""
    second_stage: bool
    """A loss that starts only in the second stage behind a transform."""
    declarations: Mapping[str, str]
    """Checks and objectives that cannot be for it, with its author's reasons."""
    advises_against: Mapping[str, str]
    """What it had better not be trained with, likewise."""


def show_plugin(name: str) -> PluginDetails:
    """Load a backbone or a loss, and describe it. Raises PluginError where that is not possible."""
    plugin = plugins.find_of_any_kind(name)
    kind = plugins.load(plugin)
    bases = options.base_parameters(kind) if plugin.group == plugins.BACKBONES else []
    return PluginDetails(
        plugin,
        inspect.cleandoc(kind.__doc__ or ""),  # not inherited: the base class's would be about something else
        tuple(kind.objectives),
        (
            *(
                OptionDetails(base, "a backbone", (kind.default_base or "must be chosen").rpartition(":")[2])
                for base in bases
            ),
            *(
                OptionDetails(option.name, options.describe(option.annotation), option.default)
                for option in options.options_of(kind).values()
            ),
        ),
        dict(vars(kind.recipe)) if plugin.group == plugins.BACKBONES and _has_recipe(kind, bases) else {},
        bool(getattr(kind, "finetunes", False)),
        dict(kind.declarations),
        dict(getattr(kind, "advises_against", {})),
    )


def check_plugin(
    plugin: plugins.Plugin, settings: Mapping[str, object], only: Sequence[str] = ()
) -> Iterator[Check]:
    """Check whether a backbone or a loss keeps what the plugin API promises.

    Raises InputError where a setting, or the name of a check, is not possible.
    """
    from vqabench import testing  # loads torch

    return testing.check_plugin(plugin, settings, only)


def _has_recipe(kind: type[Any], bases: Sequence[str]) -> bool:
    from vqabench.api import Backbone  # loaded with the plugin

    return not bases or kind.recipe is not Backbone.recipe
