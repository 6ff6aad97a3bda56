"""List files in folders, and refuse what is not a file: opening a pipe could block forever."""

from __future__ import annotations

import os
from pathlib import Path

from vqabench.errors import InputError


def list_files_below(folder: Path) -> list[Path]:
    """List all files of a folder and its subfolders by name; each linked folder is followed once."""
    return [path for path in list_below(folder) if path.is_file()]


def list_below(folder: Path) -> list[Path]:
    """List everything below a folder that is not a folder, including pipes, devices and broken links.

    Hidden files, such as those that macOS adds to every file, are skipped.
    """
    seen: set[str] = set()
    found: list[Path] = []
    for place, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not is_hidden(name)]
        found += [Path(place) / name for name in names if not is_hidden(name)]
    return sorted(found)


def is_hidden(name: str) -> bool:
    """Return whether a path, which may be in a zip, is hidden or in a hidden folder."""
    parts = (part for part in name.split("/") if part not in (".", ".."))
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def require_writable(folder: Path, option: str, path: Path | None = None) -> None:
    """Raise InputError unless `path`, or the folder that an option names, can be written to or created."""
    wanted = (path or folder).absolute()
    place = next(one for one in (wanted, *wanted.parents) if one.exists())
    if not place.is_dir():
        raise InputError(f"{option} {folder}: {place} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            f"{option} {folder}: the folder {place} is not writable; choose another folder: {option} DIR"
        )


def describe_kind(path: Path) -> str:
    """Describe a path that is not a regular file."""
    return "a folder" if path.is_dir() else "a pipe, a device or a socket"


def require_file(path: Path, what: str) -> None:
    """Raise InputError unless a path is a regular file: a pipe can be read once only, a device may never end."""
    if path.is_file():
        return
    if path.exists():
        raise InputError(f"{path}: is {describe_kind(path)}, not a {what}")
    if path.is_symlink():
        raise InputError(f"{path}: links to {path.readlink()}, which is not there")
    raise InputError(f"{path}: there is no such {what}")
