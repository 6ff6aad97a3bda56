"""`vqabench plugins`."""

from __future__ import annotations

import inspect
import keyword
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Literal

from vqabench import __version__, options, plugins
from vqabench.config import RESERVED
from vqabench.errors import InputError
from vqabench.files.folders import require_writable
from vqabench.plugins import BACKBONES, KINDS, LOSSES, available

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
    """A plugin as its class describes it."""

    plugin: plugins.Plugin
    description: str
    objectives: tuple[str, ...]
    options: tuple[OptionDetails, ...]
    recipe: Mapping[str, Any]
    """Empty for a loss, and for a backbone that takes its base's."""
    second_stage: bool
    """Whether a loss, combined with a transform, is used only in the second stage."""
    declarations: Mapping[str, str]
    """Checks and objectives that it is exempt from, with its author's reasons."""
    advises_against: Mapping[str, str]
    """Plugins that it should not be combined with, likewise."""


def show_plugin(name: str) -> PluginDetails:
    """Load a backbone or a loss, and describe it. Raises PluginError if that fails."""
    plugin = plugins.find(None, name)
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
    """Check whether a backbone or a loss follows the plugin API.

    Raises InputError if a setting, or the name of a check, is unknown.
    """
    from vqabench import testing  # loads torch

    return testing.check_plugin(plugin, settings, only)


def _has_recipe(kind: type[Any], bases: Sequence[str]) -> bool:
    from vqabench.api import Backbone  # loaded with the plugin

    return not bases or kind.recipe is not Backbone.recipe


Kind = Literal["backbone", "loss"]
GROUPS = {"backbone": BACKBONES, "loss": LOSSES}
LONGEST_NAME = 50


def write_plugin(name: str, kind: Kind, parent: Path) -> Path:
    """Write the distribution `vqabench-NAME` into a new folder of that name; return the folder.

    Raises InputError if the name is not valid or is taken, or the folder exists.
    """
    _check_name(name, kind)
    folder = parent / f"vqabench-{name}"
    if os.path.lexists(folder):
        raise InputError(f"{folder}: exists; choose another name, or move the existing one")
    require_writable(parent, "--in")  # or the error would name the temporary folder
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=parent) as begun:  # whole, or not at all
        made = Path(begun) / "made"
        for path, text in _fill_templates(name, kind).items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text, encoding="utf-8")
        made.rename(folder)
    return folder


def _check_name(name: str, kind: Kind) -> None:
    if len(name) > LONGEST_NAME or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise InputError(
            f"{name!r} is not a valid plugin name: use at most {LONGEST_NAME} lower-case letters, digits and "
            f"single hyphens, as in my-{kind}"
        )
    for plugin in available().plugins:
        if plugin.name == name:  # of either kind: `plugins show` and `check` take both by their names
            other = KINDS[plugin.group]
            raise InputError(f"{other} {name!r} exists already, from {plugin.distribution}; choose another name")
    if kind == "loss" and name in RESERVED:
        raise InputError(f"{name!r} cannot name a loss: --set {name}.KEY is the run's own; choose another name")
    if any(True for _ in metadata.distributions(name=f"vqabench-{name}")):
        raise InputError(f"a distribution vqabench-{name} is installed already; choose another name")


def _fill_templates(name: str, kind: Kind) -> dict[str, str]:
    """Return the text of each file by its path."""
    module = f"vqabench_{name.replace('-', '_')}"
    train = f"vqabench train {name}" if kind == "backbone" else f"vqabench train BACKBONE --loss {name}"
    values = {
        **{"name": name, "kind": kind, "group": GROUPS[kind], "version": __version__, "module": module},
        "distribution": f"vqabench-{name}",
        "class_name": _name_class(name, kind),
        "try_it": train,
    }
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}/__init__.py": f"{kind}.py",
        f"{module}/py.typed": "py.typed",
        ".gitignore": "gitignore",
        f"tests/test_{module.removeprefix('vqabench_')}.py": f"test_{kind}.py",
        ".github/workflows/test.yml": "ci.yml",
    }
    return {path: Template(_read_template(template)).substitute(values) for path, template in files.items()}


def _name_class(name: str, kind: Kind) -> str:
    """Return `MyModel` for `my-model`, or `OutputBackbone` if the template has an `Output` already."""
    joined = "".join(part.capitalize() for part in name.split("-"))
    around = re.findall(r"\w+", _read_template(f"{kind}.py") + _read_template(f"test_{kind}.py"))
    return joined + kind.capitalize() if keyword.iskeyword(joined) or joined in around else joined


def _read_template(name: str) -> str:
    return (resources.files("vqabench.workflows") / "templates" / f"{name}.txt").read_text(encoding="utf-8")
