"""`vqabench compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vqabench.errors import InputError
from vqabench.evaluation import comparison
from vqabench.evaluation.never_given import warn_of_never_given
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
    against: str | None = None,
) -> comparison.Comparison:
    """Compare the runs in the given folders, or all runs. Raises InputError where there are none."""
    if not folders and not places.runs.exists():
        raise InputError(f"{places.runs}: no runs yet; begin with: vqabench train NAME")
    compared = comparison.compare(
        find_runs(list(folders) or [places.runs]),
        dataset,
        by_type=by_type,
        published=published,
        break_down=break_down,
        against=against,
    )
    return replace(compared, notes=(*warn_of_never_given(compared.rows, places.dataset), *compared.notes))
