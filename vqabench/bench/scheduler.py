"""When and where each of several runs is started, given those that are being trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vqabench.bench.commands import Child, Choose, Slot, Task
from vqabench.files.resources import count_processors
from vqabench.training.device import GpuMemory, is_small, threads_of_small

SPARE = 1.25
"""How much more memory must be free on a GPU than the largest run there takes, before another one is started."""
PATIENCE = 60.0
"""Seconds that the others wait to learn how large the model of a run is that has just been started."""


def at_most(jobs: int) -> Choose:
    """Start so many runs at a time."""
    return lambda _, running: Slot(sharers=jobs) if len(running) < jobs else None


def on_processors(cores: int) -> Choose:
    """Start runs while there are cores for them: small models take one, others all.

    How large a model is, the run itself says once it has begun; until then no other one is started beside it.
    """

    def choose(task: Task, running: Sequence[Child]) -> Slot | None:
        if not running:
            return Slot()
        if any(child.parameters is None and child.seconds < PATIENCE for child in running):
            return None
        taken = sum(_threads(child.parameters, cores) for child in running)
        return Slot() if taken + _threads(task.parameters, cores) <= cores else None

    return choose


def _threads(parameters: int | None, cores: int) -> int:
    return threads_of_small() if parameters is None or is_small(parameters) else cores


def on_gpus(names: Collection[str], jobs: int | None) -> Choose:
    """Start runs on the GPU that has the fewest: `jobs` in all, or as many as have room.

    `names` are those of the GPUs, such as `cuda:0`.

    A GPU has room where every run on it has finished an epoch, so that its memory is known, and the largest would
    fit once more, with some to spare. There are never more runs than processor cores to feed them.
    """
    most = jobs or max(len(names), count_processors())
    on_each = -(-(jobs or 1) // len(names))  # more come only where what those there have left is enough

    def choose(_: Task, running: Sequence[Child]) -> Slot | None:
        there = {name: [child for child in running if child.slot.device == name] for name in names}
        free = [name for name in names if jobs is not None or _has_room([gpu_memory(one) for one in there[name]])]
        if len(running) >= most or not free:
            return None
        return Slot(min(free, key=lambda name: len(there[name])), on_each, len(names))

    return choose


def gpu_memory(child: Child) -> GpuMemory | None:
    """Return what a process has last recorded of its GPU's memory; None before it has finished an epoch."""
    if child.manifest is None:
        return None
    for record in reversed(child.task.run.read_epochs()):
        if record["epoch"] > child.epochs_before and "gpu_bytes" in record and "gpu_free_bytes" in record:
            return GpuMemory(record["gpu_bytes"], record["gpu_free_bytes"])
    return None


def _has_room(runs: Sequence[GpuMemory | None]) -> bool:
    known = [memory for memory in runs if memory is not None]
    if len(known) < len(runs):
        return False
    return not known or min(one.free for one in known) >= SPARE * max(one.taken for one in known)
