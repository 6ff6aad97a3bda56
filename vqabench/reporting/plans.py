"""The plan of a matrix of runs, in lines and as JSON."""

from __future__ import annotations

from typing import Any

from vqabench.bench.matrix_plan import Estimate, MatrixPlan
from vqabench.errors import counted
from vqabench.events import Warn
from vqabench.reporting.progress import format_time


def describe_plan(plan: MatrixPlan) -> list[str | Warn]:
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
        *([_describe_estimate(plan.estimate, len(left))] if left else []),
    ]


def plan_to_json(plan: MatrixPlan) -> dict[str, Any]:
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


def _describe_estimate(estimate: Estimate | None, runs: int) -> str:
    if estimate is None:
        return "the time is unknown until the first run has finished"
    sequence = " if run one after another" if runs > 1 else ""
    message = f"about {format_time(estimate.seconds)}{sequence}, judging by earlier runs"
    return f"{message}; there are none yet of {', '.join(estimate.guessed)}" if estimate.guessed else message
