"""From a plan to a model with its losses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from vqabench.api import Backbone, DataSpec
from vqabench.errors import PluginError
from vqabench.options import base_parameters
from vqabench.training.guard import building
from vqabench.training.plan import Part, Plan


def build_model(plan: Plan, spec: DataSpec) -> Backbone:
    """Build the innermost network, its transforms around it, and the wrappers around those."""
    *wrappers, innermost = plan.chain
    _check_procedures([*wrappers, *reversed(plan.transforms), innermost])
    model: Backbone = _build(innermost, spec)
    for transform in plan.transforms:
        model = _build(transform, spec, base=model)
    for wrapper in reversed(wrappers):
        (parameter,) = base_parameters(wrapper.kind)
        model = _build(wrapper, spec, **{parameter: model})
    return model


def count_parameters(model: Backbone) -> int:
    """Give the number of a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def start_model(plan: Plan, model: Backbone) -> None:
    """Let a model take over what it begins with. Raises PluginError where that is missing or does not fit."""
    with building(plan.chain[-1], "starting"):
        model.start()


def build_losses(plan: Plan, spec: DataSpec) -> nn.ModuleList:
    """Build the loss of each stage."""
    by_stage = reversed(plan.losses)  # the strategy's own is that of the last stage
    return nn.ModuleList([_build(part, spec, objective=plan.objective) for part in by_stage])


def _check_procedures(parts: Sequence[Part]) -> None:
    """See that no part, from the outermost on, hides the training procedure of the one inside it."""
    for outer, inner in pairwise(parts):
        own = [part.kind.training_losses is not Backbone.training_losses for part in (outer, inner)]
        if own == [False, True]:
            raise PluginError(
                f"{inner.plugin.name} has a training procedure of its own, which {outer.plugin.name} around it "
                "would bypass; make it the outermost one"
            )


def _build(part: Part, spec: DataSpec, **ready: Any) -> Any:
    with building(part, "being built"):
        return part.kind(spec, **ready, **part.options)
