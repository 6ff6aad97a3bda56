"""`FILE::MEMBER`: how a catalogue names a file inside an archive."""

from __future__ import annotations

from pathlib import Path


def split_member(path: Path) -> tuple[Path, str]:
    """Give the file, and the member of the archive that it is; empty where none is named."""
    name, _, member = str(path).partition("::")
    return Path(name), member
