"""`vqabench compare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vqabench.errors import InputError, first_few
from vqabench.evaluation import comparison
from vqabench.evaluation.pair import Pair, face
from vqabench.evaluation.rows import BreakDown, Row
from vqabench.results import find_runs
from vqabench.workflows.places import Places
from vqabench.workflows.stored import Stored


def compare(
    folders: Sequence[Path],
    dataset: str | None,
    places: Places,
    *,
    published: bool = False,
    break_down: BreakDown | None = None,
) -> comparison.Comparison:
    """Compare the runs in the given folders, or all runs. Raises InputError where there are none."""
    if not folders and not places.runs.exists():
        raise InputError(f"{places.runs}: no runs yet; begin with: vqabench train NAME")
    runs = find_runs(list(folders) or [places.runs])
    return comparison.compare(runs, dataset, published=published, break_down=break_down)


def explain(before: Path, after: Path, places: Places, say: Callable[[str], None]) -> tuple[Pair, dict[int, str]]:
    """Compare two configurations, each the runs in a folder, over seeds and over questions.

    Gives with them the wording of the questions, by their ids. Raises InputError where a folder holds no finished
    run or several configurations, or the data is not there.
    """
    first, second = (_only_row(folder) for folder in (before, after))
    stored = Stored(places, say)
    pair = face(first, second, stored.read)
    questions = stored.open(first.runs[0], first.manifests[0]).questions
    return pair, {number: one.question for split in questions.values() for number, one in split.items()}


def _only_row(folder: Path) -> Row:
    rows = comparison.compare(find_runs([folder])).rows
    if len(rows) > 1:
        names = first_few(f"{row.backbone} {row.strategy}" for row in rows)
        raise InputError(f"{folder}: holds {len(rows)} configurations ({names}): name the folder of one")
    return rows[0]
