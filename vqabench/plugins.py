"""Plugins: backbones and losses that installed distributions offer through entry points.

Listing reads metadata and imports nothing. A plugin is imported when it is used.
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import hashlib
import importlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import entrypoints

from vqabench.errors import PluginError, is_interruption, unknown

LIBRARY = "vqabench"
"""The library's own distribution."""
BACKBONES = "vqabench.backbones"
LOSSES = "vqabench.losses"
KINDS = {BACKBONES: "backbone", LOSSES: "loss"}
_TARGET = re.compile(r"(?P<module>\w+(\.\w+)*)\s*(:\s*(?P<attribute>\w+(\.\w+)*)\s*)?(\[.*\])?\s*")


@dataclass(frozen=True)
class Plugin:
    """One entry point, from its distribution's metadata."""

    name: str
    group: str
    distribution: str
    """Normalised, as in PEP 503."""
    version: str
    target: str
    """`module:attribute`."""

    @property
    def qualified(self) -> str:
        """Return the name that finds this plugin even if another distribution offers one of its name."""
        return f"{self.distribution}:{self.name}"

    def describe(self) -> str:
        """Return in one line what it is and where it comes from."""
        return f"{KINDS[self.group]} {self.name}, from {self.distribution} {self.version} ({self.target})"


@dataclass(frozen=True)
class Discovery:
    """Plugins, and a message on each distribution that could not be read."""

    plugins: tuple[Plugin, ...]
    problems: tuple[str, ...] = ()


def available(group: str | None = None) -> Discovery:
    """Return the plugins of a group, or of both, by group and name.

    They are found from metadata alone, which is read once for each state of `sys.path`.
    """
    entries = tuple((entry, _changed_at(entry)) for entry in map(str, sys.path))
    found = [_discover(one, entries) for one in KINDS if group in (None, one)]
    problems = dict.fromkeys(problem for discovery in found for problem in discovery.problems)
    return Discovery(tuple(plugin for discovery in found for plugin in discovery.plugins), tuple(problems))


def _changed_at(entry: str) -> int | None:
    try:
        return Path(entry or ".").stat().st_mtime_ns
    except OSError:
        return None


def names(group: str) -> list[str]:
    """Return the names in a group, each once."""
    return list(dict.fromkeys(plugin.name for plugin in available(group).plugins))


def find(group: str | None, name: str) -> Plugin:
    """Find a plugin of a group, or of any, by its name, or by `distribution:name`.

    Raises PluginError if there is none, two distributions offer one of that name, or there is one of each kind.
    """
    kind = "plugin" if group is None else KINDS[group]
    distribution, colon, plain = name.rpartition(":")
    found = available(group)
    matches = [
        plugin
        for plugin in found.plugins
        if plugin.name == plain and (not colon or plugin.distribution == _normalise(distribution))
    ]
    if not matches:
        if colon and _version(distribution) is None:
            raise PluginError(f"unknown {kind} {name!r}: the distribution {distribution} is not installed")
        raise PluginError(
            "; ".join([unknown(kind, name, {plugin.name for plugin in found.plugins}), *found.problems])
        )
    if len({plugin.qualified for plugin in matches}) < len(matches):
        raise PluginError(f"{plain!r} is both a backbone and a loss of {matches[0].distribution}: which is meant?")
    if len(matches) > 1:
        choices = " or ".join(plugin.qualified for plugin in matches)
        raise PluginError(f"{kind} {plain!r} is offered by {len(matches)} distributions; write {choices}")
    return matches[0]


def find_clashes(found: Iterable[Plugin]) -> list[list[Plugin]]:
    """Group the plugins of one kind whose name several distributions offer."""
    by_name: dict[tuple[str, str], list[Plugin]] = {}
    for plugin in found:
        by_name.setdefault((plugin.group, plugin.name), []).append(plugin)
    return [plugins for plugins in by_name.values() if len(plugins) > 1]


def requirements(plugin: Plugin) -> dict[str, str]:
    """Return the installed versions of what a plugin's distribution requires, without its extras."""
    required = (metadata.requires(plugin.distribution) or []) if _version(plugin.distribution) else []
    names = [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in required if not re.search(r"\bextra\b", one)]
    found = {_normalise(name): _version(name) for name in names}
    return {name: version for name, version in found.items() if version is not None}


def hash_sources(plugin: Plugin) -> str:
    """Return the SHA-256 of the files of a loaded plugin's package and distribution, without compiled ones.

    For a loss of the library itself: of its module alone.
    """
    digest = hashlib.sha256()
    for path in sorted(_source_files(plugin)):
        digest.update(f"{path.name} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _source_files(plugin: Plugin) -> set[Path]:
    target = plugin.target.partition(":")[0]
    if plugin.distribution == LIBRARY:
        return {Path(sys.modules[target].__file__ or "")}
    found: set[Path] = set()
    for depth in range(1, target.count(".") + 2):  # a namespace package has no file, and is not the plugin's own
        file = getattr(sys.modules.get(".".join(target.split(".")[:depth])), "__file__", None)
        if file is not None:
            found = set(Path(file).parent.rglob("*")) if Path(file).stem == "__init__" else {Path(file)}
            break
    with contextlib.suppress(Exception):  # metadata may be broken, or list no files
        listed = metadata.distribution(plugin.distribution).files or ()
        found |= {Path(str(one.locate())).resolve() for one in listed if one.suffix == ".py"}
    found = {path.resolve() for path in found if path.is_file()}
    return {path for path in found if "__pycache__" not in path.parts and path.suffix not in (".pyc", ".pyo")}


def load(plugin: Plugin) -> type[Any]:
    """Import a plugin's class. Raises PluginError, with its distribution and the cause, if it cannot be used."""
    where = f"{KINDS[plugin.group]} {plugin.name!r} of {plugin.distribution} {plugin.version}"
    module, _, attributes = plugin.target.partition(":")
    try:
        with contained():
            loaded = importlib.import_module(module)
            for attribute in filter(None, attributes.split(".")):
                loaded = getattr(loaded, attribute)
    except BaseException as error:  # a plugin may raise anything, or end the program
        if is_interruption(error):
            raise
        place = (find_culprit(error, [plugin]) or (plugin, ""))[1]
        raise PluginError(f"{where} cannot be loaded: {one_line(error)}{place}") from error
    from vqabench import api

    fault: str | None
    wanted = (api.Backbone,) if plugin.group == BACKBONES else (api.Loss, api.Transform)
    if not isinstance(loaded, type) or not issubclass(loaded, wanted):
        bases = " or ".join(kind.__name__ for kind in wanted)
        fault = f"{plugin.target} is not a class derived from {bases} of vqabench.api"
    elif plugin.group == BACKBONES and issubclass(loaded, api.Transform):
        fault = f"a transform belongs in the group {LOSSES}"
    else:
        fault = next(find_faults(loaded), None)
    if fault is not None:
        raise PluginError(f"{where}: {fault}")
    return loaded


def find_faults(kind: type[Any]) -> Iterator[str]:
    """Yield what is wrong with a plugin's class; later faults may follow from the first."""
    from vqabench import api

    base = next(base for base in (api.Transform, api.Backbone, api.Loss) if issubclass(kind, base))
    if issubclass(kind, api.Backbone) and not isinstance(kind.recipe, api.Recipe):
        yield f"its recipe is a {type(kind.recipe).__name__}, not a Recipe of vqabench.api"
    objectives = kind.objectives
    if not isinstance(objectives, tuple | list) or not objectives or not set(objectives) <= {"bce", "ce"}:
        yield f"its objectives must be some of 'bce' and 'ce', not {objectives!r}"
    for name in dir(base):
        if callable(getattr(base, name)) and not callable(getattr(kind, name)):
            yield f"its {name} must be a method"
    for name in ("declarations", "advises_against"):
        value = getattr(kind, name, {})
        if not isinstance(value, Mapping):
            yield f"its {name} must be a mapping of names to reasons, not {value!r}"
    if kind.api_version != api.API_VERSION:
        yield (
            f"built for version {kind.api_version!r} of the plugin API, but this vqabench has {api.API_VERSION}; "
            "install versions that match"
        )


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run code of a plugin: keep its prints away from stdout, and restore the working folder."""
    folder = _working_folder()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            yield
    finally:
        if folder is not None and _working_folder() != folder:
            with contextlib.suppress(OSError):
                os.chdir(folder)


def find_culprit(error: BaseException, plugins: Sequence[Plugin]) -> tuple[Plugin, str] | None:
    """Return the plugin whose code an error comes from, with the file and line in parentheses.

    The innermost frame of any plugin counts. An error of the backward pass has none: the first plugin is returned.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    backward = False
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        for frame, line in reversed(list(traceback.walk_tb(link.__traceback__))):
            module = str(frame.f_globals.get("__name__", ""))
            owner = _owner(module, plugins)
            if owner is not None:
                return owner, f" ({frame.f_code.co_filename}, line {line})"
            backward = backward or module == "torch.autograd"
        link = link.__cause__ or link.__context__
    return (plugins[0], "") if backward else None


def _owner(module: str, plugins: Sequence[Plugin]) -> Plugin | None:
    """Return the plugin that a module belongs to; of the library's own losses, the one defined in it."""
    near = None
    for plugin in plugins:
        own = plugin.target.partition(":")[0]
        if module == own:
            return plugin
        if plugin.distribution != LIBRARY and module.partition(".")[0] == own.partition(".")[0]:
            near = near or plugin
    return near


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 (as text, which is twice as fast, at every training step)
    except OSError:  # deleted
        return None


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
    """Return the entry points without those of a second copy of a distribution further down the path.

    The copy's name may be written in another way.
    """
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
    """Read each distribution by itself, so that a malformed one does not affect the others."""
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
        except Exception as error:  # not text, or without any section
            problems.append(f"{name}: its plugins cannot be read: {one_line(error)}")
    return _sort(plugins, problems)


def _targets(text: str, group: str) -> dict[str, str]:
    """Read the names and targets of a group, ignoring repeated keys and sections and malformed lines."""
    lines = entrypoints.CaseSensitiveConfigParser(
        delimiters=("=",), strict=False, interpolation=None, allow_no_value=True
    )
    lines.read_string(text)
    found = lines.items(group) if lines.has_section(group) else []
    matches = {name: _TARGET.fullmatch(value or "") for name, value in found}
    return {name: f"{match['module']}:{match['attribute'] or ''}" for name, match in matches.items() if match}


def _complaints(distribution: str, text: str, group: str) -> list[str]:
    """Return what is wrong with a distribution's entry points."""
    lines = entrypoints.CaseSensitiveConfigParser(delimiters=("=",))
    try:
        lines.read_string(text, source="entry_points.txt")
        found = lines.items(group) if lines.has_section(group) else []
    except configparser.Error as error:
        return [f"{distribution}: malformed entry points: {one_line(error)}"]
    return [
        f"{distribution}: malformed entry point: {name} = {value}; write module:Class"
        for name, value in found
        if not _TARGET.fullmatch(value)
    ]


def _sort(plugins: Iterable[Plugin], problems: Iterable[str] = ()) -> Discovery:
    return Discovery(tuple(sorted(plugins, key=lambda p: (p.name, p.distribution))), tuple(problems))


def one_line(error: BaseException, *, kind: bool = True) -> str:
    """Return an error as one line, with its class in front."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # the `__str__` of a plugin's error may fail
        message = ""
    return f"{type(error).__name__}: {message}".rstrip(": ") if kind else message


def _normalise(distribution: str) -> str:
    """Return a distribution's name in the form of PEP 503."""
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
