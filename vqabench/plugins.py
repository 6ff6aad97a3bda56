"""Plugins: what installed distributions offer through entry points.

Listing reads metadata and imports nothing; only the plugin asked for is loaded.
"""

from __future__ import annotations

import configparser
import importlib
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import entrypoints

from vqabench.errors import PluginError, unknown

BACKBONES = "vqabench.backbones"
LOSSES = "vqabench.losses"
KINDS = {BACKBONES: "backbone", LOSSES: "loss"}


@dataclass(frozen=True)
class Plugin:
    """One entry point, as its distribution's metadata tells of it."""

    name: str
    group: str
    distribution: str
    """Normalised, as in PEP 503."""
    version: str
    target: str
    """`module:attribute`."""


@dataclass(frozen=True)
class Discovery:
    """What was found, and a line on each distribution that could not be read."""

    plugins: tuple[Plugin, ...]
    problems: tuple[str, ...] = ()


def available(group: str) -> Discovery:
    """List a group's plugins, by name, from metadata alone."""
    return _discover(group, tuple(entry or "." for entry in sys.path))


def names(group: str) -> list[str]:
    """List the names in a group, each once."""
    return list(dict.fromkeys(plugin.name for plugin in available(group).plugins))


def find(group: str, name: str) -> Plugin:
    """Find a plugin by its name, or by `distribution:name`.

    Raises PluginError where there is none, or two distributions offer one of that name.
    """
    found = available(group)
    distribution, colon, plain = name.rpartition(":")
    matches = [
        plugin
        for plugin in found.plugins
        if plugin.name == plain and (not colon or plugin.distribution == _normalise(distribution))
    ]
    if not matches:
        told = "".join(f"; {problem}" for problem in found.problems)
        raise PluginError(unknown(KINDS[group], name, {plugin.name for plugin in found.plugins}) + told)
    if len(matches) > 1:
        choices = " or ".join(f"{plugin.distribution}:{plugin.name}" for plugin in matches)
        raise PluginError(f"{KINDS[group]} {plain!r} is offered by {len(matches)} distributions; write {choices}")
    return matches[0]


def load(plugin: Plugin) -> type[Any]:
    """Import one plugin's class. Raises PluginError, naming distribution and cause, where that fails."""
    from vqabench import api

    where = f"{KINDS[plugin.group]} {plugin.name!r} of {plugin.distribution} {plugin.version}"
    module, _, attributes = plugin.target.partition(":")
    try:
        loaded = importlib.import_module(module)
        for attribute in attributes.split("."):
            loaded = getattr(loaded, attribute)
    except Exception as error:  # a plugin may raise anything
        raise PluginError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    wanted = (api.Backbone,) if plugin.group == BACKBONES else (api.Loss, api.Transform)
    spelled = " or ".join(kind.__name__ for kind in wanted)
    if not isinstance(loaded, type) or not issubclass(loaded, wanted):
        raise PluginError(f"{where}: {plugin.target} is not a class derived from {spelled} of vqabench.api")
    if plugin.group == BACKBONES and issubclass(loaded, api.Transform):
        raise PluginError(f"{where} is a transform; it belongs in the group {LOSSES}")
    if loaded.api_version != api.API_VERSION:
        raise PluginError(
            f"{where} was built for version {loaded.api_version} of the plugin API, but this vqabench has "
            f"{api.API_VERSION}; install versions of the two that agree"
        )
    return loaded


@cache
def _discover(group: str, path: tuple[str, ...]) -> Discovery:
    """Ask `entrypoints`; where one distribution fails the whole listing, ask them one by one."""
    with warnings.catch_warnings(record=True) as dropped:
        warnings.simplefilter("always")
        try:
            found = entrypoints.get_group_all(group, path=list(path))
        except Exception:  # malformed metadata of any project raises errors of many kinds
            return _discover_one_by_one(group, path)
    if dropped:  # it leaves out, with a warning, what it cannot parse
        return _discover_one_by_one(group, path)
    return _sort(_describe(one, group) for one in found)


def _describe(found: entrypoints.EntryPoint, group: str) -> Plugin:
    assert found.distro is not None  # a listing by group always knows the distribution
    name = found.distro.name
    version = _version(name) or found.distro.version or "unknown"
    return Plugin(found.name, group, _normalise(name), version, f"{found.module_name}:{found.object_name}")


def _discover_one_by_one(group: str, path: Sequence[str]) -> Discovery:
    """Read each distribution by itself, so that a malformed one spoils nothing but itself."""
    plugins, problems, seen = [], [], set()
    for distribution in metadata.distributions(path=list(path)):
        name = _name(distribution)
        if name in seen:  # found earlier on the path, which is what an import would find
            continue
        seen.add(name)
        text = distribution.read_text("entry_points.txt") or ""
        try:
            entrypoints.CaseSensitiveConfigParser(delimiters=("=",)).read_string(text)
        except configparser.Error as error:
            problems.append(f"{name}: malformed entry points: {' '.join(str(error).split())}")
        try:
            plugins += [
                Plugin(one.name, group, name, distribution.version, f"{one.module}:{one.attr}")
                for one in distribution.entry_points
                if one.group == group
            ]
        except Exception as error:  # its entry points cannot be parsed at all
            problems.append(f"{name}: its plugins cannot be read: {type(error).__name__}: {error}")
    return _sort(plugins, problems)


def _sort(plugins: Iterable[Plugin], problems: Iterable[str] = ()) -> Discovery:
    return Discovery(tuple(sorted(plugins, key=lambda p: (p.name, p.distribution))), tuple(problems))


def _normalise(distribution: str) -> str:
    """Give a distribution's name in the one form of PEP 503."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _name(distribution: metadata.Distribution) -> str:
    try:
        return _normalise(distribution.name)
    except Exception:  # no METADATA: the folder's name is all there is
        return _normalise(str(getattr(distribution, "_path", "unknown")).rpartition("/")[2].split("-")[0])


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
