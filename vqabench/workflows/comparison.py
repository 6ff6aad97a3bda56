"""`vqabench compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqabench.errors import InputError
from vqabench.evaluation import comparison
from vqabench.results import find_runs
from vqabench.workflows.places import Places


def compare(
    folders: Sequence[Path], dataset: str | None, places: Places, *, published: bool = False
) -> comparison.Comparison:
    """Compare the runs in the given folders, or all runs. Raises InputError where there are none."""
    if not folders and not places.runs.exists():
        raise InputError(f"{places.runs}: no runs yet; begin with: vqabench train NAME")
    return comparison.compare(find_runs(list(folders) or [places.runs]), dataset, published=published)
