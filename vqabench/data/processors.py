"""How many processors there are to work on."""

from __future__ import annotations

import os


def count_processors() -> int:
    """Count those that this process may use, which on a shared machine are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
