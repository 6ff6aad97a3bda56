"""Locations of runs, data and catalogues."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vqabench.data.catalog.dataset import Dataset, data_folder, find_dataset
from vqabench.errors import InputError
from vqabench.files.folders import require_writable
from vqabench.results import Run


@dataclass(frozen=True)
class Paths:
    """The folders of a command's --runs, --data-dir and --catalog."""

    runs: Path = Path("runs")
    data: Path | None = None
    """None: `$VQABENCH_DATA`, or the platform's data folder."""
    catalog: Path | Sequence[Path] | None = None
    """The user's own catalogues; None: those of `$VQABENCH_CATALOG`, if set."""

    def check_runs(self) -> None:
        """Raise InputError if the folder of runs is a file."""
        if self.runs.exists() and not self.runs.is_dir():
            raise InputError(f"--runs {self.runs}: that is a file, not a folder")

    def check_writable(self, run: Run) -> None:
        """Raise InputError if the folder of a run cannot be created or written to."""
        require_writable(self.runs, "--runs", run.folder.parent)  # the lock is beside the run

    def dataset(self, name: str) -> Dataset:
        """Return the data set of that name. Raises InputError if there is none, or the data folder is a file."""
        folder = data_folder(self.data)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--data-dir {folder}: that is a file, not a folder")
        return find_dataset(name, self.catalog, self.data)

    def to_arguments(self) -> list[str]:
        """Return the options of a command that uses the same data; none that the environment sets already."""
        catalogs = [self.catalog] if isinstance(self.catalog, Path) else self.catalog or []
        words: list[str] = []
        if self.data and os.environ.get("VQABENCH_DATA") != str(self.data):
            words += ["--data-dir", str(self.data)]
        if catalogs and os.environ.get("VQABENCH_CATALOG") != os.pathsep.join(map(str, catalogs)):
            words += [word for path in catalogs for word in ("--catalog", str(path))]
        return words

    def prepare_command(self, name: str, *, has_features: bool = True) -> str:
        """Return the command that prepares a data set, ready to be pasted."""
        features = [] if has_features else ["--features", "FILE"]
        return shlex.join(["vqabench", "data", "prepare", name, *self.to_arguments(), *features])
