"""Which files a user chose for a data set whose catalogue names none: features, word vectors; in `chosen.json`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from vqabench.data.folders import require_file
from vqabench.data.packed_files import split_member
from vqabench.errors import InputError
from vqabench.results import read_json, write_file


class FileChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Absolute names; `F.zip::MEMBER` names a member."""

    features: tuple[str, ...] = ()
    word_vectors: str | None = None


def read_choice(folder: Path) -> FileChoice:
    """Read what was chosen. Raises InputError where the file is damaged."""
    path = folder / "chosen.json"
    if not path.is_file():
        return FileChoice()
    return read_json(path, FileChoice, "delete it, and name the files again when preparing, as --features FILE")


def remember_choice(folder: Path, choice: FileChoice) -> None:
    """Write down what was chosen, beside the prepared data."""
    write_file(folder / "chosen.json", msgspec.json.encode(choice))


def check_chosen(option: str, file: Path, may_be_folder: bool = False) -> str:
    """Give a file's, or a folder's, absolute name. Raises InputError where it is not there."""
    real, _ = split_member(file)
    if not real.exists():
        raise InputError(f"{option} {real}: there is no such file")
    if not (may_be_folder and real.is_dir()):
        require_file(real, f"file for {option}")
    return str(file.absolute())
