"""How many processors and how much memory there are."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_GROUPS = Path("/sys/fs/cgroup")


def free_host_memory() -> int:
    """Give the bytes that this process may still take: the machine's, or its job's where that has a lower limit."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    except OSError:
        own = ""
    return min([_read_meminfo("MemAvailable"), *left_to_groups(_GROUPS, own)])


def left_to_groups(root: Path, own: str) -> list[int]:
    """Give what the limits of a control group (version 2), and of those around it, leave to it.

    Files that the system keeps in memory do not count.
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
    except OSError:  # no Linux: nothing is known, so nothing is promised
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def free_device_memory(device: torch.device) -> int:
    """Give the bytes that are free on a device; on a CPU, those of the machine."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return free_host_memory()


def format_bytes(count: float) -> str:
    """Spell a size as one speaks of it."""
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a device, or the machine, had no memory left for a tensor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def count_processors() -> int:
    """Count those that this process may use, which on a shared machine are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
