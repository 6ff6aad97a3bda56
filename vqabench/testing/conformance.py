"""All checks of a plugin: of one that is installed, by its name, or of a class."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from vqabench.api import API_VERSION, Backbone, DataSpec, Loss, Transform
from vqabench.config import make_config
from vqabench.errors import InputError, unknown
from vqabench.options import base_parameters, options_of, resolve_options
from vqabench.plugins import LOSSES, Plugin, available, load
from vqabench.testing.backbones import BackboneChecks
from vqabench.testing.checks import Check, FailedCheckError, Question, ask
from vqabench.testing.losses import LossChecks
from vqabench.testing.samples import Innermost, make_sample, make_spec
from vqabench.training.assembly import PLAIN, build_losses, build_model, make_plan
from vqabench.training.criterion import Criterion


def check_plugin(
    plugin: Plugin, settings: Mapping[str, object] | None = None, only: Collection[str] = ()
) -> Iterator[Check]:
    """Check an installed plugin, with settings as `--set` gives them: everything, or `only` some checks.

    Raises InputError where a setting is not possible or there is no such check.
    """
    kind, given = load(plugin), dict(settings or {})
    if plugin.group == LOSSES:
        return check_class(kind, resolve_options(kind, given, plugin.name), only)
    plan = make_plan(make_config({"backbone": plugin.qualified, "settings": given}))
    build_model(plan, make_spec())  # a setting that cannot be is told at once
    checks = BackboneChecks(lambda spec: build_model(plan, spec), _plain, kind.objectives)
    return _check(kind, [*checks.questions(), ("strategies", lambda: _check_strategies(plugin, given))], only)


def check_class(
    kind: type[Backbone] | type[Loss], options: Mapping[str, Any] | None = None, only: Collection[str] = ()
) -> Iterator[Check]:
    """Check a class with these options. A wrapper or a transform stands around the plainest network there is.

    Raises InputError where there is no such check.
    """
    given = dict(options or {})
    if issubclass(kind, Loss):
        losses = LossChecks(lambda spec, objective: kind(spec, objective, **given), kind.objectives)
        return _check(kind, [*losses.questions()], only)
    bases = ["base"] if issubclass(kind, Transform) else base_parameters(kind)

    def build(spec: DataSpec) -> Backbone:
        return kind(spec, **{name: Innermost(spec) for name in bases}, **given)

    return _check(kind, [*BackboneChecks(build, _plain, kind.objectives).questions()], only)


def assert_conforms(kind: type[Backbone] | type[Loss], **options: Any) -> None:
    """Raise AssertionError, with a line for each check that fails, unless a class holds to all of them."""
    failed = [f"{check.name}: {check.told}" for check in check_class(kind, options) if check.status == "failed"]
    assert not failed, "\n".join(failed)


def _check(kind: type[Any], questions: list[Question], only: Collection[str]) -> Iterator[Check]:
    declared = ("declarations", lambda: _check_declarations(kind, [name for name, _ in every]))
    every: list[Question] = [("api", lambda: _check_api(kind)), ("options", lambda: _check_options(kind))]
    every += [declared, *questions]
    for name in only:
        if name not in dict(every):
            raise InputError(unknown("check", name, dict(every)))
    return ask([question for question in every if not only or question[0] in only], kind.declarations)


def _check_declarations(kind: type[Any], names: Collection[str]) -> str:
    for name in kind.declarations:
        if name not in (*names, "bce", "ce"):
            raise FailedCheckError(f"{name!r} is declared, but there is no such check or objective")
    return f"{len(kind.declarations)} declared not to hold"


def _check_api(kind: type[Any]) -> str:
    if kind.api_version != API_VERSION:
        told = f"it was built for version {kind.api_version} of the plugin API"
        raise FailedCheckError(f"{told}, but this is {API_VERSION}")
    if not kind.objectives or not set(kind.objectives) <= {"bce", "ce"}:
        raise FailedCheckError(f"objectives must be some of bce and ce, not {kind.objectives}")
    return f"version {API_VERSION}; {' and '.join(kind.objectives)}"


def _check_options(kind: type[Any]) -> str:
    if not (kind.__doc__ or "").strip():
        raise FailedCheckError("the class has no docstring, which `vqabench plugins show` prints")
    return f"{len(options_of(kind))}, each with a type and a default"


def _plain(spec: DataSpec, objective: str) -> Loss:
    plain: type[Loss] = next(load(one) for one in available(LOSSES).plugins if one.qualified == PLAIN)
    return plain(spec, objective)


def _check_strategies(plugin: Plugin, settings: Mapping[str, object]) -> str:
    """Take a training step with every strategy and objective that are not refused."""
    done, refused = [], []
    for loss in dict.fromkeys(one.qualified for one in available(LOSSES).plugins):
        for objective in ("bce", "ce"):
            try:
                _take_step(plugin, loss, objective, settings)
                done.append(f"{objective}-{loss.partition(':')[2]}")
            except InputError:
                refused.append(f"{objective}-{loss.partition(':')[2]}")
    if not done:
        raise FailedCheckError(f"every strategy is refused: {', '.join(refused)}")
    return f"{len(done)} trained{f'; refused: {chr(44).join(refused)}' if refused else ''}"


def _take_step(plugin: Plugin, loss: str, objective: str, settings: Mapping[str, object]) -> None:
    spec = make_spec()
    config = {"backbone": plugin.qualified, "loss": loss, "objective": objective, "settings": dict(settings)}
    plan = make_plan(make_config(config))
    torch.manual_seed(0)
    model, criterion = build_model(plan, spec).train(), Criterion(list(build_losses(plan, spec))[-1])  # type: ignore[arg-type]
    for value in model.training_losses(make_sample(spec, 8).given_to(model), criterion):
        if not value.isfinite():
            raise FailedCheckError(f"{objective}-{loss}: the loss is {value.item()}")
        if value.requires_grad:
            torch.autograd.backward(value)
