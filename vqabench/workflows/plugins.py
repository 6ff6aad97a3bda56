"""`vqabench plugins show`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vqabench import options, plugins
from vqabench.errors import PluginError, unknown


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
    """Empty for a loss."""


def show_plugin(name: str) -> PluginDetails:
    """Load a backbone or a loss, and describe it. Raises PluginError where that is not possible."""
    names = {group: plugins.names(group) for group in (plugins.BACKBONES, plugins.LOSSES)}
    group = next((group for group in names if name.rpartition(":")[2] in names[group]), None)
    if group is None:
        raise PluginError(unknown("plugin", name, (one for listed in names.values() for one in listed)))
    plugin = plugins.find(group, name)
    kind = plugins.load(plugin)
    return PluginDetails(
        plugin,
        inspect.cleandoc(kind.__doc__ or ""),  # not inherited: the base class's would be about something else
        tuple(kind.objectives),
        tuple(
            OptionDetails(option.name, options.describe(option.annotation), option.default)
            for option in options.options_of(kind).values()
        ),
        dict(vars(kind.recipe)) if group == plugins.BACKBONES else {},
    )
