"""`vqabench compare A B --explain`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vqabench.errors import InputError, first_few
from vqabench.evaluation.pair import Pair, compare_pair
from vqabench.evaluation.rows import Row, describe_left_out, gather_rows
from vqabench.results import find_runs
from vqabench.workflows.places import Places
from vqabench.workflows.stored import Stored


def explain(
    before: Path, after: Path, places: Places, say: Callable[[str], None]
) -> tuple[Pair, dict[int, str], list[str]]:
    """Compare two configurations, each the runs in a folder, over seeds and over questions.

    Gives with them the wording of the questions, by their ids, and notes on runs that are left out. Raises
    InputError where a folder holds no finished run or several configurations, or the data is not there.
    """
    notes: dict[str, list[str]] = {}
    first, second = (_only_row(folder, notes) for folder in (before, after))
    stored = Stored(places, say)
    pair = compare_pair(first, second, stored.read)
    questions = stored.open(first.runs[0], first.manifests[0]).questions
    return (
        pair,
        {number: one.question for split in questions.values() for number, one in split.items()},
        describe_left_out(notes),
    )


def _only_row(folder: Path, notes: dict[str, list[str]]) -> Row:
    rows = gather_rows(find_runs([folder]), None, notes)
    if not rows:
        raise InputError(f"{folder}: holds no finished run")
    if len(rows) > 1:
        names = first_few(row.title for row in rows)
        raise InputError(f"{folder}: holds {len(rows)} configurations ({names}): name the folder of one")
    return rows[0]
