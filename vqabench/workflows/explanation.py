"""`vqabench compare A B --explain`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vqabench.errors import InputError, first_few
from vqabench.evaluation.comparison import compare
from vqabench.evaluation.pair import Pair, face
from vqabench.evaluation.rows import Row
from vqabench.results import find_runs
from vqabench.workflows.places import Places
from vqabench.workflows.stored import Stored


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
    rows = compare(find_runs([folder])).rows
    if len(rows) > 1:
        names = first_few(f"{row.backbone} {row.strategy}" for row in rows)
        raise InputError(f"{folder}: holds {len(rows)} configurations ({names}): name the folder of one")
    return rows[0]
