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
    """Compare the runs in the given folders, or all runs.

    Without any, `published` gives the paper's tables alone. Raises InputError where there is nothing to show.
    """
    if not folders and not places.runs.exists() and not published:
        raise InputError(f"{places.runs}: no runs yet; begin with: vqabench train NAME")
    try:
        runs = list(find_runs(list(folders) or [places.runs]))
    except InputError as error:
        if folders or not published or against is not None:
            raise
        return comparison.show_tables(dataset, [f"{error}; showing only the paper's tables"])
    compared = comparison.compare(
        runs, dataset, by_type=by_type, published=published, break_down=break_down, against=against
    )
    return replace(compared, notes=(*warn_of_never_given(compared.rows, places.dataset), *compared.notes))
