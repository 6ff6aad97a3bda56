"""What a run's manifest says of it, and whether a run that goes on is the one that began."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from collections.abc import Mapping

import msgspec
import torch

from vqabench import __version__
from vqabench.api import Backbone, Recipe
from vqabench.config import TrainConfig, make_config, to_table
from vqabench.data.catalog.dataset import Dataset
from vqabench.data.prepare.prepared import Prepared
from vqabench.data.vqa.annotations import hash_ids
from vqabench.errors import InputError, first_few
from vqabench.events import Emit, Warn
from vqabench.options import options_of
from vqabench.plugins import LIBRARY, hash_sources, requirements
from vqabench.results import Manifest, Run
from vqabench.training.assembly import count_parameters
from vqabench.training.plan import Plan
from vqabench.training.session import Session


def describe(
    plan: Plan,
    dataset: Dataset,
    prepared: Prepared,
    session: Session,
    precision: str,
    seed: int,
    model: Backbone,
) -> Manifest:
    """Give the manifest of a run that begins now."""
    config, device = plan.config, session.device
    return Manifest(
        dataset=config.dataset,
        backbone=plan.backbone,
        objective=plan.objective,
        loss=plan.loss,
        label=plan.label,
        seed=seed,
        config=to_table(config),
        **plan.identity(),
        track_test=config.track_test,
        test_domain=dataset.entry.test_domain,
        vocabulary=dataset.entry.vocabulary,
        fingerprint=prepared.fingerprint,
        questions={split: len(arrays.types) for split, arrays in prepared.splits.items()},
        test_ids=hash_ids(prepared.splits["test"].question_ids.tolist()) if "test" in prepared.splits else "",
        versions=versions(plan),
        sources=sources(plan),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} cpu",
        precision=precision,
        threads=torch.get_num_threads(),
        processes=session.processes.count,
        parameters=count_parameters(model),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def versions(plan: Plan) -> dict[str, str]:
    """Give the versions of all that bears on a run, by distribution."""
    own = {"vqabench": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    found: dict[str, str] = {}
    for plugin in {part.plugin.distribution: part.plugin for part in plan.parts}.values():
        found[plugin.distribution] = plugin.version
        if plugin.distribution != LIBRARY:  # how a table is drawn changes no run
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
        if was != value:
            message = "; ".join(_differences(name, was, value))
            raise InputError(f"{run.folder}: began with {message}; train it again with --force")


def _differences(name: str, was: object, value: object) -> list[str]:
    """Tell in which part of a value the difference lies."""
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


def take_over(run: Run, manifest: Manifest, plan: Plan, emit: Emit) -> None:
    """See that a run goes on as it began; take over its threads, its time so far, and its epoch if it has one."""
    before = complete(run.read_manifest(), plan)
    names = ("fingerprint", "precision", "start_from")
    check_same(run, before, plan.identity() | {name: getattr(manifest, name) for name in names})
    manifest.notes, manifest.pretraining = before.notes, before.pretraining
    for message in changed_code(before, plan):
        emit(Warn(f"{run.folder}: began with {message}"))
        manifest.notes.append(f"began with {message}")
    if before.threads != manifest.threads:
        emit(f"{run.folder}: continues with {before.threads} threads, as before")
        torch.set_num_threads(before.threads)
    manifest.threads, manifest.pieces = before.threads, before.pieces
    if before.processes != manifest.processes:
        message = f"{before.processes} processes, continues with {manifest.processes}: not identical bit for bit"
        if before.epoch is None:
            manifest.notes.append(f"began with {message}")
        else:
            manifest.processes = before.processes
    manifest.started, manifest.seconds, manifest.epoch = before.started, before.seconds, before.epoch
    manifest.checksums = before.checksums if before.epoch is not None else {}
    if before.epoch is not None and not run.weights_file.is_file():
        message = f"was trained, but {run.weights_file.name} is missing; restore it, or train it again with --force"
        raise InputError(f"{run.folder}: {message}")
    if before.epoch is not None:
        emit(f"{run.folder}: trained already; scoring it again")
    elif run.epochs_file.is_file() and not run.resume_file.is_file():
        emit(
            Warn(f"{run.folder}: {run.resume_file.name} is missing, so training starts again from the first epoch")
        )


def recall_config(manifest: Manifest) -> TrainConfig:
    """Give the configuration that a run was trained with, every option spelled out."""
    where = manifest.distributions
    missing = {"backbone", *manifest.bases, *manifest.loss.split("+")} - where.keys()
    if missing:
        raise InputError(
            f"run.json: distributions lack {first_few(sorted(missing))}; train the run again with --force"
        )
    settings: dict[str, object] = {label: f"{where[label]}:{name}" for label, name in manifest.bases.items()}
    for label, options in manifest.options.items():
        prefix = "" if label == "backbone" else f"{label}."
        settings |= {f"{prefix}{name}": value for name, value in options.items()}
    given = {
        "backbone": f"{where['backbone']}:{manifest.backbone}",
        "loss": "+".join(f"{where[part]}:{part}" for part in manifest.loss.split("+")),
        "objective": manifest.objective,
        "dataset": manifest.dataset,
        "settings": settings,
    }
    return make_config(given)
