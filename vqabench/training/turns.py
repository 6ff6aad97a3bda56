"""Whose turn it is: which of the runs that wait is started beside those that are being trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from vqabench.data.processors import count_processors
from vqabench.training.at_once import Choose, Running, Task

SPARE = 1.25
"""How much more memory must be free on a GPU than the largest run there takes, before another one is started."""


def at_most(jobs: int) -> Choose:
    """Start runs in their order, so many at a time."""
    return lambda waiting, running: (0, replace(waiting[0], sharers=jobs)) if len(running) < jobs else None


def on_processors(cores: int, needs: Mapping[str, int]) -> Choose:
    """Start runs in their order while there are cores for them: `needs` says how many each takes, by its name."""

    def choose(waiting: Sequence[Task], running: Sequence[Running]) -> tuple[int, Task] | None:
        taken = sum(needs[run.task.name] for run in running)
        fits = taken + needs[waiting[0].name] <= cores
        return (0, waiting[0]) if fits or not running else None

    return choose


def on_gpus(names: Collection[str], jobs: int | None) -> Choose:
    """Start runs in their order on the GPU that has the fewest: `jobs` in all, or as many as have room.

    `names` are those of the GPUs, such as `cuda:0`.

    A GPU has room where every run on it has told what it takes, and the largest would fit once more, with some to
    spare. Beside one another they must not be more than there are processor cores to feed them.
    """
    most = jobs or max(len(names), count_processors())
    on_each = -(-(jobs or 1) // len(names))  # more come only where what those there have left is enough

    def choose(waiting: Sequence[Task], running: Sequence[Running]) -> tuple[int, Task] | None:
        there = {name: [run for run in running if run.task.config.device == name] for name in names}
        free = [name for name in names if jobs is not None or _has_room(there[name])]
        if len(running) >= most or not free:
            return None
        config = replace(waiting[0].config, device=min(free, key=lambda name: len(there[name])))
        return 0, replace(waiting[0], config=config, sharers=on_each, gpus=len(names))

    return choose


def _has_room(runs: Sequence[Running]) -> bool:
    told = [run.memory for run in runs if run.memory is not None]
    if len(told) < len(runs):
        return False
    return not told or min(one.free for one in told) >= SPARE * max(one.taken for one in told)
