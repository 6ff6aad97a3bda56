"""Turn names and settings into a plan: everything that decides what is trained."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqabench.api import Backbone, Loss, Recipe, Transform
from vqabench.config import OPTIONS, RESERVED, TrainConfig
from vqabench.data.catalog.dataset import Dataset
from vqabench.errors import InputError, NotDefinedError, PluginError, unknown
from vqabench.options import base_parameters, convert, fields_of, options_of, resolve_options
from vqabench.plugins import BACKBONES, LIBRARY, LOSSES, Plugin, find, load
from vqabench.plugins import names as names_of
from vqabench.results import format_label, run_folder

MOST_EPOCHS = 100_000
PLAIN = f"{LIBRARY}:plain"
"""The loss of a strategy that names none, and of the first of two stages. Plugins may have their own `plain`."""


@dataclass(frozen=True)
class Part:
    """A plugin's class with its options."""

    label: str
    """Prefix of its settings: `base`, `mask`, ...; the backbone itself has none."""
    plugin: Plugin
    kind: type[Any]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A number of epochs with one loss."""

    name: str
    loss: str
    epochs: int


@dataclass(frozen=True)
class Plan:
    """Everything that decides what is trained, apart from data and seed."""

    config: TrainConfig
    chain: tuple[Part, ...]
    """The backbone, its base, the base of that, down to the innermost network."""
    transforms: tuple[Part, ...]
    losses: tuple[Part, ...]
    """The losses of all stages, last stage first."""
    objective: str
    recipe: Recipe
    stages: tuple[Stage, ...]
    label: str
    """The user's name for the settings, or those that differ from the defaults."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return all parts."""
        return (*self.chain, *self.transforms, *self.losses)

    @property
    def backbone(self) -> str:
        """Return the name of the backbone, without its distribution."""
        return self.chain[0].plugin.name

    @property
    def loss(self) -> str:
        """Return the name of the strategy: transforms, then the loss; `plain` only if there is no transform."""
        own = [] if self.transforms and self.losses[0].plugin.qualified == PLAIN else [self.losses[0]]
        return "+".join(part.plugin.name for part in (*self.transforms, *own))

    def folder(self, runs: Path, seed: int) -> Path:
        """Return the folder of its run with a seed, in the folder of all runs."""
        strategy = f"{self.objective}-{self.loss}"
        return run_folder(runs, self.config.dataset, self.backbone, strategy, self.label, seed)

    def warnings(self) -> list[str]:
        """Return warnings of a choice on the test split, and of parts that a backbone advises against."""
        marked = "the run and every table made from it are marked"
        chosen = [f"--select test chooses the epoch on the test split; {marked}"]
        return chosen * (self.config.select == "test") + [
            f"{part.plugin.name} with {other.plugin.name}: {part.kind.advises_against[other.plugin.name]}"
            for part in self.chain
            for other in (*self.transforms, *self.losses)
            if other.plugin.name in part.kind.advises_against
        ]

    def identity(self) -> dict[str, Any]:
        """Return the fields of a manifest that the plan determines, by which its runs are recognised."""
        return {
            "options": {part.label or "backbone": dict(part.options) for part in self.parts},
            "bases": {part.label: part.plugin.name for part in self.chain[1:]},
            "distributions": {part.label or "backbone": part.plugin.distribution for part in self.parts},
            "recipe": dataclasses.asdict(self.recipe),
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "select": self.config.select,
        }


def make_plan(config: TrainConfig, dataset_recipe: Mapping[str, object] | None = None) -> Plan:
    """Load the plugins that a configuration names and resolve every setting.

    The recipe is the backbone's, changed by the data set's, changed by the user's.

    Raises InputError (PluginError) if a name, a setting or a combination is not valid.
    """
    settings = dict(config.settings)
    chain = _load_chain(config.backbone, settings)
    transforms, loss = _load_strategy(config.loss)
    losses = [loss]
    if transforms and loss.kind.finetunes and config.start_from is None:
        losses.append(_load_loss_part(PLAIN))
    for label, count in Counter([*RESERVED, *(part.label for part in (*chain, *transforms, *losses))]).items():
        if count > 1:  # settings find their part by its label
            raise PluginError(f"two parts of this run have the label {label!r}, so they cannot be combined")
    sections = _sort_settings(settings, (*chain, *transforms, loss))
    chain, transforms, losses = (
        [
            dataclasses.replace(
                part,
                options=resolve_options(part.kind, sections.get(part.label, {}), part.label or part.plugin.name),
            )
            for part in parts
        ]
        for parts in (chain, transforms, losses)
    )
    # The label names only what the user changed, so it is computed against the recipe without those changes.
    own_recipe = change_recipe(_inherited_recipe(chain), dataset_recipe or {}, f"{config.dataset}: recipe")
    recipe = change_recipe(own_recipe, _given_recipe(config, sections["recipe"]), "recipe")
    plan = Plan(
        config=config,
        chain=tuple(chain),
        transforms=tuple(transforms),
        losses=tuple(losses),
        objective=_choose_objective(config, (*chain, *transforms, *losses)),
        recipe=recipe,
        stages=_make_stages(config, recipe, losses),
        label=config.label or "",
    )
    if config.label is None:
        plan = dataclasses.replace(plan, label=format_label(_find_changes(plan, own_recipe)))
    return plan


def _load_chain(name: str, settings: dict[str, object]) -> list[Part]:
    """Load the backbone and its bases; remove the bases' names from the settings."""
    chain: list[Part] = []
    label = ""
    while True:
        plugin = find(BACKBONES, name)
        kind = load(plugin)
        chain.append(Part(label, plugin, kind))
        needed = base_parameters(kind)
        if not needed:
            return chain
        if len(chain) > 5 or len(needed) > 1:  # a backbone whose default base is itself would never end
            raise PluginError(
                f"{name}: a backbone may have one base only, and at most five backbones may be nested"
            )
        label = f"{label}.{needed[0]}".lstrip(".")
        chosen = settings.pop(label, None) or kind.default_base
        if chosen is None:
            raise InputError(f"{name} needs a base: choose a backbone with --set {label}=NAME")
        name = str(chosen)


def _load_strategy(spelled: str) -> tuple[list[Part], Part]:
    """Load the transforms and the loss of a strategy such as `mask+rescale`."""
    names = [name.strip() for name in spelled.split("+")]
    if "" in names:
        raise InputError(f"--loss {spelled}: a part is missing next to a +")
    parts = [_load_loss_part(name) for name in names]
    transforms = [part for part in parts if issubclass(part.kind, Transform)]
    losses = [part for part in parts if issubclass(part.kind, Loss)]
    if len(losses) > 1:
        raise InputError(f"--loss {spelled}: at most one loss, not {' and '.join(part.label for part in losses)}")
    if len({part.label for part in parts}) < len(parts):
        raise InputError(f"--loss {spelled}: a part is named twice")
    return transforms, losses[0] if losses else _load_loss_part(PLAIN)


def _load_loss_part(name: str) -> Part:
    plugin = find(LOSSES, name)
    return Part(plugin.name, plugin, load(plugin))


def _sort_settings(settings: Mapping[str, object], parts: Sequence[Part]) -> dict[str, dict[str, object]]:
    """Return the settings of each part, by label. Raises InputError if no part has a setting's label."""
    names = {part.label: set(options_of(part.kind)) for part in parts} | {"recipe": set(fields_of(Recipe))}
    sections: dict[str, dict[str, object]] = {label: {} for label in names}
    for key, value in settings.items():
        label, _, name = key.rpartition(".")
        if name not in names.get(label, ()):
            meant = [f"{other}.{name}".lstrip(".") for other, options in names.items() if name in options]
            if meant:
                raise InputError(f"--set {key}: did you mean {' or '.join(meant)}?")
        if label not in sections and label in {*names_of(LOSSES), *names_of(BACKBONES)}:
            known = ", ".join(sorted(filter(None, sections)))
            raise InputError(f"--set {key}: {label} is not part of this run; its parts: {known}")
        if label not in sections:
            raise InputError(f"--set {key}: {unknown('part of this run', label, filter(None, sections))}")
        sections[label][name] = value
    return sections


def _inherited_recipe(chain: Sequence[Part]) -> Recipe:
    """Return the recipe of the outermost class that has one of its own."""
    for part in chain:
        recipe: Recipe = part.kind.recipe
        if recipe is not Backbone.recipe:
            try:
                return change_recipe(Recipe(), vars(recipe), "recipe")
            except InputError as error:
                raise PluginError(f"{part.plugin.name} (from {part.plugin.distribution}): its {error}") from error
    return Backbone.recipe


def change_recipe(recipe: Recipe, changes: Mapping[str, object], label: str) -> Recipe:
    """Return the recipe with some fields changed. Raises InputError if a name or a value is not valid."""
    fields = fields_of(Recipe)
    for name in changes:
        if name not in fields:
            raise InputError(unknown(f"option of {label}", name, fields))
    values = {name: convert(fields[name], value, f"{label}.{name}") for name, value in changes.items()}
    recipe = dataclasses.replace(recipe, **values)
    allowed = {
        "epochs": (1 <= recipe.epochs <= MOST_EPOCHS, f"from 1 to {MOST_EPOCHS}"),
        "finetune_epochs": (1 <= recipe.finetune_epochs <= MOST_EPOCHS, f"from 1 to {MOST_EPOCHS}"),
        "batch_size": (1 <= recipe.batch_size < 2**31, "from 1 to 2147483647"),
        "lr": (recipe.lr > 0, "above 0"),
        "weight_decay": (recipe.weight_decay >= 0, "at least 0"),
        "warmup": (0 <= recipe.warmup < 1, "at least 0 and below 1"),
        "clip": (recipe.clip is None or recipe.clip > 0, "above 0, or none"),
    }
    for name, (right, range_) in allowed.items():
        if not right:
            raise InputError(f"{label}.{name} must be {range_}, not {getattr(recipe, name)}")
    return recipe


def _given_recipe(config: TrainConfig, settings: Mapping[str, object]) -> dict[str, object]:
    """Return the user's changes to the recipe, from `--epochs` and the like and from `--set recipe.KEY`."""
    given: dict[str, object] = {"epochs": config.epochs, "finetune_epochs": config.finetune_epochs}
    given = {name: value for name, value in given.items() if value is not None}
    if config.start_from is not None and "epochs" in settings:
        raise InputError("--set recipe.epochs: a run started with --from has one stage; set recipe.finetune_epochs")
    twice = given.keys() & settings.keys()
    if twice:
        raise InputError(f"--set recipe.{min(twice)}: given by --{min(twice).replace('_', '-')} too")
    return given | dict(settings)


def _find_changes(plan: Plan, own_recipe: Recipe) -> dict[str, object]:
    """Return the settings that differ from the defaults and the backbone's own recipe, by their options."""
    changes: dict[str, object] = {}
    for part in plan.parts:
        defaults = {name: option.default for name, option in options_of(part.kind).items()}
        for name, value in part.options.items():
            if value != defaults[name]:
                changes[f"{part.label}.{name}".lstrip(".")] = value
    for part, around in zip(plan.chain[1:], plan.chain, strict=False):
        if around.kind.default_base not in (part.plugin.name, part.plugin.qualified):
            changes[part.label] = part.plugin.name
    names = {"epochs": "epochs", "finetune_epochs": "finetune-epochs"}  # options of their own, without a prefix
    for name, value in vars(plan.recipe).items():
        if value != getattr(own_recipe, name):
            changes[names.get(name, f"recipe.{name}")] = value
    for name in ("select", "precision"):
        if getattr(plan.config, name) != OPTIONS[name].default:
            changes[name] = getattr(plan.config, name)
    if plan.config.start_from is not None:
        changes["from"] = origin_name(plan.config.start_from)
    return changes


def origin_name(folder: Path) -> str:
    """Return the name of runs' starting point: `NAME.ce-plain`, or for a run of one seed `NAME.ce-plain.seed-0`."""
    kept = 3 if folder.name.startswith("seed-") else 2
    return ".".join(folder.absolute().parts[-kept:])


def _choose_objective(config: TrainConfig, parts: Sequence[Part]) -> str:
    """Return the objective given; by default `ce`, or `bce` if some part supports only that."""
    common = [name for name in ("ce", "bce") if all(name in part.kind.objectives for part in parts)]
    if not common:
        each = ", ".join(f"{part.plugin.name} supports {' and '.join(part.kind.objectives)}" for part in parts)
        raise NotDefinedError(f"{config.backbone} and {config.loss} have no objective in common: {each}")
    if config.objective is None:
        return common[0]
    for part in parts:
        if config.objective not in part.kind.objectives:
            reason = part.kind.declarations.get(config.objective, f"only {' and '.join(part.kind.objectives)}")
            message = f"{part.plugin.name} is not defined for --objective {config.objective}: {reason}"
            raise NotDefinedError(message)
    return config.objective


def _make_stages(config: TrainConfig, recipe: Recipe, losses: Sequence[Part]) -> tuple[Stage, ...]:
    """Return two stages if a loss that fine-tunes comes with a transform, else one."""
    # "mask+rescale" in the paper: the mask and the plain objective first, then the weights of Eqs. 7 and 8 as well.
    own = losses[0].plugin.name
    if config.start_from is not None:
        return (Stage("finetune", own, recipe.finetune_epochs),)
    if len(losses) > 1:
        first = Stage("train", losses[1].plugin.name, recipe.epochs)
        return first, Stage("finetune", own, recipe.finetune_epochs)
    if config.finetune_epochs is not None or "recipe.finetune_epochs" in config.settings:
        raise InputError(
            f"--finetune-epochs: {config.loss} has no second stage; set --epochs, or start --from a run"
        )
    return (Stage("train", own, recipe.epochs),)


def check_splits(config: TrainConfig, dataset: Dataset) -> None:
    """Raise InputError if a data set lacks a split that the configuration needs."""
    has = f"{dataset.name} has no such split with annotations; valid: {', '.join(dataset.scored)}"
    if config.select != "last" and config.select not in dataset.scored:
        raise InputError(f"--select {config.select}: {has}")
    if config.track_test and "test" not in dataset.scored:
        raise InputError(f"--track-test: {has}")
