"""`vqabench compare`, and `compare A B --explain`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vqabench.errors import InputError, first_few
from vqabench.evaluation import comparison
from vqabench.evaluation.notes import warn_of_never_given
from vqabench.evaluation.pair import Pair, compare_pair
from vqabench.evaluation.rows import BreakDown, Row, gather_rows
from vqabench.paths import Paths
from vqabench.results import BEGIN, find_runs


def explain(
    before: Path, after: Path, paths: Paths, say: Callable[[str], None]
) -> tuple[Pair, dict[int, str], list[str]]:
    """Compare two configurations, each the runs in a folder, over seeds and over questions.

    Also return the wording of the questions, by their ids, and notes on runs that are left out. Raises
    InputError if a folder holds no finished run or several configurations, or the data is not there.
    """
    from vqabench.workflows.stored import StoredAnswers  # loads torch, which plain comparisons do not need

    (first, notes), (second, other_notes) = (_read_row(folder) for folder in (before, after))
    stored = StoredAnswers(paths, say)
    pair = compare_pair(first, second, stored.read)
    questions = stored.open(first.runs[0], first.manifests[0]).questions
    return (
        pair,
        {number: one.question for split in questions.values() for number, one in split.items()},
        list(dict.fromkeys([*notes, *other_notes])),
    )


def _read_row(folder: Path) -> tuple[Row, list[str]]:
    rows, notes = gather_rows(find_runs([folder]), None)
    if not rows:
        raise InputError(f"{folder}: holds no finished run")
    if len(rows) > 1:
        names = first_few(row.title for row in rows)
        raise InputError(f"{folder}: holds {len(rows)} configurations ({names}): name the folder of one")
    return rows[0], notes


def compare(
    folders: Sequence[Path],
    dataset: str | None,
    paths: Paths,
    *,
    by_type: bool = True,
    published: bool = False,
    break_down: BreakDown | None = None,
    against: str | None = None,
) -> comparison.Comparison:
    """Compare the runs in the given folders, or all runs.

    Without any, `published` gives the paper's tables alone. Raises InputError if there is nothing to show.
    """
    if not folders and not paths.runs.exists() and not published:
        raise InputError(f"{paths.runs}: no runs yet; {BEGIN}")
    try:
        runs = list(find_runs(list(folders) or [paths.runs]))
    except InputError as error:
        if folders or not published or against is not None:
            raise
        return comparison.show_tables(dataset, [f"{error}; showing only the paper's tables"])
    compared = comparison.compare(
        runs, dataset, by_type=by_type, published=published, break_down=break_down, against=against
    )
    return replace(compared, notes=(*warn_of_never_given(compared.rows, paths.dataset), *compared.notes))
