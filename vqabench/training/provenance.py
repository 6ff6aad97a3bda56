"""Record a run's plan and code in its manifest, and compare them with the current plan and code."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping

import msgspec
import torch

from vqabench import __version__
from vqabench.api import Recipe
from vqabench.config import make_config
from vqabench.errors import InputError, first_few
from vqabench.options import options_of
from vqabench.plugins import LIBRARY, hash_sources, requirements
from vqabench.results import Manifest, Run
from vqabench.training.plan import Plan, make_plan


def versions(plan: Plan) -> dict[str, str]:
    """Return the versions of everything that a run's numbers depend on, by distribution."""
    own = {"vqabench": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    found: dict[str, str] = {}
    for plugin in {part.plugin.distribution: part.plugin for part in plan.parts}.values():
        found[plugin.distribution] = plugin.version
        if plugin.distribution != LIBRARY:  # the library's other requirements draw tables, and the like
            found |= requirements(plugin)
    return found | own


def sources(plan: Plan) -> dict[str, str]:
    """Return a hash of each plugin's source files, by `distribution`, or `vqabench:NAME` for the library's own."""
    plugins = {
        part.plugin.qualified if part.plugin.distribution == LIBRARY else part.plugin.distribution: part.plugin
        for part in plan.parts
    }
    return {name: hash_sources(plugin) for name, plugin in plugins.items()}


def changed_code(before: Manifest, plan: Plan) -> list[str]:
    """Return a message for each version, and each plugin's source, that has changed since a run began."""
    now = versions(plan)
    message = {
        name: f"{name} {was}, now {now[name]}"
        for name, was in sorted(before.versions.items())
        if now.get(name, was) != was
    }
    for name, digest in sources(plan).items():
        if before.sources.get(name, digest) != digest and name.partition(":")[0] not in message:
            message[name] = f"other source files of {name} (same version)"
    return list(message.values())


def check_same(run: Run, before: Manifest, now: Mapping[str, object]) -> None:
    """Raise InputError unless a run began with these values of its manifest."""
    for name, value in now.items():
        was = getattr(before, name)
        if was != value:  # in `resume.begin` this keeps two experiments from being mixed in one folder
            message = "; ".join(_differences(name, was, value))
            raise InputError(f"{run.folder}: began with {message}; train it again with --force")


def _differences(name: str, was: object, value: object) -> list[str]:
    """Return a message for each part of a value that differs."""
    if not isinstance(was, dict) or not isinstance(value, dict):
        return [f"{name} {was}, now {value}"]
    keys = [key for key in was | value if was.get(key) != value.get(key)]
    return [message for key in keys for message in _differences(f"{name}.{key}", was.get(key), value.get(key))]


def complete(before: Manifest, plan: Plan) -> Manifest:
    """Return an earlier version's manifest with the settings that were added since, at their defaults."""
    options = {part.label or "backbone": options_of(part.kind) for part in plan.parts}
    filled = {
        label: {name: option.default for name, option in options.get(label, {}).items()} | given
        for label, given in before.options.items()
    }
    return msgspec.structs.replace(before, recipe=dataclasses.asdict(Recipe()) | before.recipe, options=filled)


def recall_plan(manifest: Manifest) -> Plan:
    """Return the plan of a run's model, with every option explicit.

    Raises InputError if the manifest is incomplete, PluginError if a plugin cannot be loaded.
    """
    origins = manifest.distributions
    missing = {"backbone", *manifest.bases, *manifest.loss.split("+")} - origins.keys()
    if missing:
        raise InputError(
            f"run.json: distributions lack {first_few(sorted(missing))}; train the run again with --force"
        )
    settings: dict[str, object] = {label: f"{origins[label]}:{name}" for label, name in manifest.bases.items()}
    for label, options in manifest.options.items():
        prefix = "" if label == "backbone" else f"{label}."
        settings |= {f"{prefix}{name}": value for name, value in options.items()}
    given = {
        "backbone": f"{origins['backbone']}:{manifest.backbone}",
        "loss": "+".join(f"{origins[part]}:{part}" for part in manifest.loss.split("+")),
        "objective": manifest.objective,
        "dataset": manifest.dataset,
        "settings": settings,
    }
    return make_plan(make_config(given))
