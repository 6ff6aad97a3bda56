"""Whether a backbone trains with every strategy that it claims to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from vqabench.api import Backbone, DataSpec, Loss, Transform
from vqabench.errors import InputError
from vqabench.plugins import LIBRARY, LOSSES, available, load
from vqabench.testing.checks import FailedCheckError, Trial, describe_error, require
from vqabench.testing.samples import make_sample, make_spec
from vqabench.training.criterion import Criterion
from vqabench.training.plan import PLAIN, Part

BuildUnder = Callable[[DataSpec, Part | None], Backbone]
"""Builds a backbone, with a transform around its innermost network or without."""


@dataclass(frozen=True)
class Strategy:
    """A loss, behind a transform or not."""

    name: str
    transform: Part | None
    loss: Part


class StrategyChecks:
    """The check of one backbone with all strategies of the library."""

    def __init__(self, build: BuildUnder, objectives: Sequence[str], *, transforms: bool, idle: bool) -> None:
        self.build, self.objectives, self.transforms, self.idle = build, objectives, transforms, idle

    def trials(self) -> list[Trial]:
        """Return the check."""
        return [Trial("strategies", self.check_strategies)]

    def check_strategies(self) -> str:
        """A training step with each, where it is defined; what cannot be built with it is told with the reason."""
        trained, refused = 0, {}
        for strategy in list_strategies():
            if strategy.transform is not None and not self.transforms:
                continue
            for objective in self.objectives:
                if objective in strategy.loss.kind.objectives:
                    try:
                        model = self._build(strategy.transform)
                    except (InputError, ValueError) as error:
                        refused[strategy.name] = str(error)
                        continue
                    self._take_step(model, strategy, objective)
                    trained += 1
        reasons = dict.fromkeys(refused.values())
        message = "".join(
            f"; not with {', '.join(name for name, why in refused.items() if why == reason)}: {reason}"
            for reason in reasons
        )
        require(trained > 0, f"it can be trained with no strategy{message}")
        return f"{trained} trained{message}"

    def _build(self, transform: Part | None) -> Backbone:
        torch.manual_seed(0)
        return self.build(make_spec(), transform).train()

    def _take_step(self, model: Backbone, strategy: Strategy, objective: str) -> None:
        spec, name = make_spec(), f"{objective}-{strategy.name}"
        batch = make_sample(spec, 8, odd=True).given_to(model)
        try:
            for value in model.training_losses(batch, Criterion(strategy.loss.kind(spec, objective))):
                require(bool(value.isfinite()), f"{name}: the loss is {value.item()}")
                require(value.requires_grad or self.idle, f"{name}: the loss has no gradient")
                if value.requires_grad:
                    torch.autograd.backward(value)
        except FailedCheckError:
            raise
        except Exception as error:  # a plugin may raise anything
            raise FailedCheckError(f"{name}: {describe_error(error)}") from error


def list_strategies() -> Iterator[Strategy]:
    """Return the library's losses, its transforms, and each of these with each loss made for a second stage."""
    own = [one for one in available(LOSSES).plugins if one.distribution == LIBRARY]  # others' are theirs to check
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
