"""The check that a backbone trains with every strategy of the library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from vqabench.api import Backbone, DataSpec, Loss, Transform
from vqabench.errors import InputError
from vqabench.plugins import LIBRARY, LOSSES, available, load
from vqabench.testing.checks import FailedCheckError, describe_error, require
from vqabench.testing.samples import make_sample, make_spec
from vqabench.training.criterion import Criterion
from vqabench.training.plan import PLAIN, Part

BuildUnder = Callable[[DataSpec, Part | None], Backbone]
"""Build a backbone, with or without a transform around its innermost network."""


@dataclass(frozen=True)
class Strategy:
    """A loss, with or without a transform."""

    name: str
    transform: Part | None
    loss: Part


def check_strategies(build: BuildUnder, objectives: Sequence[str], *, transforms: bool, idle: bool) -> str:
    """Take a training step with each strategy; report those that the backbone refuses, with the reason.

    Without `transforms`, strategies with one are left out. `idle` allows losses without a gradient.
    """
    strategies = list(list_strategies())
    trained: set[str] = set()
    refused: dict[str, str] = {}
    for strategy in strategies:
        if strategy.transform is not None and not transforms:
            continue
        for objective in objectives:
            if objective in strategy.loss.kind.objectives:
                torch.manual_seed(0)
                try:
                    model = build(make_spec(), strategy.transform).train()
                except (InputError, ValueError) as error:
                    refused[strategy.name] = str(error)
                    continue
                _take_step(model, strategy, objective, idle=idle)
                trained.add(strategy.name)
    message = "".join(
        f"; not with {', '.join(name for name, why in refused.items() if why == reason)}: {reason}"
        for reason in dict.fromkeys(refused.values())
    )
    require(bool(trained), f"it trains with no strategy{message}")
    everything = "all " if len(trained) == len(strategies) else ""
    noun = "strategy" if len(trained) == 1 else "strategies"
    return f"trains with {everything}{len(trained)} {noun}{message}"


def _take_step(model: Backbone, strategy: Strategy, objective: str, *, idle: bool) -> None:
    spec, name = make_spec(), f"{objective}-{strategy.name}"
    batch = make_sample(spec, 8, odd=True).given_to(model)
    try:
        for value in model.training_losses(batch, Criterion(strategy.loss.kind(spec, objective))):
            require(bool(value.isfinite()), f"{name}: the loss is {value.item()}")
            require(value.requires_grad or idle, f"{name}: the loss has no gradient")
            if value.requires_grad:
                torch.autograd.backward(value)
    except FailedCheckError:
        raise
    except Exception as error:  # a plugin may raise anything
        raise FailedCheckError(f"{name}: {describe_error(error)}") from error


def list_strategies() -> Iterator[Strategy]:
    """Yield the library's losses, its transforms, and each transform with each loss made for a second stage."""
    own = [one for one in available(LOSSES).plugins if one.distribution == LIBRARY]  # their authors check others
    parts = [Part(one.name, one, load(one)) for one in own]
    losses = [part for part in parts if issubclass(part.kind, Loss)]
    plain = next(part for part in losses if part.plugin.qualified == PLAIN)
    for loss in losses:
        yield Strategy(loss.label, None, loss)
    for transform in parts:
        if issubclass(transform.kind, Transform):
            yield Strategy(transform.label, transform, plain)
            for loss in losses:
                if loss.kind.finetunes:
                    yield Strategy(f"{transform.label}+{loss.label}", transform, loss)
