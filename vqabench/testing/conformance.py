"""All checks of a plugin: of an installed one by its name, or of a class."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from safetensors.torch import save_file

from vqabench.api import API_VERSION, Backbone, DataSpec, Loss, Recipe, Transform
from vqabench.config import make_config
from vqabench.errors import InputError, PluginError, counted, unknown
from vqabench.options import base_parameters, convert, options_of, resolve_options
from vqabench.plugins import LOSSES, Plugin, contained, find_faults, load
from vqabench.testing.backbone_checks import BackboneChecks, check_bases
from vqabench.testing.checks import Check, FailedCheckError, Trial, list_trials, require, run_checks
from vqabench.testing.loss_checks import loss_trials
from vqabench.testing.process_checks import Observed, check_processes, observe_backbone, observe_loss
from vqabench.testing.samples import Innermost, make_spec
from vqabench.testing.strategies import BuildUnder, check_strategies
from vqabench.testing.training_checks import TrainingChecks
from vqabench.training.model import build_model, start_model
from vqabench.training.plan import Part, Plan, change_recipe, make_plan

DECLARABLE = (
    "words",
    "data",
    "gradients",
    "learning",
    "autocast",
    "compile",
    "devices",
    "synchronisation",
    "strategies",
    "bases",
)
"""Checks that an author may declare not to hold. Without the others a plugin cannot be used."""
GRADIENTS_OF = "gradients:"
OBJECTIVES = ("bce", "ce")


def check_plugin(
    plugin: Plugin, settings: Mapping[str, object] | None = None, only: Collection[str] = ()
) -> Iterator[Check]:
    """Check an installed plugin, with settings as `--set` gives them: everything, or `only` some checks.

    The `check_options` of its classes are the defaults. If it cannot be loaded, or its class does not satisfy the
    API, only that is reported. Raises InputError if a setting or the name of a check is not valid.
    """
    given = dict(settings or {})
    for key in given:
        if key.startswith("recipe."):
            raise InputError(f"--set {key}: the checks use a recipe of their own")
    try:
        kind = load(plugin)
    except PluginError as error:
        return iter([Check("load", "failed", str(error))])
    broken = [
        one
        for one in run_checks(list_trials(ClassChecks(kind)), {})
        if one.status == "failed" and one.name != "docs"
    ]
    if broken:  # the other checks need its options and objectives
        return iter(broken)
    processes = Trial("processes", lambda: check_processes(plugin, given, observe_plugin(plugin, given)))
    if plugin.group == LOSSES:
        options = resolve_options(kind, _without_prefix(given, plugin.name), plugin.name)
        try:
            return check_class(kind, options if given else {}, only, [processes])
        except ValueError as error:
            raise InputError(f"{plugin.name}: {error}") from error
    plan = _plan_small(plugin, given)
    if given:
        _build_planned(plan, make_spec())  # raises InputError for an invalid setting, before any check runs
    declarations: dict[str, str] = {}
    for part in reversed(plan.chain):
        declarations |= part.kind.declarations
    objectives = [name for name in OBJECTIVES if all(name in part.kind.objectives for part in plan.chain)]
    trials = _backbone_trials(partial(_build_planned, plan), objectives, declarations)
    for parameter in base_parameters(kind):
        trials.append(Trial("bases", partial(check_bases, kind, plan.chain[0].options, parameter, objectives[0])))
    return _check(kind, [*trials, processes], declarations, only)


def _build_planned(plan: Plan, spec: DataSpec, transform: Part | None = None) -> Backbone:
    transforms = () if transform is None else (transform,)
    model = build_model(dataclasses.replace(plan, transforms=transforms), spec)
    start_model(plan, model)
    return model


def observe_plugin(plugin: Plugin, given: Mapping[str, object]) -> Observed:
    """Return what an installed plugin computes, for the check `processes`."""
    kind = load(plugin)
    if plugin.group == LOSSES:
        options = resolve_options(kind, _without_prefix(given, plugin.name), plugin.name) if given else {}
        if issubclass(kind, Loss):
            return observe_loss(lambda spec, objective: kind(spec, objective, **options), kind.objectives)
        options = {**kind.check_options, **options}
        return observe_backbone(lambda spec: kind(spec, Innermost(spec), **options))
    return observe_backbone(partial(_build_planned, _plan_small(plugin, given)))


def observe_from_stdin() -> None:
    """Write what a plugin computes in this process; the request is JSON on stdin, from `check_processes`."""
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    with contained():
        observed = observe_plugin(Plugin(**request["plugin"]), request["settings"])
    save_file({name: one.detach().clone().contiguous() for name, one in observed.items()}, request["out"])


def check_class(
    kind: type[Backbone] | type[Loss],
    options: Mapping[str, Any] | None = None,
    only: Collection[str] = (),
    further: Sequence[Trial] = (),
) -> Iterator[Check]:
    """Check a class with these options; a wrapper or transform around `Innermost`. `further` checks come last.

    Raises InputError if there is no such check, ValueError if the class refuses an option.
    """
    given = dict(options or {})
    if issubclass(kind, Loss):
        for objective in kind.objectives if given else ():
            kind(make_spec(), objective, **given)  # raises ValueError for an invalid option, before any check runs
        trials = loss_trials(lambda spec, objective: kind(spec, objective, **given), kind.objectives)
        return _check(kind, [*trials, *further], kind.declarations, only)
    given = {**kind.check_options, **given}
    bases = ["base"] if issubclass(kind, Transform) else base_parameters(kind)

    def build(spec: DataSpec, transform: Part | None) -> Backbone:
        model: Backbone = Innermost(spec) if bases else kind(spec, **given)
        if transform is not None:
            model = transform.kind(spec, model, **transform.options)
        model = kind(spec, **dict.fromkeys(bases, model), **given) if bases else model
        model.start()
        return model

    if options:
        build(make_spec(), None)  # raises ValueError for an invalid option
    transforms = not issubclass(kind, Transform)
    trials = _backbone_trials(build, kind.objectives, kind.declarations, transforms=transforms)
    for parameter in bases:
        trials.append(Trial("bases", partial(check_bases, kind, given, parameter, kind.objectives[0])))
    return _check(kind, [*trials, *further], kind.declarations, only)


def assert_conforms(kind: type[Backbone] | type[Loss], **options: Any) -> None:
    """Raise AssertionError, with a line for each failed check, unless a class passes all of them."""
    failed = [f"{check.name}: {check.message}" for check in check_class(kind, options) if check.status == "failed"]
    assert not failed, "\n".join(failed)


def _backbone_trials(
    build: BuildUnder, objectives: Collection[str], declarations: Mapping[str, str], *, transforms: bool = True
) -> list[Trial]:
    of_gradients = {name: reason for name, reason in declarations.items() if name.startswith(GRADIENTS_OF)}
    idle = {name.removeprefix(GRADIENTS_OF): reason for name, reason in of_gradients.items()}

    def build_alone(spec: DataSpec) -> Backbone:
        return build(spec, None)

    chosen = [name for name in OBJECTIVES if name in objectives]
    no_gradients = "gradients" in declarations
    strategies = partial(check_strategies, build, chosen, transforms=transforms, idle=no_gradients)
    return [
        *list_trials(BackboneChecks(build_alone, chosen[0]), BackboneChecks.ESSENTIAL),
        *list_trials(TrainingChecks(build_alone, chosen, idle)),
        Trial("strategies", strategies),
    ]


def _plan_small(plugin: Plugin, given: Mapping[str, object]) -> Plan:
    """Plan a run of the plugin with `check_options` of each class in its chain, overridden by the settings."""
    # Planned twice: only the plan knows which classes are in the chain, whose check_options are settings then.
    plan = make_plan(make_config({"backbone": plugin.qualified, "settings": dict(given)}))
    small = {
        f"{part.label}.{name}".lstrip("."): value
        for part in plan.chain
        for name, value in part.kind.check_options.items()
    }
    bases = {part.label: part.plugin.qualified for part in plan.chain[1:]}
    return make_plan(make_config({"backbone": plugin.qualified, "settings": {**bases, **small, **given}}))


def _without_prefix(settings: Mapping[str, object], name: str) -> dict[str, object]:
    """Return a loss's settings without its name in front, which `train` requires and `plugins check` accepts."""
    return {key.removeprefix(f"{name}."): value for key, value in settings.items()}


def _check(
    kind: type[Any], trials: list[Trial], declarations: Mapping[str, str], only: Collection[str]
) -> Iterator[Check]:
    every = [*list_trials(ClassChecks(kind)), *trials]
    names = [trial.name for trial in every]
    for name in only:
        if name not in names:
            raise InputError(unknown("check", name, names))
    chosen = [trial for trial in every if not only or trial.name in only]
    return run_checks(chosen, {name: reason for name, reason in declarations.items() if name in DECLARABLE})


class ClassChecks:
    """The checks of a class that need no data."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind

    def check_api(self) -> str:
        """Check the version of the API, the objectives, and the types of a recipe."""
        kind = self.kind
        for fault in find_faults(kind):
            raise FailedCheckError(fault)
        if issubclass(kind, Backbone):
            given = vars(kind.recipe)
            try:
                same = vars(change_recipe(Recipe(), given, "recipe")) == given
            except InputError as error:
                raise FailedCheckError(str(error)) from error
            require(same, f"its recipe has values of the wrong type: {kind.recipe}")
        return f"version {API_VERSION}; {' and '.join(kind.objectives)}"

    def check_docs(self) -> str:
        """Check that the class has a docstring."""
        has_docs = bool((self.kind.__doc__ or "").strip())
        require(has_docs, "the class has no docstring; `vqabench plugins show` prints it")
        return "the class has a docstring"

    def check_options(self) -> str:
        """Check that every option is keyword-only, with a type and a default of that type."""
        options = options_of(self.kind)
        parameters = list(inspect.signature(self.kind.__init__).parameters.values())[1:]
        for parameter in parameters:
            require(
                parameter.kind is not inspect.Parameter.VAR_KEYWORD,
                f"**{parameter.name}: such options cannot be set or listed; name each one after a `*`",
            )
            require(
                parameter.default is inspect.Parameter.empty or parameter.name in options,
                f"{parameter.name} is not an option, because it is not keyword-only: move it after a `*`",
            )
        for option in options.values():
            try:
                same = convert(option, option.default, option.name) == option.default
            except InputError:
                same = False
            require(same, f"{option.name}: the default {option.default!r} is not of the annotated type")
        small = ", ".join(f"{name}={value}" for name, value in getattr(self.kind, "check_options", {}).items())
        message = f"{len(options)}, each with a type and a default" if options else "none"
        return f"{message}; for the checks: {small}" if small else message

    def check_declarations(self) -> str:
        """Check that what is declared not to hold is a check or an objective, and has a reason."""
        declarations = self.kind.declarations
        for name, reason in declarations.items():
            require(
                name in (*DECLARABLE, *OBJECTIVES) or name.startswith(GRADIENTS_OF),
                unknown("declaration", name, (*DECLARABLE, f"{GRADIENTS_OF}PATTERN", *OBJECTIVES)),
            )
            require(bool(reason.strip()), f"{name!r} is declared without a reason")
        return counted(len(declarations), "exception") + " declared" if declarations else "no exceptions declared"
