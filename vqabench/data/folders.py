"""The files of a folder, with those below it."""

from __future__ import annotations

import os
from pathlib import Path

from vqabench.errors import InputError


def list_files_below(folder: Path) -> list[Path]:
    """List all files of a folder and those below it by name; links to folders are followed, once each."""
    seen: set[str] = set()
    found: list[Path] = []
    for place, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        found += [path for path in (Path(place) / name for name in names) if path.is_file()]
    return sorted(found)


def describe_kind(path: Path) -> str:
    """Say what something is that is not a regular file."""
    return "a folder" if path.is_dir() else "a pipe, a device or a socket"


def require_file(path: Path, purpose: str) -> None:
    """Raise InputError where something other than a regular file is in the place of one; what is not there passes.

    A pipe would be read once, and these files are read again and again; a device may never end.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is {describe_kind(path)}, but must be a file ({purpose})")
