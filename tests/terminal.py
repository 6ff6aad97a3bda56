"""A terminal that is none, for what one would see in it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path


def in_terminal(arguments: list[str], folder: Path, **environment: str) -> str:
    """Run the command line in a pseudo-terminal; gives what it showed."""
    own, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    inherited |= {"TERM": "xterm-256color", "COLUMNS": "100", "VQABENCH_DATA": str(folder / "data")}
    command = [sys.executable, "-m", "vqabench", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=inherited | environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            read = os.read(own, 65536)
        except OSError:  # how Linux tells that the other side is closed
            break
        if not read:
            break
        shown += read
    process.wait(timeout=60)
    os.close(own)
    return shown.decode()
