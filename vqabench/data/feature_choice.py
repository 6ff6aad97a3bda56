"""Which files of region features a user chose for a data set that has none to fetch: `features.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from vqabench.errors import InputError
from vqabench.results import read_json, write_file


class _Choice(msgspec.Struct, frozen=True):
    features: tuple[str, ...]
    """Absolute; `F.zip::MEMBER` names a member."""


def read_choice(folder: Path) -> tuple[Path, ...]:
    """Read what was chosen; nothing where nothing was. Raises InputError where the file is damaged."""
    path = folder / "features.json"
    if not path.is_file():
        return ()
    choice = read_json(
        path, _Choice, "delete it, and name the features again: vqabench data prepare --features FILE"
    )
    return tuple(map(Path, choice.features))


def check_choice(files: Sequence[Path]) -> tuple[Path, ...]:
    """Give the files' absolute names. Raises InputError where one is not there."""
    for file in files:
        real = Path(str(file).partition("::")[0])
        if not real.is_file():
            raise InputError(f"--features {real}: {'not a file' if real.exists() else 'there is no such file'}")
    return tuple(file.absolute() for file in files)


def remember_choice(folder: Path, files: Sequence[Path]) -> None:
    """Write down what was chosen, beside the prepared data."""
    write_file(folder / "features.json", msgspec.json.encode(_Choice(tuple(map(str, files)))))
