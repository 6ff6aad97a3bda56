"""Plugins: what installed distributions offer through entry points.

Listing reads metadata and imports nothing; only the plugin asked for is loaded.
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import entrypoints

from vqabench.errors import PluginError, unknown

BACKBONES = "vqabench.backbones"
LOSSES = "vqabench.losses"
KINDS = {BACKBONES: "backbone", LOSSES: "loss"}
_TARGET = re.compile(r"(?P<module>\w+(\.\w+)*)\s*(:\s*(?P<attribute>\w+(\.\w+)*)\s*)?(\[.*\])?\s*")


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

    @property
    def qualified(self) -> str:
        """Spell the name that finds this one whatever others offer."""
        return f"{self.distribution}:{self.name}"

    def describe(self) -> str:
        """Spell in a line what it is and where it comes from."""
        return f"{KINDS[self.group]} {self.name}, from {self.distribution} {self.version} ({self.target})"


@dataclass(frozen=True)
class Discovery:
    """What was found, and a line on each distribution that could not be read."""

    plugins: tuple[Plugin, ...]
    problems: tuple[str, ...] = ()


def available(group: str) -> Discovery:
    """Return a group's plugins, by name, from metadata alone, which is read once for each state of `sys.path`."""
    return _discover(group, tuple((entry, _changed_at(entry)) for entry in map(str, sys.path)))


def _changed_at(entry: str) -> int | None:
    try:
        return Path(entry or ".").stat().st_mtime_ns
    except OSError:
        return None


def names(group: str) -> list[str]:
    """List the names in a group, each once."""
    return list(dict.fromkeys(plugin.name for plugin in available(group).plugins))


def find(group: str, name: str) -> Plugin:
    """Find a plugin by its name, or by `distribution:name`.

    Raises PluginError where there is none, or two distributions offer one of that name.
    """
    return _choose(name, KINDS[group], [available(group)])


def find_of_any_kind(name: str) -> Plugin:
    """Find a backbone or a loss. Raises PluginError as `find` does, and where there is one of each."""
    return _choose(name, "plugin", [available(group) for group in KINDS])


def _choose(name: str, kind: str, discoveries: Sequence[Discovery]) -> Plugin:
    distribution, colon, plain = name.rpartition(":")
    every = [plugin for discovery in discoveries for plugin in discovery.plugins]
    matches = [
        plugin
        for plugin in every
        if plugin.name == plain and (not colon or plugin.distribution == _normalise(distribution))
    ]
    if not matches:
        if colon and _version(distribution) is None:
            raise PluginError(f"unknown {kind} {name!r}: the distribution {distribution} is not installed")
        problems = dict.fromkeys(problem for discovery in discoveries for problem in discovery.problems)
        raise PluginError("; ".join([unknown(kind, name, {plugin.name for plugin in every}), *problems]))
    if len({plugin.qualified for plugin in matches}) < len(matches):
        raise PluginError(f"{plain!r} is both a backbone and a loss of {matches[0].distribution}: which is meant?")
    if len(matches) > 1:
        choices = " or ".join(plugin.qualified for plugin in matches)
        raise PluginError(f"{kind} {plain!r} is offered by {len(matches)} distributions; write {choices}")
    return matches[0]


def requirements(plugin: Plugin) -> dict[str, str]:
    """Give the installed versions of what a plugin's distribution requires, but for what it has as extras."""
    required = (metadata.requires(plugin.distribution) or []) if _version(plugin.distribution) else []
    names = [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in required if not re.search(r"\bextra\b", one)]
    found = {_normalise(name): _version(name) for name in names}
    return {name: version for name, version in found.items() if version is not None}


def load(plugin: Plugin) -> type[Any]:
    """Import one plugin's class. Raises PluginError, naming distribution and cause, where that fails."""
    from vqabench import api

    where = f"{KINDS[plugin.group]} {plugin.name!r} of {plugin.distribution} {plugin.version}"
    module, _, attributes = plugin.target.partition(":")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for what was asked for
            loaded = importlib.import_module(module)
        for attribute in filter(None, attributes.split(".")):
            loaded = getattr(loaded, attribute)
    except (Exception, SystemExit) as error:  # a plugin may raise anything, or leave
        raise PluginError(f"{where} cannot be loaded: {_one_line(error)}") from error
    wanted = (api.Backbone,) if plugin.group == BACKBONES else (api.Loss, api.Transform)
    spelled = " or ".join(kind.__name__ for kind in wanted)
    if not isinstance(loaded, type) or not issubclass(loaded, wanted):
        raise PluginError(f"{where}: {plugin.target} is not a class derived from {spelled} of vqabench.api")
    if plugin.group == BACKBONES and issubclass(loaded, api.Transform):
        raise PluginError(f"{where} is a transform; it belongs in the group {LOSSES}")
    if plugin.group == BACKBONES and not isinstance(loaded.recipe, api.Recipe):
        raise PluginError(f"{where}: its recipe is a {type(loaded.recipe).__name__}, not a Recipe of vqabench.api")
    if not isinstance(loaded.declarations, Mapping):
        raise PluginError(f"{where}: its declarations are a {type(loaded.declarations).__name__}, not a mapping")
    if loaded.api_version != api.API_VERSION:
        raise PluginError(
            f"{where} was built for version {loaded.api_version!r} of the plugin API, but this vqabench has "
            f"{api.API_VERSION}; install versions of the two that agree"
        )
    return loaded


@functools.lru_cache(maxsize=8)
def _discover(group: str, entries: tuple[tuple[str, int | None], ...]) -> Discovery:
    """Read plugins through `entrypoints`; if one distribution fails the whole listing, read them one by one."""
    path = [entry or "." for entry, _ in entries]
    with warnings.catch_warnings(record=True) as dropped:
        warnings.simplefilter("always")
        try:
            found = entrypoints.get_group_all(group, path=path)
        except Exception:  # malformed metadata of any project raises errors of many kinds
            return _discover_one_by_one(group, path)
    if dropped:  # it leaves out, with a warning, what it cannot parse
        return _discover_one_by_one(group, path)
    version_of = functools.cache(_version)
    return _sort(_describe(one, group, version_of) for one in _first_copies(found))


def _first_copies(found: Iterable[entrypoints.EntryPoint]) -> list[entrypoints.EntryPoint]:
    """Leave out a distribution found again further down the path with its name spelled in another way."""
    first: dict[str, entrypoints.Distribution] = {}
    kept = []
    for one in found:
        assert one.distro is not None  # a listing by group always knows the distribution
        if first.setdefault(_normalise(one.distro.name), one.distro) is one.distro:
            kept.append(one)
    return kept


def _describe(found: entrypoints.EntryPoint, group: str, version_of: Callable[[str], str | None]) -> Plugin:
    assert found.distro is not None
    name = found.distro.name
    version = version_of(name) or found.distro.version or "unknown"
    return Plugin(found.name, group, _normalise(name), version, f"{found.module_name}:{found.object_name or ''}")


def _discover_one_by_one(group: str, path: Sequence[str]) -> Discovery:
    """Read each distribution by itself, so that a malformed one spoils nothing but itself."""
    plugins: list[Plugin] = []
    problems: list[str] = []
    seen: set[str] = set()
    for distribution in metadata.distributions(path=list(path)):
        name = _name(distribution)
        if name in seen:  # found earlier on the path, which is what an import would find
            continue
        seen.add(name)
        try:
            text = distribution.read_text("entry_points.txt") or ""
            version = (_version(name) if f"[{group}]" in text else None) or "unknown"
            plugins += [Plugin(one, group, name, version, target) for one, target in _targets(text, group).items()]
            problems += _complaints(name, text, group)
        except Exception as error:  # not text, or without any section: nothing can be made of it
            problems.append(f"{name}: its plugins cannot be read: {_one_line(error)}")
    return _sort(plugins, problems)


def _targets(text: str, group: str) -> dict[str, str]:
    """Read the names and targets of a group, past repeated keys and sections and lines that make no sense."""
    lines = entrypoints.CaseSensitiveConfigParser(
        delimiters=("=",), strict=False, interpolation=None, allow_no_value=True
    )
    lines.read_string(text)
    found = lines.items(group) if lines.has_section(group) else []
    matches = {name: _TARGET.fullmatch(value or "") for name, value in found}
    return {name: f"{match['module']}:{match['attribute'] or ''}" for name, match in matches.items() if match}


def _complaints(distribution: str, text: str, group: str) -> list[str]:
    """Tell what is wrong with a distribution's entry points, if anything is."""
    lines = entrypoints.CaseSensitiveConfigParser(delimiters=("=",))
    try:
        lines.read_string(text, source="entry_points.txt")
        found = lines.items(group) if lines.has_section(group) else []
    except configparser.Error as error:
        return [f"{distribution}: malformed entry points: {_one_line(error)}"]
    return [
        f"{distribution}: malformed entry point: {name} = {value}; write module:Class"
        for name, value in found
        if not _TARGET.fullmatch(value)
    ]


def _sort(plugins: Iterable[Plugin], problems: Iterable[str] = ()) -> Discovery:
    return Discovery(tuple(sorted(plugins, key=lambda p: (p.name, p.distribution))), tuple(problems))


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _normalise(distribution: str) -> str:
    """Give a distribution's name in the one form of PEP 503."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _name(distribution: metadata.Distribution) -> str:
    try:
        return _normalise(distribution.name)
    except Exception:  # no METADATA: the folder's name is all there is
        return _normalise(Path(str(getattr(distribution, "_path", "unknown"))).name.split("-")[0])


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except Exception:  # a broken METADATA is no reason not to list the plugin
        return None
