"""Where runs, data and catalogue lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vqabench.data.catalog.dataset import Dataset, find_dataset
from vqabench.errors import InputError


@dataclass(frozen=True)
class Paths:
    """Where things lie."""

    runs: Path = Path("runs")
    data: Path | None = None
    """None: `$VQABENCH_DATA`, or the platform's data folder."""
    catalog: Path | Sequence[Path] | None = None
    """The user's own catalogues; None: those of `$VQABENCH_CATALOG`, if set."""

    def check_runs(self) -> None:
        """Raise InputError if the folder of runs cannot be one."""
        if self.runs.exists() and not self.runs.is_dir():
            raise InputError(f"--runs {self.runs}: that is a file, not a folder")

    def dataset(self, name: str) -> Dataset:
        """Find a data set."""
        return find_dataset(name, self.catalog, self.data)
