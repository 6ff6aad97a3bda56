"""Start Python in child processes that import what this process imports, and leave none of them behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any


def python_command(*arguments: str) -> list[str]:
    """Return the command that runs Python; without -P, it would import from the current folder."""
    return [sys.executable, "-P", *arguments]


def child_environment() -> dict[str, str]:
    """Return a child's environment: with what was added to `sys.path`, without torchrun's variables."""
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    added = [path for path in sys.path if not path.startswith(installed) and not path.endswith(".zip")]
    removed = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "FORCE_COLOR"}
    return {name: value for name, value in os.environ.items() if name not in removed} | {
        "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in added),
        "PYTHONUNBUFFERED": "1",
    }


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process that was started with `process_group=0`, and all that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
