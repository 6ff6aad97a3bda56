"""Decide when and where each of several runs starts, depending on the running ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vqabench.bench.child_runs import Child, Choose, Slot, Task
from vqabench.bench.matrix import MatrixCell
from vqabench.bench.matrix_plan import Timings
from vqabench.files.resources import count_processors
from vqabench.training.device import choose_device, is_small, threads_of_small

SPARE = 1.25
"""Another run starts on a GPU if this many times the memory of the largest run there is free."""
PATIENCE = 60.0
"""Seconds to wait until a run that has just started has recorded the size of its model."""


class GpuMemory(NamedTuple):
    """Bytes of a GPU's memory, as measured by one of the processes that use it."""

    taken: int
    """The peak of this process."""
    free: int


@dataclass(frozen=True)
class Schedule:
    """How many runs are trained at a time."""

    choose: Choose
    at_a_time: int
    or_more: bool = False
    """Whether more may be trained, depending on the memory that the first ones need."""


def make_schedule(cells: Sequence[MatrixCell], timings: Timings) -> Schedule:
    """Choose how many runs to train at a time. The device and `jobs` are those of the whole matrix."""
    first = cells[0].config
    device, jobs = choose_device(first.device), first.jobs
    if device.type == "cuda":
        import torch

        one = first.device.startswith("cuda:")
        names = [str(device)] if one else [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        return Schedule(on_gpus(names, jobs), jobs or len(names), or_more=jobs is None)
    if jobs is None and first.features in ("host", "device"):
        jobs = 1  # each run would have a copy of the features in memory
    if jobs is not None:
        jobs = min(jobs, len(cells))
        return Schedule(at_most(jobs), jobs)
    cores = count_processors()
    sizes = [timings.parameters_of(cell) for cell in cells]
    large = any(size is not None and not is_small(size) for size in sizes)
    return Schedule(on_processors(cores), 1 if large else max(1, cores // threads_of_small()), or_more=large)


def at_most(jobs: int) -> Choose:
    """Start up to `jobs` runs at a time."""
    return lambda _, running: Slot(sharers=jobs) if len(running) < jobs else None


def on_processors(cores: int) -> Choose:
    """Start runs while there are cores for them: small models take one, others all.

    The size of a model is known once its run has started; until then no other run starts.
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
    """Start runs on the GPU that has the fewest: `jobs` in all, or as many as fit.

    `names` are those of the GPUs, such as `cuda:0`.

    Another run fits on a GPU if every run there has finished an epoch, so that its memory is known, and the largest
    would fit once more, with some to spare. There are never more runs than processor cores to feed them.
    """
    most = jobs or max(len(names), count_processors())
    on_each = -(-(jobs or 1) // len(names))  # without `jobs`, more start only if the memory is known to suffice

    def choose(_: Task, running: Sequence[Child]) -> Slot | None:
        there = {name: [child for child in running if child.slot.device == name] for name in names}
        free = [name for name in names if jobs is not None or _fits(there[name])]
        if len(running) >= most or not free:
            return None
        return Slot(min(free, key=lambda name: len(there[name])), on_each, len(names))

    return choose


def gpu_memory(child: Child) -> GpuMemory | None:
    """Return the GPU memory that a process has recorded last; None before it has finished an epoch."""
    if child.manifest is None:
        return None
    for record in reversed(child.task.run.read_epochs()):
        if record["epoch"] > child.epochs_before and "gpu_bytes" in record and "gpu_free_bytes" in record:
            return GpuMemory(record["gpu_bytes"], record["gpu_free_bytes"])
    return None


def _fits(runs: Sequence[Child]) -> bool:
    known = [memory for memory in map(gpu_memory, runs) if memory is not None]
    if len(known) < len(runs):
        return False
    return not known or min(one.free for one in known) >= SPARE * max(one.taken for one in known)
