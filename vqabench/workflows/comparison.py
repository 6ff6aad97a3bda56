"""`vqabench compare`, and `compare A B --explain`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vqabench.data.prepare.digits import picture_regions
from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.errors import InputError, first_few
from vqabench.evaluation import comparison
from vqabench.evaluation.findings import ChangedPair, ChangedQuestion, Region, Reply
from vqabench.evaluation.never_given import warn_of_never_given
from vqabench.evaluation.pair import Pair, compare_pair
from vqabench.evaluation.rows import Row, TakeApart, describe_left_out, gather_rows
from vqabench.evaluation.run_answers import RunAnswers, find_changes, read_answered
from vqabench.events import Emit, Warn
from vqabench.paths import Paths
from vqabench.results import Run, find_runs
from vqabench.training.attention import Attention, attend
from vqabench.workflows.stored import StoredAnswers, TestedSplit

EXAMPLES = 4
"""Of gains, and of losses."""


def describe_pair(before: Row, after: Row, tested: TestedSplit, emit: Emit) -> ChangedPair:
    """Describe what a strategy changed against plain runs, for the first seed that both have.

    Raises InputError if they share no seed, or answers are missing or not to the same questions.
    """
    seed, runs = _share_seed(before, after)
    (table, first), (other, second) = (read_answered(run, tested.split, tested.table) for run in runs)
    if table.question_ids.tolist() != other.question_ids.tolist():
        raise InputError(f"{runs[0].folder} and {runs[1].folder} answer different questions")
    changes = find_changes(first.accuracies_N, second.accuracies_N, table.question_types.strings(), EXAMPLES)
    chosen = [*changes.best, *changes.worst]
    missing, attention = _look(runs, tested, table.question_ids[chosen].tolist(), emit)
    sides = list(zip((first, second), attention, strict=True))
    described = [
        _describe(tested, table, row, *(_reply(answered, row, seen[place]) for answered, seen in sides))
        for place, row in enumerate(chosen)
    ]
    return ChangedPair(
        before,
        after,
        seed,
        tested.split,
        changes.questions,
        changes.gained,
        changes.lost,
        tuple(described[: len(changes.best)]),
        tuple(described[len(changes.best) :]),
        tuple(missing),
    )


def _share_seed(before: Row, after: Row) -> tuple[int, tuple[Run, Run]]:
    runs = [dict(zip(row.seeds, row.runs, strict=True)) for row in (before, after)]
    shared = sorted(runs[0].keys() & runs[1].keys())
    if not shared:
        raise InputError(f"{before.name} and {after.name} share no seed")
    return shared[0], (runs[0][shared[0]], runs[1][shared[0]])


def _look(
    runs: Sequence[Run], tested: TestedSplit, question_ids: Sequence[int], emit: Emit
) -> tuple[list[str], list[Sequence[Attention | None]]]:
    """Return notes on missing attention, and each run's attention to each question."""
    missing: list[str] = []
    attention: list[Sequence[Attention | None]] = []
    rows = [tested.rows[number] for number in question_ids]
    for run in runs:
        try:
            seen = attend(run, tested.dataset, tested.prepared, tested.split, rows, emit) if rows else []
            backbone = run.read_manifest().backbone
            missing += [f"no attention over regions: {backbone} gives none"] * (seen is None)
        except Exception as error:  # of a plugin, which may raise anything
            seen = None
            missing.append(f"no attention over regions: {error}")
            emit(Warn(missing[-1]))
        attention.append([None] * len(rows) if seen is None else seen)
    return list(dict.fromkeys(missing)), attention


def _reply(answered: RunAnswers, row: int, attention: Attention | None) -> Reply:
    sure = answered.confidences_N
    return Reply(
        answered.answers[row],
        None if sure is None else float(sure[row]),
        float(answered.accuracies_N[row]),
        attention,
    )


def _describe(
    tested: TestedSplit, table: AnnotationTable, row: int, before: Reply, after: Reply
) -> ChangedQuestion:
    asked = tested.questions[int(table.question_ids[row])]
    given = Counter(table.answers.names[code] for code in table.answers.codes[row].tolist())
    return ChangedQuestion(
        asked.question_id,
        asked.question,
        table.question_types.names[table.question_types.codes[row]],
        tuple(sorted(given.items(), key=lambda pair: (-pair[1], pair[0]))),
        before,
        after,
        _regions_of(tested, asked.question_id),
    )


def _regions_of(tested: TestedSplit, question_id: int) -> tuple[Region, ...]:
    features, spec = tested.prepared.features, tested.prepared.spec
    image = int(tested.prepared.splits[tested.split].image_rows[tested.rows[question_id]])
    real = range(int(features.counts[image]))
    pictures = picture_regions(tested.dataset, features.regions[image, : len(real)])
    names = [""] * len(real)
    if features.object_ids is not None and spec.object_names is not None:
        names = [spec.object_names[number] for number in features.object_ids[image].tolist()]
    boxes = features.boxes[image].tolist()
    return tuple(
        Region(tuple(boxes[number]), names[number], pictures[number] if pictures else None) for number in real
    )


def explain(
    before: Path, after: Path, paths: Paths, say: Callable[[str], None]
) -> tuple[Pair, dict[int, str], list[str]]:
    """Compare two configurations, each the runs in a folder, over seeds and over questions.

    Also return the wording of the questions, by their ids, and notes on runs that are left out. Raises
    InputError if a folder holds no finished run or several configurations, or the data is not there.
    """
    notes: dict[str, list[str]] = {}
    first, second = (_only_row(folder, notes) for folder in (before, after))
    stored = StoredAnswers(paths, say)
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


def compare(
    folders: Sequence[Path],
    dataset: str | None,
    paths: Paths,
    *,
    by_type: bool = True,
    published: bool = False,
    break_down: TakeApart | None = None,
    against: str | None = None,
) -> comparison.Comparison:
    """Compare the runs in the given folders, or all runs.

    Without any, `published` gives the paper's tables alone. Raises InputError if there is nothing to show.
    """
    if not folders and not paths.runs.exists() and not published:
        raise InputError(f"{paths.runs}: no runs yet; begin with: vqabench train NAME")
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
