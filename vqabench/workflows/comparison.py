"""`vqabench compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqabench.errors import InputError
from vqabench.evaluation import comparison
from vqabench.evaluation.rows import TakeApart
from vqabench.results import find_runs
from vqabench.workflows.places import Places


def compare(
    folders: Sequence[Path],
    dataset: str | None,
    places: Places,
    *,
    by_type: bool = True,
    published: bool = False,
    break_down: TakeApart | None = None,
) -> comparison.Comparison:
    """Compare the runs in the given folders, or all runs. Raises InputError where there are none."""
    if not folders and not places.runs.exists():
        raise InputError(f"{places.runs}: no runs yet; begin with: vqabench train NAME")
    runs = find_runs(list(folders) or [places.runs])
    return comparison.compare(runs, dataset, by_type=by_type, published=published, break_down=break_down)
