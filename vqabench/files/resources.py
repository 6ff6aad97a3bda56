"""Processors, memory, and threads that work ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vqabench.errors import InputError

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_GROUPS = Path("/sys/fs/cgroup")


def free_host_memory() -> int:
    """Return the bytes that this process may still take: of the machine, or of its job if its limit is lower."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    except OSError:
        own = ""
    return min([_read_meminfo("MemAvailable"), *left_to_groups(_GROUPS, own)])


def left_to_groups(root: Path, own: str) -> list[int]:
    """Return the bytes that a control group (version 2), and each one around it, may still take.

    Files that the system caches in memory do not count.
    """
    left = []
    for folder in [root / own, *(root / own).parents][: len(Path(own).parts) + 1]:
        try:
            limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
            cached = int((folder / "memory.stat").read_text().partition("\nfile ")[2].split()[0])
        except (OSError, ValueError, IndexError):  # there is no limit, or no such group
            continue
        left.append(max(0, limit - used + cached))
    return left


def _read_meminfo(name: str) -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux: nothing is known
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def free_device_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device; for the CPU, those of the machine."""
    if device.type == "cuda":
        import torch  # here, since it takes a second and 150 MB, which converting features does not need

        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return free_host_memory()


def format_bytes(count: float) -> str:
    """Format a size with a suitable unit."""
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device, or the machine, had no memory left for a tensor."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def count_processors() -> int:
    """Count the processors that this process may use, which on a shared machine are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prefetch(
    items: Iterable[Item], work: Callable[[Item], Result], threads: int, most: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield every item with the result of `work`, in order; at most `most` results are computed ahead.

    Threads suffice, since the slow parts here do not hold Python's lock, and open files cannot be passed to another
    process. If the items end with an InputError, those before it are yielded first.
    """
    ahead: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, "prefetch") as pool:
        try:
            for item in items:
                ahead.append((item, pool.submit(work, item)))
                if len(ahead) > most:
                    yield ahead.popleft()
        except InputError:
            yield from ahead
            raise
        else:
            yield from ahead
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
