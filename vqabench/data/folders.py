"""The files of a folder, with those below it."""

from __future__ import annotations

import os
from pathlib import Path


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
