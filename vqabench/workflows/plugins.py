"""`vqabench plugins show` and `check`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqabench import options, plugins
from vqabench.errors import PluginError, unknown

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


def show_plugin(name: str) -> PluginDetails:
    """Load a backbone or a loss, and describe it. Raises PluginError where that is not possible."""
    plugin = _find(name)
    kind = plugins.load(plugin)
    bases = options.base_parameters(kind) if plugin.group == plugins.BACKBONES else []
    return PluginDetails(
        plugin,
        inspect.cleandoc(kind.__doc__ or ""),  # not inherited: the base class's would be about something else
        tuple(kind.objectives),
        (
            *(OptionDetails(base, "a backbone", kind.default_base or "must be chosen") for base in bases),
            *(
                OptionDetails(option.name, options.describe(option.annotation), option.default)
                for option in options.options_of(kind).values()
            ),
        ),
        dict(vars(kind.recipe)) if plugin.group == plugins.BACKBONES and _has_recipe(kind, bases) else {},
    )


def check_plugin(name: str, settings: Mapping[str, object], only: Sequence[str] = ()) -> Iterator[Check]:
    """Check whether a backbone or a loss keeps what the plugin API promises.

    Raises PluginError where it cannot be loaded, InputError where a setting is not possible.
    """
    from vqabench import testing  # loads torch

    return testing.check_plugin(_find(name), settings, only)


def _has_recipe(kind: type[Any], bases: Sequence[str]) -> bool:
    from vqabench.api import Backbone  # loaded with the plugin

    return not bases or kind.recipe is not Backbone.recipe


def _find(name: str) -> plugins.Plugin:
    """Find the one plugin of that name, of whichever kind."""
    found = [one for group in plugins.KINDS for one in plugins.available(group).plugins]
    named = [one for one in found if name in (one.name, one.qualified)]
    if not named:
        raise PluginError(unknown("plugin", name, {one.name for one in found}))
    return plugins.find(named[0].group, name)
