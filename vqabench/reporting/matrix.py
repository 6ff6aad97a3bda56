"""The plan of a matrix of runs, in lines and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from vqabench.errors import counted
from vqabench.events import Warn
from vqabench.reporting.progress import format_time


class Named(Protocol):
    """A run of a matrix."""

    @property
    def name(self) -> str:
        """Name it."""


class Expected(Protocol):
    """How long runs may take."""

    @property
    def seconds(self) -> float:
        """One after another."""

    @property
    def guessed(self) -> Sequence[str]:
        """Backbones of which nothing is known."""


class Planned(Protocol):
    """What is to be done."""

    @property
    def done(self) -> Sequence[Named]:
        """Runs that are finished."""

    @property
    def begun(self) -> Sequence[Named]:
        """Runs that go on."""

    @property
    def new(self) -> Sequence[Named]:
        """Runs that begin."""

    @property
    def wrong(self) -> Mapping[str, str]:
        """Runs that cannot be gone on with: why."""

    @property
    def undefined(self) -> Sequence[str]:
        """Why combinations are left out."""

    @property
    def warnings(self) -> Sequence[str]:
        """What a user should think twice about."""

    @property
    def estimate(self) -> Expected | None:
        """Time for all that is left; None where nothing is known."""


def describe_plan(plan: Planned) -> list[str | Warn]:
    """Return a plan as lines and warnings."""
    parts = [(plan.done, "finished already"), (plan.begun, "to resume"), (plan.new, "to train")]
    states = [f"{len(cells)} {what}" for cells, what in parts if cells]
    total = sum(len(cells) for cells, _ in parts) + len(plan.wrong)
    left = [*plan.begun, *plan.new]
    return [
        f"{counted(total, 'run')}: {', '.join(states) or 'none'}",
        *(f"left out: {reason}" for reason in plan.undefined),
        *(f"  {cell.name}" for cell in left),
        *map(Warn, plan.warnings),
        *(Warn(f"{name}: {reason}") for name, reason in plan.wrong.items()),
        *([_describe_estimate(plan.estimate)] if left else []),
    ]


def plan_to_json(plan: Planned) -> dict[str, Any]:
    """Return a plan as a JSON document."""
    estimate = plan.estimate
    return {
        "done": [cell.name for cell in plan.done],
        "begun": [cell.name for cell in plan.begun],
        "new": [cell.name for cell in plan.new],
        "wrong": dict(plan.wrong),
        "undefined": list(plan.undefined),
        "seconds": None if estimate is None else estimate.seconds,
    }


def _describe_estimate(estimate: Expected | None) -> str:
    if estimate is None:
        return "the time is unknown until the first run has finished"
    message = f"about {format_time(estimate.seconds)} if run one after another, judging by earlier runs"
    return f"{message}; there are none yet of {', '.join(estimate.guessed)}" if estimate.guessed else message
